"""Shape of a mapped request, and its checks before it is saved."""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from marketplace.text.faults import Fault, FaultCode

LONGEST_TEMPLATE: Final = 32 * 1024
MOST_HEADERS: Final = 20


class BodyFormat(StrEnum):
    """Format of a body, by which each value in it is escaped."""

    json = "json"
    form = "form"
    xml = "xml"


CONTENT_TYPES: Final = {
    BodyFormat.json: "application/json",
    BodyFormat.form: "application/x-www-form-urlencoded",
    BodyFormat.xml: "application/xml; charset=utf-8",
}

PlainText = Annotated[str, Meta(min_length=1, max_length=2_000, pattern=r"\A[!-~]+(?: [!-~]+)*\Z")]
"Printable ASCII on one line, without white space at its ends: nothing in it can begin another header."
SecretText = Annotated[str, Meta(min_length=1, max_length=4_000, pattern=r"\A[!-~]+\Z")]
"Printable ASCII without white space."
HeaderName = Annotated[str, Meta(max_length=60, pattern=r"\A[A-Za-z0-9-]+\Z")]


class SentHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A header that every request of the endpoint has."""

    name: HeaderName
    value: PlainText


class RequestMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request that takes a lead to the business's software: `body` is a template in `format`.

    `preset` names the preset that it was begun with.
    """

    format: BodyFormat
    body: Annotated[str, Meta(min_length=1, max_length=LONGEST_TEMPLATE)]
    method: Literal["POST", "PUT"] = "POST"
    headers: Annotated[tuple[SentHeader, ...], Meta(max_length=MOST_HEADERS)] = ()
    preset: Annotated[str, Meta(max_length=60)] | None = None


class BearerToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="bearer"):
    """A token that is sent as `Authorization: Bearer …`."""

    token: SecretText


class BasicLogin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="basic"):
    """A user name and password that are sent as `Authorization: Basic …`."""

    user: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\A[^:\x00-\x1f\x7f]+\Z")]
    password: Annotated[str, Meta(max_length=1_000, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]


class HeaderKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="api_key"):
    """A key that is sent in a header of its own, such as `x-api-token`."""

    header: HeaderName
    key: SecretText


class ClientCredentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="oauth2"):
    """A client that fetches a token at `token_url` (RFC 6749, section 4.4), and another before that one ends.

    `scheme` is the word before the token in the header Authorization.
    """

    token_url: Annotated[str, Meta(max_length=2_048)]
    client_id: Annotated[str, Meta(min_length=1, max_length=500)]
    client_secret: Annotated[str, Meta(min_length=1, max_length=4_000)]
    scope: Annotated[str, Meta(max_length=1_000)] | None = None
    scheme: Annotated[str, Meta(max_length=40, pattern=r"\A[A-Za-z0-9-]+\Z")] = "Bearer"


Credentials = BearerToken | BasicLogin | HeaderKey | ClientCredentials
"What the business's software knows us by. It is stored sealed and never shown."

RESERVED_HEADERS: Final = re.compile(
    r"host|content-length|content-type|content-encoding|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect"
    r"|accept-encoding|user-agent|authorization|cookie|proxy-.*|webhook-.*",
    re.IGNORECASE,
)
"Headers that we write ourselves, that belong to the connection, or that state who we are."


def header_faults(mapping: RequestMapping, credentials: Credentials | None) -> Iterator[Fault]:
    """Yield a fault for each header that may not be set, or that is set twice."""
    names = [(f"/headers/{position}/name", header.name) for position, header in enumerate(mapping.headers)]
    if isinstance(credentials, HeaderKey):
        names.append(("/credentials/header", credentials.header))
    earlier: set[str] = set()
    for pointer, name in names:
        if RESERVED_HEADERS.fullmatch(name):
            detail = f"The header {name} cannot be set: it is written for you. State a login under credentials."
            yield Fault(pointer=pointer, code=FaultCode.value_not_allowed, detail=detail)
        elif name.lower() in earlier:
            yield Fault(pointer=pointer, code=FaultCode.value_not_allowed, detail=f"The header {name} is there twice.")
        earlier.add(name.lower())
