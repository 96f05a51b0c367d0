"""Stage 4, first half: record the reports of businesses about their leads, by API, webhook, file or portal.

    load the assignments → read each report (pure) → insert the valid ones in one transaction, once per event id

A report must be about a lead that the business may have seen and still works on: one that was delivered, or exposed,
because an endpoint that did not answer may have taken the lead all the same. Reports about a held, refused, lapsed or
returned lead are refused.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.feedback import stages_store
from marketplace.feedback import store as feedback_store
from marketplace.feedback.stages_store import NamedStage, NewUnmapped
from marketplace.feedback.store import (
    BusinessLead,
    Disposition,
    DispositionKind,
    DispositionSource,
    DispositionTarget,
    FeedbackHook,
)
from marketplace.feedback.wire import DispositionBody
from marketplace.rules.hours import Elapsed, elapsed
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.errors import MarketplaceError
from marketplace.security import access, audit
from marketplace.security.auth import UnconfirmedAccess
from marketplace.security.sealing import Sealer
from marketplace.text.faults import Fault, FaultCode
from marketplace.webhook.signing import is_signed, new_secret
from routing.inquiry import CLOCK_TOLERANCE, is_later
from routing.lifecycle import AssignmentState

SECRET_OVERLAP: Final = timedelta(hours=24)
"Time for which the previous secret of a hook stays valid after a rotation, the same as that of an endpoint."

REPORTABLE: Final = frozenset({AssignmentState.exposed, AssignmentState.delivered})
"States of an assignment that may be reported on."

CONTACTS: Final = frozenset(
    {
        DispositionKind.contacted,
        DispositionKind.qualified,
        DispositionKind.appointment,
        DispositionKind.quoted,
        DispositionKind.won,
    }
)
"Kinds that mean that somebody was reached. The earliest of them is the first contact."

UNMAPPED_AGE: Final = timedelta(days=30)
"Time for which a report is kept whose stage is not mapped."

MOST_UNMAPPED: Final = 10_000
"Reports of one business that are kept until their stage is mapped."

FARTHEST_APPOINTMENT: Final = timedelta(days=730)
"Time ahead within which an appointment begins; a later one is a mistyped year."

ANNOUNCED: Final = frozenset({DispositionSource.api, DispositionSource.portal})
"""Channels whose changes of stage are sent to the business's endpoint.

Signed reports and files come from the software that would receive them.
"""

UNDO_TIME: Final = timedelta(hours=24)
"Time within which the last outcome that was recorded on the pages can be undone."

NOT_THERE: Final = "There is no lead of yours with this id."


class ReportFault(StrEnum):
    """Faults of a report that depend on the lead, the pipeline or the time."""

    kind_missing = "kind_missing"
    """The report has neither a kind nor a stage."""
    stage_unknown = "stage_unknown"
    """The pipeline has no such stage."""
    value_missing = "value_missing"
    """The lead was won, but the report has no value."""
    starts_at_missing = "starts_at_missing"
    """The report is an appointment without the time at which it begins."""
    starts_at_out_of_range = "starts_at_out_of_range"
    """The appointment begins before the business was shown the lead, or more than two years ahead."""
    happened_in_future = "happened_in_future"
    """The time is more than five minutes ahead of our clock."""
    happened_before_delivery = "happened_before_delivery"
    """The time is before the business was shown the lead."""


class LeadHolder(msgspec.Struct, frozen=True, kw_only=True):
    """A business with access to its leads, in one mode or (None) in both. `actor` is the id of its key or member."""

    business_id: UUID
    mode: str | None
    actor: str
    opened: UnconfirmedAccess | None = None


class DispositionReport(msgspec.Struct, frozen=True, kw_only=True):
    """One report, with the lead or the assignment that it is about, or both."""

    body: DispositionBody
    lead_id: UUID | None = None
    assignment_id: UUID | None = None


class RecordedDisposition(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded disposition; `fresh` if this call recorded it."""

    disposition: Disposition
    fresh: bool


class FirstSteps(msgspec.Struct, frozen=True, kw_only=True):
    """Times of a business's first attempt and first contact, and how long each took from the exposure."""

    touch_at: datetime | None = None
    contact_at: datetime | None = None
    to_touch: Elapsed | None = None
    to_contact: Elapsed | None = None


async def load_lead(connection: Connection, holder: LeadHolder, lead_id: UUID) -> BusinessLead:
    """Return a lead that the business was shown.

    Raises NotFound, with the same text for an unknown lead, one of another business, and one that was not shown yet.
    """
    lead = await feedback_store.find_lead(connection, holder.business_id, holder.mode, lead_id)
    if lead is None:
        raise errors.NotFound(NOT_THERE)
    return lead


async def open_contact(connection: Connection, sealer: Sealer, holder: LeadHolder, lead: BusinessLead) -> bytes | None:
    """Return the contact as JSON if the lead was delivered, and so paid for; None otherwise, or after an erasure.

    An exposed lead may still lapse uncharged, so its contact is not shown here; nor is that of a returned lead. A
    reader whose access was opened by an operator is recorded as a reveal.
    """
    if lead.state is not AssignmentState.delivered:
        return None
    await access.record_reveals(connection, holder.opened, holder.actor, (lead.lead_id,))
    sealed = await feedback_store.read_contact(connection, lead.lead_id, lead.business_id)
    return None if sealed is None else sealer.open_contact(lead.lead_id, sealed)


def first_steps(lead: BusinessLead, dispositions: Sequence[Disposition]) -> FirstSteps:
    """Return the earliest attempt and contact by `happened_at`, whenever the dispositions were recorded."""
    touch_at = min((each.happened_at for each in dispositions), default=None)
    contact_at = min((each.happened_at for each in dispositions if each.kind in CONTACTS), default=None)
    to_touch = None if touch_at is None else elapsed(lead.hours, lead.exposed_at, touch_at)
    to_contact = None if contact_at is None else elapsed(lead.hours, lead.exposed_at, contact_at)
    return FirstSteps(touch_at=touch_at, contact_at=contact_at, to_touch=to_touch, to_contact=to_contact)


# Dispositions


async def report_one(
    pool: Pool, holder: LeadHolder, source: DispositionSource, report: DispositionReport
) -> RecordedDisposition:
    """Record one report, with an audit row.

    Raises NotFound, NotDelivered, AlreadyReturned, InvalidInput, and EventReused for an event id that came with
    something else before.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        [outcome] = await record_reports(connection, holder, source, (report,), now)
        if isinstance(outcome, RecordedDisposition) and outcome.fresh:
            subject = ids.encode("lead", outcome.disposition.lead_id)
            kind = outcome.disposition.kind
            await audit.record(connection, now, holder.actor, "lead.disposition", subject, kind=kind)
    if isinstance(outcome, MarketplaceError):  # after the transaction, in which a report may have been kept
        raise outcome
    return outcome


async def record_reports(
    connection: Connection,
    holder: LeadHolder,
    source: DispositionSource,
    reports: Sequence[DispositionReport],
    now: datetime,
    file_import_id: UUID | None = None,
) -> tuple[RecordedDisposition | MarketplaceError, ...]:
    """Insert the valid reports in the caller's transaction, and return the outcome of each in order.

    An outcome is the recorded disposition, or NotFound, NotDelivered, AlreadyReturned, InvalidInput or EventReused.
    With `file_import_id`, the dispositions belong to that import. A report with an event id that is refused only
    because no name means its stage is kept, and recorded when the stage is mapped.
    """
    dispositions = await _read_reports(connection, holder, source, reports, now)
    if any(map(_is_unmapped, dispositions)):
        await stages_store.lock_names(connection, holder.business_id)
        dispositions = await _read_reports(connection, holder, source, reports, now)  # the stage may be mapped by now
        await _keep_unmapped(connection, holder, source, reports, dispositions, now, file_import_id)
    return await _record(connection, holder, source, reports, dispositions, now, file_import_id)


async def judge_reports(
    connection: Connection,
    holder: LeadHolder,
    source: DispositionSource,
    reports: Sequence[DispositionReport],
    now: datetime,
    earlier: dict[str, Disposition],
) -> tuple[RecordedDisposition | MarketplaceError, ...]:
    """Return the outcomes that `record_reports` would have, without writing anything.

    `earlier` holds the valid dispositions of former calls by event id, as if they had been written; those of this call
    are added to it.
    """
    dispositions = await _read_reports(connection, holder, source, reports, now)
    events = [
        disposition.event_id
        for disposition in dispositions
        if isinstance(disposition, Disposition) and disposition.event_id is not None
    ]
    stored = await feedback_store.list_events(connection, holder.business_id, events) if events else {}
    outcomes: list[RecordedDisposition | MarketplaceError] = []
    for disposition, report in zip(dispositions, reports, strict=True):
        if isinstance(disposition, MarketplaceError):
            outcomes.append(disposition)
            continue
        event_id = disposition.event_id or ""
        before = stored.get(event_id) or earlier.get(event_id)
        if before is None:
            earlier[disposition.event_id or str(disposition.id)] = disposition
            outcomes.append(RecordedDisposition(disposition=disposition, fresh=True))
        else:
            outcomes.append(_outcome(disposition, report, {event_id: before}, set()))
    return tuple(outcomes)


async def _read_reports(
    connection: Connection,
    holder: LeadHolder,
    source: DispositionSource,
    reports: Sequence[DispositionReport],
    now: datetime,
) -> list[Disposition | MarketplaceError]:
    """Return the disposition of each report, or its error, in order."""
    stages = await stages_store.list_names(connection, holder.business_id)
    targets = await _load_targets(connection, holder, reports)
    return [read_report(report, targets, stages, source, now) for report in reports]


async def _load_targets(
    connection: Connection, holder: LeadHolder, reports: Sequence[DispositionReport]
) -> dict[UUID, DispositionTarget]:
    """Return the assignments that the reports name, each by its lead's id and by its own."""
    leads = [report.lead_id for report in reports if report.lead_id is not None]
    assignments = [report.assignment_id for report in reports if report.assignment_id is not None]
    targets = await feedback_store.list_targets(connection, holder.business_id, holder.mode, leads, assignments)
    return {key: target for target in targets for key in (target.lead_id, target.assignment_id)}


async def _record(
    connection: Connection,
    holder: LeadHolder,
    source: DispositionSource,
    reports: Sequence[DispositionReport],
    dispositions: Sequence[Disposition | MarketplaceError],
    now: datetime,
    file_import_id: UUID | None = None,
) -> tuple[RecordedDisposition | MarketplaceError, ...]:
    """Insert the valid dispositions, and return the outcome of each report.

    The first report with an event id is inserted; later ones with the same id are compared with it.
    """
    valid = [disposition for disposition in dispositions if isinstance(disposition, Disposition)]
    inserted: set[UUID] = set()
    if valid:
        inserted = await feedback_store.insert_dispositions(
            connection, holder.business_id, source, now, valid, file_import_id
        )
    if inserted and source in ANNOUNCED:
        await feedback_store.insert_changes(connection, holder.business_id, list(inserted), now)
    stored: dict[str, Disposition] = {}
    if events := [each.event_id for each in valid if each.event_id is not None and each.id not in inserted]:
        stored = await feedback_store.list_events(connection, holder.business_id, events)
    return tuple(
        disposition if isinstance(disposition, MarketplaceError) else _outcome(disposition, report, stored, inserted)
        for report, disposition in zip(reports, dispositions, strict=True)
    )


def _outcome(
    disposition: Disposition, report: DispositionReport, stored: Mapping[str, Disposition], inserted: set[UUID]
) -> RecordedDisposition | MarketplaceError:
    """Return the outcome of a valid report: inserted now, or the same as the stored one of its event id, or reused."""
    if disposition.id in inserted:
        return RecordedDisposition(disposition=disposition, fresh=True)
    earlier = stored[disposition.event_id or ""]
    if _says_the_same(disposition, earlier, report.body.happened_at is not None):
        return RecordedDisposition(disposition=earlier, fresh=False)
    return errors.EventReused("This event_id came with something else before. Send each event under its own id.")


def _says_the_same(disposition: Disposition, earlier: Disposition, is_timed: bool) -> bool:
    """Return whether two dispositions of one event id agree.

    An erased note counts as equal, and so does any time if the report did not state one (`is_timed` is false).
    """
    return (
        (disposition.assignment_id, disposition.kind, disposition.value_minor, disposition.reason, disposition.stage)
        == (earlier.assignment_id, earlier.kind, earlier.value_minor, earlier.reason, earlier.stage)
        and disposition.starts_at == earlier.starts_at
        and (earlier.note is None or disposition.note == earlier.note)
        and (not is_timed or disposition.happened_at == earlier.happened_at)
    )


def read_report(
    report: DispositionReport,
    targets: Mapping[UUID, DispositionTarget],
    stages: Mapping[str, NamedStage],
    source: DispositionSource,
    now: datetime,
) -> Disposition | MarketplaceError:
    """Return the disposition that a report states, or its error. `stages` are by the names that mean them."""
    body = report.body
    target = _find_target(report, targets)
    if target is None:
        return errors.NotFound(NOT_THERE)
    if target.state not in REPORTABLE or target.exposed_at is None:
        return _not_reportable(target.state)
    stage = stages.get(name_key(body.stage or ""))
    kind = body.kind or (None if stage is None else stage.kind)
    happened_at = body.happened_at or now
    if faults := (
        *_kind_faults(body, kind),
        *_time_faults(happened_at, target.exposed_at, now),
        *_appointment_faults(body, kind, target.exposed_at, now),
    ):
        return errors.InvalidInput(faults)
    assert kind is not None
    return Disposition(
        id=clock.new_id(),
        assignment_id=target.assignment_id,
        lead_id=target.lead_id,
        kind=kind,
        value_minor=body.value_minor,
        reason=body.reason,
        note=body.note or None,
        stage=body.stage,
        stage_id=None if stage is None or stage.kind is not kind else stage.stage_id,
        starts_at=body.starts_at,
        happened_at=happened_at,
        recorded_at=now,
        source=source,
        event_id=body.event_id,
    )


def name_key(name: str) -> str:
    """Return the form of a stage's name by which two names are the same: without case and outer blanks."""
    return name.strip().casefold()


def _is_unmapped(outcome: Disposition | MarketplaceError) -> bool:
    """Return whether a report was refused only because no name means its stage."""
    return isinstance(outcome, errors.InvalidInput) and [fault.code for fault in outcome.faults] == [
        ReportFault.stage_unknown
    ]


async def _keep_unmapped(
    connection: Connection,
    holder: LeadHolder,
    source: DispositionSource,
    reports: Sequence[DispositionReport],
    outcomes: Sequence[Disposition | MarketplaceError],
    now: datetime,
    file_import_id: UUID | None,
) -> None:
    """Keep the reports with an event id whose stage no name means, until it is mapped or UNMAPPED_AGE has passed."""
    targets = await _load_targets(connection, holder, reports)
    unmapped = []
    for report, outcome in zip(reports, outcomes, strict=True):
        target = _find_target(report, targets)
        if _is_unmapped(outcome) and target is not None and report.body.event_id is not None:
            unmapped.append(_unmapped(report.body, report.body.event_id, target, now))
    if unmapped:
        await stages_store.insert_unmapped(
            connection, holder.business_id, source, file_import_id, now, unmapped, MOST_UNMAPPED
        )


def _unmapped(body: DispositionBody, event_id: str, target: DispositionTarget, now: datetime) -> NewUnmapped:
    """Return a report in the form in which it is kept, with the time at which it happened."""
    stage = body.stage or ""
    report = msgspec.structs.replace(body, note=None, event_id=None, happened_at=body.happened_at or now)
    return NewUnmapped(
        id=clock.new_id(),
        assignment_id=target.assignment_id,
        lead_id=target.lead_id,
        stage=stage,
        name=name_key(stage),
        report=msgspec.json.encode(report),
        note=body.note or None,
        event_id=event_id,
    )


def _find_target(report: DispositionReport, targets: Mapping[UUID, DispositionTarget]) -> DispositionTarget | None:
    """Return the assignment that a report is about, or None; a lead and an assignment in it must mean the same one."""
    keys = [key for key in (report.lead_id, report.assignment_id) if key is not None]
    matches = [targets.get(key) for key in keys]
    if not matches or any(match != matches[0] for match in matches):
        return None
    return matches[0]


def _not_reportable(state: AssignmentState) -> MarketplaceError:
    """Return the error for a report about a lead in a state that cannot be reported on."""
    if state is AssignmentState.returned:
        return errors.AlreadyReturned("This lead was returned and refunded; nothing more is recorded about it.")
    if state is AssignmentState.held:
        return errors.NotDelivered("This lead has not been delivered yet. Report on it when it is.")
    return errors.NotDelivered(f"This lead was {state}, not delivered, and not charged; there is nothing to report.")


def content_faults(body: DispositionBody, now: datetime) -> tuple[Fault, ...]:
    """Return the faults of a report that do not depend on the lead or on the business's stages."""
    by_stage = body.kind is None and body.stage is not None
    happened_at = body.happened_at or now
    kind_faults = () if by_stage else _kind_faults(body, body.kind)
    return (*kind_faults, *_time_faults(happened_at, happened_at, now))


def _kind_faults(body: DispositionBody, kind: DispositionKind | None) -> tuple[Fault, ...]:
    """Return the faults of the kind (None for an unknown stage), and of a value or reason that does not go with it."""
    faults = []
    if kind is None and body.stage is None:
        faults.append(
            Fault(pointer="/kind", code=ReportFault.kind_missing, detail="Send a kind, or one of your stages.")
        )
    elif kind is None:
        detail = (
            "Your pipeline has no such stage: map it on the page Stages or with PUT /v1/pipeline, or send a kind. "
            "A report with an event_id is kept for 30 days, and recorded when its stage is mapped."
        )
        faults.append(Fault(pointer="/stage", code=ReportFault.stage_unknown, detail=detail))
    if kind is DispositionKind.won and body.value_minor is None:
        detail = "Send the value of the job, in minor units of the lead's currency."
        faults.append(Fault(pointer="/value_minor", code=ReportFault.value_missing, detail=detail))
    if kind not in (DispositionKind.won, None) and body.value_minor is not None:
        detail = "Only a lead that was won has a value: leave this out."
        faults.append(Fault(pointer="/value_minor", code=FaultCode.value_not_allowed, detail=detail))
    if kind is DispositionKind.appointment and body.starts_at is None:
        detail = "Send when the appointment begins, such as 2026-11-21T10:00:00Z."
        faults.append(Fault(pointer="/starts_at", code=ReportFault.starts_at_missing, detail=detail))
    if kind not in (DispositionKind.appointment, None) and body.starts_at is not None:
        detail = "Only an appointment has a time at which it begins: leave this out."
        faults.append(Fault(pointer="/starts_at", code=FaultCode.value_not_allowed, detail=detail))
    if kind not in (DispositionKind.lost, None) and body.reason is not None:
        detail = "Only a lead that was lost has a reason: leave this out."
        faults.append(Fault(pointer="/reason", code=FaultCode.value_not_allowed, detail=detail))
    return tuple(faults)


def _time_faults(happened_at: datetime, exposed_at: datetime, now: datetime) -> tuple[Fault, ...]:
    """Return the fault of a time in the future, or before the exposure, by more than CLOCK_TOLERANCE."""
    if is_later(happened_at, now, CLOCK_TOLERANCE):
        detail = "Send when it happened; check your server's clock."
        return (Fault(pointer="/happened_at", code=ReportFault.happened_in_future, detail=detail),)
    if is_later(exposed_at, happened_at, CLOCK_TOLERANCE):
        detail = "Send when it happened: it cannot be before you were shown the lead."
        return (Fault(pointer="/happened_at", code=ReportFault.happened_before_delivery, detail=detail),)
    return ()


def _appointment_faults(
    body: DispositionBody, kind: DispositionKind | None, exposed_at: datetime, now: datetime
) -> tuple[Fault, ...]:
    """Return the fault of an appointment that begins before the exposure, or more than two years ahead."""
    if kind is not DispositionKind.appointment or body.starts_at is None:
        return ()
    if is_later(exposed_at, body.starts_at, CLOCK_TOLERANCE) or body.starts_at > now + FARTHEST_APPOINTMENT:
        detail = "Send when the appointment begins: after you were shown the lead, and within two years."
        return (Fault(pointer="/starts_at", code=ReportFault.starts_at_out_of_range, detail=detail),)
    return ()


async def undo_move(pool: Pool, holder: LeadHolder, disposition_id: UUID) -> Disposition:
    """Undo a disposition that was recorded on the pages, with an audit row, and return it. The row stays, marked.

    Raises Conflict unless it is the last one of its lead, not undone yet, and at most UNDO_TIME old.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        undone = await feedback_store.undo_move(
            connection, holder.business_id, holder.mode, disposition_id, now - UNDO_TIME, now
        )
        if undone is None:
            raise errors.Conflict("This cannot be undone any more. Move the lead to the stage that is right.")
        await feedback_store.insert_changes(connection, holder.business_id, (undone.id,), now, undone=True)
        subject = ids.encode("lead", undone.lead_id)
        await audit.record(connection, now, holder.actor, "lead.undo_disposition", subject, kind=undone.kind)
    return undone


# Signed reports


async def make_hook(pool: Pool, sealer: Sealer, holder: LeadHolder) -> tuple[FeedbackHook, str]:
    """Make a new secret for signed reports, and return it. It cannot be read again.

    The previous secret stays valid for SECRET_OVERLAP.
    """
    now, secret = clock.now(), new_secret()
    box = sealer.seal_secret(holder.business_id, secret)
    async with transaction(pool) as connection:
        hook = await feedback_store.save_hook(connection, holder.business_id, box, now + SECRET_OVERLAP, now)
        subject = ids.encode("biz", holder.business_id)
        await audit.record(connection, now, holder.actor, "feedback_hook.make", subject)
    return hook, secret


async def end_previous_secret(pool: Pool, holder: LeadHolder) -> FeedbackHook:
    """End the previous secret at once, if there is one. Raises NotFound for a business without a hook."""
    async with transaction(pool) as connection:
        hook = await feedback_store.mark_previous_secret_ended(connection, holder.business_id)
        if hook is None:
            raise errors.NotFound("This business has no secret for reports yet. Make one: POST /v1/feedback-hook.")
        subject = ids.encode("biz", holder.business_id)
        await audit.record(connection, clock.now(), holder.actor, "feedback_hook.end_previous_secret", subject)
    return hook


async def check_signature(
    pool: Pool, sealer: Sealer, business_id: UUID, headers: Mapping[str, str], body: bytes
) -> None:
    """Verify the signature of a report.

    Raises SignatureInvalid, also for a business that does not exist or has no secret.
    """
    async with session(pool) as connection:
        hook = await feedback_store.find_hook(connection, business_id)
    secrets = () if hook is None else sealer.open_secrets(business_id, hook, clock.now())
    if not is_signed(secrets, headers, body):
        raise errors.SignatureInvalid(
            "Sign the body as Standard Webhooks 1.0 says, with the secret of POST /v1/feedback-hook, "
            "within five minutes of sending it."
        )
