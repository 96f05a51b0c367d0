"""HTTP API of imports: list them, read their progress and the outcome of each row, and undo them."""

from typing import Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.di import Provide
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.imports import store as imports_store
from marketplace.imports.flow import Imports
from marketplace.imports.store import Import, RowJudgement
from marketplace.imports.table import LARGEST_FILE
from marketplace.imports.wire import ImportRow, ImportState, ImportSubject, ImportView, RowOutcome
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind, Principal, Scope
from marketplace.text.faults import Fault, FaultCode, read
from marketplace.web.api import BodyProvider, Caller, Injected, JsonAnswer, api_router, list_page, require
from marketplace.web.http import (
    AnyRequest,
    Page,
    Services,
    csv_page,
    page_cursor,
    page_limit,
    path_id,
    raw_body,
    wants_csv,
)
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of, paged

CSV_LINES: Final = 10_000
CHOICES: Final = (*RowOutcome, "left")
OUTCOME: Final = QueryParameter(
    name="outcome",
    about="Only rows with this outcome; `left`: all that were not taken.",
    schema={"type": "string", "enum": list(CHOICES)},
)
SUBJECT: Final = QueryParameter(
    name="subject", about="Only imports of this.", schema={"type": "string", "enum": list(ImportSubject)}
)
AFTER: Final = QueryParameter(
    name="cursor", about="next_cursor of the page before: the number of its last row.", schema={"type": "string"}
)
LIMIT: Final = paged(id_of("imp"))[0]
READER: Final = require(Scope.leads_read, Scope.operate)


def imports_of(request: AnyRequest) -> Imports:
    """Return the imports of this process."""
    imports: Imports = request.app.state.imports
    return imports


def provide_imports(request: AnyRequest, services: Injected[Services]) -> Imports:
    """Return the imports of this process."""
    return imports_of(request)


IMPORTS: Final = Provide(provide_imports, sync_to_thread=False)


class SentFile(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded CSV file, with the JSON of `?mapping=`, which is empty without it."""

    raw: bytes
    mapping: bytes


def provide_file(mapping: type[msgspec.Struct]) -> BodyProvider:
    """Return the provider of a CSV file whose `?mapping=` has the shape `mapping`.

    It raises the errors of `stated_mapping`, then those of `http.raw_body`.
    """

    async def read_file(request: AnyRequest, imports: Injected[Imports]) -> SentFile:
        stated = stated_mapping(request, mapping)
        return SentFile(raw=await raw_body(request, LARGEST_FILE, "text/csv"), mapping=stated)

    return BodyProvider(read_file, "text/csv")


def stated_mapping(request: AnyRequest, shape: type[msgspec.Struct]) -> bytes:
    """Return the JSON of `?mapping=`, empty without it. Raises InvalidInput with all its faults."""
    text = request.query_params.get("mapping")
    if text is None:
        return b""
    raw: bytes = text.encode(errors="replace")
    mapping = read(raw, shape)
    if isinstance(mapping, tuple):
        raise errors.InvalidInput(
            [Fault(pointer=f"/mapping{fault.pointer}", code=fault.code, detail=fault.detail) for fault in mapping]
        )
    return raw


def _reach(caller: Principal) -> UUID | None:
    """Return the business to which the caller is limited; None for an operator."""
    return None if caller.kind is CallerKind.operator else caller.owner


async def _load(imports: Imports, caller: Principal, import_id: str) -> Import:
    """Return an import. Raises NotFound for one of another business, and for one of the other mode."""
    file_import = await imports.load(path_id("imp", import_id), _reach(caller))
    if (file_import.mode or "live") != caller.mode:
        raise errors.NotFound("There is no such import.")
    return file_import


@get("/imports", tags=["imports"], dependencies={"caller": READER}, doc=RouteDoc(query=(*paged(id_of("imp")), SUBJECT)))
async def list_imports(request: AnyRequest, caller: Caller, services: Injected[Services]) -> Page[ImportView]:
    """Lists a business's imports, newest first; those of all businesses for an operator."""
    limit, before = page_limit(request), page_cursor(request, "imp")
    choice = _choice(request, "subject", tuple(ImportSubject))
    subject = ImportSubject(choice) if choice else None
    async with session(services.pool) as connection:
        file_imports = await imports_store.list_imports(
            connection, _reach(caller), caller.mode, subject, before, limit + 1
        )
    return list_page(file_imports, limit, show_import, lambda file_import: ids.encode("imp", file_import.id))


@get("/imports/{import_id:str}", tags=["imports"], dependencies={"caller": READER})
async def show(import_id: FromPath[str], caller: Caller, imports: Injected[Imports]) -> ImportView:
    """Shows one import and its progress."""
    return show_import(await _load(imports, caller, import_id))


@get(
    "/imports/{import_id:str}/rows",
    tags=["imports"],
    dependencies={"caller": READER},
    doc=RouteDoc(answers={200: (Page[ImportRow], "text/csv")}, query=(LIMIT, AFTER, OUTCOME)),
)
async def list_rows(
    request: AnyRequest,
    import_id: FromPath[str],
    caller: Caller,
    imports: Injected[Imports],
    services: Injected[Services],
) -> Page[ImportRow] | Response[bytes]:
    """Lists the outcome of each row, in the order of the file; as CSV if the caller accepts `text/csv`."""
    file_import = await _load(imports, caller, import_id)
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file and "limit" not in request.query_params else page_limit(request)
    outcome = _choice(request, "outcome", CHOICES)
    async with session(services.pool) as connection:
        rows = await imports_store.list_rows(connection, file_import.id, _after(request), outcome, limit + 1)
    if as_file:
        return await csv_page(request, rows, limit, show_row, _number, ImportRow.__struct_fields__, "import-rows")
    return list_page(rows, limit, show_row, _number)


@post(
    "/imports/{import_id:str}/undo",
    status_code=200,
    tags=["imports"],
    dependencies={"caller": require(Scope.feedback_write, Scope.operate)},
    doc=RouteDoc(answers={202: ImportView}),
)
async def undo(import_id: FromPath[str], caller: Caller, imports: Injected[Imports]) -> Response[ImportView]:
    """Undoes an import: no report counts its rows any more, and the same file may be imported again."""
    file_import = await _load(imports, caller, import_id)
    await imports.undo(file_import.id, _reach(caller), caller.key_id)
    file_import = await imports.wait(file_import.id)
    status = 202 if file_import.state is ImportState.undoing else 200
    return JsonAnswer(show_import(file_import), status_code=status)


def show_import(file_import: Import) -> ImportView:
    """Return an import in the form that the API returns."""
    fields = {
        name: getattr(file_import, name) for name in ImportView.__struct_fields__ if name not in ("id", "business_id")
    }
    return ImportView(
        id=ids.encode("imp", file_import.id), business_id=ids.encode("biz", file_import.business_id), **fields
    )


def show_row(row: RowJudgement) -> ImportRow:
    """Return a row in the form that the API returns."""
    return ImportRow(
        row=row.number, outcome=row.outcome, label=row.label, column=row.field, code=row.code, detail=row.detail
    )


def _number(row: RowJudgement) -> str:
    return str(row.number)


def _after(request: AnyRequest) -> int:
    """Return the row number of `?cursor=`, 0 without it. Raises InvalidInput."""
    text = request.query_params.get("cursor", "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 8):
        detail = "Send next_cursor of the page before, unchanged."
        raise errors.InvalidInput((Fault(pointer="/cursor", code="cursor_invalid", detail=detail),))
    return int(text)


def _choice(request: AnyRequest, name: str, allowed: tuple[str, ...]) -> str | None:
    """Return a filter of the query, or None without it. Raises InvalidInput."""
    text: str | None = request.query_params.get(name)
    if text is not None and text not in allowed:
        detail = f"Choose one of {', '.join(allowed)}."
        raise errors.InvalidInput((Fault(pointer=f"/{name}", code=FaultCode.value_not_allowed, detail=detail),))
    return text


handlers: Final = (api_router(list_imports, show, list_rows, undo, imports=IMPORTS),)
