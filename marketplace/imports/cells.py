"""Read a cell of a file: spaces, characters that are not allowed, and values that a spreadsheet has damaged."""

import re
from typing import Final

import msgspec

_SPACES: Final = re.compile("[\\s\u200b\u2060\ufeff]+")
"Every space of Unicode, and the zero-width characters that spreadsheets and web pages add."
_MANGLED: Final = re.compile(
    r"[+-]?[0-9](?:[.,][0-9]+)?E\+?[0-9]{1,3}|#{2,}|#(?:REF|N/A|VALUE|NAME\?|DIV/0|NUM|NULL)!?", re.I
)
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
MANGLED: Final = "mangled_by_spreadsheet"
"Fault code of a cell whose content a spreadsheet has replaced, as by 1.2E+11 or #####."


class CellFault(Exception):
    """Raised for a cell that cannot be read. It has a stable code, and a sentence that never quotes the cell."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code)
        self.code, self.detail = code, detail


class RowFault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of a row: its field (None for the whole row), a stable code, and a sentence with the remedy."""

    field: str | None
    code: str
    detail: str


def clean(text: str) -> str:
    """Return the text with each run of spaces replaced by one plain space, and without spaces at its ends."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip(" ")
    return _SPACES.sub(" ", text).strip(" ")


def read_id(text: str) -> str:
    """Return an id or a code unchanged. Raises CellFault for one that a spreadsheet has turned into a number."""
    if _MANGLED.fullmatch(text):
        raise CellFault(
            MANGLED,
            "A spreadsheet has shortened this. Format the column as text, or export the file anew without opening it.",
        )
    return text


def check_characters(text: str) -> None:
    """Raise CellFault for control characters other than tab and line ends, and for lone surrogates."""
    if _CONTROL.search(text):
        detail = "Remove control characters; only tabs and line ends may stand in a text."
        raise CellFault("character_not_allowed", detail)
