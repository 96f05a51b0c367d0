"""The statements of delivery as typed functions: one per query, no decision inside."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from marketplace import clock
from marketplace.answers import mask_answer
from marketplace.db import Connection, Queries
from marketplace.journal import Exposure
from marketplace.money import Price
from marketplace.sealing import Sealed
from marketplace.webhook.transport import Attempt, Connected
from routing.delivery import Answered, Breaker, Classified
from routing.inquiry import Facts
from routing.lifecycle import AssignmentState
from routing.quota import OVERDUE, QuotaCounts, QuotaTerms, Suspension

SQL = Queries(__file__)

OF_A_WALK: Final = (SQL["find_delivery"], SQL["expose"], SQL["settle_accepted"])
"What every lead needs, and what a new connection may as well know before."


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One assignment by its own columns: what its end needs."""

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
    "When it was read, by the database's clock."

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


class Case(Claim, frozen=True, kw_only=True):
    """The same with its endpoint (a feed where it has no URL), and what is shipped besides the contact."""

    subscription_version: int
    endpoint_id: UUID
    vertical_id: UUID
    state: AssignmentState
    attempts: int
    awarded_at: datetime
    hold_until: datetime
    exposed_at: datetime | None
    url: str | None
    endpoint_state: str
    secret: bytes | None
    previous_secret: bytes | None
    previous_until: datetime | None
    breaker: Breaker
    facts: Facts
    verdict: msgspec.Raw
    persons: tuple[bytes, ...]
    protected_until: datetime | None
    withdrawn: bool


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """An exposure that is committed. Its place in the order of all is unknown to a twin that waited for its lock."""

    position: int | None


async def find_delivery(connection: Connection, assignment_id: UUID) -> Case | None:
    row = await connection.fetchrow(SQL["find_delivery"], assignment_id)
    if row is None:
        return None
    fields = dict(row)
    fields["facts"] = msgspec.json.decode(fields["facts"], type=Facts)
    fields["breaker"] = msgspec.json.decode(fields["breaker"], type=Breaker)
    fields["state"] = AssignmentState(fields["state"])
    fields["persons"] = tuple(fields["persons"] or ())
    return Case(assignment_id=assignment_id, **{**fields, "verdict": msgspec.Raw(fields["verdict"])})


async def find_claim(connection: Connection, assignment_id: UUID) -> Claim | None:
    row = await connection.fetchrow(SQL["find_claim"], assignment_id)
    return msgspec.convert(dict(row), Claim) if row else None


async def lock_delivery(connection: Connection, case: Claim) -> AssignmentState:
    """The state under the lead's lock."""
    return AssignmentState(await connection.fetchval(SQL["lock_delivery"], case.lead_id, case.assignment_id))


async def expose(
    connection: Connection, case: Case, url_sha256: bytes, to: Connected, now: datetime, evidence_until: datetime
) -> Shown | None:
    """This business may be shown the lead: exposed now, or on an earlier attempt; None when it is neither."""
    row = await connection.fetchrow(
        SQL["expose"], case.lead_id, case.assignment_id, case.business_id, case.endpoint_id, url_sha256,
        name_of(to), to.tls_fingerprint, case.attempts, now, evidence_until,
    )  # fmt: skip
    return None if row is None else Shown(position=row["position"])


def name_of(to: Connected) -> str:
    """The very address that a lead went to."""
    return f"{to.address}:{to.port}"


def exposure_of(
    case: Case, channel: str, url_sha256: bytes, address: str, tls_sha256: bytes | None, exposed_at: datetime,
    position: int | None,
) -> Exposure:  # fmt: skip
    """The exposure as the journal keeps it."""
    return Exposure(
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


async def read_contact(connection: Connection, lead_id: UUID, business_id: UUID) -> Sealed | None:
    """Through the door that opens only for a committed exposure; None when the person has been erased."""
    row = await connection.fetchrow(SQL["read_contact"], lead_id, business_id)
    if row is None:
        return None
    return Sealed(box=row["sealed"], wrapped=row["wrapped"], master_key_id=row["master_key_id"])


async def settle_accepted(
    connection: Connection, case: Case, attempt: Attempt, result: Classified, started_at: datetime,
    body_sha256: bytes | None, now: datetime,
) -> AssignmentState:  # fmt: skip
    """Attempt, moves and money of an accepted delivery in one statement; the state that it found under the lock."""
    state = await connection.fetchval(
        SQL["settle_accepted"], *_attempt_columns(case, attempt, result, started_at, body_sha256), now, clock.new_id(),
        clock.new_id(), case.currency, case.price_minor, case.payout_minor, case.provider_id, case.mode == "live",
    )  # fmt: skip
    return AssignmentState(state)


async def mark_settled(
    connection: Connection, case: Claim, state: AssignmentState, reason: str, evidence: str | None, now: datetime
) -> None:
    await connection.execute(SQL["mark_settled"], case.lead_id, case.assignment_id, state, reason, evidence, now)


async def lock_subscription(connection: Connection, case: Claim) -> None:
    await connection.execute(SQL["lock_subscription"], case.subscription_id)


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """The quota terms of a subscription and its counts; `open` unless it is suspended or has ended."""

    terms: QuotaTerms
    counts: QuotaCounts
    open: bool


async def load_quota(connection: Connection, case: Claim, now: datetime) -> Quota:
    """Count from stored facts, since the window began or since an operator last resumed the subscription."""
    row = await connection.fetchrow(SQL["find_quota"], case.subscription_id)
    terms = msgspec.json.decode(row["definition"], type=QuotaTerms)
    since, before = now - timedelta(days=terms.quota_days), 0
    if row["quota_since"] is not None and row["quota_since"] > since:
        since, before = row["quota_since"], row["quota_before"]
    counted = await connection.fetchrow(SQL["count_quota"], case.subscription_id, since, now - OVERDUE)
    return Quota(
        terms=terms,
        counts=QuotaCounts(
            shown=max(0, counted["used"] - before - counted["undecided"]),
            refused=counted["refused"],
            unacknowledged=counted["unacknowledged"],
        ),
        open=row["state"] in ("active", "paused"),
    )


async def suspend(connection: Connection, case: Claim, suspension: Suspension, now: datetime) -> None:
    await connection.execute(
        SQL["suspend"], case.subscription_id, suspension.reason, now, suspension.counted, suspension.shown
    )


async def mark_released(connection: Connection, case: Claim, reason: str, due_at: datetime, now: datetime) -> None:
    """Back to prospect, and one less in the windows that the award had counted in."""
    await lock_subscription(connection, case)
    row = await connection.fetchrow(SQL["mark_released"], case.lead_id, case.assignment_id, reason, due_at, now)
    if case.mode == "live":
        await connection.execute(
            SQL["lower_usage"], case.subscription_id, case.price_minor, row["hour_at"], row["day_at"], row["week_at"],
            row["month_at"],
        )  # fmt: skip


async def await_reader(connection: Connection, assignment_id: UUID, now: datetime) -> None:
    await connection.execute(SQL["await_reader"], assignment_id, now)


async def mark_due(connection: Connection, assignment_id: UUID, due_at: datetime, reason: str) -> None:
    await connection.execute(SQL["mark_due"], assignment_id, due_at, reason)


async def insert_attempt(
    connection: Connection, case: Case, attempt: Attempt, result: Classified, started_at: datetime,
    body_sha256: bytes | None, private: Sequence[str],
) -> None:  # fmt: skip
    """Record an attempt, with the beginning of an answer that was no acceptance, for its owner to see, without
    the `private` texts that were sent."""
    seen = attempt.observation
    excerpt = None
    if isinstance(seen, Answered) and not 200 <= seen.status <= 299:
        excerpt = mask_answer(seen.body, private)
    await connection.execute(
        SQL["insert_attempt"], *_attempt_columns(case, attempt, result, started_at, body_sha256), excerpt
    )


def _attempt_columns(
    case: Case, attempt: Attempt, result: Classified, started_at: datetime, body_sha256: bytes | None
) -> tuple[object, ...]:
    """In the order of the two statements that record an attempt."""
    status = attempt.observation.status if isinstance(attempt.observation, Answered) else None
    return (
        clock.new_id(), case.assignment_id, case.lead_id, case.business_id, case.endpoint_id, case.attempts, started_at,
        result.outcome, result.reason, status, attempt.dns_ms, attempt.connect_ms, attempt.tls_ms, attempt.expose_ms,
        attempt.first_byte_ms, attempt.total_ms, attempt.address, body_sha256,
    )  # fmt: skip


async def lock_breaker(connection: Connection, endpoint_id: UUID) -> Breaker:
    row = await connection.fetchrow(SQL["lock_breaker"], endpoint_id)
    return msgspec.json.decode(row["breaker"], type=Breaker)


async def save_breaker(connection: Connection, endpoint_id: UUID, breaker: Breaker, until: datetime | None) -> None:
    await connection.execute(SQL["save_breaker"], endpoint_id, msgspec.json.encode(breaker), until)


async def disable_endpoint(connection: Connection, endpoint_id: UUID) -> None:
    await connection.execute(SQL["disable_endpoint"], endpoint_id)


async def claim_due(connection: Connection, lease: timedelta, most: int) -> tuple[tuple[UUID, UUID], ...]:
    """(assignment, lead) of work that is due; each is leased to the caller."""
    rows = await connection.fetch(SQL["claim_due"], lease, most)
    return tuple((row["id"], row["lead_id"]) for row in rows)
