"""Page of a business's API keys, for software that reads its feed or reports outcomes: make, rotate and revoke."""

from datetime import timedelta
from typing import Annotated, Final, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory import going_live
from marketplace.portal.api_keys import KEYS, MOST_SHOWN, KeyDays, KeyName, RotateForm, works
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.forms import ReasonForm, changing, fill, label, show_again, show_form, submitted
from marketplace.portal.frame import redirect
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors
from marketplace.security import auth
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services

HOME: Final = "/business/keys"
MODES: Final = (("live", "Live: real leads"), ("test", "Test: nothing is charged or delivered"))


class BusinessKeyForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new key, which ends after `days`; without them, when it is revoked."""

    name: Annotated[KeyName, label("Name", "Its use, such as “feed reader”.")]
    mode: Annotated[Literal["test", "live"], label("Mode")] = "live"
    days: Annotated[
        KeyDays | None, label("Days until it ends", "If you leave this empty, the key works until you revoke it.")
    ] = None


@get(HOME)
async def show_keys(request: AnyRequest) -> Response[bytes]:
    """Show all keys of the business, newest first, without their texts."""
    return await _keys_page(request, await visitor(request, CallerKind.business))


@post(HOME)
async def create_key(request: AnyRequest) -> Response[bytes]:
    """Make a key and show its text once."""
    viewer, fields = await changing(request, CallerKind.business)
    app = services(request)
    try:
        form = fill(BusinessKeyForm, fields)
        text = await directory_flow.create_key(
            app.pool,
            app.sealer,
            viewer.actor,
            kind=CallerKind.business,
            owner_id=viewer.owner,
            mode=form.mode,
            name=form.name.strip(),
            expires_at=clock.now() + timedelta(days=form.days) if form.days else None,
            opened=viewer.opened,
        )
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _keys_page(request, viewer))
    return await _keys_page(request, viewer, text)


@post(f"{HOME}/{{key_id:str}}/rotate")
async def rotate_key(request: AnyRequest, key_id: FromPath[str]) -> Response[bytes]:
    """Replace a key by a new one; the old one works for some hours more."""
    viewer, form = await submitted(request, RotateForm, CallerKind.business)
    app, overlap = services(request), timedelta(hours=form.hours)
    text = await going_live.rotate_own_key(app.pool, app.sealer, viewer.actor, viewer.owner, key_id, overlap)
    return await _keys_page(request, viewer, text)


@post(f"{HOME}/{{key_id:str}}/revoke")
async def revoke_key(request: AnyRequest, key_id: FromPath[str]) -> Response[bytes]:
    """Revoke a key at once."""
    viewer, form = await submitted(request, ReasonForm, CallerKind.business)
    key = await going_live.revoke_own_key(services(request).pool, viewer.actor, viewer.owner, key_id, form.reason)
    return redirect(request, HOME, f"The key \u201c{key.name}\u201d was revoked.")


async def _keys_page(request: AnyRequest, viewer: Viewer, text: str = "") -> Response[bytes]:
    async with session(services(request).pool) as connection:
        keys = await auth.list_keys(connection, viewer.owner, None, MOST_SHOWN)
    return await business_page(
        request,
        viewer,
        "business/keys.html",
        form=show_form(BusinessKeyForm, {"mode": viewer.mode}, {"mode": MODES}),
        listing=KEYS,
        keys=keys,
        works=works,
        text=text,
        mode=text.partition("_")[2].partition("_")[0],
        home=HOME,
    )


handlers = (show_keys, create_key, rotate_key, revoke_key)
