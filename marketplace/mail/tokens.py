"""Signed tags for our own addresses and links, which need no row in the database.

A tag is in base 32 without padding, in lower case: mail servers may change the case of an address.
"""

import base64
import binascii
import hmac
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from marketplace.security.sealing import derived_key

MAC_BYTES: Final = 10
"80 bits: a guess succeeds once in 10^24, and an address with the tag stays within the 64 characters of RFC 5321."


class TokenPurpose(StrEnum):
    """Uses of a token; a token for one is not valid for another."""

    bounce_of_lead = "bounce_of_lead"
    "Tag of the sender address of a lead's message: the id of its assignment."
    bounce_of_mail = "bounce_of_mail"
    "Tag of the sender address of any other message: its id."
    confirm = "confirm"
    "Link that confirms the address of an endpoint."
    outcome = "outcome"
    "Link that shows the page on which the outcome of a lead is recorded."
    unsubscribe = "unsubscribe"
    "Link that ends the alerts to an address."


class LinkToken(msgspec.Struct, frozen=True, kw_only=True):
    """Content of a link: the id of its subject, the end of its validity, and a detail of at most 60 bytes."""

    subject: UUID
    expires_at: datetime
    detail: str = ""


class Tokens:
    """Signs and reads tokens with a key that is derived from the master key."""

    def __init__(self, master_key: bytes) -> None:
        self._key = derived_key(master_key, "mail")

    def tag(self, purpose: TokenPurpose, subject: UUID) -> str:
        """Return the tag of a sender address: 42 characters."""
        return self._sign(purpose, subject.bytes)

    def read_tag(self, purpose: TokenPurpose, text: str) -> UUID | None:
        """Return the id in a tag, or None if it was not signed here for this purpose."""
        payload = self._read(purpose, text)
        return None if payload is None or len(payload) != 16 else UUID(bytes=payload)

    def link(self, purpose: TokenPurpose, token: LinkToken) -> str:
        """Return the text of a link's token."""
        seconds = int(token.expires_at.timestamp())
        return self._sign(purpose, token.subject.bytes + seconds.to_bytes(5) + token.detail.encode())

    def read_link(self, purpose: TokenPurpose, text: str, now: datetime) -> LinkToken | None:
        """Return the content of a link, or None if it was not signed here for this purpose or has expired."""
        payload = self._read(purpose, text)
        if payload is None or len(payload) < 21:
            return None
        expires_at = datetime.fromtimestamp(int.from_bytes(payload[16:21]), UTC)
        if now >= expires_at:
            return None
        return LinkToken(subject=UUID(bytes=payload[:16]), expires_at=expires_at, detail=payload[21:].decode())

    def _sign(self, purpose: TokenPurpose, payload: bytes) -> str:
        return base64.b32encode(payload + self._mac(purpose, payload)).decode().rstrip("=").lower()

    def _read(self, purpose: TokenPurpose, text: str) -> bytes | None:
        """Return the signed payload, or None."""
        try:
            signed = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
        except (binascii.Error, ValueError):
            return None
        payload, mac = signed[:-MAC_BYTES], signed[-MAC_BYTES:]
        return payload if hmac.compare_digest(mac, self._mac(purpose, payload)) else None

    def _mac(self, purpose: TokenPurpose, payload: bytes) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b":" + payload, "sha256")[:MAC_BYTES]
