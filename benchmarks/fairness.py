"""Simulate how leads are shared, how caps are paced, and how chance decides, and compare each with its promise.

    python -m benchmarks.fairness [--quick]

Shares: a market of twelve businesses of unequal weights and unequal eligibility: each takes leads of some areas only,
and some are closed at night or on weekends. Every lead is ranked by the strategy itself (`routing.ranking.rank`) with
the credits that the leads before left. A business is entitled to the sum of its parts, its weight over the weights of
all that could have had the lead; a lead beyond its business's entitlement is misplaced.

Pace: every lead of some days is offered to a business with a cap. Its plan follows the curve of the four weeks before.

Chance: businesses of equal rank, by the probabilities that are recorded.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import median
from typing import Final
from uuid import UUID

from benchmarks.claims import Row, as_table
from routing.calendar import CapWindow
from routing.inquiry import Mode
from routing.matching import Candidate, CapsAndWallet, Usage, check_standing
from routing.pacing import HOURS, plan_arrivals
from routing.ranking import Strategy, rank
from routing.shares import LEAD, business_weights, credit_changes, lead_parts
from routing.subscription import Area, Cap, Subscription, SubscriptionDefinition
from routing.vertical import MOST_EXPLORED_PER_MILLE

VOLUMES: Final = (333, 30, 6)
"Leads a day."
LEADS: Final = 10_000
QUICK_LEADS: Final = 2_000
DAYS: Final = 350
QUICK_DAYS: Final = 70
WEIGHTS: Final = (1, 1, 2, 3, 1, 5, 2, 10, 1, 4, 8, 1)
EQUAL: Final = (1,) * 12
AREAS: Final = 5
MISPLACED_PERCENT: Final = 0.5
"Most leads that may be misplaced, of a hundred."
LONGEST_WAIT: Final = 40
"Most leads that a business of equal weight could have had before it gets one."


def never_paused(business: int, lead: int) -> bool:
    """No business is paused."""
    return False


@dataclass(frozen=True, kw_only=True)
class Market:
    """Businesses by number with their weights, which are `later_weights` from lead `changed_at` on.

    `a_day` leads come a day. With `unequal`, eligibility differs by area and by time.
    """

    weights: tuple[int, ...]
    later_weights: tuple[int, ...] = ()
    changed_at: int = 0
    a_day: int = 30
    unequal: bool = False
    paused: Callable[[int, int], bool] = never_paused

    def weights_at(self, lead: int) -> tuple[int, ...]:
        """Return the weights in force for a lead."""
        return self.later_weights if self.later_weights and lead >= self.changed_at else self.weights

    def eligible(self, lead: int, area: int) -> tuple[int, ...]:
        """Return the businesses that may have a lead of this area; number 7 takes every one."""
        hour, day = 24 * (lead % self.a_day) // self.a_day, lead // self.a_day
        return tuple(
            business
            for business in range(len(self.weights))
            if not self.paused(business, lead) and (not self.unequal or self._takes(business, area, hour, day))
        )

    def _takes(self, business: int, area: int, hour: int, day: int) -> bool:
        if business == 7:
            return True
        if (business + area) % AREAS > 2:
            return False
        return not (business % 3 == 0 and not 7 <= hour < 19) and not (business % 4 == 1 and day % 7 > 4)


@dataclass(kw_only=True)
class Run:
    """Winner of each lead, entitlements in billionths of a lead, and the longest wait of each business in leads."""

    winners: list[int] = field(default_factory=list)
    entitled: list[int]
    waits: list[int]

    def misplaced_percent(self) -> float:
        """Return the leads beyond the entitlements of their businesses, in percent of all."""
        beyond = (max(0, LEAD * self.winners.count(number) - due) for number, due in enumerate(self.entitled))
        return 100 * sum(beyond) / LEAD / len(self.winners)


def run(market: Market, leads: int, seed: int = 1) -> Run:
    """Award `leads` leads of a market one after the other."""
    random = Random(seed)
    size = len(market.weights)
    result = Run(entitled=[0] * size, waits=[0] * size)
    credits, waiting = [0] * size, [0] * size
    for lead in range(leads):
        eligible = market.eligible(lead, random.randrange(AREAS))
        weights = market.weights_at(lead)
        definitions = {UUID(int=number + 1): _definition(weights[number]) for number in eligible}
        standings = {
            UUID(int=number + 1): CapsAndWallet(available_minor=0, share_credit=credits[number]) for number in eligible
        }
        candidates = [_candidate(number) for number in eligible]
        ranked = rank(Strategy.fair, candidates, definitions, standings, UUID(int=random.getrandbits(128)).bytes)
        winner = ranked[0].candidate.business_id
        shares = business_weights((_business_id(number), definitions[UUID(int=number + 1)]) for number in eligible)
        parts, changes = lead_parts(shares), credit_changes(shares, winner)
        for number in eligible:
            business_id = _business_id(number)
            result.entitled[number] += parts[business_id]
            credits[number] += changes[business_id]
            waiting[number] = 0 if business_id == winner else waiting[number] + 1
            result.waits[number] = max(result.waits[number], waiting[number])
        result.winners.append(winner.int - 1_001)
    return result


def _business_id(number: int) -> UUID:
    return UUID(int=1_001 + number)


def _definition(weight: int, priority: int = 1) -> SubscriptionDefinition:
    return SubscriptionDefinition(
        area=Area(anywhere=True), zone="UTC", price_minor=5_000, currency="USD", weight=weight, priority=priority
    )


def _candidate(number: int) -> Candidate:
    return Candidate(
        subscription_id=UUID(int=number + 1),
        business_id=_business_id(number),
        endpoint_id=None,
        version=1,
        price_minor=5_000,
    )


# Pace of a cap.


ARRIVALS: Final = (2, 1, 1, 1, 1, 2, 4, 8, 14, 20, 24, 24, 22, 20, 20, 20, 18, 18, 20, 22, 18, 12, 8, 4)
"Leads of the hours of a day, in proportion: most at noon and in the evening. A weekend has half as many."
WEEKS_LEARNED: Final = 4
MONDAY: Final = datetime(2026, 11, 23, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class PacedDays:
    """Days of a business with a cap: by day, the hours of its awards and how many leads came."""

    awards: list[list[float]]
    came: list[int]

    def unspent_percent(self, cap: int) -> float:
        """Return the awards that were possible and not made, in percent: as many as came, and at most the cap."""
        possible = sum(min(cap, came) for came in self.came)
        return 100 * (1 - sum(map(len, self.awards)) / possible)

    def overshoot_percent(self, cap: int) -> float:
        """Return how far the awards of an hour exceed the arrivals of that hour, in percent of the cap; the largest.

        Hours are averaged over all days, because a lead cannot be divided.
        """
        days, arrivals = len(self.awards), sum(ARRIVALS)
        awarded = [sum(int(at) == hour for day in self.awards for at in day) / days for hour in range(24)]
        beyond = (count - cap * share / arrivals for count, share in zip(awarded, ARRIVALS, strict=True))
        return 100 * max(beyond) / cap

    def last_award(self) -> float:
        """Return the median hour of the last award of a day."""
        return median(max(day) for day in self.awards if day)


def pace_days(a_day: int, cap: int, days: int, *, pace: bool, seed: int = 1) -> PacedDays:
    """Offer every lead of so many days to a business with a cap on the leads of a day, and learn the curve before.

    Numbers of leads differ from day to day by a quarter (standard deviation of the logarithm), besides chance.
    """
    random = Random(seed)
    history = Counter(
        int((at - MONDAY).total_seconds()) // 3_600 % HOURS
        for day in range(-7 * WEEKS_LEARNED, 0)
        for at in _arrivals(random, day, a_day)
    )
    definition = SubscriptionDefinition(
        area=Area(anywhere=True),
        zone="UTC",
        price_minor=5_000,
        currency="USD",
        caps=(Cap(window=CapWindow.day, count=cap),),
        pace=pace,
    )
    plan = plan_arrivals([1 + history[hour] for hour in range(HOURS)], None, MONDAY) if pace else None
    subscription = Subscription(
        id=UUID(int=1),
        business_id=_business_id(0),
        endpoint_id=None,
        vertical="roofing",
        country="US",
        mode=Mode.live,
        version=1,
        definition=definition,
        plan=plan,
    )
    result = PacedDays(awards=[], came=[])
    for day in range(days):
        leads, awards = _arrivals(random, day, a_day), list[float]()
        for at in leads:
            usage = {CapWindow.day: Usage(count=len(awards))}
            standing = CapsAndWallet(available_minor=10_000, usage=usage)
            if not check_standing(subscription, _candidate(0), standing, at).failures:
                awards.append((at - MONDAY).total_seconds() / 3_600 % 24)
        result.awards.append(awards)
        result.came.append(len(leads))
    return result


def _arrivals(random: Random, day: int, a_day: int) -> list[datetime]:
    """Draw the times of the leads of a day, counted from MONDAY: each hour has its part of them, give or take."""
    level = a_day / sum(ARRIVALS) * random.lognormvariate(-(0.25**2) / 2, 0.25) * (0.5 if day % 7 > 4 else 1.2)
    seconds = [
        3_600 * (hour + random.random())
        for hour, share in enumerate(ARRIVALS)
        for _lead in range(_poisson(random, level * share))
    ]
    return [MONDAY + timedelta(days=day, seconds=second) for second in sorted(seconds)]


def _poisson(random: Random, mean: float) -> int:
    """Draw a number of leads: as many as exponential times fit into one of length `mean`."""
    count, time = 0, random.expovariate(1)
    while time < mean:
        count, time = count + 1, time + random.expovariate(1)
    return count


# Chance.


def first_by_chance(leads: int, explore_per_mille: int = 0) -> float:
    """Return chi squared of who stands first, against the recorded probabilities, with 11 degrees of freedom.

    Twelve businesses are equals or, where some leads are explored, in a fixed order.
    """
    random = Random(1)
    definitions = {
        UUID(int=number + 1): _definition(1, priority=number if explore_per_mille else 1) for number in range(12)
    }
    candidates = [_candidate(number) for number in range(12)]
    wins: Counter[UUID] = Counter()
    for _lead in range(leads):
        random.shuffle(candidates)
        seed = UUID(int=random.getrandbits(128)).bytes
        ranked = rank(Strategy.priority, candidates, definitions, {}, seed, explore_per_mille=explore_per_mille)
        wins[ranked[0].candidate.subscription_id] += 1
    expected = {place.candidate.subscription_id: leads * place.propensity for place in ranked}
    return sum((wins[key] - count) ** 2 / count for key, count in expected.items())


def estimated_difference(leads: int) -> tuple[float, float]:
    """Return by how many points one business wins more of its leads than another: as counted, and by propensity.

    In truth they win alike. Half of the leads are good, won by whoever has them at 30 %, and the first business is
    ranked first for them; the other half are won at 10 %, and the second is first. 50 of 1,000 leads are explored.
    """
    random = Random(1)
    candidates = [_candidate(number) for number in range(2)]
    totals = [[0.0] * 4 for _business in candidates]
    for _lead in range(leads):
        good = random.random() < 0.5
        definitions = {UUID(int=n + 1): _definition(1, priority=n if good else 1 - n) for n in range(2)}
        seed = UUID(int=random.getrandbits(128)).bytes
        first = rank(Strategy.priority, candidates, definitions, {}, seed, explore_per_mille=MOST_EXPLORED_PER_MILLE)[0]
        won, weight = random.random() < (0.3 if good else 0.1), 1 / first.propensity
        sums = totals[first.candidate.subscription_id.int - 1]
        for place, term in enumerate((1, won, weight, weight * won)):
            sums[place] += term
    (ours, our_wins, our_weight, our_weighted), (theirs, their_wins, their_weight, their_weighted) = totals
    counted = our_wins / ours - their_wins / theirs
    return 100 * counted, 100 * (our_weighted / our_weight - their_weighted / their_weight)


# Rows.


def _share_rows(leads: int) -> Iterator[Row]:
    for a_day in VOLUMES:
        uneven = run(Market(weights=WEIGHTS, a_day=a_day, unequal=True), leads)
        name = f"fair, {a_day} leads a day, 12 businesses of unequal weight: misplaced leads, %"
        yield Row(name=name, measured=round(float(uneven.misplaced_percent()), 3), low=0, high=MISPLACED_PERCENT)
        equal = run(Market(weights=EQUAL, a_day=a_day, unequal=True), leads)
        name = f"fair, {a_day} leads a day, 12 businesses of equal weight: longest wait, leads"
        yield Row(name=name, measured=max(equal.waits), low=0, high=LONGEST_WAIT)
    winners = run(Market(weights=(10, 1), a_day=8), 808).winners
    yield Row(
        name="fair, 8 leads a day, weights 10 and 1: leads of the lighter, of 808",
        measured=winners.count(1),
        low=73,
        high=74,
    )


def _pace_rows(days: int) -> Iterator[Row]:
    free, paced = (pace_days(100, 10, days, pace=pace) for pace in (False, True))
    yield _row("cap of 10, 100 leads a day, not paced: hour of the last award", free.last_award(), 6, 10)
    yield _row(
        "cap of 10, 100 leads a day, not paced: beyond the arrivals of an hour, % of the cap",
        free.overshoot_percent(10),
        5,
        100,
    )
    yield _row("cap of 10, 100 leads a day, paced: hour of the last award", paced.last_award(), 18, 24)
    yield _row(
        "cap of 10, 100 leads a day, paced: beyond the arrivals of an hour, % of the cap",
        paced.overshoot_percent(10),
        0,
        5,
    )
    yield _row("cap of 10, 100 leads a day, paced: awards left out, %", paced.unspent_percent(10), 0, 1)
    for a_day, most in ((30, 5), (15, 10)):
        thin = pace_days(a_day, 10, days, pace=True)
        yield _row(f"cap of 10, {a_day} leads a day, paced: awards left out, %", thin.unspent_percent(10), 0, most)


def _chance_rows(leads: int) -> Iterator[Row]:
    """Chi squared with 11 degrees of freedom is from 1.5 to 31.3 in all but two of a thousand draws."""
    yield _row("12 equals: chi squared of who is first, 11 degrees of freedom", first_by_chance(leads), 1.5, 31.3)
    explored = first_by_chance(leads, MOST_EXPLORED_PER_MILLE)
    yield _row("50 of 1,000 leads explored: chi squared of who is first, 11 degrees of freedom", explored, 1.5, 31.3)
    counted, weighted = estimated_difference(2 * leads)
    yield _row("two businesses that win alike, better leads to one: difference as counted, points", counted, 10, 30)
    yield _row("two businesses that win alike, better leads to one: by propensity, points", weighted, -8, 8)


def _row(name: str, measured: float, low: float, high: float) -> Row:
    return Row(name=name, measured=round(float(measured), 2), low=low, high=high)


def rows(quick: bool) -> list[Row]:
    """Return the rows of shares, pace and chance; `quick` has a fifth of the leads and days."""
    leads, days = (QUICK_LEADS, QUICK_DAYS) if quick else (LEADS, DAYS)
    return [*_share_rows(leads), *_pace_rows(days), *_chance_rows(leads)]


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the leads and days")
    print(as_table(rows(parser.parse_args().quick)))


if __name__ == "__main__":
    main()
