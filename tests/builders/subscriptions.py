"""Subscriptions that take every roofing lead in the United States until a test says otherwise; leads to match."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from routing.calendar import CapWindow
from routing.inquiry import Budget, Facts, Mode, Place, Signals
from routing.matching import Candidate, CapsAndWallet, Usage
from routing.qualification import Dimension, DimensionFinding, DimensionResult, Verdict
from routing.subscription import Area, Cap, Subscription, SubscriptionDefinition

MONDAY_NOON = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
"""Noon in Chicago, on an ordinary Monday."""
CHICAGO = Place(country="US", postal_code="60614", latitude=41.9227, longitude=-87.6533, time_zone="America/Chicago")


def a_definition(**overrides: Any) -> SubscriptionDefinition:
    """Anywhere, any time, no caps, USD 50 a lead."""
    standard = {"area": Area(anywhere=True), "zone": "America/Chicago", "price_minor": 5_000, "currency": "USD"}
    return SubscriptionDefinition(**{**standard, **overrides})


def a_subscription(number: int = 1, definition: SubscriptionDefinition | None = None, **overrides: Any) -> Subscription:
    """Number N is subscription N of business 1,000 + N."""
    standard = {
        "id": UUID(int=number),
        "business_id": UUID(int=1_000 + number),
        "endpoint_id": UUID(int=2_000 + number),
        "vertical": "roofing",
        "country": "US",
        "mode": Mode.live,
        "version": 1,
        "definition": definition or a_definition(),
    }
    return Subscription(**{**standard, **overrides})


def a_candidate(number: int = 1, **overrides: Any) -> Candidate:
    """The eligible candidate that subscription N makes."""
    standard = {
        "subscription_id": UUID(int=number),
        "business_id": UUID(int=1_000 + number),
        "endpoint_id": UUID(int=2_000 + number),
        "version": 1,
        "price_minor": 5_000,
    }
    return Candidate(**{**standard, **overrides})


def a_standing(available_minor: int = 100_000, **usage: Usage) -> CapsAndWallet:
    """A wallet, and what each window has seen: a_standing(day=Usage(count=3))."""
    return CapsAndWallet(
        usage={CapWindow(window): used for window, used in usage.items()}, available_minor=available_minor
    )


def a_lead(**overrides: Any) -> Facts:
    """A homeowner in Chicago with a budget of USD 12,000."""
    standard = {
        "vertical": "roofing",
        "mode": Mode.live,
        "submitted_at": MONDAY_NOON,
        "received_at": MONDAY_NOON,
        "place": CHICAGO,
        "signals": Signals(phone_type="mobile", phone_region="US"),
        "budget": Budget(minor=1_200_000, currency="USD"),
    }
    return Facts(**{**standard, **overrides})


def a_verdict(score: int = 80, **results: DimensionResult) -> Verdict:
    """All four dimensions meet unless named: a_verdict(authority=Result.unknown)."""
    findings = tuple(
        DimensionFinding(
            dimension=dimension,
            result=results.get(dimension, DimensionResult.meets),
            evidence=None,
            value=None,
            threshold="",
            points=20,
        )
        for dimension in Dimension
    )
    return Verdict(policy_version=1, score=score, findings=findings)


def early_zone() -> str:
    """Return a zone in which it is between one and two in the morning, so that little of the day's cap is open."""
    hours_ahead = (1 - datetime.now(UTC).hour + 11) % 24 - 11
    return f"Etc/GMT{-hours_ahead:+d}"


def a_cap(window: str, count: int | None = None, amount_minor: int | None = None) -> Cap:
    """Return a cap on the leads, or the money, of a window."""
    return Cap(window=CapWindow(window), count=count, amount_minor=amount_minor)
