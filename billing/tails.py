"""Judgement of the values of won jobs: whether they are too uneven for a trustworthy interval of their mean.

Two kinds of values are. If the largest ones follow a power law with an index below 2, the variance of a value is
infinite, and no sample shows it. If logarithms are spread like those of a log-normal distribution with a standard
deviation of 1.5 or more, most samples lack the few jobs that make up most of the revenue. Both are recognised by how
far larger values lie above a lower one, in logarithms (Hill's estimator of the index), and the first also by logarithms
that are skewed to the right. docs/ROI.md says how often, and how often harmless values are refused by mistake.
"""

import math
from typing import Final

import numpy as np

from billing.lifetable import Floats

LEAST_JOBS: Final = 10
"Least jobs for a judgement: there is no verdict with fewer."
LEAST_LARGEST: Final = 5
"Least number of largest jobs, whose mean distance has then a relative standard error of 45 %."
FAR_SPREAD: Final = 0.84
"Index of the upper half of log-normal values with a standard deviation of 1.5: 0.5 / (φ(0) · 1.5)."
POWER_LAW: Final = 2.0
"Index below which a power law has no variance."
LARGEST: Final = 3.0
"Index of the largest jobs, above which they are close to each other. Of an index of 2, nine samples in ten are below."
SKEW: Final = 0.7
"Skewness of logarithms: 0 of log-normal values, 2 of a power law; 60 log-normal values stay below 0.7 in 99 samples."


def is_heavy_tailed(values: Floats) -> bool:
    """Return whether values above 0, in any unit, are too uneven for an interval of their mean."""
    if len(values) < LEAST_JOBS:
        return False
    logs = np.sort(np.log(values))[::-1]
    half, largest = tail_index(logs, len(logs) // 2), tail_index(logs, max(math.isqrt(len(logs)), LEAST_LARGEST))
    spread_far = half < FAR_SPREAD and largest < POWER_LAW
    return spread_far or (half < POWER_LAW and largest < LARGEST and _skewness(logs) > SKEW)


def tail_index(descending_logs: Floats, count: int) -> float:
    """Return Hill's estimate: one over the mean distance of the `count` largest logarithms from the next one."""
    distance = float(descending_logs[:count].mean() - descending_logs[count])
    return 1 / distance if distance > 0 else math.inf


def _skewness(values: Floats) -> float:
    deviations = values - values.mean()
    variance = float((deviations**2).mean())
    return float((deviations**3).mean()) / variance**1.5 if variance > 0 else 0.0
