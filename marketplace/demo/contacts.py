"""Contact data of nobody: telephone numbers and addresses that are reserved for being written about.

Numbers are +1 AAA 555 01NN, of which each area code has a hundred set apart for fiction; e-mail addresses are under the
three example domains of RFC 2606; internet addresses come from the documentation networks of RFC 5737.
"""

from functools import cache
from typing import Final

import phonenumbers
import zipcodes

from marketplace.clock import Random, seeded

GIVEN: Final = ("Alex", "Blake", "Casey", "Devon", "Ellis", "Finley", "Harper", "Jordan", "Morgan", "Quinn")
FAMILY: Final = ("Testperson", "Exampleton", "Sampleworth", "Demofield", "Placeholdt", "Nobodyson")
DOMAINS: Final = ("example.com", "example.org", "example.net")
NETWORKS: Final = ("192.0.2", "198.51.100", "203.0.113")
PER_AREA_CODE: Final = 100


@cache
def area_codes() -> tuple[int, ...]:
    """Every area code of the United States whose numbers are valid, in an order that mixes the regions."""
    areas = zipcodes.list_all()  # type: ignore[no-untyped-call]
    codes = sorted({int(code) for area in areas for code in area["area_codes"]})
    valid = [code for code in codes if phonenumbers.is_valid_number(phonenumbers.parse(f"+1{code}5550100"))]
    seeded("area codes").shuffle(valid)
    return tuple(valid)


def phone_count() -> int:
    """How many different reserved numbers there are."""
    return len(area_codes()) * PER_AREA_CODE


def phone(number: int) -> str:
    """The reserved telephone number with this place in the list. Raises IndexError beyond `phone_count()`."""
    within, position = divmod(number, len(area_codes()))
    if within >= PER_AREA_CODE:
        raise IndexError(f"There are only {phone_count():,} reserved telephone numbers.")
    return f"+1{area_codes()[position]}55501{within:02}"


def person(random: Random, number: int, tag: str) -> dict[str, str]:
    """A name, a telephone number and an e-mail address that no other `number` of the same `tag` has."""
    given, family = random.choice(GIVEN), random.choice(FAMILY)
    email = f"{given}.{family}.{tag}{number}@{random.choice(DOMAINS)}".lower()
    return {"full_name": f"{given} {family}", "phone": phone(number), "email": email}


def internet_address(random: Random) -> str:
    """One of the 762 addresses that documents may use."""
    return f"{random.choice(NETWORKS)}.{random.randint(1, 254)}"
