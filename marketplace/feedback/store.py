"""The statements of feedback as typed functions: one per query, no decision inside."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from billing.returns import ReturnReason
from marketplace.db import Connection, Queries
from marketplace.money import Price
from marketplace.sealing import Sealed
from routing.inquiry import Facts
from routing.lifecycle import AssignmentState
from routing.qualification import Verdict
from routing.subscription import Definition, OpenHours
from routing.vertical import VerticalDefinition

SQL = Queries(__file__)


class DispositionKind(StrEnum):
    """What a business says became of a lead."""

    contacted = "contacted"
    "Somebody was reached."
    qualified = "qualified"
    "The person is one whom the business can serve."
    quoted = "quoted"
    "An offer was made."
    won = "won"
    "The business got the job, at `value_minor`."
    lost = "lost"
    "The business will not get the job."
    unreachable = "unreachable"
    "Tried, and nobody was reached."


class LostReason(StrEnum):
    """Why a business did not get the job."""

    price = "price"
    "Too dear."
    competitor = "competitor"
    "Somebody else got it."
    not_interested = "not_interested"
    "The person does not want it."
    no_need = "no_need"
    "There is nothing to do."
    bad_timing = "bad_timing"
    "Not now."
    duplicate_job = "duplicate_job"
    "The business had this very job already."
    other = "other"
    "Anything else."


class Source(StrEnum):
    """How a disposition came to us."""

    api = "api"
    webhook = "webhook"
    csv = "csv"
    portal = "portal"
    demo = "demo"


class ReturnState(StrEnum):
    """Where a return stands."""

    requested = "requested"
    "On the operator's desk."
    granted = "granted"
    "Refunded."
    denied = "denied"
    "Not refunded."


class CallOutcome(StrEnum):
    """What came of a call that a business made to the person of a lead."""

    no_answer = "no_answer"
    "It rang, and nobody took it."
    voicemail = "voicemail"
    "A machine took it."
    not_in_service = "not_in_service"
    "The number does not exist or does not work."
    somebody_else = "somebody_else"
    "Whoever answered is not the person of the inquiry."
    asked_for_nothing = "asked_for_nothing"
    "The person says that they never asked."
    spoke = "spoke"
    "They spoke about the job."


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call, as evidence for a return; of the number that was dialled, its last two digits, or none."""

    at: datetime
    outcome: CallOutcome
    ending: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a business brings forward with a return: the finding that it says is wrong, and the calls that it made."""

    dimension: str | None = None
    result: str | None = None
    calls: tuple[Call, ...] = ()

    @property
    def claim(self) -> dict[str, str]:
        """The finding and what it should have been; empty without."""
        return {"dimension": self.dimension, "result": self.result} if self.dimension and self.result else {}


class Disposition(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a lead, as it was told once; `value_minor`, of one won, is in the assignment's currency."""

    id: UUID
    assignment_id: UUID
    lead_id: UUID
    kind: DispositionKind
    value_minor: int | None
    reason: LostReason | None
    note: str | None
    stage: str | None
    happened_at: datetime
    recorded_at: datetime
    source: Source
    event_id: str | None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An assignment of which something is told; `exposed_at` is None while nothing has left us."""

    assignment_id: UUID
    lead_id: UUID
    business_id: UUID
    state: AssignmentState
    currency: str
    exposed_at: datetime | None


class ListedLead(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a business's leads: what it is, what it cost, and where it stands by the latest disposition."""

    assignment_id: UUID
    lead_id: UUID
    subscription_id: UUID
    mode: str
    state: AssignmentState
    vertical: str
    country: str | None
    region: str | None
    postal_code: str | None
    price_minor: int
    currency: str
    received_at: datetime
    exposed_at: datetime
    delivered_at: datetime | None
    disposition: DispositionKind | None
    stage: str | None
    value_minor: int | None
    happened_at: datetime | None
    first_touch_at: datetime | None
    first_contact_at: datetime | None
    return_state: ReturnState | None


class Lead(msgspec.Struct, frozen=True, kw_only=True):
    """One lead that a business was shown; never contact data. `hours` are those of its subscription."""

    assignment_id: UUID
    lead_id: UUID
    business_id: UUID
    subscription_id: UUID
    mode: str
    state: AssignmentState
    reason: str | None
    vertical: str
    price_minor: int
    currency: str
    facts: Facts
    verdict: Verdict | None
    hours: OpenHours | None
    submitted_at: datetime
    received_at: datetime
    qualified_at: datetime | None
    awarded_at: datetime
    exposed_at: datetime
    delivered_at: datetime | None
    settled_at: datetime | None
    erased: bool


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A business's own word for where a lead stands, and what it means."""

    stage: str
    kind: DispositionKind


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """The sealed secrets by which a business's systems sign; the one before is good until `previous_until`."""

    business_id: UUID
    secret: bytes
    previous_secret: bytes | None
    previous_until: datetime | None
    made_at: datetime


class Return(msgspec.Struct, frozen=True, kw_only=True):
    """A business's request to give one lead back, and what was found; `judged_by` is "machine" or who it was."""

    id: UUID
    assignment_id: UUID
    lead_id: UUID
    business_id: UUID
    provider_id: UUID
    mode: str
    vertical: str
    price_minor: int
    currency: str
    reason: ReturnReason
    note: str | None
    evidence: Evidence
    state: ReturnState
    requested_at: datetime
    judged_at: datetime | None
    judged_by: str | None
    finding: str | None
    delivered_at: datetime | None


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One assignment and what a return of it is judged by, in the versions by which it was awarded."""

    assignment_id: UUID
    lead_id: UUID
    business_id: UUID
    provider_id: UUID
    mode: str
    state: AssignmentState
    price_minor: int
    payout_minor: int
    currency: str
    exposed_at: datetime | None
    settled_at: datetime | None
    facts: Facts
    has_phone: bool
    order_definition: Definition
    vertical_version: int
    vertical_definition: VerticalDefinition
    verdict: Verdict
    decided_at: datetime
    person_known: bool
    seen_before_at: datetime | None

    @property
    def price(self) -> Price:
        """The quoted price, for money.py."""
        return Price(
            assignment_id=self.assignment_id,
            business_id=self.business_id,
            provider_id=self.provider_id,
            price_minor=self.price_minor,
            payout_minor=self.payout_minor,
            currency=self.currency,
        )


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """How many leads a business was given lately, and of how many of them it wants its money back."""

    delivered: int
    returned: int


def _decoded(row: Any, **json: Any) -> dict[str, Any]:
    """A row's fields, the columns named in `json` decoded from their bytes."""
    fields = dict(row)
    for name, kind in json.items():
        fields[name] = None if fields[name] is None else msgspec.json.decode(fields[name], type=kind)
    return fields


# Leads


async def list_leads(
    connection: Connection, business_id: UUID, mode: str | None, before: UUID | None, limit: int, *,
    state: AssignmentState | None = None, since: datetime | None = None, disposition: str | None = None,
) -> tuple[ListedLead, ...]:  # fmt: skip
    """Newest award first; `disposition` "none" asks for leads of which nothing was told yet."""
    rows = await connection.fetch(SQL["list_leads"], business_id, mode, before, state, since, disposition, limit)
    return tuple(msgspec.convert(dict(row), ListedLead) for row in rows)


async def find_lead(connection: Connection, business_id: UUID, mode: str | None, lead_id: UUID) -> Lead | None:
    row = await connection.fetchrow(SQL["find_lead"], lead_id, business_id, mode)
    return msgspec.convert(_decoded(row, facts=Facts, verdict=Verdict, hours=OpenHours | None), Lead) if row else None


async def read_contact(connection: Connection, lead_id: UUID, business_id: UUID) -> Sealed | None:
    """Through the door that opens only for a committed exposure; None when the person has been erased."""
    row = await connection.fetchrow(SQL["read_contact"], lead_id, business_id)
    if row is None:
        return None
    return Sealed(box=row["sealed"], wrapped=row["wrapped"], master_key_id=row["master_key_id"])


# Dispositions


async def list_dispositions(connection: Connection, assignment_id: UUID) -> tuple[Disposition, ...]:
    """In the order in which they happened."""
    rows = await connection.fetch(SQL["list_dispositions"], assignment_id)
    return tuple(msgspec.convert(dict(row), Disposition) for row in rows)


async def list_targets(
    connection: Connection, business_id: UUID, mode: str | None, leads: Sequence[UUID], assignments: Sequence[UUID]
) -> tuple[Target, ...]:
    rows = await connection.fetch(SQL["list_targets"], business_id, mode, list(leads), list(assignments))
    return tuple(msgspec.convert(dict(row), Target) for row in rows)


async def list_events(connection: Connection, business_id: UUID, events: Sequence[str]) -> dict[str, Disposition]:
    """By event id."""
    rows = await connection.fetch(SQL["list_events"], business_id, list(events))
    return {row["event_id"]: msgspec.convert(dict(row), Disposition) for row in rows}


async def insert_dispositions(
    connection: Connection, business_id: UUID, source: Source, now: datetime, told: Sequence[Disposition],
    file_import_id: UUID | None = None,
) -> set[UUID]:  # fmt: skip
    """The ids of those written; the others' event ids were taken meanwhile."""
    if noted := [one.lead_id for one in told if one.note]:
        await connection.execute(SQL["lock_leads_of_notes"], noted)
    columns = zip(*(
        (one.id, one.assignment_id, one.lead_id, one.kind, one.value_minor, one.reason, one.note, one.stage,
         one.happened_at, one.event_id)
        for one in told
    ), strict=True)  # fmt: skip
    rows = await connection.fetch(
        SQL["insert_dispositions"], business_id, now, source, *(list(each) for each in columns), file_import_id
    )
    return {row["id"] for row in rows}


async def find_money_and_zone(connection: Connection, business_id: UUID) -> tuple[str, str] | None:
    """The wallet's currency and the business's zone, in which a file's amounts and times are meant."""
    row = await connection.fetchrow(SQL["find_money_and_zone"], business_id)
    return (row["currency"], row["zone"]) if row else None


async def undo_dispositions(
    connection: Connection, file_import_id: UUID, business_id: UUID, most: int, now: datetime
) -> int:
    """Undoes some of the dispositions that an import has brought, and returns how many; 0 when none is left."""
    rows = await connection.fetch(SQL["undo_dispositions"], file_import_id, business_id, most, now)
    return len(rows)


# Pipeline and hook


async def list_stages(connection: Connection, business_id: UUID) -> tuple[Stage, ...]:
    rows = await connection.fetch(SQL["list_stages"], business_id)
    return tuple(msgspec.convert(dict(row), Stage) for row in rows)


async def replace_stages(connection: Connection, business_id: UUID, stages: Sequence[Stage]) -> None:
    await connection.execute(SQL["lock_pipeline"], business_id)
    await connection.execute(SQL["delete_stages"], business_id)
    await connection.execute(
        SQL["insert_stages"], business_id, [stage.stage for stage in stages], [stage.kind for stage in stages]
    )


async def find_hook(connection: Connection, business_id: UUID) -> Hook | None:
    row = await connection.fetchrow(SQL["find_hook"], business_id)
    return msgspec.convert(dict(row), Hook) if row else None


async def save_hook(
    connection: Connection, business_id: UUID, secret: bytes, previous_until: datetime, now: datetime
) -> Hook:
    """The secret before, if there is one, stays good until `previous_until`."""
    row = await connection.fetchrow(SQL["save_hook"], business_id, secret, previous_until, now)
    return msgspec.convert(dict(row), Hook)


async def mark_previous_secret_ended(connection: Connection, business_id: UUID) -> Hook | None:
    """Return the hook with its present secret alone; None for a business without one."""
    row = await connection.fetchrow(SQL["mark_previous_secret_ended"], business_id)
    return msgspec.convert(dict(row), Hook) if row else None


# Returns


async def become_returner(connection: Connection) -> None:
    """Takes the role that may give a lead back, until the transaction ends."""
    await connection.execute(SQL["become_returner"])


async def lock_case(connection: Connection, business_id: UUID, mode: str | None, lead_id: UUID) -> Case | None:
    """The locks in their order, the lead and the wallet, and then all as it stands; None for no such lead."""
    assignment_id = await connection.fetchval(SQL["lock_lead"], lead_id, business_id, mode)
    if assignment_id is None:
        return None
    await connection.execute(SQL["lock_wallet"], business_id)
    row = await connection.fetchrow(SQL["find_case"], assignment_id)
    kinds = {
        "facts": Facts, "order_definition": Definition, "vertical_definition": VerticalDefinition, "verdict": Verdict,
    }  # fmt: skip
    return msgspec.convert(_decoded(row, **kinds), Case)


async def count_recent(connection: Connection, business_id: UUID, mode: str, since: datetime) -> Recent:
    return msgspec.convert(dict(await connection.fetchrow(SQL["count_recent"], business_id, mode, since)), Recent)


async def insert_return(connection: Connection, asked: Return) -> None:
    await connection.execute(
        SQL["insert_return"], asked.id, asked.assignment_id, asked.lead_id, asked.business_id, asked.reason, asked.note,
        msgspec.json.encode(asked.evidence), asked.state, asked.requested_at, asked.judged_at, asked.judged_by,
        asked.finding,
    )  # fmt: skip


async def mark_judged(
    connection: Connection, return_id: UUID, state: ReturnState, now: datetime, judged_by: str, finding: str
) -> None:
    await connection.execute(SQL["mark_judged"], return_id, state, now, judged_by, finding)


async def mark_returned(connection: Connection, lead_id: UUID, assignment_id: UUID, reason: ReturnReason) -> None:
    await connection.execute(SQL["mark_returned"], lead_id, assignment_id, reason)


async def find_return(
    connection: Connection, *, return_id: UUID | None = None, assignment_id: UUID | None = None
) -> Return | None:
    """By its own id, or by the assignment, which can have one."""
    row = await connection.fetchrow(SQL["find_return"], return_id, assignment_id)
    return msgspec.convert(_decoded(row, evidence=Evidence), Return) if row else None


async def list_returns(
    connection: Connection, business_id: UUID | None, mode: str | None, state: ReturnState | None,
    before: UUID | None, limit: int,
) -> tuple[Return, ...]:  # fmt: skip
    """Newest first: one business's, or everybody's."""
    rows = await connection.fetch(SQL["list_returns"], business_id, mode, state, before, limit)
    return tuple(msgspec.convert(_decoded(row, evidence=Evidence), Return) for row in rows)
