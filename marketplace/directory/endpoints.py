"""HTTP API of endpoints: register a webhook, verify it, rotate its secret, switch it; or create a feed or an inbox."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import delete, get, patch, post, put
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.delivery.store import MailMode
from marketplace.directory import contracts, mail_endpoints, mappings
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.mail_endpoints import MailDesk, MailDraft, MailTerms
from marketplace.directory.store import Endpoint, EndpointContract, EndpointMapping
from marketplace.directory.wire import BUSINESS, STEWARD, business_of, provide_configuration, reach_of
from marketplace.intake.contact import LONGEST_EMAIL
from marketplace.mapping.shapes import Credentials, RequestMapping
from marketplace.runtime import errors, ids
from marketplace.security import access
from marketplace.security.sealing import Sealer
from marketplace.text.faults import WORDS, Fault, FaultCode
from marketplace.web.api import Caller, Injected, api_router, list_page
from marketplace.web.http import AnyRequest, Page, Services, page_cursor, page_limit, path_id
from marketplace.web.openapi import RouteDoc, id_of, paged
from marketplace.web.problems import Problem
from marketplace.webhook.address import MAX_URL_LENGTH
from routing.contract import OWN_FORMAT, Contract
from routing.delivery import LONGEST_HOLD_SECONDS, EndpointKind

PATH = "/endpoints"
ONE = f"{PATH}/{{endpoint_id:str}}"


HoldSeconds = Annotated[int, Meta(ge=120, le=LONGEST_HOLD_SECONDS)]


class NewEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/endpoints: a webhook with its URL, an e-mail address, or a feed or an inbox without either.
    Operators add the business and a reason.

    `hold_seconds` is for an inbox and for e-mail with a link: how long a lead is held until a member takes it, within
    the vertical's patience. `mode` says whether messages hold a link or the contact; `with_adf` attaches ADF/XML.
    """

    kind: Literal["push", "feed", "inbox", "email"] = "push"
    url: Annotated[str, Meta(max_length=MAX_URL_LENGTH)] | None = None
    address: Annotated[str, Meta(max_length=LONGEST_EMAIL)] | None = None
    mode: MailMode | None = None
    with_adf: bool | None = None
    hold_seconds: HoldSeconds | None = None
    business_id: str | None = None
    reason: Annotated[str, Meta(max_length=500, pattern=WORDS)] | None = None


class EndpointSwitch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PATCH /v1/endpoints/{id}."""

    state: Literal["active", "disabled"]


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as its business sees it. Until `previous_secret_until`, the previous secret signs as well."""

    id: str
    business_id: str
    kind: str
    url: str | None
    state: str
    hold_seconds: int
    address: str | None
    mode: MailMode | None
    with_adf: bool | None
    created_at: datetime
    verified_at: datetime | None
    breaker_open_until: datetime | None
    previous_secret_until: datetime | None


class EndpointWithSecret(EndpointView, frozen=True, kw_only=True):
    """An endpoint with its signing secret, which only the answers to creating and rotating it hold."""

    secret: str


def _show(endpoint: Endpoint) -> EndpointView:
    return EndpointView(
        id=ids.encode("whe", endpoint.id),
        business_id=ids.encode("biz", endpoint.business_id),
        kind=endpoint.kind,
        url=endpoint.url,
        state=endpoint.state,
        hold_seconds=endpoint.hold_seconds,
        address=endpoint.address,
        mode=endpoint.mail_mode,
        with_adf=endpoint.with_adf,
        created_at=endpoint.created_at,
        verified_at=endpoint.verified_at,
        breaker_open_until=endpoint.breaker_open_until,
        previous_secret_until=endpoint.previous_until,
    )


def _show_with_secret(endpoint: Endpoint, secret: str) -> EndpointWithSecret:
    return EndpointWithSecret(**msgspec.structs.asdict(_show(endpoint)), secret=secret)


def _kind_faults(body: NewEndpoint) -> tuple[Fault, ...]:
    """Return the faults of a webhook without a URL, of e-mail without an address, and of fields of another kind."""
    faults = []
    if body.kind == "push" and body.url is None:
        detail = 'Give the URL of your server, or make a feed: {"kind": "feed"}.'
        faults.append(Fault(pointer="/url", code=FaultCode.field_missing, detail=detail))
    if body.kind != "push" and body.url is not None:
        detail = "Leave the URL out: a feed is read at /v1/feed, an inbox in the portal."
        faults.append(Fault(pointer="/url", code=FaultCode.value_not_allowed, detail=detail))
    if body.kind not in ("inbox", "email") and body.hold_seconds is not None:
        detail = "Leave it out: only leads that a person takes are held for a time of your choice."
        faults.append(Fault(pointer="/hold_seconds", code=FaultCode.value_not_allowed, detail=detail))
    faults += _mail_faults(body)
    return tuple(faults)


def _mail_faults(body: NewEndpoint) -> tuple[Fault, ...]:
    """Return the faults of the fields of e-mail: a missing address, a link with an attachment, or another kind."""
    if body.kind != "email":
        return tuple(
            Fault(pointer=f"/{name}", code=FaultCode.value_not_allowed, detail="Leave it out: it is for e-mail.")
            for name in ("address", "mode", "with_adf")
            if getattr(body, name) is not None
        )
    missing = Fault(pointer="/address", code=FaultCode.field_missing, detail="Give the address to send leads to.")
    return (*(() if body.address else (missing,)), *mail_endpoints.terms_faults(_terms_of(body)))


def _terms_of(body: NewEndpoint) -> MailTerms:
    return MailTerms(mode=body.mode or MailMode.link, with_adf=bool(body.with_adf))


@post(
    PATH,
    tags=["endpoints"],
    dependencies={"caller": STEWARD, "draft": provide_configuration(NewEndpoint, _kind_faults)},
)
async def create_endpoint(
    caller: Caller, draft: Injected[NewEndpoint], services: Injected[Services]
) -> EndpointWithSecret | EndpointView:
    """Registers a webhook's URL and shows its signing secret, only once.

    Or creates a feed, read at /v1/feed, an inbox, whose leads a member takes in the portal, or an endpoint for e-mail,
    which is active once the link in a message to its address has been opened and confirmed.
    """
    if faults := _kind_faults(draft):
        raise errors.InvalidInput(faults)
    business_id = business_of(caller, draft.business_id)
    pool, sealer, guard = services.pool, services.sealer, services.guard
    opened = access.opened_by(caller.key_id, caller.kind, caller.opened, draft.reason)
    if draft.address is not None:
        mail = MailDraft(address=draft.address, terms=_terms_of(draft), hold_seconds=draft.hold_seconds)
        desk = MailDesk(pool, services.settings)
        return _show(await desk.create(caller.key_id, business_id, mail, opened))
    if draft.url is None:
        kind = EndpointKind(draft.kind)
        return _show(await directory_flow.create_serverless(pool, caller.key_id, business_id, kind, draft.hold_seconds))
    endpoint, secret = await directory_flow.create_endpoint(
        pool, sealer, guard, caller.key_id, business_id, draft.url, opened
    )
    return _show_with_secret(endpoint, secret)


@get(PATH, tags=["endpoints"], dependencies={"caller": STEWARD}, doc=RouteDoc(query=(*paged(id_of("whe")), BUSINESS)))
async def list_endpoints(request: AnyRequest, caller: Caller, services: Injected[Services]) -> Page[EndpointView]:
    """Lists endpoints, newest first, without their secrets."""
    limit, after = page_limit(request), page_cursor(request, "whe")
    reach = reach_of(caller, request.query_params.get("business_id"))
    async with session(services.pool) as connection:
        endpoints = await directory_store.list_endpoints(connection, reach, after, limit + 1)
    return list_page(endpoints, limit, _show, lambda row: ids.encode("whe", row.id))


@get(ONE, tags=["endpoints"], dependencies={"caller": STEWARD})
async def show_endpoint(endpoint_id: FromPath[str], caller: Caller, services: Injected[Services]) -> EndpointView:
    """Shows one endpoint without its secret."""
    async with session(services.pool) as connection:
        endpoint = await directory_store.find_endpoint(connection, reach_of(caller), path_id("whe", endpoint_id))
    if endpoint is None:
        raise errors.NotFound(directory_flow.NOT_THERE)
    return _show(endpoint)


@post(
    f"{ONE}/verify",
    status_code=200,
    tags=["endpoints"],
    dependencies={"caller": STEWARD},
    doc=RouteDoc(answers={409: Problem}),
)
async def verify_endpoint(endpoint_id: FromPath[str], caller: Caller, services: Injected[Services]) -> EndpointView:
    """Sends a signed challenge that the endpoint's server must return; after that, leads may be sent there.

    An endpoint with a mapping gets a test lead instead, which its software must accept. For e-mail, sends the message
    with the confirmation link again.
    """
    pool, sealer, guard = services.pool, services.sealer, services.guard
    endpoint_uuid = path_id("whe", endpoint_id)
    async with session(pool) as connection:
        endpoint = await directory_store.find_endpoint(connection, reach_of(caller), endpoint_uuid)
    if endpoint is not None and endpoint.kind is EndpointKind.email:
        await MailDesk(pool, services.settings).send_confirmation(caller.key_id, reach_of(caller), endpoint_uuid)
        return _show(endpoint)
    endpoint = await mappings.verify_endpoint(pool, sealer, guard, caller, reach_of(caller), endpoint_uuid)
    return _show(endpoint)


@post(
    f"{ONE}/rotate-secret",
    status_code=200,
    tags=["endpoints"],
    dependencies={"caller": STEWARD},
    doc=RouteDoc(answers={409: Problem}),
)
async def rotate_secret(endpoint_id: FromPath[str], caller: Caller, services: Injected[Services]) -> EndpointWithSecret:
    """Makes a new signing secret, shown only once. The old one stays valid for a day.

    To end a secret that leaked: rotate, then DELETE /v1/endpoints/{id}/previous-secret.
    """
    pool, sealer = services.pool, services.sealer
    endpoint_uuid = path_id("whe", endpoint_id)
    endpoint, secret = await directory_flow.rotate_secret(pool, sealer, caller, reach_of(caller), endpoint_uuid)
    return _show_with_secret(endpoint, secret)


@delete(
    f"{ONE}/previous-secret",
    status_code=200,
    tags=["endpoints"],
    dependencies={"caller": STEWARD},
    doc=RouteDoc(answers={409: Problem}),
)
async def end_previous_secret(endpoint_id: FromPath[str], caller: Caller, services: Injected[Services]) -> EndpointView:
    """Ends the previous signing secret at once, for one that leaked or is not used any more."""
    pool, endpoint_uuid = services.pool, path_id("whe", endpoint_id)
    return _show(await directory_flow.end_previous_secret(pool, caller, reach_of(caller), endpoint_uuid))


@patch(ONE, tags=["endpoints"], dependencies={"caller": STEWARD, "switch": provide_configuration(EndpointSwitch)})
async def switch_endpoint(
    endpoint_id: FromPath[str], caller: Caller, switch: Injected[EndpointSwitch], services: Injected[Services]
) -> EndpointView:
    """Switches an endpoint off, or on again, and resets its breaker."""
    pool, endpoint_uuid = services.pool, path_id("whe", endpoint_id)
    return _show(await directory_flow.switch_endpoint(pool, caller, reach_of(caller), endpoint_uuid, switch.state))


class ContractView(msgspec.Struct, frozen=True, kw_only=True):
    """Response contract of a webhook; `own` is false for the one that every endpoint begins with."""

    version: int
    own: bool
    contract: Contract


class ContractChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /v1/endpoints/{id}/contract: the version that was read, and the new contract."""

    version: Annotated[int, Meta(ge=1, le=1_000_000)]
    contract: Contract


def _show_contract(stated: EndpointContract) -> ContractView:
    return ContractView(version=stated.version, own=stated.contract is not None, contract=stated.contract or OWN_FORMAT)


def _contract_faults(body: ContractChange) -> tuple[Fault, ...]:
    """Return the faults of the contract at their places in the body."""
    faults = contracts.contract_faults(body.contract)
    return tuple(msgspec.structs.replace(fault, pointer=f"/contract{fault.pointer}") for fault in faults)


@get(f"{ONE}/contract", tags=["endpoints"], dependencies={"caller": STEWARD}, doc=RouteDoc(answers={409: Problem}))
async def show_contract(endpoint_id: FromPath[str], caller: Caller, services: Injected[Services]) -> ContractView:
    """Shows by which rules the answers of the endpoint's server are read."""
    async with session(services.pool) as connection:
        return _show_contract(await contracts.load_contract(connection, reach_of(caller), path_id("whe", endpoint_id)))


@put(
    f"{ONE}/contract",
    tags=["endpoints"],
    dependencies={"caller": STEWARD, "change": provide_configuration(ContractChange, _contract_faults)},
    doc=RouteDoc(answers={409: Problem}),
)
async def set_contract(
    endpoint_id: FromPath[str], caller: Caller, change: Injected[ContractChange], services: Injected[Services]
) -> ContractView:
    """Sets by which rules the answers of the endpoint's server are read.

    Every sample answer must mean by the rules what it says; 409 if the contract has changed since it was read.
    """
    if faults := _contract_faults(change):
        raise errors.InvalidInput(faults)
    pool, endpoint_uuid = services.pool, path_id("whe", endpoint_id)
    stated = await contracts.set_contract(
        pool, caller, reach_of(caller), endpoint_uuid, change.version, change.contract
    )
    return _show_contract(stated)


class MappingView(msgspec.Struct, frozen=True, kw_only=True):
    """Request of a webhook; null for our own. `credentials` names the kind of the stored ones, which are not shown."""

    version: int
    mapping: RequestMapping | None
    credentials: str | None


class MappingChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /v1/endpoints/{id}/mapping: the version that was read, and the request; null for our own again.

    Credentials that are left out stay as they are; null removes them.
    """

    version: Annotated[int, Meta(ge=1, le=1_000_000)]
    mapping: RequestMapping | None
    credentials: Credentials | msgspec.UnsetType | None = msgspec.UNSET


class MappingPreview(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a request for an invented lead."""

    body: str


def _show_mapping(sealer: Sealer, endpoint_id: UUID, stated: EndpointMapping) -> MappingView:
    credentials = mappings.open_credentials(sealer, endpoint_id, stated)
    kind = None if credentials is None else msgspec.to_builtins(credentials)["type"]
    return MappingView(version=stated.version, mapping=stated.mapping, credentials=kind)


@get(f"{ONE}/mapping", tags=["endpoints"], dependencies={"caller": STEWARD}, doc=RouteDoc(answers={409: Problem}))
async def show_mapping(endpoint_id: FromPath[str], caller: Caller, services: Injected[Services]) -> MappingView:
    """Shows the request that takes leads to the business's own software."""
    endpoint_uuid = path_id("whe", endpoint_id)
    async with session(services.pool) as connection:
        stated = await mappings.load_mapping(connection, reach_of(caller), endpoint_uuid)
    return _show_mapping(services.sealer, endpoint_uuid, stated)


@put(
    f"{ONE}/mapping",
    tags=["endpoints"],
    dependencies={"caller": STEWARD, "change": provide_configuration(MappingChange)},
    doc=RouteDoc(answers={409: Problem}),
)
async def set_mapping(
    endpoint_id: FromPath[str], caller: Caller, change: Injected[MappingChange], services: Injected[Services]
) -> MappingView:
    """Sets the request that takes leads to the business's own software: a template, headers and credentials.

    The template is tried on three invented leads; 409 if the request has changed since it was read.
    """
    pool, sealer, guard = services.pool, services.sealer, services.guard
    endpoint_uuid, reach = path_id("whe", endpoint_id), reach_of(caller)
    stated = await mappings.set_mapping(
        pool, sealer, guard, caller, reach, endpoint_uuid, change.version, change.mapping, change.credentials
    )
    return _show_mapping(sealer, endpoint_uuid, stated)


@post(
    f"{PATH}:preview",
    status_code=200,
    tags=["endpoints"],
    dependencies={"caller": STEWARD, "mapping": provide_configuration(RequestMapping)},
)
async def preview_mapping(
    caller: Caller, mapping: Injected[RequestMapping], services: Injected[Services]
) -> MappingPreview:
    """Fills a template in with an invented lead, without storing it."""
    return MappingPreview(body=mappings.preview(mapping, None, services.guard))


handlers = (
    api_router(
        create_endpoint,
        list_endpoints,
        show_endpoint,
        verify_endpoint,
        rotate_secret,
        end_previous_secret,
        switch_endpoint,
        show_contract,
        set_contract,
        show_mapping,
        set_mapping,
        preview_mapping,
    ),
)
