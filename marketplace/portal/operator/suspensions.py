"""Subscriptions that a quota has suspended, with the figures that caused it, and the form to resume them.

A business that refuses or never confirms the leads that it is shown sees them without paying. An operator who has
spoken to the business resumes the subscription, and the count starts again.
"""

from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.portal.business.wording import suspension_words
from marketplace.portal.forms import ReasonForm, submitted
from marketplace.portal.frame import page, redirect, words
from marketplace.portal.listing import Column, Listing
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.back_office_store import SuspendedSubscription
from marketplace.portal.operator.deliveries import EVERY_ACCOUNT, SUSPENDED, TABS
from marketplace.portal.operator.links import business_link
from marketplace.portal.session import visitor
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, path_id, services

MOST_SHOWN: Final = 200


SUSPENDED_SUBSCRIPTIONS: Final = Listing[SuspendedSubscription](
    caption="Suspended subscriptions",
    columns=(
        Column("Since", lambda row: row.suspended_at),
        Column("Business", lambda row: business_link(row.business_id, row.business)),
        Column("Subscription", lambda row: row.name),
        Column("Vertical", lambda row: words(row.vertical)),
        Column("Reason", lambda row: suspension_words(row.reason, row.counted, row.leads)),
    ),
)


@get(SUSPENDED)
async def show_suspended(request: AnyRequest) -> Response[bytes]:
    """Show the suspended subscriptions, the latest first."""
    viewer = await visitor(request, CallerKind.operator)
    async with session(services(request).pool) as connection:
        rows = await back_office_store.list_suspended(connection, MOST_SHOWN)
    return page(
        request,
        viewer,
        "operator/suspended.html",
        tabs=TABS,
        listing=SUSPENDED_SUBSCRIPTIONS,
        rows=rows,
        most=MOST_SHOWN,
    )


@post(f"{SUSPENDED}/{{subscription_id:str}}")
async def resume(request: AnyRequest, subscription_id: FromPath[str]) -> Response[bytes]:
    """Resume a suspended subscription; its quotas start counting again."""
    viewer, form = await submitted(request, ReasonForm, CallerKind.operator)
    await directory_flow.switch_subscription(
        services(request).pool,
        viewer.actor,
        EVERY_ACCOUNT,
        path_id("sub", subscription_id),
        "active",
        form.reason.strip(),
    )
    return redirect(request, SUSPENDED, "The subscription gets leads again. The count starts from now.")


handlers: tuple[Any, ...] = (show_suspended, resume)
