"""The journey of a lead in words, for the lead pages of operators, businesses and providers."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

from marketplace.portal.frame import words
from routing.inquiry import Budget, Direction, Timing, Touch, amount_in_words
from routing.journey import (
    NEED_PREFIX,
    CorrectionEntry,
    FactValue,
    JourneyEntry,
    Supplied,
    TouchEntry,
    supplied_values,
)

BEGUN_BY: Final = {Direction.inbound: "begun by the person", Direction.outbound: "begun by the provider"}
"Words for who began a call or a chat."

FIELDS: Final = {
    "full_name": "name",
    "phone": "phone number",
    "phone_extension": "phone extension",
    "email": "e-mail address",
    "street": "street",
    "postal_code": "postal code",
}
"Words for the fields of a contact."


class JourneyEvent(NamedTuple):
    """One line of a timeline."""

    at: datetime
    title: str
    text: str
    tone: str


def journey_events(entries: Iterable[JourneyEntry]) -> tuple[JourneyEvent, ...]:
    """Return the touches and corrections in order of time."""
    events = (_touch_event(entry) if isinstance(entry, TouchEntry) else _correction_event(entry) for entry in entries)
    return tuple(sorted(events))


def _touch_event(entry: TouchEntry) -> JourneyEvent:
    parts = [touch_in_words(entry.touch), *_answers(entry.supplies)]
    text = ". ".join(part for part in parts if part)
    return JourneyEvent(entry.at, words(entry.touch.kind), text, "muted")


def _correction_event(entry: CorrectionEntry) -> JourneyEvent:
    parts = list(_answers(entry.supplies))
    if entry.clears:
        parts.append("Removed: " + ", ".join(name_in_words(name).lower() for name in entry.clears))
    if entry.contact:
        parts.append("Changed: " + ", ".join(FIELDS.get(name, name) for name in entry.contact))
    return JourneyEvent(entry.at, "Corrected by the provider", ". ".join(parts), "warn")


def touch_in_words(touch: Touch) -> str:
    """Return the details of a touch without its kind; empty if it has none."""
    parts = [touch.detail]
    if touch.direction is not None:
        parts.append(BEGUN_BY[touch.direction])
    if touch.seconds is not None:
        parts.append(f"{touch.seconds:,} seconds" if touch.seconds else "not answered")
    if touch.amount is not None:
        parts.append(amount_in_words(touch.amount.minor, touch.amount.currency))
    if touch.starts_at is not None:
        parts.append(f"for {touch.starts_at:%Y-%m-%d %H:%M} UTC")
    return ", ".join(part for part in parts if part)


def _answers(supplies: Supplied) -> Iterable[str]:
    """Yield each supplied answer with its name."""
    for name, value in supplied_values(supplies).items():
        yield f"{name_in_words(name)}: {value_in_words(value)}"


def name_in_words(name: str) -> str:
    """Return the name of a value, such as "Roof type" for `need.roof_type`."""
    return words(name.removeprefix(NEED_PREFIX))


def value_in_words(value: FactValue | None) -> str:
    """Return a value as a person would say it."""
    match value:
        case None:
            return "not known"
        case Budget(maximum_minor=None):
            return amount_in_words(value.minor, value.currency)
        case Budget(maximum_minor=int() as maximum):
            return f"{amount_in_words(value.minor, value.currency)} to {amount_in_words(maximum, value.currency)}"
        case Timing(not_before=None):
            return f"within {value.within_days} days"
        case Timing():
            return f"not before {value.not_before:%Y-%m-%d}"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value).replace("_", " ")
