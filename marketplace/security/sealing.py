"""Encryption of contact data and signing secrets: AES-256-GCM, with a data key per lead, wrapped by the master key.

Erasing a person deletes one data key: the contact sealed under it is unreadable afterwards, in backups too. The lead's
id is authenticated with the ciphertext, so that a contact moved to another lead's row does not open.
"""

import hashlib
import hmac
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from marketplace.runtime import clock

NONCE_BYTES: Final = 12
"96 random bits, the size defined for GCM; a data key seals a contact and two claims, so that no nonce repeats."


class RotatingSecret(Protocol):
    """A sealed secret, and the previous one, which stays valid until `previous_until`. Either may be absent."""

    @property
    def secret(self) -> bytes | None: ...

    @property
    def previous_secret(self) -> bytes | None: ...

    @property
    def previous_until(self) -> datetime | None: ...


class SealedBox(msgspec.Struct, frozen=True, kw_only=True):
    """Sealed data of one lead, the wrapped data key, and the id of the master key that wrapped it."""

    box: bytes
    wrapped: bytes
    master_key_id: str


class SealedContact(SealedBox, frozen=True, kw_only=True):
    """A sealed contact, and its corrections in their order: each the fields that replace the earlier ones."""

    corrections: tuple[SealedBox, ...] | None = None


class Sealer:
    """Encryption with one master key, and hashing of persons with one pepper. Neither enters the database."""

    def __init__(self, master_key: bytes, pepper: bytes) -> None:
        self._master = AESGCM(master_key)
        self._pepper = pepper
        self.master_key_id = hashlib.sha256(b"master-key-id:" + master_key).hexdigest()[:16]

    def seal_contact(self, lead_id: UUID, plain: bytes) -> SealedContact:
        """Return the contact sealed under a new data key and bound to the lead."""
        data_key = AESGCM.generate_key(bit_length=256)
        return SealedContact(
            box=_encrypt(AESGCM(data_key), plain, lead_id.bytes),
            wrapped=_encrypt(self._master, data_key, b"data-key:" + lead_id.bytes),
            master_key_id=self.master_key_id,
        )

    def open_contact(self, lead_id: UUID, sealed: SealedContact) -> bytes:
        """Return the plain contact, corrected, as JSON.

        Raises cryptography's InvalidTag when box, key and lead do not match.
        """
        return self._correct(lead_id, self._open(lead_id, sealed), sealed)

    def _correct(self, lead_id: UUID, plain: bytes, sealed: SealedContact) -> bytes:
        """Return a JSON object with the fields of the corrections in place of its own."""
        if not sealed.corrections:
            return plain
        fields: dict[str, msgspec.Raw] = msgspec.json.decode(plain, type=dict[str, msgspec.Raw])
        for correction in sealed.corrections:
            fields |= msgspec.json.decode(self._open(lead_id, correction), type=dict[str, msgspec.Raw])
        return msgspec.json.encode(fields)

    def _open(self, lead_id: UUID, sealed: SealedBox) -> bytes:
        return _decrypt(AESGCM(self._data_key(lead_id, sealed)), sealed.box, lead_id.bytes)

    def seal_claim(self, lead_id: UUID, contact: SealedContact, plain: bytes) -> bytes:
        """Return a certificate's claim sealed under the data key of the lead's contact, to be erased with it."""
        return _encrypt(AESGCM(self._data_key(lead_id, contact)), plain, b"claim:" + lead_id.bytes)

    def open_claim(self, lead_id: UUID, sealed: SealedContact) -> bytes:
        """Return the plain claim as JSON, with the corrected contact. Raises InvalidTag as `open_contact` does."""
        plain = _decrypt(AESGCM(self._data_key(lead_id, sealed)), sealed.box, b"claim:" + lead_id.bytes)
        return self._correct(lead_id, plain, sealed)

    def _data_key(self, lead_id: UUID, sealed: SealedBox) -> bytes:
        return _decrypt(self._master, sealed.wrapped, b"data-key:" + lead_id.bytes)

    def seal_secret(self, owner: UUID, secret: str) -> bytes:
        """Return the secret sealed under the master key and bound to its owner."""
        return _encrypt(self._master, secret.encode(), b"secret:" + owner.bytes)

    def open_secret(self, owner: UUID, box: bytes) -> str:
        """Return the plain secret. Raises cryptography's InvalidTag when box and owner do not match."""
        return _decrypt(self._master, box, b"secret:" + owner.bytes).decode()

    def seal_credentials(self, endpoint_id: UUID, credentials: bytes) -> bytes:
        """Return an endpoint's credentials sealed under the master key and bound to it."""
        return _encrypt(self._master, credentials, b"credentials:" + endpoint_id.bytes)

    def open_credentials(self, endpoint_id: UUID, box: bytes) -> bytes:
        """Return the plain credentials. Raises cryptography's InvalidTag when box and endpoint do not match."""
        return _decrypt(self._master, box, b"credentials:" + endpoint_id.bytes)

    def open_secrets(self, owner: UUID, sealed: RotatingSecret, now: datetime) -> tuple[str, ...]:
        """Return the plain current secret, and during a rotation the previous one as well.

        Raises cryptography's InvalidTag when a box and the owner do not match.
        """
        rotating = sealed.previous_until is not None and now < sealed.previous_until
        boxes = (sealed.secret, sealed.previous_secret if rotating else None)
        return tuple(self.open_secret(owner, box) for box in boxes if box is not None)

    def seal_file(self, import_id: UUID, content: bytes) -> bytes:
        """Return a file sealed under the master key, to be stored until its import ends."""
        return _encrypt(self._master, content, b"file:" + import_id.bytes)

    def open_file(self, import_id: UUID, box: bytes) -> bytes:
        """Return the plain file. Raises cryptography's InvalidTag when box and import do not match."""
        return _decrypt(self._master, box, b"file:" + import_id.bytes)

    def keyed_hash(self, purpose: str, value: str) -> bytes:
        """Return HMAC-SHA-256 under the pepper: a plain hash of a ten-digit telephone number is reversed in minutes."""
        return hmac.digest(self._pepper, f"{purpose}:{value}".encode(), "sha256")


def derived_key(master_key: bytes, purpose: str) -> bytes:
    """Return 32 bytes for `purpose` that are derived from the master key and do not reveal it (HKDF-SHA-256)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"marketplace:{purpose}".encode()).derive(master_key)


def _encrypt(key: AESGCM, plain: bytes, bound_to: bytes) -> bytes:
    nonce = clock.random_bytes(NONCE_BYTES)
    return nonce + key.encrypt(nonce, plain, bound_to)


def _decrypt(key: AESGCM, box: bytes, bound_to: bytes) -> bytes:
    return key.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], bound_to)
