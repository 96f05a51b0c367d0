"""Notify the members of a business of a new lead on their browsers and phones.

The worker sends the messages beside its work, after the lead was placed: a push service that is slow or away delays no
lead. A message that cannot be sent is not repeated, because the lead waits for minutes only.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from marketplace.database.db import Pool, session, transaction
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.log import logger
from marketplace.security import audit
from marketplace.security.sealing import Sealer
from marketplace.text.faults import Fault, FaultCode
from marketplace.web import metrics
from marketplace.web_push import encryption, store
from marketplace.web_push.store import PushSubscription
from marketplace.webhook.address import AddressRules, UrlRefusal
from marketplace.webhook.transport import ConnectionInfo, WebhookMessage, post
from routing.delivery import AnswerReceived, Observation

log = logger("web_push")

MOST_OF_MEMBER: Final = 10
"Browsers of one member: several phones, tablets and computers."
MOST_OF_LEAD: Final = 100
"Browsers that are notified of one lead; those that subscribed last."
AT_ONCE: Final = 20
"Messages of one process on their way at once."
MOST_WAITING: Final = 1_000
"Leads whose messages wait in one process; of further ones nobody is notified."
SECONDS: Final = 10.0
"Longest time for one message."
PRACTICE_LIFE: Final = timedelta(minutes=5)
SHORTEST_LIFE: Final = 30
"Least seconds for which a push service keeps a message for a phone that is out of reach."
ENDED: Final = frozenset({404, 410})
"Answers of a push service by which a subscription has ended (RFC 8030, section 7.3)."
MOST_DEVICE: Final = 300


class BrowserKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of a subscription as the browser gives them, in URL-safe base64: its public key and its secret."""

    p256dh: str
    auth: str


class PushMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Content of a message, which the service worker shows. `tag` replaces an earlier one that is still shown."""

    title: str
    body: str
    tag: str
    path: str


class NewLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead of which members are notified. `vertical` is the slug; the lead is held until `hold_until`."""

    business_id: UUID
    assignment_id: UUID
    vertical: str
    mode: str
    hold_until: datetime


PRACTICE: Final = PushMessage(
    title="Practice lead",
    body="This is how a new lead is announced. Nothing is charged.",
    tag="practice",
    path="/business/inbox/practice",
)


def message_of(lead: NewLead, name: str) -> PushMessage:
    """Return the message about a new lead. It has the vertical's name and nothing of the person."""
    what = "New lead" if lead.mode == "live" else "Test lead"
    assignment = ids.encode("asg", lead.assignment_id)
    return PushMessage(
        title=f"{what} in {name}",
        body="Tap to see the job and take the lead.",
        tag=assignment,
        path=f"/business/inbox/{assignment}",
    )


async def subscribe(
    pool: Pool, sealer: Sealer, guard: AddressRules, member_id: UUID, url: str, keys: BrowserKeys, device: str
) -> None:
    """Store a browser of the member, in place of an earlier subscription of it.

    Raises InvalidInput for a URL that no webhook may use and for keys that cannot be used, and Conflict for more than
    MOST_OF_MEMBER browsers.
    """
    target = guard.check(url)
    if isinstance(target, UrlRefusal):
        raise _one_fault("/url", "This browser's push service cannot be used: its address is not a public one.")
    try:
        encryption.load_public_key(encryption.decode_base64(keys.p256dh))
        auth = encryption.decode_base64(keys.auth)
    except ValueError:
        auth = b""
    if len(auth) != encryption.AUTH_BYTES:
        raise _one_fault("/p256dh", "The keys of this browser cannot be read. Switch notifications on again.")
    now, new_id = clock.now(), clock.new_id()
    row = PushSubscription(
        id=new_id,
        member_id=member_id,
        url=url,
        keys=sealer.seal_secret(new_id, msgspec.json.encode(keys).decode()),
        device=device[:MOST_DEVICE],
        made_at=now,
    )
    async with transaction(pool) as connection:
        await store.replace_subscription(connection, row)
        if await store.count_of_member(connection, member_id) > MOST_OF_MEMBER:
            raise errors.Conflict(f"You have {MOST_OF_MEMBER} devices. Remove one first.")
        await audit.record(connection, now, ids.encode("mem", member_id), "device.add", ids.encode("psh", new_id))


async def unsubscribe(pool: Pool, member_id: UUID, subscription_id: UUID) -> None:
    """Remove a browser of the member. Raises NotFound."""
    async with transaction(pool) as connection:
        if not await store.delete_of_member(connection, subscription_id, member_id):
            raise errors.NotFound("You have no such device.")
        subject = ids.encode("psh", subscription_id)
        await audit.record(connection, clock.now(), ids.encode("mem", member_id), "device.remove", subject)


def _one_fault(pointer: str, detail: str) -> errors.InvalidInput:
    return errors.InvalidInput((Fault(pointer=pointer, code=FaultCode.value_not_allowed, detail=detail),))


class PushSender:
    """Sends messages about new leads in tasks of its own. `subject` is the URL at which a push service can reach us."""

    def __init__(
        self,
        pool: Pool,
        catalog: Catalog,
        sealer: Sealer,
        guard: AddressRules,
        key: ec.EllipticCurvePrivateKey,
        subject: str,
    ) -> None:
        self._pool = pool
        self._catalog = catalog
        self._sealer = sealer
        self._guard = guard
        self._key = key
        self._subject = subject
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def announce(self, lead: NewLead) -> None:
        """Begin to notify the members of the business. Returns at once, and never raises."""
        if len(self._tasks) >= MOST_WAITING:
            metrics.PUSH_MESSAGES.labels(result="dropped").inc()
            return
        task = asyncio.create_task(self._announce(lead))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def send_practice(self, member_id: UUID) -> int:
        """Send a practice message to the member's devices, and return how many push services took it."""
        async with session(self._pool) as connection:
            rows = await store.list_of_member(connection, member_id)
        until = clock.now() + PRACTICE_LIFE
        message = msgspec.json.encode(PRACTICE)
        results = await asyncio.gather(*(self._send(row, message, until) for row in rows))
        return results.count("accepted")

    async def close(self) -> None:
        """End the messages on their way after SECONDS at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=SECONDS)
        for task in self._tasks:
            task.cancel()

    async def _announce(self, lead: NewLead) -> None:
        """Send the message to each browser; an error is logged and ends here."""
        try:
            async with session(self._pool) as connection:
                rows = await store.list_of_business(connection, lead.business_id, MOST_OF_LEAD)
            if rows:
                rules = await self._catalog.recent()
                message = msgspec.json.encode(message_of(lead, rules.by_slug[lead.vertical].definition.name))
                await asyncio.gather(*(self._send(row, message, lead.hold_until) for row in rows))
        except Exception as error:  # whatever happens to a message must not end the worker
            log.warning("push_failed", error=type(error).__name__)

    async def _send(self, row: PushSubscription, message: bytes, hold_until: datetime) -> str:
        """Send one message and return its result; delete a subscription that has ended."""
        async with self._slots:
            observation = await self._post(row, message, hold_until)
        status = observation.status if isinstance(observation, AnswerReceived) else None
        if status in ENDED:
            async with session(self._pool) as connection:
                await store.delete_ended(connection, row.id)
        result = _result_of(status)
        metrics.PUSH_MESSAGES.labels(result=result).inc()
        return result

    async def _post(self, row: PushSubscription, message: bytes, hold_until: datetime) -> Observation:
        keys = msgspec.json.decode(self._sealer.open_secret(row.id, row.keys), type=BrowserKeys)
        body = encryption.encrypt(
            message,
            receiver=encryption.decode_base64(keys.p256dh),
            auth=encryption.decode_base64(keys.auth),
            sender=ec.generate_private_key(ec.SECP256R1()),
            salt=clock.random_bytes(encryption.SALT_BYTES),
        )

        async def compose(_: ConnectionInfo) -> WebhookMessage:
            now = clock.now()
            life = max(SHORTEST_LIFE, int((hold_until - now).total_seconds()))
            signature = encryption.authorization(self._key, origin_of(row.url), self._subject, now)
            return WebhookMessage(
                headers=(
                    ("authorization", signature),
                    ("content-encoding", "aes128gcm"),
                    ("content-type", "application/octet-stream"),
                    ("ttl", str(life)),
                    ("urgency", "high"),
                ),
                body=body,
            )

        attempt = await post(row.url, guard=self._guard, on_connected=compose, deadline_seconds=SECONDS)
        return attempt.observation


def origin_of(url: str) -> str:
    """Return scheme and host of a URL, with the port if it names one."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _result_of(status: int | None) -> str:
    """Return the label of a message's result: accepted, ended or failed."""
    if status is None:
        return "failed"
    if 200 <= status <= 299:
        return "accepted"
    return "ended" if status in ENDED else "failed"
