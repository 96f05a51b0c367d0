"""Steps of a new provider: from reading the spec to a live key."""

from typing import Any

from litestar import Response, get, post

from marketplace.database.db import session
from marketplace.directory import going_live
from marketplace.directory.going_live import ProviderReadiness
from marketplace.portal.forms import changing
from marketplace.portal.frame import page, redirect
from marketplace.portal.session import visitor
from marketplace.runtime import errors
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services


@get("/provider/start")
async def show_start(request: AnyRequest) -> Response[bytes]:
    """Show the steps, with those that are done and the next one."""
    viewer = await visitor(request, CallerKind.provider)
    async with session(services(request).pool) as connection:
        readiness = await going_live.load_readiness(connection, viewer.owner)
    steps = steps_of(readiness)
    at = next((number for number, (_href, _name, done) in enumerate(steps, 1) if not done), len(steps))
    return page(request, viewer, "provider/onboarding.html", readiness=readiness, steps=steps, at=at)


def steps_of(readiness: ProviderReadiness) -> tuple[tuple[str, str, bool], ...]:
    """Return for each step the address of its page, its name, and whether it is done."""
    return (
        ("/provider/spec", "Read the spec", readiness.accepted or readiness.test_keys > 0),
        ("/provider/keys", "Make a test key", readiness.test_keys > 0 or readiness.may_go_live),
        ("/provider/console", "Pass three checks", readiness.rehearsed or readiness.may_go_live),
        ("/provider/start#go-live", "Ask to go live", readiness.requested_at is not None or readiness.may_go_live),
        ("/provider/keys", "Make a live key", readiness.live_keys > 0),
    )


@post("/provider/start/live")
async def ask_to_go_live(request: AnyRequest) -> Response[bytes]:
    """Ask the operators to allow the provider to make live keys."""
    viewer, _ = await changing(request, CallerKind.provider)
    try:
        await going_live.request_live(services(request).pool, viewer.actor, viewer.owner)
    except errors.Conflict as error:
        return redirect(request, "/provider/start", error.detail)
    return redirect(request, "/provider/start", "Your request was sent to the operator.")


handlers: tuple[Any, ...] = (show_start, ask_to_go_live)
