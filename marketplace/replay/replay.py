"""Sending a file's rows, and waiting for what becomes of each.

Each row's own id is its Idempotency-Key, so that a run that was broken off can be repeated: what was taken before gives
the same answer again, and nobody is sold twice.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

import aiohttp
import msgspec

from marketplace import clock
from marketplace.demo.provider import Answer, find, submit
from marketplace.replay.mapping import Draft
from marketplace.settings import StartError

AT_ONCE: Final = 64
"""Rows under way at a time, whatever the speed."""
WAIT_SECONDS: Final = 10
"""How long the service is asked to wait for a row's outcome before it answers."""
SETTLE_SECONDS: Final = 45.0
LOOK_SECONDS: Final = 0.5
SUPPRESSION: Final = "The file says that this person must not be contacted."
OPEN_STATES: Final = frozenset({"received", "prospect", "held", "exposed"})


class Outcome(StrEnum):
    """What became of one row; each row has exactly one."""

    delivered = "delivered"
    """One business has it."""
    unsold = "unsold"
    """Qualified, and nobody could take it."""
    turned_down = "turned_down"
    """The one business that was shown it refused it, or never confirmed it."""
    nurtured = "nurtured"
    """Too early: qualified again when its time comes."""
    rejected = "rejected"
    """Taken in, and not good enough by the vertical's rules."""
    duplicate = "duplicate"
    """The same person came before."""
    suppressed = "suppressed"
    """The person must not be contacted."""
    open = "open"
    """Not decided yet when we stopped looking."""
    refused = "refused"
    """Not taken in: some fields were not valid."""
    failed = "failed"
    """No answer, or the service said that it could not."""


_OUTCOMES: Final = {
    "delivered": Outcome.delivered,
    "returned": Outcome.delivered,
    "unsold": Outcome.unsold,
    "refused": Outcome.turned_down,
    "lapsed": Outcome.turned_down,
    "nurturing": Outcome.nurtured,
    "rejected": Outcome.rejected,
    "expired": Outcome.rejected,
    "duplicate": Outcome.duplicate,
    "suppressed": Outcome.suppressed,
}
NOT_ACCEPTED: Final = (Outcome.duplicate, Outcome.suppressed, Outcome.refused, Outcome.failed)


class RowResult(msgspec.Struct, frozen=True, kw_only=True):
    """One row's number and id, the inquiry's id, the HTTP status, the outcome and what was said of it."""

    row: int
    id: str
    inquiry: str
    status: int
    outcome: Outcome
    reasons: tuple[str, ...]


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """rows = accepted + duplicate + suppressed + refused + failed, and
    accepted = rejected + nurtured + delivered + turned_down + unsold + open."""

    rows: int
    accepted: int
    duplicate: int
    suppressed: int
    refused: int
    failed: int
    rejected: int
    nurtured: int
    delivered: int
    turned_down: int
    unsold: int
    open: int
    seconds: float


def total(results: Sequence[RowResult], seconds: float) -> Totals:
    """The sums over all rows."""
    counts = Counter(result.outcome for result in results)
    accepted = sum(count for outcome, count in counts.items() if outcome not in NOT_ACCEPTED)
    by_name = {outcome.value: counts[outcome] for outcome in Outcome}
    return Totals(rows=len(results), accepted=accepted, seconds=round(seconds, 2), **by_name)


class Replay:
    """Sends drafts to one service under one provider's key; `answers` fills as they come."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self.answers: dict[int, Answer] = {}
        self._session = session
        self._url = url
        self._key = key

    async def suppress(self, drafts: Sequence[Draft]) -> int:
        """Have everybody who must be left alone known as such before the first row is sent. Raises StartError."""
        slots = asyncio.Semaphore(AT_ONCE)
        marked = [draft for draft in drafts if draft.suppressed]
        await asyncio.gather(*(self._suppress(draft, slots) for draft in marked))
        return len(marked)

    async def _suppress(self, draft: Draft, slots: asyncio.Semaphore) -> None:
        person = {"phone": draft.contact["phone"], "email": draft.contact["email"], "reason": SUPPRESSION}
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        async with slots:
            try:
                async with self._session.post(
                    f"{self._url}/v1/suppressions", data=msgspec.json.encode(person), headers=headers
                ) as response:
                    status, words = response.status, await response.text()
            except (aiohttp.ClientError, TimeoutError) as error:
                status, words = 0, type(error).__name__
        if not 200 <= status < 300:
            raise StartError(
                "suppression_refused",
                f"A person could not be suppressed ({status}).",
                f"Nothing was sent. {words[:500]}",
            )

    async def send(
        self, drafts: Sequence[Draft], speed: float, stopping: asyncio.Event, on_answer: Callable[[], None]
    ) -> None:
        """All rows in order, `speed` a second, or as fast as answers come if it is 0, until told to stop."""
        slots = asyncio.Semaphore(AT_ONCE)
        began = clock.monotonic()
        async with asyncio.TaskGroup() as group:
            for place, draft in enumerate(drafts):
                if speed:
                    await _pause(began + place / speed - clock.monotonic(), stopping)
                await slots.acquire()
                if stopping.is_set():
                    return
                group.create_task(self._send(draft, slots, on_answer))

    async def _send(self, draft: Draft, slots: asyncio.Semaphore, on_answer: Callable[[], None]) -> None:
        try:
            self.answers[draft.number] = await submit(
                self._session, self._url, self._key, draft.body, f"replay-{draft.id}", WAIT_SECONDS
            )
            on_answer()
        finally:
            slots.release()

    async def settle(self, stopping: asyncio.Event) -> None:
        """Look again at rows that had no outcome yet, for a bounded while."""
        deadline = clock.monotonic() + SETTLE_SECONDS
        while clock.monotonic() < deadline and not stopping.is_set():
            waiting = [number for number, answer in self.answers.items() if outcome_of(answer) is Outcome.open]
            if not waiting:
                return
            for number in waiting:
                known = self.answers[number]
                found = await find(self._session, self._url, self._key, known.id or "")
                if found.status == 200:
                    self.answers[number] = msgspec.structs.replace(known, state=found.state, reasons=found.reasons)
            await _pause(LOOK_SECONDS, stopping)

    def results(self, drafts: Sequence[Draft]) -> list[RowResult]:
        """What became of each row that was sent."""
        return [_result(draft, self.answers[draft.number]) for draft in drafts if draft.number in self.answers]


def outcome_of(answer: Answer) -> Outcome:
    """The one word for an answer."""
    if answer.status == 0 or answer.status >= 500:
        return Outcome.failed
    if answer.status >= 400:
        return Outcome.refused
    return Outcome.open if answer.state in OPEN_STATES else _OUTCOMES.get(answer.state or "", Outcome.failed)


def _result(draft: Draft, answer: Answer) -> RowResult:
    return RowResult(
        row=draft.number,
        id=draft.id,
        inquiry=answer.id or "",
        status=answer.status,
        outcome=outcome_of(answer),
        reasons=answer.reasons or answer.codes,
    )


async def _pause(seconds: float, stopping: asyncio.Event) -> None:
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), seconds)
