"""API keys: their kinds, their scopes, and authentication of a caller by key.

A key reads `lk_live_<id>_<secret>_<check>`. The public id finds the row. The secret is compared as a keyed hash in
constant time. The check is a CRC, by which secret scanners and typing errors are recognised without a database.
"""

import hmac
import zlib
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, Queries, fetch_rows, find_row, session
from marketplace.runtime import clock, ids
from marketplace.runtime.errors import KeyExpired, KeyRevoked, KeyWrongMode, NotAuthenticated, ScopeMissing
from marketplace.security.sealing import Sealer

SQL = Queries(__file__, "auth.sql")

ID_CHARACTERS: Final = 16
SECRET_CHARACTERS: Final = 52
"52 characters of 5 bits are 260 bits: for so long a secret, a fast keyed hash is enough."
CHECK_CHARACTERS: Final = 7


class CallerKind(StrEnum):
    """Kinds of callers."""

    provider = "provider"
    business = "business"
    operator = "operator"


class Scope(StrEnum):
    """Permissions that routes require; each kind of key has a fixed set of them."""

    leads_write = "leads:write"
    "Submit inquiries and read the status of one's own."
    leads_read = "leads:read"
    "Read the leads delivered to one's own business."
    feedback_write = "feedback:write"
    "Report dispositions of delivered leads, and request returns."
    subscriptions_write = "subscriptions:write"
    "Manage one's own subscriptions and endpoints."
    wallet_read = "wallet:read"
    "Read one's own wallet."
    operate = "operate"
    "Run the marketplace."


SCOPES: Final = {
    CallerKind.provider: frozenset({Scope.leads_write}),
    CallerKind.business: frozenset(
        {Scope.leads_read, Scope.feedback_write, Scope.subscriptions_write, Scope.wallet_read}
    ),
    CallerKind.operator: frozenset({Scope.operate}),
}


class UnconfirmedAccess(msgspec.Struct, frozen=True, kw_only=True):
    """Operator who made this access to a tenant's account, and the reason, until an owner confirms it."""

    by: str
    reason: str


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Authenticated caller. `owner_id` is the id of the provider or business, None for an operator."""

    key_id: str
    kind: CallerKind
    owner_id: UUID | None
    mode: str
    owner_state: str = "active"
    rate_per_minute: int | None = None
    opened: UnconfirmedAccess | None = None

    @property
    def owner(self) -> UUID:
        """Id of the tenant that every query of this caller is limited to. Raises ScopeMissing for an operator."""
        if self.owner_id is None:
            raise ScopeMissing("This needs the key of a provider or of a business.")
        return self.owner_id

    def demand(self, *scopes: Scope) -> None:
        """Raise ScopeMissing unless this kind of key has one of `scopes`; without scopes any key is accepted."""
        if scopes and SCOPES[self.kind].isdisjoint(scopes):
            raise ScopeMissing(f"scope_missing: {' or '.join(scopes)}")

    def sees(self, mode: str) -> bool:
        """Return whether this caller may read rows of `mode`: live operators read both, others that of their key."""
        return self.mode == mode or (self.kind, self.mode) == (CallerKind.operator, "live")

    def demand_mode(self, mode: str) -> None:
        """Raise KeyWrongMode unless the key has this mode."""
        if self.mode != mode:
            raise KeyWrongMode(f"Use a {mode} key for this; the one sent is a {self.mode} key.")


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret."""

    id: str
    kind: CallerKind
    owner_id: UUID | None
    mode: str
    name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    rate_per_minute: int | None
    seen_in_url_at: datetime | None


class _KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: CallerKind
    owner_id: UUID | None
    mode: str
    secret_hmac: bytes
    expires_at: datetime | None
    revoked_at: datetime | None
    rate_per_minute: int | None
    owner_state: str
    opened_by: str | None
    opened_reason: str | None


def _characters(count: int) -> str:
    number = int.from_bytes(clock.random_bytes(count))
    return "".join(ids.ALPHABET[(number >> (5 * place)) & 31] for place in range(count))


def _check(text: str) -> str:
    crc = zlib.crc32(text.encode())
    return "".join(ids.ALPHABET[(crc >> (5 * place)) & 31] for place in range(CHECK_CHARACTERS))


async def create_key(
    connection: Connection,
    sealer: Sealer,
    *,
    kind: CallerKind,
    owner_id: UUID | None,
    mode: str,
    name: str,
    expires_at: datetime | None = None,
    rate_per_minute: int | None = None,
) -> str:
    """Create a key and return its text, which cannot be read again later."""
    key_id, secret = _characters(ID_CHARACTERS), _characters(SECRET_CHARACTERS)
    body = f"lk_{mode}_{key_id}_{secret}"
    await connection.execute(
        SQL["insert_key"],
        key_id,
        kind,
        owner_id,
        mode,
        name,
        sealer.keyed_hash("api-key", secret),
        clock.now(),
        expires_at,
        rate_per_minute,
    )
    return f"{body}_{_check(body)}"


def is_key_id(text: str) -> bool:
    """Return whether `text` has the form of a key's public id."""
    return len(text) == ID_CHARACTERS and set(text) <= set(ids.ALPHABET)


def key_id(text: str) -> str:
    """Return the public id in the text of a key."""
    return text.split("_")[2]


async def revoke_key(connection: Connection, key_id: str, now: datetime) -> ApiKey | None:
    """Revoke a key and return it; an earlier revocation keeps its time. None for an unknown key."""
    return await find_row(connection, SQL["mark_key_revoked"], ApiKey, key_id, now)


async def lock_key(connection: Connection, owner_id: UUID, key_id: str) -> ApiKey | None:
    """Return the key with its row locked; None when it does not exist or belongs to another owner."""
    return await find_row(connection, SQL["lock_key"], ApiKey, key_id, owner_id)


async def mark_expiring(connection: Connection, key_id: str, at: datetime) -> None:
    """Let the key expire at `at`, unless it expires earlier anyway."""
    await connection.execute(SQL["mark_key_expiring"], key_id, at)


async def list_keys(
    connection: Connection, owner_id: UUID | None, after: str | None, limit: int, mode: str | None = None
) -> tuple[ApiKey, ...]:
    """Return keys of one owner, or of all owners when None, newest first; only those of `mode` when it is set."""
    return await fetch_rows(connection, SQL["list_keys"], ApiKey, owner_id, after, limit, mode)


async def authenticate(pool: Pool, sealer: Sealer, authorization: str | None, now: datetime) -> Principal:
    """Return the caller that an Authorization header identifies.

    Raises NotAuthenticated (key missing, malformed, unknown or with a wrong secret), KeyRevoked, KeyExpired.
    """
    scheme, _, text = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not _is_well_formed(text.strip()):
        raise NotAuthenticated("Send your key as: Authorization: Bearer lk_live_… or lk_test_…")
    row = await _find_proven(pool, sealer, text.strip())
    if row is None:
        raise NotAuthenticated("This key is not known. Copy it again, or ask an operator for a new one.")
    return _principal(row, now)


async def mark_seen_in_url(pool: Pool, sealer: Sealer, text: str, now: datetime) -> None:
    """Flag a key that was sent in a URL, for its owner and the operator; the first time is kept.

    Only a complete and correct key is flagged: public ids appear in lists, and must not let others flag a key.
    """
    if _is_well_formed(text) and (row := await _find_proven(pool, sealer, text)) is not None:
        async with session(pool) as connection:
            await connection.execute(SQL["mark_key_seen_in_url"], row.id, now)


def _is_well_formed(text: str) -> bool:
    parts = text.split("_")
    return len(parts) == 5 and parts[0] == "lk" and _check("_".join(parts[:4])) == parts[4]


async def _find_proven(pool: Pool, sealer: Sealer, text: str) -> _KeyRow | None:
    """Return the row of a well-formed key if its secret is correct; the time taken is the same if the id is unknown."""
    _, mode, key_id, secret, _ = text.split("_")
    async with session(pool) as connection:
        row = await find_row(connection, SQL["find_key"], _KeyRow, key_id)
    expected = row.secret_hmac if row else b"\0" * 32
    secret_hmac = sealer.keyed_hash("api-key", secret)
    if not hmac.compare_digest(secret_hmac, expected) or row is None or row.mode != mode:
        return None
    return row


async def load_principal(pool: Pool, key_id: str, now: datetime) -> Principal:
    """Return the caller of a key that was authenticated before. Raises NotAuthenticated, KeyRevoked, KeyExpired."""
    async with session(pool) as connection:
        row = await find_row(connection, SQL["find_key"], _KeyRow, key_id)
    if row is None:
        raise NotAuthenticated("This key is not known. Copy it again, or ask an operator for a new one.")
    return _principal(row, now)


def _principal(row: _KeyRow, now: datetime) -> Principal:
    if row.revoked_at is not None:
        raise KeyRevoked("This key was revoked. Use another, or ask an operator for a new one.")
    if row.expires_at is not None and row.expires_at <= now:
        raise KeyExpired("This key has expired. Ask an operator for a new one.")
    return Principal(
        key_id=row.id,
        kind=row.kind,
        owner_id=row.owner_id,
        mode=row.mode,
        owner_state=row.owner_state,
        rate_per_minute=row.rate_per_minute,
        opened=opened_of(row.opened_by, row.opened_reason),
    )


def opened_of(by: str | None, reason: str | None) -> UnconfirmedAccess | None:
    """Return the operator who made an access and the reason, from the columns of its row; None for the tenant's own."""
    return None if by is None else UnconfirmedAccess(by=by, reason=reason or "")
