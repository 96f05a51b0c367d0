"""Values of jobs that are too uneven for an interval of their mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.tails import is_heavy_tailed, tail_index

SAMPLES = 200


def refused(kind: str, jobs: int) -> float:
    """Return the share of samples of so many jobs that are called too uneven."""
    chance = np.random.default_rng(7)
    draws = {
        "log-normal 0.8": lambda: chance.lognormal(0, 0.8, jobs),
        "log-normal 1.2": lambda: chance.lognormal(0, 1.2, jobs),
        "log-normal 2.0": lambda: chance.lognormal(0, 2.0, jobs),
        "exponential": lambda: chance.exponential(1, jobs),
        "power law 1.5": lambda: 1 + chance.pareto(1.5, jobs),
        "power law 3.0": lambda: 1 + chance.pareto(3.0, jobs),
    }
    return float(np.mean([is_heavy_tailed(draws[kind]()) for _ in range(SAMPLES)]))


@pytest.mark.parametrize("kind", ["log-normal 0.8", "log-normal 1.2", "exponential", "power law 3.0"])
def test_ordinary_jobs_are_hardly_ever_called_too_uneven(kind: str) -> None:
    assert refused(kind, 60) <= 0.11
    assert refused(kind, 150) <= 0.03


@pytest.mark.parametrize("kind", ["log-normal 2.0", "power law 1.5"])
def test_jobs_of_which_a_few_make_up_the_revenue_are_called_too_uneven(kind: str) -> None:
    assert refused(kind, 60) >= 0.85
    assert refused(kind, 150) >= 0.95


def test_equal_jobs_and_too_few_of_them_are_not_uneven() -> None:
    assert not is_heavy_tailed(np.full(50, 200_000.0))
    assert not is_heavy_tailed(np.array([1.0, 1e9] * 4))


def test_the_index_is_one_over_the_mean_distance_of_the_largest_logarithms() -> None:
    assert tail_index(np.array([3.0, 2.0, 1.0, 0.5]), 2) == pytest.approx(1 / 1.5)


@given(st.lists(st.integers(1, 10**9), min_size=10, max_size=60), st.sampled_from((100, 155)))
def test_the_currency_decides_nothing(values: list[int], rate: int) -> None:
    """A factor moves all logarithms alike."""
    logs = np.unique(np.round(np.log(values), 3))
    assert is_heavy_tailed(np.exp(logs)) == is_heavy_tailed(np.exp(logs) * rate)
