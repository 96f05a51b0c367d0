"""Definition of a subscription, a version in force, and the validation of a definition before it is saved.

A definition that no lead could ever match is refused with the reason, instead of waiting for leads that never come.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import chain, islice
from typing import Annotated, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from routing.calendar import CapWindow
from routing.consent import NO_NEEDS, ConsentNeeds, is_jurisdiction
from routing.currency import MINOR_DIGITS
from routing.inquiry import Authority, Mode, NeedField, NeedValue
from routing.pacing import PACED_WINDOWS, ArrivalPlan
from routing.qualification import Dimension
from routing.quota import SuspensionReason

RADIUS_KM: Final = (0.1, 1_000.0)
"""Bounds of a circle's radius in kilometres. A smaller one contains no postal area's centre; a larger one is better
written as a list of countries or prefixes."""
PRICE_MINOR: Final = (1, 1_000_000_000)
BUDGET_MINOR: Final = (1, 1_000_000_000_000)
SCORE: Final = (0, 100)
DAYS: Final = (0, 3_650)
WEIGHT: Final = (1, 1_000)
PRIORITY: Final = (0, 1_000_000)
CAP_COUNT: Final = (1, 1_000_000)
COMPANY_SIZE: Final = (1, 10_000_000)
MOST_CODES: Final = 45_000
"""Most postal codes, and most prefixes, of an area. All postal codes of the United States (42,789) fit."""
MOST_CIRCLES: Final = 50
MOST_ENTRIES: Final = 200
"""Most entries of any other list of a definition."""
MOST_FAULTS: Final = 100
"""Faults of one definition that are looked for; the others are found once these are corrected."""
PHONE_TYPES: Final = frozenset({"mobile", "fixed_line", "fixed_or_mobile", "voip", "other", "unknown"})

INFINITE: Final = 2**62
"""Greater than every integer that a need field may have."""

ZIP_COUNTRIES: Final = frozenset({"US", "PR", "VI", "GU", "AS", "MP", "UM", "FM", "MH", "PW"})
"""Countries and territories that share the postal codes of the United States Postal Service."""

COUNTRY_CODE: Final = re.compile(r"[A-Z]{2}")
_ZIP_PLUS_4: Final = re.compile(r"[0-9]{9}")
_POSTAL_CODE: Final = re.compile(r"[A-Z0-9]{2,10}")
_PREFIX: Final = re.compile(r"[A-Z0-9]{1,5}")


class Circle(msgspec.Struct, frozen=True, kw_only=True):
    """All points within `km` kilometres of a centre, in degrees (WGS 84)."""

    latitude: float
    longitude: float
    km: float


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """Area of a subscription: the union of postal codes, prefixes and circles. An empty area contains nothing.

    Codes, prefixes and circles lie in `countries` (ISO alpha-2), or in the vertical's country if there are none.
    `countries` together with them, or with `anywhere`, narrows the area; `countries` alone are whole countries, and
    `anywhere` alone is every country. Codes and prefixes (1 to 5 characters) are compared without spaces, hyphens and
    case.
    """

    anywhere: bool = False
    countries: tuple[str, ...] = ()
    postal_codes: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    circles: tuple[Circle, ...] = ()


class FieldRule(msgspec.Struct, frozen=True, kw_only=True):
    """Rule on one need field: one of `any_of`, none of `none_of`, and an integer within the bounds, all inclusive.

    An unanswered field passes only `none_of`.
    """

    field: str
    any_of: tuple[NeedValue, ...] = ()
    none_of: tuple[NeedValue, ...] = ()
    minimum: int | None = None
    maximum: int | None = None


class BantMinimum(msgspec.Struct, frozen=True, kw_only=True):
    """BANT requirements of a business beyond the vertical's policy. An unknown value does not pass a requirement."""

    must_meet: tuple[Dimension, ...] = ()
    minimum_score: int = 0
    minimum_budget_minor: int | None = None
    timing_within_days: int | None = None


class Persona(msgspec.Struct, frozen=True, kw_only=True):
    """Requirements on the person. An empty one accepts everybody; an unknown value does not pass any other.

    `mobile` and `fixed_line` both accept `fixed_or_mobile`: North American numbers do not distinguish them.
    The price range, in minor units of the subscription's currency, accepts a person whose budget overlaps it, or who
    has bought something for an amount within it.
    """

    authorities: tuple[Authority, ...] = ()
    roles: tuple[str, ...] = ()
    minimum_company_size: int | None = None
    maximum_company_size: int | None = None
    minimum_price_minor: int | None = None
    maximum_price_minor: int | None = None
    phone_types: tuple[str, ...] = ()
    excluded_sources: tuple[str, ...] = ()
    refuses_disposable_email: bool = False


class PriceRange(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of jobs, in minor units of `currency`; None is no limit on that side."""

    currency: str
    minimum_minor: int | None = None
    maximum_minor: int | None = None


class Cap(msgspec.Struct, frozen=True, kw_only=True):
    """Limit per window, in the business's own calendar: `count` leads, `amount_minor` spent in minor units, or both."""

    window: CapWindow
    count: int | None = None
    amount_minor: int | None = None


class OpenHours(msgspec.Struct, frozen=True, kw_only=True):
    """Hours in which leads may arrive, in OpenStreetMap's opening_hours syntax and an IANA time zone.

    A shift past midnight belongs to the day on which it begins. `holidays` is the country (`US`) or subdivision
    (`US-TX`) whose public holidays "PH" means, each with the working day that replaces it.
    """

    spec: str
    zone: str
    holidays: str | None = None


class BusinessRules(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a subscription that the business writes.

    `zone` is the IANA time zone of the caps. `price_minor` is in minor units. With `pace`, the caps of a day, a week
    and a month are spread over the leads that arrive in the open hours of their window. `consent` are the channels by
    which the business must be able to contact the person, and what else it needs of the consent.
    """

    area: Area
    attributes: tuple[FieldRule, ...] = ()
    bant: BantMinimum = BantMinimum()
    persona: Persona = Persona()
    hours: OpenHours | None = None
    caps: tuple[Cap, ...] = ()
    zone: str
    price_minor: int
    currency: str
    pace: bool = False
    consent: ConsentNeeds = NO_NEEDS


class SubscriptionDefinition(BusinessRules, frozen=True, kw_only=True):
    """One version of a subscription: the rules of the business, and its priority and weight, which the operator sets.

    A lower `priority` goes first.
    """

    priority: int = 100
    weight: int = 1


class BusinessTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Weight and priority of a business in a vertical, which the operator sets for all its subscriptions there."""

    weight: Annotated[int, msgspec.Meta(ge=WEIGHT[0], le=WEIGHT[1])] = 1
    priority: Annotated[int, msgspec.Meta(ge=PRIORITY[0], le=PRIORITY[1])] = 100

    def applied_to(self, definition: SubscriptionDefinition) -> SubscriptionDefinition:
        """Return the definition with these terms."""
        return msgspec.structs.replace(definition, weight=self.weight, priority=self.priority)


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A definition in force, as of the time at which the index was built. The award checks the locked row again.

    `country` is the vertical's, to which the postal codes of an area without countries belong. `endpoint_url` is
    None without a webhook; `hold_seconds` is how long a lead is held for the endpoint. `open_spans` are [start, end) in
    UTC epoch seconds for the coming days, sorted and without overlaps; None is always open. `plan` has the arrivals
    over which caps are spread; None without `pace`.
    `business_names` are the names by which a consent may name the business.
    """

    id: UUID
    business_id: UUID
    endpoint_id: UUID | None
    vertical: str
    country: str
    mode: Mode
    version: int
    definition: SubscriptionDefinition
    paused: bool = False
    suspended: SuspensionReason | None = None
    business_active: bool = True
    endpoint_active: bool = True
    endpoint_url: str | None = None
    hold_seconds: int = 120
    breaker_open_until: datetime | None = None
    open_spans: tuple[tuple[int, int], ...] | None = None
    plan: ArrivalPlan | None = None
    business_names: tuple[str, ...] = ()


def fold_code(code: str) -> str:
    """Normalize a postal code or prefix for comparison: capital letters, without spaces and hyphens."""
    return code.replace(" ", "").replace("-", "").upper()


def area_codes(area: Area, vertical_country: str) -> frozenset[str]:
    """Return the postal codes of an area as inquiries have them: folded, a ZIP+4 by its five digits.

    A ZIP+4 is one where the area lies in a country of ZIP codes; no other country has codes of nine digits.
    """
    codes = area.postal_codes
    if not codes:
        return frozenset()
    if not "".join(codes).isdigit():  # digits need no folding, which would take longer than the rest
        codes = tuple(map(fold_code, codes))
    if max(map(len, codes)) >= 9 and not countries_of(area, vertical_country).isdisjoint(ZIP_COUNTRIES):
        codes = tuple(code[:5] if _ZIP_PLUS_4.fullmatch(code) else code for code in codes)
    return frozenset(codes)


def countries_of(area: Area, vertical_country: str) -> frozenset[str]:
    """Return the countries in which the codes, prefixes and circles of an area lie.

    They are those of the area, or else the vertical's own with the territories that share its postal codes.
    """
    if area.countries:
        return frozenset(area.countries)
    return ZIP_COUNTRIES if vertical_country in ZIP_COUNTRIES else frozenset({vertical_country})


def passes(rule: FieldRule, value: NeedValue | None) -> bool:
    """Return whether an answer passes the rule. Only integers pass a rule with bounds."""
    if value is None:
        return not rule.any_of and rule.minimum is None and rule.maximum is None
    if (rule.any_of and not _among(value, rule.any_of)) or _among(value, rule.none_of):
        return False
    if rule.minimum is None and rule.maximum is None:
        return True
    if isinstance(value, str | bool):
        return False
    return (rule.minimum is None or value >= rule.minimum) and (rule.maximum is None or value <= rule.maximum)


def _among(value: NeedValue, values: Sequence[NeedValue]) -> bool:
    return any(value == other and type(value) is type(other) for other in values)  # True is not the integer 1


def is_zone(zone: str) -> bool:
    """Return whether a name is a zone of the IANA database that means the same on every machine."""
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # unknown; not a plain key; a folder of zones
        return False
    return zone not in ("localtime", "posixrules", "Factory")


class DefinitionFaultCode(StrEnum):
    """Code of a fault in a definition."""

    area_empty = "area_empty"
    """The area is empty, so that no lead could lie in it."""
    malformed = "malformed"
    """A code does not have the format of its kind."""
    out_of_range = "out_of_range"
    """A number is outside its bounds."""
    too_many = "too_many"
    """A list has too many entries."""
    unknown_need_field = "unknown_need_field"
    """The vertical has no such need field."""
    unknown_choice = "unknown_choice"
    """The vertical's need field has no such choice."""
    wrong_type = "wrong_type"
    """The value or the bound does not fit the kind of the question."""
    unknown_phone_type = "unknown_phone_type"
    """There is no such phone type."""
    unknown_zone = "unknown_zone"
    """The IANA time zone database has no such zone."""
    rule_empty = "rule_empty"
    """A rule or a cap without any condition."""
    duplicate = "duplicate"
    """A second cap for the same window."""
    never_matches = "never_matches"
    """Rules that contradict each other: no lead could ever pass them all."""


class DefinitionFault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: its place as a JSON pointer (RFC 6901), a code, and a sentence that says what to do."""

    pointer: str
    code: DefinitionFaultCode
    detail: str


def validate(definition: SubscriptionDefinition, needs: Mapping[str, NeedField]) -> tuple[DefinitionFault, ...]:
    """Return the faults of a definition, given the need fields of its vertical; empty if it may be saved.

    At most MOST_FAULTS are returned. It does not check the syntax of open hours, which takes a parser and a table of
    holidays: `marketplace.rules.hours` does.
    """
    faults = chain(
        _area_faults(definition.area),
        _attribute_faults(definition.attributes, needs),
        _bant_faults(definition.bant),
        _persona_faults(definition.persona),
        consent_need_faults(definition.consent),
        _cap_faults(definition.caps, definition.price_minor),
        _pace_faults(definition),
        _figure_faults(definition),
    )
    return tuple(islice(faults, MOST_FAULTS))


def _fault(pointer: str, code: DefinitionFaultCode, detail: str) -> DefinitionFault:
    return DefinitionFault(pointer=pointer, code=code, detail=detail)


def _bounded(pointer: str, value: float | None, bounds: tuple[float, float]) -> Iterator[DefinitionFault]:
    low, high = bounds
    if value is not None and not low <= value <= high:
        yield _fault(pointer, DefinitionFaultCode.out_of_range, f"Give a value from {low:,} to {high:,}.")


def _short(pointer: str, entries: Collection[object], most: int = MOST_ENTRIES) -> Iterator[DefinitionFault]:
    if len(entries) > most:
        yield _fault(pointer, DefinitionFaultCode.too_many, f"Give at most {most:,} entries.")


def _shaped(pointer: str, codes: Sequence[str], shape: re.Pattern[str], meaning: str) -> Iterator[DefinitionFault]:
    for position, code in enumerate(codes):
        if not shape.fullmatch(code):
            yield _fault(f"{pointer}/{position}", DefinitionFaultCode.malformed, f"Give {meaning}.")


def _area_faults(area: Area) -> Iterator[DefinitionFault]:
    if not (area.anywhere or area.countries or area.postal_codes or area.prefixes or area.circles):
        detail = "Give countries, postal codes, prefixes or circles, or set anywhere."
        yield _fault("/area", DefinitionFaultCode.area_empty, detail)
    codes = [fold_code(code) for code in area.postal_codes]
    prefixes = [fold_code(prefix) for prefix in area.prefixes]
    yield from _short("/area/countries", area.countries)
    yield from _short("/area/postal_codes", codes, MOST_CODES)
    yield from _short("/area/prefixes", prefixes, MOST_CODES)
    yield from _short("/area/circles", area.circles, MOST_CIRCLES)
    yield from _shaped("/area/countries", area.countries, COUNTRY_CODE, "an ISO 3166 code of two capital letters")
    yield from _shaped("/area/postal_codes", codes, _POSTAL_CODE, "a postal code of 2 to 10 letters and digits")
    yield from _shaped("/area/prefixes", prefixes, _PREFIX, "the first 1 to 5 letters and digits of a postal code")
    for position, circle in enumerate(area.circles):
        pointer = f"/area/circles/{position}"
        yield from _bounded(f"{pointer}/latitude", circle.latitude, (-90.0, 90.0))
        yield from _bounded(f"{pointer}/longitude", circle.longitude, (-180.0, 180.0))
        yield from _bounded(f"{pointer}/km", circle.km, RADIUS_KM)


def _attribute_faults(rules: Sequence[FieldRule], needs: Mapping[str, NeedField]) -> Iterator[DefinitionFault]:
    yield from _short("/attributes", rules)
    sound: dict[str, list[FieldRule]] = {}
    for position, rule in enumerate(rules):
        pointer = f"/attributes/{position}"
        need = needs.get(rule.field)
        if need is None:
            yield _fault(
                f"{pointer}/field", DefinitionFaultCode.unknown_need_field, "Name a need field of this vertical."
            )
        elif faults := tuple(islice(_rule_faults(pointer, rule, need), MOST_FAULTS)):
            yield from faults
        else:
            sound.setdefault(rule.field, []).append(rule)
    for field, together in sound.items():
        if not any(all(passes(rule, answer) for rule in together) for answer in _answers(needs[field], together)):
            yield _fault(
                "/attributes", DefinitionFaultCode.never_matches, f"No answer to “{field}” passes all rules on it."
            )


def _rule_faults(pointer: str, rule: FieldRule, need: NeedField) -> Iterator[DefinitionFault]:
    bounds = [bound for bound in (rule.minimum, rule.maximum) if bound is not None]
    if not (rule.any_of or rule.none_of or bounds):
        yield _fault(pointer, DefinitionFaultCode.rule_empty, "Give any_of, none_of, minimum or maximum.")
    if bounds and need.kind != "integer":
        yield _fault(
            pointer, DefinitionFaultCode.wrong_type, f"“{rule.field}” is no number: it takes no minimum or maximum."
        )
    for name, values in (("any_of", rule.any_of), ("none_of", rule.none_of)):
        yield from _short(f"{pointer}/{name}", values)
        for position, value in enumerate(values):
            kind = "boolean" if isinstance(value, bool) else "integer" if isinstance(value, int) else "choice"
            if kind != need.kind:
                yield _fault(
                    f"{pointer}/{name}/{position}", DefinitionFaultCode.wrong_type, f"“{rule.field}” is a {need.kind}."
                )
            elif kind == "choice" and value not in need.choices:
                choices = ", ".join(need.choices)
                yield _fault(
                    f"{pointer}/{name}/{position}", DefinitionFaultCode.unknown_choice, f"Choose among {choices}."
                )


def _answers(need: NeedField, rules: Sequence[FieldRule]) -> Collection[NeedValue]:
    """Return enough possible answers to decide whether any answer passes all the rules."""
    match need.kind:
        case "choice":
            return need.choices
        case "boolean":
            return (True, False)
        case "integer":
            lows = [low for low in (need.minimum, *(rule.minimum for rule in rules)) if low is not None]
            highs = [high for high in (need.maximum, *(rule.maximum for rule in rules)) if high is not None]
            within = range(max(lows, default=-INFINITE), min(highs, default=INFINITE) + 1)
            if listed := next((rule.any_of for rule in rules if rule.any_of), ()):
                return [value for value in listed if value in within]
            excluded = sum(len(rule.none_of) for rule in rules)
            return within[: excluded + 1]


def _bant_faults(bant: BantMinimum) -> Iterator[DefinitionFault]:
    yield from _bounded("/bant/minimum_score", bant.minimum_score, SCORE)
    yield from _bounded("/bant/minimum_budget_minor", bant.minimum_budget_minor, BUDGET_MINOR)
    yield from _bounded("/bant/timing_within_days", bant.timing_within_days, DAYS)


def _persona_faults(persona: Persona) -> Iterator[DefinitionFault]:
    low, high = persona.minimum_company_size, persona.maximum_company_size
    yield from _short("/persona/roles", persona.roles)
    yield from _short("/persona/excluded_sources", persona.excluded_sources)
    yield from _bounded("/persona/minimum_company_size", low, COMPANY_SIZE)
    yield from _bounded("/persona/maximum_company_size", high, COMPANY_SIZE)
    if low is not None and high is not None and low > high:
        yield _fault(
            "/persona", DefinitionFaultCode.never_matches, "No company is larger than the maximum size allows."
        )
    cheapest, dearest = persona.minimum_price_minor, persona.maximum_price_minor
    yield from _bounded("/persona/minimum_price_minor", cheapest, BUDGET_MINOR)
    yield from _bounded("/persona/maximum_price_minor", dearest, BUDGET_MINOR)
    if cheapest is not None and dearest is not None and cheapest > dearest:
        yield _fault("/persona", DefinitionFaultCode.never_matches, "No price is above the maximum price.")
    for position, phone_type in enumerate(persona.phone_types):
        if phone_type not in PHONE_TYPES:
            choices = ", ".join(sorted(PHONE_TYPES))
            yield _fault(
                f"/persona/phone_types/{position}", DefinitionFaultCode.unknown_phone_type, f"Choose among {choices}."
            )


def consent_need_faults(needs: ConsentNeeds) -> Iterator[DefinitionFault]:
    """Return the faults of requirements on the consent, at `/consent`."""
    yield from _short("/consent/channels", needs.channels)
    yield from _short("/consent/purposes", needs.purposes)
    yield from _short("/consent/jurisdictions", needs.jurisdictions)
    for position, jurisdiction in enumerate(needs.jurisdictions):
        if not is_jurisdiction(jurisdiction):
            yield _fault(
                f"/consent/jurisdictions/{position}",
                DefinitionFaultCode.malformed,
                "Give an ISO 3166 country such as US, or a part of it such as US-CA.",
            )


def _cap_faults(caps: Sequence[Cap], price_minor: int) -> Iterator[DefinitionFault]:
    windows: set[CapWindow] = set()
    for position, cap in enumerate(caps):
        pointer = f"/caps/{position}"
        if cap.window in windows:
            yield _fault(
                pointer, DefinitionFaultCode.duplicate, "Give one cap per window, with count and amount together."
            )
        windows.add(cap.window)
        if cap.count is None and cap.amount_minor is None:
            yield _fault(pointer, DefinitionFaultCode.rule_empty, "Give a count, an amount or both.")
        yield from _bounded(f"{pointer}/count", cap.count, CAP_COUNT)
        yield from _bounded(f"{pointer}/amount_minor", cap.amount_minor, BUDGET_MINOR)
        if cap.amount_minor is not None and 0 < cap.amount_minor < price_minor:
            yield _fault(
                f"{pointer}/amount_minor", DefinitionFaultCode.never_matches, "The cap is below the price of one lead."
            )


def _pace_faults(definition: SubscriptionDefinition) -> Iterator[DefinitionFault]:
    if definition.pace and not any(cap.window in PACED_WINDOWS for cap in definition.caps):
        detail = "Give a cap of a day, a week or a month to spread, or leave pace out."
        yield _fault("/pace", DefinitionFaultCode.rule_empty, detail)


def _figure_faults(definition: SubscriptionDefinition) -> Iterator[DefinitionFault]:
    yield from _bounded("/price_minor", definition.price_minor, PRICE_MINOR)
    yield from _bounded("/priority", definition.priority, PRIORITY)
    yield from _bounded("/weight", definition.weight, WEIGHT)
    if definition.currency not in MINOR_DIGITS:
        yield _fault(
            "/currency", DefinitionFaultCode.malformed, "Give a currency in use by its ISO 4217 code, such as USD."
        )
    hours = definition.hours
    for pointer, zone in (("/zone", definition.zone), ("/hours/zone", hours.zone if hours else "UTC")):
        if not is_zone(zone):
            yield _fault(pointer, DefinitionFaultCode.unknown_zone, "Name an IANA time zone such as America/Chicago.")
