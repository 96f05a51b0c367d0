"""Chance that follows from a seed: the same text draws the same numbers, so that a run can be repeated.

Nothing that must not be guessed comes from here; that is for marketplace.clock.
"""

from random import Random

__all__ = ["Random", "seeded"]


def seeded(text: str) -> Random:
    """A source of numbers that depends on `text` alone."""
    return Random(text)
