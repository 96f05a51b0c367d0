"""Routing: how far leads came and why no further, who got them against what was due to them, and who got none."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
import numpy as np

from marketplace import ids
from marketplace.db import Pool, Queries, session
from marketplace.reports.figures import (
    STEPS,
    Columns,
    Leads,
    Numbers,
    Standing,
    list_subscriptions,
    load_weighed,
)
from marketplace.reports.question import Basis, Question, basis

SQL = Queries(__file__, "funnel.sql")

STARVED_DAYS: Final = 7
"A standing order that got nothing for a week is worth a look: most have weekly hours and weekly caps."
SAMPLE: Final = 200
"The newest leads of a market whose decisions are read to say why a subscription got nothing."

UNDER_WAY: Final = frozenset({"open", "nurturing", "no_word"})
"Words for leads that stopped for now: not lost."


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that reached a step and not the next, by reason. `open`: they may still."""

    why: str
    leads: int
    open: bool
    rows: str


class FunnelStep(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that reached a step; `share` is of all received. `lost` and `open` add up to those that went no further."""

    name: str
    leads: int
    share: float | None
    lost: int
    open: int
    losses: tuple[Loss, ...]
    rows: str


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One subscription's part: awards it stood for (eligible, and weighed against others), and those it won.

    `due` is its fair number by weight, over the awards whose market divides by weight; `won_of_due` is what it won of
    these, and `deviation` the difference as a share of what was due. Null where its market does not divide by weight.
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


class Starved(msgspec.Struct, frozen=True, kw_only=True):
    """An active subscription that got nothing for some days, and what stood in its way most often lately."""

    subscription_id: str
    subscription: str
    business_id: str
    business: str
    vertical: str
    stood: int
    since: datetime | None
    why: str


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """The funnel, the shares and the starved.

    `gini` is 0 where all who stood won equally often, near 1 where one won all; `gini_due` is what it would be had
    everybody got what was due.
    """

    basis: Basis
    funnel: tuple[FunnelStep, ...]
    shares: tuple[Share, ...]
    gini: float | None
    gini_due: float | None
    starved: tuple[Starved, ...]


SHARES: Final = ("share_subscription", "share_stood", "share_won", "share_won_by_weight", "share_entitled")


async def load_routing(pool: Pool, question: Question) -> Routing:
    """The report. Confined to a party, the funnel is of its own leads; a provider sees no shares."""
    weighed = await load_weighed(pool, question, ["step", "why", "demo", "vertical", "lead"], SHARES)
    async with session(pool) as connection:
        subscriptions = await list_subscriptions(connection, question.mode)
    seen = _seen_by(question, subscriptions)
    made = await asyncio.to_thread(_routing, question, weighed.leads, weighed.candidates, seen)
    return msgspec.structs.replace(
        made, starved=await _starved(pool, question, weighed.leads, weighed.candidates, seen)
    )


def _seen_by(question: Question, subscriptions: Mapping[int, Standing]) -> dict[int, Standing]:
    """The subscriptions that the report may speak of: none to a provider, its own to a business."""
    return {
        number: each
        for number, each in subscriptions.items()
        if question.provider_id is None
        and question.business_id in (None, each.business_id)
        and question.vertical in (None, each.vertical)
    }


def _routing(question: Question, leads: Leads, candidates: Columns, seen: Mapping[int, Standing]) -> Routing:
    shares = _shares(question, candidates, seen)
    due = [share for share in shares if share.due is not None]
    return Routing(
        basis=basis(question, "received time", leads.as_of, demo=bool(leads["demo"].any())),
        funnel=count_funnel(question, leads), shares=shares,
        gini=gini([share.won for share in shares]) if question.business_id is None else None,
        gini_due=gini([share.due or 0.0 for share in due]) if question.business_id is None else None, starved=(),
    )  # fmt: skip


def count_funnel(question: Question, leads: Leads) -> tuple[FunnelStep, ...]:
    """Received to won, every lead counted at each step that it reached."""
    steps = leads["step"].astype(np.int64)
    places, words = leads.words("why")
    table = np.bincount(steps * max(1, len(words)) + places, minlength=len(STEPS) * max(1, len(words)))
    table = table.reshape(len(STEPS), -1)
    found, received = [], len(steps)
    for step, name in enumerate(STEPS[1:], start=1):
        reached = int(table[step:].sum())
        losses = [
            Loss(
                why=why, leads=int(table[step, place]), open=why in UNDER_WAY, rows=question.rows(stopped=name, why=why)
            )
            for place, why in enumerate(words)
            if why and table[step, place]
        ]
        losses.sort(key=lambda loss: (-loss.leads, loss.why))
        found.append(FunnelStep(
            name=name, leads=reached, share=round(reached / received, 4) if received else None,
            lost=sum(loss.leads for loss in losses if not loss.open),
            open=sum(loss.leads for loss in losses if loss.open),
            losses=tuple(losses), rows=question.rows(reached=name),
        ))  # fmt: skip
    return tuple(found)


def _shares(question: Question, candidates: Columns, seen: Mapping[int, Standing]) -> tuple[Share, ...]:
    numbers = candidates["share_subscription"]
    inside = _inside(question, candidates)
    most = max(seen, default=0) + 1
    wanted = numbers < most if inside is None else inside & (numbers < most)

    def summed(field: str) -> Numbers:
        return np.bincount(numbers[wanted], weights=candidates[field][wanted], minlength=most)

    stood, won, won_of_due, due = (summed(field) for field in SHARES[1:])
    found = []
    for number, each in seen.items():
        if stood[number]:
            fair = round(float(due[number]), 3) if due[number] else None
            found.append(Share(
                subscription_id=ids.encode("sub", each.id), subscription=each.name,
                business_id=ids.encode("biz", each.business_id), business=each.business, vertical=each.vertical,
                stood=int(stood[number]), won=int(won[number]), won_of_due=int(won_of_due[number]), due=fair,
                deviation=round((float(won_of_due[number]) - fair) / fair, 4) if fair else None,
                rows=question.rows(subscription_id=ids.encode("sub", each.id), reached="awarded"),
            ))  # fmt: skip
    return tuple(sorted(found, key=lambda share: (-share.won, -share.stood, share.subscription_id)))


def _inside(question: Question, candidates: Columns) -> Numbers | None:
    """Shares are kept by the whole hour: one that the question's zone cuts counts where its first minute lies."""
    hours = candidates.hours("share_subscription")
    if not len(hours):
        return None
    begun = hours * 3600
    return np.asarray((begun >= question.since.timestamp()) & (begun < question.until.timestamp()))


def gini(parts: Sequence[float]) -> float | None:
    """How unequal the parts are, 0 to 1: half the mean difference of two of them over their mean."""
    ordered = sorted(parts)
    total = sum(ordered)
    if not total:
        return None
    count = len(ordered)
    ranked = sum((2 * place - count - 1) * part for place, part in enumerate(ordered, start=1))
    return round(ranked / (count * total), 4)


async def _starved(
    pool: Pool, question: Question, leads: Leads, candidates: Columns, seen: Mapping[int, Standing]
) -> tuple[Starved, ...]:
    """Active for at least so long and without an award in the question's last days, with the commonest reason."""
    since = max(question.since, question.until - timedelta(days=STARVED_DAYS))
    late = candidates.hours("share_subscription") * 3600 >= since.timestamp()
    numbers = candidates["share_subscription"][late]
    most = max((*seen, *numbers.tolist()), default=0) + 1
    stood = np.bincount(numbers, weights=candidates["share_stood"][late], minlength=most)
    won = np.bincount(numbers, weights=candidates["share_won"][late], minlength=most)
    hungry = [
        each for number, each in seen.items() if each.state == "active" and not won[number] and each.created_at <= since
    ]
    if not hungry:
        return ()
    reasons = await _reasons(pool, leads, hungry)
    return tuple(
        Starved(
            subscription_id=ids.encode("sub", each.id), subscription=each.name,
            business_id=ids.encode("biz", each.business_id), business=each.business, vertical=each.vertical,
            stood=int(stood[each.number]), since=reasons.since.get(each.id), why=reasons.words(each.id),
        )
        for each in sorted(hungry, key=lambda each: (-stood[each.number], each.business, each.name))
    )  # fmt: skip


class _Reasons(msgspec.Struct, frozen=True, kw_only=True):
    """What failed for whom in the newest leads, and when each last got one."""

    failures: dict[UUID, list[tuple[str, int]]]
    since: dict[UUID, datetime]
    sampled: dict[UUID, int]

    def words(self, subscription_id: UUID) -> str:
        found = self.failures.get(subscription_id)
        sampled = self.sampled.get(subscription_id, 0)
        if not sampled:
            return "No lead of its market was qualified."
        if not found:
            return f"Too far away to be looked at, in the newest {sampled} leads of its market."
        rule, count = found[0]
        return f"{rule}: {count} of the newest {sampled} leads of its market."


async def _reasons(pool: Pool, leads: Leads, hungry: Sequence[Standing]) -> _Reasons:
    qualified = np.flatnonzero(leads["step"] >= STEPS.index("qualified"))
    markets, found, sampled = leads["vertical"][qualified], leads["lead"], dict[UUID, int]()
    chosen: list[UUID] = []
    for market in {each.vertical_number for each in hungry}:
        newest = qualified[np.flatnonzero(markets == market)][-SAMPLE:]
        chosen += [UUID(bytes=found[row].tobytes()) for row in newest]
        sampled |= {each.id: len(newest) for each in hungry if each.vertical_number == market}
    wanted = [each.id for each in hungry]
    async with session(pool) as connection:
        rows = await connection.fetch(SQL["list_failures"], chosen, wanted)
        last = await connection.fetch(SQL["list_last_awards"], wanted)
    failures: dict[UUID, list[tuple[str, int]]] = {}
    for row in rows:
        failures.setdefault(row["subscription_id"], []).append((row["rule"], row["leads"]))
    since = {row["subscription_id"]: row["awarded_at"] for row in last}
    return _Reasons(failures=failures, since=since, sampled=sampled)
