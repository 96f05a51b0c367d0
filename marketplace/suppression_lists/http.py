"""HTTP API of lists: the operator's lists of people who must not be contacted, and each business's own customers."""

from datetime import datetime
from io import BytesIO
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import Pool, session
from marketplace.directory.wire import Name, fault, provide_configuration
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind, Principal, Scope
from marketplace.security.sealing import Sealer
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists import store as lists_store
from marketplace.suppression_lists.flow import ImportOptions
from marketplace.suppression_lists.store import (
    ContactList,
    ImportWay,
    ListImport,
    ListImportState,
    ListKind,
    ListTerms,
)
from marketplace.text.faults import FaultCode
from marketplace.web.api import BodyProvider, Caller, Injected, api_router, list_page, require
from marketplace.web.http import AnyRequest, Page, Services, page_cursor, page_limit, path_id, raw_body
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged

LARGEST_UPLOAD: Final = 8 * 2**20
"Limit of an uploaded file in bytes: 600,000 phone numbers, which take some seconds. The command has no limit."
KEPT_IMPORTS: Final = 50
"Imports of a list that are shown."
LIST_USER: Final = require(Scope.subscriptions_write, Scope.operate, mode="live")
WAY: Final = QueryParameter(
    name="way",
    about="whole: the file is the whole list (the default). add: its rows are added.",
    schema={"type": "string", "enum": list(ImportWay)},
)
COUNTRY: Final = QueryParameter(
    name="country", about="Country of phone numbers without +; US without it.", schema={"type": "string"}
)
SMALLER: Final = QueryParameter(
    name="smaller",
    about="true: the file is complete, although it has less than half of the list.",
    schema={"type": "boolean"},
)


class NewList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/lists. A business makes lists of its own customers, an operator lists for everybody."""

    name: Name
    maximum_age_days: Annotated[int, Meta(ge=1, le=3_650)] = 31
    stops_sales: bool = False


class ListView(msgspec.Struct, frozen=True, kw_only=True):
    """A list, without its members. `is_stale`: it is older than `maximum_age_days`, or was never filled."""

    id: str
    kind: ListKind
    name: str
    version: int
    members: int
    made_at: datetime
    refreshed_at: datetime | None
    refresh_hours: int | None
    maximum_age_days: int
    is_stale: bool
    stops_sales: bool


class ListImportView(msgspec.Struct, frozen=True, kw_only=True):
    """An import into a list. `rows` were read without blank ones: `readable` and `faulty`."""

    id: str
    state: ListImportState
    way: ImportWay
    file_name: str
    rows: int
    readable: int
    faulty: int
    repeated: int
    added: int
    removed: int
    version: int | None
    failure: str | None
    made_at: datetime
    ended_at: datetime | None


class FaultyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that could not be read."""

    row: int
    code: str


class ListImportDetail(ListImportView, frozen=True, kw_only=True):
    """An import with its first faulty rows."""

    faults: tuple[FaultyRow, ...]


def show_list(contact_list: ContactList, now: datetime) -> ListView:
    """Return a list in the form that the API returns."""
    fields = {
        name: getattr(contact_list, name) for name in ListView.__struct_fields__ if name not in ("id", "is_stale")
    }
    return ListView(id=ids.encode("list", contact_list.id), is_stale=lists_flow.is_stale(contact_list, now), **fields)


def show_import(run: ListImport) -> ListImportView:
    """Return an import in the form that the API returns."""
    fields = {name: getattr(run, name) for name in ListImportView.__struct_fields__ if name != "id"}
    return ListImportView(id=ids.encode("limp", run.id), **fields)


def own_business(caller: Principal) -> UUID | None:
    """Return the business to whose lists the caller is limited; None for an operator, who has those for everybody."""
    return None if caller.kind is CallerKind.operator else caller.owner


def kind_for(caller: Principal) -> ListKind:
    """Return the kind of the lists that the caller keeps."""
    return ListKind.do_not_contact if caller.kind is CallerKind.operator else ListKind.own_customers


async def load_own(pool: Pool, caller: Principal, list_id: str) -> ContactList:
    """Return a list of the caller. Raises NotFound for one of somebody else, as for an unknown one."""
    contact_list = await lists_flow.load_list(pool, path_id("list", list_id), own_business(caller))
    if contact_list.kind is not kind_for(caller):
        raise errors.NotFound("There is no such list.")
    return contact_list


async def import_upload(
    pool: Pool, sealer: Sealer, actor: str, contact_list: ContactList, raw: bytes, name: str, options: ImportOptions
) -> ListImport:
    """Import an uploaded file. Raises InvalidInput and Conflict."""
    return await lists_flow.import_stream(pool, sealer, actor, contact_list, BytesIO(raw), name, options)


async def _read_csv(request: AnyRequest, services: Injected[Services]) -> bytes:
    return await raw_body(request, LARGEST_UPLOAD, "text/csv")


def _read_options(request: AnyRequest) -> ImportOptions:
    """Return the options in the query. Raises InvalidInput."""
    way = request.query_params.get("way", ImportWay.whole)
    country = request.query_params.get("country", "US")
    if way not in tuple(ImportWay):
        raise fault("/way", FaultCode.value_not_allowed, f"Choose one of {', '.join(ImportWay)}.")
    if not (len(country) == 2 and country.isascii() and country.isupper()):
        raise fault("/country", FaultCode.value_not_allowed, "Send a country of two letters, such as US.")
    smaller = request.query_params.get("smaller", "false")
    if smaller not in ("true", "false"):
        raise fault("/smaller", FaultCode.value_not_allowed, "Send true or false.")
    return ImportOptions(way=ImportWay(way), country=country, accepts_smaller=smaller == "true")


@get("/lists", tags=["lists"], dependencies={"caller": LIST_USER}, doc=RouteDoc(query=paged(id_of("list"))))
async def show_lists(request: AnyRequest, caller: Caller, services: Injected[Services]) -> Page[ListView]:
    """Lists the caller's lists, newest first: an operator's for everybody, or a business's own customers."""
    limit, before, now = page_limit(request), page_cursor(request, "list"), clock.now()
    async with session(services.pool) as connection:
        rows = await lists_store.list_lists(connection, kind_for(caller), own_business(caller), before, limit + 1)
    return list_page(rows, limit, lambda row: show_list(row, now), lambda row: ids.encode("list", row.id))


@post("/lists", tags=["lists"], dependencies={"caller": LIST_USER, "new": provide_configuration(NewList)})
async def make(caller: Caller, new: Injected[NewList], services: Injected[Services]) -> ListView:
    """Makes a list without members."""
    kind = kind_for(caller)
    if new.stops_sales and kind is ListKind.own_customers:
        raise fault("/stops_sales", FaultCode.value_not_allowed, "Your own list cannot stop the sale of leads.")
    terms = ListTerms(maximum_age_days=new.maximum_age_days, stops_sales=new.stops_sales)
    contact_list = await lists_flow.make_list(services.pool, caller.key_id, kind, own_business(caller), new.name, terms)
    return show_list(contact_list, clock.now())


@get("/lists/{list_id:str}", tags=["lists"], dependencies={"caller": LIST_USER})
async def show(list_id: FromPath[str], caller: Caller, services: Injected[Services]) -> ListView:
    """Shows one list. No call returns members."""
    return show_list(await load_own(services.pool, caller, list_id), clock.now())


@post(
    "/lists/{list_id:str}/imports",
    status_code=201,
    tags=["lists"],
    dependencies={"caller": LIST_USER, "raw": BodyProvider(_read_csv, "text/csv")},
    doc=RouteDoc(query=(WAY, COUNTRY, SMALLER)),
)
async def import_file(
    request: AnyRequest, list_id: FromPath[str], caller: Caller, raw: Injected[bytes], services: Injected[Services]
) -> ListImportView:
    """Imports a CSV file of phone numbers, e-mail addresses or SHA-256 hashes, all of it or nothing."""
    options = _read_options(request)
    contact_list = await load_own(services.pool, caller, list_id)
    run = await import_upload(services.pool, services.sealer, caller.key_id, contact_list, raw, "upload.csv", options)
    return show_import(run)


@get("/lists/{list_id:str}/imports", tags=["lists"], dependencies={"caller": LIST_USER})
async def show_imports(list_id: FromPath[str], caller: Caller, services: Injected[Services]) -> Page[ListImportView]:
    """Lists the last imports into a list, newest first."""
    contact_list = await load_own(services.pool, caller, list_id)
    async with session(services.pool) as connection:
        rows = await lists_store.list_imports(connection, contact_list.id, KEPT_IMPORTS)
    return Page(data=tuple(map(show_import, rows)), next_cursor=None, has_more=False)


@get("/lists/{list_id:str}/imports/{import_id:str}", tags=["lists"], dependencies={"caller": LIST_USER})
async def show_one_import(
    list_id: FromPath[str], import_id: FromPath[str], caller: Caller, services: Injected[Services]
) -> ListImportDetail:
    """Shows one import with the numbers of its first faulty rows."""
    contact_list = await load_own(services.pool, caller, list_id)
    run = await lists_flow.load_import(services.pool, path_id("limp", import_id))
    if run.list_id != contact_list.id:
        raise errors.NotFound("There is no such import.")
    async with session(services.pool) as connection:
        faults = await lists_store.list_faults(connection, run.id)
    rows = tuple(FaultyRow(row=row.row, code=row.code) for row in faults)
    return ListImportDetail(**msgspec.structs.asdict(show_import(run)), faults=rows)


@post(
    "/lists/{list_id:str}/imports/{import_id:str}/undo",
    status_code=200,
    tags=["lists"],
    dependencies={"caller": LIST_USER},
)
async def undo(
    list_id: FromPath[str], import_id: FromPath[str], caller: Caller, services: Injected[Services]
) -> ListImportView:
    """Undoes the last import into a list."""
    contact_list = await load_own(services.pool, caller, list_id)
    run_id = path_id("limp", import_id)
    return show_import(await lists_flow.undo_import(services.pool, caller.key_id, contact_list, run_id))


@delete("/lists/{list_id:str}", status_code=200, tags=["lists"], dependencies={"caller": LIST_USER})
async def remove(list_id: FromPath[str], caller: Caller, services: Injected[Services]) -> ListView:
    """Removes a list with its members; no lead is checked against it any more. Returns it as it was."""
    contact_list = await load_own(services.pool, caller, list_id)
    await lists_flow.remove_list(services.pool, caller.key_id, contact_list)
    return show_list(contact_list, clock.now())


class KeptAway(msgspec.Struct, frozen=True, kw_only=True):
    """Leads that a business's own lists kept from it in the last `days` whole days; null for fewer than five."""

    days: int
    leads: int | None


@get(
    "/lists:kept-away",
    tags=["lists"],
    dependencies={"caller": require(Scope.subscriptions_write, mode="live")},
)
async def count_kept_away(caller: Caller, services: Injected[Services]) -> KeptAway:
    """Counts the leads that a business would have been offered, were their person not on a list of its own."""
    async with session(services.pool) as connection:
        leads = await lists_flow.load_kept_away(connection, caller.owner, clock.now())
    return KeptAway(days=lists_flow.KEPT_AWAY_DAYS, leads=leads)


handlers: Final = (
    api_router(count_kept_away, show_lists, make, show, import_file, show_imports, show_one_import, undo, remove),
)
