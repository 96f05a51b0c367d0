"""Board of a business: its leads in columns by stage, moved by a form, with next actions and what is stuck."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import Connection, session
from marketplace.feedback import flow as feedback_flow
from marketplace.feedback import next_actions, stages_store
from marketplace.feedback.flow import DispositionReport
from marketplace.feedback.next_actions import Snooze
from marketplace.feedback.stages_store import PipelineStage, StageColour
from marketplace.feedback.store import BusinessLead, DispositionKind, DispositionSource, LostReason
from marketplace.feedback.wire import DispositionBody
from marketplace.intake.contact import Contact
from marketplace.portal.business import board_store, store, wording
from marketplace.portal.business.board_store import BoardLead
from marketplace.portal.business.lead_list import spaced
from marketplace.portal.business.lead_search import LONGEST_SEARCH, fits
from marketplace.portal.business.leads import field_fault, holder_of, read_amount, read_local_time
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.forms import Amount, ShownForm, changing, fill, label, show_again, show_form, submitted
from marketplace.portal.frame import duration, money, redirect, words
from marketplace.portal.paging import next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import clock, errors, ids
from marketplace.security import access
from marketplace.security.auth import CallerKind
from marketplace.security.sealing import Sealer
from marketplace.text.faults import WORDS, FaultCode
from marketplace.web.http import AnyRequest, page_cursor, path_id, services
from routing.lifecycle import AssignmentState

CARDS: Final = 20
"Leads of a column on the board; the page of one column has more, page by page."
COLUMN_CARDS: Final = 50
SEARCHED: Final = 500
"Newest leads of each column that a search by name looks through. Opening a contact takes about 0.05 ms."
SPANS: Final = {"30": "30 days", "90": "90 days"}
LONGEST_SPAN: Final = 365
"Days back to which the board reaches; older leads are in the list of leads."
STAYS: Final = timedelta(days=180)
"Time over which the usual stay in a stage is measured."
LEAST_STAYS: Final = 8
"Leads that must have left a stage before their stay counts as usual."
ENDS: Final = frozenset({DispositionKind.won, DispositionKind.lost})
"Kinds in which a lead is never stuck."
SNOOZE_WORDS: Final = {Snooze.hour: "1 hour", Snooze.day: "1 day", Snooze.week: "1 week"}
NEW: Final = "new"
OTHER: Final = "other"


class MoveForm(msgspec.Struct, frozen=True, kw_only=True):
    """Move of a lead to a stage. `once` makes a repeated submission count once; `complete` if the fields were shown."""

    stage: str
    value: Annotated[Amount | None, label("Value of the job, in {currency}", required=True, placeholder="8,400")] = None
    starts_at: Annotated[
        Annotated[str, Meta(max_length=30)] | None,
        label("When the appointment begins, in {zone}", kind="datetime-local", required=True),
    ] = None
    reason: Annotated[LostReason | None, label("Reason")] = None
    once: Annotated[str, Meta(max_length=60)] | None = None
    complete: bool = False


class ActionForm(msgspec.Struct, frozen=True, kw_only=True):
    """Next action of a lead, with the local time of its reminder in the member's zone."""

    note: Annotated[
        Annotated[str, Meta(min_length=1, max_length=300, pattern=WORDS)],
        label("Next action", placeholder="Call again"),
    ]
    due_at: Annotated[
        Annotated[str, Meta(min_length=1, max_length=30)], label("Remind me, in {zone}", kind="datetime-local")
    ]


class ActionChange(msgspec.Struct, frozen=True, kw_only=True):
    """Change of an open action: done without `snooze`, else put off. `back` is the page to return to."""

    snooze: Snooze | None = None
    back: Annotated[str, Meta(max_length=20)] | None = None


class UndoForm(msgspec.Struct, frozen=True, kw_only=True):
    """The move to undo."""

    disposition: str


class BoardColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the board: its leads, and the count and won value of all leads in it."""

    key: str
    name: str
    tone: str
    colour: StageColour
    kind: DispositionKind | None
    leads: int
    value_minor: int
    limit: str
    cards: tuple["Card", ...]


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A lead on the board. Name and need are empty unless it was delivered and not erased."""

    lead: BoardLead
    public_id: str
    who: str
    phone: str
    need: str
    where: str
    value: str
    stay: str
    is_due: bool

    def matches(self, text: str) -> bool:
        """Return whether the words of the text are in the name, need or place, or its digits in the phone number."""
        return not text or fits(text, self.phone, self.who, self.need, self.where)


def limits_of(
    stages: Iterable[PipelineStage], stays: Iterable[board_store.UsualStay], new_seconds: float
) -> dict[str, float]:
    """Return the seconds after which a lead of each column is stuck.

    The limit that the business set decides, else the time in which three quarters of its leads left the stage. Columns
    without either, and those of won and lost leads, have none; new leads are stuck after `new_seconds`.
    """
    usual = {stay.stage_id: stay.p75_seconds for stay in stays}
    limits = {NEW: new_seconds}
    for stage in stages:
        seconds = usual.get(stage.id) if stage.limit_days is None else stage.limit_days * 86_400.0
        if seconds is not None and stage.kind not in ENDS:
            limits[str(stage.id)] = seconds
    return limits


NEW_SECONDS: Final = 86_400.0
"A lead without an outcome is stuck after a day."


class BoardQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Filters of the board, as the address has them.

    `only` is "stuck", "due" or None. `column_key` limits the page to one column, which continues after `before`.
    """

    days: int
    only: str | None
    column_key: str | None
    before: UUID | None
    text: str

    @property
    def most(self) -> int:
        """Most leads of a column that are read."""
        if self.text:
            return SEARCHED
        return COLUMN_CARDS if self.column_key else CARDS


def read_query(request: AnyRequest) -> BoardQuery:
    """Return the filters of the address; those that mean nothing are left out. Raises InvalidInput for the cursor."""
    query = request.query_params
    span, only, column_key = query.get("span"), query.get("show"), query.get("column") or None
    before = page_cursor(request, "asg")
    return BoardQuery(
        days=int(span) if span in SPANS else LONGEST_SPAN,
        only=only if only in ("stuck", "due") else None,
        column_key=column_key,
        before=before if column_key else None,
        text=(query.get("q") or "").strip()[:LONGEST_SEARCH],
    )


@get("/business/board")
async def show_board(request: AnyRequest) -> Response[bytes]:
    """Show the board, or one column of it page by page."""
    viewer, now = await visitor(request, CallerKind.business), clock.now()
    query, app = read_query(request), services(request)
    async with session(app.pool) as connection:
        stages = await stages_store.list_stages(connection, viewer.owner)
        stays = await board_store.measure_stays(connection, viewer.owner, now - STAYS, LEAST_STAYS)
        limits = limits_of(stages, stays, NEW_SECONDS)
        rows = await board_store.list_cards(
            connection,
            viewer.owner,
            viewer.mode,
            now - timedelta(days=query.days),
            now,
            limits,
            only=query.only,
            column_key=query.column_key,
            before=query.before,
            most=query.most + 1 if query.column_key else query.most,
        )
        cards = await load_cards(connection, app.sealer, viewer, rows, now)
        next_cursor = None
        if query.column_key:
            next_cursor = next_page("asg", [row.assignment_id for row in rows], query.most)
            cards = cards[: query.most]
        cards = [card for card in cards if card.matches(query.text)]
        reveals = [card.lead.lead_id for card in cards if card.lead.state is AssignmentState.delivered]
        await access.record_reveals(connection, viewer.opened, viewer.actor, reveals)
    columns = arrange(stages, cards, limits, searched=bool(query.text))
    return await business_page(
        request,
        viewer,
        "business/board.html",
        searched=SEARCHED if query.text and any(row.column_leads > SEARCHED for row in rows) else 0,
        columns=[column for column in columns if query.column_key in (None, column.key)],
        one_column=query.column_key is not None,
        targets=stages,
        spans=tuple(SPANS.items()),
        next_cursor=next_cursor,
        undoable=find_undoable(cards, ids.decode("lead", request.query_params.get("moved", "")), now),
        once=ids.encode("evt", clock.new_id()),
        snoozes=tuple(SNOOZE_WORDS.items()),
    )


def find_undoable(cards: Iterable[Card], lead_id: UUID | None, now: datetime) -> Card | None:
    """Return the card of a lead that was just moved on the pages, if that can be undone still."""
    for card in cards:
        recorded_at = card.lead.recorded_at
        if card.lead.lead_id == lead_id and card.lead.source is DispositionSource.portal and recorded_at is not None:
            return card if now - recorded_at < feedback_flow.UNDO_TIME else None
    return None


async def load_cards(
    connection: Connection, sealer: Sealer, viewer: Viewer, rows: Sequence[BoardLead], now: datetime
) -> list[Card]:
    """Return the cards of leads, with the contacts of the delivered ones, which a thread opens."""
    delivered = [row.lead_id for row in rows if row.state is AssignmentState.delivered]
    sealed = await store.list_contacts(connection, viewer.owner, delivered) if delivered else {}

    def show(row: BoardLead) -> Card:
        box = sealed.get(row.lead_id)
        opened = None if box is None else sealer.open_contact(row.lead_id, box)
        return _card(row, None if opened is None else msgspec.json.decode(opened, type=Contact), now)

    return await asyncio.to_thread(lambda: [show(row) for row in rows])


def _card(row: BoardLead, contact: Contact | None, now: datetime) -> Card:
    return Card(
        lead=row,
        public_id=ids.encode("lead", row.lead_id),
        who=contact.full_name if contact else "",
        phone=spaced(contact.phone) if contact else "",
        need=(contact.summary if contact else None) or words(row.vertical),
        where=" ".join(part for part in (row.region, row.postal_code) if part),
        value="" if row.value_minor is None else money(row.value_minor, row.currency),
        stay=duration((now - row.since).total_seconds()),
        is_due=row.action_due_at is not None and row.action_due_at <= now,
    )


def arrange(
    stages: Sequence[PipelineStage], cards: Sequence[Card], limits: Mapping[str, float], *, searched: bool
) -> list[BoardColumn]:
    """Return the columns: new leads, each stage in its order, and leads of no stage if there are any.

    The counts are those of the database, or after a search those of the cards that it found.
    """
    heads: list[tuple[str, str, DispositionKind | None, StageColour]] = [(NEW, "New", None, StageColour.grey)]
    heads += [
        (str(stage.id), stage.stage, stage.kind, stage.colour or wording.KIND_COLOURS[stage.kind]) for stage in stages
    ]
    by_key: dict[str, list[Card]] = {}
    for card in cards:
        by_key.setdefault(card.lead.column_key, []).append(card)
    if OTHER in by_key:
        heads.append((OTHER, "No stage", None, StageColour.grey))
    columns = []
    for key, name, kind, colour in heads:
        own = by_key.get(key, [])
        leads, minor = (own[0].lead.column_leads, own[0].lead.column_minor) if own else (0, 0)
        if searched:
            leads, minor = len(own), sum(card.lead.value_minor or 0 for card in own)
        columns.append(
            BoardColumn(
                key=key,
                name=name,
                tone="muted" if kind is None else wording.KIND_TONES[kind],
                colour=colour,
                kind=kind,
                leads=leads,
                value_minor=minor,
                limit="" if key not in limits else f"Stuck after {duration(limits[key])}",
                cards=tuple(own),
            )
        )
    return columns


# Moves.


@get("/business/leads/{lead_id:str}/move")
async def show_move(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Show the form for what a move to a stage needs, such as the value of a won job."""
    viewer = await visitor(request, CallerKind.business)
    return await _move_page(request, viewer, path_id("lead", lead_id), request.query_params.get("stage"))


async def _move_page(request: AnyRequest, viewer: Viewer, lead_id: UUID, stage_id: str | None) -> Response[bytes]:
    lead, stages = await _load_move(request, viewer, lead_id)
    stage = _find_stage(stages, stage_id)
    names = {
        DispositionKind.won: ("value",),
        DispositionKind.appointment: ("starts_at",),
        DispositionKind.lost: ("reason",),
    }
    return await business_page(
        request,
        viewer,
        "business/move.html",
        lead=lead,
        stage=stage,
        stages=stages,
        form=_move_form(lead, viewer, names.get(stage.kind, ()) if stage else ()),
        once=ids.encode("evt", clock.new_id()),
    )


def _move_form(lead: BusinessLead, viewer: Viewer, names: tuple[str, ...]) -> ShownForm:
    reasons = (("", "Not stated"), *wording.LOST.items())
    form = show_form(MoveForm, options={"reason": reasons}, currency=lead.currency, zone=viewer.zone)
    return msgspec.structs.replace(form, fields=tuple(field for field in form.fields if field.name in names))


def _find_stage(stages: Iterable[PipelineStage], stage_id: str | None) -> PipelineStage | None:
    return next((stage for stage in stages if str(stage.id) == stage_id), None)


async def _load_move(
    request: AnyRequest, viewer: Viewer, lead_id: UUID
) -> tuple[BusinessLead, tuple[PipelineStage, ...]]:
    """Return a lead of the business, and the business's stages. Raises NotFound for an unknown lead."""
    async with session(services(request).pool) as connection:
        lead = await feedback_flow.load_lead(connection, holder_of(viewer), lead_id)
        return lead, await stages_store.list_stages(connection, viewer.owner)


@post("/business/leads/{lead_id:str}/move")
async def move_lead(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Record the disposition that a stage means, or ask for what the stage needs."""
    viewer, fields = await changing(request, CallerKind.business)
    internal_id = path_id("lead", lead_id)
    form = fill(MoveForm, fields)
    lead, stages = await _load_move(request, viewer, internal_id)
    stage = _find_stage(stages, form.stage)
    if stage is None:
        return redirect(request, "/business/board", "This stage does not exist any more. Nothing was moved.")
    if stage.kind in (DispositionKind.won, DispositionKind.appointment) and not form.complete:
        return redirect(request, f"/business/leads/{lead_id}/move?stage={stage.id}")
    try:
        body = _body_of(form, stage, lead, viewer)
        await feedback_flow.report_one(
            services(request).pool,
            holder_of(viewer),
            DispositionSource.portal,
            DispositionReport(body=body, lead_id=internal_id),
        )
    except errors.EventReused:
        return redirect(request, "/business/board", "This page was out of date, so nothing was moved. Move it again.")
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _move_page(request, viewer, internal_id, form.stage))
    except errors.Conflict as error:
        return redirect(request, "/business/board", error.detail)
    request.app.state.live.listener.wake(viewer.account)
    return redirect(request, f"/business/board?moved={lead_id}", f"Moved to {stage.stage}.")


def _body_of(form: MoveForm, stage: PipelineStage, lead: BusinessLead, viewer: Viewer) -> DispositionBody:
    """Return the report of a move. Raises InvalidInput for a value or time that is missing or cannot be read."""
    value = read_amount(form.value, lead.currency, "value") if stage.kind is DispositionKind.won else None
    starts_at = None
    if stage.kind is DispositionKind.appointment:
        starts_at = read_local_time(form.starts_at, viewer.zone, "starts_at")
    if stage.kind is DispositionKind.won and value is None:
        raise field_fault("value", FaultCode.field_missing, "Enter the value of the job, such as 8,400.")
    return DispositionBody(
        stage=stage.stage,
        value_minor=value,
        starts_at=starts_at,
        reason=form.reason if stage.kind is DispositionKind.lost else None,
        event_id=f"{form.once}:{ids.encode('lead', lead.lead_id)}" if form.once else None,
    )


@post("/business/leads/{lead_id:str}/undo-move")
async def undo_move(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Undo the last move of a lead."""
    viewer, form = await submitted(request, UndoForm, CallerKind.business)
    await _load_move(request, viewer, path_id("lead", lead_id))
    disposition_id = ids.decode("dsp", form.disposition)
    if disposition_id is None:
        return redirect(request, "/business/board", "There is nothing to undo.")
    try:
        await feedback_flow.undo_move(services(request).pool, holder_of(viewer), disposition_id)
    except errors.Conflict as error:
        return redirect(request, "/business/board", error.detail)
    request.app.state.live.listener.wake(viewer.account)
    return redirect(request, "/business/board", "Undone: the lead is back where it was.")


# Next actions.


@post("/business/leads/{lead_id:str}/next-action")
async def set_next_action(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Set the next action of a lead and its reminder."""
    viewer, fields = await changing(request, CallerKind.business)
    internal_id = path_id("lead", lead_id)
    try:
        form = fill(ActionForm, fields)
        due_at = read_local_time(form.due_at, viewer.zone, "due_at")
        assert due_at is not None  # the field is required
        await next_actions.set_action(services(request).pool, holder_of(viewer), internal_id, form.note.strip(), due_at)
    except errors.InvalidInput as error:
        return await show_again(request, fields, error, _action_page(request, viewer, internal_id))
    return redirect(request, f"/business/leads/{lead_id}", "Saved. We remind you on the overview and the board.")


@get("/business/leads/{lead_id:str}/next-action")
async def show_next_action(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Show the form for the next action of a lead."""
    viewer = await visitor(request, CallerKind.business)
    return await _action_page(request, viewer, path_id("lead", lead_id))


async def _action_page(request: AnyRequest, viewer: Viewer, lead_id: UUID) -> Response[bytes]:
    async with session(services(request).pool) as connection:
        lead = await feedback_flow.load_lead(connection, holder_of(viewer), lead_id)
        action = await next_actions.find_action(connection, viewer.owner, lead_id)
    values = {"note": action.note} if action else {}
    return await business_page(
        request,
        viewer,
        "business/next_action.html",
        lead=lead,
        action=action,
        form=show_form(ActionForm, values, zone=viewer.zone),
    )


@post("/business/leads/{lead_id:str}/next-action/done")
async def finish_next_action(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Mark the next action of a lead as done, or put its reminder off."""
    viewer, form = await submitted(request, ActionChange, CallerKind.business)
    internal_id, pool = path_id("lead", lead_id), services(request).pool
    back = {"overview": "/business", "lead": f"/business/leads/{lead_id}"}.get(form.back or "", "/business/board")
    if form.snooze is None:
        await next_actions.finish_action(pool, holder_of(viewer), internal_id)
        return redirect(request, back, "Done.")
    await next_actions.snooze_action(pool, holder_of(viewer), internal_id, form.snooze)
    return redirect(request, back, f"We remind you again in {SNOOZE_WORDS[form.snooze]}.")


handlers = (
    show_board,
    show_move,
    move_lead,
    undo_move,
    show_next_action,
    set_next_action,
    finish_next_action,
)
