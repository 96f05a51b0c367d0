"""Page of the stages of a business: their names, order and limits, names that wait to be mapped, and sent changes."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory import store as directory_store
from marketplace.directory.store import TenantScope
from marketplace.feedback import stage_changes, stages, stages_store
from marketplace.feedback.flow import UNMAPPED_AGE
from marketplace.feedback.stages import AppliedReports, StageChange
from marketplace.feedback.stages_store import PipelineStage, StageColour
from marketplace.feedback.store import DispositionKind
from marketplace.feedback.wire import StageName
from marketplace.portal.business import wording
from marketplace.portal.business.leads import holder_of
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.forms import changing, fill, label, show_again, show_form, submitted
from marketplace.portal.frame import redirect, words
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, path_id, services

HOME: Final = "/business/board/stages"
MOST_NAMES: Final = 50
MOST_ENDPOINTS: Final = 50
SHOWN_CHANGES: Final = 10


class StageForm(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of the business, new or changed."""

    stage: Annotated[StageName, label("Name")]
    kind: Annotated[DispositionKind, label("Counts as")]
    limit_days: Annotated[
        Annotated[int, Meta(ge=1, le=365)] | None,
        label("Stuck after, in days", "Left empty, the time decides in which three of four of your leads move on."),
    ] = None
    colour: Annotated[StageColour | None, label("Colour on the board")] = None

    def change(self, stage_id: UUID | None = None) -> StageChange:
        """Return the stage of this form, in place of the stage with this id or as a new one."""
        name = self.stage.strip()
        return StageChange(id=stage_id, stage=name, kind=self.kind, limit_days=self.limit_days, colour=self.colour)


class StageAct(msgspec.Struct, frozen=True, kw_only=True):
    """Move of a stage in the order, or its end, after which its leads are in the stage `successor`."""

    act: Literal["up", "down", "remove"]
    successor: str | None = None


class NameForm(msgspec.Struct, frozen=True, kw_only=True):
    """A name that means a stage from now on."""

    name: StageName
    stage: str


class StageHookForm(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint to which changes are sent; empty for none."""

    endpoint: str | None = None


@get(HOME)
async def show_stages(request: AnyRequest) -> Response[bytes]:
    """Show the stages, the names that wait to be mapped, and where changes are sent."""
    return await _stages_page(request, await visitor(request, CallerKind.business))


async def _stages_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    async with session(services(request).pool) as connection:
        present = await stages_store.list_stages(connection, viewer.owner)
        names = await stages_store.list_unmapped_names(connection, viewer.owner, clock.now() - UNMAPPED_AGE, MOST_NAMES)
        hook = await stage_changes.find_hook(connection, viewer.owner)
        changes = await stage_changes.list_changes(connection, viewer.owner, SHOWN_CHANGES)
        scope = TenantScope(business_id=viewer.owner, mode=viewer.mode)
        endpoints = await directory_store.list_endpoints(connection, scope, None, MOST_ENDPOINTS)
    options = {
        "kind": tuple(wording.KINDS.items()),
        "colour": (("", "That of its outcome"), *((colour, words(colour)) for colour in StageColour)),
    }
    return await business_page(
        request,
        viewer,
        "business/stages.html",
        stages=[(stage, show_form(StageForm, msgspec.structs.asdict(stage), options)) for stage in present],
        new_form=show_form(StageForm, options=options),
        names=names,
        endpoints=[(ids.encode("whe", each.id), each.url) for each in endpoints if each.url and each.state == "active"],
        hook="" if hook is None else ids.encode("whe", hook),
        changes=changes,
    )


@post(HOME)
async def add_stage(request: AnyRequest) -> Response[bytes]:
    """Add a stage behind the others."""
    viewer, fields = await changing(request, CallerKind.business)
    try:
        form = fill(StageForm, fields)
        present = await _load(request, viewer)
        new = form.change()
        if any(new.stage.casefold() == stage.stage.casefold() for stage in present):
            raise errors.Conflict(f"You have a stage “{new.stage}” already.")
        return await _save(request, viewer, [*map(stages.unchanged, present), new], f"Added: {new.stage}.")
    except (errors.InvalidInput, errors.Conflict) as error:
        return await show_again(request, fields, error, _stages_page(request, viewer))


@post(f"{HOME}/{{stage_id:str}}")
async def change_stage(request: AnyRequest, stage_id: FromPath[str]) -> Response[bytes]:
    """Rename a stage, or change its kind or limit. Its leads stay in it."""
    viewer, fields = await changing(request, CallerKind.business)
    try:
        present = await _load(request, viewer)
        former = _find(present, path_id("stg", stage_id))
        change = fill(StageForm, fields).change(former.id)
        changes = [change if stage.id == former.id else stages.unchanged(stage) for stage in present]
        return await _save(request, viewer, changes, f"Saved: {change.stage}.")
    except errors.InvalidInput as error:
        detail = errors.Conflict(" ".join(fault.detail for fault in error.faults))
        return await show_again(request, {}, detail, _stages_page(request, viewer))


@post(f"{HOME}/{{stage_id:str}}/act")
async def move_stage(request: AnyRequest, stage_id: FromPath[str]) -> Response[bytes]:
    """Move a stage up or down, or end it and send its leads to another stage."""
    viewer, form = await submitted(request, StageAct, CallerKind.business)
    present = list(await _load(request, viewer))
    stage = _find(present, path_id("stg", stage_id))
    at = present.index(stage)
    present.remove(stage)
    if form.act == "remove":
        successor = ids.decode("stg", form.successor or "")
        successors = {} if successor is None else {stage.id: _find(present, successor).id}
        changes = list(map(stages.unchanged, present))
        return await _save(request, viewer, changes, f"Removed: {stage.stage}.", successors)
    present.insert(max(0, at - 1 if form.act == "up" else at + 1), stage)
    return await _save(request, viewer, list(map(stages.unchanged, present)), "Saved.")


@post(f"{HOME}/names")
async def map_name(request: AnyRequest) -> Response[bytes]:
    """Make a name mean a stage, and record the reports that were kept under it."""
    viewer, form = await submitted(request, NameForm, CallerKind.business)
    stage_id = ids.decode("stg", form.stage)
    if stage_id is None:
        raise errors.NotFound("There is no such stage any more. Reload the page.")
    applied = await stages.map_name(services(request).pool, holder_of(viewer), form.name, stage_id)
    return redirect(request, HOME, f"“{form.name}” is mapped.{_applied_words(applied)}")


@post(f"{HOME}/changes")
async def set_hook(request: AnyRequest) -> Response[bytes]:
    """Set the endpoint to which changes of stage are sent."""
    viewer, form = await submitted(request, StageHookForm, CallerKind.business)
    endpoint_id = ids.decode("whe", form.endpoint) if form.endpoint else None
    if form.endpoint and endpoint_id is None:
        raise errors.NotFound("Choose an active endpoint of yours that receives webhooks.")
    await stage_changes.set_hook(services(request).pool, holder_of(viewer), endpoint_id)
    return redirect(request, HOME, "Changes are sent to this endpoint." if endpoint_id else "Changes are not sent.")


async def _load(request: AnyRequest, viewer: Viewer) -> tuple[PipelineStage, ...]:
    async with session(services(request).pool) as connection:
        return await stages_store.list_stages(connection, viewer.owner)


def _find(present: Sequence[PipelineStage], stage_id: UUID) -> PipelineStage:
    """Return the stage with this id. Raises NotFound."""
    stage = next((stage for stage in present if stage.id == stage_id), None)
    if stage is None:
        raise errors.NotFound("There is no such stage any more. Reload the page.")
    return stage


async def _save(
    request: AnyRequest,
    viewer: Viewer,
    changes: Sequence[StageChange],
    message: str,
    successors: dict[UUID, UUID] | None = None,
) -> Response[bytes]:
    _, applied = await stages.save_pipeline(services(request).pool, holder_of(viewer), changes, successors)
    return redirect(request, HOME, f"{message}{_applied_words(applied)}")


def _applied_words(applied: AppliedReports) -> str:
    """Return what became of the reports that were kept, as a sentence; empty if there were none."""
    text = f" Recorded {applied.recorded:,} waiting reports." if applied.recorded else ""
    return text + (f" {applied.faulty:,} do not fit the stage." if applied.faulty else "")


handlers = (show_stages, add_stage, map_name, set_hook, change_stage, move_stage)
