"""Unsold: why nobody had a lead, and what widening one rule by one step would have brought.

A lead counts for a widening only when that rule alone kept it from the subscription, by no more than the step, in the
decision that ended it unsold. Those that went to somebody else are told apart: they might have been won, or not.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np

from marketplace import ids
from marketplace.db import Pool, session
from marketplace.reports.figures import (
    STATES,
    Columns,
    Leads,
    Numbers,
    Standing,
    Weighed,
    grouped,
    list_subscriptions,
    load_weighed,
)
from marketplace.reports.funnel import Loss
from marketplace.reports.question import Basis, Question, basis
from routing.inquiry import amount_in_words

STEPS_OF: Final[Mapping[str, tuple[float, ...]]] = {
    "km": (5, 10, 25), "minor": (10_000, 50_000, 100_000), "points": (5, 10, 20), "days": (7, 14, 30),
    "people": (5, 20, 50),
}  # fmt: skip
"By how much a rule might be widened, per unit; judgement, as small as an owner would consider."

MOST_WIDENINGS: Final = 200

WIDENED: Final = {
    "outside_area": "Widening the area", "budget_minimum": "Lowering the least budget",
    "score_minimum": "Lowering the least score", "timing_minimum": "Accepting work wanted later",
    "company_size": "Widening the company size", "attribute": "Widening a need field",
    "closed": "Taking leads outside the open hours", "cap_reached": "Raising the cap",
    "wallet_empty": "Topping up the wallet", "paused": "Resuming the subscription",
    "suspended": "Ending the suspension",
    "endpoint_inactive": "Activating the endpoint", "breaker_open": "Mending the endpoint",
    "business_frozen": "Unfreezing the business",
}  # fmt: skip


class Widening(msgspec.Struct, frozen=True, kw_only=True):
    """What one change would have brought. `by` in `unit`, null where the rule has no distance, and then lifted.

    `leads` were unsold; `contested` went to another business. Without a subscription, it is all of them together.
    """

    subscription_id: str | None
    subscription: str | None
    business: str | None
    rule: str
    by: float | None
    unit: str | None
    leads: int
    contested: int
    a_week: float
    sentence: str
    rows: str


class Unsold(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that ended unsold: by the rule that kept the nearest business away, and what would have sold them."""

    basis: Basis
    qualified: int
    unsold: int
    reasons: tuple[Loss, ...]
    overall: tuple[Widening, ...]
    widenings: tuple[Widening, ...]
    rows: str


FIELDS: Final = ("step", "state", "why", "demo")
MISSES: Final = ("miss_subscription", "miss_lead", "miss_distance", "miss_rule")


async def load_unsold(pool: Pool, question: Question) -> Unsold:
    """The report. A business sees what its own subscriptions missed, a provider its own leads, without names."""
    everybody = msgspec.structs.replace(question, business_id=None)  # an unsold lead has no business
    return await unsold_of(pool, question, await load_weighed(pool, everybody, FIELDS, MISSES))


async def unsold_of(pool: Pool, question: Question, weighed: Weighed, most_widenings: int = MOST_WIDENINGS) -> Unsold:
    """The report of what was read already: FIELDS and MISSES of the leads of every business."""
    async with session(pool) as connection:
        subscriptions = await list_subscriptions(connection, question.mode)
    return await asyncio.to_thread(_unsold, question, weighed, subscriptions, most_widenings)


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that one rule alone kept from one subscription: one row each. `lead` is a place among those read."""

    lead: Numbers
    subscription: Numbers
    distance: Numbers
    rule: Numbers
    unsold: Numbers
    words: tuple[str, ...]

    def of(self, rows: Numbers) -> "Missed":
        """Some of them."""
        return Missed(
            lead=self.lead[rows],
            subscription=self.subscription[rows],
            distance=self.distance[rows],
            rule=self.rule[rows],
            unsold=self.unsold[rows],
            words=self.words,
        )


def missed(leads: Leads, candidates: Columns) -> Missed:
    """All misses of the leads that the question is about."""
    hours, counts = leads.columns.counts("minute")
    missed_in, misses = candidates.counts("miss_lead")
    begins = (np.cumsum(counts) - counts)[np.searchsorted(hours, missed_in)]
    lead = candidates["miss_lead"] + np.repeat(begins, misses)
    rule, words = candidates.words("miss_rule")
    found = Missed(
        lead=lead,
        subscription=candidates["miss_subscription"],
        distance=candidates["miss_distance"],
        rule=rule,
        unsold=(leads.columns["state"] == STATES.index("unsold"))[lead],
        words=words,
    )
    return found if isinstance(leads.keep, slice) else found.of(leads.among(lead))


def _unsold(question: Question, weighed: Weighed, subscriptions: Mapping[int, Standing], most: int) -> Unsold:
    leads = weighed.leads
    state = leads["state"]
    nobody = state == STATES.index("unsold")
    places, words = leads.words("why")
    counts = np.bincount(places[nobody], minlength=len(words))
    own = question.business_id is not None
    reasons = [
        Loss(why=why, leads=int(counts[place]), open=False, rows=question.rows(state="unsold", why=why))
        for place, why in enumerate(words)
        if counts[place] and not own
    ]
    misses = missed(leads, weighed.candidates)
    wanted = {
        number: each for number, each in subscriptions.items() if question.business_id in (None, each.business_id)
    }
    if own:
        misses = misses.of(np.isin(misses.subscription, list(wanted)))
    return Unsold(
        basis=basis(question, "received time", leads.as_of, demo=bool(leads["demo"].any())),
        qualified=int((leads["step"] >= 3).sum()), unsold=int(nobody.sum()),
        reasons=tuple(sorted(reasons, key=lambda loss: (-loss.leads, loss.why))),
        overall=_overall(question, misses),
        widenings=_by_subscription(question, misses, wanted, most) if question.provider_id is None else (),
        rows=question.rows(state="unsold"),
    )  # fmt: skip


class Gain(NamedTuple):
    """What one step of one rule would have brought one subscription, or (number 0) all of them together."""

    word: str
    by: float | None
    number: int
    leads: int
    contested: int


def _gains(misses: Missed, codes: Numbers, *, distinct: bool) -> list[Gain]:
    """For each code that a miss may have, the steps of each rule that bring more than the step before.

    `distinct` counts a lead once, however many subscriptions missed it; codes are then all the same.
    """
    order, stretches = grouped(misses.rule)
    lead, code, distance, unsold = (values[order] for values in (misses.lead, codes, misses.distance, misses.unsold))
    found: list[Gain] = []
    for place, rows in stretches:
        word, before = misses.words[place], np.zeros(1, np.int64)
        rule, unit = word.split(" ")[:2]
        for by in STEPS_OF.get(unit, (None,)) if rule != "wallet_empty" else (None,):
            near = np.ones(rows.stop - rows.start, bool) if by is None else distance[rows] <= by
            each = [
                _counted(code[rows][near & sold], lead[rows][near & sold], int(codes.max()), distinct)
                for sold in (unsold[rows], ~unsold[rows])
            ]
            more = np.flatnonzero(each[0] + each[1] > before)
            before = each[0] + each[1]
            found += [Gain(word, by, number, int(each[0][number]), int(each[1][number])) for number in more.tolist()]
    found.sort(key=lambda gain: (-gain.leads, -gain.contested, gain.word, gain.by or 0, gain.number))
    return found


def _counted(codes: Numbers, leads: Numbers, highest: int, distinct: bool) -> Numbers:
    if not distinct:
        return np.bincount(codes, minlength=highest + 1)  # a decision weighs a subscription once
    seen = np.zeros(int(leads.max(initial=-1)) + 1, bool)
    seen[leads] = True
    return np.array([np.count_nonzero(seen)])


def _overall(question: Question, misses: Missed) -> tuple[Widening, ...]:
    """Each rule over all subscriptions; a lead that several would have had counts once."""
    if not len(misses.lead):
        return ()
    gains = _gains(misses, np.zeros(len(misses.lead), np.int64), distinct=True)
    return tuple(_widening(question, gain, None) for gain in gains)


def _by_subscription(
    question: Question, misses: Missed, subscriptions: Mapping[int, Standing], most: int
) -> tuple[Widening, ...]:
    if not len(misses.lead):
        return ()
    gains = [gain for gain in _gains(misses, misses.subscription, distinct=False) if gain.number in subscriptions]
    return tuple(_widening(question, gain, subscriptions[gain.number]) for gain in gains[:most])


def _widening(question: Question, gain: Gain, whose: Standing | None) -> Widening:
    rule, unit = gain.word.split(" ")[:2]
    a_week = round(7 * gain.leads / question.days, 1)
    doing = WIDENED.get(rule, f"Lifting the rule {rule}")
    if rule == "attribute" and unit != "-":
        doing = f"Widening {unit}"
    step = f" by {_in_words(gain.by, unit, whose)}" if gain.by is not None else ""
    more = f" ({gain.contested} more went to another business)" if gain.contested else ""
    subscription_id = ids.encode("sub", whose.id) if whose else None
    return Widening(
        subscription_id=subscription_id,
        subscription=whose.name if whose else None,
        business=whose.business if whose else None,
        rule=rule,
        by=gain.by,
        unit=None if unit == "-" else unit,
        leads=gain.leads,
        contested=gain.contested,
        a_week=a_week,
        sentence=f"{doing}{step}: +{a_week:g} leads a week{more}.",
        rows=question.rows(missed=rule, unit=unit, within=gain.by, missed_by=subscription_id, state="unsold"),
    )


def _in_words(by: float, unit: str, whose: Standing | None) -> str:
    if unit == "minor":
        return amount_in_words(int(by), whose.currency) if whose else f"{by:g} minor units"
    return f"{by:g} {unit}"
