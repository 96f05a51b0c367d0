"""Masking of responses from other people's servers, so that a part can be stored and shown without contact data.

A server that fails often repeats what it received, escaped as JSON, HTML or percent-encoding.
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
"Characters of a response that are stored: enough for the owner of the endpoint to recognise the error."

READ_BYTES: Final = 4 * LONGEST
"Bytes of a response that are read: a character has at most four bytes in UTF-8."

ROUNDS: Final = 3
"Layers of escapes that are decoded: percent-encoding inside JSON inside HTML."

SHORTEST: Final = 4
"Private texts with this many letters and digits or more are masked even inside a longer word."

SHORTEST_WORD: Final = 2
"Shorter private texts are masked only as a whole word, and only with this many letters or more."


Span = tuple[int, int]
"Start and end, in the text as received, of the characters that encode one decoded character."


def mask_answer(body: bytes, private: Iterable[str] = ()) -> str:
    """Return the beginning of a response with bullets for private texts, e-mail addresses, telephone and card numbers.

    `private` are texts that were sent; they are found in any case and punctuation, escaped or not. At most READ_BYTES
    are read and LONGEST characters returned.
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


def mask_private(text: str, private: Iterable[str]) -> str:
    """Return a text with bullets for private texts alone, in any case and punctuation."""
    masked = list(text)
    for first, end in _private_stretches(text, private):
        masked[first:end] = "•" * (end - first)
    return "".join(masked)


def private_texts(contact: bytes) -> tuple[str, ...]:
    """Return every text of a contact in JSON.

    Also the words of the name, and the parts of telephone number and e-mail address by which an echo is recognised.
    """
    values = msgspec.json.decode(contact)
    phone, email = str(values.get("phone") or ""), str(values.get("email") or "")
    digits = phone.removeprefix("+")
    names = re.findall(r"[^\W_]+", str(values.get("full_name") or ""))
    parts = (*names, digits[-10:], digits[-7:], email.partition("@")[0])
    return tuple(dict.fromkeys((*_texts(values), *parts)))


def _texts(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value, nested ones too."""
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
    """Return the text with one layer of escapes decoded, and the span of each of its characters in the original."""
    texts: list[str] = []
    decoded_spans: list[Span] = []
    place = 0
    for escape in _ESCAPE.finditer(plain):
        first, end = escape.span()
        meaning = _meaning(escape[0])
        texts += (plain[place:first], meaning)
        decoded_spans += spans[place:first]
        decoded_spans += [(spans[first][0], spans[end - 1][1])] * len(meaning)
        place = end
    return "".join((*texts, plain[place:])), decoded_spans + spans[place:]


def _meaning(escape: str) -> str:
    """Return the characters that one escape stands for."""
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
    """Yield the spans of the private texts in `plain`, comparing letters and digits only."""
    letters = [(letter, place) for place, character in enumerate(plain) for letter in _letters(character)]
    searched = "".join(letter for letter, _ in letters)
    for text in {"".join(_letters(value)) for value in private}:
        if len(text) < SHORTEST and (len(text) < SHORTEST_WORD or text.isdecimal()):
            continue
        index = searched.find(text)
        while index >= 0:
            first, end = letters[index][1], letters[index + len(text) - 1][1] + 1
            if len(text) >= SHORTEST or _is_word(plain, first, end):
                yield first, end
            index = searched.find(text, index + 1)


def _letters(text: str) -> str:
    """Return letters and digits in lower case, without accents and full-width forms."""
    plain = text if text.isascii() else unicodedata.normalize("NFKD", text)
    return "".join(filter(str.isalnum, plain.casefold()))


def _is_word(plain: str, first: int, end: int) -> bool:
    before, after = plain[first - 1 : first], plain[end : end + 1]
    return not (before.isalnum() or after.isalnum())


_EMAIL: Final = re.compile(r"[^\s@<>\"'(),;:]{1,64}@[^\s@<>\"'(),;:]{1,255}")
_PHONE: Final = re.compile(r"\+?\d(?:[ \t\u00a0().\-/]{0,3}\d){6,}")


def _contact_like(plain: str) -> Iterator[Span]:
    """Yield the spans that could be an e-mail address, a telephone number or a card number."""
    patterns = (_EMAIL, _PHONE) if "@" in plain else (_PHONE,)
    for pattern in patterns:
        yield from (match.span() for match in pattern.finditer(plain))
    for place, (character, masked) in enumerate(zip(plain, mask_cards(plain), strict=True)):
        if character != masked:
            yield place, place + 1
