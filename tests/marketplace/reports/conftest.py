"""A small world whose every figure is known by hand: three businesses, two providers, leads with times written out."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from marketplace.database.db import open_pool
from marketplace.reports.question import Question
from marketplace.reports.refresh import refresh_all
from marketplace.runtime import clock

DAY = datetime(2026, 3, 10, tzinfo=UTC)
"A Tuesday in summer time of Chicago, long over."
PRICE, PAYOUT = 5_000, 3_000


class Ledger:
    """Writes leads as the service leaves them, at moments of the test's choosing, past the triggers."""

    def __init__(self, owner: Any, worker: Any, reports: Any) -> None:
        self.owner, self.worker, self.reports = owner, worker, reports
        self.providers: dict[str, UUID] = {}
        self.businesses: dict[str, UUID] = {}
        self.subscriptions: dict[str, UUID] = {}
        self.verticals: dict[str, UUID] = {}

    async def make(self) -> None:
        """Verticals, providers, and three businesses with a subscription each: weights 1, 1 and 2."""
        run = self.owner.execute
        for slug in ("roofing", "solar"):
            self.verticals[slug] = uuid4()
            await run("insert into vertical_version values ($1, 1, '{}', now(), 'test')", self.verticals[slug])
            await run("insert into vertical (id, slug, version) values ($1, $2, 1)", self.verticals[slug], slug)
        for name in ("Quick", "Slow"):
            self.providers[name] = uuid4()
            await run("insert into provider (id, name, payout) values ($1, $2, '{}')", self.providers[name], name)
        for name, weight in (("Ann", 1), ("Bob", 1), ("Cat", 2)):
            self.businesses[name], self.subscriptions[name] = uuid4(), uuid4()
            business, subscription = self.businesses[name], self.subscriptions[name]
            hours = {"spec": "Mo-Fr 08:00-18:00", "zone": "America/Chicago"} if name == "Ann" else None
            definition = msgspec.json.encode({"weight": weight, "hours": hours}).decode()
            await run("insert into business (id, name, zone) values ($1, $2, 'UTC')", business, name)
            await run("insert into wallet (business_id, currency) values ($1, 'USD')", business)
            await run("insert into endpoint (id, business_id, url, secret) values ($1, $1, 'u', '')", business)
            await run("insert into subscription_version values ($1, 1, $2, now(), 'test')", subscription, definition)
            await run(
                """insert into subscription (id, business_id, vertical_id, endpoint_id, mode, name, version, currency,
                created_at) values ($1, $2, $3, $2, 'live', $4, 1, 'USD', $5)""",
                subscription,
                business,
                self.verticals["roofing"],
                f"{name}'s",
                DAY - timedelta(days=90),
            )

    async def lead(
        self,
        state: str,
        at: datetime,
        *,
        provider: str = "Quick",
        vertical: str = "roofing",
        reason: str | None = None,
        submitted_ms: int = 1_000,
        qualified_ms: int = 10,
        sub_ids: dict[str, str] | None = None,
        mode: str = "live",
    ) -> UUID:
        """A lead received at `at` that ended in `state`; qualified, where it was, so many ms later."""
        lead = uuid4()
        parties = (self.providers[provider], self.verticals[vertical], mode)
        facts = msgspec.json.encode({"sub_ids": sub_ids or {}}).decode()
        await self.owner.execute(
            """insert into inquiry (id, provider_id, vertical_id, mode, provider_reference, request_sha256, received_as,
            facts, consent_sha256, consent_given_at, submitted_at, received_at)
            values ($1, $2, $3, $4, $1::uuid::text, '', 'received', $5, '', $6, $6, $7)""",
            lead,
            *parties,
            facts,
            at - timedelta(milliseconds=submitted_ms),
            at,
        )
        never = state in ("duplicate", "suppressed", "rejected", "received", "nurturing", "expired")
        await self.owner.execute(
            """insert into lead (id, provider_id, vertical_id, mode, state, reason, received_at, qualified_at, due_at)
            values ($1, $2, $3, $4, $5::text, $6, $7::timestamptz, $8,
                case when $5::text in ('received', 'nurturing', 'prospect') then $7::timestamptz end)""",
            lead,
            *parties,
            state,
            reason,
            at,
            None if never else at + timedelta(milliseconds=qualified_ms),
        )
        await self.owner.execute("insert into move (lead_id, entered_state) values ($1, $2)", lead, state)
        return lead

    async def sold(
        self,
        to: str,
        at: datetime,
        *,
        state: str = "delivered",
        exposed_ms: int = 40,
        answered_ms: int = 200,
        theirs_ms: int = 150,
        channel: str = "push",
        **about: Any,
    ) -> UUID:
        """A lead of `to`: awarded as it was qualified, exposed and then acknowledged so many ms later."""
        lead = await self.lead(state, at, **about)
        awarded = at + timedelta(milliseconds=about.get("qualified_ms", 10))
        exposed = awarded + timedelta(milliseconds=exposed_ms)
        settled = exposed + timedelta(milliseconds=answered_ms)
        business, assignment = self.businesses[to], uuid4()
        evidence = "answer" if state in ("delivered", "returned") else None
        await self.owner.execute(
            """insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id,
            provider_id, mode, state, price_minor, payout_minor, currency, awarded_at, hold_until, exposed_at,
            evidence_until, evidence, settled_at, hour_at, day_at, week_at, month_at)
            select $1, l.id, $3, $4, 1, $3, l.provider_id, l.mode, l.state, 5000, 3000, 'USD', $5, $5, $6, $6, $7, $8,
                $5, $5, $5, $5 from lead l where l.id = $2""",
            assignment,
            lead,
            business,
            self.subscriptions[to],
            awarded,
            exposed,
            evidence,
            settled,
        )
        await self.owner.execute(
            """insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address,
            attempt_no, exposed_at) values ($1, $2, $3, $4, $3, '', '', 1, $5)""",
            lead,
            assignment,
            business,
            channel,
            exposed,
        )
        await self.owner.execute(
            """insert into attempt (id, assignment_id, lead_id, business_id, endpoint_id, attempt_no, started_at,
            outcome, reason, connect_ms, tls_ms, expose_ms, first_byte_ms, total_ms)
            values (gen_random_uuid(), $1, $2, $3, $3, 1, $4, 'accepted', 'accepted', 20, 30, 5, $5, 240)""",
            assignment,
            lead,
            business,
            awarded,
            theirs_ms - 50,
        )
        kinds = ["hold", "capture" if evidence else "release", *(["payout"] if evidence else [])]
        for kind in [*kinds, *(["refund", "claw_back"] if state == "returned" else [])]:
            await self.transfer(kind, settled, assignment, business, about.get("provider", "Quick"))
        return lead

    async def released(self, lead: UUID, business: str, at: datetime) -> None:
        """An assignment of `lead` to `business` before the one that it has now, from which nothing left us."""
        assignment, to = uuid4(), self.businesses[business]
        await self.owner.execute(
            """insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id,
            provider_id, mode, state, price_minor, payout_minor, currency, awarded_at, hold_until, settled_at,
            hour_at, day_at, week_at, month_at)
            select $1, l.id, $3, $4, 1, $3, l.provider_id, l.mode, 'released', 5000, 3000, 'USD', $5, $5, $5, $5, $5,
                $5, $5 from lead l where l.id = $2""",
            assignment,
            lead,
            to,
            self.subscriptions[business],
            at,
        )
        for kind in ("hold", "release"):
            await self.transfer(kind, at, assignment, to)

    async def transfer(
        self,
        kind: str,
        at: datetime,
        assignment: UUID | None,
        business: UUID,
        provider: str = "Quick",
        amount: int = PRICE,
    ) -> None:
        """One movement of money."""
        paid = kind in ("payout", "claw_back")
        await self.owner.execute(
            """insert into transfer (id, kind, amount_minor, currency, business_id, provider_id, assignment_id,
            event_id, made_at) values (gen_random_uuid(), $1, $2, 'USD', $3, $4, $5, $6, $7)""",
            kind,
            PAYOUT if paid else amount,
            None if paid else business,
            self.providers[provider] if paid else None,
            assignment,
            None if assignment else str(uuid4()),
            at,
        )

    async def tells(
        self,
        lead: UUID,
        kind: str,
        at: datetime,
        value: int | None = None,
        reason: str | None = None,
        source: str = "api",
    ) -> None:
        """A disposition of the business that has the lead."""
        await self.owner.execute(
            """insert into disposition (id, assignment_id, lead_id, business_id, kind, value_minor, reason, happened_at,
            recorded_at, source) select gen_random_uuid(), id, lead_id, business_id, $2, $3, $4, $5, $5, $6
            from assignment where lead_id = $1 and state <> 'released'""",
            lead,
            kind,
            value,
            reason,
            at,
            source,
        )

    async def decided(self, lead: UUID, outcome: str, *candidates: dict[str, Any], strategy: str = "fair") -> None:
        """The next decision of a lead; a candidate is {who, failures} or, where it stood, {who, position}."""
        rows = [
            {
                "subscription_id": str(self.subscriptions[each["who"]]),
                "business_id": str(self.businesses[each["who"]]),
                "version": 1,
            }
            | {name: value for name, value in each.items() if name != "who"}
            for each in candidates
        ]
        winner = next((each["subscription_id"] for each in rows if each.get("position") == 1), None)
        await self.owner.execute(
            """insert into decision (id, lead_id, made_at, outcome, vertical_version, catalog_version, strategy,
            verdict, candidates, subscription_id)
            select gen_random_uuid(), id,
                received_at + (select count(*) from decision where lead_id = $1) * interval '1 ms', $2, 1, 1, $3, '{}',
                $4, $5
            from lead where id = $1""",
            lead,
            outcome,
            strategy,
            msgspec.json.encode(rows).decode(),
            winner if outcome == "held" else None,
        )

    async def keep(self) -> int:
        """Everything into the columns; how many hours were written."""
        return await refresh_all(self.worker, clock.now())


def asked(**changes: Any) -> Question:
    """The tenth of March in UTC."""
    usual: dict[str, Any] = {"first": DAY.date(), "last": DAY.date(), "zone": "UTC"}
    return Question(**usual | changes)


def failure(rule: str, distance: float | None = None, unit: str | None = None, detail: str = "") -> dict[str, Any]:
    """One failing rule as decisions keep it."""
    told = {"rule": rule, "detail": detail, "distance": distance, "unit": unit}
    return {name: value for name, value in told.items() if value is not None}


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    past = {"session_replication_role": "replica"}
    async with asyncpg.create_pool(database_url, min_size=1, max_size=2, server_settings=past) as owner:
        worker = await open_pool(database_url, "marketplace_worker", size=2)
        reports = await open_pool(database_url, "marketplace_reports", size=2)
        async with worker, reports:
            made = Ledger(owner, worker, reports)
            await made.make()
            yield made
