"""Messages that came back: recorded once with what they are about, counted, and moved to the read ones."""

from collections import Counter
from email.message import EmailMessage
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.delivery.bounces import BounceOutcome, BounceReport, BounceSubject, read_bounce, record_bounce
from marketplace.delivery.command import read_maildir
from marketplace.mail.tokens import TokenPurpose, Tokens
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind
from tests.builders.mail import MailMarketplace, mailing
from tests.builders.portal import signed_in
from tests.builders.service import serve

TOKENS = Tokens(bytes(range(32)))
SUBJECT = UUID("01890000-0000-7000-8000-000000000001")


def bounce(tag: str, status: str = "5.1.1", action: str = "failed", header: str = "To") -> bytes:
    """A report of a mail server as RFC 3464 has it."""
    return (
        f"From: MAILER-DAEMON@mx.example\r\n{header}: <b+{tag}@leads.example>\r\nSubject: Undelivered\r\n"
        'MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary="x"\r\n\r\n'
        "--x\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n"
        "--x\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n"
        f"Final-Recipient: rfc822; owner@roofs.example\r\nAction: {action}\r\nStatus: {status} (unknown)\r\n\r\n"
        "--x\r\nContent-Type: message/rfc822\r\n\r\nSubject: New lead\r\n\r\nCall Ann.\r\n--x--\r\n"
    ).encode()


@pytest.mark.parametrize("header", ["To", "Delivered-To", "X-Original-To", "Envelope-To"])
@pytest.mark.parametrize(
    ("purpose", "subject"),
    [(TokenPurpose.bounce_of_lead, BounceSubject.lead), (TokenPurpose.bounce_of_mail, BounceSubject.mail)],
)
def test_a_bounce_says_which_message_came_back_and_why(
    header: str, purpose: TokenPurpose, subject: BounceSubject
) -> None:
    content = bounce(TOKENS.tag(purpose, SUBJECT).upper(), header=header)
    assert read_bounce(content, TOKENS) == BounceReport(subject=subject, id=SUBJECT, status="5.1.1")


def out_of_office() -> bytes:
    message = EmailMessage()
    message["To"] = f"b+{TOKENS.tag(TokenPurpose.bounce_of_lead, SUBJECT)}@leads.example"
    message["Auto-Submitted"] = "auto-replied"
    message.set_content("I am away until Monday. Status: 5.1.1")
    return message.as_bytes()


GOOD = TOKENS.tag(TokenPurpose.bounce_of_lead, SUBJECT)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00\r\n\r\n",
        out_of_office(),
        bounce("a" * 42),
        bounce(GOOD, action="delivered"),
        bounce(GOOD, status="none"),
        bounce(GOOD, status="9.1.1"),
        bounce(GOOD)[:300],
    ],
)
def test_anything_else_is_no_bounce(content: bytes) -> None:
    assert read_bounce(content, TOKENS) is None


@given(st.binary(max_size=400), st.integers(0, 700))
def test_no_message_makes_the_reader_fail(noise: bytes, place: int) -> None:
    content = bounce(GOOD)
    read_bounce(content[:place] + noise + content[place:], TOKENS)


async def sent(mail: MailMarketplace, mode: str) -> str:
    """Sell a lead by e-mail, and return the tag of the message's sender."""
    await mail.buyer(mode)
    await mail.walker.walk((await mail.market.submit()).id)
    await mail.outbox.send_due()
    return mail.server.mails[0].sender.partition("+")[2].partition("@")[0]


@pytest.mark.parametrize("mode", ["full", "link"])
async def test_a_bounce_is_recorded_once_and_counted_in_the_breaker(settings: Settings, mode: str) -> None:
    async with mailing(settings) as mail:
        content = bounce(await sent(mail, mode))
        outcomes = [await record_bounce(mail.market.worker, mail.tokens, content) for _ in range(2)]
        assert outcomes == [BounceOutcome.recorded, BounceOutcome.repeated]
        row = await mail.market.row("select status, assignment_id, mail_id, endpoint_id from mail_bounce")
        assert (row["status"], row["assignment_id"] is None, row["mail_id"] is None) == (
            "5.1.1",
            mode == "link",
            mode == "full",
        )
        assert await mail.market.value("select breaker ->> 'consecutive_failures' from endpoint") == "1"
        assert (await mail.lead())[0] == ("delivered" if mode == "full" else "held")


async def test_a_bounce_is_shown_to_the_business_and_to_the_operator(settings: Settings) -> None:
    async with mailing(settings) as mail, serve(settings) as api:
        await record_bounce(mail.market.worker, mail.tokens, bounce(await sent(mail, "full")))
        business_id = await mail.market.value("select business_id from assignment")
        for kind, owner, path in (
            (CallerKind.business, business_id, "/business/delivery"),
            (CallerKind.operator, None, "/operator/deliveries"),
        ):
            text = (await (await signed_in(api, kind, owner)).get(path)).text
            assert "The address does not exist (5.1.1)." in text
            assert "owner@roofs.example" in text


async def test_a_delay_is_recorded_and_not_counted(settings: Settings) -> None:
    async with mailing(settings) as mail:
        content = bounce(await sent(mail, "full"), "4.4.1", "delayed")
        assert await record_bounce(mail.market.worker, mail.tokens, content) is BounceOutcome.delayed
        assert await mail.market.value("select breaker::text from endpoint") == "{}"


async def test_the_messages_of_a_maildir_are_read_once(settings: Settings, tmp_path: Path) -> None:
    async with mailing(settings) as mail:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "1").write_bytes(bounce(await sent(mail, "full")))
        (tmp_path / "new" / "2").write_bytes(b"hello")
        totals = await read_maildir(mail.market.worker, mail.tokens, tmp_path)
        assert totals == Counter({BounceOutcome.recorded: 1, BounceOutcome.ignored: 1})
        assert sorted(file.name for file in (tmp_path / "cur").iterdir()) == ["1:2,S", "2:2,S"]
        assert await read_maildir(mail.market.worker, mail.tokens, tmp_path) == Counter()
