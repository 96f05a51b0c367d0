"""When people ask: more of them every week, on working days, before noon and after supper."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from marketplace.clock import Random

PER_DAY: Final = 86.0
"""Inquiries on an average day; an invented figure, as all of these."""
GROWTH: Final = 0.25
"""How much more arrive at the end than at the beginning."""
ZONE: Final = ZoneInfo("America/Chicago")
"""Whose hours of the day people keep on average."""
OF_WEEKDAY: Final = (1.2, 1.15, 1.1, 1.05, 0.95, 0.75, 0.8)
"""Monday to Sunday."""
OF_HOUR: Final = (
    0.2, 0.1, 0.1, 0.1, 0.1, 0.3, 0.7, 1.1, 1.5, 1.8, 1.9, 1.8,
    1.5, 1.4, 1.5, 1.5, 1.4, 1.2, 1.2, 1.5, 1.7, 1.5, 0.9, 0.5,
)  # fmt: skip
"""Midnight to midnight."""


def arrivals(random: Random, since: datetime, until: datetime) -> Iterator[datetime]:
    """The moments of arrival, in order: a Poisson process whose rate follows the hour, the weekday and the weeks."""
    hour = since
    while hour < until:
        local = hour.astimezone(ZONE)
        grown = 1 + GROWTH * ((hour - since) / (until - since) - 0.5)
        rate = PER_DAY * grown * OF_WEEKDAY[local.weekday()] * OF_HOUR[local.hour] / sum(OF_HOUR)
        within = random.expovariate(rate)
        while within < 1:
            at = hour + timedelta(hours=within)
            if at < until:
                yield at
            within += random.expovariate(rate)
        hour += timedelta(hours=1)
