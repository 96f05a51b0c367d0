"""Text as people enter it: visible characters, digits of any script, telephone numbers and card numbers.

Pure functions, linear in the length of the text.
"""

import re
import unicodedata
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Final

import msgspec

# Visible characters.

_REMOVED: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"Control characters except line feed and tab, and direction marks, which can make a text look like another."

_IGNORABLE: Final = (
    (0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
"Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt): characters that are not drawn."

_BLANK: Final = ((0x2800, 0x2800), (0xFFFC, 0xFFFC), (0x13441, 0x13442), (0x1D159, 0x1D159))
"Symbols and letters of Unicode 16 that are drawn as an empty space: Braille, object, hieroglyphs, null notehead."


def _class_of(ranges: tuple[tuple[int, int], ...]) -> str:
    """Return the character class of these ranges, for a regular expression."""
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


_UNSEEN: Final = re.compile(f"[{_class_of(_IGNORABLE + _BLANK)}]")
_DROPPED: Final = re.compile(f"[{_class_of(_IGNORABLE)}]")


def clean_text(text: str) -> str:
    """Return the text trimmed, without direction marks and control characters except line feed and tab."""
    return _REMOVED.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def clean_line(text: str) -> str:
    """Return the text like `clean_text`, in one line with single spaces."""
    return " ".join(clean_text(text).split())


def is_visible(text: str) -> bool:
    """Return whether the text has a visible character: a letter, digit, sign or symbol of any script that is drawn.

    Spaces, control and format characters, combining marks without a base, and characters that Unicode draws as nothing
    or as an empty space are not visible.
    """
    return bool(first_visible(text))


def first_visible(text: str) -> str:
    """Return the first visible character, or an empty text."""
    drawn = _UNSEEN.sub("", text).lstrip()
    return next((character for character in drawn if unicodedata.category(character)[0] in "LNPS"), "")


def drop_ignorable(text: str) -> str:
    """Return the text without characters that Unicode does not draw, such as a zero-width space."""
    return _DROPPED.sub("", text)


# Telephone numbers.

LONGEST_PHONE: Final = 40
"Characters: E.164 has 15 digits; the others are marks between them and an extension."


class PhoneNumber(msgspec.Struct, frozen=True, kw_only=True):
    """A telephone number as entered: ASCII digits, with a leading + if it has one, and the digits of an extension."""

    dialled: str
    extension: str | None

    def __repr__(self) -> str:
        return "Number(…)"

    __str__ = __repr__


_EXTENSION: Final = re.compile(
    r"(?:;ext=|[ ,]*+(?:e?xt(?:ensio?n?)?n?|доб|anexo)[:.]?[ ,-]*+|[ ,]*+(?:[x#~]|int)[:.]?[ ,-]*+"
    r"| *+(?:,++|;)[:.]?[ ,-]*+)(?P<digits>[0-9]{1,15}+)#?$"
    r"|[- ]++(?P<pound>[0-9]{1,6}+)#$"
)
"Spellings of an extension that libphonenumber reads (PhoneNumberUtil, EXTN_PATTERNS_FOR_PARSING)."

_DIGITS: Final = frozenset("0123456789")
_DIALLED: Final = re.compile(r"(?:tel:)?[ (\[]*(\+?)([-0-9 ()\[\]./·•_]+)")
"Digits and the marks between them; `tel:` is the scheme of RFC 3966."


def read_number(text: str) -> PhoneNumber | None:
    """Return the number in a text, or None if it has anything besides digits, marks and an extension.

    Digits may be of any script (NFKC). Letters are not digits: neither words nor vanity numbers are accepted.
    """
    if len(text) > LONGEST_PHONE:
        return None
    plain = "".join(_dial_form(unicodedata.normalize("NFKC", drop_ignorable(text)).lower())).strip()
    if not any(character in _DIGITS for character in plain):
        return None
    extension = _EXTENSION.search(plain)
    number = plain[: extension.start()] if extension else plain
    dialled = _DIALLED.fullmatch(number)
    digits = re.sub("[^0-9]", "", dialled[2]) if dialled else ""
    if not dialled or not digits:
        return None
    extension_digits = (extension["digits"] or extension["pound"]) if extension else None
    return PhoneNumber(dialled=dialled[1] + digits, extension=extension_digits)


def _dial_form(text: str) -> Iterator[str]:
    """Yield ASCII digits, hyphens for all dashes, spaces for all white space, and extensión without its accent."""
    for character in text:
        if character.isdecimal():
            yield str(unicodedata.decimal(character))
        elif character in "\u2212\u30fc" or unicodedata.category(character) == "Pd":
            yield "-"
        elif character.isspace():
            yield " "
        else:
            yield unicodedata.normalize("NFD", character)[0] if character == "ó" else character


# Card numbers.

_CARD_DIGITS: Final = range(13, 20)
"Payment cards have 13 to 19 digits (ISO/IEC 7812)."


def mask_cards(text: str) -> str:
    """Return the text with bullets for every number that could be that of a payment card.

    Its digits may be of any script, with anything between its groups except letters and digits. It passes Luhn's check,
    and begins and ends at the edge of a group of digits, so that a number beside it does not hide it.
    """
    if sum(map(str.isdigit, text)) < _CARD_DIGITS.start:
        return text
    masked = list(text)
    for places in _digit_runs(text):
        for first, last in _cards(places, text):
            masked[first : last + 1] = "•" * (last + 1 - first)
    return "".join(masked)


def _digit_runs(text: str) -> Iterator[list[int]]:
    """Yield the positions of the digits in each stretch without letters."""
    places: list[int] = []
    for place, character in enumerate(text):
        if unicodedata.digit(character, None) is not None:
            places.append(place)
        elif unicodedata.category(character)[0] in "LN" and character not in "\u115f\u1160\u3164\uffa0":
            if len(places) >= _CARD_DIGITS.start:
                yield places
            places = []
    if len(places) >= _CARD_DIGITS.start:
        yield places


def _cards(places: list[int], text: str) -> Iterator[tuple[int, int]]:
    """Yield the first and last position of the longest card number that begins at each group of digits.

    Two running sums, with the digits at even or at odd positions doubled, give Luhn's sum of any stretch in constant
    time.
    """
    digits = [unicodedata.digit(text[place]) for place in places]
    sums = [
        list(accumulate((_doubled(digit) if at % 2 == odd else digit for at, digit in enumerate(digits)), initial=0))
        for odd in (0, 1)
    ]
    is_edge = [True, *(later > earlier + 1 for earlier, later in pairwise(places)), True]
    for start in range(len(digits)):
        for end in range(start + _CARD_DIGITS.stop - 1, start + _CARD_DIGITS.start - 1, -1) if is_edge[start] else ():
            if end <= len(digits) and is_edge[end] and (sums[end % 2][end] - sums[end % 2][start]) % 10 == 0:
                yield places[start], places[end - 1]
                break


def _doubled(digit: int) -> int:
    """Return a doubled digit's part of Luhn's sum: the sum of the digits of twice its value."""
    return 2 * digit - 9 if digit > 4 else 2 * digit
