"""A receipt: what it says, how it is signed, how anybody checks it without us.

The signature (Ed25519) is over the receipt without its `signature`, as JSON in UTF-8 with sorted keys, no spaces and
nothing escaped that need not be. The key pair follows from the master key, so that there is none to keep or to lose.
"""

import base64
import binascii
import json
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from marketplace import ids
from marketplace.auth import Kind, Principal
from marketplace.db import Connection
from marketplace.errors import NotExposedYet, NotFound, NotSealedYet
from marketplace.receipts import store
from marketplace.receipts.store import Seal, ShownLead
from marketplace.sealing import derived_key

ALGORITHM: Final = "Ed25519"


class Business(msgspec.Struct, frozen=True, kw_only=True):
    """Who was shown the lead."""

    id: str
    name: str


class Grounds(msgspec.Struct, frozen=True, kw_only=True):
    """The decision that gave the lead away, and the versions of the rules that it was made by."""

    id: str
    made_at: datetime
    vertical_version: int
    catalog_version: int
    subscription_version: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """How we know that it arrived; `body_sha256` is of the very bytes that were sent, for whoever kept them."""

    kind: str
    at: datetime
    body_sha256: str | None


class Exclusive(msgspec.Struct, frozen=True, kw_only=True):
    """How often the contact was shown to anybody at all."""

    exposures: int


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """The exposure in the audit chain. Whoever keeps `seal` can have the operator show that the chain holds it."""

    block: int
    position: int
    row_sha256: str
    seal: str


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in a receipt but the signature: who was shown which fields of a lead, when, and under which decision.

    `fields` are names, never values. `address_sha256` is the digest of the address it went to. A provider gets neither
    this, because an address is easily guessed, nor `business`: `chain` says which exposure it was. `decision` is null
    when a restored backup had lost it; `evidence` until the business has the lead for certain.
    """

    lead: str
    mode: str
    vertical: str
    business: Business | None
    exposed_at: datetime
    channel: str
    address_sha256: str | None
    fields: tuple[str, ...]
    decision: Grounds | None
    evidence: Evidence | None
    exclusive: Exclusive
    chain: Position
    issued_at: datetime
    key_id: str


class Receipt(Statement, frozen=True, kw_only=True):
    """A receipt: who was shown which fields of a lead, when, and that nobody else was. Signed with Ed25519."""

    signature: str


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key that every receipt can be checked with."""

    key_id: str
    algorithm: str
    public_key: str


class ReceiptFault(StrEnum):
    """Why a receipt does not hold."""

    unreadable = "unreadable"
    """This is not a receipt."""
    other_key = "other_key"
    """The receipt was signed with another key than the one given."""
    changed = "changed"
    """The receipt was changed after it was signed."""


class Signer:
    """Signs receipts with the one key that follows from the master key."""

    def __init__(self, master_key: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(derived_key(master_key, "receipt-signature"))
        raw = self._key.public_key().public_bytes_raw()
        self.public = PublicKey(key_id=_key_id(raw), algorithm=ALGORITHM, public_key=_text(raw))

    def sign(self, statement: Statement) -> bytes:
        """The receipt as JSON, itself in the form that is signed."""
        plain = msgspec.to_builtins(statement)
        signature = _text(self._key.sign(canonical(plain)))
        return canonical({**plain, "signature": signature})


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: one value, one run of bytes."""
    return msgspec.json.encode(value, order="sorted")


def check(receipt: bytes, public_key: bytes) -> Receipt | ReceiptFault:
    """The receipt if it holds, else why not. Needs nothing but the two: no network, no database.

    Raises ValueError when `public_key` is not 32 bytes.
    """
    key = Ed25519PublicKey.from_public_bytes(public_key)
    try:
        plain = json.loads(receipt, object_pairs_hook=_once)
        found = msgspec.convert(plain, Receipt)
        signature = base64.b64decode(found.signature, validate=True)
        signed = canonical({name: value for name, value in plain.items() if name != "signature"})
    except (ValueError, RecursionError, msgspec.ValidationError, binascii.Error):
        return ReceiptFault.unreadable
    if found.key_id != _key_id(public_key):
        return ReceiptFault.other_key
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return ReceiptFault.changed
    return found if _text(signature) == found.signature else ReceiptFault.changed


async def issue(connection: Connection, signer: Signer, caller: Principal, lead_id: UUID, now: datetime) -> bytes:
    """The signed receipt as the caller may have it.

    Raises NotFound for a lead that is not the caller's, NotExposedYet, NotSealedYet.
    """
    lead = await store.find_shown_lead(connection, lead_id)
    if lead is None or not _has_part(caller, lead):
        raise NotFound("There is no lead with this id that you have a part in.")
    if lead.committed_by is None:
        raise NotExposedYet("Nobody has been shown this lead. Ask again when it was delivered.")
    seal = await store.find_seal(connection, lead_id, lead.committed_by)
    if seal is None:
        raise NotSealedYet("The audit chain does not hold this exposure yet. Ask again in two seconds.")
    return signer.sign(_statement(lead_id, lead, seal, caller.kind is Kind.provider, now, signer.public.key_id))


def _has_part(caller: Principal, lead: ShownLead) -> bool:
    if not caller.sees(lead.mode):
        return False
    if caller.kind is Kind.operator:
        return True
    owner = lead.provider_id if caller.kind is Kind.provider else lead.business_id
    return caller.owner_id == owner


def _statement(lead_id: UUID, lead: ShownLead, seal: Seal, nameless: bool, now: datetime, key_id: str) -> Statement:
    return msgspec.convert({
        "lead": ids.encode("lead", lead_id),
        "mode": lead.mode,
        "vertical": lead.vertical,
        "business": None if nameless else {"id": _id("biz", lead.business_id), "name": lead.business_name},
        "exposed_at": lead.exposed_at,
        "channel": lead.channel,
        "address_sha256": None if nameless else _hex(lead.url_sha256),
        "fields": lead.fields,
        "decision": lead.decision_id and {
            "id": _id("dec", lead.decision_id), "made_at": lead.made_at, "vertical_version": lead.vertical_version,
            "catalog_version": lead.catalog_version, "subscription_version": lead.subscription_version,
        },
        "evidence": lead.evidence and {
            "kind": lead.evidence, "at": lead.evidence_at, "body_sha256": _hex(lead.body_sha256),
        },
        "exclusive": {"exposures": lead.exposures},
        "chain": {
            "block": seal.block, "position": seal.position, "row_sha256": _hex(seal.row_sha256),
            "seal": _hex(seal.seal),
        },
        "issued_at": now,
        "key_id": key_id,
    }, Statement)  # fmt: skip


def _id(kind: str, value: UUID | None) -> str | None:
    return ids.encode(kind, value) if value else None


def _hex(digest: bytes | None) -> str | None:
    return digest.hex() if digest else None


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _key_id(public_key: bytes) -> str:
    return sha256(public_key).hexdigest()[:16]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A name that comes twice could be read as either; a signature over one of them would cover the other."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found
