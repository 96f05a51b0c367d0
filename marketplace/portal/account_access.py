"""Page of the access that the marketplace opened to a tenant's account, where the owners confirm or end it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from markupsafe import Markup
from msgspec import Meta

from marketplace.database.db import Connection, session, transaction
from marketplace.directory import flow as directory_flow
from marketplace.directory import going_live
from marketplace.directory.store import TenantScope
from marketplace.portal import flow, store
from marketplace.portal.forms import submitted
from marketplace.portal.frame import badge, page, redirect, words
from marketplace.portal.listing import Column, Listing
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.store import Role
from marketplace.runtime import errors
from marketplace.security import access
from marketplace.security.access import AccessKind, OperatorAccess
from marketplace.security.auth import CallerKind, Principal
from marketplace.web.http import AnyRequest, services

HOME = "/account/access"
ENDED = "Ended by an owner of the account."


class AccessForm(msgspec.Struct, frozen=True, kw_only=True):
    """An owner's decision on one access; `subject` is its id."""

    act: Literal["confirm", "end"]
    subject: Annotated[str, Meta(max_length=40)]


@get(HOME)
async def show_access(request: AnyRequest) -> Response[bytes]:
    """Show each access that the marketplace opened, and the reason; an owner confirms or ends it."""
    viewer = await visitor(request)
    if viewer.owner_id is None:
        return redirect(request, "/operator/compliance/reveals")
    async with session(services(request).pool) as connection:
        rows = await access.list_opened(connection, viewer.kind, viewer.owner)
        names = await _names(connection, rows)
    decides = viewer.keeps_team and viewer.opened is None
    return page(request, viewer, "access.html", listing=access_listing(names), rows=rows, decides=decides)


def access_listing(names: Mapping[str, str]) -> Listing[OperatorAccess]:
    """Return the list of access that the marketplace added. `names` are those of the operators."""

    def state(row: OperatorAccess) -> Markup:
        if not row.active:
            return badge("Ended", "muted")
        return badge("Confirmed", "good") if row.confirmed_at else badge("Not confirmed", "warn")

    return Listing(
        caption="Marketplace access",
        columns=(
            Column("Type", lambda row: words(row.way)),
            Column("Name", lambda row: row.name),
            Column("Added by", lambda row: names[row.opened_by]),
            Column("Reason", lambda row: row.reason),
            Column("Added", lambda row: row.opened_at),
            Column("State", state),
        ),
    )


async def _names(connection: Connection, rows: tuple[OperatorAccess, ...]) -> dict[str, str]:
    """Return the names of the operators who opened access, by their public ids."""
    operators = await store.list_members(connection, CallerKind.operator, None, None, access.MOST_LISTED)
    by_id = {access.public_id(AccessKind.member, str(member.id)): member.name for member in operators}
    return {row.opened_by: by_id.get(row.opened_by, "The marketplace") for row in rows}


@post(HOME)
async def decide_access(request: AnyRequest) -> Response[bytes]:
    """Confirm an access as the account's own, or end it at once."""
    viewer, form = await submitted(request, AccessForm, CallerKind.business, CallerKind.provider, role=Role.owner)
    if viewer.opened is not None:
        raise errors.RoleMissing("The marketplace gave you access. Another owner of the account must decide this.")
    pool = services(request).pool
    if form.act == "confirm":
        async with transaction(pool) as connection:
            await access.confirm(connection, form.subject, viewer.kind, viewer.owner, viewer.actor)
        return redirect(request, HOME, "Confirmed. It belongs to your account now.")
    async with session(pool) as connection:
        rows = await access.list_opened(connection, viewer.kind, viewer.owner)
    row = next((row for row in rows if row.subject == form.subject), None)
    if row is None:
        raise errors.NotFound("There is no such access to end.")
    await _end(request, viewer, row)
    return redirect(request, HOME, "Ended. It no longer gives access to your account.")


async def _end(request: AnyRequest, viewer: Viewer, row: OperatorAccess) -> None:
    pool, owner_id = services(request).pool, viewer.owner
    match row.way:
        case AccessKind.member:
            member = await flow.load_colleague(pool, UUID(row.subject), viewer.kind, owner_id)
            await flow.change_member(pool, viewer.actor, member, None, "disabled")
        case AccessKind.key:
            await going_live.revoke_own_key(pool, viewer.actor, owner_id, row.subject, ENDED)
        case AccessKind.endpoint:
            caller = Principal(key_id=viewer.actor, kind=viewer.kind, owner_id=owner_id, mode="live")
            reach = TenantScope(business_id=owner_id, mode=None)
            await directory_flow.switch_endpoint(pool, caller, reach, UUID(row.subject), "disabled", ENDED)


handlers: tuple[Any, ...] = (show_access, decide_access)
