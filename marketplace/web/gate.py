"""Limits and checks of every HTTP request before the application reads it: size, time, host and credentials.

The server's own protocol does not limit the head of a request, and a connection that sends nothing, or one byte at a
time, would stay open for ever. `Protocol` gives each connection a deadline and limits the head. `gate`, around the
application, limits the body, the number of headers and the hosts, where a complete answer is still possible, and makes
sure that the answer arrives.
"""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias, cast
from urllib.parse import unquote_to_bytes, urlsplit

import uvicorn
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPReceiveMessage, HTTPScope, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from marketplace.runtime import errors
from marketplace.runtime.settings import Settings
from marketplace.web import metrics, problems
from marketplace.web.connections import ConnectionTable, Proxies, RequestStage, source_of

HEAD_BYTES: Final = 32 * 1024
"Limit of the head; a browser with full cookies sends half of it."
HEAD_SLICE: Final = 4 * 1024
"The head is parsed in pieces of this size, so that at most one piece beyond the limit is read."
HEADERS: Final = 100
TRAILER_BYTES: Final = 8 * 1024
"Limit of what is between two chunks of a body and after the last: sizes, extensions and trailers, all ignored."
BODY_SLICE: Final = 64 * 1024
"The body is parsed in pieces of this size, so that at most one piece of trailers beyond the limit is held."
HEAD_SECONDS: Final = 10.0
"Time from the connection, or from the first byte of a further request, to the end of its head."
BODY_SECONDS: Final = 15.0
"Time from the end of the head to the end of the body: 64 KiB at 35 kbit/s."
LINGER_SECONDS: Final = 5.0
"Time after the body's deadline and its answer until the connection is closed."
DISCARD_SECONDS: Final = 1.0
DISCARD_BYTES: Final = 16 * 2**20
"Bytes, and seconds above, of a refused upload that are read and discarded: enough for any mistake, little work for us."
KEEP_ALIVE_SECONDS: Final = 30
"Time from an answer to the first byte of a further request."
DRAIN_SECONDS: Final = 20
"Time for requests in progress when the process is told to stop."
STALL_SECONDS: Final = 30.0
"A caller that reads nothing of an answer for so long is disconnected."
MOST_CONNECTIONS: Final = 2_000
"""Connections in the table. A further one replaces a waiting one of the address that has the most. When all are being
answered, each further one is answered 503; beyond twice as many, connections are closed unread."""
MOST_REQUESTS_OF_ADDRESS: Final = MOST_CONNECTIONS // 2
"Requests of one address answered at the same time, so that one address alone cannot fill the table."
LARGEST_BODY: Final = 1_048_576
"Bytes: the most that any route except uploads accepts. Routes with a lower limit check it themselves."
FILE_PATHS: Final = frozenset(
    (
        "/v1/shared-leads:import",
        "/v1/shared-leads:preview",
        "/v1/dispositions:import",
        "/v1/dispositions:preview",
        "/business/reports/shared-leads/preview",
        "/business/imports/outcomes",
    )
)
"Routes that accept a file."
LARGEST_UPLOAD: Final = 16 * 2**20 + 65_536
"Bytes: the largest file of an import and the other parts of the form."
UPLOAD_SECONDS: Final = 120.0
"Time for an upload: 16 MiB at 1.1 Mbit/s."
ON_EVERY_ANSWER: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
)
NO_CONTENT_POLICY: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"Policy of answers that set none: nothing in them may run or be framed."
PAGE_CONTENT_POLICY: Final = (
    b"content-security-policy",
    b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
)
"Policy of portal pages: everything from this host, nothing inline, nothing from others."
PROBES: Final = frozenset({"/healthz", "/readyz"})
"Paths that machines of the operator's own network request by address, without the proxy."


NOWHERE: Final = "/-"
"Path without a route: a path in another spelling is replaced by it and answered like any unknown address."
KEY: Final = re.compile(rb"lk_(?:live|test)_[0-9a-z]{16}_[0-9a-z]{52}(?:_[0-9a-z]{7})?", re.IGNORECASE)
"Pattern of a key as auth.py makes it."


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol with deadlines, limits of head and trailers, and problems for refusals."""

    def __init__(self, *args: Any, table: ConnectionTable["Protocol"], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table
        self._in_head = True
        self._head_bytes = 0
        self._framing_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        host = self.client[0] if self.client else ""
        self._table.add(self, host)
        if len(self._table) > MOST_CONNECTIONS:
            self._make_room()
        if not self.transport.is_closing():
            self._start_timer(HEAD_SECONDS)

    def _make_room(self) -> None:
        """Close connections that may be given up; close this one when twice the limit are being answered."""
        while len(self._table) > MOST_CONNECTIONS:
            victim = self._table.find_victim()
            if victim is None or victim is self:
                break
            metrics.REFUSED.labels(reason="table_full").inc()
            self._table.discard(victim)
            victim.transport.abort()
        if len(self._table) > 2 * MOST_CONNECTIONS:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        while data and not self.transport.is_closing():
            size = HEAD_SLICE if self._in_head else BODY_SLICE
            piece, data = data[:size], data[size:]
            if self._in_head:
                self._head_bytes += len(piece)
                self._ensure_timer()
            else:
                self._framing_bytes += len(piece)
            super().data_received(piece)
            if self._in_head and self._head_bytes > HEAD_BYTES:
                self._refuse(errors.HeadTooLarge(f"Send at most {HEAD_BYTES:,} bytes before the body."))
            elif self._framing_bytes > TRAILER_BYTES:
                self._refuse(errors.HeadTooLarge(f"Send at most {TRAILER_BYTES:,} bytes behind the body."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._ensure_timer()  # for a request that came in the same piece as the end of the previous one

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a header after the body is a trailer, which is ignored
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._framing_bytes = 0
        self._start_timer(BODY_SECONDS + LINGER_SECONDS)
        self._table.move(self, RequestStage.receiving)
        connections = max(len(self._table), len(self.tasks))
        self.scope["state"]["crowded"] = connections > MOST_CONNECTIONS
        super().on_headers_complete()
        if self.scope["path"] in FILE_PATHS:
            self._start_timer(UPLOAD_SECONDS + LINGER_SECONDS)

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes, self._framing_bytes = True, 0, 0
        self._stop_timer()
        answered = self.cycle is None or self.cycle.response_complete
        stage = RequestStage.idle if answered else RequestStage.busy
        self._table.move(self, stage)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline and self._in_head:
            self._table.move(self, RequestStage.idle)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.discard(self)
        self._stop_timer()
        if self._stall is not None:
            self._stall.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._refuse(errors.RequestMalformed("Send plain HTTP/1.1, with one length and without folded headers."))

    def _start_timer(self, seconds: float) -> None:
        """Start the timer of the connection anew."""
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._time_out)

    def _ensure_timer(self) -> None:
        """Start the timer for a head unless it runs."""
        if self._timer is None:
            self._start_timer(HEAD_SECONDS)

    def _stop_timer(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        """Refuse a head that is too slow; close an idle connection, or one whose late body was answered."""
        if self._in_head and self._head_bytes:
            self._refuse(errors.HeadTooSlow(f"Send the whole head within {HEAD_SECONDS:.0f} seconds."))
        else:
            self.transport.close()

    def _refuse(self, error: errors.MarketplaceError) -> None:
        """Write the refusal, unless an answer to an earlier request is in progress, and close the connection."""
        metrics.REFUSED.labels(reason=problems.PROBLEMS[type(error)].slug).inc()
        earlier = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not (earlier or self.pipeline or self.transport.is_closing()):
            status, headers, body = problems.spell(error)
            every = (*headers, *ON_EVERY_ANSWER, NO_CONTENT_POLICY, (b"connection", b"close"))
            lines = (b"%b: %b\r\n" % line for line in every)
            self.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n", body)))
        self.transport.close()


def serving(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """Return the server's configuration for the application, with the limits of this module instead of its own."""
    return uvicorn.Config(
        cast(Any, app),  # Litestar and uvicorn declare different types for the same interface
        http=cast(Any, partial(Protocol, table=ConnectionTable(Proxies(settings.trusted_proxies)))),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


TurnAway: TypeAlias = Callable[[HTTPScope], errors.MarketplaceError | None]
"Function that returns the refusal of a request with this scope for which there is no capacity, or None."


def gate(
    app: ASGIApp, settings: Settings, report_key: Callable[[str], Awaitable[None]], turn_away: TurnAway
) -> ASGIApp:
    """Return `app` behind the checks of size, time, host, credentials and spelling of the path, and behind `turn_away`.

    Refused requests get a problem. `report_key` is called with each key found in a URL.
    """
    hosts = frozenset({urlsplit(settings.public_url).hostname or ""}) if settings.trusted_proxies else None
    prefix = b"__Host-" if settings.secure_cookies else b""
    cookie = re.compile(rb"(?:^|;)\s*%bsession=[^;\s]" % prefix)
    proxies, under_way = Proxies(settings.trusted_proxies), Counter[str]()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        host = scope["client"][0] if scope["client"] else ""
        source = source_of(host)
        under_way[source] += 1
        try:
            error = refusal(scope, hosts) or _ambiguity(scope, cookie)
            if under_way[source] > MOST_REQUESTS_OF_ADDRESS and not proxies.include(host):
                error = errors.RateLimited(
                    f"At most {MOST_REQUESTS_OF_ADDRESS:,} calls of one address are answered at once. Wait for some.", 2
                )
            elif error is None and (key := _key_in(scope)) is not None:
                error = errors.KeyInUrl(
                    "Send the key in the Authorization header. Revoke this one: addresses are kept in many places."
                )
                await report_key(key)
            send = _send_before_closing(receive, send)
            if not is_plain_path(scope["raw_path"]):
                scope["path"] = NOWHERE
            error = error or turn_away(scope)
            if error is None:
                await app(scope, _in_time(receive, scope["path"]), send)
            else:
                await _refuse(error, scope, send)
        finally:
            under_way[source] -= 1
            if not under_way[source]:
                del under_way[source]

    return guarded


def refusal(scope: Mapping[str, Any], hosts: frozenset[str] | None) -> errors.MarketplaceError | None:
    """Return the error of a request to refuse unread, or None. `hosts` are ours, None without a proxy in front."""
    if scope["state"].get("crowded"):
        return errors.Unavailable()
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > HEADERS:
        return errors.HeadTooLarge(f"Send at most {HEADERS} headers.")
    if not _is_meant_for_us([value for name, value in headers if name == b"host"], scope, hosts):
        return errors.HostNotServed("Send one Host header, with the host of this service's public address.")
    length = next((value for name, value in headers if name == b"content-length"), b"0")
    largest, _ = body_limits(scope["path"])
    if len(length) > len(str(largest)) or int(length) > largest:
        return errors.BodyTooLarge(f"Send at most {largest:,} bytes.")
    return None


def _ambiguity(scope: Mapping[str, Any], cookie: re.Pattern[bytes]) -> errors.MarketplaceError | None:
    """Return the error of a request with several credentials, or None.

    A proxy and this service could each use another of them, and a planted cookie would choose the account.
    """
    keys = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(keys) > 1:
        return errors.AmbiguousCredentials("Send one Authorization header.")
    has_key = bool(keys) and keys[0].lstrip()[:7].lower() == b"bearer "
    if has_key and any(name == b"cookie" and cookie.search(value) for name, value in scope["headers"]):
        return errors.AmbiguousCredentials("Send the key without the cookie of a session, or the cookie alone.")
    return None


def _key_in(scope: Mapping[str, Any]) -> str | None:
    """Return an API key in the request's URL, in any percent-encoding, or None."""
    address: bytes = scope["raw_path"] + b"?" + scope["query_string"]
    if b"_" not in address and b"%" not in address:
        return None
    if b"%" in address:
        address = unquote_to_bytes(address)
    match = KEY.search(address)
    return match[0].decode() if match else None


def is_plain_path(raw_path: bytes) -> bool:
    """Return whether a path is spelt exactly like its route. Any other spelling is an unknown address.

    Otherwise another spelling could bypass a proxy's rule for a path. No route needs an escape, an empty segment, a
    segment of dots or a slash at the end.
    """
    if raw_path == b"/":
        return True
    segments = raw_path.split(b"/")
    return b"%" not in raw_path and segments[0] == b"" and not {b"", b".", b".."} & set(segments[1:])


def body_limits(path: str) -> tuple[int, float]:
    """Return the limit of a body in bytes, and of its time in seconds."""
    return (LARGEST_UPLOAD, UPLOAD_SECONDS) if path in FILE_PATHS else (LARGEST_BODY, BODY_SECONDS)


def _is_meant_for_us(names: list[bytes], scope: Mapping[str, Any], hosts: frozenset[str] | None) -> bool:
    """Return whether the Host headers name one of our hosts."""
    if len(names) != 1:
        return not names and scope["http_version"] == "1.0" and hosts is None
    if hosts is None or scope["path"] in PROBES:
        return True
    try:
        return urlsplit(f"//{names[0].decode('latin-1')}").hostname in hosts
    except ValueError:
        return False


def _in_time(receive: Receive, path: str) -> Receive:
    """Return `receive` that raises BodyTooSlow or BodyTooLarge at the limits of the path."""
    largest, seconds = body_limits(path)
    deadline = asyncio.get_running_loop().time() + seconds
    size, more = 0, True

    async def received() -> HTTPReceiveMessage | Any:
        nonlocal size, more
        if not more:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise errors.BodyTooSlow(f"Send the whole body within {seconds:.0f} seconds.") from None
        if message["type"] == "http.request":
            size, more = size + len(message["body"]), message["more_body"]
        if size > largest:
            raise errors.BodyTooLarge(f"Send at most {largest:,} bytes.")
        return message

    return received


def _send_before_closing(receive: Receive, send: Send) -> Send:
    """Return `send` that reads and discards the rest of a too large body after its answer, for a limited time.

    Closing with unread bytes resets the connection, so that the caller may never see the answer.
    """
    refused = False

    async def sent(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start":
            refused = message["status"] == problems.PROBLEMS[errors.BodyTooLarge].status
        if not refused or message["type"] != "http.response.body":
            await send(message)
            return
        await send({**message, "more_body": True})
        await _discard_body(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return sent


async def _discard_body(receive: Receive) -> None:
    """Read and discard up to DISCARD_BYTES for up to DISCARD_SECONDS."""
    left = DISCARD_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] != "http.request" or not message["more_body"]:
                    return
                left -= len(message["body"])


async def _refuse(error: errors.MarketplaceError, scope: Scope, send: Send) -> None:
    """Answer with the problem of `error`."""
    state: dict[str, Any] = scope["state"]
    state["code"] = problems.PROBLEMS[type(error)].slug
    status, headers, body = problems.spell(error, state.get("request_id", ""))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
