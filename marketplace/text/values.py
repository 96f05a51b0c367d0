"""Reading of values that people send as text: a time, a day, a count, each within bounds.

Bodies are read by `marketplace.text.faults.read`, with the same bounds; queries, forms and files are read by these
functions, and amounts by `marketplace.imports.amounts`. Each returns None for an invalid value, and callers word the
fault.
"""

import re
from datetime import date, datetime
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from marketplace.text.faults import is_within_calendar

MOST_MINOR: Final = 10**12
"Minor units: more than any price, wallet or value of a lead, and far below the limits of the database."

Instant = Annotated[datetime, Meta(tz=True)]
"A time with its offset from UTC; `read` limits it to the years 1971 to 2999."
Minor = Annotated[int, Meta(ge=0, le=MOST_MINOR)]
"Money in minor units; the currency is in another field."

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LOCAL: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?")


def read_day(text: str | None) -> date | None:
    """Return a day such as 2026-11-21 in the years 1971 to 2999, or None."""
    if text is None or not _DAY.fullmatch(text):
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if is_within_calendar(day) else None


def read_instant(text: str | None) -> datetime | None:
    """Return a time with offset such as 2026-11-21T10:00:00Z in the years 1971 to 2999, or None."""
    try:
        moment = msgspec.convert(text, Instant)
    except msgspec.ValidationError:
        return None
    return moment if is_within_calendar(moment) else None


def read_local(text: str | None, zone: ZoneInfo) -> datetime | None:
    """Return a time as a browser's field sends it, such as 2026-11-21T10:00, in `zone`; or None."""
    if text is None or not _LOCAL.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=zone) if is_within_calendar(moment) else None


def read_count(text: str | None, least: int, most: int) -> int | None:
    """Return an integer in ASCII digits from `least`, which is not negative, to `most`; or None."""
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= len(str(most))):
        return None
    count = int(text)
    return count if least <= count <= most else None
