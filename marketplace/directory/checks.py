"""Check a vertical or a subscription before it is saved. All faults are returned, each with its place and a remedy.

The functions are pure: the caller reads what they compare with.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from typing import Final
from zoneinfo import available_timezones

import msgspec

from marketplace.rules.catalog import Vertical
from marketplace.rules.hours import check_hours
from marketplace.text.characters import is_visible
from marketplace.text.faults import Fault, FaultCode, pointer
from routing.contradictions import contradictions
from routing.currency import MINOR_DIGITS
from routing.inquiry import NeedField, NeedValue, amount_in_words
from routing.interest import UnmetConsequence
from routing.joining import PayJoined, RepeatInquiries
from routing.qualification import Points
from routing.subscription import (
    BUDGET_MINOR,
    COUNTRY_CODE,
    PRICE_MINOR,
    BusinessTerms,
    PriceRange,
    SubscriptionDefinition,
    consent_need_faults,
    validate,
)
from routing.vertical import LONGEST_PATIENCE_SECONDS, VerticalDefinition

LONGEST_WINDOW_DAYS: Final = 365
"Limit of the days within which a person is not sold again; after a year a person is a new customer."
MOST_NEEDS: Final = 50
MOST_CHOICES: Final = 200
LONGEST_TEXT: Final = 200

_FIELD_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Refusal(StrEnum):
    """Codes of faults that depend on other fields or on stored data."""

    endpoint_unconfirmed = "endpoint_unconfirmed"
    """The marketplace added this endpoint to a business that has owners, and none of them has confirmed it."""
    malformed = "malformed"
    """A code or a name is not in the required form."""
    choices_missing = "choices_missing"
    """A question of kind choice has no choices."""
    choice_repeated = "choice_repeated"
    """A question has the same choice twice."""
    not_for_this_kind = "not_for_this_kind"
    """A question that is not an integer has bounds, or one that is not a choice has choices; or a criterion of interest
    that is not required is to let a lead wait."""
    never_matches = "never_matches"
    """No lead could ever pass these rules."""
    unknown_need_field = "unknown_need_field"
    """The vertical has no such question."""
    unknown_choice = "unknown_choice"
    """The vertical's question has no such answer."""
    price_below_reserve = "price_below_reserve"
    """The price is below the lowest that the vertical allows."""
    set_by_operator = "set_by_operator"
    """The operator sets this value for the business, and it is another one."""
    currency_unknown = "currency_unknown"
    """The code is not that of a currency in use by ISO 4217."""
    currency_fixed = "currency_fixed"
    """The currency of a vertical cannot change, because its subscriptions and budgets are in it."""
    vertical_unknown = "vertical_unknown"
    """There is no such vertical."""
    endpoint_unknown = "endpoint_unknown"
    """The business has no such endpoint."""
    owner_unknown = "owner_unknown"
    """There is no such provider or business."""
    currency_not_vertical = "currency_not_vertical"
    """The vertical is in another currency."""
    currency_not_wallet = "currency_not_wallet"
    """The business's wallet is in another currency."""
    hours_invalid = "hours_invalid"
    """The open hours cannot be read, or are never open."""
    zone_unknown = "zone_unknown"
    """The IANA time zone database has no such zone."""
    paid_not_told = "paid_not_told"
    """Providers whose inquiries joined a lead share its payout, but are not told that they joined."""
    in_the_past = "in_the_past"
    """A time that must be in the future is in the past."""


def zone_faults(where: str, zone: str) -> Iterator[Fault]:
    """Yield a fault at the pointer `where` unless `zone` is an IANA time zone."""
    if zone not in _zones():
        yield _fault(where, Refusal.zone_unknown, "Name an IANA time zone such as America/Chicago.")


def currency_faults(where: str, currency: str) -> Iterator[Fault]:
    """Yield a fault at the pointer `where` unless `currency` is the ISO 4217 code of a currency in use."""
    if currency not in MINOR_DIGITS:
        yield _fault(where, Refusal.currency_unknown, "Give a currency in use by its ISO 4217 code, such as USD.")


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _fault(where: str, code: str, detail: str) -> Fault:
    return Fault(pointer=where, code=code, detail=detail)


def _bounded(where: str, value: int, low: int, high: int) -> Iterator[Fault]:
    """Yield a fault unless `value` is from `low` to `high`."""
    if not low <= value <= high:
        yield _fault(where, FaultCode.out_of_range, f"Give a value from {low:,} to {high:,}.")


# Verticals


def vertical_faults(definition: VerticalDefinition) -> tuple[Fault, ...]:
    """Return all faults of a vertical; empty if it may be saved."""
    return tuple(_vertical_faults(definition))


def _vertical_faults(definition: VerticalDefinition) -> Iterator[Fault]:
    if not is_visible(definition.name) or len(definition.name) > LONGEST_TEXT:
        yield _fault("/definition/name", Refusal.malformed, f"Give a name of at most {LONGEST_TEXT} characters.")
    yield from currency_faults("/definition/currency", definition.currency)
    if not COUNTRY_CODE.fullmatch(definition.country):
        detail = "Give the ISO 3166 code of a country, two capital letters such as US."
        yield _fault("/definition/country", Refusal.malformed, detail)
    if len(definition.needs) > MOST_NEEDS:
        yield _fault("/definition/needs", FaultCode.too_long, f"Ask at most {MOST_NEEDS} questions.")
    for name, need in definition.needs.items():
        yield from _need_faults(name, need)
    yield from _policy_faults(definition)
    yield from _wanted_faults(definition)
    yield from _joining_faults(definition)
    yield from _interest_faults(definition)
    yield from _bounded("/definition/window_days", definition.window_days, 1, LONGEST_WINDOW_DAYS)
    yield from _bounded("/definition/patience_seconds", definition.patience_seconds, 0, LONGEST_PATIENCE_SECONDS)
    yield from _bounded("/definition/reserve_minor", definition.reserve_minor, *PRICE_MINOR)
    if definition.price_range is not None:
        yield from _price_range_faults(definition.price_range, definition.currency)
    for flaw in consent_need_faults(definition.consent):
        yield _fault(f"/definition{flaw.pointer}", flaw.code, flaw.detail)


def _need_faults(name: str, need: NeedField) -> Iterator[Fault]:
    """Yield the faults of one question."""
    where = pointer("definition", "needs", name)
    if not _FIELD_NAME.fullmatch(name):
        yield _fault(where, Refusal.malformed, "Name it in at most 40 small letters, digits and underscores.")
    if len(need.label) > LONGEST_TEXT:
        yield _fault(f"{where}/label", FaultCode.too_long, f"Shorten this to at most {LONGEST_TEXT} characters.")
    if need.kind == "choice":
        yield from _choice_faults(where, need.choices)
    elif need.choices:
        yield _fault(f"{where}/choices", Refusal.not_for_this_kind, "Only a question of kind choice has choices.")
    if need.kind != "integer" and (need.minimum, need.maximum) != (None, None):
        yield _fault(where, Refusal.not_for_this_kind, "Only a question of kind integer has minimum and maximum.")
    if need.minimum is not None and need.maximum is not None and need.minimum > need.maximum:
        yield _fault(where, Refusal.never_matches, "No number lies between this minimum and this maximum.")


def _choice_faults(where: str, choices: tuple[str, ...]) -> Iterator[Fault]:
    if not choices:
        yield _fault(f"{where}/choices", Refusal.choices_missing, "Give the answers to choose among.")
    if len(choices) > MOST_CHOICES:
        yield _fault(f"{where}/choices", FaultCode.too_long, f"Give at most {MOST_CHOICES} choices.")
    if len(set(choices)) < len(choices):
        yield _fault(f"{where}/choices", Refusal.choice_repeated, "Give each choice once.")
    for position, choice in enumerate(choices):
        if not is_visible(choice) or len(choice) > LONGEST_TEXT:
            detail = f"Give a choice of 1 to {LONGEST_TEXT} characters."
            yield _fault(f"{where}/choices/{position}", Refusal.malformed, detail)


def _joining_faults(definition: VerticalDefinition) -> Iterator[Fault]:
    """Yield a fault if a payout goes to providers who may not know that their inquiry joined, or if none joins."""
    if definition.pay_joined is PayJoined.first:
        return
    if definition.repeat_inquiries is not RepeatInquiries.joined:
        detail = "No inquiry joins a lead here: set repeat_inquiries to joined, or pay first."
        yield _fault("/definition/pay_joined", Refusal.never_matches, detail)
    if not definition.provider_may_know:
        detail = "A provider that is paid learns that its inquiry joined: set provider_may_know, or pay first."
        yield _fault("/definition/pay_joined", Refusal.paid_not_told, detail)


def _interest_faults(definition: VerticalDefinition) -> Iterator[Fault]:
    """Yield a fault for each criterion of interest that has the name of an earlier one, or waits without need."""
    names = [criterion.name for criterion in definition.interest]
    for position, name in enumerate(names):
        if name in names[:position]:
            where = pointer("definition", "interest", position, "name")
            yield _fault(where, Refusal.choice_repeated, "Give each criterion a name of its own.")
    for position, criterion in enumerate(definition.interest):
        if criterion.otherwise is UnmetConsequence.nurture and not criterion.required:
            where = pointer("definition", "interest", position, "otherwise")
            detail = "Only a required criterion may let a lead wait: set required to true, or leave otherwise out."
            yield _fault(where, Refusal.not_for_this_kind, detail)


def _price_range_faults(prices: PriceRange, currency: str) -> Iterator[Fault]:
    """Yield the faults of what jobs of a vertical cost."""
    where = "/definition/price_range"
    if prices.currency != currency:
        yield _fault(f"{where}/currency", Refusal.currency_not_vertical, f"Give the vertical's currency, {currency}.")
    low, high = prices.minimum_minor, prices.maximum_minor
    for name, amount in (("minimum_minor", low), ("maximum_minor", high)):
        if amount is not None:
            yield from _bounded(f"{where}/{name}", amount, *BUDGET_MINOR)
    if low is not None and high is not None and low > high:
        yield _fault(where, Refusal.never_matches, "No price is above the maximum: raise it, or lower the minimum.")


def _policy_faults(definition: VerticalDefinition) -> Iterator[Fault]:
    """Yield the faults of the points and minimums of the BANT policy."""
    dimensions = {
        "budget": definition.budget.points,
        "authority": definition.authority.points,
        "need": definition.need.points,
        "timing": definition.timing.points,
    }
    for dimension, points in dimensions.items():
        yield from _points_faults(f"/definition/{dimension}/points", points)
    yield from _bounded("/definition/minimum_score", definition.minimum_score, 0, 100)
    if sum(points.meets for points in dimensions.values()) < definition.minimum_score <= 100:
        detail = "No lead could reach this score: the points of all four dimensions together are fewer."
        yield _fault("/definition/minimum_score", Refusal.never_matches, detail)
    yield from _bounded("/definition/budget/minimum_minor", definition.budget.minimum_minor, 0, BUDGET_MINOR[1])
    if not definition.authority.accepted:
        detail = "Name at least one authority, or no lead could ever meet it."
        yield _fault("/definition/authority/accepted", Refusal.never_matches, detail)


def _points_faults(where: str, points: Points) -> Iterator[Fault]:
    for name, value in (("meets", points.meets), ("unknown", points.unknown), ("fails", points.fails)):
        yield from _bounded(f"{where}/{name}", value, 0, 100)


def _wanted_faults(definition: VerticalDefinition) -> Iterator[Fault]:
    """Yield a fault for each wanted answer that no question allows."""
    for name, answers in definition.need.wanted.items():
        where = pointer("definition", "need", "wanted", name)
        need = definition.needs.get(name)
        if need is None:
            yield _fault(where, Refusal.unknown_need_field, "Name a field that needs defines.")
            continue
        if not answers:
            yield _fault(where, Refusal.never_matches, "Give the answers that are wanted.")
        for position, value in enumerate(answers):
            if not _is_answer(need, value):
                yield _fault(f"{where}/{position}", Refusal.unknown_choice, "Give an answer that the question allows.")


def _is_answer(need: NeedField, value: NeedValue) -> bool:
    """Return whether the question allows this answer."""
    match need.kind:
        case "choice":
            return value in need.choices
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            low, high = need.minimum, need.maximum
            is_number = isinstance(value, int) and not isinstance(value, bool)
            return is_number and (low is None or low <= int(value)) and (high is None or int(value) <= high)


# Subscriptions


def subscription_faults(
    definition: SubscriptionDefinition, vertical: Vertical | None, wallet_currency: str, endpoint_found: bool
) -> tuple[Fault, ...]:
    """Return all faults of a subscription; empty if it may be saved. `vertical` is None if it does not exist."""
    return tuple(_subscription_faults(definition, vertical, wallet_currency, endpoint_found))


def _subscription_faults(
    definition: SubscriptionDefinition, vertical: Vertical | None, wallet_currency: str, endpoint_found: bool
) -> Iterator[Fault]:
    if vertical is None:
        yield _fault("/vertical", Refusal.vertical_unknown, "Name a vertical by its slug; GET /v1/verticals has them.")
    if not endpoint_found:
        yield _fault("/endpoint_id", Refusal.endpoint_unknown, "Name one of the business's endpoints.")
    if definition.currency != wallet_currency:
        yield _fault("/definition/currency", Refusal.currency_not_wallet, f"The wallet is in {wallet_currency}.")
    if vertical is None:
        return
    if definition.currency != vertical.definition.currency:
        detail = f"This vertical counts in {vertical.definition.currency}."
        yield _fault("/definition/currency", Refusal.currency_not_vertical, detail)
    yield from _reserve_faults(definition, vertical.definition)
    faults = (*validate(definition, vertical.definition.needs), *contradictions(definition, vertical.definition))
    for fault in faults:
        yield _fault(f"/definition{fault.pointer}", fault.code, fault.detail)
    zone_is_faulty = any(fault.pointer == "/hours/zone" for fault in faults)
    if definition.hours is not None and not zone_is_faulty and (sentence := check_hours(definition.hours)):
        yield _fault("/definition/hours/spec", Refusal.hours_invalid, sentence)


def _reserve_faults(definition: SubscriptionDefinition, vertical: VerticalDefinition) -> Iterator[Fault]:
    """Yield a fault for a price below the vertical's reserve; one that no subscription may have is `validate`'s."""
    if PRICE_MINOR[0] <= definition.price_minor < vertical.reserve_minor:
        lowest = amount_in_words(vertical.reserve_minor, vertical.currency)
        detail = f"Give at least {lowest}, the lowest price of a lead in this vertical."
        yield _fault("/definition/price_minor", Refusal.price_below_reserve, detail)


def terms_faults(stated: BusinessTerms, terms: BusinessTerms) -> tuple[Fault, ...]:
    """Return a fault for each of the operator's terms that a business states otherwise than they are."""
    return tuple(
        _fault(
            f"/definition/{name}",
            Refusal.set_by_operator,
            f"The marketplace sets this; it is {value:,} for this business. Leave the field out, or send that.",
        )
        for name, value in msgspec.structs.asdict(terms).items()
        if getattr(stated, name) != value
    )
