"""Answers of other people's servers, as much of them as may be kept or shown: without anybody's contact data.

A server that fails often repeats what it was sent, escaped as JSON, HTML or an address has it.
"""

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from marketplace.text.characters import mask_cards

LONGEST: Final = 500
"Characters that are kept: enough for an endpoint's owner to see what its server said."

READ_BYTES: Final = 4 * LONGEST
"A character has four bytes at most in UTF-8."

ROUNDS: Final = 3
"Escapes within escapes that are read through: an address in JSON in HTML."

SHORTEST: Final = 4
"Letters and digits that are private wherever they stand."

SHORTEST_WORD: Final = 2
"Letters that are private as a word of their own, such as a short name."


Span = tuple[int, int]
"The stretch of the text as it came that one character is written by."


def mask_answer(body: bytes, private: Iterable[str] = ()) -> str:
    """Return the beginning of an answer with bullets for private texts, e-mail addresses, telephone and card numbers.

    `private` are the texts that were sent: they are found in whatever case and punctuation, escaped or not. Linear in
    the length of the answer, of which a bounded part is read.
    """
    text = body[:READ_BYTES].decode(errors="replace").replace("\0", "")
    plain, spans = text, [(place, place + 1) for place in range(len(text))]
    for _ in range(ROUNDS):
        if _ESCAPE.search(plain) is None:
            break
        plain, spans = _read_escapes(plain, spans)
    masked = list(text)
    for first, end in (*_private_stretches(plain, private), *_contact_like(plain)):
        start, stop = spans[first][0], spans[end - 1][1]
        masked[start:stop] = "•" * (stop - start)
    return "".join(masked[:LONGEST])


def private_texts(contact: bytes) -> tuple[str, ...]:
    """Return every text of a contact, which is JSON, that its echo in an answer is recognised by."""
    values = msgspec.json.decode(contact)
    phone, email = str(values.get("phone") or ""), str(values.get("email") or "")
    digits = phone.removeprefix("+")
    names = re.findall(r"[^\W_]+", str(values.get("full_name") or ""))
    parts = (*names, digits[-10:], digits[-7:], email.partition("@")[0])
    return tuple(dict.fromkeys((*_texts(values), *parts)))


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for item in value.values():
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)


_ESCAPE: Final = re.compile(
    r"(?:\\u[0-9a-fA-F]{4})+|\\x[0-9a-fA-F]{2}|\\[nrtbf\"'/\\]|(?:%[0-9a-fA-F]{2})+|&#?[0-9a-zA-Z]{1,31};"
)


def _read_escapes(plain: str, spans: list[Span]) -> tuple[str, list[Span]]:
    """The text with one layer of escapes read, and where each of its characters came from."""
    texts: list[str] = []
    kept: list[Span] = []
    place = 0
    for escape in _ESCAPE.finditer(plain):
        first, end = escape.span()
        meaning = _meaning(escape[0])
        texts += (plain[place:first], meaning)
        kept += spans[place:first]
        kept += [(spans[first][0], spans[end - 1][1])] * len(meaning)
        place = end
    return "".join((*texts, plain[place:])), kept + spans[place:]


def _meaning(escape: str) -> str:
    if escape[0] == "%":
        return unquote(escape, errors="replace")
    if escape[0] == "&":
        return html.unescape(escape)
    if escape[1] in "ux":
        codes = re.findall("[0-9a-fA-F]{4}|[0-9a-fA-F]{2}", escape)
        units = b"".join(int(code, 16).to_bytes(2, "big") for code in codes)
        return units.decode("utf-16-be", "replace")
    return {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}.get(escape[1], escape[1])


def _private_stretches(plain: str, private: Iterable[str]) -> Iterator[Span]:
    """Where the private texts stand, by letters and digits alone."""
    letters = [(letter, place) for place, character in enumerate(plain) for letter in _letters(character)]
    known = "".join(letter for letter, _ in letters)
    for text in {"".join(_letters(value)) for value in private}:
        if len(text) < SHORTEST and (len(text) < SHORTEST_WORD or text.isdecimal()):
            continue
        at = known.find(text)
        while at >= 0:
            first, end = letters[at][1], letters[at + len(text) - 1][1] + 1
            if len(text) >= SHORTEST or _is_word(plain, first, end):
                yield first, end
            at = known.find(text, at + 1)


def _letters(text: str) -> str:
    """Letters and digits in small, without accents, width and case."""
    plain = text if text.isascii() else unicodedata.normalize("NFKD", text)
    return "".join(filter(str.isalnum, plain.casefold()))


def _is_word(plain: str, first: int, end: int) -> bool:
    before, after = plain[first - 1 : first], plain[end : end + 1]
    return not (before.isalnum() or after.isalnum())


_EMAIL: Final = re.compile(r"[^\s@<>\"'(),;:]{1,64}@[^\s@<>\"'(),;:]{1,255}")
_PHONE: Final = re.compile(r"\+?\d(?:[ \t\u00a0().\-/]{0,3}\d){6,}")


def _contact_like(plain: str) -> Iterator[Span]:
    """Where something stands that could be an address, a telephone number or a card number."""
    for pattern in (_EMAIL, _PHONE) if "@" in plain else (_PHONE,):
        yield from (found.span() for found in pattern.finditer(plain))
    masked = mask_cards(plain)
    yield from (
        (place, place + 1)
        for place, (character, shown) in enumerate(zip(plain, masked, strict=True))
        if character != shown
    )
