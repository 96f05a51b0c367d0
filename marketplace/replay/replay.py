"""Sends the rows of a file and waits for the outcome of each.

The Idempotency-Key is made from the row's own id, so an interrupted run can be repeated: a row that was accepted gets
the same answer again, and no lead is sold twice.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

import aiohttp
import msgspec

from marketplace.demo.provider import SubmissionAnswer, find, post_until_answered, submit
from marketplace.replay.mapping import DraftRow
from marketplace.runtime import clock
from marketplace.runtime.settings import StartError

AT_ONCE: Final = 64
"""Most rows being sent at a time, at any speed."""
WAIT_SECONDS: Final = 10
"""Seconds for which the service is asked to wait for a row's outcome before it answers."""
SETTLE_SECONDS: Final = 45.0
LOOK_SECONDS: Final = 0.5
SUPPRESSION: Final = "The file says that this person must not be contacted."
OPEN_STATES: Final = frozenset({"received", "prospect", "held", "exposed"})


class ReplayOutcome(StrEnum):
    """Outcome of one row."""

    delivered = "delivered"
    """Delivered to one business."""
    unsold = "unsold"
    """Qualified, and nobody could take it."""
    turned_down = "turned_down"
    """Refused, or never acknowledged, by the one business that saw it."""
    nurtured = "nurtured"
    """Too early: qualified again when its time comes."""
    rejected = "rejected"
    """Accepted, and rejected by the vertical's rules."""
    duplicate = "duplicate"
    """The same person as in an earlier inquiry."""
    suppressed = "suppressed"
    """The person must not be contacted."""
    open = "open"
    """Not decided yet at the end of the run."""
    refused = "refused"
    """Not accepted: some fields were not valid."""
    failed = "failed"
    """No answer, or a server error."""


_OUTCOMES: Final = {
    "delivered": ReplayOutcome.delivered,
    "returned": ReplayOutcome.delivered,
    "unsold": ReplayOutcome.unsold,
    "refused": ReplayOutcome.turned_down,
    "lapsed": ReplayOutcome.turned_down,
    "nurturing": ReplayOutcome.nurtured,
    "rejected": ReplayOutcome.rejected,
    "expired": ReplayOutcome.rejected,
    "duplicate": ReplayOutcome.duplicate,
    "suppressed": ReplayOutcome.suppressed,
}
NOT_ACCEPTED: Final = (ReplayOutcome.duplicate, ReplayOutcome.suppressed, ReplayOutcome.refused, ReplayOutcome.failed)


class ReplayRowResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one row: number and id, the inquiry's id, HTTP status (0 without an answer), outcome and reasons."""

    row: int
    id: str
    inquiry: str
    status: int
    outcome: ReplayOutcome
    reasons: tuple[str, ...]


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of rows by outcome.

    rows = accepted + duplicate + suppressed + refused + failed, and
    accepted = rejected + nurtured + delivered + turned_down + unsold + open.
    """

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


def total(results: Sequence[ReplayRowResult], seconds: float) -> Totals:
    """Count the results by outcome."""
    counts = Counter(result.outcome for result in results)
    accepted = sum(count for outcome, count in counts.items() if outcome not in NOT_ACCEPTED)
    by_name = {outcome.value: counts[outcome] for outcome in ReplayOutcome}
    return Totals(rows=len(results), accepted=accepted, seconds=round(seconds, 2), **by_name)


class Replay:
    """Sends drafts to one service with one provider's key. `answers` has the answers received so far, by row number."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self.answers: dict[int, SubmissionAnswer] = {}
        self._session = session
        self._url = url
        self._key = key

    async def suppress(self, drafts: Sequence[DraftRow]) -> int:
        """Suppress the people who must not be contacted, before the first row is sent; return their number.

        Raises StartError if one cannot be suppressed.
        """
        slots = asyncio.Semaphore(AT_ONCE)
        excluded = [draft for draft in drafts if draft.suppressed]
        await asyncio.gather(*(self._suppress(draft, slots) for draft in excluded))
        return len(excluded)

    async def _suppress(self, draft: DraftRow, slots: asyncio.Semaphore) -> None:
        person = {"phone": draft.contact["phone"], "email": draft.contact["email"], "reason": SUPPRESSION}
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        async with slots:
            answer, text = await post_until_answered(
                self._session, f"{self._url}/v1/suppressions", msgspec.json.encode(person), headers
            )
        if not 200 <= answer.status < 300:
            raise StartError(
                "suppression_refused",
                f"A person could not be suppressed ({answer.status}).",
                f"Nothing was sent. {text[:500].decode(errors='replace')}",
            )

    async def send(
        self, drafts: Sequence[DraftRow], speed: float, stopping: asyncio.Event, on_answer: Callable[[], None]
    ) -> None:
        """Send all rows in order, `speed` per second or as fast as possible if it is 0, until `stopping` is set."""
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

    async def _send(self, draft: DraftRow, slots: asyncio.Semaphore, on_answer: Callable[[], None]) -> None:
        try:
            self.answers[draft.number] = await submit(
                self._session, self._url, self._key, draft.body, f"replay-{draft.id}", WAIT_SECONDS
            )
            on_answer()
        finally:
            slots.release()

    async def settle(self, stopping: asyncio.Event) -> None:
        """Request the rows without an outcome again, for at most `SETTLE_SECONDS`."""
        deadline = clock.monotonic() + SETTLE_SECONDS
        while clock.monotonic() < deadline and not stopping.is_set():
            waiting = [number for number, answer in self.answers.items() if outcome_of(answer) is ReplayOutcome.open]
            if not waiting:
                return
            for number in waiting:
                answer = self.answers[number]
                current = await find(self._session, self._url, self._key, answer.id or "")
                if current.status == 200:
                    self.answers[number] = msgspec.structs.replace(answer, state=current.state, reasons=current.reasons)
            await _pause(LOOK_SECONDS, stopping)

    def results(self, drafts: Sequence[DraftRow]) -> list[ReplayRowResult]:
        """Return the result of each row that was sent."""
        return [_result(draft, self.answers[draft.number]) for draft in drafts if draft.number in self.answers]


def outcome_of(answer: SubmissionAnswer) -> ReplayOutcome:
    """Return the outcome of an answer."""
    if answer.status == 0 or answer.status >= 500:
        return ReplayOutcome.failed
    if answer.status >= 400:
        return ReplayOutcome.refused
    return (
        ReplayOutcome.open if answer.state in OPEN_STATES else _OUTCOMES.get(answer.state or "", ReplayOutcome.failed)
    )


def _result(draft: DraftRow, answer: SubmissionAnswer) -> ReplayRowResult:
    return ReplayRowResult(
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
