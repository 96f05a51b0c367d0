"""Migration of rows that an older release wrote: each test begins with the schema of that release."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import msgspec
import pytest

from billing.pricing import MOST_FIXED_MINOR, FixedPayout, Payout
from marketplace.database.migrate import migrate
from marketplace.runtime import clock, ids
from marketplace.security.auth import CallerKind
from tests.builders.world import World

OLD_RELEASE = 42


@asynccontextmanager
async def upgrading(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the owner to a database of the older release, which is migrated when the block ends well."""
    await migrate(url, to=OLD_RELEASE, reference_data=())
    connection = await asyncpg.connect(url)
    try:
        yield connection
        await connection.execute("update schema_migration set applied_at = now()")
        await migrate(url, reference_data=())
    finally:
        await connection.close()


class Rows:
    """Rows as the older release wrote them, each a day after the one before."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.now = clock.now() - timedelta(days=100)

    def _later(self) -> datetime:
        self.now += timedelta(days=1)
        return self.now

    async def business(self) -> UUID:
        business = clock.new_id()
        sql = "insert into business (id, name, zone) values ($1, 'Roofs', 'UTC')"
        await self.connection.execute(sql, business)
        return business

    async def endpoint(self, business: UUID, address: str | None, actor: str, state: str = "active") -> UUID:
        endpoint, now = clock.new_id(), self._later()
        await self.connection.execute(
            "insert into endpoint (id, business_id, url, state, secret, created_at, verified_at, address_key) "
            "values ($1, $2, 'https://example.com/', $3, '', $4, $4, $5)",
            endpoint, business, state, now, address,
        )  # fmt: skip
        await self._audit(actor, "endpoint.create", ids.encode("whe", endpoint), now)
        return endpoint

    async def key(self, owner: UUID | None, actor: str) -> str:
        key, now = clock.new_id().hex[-16:], self._later()  # the first half is the time
        await self.connection.execute(
            "insert into api_key (id, kind, owner_id, mode, name, secret_hmac, created_at) "
            "values ($1, $2, $3, 'live', 'k', '', $4)",
            key, CallerKind.business if owner else CallerKind.operator, owner, now,
        )  # fmt: skip
        await self._audit(actor, "key.create", key, now)
        return key

    async def member(self, owner: UUID | None, invited_by: str, role: str = "owner") -> UUID:
        member, email, now = clock.new_id(), f"{clock.new_id().hex}@example.com", self._later()
        kind = CallerKind.business if owner else CallerKind.operator
        await self.connection.execute(
            "insert into one_time_link (token_hash, purpose, kind, owner_id, role, email, made_by, made_at, "
            "expires_at, used_at) values (sha256($1), 'invite', $2, $3, $4, $5, $6, $7, $7, $7)",
            member.bytes, kind, owner, role, email, invited_by, now,
        )  # fmt: skip
        await self.connection.execute(
            "insert into member (id, kind, owner_id, email, name, role, created_at) "
            "values ($1, $2, $3, $4, 'Robin', $5, $6)",
            member, kind, owner, email, role, now,
        )  # fmt: skip
        return member

    async def reset(self, member: UUID, actor: str) -> None:
        now = self._later()
        await self.connection.execute(
            "insert into one_time_link (token_hash, purpose, member_id, made_by, made_at, expires_at, used_at) "
            "values (sha256($1), 'reset', $2, $3, $4, $4, $4)",
            clock.new_id().bytes, member, actor, now,
        )  # fmt: skip

    async def _audit(self, actor: str, action: str, subject: str, now: datetime) -> None:
        sql = "insert into audit (id, at, actor, action, object) values ($1, $2, $3, $4, $5)"
        await self.connection.execute(sql, clock.new_id(), now, actor, action, subject)


async def test_two_businesses_that_proved_one_address_survive_and_the_first_one_keeps_it(
    empty_database_url: str,
) -> None:
    async with upgrading(empty_database_url) as connection:
        rows = Rows(connection)
        first, second = await rows.business(), await rows.business()
        off = await rows.endpoint(second, "example.com", "someone", state="disabled")
        endpoint_id = await rows.endpoint(first, "example.com", "someone")
        freed = await rows.endpoint(second, "example.com", "someone")
        also_kept = await rows.endpoint(first, "example.com", "someone")
        other = await rows.endpoint(second, "example.com/other", "someone")
    connection = await asyncpg.connect(empty_database_url)
    try:
        endpoints = {row["id"]: row for row in await connection.fetch("select id, state, address_key from endpoint")}
        keys = {endpoint: endpoints[endpoint]["address_key"] for endpoint in (endpoint_id, also_kept, freed, other)}
        assert keys == {endpoint_id: "example.com", also_kept: "example.com", freed: None, other: "example.com/other"}
        assert {row["state"] for row in endpoints.values() if row["id"] != off} == {"active"}
        for endpoint in (off, freed):
            with pytest.raises(asyncpg.ExclusionViolationError):
                await connection.execute(
                    "update endpoint set state = 'active', address_key = 'example.com' where id = $1", endpoint
                )
    finally:
        await connection.close()


async def test_a_fixed_payout_above_todays_bound_is_cut_to_it(empty_database_url: str) -> None:
    async with upgrading(empty_database_url) as connection:
        for minor in (5_000, 10**15):
            payout = {"type": "fixed", "minor": minor}
            await connection.execute(
                "insert into provider (id, name, payout) values ($1, 'Leads', $2)",
                clock.new_id(), msgspec.json.encode(payout).decode(),
            )  # fmt: skip
    connection = await asyncpg.connect(empty_database_url)
    try:
        found = [row["payout"] for row in await connection.fetch("select payout from provider order by id")]
    finally:
        await connection.close()
    rules = [msgspec.json.decode(text, type=Payout) for text in found]
    assert rules == [FixedPayout(minor=5_000), FixedPayout(minor=MOST_FIXED_MINOR)]


async def test_ways_in_that_an_operator_made_before_they_were_recorded_are_told_to_the_owners(
    empty_database_url: str,
) -> None:
    async with upgrading(empty_database_url) as connection:
        rows = Rows(connection)
        operator_key = await rows.key(None, "command line")
        operator = ids.encode("mem", await rows.member(None, "command line"))
        business = await rows.business()
        first_key = await rows.key(business, operator_key)
        owner = await rows.member(business, operator)
        own = ids.encode("mem", owner)
        opened = {
            await rows.key(business, operator_key): operator_key,
            await rows.key(business, "command line"): "command line",
            str(await rows.endpoint(business, None, operator)): operator,
        }
        guest = await rows.member(business, operator, role="member")
        opened[str(guest)] = operator
        opened[await rows.key(business, ids.encode("mem", guest))] = operator
        locked_out = await rows.member(business, own, role="member")
        await rows.reset(locked_out, operator)
        opened[str(locked_out)] = operator
        own_ways = {
            first_key, str(owner), await rows.key(business, own), str(await rows.endpoint(business, None, own)),
            str(await rows.member(business, own, role="member")),
        }  # fmt: skip
    connection = await asyncpg.connect(empty_database_url)
    try:
        accesses = await connection.fetch("select subject, opened_by, confirmed_at from opened_access")
    finally:
        await connection.close()
    assert {row["subject"]: row["opened_by"] for row in accesses} == opened
    assert {row["confirmed_at"] for row in accesses} == {None}
    assert not own_ways & {row["subject"] for row in accesses}


REFUSED: Final = {
    "transfer_at_quoted_price": """
        insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id)
        select gen_random_uuid(), 'refund', price_minor + 1, currency, business_id, id from assignment""",
    "transfer_at_agreed_payout": """
        insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id)
        select gen_random_uuid(), 'claw_back', payout_minor, currency, gen_random_uuid(), id from assignment""",
    "assignment_one_live": """
        insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id,
            provider_id, mode, price_minor, payout_minor, currency, due_at, awarded_at, hold_until, hour_at, day_at,
            week_at, month_at)
        select gen_random_uuid(), lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id,
            mode, price_minor, payout_minor, currency, now(), now(), now(), now(), now(), now(), now()
        from assignment""",
    "exposure_lead": "update lead set state = 'prospect', due_at = now()",
    "exposure_assignment": """
        update assignment set state = 'released', evidence = null, exposed_at = null, evidence_until = null""",
}
"Statements about the one lead there is, by the constraint that refuses each."


async def test_a_lead_of_the_older_release_is_held_by_the_same_constraints(empty_database_url: str) -> None:
    async with upgrading(empty_database_url) as connection:
        world = World(connection)
        await world.make()
        await world.lead("delivered")
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute("alter table lead disable trigger lead_move")
        await connection.execute("alter table assignment disable trigger assignment_move")
        for constraint, sql in REFUSED.items():
            with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refusal:
                await connection.execute(sql)
            assert refusal.value.constraint_name == constraint
    finally:
        await connection.close()
