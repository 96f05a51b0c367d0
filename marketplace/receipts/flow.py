"""Contents, signature and verification of a receipt, and of a proof of deletion.

The signature (Ed25519) covers the document without its `signature`, as JSON in UTF-8 with sorted keys, no spaces and
minimal escaping. The key pair is derived from the master key, so no other key has to be stored. A receipt can be
verified offline with the public key alone.
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

from marketplace.certificates import store as certificates_store
from marketplace.certificates.store import CertificateEvidence
from marketplace.database.db import Connection
from marketplace.receipts import store
from marketplace.receipts.store import ExposureSeal, ReceiptLead
from marketplace.runtime import ids
from marketplace.runtime.errors import NotExposedYet, NotFound, NotSealedYet
from marketplace.security.auth import CallerKind, Principal
from marketplace.security.sealing import derived_key

ALGORITHM: Final = "Ed25519"


class ReceiptBusiness(msgspec.Struct, frozen=True, kw_only=True):
    """The business that was shown the lead."""

    id: str
    name: str


class DecisionGrounds(msgspec.Struct, frozen=True, kw_only=True):
    """The decision that awarded the lead, and the versions of the rules that it applied."""

    id: str
    made_at: datetime
    vertical_version: int
    catalog_version: int
    subscription_version: int


class ReceiptEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence that the lead arrived. `body_sha256` is the hash of the exact body that was sent."""

    kind: str
    at: datetime
    body_sha256: str | None


class ReceiptCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate of consent: what its service said before the lead was shown.

    `token_sha256` is the hash of the certificate's address or UUID, `response_sha256` that of the service's answer.
    `contact_corrected`: the phone number or the address was corrected after the service had compared it.
    """

    kind: str
    state: str
    reason: str | None
    token_sha256: str
    settled_at: datetime | None
    response_sha256: str | None
    expires_at: datetime | None
    contact_corrected: bool = False


class ReceiptNotice(msgspec.Struct, frozen=True, kw_only=True):
    """A notice to the business after it was shown the lead: its person was erased or revoked consent, or facts changed.

    `acknowledged_at` is null until the business has acknowledged it.
    """

    kind: str
    made_at: datetime
    deadline_at: datetime
    acknowledged_at: datetime | None


class Exclusivity(msgspec.Struct, frozen=True, kw_only=True):
    """Number of times that the contact was shown to any business."""

    exposures: int


class ChainPosition(msgspec.Struct, frozen=True, kw_only=True):
    """Place of the exposure in the audit chain. `seal` is what to ask the operator to show in the chain."""

    block: int
    position: int
    row_sha256: str
    seal: str


class ReceiptStatement(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt without its signature: who was shown which fields of a lead, when, and by which decision.

    `fields` are names, never values. `address_sha256` is the hash of the address that the lead was sent to. The receipt
    of a provider has neither that, because an address is easily guessed, nor `business`; `chain` identifies the
    exposure. `decision` is null if a restored backup lacks it; `evidence` is null until there is proof of receipt.
    Receipts from before certificates of consent were kept have no `certificates`, and those from before notices were
    kept have no `notices`.
    """

    lead: str
    mode: str
    vertical: str
    business: ReceiptBusiness | None
    exposed_at: datetime
    channel: str
    address_sha256: str | None
    fields: tuple[str, ...]
    decision: DecisionGrounds | None
    evidence: ReceiptEvidence | None
    exclusive: Exclusivity
    chain: ChainPosition
    issued_at: datetime
    key_id: str
    certificates: tuple[ReceiptCertificate, ...] = ()
    notices: tuple[ReceiptNotice, ...] = ()


class Receipt(ReceiptStatement, frozen=True, kw_only=True):
    """A receipt: who was shown which fields of a lead, when, and that nobody else was. Signed with Ed25519."""

    signature: str


class DeletedLead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead that was erased for a person's request. `business` is the only one that was shown it, if there is one.

    `notice` is the state of the notice to that business: `acknowledged`, or `overdue` if it did not answer in time.
    """

    lead: str
    erased_at: datetime
    business: ReceiptBusiness | None
    notified_at: datetime | None
    notice: str | None
    acknowledged_at: datetime | None


class DeletionStatement(msgspec.Struct, frozen=True, kw_only=True):
    """A proof of deletion without its signature: the leads erased for a request, and the businesses that were told.

    `suppressed` says whether the person was suppressed as well, so that new inquiries are refused.
    """

    deletion_request: str
    mode: str
    received_at: datetime
    deadline_at: datetime
    erased_at: datetime
    done_at: datetime
    suppressed: bool
    leads: tuple[DeletedLead, ...]
    issued_at: datetime
    key_id: str


class DeletionProof(DeletionStatement, frozen=True, kw_only=True):
    """Proof that a person's request to be deleted was carried out. Signed with Ed25519, like a receipt."""

    signature: str


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """The public key that verifies every receipt and every proof of deletion."""

    key_id: str
    algorithm: str
    public_key: str


class ReceiptFault(StrEnum):
    """Reasons why a receipt or a proof of deletion is not valid."""

    unreadable = "unreadable"
    """This is neither a receipt nor a proof of deletion."""
    other_key = "other_key"
    """The document was signed with another key than this one."""
    changed = "changed"
    """The document was changed after it was signed."""


class Signer:
    """Signs receipts and proofs of deletion with the key that is derived from the master key."""

    def __init__(self, master_key: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(derived_key(master_key, "receipt-signature"))
        raw = self._key.public_key().public_bytes_raw()
        self.public = PublicKey(key_id=_key_id(raw), algorithm=ALGORITHM, public_key=_encode_base64(raw))

    def sign(self, statement: ReceiptStatement | DeletionStatement) -> bytes:
        """Return the signed document as canonical JSON."""
        fields = msgspec.to_builtins(statement)
        signature = _encode_base64(self._key.sign(canonical(fields)))
        return canonical({**fields, "signature": signature})


def canonical(value: Any) -> bytes:
    """Return the value as JSON with sorted keys and no spaces, which has only one form."""
    return msgspec.json.encode(value, order="sorted")


def check(document: bytes, public_key: bytes) -> Receipt | DeletionProof | ReceiptFault:
    """Return the receipt or the proof of deletion if its signature is valid, else the reason why not.

    Uses no network and no database. Raises ValueError if `public_key` is not 32 bytes.
    """
    key = Ed25519PublicKey.from_public_bytes(public_key)
    try:
        fields = json.loads(document, object_pairs_hook=_unique_fields)
        content = _read_document(fields)
        signature = base64.b64decode(content.signature, validate=True)
        signed = canonical({name: value for name, value in fields.items() if name != "signature"})
    except (ValueError, RecursionError, msgspec.ValidationError, binascii.Error):
        return ReceiptFault.unreadable
    if content.key_id != _key_id(public_key):
        return ReceiptFault.other_key
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return ReceiptFault.changed
    return content if _encode_base64(signature) == content.signature else ReceiptFault.changed


def _read_document(fields: Any) -> Receipt | DeletionProof:
    """Return the document by its fields: only a proof of deletion names a request. Raises ValidationError."""
    if isinstance(fields, dict) and "deletion_request" in fields:
        return msgspec.convert(fields, DeletionProof)
    return msgspec.convert(fields, Receipt)


async def issue(connection: Connection, signer: Signer, caller: Principal, lead_id: UUID, now: datetime) -> bytes:
    """Return the signed receipt of a lead, for a provider without the business and its address.

    Raises NotFound for a lead in which the caller has no part, NotExposedYet before the lead was shown, and
    NotSealedYet until the audit chain holds the exposure.
    """
    lead = await store.find_shown_lead(connection, lead_id)
    if lead is None or not _may_see(caller, lead):
        raise NotFound("There is no lead with this id that you have a part in.")
    if lead.committed_by is None:
        raise NotExposedYet("Nobody has been shown this lead. Ask again when it was delivered.")
    seal = await store.find_seal(connection, lead_id, lead.committed_by)
    if seal is None:
        raise NotSealedYet("The audit chain does not hold this exposure yet. Ask again in two seconds.")
    certificates = await certificates_store.list_of_lead(connection, lead_id)
    names_business = caller.kind is not CallerKind.provider
    statement = _statement(lead_id, lead, seal, names_business, now, signer.public.key_id)
    held = tuple(map(_certificate, certificates))
    notices = msgspec.convert(
        await store.list_notices(connection, lead_id), tuple[ReceiptNotice, ...], from_attributes=True
    )
    return signer.sign(msgspec.structs.replace(statement, certificates=held, notices=notices))


def _may_see(caller: Principal, lead: ReceiptLead) -> bool:
    """Return whether the caller may have the receipt: an operator, the lead's provider or its business, in its mode."""
    if not caller.sees(lead.mode):
        return False
    if caller.kind is CallerKind.operator:
        return True
    owner = lead.provider_id if caller.kind is CallerKind.provider else lead.business_id
    return caller.owner_id == owner


def _statement(
    lead_id: UUID, lead: ReceiptLead, seal: ExposureSeal, names_business: bool, now: datetime, key_id: str
) -> ReceiptStatement:
    """Return the contents of a receipt; without `names_business` it has neither the business nor its address."""
    business = {"id": _id("biz", lead.business_id), "name": lead.business_name} if names_business else None
    address_sha256 = _hex(lead.url_sha256) if names_business else None
    decision = lead.decision_id and {
        "id": _id("dec", lead.decision_id),
        "made_at": lead.made_at,
        "vertical_version": lead.vertical_version,
        "catalog_version": lead.catalog_version,
        "subscription_version": lead.subscription_version,
    }
    evidence = lead.evidence and {
        "kind": lead.evidence,
        "at": lead.evidence_at,
        "body_sha256": _hex(lead.body_sha256),
    }
    fields = {
        "lead": ids.encode("lead", lead_id),
        "mode": lead.mode,
        "vertical": lead.vertical,
        "business": business,
        "exposed_at": lead.exposed_at,
        "channel": lead.channel,
        "address_sha256": address_sha256,
        "fields": lead.fields,
        "decision": decision,
        "evidence": evidence,
        "exclusive": {"exposures": lead.exposures},
        "chain": {
            "block": seal.block,
            "position": seal.position,
            "row_sha256": _hex(seal.row_sha256),
            "seal": _hex(seal.seal),
        },
        "issued_at": now,
        "key_id": key_id,
    }
    return msgspec.convert(fields, ReceiptStatement)


def _certificate(certificate: CertificateEvidence) -> ReceiptCertificate:
    return ReceiptCertificate(
        kind=certificate.kind,
        state=certificate.state,
        reason=certificate.reason,
        token_sha256=certificate.token_sha256.hex(),
        settled_at=certificate.settled_at,
        response_sha256=_hex(certificate.response_sha256),
        expires_at=certificate.expires_at,
        contact_corrected=certificate.contact_corrected,
    )


def _id(kind: str, value: UUID | None) -> str | None:
    return ids.encode(kind, value) if value else None


def _hex(digest: bytes | None) -> str | None:
    return digest.hex() if digest else None


def _encode_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _key_id(public_key: bytes) -> str:
    """Return the first 16 hex digits of the key's SHA-256."""
    return sha256(public_key).hexdigest()[:16]


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict. Raises ValueError if a name occurs twice.

    Otherwise two readers could take different values of that name from the same signed receipt.
    """
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name occurs twice")
    return fields
