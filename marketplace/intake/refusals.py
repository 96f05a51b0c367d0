"""Counts of the faults of refused inquiries by provider, hour, field and fault, for the quality report.

A refused inquiry leaves no row. Each process counts in memory, with the masked shape of the last value that had each
fault, and writes every second, apart from any request. A process that dies loses its last second; no answer waits.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from marketplace.database.db import Pool, Queries, transaction
from marketplace.runtime.errors import Unavailable
from marketplace.runtime.log import logger
from marketplace.security.auth import Principal
from marketplace.text.faults import Fault, FaultCode
from marketplace.text.masking import shape_at

SQL = Queries(__file__, "refusals.sql")
log = logger("refusals")

FLUSH_SECONDS: Final = 1.0
MOST_KEPT: Final = 2_000
"Most different counts between two writes. Beyond them a refused request is counted, its fields are not."
DEPTH: Final = 3
"Steps of a pointer that are counted separately. The steps below are names that callers choose."


class RefusalKey(NamedTuple):
    """Key of one count. Pointer `*` with code `refused` counts requests."""

    provider_id: UUID
    mode: str
    hour: datetime
    pointer: str
    code: str


class Refusals:
    """Counts of one process, and the last masked shape by provider, mode, field and fault."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._counts: Counter[RefusalKey] = Counter()
        self._shapes: dict[tuple[UUID, str, str, str], tuple[str, datetime]] = {}

    def note(self, caller: Principal, faults: Iterable[Fault], now: datetime, raw: bytes = b"") -> None:
        """Count one refused request in memory; `raw` is its body."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        self._counts[RefusalKey(caller.owner, caller.mode, hour, "*", "refused")] += 1
        by_field = {(_field(fault), str(fault.code)): fault for fault in faults}
        document = _document(raw, by_field.values())
        for (pointer, code), fault in by_field.items():
            place = RefusalKey(caller.owner, caller.mode, hour, pointer, code)
            if place in self._counts or len(self._counts) < MOST_KEPT:
                self._counts[place] += 1
                if document is not None and pointer:
                    key = (caller.owner, caller.mode, pointer, code)
                    self._shapes[key] = (shape_at(document, fault.pointer), now)

    async def keep(self, stopping: asyncio.Event) -> None:
        """Write every second until `stopping` is set, and once more at the end."""
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write the counts; if the database is unavailable, keep them for the next time."""
        counts, self._counts = self._counts, Counter()
        shapes, self._shapes = self._shapes, {}
        if not counts:
            return
        try:
            async with transaction(self._pool) as connection:
                await connection.execute(
                    SQL["add_refusals"], *map(list, zip(*counts, strict=True)), list(counts.values())
                )
                if shapes:
                    rows = [(*key, *example) for key, example in shapes.items()]
                    await connection.execute(SQL["keep_examples"], *map(list, zip(*rows, strict=True)))
        except (Unavailable, asyncpg.PostgresError) as error:
            log.warning("refusals_not_kept", error=type(error).__name__)
            self._counts.update(dict(counts.most_common(MOST_KEPT)))
            self._shapes = shapes | self._shapes


def _document(raw: bytes, faults: Iterable[Fault]) -> Any:
    """Return the decoded body, or None if it cannot be read."""
    if not raw or any(fault.unreadable for fault in faults):
        return None
    try:
        return msgspec.json.decode(raw)
    except ValueError:
        return None


def _field(fault: Fault) -> str:
    """Return the pointer with `*` for indexes of lists and names of unknown fields, cut to DEPTH steps."""
    steps = fault.pointer.split("/")[1 : DEPTH + 1]
    if fault.code == FaultCode.unknown_field and steps:
        steps[-1] = "*"
    return "".join(f"/{'*' if step.isdecimal() else step}" for step in steps)
