"""Figures of benchmarks: quantiles, medians, ratios, backlogs."""

import pytest

from benchmarks import figures


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (0.001, 1), (1.0, 100)], ids=lambda value: str(value)
)
def test_a_quantile_is_the_nearest_rank(share: float, expected: float) -> None:
    assert figures.quantile(range(1, 101), share) == expected


def test_figures_of_no_measurement_are_none() -> None:
    assert figures.quantiles_of([]) == {"p50": None, "p95": None, "p99": None}


def test_medians_go_into_nested_figures_and_leave_none_out() -> None:
    rounds = [{"a": {"p50": value}, "b": None} for value in (1.0, 9.0, 2.0)]
    assert figures.median_figures(rounds) == {"a": {"p50": 2.0}, "b": None}


def test_the_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    """A machine that is twice as slow in one round changes no ratio."""
    compared = figures.compare_rounds([{"p50": 4.0}, {"p50": 8.0}], [{"p50": 2.0}, {"p50": 4.0}])
    assert compared == {"ours": {"p50": 6.0}, "floor": {"p50": 3.0}, "ratio": {"p50": 2.0}}


def test_no_ratio_to_a_figure_that_is_missing_or_zero() -> None:
    assert figures.ratio_figures({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": None, "b": 0.0}) == {"a": None, "b": None}


def test_a_backlog_counts_what_has_arrived_and_not_ended() -> None:
    spans = [(0.1, 0.2), (0.5, 2.5), (1.5, 9.0)]
    assert figures.backlog_of(spans, 4) == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("backlog", "rate", "expected"),
    [([5, 6, 5, 6, 5, 6], 100, False), ([10, 20, 30, 40, 50, 60], 100, True), ([1, 2, 3, 4, 5, 6], 100, False)],
    ids=["flat", "growing", "small"],
)
def test_a_backlog_grew_if_its_end_is_well_above_its_middle(backlog: list[int], rate: float, expected: bool) -> None:
    assert figures.grew(figures.thirds(backlog), rate) is expected


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([(0.0, 900.0), (5.0, 40.0), (10.0, 30.0)], 5.0),
        ([(0.0, 40.0), (5.0, 900.0), (10.0, 30.0)], 10.0),
        ([(0.0, 40.0), (5.0, None)], None),
    ],
    ids=["after one window", "after a relapse", "never"],
)
def test_it_is_normal_again_when_no_later_window_is_late(
    windows: list[tuple[float, float | None]], expected: float | None
) -> None:
    assert figures.recovery_seconds(windows, 50.0) == expected
