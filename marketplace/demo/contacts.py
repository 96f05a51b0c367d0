"""Invented contact data: telephone numbers and addresses that are reserved for examples.

Numbers are +1 AAA 555 01NN, a hundred per area code that are reserved for fiction. E-mail addresses use the three
example domains of RFC 2606, and IP addresses the documentation networks of RFC 5737.
"""

from functools import cache
from typing import Final

import phonenumbers
import zipcodes

from marketplace.runtime.clock import Random, seeded

GIVEN: Final = ("Alex", "Blake", "Casey", "Devon", "Ellis", "Finley", "Harper", "Jordan", "Morgan", "Quinn")
FAMILY: Final = ("Testperson", "Exampleton", "Sampleworth", "Demofield", "Placeholdt", "Nobodyson")
DOMAINS: Final = ("example.com", "example.org", "example.net")
NETWORKS: Final = ("192.0.2", "198.51.100", "203.0.113")
PER_AREA_CODE: Final = 100


@cache
def area_codes() -> tuple[int, ...]:
    """Return the area codes of the United States with valid numbers, in a fixed order that mixes the regions."""
    areas = zipcodes.list_all()  # type: ignore[no-untyped-call]
    codes = sorted({int(code) for area in areas for code in area["area_codes"]})
    valid = [code for code in codes if phonenumbers.is_valid_number(phonenumbers.parse(f"+1{code}5550100"))]
    seeded("area codes").shuffle(valid)
    return tuple(valid)


def phone_count() -> int:
    """Return the number of reserved telephone numbers."""
    return len(area_codes()) * PER_AREA_CODE


def phone(number: int) -> str:
    """Return the reserved telephone number at this position. Raises IndexError from `phone_count()` on."""
    within, position = divmod(number, len(area_codes()))
    if within >= PER_AREA_CODE:
        raise IndexError(f"There are only {phone_count():,} reserved telephone numbers.")
    return f"+1{area_codes()[position]}55501{within:02}"


def person(random: Random, number: int, tag: str) -> dict[str, str]:
    """Return a name, and a telephone number and an e-mail address that are unique to this `number` and `tag`."""
    given_name, family_name = random.choice(GIVEN), random.choice(FAMILY)
    email = f"{given_name}.{family_name}.{tag}{number}@{random.choice(DOMAINS)}".lower()
    return {"full_name": f"{given_name} {family_name}", "phone": phone(number), "email": email}


def internet_address(random: Random) -> str:
    """Return one of the 762 IP addresses that are reserved for documentation."""
    return f"{random.choice(NETWORKS)}.{random.randint(1, 254)}"
