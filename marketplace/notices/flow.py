"""Send notices to the business that holds a lead, until it acknowledges them.

    claim → read the notice and the endpoint → send, or place in the feed → record the result

An attempt holds no lock and no transaction while it waits for the network. After the deadline a notice is overdue,
which operators see; one about an erased person or a revoked consent is still sent once a day.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.delivery import store as delivery_store
from marketplace.notices import store as notices_store
from marketplace.notices.event import FEED_TYPE, WEBHOOK_TYPE, compose_notice
from marketplace.notices.store import DueNotice, NoticeEvent, NoticeKind, NoticeRow, NoticeState
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.live import Publisher, feed_topic
from marketplace.runtime.log import logger
from marketplace.security import audit
from marketplace.security.auth import Principal
from marketplace.security.sealing import Sealer
from marketplace.webhook.address import AddressRules
from marketplace.webhook.signing import sign
from marketplace.webhook.transport import ConnectionInfo, WebhookMessage, post
from routing.contract import OWN_FORMAT
from routing.delivery import AnswerReceived, EndpointKind, Observation, is_evidence, next_attempt_at, result_code

log = logger("notices")

IN_FEED: Final = "in_feed"
"Result of a notice that was placed in the business's feed, where its reader finds it."

REMINDER: Final = timedelta(days=1)
"Pause between two reminders of an overdue notice."

REMINDED: Final = timedelta(days=90)
"Time after the deadline during which an overdue notice is sent again. Afterwards only a person can follow it up."

MUST_ACKNOWLEDGE: Final = frozenset({NoticeKind.erased, NoticeKind.revoked})
"Kinds that are sent again after the deadline."

AUDIT_ACTION: Final = {
    NoticeKind.erased: "erasure.acknowledge",
    NoticeKind.revoked: "revocation.acknowledge",
    NoticeKind.updated: "update.acknowledge",
}
"Action in the audit chain for the first acknowledgement, by the kind of the notice."

CONTACT_CHANGED: Final = "contact_changed"
"Key in the detail of an update: the names of the contact fields that changed. The contact is read when it is sent."

NOT_THERE: Final = "There is no notice with this id, or it is not yours."


async def read_changed_contact(connection: Connection, sealer: Sealer, notice: NoticeEvent) -> bytes | None:
    """Return the present contact as JSON if this notice is of a change to it, else None.

    The database returns it only to the business with the exposure, and nothing after an erasure.
    """
    if notice.kind is not NoticeKind.updated or not notice.detail.get(CONTACT_CHANGED):
        return None
    sealed = await delivery_store.read_contact(connection, notice.lead_id, notice.business_id)
    return None if sealed is None else sealer.open_contact(notice.lead_id, sealed)


async def mark_acknowledged(connection: Connection, notice_id: UUID, actor: str, how: str = "acknowledged") -> None:
    """Record the first acknowledgement of a notice, with an audit row; later ones change nothing.

    `how` is stored as the notice's result.
    """
    now = clock.now()
    notice = await notices_store.mark_acknowledged(connection, notice_id, now, how)
    if notice is not None:
        lead_id, kind = notice
        await audit.record(connection, now, actor, AUDIT_ACTION[kind], ids.encode("lead", lead_id))


async def acknowledge(pool: Pool, caller: Principal, notice_id: UUID) -> NoticeRow:
    """Acknowledge a notice of the calling business, and return it. A repeated call is no error. Raises NotFound."""
    async with transaction(pool) as connection:
        await _load_own(connection, caller, notice_id)
        await mark_acknowledged(connection, notice_id, caller.key_id)
        return await _load_own(connection, caller, notice_id)


async def _load_own(connection: Connection, caller: Principal, notice_id: UUID) -> NoticeRow:
    """Return a notice of the calling business in the caller's modes. Raises NotFound."""
    notice = await notices_store.find_row_of_business(connection, notice_id, caller.owner)
    if notice is None or not caller.sees(notice.mode):
        raise errors.NotFound(NOT_THERE)
    return notice


class Notices:
    """Sends notices, one attempt per call."""

    def __init__(self, pool: Pool, sealer: Sealer, guard: AddressRules, publisher: Publisher | None = None) -> None:
        self._pool = pool
        self._sealer = sealer
        self._guard = guard
        self._publisher = publisher

    async def send(self, notice_id: UUID) -> NoticeState | None:
        """Make one attempt and return the notice's new state, or None if it is not due."""
        async with session(self._pool) as connection:
            notice = await notices_store.find_notice(connection, notice_id)
            if notice is None:
                return None
            time = clock.DatabaseTime(notice.read_at)
            if notice.read_at >= notice.deadline_at and not await self._mark_overdue(connection, notice):
                return NoticeState.overdue
        if notice.endpoint_kind not in (None, EndpointKind.push):
            return await self._place_in_feed(notice, notice.read_at)
        observation = await self._post(notice, time)
        return await self._record_attempt(notice, observation, time)

    async def _mark_overdue(self, connection: Connection, notice: DueNotice) -> bool:
        """Mark a notice overdue after its deadline, and return whether it is sent once more now."""
        if notice.state is NoticeState.due and await notices_store.mark_overdue(
            connection, notice.id, notice.read_at if notice.kind in MUST_ACKNOWLEDGE else None
        ):
            log.warning("notice_not_acknowledged", kind=notice.kind, lead=ids.encode("lead", notice.lead_id))
        return notice.kind in MUST_ACKNOWLEDGE

    async def _place_in_feed(self, notice: DueNotice, now: datetime) -> NoticeState:
        """Place the notice in the business's feed, once, make it due later, and wake the feed's readers."""
        async with transaction(self._pool) as connection:
            await notices_store.place_notice(connection, notice, FEED_TYPE[notice.kind], now)
            state = NoticeState.due if now < notice.deadline_at else NoticeState.overdue
            due_at = notice.deadline_at if state is NoticeState.due else _remind_at(notice, now)
            await notices_store.mark_due(connection, notice.id, due_at, IN_FEED)
        if self._publisher is not None:
            await self._publisher.publish(feed_topic(notice.business_id), ids.encode("biz", notice.business_id))
        return state

    async def _post(self, notice: DueNotice, time: clock.DatabaseTime) -> Observation | None:
        """Post the notice and return what was observed; None if the business has no active endpoint."""
        endpoint_id = notice.endpoint_id
        if notice.url is None:
            return None
        if endpoint_id is None:
            raise ValueError("a notice with a URL has an endpoint")
        async with session(self._pool) as connection:
            contact = await read_changed_contact(connection, self._sealer, notice)
        body = compose_notice(notice, WEBHOOK_TYPE[notice.kind], time.now(), contact)

        async def message(_: ConnectionInfo) -> WebhookMessage:
            now = time.now()
            # The notice's UUID gives a message id that is the same for every retry.
            signature = sign(
                self._sealer.open_secrets(endpoint_id, notice, now), ids.encode("evt", notice.id), now, body
            )
            return WebhookMessage(headers=(*signature.items(), ("content-type", "application/json")), body=body)

        return (await post(notice.url, guard=self._guard, on_connected=message)).observation

    async def _record_attempt(
        self, notice: DueNotice, observation: Observation | None, time: clock.DatabaseTime
    ) -> NoticeState:
        """Record an acknowledgement, or the time of the next attempt."""
        async with transaction(self._pool) as connection:
            contract = notice.contract or OWN_FORMAT
            if notice.endpoint_id is not None and observation is not None and is_evidence(observation, contract):
                actor = ids.encode("whe", notice.endpoint_id)
                await mark_acknowledged(connection, notice.id, actor, result_code(observation, contract))
                return NoticeState.acknowledged
            now = time.now()
            due_at = _next_attempt(notice, observation, now)
            await notices_store.mark_due(connection, notice.id, due_at, result_code(observation, contract))
            return NoticeState.due if now < notice.deadline_at else NoticeState.overdue


def _next_attempt(notice: DueNotice, observation: Observation | None, now: datetime) -> datetime | None:
    """Return the time of the next attempt: by the schedule, at the latest the deadline, and a reminder after it."""
    if now >= notice.deadline_at:
        return _remind_at(notice, now)
    retry_after_seconds = observation.retry_after_seconds if isinstance(observation, AnswerReceived) else None
    again_at = next_attempt_at(
        notice.attempts,
        exposed_at=now,  # only the notice's own deadline ends this schedule
        now=now,
        seed=f"notice:{notice.id}",
        retry_after_seconds=retry_after_seconds,
    )
    return min(again_at or notice.deadline_at, notice.deadline_at)


def _remind_at(notice: DueNotice, now: datetime) -> datetime | None:
    """Return the time of the next reminder of an overdue notice, or None after the last one."""
    again_at = now + REMINDER
    return again_at if again_at < notice.deadline_at + REMINDED else None
