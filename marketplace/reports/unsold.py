"""Report on unsold leads: the reasons, and the number of leads that widening one rule would have added.

A lead counts for a widening only if that rule alone kept it from the subscription, by at most the step, in its final
decision. Leads that went to another business are counted separately: the subscription might not have won them.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np

from marketplace.database.db import Pool, session
from marketplace.reports.figures import (
    DAY,
    STATES,
    Columns,
    LeadsAndCandidates,
    LeadSelection,
    Numbers,
    ReportSubscription,
    grouped,
    list_subscriptions,
    load_weighed,
    local_minutes,
    positions_of,
)
from marketplace.reports.funnel import FunnelLoss
from marketplace.reports.question import Question, ReportBasis, basis
from marketplace.runtime import ids
from routing.inquiry import amount_in_words

STEPS_OF: Final[Mapping[str, tuple[float, ...]]] = {
    "km": (5, 10, 25),
    "minor": (10_000, 50_000, 100_000),
    "points": (5, 10, 20),
    "days": (7, 14, 30),
    "people": (5, 20, 50),
    "channels": (1, 2, 3),
}
"Steps by which a rule is widened, per unit of its distance. They are estimates of the changes an owner would consider."

ADDING_UP: Final = frozenset({"cap_reached", "wallet_empty"})
"Rules without steps: each lead that they kept away adds to what was missing for the next."

MOST_WIDENINGS: Final = 200

WIDENED: Final = {
    "consent_seller": "Being named in the consent",
    "consent_channel": "Needing fewer channels",
    "consent_purpose": "Taking consent for other purposes",
    "consent_jurisdiction": "Taking consent of other jurisdictions",
    "outside_area": "Widening the area",
    "budget_minimum": "Lowering the least budget",
    "score_minimum": "Lowering the least score",
    "timing_minimum": "Accepting work wanted later",
    "company_size": "Widening the company size",
    "price_range": "Widening the price range",
    "attribute": "Widening a need field",
    "closed": "Taking leads outside the open hours",
    "cap_reached": "Raising the cap",
    "paced": "Not spreading the cap",
    "wallet_empty": "Topping up the wallet",
    "paused": "Resuming the subscription",
    "suspended": "Ending the suspension",
    "endpoint_inactive": "Activating the endpoint",
    "breaker_open": "Mending the endpoint",
    "business_frozen": "Unfreezing the business",
}


class Widening(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that one change would have added. `by` is in `unit`; it is null for a rule without steps.

    `leads` were unsold; `contested` went to another business. Without a subscription, the change is that of all.
    `missing` says in words by how much a cap or the wallet of a subscription was too low, at most.
    """

    subscription_id: str | None
    subscription: str | None
    business: str | None
    rule: str
    by: float | None
    unit: str | None
    missing: str | None
    leads: int
    contested: int
    a_week: float
    sentence: str
    rows: str


class UnsoldReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report on unsold leads: by the rule that failed for the nearest business, and changes that would sell them."""

    basis: ReportBasis
    qualified: int
    unsold: int
    reasons: tuple[FunnelLoss, ...]
    overall: tuple[Widening, ...]
    widenings: tuple[Widening, ...]
    rows: str


FIELDS: Final = ("step", "state", "why", "demo")
MISSES: Final = ("miss_subscription", "miss_lead", "miss_distance", "miss_rule")


async def load_unsold(pool: Pool, question: Question) -> UnsoldReport:
    """Load the report. A business sees what its subscriptions missed; a provider its own leads without names."""
    everybody = msgspec.structs.replace(question, business_id=None)  # an unsold lead has no business
    return await unsold_of(pool, question, await load_weighed(pool, everybody, FIELDS, MISSES))


async def unsold_of(
    pool: Pool, question: Question, weighed: LeadsAndCandidates, most_widenings: int = MOST_WIDENINGS
) -> UnsoldReport:
    """Make the report from columns that were loaded already: FIELDS and MISSES of the leads of all businesses."""
    async with session(pool) as connection:
        subscriptions = await list_subscriptions(connection, question.mode)
    return await asyncio.to_thread(_unsold, question, weighed, subscriptions, most_widenings)


class MissedMatches(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that one rule alone kept from one subscription, as columns. `lead` is a position in the loaded leads.

    `rule` is a position in `words`; `unsold` marks leads that were sold to nobody.
    """

    lead: Numbers
    subscription: Numbers
    distance: Numbers
    rule: Numbers
    unsold: Numbers
    words: tuple[str, ...]

    def of(self, rows: Numbers) -> "MissedMatches":
        """Return the rows at these positions, or under this mask."""
        return MissedMatches(
            lead=self.lead[rows],
            subscription=self.subscription[rows],
            distance=self.distance[rows],
            rule=self.rule[rows],
            unsold=self.unsold[rows],
            words=self.words,
        )


def missed(leads: LeadSelection, candidates: Columns) -> MissedMatches:
    """Return all misses of the leads that the question is about."""
    lead = positions_of(leads, candidates, "miss_lead")
    rule, words = candidates.words("miss_rule")
    misses_read = MissedMatches(
        lead=lead,
        subscription=candidates["miss_subscription"],
        distance=candidates["miss_distance"],
        rule=rule,
        unsold=(leads.columns["state"] == STATES.index("unsold"))[lead],
        words=words,
    )
    return misses_read if isinstance(leads.keep, slice) else misses_read.of(leads.among(lead))


def _unsold(
    question: Question, weighed: LeadsAndCandidates, subscriptions: Mapping[int, ReportSubscription], most: int
) -> UnsoldReport:
    leads = weighed.leads
    state = leads["state"]
    nobody = state == STATES.index("unsold")
    places, words = leads.words("why")
    counts = np.bincount(places[nobody], minlength=len(words))
    own = question.business_id is not None
    reasons = [
        FunnelLoss(why=why, leads=int(counts[place]), open=False, rows=question.rows(state="unsold", why=why))
        for place, why in enumerate(words)
        if counts[place] and not own
    ]
    misses = missed(leads, weighed.candidates)
    own_subscriptions = {
        number: each for number, each in subscriptions.items() if question.business_id in (None, each.business_id)
    }
    if own:
        misses = misses.of(np.isin(misses.subscription, list(own_subscriptions)))
    return UnsoldReport(
        basis=basis(question, "received time", leads.as_of, demo=bool(leads["demo"].any())),
        qualified=int((leads["step"] >= 3).sum()),
        unsold=int(nobody.sum()),
        reasons=tuple(sorted(reasons, key=lambda loss: (-loss.leads, loss.why))),
        overall=_overall(question, misses),
        widenings=_by_subscription(question, leads, misses, own_subscriptions, most)
        if question.provider_id is None
        else (),
        rows=question.rows(state="unsold"),
    )


class Gain(NamedTuple):
    """Leads that one step of one rule would have added for the subscription `number`, or for all (number 0)."""

    word: str
    by: float | None
    number: int
    leads: int
    contested: int


def _gains(misses: MissedMatches, codes: Numbers, *, distinct: bool) -> list[Gain]:
    """Return, for each code, the steps of each rule that add more leads than the previous step.

    `codes` has a subscription's number for each miss. With `distinct` they are all 0, and a lead counts once however
    many subscriptions missed it.
    """
    order, stretches = grouped(misses.rule)
    lead, code, distance, unsold = (values[order] for values in (misses.lead, codes, misses.distance, misses.unsold))
    gains: list[Gain] = []
    for place, rows in stretches:
        word, before = misses.words[place], np.zeros(1, np.int64)
        rule, unit = word.split(" ")[:2]
        for by in STEPS_OF.get(unit, (None,)) if rule not in ADDING_UP else (None,):
            near = np.ones(rows.stop - rows.start, bool) if by is None else distance[rows] <= by
            each = [
                _count_leads(code[rows][near & sold], lead[rows][near & sold], int(codes.max()), distinct)
                for sold in (unsold[rows], ~unsold[rows])
            ]
            more = np.flatnonzero(each[0] + each[1] > before)
            before = each[0] + each[1]
            gains += [Gain(word, by, number, int(each[0][number]), int(each[1][number])) for number in more.tolist()]
    gains.sort(key=lambda gain: (-gain.leads, -gain.contested, gain.word, gain.by or 0, gain.number))
    return gains


def _count_leads(codes: Numbers, leads: Numbers, highest: int, distinct: bool) -> Numbers:
    if not distinct:
        return np.bincount(codes, minlength=highest + 1)  # a decision considers a subscription once
    mask = np.zeros(int(leads.max(initial=-1)) + 1, bool)
    mask[leads] = True
    return np.array([np.count_nonzero(mask)])


def _overall(question: Question, misses: MissedMatches) -> tuple[Widening, ...]:
    """Return the changes of each rule for all subscriptions together; each lead counts once."""
    if not len(misses.lead):
        return ()
    gains = _gains(misses, np.zeros(len(misses.lead), np.int64), distinct=True)
    return tuple(_widening(question, gain, None) for gain in gains)


def _by_subscription(
    question: Question,
    leads: LeadSelection,
    misses: MissedMatches,
    subscriptions: Mapping[int, ReportSubscription],
    most: int,
) -> tuple[Widening, ...]:
    if not len(misses.lead):
        return ()
    gains = [gain for gain in _gains(misses, misses.subscription, distinct=False) if gain.number in subscriptions]
    return tuple(
        _widening(
            question,
            gain,
            subscriptions[gain.number],
            _missing_words(question, leads, misses, gain, subscriptions[gain.number]),
        )
        for gain in gains[:most]
    )


def _missing_words(
    question: Question, leads: LeadSelection, misses: MissedMatches, gain: Gain, whose: ReportSubscription
) -> str | None:
    """Return how far the cap or the wallet of a subscription was too low, or None for another rule.

    For a cap of leads that is the number of leads that it kept away on one day of the question's zone, at most.
    """
    rule, unit = gain.word.split(" ")[:2]
    if rule not in ADDING_UP or unit == "-":
        return None
    rows = (misses.subscription == gain.number) & (misses.rule == misses.words.index(gain.word))
    if unit == "minor":
        return f"up to {amount_in_words(round(float(misses.distance[rows].max())), whose.currency)}"
    minutes = (leads.columns.hours("minute") * 60 + leads.columns["minute"])[misses.lead[rows]]
    _days, counts = np.unique(local_minutes(minutes, question.zone) // DAY, return_counts=True)
    most = int(counts.max())
    return f"up to {most:,} {'lead' if most == 1 else 'leads'} on one day"


def _widening(question: Question, gain: Gain, whose: ReportSubscription | None, missing: str | None = None) -> Widening:
    rule, unit = gain.word.split(" ")[:2]
    a_week = round(7 * gain.leads / question.days, 1)
    doing = WIDENED.get(rule, f"Lifting the rule {rule}")
    if rule == "attribute" and unit != "-":
        doing = f"Widening {unit}"
    step = f" by {_in_words(gain.by, unit, whose)}" if gain.by is not None else ""
    by_how_much = f" It was too low by {missing}." if missing else ""
    more = f" ({gain.contested} more went to another business)" if gain.contested else ""
    subscription_id = ids.encode("sub", whose.id) if whose else None
    return Widening(
        subscription_id=subscription_id,
        subscription=whose.name if whose else None,
        business=whose.business if whose else None,
        rule=rule,
        by=gain.by,
        unit=None if unit == "-" else unit,
        missing=missing,
        leads=gain.leads,
        contested=gain.contested,
        a_week=a_week,
        sentence=f"{doing}{step}: +{a_week:g} leads a week{more}.{by_how_much}",
        rows=question.rows(missed=rule, unit=unit, within=gain.by, missed_by=subscription_id, state="unsold"),
    )


def _in_words(by: float, unit: str, whose: ReportSubscription | None) -> str:
    if unit == "minor":
        return amount_in_words(int(by), whose.currency) if whose else f"{by:g} minor units"
    return f"{by:g} {unit}"
