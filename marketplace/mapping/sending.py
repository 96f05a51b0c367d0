"""Send one request to a mapped endpoint by hand: an invented lead that proves the endpoint, or a lead once more."""

from collections.abc import Callable, Mapping
from typing import Final

from marketplace.mapping.requests import authorize, build_request
from marketplace.mapping.shapes import ClientCredentials, Credentials, RequestMapping
from marketplace.mapping.template import compile_template
from marketplace.mapping.tokens import AccessTokens
from marketplace.mapping.variables import FULL
from marketplace.webhook.address import AddressRules
from marketplace.webhook.transport import Attempt, ConnectionInfo, WebhookMessage, post
from routing.delivery import NotSent, NotSentReason

DEADLINE_SECONDS: Final = 10.0
"Shorter than that of a delivery, because a person waits for the page."


def example_body(mapping: RequestMapping, vertical: str | None = None) -> bytes:
    """Return the body for an invented lead that has everything. Raises TemplateFault."""
    lead = FULL["lead"]
    assert isinstance(lead, dict)
    example = {**FULL, "lead": lead | ({} if vertical is None else {"vertical": vertical})}
    return compile_template(mapping.format, mapping.body).render(example)


async def send_mapped(
    url: str,
    guard: AddressRules,
    mapping: RequestMapping,
    credentials: Credentials | None,
    body: bytes,
    sign: Callable[[bytes], Mapping[str, str]],
) -> tuple[WebhookMessage | None, Attempt]:
    """Send a body, and return the message, None if nothing was sent, with the attempt. `sign` returns our headers."""
    token = None
    if isinstance(credentials, ClientCredentials):
        token = await AccessTokens(guard).find(credentials)
        if token is None:
            obstacle = NotSent(reason=NotSentReason.authorization_failed)
            return None, Attempt(observation=obstacle, total_ms=0.0)
    messages: list[WebhookMessage] = []

    async def message(_: ConnectionInfo) -> WebhookMessage:
        messages.append(build_request(mapping, body, sign(body), authorize(credentials, token)))
        return messages[-1]

    attempt = await post(url, guard=guard, on_connected=message, deadline_seconds=DEADLINE_SECONDS)
    return (messages[0] if messages else None), attempt
