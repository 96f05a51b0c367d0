"""How the installation itself is: engines, workers, queue, what works by itself, migrations, and the doctor's word."""

from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post

from marketplace.database import doctor
from marketplace.database.db import session
from marketplace.database.embedded import Engines
from marketplace.database.migrate import MigrationError, status
from marketplace.portal.forms import submitted
from marketplace.portal.frame import duration, page, redirect
from marketplace.portal.operator import back_office_store
from marketplace.portal.operator.back_office_store import ServiceActivity
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
"A sealer that has anything to seal does so within a second; nothing may be sealed for as long as nothing happens."
REPORTS_SECONDS: Final = 900.0
LATE_SECONDS: Final = 120.0
"The delay that `marketplace verify` tolerates in what is due."

Sign = tuple[bool | None, str, str, str]
"""Whether it is well (None: not known), a sentence, where to look, and what the link says."""


MOST_SHOWN: Final = 100
"Pieces of work set aside on the page, the newest; `marketplace verify` counts all."
WORK_NAMES: Final = {
    WorkKind.lead: "Routing a lead",
    WorkKind.assignment: "Delivering a lead",
    WorkKind.notice: "Telling of an erasure",
}


class WorkForm(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about work that was set aside: try it again, or take what has ended from the list."""

    kind: WorkKind
    id: UUID
    act: Literal["retry", "dismiss"]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as it may be shown."""

    name: str
    value: str


@get(HOME)
async def show_system(request: AnyRequest) -> Response[bytes]:
    """Shows how the installation is at this moment."""
    viewer = await visitor(request, CallerKind.operator)
    engines: Engines = request.app.state.engines
    async with session(services(request).reports) as connection:
        server = await back_office_store.read_server(connection)
        pulse = await back_office_store.read_pulse(connection)
        waiting = await back_office_store.count_waiting(connection)
        passes = await back_office_store.list_passes(connection)
        set_aside = await failing.list_quarantined(connection, MOST_SHOWN)
    standing = await queue.look(engines.valkey_url)
    settings = [Setting(name=name, value=plain(value)) for name, value in describe(services(request).settings).items()]
    return page(
        request, viewer, "operator/system.html", tabs=TABS, server=server, waiting=waiting, standing=standing,
        signs=(*signs(pulse, standing, clock.now()), _of_quarantine(set_aside), *_of_passes(passes)),
        settings=settings, pulse=pulse, set_aside=set_aside, names=WORK_NAMES,
        embedded=(engines.postgres is not None, engines.valkey is not None),
    )  # fmt: skip


def plain(value: str) -> str:
    """A setting's text as an operator would write it: lists without their marks, and a word for what is not set."""
    if value.startswith("(") and value.endswith(")") and value != "(hidden)":
        return ", ".join(part.strip(" '") for part in value[1:-1].split(",") if part.strip(" '")) or "none"
    return {"None": "not set", "True": "yes", "False": "no"}.get(value, value)


def signs(pulse: ServiceActivity, standing: QueueStatus | None, now: datetime) -> tuple[Sign, ...]:
    """What works by itself, each with whether it does."""
    return (
        _of_workers(standing),
        _of_due("lead", pulse.lead_due_at, now),
        _of_due("assignment", pulse.assignment_due_at, now),
        _of_sealer(pulse, now),
        _of_reports("The figures of reports", pulse.reports_at, now),
        _of_reports("The outcomes behind “does it pay?”", pulse.outcomes_at, now),
    )


def _of_workers(standing: QueueStatus | None) -> Sign:
    if standing is None:
        return False, "Valkey does not answer: leads are found by the sweeper, slower, and none is lost.", "", ""
    if not standing.answered:
        return False, "No worker has asked the queue for work in the last seconds.", "", ""
    return True, f"Workers answer: {standing.waiting} jobs wait, {standing.running} run.", "", ""


def _of_due(what: str, due_at: datetime | None, now: datetime) -> Sign:
    late = (now - due_at).total_seconds() if due_at is not None else 0.0
    if due_at is None or late <= 0:
        return True, f"No {what} is overdue.", "", ""
    return late <= LATE_SECONDS, f"The longest overdue {what} has waited {duration(late)} beyond its time.", "", ""


def _of_sealer(pulse: ServiceActivity, now: datetime) -> Sign:
    where = ("/operator/audit", "Audit")
    if pulse.sealed_at is None:
        return None, "Nothing has been sealed into the audit's chain yet.", *where
    age = (now - pulse.sealed_at).total_seconds()
    text = f"Block {pulse.block:,} of the audit's chain was sealed {duration(max(0.0, age))} ago."
    return (True if age <= SEAL_SECONDS else None), text, *where


def _of_reports(what: str, at: datetime | None, now: datetime) -> Sign:
    if at is None:
        return None, f"{what} have not been gathered yet.", "", ""
    age = (now - at).total_seconds()
    return age <= REPORTS_SECONDS, f"{what} were last brought up to date {duration(max(0.0, age))} ago.", "", ""


def _of_quarantine(set_aside: tuple[QuarantinedWork, ...]) -> Sign:
    if not set_aside:
        return True, "No work was set aside after failing again and again.", "", ""
    many = "1 piece of work was" if len(set_aside) == 1 else f"{len(set_aside)} pieces of work were"
    return False, f"{many} set aside after failing again and again. See below.", "", ""


def _of_passes(passes: tuple[back_office_store.BackgroundPass, ...]) -> tuple[Sign, ...]:
    """A line for each background pass that fails."""
    return tuple(
        (False, f"The background pass “{one.name.replace('_', ' ')}” has failed {one.failures} times in a row "
                f"({one.failure}).", "", "")
        for one in passes if one.failures
    )  # fmt: skip


@post(f"{HOME}/work")
async def mend_work(request: AnyRequest) -> Response[bytes]:
    """Has work that was set aside tried again, or takes from the list what has ended."""
    viewer, form = await submitted(request, WorkForm, CallerKind.operator)
    change = failing.ask_for_retry if form.act == "retry" else failing.dismiss
    try:
        await change(services(request).pool, viewer.actor, form.kind, form.id)
    except errors.NotFound as gone:
        return redirect(request, HOME, gone.detail)
    return redirect(request, HOME, "It is tried again now." if form.act == "retry" else "Taken from the list.")


@get(f"{HOME}/doctor")
async def show_doctor(request: AnyRequest) -> Response[bytes]:
    """Shows what the doctor finds now, and every migration."""
    viewer = await visitor(request, CallerKind.operator)
    engines: Engines = request.app.state.engines
    findings = await doctor.examine(services(request).settings, engines)
    try:
        migrations = await status(
            engines.database_url, role="marketplace_reports", master_key=services(request).settings.master_key
        )
    except MigrationError:
        migrations = ()  # the doctor has said so
    return page(
        request, viewer, "operator/doctor.html", tabs=TABS, findings=findings, migrations=migrations[::-1],
        examined_at=clock.now(),
    )  # fmt: skip


handlers: tuple[Any, ...] = (show_system, show_doctor, mend_work)
