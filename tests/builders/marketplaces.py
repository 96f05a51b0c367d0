"""A small marketplace in a real database: a vertical, a provider, businesses with endpoints, wallets, subscriptions."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from billing.pricing import SharePayout
from marketplace.certificates.flow import Claims
from marketplace.certificates.services import ServiceAccount
from marketplace.database.db import open_pool
from marketplace.database.journal import Journal
from marketplace.delivery.flow import Delivery
from marketplace.distribution.flow import Distribution
from marketplace.intake.flow import Intake, SubmissionReceipt
from marketplace.intake.postal import PostalBook
from marketplace.intake.reading import decode_inquiry
from marketplace.journey.joining import join_lead
from marketplace.ledger import money
from marketplace.notices.flow import Notices
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock
from marketplace.runtime.live import Publisher
from marketplace.runtime.queue import Notifier
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from marketplace.security.sealing import Sealer
from marketplace.webhook.address import AddressRules
from marketplace.webhook.signing import new_secret
from marketplace.worker import Sweeper, Walker
from routing.certificate import CertificateKind
from routing.subscription import Area, SubscriptionDefinition
from routing.vertical import VerticalDefinition
from tests.builders.inquiries import ROOFING_NEEDS, roofing_body, roofing_policy
from tests.waiting import give_back, keep

PRICE_MINOR = 5_000
PAYOUT_MINOR = 3_000
NOWHERE = "unix:///nowhere/valkey.sock"
"""Walks in these tests are taken by hand, so nobody needs to be woken."""


def roofing(**overrides: Any) -> VerticalDefinition:
    policy = roofing_policy()
    standard = {
        "name": "Roofing",
        "currency": "USD",
        "needs": ROOFING_NEEDS,
        "requires_postal_code": True,
        "budget": policy.budget,
        "authority": policy.authority,
        "need": policy.need,
        "timing": policy.timing,
        "minimum_score": policy.minimum_score,
    }
    return VerticalDefinition(**{**standard, **overrides}).under_current_rules()


def anywhere(**overrides: Any) -> SubscriptionDefinition:
    standard = {
        "area": Area(anywhere=True),
        "zone": "America/Chicago",
        "price_minor": PRICE_MINOR,
        "currency": "USD",
    }
    return SubscriptionDefinition(**{**standard, **overrides})


class Buyer(msgspec.Struct, frozen=True, kw_only=True):
    """One business with its one subscription."""

    business_id: UUID
    subscription_id: UUID
    endpoint_id: UUID
    secret: str


class Marketplace:
    """Everything between a provider's post and a business's door, without HTTP in front and without a queue between."""

    def __init__(self, settings: Settings, owner: Any, api: Any, worker: Any, journal: Journal) -> None:
        self.settings, self.owner, self.api, self.worker = settings, owner, api, worker
        self.sealer = Sealer(settings.master_key, settings.pepper)
        self.guard = AddressRules(http_allowed=True, networks=(ip_network("127.0.0.0/8"),))
        self.intake = Intake(api, Catalog(api), PostalBook(), self.sealer, Notifier(NOWHERE), join=join_lead)
        self.accounts: dict[CertificateKind, ServiceAccount] = {}
        claims = Claims(worker, Catalog(worker), self.sealer, self.guard, self.accounts)
        self.distribution = Distribution(worker, Catalog(worker), claim_certificates=claims.claim)
        self.publisher = Publisher(settings.valkey_url or NOWHERE)
        self.delivery = Delivery(worker, self.sealer, self.guard, journal, self.publisher)
        self.walker = Walker(self.distribution, self.delivery)
        self.notices = Notices(worker, self.sealer, self.guard, self.publisher)
        self.sweeper = Sweeper(worker, self.walker, self.notices)
        self.vertical_id = clock.new_id()
        self.provider = Principal(key_id="test", kind=CallerKind.provider, owner_id=clock.new_id(), mode="live")

    async def prepare(self, vertical: VerticalDefinition) -> None:
        async with self.owner.acquire() as connection, connection.transaction():
            await connection.execute(
                "insert into vertical (id, slug, version) values ($1, 'roofing', 1)", self.vertical_id
            )
            await connection.execute(
                "insert into vertical_version (vertical_id, version, definition, made_by) values ($1, 1, $2, 'test')",
                self.vertical_id,
                msgspec.json.encode(vertical).decode(),
            )
            await self._insert_provider(connection, self.provider.owner)

    async def another_provider(self, mode: str = "live") -> Principal:
        principal = Principal(key_id="other", kind=CallerKind.provider, owner_id=clock.new_id(), mode=mode)
        await self._insert_provider(self.owner, principal.owner)
        return principal

    async def _insert_provider(self, connection: Any, provider_id: UUID) -> None:
        payout = msgspec.json.encode(SharePayout(basis_points=6_000)).decode()
        await connection.execute(
            "insert into provider (id, name, payout) values ($1, 'Example Provider', $2)", provider_id, payout
        )

    async def buyer(
        self,
        url: str | None,
        definition: SubscriptionDefinition | None = None,
        *,
        available_minor: int = 100_000,
        mode: str = "live",
        kind: str = "feed",
        hold_seconds: int = 120,
    ) -> Buyer:
        """A business that takes leads at `url`, or without one by an endpoint of `kind`, with money in its wallet."""
        new = Buyer(
            business_id=clock.new_id(), subscription_id=clock.new_id(), endpoint_id=clock.new_id(), secret=new_secret()
        )
        order = definition or anywhere()
        async with self.owner.acquire() as connection, connection.transaction():
            await connection.execute(
                "insert into business (id, name, zone) values ($1, 'Example Business', 'America/Chicago')",
                new.business_id,
            )
            await money.insert_wallet(connection, new.business_id, "USD", 0)
            if available_minor:
                event = f"event-{new.business_id}"
                await money.top_up(connection, new.business_id, available_minor, "USD", event, clock.now())
            await connection.execute(
                "insert into endpoint (id, business_id, kind, url, state, secret, hold_seconds) "
                "values ($1, $2, $3, $4, 'active', $5, $6)",
                new.endpoint_id,
                new.business_id,
                "push" if url else kind,
                url,
                self.sealer.seal_secret(new.endpoint_id, new.secret) if url else None,
                hold_seconds,
            )
            await connection.execute(
                "insert into subscription (id, business_id, vertical_id, endpoint_id, mode, name, version, currency) "
                "values ($1, $2, $3, $4, $5, 'Example', 1, 'USD')",
                new.subscription_id,
                new.business_id,
                self.vertical_id,
                new.endpoint_id,
                mode,
            )
            await connection.execute(
                "insert into subscription_version (subscription_id, version, definition, made_by) "
                "values ($1, 1, $2, 'test')",
                new.subscription_id,
                msgspec.json.encode(order).decode(),
            )
            if (order.weight, order.priority) != (1, 100):
                await connection.execute(
                    "insert into business_terms (vertical_id, business_id, weight, priority) values ($1, $2, $3, $4)",
                    self.vertical_id,
                    new.business_id,
                    order.weight,
                    order.priority,
                )
        return new

    async def submit(
        self, number: int = 1, *, by: Principal | None = None, key: str | None = None, **sections: Any
    ) -> SubmissionReceipt:
        """One inquiry through intake; `number` makes another person."""
        raw = msgspec.json.encode(roofing_body(number, clock.now(), **sections))
        body = decode_inquiry(raw)
        assert not isinstance(body, tuple), body
        return await self.intake.receive(by or self.provider, body, raw, key)

    async def sold(self, number: int = 1, **sections: Any) -> UUID:
        """One inquiry walked as far as it goes; its id."""
        receipt = await self.submit(number, **sections)
        await self.walker.walk(receipt.id)
        return receipt.id

    async def wait_in_inbox(self, buyer: Buyer, number: int = 2) -> UUID:
        """The assignment of a lead that waits in an inbox of the business, which takes its next leads as before."""
        served = "update subscription set endpoint_id = $2 where id = $1"
        endpoint_id = clock.new_id()
        await self.owner.execute(
            "insert into endpoint (id, business_id, kind, state) values ($1, $2, 'inbox', 'active')",
            endpoint_id,
            buyer.business_id,
        )
        await self.owner.execute(served, buyer.subscription_id, endpoint_id)
        lead_id = await self.sold(number)
        await self.owner.execute(served, buyer.subscription_id, buyer.endpoint_id)
        assignment_id: UUID = await self.value("select id from assignment where lead_id = $1", lead_id)
        return assignment_id

    async def value(self, sql: str, *arguments: Any) -> Any:
        return await self.owner.fetchval(sql, *arguments)

    async def row(self, sql: str, *arguments: Any) -> dict[str, Any]:
        return dict(await self.owner.fetchrow(sql, *arguments))

    async def state(self, lead_id: UUID) -> str:
        return str(await self.value("select state from lead where id = $1", lead_id))

    async def wallet(self, buyer: Buyer) -> tuple[int, int]:
        """Available and held, in minor units."""
        row = await self.row("select available_minor, held_minor from wallet where business_id = $1", buyer.business_id)
        return row["available_minor"], row["held_minor"]


@asynccontextmanager
async def marketplace(settings: Settings, vertical: VerticalDefinition | None = None) -> AsyncIterator[Marketplace]:
    """A marketplace on the test's own database, each pool acting under its own role."""
    assert settings.database_url is not None
    url = settings.database_url
    async with AsyncExitStack() as stack:
        owner = await asyncpg.create_pool(url, min_size=0, max_size=6, reset=keep)
        stack.push_async_callback(give_back, owner)
        api = await open_pool(url, "marketplace_api", size=6)
        stack.push_async_callback(give_back, api)
        worker = await open_pool(url, "marketplace_worker", size=6)
        stack.push_async_callback(give_back, worker)
        journal = await Journal.open(settings.journal_dir)
        stack.push_async_callback(journal.close)
        market = Marketplace(settings, owner, api, worker, journal)
        stack.push_async_callback(market.publisher.close)
        await market.prepare(vertical or roofing())
        yield market
