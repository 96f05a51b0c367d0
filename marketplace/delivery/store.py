"""The queries of delivery as typed functions: one per query, no decision inside."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, find_row, load_record
from marketplace.database.journal import JournalExposure
from marketplace.ledger import money
from marketplace.ledger.money import AssignmentPrice, PayoutShare
from marketplace.mail.transport import MailAttempt
from marketplace.mapping.shapes import RequestMapping
from marketplace.runtime import clock
from marketplace.security.sealing import SealedContact
from marketplace.text.answers import mask_answer, mask_private
from marketplace.webhook.transport import Attempt, ConnectionInfo
from routing.certificate import CertificateKind, CertificateState
from routing.contract import Contract
from routing.delivery import AnswerReceived, AttemptOutcome, Breaker, Classification, EndpointKind, MailAnswer
from routing.inquiry import Facts, NeedField
from routing.lifecycle import AssignmentState
from routing.quota import OVERDUE, QuotaCounts, QuotaTerms, Suspension

SQL = Queries(__file__)

OF_A_WALK: Final = (SQL["find_delivery"], SQL["expose"], SQL["settle_accepted"])
"Statements that every delivered lead needs; a worker prepares them when a connection opens."


LONGEST_TYPE: Final = 100
"Characters of a media type that an alarm shows."


class AlarmKind(StrEnum):
    """Kind of an alarm about the answers of an endpoint."""

    not_understood = "not_understood"
    "The contract does not cover the answer: nobody was charged."
    new_shape = "new_shape"
    "The answer was accepted, and has a shape that no accepted answer of this endpoint had before."


class AssignmentRow(msgspec.Struct, frozen=True, kw_only=True):
    """Columns of one assignment that are needed to end it."""

    assignment_id: UUID
    lead_id: UUID
    business_id: UUID
    subscription_id: UUID
    provider_id: UUID
    mode: str
    price_minor: int
    payout_minor: int
    currency: str
    evidence_until: datetime | None
    read_at: datetime
    "Time of the read, by the database's clock."

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


class DeliveredCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate of consent as it is sent with the lead. The certificate itself is part of the contact.

    `contact_corrected`: the phone number or the address was corrected after its service had compared it.
    """

    kind: CertificateKind
    state: CertificateState
    settled_at: datetime | None = None
    reason: str | None = None
    expires_at: datetime | None = None
    contact_corrected: bool = False


class DeliveryCase(AssignmentRow, frozen=True, kw_only=True):
    """An assignment with its endpoint and everything that is sent except the contact.

    `url` is None without a webhook; `persons` are keyed hashes of the person's phone and e-mail address.
    `exposure_position` is the number of the lead's exposure in the order of all exposures, None before it. `revision`
    is that of the lead: 0 if no touch, correction or other inquiry followed its own. `contract` is None for the
    contract that all endpoints begin with; `answer_shapes` are the shapes of accepted answers, and `alarmed` is whether
    an alarm about answers that are not understood is open. `mapping` is None for our own webhook, and `credentials` are
    sealed.
    """

    subscription_version: int
    endpoint_id: UUID
    vertical_id: UUID
    state: AssignmentState
    attempts: int
    awarded_at: datetime
    hold_until: datetime
    exposed_at: datetime | None
    endpoint_kind: EndpointKind
    url: str | None
    endpoint_state: str
    secret: bytes | None
    previous_secret: bytes | None
    previous_until: datetime | None
    breaker: Breaker
    contract: Contract | None
    answer_shapes: tuple[str, ...]
    alarmed: bool
    mapping: RequestMapping | None
    credentials: bytes | None
    facts: Facts
    revision: int
    verdict: msgspec.Raw
    persons: tuple[bytes, ...]
    protected_until: datetime | None
    withdrawn: bool
    exposure_position: int | None
    certificates: tuple[DeliveredCertificate, ...] | None = None


class MailMode(StrEnum):
    """Content of the messages that an endpoint of kind email gets."""

    link = "link"
    """A link to the lead in the portal, and no contact data."""
    full = "full"
    """The contact."""


class MailTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Recipient of the messages of an endpoint, and the words that they need besides the case."""

    address: str
    mode: MailMode
    with_adf: bool
    business_name: str
    vertical_name: str
    needs: dict[str, NeedField]


class CommittedExposure(msgspec.Struct, frozen=True, kw_only=True):
    """A committed exposure: its number in the order of all exposures, and the lead's revision at that time or later.

    The position is None for a concurrent call that waited for the lock while another call inserted the exposure.
    """

    position: int | None
    revision: int


async def find_delivery(connection: Connection, assignment_id: UUID) -> DeliveryCase | None:
    """Return all that one attempt needs except the contact, or None if there is no such assignment."""
    return await find_row(connection, SQL["find_delivery"], DeliveryCase, assignment_id)


async def find_mail_target(connection: Connection, assignment_id: UUID) -> MailTarget | None:
    """Return the recipient of an assignment's message, or None if its endpoint is not of kind email."""
    return await find_row(connection, SQL["find_mail_target"], MailTarget, assignment_id)


async def find_claim(connection: Connection, assignment_id: UUID) -> AssignmentRow | None:
    """Return the columns that ending the assignment needs, or None if there is no such assignment."""
    return await find_row(connection, SQL["find_claim"], AssignmentRow, assignment_id)


async def lock_delivery(connection: Connection, case: AssignmentRow) -> AssignmentState:
    """Lock the lead and its assignment, and return the assignment's state."""
    return AssignmentState(await connection.fetchval(SQL["lock_delivery"], case.lead_id, case.assignment_id))


async def expose(
    connection: Connection,
    case: DeliveryCase,
    url_sha256: bytes,
    to: ConnectionInfo,
    now: datetime,
    evidence_until: datetime,
    channel: str = "push",
) -> CommittedExposure | None:
    """Expose the lead to this business, or return the exposure of an earlier attempt.

    `channel` is "push" or "email"; `url_sha256` is of the URL, or of `mailto:` and the address. Return None
    if the assignment is neither held nor exposed any more, or if the person has withdrawn.
    """
    return await find_row(
        connection,
        SQL["expose"],
        CommittedExposure,
        case.lead_id,
        case.assignment_id,
        case.business_id,
        case.endpoint_id,
        url_sha256,
        to.name,
        to.tls_fingerprint,
        case.attempts,
        now,
        evidence_until,
        channel,
    )


def exposure_of(
    case: DeliveryCase,
    channel: str,
    url_sha256: bytes,
    address: str,
    tls_sha256: bytes | None,
    exposed_at: datetime,
    position: int | None,
) -> JournalExposure:
    """Return the exposure in the form that the journal stores.

    `channel` is "push", "feed", "portal" or "email"; `address` names the server or the reader that received the lead.
    """
    return JournalExposure(
        lead_id=case.lead_id,
        assignment_id=case.assignment_id,
        business_id=case.business_id,
        subscription_id=case.subscription_id,
        subscription_version=case.subscription_version,
        endpoint_id=case.endpoint_id,
        provider_id=case.provider_id,
        vertical_id=case.vertical_id,
        mode=case.mode,
        channel=channel,
        price_minor=case.price_minor,
        payout_minor=case.payout_minor,
        currency=case.currency,
        awarded_at=case.awarded_at,
        exposed_at=exposed_at,
        position=position,
        attempt_no=case.attempts,
        url_sha256=url_sha256,
        address=address,
        tls_sha256=tls_sha256,
        persons=case.persons,
        protected_until=case.protected_until,
    )


async def read_contact(connection: Connection, lead_id: UUID, business_id: UUID) -> SealedContact | None:
    """Return the sealed contact, which the database yields only for a committed exposure to this business.

    None if the person has been erased.
    """
    return await find_row(connection, SQL["read_contact"], SealedContact, lead_id, business_id)


class RecordedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """Columns of an attempt, in the order of the arguments $1 to $20 of `settle_accepted` and `insert_attempt`."""

    id: UUID
    assignment_id: UUID
    lead_id: UUID
    business_id: UUID
    endpoint_id: UUID
    attempt_no: int
    started_at: datetime
    outcome: AttemptOutcome
    reason: str
    status: int | None
    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    expose_ms: float | None
    first_byte_ms: float | None
    total_ms: float
    address: str | None
    body_sha256: bytes | None
    answer_reference: str | None
    answer_price: str | None


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """End of an accepted delivery and its money, in the order of the arguments $21 to $28 of `settle_accepted`."""

    settled_at: datetime
    capture_id: UUID
    payout_id: UUID
    currency: str
    price_minor: int
    payout_minor: int
    provider_id: UUID
    moves_money: bool


async def settle_accepted(
    connection: Connection,
    case: DeliveryCase,
    attempt: Attempt | MailAttempt,
    classified: Classification,
    started_at: datetime,
    body_sha256: bytes | None,
    private: Sequence[str],
    now: datetime,
    shares: Sequence[PayoutShare],
) -> AssignmentState:
    """Record an accepted attempt, mark the lead delivered, and capture the price, in one statement; a payout with
    `shares` is paid by a second one, and the caller commits.

    Return the assignment's state before it. Unless that was `exposed`, only the attempt was recorded. The `private`
    texts that were sent are masked in what the answer names.
    """
    row = _attempt_row(case, attempt, classified, started_at, body_sha256, private)
    settlement = Settlement(
        settled_at=now,
        capture_id=clock.new_id(),
        payout_id=clock.new_id(),
        currency=case.currency,
        price_minor=case.price_minor,
        payout_minor=0 if shares else case.payout_minor,
        provider_id=case.provider_id,
        moves_money=case.mode == "live",
    )
    values = (*msgspec.structs.astuple(row), *msgspec.structs.astuple(settlement))
    state = AssignmentState(await connection.fetchval(SQL["settle_accepted"], *values))
    if shares and state is AssignmentState.exposed:
        await money.pay_shares(connection, case.assignment_id, shares, now)
    return state


async def mark_settled(
    connection: Connection,
    case: AssignmentRow,
    state: AssignmentState,
    reason: str,
    evidence: str | None,
    now: datetime,
) -> None:
    """Move lead and assignment to the final `state`: delivered with its evidence, refused or lapsed."""
    await connection.execute(SQL["mark_settled"], case.lead_id, case.assignment_id, state, reason, evidence, now)


async def lock_subscription(connection: Connection, case: AssignmentRow) -> None:
    """Lock the subscription's row until the transaction ends."""
    await connection.execute(SQL["lock_subscription"], case.subscription_id)


class SubscriptionQuota(msgspec.Struct, frozen=True, kw_only=True):
    """Quota terms and counts of a subscription; `open` is whether it is active or paused."""

    terms: QuotaTerms
    counts: QuotaCounts
    open: bool


async def load_quota(connection: Connection, case: AssignmentRow, now: datetime) -> SubscriptionQuota:
    """Count the subscription's leads within its quota window, or since an operator last resumed it if that is later.

    The window's length in days is part of the vertical's terms.
    """
    row = await load_record(connection, SQL["find_quota"], case.subscription_id)
    terms = msgspec.json.decode(row["definition"], type=QuotaTerms)
    since, before = now - timedelta(days=terms.quota_days), 0
    if row["quota_since"] is not None and row["quota_since"] > since:
        since, before = row["quota_since"], row["quota_before"]
    counted = await load_record(connection, SQL["count_quota"], case.subscription_id, since, now - OVERDUE)
    return SubscriptionQuota(
        terms=terms,
        counts=QuotaCounts(
            leads=max(0, counted["used"] - before - counted["undecided"]),
            refused=counted["refused"],
            unacknowledged=counted["unacknowledged"],
        ),
        open=row["state"] in ("active", "paused"),
    )


async def suspend(connection: Connection, case: AssignmentRow, suspension: Suspension, now: datetime) -> None:
    """Suspend the subscription, with the counts that led to it, if it is active or paused."""
    await connection.execute(
        SQL["suspend"], case.subscription_id, suspension.reason, now, suspension.counted, suspension.leads
    )


async def mark_released(
    connection: Connection, case: AssignmentRow, reason: str, due_at: datetime, now: datetime
) -> None:
    """Make the lead a prospect again, and subtract it from the cap windows in which its award was counted."""
    await lock_subscription(connection, case)
    row = await load_record(connection, SQL["mark_released"], case.lead_id, case.assignment_id, reason, due_at, now)
    if case.mode == "live":
        await connection.execute(
            SQL["lower_usage"],
            case.subscription_id,
            case.price_minor,
            row["hour_at"],
            row["day_at"],
            row["week_at"],
            row["month_at"],
        )


async def await_reader(connection: Connection, assignment_id: UUID, now: datetime) -> bool:
    """Place the assignment in the business's feed, and make it due at the end of its hold or evidence window.

    Return whether it was placed by this call; it is placed once.
    """
    return await connection.fetchval(SQL["await_reader"], assignment_id, now) is not None


async def mark_due(connection: Connection, assignment_id: UUID, due_at: datetime, reason: str) -> None:
    """Set the time of the next attempt, and the reason for it."""
    await connection.execute(SQL["mark_due"], assignment_id, due_at, reason)


async def insert_attempt(
    connection: Connection,
    case: DeliveryCase,
    attempt: Attempt | MailAttempt,
    classified: Classification,
    started_at: datetime,
    body_sha256: bytes | None,
    private: Sequence[str],
) -> None:
    """Record an attempt that was not accepted, with the beginning of the server's answer for the endpoint's owner.

    The `private` texts that were sent are masked in it.
    """
    observation = attempt.observation
    excerpt = None
    match observation:
        case AnswerReceived(status=status, body=body) if (
            not 200 <= status <= 299 or classified.outcome is AttemptOutcome.unknown
        ):
            excerpt = mask_answer(body, private)
        case MailAnswer(status=status, text=text) if not 200 <= status <= 299:
            excerpt = mask_answer(text.encode(errors="replace"), private)
    row = _attempt_row(case, attempt, classified, started_at, body_sha256, private)
    await connection.execute(SQL["insert_attempt"], *msgspec.structs.astuple(row), excerpt)


def _attempt_row(
    case: DeliveryCase,
    attempt: Attempt | MailAttempt,
    classified: Classification,
    started_at: datetime,
    body_sha256: bytes | None,
    private: Sequence[str],
) -> RecordedAttempt:
    return RecordedAttempt(
        id=clock.new_id(),
        assignment_id=case.assignment_id,
        lead_id=case.lead_id,
        business_id=case.business_id,
        endpoint_id=case.endpoint_id,
        attempt_no=case.attempts,
        started_at=started_at,
        outcome=classified.outcome,
        reason=classified.reason,
        status=attempt.observation.status if isinstance(attempt.observation, AnswerReceived | MailAnswer) else None,
        dns_ms=attempt.dns_ms,
        connect_ms=attempt.connect_ms,
        tls_ms=attempt.tls_ms,
        expose_ms=attempt.expose_ms,
        first_byte_ms=attempt.first_byte_ms,
        total_ms=attempt.total_ms,
        address=attempt.address,
        body_sha256=body_sha256,
        answer_reference=_masked(classified.reference, private),
        answer_price=_masked(classified.price, private),
    )


def _masked(text: str | None, private: Sequence[str]) -> str | None:
    return None if text is None else mask_private(text, private)


async def raise_answer_alarm(
    connection: Connection,
    case: DeliveryCase,
    kind: AlarmKind,
    answer: AnswerReceived,
    private: Sequence[str],
    now: datetime,
) -> None:
    """Open an alarm about an answer, or count the answer in the open alarm of its kind. Lock the endpoint before."""
    await connection.execute(
        SQL["raise_answer_alarm"],
        clock.new_id(),
        case.endpoint_id,
        case.business_id,
        kind,
        now,
        case.lead_id,
        answer.status,
        answer.content_type[:LONGEST_TYPE],
        mask_answer(answer.body, private),
    )


async def close_answer_alarm(connection: Connection, endpoint_id: UUID, now: datetime) -> None:
    """Close the endpoint's alarm about answers that are not understood, if one is open."""
    await connection.execute(SQL["close_answer_alarm"], endpoint_id, now)


async def insert_answer_shape(connection: Connection, endpoint_id: UUID, shape: str) -> None:
    """Add the shape of an accepted answer to those of the endpoint."""
    await connection.execute(SQL["insert_answer_shape"], endpoint_id, shape)


async def lock_breaker(connection: Connection, endpoint_id: UUID) -> Breaker:
    """Lock the endpoint's row and return its breaker."""
    return msgspec.json.decode(await connection.fetchval(SQL["lock_breaker"], endpoint_id), type=Breaker)


async def save_breaker(connection: Connection, endpoint_id: UUID, breaker: Breaker, until: datetime | None) -> None:
    """Store the breaker; `until` is the end of its cool-down, None while it is closed."""
    await connection.execute(SQL["save_breaker"], endpoint_id, msgspec.json.encode(breaker), until)


async def disable_endpoint(connection: Connection, endpoint_id: UUID) -> None:
    """Switch an active endpoint off."""
    await connection.execute(SQL["disable_endpoint"], endpoint_id)


async def claim_due(connection: Connection, lease: timedelta, most: int) -> tuple[tuple[UUID, UUID], ...]:
    """Lease up to `most` due assignments to the caller for `lease`, and return (assignment id, lead id) of each."""
    rows = await connection.fetch(SQL["claim_due"], lease, most)
    return tuple((row["id"], row["lead_id"]) for row in rows)
