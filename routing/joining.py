"""Repeated inquiries: consequences when a person asks again in a vertical while the window of the first is open.

Such an inquiry never makes a second lead. In a vertical that joins repeated inquiries, its answers count for the
earlier lead as those of a touch do: each by its time and its evidence (routing/journey.py).
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from routing.inquiry import Facts, Touch, TouchKind
from routing.journey import MOST_TOUCHES, JourneyEntry, Supplied, TouchEntry

MOST_JOINED: Final = 20
"""Most inquiries that join one lead. More of them tell nothing new, and would take the places of the touches that the
lead's own provider sends."""

JOINED: Final = "joined"
"Reason of a duplicate that joined an earlier lead, in a vertical whose providers may know it."


class RepeatInquiries(StrEnum):
    """Consequence of a repeated inquiry for the earlier lead."""

    duplicate = "duplicate"
    """None."""
    joined = "joined"
    """The earlier lead gets its answers."""


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
