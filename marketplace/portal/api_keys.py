"""API keys as the pages of a business, a provider and an operator list them."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from marketplace.portal.frame import badge
from marketplace.portal.listing import Column, Listing, code
from marketplace.runtime import clock
from marketplace.security.auth import ApiKey
from marketplace.text.faults import WORDS

KeyName = Annotated[str, Meta(min_length=1, max_length=100, pattern=WORDS)]
KeyDays = Annotated[int, Meta(ge=1, le=3_650)]


MOST_SHOWN: Final = 200
"Keys on the page of an account."


class RotateForm(msgspec.Struct, frozen=True, kw_only=True):
    """The hours during which the old key still works."""

    hours: Annotated[int, Meta(ge=0, le=720)] = 24


def state_of(key: ApiKey) -> str:
    """Return `revoked`, `expired`, `ending` (active, and expires later) or `active`."""
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "active"
    return "expired" if key.expires_at <= clock.now() else "ending"


def works(key: ApiKey) -> bool:
    """Return whether requests with the key are accepted, so that it may be rotated or revoked."""
    return state_of(key) in ("active", "ending")


def _state(key: ApiKey) -> tuple[object, ...]:
    """Return the badge of the state, and a warning with the day on which the key was seen in a web address."""
    state = state_of(key)
    state_badge = badge(state, "warn" if state == "ending" else "")
    if key.seen_in_url_at is None or not works(key):
        return (state_badge,)
    return state_badge, badge("replace: it was sent in a web address on", "bad"), key.seen_in_url_at


KEYS: Final = Listing[ApiKey](
    caption="Keys",
    columns=(
        Column("Name", lambda key: key.name),
        Column("Id", lambda key: code(key.id)),
        Column("Mode", lambda key: badge(key.mode, "good" if key.mode == "live" else "warn")),
        Column("State", _state, time="day"),
        Column("Created", lambda key: key.created_at, time="day"),
        Column("Ends", lambda key: key.revoked_at or key.expires_at),
    ),
)
