"""Masking of refused values: their shape, which identifies nobody and is enough to find the fault.

Letters become x, digits 0, other ASCII characters stay: `“Xxxxx”`, `“(000) 000-00”`, `0000-00-00`. Every masked value
that is stored or shown is masked here.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from marketplace.text.characters import read_number

LONGEST: Final = 40
"Characters of a masked value: enough for a telephone number, an e-mail address, a time."
NOTHING: Final = "nothing"
"Text for a field that was not sent."


def shape_at(document: object, pointer: str) -> str:
    """Return the shape of the value at an RFC 6901 pointer of the document."""
    value = document
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return NOTHING
    return shape_of(value)


def shape_of(value: object) -> str:
    """Return the shape of a value; texts are in quotation marks, so that “12” and 12 differ."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return f"“{_masked(value)}”"
        case int() | float():
            return _masked(str(value))
        case Mapping():
            return f"an object of {len(value)}"
        case Sequence():
            return f"a list of {len(value)}"
        case _:
            return "something else"


def ending_of(number: str) -> str:
    """Return the last two digits of a telephone number without its extension; nothing for another text.

    They are enough to recognise one's own number.
    """
    typed = read_number(number)
    return typed.dialled[-2:] if typed and len(typed.dialled) > 2 else ""


def _masked(text: str) -> str:
    shape = "".join(_mark(character) for character in text[:LONGEST])
    return f"{shape}…" if len(text) > LONGEST else shape


def _mark(character: str) -> str:
    if character.isnumeric():
        return "0"
    if character.isalpha() or not character.isascii():
        return "X" if character.isupper() else "x"
    return character if character.isprintable() else "·"
