"""Report on the way from inquiry to prospect to won: how many come that far, when, and after which touches.

A lead is an accepted inquiry. A prospect is a lead that qualified, at first or after its person came back.
"""

import asyncio
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np

from billing.intervals import Figure, share
from marketplace.database.db import Pool, session
from marketplace.reports.figures import STEPS, Numbers, Party, UnreadyLeads, list_parties, load_unready
from marketplace.reports.funnel import COUNTED, Counted
from marketplace.reports.grouping import GroupName, LeadGrouping, group_codes, list_group_parties, name_group
from marketplace.reports.question import Question, ReportBasis, basis
from routing.inquiry import TouchKind

JOURNEY_STEPS: Final = ("received", "valid", "qualified", "awarded", "delivered", "contacted", "won")

KINDS_OF_TOUCH: Final = (*(kind.value for kind in TouchKind), "other")
"Kinds of touch by their bit in `unready_touches`: see migrations/0074_unready_columns.sql."

LEAST_LEADS: Final = 20
"""Least leads with a kind of touch, and least without it, for a comparison. The interval of a share of twenty leads is
some 40 points wide in the middle; fewer leads say nothing."""


class PromotionTime(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the receipt until leads that were not ready at first became prospects; null without such leads.

    Leads that may still become prospects are not counted, so that the figures of recent days are low.
    """

    leads: int
    median_seconds: float | None
    p90_seconds: float | None


class JourneyStep(msgspec.Struct, frozen=True, kw_only=True):
    """Number of inquiries, leads or prospects, as `counts` says, that reached a step, and their share of all leads."""

    name: str
    counts: Counted
    number: int
    share: float | None
    rows: str


class JourneyGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Funnel of one group: inquiries, leads, prospects, and the prospects that reached each later step.

    `promoted` is the number of prospects that were not ready at first.
    """

    key: str
    name: str
    inquiries: int
    leads: int
    prospects: int
    promoted: int
    awarded: int
    delivered: int
    contacted: int
    won: int
    promotion: PromotionTime


class TouchComparison(StrEnum):
    """Comparison of leads with a kind of touch and leads without it."""

    more = "more"
    """More of those with it became prospects: the two intervals do not overlap."""
    fewer = "fewer"
    """Fewer of those with it became prospects."""
    unclear = "unclear"
    """The intervals overlap."""
    not_enough_data = "not_enough_data"
    """Fewer than 20 leads with it or without it."""


class TouchEffect(msgspec.Struct, frozen=True, kw_only=True):
    """Leads of a vertical that were not ready at first, with and without a kind of touch before their promotion.

    Shares are of those that became prospects, with 95 % intervals; null without enough data. A difference does not show
    that the touch was the cause: people who want to buy come back more often.
    """

    vertical: str
    kind: str
    leads_with: int
    promoted_with: int
    share_with: Figure | None
    leads_without: int
    promoted_without: int
    share_without: Figure | None
    comparison: TouchComparison


class JourneyReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report on the way from inquiry to won. `not_ready` are the leads that were nurtured or rejected at first."""

    basis: ReportBasis
    steps: tuple[JourneyStep, ...]
    not_ready: int
    promotion: PromotionTime
    by: LeadGrouping
    groups: tuple[JourneyGroup, ...]
    touches: tuple[TouchEffect, ...]


FIELDS: Final = ("step", "vertical", "demo")
UNREADY_FIELDS: Final = ("unready_first", "unready_promoted", "unready_touches")


async def load_journey(pool: Pool, question: Question, by: LeadGrouping = LeadGrouping.vertical) -> JourneyReport:
    """Load the report, grouped by `by`."""
    grouping_fields = (by,) if by is LeadGrouping.provider else ()
    unready = await load_unready(pool, question, [*FIELDS, *grouping_fields], UNREADY_FIELDS)
    parties = await list_group_parties(pool, by)
    async with session(pool) as connection:
        verticals = await list_parties(connection, "vertical")
    return await asyncio.to_thread(_journey, question, by, unready, parties, verticals)


class _Later(msgspec.Struct, frozen=True, kw_only=True):
    """Columns of the leads that were not ready at first. `place` is the position among all leads of the question."""

    place: Numbers
    vertical: Numbers
    promoted: Numbers
    seconds: Numbers
    touches: Numbers


def _journey(
    question: Question,
    by: LeadGrouping,
    unready: UnreadyLeads,
    parties: Mapping[int, Party],
    verticals: Mapping[int, Party],
) -> JourneyReport:
    leads = unready.leads
    codes = group_codes(question, leads, by)
    reached = _reached(leads["step"].astype(np.int64), codes)
    first = unready["unready_first"] > 0
    later = _Later(
        place=unready.place[first],
        vertical=unready["vertical"][first],
        promoted=unready["step"][first] >= STEPS.index("qualified"),
        seconds=unready["unready_promoted"][first],
        touches=unready["unready_touches"][first],
    )
    return JourneyReport(
        basis=basis(question, "received time", leads.as_of, demo=bool(leads["demo"].any())),
        steps=_steps(question, reached.sum(axis=0)),
        not_ready=len(later.place),
        promotion=_promotion(later.seconds[later.promoted]),
        by=by,
        groups=_groups(by, codes, reached, later, parties),
        touches=tuple(_touches(later, verticals)),
    )


def _steps(question: Question, reached: Numbers) -> tuple[JourneyStep, ...]:
    valid = int(reached[STEPS.index("valid")])
    steps = []
    for name in JOURNEY_STEPS:
        number = int(reached[STEPS.index(name)])
        of_leads = round(number / valid, 4) if valid and COUNTED[name] is not Counted.inquiries else None
        steps.append(
            JourneyStep(
                name=name, counts=COUNTED[name], number=number, share=of_leads, rows=question.rows(reached=name)
            )
        )
    return tuple(steps)


def _reached(steps: Numbers, codes: Numbers) -> Numbers:
    """Return the number of leads that reached each step or a later one: a row per group, a column per step."""
    size = int(codes.max(initial=0)) + 1
    table = np.bincount(codes * len(STEPS) + steps, minlength=size * len(STEPS)).reshape(size, len(STEPS))
    return np.asarray(table[:, ::-1].cumsum(axis=1)[:, ::-1])


def _promotion(seconds: Numbers) -> PromotionTime:
    timed = seconds[~np.isnan(seconds)]
    median, p90 = (round(float(value), 1) for value in np.quantile(timed, (0.5, 0.9))) if len(timed) else (None, None)
    return PromotionTime(leads=len(timed), median_seconds=median, p90_seconds=p90)


def _groups(
    by: LeadGrouping, codes: Numbers, reached: Numbers, later: _Later, parties: Mapping[int, Party]
) -> tuple[JourneyGroup, ...]:
    later_codes, seconds = codes[later.place][later.promoted], later.seconds[later.promoted]
    groups = [
        _group(name_group(by, code, parties), reached[code], seconds[later_codes == code])
        for code in np.flatnonzero(reached[:, 0]).tolist()
    ]
    groups.sort(key=lambda group: group.key if by is LeadGrouping.week else (-group.leads, group.name))
    return tuple(groups)


def _group(group: GroupName, reached: Numbers, seconds: Numbers) -> JourneyGroup:
    numbers = {name: int(reached[STEPS.index(name)]) for name in JOURNEY_STEPS}
    return JourneyGroup(
        key=group.key,
        name=group.name,
        inquiries=numbers["received"],
        leads=numbers["valid"],
        prospects=numbers["qualified"],
        promoted=len(seconds),
        awarded=numbers["awarded"],
        delivered=numbers["delivered"],
        contacted=numbers["contacted"],
        won=numbers["won"],
        promotion=_promotion(seconds),
    )


def _touches(later: _Later, verticals: Mapping[int, Party]) -> Iterator[TouchEffect]:
    """Yield the effect of each kind of touch that a lead of the vertical had, by vertical and kind."""
    for number in sorted(np.unique(later.vertical).tolist(), key=lambda number: verticals[number].name):
        inside = later.vertical == number
        touches, promoted = later.touches[inside], later.promoted[inside]
        for bit, kind in enumerate(KINDS_OF_TOUCH):
            touched = touches & (1 << bit) != 0
            if touched.any():
                yield compare_touch(
                    verticals[number].name,
                    kind,
                    (int(touched.sum()), int(promoted[touched].sum())),
                    (int((~touched).sum()), int(promoted[~touched].sum())),
                )


def compare_touch(vertical: str, kind: str, touched: tuple[int, int], untouched: tuple[int, int]) -> TouchEffect:
    """Return the effect of a kind of touch, from the leads with and without it, each as (leads, promoted)."""
    share_with, share_without = None, None
    comparison = TouchComparison.not_enough_data
    if min(touched[0], untouched[0]) >= LEAST_LEADS:
        share_with, share_without = _share(*touched), _share(*untouched)
        comparison = _compare(share_with, share_without)
    return TouchEffect(
        vertical=vertical,
        kind=kind,
        leads_with=touched[0],
        promoted_with=touched[1],
        share_with=share_with,
        leads_without=untouched[0],
        promoted_without=untouched[1],
        share_without=share_without,
        comparison=comparison,
    )


def _share(leads: int, promoted: int) -> Figure:
    rate = promoted / leads
    return share(rate, rate * (1 - rate) / leads, leads)


def _compare(share_with: Figure, share_without: Figure) -> TouchComparison:
    assert share_with.low is not None
    assert share_with.high is not None
    assert share_without.low is not None
    assert share_without.high is not None
    if share_with.low > share_without.high:
        return TouchComparison.more
    return TouchComparison.fewer if share_with.high < share_without.low else TouchComparison.unclear
