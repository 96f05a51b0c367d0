"""Subscriptions that a quota has suspended, with the figures that did it, and the way back.

A business that refuses what it reads, or never acknowledges it, reads for nothing. An operator who has talked to it
resumes the subscription; its leads are counted anew from then.
"""

from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.portal.business.wording import suspension_words
from marketplace.portal.forms import submitted
from marketplace.portal.frame import page, redirect
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.deliveries import ANYBODYS, SUSPENDED, TABS
from marketplace.portal.session import visitor
from marketplace.security.auth import CallerKind
from marketplace.text.faults import WORDS
from marketplace.web.http import AnyRequest, path_id, services

MOST_SHOWN: Final = 200


class ResumeForm(msgspec.Struct, frozen=True, kw_only=True):
    """Why the subscription may have leads again."""

    reason: Annotated[str, Meta(min_length=1, max_length=500, pattern=WORDS)]


@get(SUSPENDED)
async def show_suspended(request: AnyRequest) -> Response[bytes]:
    """Shows the suspended subscriptions, those suspended last first."""
    viewer = await visitor(request, CallerKind.operator)
    async with session(services(request).pool) as connection:
        rows = await back_office_store.list_suspended(connection, MOST_SHOWN)
    return page(
        request, viewer, "operator/suspended.html", tabs=TABS, rows=rows, most=MOST_SHOWN,
        suspension_words=suspension_words,
    )  # fmt: skip


@post(f"{SUSPENDED}/{{subscription_id:str}}")
async def resume(request: AnyRequest, subscription_id: FromPath[str]) -> Response[bytes]:
    """Resumes a suspended subscription; its quotas count anew."""
    viewer, form = await submitted(request, ResumeForm, CallerKind.operator)
    chosen = path_id("sub", subscription_id)
    pool, reason = services(request).pool, form.reason.strip()
    await directory_flow.switch_subscription(pool, viewer.actor, ANYBODYS, chosen, "active", reason)
    return redirect(request, SUSPENDED, "Resumed: leads go there again, and are counted anew.")


handlers: tuple[Any, ...] = (show_suspended, resume)
