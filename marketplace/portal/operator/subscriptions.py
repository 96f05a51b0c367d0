"""Page of a subscription: what the business orders, and each change of it with the values before and after."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.store import TenantScope
from marketplace.portal.business.subscription_form import facts_of
from marketplace.portal.frame import page
from marketplace.portal.listing import Column, Listing
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.back_office_store import SavedSubscription
from marketplace.portal.session import visitor
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, path_id, services
from routing.subscription import SubscriptionDefinition

MOST_VERSIONS: Final = 100
"Newest versions on the page."


class SubscriptionChangeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version with its changes in words, and the name of who saved it."""

    version: SavedSubscription
    changes: tuple[str, ...]
    name: str


CHANGES: Final = Listing[SubscriptionChangeRow](
    caption="Versions",
    columns=(
        Column("Version", lambda row: row.version.version, style="num"),
        Column("Saved", lambda row: row.version.made_at),
        Column("By", lambda row: row.name),
        Column("Change", lambda row: ". ".join(row.changes)),
    ),
)


def describe_changes(before: SubscriptionDefinition, after: SubscriptionDefinition) -> Iterator[str]:
    """Yield what differs between two versions: `Price: from 40.00 USD to 52.50 USD`."""
    earlier, later = dict(facts_of(before)), dict(facts_of(after))
    differs = False
    for name in dict.fromkeys((*earlier, *later)):
        old, new = earlier.get(name), later.get(name)
        if old == new:
            continue
        differs = True
        if old is None:
            yield f"{name}: {new}, not set before"
        elif new is None:
            yield f"{name}: no longer set, was {old}"
        else:
            yield f"{name}: from {old} to {new}"
    if not differs and before != after:
        yield "Other postal codes" if before.area != after.area else "A detail that is not shown here"


def list_changes(versions: Sequence[SavedSubscription], names: Mapping[str, str]) -> Iterator[SubscriptionChangeRow]:
    """Yield the versions, newest first, each with its changes against the one before it."""
    for after, before in pairwise((*versions, None)):
        assert after is not None
        changes: tuple[str, ...] = ("First version",) if after.version == 1 else ()
        if before is not None:
            changes = tuple(describe_changes(before.definition, after.definition)) or ("Name or endpoint",)
        name = names.get(after.made_by, after.made_by)
        yield SubscriptionChangeRow(version=after, changes=changes, name=name)


@get("/operator/subscriptions/{subscription_id:str}")
async def show_subscription(request: AnyRequest, subscription_id: FromPath[str]) -> Response[bytes]:
    """Show a subscription with everything that it orders, and its versions with their changes."""
    viewer = await visitor(request, CallerKind.operator)
    internal_id = path_id("sub", subscription_id)
    async with session(services(request).pool) as connection:
        scope = TenantScope(business_id=None, mode=None)
        subscription = await directory_store.find_subscription(connection, scope, internal_id)
        if subscription is None:
            raise errors.NotFound(directory_flow.NOT_THERE)
        businesses = await back_office_store.list_businesses(connection, None, 1, only=subscription.business_id)
        versions = await back_office_store.list_subscription_versions(connection, internal_id, None, MOST_VERSIONS + 1)
        names = await back_office_store.list_actor_names(connection, {version.made_by for version in versions})
    return page(
        request,
        viewer,
        "operator/subscription.html",
        subscription=subscription,
        account=ids.encode("sub", internal_id),
        business=businesses[0],
        facts=facts_of(subscription.definition),
        listing=CHANGES,
        rows=tuple(list_changes(versions, names))[:MOST_VERSIONS],
    )


handlers: tuple[Any, ...] = (show_subscription,)
