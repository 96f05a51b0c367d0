"""Verify that a business controls an endpoint: its server must return the text of a signed challenge.

No lead is sent to an endpoint before that. The challenge has no contact data.
"""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, assert_never
from uuid import UUID

import msgspec

from marketplace.runtime import clock, ids
from marketplace.webhook.address import AddressRules
from marketplace.webhook.signing import sign
from marketplace.webhook.transport import ConnectionInfo, WebhookMessage, post
from routing.delivery import AnswerReason, AnswerReceived, NoAnswer, NotSent, NotSentReason, Observation

DEADLINE_SECONDS: Final = 10.0
"Time for the whole challenge, since a person waits for the result; a slower server would be too slow for leads."
CHALLENGE_BYTES: Final = 24


class ChallengeData(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint, and the random text that its server must return."""

    endpoint_id: str
    challenge: str


class ChallengeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Verifies that an endpoint is yours. The expected answer is a 2xx with `{"challenge": "<the same text>"}`."""

    type: Literal["endpoint.challenge"] = "endpoint.challenge"
    timestamp: datetime
    data: ChallengeData


class _Echo(msgspec.Struct, frozen=True):
    challenge: str


async def challenge(endpoint_id: UUID, url: str, secrets: Sequence[str], guard: AddressRules) -> str | None:
    """Send one challenge, and return None if it was met, else a code and a sentence for the endpoint's owner."""
    expected = base64.urlsafe_b64encode(clock.random_bytes(CHALLENGE_BYTES)).decode()

    async def message(_: ConnectionInfo) -> WebhookMessage:
        now = clock.now()
        data = ChallengeData(endpoint_id=ids.encode("whe", endpoint_id), challenge=expected)
        body = msgspec.json.encode(ChallengeEvent(timestamp=now, data=data))
        signature = sign(tuple(secrets), ids.encode("evt", clock.new_id()), now, body)
        return WebhookMessage(headers=(("content-type", "application/json"), *signature.items()), body=body)

    attempt = await post(url, guard=guard, on_connected=message, deadline_seconds=DEADLINE_SECONDS)
    return judge(attempt.observation, expected)


def judge(observation: Observation, expected: str) -> str | None:
    """Return None if the answer meets the challenge, else a code and a sentence; it quotes nothing from the server."""
    match observation:
        case NotSent(reason=reason):
            return obstacle_words(reason)
        case NoAnswer(reason=reason):
            return f"{reason}: the server was reached and gave no whole answer in {DEADLINE_SECONDS:.0f} seconds."
        case AnswerReceived(status=status) if not 200 <= status < 300:
            return f"status_{status}: the server answered {status}; a 2xx is needed, and redirects are not followed."
        case AnswerReceived(truncated=True):
            return f"{AnswerReason.cut_off}: the answer ended before it was complete."
        case AnswerReceived(content_coding=coding) if coding not in ("", "identity"):
            return f"{AnswerReason.compressed}: the answer is compressed; please answer without Content-Encoding."
        case AnswerReceived(body=body):
            return None if _read_echo(body) == expected else f"challenge_not_returned: {_ANSWER_WANTED}"
        case _:
            assert_never(observation)


_OBSTACLES: Final = {
    NotSentReason.connect_refused: "your server refused the connection.",
    NotSentReason.connect_timeout: "your server did not take the connection in time.",
    NotSentReason.connect_failed: "the network could not reach your server.",
    NotSentReason.tls_certificate_expired: "the certificate is past its end, or before its beginning.",
    NotSentReason.tls_wrong_host: "the certificate is for another host name.",
    NotSentReason.tls_certificate_untrusted: "the certificate is self-signed, or its issuer is not trusted.",
    NotSentReason.tls_failed: "the secure connection could not be made: offer TLS 1.2 or later.",
    NotSentReason.tls_timeout: "the secure connection was not made in time.",
    NotSentReason.mapping_failed: "the template could not be filled in.",
    NotSentReason.authorization_failed: "the server that gives tokens gave none: check the client's id and secret.",
}


def obstacle_words(reason: NotSentReason) -> str:
    """Return a code and a sentence that tell the endpoint's owner why nothing was sent.

    It has no name and no address, and an unknown name gets the same text as one that leads to a private address: nobody
    can find out by trying which names and addresses our own network has.
    """
    if reason in (NotSentReason.dns_failed, NotSentReason.address_refused, NotSentReason.url_refused):
        return "no_public_address: the host name does not lead to a server on the public internet."
    return f"{reason}: {_OBSTACLES.get(reason, 'nothing was sent.')}"


_ANSWER_WANTED: Final = 'answer with the JSON {"challenge": "…"} and the value of data.challenge in it.'


def _read_echo(body: bytes) -> str | None:
    """Return the `challenge` in the answer's JSON, or None."""
    try:
        return msgspec.json.decode(body, type=_Echo).challenge
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
