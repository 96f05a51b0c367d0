"""HTTP API of subscriptions: create, revise, list, pause, resume and end them. They are versioned and never deleted."""

from datetime import datetime

import msgspec
from litestar import Response, delete, get, post, put
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.checks import subscription_faults
from marketplace.directory.flow import StatedTerms, SubscriptionRequest
from marketplace.directory.store import SubscriptionRecord
from marketplace.directory.wire import (
    BODY_LIMIT,
    BUSINESS,
    IF_MATCH,
    STEWARD,
    Mode,
    Name,
    Slug,
    Version,
    business_of,
    configuration,
    etag,
    expected_version,
    mode_of,
    reach_of,
)
from marketplace.rules.catalog import Vertical
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind, Principal
from marketplace.text.faults import Fault
from marketplace.web.api import BodyProvider, Caller, Injected, JsonAnswer, api_router, list_page
from marketplace.web.http import AnyRequest, Page, Services, page_cursor, page_limit, path_id
from marketplace.web.openapi import RouteDoc, id_of, paged
from marketplace.web.problems import Problem
from routing.quota import SuspensionReason
from routing.subscription import BusinessRules, SubscriptionDefinition

PATH = "/subscriptions"
ONE = f"{PATH}/{{subscription_id:str}}"


class RequestedDefinition(BusinessRules, frozen=True, kw_only=True):
    """Rules of a subscription to be saved. The operator sets `priority` and `weight`.

    A business leaves these two out, or sends them as they are. An operator with a live key changes them by sending
    others, for all subscriptions of the business in the vertical.
    """

    priority: int | None = None
    weight: int | None = None

    def complete(self) -> SubscriptionDefinition:
        """Return the definition, with the defaults for what was not stated."""
        stated = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return SubscriptionDefinition(**stated)


class NewSubscription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/subscriptions. Operators add the business, and may state the mode."""

    vertical: Slug
    name: Name
    endpoint_id: str
    definition: RequestedDefinition
    business_id: str | None = None
    mode: Mode | None = None


class SubscriptionChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /v1/subscriptions/{id}, complete. `version` is the one that was read, unless If-Match states it."""

    name: Name
    endpoint_id: str
    definition: RequestedDefinition
    version: Version | None = None


class SuspensionView(msgspec.Struct, frozen=True, kw_only=True):
    """Reason and time of a suspension, which `counted` of the `shown` leads in its quota's window have caused."""

    reason: SuspensionReason
    at: datetime
    counted: int
    shown: int


class SubscriptionView(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription as its business sees it."""

    id: str
    business_id: str
    vertical: str
    endpoint_id: str | None
    mode: str
    name: str
    state: str
    suspension: SuspensionView | None
    version: int
    definition: SubscriptionDefinition
    created_at: datetime
    updated_at: datetime


def _show(subscription: SubscriptionRecord) -> SubscriptionView:
    endpoint_id = ids.encode("whe", subscription.endpoint_id) if subscription.endpoint_id else None
    return SubscriptionView(
        id=ids.encode("sub", subscription.id),
        business_id=ids.encode("biz", subscription.business_id),
        vertical=subscription.vertical,
        endpoint_id=endpoint_id,
        mode=subscription.mode,
        name=subscription.name,
        state=subscription.state,
        suspension=_show_suspension(subscription),
        version=subscription.version,
        definition=subscription.definition,
        created_at=subscription.created_at,
        updated_at=subscription.made_at,
    )


def _show_suspension(subscription: SubscriptionRecord) -> SuspensionView | None:
    """Return the suspension of a suspended subscription, else None."""
    if subscription.state != "suspended":
        return None
    reason, at = subscription.suspended_for, subscription.suspended_at
    counted, shown_count = subscription.suspended_counted, subscription.suspended_shown
    if reason is None or at is None or counted is None or shown_count is None:
        raise ValueError("a suspended subscription has its figures (subscription_suspended)")
    return SuspensionView(reason=reason, at=at, counted=counted, shown=shown_count)


def _answer(subscription: SubscriptionRecord, status: int = 200) -> Response[SubscriptionView]:
    return JsonAnswer(_show(subscription), status_code=status, headers=etag(subscription.version))


def _draft(caller: Principal, body: NewSubscription | SubscriptionChange) -> SubscriptionRequest:
    """Return the contents of the subscription to be saved. The terms of live leads are set with a live key."""
    stated = body.definition
    return SubscriptionRequest(
        name=body.name,
        endpoint_id=ids.decode("whe", body.endpoint_id),
        definition=stated.complete(),
        stated=StatedTerms(weight=stated.weight, priority=stated.priority),
        sets_terms=(caller.kind, caller.mode) == (CallerKind.operator, "live"),
    )


def _definition_faults(stated: RequestedDefinition, vertical: Vertical | None) -> tuple[Fault, ...]:
    """Return the faults of a definition that do not depend on wallet and endpoint; none if the vertical is unknown."""
    if vertical is None:
        return ()
    return subscription_faults(stated.complete(), vertical, stated.currency, endpoint_found=True)


async def provide_subscription(request: AnyRequest, services: Injected[Services]) -> NewSubscription:
    """Return the body of a new subscription. Raises the errors of `configuration`."""
    rules = await services.catalog.recent()
    return await configuration(
        request, NewSubscription, lambda part: _definition_faults(part.definition, rules.by_slug.get(part.vertical))
    )


async def provide_change(request: AnyRequest, caller: Caller, services: Injected[Services]) -> SubscriptionChange:
    """Return the body of a change. Raises NotFound for a malformed id in the path and the errors of `configuration`."""
    subscription_uuid, rules = path_id("sub", request.path_params["subscription_id"]), await services.catalog.recent()
    async with session(services.pool) as connection:
        current = await directory_store.find_subscription(connection, reach_of(caller), subscription_uuid)
    vertical = None if current is None else rules.by_slug.get(current.vertical)
    return await configuration(request, SubscriptionChange, lambda part: _definition_faults(part.definition, vertical))


@post(
    PATH,
    tags=["subscriptions"],
    dependencies={"caller": STEWARD, "draft": BodyProvider(provide_subscription, NewSubscription)},
    request_max_body_size=BODY_LIMIT,
)
async def create_subscription(
    caller: Caller, draft: Injected[NewSubscription], services: Injected[Services]
) -> Response[SubscriptionView]:
    """Subscribes to a vertical's leads. An error lists all faults of the subscription at once."""
    business_id, mode = business_of(caller, draft.business_id), mode_of(caller, draft.mode)
    subscription = await directory_flow.create_subscription(
        services.pool, caller.key_id, business_id, mode, draft.vertical, _draft(caller, draft)
    )
    return _answer(subscription, 201)


@put(
    ONE,
    tags=["subscriptions"],
    dependencies={"caller": STEWARD, "change": BodyProvider(provide_change, SubscriptionChange)},
    request_max_body_size=BODY_LIMIT,
    doc=RouteDoc(query=(IF_MATCH,)),
)
async def revise_subscription(
    request: AnyRequest,
    subscription_id: FromPath[str],
    caller: Caller,
    change: Injected[SubscriptionChange],
    services: Injected[Services],
) -> Response[SubscriptionView]:
    """Creates the next version of a subscription; 409 if it has changed since it was read."""
    version = expected_version(request, change.version)
    revised = await directory_flow.revise_subscription(
        services.pool, caller.key_id, reach_of(caller), path_id("sub", subscription_id), version, _draft(caller, change)
    )
    return _answer(revised)


@get(
    PATH, tags=["subscriptions"], dependencies={"caller": STEWARD}, doc=RouteDoc(query=(*paged(id_of("sub")), BUSINESS))
)
async def list_subscriptions(
    request: AnyRequest, caller: Caller, services: Injected[Services]
) -> Page[SubscriptionView]:
    """Lists subscriptions, newest first."""
    limit, after = page_limit(request), page_cursor(request, "sub")
    reach = reach_of(caller, request.query_params.get("business_id"))
    async with session(services.pool) as connection:
        subscriptions = await directory_store.list_subscriptions(connection, reach, after, limit + 1)
    return list_page(subscriptions, limit, _show, lambda row: ids.encode("sub", row.id))


@get(ONE, tags=["subscriptions"], dependencies={"caller": STEWARD})
async def show_subscription(
    subscription_id: FromPath[str], caller: Caller, services: Injected[Services]
) -> Response[SubscriptionView]:
    """Shows one subscription in its current version."""
    async with session(services.pool) as connection:
        subscription = await directory_store.find_subscription(
            connection, reach_of(caller), path_id("sub", subscription_id)
        )
    if subscription is None:
        raise errors.NotFound(directory_flow.NOT_THERE)
    return _answer(subscription)


@post(
    f"{ONE}/pause",
    status_code=200,
    tags=["subscriptions"],
    dependencies={"caller": STEWARD},
    doc=RouteDoc(answers={409: Problem}),
)
async def pause_subscription(
    subscription_id: FromPath[str], caller: Caller, services: Injected[Services]
) -> Response[SubscriptionView]:
    """Pauses a subscription: it gets no leads until it is resumed. A repeated call changes nothing."""
    return await _switch(caller, services, subscription_id, "paused")


@post(
    f"{ONE}/resume",
    status_code=200,
    tags=["subscriptions"],
    dependencies={"caller": STEWARD},
    doc=RouteDoc(answers={409: Problem}),
)
async def resume_subscription(
    subscription_id: FromPath[str], caller: Caller, services: Injected[Services]
) -> Response[SubscriptionView]:
    """Resumes a subscription; a repeated call changes nothing.

    An operator's key also ends a suspension, and the quotas are then counted anew.
    """
    return await _switch(caller, services, subscription_id, "active")


@delete(ONE, status_code=200, tags=["subscriptions"], dependencies={"caller": STEWARD})
async def end_subscription(
    subscription_id: FromPath[str], caller: Caller, services: Injected[Services]
) -> Response[SubscriptionView]:
    """Ends a subscription for good. It is kept, because its leads refer to it."""
    return await _switch(caller, services, subscription_id, "ended")


async def _switch(
    caller: Principal, services: Services, subscription_id: str, state: str
) -> Response[SubscriptionView]:
    """Switch the subscription to `state`, and answer with it."""
    subscription_uuid = path_id("sub", subscription_id)
    return _answer(
        await directory_flow.switch_subscription(
            services.pool, caller.key_id, reach_of(caller), subscription_uuid, state
        )
    )


handlers = (
    api_router(
        create_subscription,
        revise_subscription,
        list_subscriptions,
        show_subscription,
        pause_subscription,
        resume_subscription,
        end_subscription,
    ),
)
