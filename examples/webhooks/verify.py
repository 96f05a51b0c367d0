"""Verify a webhook of the marketplace: `verify` raises ValueError unless it is signed and at most 5 minutes old.

Uses Python's standard library alone. Pass the body as it came, before any JSON is read.
"""

import base64
import binascii
import hashlib
import hmac
import os
import sys
import time
from collections.abc import Mapping

TOLERANCE_SECONDS = 300


def verify(secret: str, headers: Mapping[str, str], body: bytes) -> None:
    """Raise ValueError unless one of the signatures is ours. `headers` have lower-case names."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        raise ValueError("the timestamp is missing or more than 5 minutes away")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    for signature in headers.get("webhook-signature", "").split():
        version, _, text = signature.partition(",")
        try:
            decoded = base64.b64decode(text, validate=True)
        except binascii.Error:
            continue
        if version == "v1" and hmac.compare_digest(decoded, expected):
            return
    raise ValueError("no signature fits")


if __name__ == "__main__":
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    received = {name: os.environ[name.upper().replace("-", "_")] for name in names}
    try:
        verify(os.environ["SECRET"], received, sys.stdin.buffer.read())
    except ValueError as error:
        sys.exit(f"refused: {error}")
    print("verified")
