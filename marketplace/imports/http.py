"""HTTP API of imports: list them, read their progress and the outcome of each row, and undo them."""

from typing import Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.imports import store as imports_store
from marketplace.imports.flow import Imports
from marketplace.imports.store import Import, RowJudgement
from marketplace.imports.wire import ImportRow, ImportState, ImportSubject, ImportView, RowOutcome
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind, Principal, Scope
from marketplace.text.faults import Fault, FaultCode, read
from marketplace.web.http import (
    AnyRequest,
    Page,
    answer,
    csv_page,
    page,
    page_cursor,
    page_limit,
    path_id,
    principal,
    services,
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


def imports_of(request: AnyRequest) -> Imports:
    """Return the imports of this process."""
    imports: Imports = request.app.state.imports
    return imports


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


async def _load(request: AnyRequest, caller: Principal, import_id: str) -> Import:
    """Return an import. Raises NotFound for one of another business, and for one of the other mode."""
    file_import = await imports_of(request).load(path_id("imp", import_id), _reach(caller))
    if (file_import.mode or "live") != caller.mode:
        raise errors.NotFound("There is no such import.")
    return file_import


@get(
    "/v1/imports",
    tags=["imports"],
    doc=RouteDoc(answers={200: Page[ImportView]}, query=(*paged(id_of("imp")), SUBJECT)),
)
async def list_imports(request: AnyRequest) -> Response[bytes]:
    """Lists a business's imports, newest first; those of all businesses for an operator."""
    caller = await principal(request, Scope.leads_read, Scope.operate)
    limit, before = page_limit(request), page_cursor(request, "imp")
    choice = _choice(request, "subject", tuple(ImportSubject))
    subject = ImportSubject(choice) if choice else None
    async with session(services(request).pool) as connection:
        file_imports = await imports_store.list_imports(
            connection, _reach(caller), caller.mode, subject, before, limit + 1
        )
    return page(file_imports, limit, show_import, lambda file_import: ids.encode("imp", file_import.id))


@get("/v1/imports/{import_id:str}", tags=["imports"], doc=RouteDoc(answers={200: ImportView}))
async def show(request: AnyRequest, import_id: FromPath[str]) -> Response[bytes]:
    """Shows one import and its progress."""
    caller = await principal(request, Scope.leads_read, Scope.operate)
    return answer(show_import(await _load(request, caller, import_id)))


@get(
    "/v1/imports/{import_id:str}/rows",
    tags=["imports"],
    doc=RouteDoc(answers={200: (Page[ImportRow], "text/csv")}, query=(LIMIT, AFTER, OUTCOME)),
)
async def list_rows(request: AnyRequest, import_id: FromPath[str]) -> Response[bytes]:
    """Lists the outcome of each row, in the order of the file; as CSV if the caller accepts `text/csv`."""
    caller = await principal(request, Scope.leads_read, Scope.operate)
    file_import = await _load(request, caller, import_id)
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file and "limit" not in request.query_params else page_limit(request)
    outcome = _choice(request, "outcome", CHOICES)
    async with session(services(request).pool) as connection:
        rows = await imports_store.list_rows(connection, file_import.id, _after(request), outcome, limit + 1)
    if as_file:
        return await csv_page(request, rows, limit, show_row, _number, ImportRow.__struct_fields__, "import-rows")
    return page(rows, limit, show_row, _number)


@post(
    "/v1/imports/{import_id:str}/undo",
    tags=["imports"],
    status_code=200,
    doc=RouteDoc(answers={200: ImportView, 202: ImportView}),
)
async def undo(request: AnyRequest, import_id: FromPath[str]) -> Response[bytes]:
    """Undoes an import: no report counts its rows any more, and the same file may be imported again."""
    caller = await principal(request, Scope.feedback_write, Scope.operate)
    runs, file_import = imports_of(request), await _load(request, caller, import_id)
    await runs.undo(file_import.id, _reach(caller), caller.key_id)
    file_import = await runs.wait(file_import.id)
    status = 202 if file_import.state is ImportState.undoing else 200
    return answer(show_import(file_import), status)


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


handlers = (list_imports, show, list_rows, undo)
