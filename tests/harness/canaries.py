"""Canaries: contact data that belongs to one lead alone and is recognised wherever it turns up.

Each carries its number and a checksum, so that a sighting in a webhook, a log line, a dump or an error text names its
lead and is never chance. Telephone numbers are those reserved for fiction; when they are used up, a person is reached
by e-mail alone. Domains are reserved too.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

import msgspec

from marketplace.demo import contacts
from tests.builders.inquiries import roofing_body

LETTERS: Final = "abcdefghijklmnop"
"""One for each hexadecimal digit, so that a token passes wherever a name may stand."""
_TOKEN: Final = re.compile(rb"(?i)qx([a-p]{6})([a-p]{4})xq")
_PHONE: Final = re.compile(rb"(?<![0-9A-Za-z.])(?:\+|%2B)?1?([2-9]\d\d55501\d\d)(?![0-9A-Za-z])")


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """One person: their number in this run, the token in every field, a telephone number where there is one left."""

    number: int
    token: str
    phone: str | None

    def body(self, provider_reference: str, now: datetime, *, timing: dict[str, Any] | None = None) -> bytes:
        """Return the body of an inquiry about this person."""
        contact = {
            "full_name": f"Robin {self.token.capitalize()}",
            "email": f"{self.token}@example.com",
            "street": f"1 {self.token.capitalize()} Street",
            "postal_code": "60614",
            "country": "US",
        }
        bant = {
            "budget": {"minor": 1_200_000, "currency": "USD"},
            "authority": "decision_maker",
            "need": {"summary": f"a leak at {self.token}", "fields": {"roof_type": "tile"}},
            "timing": timing or {"within_days": 14},
        }
        if self.phone is not None:
            contact["phone"] = self.phone
        return msgspec.json.encode(
            roofing_body(1, now, contact=contact, bant=bant, provider_reference=provider_reference)
        )


class Aviary:
    """All canaries of one run: makes them, and finds them again in any bytes."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._phones: dict[bytes, int] = {}

    def canary(self, number: int) -> Canary:
        phone = contacts.phone(number) if number < contacts.phone_count() else None
        if phone is not None:
            self._phones[phone.removeprefix("+1").encode()] = number
        return Canary(number=number, token=f"qx{_spell(f'{number:06x}')}{self._checksum(number)}xq", phone=phone)

    def find(self, data: bytes) -> set[int]:
        """The numbers of all canaries in `data`."""
        return set(self._find(data))

    def _find(self, data: bytes) -> Iterator[int]:
        for match in _TOKEN.finditer(data):
            number = int("".join(f"{LETTERS.index(letter):x}" for letter in match[1].decode().lower()), 16)
            if match[2].decode().lower() == self._checksum(number):
                yield number
        for match in _PHONE.finditer(data):
            if match[1] in self._phones:
                yield self._phones[match[1]]

    def _checksum(self, number: int) -> str:
        return _spell(blake2b(f"{self._seed}:{number}".encode(), digest_size=2).hexdigest())


def _spell(digits: str) -> str:
    return "".join(LETTERS[int(digit, 16)] for digit in digits)
