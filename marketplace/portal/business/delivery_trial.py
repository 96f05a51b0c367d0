"""A business's door tried by hand: a test lead that was made up, and a lead that it has already, sent once more.

Both go out exactly as a delivery does: same body, same headers, same signature. Neither moves a lead or money.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.delivery import store as delivery_store
from marketplace.delivery.flow import AssignmentEvent, compose
from marketplace.directory import store as directory_store
from marketplace.directory.challenge import obstacle_words
from marketplace.directory.spec import posting_spec
from marketplace.directory.store import Endpoint, TenantScope
from marketplace.feedback import store as feedback_store
from marketplace.feedback.flow import LeadHolder
from marketplace.portal.business.wording import attempt_words
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors, ids
from marketplace.security import access, audit
from marketplace.security.sealing import Sealer
from marketplace.text.answers import mask_answer, private_texts
from marketplace.web.http import Services
from marketplace.webhook.signing import sign
from marketplace.webhook.transport import Attempt, ConnectionInfo, WebhookMessage, post
from routing.delivery import AnswerReceived, AttemptOutcome, NoAnswer, NotSent, classify
from routing.inquiry import PhoneVerification, Signals
from routing.lifecycle import AssignmentState

DEADLINE_SECONDS: Final = 10.0
"Somebody waits on the page."
SHOWN_BYTES: Final = 2_000


class DeliveryTrial(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent, what came back, and where the time went in milliseconds."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: str
    status: int | None
    answer: str
    words: str
    well: bool
    attempt: Attempt


async def send_test_lead(
    found: Services, actor: str, business_id: UUID, endpoint: Endpoint, vertical: Vertical, price_minor: int
) -> DeliveryTrial:
    """A made-up lead of the market, marked as test data, at the business's own proven door."""
    if endpoint.state != "active":
        raise errors.Conflict("Prove first that this address is yours; nothing else is sent there before.")
    now = clock.now()
    lead_id, assignment_id = clock.new_id(), clock.new_id()
    body = msgspec.json.encode(AssignmentEvent(
        type="lead.assigned", timestamp=now,
        data=_example(vertical, lead_id, assignment_id, price_minor, now),
    ))  # fmt: skip
    return await _send(found, actor, business_id, endpoint, ids.encode("asg", assignment_id), body, "endpoint.test")


def _example(
    vertical: Vertical, lead_id: UUID, assignment_id: UUID, price_minor: int, now: datetime
) -> dict[str, object]:
    """As `compose` makes the body of a real one, from the example of the market's own spec."""
    given = posting_spec(vertical, now).example
    bant = given["bant"]
    return {
        "lead_id": ids.encode("lead", lead_id),
        "assignment_id": ids.encode("asg", assignment_id),
        "subscription_id": None,
        "mode": "test",
        "exclusive": True,
        "vertical": vertical.slug,
        "price": {"minor": price_minor, "currency": vertical.definition.currency},
        "submitted_at": now - timedelta(seconds=2),
        "awarded_at": now,
        "contact": given["contact"] | {"summary": bant["need"]["summary"], "consent": given["consent"]},
        "place": {"country": "US", "postal_code": given["contact"]["postal_code"]},
        "signals": Signals(phone_type="fixed_or_mobile", phone_region="US", phone_verification=PhoneVerification.valid),
        "bant": {
            "budget": bant["budget"],
            "authority": bant["authority"],
            "need": bant["need"]["fields"],
            "timing": bant["timing"],
            "verdict": None,
        },
        "attribution": given["attribution"],
        "touches": [],
    }


async def send_again(found: Services, holder: LeadHolder, mode: str, lead_id: UUID) -> DeliveryTrial:
    """A delivered lead once more, under the webhook-id that it always had. Raises NotFound, Conflict."""
    async with session(found.pool) as connection:
        assignment_id = await _delivered(connection, holder.business_id, mode, lead_id)
        case = await delivery_store.find_delivery(connection, assignment_id)
        reach = TenantScope(business_id=holder.business_id, mode=None)
        endpoint = None if case is None else await directory_store.find_endpoint(connection, reach, case.endpoint_id)
        await access.record_reveals(connection, holder.opened, holder.actor, (lead_id,))
        sealed = await delivery_store.read_contact(connection, lead_id, holder.business_id)
    if case is None or endpoint is None or sealed is None:
        raise errors.Conflict("There is nothing left of this lead to send.")
    contact = found.sealer.open_contact(lead_id, sealed)
    body = compose(case, contact, clock.now())
    webhook_id, private = ids.encode("asg", assignment_id), private_texts(contact)
    return await _send(found, holder.actor, holder.business_id, endpoint, webhook_id, body, "lead.resend", private)


async def _delivered(connection: Connection, business_id: UUID, mode: str, lead_id: UUID) -> UUID:
    lead = await feedback_store.find_lead(connection, business_id, mode, lead_id)
    if lead is None:
        raise errors.NotFound("There is no lead of yours with this id.")
    if lead.state is not AssignmentState.delivered:
        raise errors.Conflict(
            "Only a lead that was delivered is sent again by hand; one on its way is tried by itself."
        )
    return lead.assignment_id


async def _send(
    found: Services, actor: str, business_id: UUID, endpoint: Endpoint, webhook_id: str, body: bytes, action: str,
    private: tuple[str, ...] = (),
) -> DeliveryTrial:  # fmt: skip
    url = endpoint.url
    if url is None:
        raise errors.Conflict("Your software reads this feed by itself; there is no address to send anything to.")
    secrets = await _secrets(found.pool, found.sealer, endpoint.id)
    sent: list[tuple[tuple[str, str], ...]] = []

    async def message(_: ConnectionInfo) -> WebhookMessage:
        headers = (*sign(secrets, webhook_id, clock.now(), body).items(), ("content-type", "application/json"))
        sent.append(headers)
        return WebhookMessage(headers=headers, body=body)

    attempt = await post(url, guard=found.guard, on_connected=message, deadline_seconds=DEADLINE_SECONDS)
    trial = _judge(url, sent[0] if sent else (), body, attempt, private)
    async with transaction(found.pool) as connection:
        subject = ids.encode("whe", endpoint.id)
        await audit.record(connection, clock.now(), actor, action, subject, webhook=webhook_id, status=trial.status)
    return trial


async def _secrets(pool: Pool, sealer: Sealer, endpoint_id: UUID) -> tuple[str, ...]:
    async with session(pool) as connection:
        sealed = await directory_store.load_secrets(connection, endpoint_id)
    boxes = [sealed.secret]
    if sealed.previous_secret and sealed.previous_until and clock.now() < sealed.previous_until:
        boxes.append(sealed.previous_secret)
    return tuple(sealer.open_secret(endpoint_id, box) for box in boxes)


def _judge(
    url: str, headers: tuple[tuple[str, str], ...], body: bytes, attempt: Attempt, private: tuple[str, ...]
) -> DeliveryTrial:  # fmt: skip
    shown: int | None = None
    text = ""
    match attempt.observation:
        case AnswerReceived(status=status, body=answer):
            shown, text = status, answer[:SHOWN_BYTES].decode("utf-8", "replace")
            seen = classify(attempt.observation, exposed=True)
            words = attempt_words(seen.outcome, seen.reason, status)
            well = seen.outcome in (AttemptOutcome.accepted, AttemptOutcome.refused) and 200 <= status < 300
        case NoAnswer(reason=reason):
            words, well = f"Your server was reached and gave no whole answer: {reason}.", False
        case NotSent(reason=reason):
            words, well = f"Nothing was sent. {obstacle_words(reason)}", False
    return DeliveryTrial(
        url=url, headers=headers, body=msgspec.json.format(body, indent=2).decode(), status=shown,
        answer=mask_answer(text.encode(), private),
        words=words, well=well, attempt=attempt,
    )  # fmt: skip
