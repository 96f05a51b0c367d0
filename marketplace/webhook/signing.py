"""Signatures on webhooks by Standard Webhooks 1.0, so that receivers verify them with libraries that exist already."""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook, WebhookVerificationError

from marketplace import clock

SECRET_BYTES = 32  # the standard asks for 24 to 64


def new_secret() -> str:
    """A fresh signing secret in the form that receivers paste into their library: `whsec_…`."""
    return "whsec_" + base64.b64encode(clock.random_bytes(SECRET_BYTES)).decode()


def sign(secrets: tuple[str, ...], message_id: str, timestamp: datetime, body: bytes) -> dict[str, str]:
    """The three headers that prove who sent exactly this body, and when.

    With two secrets, as during a rotation, there are two signatures and the receiver may hold either secret. The same
    `message_id` on every retry is what receivers tell repetitions by; `timestamp` is the attempt's own, because they
    refuse what is older than five minutes. Raises ValueError if there is no secret, if `timestamp` has no zone, if the
    id holds a dot (which parts the signed fields), or if the body is not UTF-8.
    """
    if not secrets or timestamp.tzinfo is None or "." in message_id:
        raise ValueError("a signature needs a secret, a time with a zone, and an id without dots")
    utc = timestamp.astimezone(UTC)  # the library reads whatever it is given as UTC
    text = body.decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(utc.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, utc, text) for secret in secrets),
    }


_SIGNATURE: Final = re.compile(r"v1,[A-Za-z0-9+/]{43}=")
"A symmetric signature of 32 bytes, as version 1 of the standard spells one."


def is_signed(secrets: tuple[str, ...], headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the three headers prove that a holder of one of `secrets` sent this body within the last five minutes.

    A list of signatures may hold any that we do not understand, of other versions or malformed: each is passed over.
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
