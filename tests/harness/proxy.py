"""A TCP proxy that does to a connection what networks do: delay, drip, swallow, cut at the worst moment.

One stands between each two parts of the installation. What it does may change at any time, for connections that are
open as well as for new ones.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

CHUNK: Final = 65_536
DRIP_SECONDS: Final = 0.02

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]


def to_tcp(host: str, port: int) -> Connect:
    return lambda: asyncio.open_connection(host, port)


def to_unix(path: str) -> Connect:
    return lambda: asyncio.open_unix_connection(path)


class Link:
    """One connection through a proxy. `answer_is_awaited`: its next answer is cut off instead of passed on."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.answer_is_awaited = False
        self._writers = (near, far)

    def cut(self) -> None:
        """Break it towards both sides."""
        for writer in self._writers:
            writer.transport.abort()


class Proxy:
    """Listens on a free port of 127.0.0.1. Seconds throughout; every knob may be turned while connections are open."""

    def __init__(self, connect: Connect) -> None:
        self.port = 0
        self.delay_s = 0.0
        "Each piece, in either direction, is passed on so much later."
        self.drips = False
        "Bytes towards the far side come one at a time."
        self.cuts = 0
        "Connections cut by `cut_before_answer` and `cut_amid` so far."
        self._connect = connect
        self._flowing, self._reading = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        self._reading.set()
        self._server: asyncio.Server | None = None
        self._links: set[Link] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._to_cut = 0
        self._cut_at = b""
        self._to_tear = 0
        self._tear_at = b""

    async def open(self) -> None:
        """Take connections, on the same port each time."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, reuse_address=True)
            self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Refuse new connections; those that are open live on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """Refuse, and break everything."""
        self.refuse()
        self.cut()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def cut(self) -> int:
        """Break every open connection; how many there were."""
        for link in self._links:
            link.cut()
        return len(self._links)

    def cut_before_answer(self, pattern: bytes, times: int = 1) -> None:
        """The next `times` that a piece holding `pattern` is passed on, its answer is awaited and then cut off: the far
        side has done what was asked, and the near side never learns it."""
        self._cut_at, self._to_cut = pattern, times

    def cut_amid(self, pattern: bytes, times: int = 1) -> None:
        """The next `times` that the far side says something with `pattern` in it, half of that piece is passed on."""
        self._tear_at, self._to_tear = pattern, times

    def swallow(self) -> None:
        """Pass nothing on, in either direction, until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass everything on again, what was swallowed first: a network that comes back delivers late."""
        self._flowing.set()

    def ignore(self) -> None:
        """Accept new connections and never read them, until `heed`."""
        self._reading.clear()

    def heed(self) -> None:
        """Read new connections again, and those that have waited."""
        self._reading.set()

    def calm(self) -> None:
        """Return to normal behaviour, without cutting a connection."""
        self.delay_s, self.drips, self._to_cut, self._to_tear = 0.0, False, 0, 0
        self.heed()
        self.flow()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._relay(reader, writer))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _relay(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        await self._reading.wait()
        try:
            far_reader, far = await self._connect()
        except OSError:
            near.transport.abort()
            return
        link = Link(near, far)
        self._links.add(link)
        try:
            await asyncio.gather(self._up(reader, far, link), self._down(far_reader, near, link))
        finally:
            self._links.discard(link)
            link.cut()

    async def _up(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter, link: Link) -> None:
        while data := await _read(reader):
            await self._obstruct()
            if self._to_cut and self._cut_at in data:
                self._to_cut -= 1
                link.answer_is_awaited = True
            await self._write(far, data)
        await _hang_up(far)

    async def _down(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter, link: Link) -> None:
        while data := await _read(reader):
            await self._obstruct()
            if link.answer_is_awaited:
                self.cuts += 1
                link.cut()
                return
            if self._to_tear and self._tear_at in data:
                self._to_tear -= 1
                self.cuts += 1
                await _write(near, data[: len(data) // 2])
                link.cut()
                return
            await _write(near, data)
        await _hang_up(near)

    async def _obstruct(self) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        await self._flowing.wait()

    async def _write(self, far: asyncio.StreamWriter, data: bytes) -> None:
        at = 0
        while self.drips and at < len(data):
            await _write(far, data[at : at + 1])
            await asyncio.sleep(DRIP_SECONDS)
            at += 1
        await _write(far, data[at:])


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Return the bytes received; empty once the connection has ended in any way."""
    try:
        return await reader.read(CHUNK)
    except OSError:
        return b""


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(OSError):
        writer.write(data)
        await writer.drain()


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Pass an orderly end on; the other direction may go on."""
    with contextlib.suppress(OSError, RuntimeError):
        if writer.can_write_eof():
            writer.write_eof()
