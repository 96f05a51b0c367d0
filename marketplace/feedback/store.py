"""The queries of feedback as typed functions: one per query, no decision inside."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from billing.returns import ReturnReason
from marketplace.database.db import Connection, Queries, fetch_rows, find_row, load_row
from marketplace.ledger.money import AssignmentPrice
from marketplace.runtime import clock
from marketplace.security.sealing import SealedContact
from routing.inquiry import Facts
from routing.lifecycle import AssignmentState
from routing.qualification import Verdict
from routing.subscription import OpenHours, SubscriptionDefinition
from routing.vertical import VerticalDefinition

SQL = Queries(__file__)

AWARD_TO_DELIVERY: Final = timedelta(days=7)
"More than the longest time between an award and its delivery, which is a hold and the day in which evidence may come."


class DispositionKind(StrEnum):
    """Kinds of a disposition, which a business reports about a lead."""

    contacted = "contacted"
    "The business reached somebody."
    qualified = "qualified"
    "The business can serve the person."
    appointment = "appointment"
    "The business and the person agreed on a time, `starts_at`."
    quoted = "quoted"
    "The business made an offer."
    won = "won"
    "The business got the job, worth `value_minor`."
    lost = "lost"
    "The business will not get the job."
    unreachable = "unreachable"
    "The business tried and reached nobody."


class LostReason(StrEnum):
    """Reasons why a business did not get the job."""

    price = "price"
    "The price was too high."
    competitor = "competitor"
    "Another company got the job."
    not_interested = "not_interested"
    "The person does not want the job done."
    no_need = "no_need"
    "There is no work to do."
    bad_timing = "bad_timing"
    "The person does not want it now."
    duplicate_job = "duplicate_job"
    "The business already had this job."
    other = "other"
    "Any other reason."


class DispositionSource(StrEnum):
    """Channels by which a disposition was reported."""

    api = "api"
    webhook = "webhook"
    csv = "csv"
    portal = "portal"
    demo = "demo"


class ReturnState(StrEnum):
    """States of a return."""

    requested = "requested"
    "It waits for an operator."
    granted = "granted"
    "The lead was refunded."
    denied = "denied"
    "The lead was not refunded."


class CallOutcome(StrEnum):
    """Outcomes of a call that a business made to the person of a lead."""

    no_answer = "no_answer"
    "Nobody answered."
    voicemail = "voicemail"
    "Voicemail answered."
    not_in_service = "not_in_service"
    "The number does not exist or does not work."
    somebody_else = "somebody_else"
    "Somebody answered who is not the person of the inquiry."
    asked_for_nothing = "asked_for_nothing"
    "The person says that they made no inquiry."
    spoke = "spoke"
    "The business spoke with the person about the job."


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call, as evidence for a return. `ending` is the last two digits of the number dialled, or empty."""

    at: datetime
    outcome: CallOutcome
    ending: str = ""


class ReturnEvidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Evidence for a return: the finding that the business says is wrong, and the calls that it made."""

    dimension: str | None = None
    result: str | None = None
    calls: tuple[Call, ...] = ()

    @property
    def claim(self) -> dict[str, str]:
        """The disputed finding and the result that it should have had; empty without a claim."""
        return {"dimension": self.dimension, "result": self.result} if self.dimension and self.result else {}


class Disposition(msgspec.Struct, frozen=True, kw_only=True):
    """One report of what became of a lead. `value_minor`, for a lead that was won, is in the assignment's currency.

    `starts_at` is the time of an appointment. `stage_id` is the stage that the word `stage` meant, if it meant one.
    """

    id: UUID
    assignment_id: UUID
    lead_id: UUID
    kind: DispositionKind
    value_minor: int | None
    reason: LostReason | None
    note: str | None
    stage: str | None
    stage_id: UUID | None
    starts_at: datetime | None
    happened_at: datetime
    recorded_at: datetime
    source: DispositionSource
    event_id: str | None


class DispositionTarget(msgspec.Struct, frozen=True, kw_only=True):
    """An assignment that a report is about; `exposed_at` is None until it is exposed."""

    assignment_id: UUID
    lead_id: UUID
    business_id: UUID
    state: AssignmentState
    currency: str
    exposed_at: datetime | None


class ListedLead(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a business's list of leads, with its price and its latest disposition."""

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
    starts_at: datetime | None
    happened_at: datetime | None
    first_touch_at: datetime | None
    first_contact_at: datetime | None
    return_state: ReturnState | None


class BusinessLead(msgspec.Struct, frozen=True, kw_only=True):
    """One lead that a business was shown, without contact data. `hours` are the open hours of its subscription."""

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


class FeedbackHook(msgspec.Struct, frozen=True, kw_only=True):
    """Sealed secrets with which a business's systems sign reports; the previous one is valid until `previous_until`."""

    business_id: UUID
    secret: bytes
    previous_secret: bytes | None
    previous_until: datetime | None
    made_at: datetime


class ReturnRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to return one lead, and its judgement. `judged_by` is "machine" or the operator's id."""

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
    evidence: ReturnEvidence
    state: ReturnState
    requested_at: datetime
    judged_at: datetime | None
    judged_by: str | None
    finding: str | None
    delivered_at: datetime | None


class ReturnCase(msgspec.Struct, frozen=True, kw_only=True):
    """One assignment with everything that a return is judged by, in the versions by which it was awarded."""

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
    order_definition: SubscriptionDefinition
    vertical_version: int
    vertical_definition: VerticalDefinition
    verdict: Verdict
    decided_at: datetime
    person_known: bool
    seen_before_at: datetime | None

    @property
    def price(self) -> AssignmentPrice:
        """The quoted price and payout of this assignment, as `marketplace.ledger.money` takes them."""
        return AssignmentPrice(
            assignment_id=self.assignment_id,
            business_id=self.business_id,
            provider_id=self.provider_id,
            price_minor=self.price_minor,
            payout_minor=self.payout_minor,
            currency=self.currency,
        )


class RecentReturns(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of leads that a business was delivered lately, and of those that it returned or asks to return."""

    delivered: int
    returned: int


# Leads


async def list_leads(
    connection: Connection,
    business_id: UUID,
    mode: str | None,
    before: UUID | None,
    limit: int,
    *,
    state: AssignmentState | None = None,
    since: datetime | None = None,
    disposition: str | None = None,
    leads: Sequence[UUID] | None = None,
) -> tuple[ListedLead, ...]:
    """Return leads that the business was shown, newest award first, after the assignment `before`.

    `disposition` filters by the latest one; "none" selects leads without any. `leads` selects leads by their ids.
    """
    filters = (state, since, disposition)
    return await fetch_rows(
        connection, SQL["list_leads"], ListedLead, business_id, mode, before, *filters, limit, leads
    )


async def find_lead(connection: Connection, business_id: UUID, mode: str | None, lead_id: UUID) -> BusinessLead | None:
    """Return a lead that the business was shown, without its contact, or None."""
    return await find_row(connection, SQL["find_lead"], BusinessLead, lead_id, business_id, mode)


async def read_contact(connection: Connection, lead_id: UUID, business_id: UUID) -> SealedContact | None:
    """Return the sealed contact, which the database yields only for a committed exposure to this business.

    None if the person has been erased.
    """
    return await find_row(connection, SQL["read_contact"], SealedContact, lead_id, business_id)


# Dispositions


async def list_dispositions(connection: Connection, assignment_id: UUID) -> tuple[Disposition, ...]:
    """Return the dispositions of an assignment by the time at which they happened; undone ones are left out."""
    return await fetch_rows(connection, SQL["list_dispositions"], Disposition, assignment_id)


async def list_targets(
    connection: Connection, business_id: UUID, mode: str | None, leads: Sequence[UUID], assignments: Sequence[UUID]
) -> tuple[DispositionTarget, ...]:
    """Return the business's assignments that have one of the ids, or whose lead has; released ones are left out."""
    return await fetch_rows(
        connection, SQL["list_targets"], DispositionTarget, business_id, mode, list(leads), list(assignments)
    )


async def list_events(connection: Connection, business_id: UUID, events: Sequence[str]) -> dict[str, Disposition]:
    """Return the dispositions that the business reported under these event ids, by event id."""
    dispositions = await fetch_rows(connection, SQL["list_events"], Disposition, business_id, list(events))
    return {disposition.event_id: disposition for disposition in dispositions if disposition.event_id is not None}


async def insert_dispositions(
    connection: Connection,
    business_id: UUID,
    source: DispositionSource,
    now: datetime,
    dispositions: Sequence[Disposition],
    file_import_id: UUID | None = None,
) -> set[UUID]:
    """Insert the dispositions and return the ids of those inserted; the event ids of the others are already in use.

    A note about an erased person is not stored.
    """
    if lead_ids := [disposition.lead_id for disposition in dispositions if disposition.note]:
        await connection.execute(SQL["lock_leads_of_notes"], lead_ids)
    columns = zip(*map(_disposition_columns, dispositions), strict=True)
    rows = await connection.fetch(
        SQL["insert_dispositions"], business_id, now, source, file_import_id, *map(list, columns)
    )
    return {row["id"] for row in rows}


def _disposition_columns(disposition: Disposition) -> tuple[object, ...]:
    """Return the values $5 to $16 of `insert_dispositions`, in their order."""
    return (
        disposition.id,
        disposition.assignment_id,
        disposition.lead_id,
        disposition.kind,
        disposition.value_minor,
        disposition.reason,
        disposition.note,
        disposition.stage,
        disposition.happened_at,
        disposition.event_id,
        disposition.stage_id,
        disposition.starts_at,
    )


async def find_money_and_zone(connection: Connection, business_id: UUID) -> tuple[str, str] | None:
    """Return the wallet's currency and the business's zone, in which a file's amounts and times are read."""
    row = await connection.fetchrow(SQL["find_money_and_zone"], business_id)
    return (row["currency"], row["zone"]) if row else None


async def undo_dispositions(
    connection: Connection, file_import_id: UUID, business_id: UUID, most: int, now: datetime
) -> int:
    """Undo up to `most` dispositions of an import, and return their number; 0 if none is left."""
    rows = await connection.fetch(SQL["undo_dispositions"], file_import_id, business_id, most, now)
    return len(rows)


async def undo_move(
    connection: Connection, business_id: UUID, mode: str | None, disposition_id: UUID, since: datetime, now: datetime
) -> Disposition | None:
    """Mark the last disposition of a lead as undone, and return it; None if another one is last, or it is too old."""
    return await find_row(connection, SQL["undo_move"], Disposition, business_id, disposition_id, mode, since, now)


async def insert_changes(
    connection: Connection, business_id: UUID, disposition_ids: Sequence[UUID], now: datetime, *, undone: bool = False
) -> None:
    """List the changes of stage by these dispositions, and have them sent if the business has an endpoint for them.

    With `undone`, they are the changes back that follow from undoing the dispositions.
    """
    await connection.execute(SQL["lock_changes"], business_id)
    change_ids = [clock.new_id() for _ in disposition_ids]
    await connection.execute(SQL["insert_changes"], business_id, change_ids, list(disposition_ids), undone, now)


# Hook


async def find_hook(connection: Connection, business_id: UUID) -> FeedbackHook | None:
    """Return the business's secrets for signed reports, or None if it has none."""
    return await find_row(connection, SQL["find_hook"], FeedbackHook, business_id)


async def save_hook(
    connection: Connection, business_id: UUID, secret: bytes, previous_until: datetime, now: datetime
) -> FeedbackHook:
    """Store a new secret. The previous one, if there is one, stays valid until `previous_until`."""
    return await load_row(connection, SQL["save_hook"], FeedbackHook, business_id, secret, previous_until, now)


async def mark_previous_secret_ended(connection: Connection, business_id: UUID) -> FeedbackHook | None:
    """Delete the previous secret, and return the hook; None for a business without one."""
    return await find_row(connection, SQL["mark_previous_secret_ended"], FeedbackHook, business_id)


# Returns


async def become_returner(connection: Connection) -> None:
    """Take the role that may return leads, until the transaction ends."""
    await connection.execute(SQL["become_returner"])


async def lock_case(connection: Connection, business_id: UUID, mode: str | None, lead_id: UUID) -> ReturnCase | None:
    """Lock the lead and then the wallet, and return what a return is judged by; None if there is no such lead."""
    assignment_id = await connection.fetchval(SQL["lock_lead"], lead_id, business_id, mode)
    if assignment_id is None:
        return None
    await connection.execute(SQL["lock_wallet"], business_id)
    return await load_row(connection, SQL["find_case"], ReturnCase, assignment_id)


async def count_recent(connection: Connection, business_id: UUID, mode: str, since: datetime) -> RecentReturns:
    """Count the leads delivered to the business since a time, and the returns of them that were not denied."""
    first = find_first_delivered(since)
    return await load_row(connection, SQL["count_recent"], RecentReturns, business_id, mode, since, first)


def find_first_delivered(since: datetime) -> UUID:
    """Return a lower bound of the ids of assignments delivered since `since`."""
    return clock.id_bound(since - AWARD_TO_DELIVERY)


async def insert_return(connection: Connection, new: ReturnRequest) -> None:
    """Insert a return; a note about an erased person is not stored."""
    await connection.execute(
        SQL["insert_return"],
        new.id,
        new.assignment_id,
        new.lead_id,
        new.business_id,
        new.reason,
        new.note,
        msgspec.json.encode(new.evidence),
        new.state,
        new.requested_at,
        new.judged_at,
        new.judged_by,
        new.finding,
    )


async def mark_judged(
    connection: Connection, return_id: UUID, state: ReturnState, now: datetime, judged_by: str, finding: str
) -> None:
    """Store the judgement of a return."""
    await connection.execute(SQL["mark_judged"], return_id, state, now, judged_by, finding)


async def mark_returned(connection: Connection, lead_id: UUID, assignment_id: UUID, reason: ReturnReason) -> None:
    """Move lead and assignment to `returned`."""
    await connection.execute(SQL["mark_returned"], lead_id, assignment_id, reason)


async def find_return(
    connection: Connection, *, return_id: UUID | None = None, assignment_id: UUID | None = None
) -> ReturnRequest | None:
    """Return a return by its own id, or by its assignment, which can have only one."""
    return await find_row(connection, SQL["find_return"], ReturnRequest, return_id, assignment_id)


async def list_returns(
    connection: Connection,
    business_id: UUID | None,
    mode: str | None,
    state: ReturnState | None,
    before: UUID | None,
    limit: int,
) -> tuple[ReturnRequest, ...]:
    """Return the returns of one business, or of all if it is None, newest first, after the return `before`."""
    return await fetch_rows(connection, SQL["list_returns"], ReturnRequest, business_id, mode, state, before, limit)
