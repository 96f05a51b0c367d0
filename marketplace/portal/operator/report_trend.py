"""Headline figures of a report, each with the period before beside it and a trend over the days of the report.

The period before has as many days and ends the day before the report begins. The trend has the same figure of up to
TREND_PARTS parts of the report's days, all but the last equally long.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, TypeVar

import msgspec
from markupsafe import Markup

from marketplace.portal import charts
from marketplace.portal.frame import percent
from marketplace.reports.question import Question

Report = TypeVar("Report")

TREND_PARTS: Final = 6

Show = Callable[[float | None], str]


class Headline(msgspec.Struct, frozen=True):
    """A figure of a report: its name, its value (None if there is none), and how it is written.

    The change of a share is not stated, as a per cent of a per cent would be misread.
    """

    name: str
    value: float | None
    show: Show
    share: bool = False


class TrendTile(msgspec.Struct, frozen=True):
    """A figure with the one of the period before in words, and its trend as a line."""

    name: str
    value: str
    before: str
    trend: Markup


def period_before(question: Question) -> Question:
    """Return the question about as many days, which end the day before this one begins."""
    last = question.first - timedelta(days=1)
    return msgspec.structs.replace(question, first=last - timedelta(days=question.days - 1), last=last)


def parts_of(question: Question) -> tuple[Question, ...]:
    """Return the days of a question in up to TREND_PARTS parts; the last one may be shorter."""
    length = -(-question.days // TREND_PARTS)
    firsts = [question.first + timedelta(days=day) for day in range(0, question.days, length)]
    return tuple(
        msgspec.structs.replace(question, first=first, last=min(first + timedelta(days=length - 1), question.last))
        for first in firsts
    )


async def compare(
    question: Question,
    report: Report,
    load: Callable[[Question], Awaitable[Report]],
    headlines: Callable[[Report], Sequence[Headline]],
) -> tuple[TrendTile, ...]:
    """Return the headlines of a report, compared with the period before. `load` makes the report of other days."""
    before = {each.name: each.value for each in headlines(await load(period_before(question)))}
    trend: dict[str, list[float | None]] = {}
    for place, part in enumerate(parts_of(question)):
        for each in headlines(await load(part)):
            trend.setdefault(each.name, [None] * place).append(each.value)
    return tuple(_tile(each, before.get(each.name), trend.get(each.name, [])) for each in headlines(report))


def _tile(headline: Headline, before: float | None, trend: Sequence[float | None]) -> TrendTile:
    text = f"{headline.show(before)} in the period before{_change(headline, before)}"
    line = charts.sparkline(f"Trend of {headline.name}", trend) if len(trend) > 1 else Markup()
    return TrendTile(headline.name, headline.show(headline.value), text, line)


def _change(headline: Headline, before: float | None) -> str:
    """Return the change since the period before, such as ` (+12%)`; empty if there is none to state."""
    if headline.share or not before or headline.value is None:
        return ""
    change = (headline.value - before) / abs(before)
    sign = "+" if change > 0 else ""
    return "" if percent(abs(change)) == "0%" else f" ({sign}{percent(change)})"
