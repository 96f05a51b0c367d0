"""How the installation itself is: engines, workers, queue, what works by itself, migrations, and the doctor's word."""

from datetime import datetime
from typing import Any, Final

import msgspec
from litestar import Response, get

from marketplace import clock, doctor, queue
from marketplace.auth import Kind
from marketplace.db import session
from marketplace.embedded import Engines
from marketplace.http import AnyRequest, services
from marketplace.migrate import MigrationError, status
from marketplace.portal.frame import duration, page
from marketplace.portal.operator import books
from marketplace.portal.operator.books import Pulse
from marketplace.portal.session import visitor
from marketplace.queue import Standing
from marketplace.settings import describe

HOME: Final = "/operator/system"
TABS: Final = ((HOME, "Now"), (f"{HOME}/doctor", "Doctor and migrations"))

SEAL_SECONDS: Final = 60.0
"A sealer that has anything to seal does so within a second; nothing may be sealed for as long as nothing happens."
REPORTS_SECONDS: Final = 900.0
LATE_SECONDS: Final = 120.0
"The delay that `marketplace verify` tolerates in what is due."

Sign = tuple[bool | None, str, str, str]
"""Whether it is well (None: not known), a sentence, where to look, and what the link says."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as it may be shown."""

    name: str
    value: str


@get(HOME)
async def show_system(request: AnyRequest) -> Response[bytes]:
    """Shows how the installation is at this moment."""
    viewer = await visitor(request, Kind.operator)
    engines: Engines = request.app.state.engines
    async with session(services(request).reports) as connection:
        server = await books.read_server(connection)
        pulse = await books.read_pulse(connection)
        waiting = await books.count_waiting(connection)
    standing = await queue.look(engines.valkey_url)
    settings = [Setting(name=name, value=plain(value)) for name, value in describe(services(request).settings).items()]
    return page(
        request, viewer, "operator/system.html", tabs=TABS, server=server, waiting=waiting, standing=standing,
        signs=signs(pulse, standing, clock.now()), settings=settings, pulse=pulse,
        embedded=(engines.postgres is not None, engines.valkey is not None),
    )  # fmt: skip


def plain(value: str) -> str:
    """A setting's text as an operator would write it: lists without their marks, and a word for what is not set."""
    if value.startswith("(") and value.endswith(")") and value != "(hidden)":
        return ", ".join(part.strip(" '") for part in value[1:-1].split(",") if part.strip(" '")) or "none"
    return {"None": "not set", "True": "yes", "False": "no"}.get(value, value)


def signs(pulse: Pulse, standing: Standing | None, now: datetime) -> tuple[Sign, ...]:
    """What works by itself, each with whether it does."""
    return (
        _of_workers(standing),
        _of_due("lead", pulse.lead_due_at, now),
        _of_due("assignment", pulse.assignment_due_at, now),
        _of_sealer(pulse, now),
        _of_reports("The figures of reports", pulse.reports_at, now),
        _of_reports("The outcomes behind “does it pay?”", pulse.outcomes_at, now),
    )


def _of_workers(standing: Standing | None) -> Sign:
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


def _of_sealer(pulse: Pulse, now: datetime) -> Sign:
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


@get(f"{HOME}/doctor")
async def show_doctor(request: AnyRequest) -> Response[bytes]:
    """Shows what the doctor finds now, and every migration."""
    viewer = await visitor(request, Kind.operator)
    engines: Engines = request.app.state.engines
    findings = await doctor.examine(services(request).settings, engines)
    try:
        migrations = await status(engines.database_url)
    except MigrationError:
        migrations = ()  # the doctor has said so
    return page(
        request, viewer, "operator/doctor.html", tabs=TABS, findings=findings, migrations=migrations[::-1],
        examined_at=clock.now(),
    )  # fmt: skip


handlers: tuple[Any, ...] = (show_system, show_doctor)
