"""Checks that explain to a business why it receives no leads, made at the time of the request.

Each obstacle of a subscription (`marketplace/distribution/readiness.py`) is a check here, with the action that removes
it.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from marketplace.database.db import Connection
from marketplace.directory import store as directory_store
from marketplace.directory.store import SubscriptionRecord, TenantScope
from marketplace.distribution.matching_preview import load_previews
from marketplace.distribution.readiness import SubscriptionReadiness, load_readiness
from marketplace.portal.business.wallet_summary import WalletSummary
from marketplace.portal.frame import duration
from marketplace.portal.frame import money as spoken
from marketplace.portal.session import Viewer
from marketplace.runtime import clock, ids
from marketplace.web.http import AnyRequest, services
from routing.matching import Rule

MOST_SUBSCRIPTIONS: Final = 50


class MatchingCheck(NamedTuple):
    """A check: whether it passed (None: not known), its sentence, and a link to the page where to act."""

    ok: bool | None
    text: str
    href: str = ""
    act: str = ""


NO_SUBSCRIPTION: Final = MatchingCheck(
    False, "You have no subscription yet.", "/business/onboarding", "Set up your first subscription"
)


async def load_checks(
    request: AnyRequest, connection: Connection, viewer: Viewer, wallet_summary: WalletSummary, week: int
) -> tuple[MatchingCheck, ...]:
    """Return all checks, those that failed first."""
    now = clock.now()
    scope = TenantScope(business_id=viewer.owner, mode=viewer.mode)
    everything = await directory_store.list_subscriptions(connection, scope, None, MOST_SUBSCRIPTIONS)
    subscriptions = [subscription for subscription in everything if subscription.state != "ended"]
    if not subscriptions:
        return (NO_SUBSCRIPTION,)
    rules = await services(request).catalog.current()
    readiness = await load_readiness(connection, rules, [subscription.id for subscription in subscriptions], now)
    checks = [*_account(viewer), *_wallet(viewer, subscriptions, readiness, wallet_summary)]
    for subscription in subscriptions:
        name = subscription.name if len(subscriptions) > 1 else ""
        for check in _subscription(subscription, readiness.get(subscription.id), now):
            text = f"{name}: {check.text}" if name else check.text[:1].upper() + check.text[1:]
            checks.append(check._replace(text=text))
    checks.append(await _supply(request, connection, subscriptions, week))
    return tuple(sorted(checks, key=lambda check: check.ok is not False))


def _account(viewer: Viewer) -> Iterator[MatchingCheck]:
    if viewer.owner_state != "active":
        yield MatchingCheck(False, "Your account is frozen by the marketplace. Ask its operator why.")


def _wallet(
    viewer: Viewer,
    subscriptions: list[SubscriptionRecord],
    readiness: Mapping[UUID, SubscriptionReadiness],
    wallet_summary: WalletSummary,
) -> Iterator[MatchingCheck]:
    """Yield whether the wallet covers a lead of the cheapest subscription; nothing in test mode."""
    cheapest = min(subscriptions, key=lambda subscription: subscription.definition.price_minor)
    current = readiness.get(cheapest.id)
    if viewer.mode != "live" or current is None:
        return
    price_minor = current.subscription.definition.price_minor
    price = spoken(price_minor, wallet_summary.currency)
    if current.find(Rule.wallet_empty):
        yield MatchingCheck(
            False, f"Your wallet holds less than one lead costs ({price}).", "/business/wallet", "Add money"
        )
    else:
        yield MatchingCheck(
            True, f"Your wallet covers {wallet_summary.spendable_minor // price_minor:,} more leads at {price}."
        )


def _subscription(
    subscription: SubscriptionRecord, readiness: SubscriptionReadiness | None, now: datetime
) -> Iterator[MatchingCheck]:
    page = f"/business/matching/{ids.encode('sub', subscription.id)}"
    if readiness is None:
        yield MatchingCheck(None, "just changed; check again in a moment.")
    elif readiness.find(Rule.suspended):
        yield MatchingCheck(False, "suspended, because too many leads were refused or not confirmed.", page, "See why")
    elif readiness.find(Rule.paused):
        yield MatchingCheck(False, "paused.", page, "Resume")
    else:
        yield _endpoint(readiness, now)
        yield _caps(readiness, page, now)
        yield _hours(readiness, page, now)


def _endpoint(readiness: SubscriptionReadiness, now: datetime) -> MatchingCheck:
    if readiness.find(Rule.endpoint_inactive):
        return MatchingCheck(False, "the endpoint is not active.", "/business/delivery", "Go to delivery")
    breaker = readiness.find(Rule.breaker_open)
    by_people = readiness.subscription.endpoint_url is None
    if breaker is None:
        return MatchingCheck(True, "leads reach you." if by_people else "your server accepts leads.")
    wait = _until(breaker.until, now)
    if by_people:
        text = f"nobody took the last leads in time. Open your inbox, or we try again in {wait}."
        return MatchingCheck(False, text, "/business/inbox", "Open the inbox")
    text = f"your server failed repeatedly; we try again in {wait}."
    return MatchingCheck(False, text, "/business/delivery", "Go to delivery")


def _caps(readiness: SubscriptionReadiness, page: str, now: datetime) -> MatchingCheck:
    reached, paced = readiness.find(Rule.cap_reached), readiness.find(Rule.paced)
    if paced is not None and reached is None:
        text = f"your limit is spread over your open hours; the next lead may come in {_until(paced.until, now)}."
        return MatchingCheck(True, text, page, "See the limit")
    if reached is None:
        text = "within your limits." if readiness.subscription.definition.caps else "no limits set."
        return MatchingCheck(True, text)
    reset = f" It resets in {_until(reached.until, now)}." if reached.until else ""
    text = f"your limit for this {readiness.caps[0].window} is used up.{reset}"
    return MatchingCheck(False, text, page, "Change the limit")


def _hours(readiness: SubscriptionReadiness, page: str, now: datetime) -> MatchingCheck:
    if readiness.subscription.open_spans is None:
        return MatchingCheck(True, "leads are accepted at any hour.")
    closed = readiness.find(Rule.closed)
    if closed is None:
        return MatchingCheck(True, "within your open hours.")
    opening = f" They begin in {_until(closed.until, now)}." if closed.until else ""
    return MatchingCheck(False, f"outside your open hours.{opening}", page, "Change the hours")


def _until(moment: datetime | None, now: datetime) -> str:
    return duration((moment - now).total_seconds()) if moment else ""


async def _supply(
    request: AnyRequest, connection: Connection, subscriptions: list[SubscriptionRecord], week: int
) -> MatchingCheck:
    """Return the number of leads of the week or, if there were none, how many the first subscription can expect.

    The estimate reads the recent leads of the vertical, so it is made only when it is shown.
    """
    if week:
        return MatchingCheck(
            True, f"{week} leads reached you in the last 7 days.", "/business/leads", "See these leads"
        )
    rules = await services(request).catalog.recent()
    vertical = rules.by_slug.get(subscriptions[0].vertical)
    if vertical is None:
        return MatchingCheck(None, "No lead reached you in the last 7 days.")
    [preview] = await load_previews(connection, vertical, subscriptions[0].business_id, [subscriptions[0].definition])
    page = f"/business/matching/{ids.encode('sub', subscriptions[0].id)}"
    if preview.a_week >= 1:
        return MatchingCheck(
            None,
            f"No lead reached you in the last 7 days, though {preview.words} would have matched.",
            page,
            "Review your rules",
        )
    more = (preview.wider_a_week or 0) - preview.a_week
    if preview.wider_km and more >= 0.5:
        words = (
            f"Few people near you ask for this. {preview.wider_km:.0f} km further out: about {more:.0f} more a week."
        )
        return MatchingCheck(False, words, page, "Widen the area")
    return MatchingCheck(False, "Few people in your area ask for this at the moment.", page, "Review your rules")
