"""Eligibility of each candidate for a lead: every rule that it fails, with the distance by which it missed.

The conditions that change between a decision and its award (state, caps, wallet) are listed here once: `consider` and
`check_standing` apply them before the award, `routing/awarding.py` after a lost one, `find_obstacles` without any lead.
Every rule is checked, even after one has failed, so that a near miss is data and a business can be told all that stood
between it and a lead. Order among the eligible is ranking's (`routing/ranking.py`).
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence, Set
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from itertools import chain
from math import ceil, inf
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from routing.calendar import CapWindow, window_end, window_starts
from routing.consent import (
    ANY_CONSENT,
    NO_NEEDS,
    ConsentNeeds,
    ConsentPolicy,
    ConsentTerms,
    fold_sellers,
    lies_in,
    unlicensed,
)
from routing.index import COMPLETE_UP_TO, IndexEntry, SubscriptionIndex, code_of, km_between, point_of
from routing.inquiry import UNKNOWN_PHONE, Facts, Mode, TouchKind, amount_in_words
from routing.pacing import PACED_WINDOWS, ArrivalPlan, paced_limit, paced_until, window_arrivals
from routing.qualification import FARTHEST_DAYS, Dimension, DimensionResult, Verdict
from routing.quota import SuspensionReason
from routing.subscription import (
    INFINITE,
    Area,
    BantMinimum,
    Cap,
    Circle,
    DefinitionFault,
    FieldRule,
    OpenHours,
    Persona,
    PriceRange,
    Subscription,
    SubscriptionDefinition,
    passes,
    validate,
)

__all__ = [
    "COMPLETE_UP_TO",
    "Area",
    "BantMinimum",
    "Candidate",
    "Cap",
    "CapWindow",
    "CapsAndWallet",
    "Circle",
    "DefinitionFault",
    "Failure",
    "FieldRule",
    "MatchingResult",
    "OpenHours",
    "Persona",
    "Rule",
    "Subscription",
    "SubscriptionDefinition",
    "SubscriptionIndex",
    "Usage",
    "apply_lists",
    "check_standing",
    "consider",
    "earliest_retry",
    "find_obstacles",
    "kept_away",
    "nearest_miss",
    "open_caps",
    "reached_caps",
    "state_failures",
    "validate",
]


class Rule(StrEnum):
    """Reasons for which a candidate does not get the lead, in order of precedence."""

    paused = "paused"
    """The business has paused this subscription."""
    suspended = "suspended"
    """It refused, or did not acknowledge, too many leads; it waits for an operator."""
    business_frozen = "business_frozen"
    """The business may not buy at present."""
    endpoint_inactive = "endpoint_inactive"
    """There is no working place to deliver to."""
    breaker_open = "breaker_open"
    """Its endpoint has failed repeatedly and is left alone for a while."""
    unreachable = "unreachable"
    """Its endpoint could not be reached for this lead; the next business gets its chance."""
    consent_seller = "consent_seller"
    """The person's consent names other sellers, or names none where the vertical requires one."""
    consent_channel = "consent_channel"
    """The consent does not license a channel that the business needs."""
    consent_purpose = "consent_purpose"
    """The consent is for other purposes, or names none."""
    consent_jurisdiction = "consent_jurisdiction"
    """The consent is of another jurisdiction, or names none."""
    list_outdated = "list_outdated"
    """A list of people who must not be contacted is outdated, and nothing is sold until it is refreshed."""
    own_customer = "own_customer"
    """The person is on the business's list of its own customers."""
    outside_area = "outside_area"
    """The lead is not in the area."""
    attribute = "attribute"
    """A need field does not hold what the business asks for."""
    budget_minimum = "budget_minimum"
    """The budget is below the business's own minimum, or not known."""
    timing_minimum = "timing_minimum"
    """It is wanted later than the business accepts, or nobody knows when."""
    bant_minimum = "bant_minimum"
    """A dimension that the business insists on is not met."""
    score_minimum = "score_minimum"
    """The score is below the business's own minimum."""
    authority = "authority"
    """The person's say in the purchase is not one that the business wants."""
    role = "role"
    """The person's role is not one that the business wants."""
    company_size = "company_size"
    """The company is smaller or larger than the business wants."""
    price_range = "price_range"
    """The person asks for, and has bought, at prices outside the range of the business or of the vertical."""
    phone_type = "phone_type"
    """The phone is not of a kind that the business accepts."""
    source_excluded = "source_excluded"
    """The business excludes the source of this lead."""
    disposable_email = "disposable_email"
    """The e-mail address is a throw-away one."""
    closed = "closed"
    """The business is closed at this hour."""
    cap_reached = "cap_reached"
    """A cap left no room for this lead."""
    paced = "paced"
    """The part of a cap that is open by now is used; the rest is kept for the leads that are still to come."""
    wallet_empty = "wallet_empty"
    """The wallet does not cover the price."""
    withdrawn = "withdrawn"
    """Lost at the award: paused, frozen or undeliverable since it was matched."""
    price_changed = "price_changed"
    """Lost at the award: the subscription has a newer version, so its price or its rules may differ."""
    cap_race = "cap_race"
    """Lost at the award: another lead used up a cap."""
    wallet_race = "wallet_race"
    """Lost at the award: another lead used the money."""
    outranked = "outranked"
    """Another business ranked before it and was awarded."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One rule that failed: a text, the distance with its unit, and the time at which it may pass by itself (UTC)."""

    rule: Rule
    detail: str
    distance: float | None = None
    unit: str | None = None
    until: datetime | None = None


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One subscription against one lead; eligible when nothing failed. Failures stand in order of precedence."""

    subscription_id: UUID
    business_id: UUID
    endpoint_id: UUID | None
    version: int
    price_minor: int
    failures: tuple[Failure, ...] = ()


class MatchingResult(msgspec.Struct, frozen=True, kw_only=True):
    """The candidates, ordered by subscription id; the subscriptions of those without a failure, in the same order; and
    how many subscriptions of the vertical were too far off to be looked at.

    `near` are the subscriptions that one rule alone kept from a lead that nobody is eligible for, at most `MOST_NEAR`.
    """

    candidates: tuple[Candidate, ...]
    eligible: tuple[Subscription, ...]
    near: tuple[Subscription, ...]
    left_out: int


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Use of one cap window so far, in leads and in minor units."""

    count: int = 0
    amount_minor: int = 0


class CapsAndWallet(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of a subscription that change with every award; loaded fresh for each decision.

    `share_credit` is that of its business in the vertical, in billionths of a lead (routing/shares.py); 0 unless the
    strategy reads it.
    """

    usage: dict[CapWindow, Usage] = {}
    available_minor: int
    credit_limit_minor: int = 0
    share_credit: int = 0


SUSPENDED: Final = {
    SuspensionReason.refusals: "suspended: it refused too many leads",
    SuspensionReason.unacknowledged: "suspended: it did not acknowledge too many leads",
}


OUTDATED_PAUSE: Final = timedelta(minutes=1)
"Time until the next decision about a lead while a list is outdated that stops sales."

_PRECEDENCE: Final = {rule: place for place, rule in enumerate(Rule)}

MOST_NEAR: Final = 20
"Subscriptions whose caps and wallets are read for a lead that nobody is eligible for, to tell who came nearest."


# Eligibility.


def consider(
    index: SubscriptionIndex,
    facts: Facts,
    verdict: Verdict,
    now: datetime,
    tried: frozenset[UUID] = frozenset(),
    consent_policy: ConsentPolicy = ANY_CONSENT,
    prices: PriceRange | None = None,
) -> MatchingResult:
    """Return the candidates for a qualified lead, each with all the rules that it fails, except caps and wallet.

    A vertical of up to `COMPLETE_UP_TO` subscriptions has a candidate for each; above that only those whose area holds
    the lead and the nearest others. `tried` are the businesses that have been tried for this lead, `consent_policy`
    the requirements of its vertical on the consent, and `prices` what jobs cost there.
    """
    entries, left_out = index.near(facts)
    case = MatchingCase(facts, verdict, now, tried, consent_policy, prices)
    candidates = tuple(_candidate(entry, case) for entry in entries)
    pairs = zip(entries, candidates, strict=True)
    eligible = tuple(entry.subscription for entry, candidate in pairs if not candidate.failures)
    near = () if eligible else _near_subscriptions(entries, candidates)
    return MatchingResult(candidates=candidates, eligible=eligible, near=near, left_out=left_out)


def apply_lists(
    result: MatchingResult, customers_of: Set[UUID], now: datetime, *, outdated: bool = False
) -> MatchingResult:
    """Return the result without the businesses that have the person as a customer already: `customers_of`.

    If a list of people who must not be contacted is `outdated` that stops sales, nobody is eligible for
    OUTDATED_PAUSE.
    """
    if not customers_of and not outdated:
        return result
    candidates = tuple(_with_lists(candidate, customers_of, now, outdated) for candidate in result.candidates)
    able = frozenset(candidate.subscription_id for candidate in candidates if not candidate.failures)
    return MatchingResult(
        candidates=candidates,
        eligible=tuple(subscription for subscription in result.eligible if subscription.id in able),
        near=() if outdated else tuple(row for row in result.near if row.business_id not in customers_of),
        left_out=result.left_out,
    )


def _with_lists(candidate: Candidate, customers_of: Set[UUID], now: datetime, outdated: bool) -> Candidate:
    failures = list(candidate.failures)
    if candidate.business_id in customers_of:
        failures.append(Failure(rule=Rule.own_customer, detail="a customer of the business already"))
    if outdated:
        detail = "a list of people who must not be contacted is outdated"
        failures.append(Failure(rule=Rule.list_outdated, detail=detail, until=now + OUTDATED_PAUSE))
    failures.sort(key=lambda failure: _PRECEDENCE[failure.rule])
    return msgspec.structs.replace(candidate, failures=tuple(failures))


def kept_away(candidates: Iterable[Candidate]) -> frozenset[UUID]:
    """Return the businesses that would have been eligible, were the person not their customer already."""
    return frozenset(
        candidate.business_id
        for candidate in candidates
        if [failure.rule for failure in candidate.failures] == [Rule.own_customer]
    )


def _near_subscriptions(entries: Sequence[IndexEntry], candidates: Sequence[Candidate]) -> tuple[Subscription, ...]:
    """Return the subscriptions of the candidates with one failure, the nearest first.

    Whether they are near misses depends on their caps and wallets.
    """
    pairs = zip(entries, candidates, strict=True)
    near = [(entry, candidate) for entry, candidate in pairs if len(candidate.failures) == 1]
    near.sort(key=lambda pair: _remoteness(pair[1]))
    return tuple(entry.subscription for entry, _candidate in near[:MOST_NEAR])


class MatchingCase:
    """One lead at one moment, with what every candidate asks of it worked out once."""

    __slots__ = (
        "code",
        "consent_failures",
        "facts",
        "now",
        "point",
        "price_miss",
        "results",
        "role",
        "sellers",
        "source",
        "terms",
        "tried",
        "verdict",
        "wanted_at",
    )

    def __init__(
        self,
        facts: Facts,
        verdict: Verdict,
        now: datetime,
        tried: frozenset[UUID],
        policy: ConsentPolicy,
        prices: PriceRange | None,
    ) -> None:
        self.facts = facts
        self.verdict = verdict
        self.now = now
        self.tried = tried
        self.code = code_of(facts.place)
        self.point = point_of(facts.place)
        self.results = {finding.dimension: finding.result for finding in verdict.findings}
        self.wanted_at = _wanted_at(facts)
        self.role = facts.role.casefold() if facts.role else None
        self.source = facts.source.casefold() if facts.source else None
        self.terms = facts.consent or ConsentTerms()
        named_seller_required = policy.requires_named_seller or bool(self.terms.sellers)
        self.sellers = fold_sellers(self.terms.sellers) if named_seller_required else None
        self.consent_failures = tuple(_need_failures(policy, self.terms))
        self.price_miss = None if prices is None else _price_miss(prices, facts, "what jobs cost here")


def _candidate(entry: IndexEntry, case: MatchingCase) -> Candidate:
    subscription = entry.subscription
    return Candidate(
        subscription_id=subscription.id,
        business_id=subscription.business_id,
        endpoint_id=subscription.endpoint_id,
        version=subscription.version,
        price_minor=subscription.definition.price_minor,
        failures=tuple(
            chain(
                state_failures(subscription, case.now),
                _tried_failures(subscription, case),
                _consent_failures(entry, case),
                _area_failures(entry, case),
                _attribute_failures(subscription.definition.attributes, case),
                _bant_failures(subscription.definition, case),
                _persona_failures(entry, case),
                _hours_failures(subscription, case.now),
            )
        ),
    )


def _wanted_at(facts: Facts) -> datetime | None:
    """Return the time at which the person wants it, None if unknown; counted as in qualification."""
    timing = facts.timing
    if timing is None:
        return None
    if timing.not_before is not None:
        return datetime.combine(timing.not_before, time(), UTC)
    if timing.within_days is not None:
        return facts.timing_at + timedelta(days=min(timing.within_days, FARTHEST_DAYS))
    return None


def state_failures(subscription: Subscription, now: datetime) -> Iterator[Failure]:
    """Conditions on the state of a subscription, its business and its endpoint; the award asks them again in SQL."""
    if subscription.paused:
        yield Failure(rule=Rule.paused, detail="paused by the business")
    if subscription.suspended is not None:
        yield Failure(rule=Rule.suspended, detail=SUSPENDED[subscription.suspended])
    if not subscription.business_active:
        yield Failure(rule=Rule.business_frozen, detail="the business is frozen")
    if not subscription.endpoint_active:
        yield Failure(rule=Rule.endpoint_inactive, detail="no active endpoint")
    until = subscription.breaker_open_until
    if until is not None and until > now:
        detail = f"breaker open until {_clock(until, subscription.definition.zone)}"
        minutes = _minutes(until, now)
        yield Failure(rule=Rule.breaker_open, detail=detail, distance=minutes, unit="minutes", until=until)


def _tried_failures(subscription: Subscription, case: MatchingCase) -> Iterator[Failure]:
    if subscription.business_id in case.tried:
        yield Failure(rule=Rule.unreachable, detail="its endpoint could not be reached for this lead")


def _consent_failures(entry: IndexEntry, case: MatchingCase) -> Iterator[Failure]:
    """Yield the failures of the consent: those of the vertical's needs are the same for every candidate."""
    if case.sellers is not None and case.sellers.isdisjoint(entry.sellers):
        detail = "the consent names other sellers" if case.terms.sellers else "the consent names no seller"
        yield Failure(rule=Rule.consent_seller, detail=detail)
    yield from case.consent_failures
    needs = entry.subscription.definition.consent
    if needs is not NO_NEEDS:
        yield from _need_failures(needs, case.terms)


def _need_failures(needs: ConsentNeeds, terms: ConsentTerms) -> Iterator[Failure]:
    missing = unlicensed(terms, needs.channels)
    if missing:
        detail = f"no consent to {' and '.join(missing)}"
        yield Failure(rule=Rule.consent_channel, detail=detail, distance=len(missing), unit="channels")
    if needs.purposes and {purpose.casefold() for purpose in needs.purposes}.isdisjoint(terms.purposes):
        detail = f"consent for {' and '.join(terms.purposes)}" if terms.purposes else "purpose of the consent not told"
        yield Failure(rule=Rule.consent_purpose, detail=detail)
    if needs.jurisdictions and not any(lies_in(terms.jurisdiction, region) for region in needs.jurisdictions):
        detail = f"consent of {terms.jurisdiction}" if terms.jurisdiction else "jurisdiction of the consent not told"
        yield Failure(rule=Rule.consent_jurisdiction, detail=detail)


def _area_failures(entry: IndexEntry, case: MatchingCase) -> Iterator[Failure]:
    place = case.facts.place
    if entry.holds(place, case.code, case.point):
        return
    if not entry.takes_country(place.country):
        yield Failure(rule=Rule.outside_area, detail=f"outside the area: in another country ({place.country})")
        return
    if case.point is None or not entry.discs:
        yield Failure(rule=Rule.outside_area, detail="outside the area")
        return
    point = case.point
    outside = round(min(km_between(disc, point) - disc.km for disc in entry.discs), 3)
    yield Failure(rule=Rule.outside_area, detail=f"{outside:,.1f} km outside", distance=outside, unit="km")


def _attribute_failures(rules: Sequence[FieldRule], case: MatchingCase) -> Iterator[Failure]:
    for rule in rules:
        value = case.facts.need_fields.get(rule.field)
        if passes(rule, value):
            continue
        if value is None:
            yield Failure(rule=Rule.attribute, detail=f"{rule.field} not told")
        elif rule.minimum is not None and isinstance(value, int) and value < rule.minimum:
            yield _missed(Rule.attribute, rule.field, rule.minimum - value, "below", rule.field)
        elif rule.maximum is not None and isinstance(value, int) and value > rule.maximum:
            yield _missed(Rule.attribute, rule.field, value - rule.maximum, "above", rule.field)
        else:
            yield Failure(rule=Rule.attribute, detail=f"{rule.field} is {value}")


def _bant_failures(definition: SubscriptionDefinition, case: MatchingCase) -> Iterator[Failure]:
    bant = definition.bant
    if bant.minimum_budget_minor is not None:
        yield from _budget_failures(bant.minimum_budget_minor, case.facts, definition.currency)
    if bant.timing_within_days is not None:
        yield from _timing_failures(bant.timing_within_days, case)
    for dimension in bant.must_meet:
        result = case.results.get(dimension, DimensionResult.unknown)
        if result is not DimensionResult.meets:
            yield Failure(rule=Rule.bant_minimum, detail=f"{dimension} {result}")
    if case.verdict.score < bant.minimum_score:
        yield _missed(Rule.score_minimum, "score", bant.minimum_score - case.verdict.score, "below", "points")


def _budget_failures(minimum_minor: int, facts: Facts, currency: str) -> Iterator[Failure]:
    """Yield a failure for a budget below the minimum. The top of a range counts, as in qualification."""
    budget = facts.budget
    if budget is None:
        yield Failure(rule=Rule.budget_minimum, detail="budget not told")
    elif budget.currency != currency:
        yield Failure(rule=Rule.budget_minimum, detail=f"budget in {budget.currency}, minimum in {currency}")
    else:
        below = minimum_minor - (budget.maximum_minor or budget.minor)
        if below > 0:
            detail = f"budget {amount_in_words(below, currency)} below"
            yield Failure(rule=Rule.budget_minimum, detail=detail, distance=below, unit="minor")


def _timing_failures(within_days: int, case: MatchingCase) -> Iterator[Failure]:
    service_at = case.wanted_at
    if service_at is None:
        yield Failure(rule=Rule.timing_minimum, detail="timing not told")
        return
    if case.results.get(Dimension.timing) is DimensionResult.unknown:
        yield Failure(rule=Rule.timing_minimum, detail="timing unknown")
        return
    until = service_at - timedelta(days=within_days)
    if until > case.now:
        days = ceil((until - case.now) / timedelta(days=1))
        detail = f"wanted {days:,} days later than accepted"
        yield Failure(rule=Rule.timing_minimum, detail=detail, distance=days, unit="days", until=until)


def _persona_failures(entry: IndexEntry, case: MatchingCase) -> Iterator[Failure]:
    persona, facts = entry.subscription.definition.persona, case.facts
    if persona.authorities and facts.authority not in persona.authorities:
        yield Failure(rule=Rule.authority, detail=f"authority {facts.authority or 'not told'}")
    if entry.roles and case.role not in entry.roles:
        yield Failure(rule=Rule.role, detail=f"role {facts.role or 'not told'}")
    yield from _size_failures(persona, facts.company_size)
    yield from _price_failures(persona, case, entry.subscription.definition.currency)
    if persona.phone_types and not phone_accepted(persona.phone_types, facts.signals.phone_type):
        yield Failure(rule=Rule.phone_type, detail=_phone_in_words(facts.signals.phone_type))
    if case.source in entry.sources:
        yield Failure(rule=Rule.source_excluded, detail=f"source {facts.source} is excluded")
    if persona.refuses_disposable_email and facts.signals.email_disposable:
        yield Failure(rule=Rule.disposable_email, detail="throw-away e-mail address")


def _size_failures(persona: Persona, size: int | None) -> Iterator[Failure]:
    low, high = persona.minimum_company_size, persona.maximum_company_size
    if low is None and high is None:
        return
    if size is None:
        yield Failure(rule=Rule.company_size, detail="company size not told")
    elif low is not None and size < low:
        yield _missed(Rule.company_size, "company size", low - size, "below", "people")
    elif high is not None and size > high:
        yield _missed(Rule.company_size, "company size", size - high, "above", "people")


def _price_failures(persona: Persona, case: MatchingCase, currency: str) -> Iterator[Failure]:
    """Yield a failure if the person's prices lie outside the range of the subscription or of the vertical.

    Of two, that with the greater distance. A person who named no price passes the vertical's range alone.
    """
    own = None
    low, high = persona.minimum_price_minor, persona.maximum_price_minor
    if low is not None or high is not None:
        own = _price_miss(PriceRange(currency=currency, minimum_minor=low, maximum_minor=high), case.facts, "the range")
        if own is None and not any(_price_spans(case.facts, currency)):
            own = Failure(rule=Rule.price_range, detail=f"no price in {currency} told")
    misses = [miss for miss in (own, case.price_miss) if miss is not None]
    if misses:
        yield max(misses, key=lambda miss: miss.distance or 0)


def _price_miss(prices: PriceRange, facts: Facts, name: str) -> Failure | None:
    """Return a failure by the least distance if neither the budget nor a purchase lies in a range; None without any."""
    low, high = prices.minimum_minor or 0, prices.maximum_minor or INFINITE
    spans = tuple(_price_spans(facts, prices.currency))
    if not spans or any(bottom <= high and top >= low for bottom, top in spans):
        return None
    below, above = min(low - top for _, top in spans), min(bottom - high for bottom, _ in spans)
    distance, side = (below, "below") if below > 0 and (above <= 0 or below <= above) else (above, "above")
    detail = f"price {amount_in_words(distance, prices.currency)} {side} {name}"
    return Failure(rule=Rule.price_range, detail=detail, distance=distance, unit="minor")


def _price_spans(facts: Facts, currency: str) -> Iterator[tuple[int, int]]:
    """Yield the budget and each purchase in a currency as a span of minor units."""
    budget = facts.budget
    if budget is not None and budget.currency == currency:
        yield budget.minor, budget.maximum_minor or budget.minor
    for touch in facts.touches:
        if touch.kind == TouchKind.purchase and touch.amount is not None and touch.amount.currency == currency:
            yield touch.amount.minor, touch.amount.minor


def phone_accepted(accepted: Sequence[str], phone_type: str) -> bool:
    """Return whether a persona accepts this kind of phone. A number that may be mobile or fixed line counts as both."""
    if phone_type == "fixed_or_mobile":
        return not {"mobile", "fixed_line", phone_type}.isdisjoint(accepted)
    return phone_type in accepted


def _phone_in_words(phone_type: str) -> str:
    return "kind of phone is not known" if phone_type == UNKNOWN_PHONE else f"phone is {phone_type}"


def _hours_failures(subscription: Subscription, now: datetime) -> Iterator[Failure]:
    spans = subscription.open_spans
    if spans is None:
        return
    second = now.timestamp()
    following = bisect_right(spans, (second, inf))
    if following and second < spans[following - 1][1]:
        return
    if following == len(spans):
        yield Failure(rule=Rule.closed, detail="closed, and no opening is near")
        return
    until = datetime.fromtimestamp(spans[following][0], UTC)
    hours = subscription.definition.hours
    detail = f"closed until {_clock(until, hours.zone if hours else subscription.definition.zone)}"
    yield Failure(rule=Rule.closed, detail=detail, distance=_minutes(until, now), unit="minutes", until=until)


def _missed(rule: Rule, name: str, distance: int, side: str, unit: str) -> Failure:
    return Failure(rule=rule, detail=f"{name} {distance:,} {side}", distance=distance, unit=unit)


def _minutes(until: datetime, now: datetime) -> int:
    return ceil((until - now) / timedelta(minutes=1))


def _clock(moment: datetime, zone: str) -> str:
    """Return a time in words, in the time zone of the business."""
    return f"{moment.astimezone(ZoneInfo(zone)):%a %d %b %H:%M}"


def _hour_and_minute(moment: datetime, zone: str) -> str:
    return f"{moment.astimezone(ZoneInfo(zone)):%H:%M}"


# Standing.


def check_standing(
    subscription: Subscription, candidate: Candidate, standing: CapsAndWallet, now: datetime
) -> Candidate:
    """Return the candidate with failures for caps that are used up or paced, and for a wallet below the price.

    Test mode uses neither, so that a candidate in test mode is returned unchanged.
    """
    if subscription.mode is Mode.test:
        return candidate
    definition = subscription.definition
    reached = reached_caps(definition, standing, candidate.price_minor)
    failures = [_cap_failure(cap, definition, standing, candidate.price_minor, now) for cap in reached]
    if subscription.plan is not None:
        for cap, opened in zip(definition.caps, open_caps(subscription, now), strict=True):
            used = _used(standing, cap)
            if cap not in reached and _cap_is_reached(opened, used, candidate.price_minor):
                failures.append(_pace_failure(cap, used, subscription, subscription.plan, now))
    short = wallet_shortfall_minor(standing, candidate.price_minor)
    if short > 0:
        detail = f"wallet {amount_in_words(short, definition.currency)} short of the price"
        failures.append(Failure(rule=Rule.wallet_empty, detail=detail, distance=short, unit="minor"))
    if not failures:
        return candidate
    return msgspec.structs.replace(candidate, failures=(*candidate.failures, *failures))


def find_obstacles(subscription: Subscription, standing: CapsAndWallet, now: datetime) -> tuple[Failure, ...]:
    """Return the rules that keep the subscription from every lead at `now`, in order of precedence."""
    candidate = Candidate(
        subscription_id=subscription.id,
        business_id=subscription.business_id,
        endpoint_id=subscription.endpoint_id,
        version=subscription.version,
        price_minor=subscription.definition.price_minor,
        failures=(*state_failures(subscription, now), *_hours_failures(subscription, now)),
    )
    return check_standing(subscription, candidate, standing, now).failures


def open_caps(subscription: Subscription, now: datetime) -> tuple[Cap, ...]:
    """Return the caps in their order, those with pace as far as they are open at `now` (routing/pacing.py).

    The award counts by these, so that leads that are decided at the same moment do not exceed the pace either.
    """
    definition, plan = subscription.definition, subscription.plan
    if plan is None:
        return definition.caps
    starts = window_starts(now, definition.zone)
    opened = []
    for cap in definition.caps:
        end = window_end(cap.window, now, definition.zone)
        if cap.window in PACED_WINDOWS and end is not None:
            passed = window_arrivals(plan, starts[cap.window], now)
            total = window_arrivals(plan, starts[cap.window], end)
            count = None if cap.count is None else paced_limit(cap.count, passed, total, 1)
            amount_minor = cap.amount_minor
            if amount_minor is not None:
                amount_minor = paced_limit(amount_minor, passed, total, definition.price_minor)
            opened.append(Cap(window=cap.window, count=count, amount_minor=amount_minor))
        else:
            opened.append(cap)
    return tuple(opened)


def _cap_failure(
    cap: Cap, definition: SubscriptionDefinition, standing: CapsAndWallet, price_minor: int, now: datetime
) -> Failure:
    """Return the failure of a used up cap, with the amount or number by which it was too low for this lead."""
    used = _used(standing, cap)
    detail = cap_words(cap, used, definition.currency, definition.zone, now)
    until = window_end(cap.window, now, definition.zone)
    if cap.count is not None and used.count + 1 > cap.count:
        return Failure(
            rule=Rule.cap_reached, detail=detail, distance=used.count + 1 - cap.count, unit="leads", until=until
        )
    over_minor = used.amount_minor + price_minor - (cap.amount_minor or 0)
    return Failure(rule=Rule.cap_reached, detail=detail, distance=over_minor, unit="minor", until=until)


def _pace_failure(cap: Cap, used: Usage, subscription: Subscription, plan: ArrivalPlan, now: datetime) -> Failure:
    """Return the failure of a paced cap in words, "paced: 4 of 10 by 11:00, the next from 11:24", and that time."""
    definition = subscription.definition
    start, end = window_starts(now, definition.zone)[cap.window], window_end(cap.window, now, definition.zone)
    if end is None:
        raise ValueError("a cap in total has no pace")
    moments, parts = [now], []
    if cap.count is not None:
        parts.append(f"{used.count:,} of {cap.count:,}")
        if used.count:
            moments.append(paced_until(plan, start, end, cap.count, used.count))
    if cap.amount_minor is not None:
        spent, limit = (amount_in_words(minor, definition.currency) for minor in (used.amount_minor, cap.amount_minor))
        parts.append(f"{spent} of {limit}")
        if used.amount_minor:
            moments.append(paced_until(plan, start, end, cap.amount_minor, used.amount_minor))
    until = max(moments)
    clock = _hour_and_minute if cap.window is CapWindow.day else _clock
    by, following = clock(now, definition.zone), clock(until, definition.zone)
    detail = f"paced: {' and '.join(parts)} by {by}, the next from {following}"
    return Failure(rule=Rule.paced, detail=detail, distance=_minutes(until, now), unit="minutes", until=until)


def reached_caps(definition: SubscriptionDefinition, standing: CapsAndWallet, price_minor: int) -> tuple[Cap, ...]:
    """Return the caps that leave no room for one more lead at this price."""
    return tuple(cap for cap in definition.caps if _cap_is_reached(cap, _used(standing, cap), price_minor))


def _used(standing: CapsAndWallet, cap: Cap) -> Usage:
    return standing.usage.get(cap.window, Usage())


def _cap_is_reached(cap: Cap, used: Usage, price_minor: int) -> bool:
    """Return whether one more lead at this price would exceed the cap. Meeting it exactly is allowed."""
    return (cap.count is not None and used.count + 1 > cap.count) or (
        cap.amount_minor is not None and used.amount_minor + price_minor > cap.amount_minor
    )


def cap_words(cap: Cap, used: Usage, currency: str, zone: str, now: datetime) -> str:
    """Return a cap in words: "cap 40 of 40 a day until Tue 24 Nov 00:00"."""
    parts = []
    if cap.count is not None:
        parts.append(f"{used.count:,} of {cap.count:,}")
    if cap.amount_minor is not None:
        limit = amount_in_words(cap.amount_minor, currency)
        parts.append(f"{amount_in_words(used.amount_minor, currency)} of {limit}")
    until = window_end(cap.window, now, zone)
    over = "in total" if until is None else f"a {cap.window} until {_clock(until, zone)}"
    return f"cap {' and '.join(parts)} {over}".replace("a hour", "an hour")


def wallet_shortfall_minor(standing: CapsAndWallet, price_minor: int) -> int:
    """Return the missing amount in minor units, credit included; zero or less if the wallet covers the price."""
    return price_minor - standing.available_minor - standing.credit_limit_minor


# Near misses.

_STEPS: Final = {
    "km": 25.0,
    "minor": 100_000.0,
    "leads": 10.0,
    "points": 10.0,
    "days": 14.0,
    "minutes": 60.0,
    "people": 50.0,
    "channels": 1.0,
}
"""Distance of each unit that counts as half a miss, to compare misses of different kinds. Chosen by judgement."""


def nearest_miss(candidates: Iterable[Candidate]) -> Candidate | None:
    """Return the ineligible candidate that came closest: fewest failures, then smallest distance, then id.

    A business that has the person as a customer is none: its list is nobody else's business.
    """
    missed = [
        candidate
        for candidate in candidates
        if candidate.failures and all(failure.rule is not Rule.own_customer for failure in candidate.failures)
    ]
    return min(missed, key=_remoteness, default=None)


def _remoteness(candidate: Candidate) -> tuple[int, float, UUID]:
    return len(candidate.failures), sum(map(_relative_distance, candidate.failures)), candidate.subscription_id


def _relative_distance(failure: Failure) -> float:
    """Return the distance in steps of its unit, mapped to 0 to 1; without a distance 1."""
    if failure.distance is None:
        return 1.0
    distance = max(failure.distance, 0.0)
    return distance / (distance + _STEPS.get(failure.unit or "", 1.0))


def earliest_retry(candidates: Iterable[Candidate], now: datetime, until: datetime) -> datetime | None:
    """Return the first time after `now`, `until` at the latest, at which a candidate may become eligible by itself."""
    moments = []
    for candidate in candidates:
        waits = [failure.until for failure in candidate.failures]
        if waits and all(wait is not None for wait in waits):
            moments.append(max(wait for wait in waits if wait is not None))
    return min((moment for moment in moments if now < moment <= until), default=None)
