"""Sign and verify webhooks by Standard Webhooks 1.0, for which receivers find libraries in most languages."""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook, WebhookVerificationError

from marketplace.runtime import clock

SECRET_BYTES = 32  # the standard asks for 24 to 64


def new_secret() -> str:
    """Return a new random signing secret in the form that the receivers' libraries take: `whsec_…`."""
    return "whsec_" + base64.b64encode(clock.random_bytes(SECRET_BYTES)).decode()


def sign(secrets: tuple[str, ...], message_id: str, timestamp: datetime, body: bytes) -> dict[str, str]:
    """Return the three headers that prove who sent this body, and when.

    With two secrets, as during a rotation, there are two signatures, and the receiver may hold either secret. All
    retries have the same `message_id`, by which receivers recognise a repetition. `timestamp` is the attempt's own,
    because receivers refuse a message that is older than five minutes.

    Raises ValueError if there is no secret, if `timestamp` has no zone, if the id contains a dot (the separator of the
    signed fields), or if the body is not UTF-8.
    """
    if not secrets or timestamp.tzinfo is None or "." in message_id:
        raise ValueError("a signature needs a secret, a time with a zone, and an id without dots")
    utc = timestamp.astimezone(UTC)  # the library takes any time for UTC
    text = body.decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(utc.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, utc, text) for secret in secrets),
    }


_SIGNATURE: Final = re.compile(r"v1,[A-Za-z0-9+/]{43}=")
"A symmetric signature of 32 bytes, in the form of version 1 of the standard."


def is_signed(secrets: tuple[str, ...], headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether a holder of one of `secrets` signed this body within the last five minutes.

    Signatures of other versions and malformed ones are ignored.
    """
    signatures = [entry for entry in headers.get("webhook-signature", "").split() if _SIGNATURE.fullmatch(entry)]
    understood = {**headers, "webhook-signature": " ".join(signatures)}
    return any(_is_signed_with(secret, understood, body) for secret in secrets)


def _is_signed_with(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError):  # the second for signatures that are no base64, bodies no UTF-8
        return False
    return True
