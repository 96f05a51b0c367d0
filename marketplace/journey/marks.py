"""Keys of the person window that a corrected phone number or e-mail address adds to a lead."""

from collections.abc import Collection, Iterable, Mapping

import msgspec

from marketplace.intake.contact import marks_of_email, marks_of_phone, pair_key, window_key
from marketplace.security.sealing import Sealer
from routing.person import SamePerson


class WindowKey(msgspec.Struct, frozen=True, kw_only=True):
    """Keyed hash of a person. A `shared` one may be another person's as well, as in `WindowMarks`."""

    key: bytes
    shared: bool


def correction_keys(
    sealer: Sealer,
    corrected: Mapping[str, str | None],
    mode: str,
    same_person: SamePerson,
    fields: Collection[str],
    person_keys: Iterable[bytes],
) -> tuple[WindowKey, ...]:
    """Return the keys by which a lead's person is found after a correction, besides the earlier ones.

    `corrected` are contact fields, `fields` the names of all that the lead has after it. `person_keys` are the keyed
    hashes of the lead's earlier phone numbers and e-mail addresses: under `both`, each makes a pair with a new one.
    """
    number, address = corrected.get("phone"), corrected.get("email")
    phone = marks_of_phone(number) if number else ()
    email = marks_of_email(address) if address else ()
    extension = corrected.get("phone_extension")
    extended = tuple(f"{number};ext={extension}" for number in phone if extension)
    new = [sealer.keyed_hash("suppression", mark) for mark in (*phone, *email[:1])]
    pairs = {pair_key(sealer, mode, key, other) for key in new for other in (*person_keys, *new) if key != other}

    def keys_of(*marks: str) -> set[bytes]:
        return {window_key(sealer, f"{mode}:{mark}") for mark in marks}

    whole = keys_of(*phone, *extended, *email) | pairs
    match same_person:
        case SamePerson.either:
            own = whole = keys_of(*phone, *email)
        case SamePerson.both:
            own = pairs if {"phone", "email"} <= set(fields) else keys_of(*phone, *email)
        case SamePerson.phone:
            own = keys_of(*(extended or phone)) if "phone" in fields else keys_of(*email)
    return tuple(WindowKey(key=key, shared=key not in own) for key in sorted(whole))
