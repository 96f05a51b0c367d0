"""The proxy does what networks do, over real sockets, and lets go again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.builders.service import until
from tests.harness.proxy import Proxy, to_tcp
from tests.waiting import PATIENCE

SOON = 0.15
BROKEN = (ConnectionError, asyncio.IncompleteReadError)
"""How a connection that was cut looks to whoever reads from it."""


class Echo:
    """A server that remembers what it read and answers each piece with the same bytes."""

    def __init__(self) -> None:
        self.read = b""
        self.connections = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while data := await reader.read(65_536):
            self.read += data
            writer.write(data)
        writer.close()


@asynccontextmanager
async def between() -> AsyncIterator[tuple[Proxy, Echo]]:
    """A proxy in front of an echo."""
    echo = Echo()
    server = await asyncio.start_server(echo.answer, "127.0.0.1", 0)
    proxy = Proxy(to_tcp("127.0.0.1", server.sockets[0].getsockname()[1]))
    await proxy.open()
    try:
        yield proxy, echo
    finally:
        await proxy.close()
        server.close()


async def test_a_calm_proxy_passes_everything_on_both_ways_and_its_end_too() -> None:
    async with between() as (proxy, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"x" * 300_000)
        writer.write_eof()
        assert len(await reader.read()) == 300_000
        writer.close()


async def test_a_cut_answer_was_given_and_never_arrives() -> None:
    async with between() as (proxy, echo):
        proxy.cut_before_answer(b"COMMIT")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"begin")
        assert await reader.readexactly(5) == b"begin"
        writer.write(b"COMMIT")
        with pytest.raises(BROKEN):
            await reader.readexactly(6)
        assert echo.read == b"beginCOMMIT"
        assert proxy.cuts == 1


async def test_only_as_many_answers_are_cut_as_were_asked_for() -> None:
    async with between() as (proxy, _):
        proxy.cut_before_answer(b"", times=1)
        _, first = await asyncio.open_connection("127.0.0.1", proxy.port)
        first.write(b"a")

        async def cut() -> bool:
            return proxy.cuts == 1

        assert await until(cut, PATIENCE)
        reader, second = await asyncio.open_connection("127.0.0.1", proxy.port)
        second.write(b"b")
        assert await reader.readexactly(1) == b"b"
        second.close()


async def test_a_piece_that_is_cut_in_the_middle_arrives_in_half() -> None:
    async with between() as (proxy, _):
        proxy.cut_amid(b"event")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"an event")
        assert await reader.read() == b"an e"
        assert proxy.cuts == 1
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"an event")
        assert await reader.readexactly(8) == b"an event"
        writer.close()


async def test_what_was_swallowed_arrives_late() -> None:
    async with between() as (proxy, echo):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.swallow()
        writer.write(b"late")
        await asyncio.sleep(SOON)
        assert echo.read == b""
        proxy.flow()
        assert await reader.readexactly(4) == b"late"
        writer.close()


async def test_an_ignored_connection_is_accepted_and_never_reaches_the_other_side_until_it_is_heeded() -> None:
    async with between() as (proxy, echo):
        proxy.ignore()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        await asyncio.sleep(SOON)
        assert echo.connections == 0
        proxy.heed()
        assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_a_dripped_request_arrives_whole_and_slowly() -> None:
    async with between() as (proxy, echo):
        proxy.drips = True
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        began = asyncio.get_running_loop().time()
        writer.write(b"0123456789")
        assert await reader.readexactly(10) == b"0123456789"
        assert asyncio.get_running_loop().time() - began > 9 * 0.02
        assert echo.read == b"0123456789"
        writer.close()


async def test_a_delay_is_paid_in_each_direction() -> None:
    async with between() as (proxy, _):
        proxy.delay_s = 0.1
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        began = asyncio.get_running_loop().time()
        writer.write(b"x")
        await reader.readexactly(1)
        assert asyncio.get_running_loop().time() - began >= 0.2
        writer.close()


async def test_a_refusing_proxy_keeps_its_port_and_opens_it_again() -> None:
    async with between() as (proxy, _):
        port = proxy.port
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await proxy.open()
        assert proxy.port == port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()


async def test_cutting_breaks_every_open_connection() -> None:
    async with between() as (proxy, echo):
        streams = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(3)]

        async def through() -> bool:
            return echo.connections == 3

        assert await until(through, PATIENCE)
        assert proxy.cut() == 3
        for reader, _ in streams:
            with pytest.raises(BROKEN):
                await reader.readexactly(1)


async def test_a_far_side_that_is_away_shows_as_a_broken_connection() -> None:
    proxy = Proxy(to_tcp("127.0.0.1", 1))
    await proxy.open()
    reader, _ = await asyncio.open_connection("127.0.0.1", proxy.port)
    with pytest.raises(BROKEN):
        await reader.readexactly(1)
    await proxy.close()
