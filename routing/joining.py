"""Repeated inquiries: consequences when a person asks again in a vertical while the window of the first is open.

Such an inquiry never makes a second lead. In a vertical that joins repeated inquiries, its answers count for the
earlier lead as those of a touch do: each by its time and its evidence (routing/journey.py).
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple, assert_never
from uuid import UUID

from routing.inquiry import Facts, Touch, TouchKind
from routing.journey import MOST_TOUCHES, JourneyEntry, Supplied, TouchEntry

MOST_JOINED: Final = 20
"""Most inquiries that join one lead. More of them tell nothing new, and would take the places of the touches that the
lead's own provider sends."""


class RepeatInquiries(StrEnum):
    """Consequence of a repeated inquiry for the earlier lead."""

    duplicate = "duplicate"
    """None."""
    joined = "joined"
    """The earlier lead gets its answers."""


class PayJoined(StrEnum):
    """Receiver of a lead's payout where several providers sent its person before it was shown to a business."""

    first = "first"
    """The provider of the lead."""
    last = "last"
    """The provider of the inquiry that joined last."""
    split = "split"  # type: ignore[assignment]  # str has a method of this name
    """All of them in equal parts; the provider of the lead also gets the remainder."""


PAY_IN_WORDS: Final = {
    PayJoined.first: "to the provider of the lead",
    PayJoined.last: "to the provider whose inquiry joined last",
    PayJoined.split: "to all these providers in equal parts",
}
"Where the payout of a lead goes that other inquiries joined before its delivery."


class JoinReason(StrEnum):
    """Reason of a duplicate that joined an earlier lead, as its provider reads it where it may know."""

    joined = "joined"
    """The answers joined an earlier lead, whose provider is paid."""
    joined_paid_if_last = "joined_paid_if_last"
    """The answers joined an earlier lead. If it is sold and no other inquiry joins it before, its payout is yours."""
    joined_paid_share = "joined_paid_share"
    """The answers joined an earlier lead. If it is sold, you get an equal part of its payout."""
    joined_after_delivery = "joined_after_delivery"
    """The answers joined after the earlier lead had been shown to a business: no payout."""


class Claimant(NamedTuple):
    """A provider that sent the person of a lead, and the inquiry that joined it; None for the provider of the lead."""

    provider_id: UUID
    inquiry_id: UUID | None


def joining_entry(facts: Facts, revision: int, touch_id: str) -> TouchEntry:
    """Return the touch by which a repeated inquiry joins the journey of the earlier lead, as its entry of `revision`.

    It supplies the answers of the inquiry and nothing else: not its place, its origin, its consent or its own touches.
    """
    supplies = Supplied(
        budget=facts.budget,
        authority=facts.authority,
        need_fields=facts.need_fields,
        timing=facts.timing,
        evidence=facts.evidence,
        company_size=facts.company_size,
        role=facts.role,
    )
    touch = Touch(kind=TouchKind.inquiry, at=facts.asked_at, detail="", touch_id=touch_id)
    return TouchEntry(revision=revision, touch=touch, supplies=supplies)


def has_room(entries: Iterable[JourneyEntry]) -> bool:
    """Return whether one more inquiry may join a lead with this journey."""
    touches = [entry.touch for entry in entries if isinstance(entry, TouchEntry)]
    joined = sum(touch.kind == TouchKind.inquiry for touch in touches)
    return joined < MOST_JOINED and len(touches) < MOST_TOUCHES


def join_reason(pay: PayJoined, *, in_time: bool) -> JoinReason:
    """Return the reason of a duplicate that joined a lead. `in_time`: no business had been shown the lead by then.

    Where the provider of the lead is paid in any case, the reason does not say whether a business was shown it.
    """
    match pay:
        case PayJoined.first:
            return JoinReason.joined
        case PayJoined.last:
            return JoinReason.joined_paid_if_last if in_time else JoinReason.joined_after_delivery
        case PayJoined.split:
            return JoinReason.joined_paid_share if in_time else JoinReason.joined_after_delivery
        case _:
            assert_never(pay)


def find_payees(pay: PayJoined, first: Claimant, joined: Sequence[Claimant]) -> tuple[Claimant, ...]:
    """Return who is paid for a lead, each provider once.

    `first` is the provider of the lead, `joined` are those whose inquiries joined it in time, in their order.
    """
    match pay:
        case PayJoined.first:
            return (first,)
        case PayJoined.last:
            last = (first, *joined)[-1]
            return (first if last.provider_id == first.provider_id else last,)
        case PayJoined.split:
            earliest: dict[UUID, Claimant] = {}
            for claimant in (first, *joined):
                earliest.setdefault(claimant.provider_id, claimant)
            return tuple(earliest.values())
        case _:
            assert_never(pay)
