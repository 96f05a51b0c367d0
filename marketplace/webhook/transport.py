"""Make one attempt to send a webhook, phase by phase, so that it is known whether a byte was sent.

Before the first byte an attempt can be undone; after it the lead may have been read. HTTP clients do not show this
moment, so the connection is made here: check the URL, resolve the name, check the addresses, connect, finish TLS, let
the caller commit the exposure and return the message, check the deadline again, and write.

An attempt may use a connection that an earlier one left open (kept.py): the exposure is committed before the first byte
of each message all the same. If that connection ends before a byte of the answer, as when the server closes it at this
moment, the same message is sent again at once, to the same server, on a new connection. There are no redirects and no
proxies from the environment. The request asks for a body without content coding, and gzip and deflate are undone all
the same. Whatever the receiver does, an attempt ends by its deadline and reads a bounded number of bytes.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from functools import cache
from hashlib import sha256
from typing import cast
from uuid import UUID

import h11
import msgspec

from marketplace.runtime import clock, failpoints
from marketplace.webhook.address import AddressRules, ParsedUrl, UrlFault, UrlRefusal, VettedAddresses
from marketplace.webhook.coding import decode_body
from marketplace.webhook.kept import KeptConnections, Server
from routing.delivery import AnswerReceived, NoAnswer, NoAnswerReason, NotSent, NotSentReason, Observation

DEADLINE_SECONDS = 20.0  # the whole attempt; the limits before the first byte add up to less: 3 + 3 * 3 + 5 = 17
DNS_SECONDS = 3.0
CONNECT_SECONDS = 3.0  # per address: a SYN lost once is repeated after one second, twice after three
MAX_ADDRESSES = 3
TLS_SECONDS = 5.0
MAX_HEADER_BYTES = 16 * 1024
MAX_INTERIM_ANSWERS = 8  # 100, 102 and 103, of which a sane server sends one or two
MAX_BODY_BYTES = 64 * 1024
MAX_DETAIL = 200

USER_AGENT = "exclusive-lead-marketplace"


class ConnectionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The server of an open connection, before anything is sent.

    `tls_fingerprint` is the SHA-256 of its certificate (32 bytes), None without TLS. `reserved`: the connection was
    reserved for this message, and is still open.
    """

    address: str
    port: int
    tls_fingerprint: bytes | None
    reserved: bool = False

    @property
    def name(self) -> str:
        """Address and port of the server, as an exposure records them."""
        return f"{self.address}:{self.port}"


class WebhookMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The message to send: the caller's headers (signature, content type) and the exact bytes that were signed."""

    headers: tuple[tuple[str, str], ...]
    body: bytes
    method: str = "POST"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Observation of one attempt, and the duration of each phase in milliseconds.

    A phase is None if it was not reached, or not needed on a kept connection.
    """

    observation: Observation
    address: str | None = None
    refused_addresses: tuple[str, ...] = ()
    dns_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    expose_ms: float | None = None
    first_byte_ms: float | None = None
    total_ms: float


OnConnected = Callable[[ConnectionInfo], Awaitable[WebhookMessage | None]]


async def post(
    url: str,
    *,
    guard: AddressRules,
    on_connected: OnConnected,
    deadline_seconds: float = DEADLINE_SECONDS,
    tls: ssl.SSLContext | None = None,
    connections: KeptConnections | None = None,
    assignment_id: UUID | None = None,
) -> Attempt:
    """Make one attempt and return what was observed. Network errors do not raise; errors of `on_connected` do.

    `on_connected` is called when only the write is left to do: it commits the exposure and returns the message, or None
    to send nothing. The deadline does not interrupt it, because it would be unknown whether an interrupted commit
    happened; if it has used up the time, nothing is sent (`too_late`). The observation is `NotSent` for everything
    before the first write, and never after it. `tls` is for an installation with a certificate authority of its own;
    the default is the system's. With `connections`, a connection of an earlier attempt is used if there is one, first
    of all the one that is reserved for `assignment_id`; and this one is kept if the answer was complete and the server
    agrees.
    """
    sender = _Sender(guard, tls, connections, deadline_seconds)
    try:
        obstacle = await sender.connect(url, assignment_id)
        if obstacle is not None:
            return sender.attempt(obstacle)
        return sender.attempt(await sender.deliver(on_connected))
    finally:
        sender.close()


class Reservations:
    """Kept connections set aside for assignments that are about to be written."""

    def __init__(self, guard: AddressRules, connections: KeptConnections, tls: ssl.SSLContext | None = None) -> None:
        self._guard = guard
        self._connections = connections
        self._tls = tls

    def reserve(self, url: str, assignment_id: UUID) -> ConnectionInfo | None:
        """Reserve an open connection to the server of `url`, and return what it is connected to; None without one."""
        target = self._guard.check(url)
        if isinstance(target, UrlRefusal):
            return None
        connection = self._connections.reserve(_server_of(target, self._tls), assignment_id)
        if connection is None:
            return None
        fingerprint = _certificate_fingerprint(connection.transport)
        return ConnectionInfo(address=connection.address, port=target.port, tls_fingerprint=fingerprint, reserved=True)

    def cancel(self, assignment_id: UUID) -> None:
        """Make the connection available to other messages again: the assignment was not written."""
        self._connections.unreserve(assignment_id)


@cache
def system_tls() -> ssl.SSLContext:
    """Return a context that verifies certificate and host name by the system's authorities, with TLS 1.2 or later."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _Sender:
    """State of one attempt: its connection as far as it was made, and the duration of each phase."""

    def __init__(
        self,
        guard: AddressRules,
        tls: ssl.SSLContext | None,
        connections: KeptConnections | None,
        deadline_seconds: float,
    ) -> None:
        self._guard = guard
        self._tls = tls
        self._connections = connections
        self._opened_at: float | None = None
        self._reused = self._reserved = False
        self._started = self._phase_started = clock.monotonic()
        self._deadline = self._started + deadline_seconds
        self._target: ParsedUrl | None = None
        self._sock: socket.socket | None = None
        self._exchange: _Exchange | None = None
        self._address: str | None = None
        self._refused: tuple[str, ...] = ()
        self._dns_ms: float | None = None
        self._connect_ms: float | None = None
        self._tls_ms: float | None = None
        self._expose_ms: float | None = None

    async def connect(self, url: str, assignment_id: UUID | None) -> NotSent | None:
        """Check the URL and take a kept connection, or open one; return NotSent if that failed."""
        target = self._guard.check(url)
        if isinstance(target, UrlRefusal):
            not_public = target.fault is UrlFault.url_address_not_public
            reason = NotSentReason.address_refused if not_public else NotSentReason.url_refused
            return _not_sent(reason, f"{target.fault}: {target.detail}")
        self._target = target
        return None if self._take_kept(target, assignment_id) else await self._open(target)

    def _take_kept(self, target: ParsedUrl, assignment_id: UUID | None) -> bool:
        """Take the connection that is reserved for the assignment, or another kept one, if there is one."""
        if self._connections is None:
            return False
        connection = self._connections.take_reserved(assignment_id) if assignment_id else None
        self._reserved = connection is not None
        connection = connection or self._connections.take(_server_of(target, self._tls))
        if connection is None:
            return False
        self._address, self._opened_at, self._reused = connection.address, connection.opened_at, True
        self._exchange = _Exchange()
        self._exchange.take_over(connection.transport)
        return True

    async def _open(self, target: ParsedUrl) -> NotSent | None:
        """Resolve the name and open a connection; return NotSent if one of these failed."""
        vetted = await self._resolve(target)
        if isinstance(vetted, NotSent):
            return vetted
        self._refused = vetted.refused
        self._reused, self._opened_at = False, clock.monotonic()
        return await self._connect_tcp(vetted.addresses, target.port) or await self._start_http(target)

    async def _resolve(self, target: ParsedUrl) -> VettedAddresses | NotSent:
        try:
            async with self._limit(DNS_SECONDS):
                vetted = await self._guard.resolve(target)
        except TimeoutError:
            return _not_sent(NotSentReason.dns_failed, f"{target.host}: no answer in time")
        self._dns_ms = self._end_phase()
        return vetted

    async def _connect_tcp(self, addresses: tuple[str, ...], port: int) -> NotSent | None:
        """Connect to the first address that accepts; nothing has been sent, so trying the next one is harmless."""
        obstacle: NotSent | None = None
        for address in addresses[:MAX_ADDRESSES]:
            self._address = address
            obstacle = await self._connect_address(address, port)
            if obstacle is None:
                self._connect_ms = self._end_phase()
                break
        return obstacle

    async def _connect_address(self, address: str, port: int) -> NotSent | None:
        """Connect to one address; return NotSent if that failed."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        connected = False
        try:
            sock.setblocking(False)
            async with self._limit(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
            connected = True
        except ConnectionRefusedError:
            return _not_sent(NotSentReason.connect_refused, f"{address} port {port} refused the connection")
        except TimeoutError:
            return _not_sent(NotSentReason.connect_timeout, f"{address} port {port} did not answer in time")
        except OSError as error:
            return _not_sent(NotSentReason.connect_failed, f"{address} port {port}: {error.strerror}")
        finally:
            if not connected:
                sock.close()
        self._sock = sock
        return None

    async def _start_http(self, target: ParsedUrl) -> NotSent | None:
        """Create the HTTP exchange on the connected socket, after the TLS handshake if the URL is https."""
        secure = target.scheme == "https"
        context = _server_of(target, self._tls)[-1]
        server_name = target.host if secure else None
        loop = asyncio.get_running_loop()
        try:
            async with self._limit(TLS_SECONDS):
                _, self._exchange = await loop.create_connection(
                    _Exchange, sock=self._sock, ssl=context, server_hostname=server_name
                )
        except ssl.SSLCertVerificationError as error:
            return _not_sent(_CERTIFICATE_FAULTS.get(error.verify_code, _UNTRUSTED), error.verify_message)
        except TimeoutError:
            return _not_sent(NotSentReason.tls_timeout, "the TLS handshake was not finished in time")
        except OSError as error:  # ssl.SSLError is one
            reason = NotSentReason.tls_failed if secure else NotSentReason.connect_failed
            return _not_sent(reason, getattr(error, "reason", None) or str(error) or "the connection was closed")
        if secure:
            self._tls_ms = self._end_phase()
        return None

    async def deliver(self, on_connected: OnConnected) -> Observation:
        """Call `on_connected`, send the message that it returns, and return the receiver's answer."""
        assert self._exchange is not None
        assert self._target is not None
        message = await on_connected(self._connected())
        self._expose_ms = self._end_phase()
        if message is None:
            return NotSent(reason=NotSentReason.abandoned)
        request = compose(self._target, message, keep=self._connections is not None)
        if self._remaining_seconds() <= 0:
            return NotSent(reason=NotSentReason.too_late)
        observation = await self._exchange.send(request, self._remaining_seconds())
        if self._reused and self._exchange.ended_unanswered and await self._open(self._target) is None:
            observation = await self._exchange.send(request, self._remaining_seconds())
        return observation

    def _connected(self) -> ConnectionInfo:
        """Return the address, port and certificate of the open connection."""
        assert self._exchange is not None
        assert self._address is not None
        assert self._target is not None
        return ConnectionInfo(
            address=self._address,
            port=self._target.port,
            tls_fingerprint=self._exchange.certificate_fingerprint(),
            reserved=self._reserved,
        )

    def close(self) -> None:
        """Keep the connection for the next attempt if that is possible, else close it without waiting."""
        if self._exchange is None:
            return
        transport = self._exchange.release() if self._connections else None
        if self._connections and transport and self._target and self._address and self._opened_at is not None:
            self._connections.put(_server_of(self._target, self._tls), transport, self._address, self._opened_at)
        else:
            self._exchange.abort()

    def attempt(self, observation: Observation) -> Attempt:
        """Return the record of this attempt, which ended with `observation`."""
        first_byte_at = self._exchange.first_byte_at if self._exchange else None
        first_byte_ms = None if first_byte_at is None else _to_ms(first_byte_at - self._phase_started)
        return Attempt(
            observation=observation,
            address=self._address,
            refused_addresses=self._refused,
            dns_ms=self._dns_ms,
            connect_ms=self._connect_ms,
            tls_ms=self._tls_ms,
            expose_ms=self._expose_ms,
            first_byte_ms=first_byte_ms,
            total_ms=_to_ms(clock.monotonic() - self._started),
        )

    def _end_phase(self) -> float:
        """Begin the next phase and return the milliseconds that the last one took."""
        now = clock.monotonic()
        duration, self._phase_started = now - self._phase_started, now
        return _to_ms(duration)

    def _remaining_seconds(self) -> float:
        """Return the seconds until the attempt's deadline; negative after it."""
        return self._deadline - clock.monotonic()

    def _limit(self, seconds: float) -> asyncio.Timeout:
        """Return a timeout of `seconds`, or of the time until the deadline if that is shorter."""
        return asyncio.timeout(min(seconds, self._remaining_seconds()))


def _server_of(target: ParsedUrl, tls: ssl.SSLContext | None) -> Server:
    context = (tls or system_tls()) if target.scheme == "https" else None
    return target.scheme, target.host, target.port, context


def _certificate_fingerprint(transport: asyncio.Transport) -> bytes | None:
    secure: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    certificate = secure.getpeercert(binary_form=True) if secure else None
    return sha256(certificate).digest() if certificate else None


class _Exchange(asyncio.Protocol):
    """Protocol of one connection that carries one request and its answer."""

    def __init__(self) -> None:
        self.first_byte_at: float | None = None
        self._transport: asyncio.Transport | None = None
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
        for event in _REQUEST_EVENTS:
            self._http.send(event)
        self._outcome: asyncio.Future[Observation] = asyncio.get_running_loop().create_future()
        self._sent = False
        self._spoke_first = False
        self._interim_answers = 0
        self._answer: h11.Response | None = None
        self._complete = False
        self._body = bytearray()

    async def send(self, request: bytes, seconds: float) -> Observation:
        """Write the request and wait at most `seconds` for the answer."""
        assert self._transport is not None
        alarm = asyncio.get_running_loop().call_later(seconds, self._end, NoAnswerReason.timeout)
        try:
            self._sent = True
            if self._spoke_first:  # an answer before the request, perhaps a time-out: it says nothing about this lead
                self._end(NoAnswerReason.malformed)
            if not self._outcome.done():  # else the connection broke while the exposure was committed
                self._transport.write(request)
            await failpoints.reach("after_write_before_answer")
            return await self._outcome
        finally:
            alarm.cancel()

    def abort(self) -> None:
        """Close the connection without waiting for the other side."""
        if self._transport is not None:
            self._transport.abort()

    def certificate_fingerprint(self) -> bytes | None:
        """Return the SHA-256 of the server's certificate, or None without TLS."""
        assert self._transport is not None
        return _certificate_fingerprint(self._transport)

    def take_over(self, transport: asyncio.Transport) -> None:
        """Begin on a connection that an earlier exchange has left open."""
        transport.set_protocol(self)
        self._transport = transport

    def release(self) -> asyncio.Transport | None:
        """Return the connection, if the answer was complete and both sides agree to use it again; else None."""
        states = (self._http.our_state, self._http.their_state)
        is_over = states == (h11.DONE, h11.DONE) and self._http.trailing_data == (b"", False)
        if not self._complete or not is_over or self._transport is None or self._transport.is_closing():
            return None
        return self._transport

    @property
    def ended_unanswered(self) -> bool:
        """True if the connection ended before the first byte of an answer, and before the deadline."""
        if self.first_byte_at is not None or not self._outcome.done():
            return False
        observation = self._outcome.result()
        return isinstance(observation, NoAnswer) and observation.reason is not NoAnswerReason.timeout

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses

    def data_received(self, data: bytes) -> None:
        """Read the answer; bytes that arrive before the request was written are noted and dropped.

        Bytes after a complete answer close the connection: they belong to nothing that was asked.
        """
        if self._outcome.done():
            self.abort()
            return
        if not self._sent:
            self._spoke_first = True
            return
        self._http.receive_data(data)
        self.first_byte_at = self.first_byte_at or clock.monotonic()
        self._read_events()

    def eof_received(self) -> None:
        """End the exchange: a body without a stated length is complete if the connection was closed in order."""
        if self._answer is not None and not self._outcome.done() and self._closed_in_order():
            self._http.receive_data(b"")  # for a body without a length, this is its proper end
            self._read_events()
        self._end(NoAnswerReason.closed)

    def _closed_in_order(self) -> bool:
        """Return whether the server closed the connection: with TLS by a close_notify, which nobody can forge."""
        assert self._transport is not None
        secure: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        if secure is None:
            return True
        try:
            return secure.read(1) == b""  # the event loop reports an end without a close_notify in the same way
        except ssl.SSLError:
            return False

    def connection_lost(self, exc: Exception | None) -> None:
        reason = NoAnswerReason.closed if exc is None else NoAnswerReason.reset
        self._end(reason)

    def _read_events(self) -> None:
        """Read what h11 has parsed, and end the exchange at the end of the answer or at its first fault."""
        try:
            while not self._outcome.done():
                match self._http.next_event():
                    case h11.InformationalResponse():
                        self._interim_answers += 1
                        if self._interim_answers > MAX_INTERIM_ANSWERS:
                            self._end(NoAnswerReason.malformed)
                    case h11.Response() as answer:
                        self._answer = answer
                    case h11.Data(data=data):
                        self._body += data
                        if len(self._body) > MAX_BODY_BYTES:
                            self._finish(truncated=True)
                    case h11.EndOfMessage():
                        self._finish(truncated=not self._body and not _states_length(self._answer))
                    case _:  # more bytes are needed
                        return
        except h11.RemoteProtocolError:
            self._end(NoAnswerReason.malformed)

    def _end(self, reason: NoAnswerReason) -> None:
        """End the exchange early: with a truncated answer if its headers are complete, else with no answer."""
        if self._outcome.done():
            return
        if self._answer is None:
            self._outcome.set_result(NoAnswer(reason=reason))
            self.abort()
        else:
            self._finish(truncated=True)

    def _finish(self, *, truncated: bool) -> None:
        """Set the outcome to the answer that was read, and close the connection unless the answer is complete."""
        assert self._answer is not None
        body, coding = bytes(self._body[:MAX_BODY_BYTES]), _header(self._answer, b"content-encoding")
        decoded = decode_body(body, coding, MAX_BODY_BYTES) if coding and not truncated else None
        body, whole, coding = (body, True, coding) if decoded is None else (*decoded, "")
        self._outcome.set_result(
            AnswerReceived(
                status=self._answer.status_code,
                retry_after_seconds=_retry_after_seconds(self._answer),
                body=body,
                truncated=truncated or not whole,
                content_type=_header(self._answer, b"content-type").partition(";")[0].strip(),
                content_coding=coding,
            )
        )
        self._complete = not truncated
        if truncated:
            self.abort()


# The request as h11 must know it to read the answer. The real one is written by `compose`, at a third of h11's cost.
_REQUEST_EVENTS = (
    h11.Request(method="POST", target="/", headers=[("Host", "")]),
    h11.EndOfMessage(),
)
_HEADER = re.compile(r"[A-Za-z0-9-]+: [ -~]*")


def compose(target: ParsedUrl, message: WebhookMessage, *, keep: bool = False) -> bytes:
    """Return the request as bytes, with header names in Title-Case and Host first, as some receivers expect.

    The server is asked to close the connection afterwards, or with `keep` to leave it open.
    Raises ValueError for a header with a line break or a character outside printable ASCII.
    """
    headers = (
        f"Host: {target.host_header}",
        *(f"{name.title()}: {value}" for name, value in message.headers),
        f"User-Agent: {USER_AGENT}",
        "Accept-Encoding: identity",
        f"Content-Length: {len(message.body)}",
        "Connection: keep-alive" if keep else "Connection: close",
    )
    if not all(map(_HEADER.fullmatch, headers)):
        raise ValueError("a header must be one plain line")
    head = "\r\n".join((f"{message.method} {target.path} HTTP/1.1", *headers, "", ""))
    return head.encode() + message.body


_UNTRUSTED = NotSentReason.tls_certificate_untrusted
# OpenSSL's X509_V_ERR_… for not yet valid, expired, wrong name, wrong address; all others are an untrusted chain.
_CERTIFICATE_FAULTS = {
    9: NotSentReason.tls_certificate_expired,
    10: NotSentReason.tls_certificate_expired,
    62: NotSentReason.tls_wrong_host,
    64: NotSentReason.tls_wrong_host,
}


def _header(answer: h11.Response, name: bytes) -> str:
    """Return all values of one header in lower case, joined by commas; empty if the header is absent."""
    values = [value.decode("latin-1").strip() for key, value in answer.headers if key == name]
    return ", ".join(values).lower()


def _states_length(answer: h11.Response | None) -> bool:
    """Return whether an empty body is certain to be complete: by a length, by chunks, or by the status 204."""
    if answer is None:
        return False
    framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in answer.headers)
    return framed or answer.status_code == 204


def _retry_after_seconds(answer: h11.Response) -> int | None:
    """Return the answer's Retry-After in seconds, or None without a valid one.

    A date is counted from the answer's own Date header, so that the clocks of two machines are not compared.
    """
    headers = {name: value.decode("latin-1") for name, value in answer.headers if name in (b"retry-after", b"date")}
    retry_after = headers.get(b"retry-after", "").strip()
    if retry_after.isascii() and retry_after.isdigit():
        return int(retry_after[:9])
    try:
        wait = parsedate_to_datetime(retry_after) - parsedate_to_datetime(headers.get(b"date", ""))
    except (ValueError, TypeError):  # no dates, or one with a zone and one without
        return None
    return max(0, int(wait.total_seconds()))


def _not_sent(reason: NotSentReason, detail: str) -> NotSent:
    return NotSent(reason=reason, detail=detail[:MAX_DETAIL])


def _to_ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
