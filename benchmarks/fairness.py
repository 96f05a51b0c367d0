"""Simulate the strategy `fair` at several volumes, and compare the leads of each business with its share.

    python -m benchmarks.fairness [--quick]

A market of twelve businesses of unequal weights and unequal eligibility: each takes leads of some areas only, and some
are closed at night or on weekends. Every lead is ranked by the strategy itself (`routing.ranking.rank`) with the
credits that the leads before left. A business is entitled to the sum of its parts, its weight over the weights of
all that could have had the lead; a lead beyond its business's entitlement is misplaced.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from uuid import UUID

from routing.matching import Candidate, CapsAndWallet
from routing.ranking import Strategy, rank
from routing.shares import LEAD, business_weights, credit_changes, lead_parts
from routing.subscription import Area, SubscriptionDefinition

VOLUMES: Final = (333, 30, 6)
"Leads a day."
LEADS: Final = 10_000
QUICK_LEADS: Final = 2_000
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


def _definition(weight: int) -> SubscriptionDefinition:
    return SubscriptionDefinition(
        area=Area(anywhere=True), zone="UTC", price_minor=5_000, currency="USD", weight=weight
    )


def _candidate(number: int) -> Candidate:
    return Candidate(
        subscription_id=UUID(int=number + 1),
        business_id=_business_id(number),
        endpoint_id=None,
        version=1,
        price_minor=5_000,
    )


def _rows(quick: bool) -> Iterator[dict[str, Any]]:
    leads = QUICK_LEADS if quick else LEADS
    for a_day in VOLUMES:
        uneven = run(Market(weights=WEIGHTS, a_day=a_day, unequal=True), leads)
        yield {
            "name": f"fair, {a_day} leads a day, 12 businesses of unequal weight: misplaced leads, %",
            "measured": round(uneven.misplaced_percent(), 3),
            "low": 0,
            "high": MISPLACED_PERCENT,
        }
        equal = run(Market(weights=EQUAL, a_day=a_day, unequal=True), leads)
        yield {
            "name": f"fair, {a_day} leads a day, 12 businesses of equal weight: longest wait, leads",
            "measured": max(equal.waits),
            "low": 0,
            "high": LONGEST_WAIT,
        }


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return name, measured figure and its bounds, `low` and `high`, by volume; `quick` has a fifth of the leads."""
    return list(_rows(quick))


def main() -> None:
    """Print the rows, one a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    for row in rows(parser.parse_args().quick):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
