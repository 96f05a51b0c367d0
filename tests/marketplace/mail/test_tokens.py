"""Signed tags and links: valid for one purpose, until their end, whatever a mail server does to their case."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.mail.tokens import LinkToken, TokenPurpose, Tokens

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
SUBJECT = UUID("01890000-0000-7000-8000-000000000001")
TOKENS = Tokens(bytes(range(32)))


def test_a_tag_is_read_in_any_case_and_fits_an_address() -> None:
    tag = TOKENS.tag(TokenPurpose.bounce_of_lead, SUBJECT)
    assert len(tag) == 42
    assert TOKENS.read_tag(TokenPurpose.bounce_of_lead, tag.upper()) == SUBJECT


@pytest.mark.parametrize("purpose", [purpose for purpose in TokenPurpose if purpose != TokenPurpose.bounce_of_lead])
def test_a_tag_for_one_purpose_is_not_valid_for_another(purpose: TokenPurpose) -> None:
    assert TOKENS.read_tag(purpose, TOKENS.tag(TokenPurpose.bounce_of_lead, SUBJECT)) is None


def test_a_link_is_valid_until_its_end() -> None:
    token = LinkToken(subject=SUBJECT, expires_at=NOW, detail="contacted")
    text = TOKENS.link(TokenPurpose.outcome, token)
    assert TOKENS.read_link(TokenPurpose.outcome, text, NOW - timedelta(seconds=1)) == token
    assert TOKENS.read_link(TokenPurpose.outcome, text, NOW) is None
    assert Tokens(bytes(32)).read_link(TokenPurpose.outcome, text, NOW - timedelta(days=1)) is None


@given(st.text(max_size=100))
def test_a_made_up_text_is_no_token(text: str) -> None:
    assert TOKENS.read_tag(TokenPurpose.bounce_of_lead, text) is None
    assert TOKENS.read_link(TokenPurpose.outcome, text, NOW) is None
