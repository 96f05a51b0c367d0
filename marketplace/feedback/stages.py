"""A business's own pipeline: its stages, the names that mean them, and reports that wait until their stage is mapped.

    lock the pipeline → read the present stages → plan the change (pure) → save → record the reports that it maps

A stage keeps its id and its former names when it is renamed, so that a report which still uses an old name is recorded
in the right stage. A report with a name that means no stage is refused and kept, and recorded when the name is mapped.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from marketplace.database.db import Connection, Pool, transaction
from marketplace.feedback import flow as feedback_flow
from marketplace.feedback import stages_store
from marketplace.feedback.flow import UNMAPPED_AGE, DispositionReport, LeadHolder, RecordedDisposition, name_key
from marketplace.feedback.stages_store import PipelineStage, StageColour, UnmappedReport
from marketplace.feedback.store import DispositionKind
from marketplace.feedback.wire import ReportBody
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.errors import EventReused, InvalidInput
from marketplace.security import audit
from marketplace.text.faults import Fault, FaultCode

MOST_STAGES: Final = 50
"Stages of one business; a board of more cannot be worked with."
MOST_APPLIED: Final = 10_000
"Kept reports that one mapping records, which is as many as are kept."

USUAL_STAGES: Final = (
    ("Contacted", DispositionKind.contacted),
    ("Appointment", DispositionKind.appointment),
    ("Quoted", DispositionKind.quoted),
    ("Won", DispositionKind.won),
    ("Lost", DispositionKind.lost),
    ("No answer", DispositionKind.unreachable),
)
"Stages of a new business, until it sets its own."


class StageChange(msgspec.Struct, frozen=True, kw_only=True):
    """A stage as a business wants it. `id` is that of a present stage; None finds one by its name, or makes a new one.

    `names` are further names that mean it, besides those that it has.
    """

    id: UUID | None = None
    stage: str
    kind: DispositionKind
    limit_days: Annotated[int, Meta(ge=1, le=365)] | None = None
    colour: StageColour | None = None
    names: tuple[str, ...] = ()


class StagePlan(msgspec.Struct, frozen=True, kw_only=True):
    """Stages to store in their order, the stage of each name, and the ids of present stages that end."""

    stages: tuple[PipelineStage, ...]
    names: Mapping[str, UUID]
    retired: tuple[UUID, ...]


class AppliedReports(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of kept reports that were recorded, and of those that do not fit their stage."""

    recorded: int = 0
    faulty: int = 0


def plan_stages(
    present: Sequence[PipelineStage],
    changes: Sequence[StageChange],
    successors: Mapping[UUID, UUID] | None = None,
) -> StagePlan:
    """Return the stages that follow from a change; a present stage that is not in it ends.

    A name that a stage has now means that stage, then each name that is stated for one, then former names. Names of an
    ended stage mean its successor, if there is one in `successors`, else nothing.
    """
    stages = _identify(present, changes)
    in_use = {stage.id for stage in stages}
    names = {name_key(stage.stage): stage.id for stage in stages}
    for stage, change in zip(stages, changes, strict=True):
        for name in change.names:
            names.setdefault(name_key(name), stage.id)
    for former in present:
        owner = former.id if former.id in in_use else (successors or {}).get(former.id)
        if owner is not None:
            names |= {name: owner for name in former.names if name not in names}
    retired = tuple(stage.id for stage in present if stage.id not in in_use)
    return StagePlan(stages=stages, names=names, retired=retired)


def _identify(present: Sequence[PipelineStage], changes: Sequence[StageChange]) -> tuple[PipelineStage, ...]:
    """Return the changed stages, each with its stated id, that of the present stage of its name, or a new one."""
    stated = {change.id for change in changes}
    by_name = {name_key(stage.stage): stage.id for stage in present if stage.id not in stated}
    return tuple(
        PipelineStage(
            id=change.id or by_name.get(name_key(change.stage)) or clock.new_id(),
            stage=change.stage,
            kind=change.kind,
            limit_days=change.limit_days,
            colour=change.colour,
        )
        for change in changes
    )


def stage_faults(changes: Sequence[StageChange]) -> tuple[Fault, ...]:
    """Return a fault for each name that a pipeline has twice; upper and lower case are the same."""
    names = [(f"/stages/{at}/stage", name_key(change.stage)) for at, change in enumerate(changes)]
    names += [
        (f"/stages/{at}/names/{place}", name_key(name))
        for at, change in enumerate(changes)
        for place, name in enumerate(change.names)
    ]
    return tuple(
        Fault(pointer=pointer, code=FaultCode.value_not_allowed, detail="Name each stage once.")
        for place, (pointer, name) in enumerate(names)
        if name in (earlier for _, earlier in names[:place])
    )


def _identity_faults(changes: Sequence[StageChange], present: Sequence[PipelineStage]) -> Iterator[Fault]:
    """Yield a fault for each id that no present stage has, or that an earlier stage of the change has."""
    stage_ids = [change.id for change in changes]
    present_ids = {stage.id for stage in present}
    for at, stage_id in enumerate(stage_ids):
        if stage_id is not None and (stage_id not in present_ids or stage_id in stage_ids[:at]):
            detail = "Send the id of one of your stages, each once, or leave it out for a new stage."
            yield Fault(pointer=f"/stages/{at}/id", code=FaultCode.value_not_allowed, detail=detail)


async def save_pipeline(
    pool: Pool, holder: LeadHolder, changes: Sequence[StageChange], successors: Mapping[UUID, UUID] | None = None
) -> tuple[tuple[PipelineStage, ...], AppliedReports]:
    """Set the stages of the business, and record the kept reports whose names are mapped by that.

    Recorded dispositions keep their kind. Leads of an ended stage go to its successor, or without one to the first
    stage of the same kind. Raises InvalidInput for a name that is used twice and for an unknown id.
    """
    now = clock.now()
    if faults := stage_faults(changes):
        raise errors.InvalidInput(faults)
    async with transaction(pool) as connection:
        await stages_store.lock_pipeline(connection, holder.business_id)
        present = await stages_store.list_stages(connection, holder.business_id)
        if faults := tuple(_identity_faults(changes, present)):
            raise errors.InvalidInput(faults)
        return await _save(connection, holder, plan_stages(present, changes, successors), successors or {}, now)


async def _save(
    connection: Connection, holder: LeadHolder, plan: StagePlan, successors: Mapping[UUID, UUID], now: datetime
) -> tuple[tuple[PipelineStage, ...], AppliedReports]:
    """Store a plan under the lock of the pipeline, with an audit row, and record the reports that it maps."""
    await stages_store.save_stages(connection, holder.business_id, plan.stages, plan.names)
    for stage_id in plan.retired:
        await stages_store.mark_retired(connection, holder.business_id, stage_id, successors.get(stage_id), now)
    subject = ids.encode("biz", holder.business_id)
    await audit.record(connection, now, holder.actor, "pipeline.set", subject, stages=len(plan.stages))
    applied = await _apply_mapped(connection, holder, now)
    return await stages_store.list_stages(connection, holder.business_id), applied


async def map_name(pool: Pool, holder: LeadHolder, name: str, stage_id: UUID) -> AppliedReports:
    """Make a name mean one of the business's stages, and record the reports that were kept under it.

    Raises NotFound for a stage that the business does not have, and Conflict for a name that means another stage.
    """
    now, key = clock.now(), name_key(name)
    async with transaction(pool) as connection:
        await stages_store.lock_pipeline(connection, holder.business_id)
        present = await stages_store.list_stages(connection, holder.business_id)
        if stage_id not in {stage.id for stage in present}:
            raise errors.NotFound("There is no such stage any more. Reload the page.")
        owner = next((stage for stage in present if key in stage.names), None)
        if owner is not None and owner.id != stage_id:
            raise errors.Conflict(f"“{name}” means your stage “{owner.stage}” already.")
        changes = [unchanged(stage, (name,) if stage.id == stage_id else ()) for stage in present]
        _, applied = await _save(connection, holder, plan_stages(present, changes), {}, now)
    return applied


def unchanged(stage: PipelineStage, names: tuple[str, ...] = ()) -> StageChange:
    """Return the change that leaves a stage as it is, and adds names to it."""
    return StageChange(
        id=stage.id,
        stage=stage.stage,
        kind=stage.kind,
        limit_days=stage.limit_days,
        colour=stage.colour,
        names=names,
    )


async def insert_usual_stages(connection: Connection, business_id: UUID) -> None:
    """Give a new business the usual stages, in the caller's transaction."""
    plan = plan_stages((), [StageChange(stage=stage, kind=kind) for stage, kind in USUAL_STAGES])
    await stages_store.save_stages(connection, business_id, plan.stages, plan.names)


async def _apply_mapped(connection: Connection, holder: LeadHolder, now: datetime) -> AppliedReports:
    """Record the kept reports whose name means a stage, and delete them; those that do not fit it get a fault."""
    waiting_reports = await stages_store.list_mapped(connection, holder.business_id, now - UNMAPPED_AGE, MOST_APPLIED)
    recorded, faults = list[UUID](), dict[UUID, str]()
    of_both_modes = msgspec.structs.replace(holder, mode=None)
    for _, group in groupby(sorted(waiting_reports, key=_origin), key=_origin):
        reports = tuple(group)
        outcomes = await feedback_flow.record_reports(
            connection,
            of_both_modes,
            reports[0].source,
            [_read(report) for report in reports],
            now,
            reports[0].file_import_id,
        )
        for report, outcome in zip(reports, outcomes, strict=True):
            match outcome:
                case RecordedDisposition() | EventReused():
                    recorded.append(report.id)
                case InvalidInput(faults=row_faults):
                    faults[report.id] = row_faults[0].detail
                case refusal:
                    faults[report.id] = refusal.detail
    if waiting_reports:
        await stages_store.delete_unmapped(connection, recorded)
        await stages_store.mark_faulty(connection, faults)
    return AppliedReports(recorded=len(recorded), faulty=len(faults))


def _origin(report: UnmappedReport) -> tuple[str, str]:
    """Return the channel and the import of a report, by which reports are recorded together."""
    return report.source, str(report.file_import_id or "")


def _read(report: UnmappedReport) -> DispositionReport:
    """Return a kept report as it was received."""
    body = msgspec.json.decode(report.report, type=ReportBody)
    body = msgspec.structs.replace(body, note=report.note, event_id=report.event_id)
    return DispositionReport(body=body, assignment_id=report.assignment_id)
