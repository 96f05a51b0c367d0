"""Messages that came back: read them, and record each once with the assignment or the message that it is about.

A bounce is recognised by its address, which is signed and was the sender of the message. Anything else that comes to
that address, such as an out-of-office reply, is no bounce. Of a bounce nothing is stored but its status code: it may
repeat the message.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from email import message_from_bytes
from email.message import Message
from enum import StrEnum
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, Queries, fetch_rows, find_row, transaction
from marketplace.delivery import store as delivery_store
from marketplace.mail.tokens import TokenPurpose, Tokens
from marketplace.runtime import clock, ids
from marketplace.security import audit
from routing.delivery import closed_from, record

SQL = Queries(__file__, "bounces.sql")

MOST_BYTES: Final = 1024 * 1024
"Bytes of a message that are read: a report stands at its beginning, before the message that came back."

ADDRESS_HEADERS: Final = ("To", "Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To")
"Headers in which mail servers say to which address they delivered."

_TAG: Final = re.compile(r"\+([a-z2-7]{42})@", re.IGNORECASE)
_STATUS: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_ACTIONS: Final = frozenset({"failed", "delayed"})


class BounceOutcome(StrEnum):
    """Result of reading one message."""

    recorded = "recorded"
    "The message could not be delivered: recorded, and counted as a failure of the endpoint."
    delayed = "delayed"
    "The mail server keeps trying: recorded, and not counted."
    repeated = "repeated"
    "It was recorded before."
    ignored = "ignored"
    "It is no report about a message of this service."


class BounceSubject(StrEnum):
    """Kinds of messages that come back."""

    lead = "lead"
    "A lead with its contact."
    mail = "mail"
    "A message without contact data."


class BounceReport(msgspec.Struct, frozen=True, kw_only=True):
    """A report of a mail server: the message that it is about, and its status code (RFC 3463), such as 5.1.1."""

    subject: BounceSubject
    id: UUID
    status: str

    @property
    def permanent(self) -> bool:
        """True if the message will not be delivered."""
        return self.status.startswith("5")


class BouncedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The message that came back. `endpoint_id` is the endpoint whose breaker counts it, if there is one."""

    business_id: UUID | None
    endpoint_id: UUID | None
    assignment_id: UUID | None
    mail_id: UUID | None


class ListedBounce(msgspec.Struct, frozen=True, kw_only=True):
    """A bounce as pages show it. `lead_id` is that of a lead that was sent with its contact."""

    id: UUID
    business_id: UUID | None
    business_name: str | None
    status: str
    received_at: datetime
    lead_id: UUID | None
    address: str | None


async def list_bounces(connection: Connection, business_id: UUID | None, limit: int) -> tuple[ListedBounce, ...]:
    """Return the bounces of a business, or with None of all, newest first."""
    return await fetch_rows(connection, SQL["list_bounces"], ListedBounce, business_id, limit)


def read_bounce(content: bytes, tokens: Tokens) -> BounceReport | None:
    """Return the report in a message, or None if it is no report about a message of this service."""
    message = message_from_bytes(content[:MOST_BYTES])
    statuses = [
        status
        for block in _delivery_blocks(message)
        if str(block.get("Action", "")).strip().lower() in _ACTIONS
        if (status := _status_of(block)) is not None
    ]
    if not statuses:
        return None
    for tag in _tags(message):
        for subject, purpose in (
            (BounceSubject.lead, TokenPurpose.bounce_of_lead),
            (BounceSubject.mail, TokenPurpose.bounce_of_mail),
        ):
            if (sent_id := tokens.read_tag(purpose, tag)) is not None:
                return BounceReport(subject=subject, id=sent_id, status=max(statuses))
    return None


def _status_of(block: Message) -> str | None:
    match = _STATUS.match(str(block.get("Status", "")).strip())
    return match[0] if match else None


def _delivery_blocks(message: Message) -> Iterator[Message]:
    """Yield the blocks of the delivery status in a message (RFC 3464)."""
    for part in message.walk():
        blocks = part.get_payload() if part.get_content_type() == "message/delivery-status" else None
        if isinstance(blocks, list):
            yield from (block for block in blocks if isinstance(block, Message))


def _tags(message: Message) -> Iterator[str]:
    for name in ADDRESS_HEADERS:
        for value in message.get_all(name, []):
            yield from _TAG.findall(str(value))


async def record_bounce(pool: Pool, tokens: Tokens, content: bytes) -> BounceOutcome:
    """Read one message, record it if it is a bounce that was not recorded before, and count it in the breaker."""
    report = read_bounce(content, tokens)
    if report is None:
        return BounceOutcome.ignored
    now = clock.now()
    async with transaction(pool) as connection:
        statement = SQL["find_lead"] if report.subject is BounceSubject.lead else SQL["find_mail"]
        bounced = await find_row(connection, statement, BouncedMessage, report.id)
        if bounced is None:
            return BounceOutcome.ignored
        if not await _insert(connection, bounced, report, sha256(content).digest(), now):
            return BounceOutcome.repeated
        if not report.permanent:
            return BounceOutcome.delayed
        if bounced.endpoint_id is not None:
            subject = ids.encode("whe", bounced.endpoint_id)
            await audit.record(connection, now, "marketplace", "endpoint.bounce", subject, status=report.status)
            await _count_failure(connection, bounced.endpoint_id, now)
    return BounceOutcome.recorded


async def _insert(
    connection: Connection, bounced: BouncedMessage, report: BounceReport, digest: bytes, now: datetime
) -> bool:
    """Insert a bounce; return False if the same one is there already."""
    inserted = await connection.fetchval(
        SQL["insert_bounce"],
        clock.new_id(),
        digest,
        bounced.business_id,
        bounced.endpoint_id,
        bounced.assignment_id,
        bounced.mail_id,
        report.status,
        now,
    )
    return inserted is not None


async def _count_failure(connection: Connection, endpoint_id: UUID, now: datetime) -> None:
    before = await delivery_store.lock_breaker(connection, endpoint_id)
    after = record(before, False, now)
    if after != before:
        await delivery_store.save_breaker(connection, endpoint_id, after, closed_from(after))
