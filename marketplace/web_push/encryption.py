"""Encryption of a push message for one browser (RFC 8291), and the sender's signature (VAPID, RFC 8292).

The push service of the browser's vendor carries the message and cannot read it.
"""

import base64
import json
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SALT_BYTES: Final = 16
AUTH_BYTES: Final = 16
PUBLIC_KEY_BYTES: Final = 65
"Bytes of an uncompressed point of the curve P-256."
PRIVATE_KEY_BYTES: Final = 32
RECORD_BYTES: Final = 4_096
"Record size in the header; a message is one record, as RFC 8291 demands."
MOST_BYTES: Final = 3_993
"Limit of the plain message: what push services must accept at least."
TOKEN_LIFE: Final = timedelta(hours=12)
"Life of a signature; RFC 8292 allows 24 hours."


def encode_base64(data: bytes) -> str:
    """Return the URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64(text: str) -> bytes:
    """Return the bytes of URL-safe base64 without padding. Raises ValueError."""
    if not text.isascii() or not set(text) <= _LETTERS:
        raise ValueError("not the alphabet of URL-safe base64")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


_LETTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def load_private_key(raw: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the private key of 32 bytes. Raises ValueError for a number outside the curve's order."""
    return ec.derive_private_key(int.from_bytes(raw), ec.SECP256R1())


def load_public_key(raw: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key of an uncompressed point. Raises ValueError for a point that is not on the curve."""
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)


def public_bytes(private: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public key that belongs to a private one, as an uncompressed point."""
    return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def encrypt(message: bytes, *, receiver: bytes, auth: bytes, sender: ec.EllipticCurvePrivateKey, salt: bytes) -> bytes:
    """Return the body of a push request in the encoding `aes128gcm`.

    `receiver` and `auth` are the browser's public key and secret; `sender` is a key and `salt` are 16 bytes for this
    message alone. Raises ValueError for a key that is not on the curve or a message that is too long.
    """
    if len(message) > MOST_BYTES:
        raise ValueError(f"a push message has at most {MOST_BYTES} bytes")
    own = public_bytes(sender)
    shared = sender.exchange(ec.ECDH(), load_public_key(receiver))
    seed = _expand(_extract(auth, shared), b"WebPush: info\0" + receiver + own, 32)
    secret = _extract(salt, seed)
    key = _expand(secret, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _expand(secret, b"Content-Encoding: nonce\0", 12)
    header = salt + RECORD_BYTES.to_bytes(4) + bytes((len(own),)) + own
    return header + AESGCM(key).encrypt(nonce, message + b"\x02", None)


def _extract(salt: bytes, material: bytes) -> bytes:
    """Return the first step of HKDF with SHA-256 (RFC 5869)."""
    extraction = hmac.HMAC(salt, hashes.SHA256())
    extraction.update(material)
    return extraction.finalize()


def _expand(key: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(hashes.SHA256(), length, info).derive(key)


def authorization(key: ec.EllipticCurvePrivateKey, audience: str, subject: str, now: datetime) -> str:
    """Return the Authorization header by which a push service knows the sender.

    `audience` is the origin of the push service, `subject` a URL by which its operator can reach the sender.
    """
    claims = {"aud": audience, "exp": int((now + TOKEN_LIFE).timestamp()), "sub": subject}
    signed = ".".join(encode_base64(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ES256"}, claims))
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    signature = encode_base64(r.to_bytes(32) + s.to_bytes(32))
    return f"vapid t={signed}.{signature}, k={encode_base64(public_bytes(key))}"
