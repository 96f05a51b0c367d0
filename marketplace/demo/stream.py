"""Open-loop stream: inquiries are sent at random times that do not depend on the answers.

A sender that waits for answers slows down with the service and hides its queues. This one never waits, and reports its
own delay, so that it is not mistaken for a delay of the service.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from itertools import islice
from typing import Final

import aiohttp
import msgspec

from marketplace.demo.people import DraftKind, InquiryDraft
from marketplace.demo.provider import SubmissionAnswer, submit
from marketplace.runtime import clock
from marketplace.runtime.clock import seeded

REMEMBERED: Final = 2_000
"""Most submissions held in memory for repeating them."""


class InquiryStream:
    """Submits drafts at `rate` per second on average and counts the answers. Times are in seconds."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        keys: tuple[str, ...],
        drafts: Iterable[InquiryDraft],
        *,
        rate: float,
        seed: int,
        on_accepted: Callable[[InquiryDraft, str], None] | None = None,
    ) -> None:
        self.sent = 0
        self.accepted = 0
        self.repeated = 0
        self.changed_answers = 0
        """Repetitions that were answered with another id than the first time: must be 0."""
        self.failed = 0
        """Submissions without an answer, or with a 5xx after the last try."""
        self.sent_again = 0
        """Tries beyond the first, because a server was unavailable."""
        self.refusals: Counter[str] = Counter()
        self.refused = 0
        self.lateness: list[float] = []
        self.answer_seconds: list[float] = []
        self._session = session
        self._url = url
        self._keys = keys
        self._drafts = iter(drafts)
        self._on_accepted = on_accepted
        self._gaps = seeded(f"arrivals {seed}")
        self.rate = rate
        """Inquiries per second; may be changed between two runs."""
        self._running: set[asyncio.Task[None]] = set()
        self._bodies: dict[int, tuple[bytes, str | None]] = {}

    @property
    def unanswered(self) -> int:
        """Number of submissions without an answer yet."""
        return len(self._running)

    async def run(self, seconds: float, stopping: asyncio.Event) -> float:
        """Send until the time is over or `stopping` is set; return the seconds. Some answers may still be missing."""
        began, began_at = clock.monotonic(), clock.now()
        due = 0.0
        for draft in self._drafts:
            due += self._gaps.expovariate(self.rate)
            if due >= seconds:
                await _pause(began + seconds - clock.monotonic(), stopping)
                break
            await _pause(began + due - clock.monotonic(), stopping)
            if stopping.is_set():
                break
            if draft.of is not None and draft.of not in self._bodies:
                draft = msgspec.structs.replace(draft, of=None)
            at = began_at + timedelta(seconds=due)
            body = draft.body(at) if draft.of is None else self._bodies[draft.of][0]
            self.sent += 1
            task = asyncio.create_task(self._send(draft, body, began + due))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return min(clock.monotonic() - began, seconds)

    async def drain(self) -> None:
        """Wait until all submissions are answered."""
        while self._running:
            await asyncio.wait(tuple(self._running))

    async def _send(self, draft: InquiryDraft, body: bytes, due: float) -> None:
        self.lateness.append(max(0.0, clock.monotonic() - due))
        number = draft.number if draft.of is None else draft.of
        answer = await submit(self._session, self._url, self._keys[draft.provider], body, f"demo-{number}")
        self._count(draft, body, answer)

    def _count(self, draft: InquiryDraft, body: bytes, answer: SubmissionAnswer) -> None:
        self.answer_seconds.append(answer.seconds)
        self.sent_again += answer.tries - 1
        if answer.status == 0 or answer.status >= 500:
            self.failed += 1
        elif answer.status >= 400:
            self.refused += 1
            self.refusals.update(answer.codes)
        elif draft.of is not None:
            self.repeated += 1
            self.changed_answers += answer.id != self._bodies.get(draft.of, (b"", answer.id))[1]
        else:
            self.accepted += 1
            if self._on_accepted is not None and answer.id is not None:
                self._on_accepted(draft, answer.id)
            if draft.kind is DraftKind.ready:
                self._bodies[draft.number] = (body, answer.id)
                for old in tuple(islice(self._bodies, max(0, len(self._bodies) - REMEMBERED))):
                    del self._bodies[old]


async def _pause(seconds: float, stopping: asyncio.Event) -> None:
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), seconds)
