"""The statements of the portal as typed functions: members, sessions, links that work once, tries that failed."""

from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Connection, Queries, convert_many, violated
from marketplace.runtime.errors import Conflict
from marketplace.security.auth import CallerKind, UnconfirmedAccess, opened_of

SQL = Queries(__file__)

T = TypeVar("T")


class Role(StrEnum):
    """How far a member may go, from most to least."""

    owner = "owner"
    """Everything, and keeps the team."""
    member = "member"
    """Everything but the team."""
    viewer = "viewer"
    """Looks, and changes nothing."""


class SessionState(StrEnum):
    """What a session still asks for before it leads anywhere."""

    open = "open"
    """Nothing: it is signed in."""
    code_due = "code_due"
    """The second factor's code."""
    factor_due = "factor_due"
    """A second factor, which this member must have and has not got yet."""


class Purpose(StrEnum):
    """What a link that works once is for."""

    invite = "invite"
    """Become a member."""
    reset = "reset"
    """Choose a new password."""
    enter = "enter"
    """Come in without one; made on the machine itself alone."""
    set_up = "set_up"
    """Become the first operator."""
    factor = "factor"
    """Set up another second factor, besides the password: for a member who lost the phone."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A person with access: of one provider, of one business, or an operator."""

    id: UUID
    kind: CallerKind
    owner_id: UUID | None
    email: str
    name: str
    role: Role
    state: str
    zone: str | None
    has_password: bool
    has_factor: bool
    created_at: datetime


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What a member signs in with: the hash of a password, a sealed second factor and the last step used of it."""

    id: UUID
    kind: CallerKind
    state: str
    password_hash: str | None
    totp: bytes | None
    totp_step: int | None
    totp_confirmed_at: datetime | None


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session with whom it belongs to. `zone` is the member's own, else the business's, else UTC."""

    id_hash: bytes
    member_id: UUID
    state: SessionState
    mode: str
    device: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    kind: CallerKind
    owner_id: UUID | None
    owner_name: str
    owner_state: str
    name: str
    email: str
    role: Role
    zone: str
    has_factor: bool
    opened_by: str | None
    opened_reason: str | None


class OpenSession(msgspec.Struct, frozen=True, kw_only=True):
    """One of a member's sessions, as the member sees them."""

    id_hash: bytes
    device: str
    created_at: datetime
    seen_at: datetime


class OneTimeLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link that works once. Of `invite`: for whom; of `reset`, `enter` and `factor`: whose."""

    purpose: Purpose
    member_id: UUID | None
    kind: CallerKind | None
    owner_id: UUID | None
    role: Role | None
    email: str | None
    made_by: str
    made_at: datetime
    expires_at: datetime
    used_at: datetime | None
    expired: bool
    opened_by: str | None = None
    opened_reason: str | None = None

    @property
    def opened(self) -> UnconfirmedAccess | None:
        """The operator who made the link for a tenant's account, and why; None for the tenant's own."""
        return opened_of(self.opened_by, self.opened_reason)


class AccountAuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the audit, as the account's own members see it."""

    id: UUID
    at: datetime
    actor: str
    action: str
    object: str


def _one(row: Any, shape: type[T]) -> T | None:
    return msgspec.convert(dict(row), shape) if row else None


# Members


async def insert_member(connection: Connection, member: Member, password_hash: str | None) -> None:
    """Raises Conflict for an address that is a member's already, of whichever account."""
    try:
        await connection.execute(
            SQL["insert_member"], member.id, member.kind, member.owner_id, member.email, member.name, member.role,
            password_hash, member.created_at,
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        if violated(error) != "member_email_key":
            raise
        raise Conflict("This invitation cannot be used. Ask for one to another e-mail address.") from error


async def find_member(connection: Connection, member_id: UUID) -> Member | None:
    return _one(await connection.fetchrow(SQL["find_member"], member_id), Member)


async def find_member_by_email(connection: Connection, email: str) -> Member | None:
    return _one(await connection.fetchrow(SQL["find_member_by_email"], email), Member)


async def list_members(
    connection: Connection, kind: CallerKind, owner_id: UUID | None, after: UUID | None, limit: int
) -> tuple[Member, ...]:
    return await convert_many(await connection.fetch(SQL["list_members"], kind, owner_id, after, limit), Member)


async def find_owner(connection: Connection, kind: CallerKind, owner_id: UUID | None) -> str | None:
    """The name of a tenant; None where there is no such one."""
    found: str | None = await connection.fetchval(SQL["find_owner"], kind, owner_id)
    return found


async def count_operators(connection: Connection) -> int:
    found: int = await connection.fetchval(SQL["count_operators"])
    return found


async def lock_owners(connection: Connection, kind: CallerKind, owner_id: UUID | None) -> tuple[UUID, ...]:
    """The active owners of one account, locked, so that the last one cannot leave twice at once."""
    return tuple(row["id"] for row in await connection.fetch(SQL["lock_owners"], kind, owner_id))


async def mark_member(connection: Connection, member_id: UUID, role: Role | None, state: str | None) -> None:
    await connection.execute(SQL["mark_member"], member_id, role, state)


async def mark_profile(connection: Connection, member_id: UUID, name: str, zone: str | None) -> None:
    await connection.execute(SQL["mark_profile"], member_id, name, zone)


async def find_credentials(connection: Connection, email: str) -> Credentials | None:
    return _one(await connection.fetchrow(SQL["find_credentials"], email), Credentials)


async def lock_credentials(connection: Connection, member_id: UUID) -> Credentials | None:
    return _one(await connection.fetchrow(SQL["lock_credentials"], member_id), Credentials)


async def mark_password(connection: Connection, member_id: UUID, password_hash: str) -> None:
    await connection.execute(SQL["mark_password"], member_id, password_hash)


async def activate_factor(connection: Connection, member_id: UUID, sealed: bytes, step: int, now: datetime) -> None:
    """Replace the member's second factor by one whose code of `step` was seen."""
    await connection.execute(SQL["activate_factor"], member_id, sealed, step, now)


async def delete_factor(connection: Connection, member_id: UUID) -> None:
    """Take the member's second factor away."""
    await connection.execute(SQL["activate_factor"], member_id, None, None, None)


async def mark_code_used(connection: Connection, member_id: UUID, step: int) -> bool:
    """Return whether this step's code of the active factor was still unused, and use it up."""
    used: bool | None = await connection.fetchval(SQL["mark_code_used"], member_id, step)
    return used is not None


async def find_epoch(connection: Connection) -> float:
    """The database's clock, which all processes share, in seconds since 1970."""
    found: float = await connection.fetchval(SQL["find_epoch"])
    return found


# Sessions


async def insert_session(
    connection: Connection, id_hash: bytes, member_id: UUID, state: SessionState, device: str, minutes: int
) -> None:
    await connection.execute(SQL["insert_session"], id_hash, member_id, state, device, minutes)


async def find_session(connection: Connection, id_hash: bytes, idle_minutes: int) -> Session | None:
    """None for one that has ended, by either clock, or whose member is disabled."""
    return _one(await connection.fetchrow(SQL["find_session"], id_hash, idle_minutes), Session)


async def mark_session_factor(connection: Connection, id_hash: bytes, member_id: UUID, sealed: bytes) -> None:
    """Keep a new second factor in the session that began it, until its first code is proven there."""
    await connection.execute(SQL["mark_session_factor"], id_hash, member_id, sealed)


async def find_session_factor(connection: Connection, id_hash: bytes, member_id: UUID) -> bytes | None:
    """Return the sealed factor that waits for its first code in this session, or None."""
    sealed: bytes | None = await connection.fetchval(SQL["find_session_factor"], id_hash, member_id)
    return sealed


async def mark_seen(connection: Connection, id_hash: bytes) -> None:
    await connection.execute(SQL["mark_seen"], id_hash)


async def mark_mode(connection: Connection, id_hash: bytes, mode: str) -> None:
    await connection.execute(SQL["mark_mode"], id_hash, mode)


async def delete_session(connection: Connection, id_hash: bytes, member_id: UUID) -> bool:
    """Whether there was one, of this very member."""
    found: bool | None = await connection.fetchval(SQL["delete_session"], id_hash, member_id)
    return found is not None


async def delete_sessions(connection: Connection, member_id: UUID) -> None:
    await connection.execute(SQL["delete_sessions"], member_id)


async def delete_ended(connection: Connection) -> None:
    """What nobody needs any more: sessions over, tries a day old. A few at a time, whenever somebody signs in."""
    await connection.execute(SQL["delete_ended_sessions"])
    await connection.execute(SQL["delete_old_tries"])


async def list_sessions(connection: Connection, member_id: UUID) -> tuple[OpenSession, ...]:
    return await convert_many(await connection.fetch(SQL["list_sessions"], member_id), OpenSession)


# Links that work once


async def insert_link(connection: Connection, token_hash: bytes, link: OneTimeLink) -> None:
    await connection.execute(
        SQL["insert_link"], token_hash, link.purpose, link.member_id, link.kind, link.owner_id, link.role, link.email,
        link.made_by, link.made_at, link.expires_at, link.opened_by, link.opened_reason,
    )  # fmt: skip


async def find_link(connection: Connection, token_hash: bytes) -> OneTimeLink | None:
    return _one(await connection.fetchrow(SQL["find_link"], token_hash), OneTimeLink)


async def mark_link_used(connection: Connection, token_hash: bytes) -> bool:
    """Whether this call used it: of two at once, one."""
    found: bool | None = await connection.fetchval(SQL["mark_link_used"], token_hash)
    return found is not None


async def mark_links_dead(connection: Connection, member_id: UUID) -> None:
    await connection.execute(SQL["mark_links_dead"], member_id)


async def list_invitations(connection: Connection, kind: CallerKind, owner_id: UUID | None) -> tuple[OneTimeLink, ...]:
    return await convert_many(await connection.fetch(SQL["list_invitations"], kind, owner_id), OneTimeLink)


# Tries


async def insert_try(connection: Connection, name: bytes) -> bool:
    """Counts one more try under `name` before it is made; False while it is too early for one."""
    found: int | None = await connection.fetchval(SQL["insert_try"], name)
    return found is not None


async def find_wait(connection: Connection, name: bytes) -> int:
    """Whole seconds until the next try under `name` is heard, at least one."""
    found: int | None = await connection.fetchval(SQL["find_wait"], name)
    return max(1, found or 1)


async def delete_try(connection: Connection, name: bytes) -> None:
    await connection.execute(SQL["delete_try"], name)


# Audit


async def list_changes(
    connection: Connection, actors: tuple[str, ...], subjects: tuple[str, ...], after: UUID | None, limit: int
) -> tuple[AccountAuditEntry, ...]:
    """What these members did, and what was done to `subjects`, newest first."""
    rows = await connection.fetch(SQL["list_changes"], list(actors), list(subjects), after, limit)
    return await convert_many(rows, AccountAuditEntry)
