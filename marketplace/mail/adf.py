"""A lead as ADF/XML 1.0, which many CRMs read from an attachment.

Emitted strictly: the elements in the order of the format's definition, escaped, without characters that XML forbids.
The need stands in the comments, since the format has fields for vehicles only.
"""

import re
from datetime import datetime
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

import msgspec

_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"Characters outside the production Char of XML 1.0."


class AdfLead(msgspec.Struct, frozen=True, kw_only=True):
    """Values of a lead as the format has them. None and an empty text are left out."""

    id: str
    source: str
    requested_at: datetime
    full_name: str
    email: str | None = None
    phone: str | None = None
    street: str | None = None
    postal_code: str | None = None
    country: str | None = None
    comments: str = ""
    timeframe: str = ""
    vendor: str
    provider: str

    def __repr__(self) -> str:
        return f"AdfLead({self.id})"


def as_adf(lead: AdfLead) -> bytes:
    """Return the lead as an ADF document in UTF-8."""
    adf = Element("adf")
    prospect = SubElement(adf, "prospect", status="new")
    _add(prospect, "id", lead.id, sequence="1", source=_clean(lead.source))
    _add(prospect, "requestdate", lead.requested_at.isoformat(timespec="seconds"))
    vehicle = SubElement(prospect, "vehicle", interest="buy", status="new")
    for name in ("year", "make", "model"):
        SubElement(vehicle, name)
    customer = SubElement(prospect, "customer")
    contact = SubElement(customer, "contact")
    _add(contact, "name", lead.full_name, part="full")
    _add(contact, "email", lead.email)
    _add(contact, "phone", lead.phone, type="voice")
    if lead.street or lead.postal_code or lead.country:
        address = SubElement(contact, "address")
        _add(address, "street", lead.street, line="1")
        _add(address, "postalcode", lead.postal_code)
        _add(address, "country", lead.country)
    if lead.timeframe:
        _add(SubElement(customer, "timeframe"), "description", lead.timeframe)
    _add(customer, "comments", lead.comments)
    vendor = SubElement(prospect, "vendor")
    _add(SubElement(vendor, "contact"), "name", lead.vendor, part="full")
    _add(SubElement(prospect, "provider"), "name", lead.provider, part="full")
    document: bytes = tostring(adf, encoding="utf-8")
    return b'<?xml version="1.0" encoding="UTF-8"?>\n<?adf version="1.0"?>\n' + document


def _add(parent: Element, name: str, text: str | None, **attributes: str) -> None:
    """Add an element with this text, unless the text is empty."""
    if text:
        SubElement(parent, name, attributes).text = _clean(text)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("", text)
