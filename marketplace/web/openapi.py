"""OpenAPI 3.1 document of the routes, and a documentation page that works offline.

The types of a handler declare its body and its answer, and its `doc` option the rest. Schemas are made from the same
Structs that read and write the bytes, so that the document always matches the code. Script and style of the page are
from a pinned package.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import msgspec
from litestar import MediaType, Response, get
from litestar.routes import HTTPRoute
from litestar.static_files import create_static_files_router
from msgspec import inspect

from marketplace import BRAND
from marketplace.runtime.ids import ALPHABET, LENGTH
from marketplace.web.api import BodyProvider
from marketplace.web.http import JSON, PAGE_LIMIT, PAGE_USUAL, AnyRequest
from marketplace.web.introduction import INTRODUCTION
from marketplace.web.problems import MEDIA_TYPE, Problem
from marketplace.webhook.event import REFERENCE

REFUSALS: Final = {
    400: "The request cannot be read.",
    401: "No valid key.",
    403: "The key may not do this.",
    404: "Not found, or not yours.",
    405: "The address does not take this method.",
    408: "The body took too long.",
    409: "The request conflicts with the current state.",
    413: "The body is too large.",
    415: "The body is not uncompressed JSON.",
    422: "Some fields are not valid; all of them are named.",
    429: "Too many requests; Retry-After says when to send the next.",
    431: "The headers are too large.",
    503: "The service is temporarily unavailable; send the same call again.",
}
"Descriptions of refusals, by status."

BODILESS: Final = frozenset({400, 401, 403, 404, 405, 413, 429, 431, 503})
"Refusals that a call without a body can get."


def _text() -> Mapping[str, Any]:
    return {"type": "string"}


class QueryParameter(msgspec.Struct, frozen=True, kw_only=True):
    """One query parameter or header of a route, with the schema of its text."""

    name: str
    about: str
    where: str = "query"
    schema: Mapping[str, Any] = msgspec.field(default_factory=_text)


class RouteDoc(msgspec.Struct, frozen=True, kw_only=True):
    """Body, parameters and answers of a route. `answers` has a Struct by status, or a media type if it is not JSON.

    A tuple lists all possible answers where they depend on the caller. `route_doc` completes the missing fields.
    """

    answers: Mapping[int, Any] = msgspec.field(default_factory=dict)
    body: Any = None
    query: tuple[QueryParameter, ...] = ()
    public: bool = False


def id_of(*kinds: str) -> Mapping[str, Any]:
    """Return the schema of an id of one of these kinds."""
    return {"type": "string", "pattern": f"^({'|'.join(kinds)})_[0-7][{ALPHABET}]{{{LENGTH - 1}}}$"}


SIGNATURE: Final = (
    QueryParameter(name="webhook-id", where="header", about="Id of the message, the same for each repetition."),
    QueryParameter(name="webhook-timestamp", where="header", about="Seconds since 1970 of this attempt."),
    QueryParameter(name="webhook-signature", where="header", about="Signatures, separated by spaces, each `v1,…`."),
)
"Headers of every webhook."


def paged(cursor: Mapping[str, Any]) -> tuple[QueryParameter, QueryParameter]:
    """Return the parameters of every list; `cursor` is the schema of its cursors."""
    limits = {"type": "integer", "minimum": 1, "maximum": PAGE_LIMIT, "default": PAGE_USUAL}
    return (
        QueryParameter(name="limit", about="Rows on a page.", schema=limits),
        QueryParameter(name="cursor", about="`next_cursor` of the page before.", schema=cursor),
    )


def is_documented(handler: Any) -> bool:
    """Return whether a handler is in the document: it belongs to the API, or has a `doc`."""
    return "doc" in handler.opt or "api" in handler.opt


def route_doc(handler: Any) -> RouteDoc:
    """Return the `doc` of a handler, with the body and the answer that its types declare."""
    doc: RouteDoc = handler.opt.get("doc", RouteDoc())
    providers = (handler.dependencies or {}).values()
    body = next((provider.shape for provider in providers if isinstance(provider, BodyProvider)), doc.body)
    returned = _returned(handler.parsed_fn_signature.return_type.annotation)
    answers = doc.answers if returned is bytes else {handler.status_code: returned, **doc.answers}
    return msgspec.structs.replace(doc, body=body, answers=answers)


def _returned(annotation: Any) -> Any:
    """Return the type of the answer that a return annotation declares, or a tuple of the types of a union."""
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Response):
        return _returned(get_args(annotation)[0])
    return get_args(annotation) if origin in (Union, UnionType) else annotation


Operation = tuple[str, str, Any]
"Path, method in lower case, and handler."


def describe(
    routes: Iterable[Any], public_url: str, events: Sequence[Any] = (), parts: Sequence[Any] = ()
) -> dict[str, Any]:
    """Return the document of all routes of the API, and of the events that it sends.

    Each event is a Struct whose field `type` lists the names under which it is sent. `parts` are Structs to which the
    schemas of events refer by name.
    """
    operations = _operations_of(routes)
    by_shape, components = _describe_shapes(operations, (*events, *parts))
    paths: dict[str, dict[str, Any]] = {}
    for path, method, handler in sorted(operations, key=lambda operation: operation[:2]):
        paths.setdefault(path, {})[method] = _operation(path, handler, by_shape)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": BRAND,
            "version": version("exclusive-lead-marketplace"),
            "description": INTRODUCTION,
        },
        "servers": [{"url": public_url}],
        "security": [{"key": []}],
        "paths": paths,
        "webhooks": {
            name: {"post": _webhook(name, event, by_shape)} for event in events for name in event_names(event)
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "lk_live_… or lk_test_…"}},
        },
    }


def _operations_of(routes: Iterable[Any]) -> list[Operation]:
    """Return all operations of the API."""
    return [
        (route.path_format, method.lower(), handler)
        for route in routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in sorted(handler.http_methods)
        if is_documented(handler) and method not in ("OPTIONS", "HEAD")
    ]


def event_names(event: Any) -> tuple[str, ...]:
    """Return the names under which an event is sent: those that its field `type` may have."""
    [names] = [field.type for field in msgspec.structs.fields(event) if field.name == "type"]
    return get_args(names)


def _webhook(name: str, event: Any, by_shape: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the description of the request by which an event is sent."""
    return {
        "operationId": "receive_" + re.sub(r"[^a-z]", "_", name),
        "summary": _words((event,)),
        "description": "Signed by Standard Webhooks 1.0. Sent again with the same webhook-id until it is answered.",
        "parameters": [_query_parameter(header) for header in SIGNATURE],
        "requestBody": {"required": True, "content": {JSON: {"schema": by_shape[event]}}},
        "responses": {"200": {"description": "Received. Answer with an empty body or with JSON."}},
    }


def _describe_shapes(operations: Iterable[Operation], more: Iterable[Any]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Return the schema of each Struct that the operations use and of `more`, and the components that they refer to."""
    docs = [route_doc(handler) for *_, handler in operations]
    shapes: dict[Any, None] = {Problem: None, **dict.fromkeys(more)}
    for doc in docs:
        answers = (shape for each in doc.answers.values() for shape in _each(each))
        shapes |= dict.fromkeys(shape for shape in (doc.body, *answers) if shape and not isinstance(shape, str))
    shapes |= _structs_in(shapes)
    schemas, components = msgspec.json.schema_components(shapes, ref_template=REFERENCE + "{name}")
    by_shape = dict(zip(shapes, schemas, strict=True))
    for shape, schema in by_shape.items():
        _name_times(shape, components[schema["$ref"].removeprefix(REFERENCE)])
    components = _rename(components, schemas)
    bodies = [doc.body for doc in docs if doc.body and not isinstance(doc.body, str)]
    _close([by_shape[body] for body in bodies], components, set())
    return by_shape, components


def _structs_in(shapes: Iterable[Any]) -> dict[Any, None]:
    """Return all Structs that these types refer to, directly or through others."""
    structs: dict[Any, None] = {}
    kinds: list[Any] = list(inspect.multi_type_info(shapes))
    while kinds:
        kind = kinds.pop()
        if isinstance(kind, inspect.StructType):
            if kind.cls not in structs:
                structs[kind.cls] = None
                kinds.extend(field.type for field in kind.fields)
        else:
            inner = (getattr(kind, name, None) for name in ("item_type", "key_type", "value_type", "type"))
            kinds.extend(each for each in inner if isinstance(each, inspect.Type))
            kinds.extend((*getattr(kind, "types", ()), *getattr(kind, "item_types", ())))
    return structs


def _name_times(shape: Any, component: dict[str, Any]) -> None:
    """Add the format of times, which msgspec leaves out where a time may lack its offset."""
    kind = inspect.type_info(shape)
    for field in kind.fields if isinstance(kind, inspect.StructType) else ():
        if field.encode_name in component.get("properties", {}):
            _name_time(field.type, component["properties"][field.encode_name])


def _name_time(kind: inspect.Type, schema: dict[str, Any]) -> None:
    match kind:
        case inspect.DateTimeType():
            schema["format"] = "date-time"
        case inspect.UnionType():
            texts = [each for each in schema.get("anyOf", (schema,)) if each.get("type") == "string"]
            for text in texts if any(isinstance(each, inspect.DateTimeType) for each in kind.types) else ():
                text["format"] = "date-time"
        case inspect.VarTupleType() | inspect.ListType():
            _name_time(kind.item_type, schema["items"])
        case inspect.DictType() if isinstance(schema.get("additionalProperties"), dict):
            _name_time(kind.value_type, schema["additionalProperties"])


def _rename(components: Mapping[str, Any], schemas: Iterable[Any]) -> dict[str, Any]:
    """Rename components to names that every client generator accepts, and change all references, in place."""
    names = {name: _public_name(name) for name in components}
    if len(set(names.values())) < len(names):
        raise ValueError("two schemas have one name; give one of their classes another")
    for component in (*components.values(), *schemas):
        _refer(component, names)
    for name, component in components.items():
        component["title"] = names[name]
    return {names[name]: component for name, component in components.items()}


def _public_name(name: str) -> str:
    """Return the name of a component in the document."""
    generic = re.fullmatch(r"([A-Za-z]+)_(\w+)_", name)
    return generic[2] + generic[1] if generic else name


def _refer(schema: Any, names: Mapping[str, str]) -> None:
    """Rename every reference, and drop `items: false` of lists whose items are all described."""
    if isinstance(schema, list):
        for each in schema:
            _refer(each, names)
    elif isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            schema["$ref"] = REFERENCE + names.get(name := schema["$ref"].removeprefix(REFERENCE), name)
        match schema.get("discriminator"):
            case {"mapping": dict(mapping)}:
                for tag, reference in mapping.items():
                    mapping[tag] = REFERENCE + names.get(name := reference.removeprefix(REFERENCE), name)
        if schema.get("items") is False:
            del schema["items"]  # `maxItems` says the same, and generators know it
        _refer(list(schema.values()), names)


def _operation(path: str, handler: Any, by_shape: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the description of one operation."""
    doc = route_doc(handler)
    tags = list(handler.tags or ["system"])
    operation: dict[str, Any] = {
        "operationId": handler.fn.__name__ + "_" + tags[0].replace(" ", "_"),
        "summary": (handler.fn.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " "),
        "tags": tags,
        "parameters": [*_path_parameters(path), *map(_query_parameter, doc.query)],
        "responses": {str(status): _answer(shape, by_shape) for status, shape in doc.answers.items()},
    }
    if doc.public:
        operation["security"] = []
    if doc.body is not None:
        kind, schema = (doc.body, _text()) if isinstance(doc.body, str) else (JSON, by_shape[doc.body])
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": schema}}}
    problem = {MEDIA_TYPE: {"schema": by_shape[Problem]}}
    for status, description in REFUSALS.items():
        if doc.body is not None or status in BODILESS or (status == 422 and doc.query):
            operation["responses"].setdefault(str(status), {"description": description, "content": problem})
    return operation


def _path_parameters(path: str) -> Iterator[dict[str, Any]]:
    for part in path.split("/"):
        if part.startswith("{"):
            name = part.strip("{}").split(":")[0]
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameter(query: QueryParameter) -> dict[str, Any]:
    return {"name": query.name, "in": query.where, "description": query.about, "schema": dict(query.schema)}


def _close(schemas: Any, components: Mapping[str, Any], visited: set[str]) -> None:
    """Declare that the objects of a body, nested ones too, take no further fields."""
    if isinstance(schemas, list):
        for schema in schemas:
            _close(schema, components, visited)
    elif isinstance(schemas, dict):
        reference = schemas.get("$ref")
        if isinstance(reference, str) and reference not in visited:
            visited.add(reference)
            component = components[reference.rpartition("/")[2]]
            if "properties" in component:
                component["additionalProperties"] = False
            _close(component, components, visited)
        _close(list(schemas.values()), components, visited)


def _each(answers: Any) -> tuple[Any, ...]:
    return answers if isinstance(answers, tuple) else (answers,)


def _answer(answers: Any, by_shape: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the description of one answer."""
    if answers is None:
        return {"description": "Done; no body."}
    shapes = [shape for shape in _each(answers) if not isinstance(shape, str)]
    content: dict[str, Any] = {kind: {"schema": _text()} for kind in _each(answers) if isinstance(kind, str)}
    if shapes:
        kind = MEDIA_TYPE if shapes == [Problem] else "application/json"
        schemas = [by_shape[shape] for shape in shapes]
        content[kind] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    if shapes == [Problem]:
        return {"description": "Not available yet, or not available any more.", "content": content}
    return {"description": _words(shapes), "content": content}


def _words(shapes: Sequence[Any]) -> str:
    """Return the first line of the docstring of the first Struct."""
    docstring = shapes[0].__doc__ if shapes else None
    return (docstring or "The requested data.").strip().splitlines()[0]


# The page.

_PAGE: Final = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{BRAND} API</title>
<link rel="stylesheet" href="/docs/assets/swagger-ui.css"><link rel="icon" href="/docs/assets/favicon-32x32.png"></head>
<body><div id="page"></div><script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script></body></html>""".encode()

_START: Final = (
    b'SwaggerUIBundle({url: "/openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null, '
    b'docExpansion: "list", defaultModelsExpandDepth: 0, persistAuthorization: false, '
    b'requestInterceptor: (call) => Object.assign(call, {credentials: "omit"})});'
)
"Calls made from the page send the key typed there, never the session cookie of the browser."

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def _assets() -> Path:
    """Return the directory of Swagger UI's files. Raises FileNotFoundError without the package."""
    spec = find_spec("drf_spectacular_sidecar")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package with the documentation page's assets is not installed")
    return Path(spec.origin).parent / "static" / "drf_spectacular_sidecar" / "swagger-ui-dist"


@get("/openapi.json")
async def document(request: AnyRequest) -> Response[bytes]:
    """The OpenAPI 3.1 document."""
    return Response(request.app.state.openapi, media_type=MediaType.JSON)


@get("/docs", media_type=MediaType.HTML)
async def page(request: AnyRequest) -> Response[bytes]:
    """The documentation page; it loads nothing from other hosts."""
    return Response(_PAGE, media_type=MediaType.HTML, headers={"Content-Security-Policy": _POLICY})


@get("/docs/start.js")
async def start(request: AnyRequest) -> Response[bytes]:
    """The script that starts the page."""
    return Response(_START, media_type="text/javascript")


def handlers() -> list[Any]:
    """Return the handlers of the page, its assets and the document."""
    assets = create_static_files_router("/docs/assets", directories=[_assets()], include_in_schema=False)
    return [document, page, start, assets]
