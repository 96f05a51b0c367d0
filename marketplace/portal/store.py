"""Queries of the portal as typed functions: members, sessions, one-time links, failed attempts to sign in."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row, violated
from marketplace.runtime.errors import Conflict
from marketplace.security.auth import CallerKind, UnconfirmedAccess, opened_of

SQL = Queries(__file__)


class Role(StrEnum):
    """Rights of a member, from most to least."""

    owner = "owner"
    """May do everything, and manages the team."""
    member = "member"
    """May do everything except manage the team."""
    viewer = "viewer"
    """May see everything and change nothing."""


class SessionState(StrEnum):
    """Steps that remain before a session gives access."""

    open = "open"
    """Signed in; no step remains."""
    code_due = "code_due"
    """A code of the second factor is due."""
    factor_due = "factor_due"
    """The member must set up a second factor."""


class Purpose(StrEnum):
    """Use of a one-time link."""

    invite = "invite"
    """Become a member."""
    reset = "reset"
    """Choose a new password."""
    enter = "enter"
    """Sign in without a password; such links are made only on the server's command line."""
    set_up = "set_up"
    """Become the first operator."""
    sign_up = "sign_up"
    """Sign up a new business, and become its owner."""
    factor = "factor"
    """Replace the second factor, with the password; for a member who lost the phone."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A person with access to the portal: for one provider, for one business, or as an operator."""

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
    """Credentials of a member: password hash, sealed second factor, and the time step of its last used code."""

    id: UUID
    kind: CallerKind
    state: str
    password_hash: str | None
    totp: bytes | None
    totp_step: int | None
    totp_confirmed_at: datetime | None


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session and its member. `zone` is the member's own, else that of the business, else UTC."""

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
    """A link that works once.

    An `invite` names the account, role and address; `reset`, `enter` and `factor` name the member; a `sign_up` names
    the currency of the new business.
    """

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
    currency: str | None = None

    @property
    def opened(self) -> UnconfirmedAccess | None:
        """Operator who made the link for a tenant's account, with the reason; None for a link of the tenant itself."""
        return opened_of(self.opened_by, self.opened_reason)


class AccountAuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the audit log, as the members of the account see it."""

    id: UUID
    at: datetime
    actor: str
    action: str
    object: str


# Members


async def insert_member(connection: Connection, member: Member, password_hash: str | None) -> None:
    """Insert a member. Raises Conflict if the e-mail address belongs to a member of any account."""
    try:
        await connection.execute(
            SQL["insert_member"],
            member.id,
            member.kind,
            member.owner_id,
            member.email,
            member.name,
            member.role,
            password_hash,
            member.created_at,
        )
    except asyncpg.UniqueViolationError as error:
        if violated(error) != "member_email_key":
            raise
        raise Conflict("This invitation cannot be used. Ask for one to another e-mail address.") from error


async def find_member(connection: Connection, member_id: UUID) -> Member | None:
    return await find_row(connection, SQL["find_member"], Member, member_id)


async def find_member_by_email(connection: Connection, email: str) -> Member | None:
    return await find_row(connection, SQL["find_member_by_email"], Member, email)


async def list_members(
    connection: Connection, kind: CallerKind, owner_id: UUID | None, after: UUID | None, limit: int
) -> tuple[Member, ...]:
    return await fetch_rows(connection, SQL["list_members"], Member, kind, owner_id, after, limit)


async def find_owner(connection: Connection, kind: CallerKind, owner_id: UUID | None) -> str | None:
    """Return the name of a business or provider, or None."""
    name: str | None = await connection.fetchval(SQL["find_owner"], kind, owner_id)
    return name


async def count_operators(connection: Connection) -> int:
    operators: int = await connection.fetchval(SQL["count_operators"])
    return operators


async def lock_owners(connection: Connection, kind: CallerKind, owner_id: UUID | None) -> tuple[UUID, ...]:
    """Lock and return the active owners of an account, so that two cannot leave at once and none remain."""
    return tuple(row["id"] for row in await connection.fetch(SQL["lock_owners"], kind, owner_id))


async def mark_member(connection: Connection, member_id: UUID, role: Role | None, state: str | None) -> None:
    await connection.execute(SQL["mark_member"], member_id, role, state)


async def mark_profile(connection: Connection, member_id: UUID, name: str, zone: str | None) -> None:
    await connection.execute(SQL["mark_profile"], member_id, name, zone)


async def find_credentials(connection: Connection, email: str) -> Credentials | None:
    return await find_row(connection, SQL["find_credentials"], Credentials, email)


async def lock_credentials(connection: Connection, member_id: UUID) -> Credentials | None:
    return await find_row(connection, SQL["lock_credentials"], Credentials, member_id)


async def mark_password(connection: Connection, member_id: UUID, password_hash: str) -> None:
    await connection.execute(SQL["mark_password"], member_id, password_hash)


async def activate_factor(connection: Connection, member_id: UUID, sealed: bytes, step: int, now: datetime) -> None:
    """Replace the member's second factor; `step` is the time step of its first code."""
    await connection.execute(SQL["activate_factor"], member_id, sealed, step, now)


async def delete_factor(connection: Connection, member_id: UUID) -> None:
    """Remove the member's second factor."""
    await connection.execute(SQL["activate_factor"], member_id, None, None, None)


async def mark_code_used(connection: Connection, member_id: UUID, step: int) -> bool:
    """Mark the code of a time step as used. Return whether it was unused."""
    used: bool | None = await connection.fetchval(SQL["mark_code_used"], member_id, step)
    return used is not None


async def find_epoch(connection: Connection) -> float:
    """Return the time of the database, which all processes share, in seconds since 1970."""
    epoch: float = await connection.fetchval(SQL["find_epoch"])
    return epoch


# Sessions


async def insert_session(
    connection: Connection, id_hash: bytes, member_id: UUID, state: SessionState, device: str, minutes: int
) -> None:
    await connection.execute(SQL["insert_session"], id_hash, member_id, state, device, minutes)


async def find_session(connection: Connection, id_hash: bytes, idle_minutes: int) -> Session | None:
    """Return a session; None if it has expired, was unused for `idle_minutes`, or its member is disabled."""
    return await find_row(connection, SQL["find_session"], Session, id_hash, idle_minutes)


async def mark_session_factor(connection: Connection, id_hash: bytes, member_id: UUID, sealed: bytes) -> None:
    """Store a new second factor in the session that set it up, where it waits for its first code."""
    await connection.execute(SQL["mark_session_factor"], id_hash, member_id, sealed)


async def find_session_factor(connection: Connection, id_hash: bytes, member_id: UUID) -> bytes | None:
    """Return the sealed second factor that waits for its first code in this session, or None."""
    sealed: bytes | None = await connection.fetchval(SQL["find_session_factor"], id_hash, member_id)
    return sealed


async def mark_seen(connection: Connection, id_hash: bytes) -> None:
    await connection.execute(SQL["mark_seen"], id_hash)


async def mark_mode(connection: Connection, id_hash: bytes, mode: str) -> None:
    await connection.execute(SQL["mark_mode"], id_hash, mode)


async def delete_session(connection: Connection, id_hash: bytes, member_id: UUID) -> bool:
    """Delete a session of this member. Return whether there was one."""
    deleted: bool | None = await connection.fetchval(SQL["delete_session"], id_hash, member_id)
    return deleted is not None


async def delete_sessions(connection: Connection, member_id: UUID) -> None:
    await connection.execute(SQL["delete_sessions"], member_id)


async def delete_ended(connection: Connection) -> None:
    """Delete up to 100 expired sessions and 100 attempts that are a day old; called at each sign-in."""
    await connection.execute(SQL["delete_ended_sessions"])
    await connection.execute(SQL["delete_old_tries"])


async def list_sessions(connection: Connection, member_id: UUID) -> tuple[OpenSession, ...]:
    return await fetch_rows(connection, SQL["list_sessions"], OpenSession, member_id)


# One-time links


async def insert_link(connection: Connection, token_hash: bytes, link: OneTimeLink) -> None:
    await connection.execute(
        SQL["insert_link"],
        token_hash,
        link.purpose,
        link.member_id,
        link.kind,
        link.owner_id,
        link.role,
        link.email,
        link.made_by,
        link.made_at,
        link.expires_at,
        link.opened_by,
        link.opened_reason,
        link.currency,
    )


async def find_link(connection: Connection, token_hash: bytes) -> OneTimeLink | None:
    return await find_row(connection, SQL["find_link"], OneTimeLink, token_hash)


async def mark_link_used(connection: Connection, token_hash: bytes) -> bool:
    """Mark a link as used. Return whether this call did it: of two calls at once, only one does."""
    used: bool | None = await connection.fetchval(SQL["mark_link_used"], token_hash)
    return used is not None


async def mark_links_dead(connection: Connection, member_id: UUID) -> None:
    await connection.execute(SQL["mark_links_dead"], member_id)


async def list_invitations(connection: Connection, kind: CallerKind, owner_id: UUID | None) -> tuple[OneTimeLink, ...]:
    return await fetch_rows(connection, SQL["list_invitations"], OneTimeLink, kind, owner_id)


# Attempts to sign in


async def insert_try(connection: Connection, name: bytes) -> bool:
    """Count an attempt under `name` before it is made. Return False if the wait of earlier failures is not over."""
    failures: int | None = await connection.fetchval(SQL["insert_try"], name)
    return failures is not None


async def find_wait(connection: Connection, name: bytes) -> int:
    """Return the seconds until the next attempt under `name` is allowed, at least one."""
    seconds: int | None = await connection.fetchval(SQL["find_wait"], name)
    return max(1, seconds or 1)


async def delete_try(connection: Connection, name: bytes) -> None:
    await connection.execute(SQL["delete_try"], name)


# Audit


async def list_changes(
    connection: Connection, actors: tuple[str, ...], subjects: tuple[str, ...], after: UUID | None, limit: int
) -> tuple[AccountAuditEntry, ...]:
    """List the audit rows of changes by `actors` or to `subjects`, newest first."""
    return await fetch_rows(
        connection, SQL["list_changes"], AccountAuditEntry, list(actors), list(subjects), after, limit
    )
