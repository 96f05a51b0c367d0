"""Who changed what, over all accounts; whether the trail is still what was sealed."""

from datetime import datetime, timedelta
from typing import Any, Final

from litestar import Response, get, post

from marketplace.database.db import session
from marketplace.portal.forms import changing
from marketplace.portal.frame import changed_address, page, short, words
from marketplace.portal.listing import Column, Link, Listing, only_in_file
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.back_office_store import AuditEntry
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.store import Role
from marketplace.reports.question import midnight
from marketplace.runtime import errors, ids
from marketplace.security import audit
from marketplace.security.auth import CallerKind
from marketplace.text.faults import Fault
from marketplace.text.values import read_day
from marketplace.web.http import AnyRequest, page_cursor, page_limit, services, wants_csv

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


@get(HOME)
async def show_audit(request: AnyRequest) -> Response[bytes]:
    """Shows every change that the filter lets through, newest first."""
    return await _audit_page(request, await visitor(request, CallerKind.operator))


@post(f"{HOME}/verify")
async def verify_audit(request: AnyRequest) -> Response[bytes]:
    """Recomputes every seal and every row, and shows exactly what is not as it was sealed. Changes nothing."""
    viewer, given = await changing(request, CallerKind.operator, role=Role.viewer)
    head = (given.get("head") or ("",))[0].strip().lower() or None
    found = services(request)
    async with session(found.reports) as connection:
        report = await audit.verify(connection, audit.seal_key(found.settings.master_key), head)
    return await _audit_page(request, viewer, report)


async def _audit_page(request: AnyRequest, viewer: Viewer, report: audit.ChainReport | None = None) -> Response[bytes]:
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file else page_limit(request)
    asked = {name: value for name, value in request.query_params.items() if value}
    async with session(services(request).reports) as connection:
        found = await back_office_store.list_audit(
            connection,
            page_cursor(request, "aud"),
            limit + 1,
            actor=asked.get("actor"),
            object=asked.get("object"),
            action=asked.get("action"),
            since=_midnight(asked, "from", viewer),
            until=_midnight(asked, "to", viewer, 1),
        )
    async with session(services(request).pool) as connection:
        names = await back_office_store.list_actor_names(connection, {one.actor for one in found[:limit]})
        head = await back_office_store.find_head(connection)
    listing = change_listing(request, names)
    if as_file:
        return await listing.download(found[:limit])
    return page(
        request,
        viewer,
        "operator/audit.html",
        listing=listing,
        changes=found[:limit],
        head=head,
        report=report,
        next_cursor=ids.encode("aud", found[limit - 1].id) if len(found) > limit else None,
        subjects=SUBJECTS,
    )


def _midnight(asked: dict[str, str], name: str, viewer: Viewer, days_later: int = 0) -> datetime | None:
    if name not in asked:
        return None
    day = read_day(asked[name])
    if day is None:
        detail = "Give a day such as 2026-01-31."
        raise errors.InvalidInput((Fault(pointer=f"/{name}", code="date_invalid", detail=detail),))
    return midnight(day + timedelta(days=days_later), viewer.zone)


def change_listing(request: AnyRequest, names: dict[str, str]) -> Listing[AuditEntry]:
    """Return the list of changes. `names` are those of the actors; each word leads to all rows that have it."""
    query = dict(request.query_params.items())

    def actor(change: AuditEntry) -> Link:
        name: object = names.get(change.actor) or change.actor
        if name == change.actor and change.actor.startswith("mem_"):
            name = short(change.actor)
        return Link(changed_address(HOME, query, actor=change.actor, cursor=None), name)

    def subject(change: AuditEntry) -> Link:
        address = link_of(change.object) or changed_address(HOME, query, object=change.object, cursor=None)
        return Link(address, short(change.object) if "_" in change.object else change.object)

    return Listing(
        caption="Changes",
        name="audit",
        columns=(
            Column("When", lambda one: one.at, file="at", value=lambda one: one.at.isoformat(), time="second"),
            Column("Who", actor, file="actor", value=lambda one: one.actor),
            only_in_file("name", lambda one: names.get(one.actor, "")),
            Column(
                "What",
                lambda one: Link(changed_address(HOME, query, action=one.action, cursor=None), words(one.action)),
                file="action",
                value=lambda one: one.action,
            ),
            Column("On what", subject, file="object", value=lambda one: one.object),
            Column("Detail", lambda one: details(one) or None, file="detail", value=details),
        ),
    )


def details(one: AuditEntry) -> str:
    """What the change says of itself, as words: `state: frozen; reason: …`."""
    return "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in one.detail.items() if value is not None)


def link_of(object: str) -> str:
    """The page of what was changed, where there is one."""
    pages = {"biz": "/operator/businesses/", "prov": "/operator/providers/"}
    kind = object.partition("_")[0]
    return pages[kind] + object if kind in pages else ""


handlers: tuple[Any, ...] = (show_audit, verify_audit)
