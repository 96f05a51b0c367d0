"""The queries of stages and of reports that wait for a stage: one function per query, no decision inside."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows
from marketplace.feedback.store import DispositionKind, DispositionSource

SQL = Queries(__file__, "stages.sql")


class StageColour(StrEnum):
    """Colours of stages on the board. Each has enough contrast with the page, in light and dark."""

    blue = "blue"
    orange = "orange"
    teal = "teal"
    purple = "purple"
    green = "green"
    amber = "amber"
    red = "red"
    grey = "grey"


class PipelineStage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of a business's own pipeline.

    `kind` is the disposition that it means. A lead is stuck in it after `limit_days`; None leaves that to the time that
    leads of the business usually stay. `names` are all names that mean it, casefolded. Without a `colour`, it has
    that of its kind.
    """

    id: UUID
    stage: str
    kind: DispositionKind
    limit_days: int | None = None
    colour: StageColour | None = None
    names: tuple[str, ...] = ()


class NamedStage(msgspec.Struct, frozen=True, kw_only=True):
    """The stage that a name means, and the kind of disposition that this is."""

    name: str
    stage_id: UUID
    kind: DispositionKind


class UnmappedReport(msgspec.Struct, frozen=True, kw_only=True):
    """A report whose stage no name meant when it came. `report` is its body as JSON, without the note."""

    id: UUID
    assignment_id: UUID
    report: bytes
    note: str | None
    source: DispositionSource
    event_id: str
    file_import_id: UUID | None


class NewUnmapped(msgspec.Struct, frozen=True, kw_only=True):
    """A report to keep until its stage is mapped; `name` is the casefolded stage."""

    id: UUID
    assignment_id: UUID
    lead_id: UUID
    stage: str
    name: str
    report: bytes
    note: str | None
    event_id: str


class UnmappedName(msgspec.Struct, frozen=True, kw_only=True):
    """A name that reports came with and that means no stage; with `fault`, it means one that does not fit them."""

    name: str
    stage: str
    reports: int
    last_at: datetime
    fault: str | None


async def list_stages(connection: Connection, business_id: UUID) -> tuple[PipelineStage, ...]:
    """Return the business's stages in their order, without those that were ended."""
    return await fetch_rows(connection, SQL["list_stages"], PipelineStage, business_id)


async def list_names(connection: Connection, business_id: UUID) -> dict[str, NamedStage]:
    """Return the stage that each name means, by the casefolded name."""
    stages = await fetch_rows(connection, SQL["list_names"], NamedStage, business_id)
    return {stage.name: stage for stage in stages}


async def lock_pipeline(connection: Connection, business_id: UUID) -> None:
    """Wait for other changes of the business's stages, and make later ones wait until the transaction ends."""
    await connection.execute(SQL["lock_pipeline"], business_id)


async def lock_names(connection: Connection, business_id: UUID) -> None:
    """Make changes of the business's stages wait until the transaction ends."""
    await connection.execute(SQL["lock_names"], business_id)


async def mark_retired(
    connection: Connection, business_id: UUID, stage_id: UUID, successor: UUID | None, now: datetime
) -> None:
    """End a stage; its leads go to the stage `successor`, or without one to a stage of the same kind."""
    await connection.execute(SQL["mark_retired"], business_id, stage_id, successor, now)


async def save_stages(
    connection: Connection, business_id: UUID, stages: Sequence[PipelineStage], names: Mapping[str, UUID]
) -> None:
    """Store the stages in their order, and the stage that each name means in place of all earlier names."""
    await connection.execute(SQL["delete_names"], business_id)
    await connection.execute(
        SQL["save_stages"],
        business_id,
        [stage.id for stage in stages],
        [stage.stage for stage in stages],
        [stage.kind for stage in stages],
        [stage.limit_days for stage in stages],
        [stage.colour for stage in stages],
    )
    await connection.execute(SQL["insert_names"], business_id, list(names), list(names.values()))


async def insert_unmapped(
    connection: Connection,
    business_id: UUID,
    source: DispositionSource,
    file_import_id: UUID | None,
    now: datetime,
    reports: Sequence[NewUnmapped],
    most: int,
) -> None:
    """Keep reports until their stage is mapped, unless the business has `most` of them already."""
    columns = [
        [report.id for report in reports],
        [report.assignment_id for report in reports],
        [report.lead_id for report in reports],
        [report.stage for report in reports],
        [report.name for report in reports],
        [report.report.decode() for report in reports],
        [report.note for report in reports],
        [report.event_id for report in reports],
    ]
    await connection.execute(SQL["insert_unmapped"], business_id, most, source, file_import_id, now, *columns)


async def list_mapped(
    connection: Connection, business_id: UUID, since: datetime, limit: int
) -> tuple[UnmappedReport, ...]:
    """Return the kept reports since a time whose name means a stage now, oldest first."""
    return await fetch_rows(connection, SQL["list_mapped"], UnmappedReport, business_id, since, limit)


async def delete_unmapped(connection: Connection, report_ids: Sequence[UUID]) -> None:
    """Delete kept reports that have been recorded."""
    await connection.execute(SQL["delete_unmapped"], list(report_ids))


async def mark_faulty(connection: Connection, faults: Mapping[UUID, str]) -> None:
    """Store the fault of each kept report that does not fit its stage."""
    await connection.execute(SQL["mark_faulty"], list(faults), list(faults.values()))


async def delete_unmapped_of_import(connection: Connection, file_import_id: UUID, business_id: UUID) -> None:
    """Delete the kept reports of an import that is undone."""
    await connection.execute(SQL["delete_unmapped_of_import"], file_import_id, business_id)


async def delete_old_unmapped(connection: Connection, before: datetime) -> None:
    """Delete kept reports that came before a time."""
    await connection.execute(SQL["delete_old_unmapped"], before)


async def list_unmapped_names(
    connection: Connection, business_id: UUID, since: datetime, limit: int
) -> tuple[UnmappedName, ...]:
    """Return the names of kept reports since a time, those without a stage first."""
    return await fetch_rows(connection, SQL["list_unmapped_names"], UnmappedName, business_id, since, limit)
