"""Quality report: accepted, rejected, returned and won leads, by provider and by sub-id.

Refused requests are counted by the hour of the request, everything else by received time.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np

from marketplace.database.db import Pool, Queries, fetch_rows, session
from marketplace.reports.figures import STATES, STEPS, LeadSelection, Numbers, Party, grouped, list_parties, load_leads
from marketplace.reports.question import Question, ReportBasis, basis
from marketplace.runtime import ids

SQL = Queries(__file__, "quality.sql")

MOST_SUB_IDS: Final = 200
"Most sub-ids in the report, those with the most leads: some providers number every click."
MOST_FAULTS: Final = 100


class FaultFigure(msgspec.Struct, frozen=True, kw_only=True):
    """Number of refused requests with this fault of a field. One request may have several faults."""

    pointer: str
    code: str
    requests: int


class RejectionCount(msgspec.Struct, frozen=True, kw_only=True):
    """Number of leads that were accepted and then rejected, for one reason."""

    why: str
    leads: int
    rows: str


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of one provider's leads, or of those with one sub-id.

    `acceptance` is the share of qualified leads among the valid ones: not refused, duplicate or suppressed.
    `return_rate` and `conversion` are shares of the delivered leads. Rates are null if there are no such leads.
    """

    key: str
    name: str
    sent: int
    refused: int
    duplicates: int
    suppressed: int
    rejected: int
    qualified: int
    sold: int
    delivered: int
    returned: int
    contacted: int
    won: int
    acceptance: float | None
    return_rate: float | None
    conversion: float | None
    rows: str


class QualityReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report on quality by provider and by sub-id, with the reasons of rejections and the faults of requests."""

    basis: ReportBasis
    total: Quality
    providers: tuple[Quality, ...]
    sub_ids: tuple[Quality, ...]
    rejections: tuple[RejectionCount, ...]
    faults: tuple[FaultFigure, ...]


FIELDS: Final = ("provider", "step", "state", "why", "sub_ids", "demo")


async def load_quality(pool: Pool, question: Question) -> QualityReport:
    """Load the report, of all providers or of the question's."""
    return await quality_of(pool, question, await load_leads(pool, question, FIELDS))


async def quality_of(pool: Pool, question: Question, leads: LeadSelection) -> QualityReport:
    """Make the report from leads that were loaded already with FIELDS."""
    bounds: tuple[datetime, datetime, str, UUID | None] = (
        question.since,
        question.until,
        question.mode,
        question.provider_id,
    )
    async with session(pool) as connection:
        parties = await list_parties(connection, "provider")
        refused = {row["number"]: row["requests"] for row in await connection.fetch(SQL["count_refused"], *bounds)}
        faults = await fetch_rows(connection, SQL["list_faults"], FaultFigure, *bounds, MOST_FAULTS)
    report = await asyncio.to_thread(_quality, question, leads, parties, refused)
    return msgspec.structs.replace(report, faults=faults)


def _quality(
    question: Question, leads: LeadSelection, parties: Mapping[int, Party], refused: Mapping[int, int]
) -> QualityReport:
    table = _outcomes(leads)
    providers = leads["provider"]
    by_provider = {number: table.of(providers == number) for number in np.unique(providers).tolist()}
    qualities = [
        _show(
            ids.encode("prov", party.id),
            party.name,
            by_provider.get(number, table.of(np.zeros(0, np.int64))),
            refused.get(number, 0),
            question.rows(provider_id=ids.encode("prov", party.id)),
        )
        for number, party in parties.items()
        if number in by_provider or number in refused
    ]
    places, words = leads.words("why")
    rejected = np.bincount(places[leads["state"] == STATES.index("rejected")], minlength=len(words))
    turned = [
        RejectionCount(why=why, leads=int(rejected[place]), rows=question.rows(state="rejected", why=why))
        for place, why in enumerate(words)
        if rejected[place]
    ]
    return QualityReport(
        basis=basis(question, "received time", leads.as_of, demo=bool(leads["demo"].any())),
        total=_show("all", "All providers", table, sum(refused.values()), question.rows()),
        providers=tuple(sorted(qualities, key=lambda each: (-each.sent, each.name))),
        sub_ids=_sub_ids(question, leads, table),
        rejections=tuple(sorted(turned, key=lambda each: (-each.leads, each.why))),
        faults=(),
    )


class _Outcomes(msgspec.Struct, frozen=True):
    """States and steps of leads, as columns."""

    state: Numbers
    step: Numbers

    def of(self, rows: Any) -> "_Outcomes":
        return _Outcomes(self.state[rows], self.step[rows])


def _outcomes(leads: LeadSelection) -> _Outcomes:
    return _Outcomes(leads["state"], leads["step"])


def _show(key: str, name: str, outcomes: _Outcomes, refused: int, rows: str) -> Quality:
    states = np.bincount(outcomes.state, minlength=len(STATES))
    steps = np.bincount(outcomes.step, minlength=len(STEPS))[::-1].cumsum()[::-1]  # that step or a later one

    def reached(step: str) -> int:
        return int(steps[STEPS.index(step)])

    def ended(state: str) -> int:
        return int(states[STATES.index(state)])

    delivered = reached("delivered")
    return Quality(
        key=key,
        name=name,
        sent=len(outcomes.state) + refused,
        refused=refused,
        duplicates=ended("duplicate"),
        suppressed=ended("suppressed"),
        rejected=ended("rejected"),
        qualified=reached("qualified"),
        sold=reached("awarded"),
        delivered=delivered,
        returned=ended("returned"),
        contacted=reached("contacted"),
        won=reached("won"),
        acceptance=_rate(reached("qualified"), reached("valid")),
        return_rate=_rate(ended("returned"), delivered),
        conversion=_rate(reached("won"), delivered),
        rows=rows,
    )


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _sub_ids(question: Question, leads: LeadSelection, table: _Outcomes) -> tuple[Quality, ...]:
    """Return the quality by name and value of sub-ids. A lead with several sub-ids counts for each of them."""
    places, words = leads.words("sub_ids")
    order, stretches = grouped(places)
    rows: dict[tuple[str, str], list[Numbers]] = {}
    for place, stretch in stretches:
        if words[place]:
            for name, value in msgspec.json.decode(
                words[place], type=dict[str, str | int | float | bool | None]
            ).items():
                rows.setdefault((name, str(value)), []).append(order[stretch])
    most = sorted(rows, key=lambda key: (-sum(map(len, rows[key])), key))[:MOST_SUB_IDS]
    return tuple(
        _show(
            f"{name}={value}",
            f"{name} {value}",
            table.of(np.concatenate(rows[name, value])),
            0,
            question.rows(sub_id=f"{name}={value}"),
        )
        for name, value in most
    )
