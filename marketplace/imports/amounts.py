"""Read amounts of money, as people write them in files and forms, into minor units.

A currency symbol in the cell must fit the expected currency: `$` fits every dollar, `kr` every krona and krone. Nothing
is rounded.
"""

import re
from collections.abc import Iterable
from typing import Final, Literal

from marketplace.imports.cells import CellFault, clean
from marketplace.text.values import MOST_MINOR
from routing.currency import MINOR_DIGITS, minor_digits

Decimal = Literal[".", ","]
LONGEST: Final = 40

_DOLLARS: Final = frozenset(
    """USD CAD AUD NZD HKD SGD TWD MXN ARS CLP COP UYU DOP BSD BBD BZD BMD BND FJD GYD JMD KYD LRD NAD SBD SRD TTD
    XCD""".split()  # noqa: SIM905
)
MARKS: Final[dict[str, frozenset[str]]] = {
    "$": _DOLLARS,
    "£": frozenset(("GBP", "GIP", "FKP", "SHP", "EGP", "LBP")),
    "¥": frozenset(("JPY", "CNY")),
    "kr": frozenset(("SEK", "NOK", "DKK", "ISK")),
    "rs": frozenset(("INR", "PKR", "LKR", "NPR", "MUR", "SCR")),
    "fr": frozenset(("CHF", "XAF", "XOF", "XPF")),
    "lei": frozenset(("RON", "MDL")),
    **{
        mark: frozenset((code,))
        for code, marks in {
            "USD": "us$ dollar dollars",
            "CAD": "ca$ c$ can$ cdn$",
            "AUD": "a$ au$",
            "NZD": "nz$",
            "HKD": "hk$",
            "SGD": "s$ sg$",
            "TWD": "nt$",
            "MXN": "mx$ mex$",
            "BRL": "r$",
            "EUR": "€ euro euros",
            "JPY": "円",
            "CNY": "元",
            "INR": "₹",
            "KRW": "₩",
            "ILS": "₪",
            "VND": "₫",
            "TRY": "₺ tl",
            "RUB": "₽",
            "UAH": "₴",
            "NGN": "₦",
            "PHP": "₱",
            "THB": "฿",
            "CRC": "₡",
            "PYG": "₲",
            "GHS": "₵",
            "KZT": "₸",
            "PLN": "zł",
            "CZK": "kč",
            "HUF": "ft",
            "CHF": "sfr",
            "ZAR": "r",
            "MYR": "rm",
            "IDR": "rp",
            "KWD": "kd",
            "BHD": "bd",
            "OMR": "ro",
            "JOD": "jd",
        }.items()
        for mark in marks.split()
    },
    **{code.lower(): frozenset((code,)) for code in MINOR_DIGITS},
}
"Currencies that a symbol, word or code may mean, by its text in lower case without a full stop at its end."

_SHORTENED: Final = frozenset(("rs.", "kr.", "fr.", "sfr."))
"Symbols that are written with a full stop."

_GROUP_MARKS: Final = " '\u2019"
"Thousands separators besides the comma or point that is not the decimal mark; Swiss files have either apostrophe."
_NUMBER: Final = {
    decimal: re.compile(
        rf"""(?P<whole>[0-9]{{1,15}}
            |[0-9]{{1,3}}(?:(?P<mark>[{re.escape(other + _GROUP_MARKS)}])[0-9]{{3}})(?:(?P=mark)[0-9]{{3}}){{0,4}}
            |[0-9]{{1,2}}(?:{re.escape(other)}[0-9]{{2}}){{1,5}}{re.escape(other)}[0-9]{{3}})?
        (?:{re.escape(decimal)}(?P<fraction>[0-9]{{1,15}}))?""",
        re.VERBOSE,
    )
    for decimal, other in ((".", ","), (",", "."))
}
"Digits, or groups of three (in India of two) with one kind of separator between them, and a fraction."


def read_amount(text: str, currency: str, decimal: Decimal = ".") -> int:
    """Return the amount in minor units of `currency`.

    Raises CellFault: `currency_differs` for a symbol of another currency, `amount_invalid`, and `out_of_range` above
    `MOST_MINOR`.
    """
    before, number, after = _parts(text)
    for mark in (before, after):
        _check_mark(mark, currency)
    minor = _minor(number, currency, decimal)
    if minor is None:
        raise CellFault("amount_invalid", "Write an amount such as 45.50, without words and not below zero.")
    if minor > MOST_MINOR:
        raise CellFault("out_of_range", "This is more than any lead costs or brings.")
    return minor


def decide_decimal(texts: Iterable[str], currency: str) -> tuple[Decimal, bool]:
    """Return the decimal mark of a file's amounts, and whether they leave it open.

    Amounts that can be read in only one way decide. If there are none, the decimal mark is a point. It is open if the
    amounts contradict each other, or if there is only `12,500` in a currency with three minor digits.
    """
    votes: dict[Decimal, int] = {".": 0, ",": 0}
    either = False
    for text in texts:
        _, number, _ = _parts(text)
        if "," not in number and "." not in number:
            continue
        with_point, with_comma = _minor(number, currency, "."), _minor(number, currency, ",")
        if (with_point is None) != (with_comma is None):
            votes["," if with_point is None else "."] += 1
        elif with_point != with_comma and "," in number:
            either = True
    decided: Decimal = "," if votes[","] > votes["."] else "."
    return decided, bool(votes["."] and votes[","]) or (either and not any(votes.values()))


def name_currency(text: str) -> frozenset[str] | None:
    """Return the currencies that a symbol, word or code may mean; None if it means none."""
    return MARKS.get(text.strip(" ()[]").lower().removesuffix("."))


def _parts(text: str) -> tuple[str, str, str]:
    """Return the text before the number, the number, and the text after it; all empty without a number."""
    text = clean(text)
    digits = [place for place, character in enumerate(text[: LONGEST + 1]) if "0" <= character <= "9"]
    if not digits or len(text) > LONGEST:
        return "", "", ""
    start, end = digits[0], digits[-1] + 1
    if start and text[start - 1] in ".," and text[:start].lower() not in _SHORTENED:
        start -= 1  # $.50 is half a dollar, Rs.50 are fifty rupees
    return text[:start].strip(" "), text[start:end], text[end:].strip(" ")


def _check_mark(mark: str, currency: str) -> None:
    """Raise CellFault unless the text beside the number is empty or may mean this currency."""
    if not mark:
        return
    meant = name_currency(mark)
    if meant is None:
        raise CellFault("amount_invalid", "Write an amount such as 45.50, without words and not below zero.")
    if currency not in meant:
        raise CellFault(
            "currency_differs", f"This is in another currency. Give amounts in {currency}, the wallet's currency."
        )


def _minor(number: str, currency: str, decimal: Decimal) -> int | None:
    """Return the minor units of a number, or None if it is no number or has more decimals than the currency.

    Further zeros are ignored (45.5000), except in a group of three, which may be thousands: 1.230.
    """
    match = _NUMBER[decimal].fullmatch(number)
    if match is None or not number:
        return None
    whole, fraction = re.sub("[^0-9]", "", match["whole"] or "0"), match["fraction"] or ""
    digits = minor_digits(currency)
    if len(fraction) > digits and (len(fraction) == 3 or fraction[digits:].strip("0")):
        return None
    return int(whole + fraction[:digits].ljust(digits, "0"))
