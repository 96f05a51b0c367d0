"""Quantiles of the Beta distribution and of Student's t. Tests compare them with scipy."""

import math
from functools import lru_cache
from statistics import NormalDist
from typing import Final

STEPS: Final = 20_000
"Most terms of the continued fraction. It needs about the square root of the larger parameter: enough for 10^8 leads."
TINY: Final = 1e-300
"Smallest divisor, in place of zero."


def beta_quantile(p: float, a: float, b: float) -> float:
    """Return the `p`-quantile of Beta(a, b), for a and b above 0 and p strictly between 0 and 1."""
    low, high = 0.0, 1.0
    mean = a / (a + b)
    near = mean + NormalDist().inv_cdf(p) * math.sqrt(mean * (1 - mean) / (a + b + 1))
    x = near if low < near < high else mean  # the normal distribution is close for many leads, and saves half the steps
    for _ in range(200):
        beyond = beta_share(x, a, b) - p
        low, high = (low, x) if beyond > 0 else (x, high)
        newton = x - beyond / max(_density(x, a, b), TINY)
        next_x = newton if low < newton < high else (low + high) / 2  # bisection if Newton's step leaves the bracket
        if abs(next_x - x) <= 1e-15 + 1e-13 * x:
            return next_x
        x = next_x
    return x


def _density(x: float, a: float, b: float) -> float:
    """Return the density of Beta(a, b) at `x`, limited to e^600."""
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(min(front + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x), 600.0))


@lru_cache(maxsize=1_024)
def t_quantile(p: float, freedom: float) -> float:
    """Return the `p`-quantile of Student's t with `freedom` degrees of freedom, for p above one half."""
    x = beta_quantile(2 * (1 - p), freedom / 2, 0.5)
    return math.sqrt(freedom * (1 - x) / x)


def beta_share(x: float, a: float, b: float) -> float:
    """Return the distribution function of Beta(a, b) at `x`: the regularised incomplete beta function."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _continued_fraction(x, a, b) / a
    return 1 - front * _continued_fraction(1 - x, b, a) / b


def _continued_fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function by Lentz's method (Numerical Recipes, 6.4)."""
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    total = d
    for m in range(1, STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _nonzero(1 + term * d)
            c = _nonzero(1 + term / c)
            change = c * d
            total *= change
        if abs(change - 1) < 1e-14:
            break
    return total


def _nonzero(value: float) -> float:
    """Return the value, or `TINY` if it is too close to zero to divide by."""
    return value if abs(value) > TINY else TINY
