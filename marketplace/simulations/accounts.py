"""Wallets, usage of caps and share credits while a simulation goes on: what a decision reads and a sale changes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from routing.calendar import EPOCH, CapWindow, window_starts
from routing.matching import CapsAndWallet, Usage
from routing.subscription import Subscription

STEP: Final = timedelta(minutes=15)
"Every window of every time zone begins at a multiple of this: offsets from UTC are multiples of a quarter of an hour."

UsageKey = tuple[UUID, CapWindow, datetime]
"A subscription, and a window of its caps by its start."


class StartingAccounts(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts at the start of a simulation.

    `balances` and `credit_limits` are minor units by business, `usage` is that of the windows then open, and `credits`
    are the share credits by business in billionths of a lead.
    """

    balances: Mapping[UUID, int]
    credit_limits: Mapping[UUID, int] = {}
    usage: Mapping[UsageKey, Usage] = {}
    credits: Mapping[UUID, int] = {}


class SimulatedAccounts:
    """Accounts of the businesses of one vertical, from a start on. Amounts are minor units."""

    def __init__(self, start: StartingAccounts) -> None:
        self._balances = Counter(start.balances)
        self._credit_limits = start.credit_limits
        self._usage = dict(start.usage)
        self._credits = Counter(start.credits)
        self._starts: dict[str, tuple[datetime, Mapping[CapWindow, datetime]]] = {}

    def deposit(self, business_id: UUID, amount_minor: int) -> None:
        """Add an amount to a wallet; a negative one leaves it."""
        self._balances[business_id] += amount_minor

    def standings(self, subscriptions: Iterable[Subscription], now: datetime) -> dict[UUID, CapsAndWallet]:
        """Return caps, wallet and credit of each subscription at `now`, by subscription."""
        return {
            subscription.id: CapsAndWallet(
                usage={key[1]: self._usage[key] for key in self._windows(subscription, now) if key in self._usage},
                available_minor=self._balances[subscription.business_id],
                credit_limit_minor=self._credit_limits.get(subscription.business_id, 0),
                share_credit=self._credits[subscription.business_id],
            )
            for subscription in subscriptions
        }

    def record_sale(self, subscription: Subscription, now: datetime, credits: Mapping[UUID, int] | None) -> None:
        """Charge a lead sold at `now`, count it for the caps, and change the credits if the strategy ranks by them."""
        price_minor = subscription.definition.price_minor
        self._balances[subscription.business_id] -= price_minor
        for key in self._windows(subscription, now):
            used = self._usage.get(key, Usage())
            self._usage[key] = Usage(count=used.count + 1, amount_minor=used.amount_minor + price_minor)
        self._credits.update(credits or {})

    def _windows(self, subscription: Subscription, now: datetime) -> list[UsageKey]:
        """Return the windows of the subscription's caps that contain `now`."""
        caps = subscription.definition.caps
        if not caps:
            return []
        zone = subscription.definition.zone
        step, starts = self._starts.get(zone, (EPOCH, {}))
        if not starts or not step <= now < step + STEP:
            step, starts = now - (now - EPOCH) % STEP, window_starts(now, zone)
            self._starts[zone] = step, starts
        return [(subscription.id, cap.window, starts[cap.window]) for cap in caps]
