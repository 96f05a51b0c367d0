"""The bodies that businesses send about their leads, and what they are shown of them."""

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from billing.returns import ReturnReason
from marketplace import ids
from marketplace.faults import WORDS
from marketplace.feedback.store import (
    Call,
    CallOutcome,
    Disposition,
    DispositionKind,
    Lead,
    ListedLead,
    LostReason,
    Return,
    ReturnState,
    Source,
)
from marketplace.hours import Elapsed
from marketplace.imports.amounts import Decimal
from marketplace.imports.times import Order
from marketplace.imports.wire import RowResult
from marketplace.values import Instant, Minor
from routing.inquiry import Facts
from routing.lifecycle import AssignmentState
from routing.qualification import Dimension, Result, Verdict

StageName = Annotated[str, Meta(min_length=1, max_length=60, pattern=WORDS)]
EventId = Annotated[str, Meta(min_length=1, max_length=255, pattern=WORDS)]
Note = Annotated[str, Meta(max_length=1_000)]
MOST_CALLS: Final = 10
Finding = Annotated[str, Meta(min_length=1, max_length=500, pattern=WORDS)]


class DispositionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/leads/{id}/dispositions: a `kind`, or a `stage` that the pipeline maps to one.

    `value_minor` comes with a lead that was won, and only then. Without `happened_at` it has just happened. The same
    `event_id` is recorded once.
    """

    kind: DispositionKind | None = None
    stage: StageName | None = None
    value_minor: Minor | None = None
    reason: LostReason | None = None
    note: Note | None = None
    happened_at: Instant | None = None
    event_id: EventId | None = None


class ReportBody(DispositionBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A disposition that says itself of which lead it is, by the lead's id or the assignment's: webhook and CSV."""

    lead_id: str | None = None
    assignment_id: str | None = None


class StageBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A business's own word for where a lead stands, and the kind of disposition that it means."""

    stage: StageName
    kind: DispositionKind


class Pipeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A business's stages in their order: the body and the answer of /v1/pipeline."""

    stages: Annotated[tuple[StageBody, ...], Meta(max_length=50)]


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which finding of the verdict is wrong, and what it should have been."""

    dimension: Dimension
    result: Result


class CallBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call that was made: when, what came of it, and the number dialled, of which two digits are kept."""

    at: Instant
    outcome: CallOutcome
    number: Annotated[str, Meta(max_length=40)] | None = None


class ReturnBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/leads/{id}/return. `claim` comes with bant_mismatch, a `note` with what a person judges;
    `calls` may come with any reason, and the provider sees them too."""

    reason: ReturnReason
    note: Note | None = None
    claim: Claim | None = None
    calls: Annotated[tuple[CallBody, ...], Meta(max_length=MOST_CALLS)] = ()


class JudgementBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/returns/{id}/judge; both sides read the finding."""

    state: Literal["granted", "denied"]
    finding: Finding


class ShownDisposition(msgspec.Struct, frozen=True, kw_only=True):
    """One disposition as it was told."""

    id: str
    lead_id: str
    assignment_id: str
    kind: DispositionKind
    stage: str | None
    value_minor: int | None
    reason: LostReason | None
    note: str | None
    happened_at: datetime
    recorded_at: datetime
    source: Source
    event_id: str | None


class ShownReturn(msgspec.Struct, frozen=True, kw_only=True):
    """A return and what was found; `judged_by` is "machine" or "operator", and `provider_id` is for operators alone."""

    id: str
    lead_id: str
    assignment_id: str
    business_id: str
    provider_id: str | None
    vertical: str
    mode: str
    price_minor: int
    currency: str
    reason: ReturnReason
    note: str | None
    claim: dict[str, str]
    calls: tuple[Call, ...]
    state: ReturnState
    finding: str | None
    delivered_at: datetime | None
    requested_at: datetime
    judged_at: datetime | None
    judged_by: str | None


class ShownListedLead(msgspec.Struct, frozen=True, kw_only=True):
    """One lead in a list, or one line of a file. `disposition` is the latest by `happened_at`."""

    id: str
    assignment_id: str
    subscription_id: str
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


class LeadClock(msgspec.Struct, frozen=True, kw_only=True):
    """When each step was reached, and how long the business took from being shown the lead to its first try and its
    first contact: in seconds of the wall's clock, and of those in which its subscription was open."""

    submitted_at: datetime
    received_at: datetime
    qualified_at: datetime | None
    awarded_at: datetime
    exposed_at: datetime
    delivered_at: datetime | None
    first_touch_at: datetime | None
    first_contact_at: datetime | None
    to_first_touch: Elapsed | None
    to_first_contact: Elapsed | None


class ShownLead(msgspec.Struct, frozen=True, kw_only=True):
    """One lead with everything that was shipped: the `contact` once it is delivered, unless the person was erased."""

    id: str
    assignment_id: str
    subscription_id: str
    mode: str
    state: AssignmentState
    reason: str | None
    vertical: str
    price_minor: int
    currency: str
    clock: LeadClock
    facts: Facts
    verdict: Verdict | None
    contact: msgspec.Raw | None
    erased: bool
    dispositions: tuple[ShownDisposition, ...]
    returned: ShownReturn | None


class FileMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to read a file of dispositions: as `Mapping` of shared leads; left out, it is decided from the rows."""

    dates: Order | None = None
    decimal: Decimal | None = None
    zone: str | None = None


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file: rows written, rows that had been written before, and rows to mend and send again.

    `state` is `running` while rows wait: ask GET /v1/imports/{id}, or send the same file again. Of the rows that were
    not written, the first thousand are shown; all are under /v1/imports/{id}/rows.
    """

    id: str
    state: str
    rows: int
    position: int
    recorded: int
    repeated: int
    rejected_count: int
    rejected: tuple[RowResult, ...]


class DispositionPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What an import would do: nothing was kept. `open` names what the rows leave open and the mapping must say."""

    mapping: FileMapping
    header: tuple[str, ...]
    rows: int
    good: int
    repeated: int
    rejected_count: int
    open: tuple[str, ...]
    rejected: tuple[RowResult, ...]


class HookSecret(msgspec.Struct, frozen=True, kw_only=True):
    """The one answer that holds the secret by which the business's systems sign; the one before is good for a day."""

    path: str
    secret: str
    previous_secret_until: datetime | None


class ShownHook(msgspec.Struct, frozen=True, kw_only=True):
    """Where reports are sent, and how long the secret before the present one is good: null when it has ended."""

    path: str
    previous_secret_until: datetime | None


def show_disposition(told: Disposition) -> ShownDisposition:
    """With ids as people see them."""
    return ShownDisposition(
        id=ids.encode("dsp", told.id),
        lead_id=ids.encode("lead", told.lead_id),
        assignment_id=ids.encode("asg", told.assignment_id),
        kind=told.kind,
        stage=told.stage,
        value_minor=told.value_minor,
        reason=told.reason,
        note=told.note,
        happened_at=told.happened_at,
        recorded_at=told.recorded_at,
        source=told.source,
        event_id=told.event_id,
    )


def show_return(asked: Return, *, to_operator: bool) -> ShownReturn:
    """A business learns neither the provider nor which operator judged."""
    by_person = asked.judged_by is not None and asked.judged_by != "machine"
    return ShownReturn(
        id=return_id(asked),
        lead_id=ids.encode("lead", asked.lead_id),
        assignment_id=ids.encode("asg", asked.assignment_id),
        business_id=ids.encode("biz", asked.business_id),
        provider_id=ids.encode("prov", asked.provider_id) if to_operator else None,
        vertical=asked.vertical,
        mode=asked.mode,
        price_minor=asked.price_minor,
        currency=asked.currency,
        reason=asked.reason,
        note=asked.note,
        claim=asked.evidence.claim,
        calls=asked.evidence.calls,
        state=asked.state,
        finding=asked.finding,
        delivered_at=asked.delivered_at,
        requested_at=asked.requested_at,
        judged_at=asked.judged_at,
        judged_by="operator" if by_person and not to_operator else asked.judged_by,
    )


def return_id(asked: Return) -> str:
    """A return's id as people see it."""
    return ids.encode("ret", asked.id)


def show_listed(row: ListedLead) -> ShownListedLead:
    """With ids as people see them."""
    return ShownListedLead(
        id=ids.encode("lead", row.lead_id),
        assignment_id=assignment_id(row),
        subscription_id=ids.encode("sub", row.subscription_id),
        mode=row.mode,
        state=row.state,
        vertical=row.vertical,
        country=row.country,
        region=row.region,
        postal_code=row.postal_code,
        price_minor=row.price_minor,
        currency=row.currency,
        received_at=row.received_at,
        exposed_at=row.exposed_at,
        delivered_at=row.delivered_at,
        disposition=row.disposition,
        stage=row.stage,
        value_minor=row.value_minor,
        happened_at=row.happened_at,
        first_touch_at=row.first_touch_at,
        first_contact_at=row.first_contact_at,
        return_state=row.return_state,
    )


def assignment_id(row: ListedLead | Lead) -> str:
    """An assignment's id as people see it."""
    return ids.encode("asg", row.assignment_id)


def lead_ids(body: ReportBody) -> tuple[UUID | None, UUID | None]:
    """The lead and the assignment that a report names; what is no id names nothing."""
    lead = None if body.lead_id is None else ids.decode("lead", body.lead_id)
    assignment = None if body.assignment_id is None else ids.decode("asg", body.assignment_id)
    return lead, assignment
