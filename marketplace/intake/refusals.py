"""What was wrong with inquiries that were refused: counts by provider, hour, field and fault, for the quality report.

A refused inquiry leaves no row. These counts, and the shape of the value that last had each fault, are kept in the
process and written every second, apart from any request: a process that dies takes the last second's with it, and no
refusal ever waits for them.
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
"Different counts between two writes; what is beyond them is not counted by field, only as a request."
DEPTH: Final = 3
"Steps of a pointer that are told apart: below them are names that callers make up."


class RefusalKey(NamedTuple):
    """What is counted."""

    provider_id: UUID
    mode: str
    hour: datetime
    pointer: str
    code: str


class Refusals:
    """The counts of one process, and by provider, mode, field and fault what was last seen of it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._counts: Counter[RefusalKey] = Counter()
        self._shapes: dict[tuple[UUID, str, str, str], tuple[str, datetime]] = {}

    def note(self, caller: Principal, faults: Iterable[Fault], now: datetime, raw: bytes = b"") -> None:
        """One refused request, with its body as it came. Only adds to what is in memory."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        self._counts[RefusalKey(caller.owner, caller.mode, hour, "*", "refused")] += 1
        found = {(_field(fault), str(fault.code)): fault for fault in faults}
        document = _document(raw, found.values())
        for (pointer, code), fault in found.items():
            place = RefusalKey(caller.owner, caller.mode, hour, pointer, code)
            if place in self._counts or len(self._counts) < MOST_KEPT:
                self._counts[place] += 1
                if document is not None and pointer:
                    kept = (caller.owner, caller.mode, pointer, code)
                    self._shapes[kept] = (shape_at(document, fault.pointer), now)

    async def keep(self, stopping: asyncio.Event) -> None:
        """Writes every second until `stopping`, and once more then."""
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Writes what was counted; tries it again the next time when the database is away."""
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
                    rows = [(*place, *seen) for place, seen in shapes.items()]
                    await connection.execute(SQL["keep_examples"], *map(list, zip(*rows, strict=True)))
        except (Unavailable, asyncpg.PostgresError) as error:
            log.warning("refusals_not_kept", error=type(error).__name__)
            self._counts.update(dict(counts.most_common(MOST_KEPT)))
            self._shapes = shapes | self._shapes


def _document(raw: bytes, faults: Iterable[Fault]) -> Any:
    """The body once more, for its shapes; None for one that could not be read."""
    if not raw or any(fault.unreadable for fault in faults):
        return None
    try:
        return msgspec.json.decode(raw)
    except ValueError:
        return None


def _field(fault: Fault) -> str:
    """The pointer without what callers make up: places in lists, names that are no field, and whatever lies deeper."""
    steps = fault.pointer.split("/")[1 : DEPTH + 1]
    if fault.code == FaultCode.unknown_field and steps:
        steps[-1] = "*"
    return "".join(f"/{'*' if step.isdecimal() else step}" for step in steps)
