"""Stage 4, first half: what a business says became of its leads, by whichever way it says it.

    load the assignments meant → read each report (pure) → one transaction: the good ones, written once per event id

A report is about a lead that the business may have seen: one that was delivered, or exposed, because an endpoint that
did not answer may have taken the lead all the same. Before that there is nothing to report, and what was refused,
lapsed or given back is not the business's to work on.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from marketplace import access, audit, clock, errors, ids
from marketplace.auth import Opened
from marketplace.db import Connection, Pool, session, transaction
from marketplace.errors import MarketplaceError
from marketplace.faults import Code, Fault
from marketplace.feedback import store
from marketplace.feedback.store import Disposition, DispositionKind, Hook, Lead, Source, Stage, Target
from marketplace.feedback.wire import DispositionBody
from marketplace.hours import Elapsed, elapsed
from marketplace.sealing import Sealer
from marketplace.webhook.signing import is_signed, new_secret
from routing.inquiry import CLOCK_TOLERANCE, is_later
from routing.lifecycle import AssignmentState

SECRET_OVERLAP: Final = timedelta(hours=24)
"How long the old secret of a hook stays good, as that of an endpoint: a day is time to roll out the new one."

REPORTABLE: Final = frozenset({AssignmentState.exposed, AssignmentState.delivered})
"A business works on what it may have seen and still has; see above."

CONTACTS: Final = frozenset(
    {DispositionKind.contacted, DispositionKind.qualified, DispositionKind.quoted, DispositionKind.won}
)
"Kinds in which somebody was reached: the earliest of them is the first contact."

NOT_THERE: Final = "There is no lead of yours with this id."


class ReportFault(StrEnum):
    """What only the lead, the pipeline or the clock can tell to be wrong with a report."""

    kind_missing = "kind_missing"
    """Neither a kind nor a stage was given."""
    stage_unknown = "stage_unknown"
    """The pipeline has no such stage."""
    value_missing = "value_missing"
    """Won, and nothing says for how much."""
    happened_in_future = "happened_in_future"
    """More than five minutes ahead of our clock."""
    happened_before_delivery = "happened_before_delivery"
    """Before the business was shown the lead."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The business whose leads are meant, in one mode or in both, and who acts for it: a key's public id, a member."""

    business_id: UUID
    mode: str | None
    actor: str
    opened: Opened | None = None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One report, and the lead or the assignment that it is about."""

    body: DispositionBody
    lead_id: UUID | None = None
    assignment_id: UUID | None = None


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A disposition on record; `fresh` when this call put it there."""

    disposition: Disposition
    fresh: bool


class FirstSteps(msgspec.Struct, frozen=True, kw_only=True):
    """When the business first tried, and first reached somebody, and how long after it was shown the lead."""

    touch_at: datetime | None = None
    contact_at: datetime | None = None
    to_touch: Elapsed | None = None
    to_contact: Elapsed | None = None


async def load_lead(connection: Connection, holder: Holder, lead_id: UUID) -> Lead:
    """Raises NotFound, the same for an unknown lead, another's, and one of which nothing has left us yet."""
    lead = await store.find_lead(connection, holder.business_id, holder.mode, lead_id)
    if lead is None:
        raise errors.NotFound(NOT_THERE)
    return lead


async def open_contact(connection: Connection, sealer: Sealer, holder: Holder, lead: Lead) -> bytes | None:
    """The contact as JSON, through its door: only of a lead that was delivered, and so paid for.

    To whoever came in by a way that an operator opened, it is a reveal.

    Shown earlier, it would be a lead received that the deadline then gives back uncharged; one given back is nobody's.
    """
    if lead.state is not AssignmentState.delivered:
        return None
    await access.record_reveals(connection, holder.opened, holder.actor, (lead.lead_id,))
    sealed = await store.read_contact(connection, lead.lead_id, lead.business_id)
    return None if sealed is None else sealer.open_contact(lead.lead_id, sealed)


def first_steps(lead: Lead, told: Sequence[Disposition]) -> FirstSteps:
    """By the earliest dispositions, whenever they were told."""
    touch_at = min((one.happened_at for one in told), default=None)
    contact_at = min((one.happened_at for one in told if one.kind in CONTACTS), default=None)
    return FirstSteps(
        touch_at=touch_at,
        contact_at=contact_at,
        to_touch=None if touch_at is None else elapsed(lead.hours, lead.exposed_at, touch_at),
        to_contact=None if contact_at is None else elapsed(lead.hours, lead.exposed_at, contact_at),
    )


# Dispositions


async def report_one(pool: Pool, holder: Holder, source: Source, told: Told) -> Recorded:
    """Records one disposition. Raises what is wrong with it."""
    [outcome] = await report(pool, holder, source, (told,))
    if isinstance(outcome, MarketplaceError):
        raise outcome
    return outcome


async def report(
    pool: Pool, holder: Holder, source: Source, told: Sequence[Told]
) -> tuple[Recorded | MarketplaceError, ...]:
    """Records the good ones in one transaction; the outcome of each, in their order.

    NotFound, NotDelivered, InvalidInput or EventReused is what an outcome may be besides.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        outcomes = await record_reports(connection, holder, source, told, now)
        written = [one.disposition for one in outcomes if isinstance(one, Recorded) and one.fresh]
        if len(told) == 1 and written:
            subject = ids.encode("lead", written[0].lead_id)
            await audit.record(connection, now, holder.actor, "lead.disposition", subject, kind=written[0].kind)
        elif written:
            subject = ids.encode("biz", holder.business_id)
            await audit.record(connection, now, holder.actor, "disposition.import", subject, rows=len(written))
    return outcomes


async def record_reports(
    connection: Connection, holder: Holder, source: Source, told: Sequence[Told], now: datetime,
    file_import_id: UUID | None = None,
) -> tuple[Recorded | MarketplaceError, ...]:  # fmt: skip
    """Records the good ones in the caller's transaction, as rows of an import where one is named."""
    read = await _read_reports(connection, holder, source, told, now)
    return await _record(connection, holder, source, told, read, now, file_import_id)


async def judge_reports(
    connection: Connection, holder: Holder, source: Source, told: Sequence[Told], now: datetime,
    earlier: dict[str, Disposition],
) -> tuple[Recorded | MarketplaceError, ...]:  # fmt: skip
    """What `record_reports` would make of them; nothing is written. `earlier` has what was judged good before them, by
    event id, and takes in what is judged good now."""
    read = await _read_reports(connection, holder, source, told, now)
    events = [one.event_id for one in read if isinstance(one, Disposition) and one.event_id is not None]
    known = await store.list_events(connection, holder.business_id, events) if events else {}
    outcomes: list[Recorded | MarketplaceError] = []
    for one, asked in zip(read, told, strict=True):
        if isinstance(one, MarketplaceError):
            outcomes.append(one)
            continue
        before = known.get(one.event_id or "") or earlier.get(one.event_id or "")
        if before is None:
            earlier[one.event_id or str(one.id)] = one
            outcomes.append(Recorded(disposition=one, fresh=True))
        else:
            outcomes.append(_outcome(one, asked, {one.event_id or "": before}, set()))
    return tuple(outcomes)


async def _read_reports(
    connection: Connection, holder: Holder, source: Source, told: Sequence[Told], now: datetime
) -> list[Disposition | MarketplaceError]:
    stages = {stage.stage.casefold(): stage.kind for stage in await store.list_stages(connection, holder.business_id)}
    targets = await _targets(connection, holder, told)
    return [read_report(one, targets, stages, source, now) for one in told]


async def _targets(connection: Connection, holder: Holder, told: Sequence[Told]) -> dict[UUID, Target]:
    """By the lead's id and by the assignment's."""
    leads = [one.lead_id for one in told if one.lead_id is not None]
    assignments = [one.assignment_id for one in told if one.assignment_id is not None]
    found = await store.list_targets(connection, holder.business_id, holder.mode, leads, assignments)
    return {key: target for target in found for key in (target.lead_id, target.assignment_id)}


async def _record(
    connection: Connection, holder: Holder, source: Source, told: Sequence[Told],
    read: Sequence[Disposition | MarketplaceError], now: datetime, file_import_id: UUID | None = None,
) -> tuple[Recorded | MarketplaceError, ...]:  # fmt: skip
    """Each event id once: the first row that brings it is written, and all others are held against that."""
    good = [one for one in read if isinstance(one, Disposition)]
    written: set[UUID] = set()
    if good:
        written = await store.insert_dispositions(connection, holder.business_id, source, now, good, file_import_id)
    known: dict[str, Disposition] = {}
    if events := [one.event_id for one in good if one.event_id is not None and one.id not in written]:
        known = await store.list_events(connection, holder.business_id, events)
    return tuple(
        one if isinstance(one, MarketplaceError) else _outcome(one, asked, known, written)
        for asked, one in zip(told, read, strict=True)
    )


def _outcome(
    one: Disposition, asked: Told, known: Mapping[str, Disposition], written: set[UUID]
) -> Recorded | MarketplaceError:
    if one.id in written:
        return Recorded(disposition=one, fresh=True)
    earlier = known[one.event_id or ""]
    if _says_the_same(one, earlier, asked.body.happened_at is not None):
        return Recorded(disposition=earlier, fresh=False)
    return errors.EventReused("This event_id came with something else before. Send each event under its own id.")


def _says_the_same(one: Disposition, earlier: Disposition, timed: bool) -> bool:
    """A note that was erased since is no difference, nor a time that nobody stated."""
    return (
        (one.assignment_id, one.kind, one.value_minor, one.reason, one.stage)
        == (earlier.assignment_id, earlier.kind, earlier.value_minor, earlier.reason, earlier.stage)
        and (earlier.note is None or one.note == earlier.note)
        and (not timed or one.happened_at == earlier.happened_at)
    )


def read_report(
    told: Told, targets: Mapping[UUID, Target], stages: Mapping[str, DispositionKind], source: Source, now: datetime
) -> Disposition | MarketplaceError:
    """The disposition that a report amounts to, or what is wrong with it. `stages` are by their folded names."""
    body = told.body
    named = [key for key in (told.lead_id, told.assignment_id) if key is not None]
    found = [targets.get(key) for key in named]
    target = found[0] if found and all(one is not None and one == found[0] for one in found) else None
    if target is None:
        return errors.NotFound(NOT_THERE)
    if target.state not in REPORTABLE or target.exposed_at is None:
        return _not_yours_to_work_on(target.state)
    kind = body.kind or stages.get((body.stage or "").casefold())
    happened_at = body.happened_at or now
    if faults := (*_kind_faults(body, kind), *_time_faults(happened_at, target.exposed_at, now)):
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
        happened_at=happened_at,
        recorded_at=now,
        source=source,
        event_id=body.event_id,
    )


def _not_yours_to_work_on(state: AssignmentState) -> MarketplaceError:
    if state is AssignmentState.returned:
        return errors.AlreadyReturned("This lead was given back and refunded; nothing more is recorded about it.")
    if state is AssignmentState.held:
        return errors.NotDelivered("This lead has not been delivered yet. Report on it when it is.")
    return errors.NotDelivered(f"This lead was {state}, not delivered, and not charged; there is nothing to report.")


def content_faults(body: DispositionBody, now: datetime) -> tuple[Fault, ...]:
    """All that is wrong with a report whatever the business's stages and the lead are."""
    by_stage = body.kind is None and body.stage is not None
    happened_at = body.happened_at or now
    return (*(() if by_stage else _kind_faults(body, body.kind)), *_time_faults(happened_at, happened_at, now))


def _kind_faults(body: DispositionBody, kind: DispositionKind | None) -> tuple[Fault, ...]:
    faults = []
    if kind is None and body.stage is None:
        faults.append(
            Fault(pointer="/kind", code=ReportFault.kind_missing, detail="Send a kind, or one of your stages.")
        )
    elif kind is None:
        detail = "Your pipeline has no such stage: map it with PUT /v1/pipeline, or send a kind."
        faults.append(Fault(pointer="/stage", code=ReportFault.stage_unknown, detail=detail))
    if kind is DispositionKind.won and body.value_minor is None:
        detail = "Send what the job is worth, in minor units of the lead's currency."
        faults.append(Fault(pointer="/value_minor", code=ReportFault.value_missing, detail=detail))
    if kind not in (DispositionKind.won, None) and body.value_minor is not None:
        detail = "Only a lead that was won has a value: leave this out."
        faults.append(Fault(pointer="/value_minor", code=Code.value_not_allowed, detail=detail))
    if kind not in (DispositionKind.lost, None) and body.reason is not None:
        detail = "Only a lead that was lost has a reason: leave this out."
        faults.append(Fault(pointer="/reason", code=Code.value_not_allowed, detail=detail))
    return tuple(faults)


def _time_faults(happened_at: datetime, exposed_at: datetime, now: datetime) -> tuple[Fault, ...]:
    if is_later(happened_at, now, CLOCK_TOLERANCE):
        detail = "Send when it happened; check your server's clock."
        return (Fault(pointer="/happened_at", code=ReportFault.happened_in_future, detail=detail),)
    if is_later(exposed_at, happened_at, CLOCK_TOLERANCE):
        detail = "Send when it happened: it cannot be before you were shown the lead."
        return (Fault(pointer="/happened_at", code=ReportFault.happened_before_delivery, detail=detail),)
    return ()


# The business's own words, and its own systems.


def stage_faults(stages: Sequence[str]) -> tuple[Fault, ...]:
    """The stages that a pipeline names twice."""
    names = [name.strip().casefold() for name in stages]
    return tuple(
        Fault(pointer=f"/stages/{at}/stage", code=Code.value_not_allowed, detail="Name each stage once.")
        for at, name in enumerate(names)
        if name in names[:at]
    )


async def save_pipeline(pool: Pool, holder: Holder, stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Replaces all stages; what was recorded under earlier ones keeps its kind. Raises InvalidInput for one twice."""
    now = clock.now()
    if faults := stage_faults([stage.stage for stage in stages]):
        raise errors.InvalidInput(faults)
    async with transaction(pool) as connection:
        await store.replace_stages(connection, holder.business_id, stages)
        subject = ids.encode("biz", holder.business_id)
        await audit.record(connection, now, holder.actor, "pipeline.set", subject, stages=len(stages))
    return tuple(stages)


async def make_hook(pool: Pool, sealer: Sealer, holder: Holder) -> tuple[Hook, str]:
    """A new secret, shown this once; the one before stays good for a day."""
    now, secret = clock.now(), new_secret()
    box = sealer.seal_secret(holder.business_id, secret)
    async with transaction(pool) as connection:
        hook = await store.save_hook(connection, holder.business_id, box, now + SECRET_OVERLAP, now)
        subject = ids.encode("biz", holder.business_id)
        await audit.record(connection, now, holder.actor, "feedback_hook.make", subject)
    return hook, secret


async def end_previous_secret(pool: Pool, holder: Holder) -> Hook:
    """Ends the secret before the present one at once; without one, no error. Raises NotFound for no hook."""
    async with transaction(pool) as connection:
        hook = await store.mark_previous_secret_ended(connection, holder.business_id)
        if hook is None:
            raise errors.NotFound("This business has no secret for reports yet. Make one: POST /v1/feedback-hook.")
        subject = ids.encode("biz", holder.business_id)
        await audit.record(connection, clock.now(), holder.actor, "feedback_hook.end_previous_secret", subject)
    return hook


async def check_signature(
    pool: Pool, sealer: Sealer, business_id: UUID, headers: Mapping[str, str], body: bytes
) -> None:
    """Raises SignatureInvalid, the same for a business without a hook and for one that does not exist."""
    async with session(pool) as connection:
        hook = await store.find_hook(connection, business_id)
    secrets: tuple[str, ...] = ()
    if hook is not None:
        overlaps = hook.previous_until is not None and clock.now() < hook.previous_until
        boxes = (hook.secret, hook.previous_secret if overlaps else None)
        secrets = tuple(sealer.open_secret(business_id, box) for box in boxes if box is not None)
    if not is_signed(secrets, headers, body):
        raise errors.SignatureInvalid(
            "Sign the body as Standard Webhooks 1.0 says, with the secret of POST /v1/feedback-hook, "
            "within five minutes of sending it."
        )
