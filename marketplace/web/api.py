"""Values that a handler of the API declares and Litestar supplies: the caller, the services, and a body.

A route's provider of the caller decides who may call. Other providers supply the rest, each by the name of the
handler's parameter. Litestar starts a task for each of several providers that do not depend on each other, in no fixed
order. A provider here therefore takes the one that it follows: providers run one after another, a request is refused by
the first check that fails, and no task is started.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from litestar import Response, Router, route
from litestar.di import NamedDependency, Provide
from litestar.handlers import HTTPRouteHandler
from litestar.params import SkipValidation

from marketplace.security.auth import Principal, Scope
from marketplace.text.faults import Fault
from marketplace.web import http
from marketplace.web.http import AnyRequest, Page, Services

T = TypeVar("T")
Shape = TypeVar("Shape", bound=msgspec.Struct)
View = TypeVar("View")

Injected: TypeAlias = NamedDependency[SkipValidation[T]]
"A parameter that a provider supplies as it is: Litestar neither parses nor checks it."
Caller: TypeAlias = Injected[Principal]
"The caller that a route accepts. A parameter of this type is named `caller`."


class CallerProvider(Provide):
    """Provider of a route's `caller`, which refuses all other callers."""


def require(*scopes: Scope, even_suspended: bool = False, mode: str | None = None) -> CallerProvider:
    """Return the provider of a caller with one of `scopes` (any, if none is named) whose key is of `mode`, if stated.

    It raises the errors of `http.principal`, and KeyWrongMode.
    """

    async def authenticate(request: AnyRequest) -> Principal:
        caller = await http.principal(request, *scopes, even_suspended=even_suspended)
        if mode is not None:
            caller.demand_mode(mode)
        return caller

    return CallerProvider(authenticate)


def admit_anyone(request: AnyRequest) -> None:
    """Return None, the caller of a public route."""


def provide_services(request: AnyRequest, caller: Caller) -> Services:
    """Return the services of the api process."""
    return http.services(request)


class BodyProvider(Provide):
    """Provider of a request's body. `shape` is its type in the OpenAPI document: a Struct, or a media type."""

    def __init__(self, read: Callable[..., Any], shape: Any) -> None:
        super().__init__(read)
        self.shape = shape


def provide_body(shape: type[Shape], check: Callable[[Shape], Iterable[Fault]] = http.accept_any) -> BodyProvider:
    """Return the provider of a JSON body, which raises the errors of `http.body` for `shape` and `check`."""

    async def read_body(request: AnyRequest, services: Injected[Services]) -> Any:
        return await http.body(request, shape, check)

    return BodyProvider(read_body, shape)


class JsonAnswer(Response[T]):
    """A JSON answer that no cache stores. Litestar makes one from each Struct that a handler of the API returns."""

    def __init__(
        self, content: T, *, headers: dict[str, str] | None = None, media_type: str = http.JSON, **options: Any
    ) -> None:
        headers = {"Cache-Control": "no-store", **(headers or {})}
        super().__init__(content, headers=headers, media_type=media_type, **options)

    def render(self, content: Any, media_type: str, enc_hook: Any = None) -> bytes:
        """Return the content as JSON, or as it is if it has been encoded already.

        msgspec encodes Structs by itself, so no encoder is made for each answer.
        """
        return content if isinstance(content, bytes) else msgspec.json.encode(content)


def list_page(
    rows: Sequence[Shape], limit: int, show: Callable[[Shape], View], cursor: Callable[[Shape], str]
) -> Page[View]:
    """Return one page of a list. `rows` has one row more than `limit` when another page follows."""
    has_more = len(rows) > limit
    next_cursor = cursor(rows[limit - 1]) if has_more else None
    return Page(data=tuple(map(show, rows[:limit])), next_cursor=next_cursor, has_more=has_more)


PROVIDERS: Final = {
    "caller": Provide(admit_anyone, sync_to_thread=False),
    "services": Provide(provide_services, sync_to_thread=False),
}
"Providers of every route of the API."


def api_router(*handlers: HTTPRouteHandler, path: str = "/v1", **providers: Provide) -> Router:
    """Return the routes of one part of the API, with an answer to OPTIONS and with `providers` for its handlers."""
    return Router(
        path=path,
        route_handlers=[*answer_options(handlers), *handlers],
        dependencies={**PROVIDERS, **providers},
        response_class=JsonAnswer,
        opt={"api": True},
    )


def answer_options(handlers: Iterable[Any]) -> Iterator[HTTPRouteHandler]:
    """Yield a handler for OPTIONS of each path with all its methods; Litestar's own names those of one handler."""
    methods: dict[str, set[str]] = {}
    for handler in handlers:
        if isinstance(handler, HTTPRouteHandler):
            for path in handler.paths:
                methods.setdefault(path, {"OPTIONS"}).update(handler.http_methods)
    for path, allowed in methods.items():
        yield _option(path, ", ".join(sorted(allowed)))


def _option(path: str, allowed: str) -> HTTPRouteHandler:
    @route(path, http_method="OPTIONS", status_code=204)
    async def options() -> Response[None]:
        """Return the methods of the address; no access is granted to pages of other origins."""
        return Response(None, status_code=204, headers={"Allow": allowed})

    return options
