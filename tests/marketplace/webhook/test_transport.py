"""One attempt against real servers on real sockets, on both event loops, with every kind of faulty receiver."""

import asyncio
import gc
import os
import resource
import socket
import ssl
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from ipaddress import ip_network

import msgspec
import pytest
import uvloop

from marketplace.webhook import kept as kept_connections
from marketplace.webhook.address import AddressRules, Resolver
from marketplace.webhook.kept import KeptConnections
from marketplace.webhook.transport import (
    MAX_BODY_BYTES,
    Attempt,
    ConnectionInfo,
    OnConnected,
    WebhookMessage,
    post,
    system_tls,
)
from routing.delivery import (
    AnswerReason,
    AnswerReceived,
    AttemptOutcome,
    NoAnswer,
    NoAnswerReason,
    NotSent,
    NotSentReason,
    classify,
)
from tests import receivers
from tests.builders.service import until
from tests.receivers import Authority, Behaviour, Receiver, Visit
from tests.waiting import PATIENCE

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:DeprecationWarning")

LOOPBACK = (ip_network("127.0.0.0/8"),)
GUARD = AddressRules(http_allowed=True, networks=LOOPBACK)
MESSAGE = WebhookMessage(
    headers=(("content-type", "application/json"), ("webhook-id", "asg_1")), body=b'{"data":{"full_name":"Ann"}}'
)


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


class Exposures:
    """Stand-in for committing an exposure: records each call and returns the message."""

    def __init__(self, message: WebhookMessage | None = MESSAGE, seconds: float = 0) -> None:
        self.seen: list[ConnectionInfo] = []
        self._message = message
        self._seconds = seconds

    async def __call__(self, connected: ConnectionInfo) -> WebhookMessage | None:
        self.seen.append(connected)
        await asyncio.sleep(self._seconds)
        return self._message


def _resolving(*addresses: str) -> Resolver:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


async def _attempt(
    *behaviours: Behaviour, deadline_seconds: float = 5, exposures: OnConnected | None = None
) -> tuple[Attempt, Receiver]:
    async with Receiver(*behaviours) as receiver:
        attempt = await post(
            receiver.url, guard=GUARD, on_connected=exposures or Exposures(), deadline_seconds=deadline_seconds
        )
    return attempt, receiver


# --- the good way


async def test_the_receiver_gets_exactly_the_signed_bytes_with_the_host_first_and_names_in_title_case() -> None:
    attempt, receiver = await _attempt(receivers.accept)
    accepted = AnswerReceived(status=200, body=b'{"status":"accepted"}', content_type="application/json")
    assert attempt.observation == accepted
    assert receiver.visits[0].raw == (
        b"POST /hook HTTP/1.1\r\n"
        b"Host: 127.0.0.1:" + str(receiver.port).encode() + b"\r\n"
        b"Content-Type: application/json\r\n"
        b"Webhook-Id: asg_1\r\n"
        b"User-Agent: exclusive-lead-marketplace\r\n"
        b"Accept-Encoding: identity\r\n"
        b"Content-Length: 28\r\n"
        b"Connection: close\r\n\r\n" + MESSAGE.body
    )


async def test_the_exposure_is_committed_after_connecting_and_before_the_first_byte() -> None:
    moments: list[str] = []

    async def on_connected(connected: ConnectionInfo) -> WebhookMessage:
        moments.append("committing")
        await asyncio.sleep(0.05)
        moments.append(f"committed, {len(receiver.visits[0].raw)} bytes received")
        return MESSAGE

    async with Receiver(receivers.ok) as receiver:
        await post(receiver.url, guard=GUARD, on_connected=on_connected)
    assert moments == ["committing", "committed, 0 bytes received"]
    assert len(receiver.visits) == 1


async def test_every_phase_is_timed() -> None:
    attempt, _ = await _attempt(receivers.after(0.03, receivers.ok), exposures=Exposures(seconds=0.02))
    assert attempt.address == "127.0.0.1"
    assert attempt.tls_ms is None
    assert attempt.dns_ms is not None
    assert attempt.connect_ms is not None
    assert attempt.expose_ms is not None
    assert attempt.first_byte_ms is not None
    assert attempt.expose_ms >= 19
    assert attempt.dns_ms + attempt.connect_ms + attempt.expose_ms + attempt.first_byte_ms <= attempt.total_ms
    assert attempt.total_ms < 20_000


async def test_a_body_that_ends_with_the_connection_is_whole() -> None:
    attempt, _ = await _attempt(receivers.ok_without_length)
    assert attempt.observation == AnswerReceived(status=200, body=b'{"status":"accepted"}')


async def test_interim_answers_are_skipped() -> None:
    attempt, _ = await _attempt(receivers.ok_after_early_hints)
    assert attempt.observation == AnswerReceived(status=200)


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (receivers.ok, AttemptOutcome.accepted),
        (receivers.accept, AttemptOutcome.accepted),
        (receivers.status(204), AttemptOutcome.accepted),
        (receivers.answer(200, b"OK"), AttemptOutcome.unknown),
        (receivers.ok_in_chunks, AttemptOutcome.accepted),
        (receivers.ok_without_length, AttemptOutcome.accepted),
        (receivers.ok_ended_by_closing_alone, AttemptOutcome.unknown),
        (receivers.cut_refusal, AttemptOutcome.unknown),
        (receivers.cut_chunks, AttemptOutcome.unknown),
        (receivers.gzipped_refusal, AttemptOutcome.refused),
        (receivers.html_page, AttemptOutcome.unknown),
        (receivers.answer_before_the_question, AttemptOutcome.unknown),
        (receivers.refuse("own_customer"), AttemptOutcome.refused),
        (receivers.refuse("duplicate", 409), AttemptOutcome.refused),
        (receivers.status(404), AttemptOutcome.refused),
        (receivers.status(410), AttemptOutcome.gone),
        (receivers.status(429), AttemptOutcome.busy),
        (receivers.status(500), AttemptOutcome.busy),
    ],
)
async def test_an_answer_arrives_with_its_meaning(behaviour: Behaviour, outcome: AttemptOutcome) -> None:
    attempt, _ = await _attempt(behaviour, exposures=Exposures(seconds=0.01))
    assert classify(attempt.observation, True).outcome is outcome


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "120"}, 120),
        ({"retry_after": "Mon, 02 Mar 2026 09:31:30 GMT", "date": "Mon, 02 Mar 2026 09:30:00 GMT"}, 90),
        ({"retry_after": "Mon, 02 Mar 2026 09:29:00 GMT", "date": "Mon, 02 Mar 2026 09:30:00 GMT"}, 0),
        ({"retry_after": "Mon, 02 Mar 2026 09:31:30 GMT"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "9" * 5000}, 999_999_999),
        ({}, None),
    ],
)
async def test_the_wait_that_a_receiver_asks_for_is_read_without_comparing_clocks(
    headers: dict[str, str], seconds: int | None
) -> None:
    attempt, _ = await _attempt(receivers.answer(503, b"", **headers))
    assert attempt.observation == AnswerReceived(status=503, retry_after_seconds=seconds)


# --- nothing has left


async def _unexpected(connected: ConnectionInfo) -> WebhookMessage | None:
    raise AssertionError("the exposure must not be asked for")


async def _not_sent(
    url: str, guard: AddressRules, *, tls: ssl.SSLContext | None = None, deadline_seconds: float = 5
) -> NotSent:
    """Return the reason why nothing was sent, for an attempt that never called `on_connected`."""
    attempt = await post(url, guard=guard, on_connected=_unexpected, tls=tls, deadline_seconds=deadline_seconds)
    assert isinstance(attempt.observation, NotSent)
    assert classify(attempt.observation, False).may_release
    return attempt.observation


@pytest.mark.parametrize(
    ("url", "reason", "detail"),
    [
        ("http://example.com/", NotSentReason.url_refused, "url_scheme: http"),
        ("https://me:pw@example.com/", NotSentReason.url_refused, "url_credentials: "),
        ("https://2130706433/", NotSentReason.address_refused, "url_address_not_public: 127.0.0.1 is loopback"),
    ],
)
async def test_a_url_that_breaks_a_rule_is_not_even_resolved(url: str, reason: NotSentReason, detail: str) -> None:
    assert await _not_sent(url, AddressRules(resolver=_resolving())) == NotSent(reason=reason, detail=detail)


async def test_a_name_that_turned_private_is_blocked_at_the_socket() -> None:
    async with Receiver() as receiver:
        rebound = AddressRules(http_allowed=True, ports=(receiver.port,), resolver=_resolving("127.0.0.1"))
        refused = await _not_sent(receiver.url_of("rebinding.example"), rebound)
    assert refused == NotSent(reason=NotSentReason.address_refused, detail="rebinding.example: 127.0.0.1 is loopback")
    assert receiver.visits == []


async def test_of_mixed_addresses_only_the_allowed_ones_are_tried_and_the_others_are_told() -> None:
    async with Receiver() as receiver:
        guard = msgspec.structs.replace(GUARD, ports=(receiver.port,), resolver=_resolving("10.0.0.1", "127.0.0.1"))
        attempt = await post(receiver.url_of("mixed.example"), guard=guard, on_connected=Exposures())
    assert attempt.observation == AnswerReceived(status=200)
    assert attempt.address == "127.0.0.1"
    assert attempt.refused_addresses == ("10.0.0.1 is private",)
    assert receiver.visits[0].headers["Host"] == f"mixed.example:{receiver.port}"


async def test_a_second_address_is_tried_when_the_first_refuses_and_the_exposure_is_asked_for_once() -> None:
    async with Receiver() as receiver:
        guard = msgspec.structs.replace(GUARD, ports=(receiver.port,), resolver=_resolving("127.0.0.2", "127.0.0.1"))
        exposures = Exposures()
        attempt = await post(receiver.url_of("two.example"), guard=guard, on_connected=exposures)
    assert attempt.observation == AnswerReceived(status=200)
    assert [connected.address for connected in exposures.seen] == ["127.0.0.1"]


async def test_at_most_three_addresses_are_tried() -> None:
    async with Receiver() as receiver:
        dead = _resolving("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1")
        guard = msgspec.structs.replace(GUARD, ports=(receiver.port,), resolver=dead)
        refused = await _not_sent(receiver.url_of("four.example"), guard)
    assert refused.reason is NotSentReason.connect_refused
    assert "127.0.0.4" in refused.detail
    assert receiver.visits == []


async def test_a_name_server_that_is_silent_costs_no_more_than_the_deadline() -> None:
    async def silent(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return ()

    assert (await _not_sent("https://slow.example/", AddressRules(resolver=silent), deadline_seconds=0.1)) == NotSent(
        reason=NotSentReason.dns_failed, detail="slow.example: no answer in time"
    )


async def test_a_host_that_does_not_take_connections_times_out_before_anything_is_exposed() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)  # the queue of waiting connections is full now
            stuck = await _not_sent(f"http://127.0.0.1:{address[1]}/", GUARD, deadline_seconds=0.2)
    assert stuck.reason is NotSentReason.connect_timeout


async def test_an_attempt_called_off_at_the_exposure_sends_nothing() -> None:
    attempt, receiver = await _attempt(receivers.hang, exposures=Exposures(message=None))
    assert attempt.observation == NotSent(reason=NotSentReason.abandoned)
    assert receiver.visits[0].raw == b""


async def test_an_exposure_that_took_longer_than_the_deadline_sends_nothing_and_frees_nothing() -> None:
    attempt, receiver = await _attempt(receivers.hang, deadline_seconds=1, exposures=Exposures(seconds=1.2))
    assert attempt.observation == NotSent(reason=NotSentReason.too_late)
    assert not classify(attempt.observation, False).may_release
    assert receiver.visits[0].raw == b""


async def test_what_committing_the_exposure_raises_is_raised_and_nothing_is_sent() -> None:
    async def failing(connected: ConnectionInfo) -> WebhookMessage:
        raise LookupError("the database is away")

    async with Receiver(receivers.hang) as receiver:
        with pytest.raises(LookupError):
            await post(receiver.url, guard=GUARD, on_connected=failing)
    assert receiver.visits[0].raw == b""


async def test_an_attempt_that_is_cancelled_leaves_no_connection_behind() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def watch(visit: receivers.Visit) -> None:
        await visit.read_request()
        arrived.set()
        await visit.wait_for_hang_up()
        gone.set()

    async with Receiver(watch) as receiver:
        task = asyncio.create_task(post(receiver.url, guard=GUARD, on_connected=Exposures()))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gone.wait(), PATIENCE)


# --- TLS


async def _tls_attempt(server: ssl.SSLContext, client: ssl.SSLContext, on_connected: OnConnected) -> Attempt:
    async with Receiver(receivers.ok, tls=server) as receiver:
        guard = AddressRules(networks=LOOPBACK, ports=(receiver.port,), resolver=_resolving("127.0.0.1"))
        return await post(receiver.url_of("receiver.example"), guard=guard, on_connected=on_connected, tls=client)


async def test_a_verified_host_is_reached_under_tls_and_its_certificate_is_on_record(authority: Authority) -> None:
    exposures = Exposures()
    attempt = await _tls_attempt(authority.server(), authority.client(), exposures)
    assert attempt.observation == AnswerReceived(status=200)
    assert attempt.tls_ms is not None
    assert exposures.seen[0].tls_fingerprint is not None
    assert len(exposures.seen[0].tls_fingerprint) == sha256().digest_size


@pytest.mark.parametrize(("behaviour", "whole"), [(receivers.ok_without_length, True), (receivers.cut_tls, False)])
async def test_under_tls_only_a_close_notify_ends_a_body_without_a_length(
    authority: Authority, behaviour: Behaviour, whole: bool
) -> None:
    async with Receiver(behaviour, tls=authority.server()) as receiver:
        guard = AddressRules(networks=LOOPBACK, ports=(receiver.port,), resolver=_resolving("127.0.0.1"))
        url = receiver.url_of("receiver.example")
        attempt = await post(url, guard=guard, on_connected=Exposures(), tls=authority.client())
    assert isinstance(attempt.observation, AnswerReceived)
    assert attempt.observation.truncated is not whole


def _server_of_old(authority: Authority) -> ssl.SSLContext:
    server = authority.server()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.minimum_version = server.maximum_version = ssl.TLSVersion.TLSv1_1
    server.set_ciphers("ALL:@SECLEVEL=0")
    return server


@pytest.mark.parametrize(
    ("server", "reason", "detail"),
    [
        (lambda a: a.server(days=(-9, -1)), NotSentReason.tls_certificate_expired, "certificate has expired"),
        (lambda a: a.server(days=(1, 9)), NotSentReason.tls_certificate_expired, "certificate is not yet valid"),
        (lambda a: a.server("other.example"), NotSentReason.tls_wrong_host, "receiver.example"),
        (lambda a: a.self_signed_server(), NotSentReason.tls_certificate_untrusted, "self-signed certificate"),
        (_server_of_old, NotSentReason.tls_failed, ""),
    ],
)
async def test_a_bad_certificate_or_an_old_protocol_exposes_nothing_and_the_owner_is_told_exactly(
    authority: Authority, server: Callable[[Authority], ssl.SSLContext], reason: NotSentReason, detail: str
) -> None:
    attempt = await _tls_attempt(server(authority), authority.client(), _unexpected)
    assert isinstance(attempt.observation, NotSent)
    assert attempt.observation.reason is reason
    assert attempt.observation.detail
    assert detail in attempt.observation.detail


async def test_a_certificate_of_an_unknown_authority_is_not_trusted_by_default(authority: Authority) -> None:
    attempt = await _tls_attempt(authority.server(), system_tls(), _unexpected)
    assert isinstance(attempt.observation, NotSent)
    assert attempt.observation.reason is NotSentReason.tls_certificate_untrusted


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (receivers.banner, NotSentReason.tls_failed),
        (receivers.drop_before_read, NotSentReason.tls_failed),
        (receivers.after(60, receivers.ok), NotSentReason.tls_timeout),
    ],
)
async def test_a_host_that_does_not_speak_tls_exposes_nothing(behaviour: Behaviour, reason: NotSentReason) -> None:
    async with Receiver(behaviour) as receiver:
        url = receiver.url.replace("http:", "https:")
        deadline_seconds = 1 if reason is NotSentReason.tls_timeout else PATIENCE
        assert (await _not_sent(url, GUARD, deadline_seconds=deadline_seconds)).reason is reason


# --- bytes may have left


@pytest.mark.parametrize(
    ("behaviour", "reasons"),
    [
        (receivers.hang, {NoAnswerReason.timeout}),
        (receivers.drip, {NoAnswerReason.timeout}),
        (receivers.drop_after_read, {NoAnswerReason.closed}),
        (receivers.reset_after_read, {NoAnswerReason.reset}),
        (receivers.drop_before_read, {NoAnswerReason.reset, NoAnswerReason.closed}),
        (receivers.cut_headers, {NoAnswerReason.closed}),
        (receivers.garbage, {NoAnswerReason.malformed}),
        (receivers.banner, {NoAnswerReason.malformed}),
        (receivers.endless_headers, {NoAnswerReason.malformed}),
        (receivers.endless_continue, {NoAnswerReason.malformed}),
    ],
)
async def test_without_whole_headers_there_is_no_answer_and_the_lead_stays_with_this_business(
    behaviour: Behaviour, reasons: set[NoAnswerReason]
) -> None:
    deadline_seconds = 1 if NoAnswerReason.timeout in reasons else PATIENCE
    attempt, _ = await _attempt(behaviour, deadline_seconds=deadline_seconds, exposures=Exposures(seconds=0.01))
    assert isinstance(attempt.observation, NoAnswer)
    assert attempt.observation.reason in reasons
    assert not classify(attempt.observation, False).may_release
    assert attempt.total_ms < 20_000


@pytest.mark.parametrize("behaviour", [receivers.cut_body, receivers.drip_body, receivers.huge_body])
async def test_an_answer_whose_body_has_no_end_is_cut_off_and_no_evidence(behaviour: Behaviour) -> None:
    attempt, _ = await _attempt(behaviour, deadline_seconds=1)
    assert isinstance(attempt.observation, AnswerReceived)
    assert attempt.observation.status == 200
    assert attempt.observation.truncated
    assert len(attempt.observation.body) <= MAX_BODY_BYTES
    assert classify(attempt.observation, True).reason is AnswerReason.cut_off
    assert attempt.total_ms < 20_000


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_a_redirect_is_reported_and_never_followed(code: int) -> None:
    async with Receiver() as elsewhere:
        attempt, _ = await _attempt(receivers.redirect(elsewhere.url, code))
    assert classify(attempt.observation, True).outcome is AttemptOutcome.redirect
    assert elsewhere.visits == []


async def test_a_compressed_body_is_unpacked_up_to_a_bound_and_is_cut_off_there() -> None:
    attempt, _ = await _attempt(receivers.gzip_bomb)
    assert isinstance(attempt.observation, AnswerReceived)
    assert attempt.observation.body == bytes(MAX_BODY_BYTES)
    assert attempt.observation.truncated
    assert attempt.observation.content_coding == ""


async def test_a_coding_that_is_not_known_is_named_and_its_body_stays_as_it_is() -> None:
    attempt, _ = await _attempt(receivers.answer(200, b"\x0b\x02", content_encoding="br"))
    assert attempt.observation == AnswerReceived(status=200, body=b"\x0b\x02", content_coding="br")


async def test_a_receiver_that_reads_nothing_cannot_hold_a_large_message_beyond_the_deadline() -> None:
    large = Exposures(WebhookMessage(headers=(), body=bytes(20_000_000)))
    attempt, _ = await _attempt(receivers.after(60, receivers.ok), deadline_seconds=1, exposures=large)
    assert attempt.observation == NoAnswer(reason=NoAnswerReason.timeout)
    assert attempt.total_ms < 20_000


async def test_headers_that_would_smuggle_another_request_are_never_written() -> None:
    forged = Exposures(WebhookMessage(headers=(("x-note", "a\r\nContent-Length: 0\r\n\r\nGET /"),), body=b"{}"))
    async with Receiver(receivers.hang) as receiver:
        with pytest.raises(ValueError, match="one plain line"):
            await post(receiver.url, guard=GUARD, on_connected=forged)
    assert receiver.visits[0].raw == b""


# --- many at once


# --- kept connections


async def _attempts(count: int, *behaviours: Behaviour) -> tuple[list[Attempt], Receiver, Exposures]:
    """Make attempts one after another, each of which may use the connection of an earlier one."""
    connections, exposures = KeptConnections(), Exposures()
    async with Receiver(*behaviours) as receiver:
        attempts = []
        for _ in range(count):
            attempts.append(
                await post(
                    receiver.url, guard=GUARD, on_connected=exposures, deadline_seconds=5, connections=connections
                )
            )
            await asyncio.sleep(0.02)  # in which a server that closes the connection has done so
        connections.close()
    return attempts, receiver, exposures


async def test_after_a_complete_answer_the_next_message_goes_over_the_same_connection() -> None:
    attempts, receiver, exposures = await _attempts(3, receivers.one_by_one(*[receivers.accept] * 3))
    assert [attempt.observation.status for attempt in attempts if isinstance(attempt.observation, AnswerReceived)] == [
        200
    ] * 3
    assert [len(visit.requests) for visit in receiver.visits] == [3]
    assert all(b"Connection: keep-alive" in request for request in receiver.visits[0].requests)
    assert [attempt.connect_ms is None for attempt in attempts] == [False, True, True]
    assert {attempt.address for attempt in attempts} == {"127.0.0.1"}
    assert len(exposures.seen) == 3


async def test_under_tls_the_certificate_of_a_kept_connection_is_on_record(authority: Authority) -> None:
    connections, exposures, client = KeptConnections(), Exposures(), authority.client()
    behaviour = receivers.one_by_one(receivers.ok, receivers.ok)
    async with Receiver(behaviour, tls=authority.server()) as receiver:
        guard = AddressRules(networks=LOOPBACK, ports=(receiver.port,), resolver=_resolving("127.0.0.1"))
        for _ in range(2):
            url = receiver.url_of("receiver.example")
            attempt = await post(url, guard=guard, on_connected=exposures, tls=client, connections=connections)
        connections.close()
    assert (len(receiver.visits), attempt.tls_ms) == (1, None)
    assert exposures.seen[0].tls_fingerprint == exposures.seen[1].tls_fingerprint is not None


@pytest.mark.parametrize(
    "first",
    [
        receivers.answer(200, connection="close"),
        receivers.ok_without_length,
        receivers.ok_ended_by_closing_alone,
        receivers.cut_body,
        receivers.answer(200, b"{}", content_length="1"),
        receivers.ok,
    ],
    ids=[
        "asked to close",
        "no length",
        "nothing but headers",
        "cut",
        "bytes behind the answer",
        "closed by the server",
    ],
)
async def test_a_connection_that_cannot_carry_another_message_is_not_used_again(first: Behaviour) -> None:
    attempts, receiver, _ = await _attempts(2, first, receivers.accept)
    assert isinstance(attempts[1].observation, AnswerReceived)
    assert [len(visit.raw) > 0 for visit in receiver.visits] == [True, True]
    assert attempts[1].connect_ms is not None


async def _speak_later(visit: Visit) -> None:
    await receivers.accept(visit)
    await visit.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
    await visit.wait_for_hang_up()


async def test_a_server_that_speaks_on_an_idle_connection_gets_a_new_one() -> None:
    attempts, receiver, _ = await _attempts(2, _speak_later, receivers.accept)
    assert len(receiver.visits) == 2
    assert [isinstance(attempt.observation, AnswerReceived) for attempt in attempts] == [True, True]


@pytest.mark.parametrize("second", [receivers.drop_after_read, receivers.reset_after_read])
async def test_a_kept_connection_that_ends_without_an_answer_costs_no_time_and_no_second_exposure(
    second: Behaviour,
) -> None:
    behaviour = receivers.one_by_one(receivers.accept, second)
    attempts, receiver, exposures = await _attempts(2, behaviour, receivers.accept)
    assert isinstance(attempts[1].observation, AnswerReceived)
    assert len(exposures.seen) == 2
    assert receiver.visits[0].requests[1].partition(b"\r\n\r\n")[2] == receiver.visits[1].body == MESSAGE.body


async def test_a_server_that_falls_silent_on_a_kept_connection_is_not_sent_the_message_twice() -> None:
    connections = KeptConnections()
    async with Receiver(receivers.one_by_one(receivers.accept, receivers.hang)) as receiver:
        for seconds in (5, 0.3):
            attempt = await post(
                receiver.url, guard=GUARD, on_connected=Exposures(), deadline_seconds=seconds, connections=connections
            )
    assert attempt.observation == NoAnswer(reason=NoAnswerReason.timeout)
    assert len(receiver.visits) == 1


async def test_a_new_connection_that_ends_without_an_answer_is_not_tried_again() -> None:
    attempts, receiver, _ = await _attempts(1, receivers.drop_after_read, receivers.accept)
    assert isinstance(attempts[0].observation, NoAnswer)
    assert len(receiver.visits) == 1


async def test_an_idle_connection_closes_after_its_time_and_an_old_one_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_connections, "IDLE_S", 0.005)
    _, receiver, _ = await _attempts(2, receivers.one_by_one(*[receivers.accept] * 2))
    assert len(receiver.visits) == 2
    monkeypatch.setattr(kept_connections, "IDLE_S", 30.0)
    monkeypatch.setattr(kept_connections, "MOST_AGE_S", 0.0)
    _, receiver, _ = await _attempts(2, receivers.one_by_one(*[receivers.accept] * 2))
    assert len(receiver.visits) == 2


async def test_attempts_at_the_same_time_have_connections_of_their_own_of_which_some_are_kept() -> None:
    connections = KeptConnections()
    behaviour = receivers.one_by_one(*[receivers.after(0.05, receivers.accept)] * 2)
    async with Receiver(behaviour) as receiver:
        for count in (20, 8):
            attempts = [
                post(receiver.url, guard=GUARD, on_connected=Exposures(), connections=connections) for _ in range(count)
            ]
            assert all(isinstance(attempt.observation, AnswerReceived) for attempt in await asyncio.gather(*attempts))
        connections.close()
    assert len(receiver.visits) == 20


def _open_files() -> int:
    return len(os.listdir("/dev/fd"))


async def test_hundreds_of_attempts_leave_no_socket_open_whatever_happened_to_them(authority: Authority) -> None:
    behaviours = (
        receivers.ok,
        receivers.hang,
        receivers.drop_after_read,
        receivers.drop_before_read,
        receivers.huge_body,
        receivers.garbage,
    )
    await _attempt(receivers.ok)  # so that what the event loop keeps for itself is open already
    before, client = _open_files(), authority.client()
    async with Receiver(*behaviours * 20) as plain, Receiver(tls=authority.self_signed_server()) as untrusted:
        attempts: list[Awaitable[Attempt]] = [
            post(url, guard=GUARD, on_connected=Exposures(), deadline_seconds=0.5, tls=client)
            for url in [plain.url] * 120 + [untrusted.url] * 20 + [plain.url.replace("http:", "https:")] * 20
        ]
        results = await asyncio.gather(*attempts)
    assert len(results) == 160

    async def closed() -> bool:
        gc.collect()
        return _open_files() <= before

    assert await until(closed, PATIENCE)


async def test_an_attempt_costs_little_time_and_no_memory_that_stays() -> None:
    async with Receiver() as receiver:
        await asyncio.gather(*(post(receiver.url, guard=GUARD, on_connected=Exposures()) for _ in range(20)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        for _ in range(20):
            await asyncio.gather(*(post(receiver.url, guard=GUARD, on_connected=Exposures()) for _ in range(20)))
        spent_ms = (time.process_time() - started) * 1000 / 400
    assert spent_ms < 25  # both sides; far above what is usual, far below what a mistake costs
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 50_000_000
