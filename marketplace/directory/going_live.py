"""Steps of a provider from test keys to live keys, and the management of its own keys.

A provider gets each of three answers in test mode, requests to go live, and is approved by an operator. From then on it
makes its own live keys. A provider that an operator gave a live key counts as approved.
"""

from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, Queries, fetch_rows, find_row, session, transaction
from marketplace.directory import flow as directory_flow
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit, auth
from marketplace.security.auth import ApiKey, CallerKind
from marketplace.security.sealing import Sealer

SQL = Queries(__file__, "going_live.sql")

Rehearsed = Literal["accepted", "repeated", "refused"]

OVERLAP: Final = timedelta(hours=24)
"Default time for which a rotated key still works, enough to deploy the new one."
MOST_KEYS: Final = 50
"Limit of valid keys of one provider."
MOST_REQUESTS: Final = 200


class ProviderReadiness(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a provider towards live keys.

    `accepted`, `repeated` and `refused` are whether it has had each of these answers in test mode; `test_keys` and
    `live_keys` count its valid keys; `was_live` is whether it ever had a live key.
    """

    accepted: bool
    repeated: bool
    refused: bool
    test_keys: int
    live_keys: int
    requested_at: datetime | None
    approved_at: datetime | None
    was_live: bool

    @property
    def rehearsed(self) -> bool:
        """True if the provider has had all three answers."""
        return self.accepted and self.repeated and self.refused

    @property
    def may_go_live(self) -> bool:
        """True if the provider may make live keys."""
        return self.was_live or self.approved_at is not None


class LiveRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's request to go live, which waits for an operator. `requested_by` is a key or member."""

    provider_id: UUID
    name: str
    requested_at: datetime
    requested_by: str


async def load_readiness(connection: Connection, provider_id: UUID) -> ProviderReadiness:
    """Return how far the provider has come. Raises NotFound."""
    readiness = await find_row(connection, SQL["load_readiness"], ProviderReadiness, provider_id, clock.now())
    if readiness is None:
        raise errors.NotFound(directory_flow.NOT_THERE)
    return readiness


async def note_rehearsed(pool: Pool, provider_id: UUID, result: Rehearsed) -> None:
    """Record that the provider has had this answer in the portal; only the first time of each is stored."""
    async with session(pool) as connection:
        await connection.execute(SQL["mark_rehearsed"], provider_id, result, clock.now())


async def request_live(pool: Pool, actor: str, provider_id: UUID) -> None:
    """Request to go live; a repeated call changes nothing. Raises NotFound, and Conflict before all three answers."""
    now = clock.now()
    async with transaction(pool) as connection:
        if not (await load_readiness(connection, provider_id)).rehearsed:
            raise errors.Conflict("Let the three checks turn green first: one accepted, one repeated, one refused.")
        if await connection.fetchval(SQL["mark_requested"], provider_id, now, actor) is not None:
            await audit.record(connection, now, actor, "provider.request_live", ids.encode("prov", provider_id))


async def approve_live(pool: Pool, actor: str, provider_id: UUID) -> None:
    """Approve that the provider makes live keys; a repeated call changes nothing. Raises NotFound."""
    now = clock.now()
    async with transaction(pool) as connection:
        await load_readiness(connection, provider_id)
        if await connection.fetchval(SQL["mark_approved"], provider_id, now, actor) is not None:
            await audit.record(connection, now, actor, "provider.approve_live", ids.encode("prov", provider_id))


async def list_requests(connection: Connection) -> tuple[LiveRequest, ...]:
    """Return up to MOST_REQUESTS requests that wait for an operator, the oldest first."""
    return await fetch_rows(connection, SQL["list_requests"], LiveRequest, MOST_REQUESTS)


# Keys of a provider


async def create_own_key(
    pool: Pool, sealer: Sealer, actor: str, provider_id: UUID, *, mode: str, name: str, expires_at: datetime | None
) -> str:
    """Make a key of the provider and return its text, which cannot be read again.

    Raises NotFound, InvalidInput for an expiry in the past, and Conflict for a live key before the approval or with
    MOST_KEYS valid keys.
    """
    async with session(pool) as connection:
        readiness = await load_readiness(connection, provider_id)
    if mode == "live" and not readiness.may_go_live:
        raise errors.Conflict("An operator has to approve you before you can make a live key. Ask on the start page.")
    if readiness.test_keys + readiness.live_keys >= MOST_KEYS:
        raise errors.Conflict(f"You have {MOST_KEYS} keys in use. Revoke one first.")
    return await directory_flow.create_key(
        pool, sealer, actor, kind=CallerKind.provider, owner_id=provider_id, mode=mode, name=name, expires_at=expires_at
    )


async def rotate_own_key(
    pool: Pool, sealer: Sealer, actor: str, owner_id: UUID, key_id: str, overlap: timedelta = OVERLAP
) -> str:
    """Make a key like the old one, which works for `overlap` longer, and return the new key's text.

    Raises NotFound, and Conflict for a key that is revoked or expired.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        key = await _load_own(connection, owner_id, key_id)
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            raise errors.Conflict("This key has ended. Make a new one instead.")
        text = await auth.create_key(
            connection,
            sealer,
            kind=key.kind,
            owner_id=owner_id,
            mode=key.mode,
            name=key.name,
            rate_per_minute=key.rate_per_minute,
        )
        await auth.mark_expiring(connection, key_id, now + overlap)
        await audit.record(connection, now, actor, "key.rotate", key_id, successor=auth.key_id(text))
    return text


async def revoke_own_key(pool: Pool, actor: str, owner_id: UUID, key_id: str, reason: str) -> ApiKey:
    """Revoke one of the owner's keys at once; a repeated call changes nothing. Raises NotFound."""
    now = clock.now()
    async with transaction(pool) as connection:
        await _load_own(connection, owner_id, key_id)
        key = await auth.revoke_key(connection, key_id, now)
        if key is None:
            raise errors.NotFound(directory_flow.NOT_THERE)
        if key.revoked_at == now:
            await audit.record(connection, now, actor, "key.revoke", key_id, reason=reason)
    return key


async def _load_own(connection: Connection, owner_id: UUID, key_id: str) -> ApiKey:
    """Lock and return a key of the owner. Raises NotFound."""
    key = await auth.lock_key(connection, owner_id, key_id) if auth.is_key_id(key_id) else None
    if key is None:
        raise errors.NotFound(directory_flow.NOT_THERE)
    return key
