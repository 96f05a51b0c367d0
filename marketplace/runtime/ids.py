"""Public ids such as `lead_01h455vb4pex5vsknk084sn02q`: a kind, and a UUID in 26 Crockford base-32 characters.

The kind prevents that a lead's id is taken for a subscription's; the fixed width keeps the order of the UUIDs.
"""

from uuid import UUID

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford: no i, l, o, u to be misread
LENGTH = 26  # 26 characters of 5 bits hold the 128 bits of a UUID
_PAIRS = tuple(first + second for first in ALPHABET for second in ALPHABET)
_VALUES = {character: value for value, character in enumerate(ALPHABET)}


def encode(kind: str, value: UUID) -> str:
    """Return the text form of `value` as an id of `kind`."""
    number = value.int
    digits = "".join([_PAIRS[(number >> shift) & 1023] for shift in range(5 * (LENGTH - 2), -1, -10)])
    return f"{kind}_{digits}"


def decode(kind: str, text: str) -> UUID | None:
    """Return the UUID in `text`, or None unless it is exactly what `encode(kind, …)` returns."""
    prefix, digits = text[: len(kind) + 1], text[len(kind) + 1 :]
    if prefix != f"{kind}_" or len(digits) != LENGTH or digits[0] > "7" or not _VALUES.keys() >= set(digits):
        return None
    number = 0
    for digit in digits:
        number = number << 5 | _VALUES[digit]
    return UUID(int=number)
