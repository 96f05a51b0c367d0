"""Values that a handler of the API declares and Litestar supplies: the caller, the services, and a body.

A guard decides who may call, and stores the caller in the connection. Providers supply the rest by the name of the
handler's parameter. Litestar starts a task for each of several providers that do not depend on each other, in no fixed
order. A provider here therefore takes the one that it follows: providers run one after another, a request is refused by
the first check that fails, and no task is started.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias, TypeVar, cast

import msgspec
from litestar import Response, Router, route
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.handlers import HTTPRouteHandler
from litestar.handlers.base import BaseRouteHandler
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
"The caller that the route's guard let pass. A parameter of this type is named `caller`."


class CallerGuard(msgspec.Struct, frozen=True, kw_only=True):
    """A guard that lets a caller pass whose key has one of `scopes` and, where a mode is stated, is of that mode."""

    scopes: tuple[Scope, ...]
    even_suspended: bool = False
    mode: str | None = None

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Store the caller as the connection's `auth`. Raises what `http.principal` raises, and KeyWrongMode.

        Guards run before everything else, so a query with a control character is refused here.
        """
        request = cast(AnyRequest, connection)
        await http.demand_plain_query(request)
        caller = await http.principal(request, *self.scopes, even_suspended=self.even_suspended)
        if self.mode is not None:
            caller.demand_mode(self.mode)
        connection.scope["auth"] = caller


def require(*scopes: Scope, even_suspended: bool = False, mode: str | None = None) -> CallerGuard:
    """Return the guard of a route for callers with one of `scopes`; with none named, any key will do."""
    return CallerGuard(scopes=scopes, even_suspended=even_suspended, mode=mode)


def provide_caller(request: AnyRequest) -> Principal | None:
    """Return the caller that the guard stored; None on a route without a guard."""
    return cast(Principal | None, request.scope.get("auth"))


def provide_services(request: AnyRequest, caller: Caller) -> Services:
    """Return the services of the api process."""
    return http.services(request)


class BodyProvider(Provide):
    """A provider of a request's body; `shape` is its type in the API's document: a Struct, or a media type."""

    def __init__(self, read: Callable[..., Any], shape: Any) -> None:
        super().__init__(read)
        self.shape = shape


def provide_body(shape: type[Shape], check: Callable[[Shape], Iterable[Fault]] = http.accept_any) -> BodyProvider:
    """Return the provider of a JSON body, which raises what `http.body` raises for `shape` and `check`."""

    async def read_body(request: AnyRequest, services: Injected[Services]) -> Any:
        return await http.body(request, shape, check)

    return BodyProvider(read_body, shape)


class JsonAnswer(Response[T]):
    """A JSON answer that no cache keeps: the form in which Litestar answers with what a handler of the API returns."""

    def __init__(
        self, content: T, *, headers: dict[str, str] | None = None, media_type: str = http.JSON, **options: Any
    ) -> None:
        headers = {"Cache-Control": "no-store", **(headers or {})}
        super().__init__(content, headers=headers, media_type=media_type, **options)


def list_page(
    rows: Sequence[Shape], limit: int, show: Callable[[Shape], View], cursor: Callable[[Shape], str]
) -> Page[View]:
    """Return one page of a list. `rows` were read with one more than `limit`, which tells whether more follow."""
    has_more = len(rows) > limit
    next_cursor = cursor(rows[limit - 1]) if has_more else None
    return Page(data=tuple(map(show, rows[:limit])), next_cursor=next_cursor, has_more=has_more)


PROVIDERS: Final = {
    "caller": Provide(provide_caller, sync_to_thread=False),
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
    """Yield a handler of OPTIONS for each path, which names all its methods: Litestar's own names the first's only."""
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
        """Return the methods of the address; pages of other origins are granted nothing."""
        return Response(None, status_code=204, headers={"Allow": allowed})

    return options
