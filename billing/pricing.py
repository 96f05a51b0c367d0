"""What a provider is paid for a lead, out of the price that its business paid.

Money is whole minor units of one currency; a share is whole basis points. No float comes near either.
"""

from typing import Annotated, Final, assert_never

import msgspec

WHOLE: Final = 10_000
"Basis points in the whole price."


class FixedPayout(msgspec.Struct, frozen=True, kw_only=True, tag="fixed"):
    """The same amount for each lead, in minor units."""

    minor: Annotated[int, msgspec.Meta(ge=0)]


class SharePayout(msgspec.Struct, frozen=True, kw_only=True, tag="share"):
    """A part of the price, in basis points: 6,000 is 60 %."""

    basis_points: Annotated[int, msgspec.Meta(ge=0, le=WHOLE)]


Payout = FixedPayout | SharePayout


def payout_minor(rule: Payout, price_minor: int) -> int:
    """What the provider earns of `price_minor`: never more than it, so that no sale makes a loss.

    A share is rounded down to the minor unit. A fixed amount above the price is cut to the price.
    """
    match rule:
        case FixedPayout(minor=minor):
            return min(minor, price_minor)
        case SharePayout(basis_points=basis_points):
            return price_minor * basis_points // WHOLE
        case _:
            assert_never(rule)
