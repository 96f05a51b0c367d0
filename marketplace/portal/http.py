"""All routes of the portal, with errors as pages, and what the pages need while the application runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from litestar import Litestar, Router

from marketplace.portal import (
    account_access,
    assets,
    business,
    installable,
    live,
    mail_links,
    members,
    operator,
    problem_pages,
    provider,
    search,
    signin,
)
from marketplace.portal.flow import AccountServices
from marketplace.portal.frame import render
from marketplace.portal.live import LiveUpdates
from marketplace.portal.passwords import Passwords
from marketplace.runtime.live import Listener
from marketplace.web.http import JSON, AnyRequest, Services, preferred

PARTS: Final = (*business.PARTS, *provider.PARTS, *operator.PARTS)
"The live parts of all pages."

handlers: Final = (
    Router(
        path="/",
        route_handlers=[
            *signin.handlers,
            *mail_links.handlers,
            *members.handlers,
            *account_access.handlers,
            *live.handlers,
            *installable.handlers,
            *search.handlers,
            *problem_pages.handlers,
            *business.handlers,
            *provider.handlers,
            *operator.handlers,
            assets.show_asset,
        ],
        exception_handlers={Exception: render},
        opt={"portal": True},
    ),
)


def asks_for_page(request: AnyRequest) -> bool:
    """Return whether a browser requested an address that does not exist, and prefers a page to JSON as the answer."""
    handler = request.scope.get("route_handler")
    if handler is not None or request.method != "GET" or "accept" not in request.headers:
        return False
    return preferred(request, "accept", (JSON, "text/html")) == "text/html"


@asynccontextmanager
async def ready(app: Litestar, services: Services, valkey_url: str) -> AsyncIterator[None]:
    """Put what the pages need into the application's state while the application runs."""
    passwords, listener = Passwords(), Listener(valkey_url)
    state: Any = app.state
    state.accounts = AccountServices(pool=services.pool, sealer=services.sealer, passwords=passwords)
    state.live = LiveUpdates(listener, PARTS, state.get("stopping"))
    try:
        yield
    finally:
        await listener.close()
        passwords.close()
