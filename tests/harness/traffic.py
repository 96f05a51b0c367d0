"""The providers: an open-loop stream of people, each post sent again under its key until it is answered.

What is acknowledged is on disk before anybody acts on it. Arrivals never wait for answers.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp
import msgspec

from marketplace.runtime import clock
from tests.harness.canaries import Canary
from tests.harness.histories import Event, History
from tests.harness.world import World

PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between tries of one post; the last one repeats until there is an answer or the run is over."""
SHARES: Final = {"twin": 0.02, "again": 0.02, "later": 0.02, "resent": 0.02}
"""Of all people: two posts at once under two keys; a new post about somebody known; somebody who wants it in half a
year; an answered post sent once more under its key. All others are ready, once."""
FOLLOWED: Final = {"touch": 0.06, "correct": 0.03}
"""Of all acknowledged posts: the person calls and wants it sooner; the provider corrects the timing."""
REMEMBERED: Final = 500
BEING_TAKEN_IN: Final = b'"conflict"'


class Post(msgspec.Struct, frozen=True, kw_only=True):
    """One submission: its key, its bytes, whose it is and whom it is about."""

    key: str
    number: int
    provider: int
    body: bytes


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """State that a provider keeps."""

    lead_id: str
    at: datetime


class Traffic:
    """Everything that the providers know. `copies`: how often each post is sent at once."""

    def __init__(
        self, world: World, path: Path, seed: int, rate: float, on_problem: Callable[[int, bytes], None]
    ) -> None:
        self.copies = 1
        self.invoked = 0
        self.sent: dict[int, datetime] = {}
        "When each person's first post left."
        self.acknowledged: dict[str, Answer] = {}
        self.changed: list[tuple[str, str, str]] = []
        "Keys that were answered with two ids."
        self.refused: dict[str, int] = {}
        "Keys whose last answer was a refusal."
        self.numbers: dict[str, int] = {}
        self.touched: dict[str, str] = {}
        "Lead of each touch that was answered as stored, by its touch_id."
        self.corrected: dict[str, str] = {}
        "Lead of each correction that was answered, by its key."
        self.statuses: Counter[int] = Counter()
        self.history = History(path)
        self._world = world
        self._random = Random(f"traffic {seed}")
        self._rate = rate
        self._on_problem = on_problem
        self._running: set[asyncio.Task[None]] = set()
        self._recent: list[Post] = []
        self._over = asyncio.Event()
        self._numbers = count()

    async def run(self, stopping: asyncio.Event) -> None:
        """Send until `stopping`; answers may still be under way."""
        due = clock.monotonic()
        for turn in count():
            due += self._random.expovariate(self._rate)
            try:
                await asyncio.wait_for(stopping.wait(), max(0.0, due - clock.monotonic()))
                return
            except TimeoutError:
                for post in self._draw(turn):
                    for _ in range(self.copies):
                        self._start(post)

    @property
    def unanswered(self) -> int:
        return len(self._running)

    async def settle(self, seconds: float) -> None:
        """Wait until every submission is answered, for a limited time; then send nothing again."""
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=seconds)
        self._over.set()
        await asyncio.gather(*self._running, return_exceptions=True)

    def submit(self, number: int) -> None:
        """Send the inquiry of a person who is not one of the stream."""
        self._start(self._post(number, self._world.aviary.canary(number)))

    def recent_leads(self, most: int) -> list[str]:
        """The leads acknowledged last."""
        return [answer.lead_id for answer in list(self.acknowledged.values())[-most:]]

    def _draw(self, turn: int) -> tuple[Post, ...]:
        lot, kind = self._random.random(), "ready"
        for name, share in SHARES.items():
            if 0 <= lot < share:
                kind = name
            lot -= share
        if kind in ("again", "resent") and self._recent:
            earlier = self._random.choice(self._recent)
            return (earlier if kind == "resent" else self._post(turn, self._world.aviary.canary(earlier.number)),)
        canary = self._world.aviary.canary(next(self._numbers))
        if kind == "later":
            return (self._post(turn, canary, timing={"not_before": f"{clock.now().year + 1}-06-01"}),)
        first = self._post(turn, canary)
        self._recent = [*self._recent[-REMEMBERED:], first]
        return (first, self._post(turn, canary, "twin")) if kind == "twin" else (first,)

    def _post(self, turn: int, canary: Canary, suffix: str = "only", timing: dict[str, str] | None = None) -> Post:
        key = f"{turn}-{suffix}"
        self.numbers[key] = canary.number
        return Post(
            key=key,
            number=canary.number,
            provider=self._random.randrange(len(self._world.provider_keys)),
            body=canary.body(key, clock.now(), timing=timing),
        )

    def _start(self, post: Post) -> None:
        self.invoked += 1
        self.sent.setdefault(post.number, clock.now())
        task = asyncio.create_task(self._submit(post, self._random.randrange(len(self._world.urls))))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _submit(self, post: Post, api: int) -> None:
        await self._note("invoke", post)
        for tries in count():
            url = self._world.urls[(api + tries) % len(self._world.urls)]
            status, text = await self._try(url, post)
            self.statuses[status] += 1
            if 200 <= status < 300:
                return await self._acknowledge(post, status, text)
            if status:
                self._on_problem(status, text)
            if 400 <= status < 500 and status != 429 and BEING_TAKEN_IN not in text:
                self.refused[post.key] = status
                return await self._note("fail", post, status, text)
            await self._note("unknown", post, status)
            if self._over.is_set():
                return None
            await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
        return None

    async def _acknowledge(self, post: Post, status: int, text: bytes) -> None:
        lead_id = msgspec.json.decode(text, type=_Accepted).id
        await self._note("ok", post, status, lead_id=lead_id)
        earlier = self.acknowledged.setdefault(post.key, Answer(lead_id=lead_id, at=clock.now()))
        self.refused.pop(post.key, None)
        if earlier.lead_id != lead_id:
            self.changed.append((post.key, earlier.lead_id, lead_id))
        if b'"received"' in text:
            self._follow(post, lead_id)

    def _follow(self, post: Post, lead_id: str) -> None:
        """Now and then a touch or a correction follows, sent again until it is answered."""
        lot = self._random.random()
        if lot < FOLLOWED["touch"]:
            task = asyncio.create_task(self._touch(post, lead_id))
        elif lot < sum(FOLLOWED.values()):
            task = asyncio.create_task(self._correct(post, lead_id))
        else:
            return
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _touch(self, post: Post, lead_id: str) -> None:
        name = f"call-{post.key}"
        call = {"kind": "call", "at": clock.now(), "touch_id": name, "seconds": 90}
        body = {"touches": [call | {"supplies": {"timing": {"within_days": 7}}}]}
        if await self._insist("POST", f"/v1/inquiries/{lead_id}/touches", post, name, body):
            self.touched[name] = lead_id

    async def _correct(self, post: Post, lead_id: str) -> None:
        name = f"correction-{post.key}"
        body = {"bant": {"timing": {"within_days": 10}}}
        if await self._insist("PATCH", f"/v1/inquiries/{lead_id}", post, name, body):
            self.corrected[name] = lead_id

    async def _insist(self, method: str, path: str, post: Post, key: str, body: dict[str, Any]) -> bool:
        """Send until there is an answer; return whether it says that it is stored. 409 says: try again later."""
        for tries in count():
            url = self._world.urls[tries % len(self._world.urls)]
            status, text = await self._call(method, f"{url}{path}", post, key, msgspec.json.encode(body))
            self.statuses[status] += 1
            if 200 <= status < 300:
                return True
            if status:
                self._on_problem(status, text)
            if self._over.is_set() or (400 <= status < 500 and status not in (409, 429)):
                return False
            await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
        return False

    async def _try(self, url: str, post: Post) -> tuple[int, bytes]:
        return await self._call("POST", f"{url}/v1/inquiries", post, post.key, post.body)

    async def _call(self, method: str, url: str, post: Post, key: str, body: bytes) -> tuple[int, bytes]:
        headers = {
            "Authorization": f"Bearer {self._world.provider_keys[post.provider]}",
            "Content-Type": "application/json",
            "Idempotency-Key": key,
        }
        try:
            async with self._world.http.request(method, url, data=body, headers=headers) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, b""

    async def _note(
        self, what: str, post: Post, status: int | None = None, text: bytes = b"", lead_id: str | None = None
    ) -> None:
        await self.history.write(
            Event(
                at=clock.now(),
                who=f"provider-{post.provider + 1}",
                what=what,
                number=post.number,
                key=post.key,
                lead_id=lead_id,
                status=status,
                text=text.decode("latin-1") or None,
            )
        )


class _Accepted(msgspec.Struct, frozen=True):
    id: str
