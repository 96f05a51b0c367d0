"""Download a file from a URL that an operator typed, to addresses that are allowed, into a file of bounded size.

Each address is vetted as for a webhook: the URL before each request, its addresses when the socket connects. A redirect
is followed only if its own URL and addresses are allowed as well. An answer whose end cannot be told from a cut
connection, having neither a length nor chunks, is refused.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import BinaryIO, Final, TypeAlias
from urllib.parse import urljoin

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from marketplace.webhook.address import AddressRules, ParsedUrl, UrlRefusal
from marketplace.webhook.transport import CONNECT_SECONDS, MAX_HEADER_BYTES, USER_AGENT, system_tls
from routing.delivery import NotSent

MOST_REDIRECTS: Final = 3
STALL_SECONDS: Final = 30.0
"Time without a byte after which the server counts as gone."
CHUNK_BYTES: Final = 256 * 1024
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class DownloadFault(StrEnum):
    """Reason why no file was downloaded."""

    address_refused = "address_refused"
    """The URL, or an address behind it, is not allowed."""
    not_reached = "not_reached"
    """The server could not be reached, or its certificate is not valid."""
    too_late = "too_late"
    """The server did not answer in time, or the file took too long."""
    cut = "cut"
    """The connection ended before the file did, or the answer has neither a length nor chunks."""
    too_large = "too_large"
    """The file is larger than is allowed."""
    redirected = "redirected"
    """There were too many redirects, or one without an address."""
    encoded = "encoded"
    """The answer has a content coding that was not requested."""


class FailedDownload(msgspec.Struct, frozen=True, kw_only=True):
    """A download that failed before a complete answer."""

    fault: DownloadFault
    detail: str = ""


class Download(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer. Only with the status 200 was a file written: `size` bytes with the hash `sha256`.

    `etag` and `last_modified` are the server's own words, for the next conditional request.
    """

    status: int
    size: int = 0
    sha256: bytes = b""
    etag: str | None = None
    last_modified: str | None = None
    retry_after_seconds: int | None = None


DownloadResult: TypeAlias = Download | FailedDownload


class _AddressRefused(OSError):
    """Raised when a name has no address that is allowed."""


class _VettedResolver(AbstractResolver):
    """Resolver of names to the addresses that may be connected to."""

    def __init__(self, guard: AddressRules) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        target = ParsedUrl(scheme="https", host=host, port=port, path="/", address=None)
        vetted = await self._guard.resolve(target)
        if isinstance(vetted, NotSent):
            raise _AddressRefused(f"{vetted.reason}: {vetted.detail}")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in vetted.addresses
        ]

    async def close(self) -> None:
        """Release nothing: each look-up stands alone."""


async def download(
    url: str,
    sink: BinaryIO,
    *,
    guard: AddressRules,
    headers: Mapping[str, str],
    secret_headers: Mapping[str, str],
    most_bytes: int,
    seconds: float,
    tls: ssl.SSLContext | None = None,
) -> DownloadResult:
    """Download a file into `sink`, within `seconds`, and return what was answered. Errors of the network do not raise.

    `secret_headers` are sent to the server of `url` alone, and to no other that it redirects to. After a fault or a
    status other than 200, `sink` may hold a part of a file. Raises OSError if `sink` cannot be written.
    """
    connector = aiohttp.TCPConnector(
        resolver=_VettedResolver(guard), ssl=tls or system_tls(), use_dns_cache=False, force_close=True
    )
    timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        auto_decompress=False,
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    ) as session:
        try:
            async with asyncio.timeout(seconds):
                return await _follow(session, url, sink, guard, headers, secret_headers, most_bytes)
        except TimeoutError:
            return FailedDownload(fault=DownloadFault.too_late)
        except aiohttp.ClientConnectorError as error:
            refused = isinstance(error.os_error, _AddressRefused)
            fault = DownloadFault.address_refused if refused else DownloadFault.not_reached
            return FailedDownload(fault=fault, detail=str(error.os_error))
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            return FailedDownload(fault=DownloadFault.cut, detail=type(error).__name__)
        except aiohttp.ClientError as error:
            return FailedDownload(fault=DownloadFault.not_reached, detail=type(error).__name__)


async def _follow(
    session: aiohttp.ClientSession,
    url: str,
    sink: BinaryIO,
    guard: AddressRules,
    headers: Mapping[str, str],
    secret_headers: Mapping[str, str],
    most_bytes: int,
) -> DownloadResult:
    """Request a URL and those that it redirects to."""
    first: ParsedUrl | None = None
    for _ in range(MOST_REDIRECTS + 1):
        target = guard.check(url)
        if isinstance(target, UrlRefusal):
            return FailedDownload(fault=DownloadFault.address_refused, detail=f"{target.fault}: {target.detail}")
        first = first or target
        is_same_server = (target.scheme, target.host, target.port) == (first.scheme, first.host, first.port)
        answer = await _request(session, target, {**headers, **(secret_headers if is_same_server else {})})
        async with answer:
            if answer.status not in REDIRECTS:
                return await _read(answer, sink, most_bytes)
            location = answer.headers.get("Location")
        if not location:
            break
        url = urljoin(f"{target.scheme}://{target.host_header}{target.path}", location)
    return FailedDownload(fault=DownloadFault.redirected)


async def _request(
    session: aiohttp.ClientSession, target: ParsedUrl, headers: Mapping[str, str]
) -> aiohttp.ClientResponse:
    """Send a request to a checked URL, written as it was checked, so that no other parser reads another host in it."""
    address = URL(f"{target.scheme}://{target.host_header}{target.path}", encoded=True)
    common = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Accept": "*/*"}
    return await session.get(address, headers={**common, **headers}, allow_redirects=False)


async def _read(answer: aiohttp.ClientResponse, sink: BinaryIO, most_bytes: int) -> DownloadResult:
    """Write the body of a 200 to the sink; return the answer."""
    if answer.status != 200:
        return Download(status=answer.status, retry_after_seconds=_retry_after(answer))
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        return FailedDownload(fault=DownloadFault.encoded, detail=answer.headers["Content-Encoding"][:40])
    if answer.content_length is None and "chunked" not in answer.headers.get("Transfer-Encoding", "").lower():
        return FailedDownload(fault=DownloadFault.cut, detail="the answer states no length")
    if (answer.content_length or 0) > most_bytes:
        return FailedDownload(fault=DownloadFault.too_large, detail=f"{answer.content_length:,} bytes")
    digest, size = sha256(), 0
    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
        size += len(chunk)
        if size > most_bytes:
            return FailedDownload(fault=DownloadFault.too_large, detail=f"more than {most_bytes:,} bytes")
        digest.update(chunk)
        await asyncio.to_thread(sink.write, chunk)
    return Download(
        status=answer.status,
        size=size,
        sha256=digest.digest(),
        etag=answer.headers.get("ETag"),
        last_modified=answer.headers.get("Last-Modified"),
    )


def _retry_after(answer: aiohttp.ClientResponse) -> int | None:
    """Return the seconds that the server states; None without a plain number."""
    text = answer.headers.get("Retry-After", "").strip()
    return int(text[:9]) if text.isascii() and text.isdigit() else None
