"""Question of a report: days, time zone, mode and party; and its basis, which every report repeats.

The same month has other figures in another time zone or by another moment, so every report states its `ReportBasis`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from marketplace.directory.wire import SLUG
from marketplace.runtime import ids
from marketplace.runtime.errors import InvalidInput
from marketplace.text.faults import Fault, FaultCode
from marketplace.text.values import read_day
from routing.subscription import is_zone

USUAL_DAYS: Final = 30
MOST_DAYS: Final = 400
"Most days of a question: a year, together with the same month of the year before."

DATE: Final = {"type": "string", "format": "date"}


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Question of a report: whole days of `zone` from `first` to `last`, both included.

    `provider_id` or `business_id` limit it to one party's figures, `vertical` to one vertical.
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
        """Start of the first day, in UTC."""
        return midnight(self.first, self.zone)

    @property
    def until(self) -> datetime:
        """End of the last day, exclusive, in UTC."""
        return midnight(self.last + timedelta(days=1), self.zone)

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    def rows(self, **filters: str | int | float | None) -> str:
        """Return the URL that lists the leads behind a figure."""
        span: dict[str, object] = {"from": self.first, "to": self.last, "zone": self.zone, "mode": self.mode}
        parties = {
            "provider_id": ids.encode("prov", self.provider_id) if self.provider_id else None,
            "business_id": ids.encode("biz", self.business_id) if self.business_id else None,
            "vertical": self.vertical,
        }
        stated = {name: value for name, value in (parties | filters).items() if value is not None}
        return f"/v1/reports/leads?{urlencode(span | stated)}"


class ReportBasis(msgspec.Struct, frozen=True, kw_only=True):
    """Basis of figures: their days, time zone and mode, and the time as of which they are.

    Changes to past hours are included up to `as_of`; the newest hours are as of now. `demo` is true if some of the data
    was generated for demonstration.
    """

    first: date
    last: date
    zone: str
    mode: str
    words: str
    as_of: datetime
    demo: bool = False


def basis(question: Question, clock: str, as_of: datetime, *, demo: bool = False) -> ReportBasis:
    """Return the basis of a question. `clock` names the time that puts a row on its day, as in "by received time"."""
    return ReportBasis(
        first=question.first,
        last=question.last,
        zone=question.zone,
        mode=question.mode,
        words=f"by {clock}, {question.zone}, {question.first} to {question.last}",
        as_of=as_of,
        demo=demo,
    )


def usual(zone: str, now: datetime) -> Question:
    """Return the question about the last thirty days, including today."""
    today = now.astimezone(ZoneInfo(zone)).date()
    return Question(first=today - timedelta(days=USUAL_DAYS - 1), last=today, zone=zone)


def read_question(parameters: Mapping[str, str], now: datetime) -> Question:
    """Read days, zone, mode and vertical from query parameters. The default is the last thirty days in UTC.

    Raises InvalidInput with all faults at once.
    """
    faults: list[Fault] = []
    zone = parameters.get("zone", "UTC")
    if not is_zone(zone):
        faults.append(Fault(pointer="/zone", code="zone_unknown", detail="Name an IANA zone such as America/Chicago."))
        zone = "UTC"
    mode = parameters.get("mode", "live")
    if mode not in ("live", "test"):
        faults.append(Fault(pointer="/mode", code=FaultCode.value_not_allowed, detail="Ask for live or for test."))
    days = {name: _day(parameters[name], name, faults) for name in ("from", "to") if name in parameters}
    vertical = parameters.get("vertical")
    if vertical is not None and not re.fullmatch(SLUG, vertical):
        faults.append(
            Fault(pointer="/vertical", code=FaultCode.value_not_allowed, detail="Name a vertical by its slug.")
        )
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
    """Return the start of a local day, in UTC; if the clock skips midnight, the moment of the change."""
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)
