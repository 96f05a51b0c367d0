"""Routing report: the funnel of leads, the shares of subscriptions, and subscriptions that got no lead."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec
import numpy as np

from marketplace.database.db import Pool, Queries, session
from marketplace.reports.figures import (
    STEPS,
    Columns,
    LeadSelection,
    Numbers,
    ReportSubscription,
    list_subscriptions,
    load_weighed,
)
from marketplace.reports.question import Question, ReportBasis, basis
from marketplace.runtime import ids

SQL = Queries(__file__, "funnel.sql")

STARVED_DAYS: Final = 7
"Days without a lead after which a subscription is listed: most have weekly hours and weekly caps."
SAMPLE: Final = 200
"Number of the newest leads of a vertical from whose decisions the reason is taken."

UNDER_WAY: Final = frozenset({"open", "nurturing", "no_word"})
"Reasons of leads that may still go on: they are open, not lost."


class Counted(StrEnum):
    """Unit that a step of a funnel counts."""

    inquiries = "inquiries"
    """All inquiries that were taken in, with duplicates and people who must not be contacted."""
    leads = "leads"
    """Accepted inquiries."""
    prospects = "prospects"
    """Leads that qualified, at first or after their person came back."""


COUNTED: Final = {
    "received": Counted.inquiries,
    "valid": Counted.leads,
    **dict.fromkeys(STEPS[STEPS.index("qualified") :], Counted.prospects),
}
"Unit of each step: every lead that reached a step after the qualification is a prospect."


class FunnelLoss(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that reached a step and not the next one, for one reason. If `open`, they may still reach it."""

    why: str
    leads: int
    open: bool
    rows: str


class FunnelStep(msgspec.Struct, frozen=True, kw_only=True):
    """Number in `leads` that reached a step: inquiries, leads or prospects, as `counts` says.

    `share` is of all received; `lost` and `open` have not reached the next step.
    """

    name: str
    counts: Counted
    leads: int
    share: float | None
    lost: int
    open: int
    losses: tuple[FunnelLoss, ...]
    rows: str


class RoutingShare(msgspec.Struct, frozen=True, kw_only=True):
    """Awards of one subscription: `stood` is the number for which it was eligible, `won` the number that it got.

    In a vertical that ranks by weight, `due` is its fair number of awards by weight, `won_of_due` the awards it got of
    those, and `deviation` their difference as a share of `due`. Both are null in other verticals.
    """

    subscription_id: str
    subscription: str
    business_id: str
    business: str
    vertical: str
    stood: int
    won: int
    won_of_due: int
    due: float | None
    deviation: float | None
    rows: str


class StarvedSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """An active subscription without a lead for some days, with the most frequent reason."""

    subscription_id: str
    subscription: str
    business_id: str
    business: str
    vertical: str
    stood: int
    since: datetime | None
    why: str


class RoutingReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report on routing.

    `gini` is the Gini coefficient of the awards: 0 if all subscriptions got equally many, near 1 if one got all.
    `gini_due` is the coefficient of the awards that were due by weight.
    """

    basis: ReportBasis
    funnel: tuple[FunnelStep, ...]
    shares: tuple[RoutingShare, ...]
    gini: float | None
    gini_due: float | None
    starved: tuple[StarvedSubscription, ...]


SHARES: Final = ("share_subscription", "share_stood", "share_won", "share_won_by_weight", "share_entitled")


async def load_routing(pool: Pool, question: Question) -> RoutingReport:
    """Load the report. For one party, the funnel has its own leads only; a provider sees no shares."""
    weighed = await load_weighed(pool, question, ["step", "why", "demo", "vertical", "lead"], SHARES)
    async with session(pool) as connection:
        subscriptions = await list_subscriptions(connection, question.mode)
    visible = _visible_subscriptions(question, subscriptions)
    report = await asyncio.to_thread(_routing, question, weighed.leads, weighed.candidates, visible)
    return msgspec.structs.replace(
        report, starved=await _starved(pool, question, weighed.leads, weighed.candidates, visible)
    )


def _visible_subscriptions(
    question: Question, subscriptions: Mapping[int, ReportSubscription]
) -> dict[int, ReportSubscription]:
    """Return the subscriptions that the report may show: none to a provider, its own to a business."""
    return {
        number: each
        for number, each in subscriptions.items()
        if question.provider_id is None
        and question.business_id in (None, each.business_id)
        and question.vertical in (None, each.vertical)
    }


def _routing(
    question: Question, leads: LeadSelection, candidates: Columns, visible: Mapping[int, ReportSubscription]
) -> RoutingReport:
    shares = _shares(question, candidates, visible)
    due = [share.due for share in shares if share.due is not None]
    all_businesses = question.business_id is None
    won_gini = gini([share.won for share in shares]) if all_businesses else None
    due_gini = gini(due) if all_businesses else None
    return RoutingReport(
        basis=basis(question, "received time", leads.as_of, demo=bool(leads["demo"].any())),
        funnel=count_funnel(question, leads),
        shares=shares,
        gini=won_gini,
        gini_due=due_gini,
        starved=(),
    )


def count_funnel(question: Question, leads: LeadSelection) -> tuple[FunnelStep, ...]:
    """Count leads at each step that they reached, from received to won."""
    steps = leads["step"].astype(np.int64)
    reasons, words = leads.words("why")
    table = np.bincount(steps * max(1, len(words)) + reasons, minlength=len(STEPS) * max(1, len(words)))
    table = table.reshape(len(STEPS), -1)
    funnel, received = [], len(steps)
    for step, name in enumerate(STEPS[1:], start=1):
        reached = int(table[step:].sum())
        losses = [
            FunnelLoss(
                why=why, leads=int(table[step, place]), open=why in UNDER_WAY, rows=question.rows(stopped=name, why=why)
            )
            for place, why in enumerate(words)
            if why and table[step, place]
        ]
        losses.sort(key=lambda loss: (-loss.leads, loss.why))
        funnel.append(
            FunnelStep(
                name=name,
                counts=COUNTED[name],
                leads=reached,
                share=round(reached / received, 4) if received else None,
                lost=sum(loss.leads for loss in losses if not loss.open),
                open=sum(loss.leads for loss in losses if loss.open),
                losses=tuple(losses),
                rows=question.rows(reached=name),
            )
        )
    return tuple(funnel)


def _shares(
    question: Question, candidates: Columns, visible: Mapping[int, ReportSubscription]
) -> tuple[RoutingShare, ...]:
    numbers = candidates["share_subscription"]
    inside = _inside(question, candidates)
    most = max(visible, default=0) + 1
    selected = numbers < most if inside is None else inside & (numbers < most)

    def summed(field: str) -> Numbers:
        return np.bincount(numbers[selected], weights=candidates[field][selected], minlength=most)

    eligible, won, won_of_due, due = (summed(field) for field in SHARES[1:])
    shares = []
    for number, each in visible.items():
        if eligible[number]:
            fair = round(float(due[number]), 3) if due[number] else None
            shares.append(
                RoutingShare(
                    subscription_id=ids.encode("sub", each.id),
                    subscription=each.name,
                    business_id=ids.encode("biz", each.business_id),
                    business=each.business,
                    vertical=each.vertical,
                    stood=int(eligible[number]),
                    won=int(won[number]),
                    won_of_due=int(won_of_due[number]),
                    due=fair,
                    deviation=round((float(won_of_due[number]) - fair) / fair, 4) if fair else None,
                    rows=question.rows(subscription_id=ids.encode("sub", each.id), reached="awarded"),
                )
            )
    return tuple(sorted(shares, key=lambda share: (-share.won, -share.stood, share.subscription_id)))


def _inside(question: Question, candidates: Columns) -> Numbers | None:
    """Return a mask of the candidates in the question's days, or None if there are none.

    Shares are stored by the hour. An hour that midnight of the zone splits counts on the day of its first minute.
    """
    hours = candidates.hours("share_subscription")
    if not len(hours):
        return None
    starts = hours * 3600
    return np.asarray((starts >= question.since.timestamp()) & (starts < question.until.timestamp()))


def gini(parts: Sequence[float]) -> float | None:
    """Return the Gini coefficient of the parts, from 0 to 1: half their mean difference over their mean.

    None if their sum is zero.
    """
    ordered = sorted(parts)
    total = sum(ordered)
    if not total:
        return None
    count = len(ordered)
    ranked = sum((2 * place - count - 1) * part for place, part in enumerate(ordered, start=1))
    return round(ranked / (count * total), 4)


async def _starved(
    pool: Pool, question: Question, leads: LeadSelection, candidates: Columns, visible: Mapping[int, ReportSubscription]
) -> tuple[StarvedSubscription, ...]:
    """Return active subscriptions without an award in the last `STARVED_DAYS` of the question, with the main reason."""
    since = max(question.since, question.until - timedelta(days=STARVED_DAYS))
    late = candidates.hours("share_subscription") * 3600 >= since.timestamp()
    numbers = candidates["share_subscription"][late]
    most = max((*visible, *numbers.tolist()), default=0) + 1
    eligible = np.bincount(numbers, weights=candidates["share_stood"][late], minlength=most)
    won = np.bincount(numbers, weights=candidates["share_won"][late], minlength=most)
    active = {number: each for number, each in visible.items() if each.state == "active" and each.created_at <= since}
    starved = [each for number, each in active.items() if not won[number]]
    if not starved:
        return ()
    reasons = await _reasons(pool, leads, starved)
    return tuple(
        StarvedSubscription(
            subscription_id=ids.encode("sub", each.id),
            subscription=each.name,
            business_id=ids.encode("biz", each.business_id),
            business=each.business,
            vertical=each.vertical,
            stood=int(eligible[each.number]),
            since=reasons.since.get(each.id),
            why=reasons.words(each.id),
        )
        for each in sorted(starved, key=lambda each: (-eligible[each.number], each.business, each.name))
    )


class _Reasons(msgspec.Struct, frozen=True, kw_only=True):
    """Reasons by subscription: failing rules in the newest leads with counts, last award, and leads sampled."""

    failures: dict[UUID, list[tuple[str, int]]]
    since: dict[UUID, datetime]
    sampled: dict[UUID, int]

    def words(self, subscription_id: UUID) -> str:
        failures = self.failures.get(subscription_id)
        sampled = self.sampled.get(subscription_id, 0)
        if not sampled:
            return "No lead of its vertical was qualified."
        if not failures:
            return f"Too far away from the newest {sampled} leads of its vertical."
        rule, count = failures[0]
        return f"{rule}: {count} of the newest {sampled} leads of its vertical."


async def _reasons(pool: Pool, leads: LeadSelection, starved: Sequence[ReportSubscription]) -> _Reasons:
    qualified = np.flatnonzero(leads["step"] >= STEPS.index("qualified"))
    verticals, lead_ids, sampled = leads["vertical"][qualified], leads["lead"], dict[UUID, int]()
    sample: list[UUID] = []
    for vertical in {each.vertical_number for each in starved}:
        newest = qualified[np.flatnonzero(verticals == vertical)][-SAMPLE:]
        sample += [UUID(bytes=lead_ids[row].tobytes()) for row in newest]
        sampled |= {each.id: len(newest) for each in starved if each.vertical_number == vertical}
    subscription_ids = [each.id for each in starved]
    async with session(pool) as connection:
        rows = await connection.fetch(SQL["list_failures"], sample, subscription_ids)
        last = await connection.fetch(SQL["list_last_awards"], subscription_ids)
    failures: dict[UUID, list[tuple[str, int]]] = {}
    for row in rows:
        failures.setdefault(row["subscription_id"], []).append((row["rule"], row["leads"]))
    since = {row["subscription_id"]: row["awarded_at"] for row in last}
    return _Reasons(failures=failures, since=since, sampled=sampled)
