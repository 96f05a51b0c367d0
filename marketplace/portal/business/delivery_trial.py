"""Requests that a member sends to an endpoint by hand: an invented test lead, or a delivered lead again.

Both have the body, headers and signature of a delivery. Neither changes a lead or moves money.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.delivery import store as delivery_store
from marketplace.delivery.event import (
    AssignedAnswers,
    AssignedLead,
    AssignmentEvent,
    LeadAttribution,
    LeadPrice,
    compose,
)
from marketplace.delivery.mapped import describe_lead
from marketplace.directory import store as directory_store
from marketplace.directory.challenge import obstacle_words
from marketplace.directory.mappings import load_mapping, open_credentials
from marketplace.directory.spec import posting_spec
from marketplace.directory.store import Endpoint, EndpointMapping, TenantScope
from marketplace.feedback import store as feedback_store
from marketplace.feedback.flow import LeadHolder
from marketplace.mapping.requests import render_body
from marketplace.mapping.sending import example_body, send_mapped
from marketplace.portal.business.wording import attempt_words
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors, ids
from marketplace.security import access, audit
from marketplace.security.sealing import Sealer
from marketplace.text.answers import mask_answer, private_texts
from marketplace.web.http import Services
from marketplace.webhook.signing import sign
from marketplace.webhook.transport import Attempt, ConnectionInfo, WebhookMessage, post
from routing.contract import OWN_FORMAT, Contract
from routing.delivery import AnswerReceived, AttemptOutcome, NoAnswer, NotSent, classify
from routing.inquiry import Budget, PhoneVerification, Place, Signals, Timing
from routing.lifecycle import AssignmentState

DEADLINE_SECONDS: Final = 10.0
"Shorter than that of a delivery, because a person waits for the page."
SHOWN_BYTES: Final = 2_000
EVERY_ENDPOINT: Final = TenantScope(business_id=None, mode=None)


class DeliveryTrial(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a request by hand: what was sent, the endpoint's answer, and the timings of the attempt."""

    url: str
    method: str
    headers: tuple[tuple[str, str], ...]
    body: str
    status: int | None
    answer: str
    words: str
    succeeded: bool
    attempt: Attempt


async def send_test_lead(
    app: Services, actor: str, business_id: UUID, endpoint: Endpoint, vertical: Vertical, price_minor: int
) -> DeliveryTrial:
    """Send an invented lead of the vertical, in test mode, to a verified endpoint of the business. Raises Conflict."""
    if endpoint.state != "active":
        raise errors.Conflict("Verify this endpoint first: nothing is sent to it before.")
    now = clock.now()
    lead_id, assignment_id = clock.new_id(), clock.new_id()
    stated = await _load_request(app.pool, endpoint)
    if stated.mapping is not None:
        body = example_body(stated.mapping, vertical.slug)
        webhook_id = ids.encode("asg", assignment_id)
        return await _send(app, actor, business_id, endpoint, webhook_id, body, "endpoint.test")
    data = _example(vertical, lead_id, assignment_id, price_minor, now)
    body = msgspec.json.encode(AssignmentEvent(timestamp=now, data=data))
    return await _send(app, actor, business_id, endpoint, ids.encode("asg", assignment_id), body, "endpoint.test")


def _example(vertical: Vertical, lead_id: UUID, assignment_id: UUID, price_minor: int, now: datetime) -> AssignedLead:
    """Return the data of a delivery, as `compose` makes it, from the example in the vertical's posting spec."""
    example = posting_spec(vertical, now).example
    answers, attribution = example["bant"], example["attribution"]
    contact = example["contact"] | {"summary": answers["need"]["summary"], "consent": example["consent"]}
    return AssignedLead(
        lead_id=ids.encode("lead", lead_id),
        assignment_id=ids.encode("asg", assignment_id),
        subscription_id=None,
        mode="test",
        vertical=vertical.slug,
        price=LeadPrice(minor=price_minor, currency=vertical.definition.currency),
        submitted_at=now - timedelta(seconds=2),
        awarded_at=now,
        contact=msgspec.Raw(msgspec.json.encode(contact)),
        place=Place(country="US", postal_code=example["contact"]["postal_code"]),
        signals=Signals(phone_type="fixed_or_mobile", phone_region="US", phone_verification=PhoneVerification.valid),
        bant=AssignedAnswers(
            budget=msgspec.convert(answers["budget"], Budget),
            authority=answers["authority"],
            need=answers["need"]["fields"],
            timing=msgspec.convert(answers["timing"], Timing),
            verdict=None,
        ),
        attribution=LeadAttribution(
            **{name: attribution.get(name) for name in ("source", "form", "campaign")},
            sub_ids=attribution.get("sub_ids", {}),
        ),
    )


async def send_again(app: Services, holder: LeadHolder, mode: str, lead_id: UUID) -> DeliveryTrial:
    """Send a delivered lead again, with its original webhook-id. Raises NotFound, Conflict."""
    async with session(app.pool) as connection:
        assignment_id = await _delivered(connection, holder.business_id, mode, lead_id)
        case = await delivery_store.find_delivery(connection, assignment_id)
        scope = TenantScope(business_id=holder.business_id, mode=None)
        endpoint = None if case is None else await directory_store.find_endpoint(connection, scope, case.endpoint_id)
        await access.record_reveals(connection, holder.opened, holder.actor, (lead_id,))
        sealed = await delivery_store.read_contact(connection, lead_id, holder.business_id)
    if case is None or endpoint is None or sealed is None:
        raise errors.Conflict("This lead cannot be sent again: its contact or its endpoint no longer exists.")
    contact = app.sealer.open_contact(lead_id, sealed)
    body = compose(case, contact, clock.now())
    if case.mapping is not None:
        body = render_body(case.mapping, describe_lead(case), msgspec.json.decode(contact))
    webhook_id, private = ids.encode("asg", assignment_id), private_texts(contact)
    return await _send(app, holder.actor, holder.business_id, endpoint, webhook_id, body, "lead.resend", private)


async def _delivered(connection: Connection, business_id: UUID, mode: str, lead_id: UUID) -> UUID:
    lead = await feedback_store.find_lead(connection, business_id, mode, lead_id)
    if lead is None:
        raise errors.NotFound("There is no lead of yours with this id.")
    if lead.state is not AssignmentState.delivered:
        raise errors.Conflict(
            "Only a delivered lead can be sent again by hand. A lead that is on its way is retried automatically."
        )
    return lead.assignment_id


async def _send(
    app: Services,
    actor: str,
    business_id: UUID,
    endpoint: Endpoint,
    webhook_id: str,
    body: bytes,
    action: str,
    private: tuple[str, ...] = (),
) -> DeliveryTrial:
    """Send a signed body to an endpoint and audit the action. `private` are texts to mask in the shown answer."""
    url = endpoint.url
    if url is None:
        raise errors.Conflict("Nothing can be sent to this endpoint: only your own server takes messages.")
    secrets = await _secrets(app.pool, app.sealer, endpoint.id)
    stated = await _load_request(app.pool, endpoint)
    sent: list[WebhookMessage] = []

    def signed(content: bytes) -> dict[str, str]:
        return sign(secrets, webhook_id, clock.now(), content)

    async def message(_: ConnectionInfo) -> WebhookMessage:
        headers = (*signed(body).items(), ("content-type", "application/json"))
        sent.append(WebhookMessage(headers=headers, body=body))
        return sent[0]

    if stated.mapping is None:
        attempt = await post(url, guard=app.guard, on_connected=message, deadline_seconds=DEADLINE_SECONDS)
    else:
        credentials = open_credentials(app.sealer, endpoint.id, stated)
        mapped, attempt = await send_mapped(url, app.guard, stated.mapping, credentials, body, signed)
        sent += [mapped] if mapped else []
    headers = _shown_headers(sent[0]) if sent else ()
    method = sent[0].method if sent else "POST"
    trial = _judge(url, method, headers, body, attempt, private, await _contract(app.pool, endpoint))
    async with transaction(app.pool) as connection:
        subject = ids.encode("whe", endpoint.id)
        await audit.record(connection, clock.now(), actor, action, subject, webhook=webhook_id, status=trial.status)
    return trial


async def _secrets(pool: Pool, sealer: Sealer, endpoint_id: UUID) -> tuple[str, ...]:
    """Return the endpoint's secret, and the previous one while it is still valid."""
    async with session(pool) as connection:
        sealed = await directory_store.load_secrets(connection, endpoint_id)
    boxes = [sealed.secret]
    if sealed.previous_secret and sealed.previous_until and clock.now() < sealed.previous_until:
        boxes.append(sealed.previous_secret)
    return tuple(sealer.open_secret(endpoint_id, box) for box in boxes)


def _shown_headers(message: WebhookMessage) -> tuple[tuple[str, str], ...]:
    """Return the headers of a request with its secrets hidden."""
    ours = ("content-type", "webhook-id", "webhook-timestamp", "webhook-signature")
    return tuple((name, value if name in ours else "•••") for name, value in message.headers)


async def _load_request(pool: Pool, endpoint: Endpoint) -> EndpointMapping:
    async with session(pool) as connection:
        return await load_mapping(connection, EVERY_ENDPOINT, endpoint.id)


def _show_body(body: bytes) -> str:
    """Return a body as text, indented if it is JSON."""
    try:
        return msgspec.json.format(body, indent=2).decode()
    except msgspec.DecodeError:
        return body.decode("utf-8", "replace")


async def _contract(pool: Pool, endpoint: Endpoint) -> Contract:
    async with session(pool) as connection:
        stated = await directory_store.find_contract(connection, EVERY_ENDPOINT, endpoint.id)
    return OWN_FORMAT if stated is None or stated.contract is None else stated.contract


def _judge(
    url: str,
    method: str,
    headers: tuple[tuple[str, str], ...],
    body: bytes,
    attempt: Attempt,
    private: tuple[str, ...],
    contract: Contract,
) -> DeliveryTrial:
    answer_status: int | None = None
    text, succeeded = "", False
    match attempt.observation:
        case AnswerReceived(status=status, body=answer):
            answer_status, text = status, answer[:SHOWN_BYTES].decode("utf-8", "replace")
            judgement = classify(attempt.observation, exposed=True, contract=contract)
            words = attempt_words(judgement.outcome, judgement.reason, status)
            understood = judgement.outcome in (AttemptOutcome.accepted, AttemptOutcome.refused)
            succeeded = understood and 200 <= status < 300
        case NoAnswer(reason=reason):
            words = f"Your server was reached but gave no complete answer: {reason}."
        case NotSent(reason=reason):
            words = f"Nothing was sent. {obstacle_words(reason)}"
    return DeliveryTrial(
        url=url,
        method=method,
        headers=headers,
        body=_show_body(body),
        status=answer_status,
        answer=mask_answer(text.encode(), private),
        words=words,
        succeeded=succeeded,
        attempt=attempt,
    )
