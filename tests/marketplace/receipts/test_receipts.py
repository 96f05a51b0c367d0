"""Receipts for business, provider and operator, and the refusal of a receipt that was changed."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from marketplace.receipts import command
from marketplace.receipts.flow import (
    ChainPosition,
    DecisionGrounds,
    Exclusivity,
    Receipt,
    ReceiptBusiness,
    ReceiptEvidence,
    ReceiptFault,
    ReceiptStatement,
    Signer,
    canonical,
    check,
)
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.security import audit
from marketplace.security.auth import CallerKind, create_key
from marketplace.security.sealing import Sealer
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace
from tests.builders.service import Served, serve
from tests.conftest import SECRETS
from tests.receivers import Receiver, ok, status
from tests.waiting import PATIENCE

SIGNER = Signer(bytes(range(32)))
PUBLIC_KEY = base64.b64decode(SIGNER.public.public_key)


class Shop:
    """A served marketplace with one buyer that has an endpoint, and keys for all kinds of callers."""

    def __init__(self, api: Served, market: Marketplace, buyer: Buyer, receiver: Receiver) -> None:
        self.api, self.market, self.buyer, self.receiver = api, market, buyer, receiver

    async def key(self, kind: CallerKind, owner_id: UUID | None = None, mode: str = "live") -> str:
        settings = self.market.settings
        async with self.market.owner.acquire() as connection:
            sealer = Sealer(settings.master_key, settings.pepper)
            return await create_key(connection, sealer, kind=kind, owner_id=owner_id, mode=mode, name="a test's")

    async def asked(
        self, lead_id: UUID, kind: CallerKind, owner_id: UUID | None = None, mode: str = "live"
    ) -> httpx.Response:
        key = await self.key(kind, owner_id, mode)
        return await self.api.call("GET", f"/v1/leads/{ids.encode('lead', lead_id)}/receipt", key=key)

    async def by_the_buyer(self, lead_id: UUID) -> httpx.Response:
        return await self.asked(lead_id, CallerKind.business, self.buyer.business_id)

    async def sealed(self, lead_id: UUID) -> httpx.Response:
        """Return the buyer's receipt as soon as the audit chain holds the exposure."""
        key = audit.seal_key(self.market.settings.master_key)
        async with asyncio.timeout(PATIENCE):
            while True:
                await audit.seal(self.market.owner, key)
                reply = await self.by_the_buyer(lead_id)
                if reply.status_code == 200 or reply.json()["code"] != "not_sealed_yet":
                    return reply
                await asyncio.sleep(0.05)


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Shop]:
    async with serve(settings) as api, marketplace(settings) as market, Receiver(ok) as receiver:
        yield Shop(api, market, await market.buyer(receiver.url, anywhere(priority=1)), receiver)


async def public_key(api: Served) -> bytes:
    reply = await api.call("GET", "/v1/receipt-key", key="")
    assert reply.status_code == 200
    return base64.b64decode(reply.json()["public_key"])


# --- who gets one -----------------------------------------------------------------------------------------------------


async def test_the_business_gets_a_receipt_of_exactly_what_it_was_shown(shop: Shop) -> None:
    lead_id = await shop.market.sold()
    reply = await shop.sealed(lead_id)
    assert (reply.status_code, reply.headers["cache-control"]) == (200, "no-store")
    held = check(reply.content, await public_key(shop.api))
    assert isinstance(held, Receipt)
    row = await shop.market.row("select * from exposure where lead_id = $1", lead_id)
    decision = await shop.market.row("select id, catalog_version from decision where lead_id = $1", lead_id)
    assert (held.lead, held.vertical, held.mode) == (ids.encode("lead", lead_id), "roofing", "live")
    assert held.business == ReceiptBusiness(id=ids.encode("biz", shop.buyer.business_id), name="Example Business")
    assert (held.exposed_at, held.channel) == (row["exposed_at"], "push")
    assert held.address_sha256 == row["url_sha256"].hex()
    assert held.decision is not None
    assert held.decision.id == ids.encode("dec", decision["id"])
    assert (held.decision.vertical_version, held.decision.subscription_version) == (1, 1)
    assert held.decision.catalog_version == decision["catalog_version"]
    assert held.evidence is not None
    assert held.evidence.kind == "answer"
    assert held.exclusive == Exclusivity(exposures=1)


async def test_a_receipt_names_the_fields_that_arrived_and_holds_none_of_their_values(shop: Shop) -> None:
    reply = await shop.sealed(await shop.market.sold())
    contact = json.loads(next(visit.body for visit in shop.receiver.visits if visit.body))["data"]["contact"]
    assert set(reply.json()["fields"]) == {name for name, value in contact.items() if value}
    texts = [contact["full_name"], contact["email"], contact["phone"], contact["street"]]
    assert [text for text in texts if text and text in reply.text] == []


async def test_the_digest_in_a_receipt_is_of_the_bytes_that_arrived(shop: Shop) -> None:
    reply = await shop.sealed(await shop.market.sold())
    assert reply.json()["evidence"]["body_sha256"] == sha256(shop.receiver.visits[0].body).hexdigest()


async def test_a_receipt_names_its_place_in_the_chain(shop: Shop) -> None:
    lead_id = await shop.market.sold()
    chain = (await shop.sealed(lead_id)).json()["chain"]
    block = await shop.market.row("select seal, entries from audit_block where number = $1", chain["block"])
    at = audit.ENTRY_BYTES * (chain["position"] - 1)
    entry = block["entries"][at : at + audit.ENTRY_BYTES]
    assert entry == b"e" + lead_id.bytes + bytes.fromhex(chain["row_sha256"])
    assert chain["seal"] == block["seal"].hex()


async def test_the_provider_gets_a_receipt_without_the_businesss_name_and_address(shop: Shop) -> None:
    lead_id = await shop.market.sold()
    theirs = (await shop.sealed(lead_id)).json()
    reply = await shop.asked(lead_id, CallerKind.provider, shop.market.provider.owner)
    ours = reply.json()
    assert isinstance(check(reply.content, await public_key(shop.api)), Receipt)
    assert (ours["business"], ours["address_sha256"]) == (None, None)
    assert "Example Business" not in reply.text
    assert theirs["business"]["id"] not in reply.text
    same = set(theirs) - {"business", "address_sha256", "issued_at", "signature"}
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}


async def test_a_receipt_says_what_became_of_the_certificate(shop: Shop) -> None:
    token = f"https://cert.trustedform.com/{'0f' * 20}"
    consent = roofing_body(now=clock.now())["consent"] | {"certificates": [token]}
    reply = await shop.sealed(await shop.market.sold(consent=consent))
    held = check(reply.content, await public_key(shop.api))
    assert isinstance(held, Receipt)
    [certificate] = held.certificates
    assert (certificate.kind, certificate.state, certificate.reason) == ("trustedform", "unanswered", "no_account")
    assert certificate.token_sha256 == sha256(token.encode()).hexdigest()
    assert token not in reply.text


async def test_a_receipt_says_when_the_business_was_told_of_a_stop_and_acknowledged_it(shop: Shop) -> None:
    lead_id = await shop.market.sold()
    body = {"lead_id": ids.encode("lead", lead_id), "reason": "said stop"}
    assert (await shop.api.call("POST", "/v1/revocations", body)).status_code == 201
    told = check((await shop.sealed(lead_id)).content, await public_key(shop.api))
    assert isinstance(told, Receipt)
    assert [(notice.kind, notice.acknowledged_at) for notice in told.notices] == [("revoked", None)]
    key = await shop.key(CallerKind.business, shop.buyer.business_id)
    [notice] = (await shop.api.call("GET", "/v1/notices", key=key)).json()["data"]
    await shop.api.call("POST", f"/v1/notices/{notice['id']}/acknowledge", key=key)
    acknowledged = check((await shop.sealed(lead_id)).content, await public_key(shop.api))
    assert isinstance(acknowledged, Receipt)
    assert acknowledged.notices[0].acknowledged_at is not None


async def test_an_operator_gets_the_whole_receipt(shop: Shop) -> None:
    lead_id = await shop.market.sold()
    theirs = (await shop.sealed(lead_id)).json()
    ours = (await shop.asked(lead_id, CallerKind.operator)).json()
    assert ours | {"issued_at": 0, "signature": ""} == theirs | {"issued_at": 0, "signature": ""}


async def test_nobody_else_learns_that_there_is_one(shop: Shop) -> None:
    lead_id = await shop.market.sold()
    assert (await shop.sealed(lead_id)).status_code == 200
    stranger = await shop.market.buyer(f"{shop.receiver.url}/other", anywhere(priority=2))
    other = await shop.market.another_provider()
    for reply in (
        await shop.asked(lead_id, CallerKind.business, stranger.business_id),
        await shop.asked(lead_id, CallerKind.provider, other.owner),
        await shop.asked(lead_id, CallerKind.business, shop.buyer.business_id, "test"),
        await shop.asked(clock.new_id(), CallerKind.business, shop.buyer.business_id),
        await shop.asked(clock.new_id(), CallerKind.operator),
    ):
        assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
    assert (await shop.api.call("GET", f"/v1/leads/{ids.encode('lead', lead_id)}/receipt", key="")).status_code == 401
    assert (await shop.api.call("GET", "/v1/leads/lead_x/receipt")).status_code == 404


# --- when there is none yet -------------------------------------------------------------------------------------------


async def test_a_lead_that_nobody_was_shown_has_no_receipt_yet(shop: Shop) -> None:
    receipt = await shop.market.submit()
    for kind, owner in ((CallerKind.operator, None), (CallerKind.provider, shop.market.provider.owner)):
        reply = await shop.asked(receipt.id, kind, owner)
        assert (reply.status_code, reply.json()["code"]) == (409, "not_exposed_yet")
        assert "retry-after" not in reply.headers
    assert (await shop.by_the_buyer(receipt.id)).status_code == 404


async def test_an_exposure_that_is_not_sealed_yet_has_its_receipt_in_a_moment(shop: Shop) -> None:
    lead_id = await shop.market.sold()
    reply = await shop.by_the_buyer(lead_id)
    assert (reply.status_code, reply.json()["code"], reply.headers["retry-after"]) == (409, "not_sealed_yet", "2")
    assert (await shop.sealed(lead_id)).status_code == 200


async def test_no_receipt_is_given_for_an_exposure_that_is_not_what_was_sealed(shop: Shop) -> None:
    lead_id = await shop.market.sold()
    assert (await shop.sealed(lead_id)).status_code == 200
    async with shop.market.owner.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        await connection.execute("update exposure set exposed_at = exposed_at - interval '1 day'")
    assert (await shop.by_the_buyer(lead_id)).json()["code"] == "not_sealed_yet"


async def test_a_lead_that_was_shown_and_never_acknowledged_has_a_receipt_without_evidence(settings: Settings) -> None:
    async with serve(settings) as api, marketplace(settings) as market, Receiver(status(500)) as receiver:
        shop = Shop(api, market, await market.buyer(receiver.url), receiver)
        reply = await shop.sealed(await market.sold())
        assert (reply.status_code, reply.json()["evidence"]) == (200, None)


# --- tampering --------------------------------------------------------------------------------------------------------


def statement(**changes: Any) -> ReceiptStatement:
    now = clock.now()
    standard: dict[str, Any] = {
        "lead": "lead_1",
        "mode": "live",
        "vertical": "roofing",
        "business": ReceiptBusiness(id="biz_1", name="Dächer & Söhne"),
        "exposed_at": now,
        "channel": "push",
        "address_sha256": "ab" * 32,
        "fields": ("full_name", "phone"),
        "decision": DecisionGrounds(
            id="dec_1", made_at=now, vertical_version=1, catalog_version=2, subscription_version=3
        ),
        "evidence": ReceiptEvidence(kind="answer", at=now, body_sha256=None),
        "exclusive": Exclusivity(exposures=1),
        "chain": ChainPosition(block=7, position=2, row_sha256="cd" * 32, seal="ef" * 32),
        "issued_at": now,
        "key_id": SIGNER.public.key_id,
    }
    return ReceiptStatement(**{**standard, **changes})


SIGNED = SIGNER.sign(statement())


def test_a_receipt_holds_as_it_was_given_and_however_it_is_laid_out() -> None:
    assert isinstance(check(SIGNED, PUBLIC_KEY), Receipt)
    assert isinstance(check(json.dumps(json.loads(SIGNED), indent=4).encode(), PUBLIC_KEY), Receipt)


@given(at=st.integers(0, len(SIGNED) - 1), bits=st.integers(1, 255))
def test_a_receipt_with_any_byte_changed_does_not_hold(at: int, bits: int) -> None:
    changed = SIGNED[:at] + bytes([SIGNED[at] ^ bits]) + SIGNED[at + 1 :]
    assert isinstance(check(changed, PUBLIC_KEY), ReceiptFault)


@given(name=st.text())
def test_any_json_library_can_check_the_signature(name: str) -> None:
    plain = json.loads(SIGNER.sign(statement(business=ReceiptBusiness(id="biz_1", name=name))))
    signature = base64.b64decode(plain.pop("signature"))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    Ed25519PublicKey.from_public_bytes(PUBLIC_KEY).verify(signature, text.encode())


def test_a_name_that_comes_twice_is_no_receipt() -> None:
    assert check(b'{"lead":"lead_2",' + SIGNED[1:], PUBLIC_KEY) is ReceiptFault.unreadable


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'"\\ud800"', SIGNED[:-1], canonical({"signature": "AA=="})]
)
def test_what_is_not_a_receipt_is_said_to_be_none(text: bytes) -> None:
    assert check(text, PUBLIC_KEY) is ReceiptFault.unreadable


def test_a_field_that_was_changed_or_added_is_noticed() -> None:
    for change in ({"lead": "lead_2"}, {"exclusive": {"exposures": 2}}, {"more": 1}, {"evidence": None}):
        assert check(canonical(json.loads(SIGNED) | change), PUBLIC_KEY) is ReceiptFault.changed


def test_a_receipt_of_another_marketplace_is_not_ours() -> None:
    other = Signer(bytes(32))
    foreign = other.sign(statement(key_id=other.public.key_id))
    assert check(foreign, PUBLIC_KEY) is ReceiptFault.other_key
    assert check(other.sign(statement()), PUBLIC_KEY) is ReceiptFault.changed  # it claims our key


def test_the_key_follows_from_the_master_key_and_tells_nothing_of_it() -> None:
    assert Signer(bytes(range(32))).public == SIGNER.public
    assert bytes(range(32)) != PUBLIC_KEY
    assert audit.seal_key(bytes(range(32))) not in (PUBLIC_KEY, bytes(range(32)))


# --- the commands -----------------------------------------------------------------------------------------------------


async def ran(group: Any, *arguments: str, settings: Settings | None = None) -> Result:
    environment: dict[str, str] = {}
    if settings is not None:
        urls = {"DATABASE_URL": str(settings.database_url), "VALKEY_URL": str(settings.valkey_url)}
        environment = SECRETS | urls | {"MARKETPLACE_DATA": str(settings.data_dir)}
    return await asyncio.to_thread(CliRunner().invoke, group, arguments, env=environment)


async def test_a_receipt_is_checked_offline_with_the_published_key(tmp_path: Path) -> None:
    file, result = tmp_path / "receipt.json", tmp_path / "result.json"
    file.write_bytes(SIGNED)
    outcome = await ran(command.receipt, "verify", str(file), "--key", SIGNER.public.public_key, "--json", str(result))
    assert (outcome.exit_code, "The receipt holds." in outcome.output) == (0, True)
    assert json.loads(result.read_bytes())["holds"] is True
    file.write_bytes(SIGNED.replace(b"lead_1", b"lead_2"))
    bad = await ran(command.receipt, "verify", str(file), "--key", SIGNER.public.public_key, "--json", str(result))
    assert (bad.exit_code, "changed after it was signed" in bad.output) == (1, True)
    assert json.loads(result.read_bytes()) == {"holds": False, "fault": "changed"}


async def test_a_receipt_is_checked_with_the_key_from_the_marketplace_itself(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    file.write_bytes((await shop.sealed(await shop.market.sold())).content)
    result = await ran(command.receipt, "verify", str(file), "--url", str(shop.api._client.base_url))
    assert (result.exit_code, "Example Business" in result.output) == (0, True), result.output


@pytest.mark.parametrize("options", [(), ("--key", "x", "--url", "https://example.org")])
async def test_one_way_to_the_key_has_to_be_given(tmp_path: Path, options: tuple[str, ...]) -> None:
    file = tmp_path / "receipt.json"
    file.write_bytes(SIGNED)
    assert (await ran(command.receipt, "verify", str(file), *options)).exit_code == 2


@pytest.mark.parametrize("options", [("--key", "QUJD"), ("--key", "?"), ("--url", "file:///etc/hostname")])
async def test_a_key_that_is_none_is_told_in_a_sentence(tmp_path: Path, options: tuple[str, ...]) -> None:
    file = tmp_path / "receipt.json"
    file.write_bytes(SIGNED)
    result = await ran(command.receipt, "verify", str(file), *options)
    assert type(result.exception).__name__ == "StartError"


async def test_the_audit_is_verified_from_the_command_line(shop: Shop, settings: Settings, tmp_path: Path) -> None:
    lead_id = await shop.market.sold()
    await shop.sealed(lead_id)
    file = tmp_path / "audit.json"
    clean = await ran(command.audit_, "verify", "--json", str(file), settings=settings)
    assert (clean.exit_code, clean.exception) == (0, None), clean.output
    head = json.loads(file.read_bytes())["head"]
    assert f"Head: {head}" in clean.output
    assert (await ran(command.audit_, "verify", "--head", head.upper(), settings=settings)).exit_code == 0
    cut = await ran(command.audit_, "verify", "--head", "00" * 32, settings=settings)
    assert (cut.exit_code, "was cut off or replaced" in cut.output) == (1, True)
    async with shop.market.owner.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        await connection.execute("update exposure set attempt_no = 7")
    outcome = await ran(command.audit_, "verify", settings=settings)
    assert outcome.exit_code == 1
    assert f"exposure {lead_id} in block" in outcome.output
    assert "was changed after it was sealed" in outcome.output
