"""Figures of measurements: quantiles, medians of rounds, ratios to the bare pipeline, growth of a backlog."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Final

QUANTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
GROWTH: Final = 1.2
SLACK_SECONDS: Final = 0.25
"""Seconds of arrivals that a backlog may grow by. It grew if the average of its last third is a fifth above the middle
third, and by more than this above the first: a smaller queue is the work in progress."""


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest measurement that at least `share` of all do not exceed.

    `ordered` rises and is not empty; a higher share never gives a smaller value, however few there are.
    """
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]


def quantiles_of(values: Iterable[float]) -> dict[str, float | None]:
    """Return p50, p95 and p99 of the values, rounded to a hundredth; None without values."""
    ordered = sorted(values)
    return {name: round(quantile(ordered, share), 2) if ordered else None for name, share in QUANTILES}


def median_figures(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the median over the rounds of each figure, in nested mappings too. A figure that is None is left out.

    All rounds have the same keys.
    """
    medians: dict[str, Any] = {}
    for key, first in rounds[0].items():
        values = [figures[key] for figures in rounds]
        if isinstance(first, Mapping):
            medians[key] = median_figures(values)
        else:
            numbers = [value for value in values if value is not None]
            medians[key] = round(median(numbers), 3) if numbers else None
    return medians


def ratio_figures(ours: Mapping[str, Any], floor: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ratio of each figure of ours to the floor's, for the keys of both; None where a side has no figure."""
    ratios: dict[str, Any] = {}
    for key in ours.keys() & floor.keys():
        mine, theirs = ours[key], floor[key]
        if isinstance(mine, Mapping):
            ratios[key] = ratio_figures(mine, theirs)
        else:
            ratios[key] = round(mine / theirs, 3) if mine is not None and theirs else None
    return {key: ratios[key] for key in ours if key in ratios}


def compare_rounds(ours: Sequence[Mapping[str, Any]], floor: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return medians of both sides, and the median of the ratios that each round gives by itself.

    Both sides of a round are measured one after the other, so its ratio suffers less from a machine that changes speed
    than the ratio of two medians.
    """
    ratios = [ratio_figures(mine, theirs) for mine, theirs in zip(ours, floor, strict=True)]
    return {"ours": median_figures(ours), "floor": median_figures(floor), "ratio": median_figures(ratios)}


def backlog_of(spans: Sequence[tuple[float, float]], seconds: int) -> list[int]:
    """Return the number of open leads at the end of each second, from their times of arrival and of their end."""
    return [sum(arrived <= second < ended for arrived, ended in spans) for second in range(1, seconds + 1)]


def thirds(backlog: Sequence[float]) -> list[float]:
    """Return the mean of each third of the samples."""
    size = max(1, len(backlog) // 3)
    parts = (backlog[:size], backlog[size : 2 * size], backlog[2 * size :])
    return [round(sum(part) / len(part), 1) if part else 0.0 for part in parts]


def grew(parts: Sequence[float], rate: float) -> bool:
    """Return whether the backlog was still growing at the end."""
    first, middle, last = parts
    return last > GROWTH * middle and last > first + SLACK_SECONDS * rate


def recovery_seconds(windows: Sequence[tuple[float, float | None]], limit_ms: float) -> float | None:
    """Return the start of the first window from which on every window's figure is within the limit; None if none is.

    Each window is its start in seconds and its figure in milliseconds, None if it has no lead.
    """
    since: float | None = None
    for start, figure in windows:
        if figure is None or figure > limit_ms:
            since = None
        elif since is None:
            since = start
    return since
