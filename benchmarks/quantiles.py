"""Quantiles of a benchmark's measurements."""

import math
from collections.abc import Sequence


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest measurement that at least `share` of all do not exceed.

    `ordered` rises and is not empty; a higher share never gives a smaller value, however few there are.
    """
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]
