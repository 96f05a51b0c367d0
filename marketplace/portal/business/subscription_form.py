"""Form of a subscription, converted to and from a `SubscriptionDefinition`.

The form shows everything that a definition holds. A part whose field comes back unchanged, or not at all, stays as it
was. Saving an untouched form therefore changes nothing, and values that were set by software are not lost.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from marketplace.database.db import Connection
from marketplace.portal.business import store
from marketplace.portal.business.leads import field_fault, read_amount
from marketplace.portal.business.store import PostalLocation
from marketplace.portal.forms import Amount, FormFields, label, show_form, split_codes, split_lines
from marketplace.portal.frame import field_amount, words
from marketplace.text.faults import FaultCode
from routing.calendar import CapWindow
from routing.consent import NO_NEEDS, Channel, ConsentNeeds
from routing.inquiry import Authority
from routing.pacing import PACED_WINDOWS
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
    "Mo": "Monday",
    "Tu": "Tuesday",
    "We": "Wednesday",
    "Th": "Thursday",
    "Fr": "Friday",
    "Sa": "Saturday",
    "Su": "Sunday",
}
_DAYS: Final = tuple(WEEK)
WINDOWS: Final = {
    CapWindow.hour: "an hour",
    CapWindow.day: "a day",
    CapWindow.week: "a week",
    CapWindow.month: "a month",
    CapWindow.total: "in total",
}
"Every window of a cap, with the words for it after a number."
UNITS: Final = (("mi", "Miles"), ("km", "Kilometres"))
MOST_DOTS: Final = 500
"Postal codes of an area on the map, and as many of its prefixes."
MOST_PREFIXES: Final = 5
"Prefixes named in the words for an area; more are only counted."
LONGEST_LIST: Final = 500_000
"Characters: 45,000 postal codes of ten characters with a space after each."
BODY_LIMIT: Final = 1_048_576
"Bytes of the form; the same limit as for a subscription over the API."
_RULE: Final = re.compile(r"(Mo|Tu|We|Th|Fr|Sa|Su)(?:-(Mo|Tu|We|Th|Fr|Sa|Su))? (\d\d:\d\d)-(\d\d:\d\d)")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00")
_SHOWN_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_CLOSED_ON_HOLIDAYS: Final = "PH off"

T = TypeVar("T")
Whole = Annotated[int, Meta(ge=1, le=1_000_000)]
CodeList = Annotated[str, Meta(max_length=LONGEST_LIST)]
Lines = Annotated[str, Meta(max_length=20_000, extra={"kind": "textarea", "rows": 2})]
Size = Annotated[int, Meta(ge=1, le=10_000_000)]


def _leads(window: CapWindow) -> Meta:
    return label(f"Leads {WINDOWS[window]}")


def _spending(window: CapWindow) -> Meta:
    return label(f"{{currency}} {WINDOWS[window]}")


class AreaForm(msgspec.Struct, frozen=True, kw_only=True):
    """Area of a subscription: a circle around a postal code, lists of codes, prefixes and countries, or anywhere.

    `keep` holds the numbers of the existing circles that stay.
    """

    centre: Annotated[
        Annotated[str, Meta(max_length=200)] | None,
        label("Around these ZIP codes", "One or several, each with the radius beside it.", autocomplete="off"),
    ] = None
    miles: Annotated[Annotated[float, Meta(gt=0, le=500)] | None, label("Radius", min=1)] = None
    unit: Annotated[Literal["mi", "km"], label("Unit")] = "mi"
    codes: Annotated[
        CodeList | None, label("And these ZIP codes", "Separated by spaces, commas or line breaks.", kind="textarea")
    ] = None
    prefixes: Annotated[
        CodeList | None,
        label("And ZIP codes that begin with", "The first one to five characters, such as 606 for Chicago."),
    ] = None
    countries: Annotated[
        Annotated[str, Meta(max_length=1_000)] | None,
        label(
            "Only in these countries",
            "Two letters each, such as US. Empty: the country of this service. Without ZIP codes or a radius: these "
            "whole countries.",
        ),
    ] = None
    anywhere: Annotated[bool, label("Anywhere")] = False
    keep: tuple[int, ...] | None = None


class LimitsForm(msgspec.Struct, frozen=True, kw_only=True):
    """Caps, price and minimums of a subscription. The fields of the open hours are read by `read_hours`.

    Amounts are texts as people write them. `keep_rule` holds the numbers of the existing rules on answers that stay.
    """

    always: Annotated[bool, label("At any hour")] = False
    hour_count: Annotated[Whole | None, _leads(CapWindow.hour)] = None
    hour_amount: Annotated[Amount | None, _spending(CapWindow.hour)] = None
    day_count: Annotated[Whole | None, _leads(CapWindow.day)] = None
    day_amount: Annotated[Amount | None, _spending(CapWindow.day)] = None
    week_count: Annotated[Whole | None, _leads(CapWindow.week)] = None
    week_amount: Annotated[Amount | None, _spending(CapWindow.week)] = None
    month_count: Annotated[Whole | None, _leads(CapWindow.month)] = None
    month_amount: Annotated[Amount | None, _spending(CapWindow.month)] = None
    total_count: Annotated[Whole | None, _leads(CapWindow.total)] = None
    total_amount: Annotated[Amount | None, _spending(CapWindow.total)] = None
    pace: Annotated[
        bool,
        label(
            "Spread the limits of a day, a week and a month over my open hours",
            "Leads come all day instead of all in the morning. Late in the day, what is left is no longer held back.",
        ),
    ] = False
    price: Annotated[
        Amount | None,
        label(
            "Price per lead, in {currency}",
            "Where a service is sold by price, the higher price comes first.",
            required=True,
        ),
    ] = None
    minimum_budget: Annotated[Amount | None, label("Minimum budget of the person, in {currency}")] = None
    minimum_score: Annotated[Annotated[int, Meta(ge=0, le=100)] | None, label("Minimum score, of 100")] = None
    within_days: Annotated[Annotated[int, Meta(ge=0, le=3_650)] | None, label("Work needed within this many days")] = (
        None
    )
    must_meet: tuple[Dimension, ...] | None = None
    authorities: tuple[Authority, ...] | None = None
    phone_types: tuple[str, ...] | None = None
    roles: Annotated[Lines | None, label("Only in these roles", "One in each line.")] = None
    excluded_sources: Annotated[Lines | None, label("Not from these sources", "One in each line.")] = None
    size_from: Annotated[Size | None, label("People in the company, at least")] = None
    size_to: Annotated[Size | None, label("People in the company, at most")] = None
    price_from: Annotated[
        Amount | None,
        label(
            "What the person buys costs at least, in {currency}", "The budget, or what the person has bought before."
        ),
    ] = None
    price_to: Annotated[Amount | None, label("What the person buys costs at most, in {currency}")] = None
    refuses_disposable: Annotated[bool, label("No disposable e-mail addresses")] = False
    channels: tuple[Channel, ...] | None = None
    purposes: Annotated[
        Lines | None, label("Only with consent to one of these purposes", "One in each line. Empty: any.")
    ] = None
    jurisdictions: Annotated[
        Annotated[str, Meta(max_length=1_000)] | None,
        label("Only with consent of these places", "Countries or states, such as US-CA US-TX. Empty: any."),
    ] = None
    keep_rule: tuple[int, ...] | None = None


class _SentFields:
    """Fields that a form sent, compared with the values that it had shown."""

    def __init__(self, fields: FormFields, before: Mapping[str, str]) -> None:
        self._fields, self._before = fields, before

    def holds(self, name: str) -> bool:
        """Return whether the form sent the field."""
        return name in self._fields

    def changed(self, name: str) -> bool:
        """Return whether the form sent the field with another value than it had shown."""
        return name in self._fields and self._text(name) != self._before.get(name, "").strip()

    def _text(self, name: str) -> str:
        return self._fields[name][-1].replace("\r\n", "\n").strip()


async def read_area(
    connection: Connection, form: AreaForm, fields: FormFields, before: SubscriptionDefinition, vertical_country: str
) -> Area:
    """Return the area of the form, for a vertical of `vertical_country`. Raises InvalidInput."""
    sent, old = _SentFields(fields, fields_of(before)), before.area
    countries = split_codes(form.countries) if sent.changed("countries") else old.countries
    postal_codes = split_codes(form.codes) if sent.changed("codes") else old.postal_codes
    prefixes = split_codes(form.prefixes) if sent.changed("prefixes") else old.prefixes
    circles = old.circles
    if form.keep is not None and sent.holds("keep"):
        circles = tuple(circle for at, circle in enumerate(circles) if at in form.keep)
    area = msgspec.structs.replace(
        old,
        anywhere=form.anywhere,
        countries=tuple(country.upper() for country in countries),
        postal_codes=postal_codes,
        prefixes=prefixes,
        circles=circles,
    )
    if not form.centre:
        return area
    added = await _read_circles(connection, form, countries_of(area, vertical_country))
    return msgspec.structs.replace(area, circles=(*circles, *(circle for circle in added if circle not in circles)))


async def _read_circles(connection: Connection, form: AreaForm, countries: frozenset[str]) -> tuple[Circle, ...]:
    """Return the circles that the form adds, around ZIP codes. Raises InvalidInput."""
    if not countries & ZIP_COUNTRIES:
        detail = f"A ZIP code is in the United States, but this subscription is for {', '.join(sorted(countries))}."
        raise field_fault("centre", FaultCode.value_not_allowed, detail)
    codes = tuple(fold_code(code)[:5] for code in split_codes(form.centre))
    places = await store.list_places(connection, "US", codes)
    unknown = [code for code in codes if code not in places]
    if unknown or not codes:
        detail = f"We do not know the ZIP code {unknown[0] if unknown else ''}. Enter ZIP codes of five digits."
        raise field_fault("centre", FaultCode.value_not_allowed, detail)
    if form.miles is None:
        raise field_fault("miles", FaultCode.field_missing, "Enter the radius.")
    km = round(form.miles * (MILE_KM if form.unit == "mi" else 1), 1)
    return tuple(Circle(latitude=places[code].latitude, longitude=places[code].longitude, km=km) for code in codes)


def apply_limits(
    form: LimitsForm, fields: FormFields, before: SubscriptionDefinition, zone: str
) -> SubscriptionDefinition:
    """Return the definition with the form's hours, caps, price and minimums. Raises InvalidInput."""
    sent = _SentFields(fields, fields_of(before))
    price = read_amount(form.price, before.currency, "price")
    if not price:
        raise field_fault("price", FaultCode.field_missing, "Enter the price per lead, such as 62.")
    caps, pace = _caps(form, sent, before), form.pace if sent.holds("pace") else before.pace
    rules = before.attributes
    if sent.holds("keep_rule"):
        rules = tuple(rule for at, rule in enumerate(rules) if at in (form.keep_rule or ()))
    hours = None if form.always else read_hours(fields, zone, before.hours)
    return msgspec.structs.replace(
        before,
        hours=hours,
        caps=caps,
        pace=pace and any(cap.window in PACED_WINDOWS for cap in caps),
        price_minor=price,
        bant=_bant(form, sent, before),
        persona=_persona(form, sent, before),
        consent=_consent(form, sent, before.consent),
        attributes=rules,
    )


def _caps(form: LimitsForm, sent: _SentFields, before: SubscriptionDefinition) -> tuple[Cap, ...]:
    """Return the caps in their previous order, then the new ones, without those that were emptied."""
    limits: dict[CapWindow, Cap] = {cap.window: cap for cap in before.caps}
    for window in WINDOWS:
        count, amount = f"{window}_count", f"{window}_amount"
        cap = limits.get(window, Cap(window=window))
        if sent.changed(count):
            cap = msgspec.structs.replace(cap, count=getattr(form, count))
        if sent.changed(amount):
            cap = msgspec.structs.replace(cap, amount_minor=read_amount(getattr(form, amount), before.currency, amount))
        limits[window] = cap
    return tuple(cap for cap in limits.values() if cap.count is not None or cap.amount_minor is not None)


def _bant(form: LimitsForm, sent: _SentFields, before: SubscriptionDefinition) -> BantMinimum:
    changes: dict[str, Any] = {}
    if sent.holds("must_meet"):
        changes["must_meet"] = _ticked(form.must_meet, before.bant.must_meet)
    if sent.changed("minimum_score"):
        changes["minimum_score"] = form.minimum_score or 0
    if sent.changed("minimum_budget"):
        changes["minimum_budget_minor"] = read_amount(form.minimum_budget, before.currency, "minimum_budget")
    if sent.changed("within_days"):
        changes["timing_within_days"] = form.within_days
    return msgspec.structs.replace(before.bant, **changes)


def _ticked(ticked: tuple[T, ...] | None, before: tuple[T, ...]) -> tuple[T, ...]:
    """Return the ticked boxes, in their previous order if they are the same as before."""
    return before if set(ticked or ()) == set(before) else (ticked or ())


def _persona(form: LimitsForm, sent: _SentFields, definition: SubscriptionDefinition) -> Persona:
    before = definition.persona
    changes: dict[str, Any] = {}
    if sent.holds("authorities"):
        changes["authorities"] = _ticked(form.authorities, before.authorities)
    if sent.changed("price_from"):
        changes["minimum_price_minor"] = read_amount(form.price_from, definition.currency, "price_from")
    if sent.changed("price_to"):
        changes["maximum_price_minor"] = read_amount(form.price_to, definition.currency, "price_to")
    if sent.changed("roles"):
        changes["roles"] = split_lines(form.roles)
    if sent.changed("size_from"):
        changes["minimum_company_size"] = form.size_from
    if sent.changed("size_to"):
        changes["maximum_company_size"] = form.size_to
    if sent.holds("phone_types"):
        changes["phone_types"] = _ticked(form.phone_types, before.phone_types)
    if sent.changed("excluded_sources"):
        changes["excluded_sources"] = split_lines(form.excluded_sources)
    if sent.holds("refuses_disposable"):
        changes["refuses_disposable_email"] = form.refuses_disposable
    return msgspec.structs.replace(before, **changes)


def _consent(form: LimitsForm, sent: _SentFields, before: ConsentNeeds) -> ConsentNeeds:
    changes: dict[str, Any] = {}
    if sent.holds("channels"):
        changes["channels"] = _ticked(form.channels, before.channels)
    if sent.changed("purposes"):
        changes["purposes"] = split_lines(form.purposes)
    if sent.changed("jurisdictions"):
        changes["jurisdictions"] = tuple(place.upper() for place in split_codes(form.jurisdictions))
    return msgspec.structs.replace(before, **changes)


def read_hours(fields: FormFields, zone: str, before: OpenHours | None) -> OpenHours | None:
    """Return the hours from the fields of the week, `from_Mo`, `to_Mo` and so on, or from the expression in `spec`.

    `holidays` names the country on whose public holidays the business is closed. The hours stay as before if the form
    sends none, or the same. Raises InvalidInput.
    """
    holidays = _last_text(fields, "holidays").upper() or None
    zone = before.zone if before else zone
    if "from_Mo" not in fields:
        spec = _last_text(fields, "spec")
        if not spec or before is None:
            return before
        return OpenHours(spec=spec, zone=zone, holidays=holidays)
    week = {day: _day_hours(fields, day, name) for day, name in WEEK.items()}
    if before is not None and holidays == closed_on(before) and week == _as_sent(weekly_hours(before)):
        return before
    rules = [
        f"{day} {opens}-{'24:00' if closes == '00:00' else closes}" for day, (opens, closes) in week.items() if opens
    ]
    if not rules:
        detail = "Enter the hours of at least one day, or accept leads at any hour."
        raise field_fault("from_Mo", FaultCode.field_missing, detail)
    if holidays:
        rules.append(_CLOSED_ON_HOLIDAYS)
    return OpenHours(spec="; ".join(rules), zone=zone, holidays=holidays)


def _last_text(fields: FormFields, name: str) -> str:
    """Return the last value of a field, empty if the form has none."""
    return (fields.get(name) or ("",))[-1].strip()


def _as_sent(week: Mapping[str, tuple[str, str]] | None) -> dict[str, tuple[str, str]]:
    """Return the week as a browser sends it back, with 00:00 for 24:00."""
    return {day: (opens, "00:00" if closes == "24:00" else closes) for day, (opens, closes) in (week or {}).items()}


def _day_hours(fields: FormFields, day: str, name: str) -> tuple[str, str]:
    """Return the opening and closing time of a day; two empty texts for a day off. Raises InvalidInput."""
    opens, closes = (_last_text(fields, f"{what}_{day}") for what in ("from", "to"))
    if not opens and not closes:
        return "", ""
    if not (_CLOCK.fullmatch(opens) and _CLOCK.fullmatch(closes)):
        raise field_fault(f"from_{day}", FaultCode.type_wrong, f"Enter both times for {name}, or neither.")
    return opens, closes


def weekly_hours(hours: OpenHours | None) -> Mapping[str, tuple[str, str]] | None:
    """Return the week for the form; None for hours that no week can show, such as seasons."""
    if hours is None:
        return {day: ("08:00", "18:00") if day not in ("Sa", "Su") else ("", "") for day in _DAYS}
    week: dict[str, tuple[str, str]] = dict.fromkeys(_DAYS, ("", ""))
    for rule in hours.spec.removesuffix(f"; {_CLOSED_ON_HOLIDAYS}").split(";"):
        match = _RULE.fullmatch(rule.strip())
        if match is None or not _SHOWN_CLOCK.fullmatch(match[3]) or not _CLOCK.fullmatch(match[4]):
            return None
        first, last = _DAYS.index(match[1]), _DAYS.index(match[2] or match[1])
        if last < first:  # the days wrap around the end of the week
            last += 7
        for day in range(first, last + 1):
            week[_DAYS[day % 7]] = (match[3], match[4])
    return week


def closed_on(hours: OpenHours | None) -> str | None:
    """Return the country on whose public holidays the business is closed.

    For hours that no week can show, this is the country to which `PH` in the expression refers.
    """
    if hours is None:
        return None
    fits_a_week = weekly_hours(hours) is not None
    return hours.holidays if not fits_a_week or hours.spec.endswith(f"; {_CLOSED_ON_HOLIDAYS}") else None


def cap_of(definition: SubscriptionDefinition, window: str) -> Cap:
    """Return the cap of a window; an empty cap if the definition has none."""
    return next((cap for cap in definition.caps if cap.window == window), Cap(window=CapWindow(window)))


async def list_places(connection: Connection, area: Area, vertical_country: str) -> tuple[PostalLocation, ...]:
    """Return places of the area's postal codes and prefixes, MOST_DOTS of each, for the map.

    There are none outside the countries of ZIP codes.
    """
    if not countries_of(area, vertical_country) & ZIP_COUNTRIES:
        return ()
    codes = [fold_code(code)[:5] for code in area.postal_codes[:MOST_DOTS]]
    places = await store.list_places(connection, "US", codes) if codes else {}
    if area.prefixes:
        prefixes = sorted(set(map(fold_code, area.prefixes)))
        places |= await store.list_places_of_prefixes(connection, "US", prefixes, MOST_DOTS)
    return tuple(places.values())


def fields_of(definition: SubscriptionDefinition) -> dict[str, str]:
    """Return a definition as the values of the form's single-value fields."""
    area, bant, persona, currency = definition.area, definition.bant, definition.persona, definition.currency
    limits = {}
    for window in WINDOWS:
        cap = cap_of(definition, window)
        limits[f"{window}_count"] = str(cap.count or "")
        limits[f"{window}_amount"] = field_amount(cap.amount_minor, currency)
    return limits | {
        "codes": " ".join(map(fold_code, area.postal_codes)),
        "anywhere": "1" if area.anywhere else "",
        "prefixes": " ".join(map(fold_code, area.prefixes)),
        "countries": " ".join(area.countries),
        "pace": "1" if definition.pace else "",
        "price": field_amount(definition.price_minor, currency),
        "minimum_budget": field_amount(bant.minimum_budget_minor, currency),
        "minimum_score": str(bant.minimum_score or ""),
        "within_days": _number(bant.timing_within_days),
        "always": "" if definition.hours else "1",
        "spec": definition.hours.spec if definition.hours else "",
        "holidays": closed_on(definition.hours) or "",
        "roles": "\n".join(persona.roles),
        "excluded_sources": "\n".join(persona.excluded_sources),
        "size_from": _number(persona.minimum_company_size),
        "size_to": _number(persona.maximum_company_size),
        "price_from": field_amount(persona.minimum_price_minor, currency),
        "price_to": field_amount(persona.maximum_price_minor, currency),
        "refuses_disposable": "1" if persona.refuses_disposable_email else "",
        "purposes": "\n".join(definition.consent.purposes),
        "jurisdictions": " ".join(definition.consent.jurisdictions),
    }


def show_forms(values: Mapping[str, str], currency: str) -> dict[str, Any]:
    """Return the forms of the area and the limits for a page, with the values of the fields outside both."""
    return {
        "area_form": show_form(AreaForm, values, {"unit": UNITS}),
        "limits_form": show_form(LimitsForm, values, currency=currency),
        "values": values,
    }


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def ticks_of(definition: SubscriptionDefinition, fields: FormFields) -> dict[str, tuple[str, ...]]:
    """Return the ticked boxes of each group: those that the form sent, or else those of the definition."""
    bant, persona = definition.bant, definition.persona
    stored: dict[str, tuple[str, ...]] = {
        "must_meet": bant.must_meet,
        "authorities": persona.authorities,
        "phone_types": persona.phone_types,
        "channels": definition.consent.channels,
        "keep": tuple(map(str, range(len(definition.area.circles)))),
        "keep_rule": tuple(map(str, range(len(definition.attributes)))),
    }
    return {name: fields.get(name, ticked) for name, ticked in stored.items()}


ANY_PERSONA: Final = Persona()
ANY_CONSENT: Final = NO_NEEDS
PHONE_CHOICES: Final = (
    ("mobile", "Mobile"),
    ("fixed_line", "Landline"),
    ("fixed_or_mobile", "Landline or mobile, not known which"),
    ("voip", "Internet telephone"),
    ("other", "Other"),
)
"Phone types with their words."
CHANNEL_CHOICES: Final = (
    (Channel.call, "Call"),
    (Channel.text, "Text"),
    (Channel.email, "E-mail"),
    (Channel.post, "Write by post"),
)
"Channels with their words."


def facts_of(definition: SubscriptionDefinition) -> list[tuple[str, str]]:
    """Return everything that a definition holds as pairs of a name and words, for members who may not change it."""
    bant, hours, values = definition.bant, definition.hours, fields_of(definition)
    unit = f" {definition.currency}"
    lines = [
        ("Area", area_words(definition.area)),
        ("Price", values["price"] + unit),
        ("Hours", "Any" if hours is None else f"{hours.spec}, {hours.zone}"),
        ("Public holidays", hours.holidays or "" if hours else ""),
        *_cap_facts(values, unit),
        ("Limits spread over the open hours", "Yes" if definition.pace else ""),
        ("Minimum budget", values["minimum_budget"] and values["minimum_budget"] + unit),
        ("Minimum score", values["minimum_score"]),
        ("Work needed within days", values["within_days"]),
        ("Must meet the requirements", ", ".join(map(words, bant.must_meet))),
        ("Answers", ". ".join(map(rule_words, definition.attributes))),
        *_persona_facts(definition.persona),
        ("What the person buys costs", _price_words(values, unit)),
        *_consent_facts(definition.consent),
        ("Priority", f"{definition.priority}, lower goes first"),
        ("Weight", str(definition.weight)),
    ]
    return [line for line in lines if line[1]]


def _cap_facts(values: Mapping[str, str], unit: str) -> Iterator[tuple[str, str]]:
    for window, unit_words in WINDOWS.items():
        count, amount = values[f"{window}_count"], values[f"{window}_amount"]
        parts = [f"{count} leads" if count else "", amount + unit if amount else ""]
        yield f"At most {unit_words}", " and ".join(part for part in parts if part)


def _persona_facts(persona: Persona) -> Iterator[tuple[str, str]]:
    smallest, largest = _number(persona.minimum_company_size), _number(persona.maximum_company_size)
    yield "Role in the decision", ", ".join(map(words, persona.authorities))
    yield "Phone type", ", ".join(dict(PHONE_CHOICES)[kind] for kind in persona.phone_types)
    yield "Roles", ", ".join(persona.roles)
    yield "Not from these sources", ", ".join(persona.excluded_sources)
    yield "People in the company", f"{smallest or 'any'} to {largest or 'any'}" if smallest or largest else ""
    yield "Disposable e-mail addresses", "Not accepted" if persona.refuses_disposable_email else ""


def _price_words(values: Mapping[str, str], unit: str) -> str:
    low, high = values["price_from"], values["price_to"]
    return f"{low or 'any'} to {high or 'any'}{unit}" if low or high else ""


def _consent_facts(needs: ConsentNeeds) -> Iterator[tuple[str, str]]:
    yield "Only with consent to", ", ".join(dict(CHANNEL_CHOICES)[channel] for channel in needs.channels)
    yield "Purposes of the consent", ", ".join(needs.purposes)
    yield "Only with consent of these places", ", ".join(needs.jurisdictions)


def rule_words(rule: FieldRule) -> str:
    """Return a rule on an answer in words: `Storeys: at least 2; not 9`."""
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
    """Return an area in words: `25 miles around 41.92, -87.65; 12 ZIP codes, in US only`."""
    parts = ["Anywhere"] if area.anywhere else [*_circle_words(area), *_code_words(area)]
    countries = ", ".join(area.countries)
    if parts and countries:
        return f"{'; '.join(parts)}, in {countries} only"
    return "; ".join(parts) or countries or "Nowhere yet"


def _circle_words(area: Area) -> list[str]:
    return [f"{circle_words(circle)} around {circle.latitude:.2f}, {circle.longitude:.2f}" for circle in area.circles]


def circle_words(circle: Circle) -> str:
    """Return the radius in both units: `25 miles (40 km)`."""
    return f"{circle.km / MILE_KM:.0f} miles ({circle.km:.0f} km)"


def _code_words(area: Area) -> list[str]:
    parts = []
    if area.postal_codes:
        parts.append(f"{len(area.postal_codes):,} ZIP {'code' if len(area.postal_codes) == 1 else 'codes'}")
    if area.prefixes:
        more = len(area.prefixes) - MOST_PREFIXES
        tail = f" and {more:,} others" if more > 0 else ""
        parts.append(f"ZIP codes that begin with {', '.join(area.prefixes[:MOST_PREFIXES])}{tail}")
    return parts
