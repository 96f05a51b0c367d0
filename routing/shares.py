"""Shares of businesses in the leads of a vertical: the parts of one lead, and the credits that they add up to.

For each lead that is awarded, the credit of every business that could have had it grows by its part, its weight over
the sum of their weights, and the winner's falls by the whole lead. A credit is therefore the number of leads by which a
business is behind its share (above zero) or ahead of it. The credits of a vertical sum to zero. A business that cannot
have a lead, because it is paused, closed or outside the area, neither gains nor loses by it.

Credits and parts are integers, in billionths of a lead, so that sums are exact in any order.
"""

from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from routing.subscription import SubscriptionDefinition

LEAD: Final = 1_000_000_000
"One whole lead, in billionths. A part is off by less than one of them: a million leads misplace a thousandth of one."


def business_weights(terms: Iterable[tuple[UUID, SubscriptionDefinition]]) -> dict[UUID, int]:
    """Return the weight of each business: several subscriptions have one share together, that of the largest weight.

    `terms` are business ids with the definitions of their subscriptions.
    """
    weights: dict[UUID, int] = {}
    for business_id, definition in terms:
        weights[business_id] = max(definition.weight, weights.get(business_id, 0))
    return weights


def lead_parts(weights: Mapping[UUID, int]) -> dict[UUID, int]:
    """Return the part of each business in one lead, in proportion to the weights; together they are one `LEAD`."""
    total = sum(weights.values())
    parts: dict[UUID, int] = {}
    passed = 0
    for business_id in sorted(weights):
        before = LEAD * passed // total
        passed += weights[business_id]
        parts[business_id] = LEAD * passed // total - before
    return parts


def credit_changes(weights: Mapping[UUID, int], winner: UUID) -> dict[UUID, int]:
    """Return by how much the award of one lead to `winner` changes the credit of each business; the sum is zero.

    `weights` are those of the businesses that could have had the lead, the winner among them.
    """
    changes = lead_parts(weights)
    changes[winner] -= LEAD
    return changes
