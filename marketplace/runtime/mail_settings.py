"""Settings of e-mail: the operator's mail server, the sender that people see, and the address for bounces."""

from email.headerregistry import Address
from enum import StrEnum
from urllib.parse import unquote, urlsplit

import msgspec
from email_validator import EmailNotValidError, validate_email

LOOPBACK = ("127.0.0.1", "::1", "localhost")
MOST_NAME_CHARACTERS = 100
MOST_LOCAL_CHARACTERS = 20
"Characters before the @ of the address for bounces: with a tag of 41 they stay within the 64 of RFC 5321."


class MailSecurity(StrEnum):
    """Ways in which a connection to the mail server is encrypted."""

    implicit = "implicit"
    "TLS from the first byte: smtps://, usually port 465."
    starttls = "starttls"
    "STARTTLS, without which nothing is sent: smtp://, usually port 587."
    none = "none"
    "No encryption: for a server on this machine, or with ?tls=none."


DEFAULT_PORTS = {MailSecurity.implicit: 465, MailSecurity.starttls: 587, MailSecurity.none: 25}


class MailServer(msgspec.Struct, frozen=True, kw_only=True):
    """Address of the mail server, with user name and password, which its text form does not show."""

    host: str
    port: int
    security: MailSecurity
    user: str | None = None
    password: str = ""

    def __repr__(self) -> str:
        return f"{self.host}:{self.port} ({self.security})"


class MailSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The mail server, the sender that people see, and the address whose tags receive bounces.

    Both addresses are in ASCII. The server of `bounces` must deliver `name+tag@domain` to `name@domain`.
    """

    server: MailServer
    sender: Address
    bounces: Address


def read_server(url: str) -> MailServer:
    """Return the mail server of a URL: `smtp://user:password@host:587`, `smtps://…`, or `smtp://…?tls=none`.

    `smtp` requires STARTTLS unless the host is this machine. Raises ValueError, with a sentence that says what to do.
    """
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    if parts.scheme not in ("smtp", "smtps") or not host:
        raise ValueError("Begin it with smtp:// or smtps:// and a host name.")
    if parts.path.strip("/") or parts.query not in ("", "tls=none") or parts.fragment or port == 0:
        raise ValueError("Write nothing after host and port but ?tls=none, for a server without encryption.")
    security = _security_of(parts.scheme, host, plain=parts.query == "tls=none")
    if parts.username and security is MailSecurity.none and host not in LOOPBACK:
        raise ValueError("Leave ?tls=none out: a password must not be sent without encryption.")
    return MailServer(
        host=host,
        port=port or DEFAULT_PORTS[security],
        security=security,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password or ""),
    )


def _security_of(scheme: str, host: str, *, plain: bool) -> MailSecurity:
    if scheme == "smtps":
        return MailSecurity.implicit
    return MailSecurity.none if plain or host in LOOPBACK else MailSecurity.starttls


def read_sender(text: str) -> Address:
    """Return a sender written as `name@example.com` or `Display name <name@example.com>`.

    Raises ValueError, with a sentence that says what to do.
    """
    name, bracket, address = text.rpartition("<")
    address = address.removesuffix(">") if bracket else text
    name = name.strip().strip('"').strip()
    if not name.isprintable() or len(name) > MOST_NAME_CHARACTERS:
        raise ValueError("Write the display name in at most 100 printable characters.")
    try:
        valid = validate_email(address.strip(), check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise ValueError("Write it as Leads <leads@example.com>.") from error
    if valid.ascii_email is None:
        raise ValueError("Use an address whose part before the @ is in ASCII.")
    local, _, domain = valid.ascii_email.rpartition("@")
    return Address(display_name=name, username=local, domain=domain)


def read_bounces(text: str) -> Address:
    """Return the address for bounces, short enough for a tag. Raises ValueError as `read_sender` does."""
    address = read_sender(text)
    if "+" in address.username or len(address.username) > MOST_LOCAL_CHARACTERS:
        raise ValueError("Use an address with at most 20 characters and no + before the @: a tag is added to it.")
    return address
