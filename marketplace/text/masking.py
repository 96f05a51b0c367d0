"""What may be kept of a value that was refused: its shape, from which nobody can be told and a fault can be mended.

Letters become x, digits 0, and what stands between them stays: `“Xxxxx”`, `“(000) 000-00”`, `0000-00-00`. Whatever is
kept or shown masked is masked here.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from marketplace.text.characters import read_number

LONGEST: Final = 40
"Characters shown: enough for a telephone number, an address of e-mail, a time."
NOTHING: Final = "nothing"
"What is said of a field that was not there."


def shape_at(document: object, pointer: str) -> str:
    """The shape of what the document has at an RFC 6901 pointer."""
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
    """Texts in quotation marks, so that “12” and 12 differ."""
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
    """Return the last two digits of a telephone number without its extension: enough to see whether it was the one
    that was sent. Nothing for a text that is no number."""
    typed = read_number(number)
    return typed.dialled[-2:] if typed and len(typed.dialled) > 2 else ""


def _masked(text: str) -> str:
    shown = "".join(_mark(character) for character in text[:LONGEST])
    return f"{shown}…" if len(text) > LONGEST else shown


def _mark(character: str) -> str:
    if character.isnumeric():
        return "0"
    if character.isalpha() or not character.isascii():
        return "X" if character.isupper() else "x"
    return character if character.isprintable() else "·"
