"""Where a webhook may go: one reading of a URL for saving and for sending, and one table of forbidden addresses.

A business names the URL, so the URL is hostile until proven otherwise. Two walls: `check_url` refuses when an endpoint
is saved and again before each attempt; `resolve_public` decides on the addresses that the name has *now*, and the
socket is connected to exactly those, so a name that turns private after saving reaches nothing.
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

from marketplace.settings import Settings
from routing.delivery import NotSent, NotSentReason

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_URL_LENGTH = 2048
DEFAULT_PORTS = (80, 443, 8443)
DNS_THREADS = 32

# --- the URL ----------------------------------------------------------------------------------------------------------


class UrlFault(StrEnum):
    """What can be wrong with a webhook's URL; also the code of the problem that the owner gets."""

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


class UrlRefused(msgspec.Struct, frozen=True, kw_only=True):
    """A URL that no webhook may use, and why."""

    fault: UrlFault
    detail: str = ""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A URL taken apart. `host` is an ASCII name or an address in its usual spelling; `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str
    address: Address | None

    @property
    def host_header(self) -> str:
        """The host as HTTP wants it: IPv6 in brackets, the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _SCHEME_PORTS[self.scheme] else f"{host}:{self.port}"


UrlVerdict = Target | UrlRefused

_SCHEME_PORTS = {"https": 443, "http": 80}
_PERCENT = re.compile(r"%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_REST = re.compile(r"//(?P<authority>[^/?#]+)(?P<path>/[!-~]*|\?[!-~]*|)")
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
    """Take a webhook's URL apart, or say why it may not be used. No name is resolved here.

    `networks` are the operator's exceptions: an address inside them is fine, on any port. `ports` come on top of 80,
    443 and 8443. `own_hosts` are the names under which this service is reached.
    """
    target = _take_apart(url, ("https", "http") if http_allowed else ("https",))
    if isinstance(target, UrlRefused):
        return target
    if target.host in own_hosts:
        return UrlRefused(fault=UrlFault.url_loops_to_service, detail=target.host)
    why = refusal(target.address, networks) if target.address else None
    if why is not None:
        return UrlRefused(fault=UrlFault.url_address_not_public, detail=f"{target.host} is {why}")
    excepted = target.address is not None and _listed(target.address, networks)
    if target.port not in (*DEFAULT_PORTS, *ports) and not excepted:
        return UrlRefused(fault=UrlFault.url_port, detail=str(target.port))
    return target


def address_key(target: Target) -> str:
    """One spelling for all URLs that lead to the same place, to compare them by (RFC 3986, section 6.2).

    Without the scheme and default ports, without dot segments, doubled slashes and the slash at the end, with
    unreserved characters decoded and the other percent-encodings in upper case. The query stays: it may tell tenants
    apart.
    """
    path, _, query = _PERCENT.sub(_decode_unreserved, target.path).partition("?")
    path = posixpath.normpath(f"/{path.lstrip('/')}").rstrip("/")
    host = f"[{target.host}]" if ":" in target.host else target.host
    port = "" if target.port in _SCHEME_PORTS.values() else f":{target.port}"
    return f"{host}{port}{path}{'?' if query else ''}{query}"


def _decode_unreserved(encoded: re.Match[str]) -> str:
    character = chr(int(encoded[1], 16))
    return character if character in _UNRESERVED else encoded[0].upper()


def _take_apart(url: str, schemes: tuple[str, ...]) -> UrlVerdict:
    if len(url) > MAX_URL_LENGTH or _UNUSABLE.search(url):
        return UrlRefused(fault=UrlFault.url_invalid)
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[1].lower() not in schemes:
        return UrlRefused(fault=UrlFault.url_scheme, detail=scheme[1].lower() if scheme else "")
    rest = _REST.fullmatch(url, scheme.end())
    if rest is None:
        return UrlRefused(fault=UrlFault.url_invalid)
    if "@" in rest["authority"]:
        return UrlRefused(fault=UrlFault.url_credentials)
    authority = _AUTHORITY.fullmatch(rest["authority"])
    host = _read_host(authority["host"]) if authority else None
    if authority is None or host is None:
        return UrlRefused(fault=UrlFault.url_invalid)
    port = int(authority["port"]) if authority["port"] else _SCHEME_PORTS[scheme[1].lower()]
    if not 0 < port < 65536:
        return UrlRefused(fault=UrlFault.url_port, detail=str(port))
    return Target(
        scheme=scheme[1].lower(),
        host=str(host),
        port=port,
        path=rest["path"] if rest["path"].startswith("/") else f"/{rest['path']}",
        address=None if isinstance(host, str) else host,
    )


def _read_host(text: str) -> str | Address | None:
    """A host in any spelling that some resolver would understand: an address if it is one, else an ASCII name.

    `2130706433`, `0x7f000001`, `017700000001`, `127.1` and `①②⑦.⓪.⓪.①` are all 127.0.0.1, as the C library and every
    browser read them; a last label that is a number but no address is no name either.
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
    (ipaddress.ip_network(network), why)
    for network, why in (
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
    """Why no webhook may reach `address`, in a few words, or None if it may.

    An own table, because the standard library's `is_global` calls multicast, site-local, NAT64, 6to4, 5f00::/16 and one
    cloud's 168.63.129.16 global. `::ffff:a.b.c.d` is judged as a.b.c.d, which is where it leads; tunnels that carry an
    IPv4 address are refused whatever they carry. An address in the operator's `networks` is always allowed.
    """
    address = _unmapped(address)
    if _listed(address, networks):
        return None
    for network, why in _FORBIDDEN:
        if address.version == network.version and address in network:
            return why
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return "not a global address"
    return None


def _unmapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _listed(address: Address, networks: tuple[Network, ...]) -> bool:
    address = _unmapped(address)
    return any(address.version == network.version and address in network for network in networks)


# --- the name ---------------------------------------------------------------------------------------------------------


class Vetted(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses to connect to, best first, and those left out with the reason, for the owner."""

    addresses: tuple[str, ...]
    refused: tuple[str, ...] = ()


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """The host's addresses from the operating system. Raises OSError (`socket.gaierror`) if there are none.

    On threads of its own: the event loop's resolver shares a handful with everything else (uvloop lets two look up at
    once), so a few names with dead servers would hold up all deliveries.
    """
    return await asyncio.get_running_loop().run_in_executor(_dns_threads, _look_up, host, port)


def _look_up(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


_dns_threads = ThreadPoolExecutor(DNS_THREADS, thread_name_prefix="dns")


async def resolve_public(
    host: str, port: int, *, networks: tuple[Network, ...] = (), resolver: Resolver = resolve_by_system
) -> Vetted | NotSent:
    """Resolve a name and keep the addresses that a webhook may reach; NotSent if there are none. Sets no time limit.

    A name with public and private addresses is used by its public ones alone. The two families take turns, best first,
    so that a host whose IPv6 is broken is reached at the second try.
    """
    try:
        found = [ipaddress.ip_address(text) for text in await resolver(host, port)]
    except (OSError, ValueError) as error:
        return NotSent(reason=NotSentReason.dns_failed, detail=f"{host}: {error}")
    refused: list[str] = []
    allowed: list[Address] = []
    for address in dict.fromkeys(found):
        why = refusal(address, networks)
        if why is None:
            allowed.append(address)
        else:
            refused.append(f"{address} is {why}")
    if allowed:
        return Vetted(addresses=_taking_turns(allowed), refused=tuple(refused))
    if refused:
        return NotSent(reason=NotSentReason.address_refused, detail=f"{host}: {', '.join(refused)}")
    return NotSent(reason=NotSentReason.dns_failed, detail=f"{host} has no addresses")


def _taking_turns(addresses: list[Address]) -> tuple[str, ...]:
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    pairs = zip_longest(first, second)
    return tuple(str(address) for pair in pairs for address in pair if address is not None)


# --- the operator's rules ---------------------------------------------------------------------------------------------


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's rules for webhooks in one value; without any, only https to public addresses."""

    http_allowed: bool = False
    networks: tuple[Network, ...] = ()
    ports: tuple[int, ...] = ()
    own_hosts: tuple[str, ...] = ()
    resolver: Resolver = resolve_by_system

    def check(self, url: str) -> UrlVerdict:
        """`check_url` by these rules."""
        return check_url(
            url,
            http_allowed=self.http_allowed,
            networks=self.networks,
            ports=self.ports,
            own_hosts=self.own_hosts,
        )

    async def resolve(self, target: Target) -> Vetted | NotSent:
        """The addresses behind a checked URL, by these rules; an address in the URL itself needs no look-up."""
        if target.address is not None:
            return Vetted(addresses=(target.host,))
        return await resolve_public(target.host, target.port, networks=self.networks, resolver=self.resolver)


def guard_of(settings: Settings) -> Guard:
    """The rules as the settings give them. Our own public host is never a target: such a webhook would be a loop.

    An address as public URL is a development set-up; whether webhooks may reach it is for `outbound_networks` to say.
    """
    host = urlsplit(settings.public_url).hostname
    if host is not None and not isinstance(_read_host(host), str):
        host = None
    return Guard(
        http_allowed=settings.outbound_http,
        networks=tuple(ipaddress.ip_network(network) for network in settings.outbound_networks),
        ports=settings.outbound_ports,
        own_hosts=(host,) if host else (),
    )
