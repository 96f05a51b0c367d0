"""Payout rules: the part of a lead's price that its provider earns.

Amounts are whole minor units of one currency, shares whole basis points; there are no floats.
"""

from typing import Annotated, Final, assert_never

import msgspec

WHOLE: Final = 10_000
"Basis points of the whole price: 100 %."
MOST_FIXED_MINOR: Final = 10**12
"Limit of a fixed payout, in minor units. No price comes near it, and a payout is never above the price."


class FixedPayout(msgspec.Struct, frozen=True, kw_only=True, tag="fixed"):
    """A fixed amount per lead, in minor units."""

    minor: Annotated[int, msgspec.Meta(ge=0, le=MOST_FIXED_MINOR)]


class SharePayout(msgspec.Struct, frozen=True, kw_only=True, tag="share"):
    """A share of the price, in basis points: 6,000 is 60 %."""

    basis_points: Annotated[int, msgspec.Meta(ge=0, le=WHOLE)]


Payout = FixedPayout | SharePayout


def payout_minor(rule: Payout, price_minor: int) -> int:
    """Return the provider's payout for a lead sold at `price_minor`, in minor units; never more than the price.

    A share is rounded down to the minor unit. A fixed amount above the price is reduced to the price, so that no sale
    makes a loss.
    """
    match rule:
        case FixedPayout(minor=minor):
            return min(minor, price_minor)
        case SharePayout(basis_points=basis_points):
            return price_minor * basis_points // WHOLE
        case _:
            assert_never(rule)
