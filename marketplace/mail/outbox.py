"""Messages that hold no contact data: rows that wait, sent by the worker until the mail server takes them.

insert a due row in the transaction of what it is about → claim it → send it once → record the answer or the next try
"""

import asyncio
import contextlib
from datetime import datetime, timedelta
from email.headerregistry import Address
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, Queries, find_row, session
from marketplace.mail.message import Letter, MessageAddresses, compose_message
from marketplace.mail.tokens import TokenPurpose, Tokens
from marketplace.mail.transport import MailClient, MailEnvelope
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.log import logger
from marketplace.runtime.mail_settings import MailSettings
from marketplace.webhook.transport import ConnectionInfo
from routing.delivery import (
    AttemptOutcome,
    Classification,
    MailAnswer,
    MailObservation,
    NotSentReason,
    classify_mail,
    next_attempt_at,
)

SQL = Queries(__file__, "outbox.sql")
log = logger("outbox")

LEASE: Final = timedelta(seconds=60)
"Three times the longest attempt: another worker takes a message over after it."
AT_ONCE: Final = 20
LOOK_SECONDS: Final = 0.5
"Interval of the search for due messages, where nobody wakes the sender."
KEPT_FOR: Final = timedelta(days=30)
"Age at which messages that were sent or given up are deleted."

HOPELESS: Final = frozenset({NotSentReason.mail_recipient_refused, NotSentReason.mail_address_unsupported})
"Results that no later attempt changes."


class MailKind(StrEnum):
    """Kinds of messages without contact data."""

    confirmation = "confirmation"
    "Link that confirms the address of an endpoint."
    lead = "lead"
    "A lead waits in the portal."
    test = "test"
    "Test message of an endpoint."
    alert = "alert"
    "Something that a member wants to know."


class MailState(StrEnum):
    """State of a message without contact data."""

    due = "due"
    "It waits, or is tried again."
    sent = "sent"
    "The mail server took it."
    given_up = "given_up"
    "The mail server did not take it in time, or refuses the recipient."


class NewMail(msgspec.Struct, frozen=True, kw_only=True):
    """A message to send. `occasion` is what it is about: the same one is not sent twice to a recipient."""

    kind: MailKind
    recipient: str
    occasion: str
    letter: Letter
    give_up_at: datetime
    business_id: UUID | None = None
    endpoint_id: UUID | None = None
    assignment_id: UUID | None = None


class DueMail(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is being sent."""

    id: UUID
    recipient: str
    letter: Letter
    attempts: int
    made_at: datetime
    give_up_at: datetime
    read_at: datetime


async def enqueue(connection: Connection, mail: NewMail, now: datetime) -> bool:
    """Insert a message in the caller's transaction; return False if the recipient had it already."""
    inserted = await connection.fetchval(
        SQL["insert_mail"],
        clock.new_id(),
        mail.kind,
        mail.business_id,
        mail.endpoint_id,
        mail.assignment_id,
        mail.recipient,
        mail.occasion,
        msgspec.json.encode(mail.letter),
        now,
        mail.give_up_at,
    )
    return inserted is not None


class Outbox:
    """Sends waiting messages, one attempt per call, until the server takes them or their time is over."""

    def __init__(self, pool: Pool, settings: MailSettings, client: MailClient, tokens: Tokens) -> None:
        self._pool = pool
        self._settings = settings
        self._client = client
        self._tokens = tokens
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Have the sender look for due messages now."""
        self._awake.set()

    async def keep_sending(self, stopping: asyncio.Event) -> None:
        """Send due messages until `stopping` is set. Continues through outages of the database."""
        while not stopping.is_set():
            self._awake.clear()
            try:
                if await self.send_due():
                    continue
            except errors.Unavailable as error:
                log.warning("outbox_unavailable", error=error.detail)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), LOOK_SECONDS)

    async def send_due(self) -> int:
        """Make one attempt for each of up to AT_ONCE due messages, and return their number."""
        async with session(self._pool) as connection:
            claimed = [row["id"] for row in await connection.fetch(SQL["claim_due"], LEASE, AT_ONCE)]
        await asyncio.gather(*map(self._send, claimed))
        return len(claimed)

    async def _send(self, mail_id: UUID) -> None:
        """Make one attempt and record what follows from it."""
        async with session(self._pool) as connection:
            mail = await find_row(connection, SQL["find_mail"], DueMail, mail_id)
        if mail is None:
            return
        time = clock.DatabaseTime(mail.read_at)
        bounces = self._settings.bounces
        tag = self._tokens.tag(TokenPurpose.bounce_of_mail, mail.id)
        addresses = MessageAddresses(
            sender=self._settings.sender, recipient=mail.recipient, message_id=ids.encode("mail", mail.id)
        )

        async def message(_: ConnectionInfo) -> bytes:
            return compose_message(mail.letter, addresses, time.now())

        attempt = await self._client.send(MailEnvelope(sender=tagged(bounces, tag), recipient=mail.recipient), message)
        classified = classify_mail(attempt.observation, exposed=False)
        state, due_at = follow_mail(mail, classified, time.now())
        async with session(self._pool) as connection:
            await connection.execute(
                SQL["mark_sent"], mail.id, state, due_at, mail_result(attempt.observation), time.now()
            )


def follow_mail(mail: DueMail, classified: Classification, now: datetime) -> tuple[MailState, datetime | None]:
    """Return the state after an attempt, and the time of the next one by the schedule of deliveries."""
    if classified.outcome is AttemptOutcome.accepted:
        return MailState.sent, None
    again_at = next_attempt_at(
        mail.attempts, exposed_at=mail.made_at, now=now, retry_after_seconds=None, seed=f"mail:{mail.id}"
    )
    if classified.reason in HOPELESS or again_at is None or again_at > mail.give_up_at:
        return MailState.given_up, None
    return MailState.due, again_at


def mail_result(observation: MailObservation) -> str:
    """Return the result of an attempt as a code, such as `recipient_550` or `content_250`."""
    if isinstance(observation, MailAnswer):
        return f"{observation.step}_{observation.status}"
    return classify_mail(observation, exposed=False).reason


def tagged(address: Address, tag: str) -> str:
    """Return the address `name+tag@domain`, to which bounces of one message come."""
    return f"{address.username}+{tag}@{address.domain}"


async def delete_old(connection: Connection, before: datetime) -> None:
    """Delete messages from before a time that are not due any more and did not come back."""
    await connection.execute(SQL["delete_old"], before)
