"""Audit trail of every account, and the check that no sealed row was altered."""

from datetime import datetime, timedelta
from typing import Any, Final

from litestar import Response, get, post

from marketplace.database.db import session
from marketplace.portal.audit_words import describe_action
from marketplace.portal.forms import changing
from marketplace.portal.frame import DASH, badge, money, page, short
from marketplace.portal.listing import Column, Link, Listing, code, only_in_file
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.back_office_store import AuditEntry
from marketplace.portal.paging import changed_address, list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.store import Role
from marketplace.reports.question import midnight
from marketplace.runtime import errors
from marketplace.security import audit
from marketplace.security.auth import CallerKind
from marketplace.text.faults import Fault
from marketplace.text.values import read_day
from marketplace.web.http import AnyRequest, page_cursor, services, wants_csv

HOME: Final = "/operator/audit"
CSV_LINES: Final = 10_000
SUBJECTS: Final = (
    "wallet",
    "business",
    "provider",
    "subscription",
    "endpoint",
    "key",
    "vertical",
    "lead",
    "return",
    "member",
    "session",
    "database",
)


PROBLEMS: Final = Listing[audit.ChainFinding](
    caption="Problems",
    columns=(
        Column("Problem", lambda finding: badge(finding.fault, "bad")),
        Column("Block", lambda finding: finding.block, style="num"),
        Column("Row", lambda finding: finding.position, style="num"),
        Column("Table", lambda finding: finding.table),
        Column("Id", lambda finding: code(finding.id or DASH)),
    ),
)


@get(HOME)
async def show_audit(request: AnyRequest) -> Response[bytes]:
    """Show the changes that match the filter, newest first."""
    return await _audit_page(request, await visitor(request, CallerKind.operator))


@post(f"{HOME}/verify")
async def verify_audit(request: AnyRequest) -> Response[bytes]:
    """Recompute every seal, and show each row and block that differs. Changes nothing."""
    viewer, fields = await changing(request, CallerKind.operator, role=Role.viewer)
    head = (fields.get("head") or ("",))[0].strip().lower() or None
    resources = services(request)
    async with session(resources.reports) as connection:
        report = await audit.verify(connection, audit.seal_key(resources.settings.master_key), head)
    return await _audit_page(request, viewer, report)


async def _audit_page(request: AnyRequest, viewer: Viewer, report: audit.ChainReport | None = None) -> Response[bytes]:
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file else list_limit(request)
    query = {name: value for name, value in request.query_params.items() if value}
    async with session(services(request).reports) as connection:
        rows = await back_office_store.list_audit(
            connection,
            page_cursor(request, "aud"),
            limit + 1,
            actor=query.get("actor"),
            object=query.get("object"),
            action=query.get("action"),
            since=_read_midnight(query, "from", viewer),
            until=_read_midnight(query, "to", viewer, 1),
        )
    changes = rows[:limit]
    async with session(services(request).pool) as connection:
        names = await back_office_store.list_actor_names(connection, {change.actor for change in changes})
        head = await back_office_store.find_head(connection)
    listing = change_listing(request, names)
    if as_file:
        return await listing.download(changes)
    return page(
        request,
        viewer,
        "operator/audit.html",
        listing=listing,
        changes=changes,
        head=head,
        problem_listing=PROBLEMS,
        report=report,
        next_cursor=next_page("aud", [row.id for row in rows], limit),
        subjects=SUBJECTS,
        describe_action=describe_action,
    )


def _read_midnight(query: dict[str, str], name: str, viewer: Viewer, days_later: int = 0) -> datetime | None:
    if name not in query:
        return None
    day = read_day(query[name])
    if day is None:
        detail = "Give a day such as 2026-01-31."
        raise errors.InvalidInput((Fault(pointer=f"/{name}", code="date_invalid", detail=detail),))
    return midnight(day + timedelta(days=days_later), viewer.zone)


def change_listing(request: AnyRequest, names: dict[str, str]) -> Listing[AuditEntry]:
    """Return the list of changes. `names` are the actors' names. Each value links to the changes that share it."""
    query = dict(request.query_params.items())

    def actor(change: AuditEntry) -> Link:
        name: object = names.get(change.actor) or change.actor
        if name == change.actor and change.actor.startswith("mem_"):
            name = short(change.actor)
        return Link(changed_address(HOME, query, actor=change.actor, cursor=None), name)

    def action(change: AuditEntry) -> Link:
        address = changed_address(HOME, query, action=change.action, cursor=None)
        return Link(address, describe_action(change.action))

    def subject(change: AuditEntry) -> Link:
        address = object_page(change.object) or changed_address(HOME, query, object=change.object, cursor=None)
        return Link(address, short(change.object) if "_" in change.object else change.object)

    return Listing(
        caption="Changes",
        name="audit",
        columns=(
            Column(
                "When",
                lambda change: change.at,
                file="at",
                value=lambda change: change.at.isoformat(),
                time="second",
            ),
            Column("Who", actor, file="actor", value=lambda change: change.actor),
            only_in_file("name", lambda change: names.get(change.actor, "")),
            Column(
                "What",
                action,
                file="action",
                value=lambda change: change.action,
            ),
            Column("Changed object", subject, file="object", value=lambda change: change.object),
            Column("Detail", lambda change: describe_detail(change) or None, file="detail", value=describe_detail),
        ),
    )


def recent_changes(names: dict[str, str]) -> Listing[AuditEntry]:
    """Return the list of the latest changes to a party. `names` are the actors' names."""
    return Listing(
        caption="Recent changes",
        columns=(
            Column("When", lambda change: change.at, time="second"),
            Column("Who", lambda change: names.get(change.actor, change.actor)),
            Column("What", lambda change: describe_action(change.action)),
            Column("Detail", lambda change: describe_detail(change) or None),
        ),
    )


def describe_detail(change: AuditEntry) -> str:
    """Return the detail of a change as text, such as `price: from $40.00 to $52.50; reason: asked by telephone`.

    Amounts are shown in the currency that the detail names. Rows from before it named one have them in minor units.
    """
    detail = {name: value for name, value in change.detail.items() if value is not None}
    currency, parts = detail.get("currency"), []
    for name, value in detail.items():
        if name in ("currency", *map(_before, detail)):
            continue
        is_amount = isinstance(currency, str) and name.endswith(MINOR) and isinstance(value, int)
        heading = (name.removesuffix(MINOR) if is_amount else name).replace("_", " ")
        text, earlier = value, detail.get(_before(name))
        if isinstance(currency, str) and is_amount:
            text = money(int(value), currency)
            earlier = money(earlier, currency) if isinstance(earlier, int) else earlier
        parts.append(f"{heading}: {text}" if earlier is None else f"{heading}: from {earlier} to {text}")
    return "; ".join(parts)


MINOR: Final = "_minor"
"End of the name of an amount in minor units."


def _before(name: str) -> str:
    """Return the name under which a detail holds the value before the change: `price_before_minor`, `weight_before`."""
    return f"{name.removesuffix(MINOR)}_before{MINOR if name.endswith(MINOR) else ''}"


def object_page(object: str) -> str:
    """Return the address of the changed object's page, or an empty text."""
    pages = {"biz": "/operator/businesses/", "prov": "/operator/providers/", "sub": "/operator/subscriptions/"}
    kind = object.partition("_")[0]
    return pages[kind] + object if kind in pages else ""


handlers: tuple[Any, ...] = (show_audit, verify_audit)
