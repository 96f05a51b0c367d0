"""Times of inquiries: more of them every week, on working days, before noon and in the evening."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from marketplace.runtime.clock import Random

PER_DAY: Final = 86.0
"""Inquiries on an average day. All figures here are invented."""
GROWTH: Final = 0.25
"""Growth of the rate over the whole history, as a share of the average."""
ZONE: Final = ZoneInfo("America/Chicago")
"""Time zone of the hours and weekdays."""
WEEKDAY_FACTORS: Final = (1.2, 1.15, 1.1, 1.05, 0.95, 0.75, 0.8)
"""Factor of each weekday, Monday to Sunday."""
HOUR_WEIGHTS: Final = (
    0.2, 0.1, 0.1, 0.1, 0.1, 0.3, 0.7, 1.1, 1.5, 1.8, 1.9, 1.8,
    1.5, 1.4, 1.5, 1.5, 1.4, 1.2, 1.2, 1.5, 1.7, 1.5, 0.9, 0.5,
)  # fmt: skip
"""Weight of each hour of the day, from midnight."""


def arrivals(random: Random, since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield times of arrival in order: a Poisson process whose rate depends on the hour, the weekday and the week."""
    hour = since
    while hour < until:
        local = hour.astimezone(ZONE)
        growth = 1 + GROWTH * ((hour - since) / (until - since) - 0.5)
        rate = PER_DAY * growth * WEEKDAY_FACTORS[local.weekday()] * HOUR_WEIGHTS[local.hour] / sum(HOUR_WEIGHTS)
        within = random.expovariate(rate)
        while within < 1:
            at = hour + timedelta(hours=within)
            if at < until:
                yield at
            within += random.expovariate(rate)
        hour += timedelta(hours=1)
