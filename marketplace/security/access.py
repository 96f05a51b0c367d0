"""Ways into a tenant's account that the marketplace made, and the record of what is read through them.

An operator invites members, makes links for new passwords, keys and endpoints for a tenant, and could use each of them
alone. Such a way in is told to the owners of the account, with its reason. Until one of them confirms it, every contact
that is read through it is a reveal on the record of whoever made it, as a contact shown at the returns desk is. What it
opens in turn (an invitation by such a member, an endpoint made with such a key) is opened by the same operator.

The first ways into an account that nobody runs yet and that was shown no lead are how a tenant is set up, and are the
tenant's own.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, convert_many
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.security.auth import CallerKind, UnconfirmedAccess
from marketplace.text.faults import Fault, FaultCode

SQL = Queries(__file__, "access.sql")

REVEALED: Final = "contact.reveal"
"The action of every audit row that tells of contact data shown to an operator."
SET_UP: Final = "Made while the account was set up."
MOST_LISTED: Final = 500

_PREFIXES: Final = {CallerKind.business: "biz", CallerKind.provider: "prov"}


class AccessKind(StrEnum):
    """Kinds of ways into an account."""

    member = "member"
    key = "key"
    endpoint = "endpoint"


class OperatorAccess(msgspec.Struct, frozen=True, kw_only=True):
    """One way into a tenant's account that the marketplace made, as the tenant sees it."""

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
    """Return who opens what this actor makes: an operator, or whoever opened the actor's own way in; else None."""
    if kind is not CallerKind.operator and opened is None:
        return None
    return UnconfirmedAccess(
        by=actor if opened is None else opened.by, reason=(reason or "").strip() or _reason_of(opened)
    )


def _reason_of(opened: UnconfirmedAccess | None) -> str:
    return "" if opened is None else opened.reason


async def demand_reason(
    connection: Connection, kind: CallerKind, owner_id: UUID, opened: UnconfirmedAccess | None
) -> None:
    """Raises InvalidInput where an operator opens a way into an account that is in use and gives no reason."""
    if opened is not None and not opened.reason and await is_in_use(connection, kind, owner_id):
        detail = "Say why. The owners of the account see this reason, and who made it."
        raise errors.InvalidInput((Fault(pointer="/reason", code=FaultCode.field_missing, detail=detail),))


async def is_in_use(connection: Connection, kind: CallerKind, owner_id: UUID) -> bool:
    """Return whether somebody runs this account, or it has been shown a lead."""
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
    """Tell the account's owners of a new way in, in the transaction that makes it.

    Nothing for what a tenant made, or was made while the account was set up. Call it before the new member is there.
    """
    if opened is None or not await is_in_use(connection, kind, owner_id):
        return
    now, reason = clock.now(), opened.reason or SET_UP
    await connection.execute(SQL["save_opened"], str(subject), kind, owner_id, way, opened.by, reason, now)
    account, public = ids.encode(_PREFIXES[kind], owner_id), public_id(way, str(subject))
    await audit.record(connection, now, opened.by, "access.open", account, way=way, of=public, reason=reason)


def public_id(way: AccessKind, subject: str) -> str:
    """Id of a way in as people see it."""
    match way:
        case AccessKind.member:
            return ids.encode("mem", UUID(subject))
        case AccessKind.endpoint:
            return ids.encode("whe", UUID(subject))
        case AccessKind.key:
            return subject


async def is_unconfirmed(connection: Connection, subject: UUID) -> bool:
    """Return whether the marketplace made this way in and no owner has confirmed it."""
    unconfirmed: bool = await connection.fetchval(SQL["is_unconfirmed"], str(subject))
    return unconfirmed


async def list_opened(connection: Connection, kind: CallerKind, owner_id: UUID) -> tuple[OperatorAccess, ...]:
    """Ways into this account that the marketplace made, those to be confirmed first."""
    rows = await connection.fetch(SQL["list_opened"], kind, owner_id, MOST_LISTED)
    return await convert_many(rows, OperatorAccess)


async def confirm(connection: Connection, subject: str, kind: CallerKind, owner_id: UUID, actor: str) -> None:
    """An owner says that this way in is the account's own. Raises NotFound for another's, or one confirmed before."""
    now = clock.now()
    way = await connection.fetchval(SQL["mark_confirmed"], subject, kind, owner_id, actor, now)
    if way is None:
        raise errors.NotFound("There is nothing to confirm with this id.")
    account, public = ids.encode(_PREFIXES[kind], owner_id), public_id(AccessKind(way), subject)
    await audit.record(connection, now, actor, "access.confirm", account, way=way, of=public)


async def record_reveals(
    connection: Connection, opened: UnconfirmedAccess | None, via: str, leads: Sequence[UUID]
) -> None:
    """Write a reveal for each lead whose contact is about to be read through a way that an operator opened.

    `via` is the public id of the member or key. Nothing where the way in is the tenant's own.
    """
    if opened is None or not leads:
        return
    detail = msgspec.json.encode({"reason": opened.reason, "via": via})
    row_ids, objects = [clock.new_id() for _ in leads], [ids.encode("lead", lead) for lead in leads]
    await connection.execute(SQL["insert_reveals"], row_ids, objects, clock.now(), opened.by, detail)
