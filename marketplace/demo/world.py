"""Invented businesses of the demo: two verticals, eight metropolitan areas, 37 businesses with a subscription each.

Everything follows from the seed and the time of the start: opening hours are set around it, so that most businesses are
open at any time. Names say that they are invented. Prices and budgets are plausible, not researched.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from math import asin, cos, radians, sin, sqrt
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import zipcodes

from marketplace.demo.verticals import (
    CURRENCY,
    EDUCATION,
    HOME,
    PROGRAMMES,
    SERVICES,
    home_improvement,
    professional_education,
)
from marketplace.runtime.clock import Random, seeded
from routing.calendar import CapWindow
from routing.inquiry import Authority
from routing.qualification import Dimension
from routing.subscription import Area, BantMinimum, Cap, Circle, FieldRule, OpenHours, Persona, SubscriptionDefinition
from routing.vertical import VerticalDefinition

METRO_RADIUS_KM: Final = 40.0
"""Largest distance of a person from a metropolitan area's centre, in kilometres."""
KM_PER_DEGREE: Final = 111.0
"""Kilometres per degree of latitude."""
UNSERVED_REGIONS: Final = ("AK", "HI", "MT", "ND", "SD", "WY")
"""States in which no business of the demo works."""


class Behaviour(StrEnum):
    """Behaviour of a business's receiver."""

    takes = "takes"
    """Answers 200 at once."""
    slow = "slow"
    """Answers 200 after 300 ms."""
    recovers = "recovers"
    """Answers 500 to its first leads, then 200."""
    dies = "dies"
    """Answers its challenge and then stops listening."""
    picky = "picky"
    """Refuses every eighth lead with 409, as an existing customer."""
    hangs = "hangs"
    """Answers no lead as long as anybody waits. No business of the demo does; benchmarks use it."""
    busy = "busy"
    """Answers 503 to every lead. No business of the demo does; benchmarks use it."""


class Metro(msgspec.Struct, frozen=True, kw_only=True):
    """A metropolitan area: its centre in degrees, its IANA time zone, and the prefixes of its postal codes."""

    city: str
    region: str
    zone: str
    latitude: float
    longitude: float
    prefixes: tuple[str, ...]


METROS: Final = (
    Metro(
        city="New York",
        region="NY",
        zone="America/New_York",
        latitude=40.75,
        longitude=-73.99,
        prefixes=("100", "101", "102", "103", "104", "111", "112", "113", "114", "116"),
    ),
    Metro(
        city="Chicago",
        region="IL",
        zone="America/Chicago",
        latitude=41.88,
        longitude=-87.63,
        prefixes=("600", "601", "602", "603", "604", "605", "606", "607", "608"),
    ),
    Metro(
        city="Los Angeles",
        region="CA",
        zone="America/Los_Angeles",
        latitude=34.05,
        longitude=-118.24,
        prefixes=("900", "901", "902", "903", "904", "905", "906", "907", "910", "911", "912", "914", "917"),
    ),
    Metro(
        city="Houston",
        region="TX",
        zone="America/Chicago",
        latitude=29.76,
        longitude=-95.37,
        prefixes=("770", "772", "773", "774", "775"),
    ),
    Metro(
        city="Phoenix",
        region="AZ",
        zone="America/Phoenix",
        latitude=33.45,
        longitude=-112.07,
        prefixes=("850", "851", "852", "853"),
    ),
    Metro(
        city="Atlanta",
        region="GA",
        zone="America/New_York",
        latitude=33.75,
        longitude=-84.39,
        prefixes=("300", "301", "302", "303", "311"),
    ),
    Metro(
        city="Denver",
        region="CO",
        zone="America/Denver",
        latitude=39.74,
        longitude=-104.99,
        prefixes=("800", "801", "802", "803", "804"),
    ),
    Metro(
        city="Seattle",
        region="WA",
        zone="America/Los_Angeles",
        latitude=47.61,
        longitude=-122.33,
        prefixes=("980", "981", "982", "983", "984"),
    ),
)


class DemoBusiness(msgspec.Struct, frozen=True, kw_only=True):
    """One invented business with its one subscription.

    `funded_leads` is the number of leads that its first top-up pays for, `city` the metropolitan area in which it
    works, if it works in one.
    """

    slug: str
    name: str
    vertical: str
    definition: SubscriptionDefinition
    behaviour: Behaviour = Behaviour.takes
    funded_leads: int | None = None
    paused: bool = False
    city: str | None = None


class DemoWorld(msgspec.Struct, frozen=True, kw_only=True):
    """Verticals and businesses of a demo. `homes` has the postal codes by city, `far` those where no business works."""

    verticals: dict[str, VerticalDefinition]
    businesses: tuple[DemoBusiness, ...]
    homes: dict[str, tuple[str, ...]]
    far: tuple[str, ...]


def draw_world(seed: int, now: datetime) -> DemoWorld:
    """Return the world of a seed, with opening hours around `now`."""
    random = seeded(f"world {seed}")
    everywhere = zipcodes.list_all()  # type: ignore[no-untyped-call]
    areas = [area for area in everywhere if area["zip_code_type"] == "STANDARD" and area["lat"]]
    homes = {metro.city: tuple(_codes_near(metro, areas)) for metro in METROS}
    far = tuple(area["zip_code"] for area in areas if area["state"] in UNSERVED_REGIONS)
    businesses = (*_home_businesses(random, homes, now), *_schools(random, now))
    return DemoWorld(
        verticals={HOME: home_improvement(), EDUCATION: professional_education()},
        businesses=businesses,
        homes=homes,
        far=far,
    )


# Places of people and businesses.


def _codes_near(metro: Metro, areas: list[dict[str, Any]]) -> Iterator[str]:
    for area in areas:
        latitude = float(area["lat"])
        near_enough = abs(latitude - metro.latitude) * KM_PER_DEGREE <= METRO_RADIUS_KM  # most of a continent is not
        if near_enough and _km(metro, latitude, float(area["long"])) <= METRO_RADIUS_KM:
            yield area["zip_code"]


def _km(metro: Metro, latitude: float, longitude: float) -> float:
    """Return the great-circle distance in km, on a sphere with a radius of 6,371 km."""
    up, across = radians(latitude - metro.latitude), radians(longitude - metro.longitude)
    chord = sin(up / 2) ** 2 + cos(radians(metro.latitude)) * cos(radians(latitude)) * sin(across / 2) ** 2
    return 2 * 6_371.0 * asin(sqrt(min(1.0, chord)))


# Businesses: two builders and a specialist in each metropolitan area, and twelve schools. One service is rare in each
# area, and each specialist has a different peculiarity. SMALL_FIRM_CITY has a small firm besides, and a builder of ten
# times its weight: a strategy that counts the leads of each day anew would hardly ever choose the small firm.

SMALL_FIRM_CITY: Final = "Denver"


def _home_businesses(random: Random, homes: dict[str, tuple[str, ...]], now: datetime) -> Iterator[DemoBusiness]:
    for position, (metro, oddity) in enumerate(zip(METROS, _oddities(now), strict=True)):
        number = 3 * position + 1
        rare, *common = random.sample(SERVICES, len(SERVICES))
        weight = 10 if metro.city == SMALL_FIRM_CITY else 3
        yield _builder(number, metro, Area(prefixes=metro.prefixes), common, _price(random), weight=weight)
        circle = Circle(latitude=metro.latitude, longitude=metro.longitude, km=random.choice((15.0, 20.0, 25.0)))
        yield _builder(
            number + 1,
            metro,
            Area(circles=(circle,)),
            (rare, *common[:2]),
            _price(random),
            weight=2,
            hours=_open_around(now, metro.zone, timedelta(hours=-5), timedelta(hours=6)),
            persona=Persona(excluded_sources=("coupons",)),
        )
        specialist = _builder(
            number + 2,
            metro,
            Area(postal_codes=homes[metro.city]),
            (rare, common[-1]),
            _price(random),
            bant=BantMinimum(minimum_score=60, minimum_budget_minor=400_000, timing_within_days=60),
        )
        yield oddity(specialist)
        if metro.city == SMALL_FIRM_CITY:
            yield _builder(3 * len(METROS) + 1, metro, Area(prefixes=metro.prefixes), common, 5_500)


def _price(random: Random) -> int:
    return random.randrange(3_500, 9_500, 250)


def _builder(
    number: int,
    metro: Metro,
    area: Area,
    services: Sequence[str],
    price_minor: int,
    *,
    weight: int = 1,
    hours: OpenHours | None = None,
    bant: BantMinimum | None = None,
    persona: Persona | None = None,
) -> DemoBusiness:
    return DemoBusiness(
        slug=f"builder-{number:02}",
        name=f"Demo Builders {number:02} of {metro.city}",
        city=metro.city,
        vertical=HOME,
        definition=SubscriptionDefinition(
            area=area,
            attributes=(FieldRule(field="service", any_of=tuple(services)),),
            bant=bant or BantMinimum(),
            persona=persona or Persona(),
            hours=hours,
            zone=metro.zone,
            price_minor=price_minor,
            currency=CURRENCY,
            weight=weight,
        ),
    )


def _oddities(now: datetime) -> tuple[Callable[[DemoBusiness], DemoBusiness], ...]:
    """Return one function per metropolitan area, which gives a business a peculiarity.

    Businesses that delay leads on purpose get one or two leads at a time, so that they do not slow down the whole run.
    """
    return (
        lambda business: _change(business, paused=True),
        lambda business: _change(business, funded_leads=2),
        lambda business: _change(business, behaviour=Behaviour.slow, caps=(Cap(window=CapWindow.day, count=1),)),
        lambda business: _change(business, behaviour=Behaviour.recovers, caps=(Cap(window=CapWindow.day, count=2),)),
        lambda business: _change(business, behaviour=Behaviour.dies, caps=(Cap(window=CapWindow.hour, count=1),)),
        lambda business: _change(business, behaviour=Behaviour.picky),
        lambda business: _change(business, hours=_opens_later(now, business.definition.zone)),
        lambda business: _change(
            business, caps=(Cap(window=CapWindow.hour, count=3, amount_minor=4 * business.definition.price_minor),)
        ),
    )


def _change(
    business: DemoBusiness,
    *,
    behaviour: Behaviour = Behaviour.takes,
    funded_leads: int | None = None,
    paused: bool = False,
    caps: tuple[Cap, ...] | None = None,
    hours: OpenHours | None = None,
) -> DemoBusiness:
    if caps is None:
        caps = business.definition.caps
    changed = msgspec.structs.replace(business.definition, caps=caps, hours=hours)
    return msgspec.structs.replace(
        business, behaviour=behaviour, funded_leads=funded_leads, paused=paused, definition=changed
    )


def _schools(random: Random, now: datetime) -> Iterator[DemoBusiness]:
    for number in range(1, 13):
        metro = METROS[number % len(METROS)]
        programmes = PROGRAMMES if number % 3 == 0 else tuple(random.sample(PROGRAMMES, 2))
        minimum = BantMinimum(must_meet=(Dimension.authority,)) if number % 4 == 0 else BantMinimum()
        area = Area(anywhere=True) if number % 2 else Area(countries=("US", "CA"))
        persona = Persona(authorities=(Authority.decision_maker,)) if number == 5 else Persona()
        caps = (Cap(window=CapWindow.day, count=4),) if number == 8 else ()
        hours = _open_around(now, metro.zone, timedelta(hours=-3), timedelta(hours=9))
        if number == 7:
            hours = _opens_later(now, metro.zone)
        yield DemoBusiness(
            slug=f"school-{number:02}",
            name=f"Demo School {number:02}",
            vertical=EDUCATION,
            definition=SubscriptionDefinition(
                area=area,
                attributes=(FieldRule(field="programme", any_of=programmes),),
                bant=minimum,
                persona=persona,
                hours=hours,
                caps=caps,
                zone=metro.zone,
                price_minor=_price(random),
                currency=CURRENCY,
                weight=1 + number % 3,
            ),
        )


def _open_around(now: datetime, zone: str, opened: timedelta, closes: timedelta) -> OpenHours:
    """Return daily opening hours around `now`, to the minute, in the business's time zone."""
    local = now.astimezone(ZoneInfo(zone))
    return OpenHours(spec=f"Mo-Su {local + opened:%H:%M}-{local + closes:%H:%M}", zone=zone)


def _opens_later(now: datetime, zone: str) -> OpenHours:
    return _open_around(now, zone, timedelta(hours=3), timedelta(hours=9))
