"""Readers of a feed have every byte that came, take apart whatever was cut, and note what is not in order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from marketplace.runtime import clock
from tests.harness.canaries import Aviary
from tests.harness.histories import History, read_about
from tests.harness.readers import FeedReader
from tests.harness.receivers import UNREADABLE, Sighting
from tests.harness.streaming import HOST, Events, calling

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(aviary: Aviary, sequence: int, number: int) -> bytes:
    body = aviary.canary(number).body("key", clock.now())
    data = b'{"type":"lead.assigned","data":{"lead_id":"lead_%d","contact":%b}}' % (number, body)
    return b"id: %d\nevent: lead.assigned\ndata: %b\n\n" % (sequence, data)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """The port of a server that answers each request with what `answer` makes of its first line, and hangs up."""

    async def entertain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(head.partition(b"\r\n")[0]))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(entertain, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def reader_of(aviary: Aviary, history: History, sightings: list[Sighting]) -> FeedReader:
    reader = FeedReader(
        "business-7", aviary, history, sightings.append, lambda status, text: None, list, 1, by_place=False
    )
    reader.behaves = True
    return reader


def test_a_stream_is_taken_apart_wherever_it_was_cut() -> None:
    aviary = Aviary(seed=7)
    whole = b"retry: 3000\n\n" + event(aviary, 1, 11) + b": still here\n\n" + event(aviary, 2, 12)
    for size in (1, 7, 64, 4_096):
        events = Events()
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        received = [one for piece in pieces for one in events.take(piece)]
        assert [(one.sequence, one.kind, one.lead_id) for one in received] == [
            (1, "lead.assigned", "lead_11"),
            (2, "lead.assigned", "lead_12"),
        ]
        assert events.rest == b""


async def test_chunks_that_end_in_the_middle_give_what_there_was() -> None:
    async with (
        answering(lambda line: HEAD + chunk(b"one") + b"20\r\ntwo") as port,
        calling(port, "GET", "/v1/feed", "key") as answer,
    ):
        assert (answer.status, await answer.whole()) == (200, b"onetwo")


async def test_whoever_is_in_half_an_event_was_seen_and_was_not_received(tmp_path: Path) -> None:
    aviary, sightings, history = Aviary(seed=7), list[Sighting](), History(tmp_path / "readers.jsonl")
    half = event(aviary, 2, 12)[:-10]
    stream = HEAD + chunk(event(aviary, 1, 11)) + chunk(half)
    acknowledged = b'HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{"receipt":"acknowledged"}'
    async with answering(lambda line: stream if line.startswith(b"GET") else acknowledged) as port:
        reader = reader_of(aviary, history, sightings)
        reader.open(port)
        async with asyncio.timeout(5):
            while not any(entry.lead_id == UNREADABLE for entry in sightings):  # noqa: ASYNC110 - another task sees it
                await asyncio.sleep(0.01)
        await reader.finish(1.0)
    assert reader.received == {1: "lead_11"}
    assert {(entry.number, entry.lead_id) for entry in sightings} == {(11, "lead_11"), (12, UNREADABLE)}
    assert [entry.lead_id for entry in reader.answered] == ["lead_11"]
    actions = [entry["what"] for entry in read_about(tmp_path / "readers.jsonl", 11)]
    assert actions[0] == "read first"
    assert {"acknowledges", "was answered"} <= set(actions)
    assert reader.complaints == []
    history.close()


async def test_places_out_of_order_or_told_anew_are_complained_of(tmp_path: Path) -> None:
    aviary, sightings, history = Aviary(seed=7), list[Sighting](), History(tmp_path / "readers.jsonl")
    streams = [event(aviary, 2, 12) + event(aviary, 1, 11), event(aviary, 2, 13)]
    refused = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

    def answer(line: bytes) -> bytes:
        return HEAD + chunk(streams.pop(0) if streams else b": nothing\n\n") if line.startswith(b"GET") else refused

    async with answering(answer) as port:
        reader = reader_of(aviary, history, sightings)
        reader.open(port)
        async with asyncio.timeout(5):
            while len(reader.complaints) < 4:  # noqa: ASYNC110 - another task complains
                await asyncio.sleep(0.01)
        await reader.close()
    assert {one.check for one in reader.complaints} == {
        "fed in order",
        "one lead at one place",
        "what was shown can be acknowledged",
    }
    history.close()
