"""Sealed data opens with the right key at the right place alone, and keyed hashes cannot be guessed."""

from uuid import UUID, uuid4

import msgspec
import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from marketplace.security.sealing import NONCE_BYTES, Sealer

SEALER = Sealer(bytes(range(32)), bytes(range(32, 64)))
LEAD = UUID(int=1)
PLAIN = b'{"full_name":"Robin Example"}'


@given(st.uuids(), st.binary(max_size=10_000))
def test_a_contact_opens_as_it_was_sealed(lead_id: UUID, plain: bytes) -> None:
    assert SEALER.open_contact(lead_id, SEALER.seal_contact(lead_id, plain)) == plain


@given(st.uuids(), st.text(max_size=200).filter(lambda text: text.isprintable()))
def test_a_secret_opens_as_it_was_sealed(owner: UUID, secret: str) -> None:
    assert SEALER.open_secret(owner, SEALER.seal_secret(owner, secret)) == secret


def test_a_contact_moved_to_another_lead_does_not_open() -> None:
    sealed = SEALER.seal_contact(LEAD, PLAIN)
    with pytest.raises(InvalidTag):
        SEALER.open_contact(uuid4(), sealed)


def test_a_box_does_not_open_with_another_leads_data_key() -> None:
    mixed = msgspec.structs.replace(SEALER.seal_contact(LEAD, PLAIN), wrapped=SEALER.seal_contact(LEAD, PLAIN).wrapped)
    with pytest.raises(InvalidTag):
        SEALER.open_contact(LEAD, mixed)


@pytest.mark.parametrize("field", ["box", "wrapped"])
@pytest.mark.parametrize("place", [0, NONCE_BYTES, -1])
def test_one_changed_bit_anywhere_is_noticed(field: str, place: int) -> None:
    sealed = SEALER.seal_contact(LEAD, PLAIN)
    damaged = bytearray(getattr(sealed, field))
    damaged[place] ^= 1
    with pytest.raises(InvalidTag):
        SEALER.open_contact(LEAD, msgspec.structs.replace(sealed, **{field: bytes(damaged)}))


def test_another_master_key_opens_nothing_and_has_another_name() -> None:
    other = Sealer(bytes(range(1, 33)), bytes(range(32, 64)))
    assert other.master_key_id != SEALER.master_key_id
    with pytest.raises(InvalidTag):
        other.open_contact(LEAD, SEALER.seal_contact(LEAD, PLAIN))
    with pytest.raises(InvalidTag):
        other.open_secret(LEAD, SEALER.seal_secret(LEAD, "whsec_x"))


def test_a_secret_is_no_contact_and_a_contacts_key_no_secret() -> None:
    with pytest.raises(InvalidTag):
        SEALER.open_secret(LEAD, SEALER.seal_contact(LEAD, PLAIN).wrapped)


def test_sealing_the_same_twice_looks_different_and_nothing_of_it_shines_through() -> None:
    boxes = [SEALER.seal_contact(LEAD, PLAIN) for _ in range(500)]
    for field in ("box", "wrapped"):
        nonces = {getattr(sealed, field)[:NONCE_BYTES] for sealed in boxes}
        assert len(nonces) == len(boxes)
    assert not any(b"Robin" in sealed.box for sealed in boxes)
    assert all(len(sealed.box) == NONCE_BYTES + len(PLAIN) + 16 for sealed in boxes)


def test_a_hash_depends_on_the_pepper_on_its_purpose_and_on_the_value() -> None:
    other = Sealer(bytes(range(32)), bytes(range(33, 65)))
    hashes = {
        SEALER.keyed_hash("person", "live:phone:+13125550142"),
        SEALER.keyed_hash("suppression", "live:phone:+13125550142"),
        SEALER.keyed_hash("person", "live:phone:+13125550143"),
        other.keyed_hash("person", "live:phone:+13125550142"),
    }
    assert len(hashes) == 4
    assert SEALER.keyed_hash("a", "b") == SEALER.keyed_hash("a", "b")


def test_a_sealer_never_shows_its_keys() -> None:
    text = f"{SEALER!r} {SEALER!s}"
    assert bytes(range(32)).hex() not in text
    assert "\\x01\\x02" not in text
