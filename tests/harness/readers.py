"""The businesses without a server: each reads its feed, well, badly or not at all, and acknowledges likewise.

Contact data is a sighting the moment that its bytes are here, whole or not. An event counts as received once it is on
disk: from there a reader goes on after any cut, and only what it has received does it acknowledge.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from itertools import count
from random import Random
from typing import Any, Final

import msgspec

from marketplace.runtime import clock
from routing.delivery import HOLD_WINDOW
from tests.harness.canaries import Aviary
from tests.harness.histories import Event, History
from tests.harness.receivers import UNREADABLE, OnSighting, Sighting
from tests.harness.streaming import CHUNK, GONE, Answer, Events, Told, calling, told

WAYS: Final = {
    "stream": 41,
    "poll": 20,
    "two streams": 12,
    "stream from an older place": 10,
    "stream from no place": 5,
    "stream left amid an event": 5,
    "slow stream": 3,
    "stream read late": 3,
    "away": 1,
}
"""How a reader reads for a while, out of a hundred. `away`: for about as long as a lead is held for it."""
WORDS: Final = {
    "acknowledged": 73,
    "acknowledged twice": 8,
    "acknowledged late": 8,
    "not acknowledged": 5,
    "acknowledged nonsense": 2,
    "acknowledged another's lead": 2,
    "acknowledged the future": 2,
}
"""What becomes of an event that was received, out of a hundred. What is nonsense is told before what is not."""
PAUSES: Final = (0.1, 0.2, 0.5, 1.0)
"""Seconds between tries of one acknowledgement."""
SITTING_SECONDS: Final = (2.0, 9.0)
LATE_SECONDS: Final = (3.0, 20.0)
OLDER: Final = 30
"""Places that a reader goes back, at most, when it starts from an older one."""
SIP: Final = 256
"""Bytes that a slow reader takes at once: several of them make an event."""
PAGE: Final = 100
MOST_FAILURES: Final = 10
"""Of the polls by which a feed is read again from its beginning, when all is calm."""
AT_ONCE: Final = 8
"""Acknowledgements of one reader under way."""
REFUSALS: Final = (400, 404, 409, 410, 413, 415, 422)
"""Answers that no fault explains. A frozen business is answered 403, a replaced key 401, a hasty one 429."""
FIRST: Final = "first"
AGAIN: Final = "again"


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    """Unexpected answer that a reader received."""

    check: str
    detail: str
    lead_id: str | None = None


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """An acknowledgement of one lead that was answered 200, and with what, if it was of that lead alone."""

    lead_id: str
    receipt: str | None


class _Receipt(msgspec.Struct, frozen=True):
    receipt: str | None = None
    has_more: bool = False


class _Told(msgspec.Struct, frozen=True):
    sequence: int
    type: str
    event: msgspec.Raw


class _News(msgspec.Struct, frozen=True):
    data: tuple[_Told, ...]
    next_after: int
    has_more: bool


class FeedReader:
    """One business that reads its feed, through the proxy on `port`, with a key that may be replaced at any time.

    `by_place`: it acknowledges everything up to a place, instead of one lead after the other.
    """

    def __init__(
        self,
        business: str,
        aviary: Aviary,
        history: History,
        on_sighting: OnSighting,
        on_problem: Callable[[int, bytes], None],
        foreign: Callable[[], Iterable[str]],
        seed: int,
        *,
        by_place: bool,
    ) -> None:
        self.business = business
        self.by_place = by_place
        self.port = 0
        self.key = ""
        self.key_id = ""
        self.behaves = False
        "While set, it reads one stream after the other and acknowledges at once."
        self.behaviours: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.received: dict[int, str] = {}
        "The lead at each place that was read, on disk."
        self.asked: dict[str, datetime] = {}
        "When each lead's first acknowledgement left."
        self.answered: list[Answered] = []
        self.complaints: list[Complaint] = []
        self.refused = 0
        "How often it was refused what it should be."
        self.troubles: list[str] = []
        "Errors of the harness itself: there should be none."
        self._last = 0
        self._open: dict[int, tuple[str, int | None]] = {}
        "Lead and person at each place that was received, until its acknowledgement is answered."
        self._aviary, self._history = aviary, history
        self._on_sighting, self._on_problem, self._foreign = on_sighting, on_problem, foreign
        self._random = Random(f"reader {business} {seed}")
        self._reading: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._calls = asyncio.Semaphore(AT_ONCE)
        self._over = False

    def open(self, port: int) -> None:
        """Read from now on, until `finish` or `close`."""
        self.port = port
        self._reading = self._start(self._read())

    async def finish(self, seconds: float) -> None:
        """Stop reading where everything has been read and answered, so far as that takes no longer."""
        await self._stop_reading()
        with contextlib.suppress(*GONE):
            await self._stream(self._last, 3.0)
        if self.by_place and self.received:
            self._start(self._acknowledge(max(self.received), "acknowledged"))
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=seconds)
        self._over = True

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def read_again(self) -> dict[int, str]:
        """The whole feed from its beginning: the lead at each place that is told of. Raises ConnectionError."""
        leads, after, failures = dict[int, str](), 0, 0
        while failures < MOST_FAILURES:
            news = None
            with contextlib.suppress(*GONE):
                news = await self._page(after, PAGE, AGAIN)
            if news is None:
                failures += 1
                await asyncio.sleep(PAUSES[-1])
                continue
            leads |= {event.sequence: event.lead_id for event in _events(news)}
            if not news.has_more:
                return leads
            after = news.next_after
        raise ConnectionError(f"the feed of {self.business} could not be read again")

    # --- reading --------------------------------------------------------------------------------------------------

    async def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))
            self._reading = None

    async def _read(self) -> None:
        """Sitting after sitting; whatever ends one, the next goes on from the last place."""
        while True:
            way = "stream" if self.behaves else self._random.choices(tuple(WAYS), tuple(WAYS.values()))[0]
            self.behaviours[way] += 1
            with contextlib.suppress(*GONE):
                await self._sit(way, self._random.uniform(*SITTING_SECONDS))
            await asyncio.sleep(self._random.uniform(0.0, 0.3))

    async def _sit(self, way: str, seconds: float) -> None:
        older = max(0, self._last - self._random.randint(1, OLDER))
        match way:
            case "poll":
                await self._poll(seconds)
            case "two streams":
                second = self._start(self._stream(older, seconds))
                await self._stream(self._last, seconds)
                await asyncio.wait((second,))
            case "stream from an older place":
                await self._stream(older, seconds)
            case "stream from no place":
                await self._stream(None, seconds)
            case "stream left amid an event":
                await self._stream(self._last, seconds, leave_amid=True)
            case "slow stream":
                await self._stream(self._last, seconds, pause=0.1)
            case "stream read late":
                await self._stream(self._last, 3.0, reads_after=2 * seconds)
            case "away":
                await self._idle(HOLD_WINDOW.total_seconds() + self._random.uniform(-4.0, 4.0))
            case _:
                await self._stream(self._last, seconds)

    async def _idle(self, seconds: float) -> None:
        """So long, or until it is to behave."""
        until = clock.monotonic() + seconds
        while clock.monotonic() < until and not self.behaves:  # noqa: ASYNC110 - it ends by itself
            await asyncio.sleep(0.2)

    async def _stream(
        self,
        after: int | None,
        seconds: float,
        *,
        pause: float = 0.0,
        reads_after: float = 0.0,
        leave_amid: bool = False,
    ) -> None:
        """One stream from a place, for so long at most. Raises GONE."""
        path, headers = "/v1/feed", tuple[str, ...]()
        if after is not None:
            path, headers = self._random.choice(((f"{path}?after={after}", ()), (path, (f"Last-Event-ID: {after}",))))
        events, last, most = Events(), 0, SIP if pause or leave_amid else CHUNK
        async with calling(self.port, "GET", path, self.key, *headers) as answer:
            if not await self._is_good(answer):
                return
            await self._idle(reads_after)
            try:
                async with asyncio.timeout(seconds):
                    async for piece in answer.pieces(most):
                        for event in events.take(piece):
                            self._demand_order(last, event.sequence)
                            last = event.sequence
                            await self._receive(event, FIRST)
                        if leave_amid and last and len(events.rest) > SIP:
                            return
                        await asyncio.sleep(pause)
            finally:
                self._sight(events.rest, UNREADABLE, UNREADABLE)

    async def _poll(self, seconds: float) -> None:
        """One poll after the other, each from where the one before says. Raises GONE."""
        until = clock.monotonic() + seconds
        while clock.monotonic() < until:
            news = await self._page(self._last, self._random.choice((1, 3, PAGE)), FIRST, wait=2)
            if news is None:
                await asyncio.sleep(PAUSES[-1])
            else:
                self._last = max(self._last, news.next_after)

    async def _page(self, after: int, limit: int, how: str, wait: int = 0) -> _News | None:
        """Return the events of one poll, stored; None without a complete answer. Raises GONE."""
        path = f"/v1/feed/events?after={after}&limit={limit}&wait={wait}"
        async with calling(self.port, "GET", path, self.key) as answer:
            if not await self._is_good(answer):
                return None
            body = await answer.whole()
        try:
            news = msgspec.json.decode(body, type=_News)
        except msgspec.MsgspecError:
            self._sight(body, UNREADABLE, UNREADABLE)
            return None
        last = after
        for event in _events(news):
            self._demand_order(last, event.sequence)
            last = event.sequence
            await self._receive(event, how)
        return news

    def _demand_order(self, last: int, sequence: int) -> None:
        if sequence <= last:
            self._complain("fed in order", f"{sequence} came after {last} at {self.business}")

    async def _receive(self, event: Told, how: str) -> None:
        """Seen at once, received once it is on disk, acknowledged as chance will have it."""
        what = f"read {AGAIN if event.sequence in self.received else how}"
        number = self._sight(event.raw, event.lead_id, f"place {event.sequence}")
        await self._history.write(
            Event(
                at=clock.now(),
                who=self.business,
                what=what,
                number=number,
                lead_id=event.lead_id,
                sequence=event.sequence,
                text=event.raw.decode("latin-1"),
            )
        )
        self._last = max(self._last, event.sequence)
        earlier = self.received.get(event.sequence)
        self.received.setdefault(event.sequence, event.lead_id)
        if earlier not in (None, event.lead_id):
            detail = f"{event.sequence} was {earlier} and is {event.lead_id} at {self.business}"
            self._complain("one lead at one place", detail, event.lead_id)
        elif earlier is None and how is FIRST:
            self._open[event.sequence] = event.lead_id, number
            word = "acknowledged" if self.behaves else self._random.choices(tuple(WORDS), tuple(WORDS.values()))[0]
            self.behaviours[word] += 1
            self._start(self._acknowledge(event.sequence, word))

    def _sight(self, raw: bytes, lead_id: str, place: str) -> int | None:
        """Record the people in these bytes as seen by this business."""
        number = None
        for number in self._aviary.find(raw):
            self._on_sighting(
                Sighting(
                    number=number,
                    business=self.business,
                    lead_id=lead_id,
                    webhook_id=place,
                    at=clock.now(),
                    behaviour="read",
                )
            )
        return number

    # --- acknowledging --------------------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, GONE):
            self.troubles.append(f"{self.business}: {type(error).__name__}: {error}")

    async def _acknowledge(self, sequence: int, word: str) -> None:
        match word:
            case "not acknowledged":
                return
            case "acknowledged late":
                await self._idle(self._random.uniform(*LATE_SECONDS))
            case "acknowledged nonsense":
                nonsense = self._random.choice((b'{"through":-1}', b'{"through":"all"}', b"{}", b""))
                await self._be_refused("/v1/feed/acknowledgements", nonsense)
                await self._be_refused("/v1/leads/lead_nonsense/acknowledge", b"")
            case "acknowledged another's lead":
                for lead_id in self._foreign():
                    await self._be_refused(f"/v1/leads/{lead_id}/acknowledge", b"")
            case "acknowledged the future":
                await self._be_refused("/v1/feed/acknowledgements", b'{"through":%d}' % (sequence + 1_000_000))
        times = 2 if word == "acknowledged twice" else 1
        await asyncio.gather(*(self._until_answered(sequence) for _ in range(times)))

    async def _until_answered(self, sequence: int) -> None:
        """Store the acknowledgement, send it until it is answered, then store the answer."""
        lead_id = self.received[sequence]
        path, body, least = f"/v1/leads/{lead_id}/acknowledge", b"", sequence
        if self.by_place:
            path, body, least = "/v1/feed/acknowledgements", b'{"through":%d}' % sequence, 0
        meant = {
            place: lead
            for place, lead in self._open.items()
            if place == sequence or (least <= place < sequence and lead[0] not in self.asked)
        }
        for lead, _ in meant.values():
            self.asked.setdefault(lead, clock.now())
        await self._note("acknowledges", meant)
        for tries in count():
            async with self._calls:
                status, answer = await self._call(path, body)
            if status == 200 and answer is not None and not answer.has_more:
                await self._note("was answered", meant)
                self.answered += [Answered(lead_id=lead, receipt=answer.receipt) for lead, _ in meant.values()]
                for place in meant:
                    self._open.pop(place, None)
                return
            if status in REFUSALS:
                self._complain("what was shown can be acknowledged", f"{path}: {status} at {self.business}", lead_id)
            if status in REFUSALS or self._over:
                return
            await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])

    async def _be_refused(self, path: str, body: bytes) -> None:
        status, _ = await self._call(path, body)
        self.refused += 400 <= status < 500
        if 200 <= status < 300:
            self._complain("only one's own is acknowledged", f"{path} {body!r} was taken from {self.business}")

    async def _call(self, path: str, body: bytes) -> tuple[int, _Receipt | None]:
        """The status, 0 where there was none, and what a good answer said, if it came whole."""
        try:
            async with calling(self.port, "POST", path, self.key, body=body) as answer:
                if not await self._is_good(answer):
                    return answer.status, None
                return answer.status, msgspec.json.decode(await answer.whole(), type=_Receipt)
        except msgspec.MsgspecError:
            return 200, None
        except GONE:
            self.statuses[0] += 1
            return 0, None

    async def _is_good(self, answer: Answer) -> bool:
        """A problem is looked at by the checker, as whatever a provider is refused."""
        self.statuses[answer.status] += 1
        if answer.status == 200:
            return True
        self._on_problem(answer.status, await answer.whole())
        return False

    async def _note(self, what: str, meant: Mapping[int, tuple[str, int | None]]) -> None:
        await asyncio.gather(
            *(
                self._history.write(
                    Event(at=clock.now(), who=self.business, what=what, number=number, lead_id=lead, sequence=place)
                )
                for place, (lead, number) in meant.items()
            )
        )

    def _complain(self, check: str, detail: str, lead_id: str | None = None) -> None:
        self.complaints.append(Complaint(check=check, detail=detail, lead_id=lead_id))


def _events(news: _News) -> list[Told]:
    return [told(event.sequence, event.type, bytes(event.event)) for event in news.data]
