"""Check that a webhook's URL is allowed and that its host has a public address (protection against SSRF).

A business types the URL, so it is treated as hostile. `check_url` is called when an endpoint is saved and again before
each attempt. `resolve_public` then checks the addresses that the name has now, and the socket connects to exactly
those: a name that resolves to a private address after the endpoint was saved is not connected to.
"""

import asyncio
import ipaddress
import posixpath
import re
import socket
import string
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from itertools import zip_longest
from urllib.parse import urlsplit

import idna
import msgspec

from marketplace.runtime.settings import Settings
from routing.delivery import NotSent, NotSentReason

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_URL_LENGTH = 2048
DEFAULT_PORTS = (80, 443, 8443)
DNS_THREADS = 32

# --- the URL ----------------------------------------------------------------------------------------------------------


class UrlFault(StrEnum):
    """Reasons to refuse a webhook's URL. The value is also the code of the problem that the API returns."""

    url_invalid = "url_invalid"
    """It is not a URL, or not a plain one: no fragment, no spaces, no backslashes, other characters percent-encoded."""
    url_scheme = "url_scheme"
    """It must begin with https://"""
    url_credentials = "url_credentials"
    """It must hold no user name or password: requests are signed instead."""
    url_port = "url_port"
    """Webhooks go to ports 80, 443 and 8443 only."""
    url_loops_to_service = "url_loops_to_service"
    """It points back at this service."""
    url_address_not_public = "url_address_not_public"
    """Its address is not on the public internet."""


class UrlRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """A refused URL: the reason, and the part of the URL that is at fault."""

    fault: UrlFault
    detail: str = ""


class ParsedUrl(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of an allowed URL.

    `host` is an ASCII name or an address in canonical form, which `address` then holds as well; `path` includes the
    query.
    """

    scheme: str
    host: str
    port: int
    path: str
    address: Address | None

    @property
    def host_header(self) -> str:
        """Value of the Host header: an IPv6 address in brackets, and the port unless it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _SCHEME_PORTS[self.scheme] else f"{host}:{self.port}"


UrlVerdict = ParsedUrl | UrlRefusal

_SCHEME_PORTS = {"https": 443, "http": 80}
_PERCENT = re.compile(r"%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_LOCATION = re.compile(r"//(?P<authority>[^/?#]+)(?P<path>/[!-~]*|\?[!-~]*|)")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
_UNUSABLE = re.compile(r"[\x00-\x20\x7f-\xa0\\#]")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


def check_url(
    url: str,
    *,
    http_allowed: bool = False,
    networks: tuple[Network, ...] = (),
    ports: tuple[int, ...] = (),
    own_hosts: tuple[str, ...] = (),
) -> UrlVerdict:
    """Return the parts of a webhook's URL, or the reason why it may not be used. No name is resolved here.

    `networks` are the operator's exceptions: an address inside them is allowed, on any port. `ports` are allowed in
    addition to 80, 443 and 8443. `own_hosts` are the names under which this service is reached; they are refused.
    """
    schemes = ("https", "http") if http_allowed else ("https",)
    target = _parse_url(url, schemes)
    if isinstance(target, UrlRefusal):
        return target
    if target.host in own_hosts:
        return UrlRefusal(fault=UrlFault.url_loops_to_service, detail=target.host)
    reason = refusal(target.address, networks) if target.address else None
    if reason is not None:
        return UrlRefusal(fault=UrlFault.url_address_not_public, detail=f"{target.host} is {reason}")
    excepted = target.address is not None and _is_in(target.address, networks)
    if target.port not in (*DEFAULT_PORTS, *ports) and not excepted:
        return UrlRefusal(fault=UrlFault.url_port, detail=str(target.port))
    return target


def address_key(target: ParsedUrl) -> str:
    """Return a normalised form of the URL, equal for all URLs that lead to the same place (RFC 3986, section 6.2).

    It has no scheme, default port, dot segment, doubled slash or final slash; unreserved characters are decoded, and
    other percent-encodings are in upper case. The query is kept, because it may distinguish tenants.
    """
    path, _, query = _PERCENT.sub(_decode_unreserved, target.path).partition("?")
    path = posixpath.normpath(f"/{path.lstrip('/')}").rstrip("/")
    host = f"[{target.host}]" if ":" in target.host else target.host
    port = "" if target.port in _SCHEME_PORTS.values() else f":{target.port}"
    return f"{host}{port}{path}{'?' if query else ''}{query}"


def _decode_unreserved(encoded: re.Match[str]) -> str:
    character = chr(int(encoded[1], 16))
    return character if character in _UNRESERVED else encoded[0].upper()


def _parse_url(url: str, schemes: tuple[str, ...]) -> UrlVerdict:
    """Return the parts of an absolute URL with one of `schemes`, or the first fault in it."""
    if len(url) > MAX_URL_LENGTH or _UNUSABLE.search(url):
        return UrlRefusal(fault=UrlFault.url_invalid)
    match = _SCHEME.match(url)
    if match is None:
        return UrlRefusal(fault=UrlFault.url_scheme)
    scheme = match[1].lower()
    if scheme not in schemes:
        return UrlRefusal(fault=UrlFault.url_scheme, detail=scheme)
    location = _LOCATION.fullmatch(url, match.end())
    if location is None:
        return UrlRefusal(fault=UrlFault.url_invalid)
    if "@" in location["authority"]:
        return UrlRefusal(fault=UrlFault.url_credentials)
    path = location["path"]
    if not path.startswith("/"):
        path = f"/{path}"
    return _parse_authority(scheme, location["authority"], path)


def _parse_authority(scheme: str, text: str, path: str) -> UrlVerdict:
    """Return the target with the host and port in `text`, or the fault of one of these."""
    authority = _AUTHORITY.fullmatch(text)
    host = _read_host(authority["host"]) if authority else None
    if authority is None or host is None:
        return UrlRefusal(fault=UrlFault.url_invalid)
    port = int(authority["port"]) if authority["port"] else _SCHEME_PORTS[scheme]
    if not 0 < port < 65536:
        return UrlRefusal(fault=UrlFault.url_port, detail=str(port))
    address = None if isinstance(host, str) else host
    return ParsedUrl(scheme=scheme, host=str(host), port=port, path=path, address=address)


def _read_host(text: str) -> str | Address | None:
    """Return a host as an address if any resolver would read it as one, else as an ASCII name; None if it is neither.

    `2130706433`, `0x7f000001`, `017700000001`, `127.1` and `①②⑦.⓪.⓪.①` are all 127.0.0.1, as the C library and
    browsers read them. A name whose last label is a number is refused unless the whole is an address.
    """
    try:
        if text.startswith("["):
            return ipaddress.IPv6Address(text[1:-1])
        name = text if text.isascii() else idna.encode(text, uts46=True).decode()
        name = name.lower().removesuffix(".")
        if _ENDS_IN_NUMBER.fullmatch(name):
            return ipaddress.IPv4Address(socket.inet_aton(name))
    except (ValueError, OSError):  # idna's errors are ValueErrors
        return None
    return name if len(name) <= 253 and _NAME.fullmatch(name) else None


# --- the address ------------------------------------------------------------------------------------------------------

_FORBIDDEN = tuple(
    (ipaddress.ip_network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's own service"),
        ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.31.196.0/24", "an anycast sink"),
        ("192.52.193.0/24", "a multicast relay"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "an anycast sink"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "an IPv4 address inside an IPv6 one"),
        ("64:ff9b::/96", "an IPv4 address behind NAT64"),
        ("64:ff9b:1::/48", "an IPv4 address behind local NAT64"),
        ("100::/63", "a sink"),
        ("2001::/32", "an IPv4 address behind Teredo"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "an IPv4 address behind 6to4"),
        ("2620:4f:8000::/48", "an anycast sink"),
        ("3fff::/20", "for documentation"),
        ("5f00::/16", "for segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


def refusal(address: Address, networks: tuple[Network, ...] = ()) -> str | None:
    """Return the reason why no webhook may connect to `address`, in a few words, or None if one may.

    The table is our own, because the standard library's `is_global` is true of multicast, site-local, NAT64, 6to4,
    5f00::/16 and Azure's 168.63.129.16. `::ffff:a.b.c.d` is treated as a.b.c.d, which it leads to; ranges that tunnel
    an IPv4 address are refused whatever that address is. An address in the operator's `networks` is always allowed.
    """
    address = _unmap(address)
    if _is_in(address, networks):
        return None
    for network, reason in _FORBIDDEN:
        if address.version == network.version and address in network:
            return reason
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return "not a global address"
    return None


def _unmap(address: Address) -> Address:
    """Return the IPv4 address inside an IPv4-mapped IPv6 one, and any other address as it is."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    """Return whether the address lies in one of the networks."""
    address = _unmap(address)
    return any(address.version == network.version and address in network for network in networks)


# --- the name ---------------------------------------------------------------------------------------------------------


class VettedAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses of a host to connect to, best first, and the refused ones, each as "address is reason"."""

    addresses: tuple[str, ...]
    refused: tuple[str, ...] = ()


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """Return the host's addresses from the operating system. Raises OSError (`socket.gaierror`) if there are none.

    It uses a thread pool of its own. The event loop's resolver shares few threads with everything else (uvloop runs two
    look-ups at once), so a few names whose servers do not answer would delay all deliveries.
    """
    return await asyncio.get_running_loop().run_in_executor(_dns_threads, _list_addresses, host, port)


def _list_addresses(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


_dns_threads = ThreadPoolExecutor(DNS_THREADS, thread_name_prefix="dns")


async def resolve_public(
    host: str, port: int, *, networks: tuple[Network, ...] = (), resolver: Resolver = resolve_by_system
) -> VettedAddresses | NotSent:
    """Resolve a name and return the addresses that a webhook may reach, or NotSent if there are none.

    A name with public and private addresses is used by its public ones alone. IPv6 and IPv4 addresses alternate, so
    that a host whose IPv6 is broken is reached at the second try. The caller sets the time limit.
    """
    try:
        addresses = [ipaddress.ip_address(text) for text in await resolver(host, port)]
    except (OSError, ValueError) as error:
        return NotSent(reason=NotSentReason.dns_failed, detail=f"{host}: {error}")
    refused: list[str] = []
    allowed: list[Address] = []
    for address in dict.fromkeys(addresses):
        reason = refusal(address, networks)
        if reason is None:
            allowed.append(address)
        else:
            refused.append(f"{address} is {reason}")
    if allowed:
        return VettedAddresses(addresses=_alternate_families(allowed), refused=tuple(refused))
    if refused:
        return NotSent(reason=NotSentReason.address_refused, detail=f"{host}: {', '.join(refused)}")
    return NotSent(reason=NotSentReason.dns_failed, detail=f"{host} has no addresses")


def _alternate_families(addresses: list[Address]) -> tuple[str, ...]:
    """Return the addresses with IPv6 and IPv4 alternating, beginning with the family of the first."""
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    pairs = zip_longest(first, second)
    return tuple(str(address) for pair in pairs for address in pair if address is not None)


# --- the operator's rules ---------------------------------------------------------------------------------------------


class AddressRules(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's rules for webhooks; the default allows only https to public addresses."""

    http_allowed: bool = False
    networks: tuple[Network, ...] = ()
    ports: tuple[int, ...] = ()
    own_hosts: tuple[str, ...] = ()
    resolver: Resolver = resolve_by_system

    def check(self, url: str) -> UrlVerdict:
        """Apply `check_url` with these rules."""
        return check_url(
            url,
            http_allowed=self.http_allowed,
            networks=self.networks,
            ports=self.ports,
            own_hosts=self.own_hosts,
        )

    async def resolve(self, target: ParsedUrl) -> VettedAddresses | NotSent:
        """Return the addresses to connect to for a checked URL; an address in the URL itself is not looked up."""
        if target.address is not None:
            return VettedAddresses(addresses=(target.host,))
        return await resolve_public(target.host, target.port, networks=self.networks, resolver=self.resolver)


def guard_of(settings: Settings) -> AddressRules:
    """Return the rules that the settings state.

    The host name of `public_url` is never a target, because such a webhook would be a loop. If `public_url` holds an
    address, as in development, `outbound_networks` alone decides whether webhooks may reach it.
    """
    host = urlsplit(settings.public_url).hostname
    if host is not None and not isinstance(_read_host(host), str):
        host = None
    own_hosts = (host,) if host else ()
    return AddressRules(
        http_allowed=settings.outbound_http,
        networks=tuple(ipaddress.ip_network(network) for network in settings.outbound_networks),
        ports=settings.outbound_ports,
        own_hosts=own_hosts,
    )
