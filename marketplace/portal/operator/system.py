"""State of the installation: databases, workers, queue, background activities, migrations and doctor findings."""

from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post

from marketplace.database import doctor
from marketplace.database.db import session
from marketplace.database.doctor import DoctorFinding
from marketplace.database.embedded import Engines
from marketplace.database.migrate import Migration, MigrationError, status
from marketplace.portal.forms import submitted
from marketplace.portal.frame import badge, duration, page, redirect, words
from marketplace.portal.listing import Column, Listing, code
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.back_office_store import ServiceActivity, WaitingCount
from marketplace.portal.operator.links import lead_link
from marketplace.portal.session import visitor
from marketplace.quarantine import failing
from marketplace.quarantine.failing import QuarantinedWork, WorkKind
from marketplace.runtime import clock, errors, queue
from marketplace.runtime.queue import QueueStatus
from marketplace.runtime.settings import describe
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services

HOME: Final = "/operator/system"
TABS: Final = ((HOME, "Now"), (f"{HOME}/doctor", "Doctor and migrations"))

SEAL_SECONDS: Final = 60.0
"A sealer seals new rows within a second. Without new rows the last seal may be older."
REPORTS_SECONDS: Final = 900.0
LATE_SECONDS: Final = 120.0
"Delay of due work that `marketplace verify` tolerates."

Check = tuple[bool | None, str, str, str]
"""Result of a check: whether all is well (None: not known), a sentence, and the address and text of a link."""

MOST_SHOWN: Final = 100
"Failed work on the page, the latest; `marketplace verify` counts all."
WORK_NAMES: Final = {
    WorkKind.lead: "Routing a lead",
    WorkKind.assignment: "Delivering a lead",
    WorkKind.notice: "Notifying a business about a lead",
}


class WorkForm(msgspec.Struct, frozen=True, kw_only=True):
    """Action on work that was set aside: try it again, or remove ended work from the list."""

    kind: WorkKind
    id: UUID
    act: Literal["retry", "dismiss"]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting as the page shows it, without secrets."""

    name: str
    value: str


WAITING: Final = Listing[WaitingCount](
    caption="Waiting work",
    columns=(
        Column("Work", lambda row: words(row.what)),
        Column("State", lambda row: badge(row.state)),
        Column("Waiting", lambda row: row.waiting, style="num"),
        Column("Due now", lambda row: row.due, style="num"),
    ),
)
SET_ASIDE: Final = Listing[QuarantinedWork](
    caption="Work that was set aside",
    columns=(
        Column("Work", lambda row: WORK_NAMES[row.kind] + (", given up" if row.ended_at else "")),
        Column("Lead", lambda row: lead_link(row.lead_id)),
        Column("Failed", lambda row: f"{row.failures} times"),
        Column("Since", lambda row: row.first_failed_at),
        Column("Error", lambda row: row.failure),
    ),
)
SETTINGS: Final = Listing[Setting](
    caption="Settings",
    columns=(Column("Setting", lambda row: words(row.name)), Column("Value", lambda row: code(row.value))),
)
FINDINGS: Final = Listing[DoctorFinding](
    caption="Findings",
    columns=(
        Column("Severity", lambda row: badge(row.severity, "bad" if row.severity == "unsafe" else "warn")),
        Column("Problem", lambda row: row.sentence),
        Column("What to do", lambda row: row.remedy),
        Column("Code", lambda row: code(row.code)),
    ),
)
MIGRATIONS: Final = Listing[Migration](
    caption="Migrations",
    columns=(
        Column("Migration", lambda row: row.name),
        Column("State", lambda row: badge("Applied", "good") if row.applied else badge("Not applied", "warn")),
        Column("SHA-256", lambda row: code(f"{row.sha256[:16]}…")),
    ),
)


@get(HOME)
async def show_system(request: AnyRequest) -> Response[bytes]:
    """Show the present state of the installation."""
    viewer = await visitor(request, CallerKind.operator)
    engines: Engines = request.app.state.engines
    async with session(services(request).reports) as connection:
        server = await back_office_store.read_server(connection)
        activity = await back_office_store.read_activity(connection)
        waiting = await back_office_store.count_waiting(connection)
        passes = await back_office_store.list_passes(connection)
        set_aside = await failing.list_quarantined(connection, MOST_SHOWN)
    queue_status = await queue.look(engines.valkey_url)
    settings = [
        Setting(name=name, value=format_setting(value)) for name, value in describe(services(request).settings).items()
    ]
    checks = (
        *check_activity(activity, queue_status, clock.now()),
        _check_quarantine(set_aside),
        *_check_passes(passes),
    )
    return page(
        request,
        viewer,
        "operator/system.html",
        tabs=TABS,
        server=server,
        waiting_listing=WAITING,
        waiting=waiting,
        queue_status=queue_status,
        checks=checks,
        setting_listing=SETTINGS,
        settings=settings,
        set_aside_listing=SET_ASIDE,
        set_aside=set_aside,
        embedded=(engines.postgres is not None, engines.valkey is not None),
    )


def format_setting(value: str) -> str:
    """Return a setting for reading: lists without brackets and quotes, and words for None, True and False."""
    if value.startswith("(") and value.endswith(")") and value != "(hidden)":
        return ", ".join(part.strip(" '") for part in value[1:-1].split(",") if part.strip(" '")) or "none"
    return {"None": "not set", "True": "yes", "False": "no"}.get(value, value)


def check_activity(activity: ServiceActivity, queue_status: QueueStatus | None, now: datetime) -> tuple[Check, ...]:
    """Return a check of the workers, of due work, and of each background activity."""
    return (
        _check_workers(queue_status),
        _check_due("lead", activity.lead_due_at, now),
        _check_due("assignment", activity.assignment_due_at, now),
        _check_sealer(activity, now),
        _check_reports("Report figures", activity.reports_at, now),
        _check_reports("The outcomes for “Does it pay?”", activity.outcomes_at, now),
    )


def _check_workers(queue_status: QueueStatus | None) -> Check:
    if queue_status is None:
        return False, "Valkey does not answer. Leads are still processed, but later; none is lost.", "", ""
    if not queue_status.answered:
        return False, "No worker is running: none has asked for work in the last seconds.", "", ""
    return True, f"Workers are running: {queue_status.waiting} jobs wait, {queue_status.running} in progress.", "", ""


def _check_due(what: str, due_at: datetime | None, now: datetime) -> Check:
    late = (now - due_at).total_seconds() if due_at is not None else 0.0
    if due_at is None or late <= 0:
        return True, f"No {what} is overdue.", "", ""
    return late <= LATE_SECONDS, f"The oldest overdue {what} is {duration(late)} late.", "", ""


def _check_sealer(activity: ServiceActivity, now: datetime) -> Check:
    link = ("/operator/audit", "Audit")
    if activity.sealed_at is None:
        return None, "No audit row has been sealed yet.", *link
    age = (now - activity.sealed_at).total_seconds()
    text = f"Block {activity.block:,} of the audit trail was sealed {duration(max(0.0, age))} ago."
    return (True if age <= SEAL_SECONDS else None), text, *link


def _check_reports(what: str, at: datetime | None, now: datetime) -> Check:
    if at is None:
        return None, f"{what} have not been computed yet.", "", ""
    age = (now - at).total_seconds()
    return age <= REPORTS_SECONDS, f"{what} were updated {duration(max(0.0, age))} ago.", "", ""


def _check_quarantine(set_aside: tuple[QuarantinedWork, ...]) -> Check:
    if not set_aside:
        return True, "No work was set aside after repeated failures.", "", ""
    count = "1 job was" if len(set_aside) == 1 else f"{len(set_aside)} jobs were"
    return False, f"{count} set aside after repeated failures. See below.", "", ""


def _check_passes(passes: tuple[back_office_store.BackgroundPass, ...]) -> tuple[Check, ...]:
    """Return a check for each background pass whose last run failed."""
    return tuple((False, _describe_failure(failing_pass), "", "") for failing_pass in passes if failing_pass.failures)


def _describe_failure(failing_pass: back_office_store.BackgroundPass) -> str:
    name, times = failing_pass.name.replace("_", " "), failing_pass.failures
    return f"The background pass “{name}” has failed {times} times in a row ({failing_pass.failure})."


@post(f"{HOME}/work")
async def resolve_work(request: AnyRequest) -> Response[bytes]:
    """Try work that was set aside again, or remove ended work from the list."""
    viewer, form = await submitted(request, WorkForm, CallerKind.operator)
    change = failing.ask_for_retry if form.act == "retry" else failing.dismiss
    try:
        await change(services(request).pool, viewer.actor, form.kind, form.id)
    except errors.NotFound as error:
        return redirect(request, HOME, error.detail)
    message = "It is being tried again now." if form.act == "retry" else "Removed from the list."
    return redirect(request, HOME, message)


@get(f"{HOME}/doctor")
async def show_doctor(request: AnyRequest) -> Response[bytes]:
    """Show the present findings of the doctor, and every migration."""
    viewer = await visitor(request, CallerKind.operator)
    engines: Engines = request.app.state.engines
    findings = await doctor.examine(services(request).settings, engines)
    try:
        migrations = await status(
            engines.database_url, role="marketplace_reports", master_key=services(request).settings.master_key
        )
    except MigrationError:
        migrations = ()  # the doctor's findings report it
    return page(
        request,
        viewer,
        "operator/doctor.html",
        tabs=TABS,
        finding_listing=FINDINGS,
        findings=findings,
        migration_listing=MIGRATIONS,
        migrations=migrations[::-1],
        examined_at=clock.now(),
    )


handlers: tuple[Any, ...] = (show_system, show_doctor, resolve_work)
