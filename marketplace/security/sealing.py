"""Contact data and signing secrets at rest: AES-256-GCM, a data key of its own per lead, wrapped by the master key.

Erasing a person is destroying one data key: what was sealed under it is then noise, wherever copies of it lie. The
lead's id is authenticated with the box, so that a sealed contact moved to another lead's row does not open.
"""

import hashlib
import hmac
from typing import Final
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from marketplace.runtime import clock

NONCE_BYTES: Final = 12
"96 random bits, the size GCM is defined for; a data key seals once, so no nonce is ever used twice with one key."


class SealedContact(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed contact, its wrapped data key and which master key wrapped it."""

    box: bytes
    wrapped: bytes
    master_key_id: str


class Sealer:
    """Seals and opens with one master key; hashes persons with one pepper. Neither ever enters the database."""

    def __init__(self, master_key: bytes, pepper: bytes) -> None:
        self._master = AESGCM(master_key)
        self._pepper = pepper
        self.master_key_id = hashlib.sha256(b"master-key-id:" + master_key).hexdigest()[:16]

    def seal_contact(self, lead_id: UUID, plain: bytes) -> SealedContact:
        data_key = AESGCM.generate_key(bit_length=256)
        return SealedContact(
            box=_encrypt(AESGCM(data_key), plain, lead_id.bytes),
            wrapped=_encrypt(self._master, data_key, b"data-key:" + lead_id.bytes),
            master_key_id=self.master_key_id,
        )

    def open_contact(self, lead_id: UUID, sealed: SealedContact) -> bytes:
        """Raises cryptography's InvalidTag when box, key or lead do not belong together."""
        data_key = _decrypt(self._master, sealed.wrapped, b"data-key:" + lead_id.bytes)
        return _decrypt(AESGCM(data_key), sealed.box, lead_id.bytes)

    def seal_secret(self, owner: UUID, secret: str) -> bytes:
        return _encrypt(self._master, secret.encode(), b"secret:" + owner.bytes)

    def open_secret(self, owner: UUID, box: bytes) -> str:
        return _decrypt(self._master, box, b"secret:" + owner.bytes).decode()

    def seal_file(self, import_id: UUID, content: bytes) -> bytes:
        """A file that is kept until its import ends."""
        return _encrypt(self._master, content, b"file:" + import_id.bytes)

    def open_file(self, import_id: UUID, box: bytes) -> bytes:
        """Raises cryptography's InvalidTag when box and import do not belong together."""
        return _decrypt(self._master, box, b"file:" + import_id.bytes)

    def keyed_hash(self, purpose: str, value: str) -> bytes:
        """HMAC-SHA-256 under the pepper: without it, a hash of a ten-digit phone is reversed in minutes."""
        return hmac.digest(self._pepper, f"{purpose}:{value}".encode(), "sha256")


def derived_key(master_key: bytes, purpose: str) -> bytes:
    """32 bytes that the master key alone gives for `purpose`, and that give nothing of it away (HKDF-SHA-256)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"marketplace:{purpose}".encode()).derive(master_key)


def _encrypt(key: AESGCM, plain: bytes, bound_to: bytes) -> bytes:
    nonce = clock.random_bytes(NONCE_BYTES)
    return nonce + key.encrypt(nonce, plain, bound_to)


def _decrypt(key: AESGCM, box: bytes, bound_to: bytes) -> bytes:
    return key.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], bound_to)
