"""What a request must be before anything else looks at it: bounded in size, bounded in time, and meant for us.

The server's own protocol has no limits on a request's head, and a connection that says nothing, or says it one byte at
a time, costs it a place for ever. `Protocol` gives each of them a deadline and the head a size. `gate`, around the
application, bounds the body, the number of headers and the hosts, where an answer can still be a full one, and sees to
it that it arrives.
"""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes, urlsplit

import uvicorn
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPReceiveMessage, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from marketplace.runtime import errors
from marketplace.runtime.settings import Settings
from marketplace.web import metrics, problems
from marketplace.web.connections import ConnectionTable, Proxies, RequestStage, source_of

HEAD_BYTES: Final = 32 * 1024
"A head still unfinished after so many bytes is refused; a browser with every cookie full sends half of it."
HEAD_SLICE: Final = 4 * 1024
"The head is parsed in pieces of this, so that no more than one of them is read beyond the limit."
HEADERS: Final = 100
TRAILER_BYTES: Final = 8 * 1024
"What may stand between two pieces of a chunked body, and behind the last: sizes, extensions and trailers, all ignored."
BODY_SLICE: Final = 64 * 1024
"The body is parsed in pieces of this, so that no more than one of them of trailers is held beyond the limit."
HEAD_SECONDS: Final = 10.0
"From the connection, or from the first byte of a further request, to the end of its head."
BODY_SECONDS: Final = 15.0
"From the end of the head to the end of the body: 64 KiB in it is a line of 35 kbit/s."
LINGER_SECONDS: Final = 5.0
"A body that is still coming so long after its time, when it has been answered, ends with its connection."
DISCARD_SECONDS: Final = 1.0
DISCARD_BYTES: Final = 16 * 2**20
"What of a refused upload is read and thrown away: enough for any mistake, too little to keep us busy."
KEEP_ALIVE_SECONDS: Final = 30
"From an answer to the first byte of a further request."
DRAIN_SECONDS: Final = 20
"For requests under way when the process is told to go."
STALL_SECONDS: Final = 30.0
"A caller who takes in nothing of an answer for so long has gone."
MOST_CONNECTIONS: Final = 2_000
"""A connection beyond it takes the place of one that waits, of the address that has the most. Where all are being
answered, each beyond it is told to come back; beyond twice as many, connections are closed unread."""
MOST_REQUESTS_OF_ADDRESS: Final = MOST_CONNECTIONS // 2
"Requests of one address that are answered at the same time: two addresses at least must agree to fill the table."
LARGEST_BODY: Final = 1_048_576
"Bytes: the most that any route takes but those of files. Routes that take less refuse less, before they read."
FILE_PATHS: Final = frozenset((
    "/v1/shared-leads:import", "/v1/shared-leads:preview", "/v1/dispositions:import", "/v1/dispositions:preview",
    "/business/reports/shared-leads/preview", "/business/imports/outcomes",
))  # fmt: skip
LARGEST_UPLOAD: Final = 16 * 2**20 + 65_536
"Bytes: a file of an import, and what a form adds to it."
UPLOAD_SECONDS: Final = 120.0
"16 MiB in it is a line of 1.1 Mbit/s."
ON_EVERY_ANSWER: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
)
NO_CONTENT_POLICY: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"For answers that bring no policy of their own: nothing in them is to be run or framed."
PAGE_CONTENT_POLICY: Final = (
    b"content-security-policy",
    b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
)
"For pages of the portal: everything from here, nothing inline, nothing from anybody else."
PROBES: Final = frozenset({"/healthz", "/readyz"})
"Asked by machines of the operator's own network, past the proxy and by address."


NOWHERE: Final = "/-"
"No route has this path: another spelling of a path leads here, to the answer of any address that does not exist."
KEY: Final = re.compile(rb"lk_(?:live|test)_[0-9a-z]{16}_[0-9a-z]{52}(?:_[0-9a-z]{7})?", re.IGNORECASE)
"A key as auth.py makes it."


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol with deadlines, limits for the head and for trailers, and problems for refusals."""

    def __init__(self, *args: Any, table: ConnectionTable["Protocol"], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table
        self._in_head = True
        self._head_bytes = 0
        self._framing_bytes = 0
        self._patience: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._table.add(self, self.client[0] if self.client else "")
        if len(self._table) > MOST_CONNECTIONS:
            self._make_room()
        if not self.transport.is_closing():
            self._wait(HEAD_SECONDS)

    def _make_room(self) -> None:
        """Close connections that can be given up; this one, where far too many are being answered."""
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
                self._wait_unless_waiting()
            else:
                self._framing_bytes += len(piece)
            super().data_received(piece)
            if self._in_head and self._head_bytes > HEAD_BYTES:
                self._refuse(errors.HeadTooLarge(f"Send at most {HEAD_BYTES:,} bytes before the body."))
            elif self._framing_bytes > TRAILER_BYTES:
                self._refuse(errors.HeadTooLarge(f"Send at most {TRAILER_BYTES:,} bytes behind the body."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait_unless_waiting()  # as it does not for a further request right behind the end of another

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # behind the body it is a trailer, which nobody has authenticated and nothing reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._framing_bytes = 0
        self._wait(BODY_SECONDS + LINGER_SECONDS)
        self._table.move(self, RequestStage.receiving)
        crowd = max(len(self._table), len(self.tasks))
        self.scope["state"]["crowded"] = crowd > MOST_CONNECTIONS
        super().on_headers_complete()
        if self.scope["path"] in FILE_PATHS:
            self._wait(UPLOAD_SECONDS + LINGER_SECONDS)

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes, self._framing_bytes = True, 0, 0
        self._be_at_ease()
        answered = self.cycle is None or self.cycle.response_complete
        self._table.move(self, RequestStage.idle if answered else RequestStage.busy)
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
        self._be_at_ease()
        if self._stall is not None:
            self._stall.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._refuse(errors.RequestMalformed("Send plain HTTP/1.1, with one length and without folded headers."))

    def _wait(self, seconds: float) -> None:
        self._be_at_ease()
        self._patience = self.loop.call_later(seconds, self._lose_patience)

    def _wait_unless_waiting(self) -> None:
        if self._patience is None:
            self._wait(HEAD_SECONDS)

    def _be_at_ease(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        if self._in_head and self._head_bytes:
            self._refuse(errors.HeadTooSlow(f"Send the whole head within {HEAD_SECONDS:.0f} seconds."))
        else:
            self.transport.close()  # silence needs no answer, and a body that is too late has had its own

    def _refuse(self, error: errors.MarketplaceError) -> None:
        """Answer at once, unless an answer to an earlier request is under way, and hang up."""
        metrics.REFUSED.labels(reason=problems.PROBLEMS[type(error)].slug).inc()
        earlier = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not (earlier or self.pipeline or self.transport.is_closing()):
            status, headers, body = problems.spell(error)
            every = (*headers, *ON_EVERY_ANSWER, NO_CONTENT_POLICY, (b"connection", b"close"))
            lines = (b"%b: %b\r\n" % line for line in every)
            self.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n", body)))
        self.transport.close()


def serving(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How the application is served: without the server's own limits, which say less than ours."""
    return uvicorn.Config(
        cast(Any, app),  # two libraries, each with types of its own for one interface
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


def gate(app: ASGIApp, settings: Settings, report_key: Callable[[str], Awaitable[None]]) -> ASGIApp:
    """`app` for requests of bounded size and time, for hosts of ours, that can be read in one way only.

    What it refuses gets a problem like any other. `report_key` is told of each key that stands in an address.
    """
    hosts = frozenset({urlsplit(settings.public_url).hostname or ""}) if settings.trusted_proxies else None
    cookie = re.compile(rb"(?:^|;)\s*%bsession=[^;\s]" % (b"__Host-" if settings.secure_cookies else b""))
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
            send = _gently(receive, send)
            if error is None:
                if not is_plain_path(scope["raw_path"]):
                    scope["path"] = NOWHERE
                await app(scope, _in_time(receive, scope["path"]), send)
            else:
                await _refuse(error, scope, send)
        finally:
            under_way[source] -= 1
            if not under_way[source]:
                del under_way[source]

    return guarded


def refusal(scope: Mapping[str, Any], hosts: frozenset[str] | None) -> errors.MarketplaceError | None:
    """Why a request is refused unread, if it is. `hosts` are those served; None where no proxy stands before us."""
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
    """The refusal of a request for which several answers to "who calls?" are possible.

    A proxy and we might each believe another of two headers, and whoever plants a cookie would choose the account.
    """
    keys = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(keys) > 1:
        return errors.AmbiguousCredentials("Send one Authorization header.")
    has_key = bool(keys) and keys[0].lstrip()[:7].lower() == b"bearer "
    if has_key and any(name == b"cookie" and cookie.search(value) for name, value in scope["headers"]):
        return errors.AmbiguousCredentials("Send the key without the cookie of a session, or the cookie alone.")
    return None


def _key_in(scope: Mapping[str, Any]) -> str | None:
    """The API key that stands anywhere in the request's address, however its characters are spelt."""
    address: bytes = scope["raw_path"] + b"?" + scope["query_string"]
    if b"_" not in address and b"%" not in address:
        return None
    match = KEY.search(unquote_to_bytes(address) if b"%" in address else address)
    return match[0].decode() if match else None


def is_plain_path(raw_path: bytes) -> bool:
    """Whether a path is spelt as its route is. Every other spelling is another address, at which there is nothing.

    A proxy's rule for one spelling must not be passed by another, and no address of ours needs an escape, an empty
    segment, a segment of dots or a slash at its end.
    """
    if raw_path == b"/":
        return True
    segments = raw_path.split(b"/")
    return b"%" not in raw_path and segments[0] == b"" and not {b"", b".", b".."} & set(segments[1:])


def body_limits(path: str) -> tuple[int, float]:
    """Return how many bytes a body may have, and in how many seconds it has to come."""
    return (LARGEST_UPLOAD, UPLOAD_SECONDS) if path in FILE_PATHS else (LARGEST_BODY, BODY_SECONDS)


def _is_meant_for_us(given: list[bytes], scope: Mapping[str, Any], hosts: frozenset[str] | None) -> bool:
    if len(given) != 1:
        return not given and scope["http_version"] == "1.0" and hosts is None
    if hosts is None or scope["path"] in PROBES:
        return True
    try:
        return urlsplit(f"//{given[0].decode('latin-1')}").hostname in hosts
    except ValueError:
        return False


def _in_time(receive: Receive, path: str) -> Receive:
    """`receive` that raises BodyTooSlow or BodyTooLarge instead of waiting, or taking in, for ever."""
    largest, seconds = body_limits(path)
    deadline = asyncio.get_running_loop().time() + seconds
    seen, more = 0, True

    async def received() -> HTTPReceiveMessage | Any:
        nonlocal seen, more
        if not more:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise errors.BodyTooSlow(f"Send the whole body within {seconds:.0f} seconds.") from None
        if message["type"] == "http.request":
            seen, more = seen + len(message["body"]), message["more_body"]
        if seen > largest:
            raise errors.BodyTooLarge(f"Send at most {largest:,} bytes.")
        return message

    return received


def _gently(receive: Receive, send: Send) -> Send:
    """`send` that, after the whole answer to too large a body, throws away for a moment what is still coming.

    Hanging up at once, with bytes unread, resets the connection, and the caller may never see why.
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
        await _throw_away(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return sent


async def _throw_away(receive: Receive) -> None:
    left = DISCARD_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] != "http.request" or not message["more_body"]:
                    return
                left -= len(message["body"])


async def _refuse(error: errors.MarketplaceError, scope: Scope, send: Send) -> None:
    state: dict[str, Any] = scope["state"]
    state["code"] = problems.PROBLEMS[type(error)].slug
    status, headers, body = problems.spell(error, state.get("request_id", ""))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
