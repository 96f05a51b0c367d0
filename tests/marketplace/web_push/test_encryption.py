"""Push messages: the example of RFC 8291 byte for byte, and a signature that anybody can check."""

from datetime import UTC, datetime

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from marketplace.web_push.encryption import (
    MOST_BYTES,
    authorization,
    decode_base64,
    encode_base64,
    encrypt,
    load_private_key,
    load_public_key,
    public_bytes,
)

RECEIVER = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
SENDER = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
MESSAGE = b"When I grow up, I want to be a watermelon"
BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_"
    "yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)
"Appendix A of RFC 8291."


def test_the_example_of_the_standard_is_encrypted_byte_for_byte() -> None:
    body = encrypt(
        MESSAGE,
        receiver=decode_base64(RECEIVER),
        auth=decode_base64(AUTH),
        sender=load_private_key(decode_base64(SENDER)),
        salt=decode_base64(SALT),
    )
    assert encode_base64(body) == BODY


def test_a_message_has_at_most_as_many_bytes_as_every_push_service_takes() -> None:
    keys = {"receiver": decode_base64(RECEIVER), "auth": decode_base64(AUTH), "salt": decode_base64(SALT)}
    sender = load_private_key(decode_base64(SENDER))
    assert len(encrypt(b"x" * MOST_BYTES, sender=sender, **keys)) <= 4_096
    with pytest.raises(ValueError, match="at most"):
        encrypt(b"x" * (MOST_BYTES + 1), sender=sender, **keys)


def test_a_signature_names_the_push_service_and_ends_within_a_day() -> None:
    key, now = load_private_key(decode_base64(SENDER)), datetime(2026, 12, 1, 16, tzinfo=UTC)
    header = authorization(key, "https://push.example.com", "https://leads.example.com", now)
    token, public = header.removeprefix("vapid t=").split(", k=")
    signed, _, signature = token.rpartition(".")
    raw = decode_base64(signature)
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    load_public_key(decode_base64(public)).verify(der, signed.encode(), ec.ECDSA(hashes.SHA256()))
    claims = msgspec.json.decode(decode_base64(signed.partition(".")[2]))
    assert claims["aud"] == "https://push.example.com"
    assert claims["sub"] == "https://leads.example.com"
    assert 0 < claims["exp"] - now.timestamp() <= 86_400


@pytest.mark.parametrize("text", ["a b", "é", "a+b/", "a=", "AAAAA"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|padd|multiple"):
        decode_base64(text)


def test_a_point_that_is_not_on_the_curve_is_refused() -> None:
    off = bytearray(public_bytes(load_private_key(decode_base64(SENDER))))
    off[-1] ^= 1
    with pytest.raises(ValueError, match=r"curve|key"):
        load_public_key(bytes(off))
