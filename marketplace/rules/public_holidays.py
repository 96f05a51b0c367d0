"""Public holidays of a country or a part of it: the day itself and the working day that replaces it.

Two tables are combined, because neither is complete: `opening-hours-py` has only the substitute of a holiday on a
weekend, and `holidays` (https://pypi.org/project/holidays/) lacks some countries. A day in either table is a holiday.
"""

from datetime import date, datetime, timedelta
from functools import cache, lru_cache
from typing import Final

import holidays
import opening_hours
from opening_hours import OpeningHours, State

UnknownCountryError: type[Exception] = vars(opening_hours)["UnknownCountryError"]
"""Error of the package, which its types do not declare."""

YEARS_KEPT: Final = 1_024
"""Tables cached in a process, each of one place and year with some twenty dates."""


def is_known_place(place: str) -> bool:
    """Return whether holidays are known for an ISO 3166-1 country (`US`) or an ISO 3166-2 part of one (`US-TX`)."""
    country, dash, part = place.partition("-")
    if dash:
        return part in _countries().get(country, ())
    return country in _countries() or _is_listed_in_grammar(country)


def is_public_holiday(place: str, day: date) -> bool:
    """Return whether `day` is a public holiday in a known place."""
    return day in _holidays_of_year(place, day.year)


@cache
def _countries() -> dict[str, list[str]]:
    """Return the countries of `holidays`, with the parts of each."""
    return holidays.list_supported_countries(include_aliases=False)


@cache
def _is_listed_in_grammar(country: str) -> bool:
    """Return whether `opening-hours-py` has holidays of the country."""
    try:
        OpeningHours("PH off", country=country)
    except UnknownCountryError:
        return False
    return True


@lru_cache(maxsize=YEARS_KEPT)
def _holidays_of_year(place: str, year: int) -> frozenset[date]:
    """Return the holidays of a place in one year, from both tables."""
    country, _, part = place.partition("-")
    days: set[date] = set()
    if country in _countries():
        near = (year - 1, year, year + 1)  # the substitute of a first of January may lie in the year before
        for observed in (True, False):
            days.update(holidays.country_holidays(country, subdiv=part or None, years=near, observed=observed))
    if _is_listed_in_grammar(country):
        days.update(_holidays_in_grammar(country, year))
    return frozenset(day for day in days if day.year == year)


def _holidays_in_grammar(country: str, year: int) -> set[date]:
    """Return the holidays of a country in one year, from `opening-hours-py`."""
    days: set[date] = set()
    table = OpeningHours("PH", country=country)
    for opens, closes, state, _comment in table.intervals(datetime(year, 1, 1), datetime(year + 1, 1, 1)):
        if state is State.OPEN:
            days.update(opens.date() + timedelta(days=nth) for nth in range((closes - opens).days))
    return days
