"""Nobody gets more of the server than a request is worth: neither by size, nor by number, nor by taking their time."""

import asyncio
import contextlib
import re
import statistics
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from marketplace.portal.session import cookie_name
from marketplace.runtime import clock, errors
from marketplace.runtime.settings import Settings
from marketplace.web import gate, metrics
from marketplace.web.gate import refusal
from tests.builders.inquiries import roofing_body
from tests.builders.service import Served, Service, hung_up, serve, service, until
from tests.waiting import PATIENCE

OURS = frozenset({"leads.example.org"})


def asked(
    *headers: tuple[str, str], path: str = "/v1/inquiries", version: str = "1.1", **state: bool
) -> dict[str, Any]:
    lines = [(name.encode(), value.encode()) for name, value in headers]
    return {"headers": lines, "path": path, "http_version": version, "state": state}


HOST = ("host", "leads.example.org")
REFUSED: tuple[tuple[str, dict[str, Any], frozenset[str] | None, type[errors.MarketplaceError] | None], ...] = (
    ("an ordinary request", asked(HOST), None, None),
    ("any host without a proxy", asked(("host", "elsewhere")), None, None),
    ("our host behind a proxy", asked(HOST), OURS, None),
    ("our host in capitals, with a port", asked(("host", "LEADS.example.org:443")), OURS, None),
    ("another host behind a proxy", asked(("host", "elsewhere")), OURS, errors.HostNotServed),
    ("a forwarded host", asked(("host", "elsewhere"), ("x-forwarded-host", HOST[1])), OURS, errors.HostNotServed),
    ("a host that is none", asked(("host", "[")), OURS, errors.HostNotServed),
    ("no host", asked(), None, errors.HostNotServed),
    ("no host, but a forwarded one", asked(("x-forwarded-host", HOST[1])), OURS, errors.HostNotServed),
    ("no host in HTTP/1.0", asked(version="1.0"), None, None),
    ("two hosts", asked(HOST, HOST), None, errors.HostNotServed),
    ("a probe by address", asked(("host", "10.1.2.3"), path="/healthz"), OURS, None),
    ("a hundred headers", asked(HOST, *[("x", "y")] * 99), None, None),
    ("one more", asked(HOST, *[("x", "y")] * 100), None, errors.HeadTooLarge),
    ("the largest body", asked(HOST, ("content-length", "1048576")), None, None),
    ("one byte more", asked(HOST, ("content-length", "1048577")), None, errors.BodyTooLarge),
    ("endless digits", asked(HOST, ("content-length", "9" * 5_000)), None, errors.BodyTooLarge),
    ("too many connections", asked(HOST, crowded=True), None, errors.Unavailable),
)


@pytest.mark.parametrize(("scope", "hosts", "error"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_a_request_is_refused_for_what_its_head_says(
    scope: dict[str, Any], hosts: frozenset[str] | None, error: type[errors.MarketplaceError] | None
) -> None:
    assert type(refusal(scope, hosts)) is (error or type(None))


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served


def problem_in(answer: bytes) -> dict[str, Any]:
    """The problem of an answer as it came over the wire, with what every answer carries."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    for name, value in gate.ON_EVERY_ANSWER:
        assert b"%b: %b\r\n" % (name, value) in head + b"\r\n"
    problem: dict[str, Any] = msgspec.json.decode(body)
    assert head.startswith(b"HTTP/1.1 %d " % problem["status"])
    return problem


TOP = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
LAST = TOP + b"Connection: close\r\n\r\n"
"A faultless request, after whose answer the server closes the connection."


def before_last(answers: bytes) -> bytes:
    """Return what the server sent before its answer to LAST."""
    before, answer, _ = answers.rpartition(b"HTTP/1.1 200 OK\r\n")
    assert answer, answers
    return before


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param(b"x" * 40_000, "request_malformed", id="no HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", "request_malformed", id="TLS"),
        pytest.param(TOP + b"X-Long: " + b"x" * 60_000, "head_too_large", id="one endless header"),
        pytest.param(TOP + b"X: y\r\n" * 10_000, "head_too_large", id="endless headers"),
        pytest.param(b"GET /" + b"x" * 60_000, "head_too_large", id="an endless address"),
        pytest.param(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n", "request_malformed", id="a tunnel"),
        pytest.param(b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", "request_malformed", id="an unknown version"),
        pytest.param(TOP + b"X: y\r\n" * 120 + b"\r\n", "head_too_large", id="120 headers"),
        pytest.param(b"GET /healthz HTTP/1.1\r\n\r\n", "host_not_served", id="no host"),
        pytest.param(TOP + b"Content-Length: 99999999\r\n\r\n", "body_too_large", id="a huge body where none is read"),
    ],
)
async def test_a_request_beyond_the_limits_is_told_so_and_costs_no_more(
    api: Served, request_: bytes, code: str
) -> None:
    if code == "host_not_served" or request_.endswith(b"y\r\n\r\n"):  # the connection is used on
        answer = before_last((await api.raw(request_, LAST))[0])
    else:
        answer, closed = await api.raw(request_)
        assert closed
    assert problem_in(answer)["code"] == code


async def test_a_head_of_the_very_limit_and_requests_in_a_row_are_served(api: Served) -> None:
    long = TOP + b"X-Long: " + b"x" * (gate.HEAD_BYTES - 60) + b"\r\n\r\n"
    answer, _ = await api.raw(long, TOP + b"\r\n" + TOP + b"\r\n", TOP + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 4


async def test_a_new_visitor_gets_in_where_one_address_has_opened_every_connection(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another address of the loopback network is another visitor."""
    monkeypatch.setattr(gate, "MOST_CONNECTIONS", 40)
    idle = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(50)]
    halfway = await asyncio.open_connection("127.0.0.1", api.port)
    halfway[1].write(TOP)
    for address in ("127.0.0.2", "127.0.0.3"):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, local_addr=(address, 0))
        for _ in range(3):  # the place is the visitor's for as long as it is used, whatever the others open
            writer.write(TOP + b"\r\n")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            idle += [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(20)]
        writer.close()
    gone = [await _is_closed(reader) for reader, _ in (*idle[:50], halfway)]
    assert all(gone)
    assert not await _is_closed(idle[-1][0])
    for _, writer in (*idle, halfway):
        writer.close()


async def _is_closed(reader: asyncio.StreamReader) -> bool:
    """Return whether the server has closed the connection without an answer."""
    try:
        return await asyncio.wait_for(reader.read(1), 0.05) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


async def test_where_all_are_being_answered_a_caller_beyond_the_number_is_told_to_come_back(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MOST_CONNECTIONS", 3)
    streams = [await _streaming(api, await api.business()) for _ in range(3)]
    answer, _ = await api.raw(TOP + b"Connection: close\r\n\r\n")
    assert problem_in(answer)["code"] == "temporarily_unavailable"
    assert b"retry-after: 2\r\n" in answer.lower()
    assert not any([reader.at_eof() for reader, _ in streams])
    for _, writer in streams:
        writer.close()
        await hung_up(writer.get_extra_info("socket"))
    assert (await api.raw(TOP + b"Connection: close\r\n\r\n"))[0].startswith(b"HTTP/1.1 200")


async def test_one_address_may_not_have_every_answer_at_once(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MOST_REQUESTS_OF_ADDRESS", 2)
    streams = [await _streaming(api, await api.business()) for _ in range(2)]
    answer, _ = await api.raw(TOP + b"Connection: close\r\n\r\n")
    assert problem_in(answer)["code"] == "rate_limited"
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, local_addr=("127.0.0.2", 0))
    writer.write(TOP + b"Connection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    for _, each in (*streams, (reader, writer)):
        each.close()


async def _streaming(api: Served, business: tuple[str, str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose request is being answered: an open stream of a feed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(f"GET /v1/feed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {business[1]}\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"retry:"), PATIENCE)
    return reader, writer


CHUNKED = ("Transfer-Encoding: chunked",)


async def test_a_trailer_is_no_header_and_its_key_opens_nothing(api: Served) -> None:
    _, key = await api.provider()
    head = posting("", *CHUNKED).replace(b"Authorization: Bearer \r\n", b"")
    whole = head + b"2\r\n{}\r\n0\r\nAuthorization: Bearer " + key.encode() + b"\r\n\r\n"
    for pieces in ((whole,), (head + b"2\r\n{}\r\n0\r\n", whole[len(head) + 10 :])):
        answers, _ = await api.raw(*pieces, LAST)
        assert problem_in(before_last(answers))["code"] == "not_authenticated"
    known = posting(key, *CHUNKED) + b"2\r\n{}\r\n0\r\nExpect: 100-continue\r\nContent-Encoding: gzip\r\n\r\n"
    answers, _ = await api.raw(known, LAST)
    assert problem_in(before_last(answers))["code"] == "validation_failed"


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"0\r\nX-Long: " + b"x" * 4_000_000, id="one trailer"),
        pytest.param(b"0\r\n" + b"X: y\r\n" * 500_000, id="many trailers"),
        pytest.param(b"2;" + b"x" * 4_000_000, id="an extension of a chunk"),
        pytest.param(b"0" * 4_000_000, id="the size of a chunk"),
    ],
)
async def test_what_stands_around_a_body_in_pieces_is_bounded(api: Served, endless: bytes) -> None:
    _, key = await api.provider()
    process = psutil.Process()
    before = process.memory_info().rss
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(posting(key, *CHUNKED) + b"2\r\n{}\r\n")
    sent = 0
    with contextlib.suppress(ConnectionError):
        for start in range(0, len(endless), 16_384):
            writer.write(endless[start : start + 16_384])
            await writer.drain()
            sent = start
            await asyncio.sleep(0)
    assert await until(lambda: _answers(reader), PATIENCE)
    assert sent < len(endless)
    assert process.memory_info().rss - before < 3_000_000
    writer.close()


async def _answers(reader: asyncio.StreamReader) -> bool:
    """Return whether the server has closed the connection, with or without an answer."""
    with contextlib.suppress(ConnectionError):
        await reader.read(65_536)
    return reader.at_eof() or reader.exception() is not None


async def test_a_body_that_does_not_come_in_time_is_answered_408(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.3)
    _, key = await api.provider()
    answer, closed = await api.raw(posting(key, "Content-Length: 100") + b'{"vertical":')
    assert problem_in(answer)["code"] == "body_too_slow"
    assert closed


async def test_a_caller_who_hangs_up_in_the_middle_of_the_body_is_counted_as_a_fault_of_the_call(api: Served) -> None:
    _, key = await api.provider()
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(posting(key, "Content-Length: 100") + b'{"vertical":')
    await writer.drain()
    await asyncio.sleep(0.2)
    writer.close()
    counter = metrics.REQUESTS.labels(route="/v1/inquiries", method="POST", status=400)

    async def counted() -> bool:
        return float(counter._value.get()) > 0

    assert await until(counted, PATIENCE)


async def test_a_caller_who_takes_in_nothing_is_let_go(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "STALL_SECONDS", 0.5)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1_000)
    bundle = b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
    writer.write(bundle * 20)  # more than all buffers between us hold
    await hung_up(writer.get_extra_info("socket"))
    taken = 0
    with contextlib.suppress(ConnectionError):
        while chunk := await asyncio.wait_for(reader.read(65_536), PATIENCE):
            taken += len(chunk)
    assert taken < 20 * 1_000_000
    writer.close()


def posting(key: str, *lines: str) -> bytes:
    top = ["POST /v1/inquiries HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", "Content-Type: application/json"]
    return "\r\n".join([*top, *lines, "", ""]).encode()


# --- what can be read in two ways -------------------------------------------------------------------------------------

SPELLINGS = (
    "//v1/verticals", "/v1//verticals", "/v1/verticals/", "/v1/verticals//", "/v1/./verticals", "/v1/x/../verticals",
    "/%761/verticals", "/v1/%76erticals", "/v1%2Fverticals", "/v1/verticals%00", "/v1/verticals%20",
    "/v1/verticals/%2e", "/%2e%2e/v1/verticals", "/v1/verticals;x=1", "/V1/verticals", "/healthz/", "//metrics",
    "/%6detrics", "/./docs", "/sign-in/", "//sign-in",
)  # fmt: skip


@pytest.mark.parametrize("path", SPELLINGS)
async def test_another_spelling_of_a_path_is_another_address(api: Served, path: str) -> None:
    top = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.operator}\r\n"
    answer, _ = await api.raw(f"{top}Connection: close\r\n\r\n".encode())
    assert problem_in(answer)["code"] == "not_found"
    answer, _ = await api.raw(f"{top}Accept: text/html\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"text/html" in answer


@pytest.mark.parametrize("path", ["/v1/verticals", "/v1/businesses?cursor=%20", "/healthz", "/docs", "/sign-in"])
async def test_the_one_spelling_of_a_path_is_served(api: Served, path: str) -> None:
    assert (await api.call("GET", path)).status_code not in (400, 404)


async def test_two_credentials_are_refused_whichever_would_be_believed(api: Served) -> None:
    _, key = await api.business()
    line = b"Authorization: Bearer " + key.encode() + b"\r\n"
    cookie = b"Cookie: __Host-session=" + b"a" * 43 + b"\r\n"
    for sent, ambiguous in (
        (line + line, True),
        (line + b"authorization: Basic eDp5\r\n", True),
        (b"Authorization: Basic eDp5\r\n" + line, True),
        (line + cookie, True),
        (line.replace(b"Bearer", b"bEARER") + b"Cookie: a=b\r\n" + cookie, True),
        (line + b"Cookie: a=b;__Host-session=x; c=d\r\n", True),
        (line, False),
        (line + b"Cookie: a=b; my__Host-session=x; c=__Host-session\r\n", False),
        (line + b"Cookie: __Host-session=; flash=x\r\n", False),
    ):
        answer, _ = await api.raw(b"GET /v1/wallet HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + sent + b"\r\n")
        if ambiguous:
            assert problem_in(answer)["code"] == "ambiguous_credentials", sent
        else:
            assert answer.startswith(b"HTTP/1.1 200 "), sent


def test_the_cookie_that_is_looked_for_is_the_portals(settings: Settings) -> None:
    for url, cookie in (("https://leads.example.org", "__Host-session"), ("http://127.0.0.1:8000", "session")):
        assert cookie_name(msgspec.structs.replace(settings, public_url=url)) == cookie


async def test_a_key_in_an_address_is_refused_and_flagged_for_its_owner(api: Served) -> None:
    provider, key = await api.provider()
    _, other = await api.provider()
    secret = key.split("_")[3]
    for address in (
        f"/v1/inquiries?key={key}",
        f"/v1/inquiries?authorization=Bearer%20{key}",
        "/v1/inquiries?" + "".join(f"%{ord(character):02x}" for character in key),
        f"/v1/inquiries/{key}",
        f"/nothing?x=1&y={key}",
        f"/sign-in?next=/{key}",
    ):
        for header in ("", key, api.operator):
            answer = await api.call("GET", address, key=header)
            assert (answer.status_code, answer.json()["code"]) == (400, "key_in_url"), address
            assert secret not in answer.text
    keys = (await api.call("GET", f"/v1/keys?owner_id={provider}")).json()["data"]
    assert [row["seen_in_url_at"] is not None for row in keys] == [True]
    assert (await api.call("GET", "/v1/inquiries", key=key)).status_code == 200  # its owner says when it ends
    guessed = f"/v1/inquiries?key={other.replace(other.split('_')[3], secret)}"
    assert (await api.call("GET", guessed, key="")).json()["code"] == "key_in_url"
    assert await api.pool.fetchval("select count(*) from api_key where seen_in_url_at is not null") == 1


async def test_nothing_else_in_an_address_is_taken_for_a_key(api: Served) -> None:
    for query in ("?q=lk_live_", f"?q=lk_{'x' * 90}", "?cursor=%6c%6b_live_0", f"?q={api.operator.split('_')[2]}"):
        assert (await api.call("GET", f"/v1/verticals{query}")).status_code != 400 or "cursor" in query


# --- slow callers, against the real process with its real patience ----------------------------------------------------


async def test_200_slow_connections_keep_nobody_waiting_and_all_are_gone_in_time(
    settings: Settings, tmp_path: Path
) -> None:
    async with service(settings, tmp_path / "api.log") as found:
        pid = found.serving.pid
        authorised = posting(found.provider_key, "Content-Length: 60000")
        stranger = posting("nobody", "Content-Length: 60000")
        after_one = TOP + b"\r\n" + TOP
        starts = (b"", TOP, authorised, stranger, after_one)
        began = clock.monotonic()
        slow = [asyncio.create_task(drip(found.port, starts[number % 5])) for number in range(200)]

        async def all_there() -> bool:
            return connections(pid, found.port) >= 200

        assert await until(all_there, gate.HEAD_SECONDS)
        waits = [await honest(found, number) for number in range(40)]
        assert statistics.median(waits) < gate.HEAD_SECONDS / 10, waits  # nobody waited for one of the slow
        answers = await asyncio.gather(*slow)
        assert clock.monotonic() - began < gate.BODY_SECONDS + gate.LINGER_SECONDS + PATIENCE

        async def all_gone() -> bool:
            return connections(pid, found.port) <= 1  # our own honest one

        assert await until(all_gone, PATIENCE)
        codes = [re.findall(rb'"code":"(\w+)"', answer)[-1:] for answer in answers]
        assert codes[0::5] == [[]] * 40
        assert codes[1::5] == [[b"head_too_slow"]] * 40
        assert codes[2::5] == [[b"body_too_slow"]] * 40
        assert codes[3::5] == [[b"not_authenticated"]] * 40
        assert codes[4::5] == [[b"head_too_slow"]] * 40
        assert "Traceback" not in found.serving.log


async def drip(port: int, start: bytes) -> bytes:
    """All that the server says to one who sends `start`, and then a byte a second where it began with any."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    hearing = asyncio.create_task(hear(reader))
    while not hearing.done():
        await asyncio.wait((hearing,), timeout=1)
        if start:
            writer.write(b"x")
    writer.close()
    return hearing.result()


async def hear(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            answer += chunk
    return answer


async def honest(found: Service, number: int) -> float:
    began = clock.monotonic()
    answer = await found.call("POST", "/v1/inquiries", roofing_body(number, clock.now()))
    assert answer.status_code in (200, 202), answer.text
    return clock.monotonic() - began


def connections(pid: int, port: int) -> int:
    connections = psutil.Process(pid).net_connections("tcp")
    return sum(
        1
        for connection in connections
        if connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
    )


# --- behind a proxy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "refused"),
    [((), 2), (("203.0.113.0/24",), 2), (("127.0.0.0/8",), 0)],
    ids=["no proxy", "another proxy", "our proxy"],
)
async def test_a_forwarded_address_counts_only_from_a_trusted_proxy(
    settings: Settings, trusted: tuple[str, ...], refused: int
) -> None:
    tight = msgspec.structs.replace(settings, trusted_proxies=trusted, failures_per_minute=3)
    async with serve(tight) as api:
        statuses = []
        for number in range(5):
            headers = {"host": "marketplace.example.org", "x-forwarded-for": f"198.51.100.{number}"}
            statuses.append((await api.call("GET", "/v1/wallet", key="", headers=headers)).status_code)
        assert statuses.count(429) == refused


async def test_behind_a_proxy_only_our_host_is_served_and_probes_need_none(settings: Settings) -> None:
    async with serve(msgspec.structs.replace(settings, trusted_proxies=("127.0.0.0/8",))) as api:
        for host, status in (("marketplace.example.org", 401), ("evil.example", 400)):
            headers = {"host": host, "x-forwarded-host": "marketplace.example.org"}
            assert (await api.call("GET", "/v1/wallet", key="", headers=headers)).status_code == status
        assert (await api.call("GET", "/readyz", key="")).status_code == 200
