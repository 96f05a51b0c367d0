"""Credentials and members that the operator made for a tenant, and the audit of the contact data read through them.

An operator invites members, makes password links, keys and endpoints for a tenant, and could use each of them. The
owners of the account are therefore told of each, with its reason. Until an owner confirms it, every contact read
through it is audited as shown to the operator who made it. What such a member or key creates in turn counts as made by
the same operator.

Nothing is confirmed for an account that has no active owner and was shown no lead yet: setting it up is the operator's
task.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.security.auth import CallerKind, UnconfirmedAccess
from marketplace.text.faults import Fault, FaultCode

SQL = Queries(__file__, "access.sql")

REVEALED: Final = "contact.reveal"
"Action of every audit row about contact data that was shown to an operator."
SET_UP: Final = "Made while the account was set up."
MOST_LISTED: Final = 500

_PREFIXES: Final = {CallerKind.business: "biz", CallerKind.provider: "prov"}


class AccessKind(StrEnum):
    """Kinds of access to a tenant's account."""

    member = "member"
    key = "key"
    endpoint = "endpoint"


class OperatorAccess(msgspec.Struct, frozen=True, kw_only=True):
    """One access to a tenant's account that an operator made, as the tenant sees it."""

    subject: str
    kind: CallerKind
    owner_id: UUID
    way: AccessKind
    opened_by: str
    reason: str
    opened_at: datetime
    confirmed_at: datetime | None
    name: str
    active: bool


def opened_by(
    actor: str, kind: CallerKind, opened: UnconfirmedAccess | None, reason: str | None
) -> UnconfirmedAccess | None:
    """Return the operator responsible for what this caller creates, with the reason; None for a tenant's own caller.

    `opened` is the operator who made the caller's own access, if no owner has confirmed that yet.
    """
    if kind is not CallerKind.operator and opened is None:
        return None
    stated = (reason or "").strip()
    if opened is None:
        return UnconfirmedAccess(by=actor, reason=stated)
    return UnconfirmedAccess(by=opened.by, reason=stated or opened.reason)


async def demand_reason(
    connection: Connection, kind: CallerKind, owner_id: UUID, opened: UnconfirmedAccess | None
) -> None:
    """Raise InvalidInput when an operator creates access to an account in use without a reason."""
    if opened is not None and not opened.reason and await is_in_use(connection, kind, owner_id):
        detail = "Say why. The owners of the account see this reason, and who made it."
        raise errors.InvalidInput((Fault(pointer="/reason", code=FaultCode.field_missing, detail=detail),))


async def is_in_use(connection: Connection, kind: CallerKind, owner_id: UUID) -> bool:
    """Return whether the account has an active owner or was shown a lead."""
    used: bool = await connection.fetchval(SQL["is_in_use"], kind, owner_id)
    return used


async def record_opened(
    connection: Connection,
    way: AccessKind,
    subject: UUID | str,
    kind: CallerKind,
    owner_id: UUID,
    opened: UnconfirmedAccess | None,
) -> None:
    """Record access that an operator made, for the account's owners to confirm, in the transaction that creates it.

    Does nothing for access that a tenant made and for an account that is not in use. Call it before the new member is
    inserted.
    """
    if opened is None or not await is_in_use(connection, kind, owner_id):
        return
    now, reason = clock.now(), opened.reason or SET_UP
    await connection.execute(SQL["save_opened"], str(subject), kind, owner_id, way, opened.by, reason, now)
    account, public = ids.encode(_PREFIXES[kind], owner_id), public_id(way, str(subject))
    await audit.record(connection, now, opened.by, "access.open", account, way=way, of=public, reason=reason)


def public_id(way: AccessKind, subject: str) -> str:
    """Return the id of a member, endpoint or key as the API and the pages show it."""
    match way:
        case AccessKind.member:
            return ids.encode("mem", UUID(subject))
        case AccessKind.endpoint:
            return ids.encode("whe", UUID(subject))
        case AccessKind.key:
            return subject


async def is_unconfirmed(connection: Connection, subject: UUID) -> bool:
    """Return whether an operator made this access and no owner has confirmed it."""
    unconfirmed: bool = await connection.fetchval(SQL["is_unconfirmed"], str(subject))
    return unconfirmed


async def list_opened(connection: Connection, kind: CallerKind, owner_id: UUID) -> tuple[OperatorAccess, ...]:
    """Return operators' access to this account, unconfirmed first, then the newest; at most MOST_LISTED."""
    return await fetch_rows(connection, SQL["list_opened"], OperatorAccess, kind, owner_id, MOST_LISTED)


async def confirm(connection: Connection, subject: str, kind: CallerKind, owner_id: UUID, actor: str) -> None:
    """Record that an owner confirms this access. Raises NotFound when it is another account's or already confirmed."""
    now = clock.now()
    way = await connection.fetchval(SQL["mark_confirmed"], subject, kind, owner_id, actor, now)
    if way is None:
        raise errors.NotFound("There is nothing to confirm with this id.")
    account, public = ids.encode(_PREFIXES[kind], owner_id), public_id(AccessKind(way), subject)
    await audit.record(connection, now, actor, "access.confirm", account, way=way, of=public)


async def record_reveals(
    connection: Connection, opened: UnconfirmedAccess | None, via: str, leads: Sequence[UUID]
) -> None:
    """Audit each lead whose contact is about to be read through unconfirmed access that an operator made.

    `via` is the public id of the member or key. Does nothing when `opened` is None: the access is the tenant's own.
    """
    if opened is None or not leads:
        return
    detail = msgspec.json.encode({"reason": opened.reason, "via": via})
    row_ids, objects = [clock.new_id() for _ in leads], [ids.encode("lead", lead) for lead in leads]
    await connection.execute(SQL["insert_reveals"], row_ids, objects, clock.now(), opened.by, detail)
