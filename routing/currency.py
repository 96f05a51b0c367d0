"""Currencies in use and the digits of their minor units.

Source: ISO 4217, list one of 2026-01-01, without funds, metals and testing codes that have no minor unit. A test
compares the table with the `iso4217` package, so that an update of that package shows an amendment.
"""

from typing import Final

MINOR_DIGITS: Final[dict[str, int]] = {
    code: digits
    for digits, codes in {
        0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
        2: """AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE
            CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD
            HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK
            MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD
            RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH
            USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG""",
        3: "BHD IQD JOD KWD LYD OMR TND",
        4: "CLF UYW",
    }.items()
    for code in codes.split()
}
"Digits after the decimal mark by currency: 12.500 KWD are 12500 minor units, 12 JPY are 12."


def minor_digits(currency: str) -> int:
    """Return the digits of the currency's minor unit; 2 for an unknown code, stored before codes were checked."""
    return MINOR_DIGITS.get(currency, 2)


def write_amount(minor: int, currency: str) -> str:
    """Format an amount for a form or file, without thousands separators: 12500 minor units of KWD are `12.500`."""
    digits = minor_digits(currency)
    whole, fraction = divmod(abs(minor), 10**digits)
    sign = "-" if minor < 0 else ""
    return f"{sign}{whole}.{fraction:0{digits}}" if digits else f"{sign}{whole}"
