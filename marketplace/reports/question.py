"""What a report is asked: which days in which zone, which mode, whose figures; and how that is said back.

Every report answers with its `Basis`, because the same month has other figures by another clock.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from marketplace import ids
from marketplace.directory.wire import SLUG
from marketplace.errors import InvalidInput
from marketplace.faults import Code, Fault
from marketplace.values import read_day
from routing.subscription import is_zone

USUAL_DAYS: Final = 30
MOST_DAYS: Final = 400
"A year, and the same month of the year before beside it; more is two questions."

DATE: Final = {"type": "string", "format": "date"}


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Whole days from `first` to `last`, both included, as the clocks of `zone` have them.

    `provider_id` or `business_id` confine it to one party's own figures; `vertical` to one market.
    """

    first: date
    last: date
    zone: str
    mode: str = "live"
    provider_id: UUID | None = None
    business_id: UUID | None = None
    vertical: str | None = None

    @property
    def since(self) -> datetime:
        """The first moment, in UTC."""
        return midnight(self.first, self.zone)

    @property
    def until(self) -> datetime:
        """The first moment after it, in UTC."""
        return midnight(self.last + timedelta(days=1), self.zone)

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    def rows(self, **filters: str | int | float | None) -> str:
        """The URL of the leads behind a figure."""
        asked: dict[str, object] = {"from": self.first, "to": self.last, "zone": self.zone, "mode": self.mode}
        parties = {
            "provider_id": ids.encode("prov", self.provider_id) if self.provider_id else None,
            "business_id": ids.encode("biz", self.business_id) if self.business_id else None,
            "vertical": self.vertical,
        }
        narrowed = {name: value for name, value in (parties | filters).items() if value is not None}
        return f"/v1/reports/leads?{urlencode(asked | narrowed)}"


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures are of: days by which clock, and how fresh. `demo`: some of it was made up to look at.

    Changes to hours that ended are in the figures as of `as_of`; the newest hours are as they stand now.
    """

    first: date
    last: date
    zone: str
    mode: str
    words: str
    as_of: datetime
    demo: bool = False


def basis(question: Question, clock: str, as_of: datetime, *, demo: bool = False) -> Basis:
    """`clock` is the moment that puts a row on its day, as in "by received time"."""
    return Basis(
        first=question.first, last=question.last, zone=question.zone, mode=question.mode,
        words=f"by {clock}, {question.zone}, {question.first} to {question.last}", as_of=as_of, demo=demo,
    )  # fmt: skip


def usual(zone: str, now: datetime) -> Question:
    """The last thirty days up to today."""
    today = now.astimezone(ZoneInfo(zone)).date()
    return Question(first=today - timedelta(days=USUAL_DAYS - 1), last=today, zone=zone)


def read_question(asked: Mapping[str, str], now: datetime) -> Question:
    """The days, zone, mode and vertical in a query string, the last thirty days in UTC unless it says other.

    Raises InvalidInput with every fault at once.
    """
    faults: list[Fault] = []
    zone = asked.get("zone", "UTC")
    if not is_zone(zone):
        faults.append(Fault(pointer="/zone", code="zone_unknown", detail="Name an IANA zone such as America/Chicago."))
        zone = "UTC"
    mode = asked.get("mode", "live")
    if mode not in ("live", "test"):
        faults.append(Fault(pointer="/mode", code=Code.value_not_allowed, detail="Ask for live or for test."))
    days = {name: _day(asked[name], name, faults) for name in ("from", "to") if name in asked}
    vertical = asked.get("vertical")
    if vertical is not None and not re.fullmatch(SLUG, vertical):
        faults.append(Fault(pointer="/vertical", code=Code.value_not_allowed, detail="Name a vertical by its slug."))
    if faults:
        raise InvalidInput(faults)
    today = now.astimezone(ZoneInfo(zone)).date()
    last = days.get("to") or max(today, days.get("from") or today)
    first = days.get("from") or last - timedelta(days=USUAL_DAYS - 1)
    if first > last:
        raise InvalidInput([Fault(pointer="/from", code="range_reversed", detail="Let from be no later than to.")])
    if (last - first).days >= MOST_DAYS:
        detail = f"Ask for at most {MOST_DAYS} days at once."
        raise InvalidInput([Fault(pointer="/from", code="range_too_long", detail=detail)])
    return Question(first=first, last=last, zone=zone, mode=mode, vertical=vertical)


def _day(text: str, name: str, faults: list[Fault]) -> date | None:
    day = read_day(text)
    if day is None:
        faults.append(Fault(pointer=f"/{name}", code="date_invalid", detail="Write the day as 2026-11-21."))
    return day


def midnight(day: date, zone: str) -> datetime:
    """The first moment of the day: where the clock skips midnight, the moment of the change."""
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)
