"""Why no leads come: everything that can stand between a business and its next lead, looked at now.

A subscription can be active and yet silent: its caps are used up, its wallet is below its price, its endpoint is left
alone. Each of these is a line here, with what to do about it.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from marketplace import clock, ids
from marketplace.db import Connection
from marketplace.directory import store as directory
from marketplace.directory.store import Reach, SavedSubscription
from marketplace.distribution.store import list_standings
from marketplace.http import AnyRequest, services
from marketplace.portal.business import supply
from marketplace.portal.business.purse import Purse
from marketplace.portal.frame import duration
from marketplace.portal.frame import money as spoken
from marketplace.portal.session import Viewer
from routing.calendar import window_end
from routing.matching import Standing, Usage, cap_is_reached
from routing.subscription import Subscription

MOST_ORDERS = 50


class Check(NamedTuple):
    """One line: in order, or not (None: not known); what it says; where to go and what to do there."""

    ok: bool | None
    text: str
    href: str = ""
    act: str = ""


async def load_checks(
    request: AnyRequest, connection: Connection, viewer: Viewer, purse: Purse, week: int
) -> tuple[Check, ...]:
    """All lines, what stands in the way first."""
    now = clock.now()
    reach = Reach(business_id=viewer.owner, mode=viewer.mode)
    orders = [one for one in await directory.list_subscriptions(connection, reach, None, MOST_ORDERS)
              if one.state != "ended"]  # fmt: skip
    if not orders:
        return (Check(False, "You have not ordered any leads yet.", "/business/onboarding", "Set up your first order"),)
    rules = await services(request).catalog.current()
    known = {one.id: rules.subscriptions[one.id] for one in orders if one.id in rules.subscriptions}
    standings = await list_standings(connection, known.values(), now)
    found = [*_account(viewer), *_wallet(viewer, orders, purse)]
    for order in orders:
        name = "" if len(orders) == 1 else f"{order.name}: "
        found += [
            check._replace(text=f"{name}{check.text}" if name else check.text[:1].upper() + check.text[1:])
            for check in _order(order, known.get(order.id), standings, now)
        ]
    found.append(await _supply(request, connection, orders, week))
    return tuple(sorted(found, key=lambda check: check.ok is not False))


def _account(viewer: Viewer) -> Iterator[Check]:
    if viewer.owner_state != "active":
        yield Check(False, "Your account is frozen by the marketplace. Ask its operator why.")


def _wallet(viewer: Viewer, orders: list[SavedSubscription], purse: Purse) -> Iterator[Check]:
    if viewer.mode != "live":
        return
    cheapest = min(order.definition.price_minor for order in orders)
    price = spoken(cheapest, purse.currency)
    if purse.spendable_minor < cheapest:
        yield Check(False, f"Your wallet holds less than one lead costs ({price}).", "/business/wallet", "Add money")
    else:
        leads = purse.spendable_minor // cheapest
        yield Check(True, f"Your wallet covers {leads:,} more leads at {price}.")


def _order(
    order: SavedSubscription, known: Subscription | None, standings: Mapping[UUID, Standing], now: datetime
) -> Iterator[Check]:
    page = f"/business/matching/{ids.encode('sub', order.id)}"
    if order.state == "suspended":
        yield Check(False, "suspended, because too many leads were refused or not confirmed.", page, "See why")
        return
    if order.state == "paused":
        yield Check(False, "paused.", page, "Resume")
        return
    if known is None:
        yield Check(None, "just changed; look again in a moment.")
        return
    yield from _endpoint(known, now)
    yield from _caps(known, standings.get(order.id), page, now)
    yield from _hours(known, page, now)


def _endpoint(known: Subscription, now: datetime) -> Iterator[Check]:
    until = known.breaker_open_until
    if not known.endpoint_active:
        yield Check(False, "the place we deliver to is not switched on.", "/business/delivery", "Look at delivery")
    elif until is not None and until > now:
        wait = duration((until - now).total_seconds())
        yield Check(
            False,
            f"your server failed repeatedly; we try it again in {wait}.",
            "/business/delivery",
            "See what it said",
        )
    else:
        yield Check(True, "your server takes leads.")


def _caps(known: Subscription, standing: Standing | None, page: str, now: datetime) -> Iterator[Check]:
    definition, usage = known.definition, standing.usage if standing else {}
    for cap in definition.caps:
        if cap_is_reached(cap, usage.get(cap.window, Usage()), definition.price_minor):
            end = window_end(cap.window, now, definition.zone)
            again = f" It starts anew in {duration((end - now).total_seconds())}." if end else ""
            yield Check(False, f"your limit for this {cap.window} is used up.{again}", page, "Change the limit")
            return
    yield Check(True, "within your limits." if definition.caps else "no limits set.")


def _hours(known: Subscription, page: str, now: datetime) -> Iterator[Check]:
    if known.open_spans is None:
        yield Check(True, "leads come at any hour.")
        return
    moment = now.timestamp()
    if any(begins <= moment < ends for begins, ends in known.open_spans):
        yield Check(True, "within your hours.")
        return
    opens = min((begins for begins, _ in known.open_spans if begins > moment), default=None)
    when = f" They begin in {duration(opens - moment)}." if opens else ""
    yield Check(False, f"outside your hours.{when}", page, "Change the hours")


async def _supply(request: AnyRequest, connection: Connection, orders: list[SavedSubscription], week: int) -> Check:
    """What came, or could have come: asked for when nothing did, because that takes a reading of the market."""
    if week:
        return Check(True, f"{week} leads reached you in the last 7 days.", "/business/leads", "See them")
    rules = await services(request).catalog.recent()
    vertical = rules.by_slug.get(orders[0].vertical)
    if vertical is None:
        return Check(None, "No lead reached you in the last 7 days.")
    [found] = await supply.load_supply(connection, vertical, [orders[0].definition])
    page = f"/business/matching/{ids.encode('sub', orders[0].id)}"
    if found.a_week >= 1:
        return Check(
            None,
            f"No lead reached you in the last 7 days, though {found.words} would have fitted.",
            page,
            "Look at your rules",
        )
    more = (found.wider_a_week or 0) - found.a_week
    if found.wider_km and more >= 0.5:
        words = f"Few people near you ask for this. {found.wider_km:.0f} km further out: about {more:.0f} more a week."
        return Check(False, words, page, "Widen the area")
    return Check(False, "Few people in your area ask for this at the moment.", page, "Look at your rules")
