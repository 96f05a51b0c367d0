"""Current verticals, providers' payouts and the matching index over all subscriptions, kept in this process.

Postgres counts every edit in the edit's own transaction and records which rows it changed. A process that is behind
reads those rows and replaces them (docs/decisions/0034-rules-are-refreshed-by-difference.md). Money and exclusivity do
not depend on this copy: the award checks the locked rows again.
"""

import asyncio
import gc
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from billing.pricing import Payout
from marketplace.database.db import Connection, Pool, Queries, load_record, session
from marketplace.rules.hours import compile_hours, compile_plan
from marketplace.runtime import clock
from marketplace.runtime.log import logger
from routing.decision import NO_CARDS, VerticalCards, vertical_cards
from routing.expectation import BusinessSales
from routing.inquiry import Mode
from routing.matching import SubscriptionIndex
from routing.pacing import FLAT
from routing.quota import SuspensionReason
from routing.scorecard import CompiledScorecard, Scorecard, compile_scorecard
from routing.subscription import Subscription, SubscriptionDefinition
from routing.vertical import VerticalDefinition

SQL = Queries(__file__, "catalog.sql")
log = logger("catalog")

RENEW_AFTER: Final = timedelta(days=1)
"Age at which open hours are compiled again: they are compiled nine days ahead."

RECENT_SECONDS: Final = 0.5
"Time for which intake may check by replaced rules; an unknown vertical makes it reload at once."

CHECK_SECONDS: Final = 300.0
"Interval of the comparison with the database, which takes it 0.1 s for 100,000 subscriptions."

TURN_SECONDS: Final = 0.002
"Time for which one piece of a large change keeps the event loop."

BATCH: Final = 200
"Subscriptions of one statement."

MANY_PAGES: Final = 50
"Pages after which what was read is excluded from garbage collection: searching 100,000 subscriptions takes 0.2 s."


class Vertical(msgspec.Struct, frozen=True, kw_only=True):
    """A vertical in its current version, with its scorecards where it was read for decisions.

    `arrivals` are its leads for each hour of the week (routing/pacing.py).
    """

    id: UUID
    slug: str
    version: int
    definition: VerticalDefinition
    arrivals: tuple[int, ...] = FLAT
    cards: VerticalCards = NO_CARDS


class CardInUse(msgspec.Struct, frozen=True, kw_only=True):
    """A scorecard that is computed for each lead: `state` is shadow or ranking."""

    state: str
    version: int
    card: Scorecard


class ProviderTerms(msgspec.Struct, frozen=True, kw_only=True):
    """State and payout of a provider."""

    id: UUID
    state: str
    payout: Payout


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """All rules of one catalog version. The index goes on with later versions: do not read it across an await."""

    version: int
    verticals: dict[UUID, Vertical]
    by_slug: dict[str, Vertical]
    providers: dict[UUID, ProviderTerms]
    index: SubscriptionIndex


class Catalog:
    """Copy of the rules, brought up to date by whoever needs a later version; concurrent callers share the reading."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._rules: Rules | None = None
        self._copy = _Copy()
        self._changing = asyncio.Lock()
        self._checked_at = -RECENT_SECONDS
        self._hours_at = clock.now()

    async def current(self) -> Rules:
        """Return the current rules: one small query when nothing has changed."""
        async with session(self._pool) as connection:
            version = await connection.fetchval(SQL["find_version"])
        return await self.at_least(version)

    async def recent(self) -> Rules:
        """Return rules at most half a second old, for checks that the worker repeats with the newest."""
        rules = self._rules
        if rules is None or clock.monotonic() - self._checked_at > RECENT_SECONDS:
            checked_at = clock.monotonic()
            rules = await self.current()
            self._checked_at = checked_at
        return rules

    async def at_least(self, version: int) -> Rules:
        """Return the rules of `version` or later."""
        rules = self._rules
        if rules is not None and rules.version >= version:
            return rules
        async with self._changing:
            rules = self._rules
            if rules is None:
                async with session(self._pool) as connection:
                    rules = self._rules = await self._copy.read_all(connection)
            elif rules.version < version:
                async with (
                    session(self._pool) as connection,
                    connection.transaction(isolation="repeatable_read", readonly=True),
                ):
                    rules = self._rules = await self._copy.catch_up(connection, rules)
            return rules

    async def keep(self, stopping: asyncio.Event) -> None:
        """Load the rules, compare them with the database now and then, and compile open hours anew each day."""
        while not stopping.is_set():
            try:
                if not await self.is_complete():
                    log.error("catalog_differs")
                    await self.repair()
                if clock.now() - self._hours_at >= RENEW_AFTER:
                    self._hours_at = clock.now()
                    await self._copy.renew_hours(await self.current(), self._hours_at)
            except Exception as error:  # a failing check must not end its process
                log.warning("rules_not_read", error=type(error).__name__)
            try:
                await asyncio.wait_for(stopping.wait(), CHECK_SECONDS)
            except TimeoutError:
                continue

    async def is_complete(self) -> bool:
        """Return whether this copy equals what the database has, by count and sum of fingerprints in one snapshot."""
        rules = await self.current()
        async with AsyncExitStack() as snapshot:
            async with self._changing:  # the snapshot begins with the first statement, so that no later one is applied
                connection = await snapshot.enter_async_context(session(self._pool))
                await snapshot.enter_async_context(connection.transaction(isolation="repeatable_read", readonly=True))
                rules = self._rules = await self._copy.catch_up(connection, self._rules or rules)
                held = (rules.version, len(self._copy.fingerprints), str(self._copy.total))
            version = await connection.fetchval(SQL["find_version"])
            stored = await load_record(connection, SQL["add_up"])
        return held == (version, stored["entries"], stored["total"])

    async def repair(self) -> None:
        """Read everything again, and replace what differs. The rules stay in force, and edits take effect meanwhile."""
        before = await self.current()
        async with self._changing, session(self._pool) as connection:
            rules = await self._copy.read_parties(connection)
            # The counter may have been set back; it never goes ahead of the subscriptions that have been read.
            self._rules = msgspec.structs.replace(rules, version=min(rules.version, before.version))
        absent = set(self._rules.index)
        page: Sequence[UUID] = (UUID(int=0),)
        while page:
            async with self._changing, session(self._pool) as connection:
                page = await self._copy.read_page(connection, self._rules, after=page[-1])
            absent.difference_update(page)
        for id in absent:
            self._copy.remove(id)


class _Copy:
    """The index of this process, and the fingerprint of each row from which it was made."""

    def __init__(self) -> None:
        self.index = SubscriptionIndex()
        self.fingerprints: dict[UUID, int] = {}
        self.total = 0

    async def read_all(self, connection: Connection) -> Rules:
        """Read everything, page by page, and return the rules of the version at the beginning.

        Pages may have later versions of a subscription, which the next difference reads again.
        """
        rules = await self.read_parties(connection)
        page: Sequence[UUID] = (UUID(int=0),)
        pages = 0
        while page := await self.read_page(connection, rules, after=page[-1]):
            pages += 1
            if pages % MANY_PAGES == 0:
                gc.freeze()
        return rules

    async def read_parties(self, connection: Connection) -> Rules:
        """Return rules with all verticals and providers, and the index as it is."""
        version = await connection.fetchval(SQL["find_version"])
        rules = Rules(version=version, verticals={}, by_slug={}, providers={}, index=self.index)
        return await self._read_parties(connection, rules, verticals=None, providers=None)

    async def read_page(self, connection: Connection, rules: Rules, after: UUID) -> Sequence[UUID]:
        """Read the next subscriptions by id, replace those that differ, and return the ids; none at the end."""
        ids = [row["id"] for row in await connection.fetch(SQL["list_ids"], after, BATCH)]
        await self._read_subscriptions(connection, rules, ids)
        return ids

    async def catch_up(self, connection: Connection, rules: Rules) -> Rules:
        """Read what changed since the version of `rules`, in the connection's snapshot, and replace it."""
        rows = await connection.fetch(SQL["list_changes"], rules.version)
        changes: defaultdict[str, list[UUID]] = defaultdict(list)
        for row in rows:
            changes[row["kind"]].append(row["id"])
        later = await self._read_parties(
            connection, rules, verticals=changes["vertical"], providers=changes["provider"]
        )
        ids = set(changes["subscription"])
        if changes["business"] or changes["endpoint"]:
            of_parties = SQL["list_subscriptions_of"]
            rows_of = await connection.fetch(of_parties, changes["business"], changes["endpoint"])
            ids.update(row["id"] for row in rows_of)
        ids.update(_of_moved_verticals(rules, later))
        self._renew_plans(rules, later)
        ordered = sorted(ids)
        for start in range(0, len(ordered), BATCH):
            await self._read_subscriptions(connection, later, ordered[start : start + BATCH])
        return msgspec.structs.replace(later, version=rows[0]["version"])

    async def renew_hours(self, rules: Rules, now: datetime) -> None:
        """Compile the open hours of all subscriptions anew, in pieces, and the plans that follow from them."""
        turn = _Turn()
        for id in list(self.index):
            subscription = self.index.get(id)
            if subscription is not None and subscription.definition.hours:
                arrivals = rules.by_slug[subscription.vertical].arrivals
                self.index.put(_with_times(subscription, arrivals, now))
                await turn.end()

    def _renew_plans(self, before: Rules, after: Rules) -> None:
        """Compile the plans of the subscriptions that pace their caps in verticals with a new arrival curve."""
        renewed = {
            vertical.slug: vertical.arrivals
            for key, vertical in after.verticals.items()
            if key in before.verticals and before.verticals[key].arrivals != vertical.arrivals
        }
        if not renewed:
            return
        now = clock.now()
        paced = [each for each in self.index.values() if each.plan is not None and each.vertical in renewed]
        for subscription in paced:
            self.index.put(_with_times(subscription, renewed[subscription.vertical], now))

    def remove(self, id: UUID) -> None:
        """Remove a subscription that has ended."""
        self.index.discard(id)
        self.total -= self.fingerprints.pop(id, 0)

    async def _read_parties(
        self, connection: Connection, rules: Rules, verticals: list[UUID] | None, providers: list[UUID] | None
    ) -> Rules:
        """Return the rules with these verticals and providers replaced; all of them for None."""
        if verticals is None or verticals:
            rows = await connection.fetch(SQL["list_verticals"], verticals)
            self._note(rows)
            changed = {row["id"]: _vertical(row) for row in rows}
            by_id = {**rules.verticals, **changed}
            by_slug = {vertical.slug: vertical for vertical in by_id.values()}
            rules = msgspec.structs.replace(rules, verticals=by_id, by_slug=by_slug)
        if providers is None or providers:
            rows = await connection.fetch(SQL["list_providers"], providers)
            self._note(rows)
            terms = {row["id"]: _provider(row) for row in rows}
            rules = msgspec.structs.replace(rules, providers={**rules.providers, **terms})
        return rules

    async def _read_subscriptions(self, connection: Connection, rules: Rules, ids: Iterable[UUID]) -> None:
        """Replace these subscriptions by what is stored, and remove those that have ended.

        One of a vertical that the rules do not know yet is left to the difference that brings the vertical.
        """
        rows = {row["id"]: row for row in await connection.fetch(SQL["list_subscriptions"], ids)}
        now, turn = clock.now(), _Turn()
        for id in ids:
            row = rows.get(id)
            if row is None:
                self.remove(id)
            elif (vertical := rules.by_slug.get(row["vertical"])) is not None and self._differs(row, vertical):
                self.index.put(_compile(row, vertical, now))
                self._note((row,))
                await turn.end()

    def _differs(self, row: Any, vertical: Vertical) -> bool:
        held = self.index.get(row["id"])
        return (
            held is None
            or self.fingerprints.get(row["id"]) != row["fingerprint"]
            or (held.vertical, held.country) != (vertical.slug, vertical.definition.country)
        )

    def _note(self, rows: Iterable[Any]) -> None:
        for row in rows:
            self.total += row["fingerprint"] - self.fingerprints.get(row["id"], 0)
            self.fingerprints[row["id"]] = row["fingerprint"]


class _Turn:
    """Lets other tasks run after every TURN_SECONDS of a long computation."""

    def __init__(self) -> None:
        self._until = clock.monotonic() + TURN_SECONDS

    async def end(self) -> None:
        """Yield to the event loop when the time is over."""
        if clock.monotonic() >= self._until:
            await asyncio.sleep(0)
            self._until = clock.monotonic() + TURN_SECONDS


async def load_rules(connection: Connection) -> Rules:
    """Return all rules as they are now, for a caller that does not follow their changes."""
    return await _Copy().read_all(connection)


def _of_moved_verticals(before: Rules, after: Rules) -> list[UUID]:
    """Return the subscriptions of verticals whose country or slug has changed, both of which a subscription carries."""
    moved = {
        old.slug
        for key, old in before.verticals.items()
        if (new := after.verticals[key]) is not old
        and (new.slug, new.definition.country) != (old.slug, old.definition.country)
    }
    return [id for id, subscription in before.index.items() if subscription.vertical in moved] if moved else []


def _vertical(row: Any) -> Vertical:
    definition = msgspec.json.decode(row["definition"], type=VerticalDefinition)
    return Vertical(
        id=row["id"],
        slug=row["slug"],
        version=row["version"],
        definition=definition,
        arrivals=tuple(row["arrivals"] or FLAT),
        cards=_cards(row["cards"], row["sales"]),
    )


def _cards(cards: bytes | None, sales: bytes | None) -> VerticalCards:
    """Return the cards and sales of a vertical. A card that cannot be read is left out, so that it delays no lead."""
    in_use: dict[str, CompiledScorecard] = {}
    for text in msgspec.json.decode(cards or b"[]", type=tuple[msgspec.Raw, ...]):
        try:
            card = msgspec.json.decode(text, type=CardInUse)
        except msgspec.ValidationError:
            log.error("scorecard_not_read")
            continue
        in_use[card.state] = compile_scorecard(msgspec.structs.replace(card.card, version=card.version))
    by_business = msgspec.json.decode(sales or b"{}", type=dict[UUID, BusinessSales])
    return vertical_cards(in_use.get("ranking"), in_use.get("shadow"), by_business)


def _provider(row: Any) -> ProviderTerms:
    payout = msgspec.json.decode(row["payout"], type=Payout)
    return ProviderTerms(id=row["id"], state=row["state"], payout=payout)


def _compile(row: Any, vertical: Vertical, now: datetime) -> Subscription:
    definition = msgspec.json.decode(row["definition"], type=SubscriptionDefinition)
    suspended = row["suspended"]
    subscription = Subscription(
        id=row["id"],
        business_id=row["business_id"],
        endpoint_id=row["endpoint_id"],
        vertical=row["vertical"],
        country=vertical.definition.country,
        mode=Mode(row["mode"]),
        version=row["version"],
        definition=definition,
        paused=row["paused"],
        suspended=None if suspended is None else SuspensionReason(suspended),
        business_active=row["business_active"],
        business_names=tuple(row["business_names"]),
        endpoint_active=row["endpoint_active"],
        endpoint_url=row["endpoint_url"],
        hold_seconds=row["hold_seconds"],
        breaker_open_until=row["breaker_open_until"],
    )
    return _with_times(subscription, vertical.arrivals, now)


def _with_times(subscription: Subscription, arrivals: Sequence[int], now: datetime) -> Subscription:
    """Return the subscription with its open hours compiled at `now`, and the plan of its caps."""
    definition = subscription.definition
    spans = compile_hours(definition.hours, now) if definition.hours else None
    plan = compile_plan(definition, spans, arrivals, now)
    return msgspec.structs.replace(subscription, open_spans=spans, plan=plan)
