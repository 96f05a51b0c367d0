"""Page on which a business states the request that its CRM or automation gets: a preset, a template, a login."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory import contracts, mappings
from marketplace.directory import store as directory_store
from marketplace.directory.store import EndpointMapping
from marketplace.mapping.presets import Preset, load_presets
from marketplace.mapping.shapes import LONGEST_TEMPLATE, BodyFormat, Credentials, RequestMapping
from marketplace.mapping.variables import LISTS, OPEN, VARIABLES
from marketplace.portal.business.delivery import caller_of, scope_of
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.forms import changing, fill, label, show_again, show_form, split_lines
from marketplace.portal.frame import redirect
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.faults import Fault, FaultCode
from marketplace.web.http import AnyRequest, Services, path_id, services

HOME: Final = "/business/delivery/{endpoint_id:str}/request"
LOGINS: Final = {
    "": "None",
    "stored": "The stored one",
    "bearer": "Access token",
    "basic": "User name and password",
    "api_key": "Key in a header",
    "oauth2": "Client that fetches tokens (OAuth 2.0)",
}
FORMATS: Final = {BodyFormat.json: "JSON", BodyFormat.form: "Form", BodyFormat.xml: "XML"}

Secret = Annotated[str, Meta(max_length=4_000, extra={"kind": "password", "autocomplete": "off"})]
Line = Annotated[str, Meta(max_length=2_048)]


TEMPLATE_FIELD: Final = label("Content", "Variables in double braces.", kind="textarea", rows=16)
HEADERS_FIELD: Final = label("Headers", "One in a line: Version: 2", kind="textarea", rows=3, required=False)
SECRET_FIELD: Final = label("Token, password, key or client secret", "Stored sealed and never shown.")
SCHEME_FIELD: Final = label("Word before the token", "Bearer, unless your software says otherwise.")


class RequestForm(msgspec.Struct, frozen=True, kw_only=True):
    """The request of an endpoint, and its login."""

    version: int
    act: Literal["save", "preview", "remove"] = "save"
    preset: Annotated[str, Meta(max_length=60)] | None = None
    method: Annotated[Literal["POST", "PUT"], label("Method")] = "POST"
    format: Annotated[BodyFormat, label("Format")] = BodyFormat.json
    body: Annotated[str, Meta(max_length=LONGEST_TEMPLATE), TEMPLATE_FIELD] = ""
    headers: Annotated[str, Meta(max_length=8_000), HEADERS_FIELD] = ""
    login: Annotated[Literal["", "stored", "bearer", "basic", "api_key", "oauth2"], label("Login")] = ""
    user: Annotated[Line | None, label("User name, or client id")] = None
    secret: Annotated[Secret | None, SECRET_FIELD] = None
    header: Annotated[Line | None, label("Header of the key", "Such as x-api-token.")] = None
    token_url: Annotated[Line | None, label("Address of the token server")] = None
    scope: Annotated[Line | None, label("Scope")] = None
    scheme: Annotated[Line | None, SCHEME_FIELD] = None
    with_contract: Annotated[bool, label("Also read the answers by the rules of the preset")] = False


def read_mapping(form: RequestForm) -> RequestMapping:
    """Return the mapping that a form states. Raises InvalidInput."""
    headers = []
    for line in split_lines(form.headers):
        name, colon, value = line.partition(":")
        if not colon:
            raise _fault("headers", f"Write “{line[:40]}” as a name, a colon and a value.")
        headers.append({"name": name.strip(), "value": value.strip()})
    document = {
        "format": form.format,
        "body": form.body.replace("\r\n", "\n"),
        "method": form.method,
        "headers": headers,
        "preset": form.preset,
    }
    try:
        return msgspec.convert(document, RequestMapping)
    except msgspec.ValidationError as error:
        field = "headers" if "headers" in str(error) else "body"
        raise _fault(
            field, "Write headers as plain text on one line each, and a content of 1 to 32,768 characters."
        ) from error


def read_login(form: RequestForm) -> Credentials | msgspec.UnsetType | None:
    """Return the login that a form states, unset for the stored one. Raises InvalidInput."""
    fields: dict[str, dict[str, str | None]] = {
        "bearer": {"token": form.secret},
        "basic": {"user": form.user, "password": form.secret or ""},
        "api_key": {"header": form.header, "key": form.secret},
        "oauth2": {
            "token_url": form.token_url,
            "client_id": form.user,
            "client_secret": form.secret,
            "scope": form.scope,
            "scheme": form.scheme or "Bearer",
        },
    }
    if form.login == "stored":
        return msgspec.UNSET
    if form.login == "":
        return None
    try:
        login: Credentials = msgspec.convert({"type": form.login, **fields[form.login]}, type=Credentials)
    except msgspec.ValidationError as error:
        raise _fault(
            "secret", f"Fill in all that “{LOGINS[form.login]}” needs, without spaces or line breaks."
        ) from error
    return login


def _fault(field: str, detail: str) -> errors.InvalidInput:
    return errors.InvalidInput((Fault(pointer=f"/{field}", code=FaultCode.value_not_allowed, detail=detail),))


def _values(stated: EndpointMapping, preset: Preset | None) -> dict[str, object]:
    """Return the fields of the form: those of a preset, or else of the stored request."""
    mapping = preset.mapping if preset else stated.mapping
    values: dict[str, object] = {"login": "stored" if stated.credentials else "", "with_contract": preset is not None}
    if mapping is not None:
        values |= {"method": mapping.method, "format": mapping.format, "body": mapping.body}
        values["headers"] = "\n".join(f"{header.name}: {header.value}" for header in mapping.headers)
    if preset is not None and preset.credentials is not None:
        values |= {"login": preset.credentials, "header": preset.header or "", "scheme": preset.scheme}
    return values


@get(HOME)
async def show_request(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Show the request of an endpoint, and the presets from which it may begin."""
    viewer = await visitor(request, CallerKind.business)
    return await _request_page(request, viewer, path_id("whe", endpoint_id))


async def _request_page(
    request: AnyRequest, viewer: Viewer, endpoint_id: UUID, previewed: str | None = None
) -> Response[bytes]:
    async with session(services(request).pool) as connection:
        endpoint = await directory_store.find_endpoint(connection, scope_of(viewer), endpoint_id)
        stated = await mappings.load_mapping(connection, scope_of(viewer), endpoint_id)
    presets, name = load_presets(), request.query_params.get("preset", "")
    preset = presets.get(name)
    logins = [(key, words) for key, words in LOGINS.items() if key != "stored" or stated.credentials is not None]
    options = {
        "format": [(str(key), words) for key, words in FORMATS.items()],
        "method": [("POST", "POST"), ("PUT", "PUT")],
        "login": logins,
    }
    return await business_page(
        request,
        viewer,
        "business/software.html",
        endpoint=endpoint,
        stated=stated,
        presets=presets,
        preset=preset,
        preset_name=name if preset else (stated.mapping.preset if stated.mapping else None),
        form=show_form(RequestForm, _values(stated, preset), options),
        previewed=previewed,
        variables=VARIABLES,
        groups=OPEN,
        lists=LISTS,
    )


@post(HOME)
async def change_request(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Save the request of an endpoint, show it for an invented lead, or go back to our own webhook."""
    viewer, fields = await changing(request, CallerKind.business)
    internal_id, app = path_id("whe", endpoint_id), services(request)
    address = f"/business/delivery/{ids.encode('whe', internal_id)}/request"
    try:
        form = fill(RequestForm, fields)
        if form.act == "remove" or (form.act == "save" and not (form.body or form.headers or form.login)):
            await _set(app, viewer, internal_id, form.version, None, None)
            return redirect(request, address, "This endpoint gets our own webhook.")
        mapping, login = read_mapping(form), read_login(form)
        if form.act == "preview":
            body = mappings.preview(mapping, None if login is msgspec.UNSET else login, app.guard)
            return await show_again(request, fields, None, _request_page(request, viewer, internal_id, body))
        await _set(app, viewer, internal_id, form.version, mapping, login)
        await _apply_contract(app, viewer, internal_id, form)
    except errors.InvalidInput as error:
        return await show_again(
            request, fields, error, _request_page(request, viewer, internal_id), faults=_beside(error)
        )
    except errors.Conflict as error:
        return await show_again(request, fields, error, _request_page(request, viewer, internal_id))
    return redirect(request, address, "Saved. Send a test lead from Delivery to see how your software answers.")


async def _set(
    app: Services,
    viewer: Viewer,
    endpoint_id: UUID,
    version: int,
    mapping: RequestMapping | None,
    login: Credentials | msgspec.UnsetType | None,
) -> None:
    caller, scope = caller_of(viewer), scope_of(viewer)
    await mappings.set_mapping(app.pool, app.sealer, app.guard, caller, scope, endpoint_id, version, mapping, login)


async def _apply_contract(app: Services, viewer: Viewer, endpoint_id: UUID, form: RequestForm) -> None:
    """Set the contract of the preset if the form asks for it."""
    preset = load_presets().get(form.preset or "")
    if preset is None or not form.with_contract:
        return
    async with session(app.pool) as connection:
        stated = await contracts.load_contract(connection, scope_of(viewer), endpoint_id)
    caller, scope = caller_of(viewer), scope_of(viewer)
    await contracts.set_contract(app.pool, caller, scope, endpoint_id, stated.version, preset.contract)


def _beside(error: errors.InvalidInput) -> dict[str, str]:
    """Return each fault beside its field of the form."""
    names = {"credentials": "secret", "mapping": "body"}
    faults: dict[str, str] = {}
    for fault in error.faults:
        first, _, last = fault.pointer.strip("/").partition("/")
        field = last if first == "credentials" and last in ("header", "token_url") else names.get(first, first)
        faults.setdefault(field, fault.detail)
    return faults


handlers: tuple[Any, ...] = (show_request, change_request)
