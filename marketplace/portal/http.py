"""All pages together: their routes under one roof, with errors as pages and no page without somebody signed in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from litestar import Litestar, Router

from marketplace.portal import account_access, assets, business, live, members, operator, provider, signin
from marketplace.portal.flow import AccountServices
from marketplace.portal.frame import render
from marketplace.portal.live import LiveUpdates
from marketplace.portal.passwords import Passwords
from marketplace.runtime.live import Listener
from marketplace.web.http import JSON, AnyRequest, Services, preferred

PARTS: Final = (*business.PARTS, *provider.PARTS, *operator.PARTS)
"Every live part of every page."

handlers: Final = (
    Router(
        path="/",
        route_handlers=[
            *signin.handlers, *members.handlers, *account_access.handlers, *live.handlers, *business.handlers,
            *provider.handlers, *operator.handlers, assets.show_asset,
        ],
        exception_handlers={Exception: render},
        opt={"portal": True},
    ),
)  # fmt: skip


def asks_for_page(request: AnyRequest) -> bool:
    """Whether somebody in a browser asked for an address that nothing is at, and would like to read so on a page."""
    handler = request.scope.get("route_handler")
    if handler is not None or request.method != "GET" or "accept" not in request.headers:
        return False
    return preferred(request, "accept", (JSON, "text/html")) == "text/html"


@asynccontextmanager
async def ready(app: Litestar, services: Services, valkey_url: str) -> AsyncIterator[None]:
    """What the pages work with, in the application's state, for as long as the application runs."""
    passwords, listener = Passwords(), Listener(valkey_url)
    state: Any = app.state
    state.accounts = AccountServices(pool=services.pool, sealer=services.sealer, passwords=passwords)
    state.live = LiveUpdates(listener, PARTS, state.get("stopping"))
    try:
        yield
    finally:
        await listener.close()
        passwords.close()
