"""Histories: what providers and receivers saw, line by line on disk, so that a violation can be told as a story."""

import asyncio
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that somebody outside saw: who, what, about which person; `text` holds the bytes as Latin-1."""

    at: datetime
    who: str
    what: str
    number: int | None = None
    key: str | None = None
    lead_id: str | None = None
    sequence: int | None = None
    status: int | None = None
    text: str | None = None


class History:
    """One file of events. `write` returns when the event is on disk; what is written meanwhile shares the next sync."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._syncing: asyncio.Task[None] | None = None

    async def write(self, event: Event) -> None:
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((msgspec.json.encode(event) + b"\n", done))
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._sync())
        await asyncio.shield(done)

    async def _sync(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await asyncio.to_thread(self._put, b"".join(line for line, _ in batch))
            for _, done in batch:
                if not done.done():
                    done.set_result(None)

    def _put(self, lines: bytes) -> None:
        os.write(self._file, lines)
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


def read_about(path: Path, number: int) -> list[dict[str, Any]]:
    """Every event about one person in a file that may be large."""
    mark = f'"number":{number},'.encode(), f'"number":{number}}}'.encode()
    with path.open("rb") as lines:
        return [msgspec.json.decode(line) for line in lines if any(part in line for part in mark)]
