"""A subscription as an office manager fills it in: area, hours, limits and price, to and from a `Definition`.

What the form does not show (a persona, rules on need fields, weights) stays as it was.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from marketplace.db import Connection
from marketplace.faults import Code
from marketplace.portal.business import store
from marketplace.portal.business.leads import field_fault, read_amount
from marketplace.portal.business.store import Spot
from marketplace.portal.forms import Given
from routing.calendar import CapWindow
from routing.qualification import Dimension
from routing.subscription import Area, BantMinimum, Cap, Circle, Definition, OpenHours, fold_code

MILE_KM: Final = 1.609344
WEEK: Final = {
    "Mo": "Monday", "Tu": "Tuesday", "We": "Wednesday", "Th": "Thursday", "Fr": "Friday", "Sa": "Saturday",
    "Su": "Sunday",
}  # fmt: skip
_DAYS: Final = tuple(WEEK)
MOST_PREFIXES: Final = 5
"Named in a line; of the others only how many they are."
_RULE: Final = re.compile(r"(Mo|Tu|We|Th|Fr|Sa|Su)(?:-(Mo|Tu|We|Th|Fr|Sa|Su))? (\d\d:\d\d)-(\d\d:\d\d)")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00")
CODES: Final = re.compile(r"[\s,;]+")

Whole = Annotated[int, Meta(ge=1, le=1_000_000)]


class AreaForm(msgspec.Struct, frozen=True, kw_only=True):
    """Where leads may come from: around a postal code, in a list of codes, anywhere. `keep`: circles that stay."""

    anywhere: bool = False
    centre: Annotated[str, Meta(max_length=16)] | None = None
    miles: Annotated[float, Meta(gt=0, le=300)] | None = None
    codes: Annotated[str, Meta(max_length=400_000)] | None = None
    keep: tuple[int, ...] | None = None


class LimitsForm(msgspec.Struct, frozen=True, kw_only=True):
    """How many leads, at which price; hours are read day by day beside it. Amounts as people write them."""

    always: bool = False
    day_count: Whole | None = None
    week_count: Whole | None = None
    month_amount: Annotated[str, Meta(max_length=20)] | None = None
    price: Annotated[str, Meta(max_length=20)] | None = None
    minimum_budget: Annotated[str, Meta(max_length=20)] | None = None
    minimum_score: Annotated[int, Meta(ge=0, le=100)] | None = None
    must_meet: tuple[Dimension, ...] | None = None


async def read_area(connection: Connection, form: AreaForm, was: Area, kept: tuple[str, ...]) -> Area:
    """The area that the form means. `kept` are the numbers of the circles that stay. Raises InvalidInput."""
    circles = [circle for at, circle in enumerate(was.circles) if str(at) in kept]
    if form.centre:
        spots = await store.list_places(connection, "US", [fold_code(form.centre)[:5]])
        spot = next(iter(spots.values()), None)
        if spot is None:
            raise field_fault(
                "centre", Code.value_not_allowed, "We do not know this ZIP code. Give one of five digits."
            )
        if form.miles is None:
            raise field_fault("miles", Code.field_missing, "Say how far around it, in miles.")
        circles.append(Circle(latitude=spot.latitude, longitude=spot.longitude, km=round(form.miles * MILE_KM, 1)))
    codes = tuple(dict.fromkeys(code for code in CODES.split((form.codes or "").strip()) if code))
    return msgspec.structs.replace(was, anywhere=form.anywhere, circles=tuple(circles), postal_codes=codes)


def apply_limits(form: LimitsForm, given: Given, was: Definition, zone: str) -> Definition:
    """The definition with the form's hours, limits, price and minimums. Raises InvalidInput."""
    currency = was.currency
    counts = {CapWindow.day: form.day_count, CapWindow.week: form.week_count}
    amounts = {CapWindow.month: read_amount(form.month_amount, currency, "month_amount")}
    caps = [cap for cap in was.caps if cap.window not in (CapWindow.day, CapWindow.week, CapWindow.month)]
    for cap in was.caps:  # the half of a limit that the form does not show
        counts.setdefault(cap.window, cap.count)
        amounts.setdefault(cap.window, cap.amount_minor)
    caps += [
        Cap(window=window, count=counts.get(window), amount_minor=amounts.get(window))
        for window in (CapWindow.day, CapWindow.week, CapWindow.month)
        if counts.get(window) is not None or amounts.get(window) is not None
    ]
    price = read_amount(form.price, currency, "price")
    if not price:
        raise field_fault("price", Code.field_missing, "Say what one lead may cost, such as 62.")
    bant = BantMinimum(
        must_meet=form.must_meet or (), minimum_score=form.minimum_score or 0,
        minimum_budget_minor=read_amount(form.minimum_budget, currency, "minimum_budget"),
        timing_within_days=was.bant.timing_within_days,
    )  # fmt: skip
    hours = None if form.always else read_hours(given, zone, was.hours)
    return msgspec.structs.replace(was, hours=hours, caps=tuple(caps), price_minor=price, bant=bant)


def read_hours(given: Given, zone: str, was: OpenHours | None) -> OpenHours | None:
    """Hours from the week's fields, `from_Mo` and `to_Mo` and so on; as they were where the form has none."""
    if "from_Mo" not in given:
        return was
    rules = []
    for day, name in WEEK.items():
        begins, ends = ((given.get(f"{what}_{day}") or ("",))[-1].strip() for what in ("from", "to"))
        if not begins and not ends:
            continue
        if not (_CLOCK.fullmatch(begins) and _CLOCK.fullmatch(ends)):
            raise field_fault(f"from_{day}", Code.type_wrong, f"Give {name} both a beginning and an end, or neither.")
        rules.append(f"{day} {begins}-{'24:00' if ends == '00:00' else ends}")
    if not rules:
        raise field_fault("from_Mo", Code.field_missing, "Give at least one day its hours, or take leads at any hour.")
    return OpenHours(spec="; ".join(rules), zone=zone)


def shown_hours(hours: OpenHours | None) -> Mapping[str, tuple[str, str]] | None:
    """The week as the form shows it; None for hours that only words can say, such as seasons."""
    if hours is None:
        return {day: ("08:00", "18:00") if day not in ("Sa", "Su") else ("", "") for day in _DAYS}
    week: dict[str, tuple[str, str]] = dict.fromkeys(_DAYS, ("", ""))
    for rule in hours.spec.split(";"):
        found = _RULE.fullmatch(rule.strip())
        if found is None:
            return None
        first, last = _DAYS.index(found[1]), _DAYS.index(found[2] or found[1])
        for day in _DAYS[first : last + 1]:
            week[day] = (found[3], found[4])
    return week


def cap_of(definition: Definition, window: str) -> Cap:
    """The limit of a window; an empty one where there is none."""
    return next((cap for cap in definition.caps if cap.window == window), Cap(window=CapWindow(window)))


async def spots_of(connection: Connection, area: Area) -> tuple[Spot, ...]:
    """Where the area's postal codes lie, as far as a map shows them."""
    codes = [fold_code(code)[:5] for code in area.postal_codes[:500]]
    return tuple((await store.list_places(connection, "US", codes)).values()) if codes else ()


def fields_of(definition: Definition) -> dict[str, str]:
    """What the form shows of a definition."""
    area, bant = definition.area, definition.bant

    def units(minor: int | None) -> str:
        return "" if minor is None else f"{minor / 100:.2f}".removesuffix(".00")

    return {
        "codes": " ".join(area.postal_codes), "anywhere": "1" if area.anywhere else "",
        "day_count": str(cap_of(definition, "day").count or ""),
        "week_count": str(cap_of(definition, "week").count or ""),
        "month_amount": units(cap_of(definition, "month").amount_minor), "price": units(definition.price_minor),
        "minimum_budget": units(bant.minimum_budget_minor),
        "minimum_score": str(bant.minimum_score or ""), "always": "" if definition.hours else "1",
    }  # fmt: skip


def area_words(area: Area) -> str:
    """The area in a line: `25 miles around 1 place, 12 ZIP codes`."""
    if area.anywhere:
        return "Anywhere"
    parts = [
        f"{circle.km / MILE_KM:.0f} miles around {circle.latitude:.2f}, {circle.longitude:.2f}"
        for circle in area.circles
    ]
    if area.postal_codes:
        parts.append(f"{len(area.postal_codes):,} ZIP {'code' if len(area.postal_codes) == 1 else 'codes'}")
    if area.prefixes:
        more = len(area.prefixes) - MOST_PREFIXES
        parts.append(f"ZIP codes that begin with {', '.join(area.prefixes[:MOST_PREFIXES])}"
                     + (f" and {more:,} others" if more > 0 else ""))  # fmt: skip
    if area.countries:
        parts.append(", ".join(area.countries))
    return "; ".join(parts) or "Nowhere yet"
