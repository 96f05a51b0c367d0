"""HTTP API of revocations: by operators and providers, and by signed messages of services that receive STOP.

No answer says whether there is such a person, and none repeats a phone number or an e-mail address.
"""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory.suppressions import Person, marks_of, person_faults
from marketplace.directory.wire import Name, provide_configuration
from marketplace.feedback.http import SIGNED_BY, read_webhook_id, signed_header
from marketplace.revocations import flow as revocations_flow
from marketplace.revocations import store as revocations_store
from marketplace.revocations.store import Revocation, RevocationRow
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind, Principal, Scope
from marketplace.text.faults import Fault, FaultCode
from marketplace.web.api import Caller, Injected, api_router, list_page, require
from marketplace.web.http import AnyRequest, Page, Services, count_failure, page_cursor, page_limit, parse, raw_body
from marketplace.web.openapi import RouteDoc, id_of, paged
from routing.consent import Channel

HOOK_PATH: Final = "/in/revocations"
OPERATOR: Final = "operator"
"Stands for the operator in the path of its hook."
NOBODY: Final = UUID(int=1)
"Stands for an unknown provider. It has no hook, so its signature is refused like any wrong one."

REVOKER: Final = require(Scope.operate, Scope.leads_write)


class StopMessage(Person, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a signed STOP message: a person by phone, e-mail or both. Without `channels` it is of all channels."""

    channels: Annotated[tuple[Channel, ...], Meta(max_length=4)] = ()
    reason: Name = "STOP"


class NewRevocation(Person, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/revocations: a person by phone, e-mail or both, or the person of one lead.

    Without `channels` it is of all channels, and the person is suppressed as well.
    """

    lead_id: Annotated[str, Meta(max_length=64)] | None = None
    channels: Annotated[tuple[Channel, ...], Meta(max_length=4)] = ()
    reason: Name


class RevocationView(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded revocation. It is the same for a person of whom nothing is known. No channels means all."""

    id: str
    revoked_at: datetime
    channels: tuple[Channel, ...]


class RevocationSummary(RevocationView, frozen=True, kw_only=True):
    """A revocation with the number of its leads, and of the notices to businesses that were shown one."""

    requested_by: str
    reason: str
    mode: str
    leads: int
    notices: int
    acknowledged: int
    overdue: int


class RevocationHookSecret(msgspec.Struct, frozen=True, kw_only=True):
    """The secret for signed STOP messages, which only this answer holds. The previous one stays valid for a day."""

    path: str
    secret: str
    previous_secret_until: datetime | None


def _show(revocation: Revocation) -> RevocationView:
    return RevocationView(
        id=ids.encode("rev", revocation.id), revoked_at=revocation.revoked_at, channels=revocation.channels
    )


def _summarize(row: RevocationRow) -> RevocationSummary:
    return RevocationSummary(
        id=ids.encode("rev", row.id),
        revoked_at=row.revoked_at,
        channels=row.channels,
        requested_by=row.requested_by,
        reason=row.reason,
        mode=row.mode,
        leads=row.leads,
        notices=row.notices,
        acknowledged=row.acknowledged,
        overdue=row.overdue,
    )


def _content_faults(revocation: NewRevocation) -> tuple[Fault, ...]:
    """Return the faults of a body that names both a lead and a person, or neither, or no valid person."""
    if revocation.lead_id is None:
        return person_faults(revocation)
    if revocation.phone is None and revocation.email is None:
        return ()
    detail = "Send either lead_id, or a phone number, an e-mail address or both."
    return (Fault(pointer="/lead_id", code=FaultCode.value_not_allowed, detail=detail),)


@post(
    "/revocations",
    tags=["revocations"],
    dependencies={"caller": REVOKER, "revocation": provide_configuration(NewRevocation, _content_faults)},
)
async def revoke(caller: Caller, revocation: Injected[NewRevocation], services: Injected[Services]) -> RevocationView:
    """Records that a person revoked consent: open leads end, and the business that holds one must acknowledge it.

    A provider revokes the consent in its own leads, in its key's mode. The answer is the same for a person or a lead
    of whom nothing is known.
    """
    pool, sealer = services.pool, services.sealer
    if revocation.lead_id is None:
        marks = marks_of(revocation)
        return _show(
            await revocations_flow.revoke_person(pool, sealer, caller, marks, revocation.channels, revocation.reason)
        )
    lead_id = ids.decode("lead", revocation.lead_id) or NOBODY
    return _show(await revocations_flow.revoke_lead(pool, caller, lead_id, revocation.channels, revocation.reason))


@get(
    "/revocations",
    tags=["revocations"],
    dependencies={"caller": require(Scope.operate)},
    doc=RouteDoc(query=paged(id_of("rev"))),
)
async def list_revocations(
    request: AnyRequest, caller: Caller, services: Injected[Services]
) -> Page[RevocationSummary]:
    """Lists revocations, newest first, with their notices. A test key lists those of test leads. Operators only."""
    limit, before = page_limit(request), page_cursor(request, "rev")
    async with session(services.pool) as connection:
        mode = None if caller.sees("live") else caller.mode
        rows = await revocations_store.list_revocations(connection, before, mode, limit + 1)
    return list_page(rows, limit, _summarize, lambda row: ids.encode("rev", row.id))


@post(
    "/revocation-hook",
    tags=["revocations"],
    dependencies={"caller": require(Scope.operate, Scope.leads_write, mode="live")},
)
async def make_revocation_hook(caller: Caller, services: Injected[Services]) -> RevocationHookSecret:
    """Makes the secret with which services for STOP messages sign, shown only once. A further call rotates it."""
    hook, secret = await revocations_flow.make_hook(services.pool, services.sealer, caller)
    owner = ids.encode("prov", caller.owner_id) if caller.owner_id else OPERATOR
    return RevocationHookSecret(path=f"{HOOK_PATH}/{owner}", secret=secret, previous_secret_until=hook.previous_until)


@post(
    f"{HOOK_PATH}/{{owner:str}}",
    status_code=200,
    tags=["revocations"],
    doc=RouteDoc(body=StopMessage, answers={200: RevocationView}, public=True),
)
async def receive_stop(request: AnyRequest, owner: FromPath[str], services: Injected[Services]) -> RevocationView:
    """Records a STOP that an e-mail or SMS service received, signed by Standard Webhooks 1.0.

    The webhook-id is the message's id: a repeat changes nothing.
    """
    raw, pool, sealer = await raw_body(request), services.pool, services.sealer
    is_operator = owner == OPERATOR
    owner_id = revocations_flow.OPERATOR_HOOK if is_operator else ids.decode("prov", owner) or NOBODY
    headers = {name: signed_header(request, name) for name in SIGNED_BY}
    try:
        await revocations_flow.check_signature(pool, sealer, owner_id, headers, raw)
    except errors.SignatureInvalid:
        await count_failure(request)
        raise
    message = parse(raw, StopMessage, person_faults)
    sender = Principal(
        key_id=f"hook of {owner}",
        kind=CallerKind.operator if is_operator else CallerKind.provider,
        owner_id=None if is_operator else owner_id,
        mode="live",
    )
    return _show(
        await revocations_flow.revoke_person(
            pool,
            sealer,
            sender,
            marks_of(message),
            message.channels,
            message.reason,
            read_webhook_id(headers["webhook-id"]),
        )
    )


handlers: Final = (api_router(revoke, list_revocations, make_revocation_hook), api_router(receive_stop, path="/"))
