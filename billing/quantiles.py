"""The two quantiles that intervals need: of a Beta and of Student's t. Checked in tests against scipy."""

import math
from functools import lru_cache
from typing import Final

STEPS: Final = 20_000
"The continued fraction takes about the square root of the larger parameter: this is enough for 10^8 leads."
TINY: Final = 1e-300


def beta_quantile(p: float, a: float, b: float) -> float:
    """Where a Beta(a, b) has `p` of its mass to the left; a and b above 0, p strictly between 0 and 1."""
    low, high, x = 0.0, 1.0, a / (a + b)
    for _ in range(200):
        beyond = beta_share(x, a, b) - p
        low, high = (low, x) if beyond > 0 else (x, high)
        step = x - beyond / max(_density(x, a, b), TINY)  # Newton's, unless it leaves what is left to search
        following = step if low < step < high else (low + high) / 2
        if abs(following - x) <= 1e-15 + 1e-13 * x:
            return following
        x = following
    return x


def _density(x: float, a: float, b: float) -> float:
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(min(front + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x), 600.0))


@lru_cache(maxsize=1_024)
def t_quantile(p: float, freedom: float) -> float:
    """Student's t with `freedom` degrees of freedom, for p above one half."""
    x = beta_quantile(2 * (1 - p), freedom / 2, 0.5)
    return math.sqrt(freedom * (1 - x) / x)


def beta_share(x: float, a: float, b: float) -> float:
    """The mass of a Beta(a, b) to the left of `x`: the regularised incomplete beta function."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Lentz's way through the continued fraction (Press et al., Numerical Recipes, 6.4)."""
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    total = d
    for m in range(1, STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            change = c * d
            total *= change
        if abs(change - 1) < 1e-14:
            break
    return total


def _away(value: float) -> float:
    return value if abs(value) > TINY else TINY
