"""A cell of a file, its faults, and the spaces and spreadsheet damage that any cell may have."""

import re
from typing import Final

import msgspec

_SPACES: Final = re.compile("[\\s\u200b\u2060\ufeff]+")
"Every space of Unicode, and the marks without width that spreadsheets and web pages leave behind."
_MANGLED: Final = re.compile(
    r"[+-]?[0-9](?:[.,][0-9]+)?E\+?[0-9]{1,3}|#{2,}|#(?:REF|N/A|VALUE|NAME\?|DIV/0|NUM|NULL)!?", re.I
)
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
MANGLED: Final = "mangled_by_spreadsheet"
"Fault of a cell in which a spreadsheet has put something else in place of what was there."


class CellFault(Exception):
    """Raised for a cell that cannot be taken: a stable code, and a sentence that never repeats the cell."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code)
        self.code, self.detail = code, detail


class RowFault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of a row: the field at fault, None for the row as a whole, a stable code and how to mend it."""

    field: str | None
    code: str
    detail: str


def clean(text: str) -> str:
    """Return the text with every run of spaces as one plain space, none of them at its ends."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip(" ")
    return _SPACES.sub(" ", text).strip(" ")


def read_id(text: str) -> str:
    """Return an id or a code as it stands. Raises CellFault for one that a spreadsheet has turned into a number."""
    if _MANGLED.fullmatch(text):
        raise CellFault(
            MANGLED,
            "A spreadsheet has shortened this. Format the column as text, or export the file anew without opening it.",
        )
    return text


def check_characters(text: str) -> None:
    """Raises CellFault for characters that no text may hold."""
    if _CONTROL.search(text):
        detail = "Remove control characters; only tabs and line ends may stand in a text."
        raise CellFault("character_not_allowed", detail)
