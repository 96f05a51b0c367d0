"""Page of a provider's API keys: make, rotate and revoke. The text of a key is shown once."""

from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.directory import going_live
from marketplace.portal.api_keys import KEYS, MOST_SHOWN, KeyDays, KeyName, RotateForm, works
from marketplace.portal.forms import ReasonForm, changing, fill, label, show_again, show_form, submitted
from marketplace.portal.frame import page, redirect
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors
from marketplace.security import auth
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services


class ProviderKeyForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new key, which ends after `days`; without them, when it is revoked."""

    name: Annotated[KeyName, label("Name", "Its use, such as “quote form”.")]
    mode: Annotated[Literal["test", "live"], label("Mode")] = "test"
    days: Annotated[
        KeyDays | None, label("Days until it ends", "If you leave this empty, the key works until you revoke it.")
    ] = None


@get("/provider/keys")
async def show_keys(request: AnyRequest) -> Response[bytes]:
    """Show all keys of the provider, newest first, without their texts."""
    return await _keys_page(request, await visitor(request, CallerKind.provider))


@post("/provider/keys")
async def create_key(request: AnyRequest) -> Response[bytes]:
    """Make a key and show its text once."""
    viewer, sent = await changing(request, CallerKind.provider)
    try:
        form = fill(ProviderKeyForm, sent)
        expires_at = clock.now() + timedelta(days=form.days) if form.days else None
        text = await going_live.create_own_key(
            services(request).pool,
            services(request).sealer,
            viewer.actor,
            viewer.owner,
            mode=form.mode,
            name=form.name.strip(),
            expires_at=expires_at,
        )
    except (errors.InvalidInput, errors.Conflict) as error:
        return await show_again(request, sent, error, _keys_page(request, viewer))
    return await _keys_page(request, viewer, text)


@post("/provider/keys/{key_id:str}/rotate")
async def rotate_key(request: AnyRequest, key_id: FromPath[str]) -> Response[bytes]:
    """Replace a key by a new one; the old one works for some hours more."""
    viewer, form = await submitted(request, RotateForm, CallerKind.provider)
    text = await going_live.rotate_own_key(
        services(request).pool,
        services(request).sealer,
        viewer.actor,
        viewer.owner,
        key_id,
        timedelta(hours=form.hours),
    )
    return await _keys_page(request, viewer, text)


@post("/provider/keys/{key_id:str}/revoke")
async def revoke_key(request: AnyRequest, key_id: FromPath[str]) -> Response[bytes]:
    """Revoke a key at once."""
    viewer, form = await submitted(request, ReasonForm, CallerKind.provider)
    key = await going_live.revoke_own_key(services(request).pool, viewer.actor, viewer.owner, key_id, form.reason)
    return redirect(request, "/provider/keys", f"The key \u201c{key.name}\u201d was revoked.")


async def _keys_page(request: AnyRequest, viewer: Viewer, text: str = "") -> Response[bytes]:
    async with session(services(request).pool) as connection:
        keys = await auth.list_keys(connection, viewer.owner, None, MOST_SHOWN)
        readiness = await going_live.load_readiness(connection, viewer.owner)
    modes = [("test", "Test: nothing is charged or delivered"), ("live", "Live: real people")]
    mode = "live" if readiness.may_go_live else "test"
    options = modes if readiness.may_go_live else modes[:1]
    form = show_form(ProviderKeyForm, {"mode": mode}, {"mode": options})
    return page(
        request,
        viewer,
        "provider/keys.html",
        form=form,
        listing=KEYS,
        keys=keys,
        works=works,
        readiness=readiness,
        text=text,
        mode=text.partition("_")[2].partition("_")[0],
    )


handlers: tuple[Any, ...] = (show_keys, create_key, rotate_key, revoke_key)
