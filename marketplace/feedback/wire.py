"""Request and answer bodies of the API for a business's leads, reports and returns."""

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from billing.returns import ReturnReason
from marketplace.feedback.stages_store import StageColour
from marketplace.feedback.store import (
    BusinessLead,
    Call,
    CallOutcome,
    Disposition,
    DispositionKind,
    DispositionSource,
    ListedLead,
    LostReason,
    ReturnRequest,
    ReturnState,
)
from marketplace.imports.amounts import Decimal
from marketplace.imports.times import Order
from marketplace.imports.wire import RowRefusal
from marketplace.rules.hours import Elapsed
from marketplace.runtime import ids
from marketplace.text.faults import WORDS
from marketplace.text.values import Instant, Minor
from routing.inquiry import Facts
from routing.lifecycle import AssignmentState
from routing.qualification import Dimension, DimensionResult, Verdict

StageName = Annotated[str, Meta(min_length=1, max_length=60, pattern=WORDS)]
EventId = Annotated[str, Meta(min_length=1, max_length=255, pattern=WORDS)]
Note = Annotated[str, Meta(max_length=1_000)]
MOST_CALLS: Final = 10
Finding = Annotated[str, Meta(min_length=1, max_length=500, pattern=WORDS)]


class DispositionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/leads/{id}/dispositions: a `kind`, or a `stage` that the pipeline maps to one.

    `value_minor` is required for a lead that was won, `starts_at` for an appointment, and neither is allowed otherwise.
    `happened_at` is the present time by default. An `event_id` is recorded only once.
    """

    kind: DispositionKind | None = None
    stage: StageName | None = None
    value_minor: Minor | None = None
    reason: LostReason | None = None
    note: Note | None = None
    starts_at: Instant | None = None
    happened_at: Instant | None = None
    event_id: EventId | None = None


class ReportBody(DispositionBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A disposition with the id of its lead or assignment, as a webhook or a row of a CSV file sends it."""

    lead_id: str | None = None
    assignment_id: str | None = None


class StageBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stage of a business's own pipeline, and the kind of disposition that it means.

    The `id` of a present stage renames it; without one, the stage is the present one of this name, or a new one.
    `names` are further names that mean it. A lead counts as stuck in it after `limit_days`. `colour` is that of its
    column on the board.
    """

    stage: StageName
    kind: DispositionKind
    id: str | None = None
    limit_days: Annotated[int, Meta(ge=1, le=365)] | None = None
    colour: StageColour | None = None
    names: Annotated[tuple[StageName, ...], Meta(max_length=50)] = ()


class PipelineBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /v1/pipeline: all stages of the business in their order."""

    stages: Annotated[tuple[StageBody, ...], Meta(max_length=50)]


class StageView(msgspec.Struct, frozen=True, kw_only=True):
    """A stage in use. `names` are all names that mean it, in lower case: its own, former ones and mapped ones."""

    id: str
    stage: str
    kind: DispositionKind
    limit_days: int | None
    colour: StageColour | None
    names: tuple[str, ...]


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """Stages of a business in their order."""

    stages: tuple[StageView, ...]


class ReturnClaim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A disputed finding of the verdict, and the result that it should have had."""

    dimension: Dimension
    result: DimensionResult


class CallBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call to the person: its time, its outcome, and the number dialled, of which only two digits are stored."""

    at: Instant
    outcome: CallOutcome
    number: Annotated[str, Meta(max_length=40)] | None = None


class ReturnBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/leads/{id}/return.

    The reason bant_mismatch needs a `claim`; a reason that an operator judges needs a `note`. `calls` may come with
    any reason, and the provider sees them as well.
    """

    reason: ReturnReason
    note: Note | None = None
    claim: ReturnClaim | None = None
    calls: Annotated[tuple[CallBody, ...], Meta(max_length=MOST_CALLS)] = ()


class JudgementBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/returns/{id}/judge. Business and provider read the finding."""

    state: Literal["granted", "denied"]
    finding: Finding


class DispositionView(msgspec.Struct, frozen=True, kw_only=True):
    """One disposition."""

    id: str
    lead_id: str
    assignment_id: str
    kind: DispositionKind
    stage: str | None
    value_minor: int | None
    reason: LostReason | None
    note: str | None
    starts_at: datetime | None
    happened_at: datetime
    recorded_at: datetime
    source: DispositionSource
    event_id: str | None


class ReturnView(msgspec.Struct, frozen=True, kw_only=True):
    """A return with its judgement. `judged_by` is "machine" or "operator"; only operators see `provider_id`."""

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


class LeadSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One lead in a list, or one line of a CSV file. `disposition` is the latest by `happened_at`.

    `starts_at` is the time of an appointment, if that is the latest.
    """

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
    starts_at: datetime | None


class LeadClock(msgspec.Struct, frozen=True, kw_only=True):
    """Time of each step of a lead.

    `to_first_touch` and `to_first_contact` are the durations from the exposure to the business's first attempt and
    first contact, in seconds of elapsed time and in seconds of the subscription's open hours.
    """

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


class LeadView(msgspec.Struct, frozen=True, kw_only=True):
    """One lead with everything that was delivered. `contact` is null until delivery, and after an erasure."""

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
    dispositions: tuple[DispositionView, ...]
    returned: ReturnView | None


class DispositionMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Format of dates, decimals and times in a file of dispositions; fields left out are decided from the rows."""

    dates: Order | None = None
    decimal: Decimal | None = None
    zone: str | None = None


class DispositionImport(msgspec.Struct, frozen=True, kw_only=True):
    """Result of an import: the numbers of recorded, repeated and rejected rows.

    `state` is `running` while rows wait: call GET /v1/imports/{id}, or send the same file again. `rejected` has the
    first thousand rejected rows; all of them are at /v1/imports/{id}/rows.
    """

    id: str
    state: str
    rows: int
    position: int
    recorded: int
    repeated: int
    rejected_count: int
    rejected: tuple[RowRefusal, ...]


class DispositionPreview(msgspec.Struct, frozen=True, kw_only=True):
    """Result that an import would have; nothing was stored. `open` names what the mapping must state."""

    mapping: DispositionMapping
    header: tuple[str, ...]
    rows: int
    good: int
    repeated: int
    rejected_count: int
    open: tuple[str, ...]
    rejected: tuple[RowRefusal, ...]


class HookSecret(msgspec.Struct, frozen=True, kw_only=True):
    """The secret for signed reports, which only this answer holds. The previous one stays valid for a day."""

    path: str
    secret: str
    previous_secret_until: datetime | None


class HookView(msgspec.Struct, frozen=True, kw_only=True):
    """Path to which signed reports are sent, and the end of the previous secret; null if there is none."""

    path: str
    previous_secret_until: datetime | None


def show_disposition(disposition: Disposition) -> DispositionView:
    """Return a disposition in the form that the API returns."""
    return DispositionView(
        id=ids.encode("dsp", disposition.id),
        lead_id=ids.encode("lead", disposition.lead_id),
        assignment_id=ids.encode("asg", disposition.assignment_id),
        kind=disposition.kind,
        stage=disposition.stage,
        value_minor=disposition.value_minor,
        reason=disposition.reason,
        note=disposition.note,
        starts_at=disposition.starts_at,
        happened_at=disposition.happened_at,
        recorded_at=disposition.recorded_at,
        source=disposition.source,
        event_id=disposition.event_id,
    )


def show_return(return_request: ReturnRequest, *, to_operator: bool) -> ReturnView:
    """Return a return in the form that the API returns.

    A business learns neither the provider nor which operator judged.
    """
    judged_by = return_request.judged_by
    if judged_by not in (None, "machine") and not to_operator:
        judged_by = "operator"
    provider_id = ids.encode("prov", return_request.provider_id) if to_operator else None
    return ReturnView(
        id=return_id(return_request),
        lead_id=ids.encode("lead", return_request.lead_id),
        assignment_id=ids.encode("asg", return_request.assignment_id),
        business_id=ids.encode("biz", return_request.business_id),
        provider_id=provider_id,
        vertical=return_request.vertical,
        mode=return_request.mode,
        price_minor=return_request.price_minor,
        currency=return_request.currency,
        reason=return_request.reason,
        note=return_request.note,
        claim=return_request.evidence.claim,
        calls=return_request.evidence.calls,
        state=return_request.state,
        finding=return_request.finding,
        delivered_at=return_request.delivered_at,
        requested_at=return_request.requested_at,
        judged_at=return_request.judged_at,
        judged_by=judged_by,
    )


def return_id(return_request: ReturnRequest) -> str:
    """Return the public id of a return."""
    return ids.encode("ret", return_request.id)


def show_listed(row: ListedLead) -> LeadSummary:
    """Return a lead of a list in the form that the API returns."""
    return LeadSummary(
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
        starts_at=row.starts_at,
    )


def assignment_id(row: ListedLead | BusinessLead) -> str:
    """Return the public id of a lead's assignment."""
    return ids.encode("asg", row.assignment_id)


def lead_ids(body: ReportBody) -> tuple[UUID | None, UUID | None]:
    """Return the ids of the lead and the assignment that a report names; None for an absent or malformed id."""
    lead = None if body.lead_id is None else ids.decode("lead", body.lead_id)
    assignment = None if body.assignment_id is None else ids.decode("asg", body.assignment_id)
    return lead, assignment
