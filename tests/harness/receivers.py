"""The businesses' own servers: each records every byte that it is sent, then behaves well, badly, or with intent.

Behaviour is drawn anew for each request. A sighting, contact data of a lead at a business, is noted the moment that its
bytes are complete and before anything is answered.
"""

import asyncio
import contextlib
import gzip
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Final

import msgspec

from marketplace.runtime import clock
from tests.harness.canaries import Aviary
from tests.harness.histories import Event, History

BEHAVIOURS: Final = {
    "ok": 77,
    "refuse": 4,
    "refuse_politely": 2,
    "hang": 1,
    "drop_after_reading": 3,
    "error_after_reading": 3,
    "drip": 1,
    "redirect": 1,
    "late": 2,
    "garbage": 1,
    "cut_answer": 1,
    "cut_refusal": 1,
    "gzipped_refusal": 1,
    "html_page": 1,
    "busy": 1,
}
"""What a receiver does, out of a hundred. A refused connection is the proxy's to give."""
ACKNOWLEDGING: Final = frozenset({"ok", "late"})
"""Behaviours after which a lead may be charged; no other answer is evidence of receipt."""
_GZIPPED: Final = gzip.compress(b'{"status":"refused"}')
LATE_SECONDS: Final = 3.0
UNREADABLE: Final = ""
"""Stands for the lead's id where a request was cut off before it told."""
KEEPING: Final = frozenset({"ok", "late", "refuse"})
"""Behaviours whose answers leave the connection open for the next message."""
KEPT_SHARE: Final = 0.8
"""Share of those connections that stay open; the others are closed without notice behind the answer."""
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ANSWERS: Final = {
    "ok": OK,
    "late": OK,
    "refuse": b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n",
    "refuse_politely": b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{"status":"refused"}',
    "error_after_reading": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
    "garbage": b"220 mail.example ESMTP\r\n\r\n",
    "cut_answer": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut_refusal": b'HTTP/1.1 200 OK\r\nContent-Length: 45\r\nConnection: close\r\n\r\n{"status": "refu',
    "gzipped_refusal": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
    % (len(_GZIPPED), _GZIPPED),
    "html_page": b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\nConnection: close\r\n\r\n<html>hello</html>\n",
    "busy": b"HTTP/1.1 429 Slow Down\r\nRetry-After: 3\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """Contact data of person `number` at `business`, whole at `at`; `lead_id` as the webhook named it."""

    number: int
    business: str
    lead_id: str
    webhook_id: str
    at: datetime
    behaviour: str


OnSighting = Callable[[Sighting], None]


class Receiver:
    """One business's server on a free port of 127.0.0.1."""

    def __init__(self, business: str, aviary: Aviary, history: History, on_sighting: OnSighting, seed: int) -> None:
        self.business = business
        self.port = 0
        self.behaves = False
        "While set, every lead is answered 200."
        self.behaviours: Counter[str] = Counter()
        self._aviary = aviary
        self._history = history
        self._on_sighting = on_sighting
        self._random = Random(f"receiver {business} {seed}")
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._entertain(reader, writer))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _entertain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while raw := await _read_request(reader):
                if not await self._answer(raw, reader, writer):
                    break
        except OSError:
            pass  # the sender has gone, which is its right
        finally:
            writer.close()

    async def _answer(self, raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, and return whether the connection stays open for another."""
        at = clock.now()
        head, _, body = raw.partition(b"\r\n\r\n")
        message = _decode(body)
        if message is not None and message.type == "endpoint.challenge":
            reply = msgspec.json.encode({"challenge": message.data.get("challenge")})
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(reply), reply))
            await writer.drain()
            return False
        behaviour = "ok" if self.behaves else self._random.choices(tuple(BEHAVIOURS), tuple(BEHAVIOURS.values()))[0]
        self.behaviours[behaviour] += 1
        lead_id = str(message.data.get("lead_id")) if message is not None else UNREADABLE
        for number in self._aviary.find(raw):
            self._on_sighting(
                Sighting(
                    number=number,
                    business=self.business,
                    lead_id=lead_id,
                    webhook_id=_header(head, b"webhook-id"),
                    at=at,
                    behaviour=behaviour,
                )
            )
            await self._history.write(
                Event(
                    at=at, who=self.business, what=behaviour, number=number, lead_id=lead_id, text=raw.decode("latin-1")
                )
            )
        await self._behave(behaviour, reader, writer)
        return behaviour in KEEPING and self._random.random() < KEPT_SHARE

    async def _behave(self, behaviour: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match behaviour:
            case "hang":
                while await reader.read(65_536):
                    pass
            case "drip":
                writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while True:
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.sleep(0.2)
            case "drop_after_reading":
                writer.transport.abort()
            case _:
                if behaviour == "late":
                    await asyncio.sleep(LATE_SECONDS)
                writer.write(ANSWERS[behaviour])
                await writer.drain()


class _Message(msgspec.Struct, frozen=True):
    type: str
    data: dict[str, object]


def _decode(body: bytes) -> _Message | None:
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(body, type=_Message)
    return None


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """Return the next request of a connection, or what came of it before its end."""
    raw = bytearray()
    while not _is_whole(raw) and (data := await reader.read(65_536)):
        raw += data
    return bytes(raw)


def _is_whole(raw: bytearray) -> bool:
    head, separator, body = bytes(raw).partition(b"\r\n\r\n")
    if not separator:
        return False
    return len(body) >= int(_header(head, b"content-length") or 0)


def _header(head: bytes, name: bytes) -> str:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip().decode("latin-1")
    return ""
