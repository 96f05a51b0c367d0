"""Simulated leads whose true chance of winning is known, for tests of what is learned from them."""

from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from marketplace.learning.evaluation import HORIZON_WEEKS, FollowedOutcome, OutcomeKind, followed_outcome
from marketplace.learning.training import TrainingRow
from routing.scorecard import FeatureValue, probability_of

SOURCE_POINTS = {"chat": -1.0, "form": 0.0, "reference": 1.5}
ENDED_WON = FollowedOutcome(outcome=OutcomeKind.won, weeks=1)
ENDED_NOT_WON = FollowedOutcome(outcome=OutcomeKind.not_won, weeks=HORIZON_WEEKS)


def ended(won: bool) -> FollowedOutcome:
    """Outcome of a lead that was followed for the whole horizon."""
    return ENDED_WON if won else ENDED_NOT_WON


def simulated_rows(count: int, seed: int = 7) -> tuple[list[TrainingRow], NDArray[np.float64]]:
    """Leads with a source and a company size, and their true chances.

    The true log odds are -0.8, the points of the source, and 1 above a size of 50.
    """
    generator = np.random.default_rng(seed)
    rows, chances = [], []
    for _ in range(count):
        source = str(generator.choice(list(SOURCE_POINTS)))
        size = int(generator.integers(1, 101))
        true_chance = probability_of(-0.8 + SOURCE_POINTS[source] + (size > 50))
        values: dict[str, FeatureValue] = {"source": source, "provider": f"p{generator.integers(3)}"}
        if generator.random() < 0.8:
            values["company_size"] = size
        rows.append(TrainingRow(values=values, outcome=ended(generator.random() < true_chance)))
        chances.append(true_chance)
    return rows, np.array(chances)


def young_rows(count: int, seed: int = 7) -> list[TrainingRow]:
    """Leads of two providers with the same chance of 0.4, the second of which began 8 weeks ago, the first 39.

    A win takes up to 13 weeks; a third of the losses is reported after up to 13 weeks.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for place in range(count):
        provider, oldest = ("new", 56) if place % 3 == 0 else ("old", 273)
        age = timedelta(days=generator.random() * oldest)
        after = timedelta(days=generator.random() * 91)
        won = generator.random() < 0.4
        reported = not won and generator.random() < 1 / 3
        outcome = followed_outcome(age, after if won else None, after if reported else None)
        rows.append(TrainingRow(values={"provider": provider}, outcome=outcome))
    return rows
