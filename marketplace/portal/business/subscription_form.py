"""A subscription as an office manager fills it in, to and from a `SubscriptionDefinition`.

Everything that a definition holds is shown, and stays as it was where its field comes back unchanged or not at all. So
saving a form that nobody touched changes nothing, and what was set by software is never lost by way of the form.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from marketplace.database.db import Connection
from marketplace.portal.business import store
from marketplace.portal.business.leads import field_fault, read_amount
from marketplace.portal.business.store import PostalLocation
from marketplace.portal.forms import Given
from marketplace.portal.frame import field_amount, words
from marketplace.text.faults import FaultCode
from routing.calendar import CapWindow
from routing.inquiry import Authority
from routing.qualification import Dimension
from routing.subscription import (
    ZIP_COUNTRIES,
    Area,
    BantMinimum,
    Cap,
    Circle,
    FieldRule,
    OpenHours,
    Persona,
    SubscriptionDefinition,
    countries_of,
    fold_code,
)

MILE_KM: Final = 1.609344
WEEK: Final = {
    "Mo": "Monday", "Tu": "Tuesday", "We": "Wednesday", "Th": "Thursday", "Fr": "Friday", "Sa": "Saturday",
    "Su": "Sunday",
}  # fmt: skip
_DAYS: Final = tuple(WEEK)
WINDOWS: Final = {
    CapWindow.hour: "an hour", CapWindow.day: "a day", CapWindow.week: "a week", CapWindow.month: "a month",
    CapWindow.total: "in total",
}  # fmt: skip
"Every window that a limit may count over, with its words after “at most”."
MOST_PREFIXES: Final = 5
"Named in a line; of the others only how many they are."
LONGEST_LIST: Final = 500_000
"Characters: 45,000 postal codes of ten characters with a space after each."
BODY_LIMIT: Final = 1_048_576
"Bytes of the whole form, as for a subscription over the API."
_RULE: Final = re.compile(r"(Mo|Tu|We|Th|Fr|Sa|Su)(?:-(Mo|Tu|We|Th|Fr|Sa|Su))? (\d\d:\d\d)-(\d\d:\d\d)")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00")
_SHOWN_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_CLOSED_ON_HOLIDAYS: Final = "PH off"
CODES: Final = re.compile(r"[\s,;]+")

T = TypeVar("T")
Whole = Annotated[int, Meta(ge=1, le=1_000_000)]
CodeList = Annotated[str, Meta(max_length=LONGEST_LIST)]
Amount = Annotated[str, Meta(max_length=20)]
Lines = Annotated[str, Meta(max_length=20_000)]


class AreaForm(msgspec.Struct, frozen=True, kw_only=True):
    """Where leads may come from: around a postal code, in lists of codes, countries or beginnings of codes, anywhere.

    `keep` are the numbers of the circles that stay.
    """

    anywhere: bool = False
    centre: Annotated[str, Meta(max_length=16)] | None = None
    miles: Annotated[float, Meta(gt=0, le=300)] | None = None
    codes: CodeList | None = None
    prefixes: CodeList | None = None
    countries: Annotated[str, Meta(max_length=1_000)] | None = None
    keep: tuple[int, ...] | None = None


class LimitsForm(msgspec.Struct, frozen=True, kw_only=True):
    """How many leads, at which price and of which kind; hours are read day by day beside it.

    Amounts are as people write them. `keep_rule` are the numbers of the rules on answers that stay.
    """

    always: bool = False
    hour_count: Whole | None = None
    hour_amount: Amount | None = None
    day_count: Whole | None = None
    day_amount: Amount | None = None
    week_count: Whole | None = None
    week_amount: Amount | None = None
    month_count: Whole | None = None
    month_amount: Amount | None = None
    total_count: Whole | None = None
    total_amount: Amount | None = None
    price: Amount | None = None
    minimum_budget: Amount | None = None
    minimum_score: Annotated[int, Meta(ge=0, le=100)] | None = None
    within_days: Annotated[int, Meta(ge=0, le=3_650)] | None = None
    must_meet: tuple[Dimension, ...] | None = None
    authorities: tuple[Authority, ...] | None = None
    phone_types: tuple[str, ...] | None = None
    roles: Lines | None = None
    excluded_sources: Lines | None = None
    size_from: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    size_to: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    refuses_disposable: bool = False
    keep_rule: tuple[int, ...] | None = None


class _SentFields:
    """Which fields of a form came back, and which of them say something else than was shown."""

    def __init__(self, given: Given, shown: Mapping[str, str]) -> None:
        self._given, self._shown = given, shown

    def holds(self, name: str) -> bool:
        return name in self._given

    def changed(self, *names: str) -> bool:
        return any(name in self._given and self._text(name) != self._shown.get(name, "").strip() for name in names)

    def _text(self, name: str) -> str:
        return self._given[name][-1].replace("\r\n", "\n").strip()


async def read_area(
    connection: Connection, form: AreaForm, given: Given, was: SubscriptionDefinition, vertical_country: str
) -> Area:
    """The area that the form means, for a market of `vertical_country`. Raises InvalidInput."""
    area = was.area
    sent = _SentFields(given, fields_of(was))
    countries = _codes(form.countries) if sent.changed("countries") else area.countries
    circles = [
        circle for at, circle in enumerate(area.circles) if form.keep is None or "keep" not in given or at in form.keep
    ]
    area = msgspec.structs.replace(
        area, anywhere=form.anywhere, countries=tuple(country.upper() for country in countries),
        postal_codes=_codes(form.codes) if sent.changed("codes") else area.postal_codes,
        prefixes=_codes(form.prefixes) if sent.changed("prefixes") else area.prefixes,
    )  # fmt: skip
    if form.centre:
        circles.append(await _circle(connection, form, countries_of(area, vertical_country)))
    return msgspec.structs.replace(area, circles=tuple(circles))


async def _circle(connection: Connection, form: AreaForm, countries: frozenset[str]) -> Circle:
    """The circle that the form adds, around a ZIP code. Raises InvalidInput."""
    if not countries & ZIP_COUNTRIES:
        detail = f"A ZIP code lies in the United States, and this order is for {', '.join(sorted(countries))}."
        raise field_fault("centre", FaultCode.value_not_allowed, detail)
    spots = await store.list_places(connection, "US", [fold_code(form.centre or "")[:5]])
    spot = next(iter(spots.values()), None)
    if spot is None:
        raise field_fault(
            "centre", FaultCode.value_not_allowed, "We do not know this ZIP code. Give one of five digits."
        )
    if form.miles is None:
        raise field_fault("miles", FaultCode.field_missing, "Say how far around it, in miles.")
    return Circle(latitude=spot.latitude, longitude=spot.longitude, km=round(form.miles * MILE_KM, 1))


def _codes(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(code for code in CODES.split((text or "").strip()) if code))


def _lines(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.strip() for line in (text or "").splitlines() if line.strip()))


def apply_limits(form: LimitsForm, given: Given, was: SubscriptionDefinition, zone: str) -> SubscriptionDefinition:
    """The definition with the form's hours, limits, price and minimums. Raises InvalidInput."""
    sent = _SentFields(given, fields_of(was))
    price = read_amount(form.price, was.currency, "price")
    if not price:
        raise field_fault("price", FaultCode.field_missing, "Say what one lead may cost, such as 62.")
    rules = was.attributes
    if sent.holds("keep_rule"):
        rules = tuple(rule for at, rule in enumerate(rules) if at in (form.keep_rule or ()))
    return msgspec.structs.replace(
        was, hours=None if form.always else read_hours(given, zone, was.hours), caps=_caps(form, sent, was),
        price_minor=price, bant=_bant(form, sent, was), persona=_persona(form, sent, was.persona), attributes=rules,
    )  # fmt: skip


def _caps(form: LimitsForm, sent: _SentFields, was: SubscriptionDefinition) -> tuple[Cap, ...]:
    """The limits in the order in which they were, new ones after them; an emptied one goes."""
    limits: dict[CapWindow, Cap] = {cap.window: cap for cap in was.caps}
    for window in WINDOWS:
        count, amount = f"{window}_count", f"{window}_amount"
        cap = limits.get(window, Cap(window=window))
        if sent.changed(count):
            cap = msgspec.structs.replace(cap, count=getattr(form, count))
        if sent.changed(amount):
            cap = msgspec.structs.replace(cap, amount_minor=read_amount(getattr(form, amount), was.currency, amount))
        limits[window] = cap
    return tuple(cap for cap in limits.values() if cap.count is not None or cap.amount_minor is not None)


def _bant(form: LimitsForm, sent: _SentFields, was: SubscriptionDefinition) -> BantMinimum:
    bant = was.bant
    budget, days = bant.minimum_budget_minor, bant.timing_within_days
    if sent.changed("minimum_budget"):
        budget = read_amount(form.minimum_budget, was.currency, "minimum_budget")
    if sent.changed("within_days"):
        days = form.within_days
    return BantMinimum(
        must_meet=_ticked(form.must_meet, bant.must_meet) if sent.holds("must_meet") else bant.must_meet,
        minimum_score=(form.minimum_score or 0) if sent.changed("minimum_score") else bant.minimum_score,
        minimum_budget_minor=budget, timing_within_days=days,
    )  # fmt: skip


def _ticked(ticked: tuple[T, ...] | None, was: tuple[T, ...]) -> tuple[T, ...]:
    """The ticked boxes, in the order in which they were where they are the same."""
    return was if set(ticked or ()) == set(was) else (ticked or ())


def _persona(form: LimitsForm, sent: _SentFields, was: Persona) -> Persona:
    return Persona(
        authorities=_ticked(form.authorities, was.authorities) if sent.holds("authorities") else was.authorities,
        roles=_lines(form.roles) if sent.changed("roles") else was.roles,
        minimum_company_size=form.size_from if sent.changed("size_from") else was.minimum_company_size,
        maximum_company_size=form.size_to if sent.changed("size_to") else was.maximum_company_size,
        phone_types=_ticked(form.phone_types, was.phone_types) if sent.holds("phone_types") else was.phone_types,
        excluded_sources=_lines(form.excluded_sources) if sent.changed("excluded_sources") else was.excluded_sources,
        refuses_disposable_email=(
            form.refuses_disposable if sent.holds("refuses_disposable") else was.refuses_disposable_email
        ),
    )


def read_hours(given: Given, zone: str, was: OpenHours | None) -> OpenHours | None:
    """Hours from the week's fields, `from_Mo` and `to_Mo` and so on, or in words from `spec`; with `holidays`, the
    country on whose public holidays the business is closed.

    They are as they were where the form has none, or shows the same. Raises InvalidInput.
    """
    holidays = (given.get("holidays") or ("",))[-1].strip().upper() or None
    zone = was.zone if was else zone
    if "from_Mo" not in given:
        spec = (given.get("spec") or ("",))[-1].strip()
        if not spec or was is None:
            return was
        return OpenHours(spec=spec, zone=zone, holidays=holidays)
    week = {day: _day_hours(given, day, name) for day, name in WEEK.items()}
    if was is not None and holidays == closed_on(was) and week == _as_sent(shown_hours(was)):
        return was
    rules = [
        f"{day} {opens}-{'24:00' if closes == '00:00' else closes}" for day, (opens, closes) in week.items() if opens
    ]
    if not rules:
        raise field_fault(
            "from_Mo", FaultCode.field_missing, "Give at least one day its hours, or take leads at any hour."
        )
    if holidays:
        rules.append(_CLOSED_ON_HOLIDAYS)
    return OpenHours(spec="; ".join(rules), zone=zone, holidays=holidays)


def _as_sent(week: Mapping[str, tuple[str, str]] | None) -> dict[str, tuple[str, str]]:
    """A week as a browser sends it back: it has no 24:00."""
    return {day: (opens, "00:00" if closes == "24:00" else closes) for day, (opens, closes) in (week or {}).items()}


def _day_hours(given: Given, day: str, name: str) -> tuple[str, str]:
    """When a day begins and ends; two empty texts for a day off. Raises InvalidInput."""
    opens, closes = ((given.get(f"{what}_{day}") or ("",))[-1].strip() for what in ("from", "to"))
    if not opens and not closes:
        return "", ""
    if not (_CLOCK.fullmatch(opens) and _CLOCK.fullmatch(closes)):
        raise field_fault(f"from_{day}", FaultCode.type_wrong, f"Give {name} both a beginning and an end, or neither.")
    return opens, closes


def shown_hours(hours: OpenHours | None) -> Mapping[str, tuple[str, str]] | None:
    """The week as the form shows it; None for hours that only words can say, such as seasons."""
    if hours is None:
        return {day: ("08:00", "18:00") if day not in ("Sa", "Su") else ("", "") for day in _DAYS}
    week: dict[str, tuple[str, str]] = dict.fromkeys(_DAYS, ("", ""))
    for rule in hours.spec.removesuffix(f"; {_CLOSED_ON_HOLIDAYS}").split(";"):
        found = _RULE.fullmatch(rule.strip())
        if found is None or not _SHOWN_CLOCK.fullmatch(found[3]) or not _CLOCK.fullmatch(found[4]):
            return None
        first, last = _DAYS.index(found[1]), _DAYS.index(found[2] or found[1])
        for day in range(first, last + 1 if first <= last else last + 8):
            week[_DAYS[day % 7]] = (found[3], found[4])
    return week


def closed_on(hours: OpenHours | None) -> str | None:
    """The country on whose public holidays a week is closed; in hours that only words can say, the one they mean."""
    if hours is None:
        return None
    weekly = shown_hours(hours) is not None
    return hours.holidays if not weekly or hours.spec.endswith(f"; {_CLOSED_ON_HOLIDAYS}") else None


def cap_of(definition: SubscriptionDefinition, window: str) -> Cap:
    """The limit of a window; an empty one where there is none."""
    return next((cap for cap in definition.caps if cap.window == window), Cap(window=CapWindow(window)))


async def spots_of(connection: Connection, area: Area, vertical_country: str) -> tuple[PostalLocation, ...]:
    """Where the area's postal codes lie, as far as a map shows them."""
    codes = [fold_code(code)[:5] for code in area.postal_codes[:500]]
    if not codes or not countries_of(area, vertical_country) & ZIP_COUNTRIES:
        return ()
    return tuple((await store.list_places(connection, "US", codes)).values())


def fields_of(definition: SubscriptionDefinition) -> dict[str, str]:
    """What the form's fields of one value show of a definition."""
    area, bant, persona, currency = definition.area, definition.bant, definition.persona, definition.currency
    limits = {}
    for window in WINDOWS:
        cap = cap_of(definition, window)
        limits[f"{window}_count"] = str(cap.count or "")
        limits[f"{window}_amount"] = field_amount(cap.amount_minor, currency)
    return limits | {
        "codes": " ".join(map(fold_code, area.postal_codes)), "anywhere": "1" if area.anywhere else "",
        "prefixes": " ".join(map(fold_code, area.prefixes)), "countries": " ".join(area.countries),
        "price": field_amount(definition.price_minor, currency),
        "minimum_budget": field_amount(bant.minimum_budget_minor, currency),
        "minimum_score": str(bant.minimum_score or ""), "within_days": _number(bant.timing_within_days),
        "always": "" if definition.hours else "1", "spec": definition.hours.spec if definition.hours else "",
        "holidays": closed_on(definition.hours) or "",
        "roles": "\n".join(persona.roles), "excluded_sources": "\n".join(persona.excluded_sources),
        "size_from": _number(persona.minimum_company_size), "size_to": _number(persona.maximum_company_size),
        "refuses_disposable": "1" if persona.refuses_disposable_email else "",
    }  # fmt: skip


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def ticks_of(definition: SubscriptionDefinition, given: Given) -> dict[str, tuple[str, ...]]:
    """The ticked boxes of each group of a form: as they were sent, or else as the definition has them."""
    bant, persona = definition.bant, definition.persona
    stored: dict[str, tuple[str, ...]] = {
        "must_meet": bant.must_meet, "authorities": persona.authorities, "phone_types": persona.phone_types,
        "keep": tuple(map(str, range(len(definition.area.circles)))),
        "keep_rule": tuple(map(str, range(len(definition.attributes)))),
    }  # fmt: skip
    return {name: given.get(name, ticked) for name, ticked in stored.items()}


ANY_PERSONA: Final = Persona()
PHONE_CHOICES: Final = (
    ("mobile", "Mobile"), ("fixed_line", "Landline"), ("fixed_or_mobile", "Landline or mobile, not known which"),
    ("voip", "Internet telephone"), ("other", "Other"),
)  # fmt: skip
"Each kind of telephone with its words."


def facts_of(definition: SubscriptionDefinition) -> list[tuple[str, str]]:
    """Everything that a definition asks for, in lines of a name and words: for those who may not change it."""
    bant, persona, hours, values = definition.bant, definition.persona, definition.hours, fields_of(definition)
    money_of = f" {definition.currency}"
    lines = [
        ("Area", area_words(definition.area)),
        ("Price", values["price"] + money_of),
        ("Hours", "Any" if hours is None else f"{hours.spec}, {hours.zone}"),
        ("Public holidays", hours.holidays or "" if hours else ""),
    ]
    for window, label in WINDOWS.items():
        count, amount = values[f"{window}_count"], values[f"{window}_amount"]
        parts = [f"{count} leads" if count else "", amount + money_of if amount else ""]
        lines.append((f"At most {label}", " and ".join(part for part in parts if part)))
    lines += [
        ("Least budget", values["minimum_budget"] and values["minimum_budget"] + money_of),
        ("Least score", values["minimum_score"]), ("Wanted within days", values["within_days"]),
        ("Must be known and good enough", ", ".join(map(words, bant.must_meet))),
        ("Answers", ". ".join(map(rule_words, definition.attributes))),
        ("Say in the purchase", ", ".join(map(words, persona.authorities))),
        ("Telephone", ", ".join(dict(PHONE_CHOICES)[kind] for kind in persona.phone_types)),
        ("Roles", ", ".join(persona.roles)), ("Not from these sources", ", ".join(persona.excluded_sources)),
        ("People in the company", " to ".join((values["size_from"] or "any", values["size_to"] or "any"))
            if values["size_from"] or values["size_to"] else ""),
        ("Throw-away e-mail addresses", "Not taken" if persona.refuses_disposable_email else ""),
        ("Priority", f"{definition.priority}, lower goes first"), ("Weight", str(definition.weight)),
    ]  # fmt: skip
    return [line for line in lines if line[1]]


def rule_words(rule: FieldRule) -> str:
    """A rule on the answer to one question in a line: `Storeys: at least 2; not 9`."""
    parts = []
    for values, before in ((rule.any_of, ""), (rule.none_of, "not ")):
        if values:
            parts.append(before + " or ".join(_answer_words(value) for value in values))
    if rule.minimum is not None:
        parts.append(f"at least {rule.minimum:,}")
    if rule.maximum is not None:
        parts.append(f"at most {rule.maximum:,}")
    return f"{words(rule.field)}: {'; '.join(parts)}"


def _answer_words(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def area_words(area: Area) -> str:
    """The area in a line: `25 miles around 41.92, -87.65; 12 ZIP codes, in US`."""
    parts = ["Anywhere"] if area.anywhere else [*_circle_words(area), *_code_words(area)]
    countries = ", ".join(area.countries)
    if parts and countries:
        return f"{'; '.join(parts)}, in {countries} only"
    return "; ".join(parts) or countries or "Nowhere yet"


def _circle_words(area: Area) -> list[str]:
    return [
        f"{circle.km / MILE_KM:.0f} miles around {circle.latitude:.2f}, {circle.longitude:.2f}"
        for circle in area.circles
    ]


def _code_words(area: Area) -> list[str]:
    parts = []
    if area.postal_codes:
        parts.append(f"{len(area.postal_codes):,} ZIP {'code' if len(area.postal_codes) == 1 else 'codes'}")
    if area.prefixes:
        more = len(area.prefixes) - MOST_PREFIXES
        parts.append(f"ZIP codes that begin with {', '.join(area.prefixes[:MOST_PREFIXES])}"
                     + (f" and {more:,} others" if more > 0 else ""))  # fmt: skip
    return parts
