"""Why no leads come: everything that can stand between a business and its next lead, looked at now.

Each obstacle of a subscription (`marketplace/distribution/readiness.py`) is a line here, with what to do about it.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple
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

MOST_SUBSCRIPTIONS = 50


class MatchingCheck(NamedTuple):
    """One line: in order, or not (None: not known); what it says; where to go and what to do there."""

    ok: bool | None
    text: str
    href: str = ""
    act: str = ""


async def load_checks(
    request: AnyRequest, connection: Connection, viewer: Viewer, wallet_summary: WalletSummary, week: int
) -> tuple[MatchingCheck, ...]:
    """All lines, what stands in the way first."""
    now = clock.now()
    reach = TenantScope(business_id=viewer.owner, mode=viewer.mode)
    orders = [one for one in await directory_store.list_subscriptions(connection, reach, None, MOST_SUBSCRIPTIONS)
              if one.state != "ended"]  # fmt: skip
    if not orders:
        return (
            MatchingCheck(
                False, "You have not ordered any leads yet.", "/business/onboarding", "Set up your first order"
            ),
        )
    rules = await services(request).catalog.current()
    readiness = await load_readiness(connection, rules, [order.id for order in orders], now)
    checks = [*_account(viewer), *_wallet(viewer, orders, readiness, wallet_summary)]
    for order in orders:
        name = "" if len(orders) == 1 else f"{order.name}: "
        checks += [
            check._replace(text=f"{name}{check.text}" if name else check.text[:1].upper() + check.text[1:])
            for check in _order(order, readiness.get(order.id), now)
        ]
    checks.append(await _supply(request, connection, orders, week))
    return tuple(sorted(checks, key=lambda check: check.ok is not False))


def _account(viewer: Viewer) -> Iterator[MatchingCheck]:
    if viewer.owner_state != "active":
        yield MatchingCheck(False, "Your account is frozen by the marketplace. Ask its operator why.")


def _wallet(
    viewer: Viewer,
    orders: list[SubscriptionRecord],
    readiness: Mapping[UUID, SubscriptionReadiness],
    wallet_summary: WalletSummary,
) -> Iterator[MatchingCheck]:
    """The wallet against the price of the cheapest order."""
    cheapest = min(orders, key=lambda order: order.definition.price_minor)
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


def _order(
    order: SubscriptionRecord, readiness: SubscriptionReadiness | None, now: datetime
) -> Iterator[MatchingCheck]:
    page = f"/business/matching/{ids.encode('sub', order.id)}"
    if readiness is None:
        yield MatchingCheck(None, "just changed; look again in a moment.")
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
        return MatchingCheck(
            False, "the place we deliver to is not switched on.", "/business/delivery", "Look at delivery"
        )
    breaker = readiness.find(Rule.breaker_open)
    if breaker is None:
        return MatchingCheck(True, "your server takes leads.")
    wait = _until(breaker.until, now)
    text = f"your server failed repeatedly; we try it again in {wait}."
    return MatchingCheck(False, text, "/business/delivery", "See what it said")


def _caps(readiness: SubscriptionReadiness, page: str, now: datetime) -> MatchingCheck:
    reached = readiness.find(Rule.cap_reached)
    if reached is None:
        return MatchingCheck(
            True, "within your limits." if readiness.subscription.definition.caps else "no limits set."
        )
    again = f" It starts anew in {_until(reached.until, now)}." if reached.until else ""
    text = f"your limit for this {readiness.caps[0].window} is used up.{again}"
    return MatchingCheck(False, text, page, "Change the limit")


def _hours(readiness: SubscriptionReadiness, page: str, now: datetime) -> MatchingCheck:
    if readiness.subscription.open_spans is None:
        return MatchingCheck(True, "leads come at any hour.")
    closed = readiness.find(Rule.closed)
    if closed is None:
        return MatchingCheck(True, "within your hours.")
    begin = f" They begin in {_until(closed.until, now)}." if closed.until else ""
    return MatchingCheck(False, f"outside your hours.{begin}", page, "Change the hours")


def _until(moment: datetime | None, now: datetime) -> str:
    return duration((moment - now).total_seconds()) if moment else ""


async def _supply(
    request: AnyRequest, connection: Connection, orders: list[SubscriptionRecord], week: int
) -> MatchingCheck:
    """What came, or could have come: asked for when nothing did, because that takes a reading of the market."""
    if week:
        return MatchingCheck(True, f"{week} leads reached you in the last 7 days.", "/business/leads", "See them")
    rules = await services(request).catalog.recent()
    vertical = rules.by_slug.get(orders[0].vertical)
    if vertical is None:
        return MatchingCheck(None, "No lead reached you in the last 7 days.")
    [preview] = await load_previews(connection, vertical, [orders[0].definition])
    page = f"/business/matching/{ids.encode('sub', orders[0].id)}"
    if preview.a_week >= 1:
        return MatchingCheck(
            None,
            f"No lead reached you in the last 7 days, though {preview.words} would have fitted.",
            page,
            "Look at your rules",
        )
    more = (preview.wider_a_week or 0) - preview.a_week
    if preview.wider_km and more >= 0.5:
        words = (
            f"Few people near you ask for this. {preview.wider_km:.0f} km further out: about {more:.0f} more a week."
        )
        return MatchingCheck(False, words, page, "Widen the area")
    return MatchingCheck(False, "Few people in your area ask for this at the moment.", page, "Look at your rules")
