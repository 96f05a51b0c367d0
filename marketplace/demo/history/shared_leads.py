"""Shared leads that a third of the businesses bought elsewhere, where each is sold to four businesses.

They are cheaper than exclusive leads, reached less often and won more rarely. Figures are plausible, not researched.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from marketplace.demo.history.outcomes import VALUE_OF_BUDGET
from marketplace.demo.people import MEDIAN_BUDGET_MINOR
from marketplace.demo.world import DemoBusiness, DemoWorld
from marketplace.runtime.clock import Random
from marketplace.shared_leads.csv_import import SharedLeadRow

VENDORS: Final = ("Demo Quote Network", "Demo Lead Exchange")
PRICE_PART: Final = (0.35, 0.5)
"""Price of a shared lead as a share of that of an exclusive lead, from and to."""
REACHED: Final = 0.55
WON: Final = 0.08
"""Share of the reached leads that are won: four businesses call the same person."""
MOST_SHARED: Final = 720
"""Shared leads of the business that is shown first, enough for a comparison. The others bought a fifth of that."""


def bought_elsewhere(
    random: Random, world: DemoWorld, business: DemoBusiness, slug: str, leads: int, since: datetime, until: datetime
) -> Iterator[SharedLeadRow]:
    """Yield the shared leads of one business from its own area, oldest first, with their outcomes up to `until`."""
    vendor = random.choice(VENDORS)
    homes = world.homes[business.city] if business.city else ()
    for number in range(leads):
        received_at = since + (until - since) * ((number + random.random()) / (leads + 1))
        contacted_at = received_at + timedelta(minutes=45 * random.lognormvariate(0, 1.2))
        ends_at = contacted_at + timedelta(days=6 * random.lognormvariate(0, 0.6))
        reached = random.random() < REACHED and contacted_at < until
        won = reached and random.random() < WON and ends_at < until
        lost = not won and ends_at < until and random.random() < 0.8
        value = MEDIAN_BUDGET_MINOR[business.vertical] * VALUE_OF_BUDGET * random.lognormvariate(0, 0.5)
        yield SharedLeadRow(
            number=number,
            vendor=vendor,
            external_id=f"demo-{number + 1}",
            vertical=slug,
            postal_code=random.choice(homes) if homes else None,
            received_at=received_at,
            cost_minor=int(business.definition.price_minor * random.uniform(*PRICE_PART)),
            contacted_at=contacted_at if reached else None,
            qualified=won or (reached and random.random() < 0.5),
            won_at=ends_at if won else None,
            won_minor=int(value) // 100 * 100 if won else None,
            lost_at=ends_at if lost else None,
        )


def buyers(reported: dict[UUID, int]) -> dict[UUID, int]:
    """Return the number of shared leads by business: every third business, ordered by its number of reported leads."""
    ordered = sorted(reported, key=lambda business_id: (-reported[business_id], business_id))
    return {
        business_id: MOST_SHARED if place == 0 else MOST_SHARED // 5
        for place, business_id in enumerate(ordered)
        if place % 3 == 0
    }
