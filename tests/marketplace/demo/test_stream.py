import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count

from aiohttp import web

from marketplace.demo.people import DraftKind, InquiryDraft
from marketplace.demo.provider import open_session, submit
from marketplace.demo.stream import InquiryStream

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
Handler = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A real server in the service's place; the URL of it."""
    app = web.Application()
    app.router.add_post("/v1/inquiries", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def draft(number: int, kind: DraftKind = DraftKind.ready, of: int | None = None) -> InquiryDraft:
    return InquiryDraft(
        number=number,
        kind=kind,
        vertical="home",
        provider=0,
        contact={},
        bant={},
        attribution={},
        ip="192.0.2.1",
        of=of,
    )


def accepted(key: str) -> web.Response:
    return web.json_response({"id": f"lead_{key}", "state": "received"}, status=202)


async def test_a_service_that_answers_late_does_not_slow_the_stream() -> None:
    async def late(request: web.Request) -> web.Response:
        await asyncio.sleep(late_s)
        return accepted(request.headers["Idempotency-Key"])

    late_s = 3.0
    async with serving(late) as url, open_session() as session:
        stream = InquiryStream(session, url, ("key",), (draft(number) for number in count()), rate=100, seed=1)
        seconds = await stream.run(0.5, asyncio.Event())
        assert seconds >= 0.4
        assert stream.sent > 25
        assert stream.unanswered == stream.sent  # the last was sent before the first was answered
        await stream.drain()
    assert stream.accepted == stream.sent
    assert max(stream.lateness) < late_s


async def test_arrivals_follow_from_the_seed() -> None:
    async def at_once(request: web.Request) -> web.Response:
        return accepted(request.headers["Idempotency-Key"])

    async with serving(at_once) as url, open_session() as session:
        sent = []
        for seed in (1, 1, 2):
            stream = InquiryStream(session, url, ("key",), (draft(number) for number in count()), rate=200, seed=seed)
            await stream.run(0.3, asyncio.Event())
            await stream.drain()
            sent.append(stream.sent)
    assert sent[0] == sent[1]


async def test_a_submission_without_an_answer_is_sent_again_under_its_key() -> None:
    tries: Counter[str] = Counter()

    async def away(request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        tries[key] += 1
        if tries[key] == 1:
            assert request.transport is not None
            request.transport.abort()
        if tries[key] == 2:
            return web.json_response({"code": "temporarily_unavailable"}, status=503)
        return web.json_response({"code": "conflict"}, status=409) if tries[key] == 3 else accepted(key)

    async with serving(away) as url, open_session() as session:
        answer = await submit(session, url, "key", b"{}", "one")
    assert (answer.status, answer.id, answer.tries) == (202, "lead_one", 4)


async def test_a_service_that_asks_for_time_is_given_it() -> None:
    came: list[float] = []

    async def busy(request: web.Request) -> web.Response:
        came.append(asyncio.get_running_loop().time())
        if len(came) == 1:
            return web.json_response({"code": "temporarily_unavailable"}, status=503, headers={"Retry-After": "1"})
        return accepted(request.headers["Idempotency-Key"])

    async with serving(busy) as url, open_session() as session:
        assert (await submit(session, url, "key", b"{}", "one")).status == 202
    assert came[1] - came[0] >= 1.0


async def test_a_refusal_is_final_and_counted_by_its_codes() -> None:
    async def refuse(_request: web.Request) -> web.Response:
        body = {"code": "validation_failed", "errors": [{"code": "phone_invalid"}, {"code": "consent_missing"}]}
        return web.json_response(body, status=422)

    async with serving(refuse) as url, open_session() as session:
        stream = InquiryStream(session, url, ("key",), [draft(0)], rate=1_000, seed=1)
        await stream.run(0.1, asyncio.Event())
        await stream.drain()
    assert stream.refused == 1
    assert stream.refusals == {"phone_invalid": 1, "consent_missing": 1}


async def test_a_repetition_sends_the_very_same_bytes_and_another_answer_to_it_is_told() -> None:
    bodies: dict[str, list[bytes]] = {}

    async def forgetful(request: web.Request) -> web.Response:
        sent = bodies.setdefault(request.headers["Idempotency-Key"], [])
        sent.append(await request.read())
        return web.json_response({"id": f"lead_{len(sent)}", "state": "received"}, status=202)

    async with serving(forgetful) as url, open_session() as session:
        drafts = [*map(draft, range(20)), draft(20, DraftKind.repeated, of=0)]  # half a second later
        stream = InquiryStream(session, url, ("key",), drafts, rate=40, seed=1)
        await stream.run(60.0, asyncio.Event())
        await stream.drain()
    first, second = bodies["demo-0"]
    assert first == second
    assert (stream.repeated, stream.changed_answers) == (1, 1)


async def test_a_stream_that_is_told_to_stop_sends_no_more() -> None:
    stopping = asyncio.Event()

    async def stop(request: web.Request) -> web.Response:
        stopping.set()
        return accepted(request.headers["Idempotency-Key"])

    async with serving(stop) as url, open_session() as session:
        stream = InquiryStream(session, url, ("key",), (draft(number) for number in count()), rate=20, seed=1)
        seconds = await stream.run(60.0, stopping)
        await stream.drain()
    assert seconds < 30
