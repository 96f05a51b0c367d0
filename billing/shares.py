"""Shares of a payout that several providers divide among them, in whole minor units."""


def split_payout(payout_minor: int, parts: int) -> tuple[int, ...]:
    """Divide a payout into equal parts, in minor units; the first part also gets the remainder.

    The parts add up to the payout, and none is negative. Raises ValueError for a negative payout or no part.
    """
    if payout_minor < 0 or parts < 1:
        raise ValueError(f"A payout of {payout_minor} cannot be divided into {parts} parts.")
    part, remainder = divmod(payout_minor, parts)
    return (part + remainder, *[part] * (parts - 1))
