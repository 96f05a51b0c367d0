"""Changes of stage, sent to the endpoint that a business chose as signed `lead.stage_changed` webhooks.

    insert a due row in the transaction of the disposition → claim it → send it once → record the answer or the next try

A change that came by the business's signed hook or a file is not sent: the software that it would reach has it already.
"""

import asyncio
import contextlib
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, Queries, fetch_rows, find_row, session, transaction
from marketplace.feedback.event import StageChangedData, StageChangedEvent
from marketplace.feedback.flow import LeadHolder
from marketplace.feedback.store import DispositionKind
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.log import logger
from marketplace.security import audit
from marketplace.security.sealing import Sealer
from marketplace.webhook.address import AddressRules
from marketplace.webhook.signing import sign
from marketplace.webhook.transport import ConnectionInfo, WebhookMessage, post
from routing.contract import OWN_FORMAT, Contract
from routing.delivery import AnswerReceived, Observation, is_evidence, next_attempt_at, result_code

SQL = Queries(__file__, "stage_changes.sql")
log = logger("stage_changes")

LEASE: Final = timedelta(seconds=60)
"Three times the longest attempt: another worker takes a change over after it."
AT_ONCE: Final = 20
"Changes that a worker sends at once."
LOOK_SECONDS: Final = 1.0
"Interval of the search for due changes."
KEPT_FOR: Final = timedelta(days=30)
"Age at which changes that are not due are deleted, and are no longer listed."


class ChangeState(StrEnum):
    """State of a change of stage."""

    listed = "listed"
    "The business had no endpoint for changes: it is in the list of changes, and not sent."
    due = "due"
    "It is sent repeatedly for a day."
    received = "received"
    "The endpoint took it."
    given_up = "given_up"
    "The endpoint did not take it within a day, or the business has none for changes any more."


class StageChangeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A change as it is stored; with `undone`, the move from `previous_stage` to `stage` was undone."""

    id: UUID
    previous_stage: str | None
    undone: bool
    made_at: datetime
    lead_id: UUID
    assignment_id: UUID
    mode: str
    currency: str
    kind: DispositionKind
    stage: str
    value_minor: int | None
    starts_at: datetime | None
    happened_at: datetime


class DueStageChange(StageChangeRecord, frozen=True, kw_only=True):
    """A change that is due, with the endpoint to send it to; `url` is None without an active one."""

    business_id: UUID
    attempts: int
    endpoint_id: UUID | None
    url: str | None
    secret: bytes | None
    previous_secret: bytes | None
    previous_until: datetime | None
    contract: Contract | None
    read_at: datetime


class SentChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change as its business sees it: the state, and the result of the last attempt."""

    id: UUID
    state: ChangeState
    attempts: int
    result: str | None
    made_at: datetime
    due_at: datetime | None


# What a business chooses


async def find_hook(connection: Connection, business_id: UUID) -> UUID | None:
    """Return the endpoint to which the business has changes sent, or None."""
    endpoint_id: UUID | None = await connection.fetchval(SQL["find_hook"], business_id)
    return endpoint_id


async def set_hook(pool: Pool, holder: LeadHolder, endpoint_id: UUID | None) -> None:
    """Have changes sent to an active webhook endpoint of the business, or to none, with an audit row.

    Raises NotFound for any other endpoint.
    """
    now, owner = clock.now(), holder.business_id
    async with transaction(pool) as connection:
        if endpoint_id is None:
            await connection.fetchval(SQL["delete_hook"], owner)
        elif await connection.fetchval(SQL["save_hook"], owner, endpoint_id, now) is None:
            raise errors.NotFound("Choose an active endpoint of yours that receives webhooks.")
        detail = {"endpoint": None if endpoint_id is None else ids.encode("whe", endpoint_id)}
        await audit.record(connection, now, holder.actor, "stage_hook.set", ids.encode("biz", owner), **detail)


async def list_changes(connection: Connection, business_id: UUID, limit: int) -> tuple[SentChange, ...]:
    """Return the last changes of the business, newest first."""
    return await fetch_rows(connection, SQL["list_changes"], SentChange, business_id, limit)


async def list_after(
    connection: Connection, business_id: UUID, mode: str | None, after: UUID | None, limit: int
) -> tuple[StageChangeRecord, ...]:
    """Return changes of the business after the change `after`, or from the oldest one for None, oldest first.

    Raises NotFound for a change that is not in the list, or not any more.
    """
    position = 0
    if after is not None:
        position = await connection.fetchval(SQL["find_position"], after, business_id)
        if position is None:
            raise errors.NotFound(
                f"No change in your list has this id, or not any more after {KEPT_FOR.days} days. Leave out after."
            )
    return await fetch_rows(connection, SQL["list_after"], StageChangeRecord, business_id, position, mode, limit)


# Sending


def compose_change(change: DueStageChange, now: datetime) -> bytes:
    """Return the body of the webhook."""
    return msgspec.json.encode(StageChangedEvent(timestamp=now, data=show_change(change)))


def show_change(change: StageChangeRecord) -> StageChangedData:
    """Return a change as its business sees it; an undone move is a change back to the stage before it."""
    names = (change.stage, change.previous_stage)
    stage, previous = reversed(names) if change.undone else names
    return StageChangedData(
        lead_id=ids.encode("lead", change.lead_id),
        assignment_id=ids.encode("asg", change.assignment_id),
        mode=change.mode,
        stage=stage,
        previous_stage=previous,
        kind=change.kind,
        undone=change.undone,
        value_minor=change.value_minor,
        currency=change.currency,
        starts_at=change.starts_at,
        happened_at=change.happened_at,
    )


class StageChangeSender:
    """Sends changes of stage, one attempt per call, until the endpoint takes them or a day has passed."""

    def __init__(self, pool: Pool, sealer: Sealer, guard: AddressRules) -> None:
        self._pool = pool
        self._sealer = sealer
        self._guard = guard

    async def keep_sending(self, stopping: asyncio.Event) -> None:
        """Send due changes until `stopping` is set. Continues through outages of the database."""
        while not stopping.is_set():
            try:
                if await self.send_due():
                    continue
            except errors.Unavailable as error:
                log.warning("stage_changes_unavailable", error=error.detail)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), LOOK_SECONDS)

    async def send_due(self) -> int:
        """Make one attempt for each of up to AT_ONCE due changes, and return their number."""
        async with session(self._pool) as connection:
            claimed = [row["id"] for row in await connection.fetch(SQL["claim_due"], LEASE, AT_ONCE)]
        await asyncio.gather(*map(self._send, claimed))
        return len(claimed)

    async def _send(self, change_id: UUID) -> None:
        """Make one attempt and record what follows from it."""
        async with session(self._pool) as connection:
            change = await find_row(connection, SQL["find_change"], DueStageChange, change_id)
        if change is None:
            return
        observation = None if change.url is None else await self._attempt(change, change.url)
        state, due_at = follow(change, observation, clock.DatabaseTime(change.read_at).now())
        async with session(self._pool) as connection:
            await connection.execute(
                SQL["mark_sent"], change.id, state, due_at, result_code(observation, change.contract or OWN_FORMAT)
            )

    async def _attempt(self, change: DueStageChange, url: str) -> Observation:
        time = clock.DatabaseTime(change.read_at)
        body = compose_change(change, time.now())
        endpoint_id = change.endpoint_id
        if endpoint_id is None:
            raise ValueError("a change with a URL has an endpoint")

        async def message(_: ConnectionInfo) -> WebhookMessage:
            now = time.now()
            signature = sign(
                self._sealer.open_secrets(endpoint_id, change, now), ids.encode("evt", change.id), now, body
            )
            return WebhookMessage(headers=(*signature.items(), ("content-type", "application/json")), body=body)

        return (await post(url, guard=self._guard, on_connected=message)).observation


def follow(
    change: DueStageChange, observation: Observation | None, now: datetime
) -> tuple[ChangeState, datetime | None]:
    """Return the state after an attempt, and the time of the next one by the schedule of deliveries."""
    if observation is None:
        return ChangeState.given_up, None
    if is_evidence(observation, change.contract or OWN_FORMAT):
        return ChangeState.received, None
    again_at = next_attempt_at(
        change.attempts,
        exposed_at=change.made_at,
        now=now,
        seed=f"stage:{change.id}",
        retry_after_seconds=observation.retry_after_seconds if isinstance(observation, AnswerReceived) else None,
    )
    return (ChangeState.given_up, None) if again_at is None else (ChangeState.due, again_at)


async def delete_old(connection: Connection, before: datetime) -> None:
    """Delete changes from before a time that are not due any more."""
    await connection.execute(SQL["delete_old"], before)
