"""The operator who imports lists of people and records revocations, again and again until each call is answered.

What was answered is certain: nobody on a list whose import was answered before their inquiry may be shown to anybody,
nor may a lead be shown after its revocation was answered.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from itertools import count
from random import Random
from typing import Final

import aiohttp
import msgspec

from marketplace.runtime import clock
from tests.harness.traffic import PAUSES, Traffic
from tests.harness.world import World

LISTS: Final = 3
"""Each is imported into by itself: an import that was killed keeps its list busy for half a minute."""
IMPORT_SECONDS: Final = 1.0
REVOKE_SECONDS: Final = 0.5
PEOPLE: Final = 5
"""People of one import, who ask for an offer once it is answered."""
FIRST_LISTED: Final = 8_000_000
"""Numbers of these people: far above those of all others."""
OF_A_LIST: Final = 100_000
LATEST: Final = 20
"""A revocation is of one of the leads acknowledged last, so that it meets the award and the exposure."""
SUCCESS: Final = range(200, 300)
BUSY: Final = (0, 409, 429)


class RightsTraffic:
    """The calls of one run. `listed` and `revoked` have the time at which a list or a revocation was answered."""

    def __init__(self, world: World, traffic: Traffic, seed: int, on_problem: Callable[[int, bytes], None]) -> None:
        self.listed: dict[int, datetime] = {}
        "By the number of the person."
        self.revoked: dict[str, datetime] = {}
        "By lead."
        self.statuses: Counter[str] = Counter()
        self._world, self._traffic, self._on_problem = world, traffic, on_problem
        self._random = Random(f"rights {seed}")
        self._over = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        """Import and revoke until `stopping`; a call under way may then still be answered until `end`."""
        async with asyncio.TaskGroup() as group:
            for number in range(LISTS):
                group.create_task(self._keep_importing(number, stopping))
            group.create_task(self._keep_revoking(stopping))

    def end(self) -> None:
        """Repeat no call any more."""
        self._over.set()

    async def _keep_importing(self, number: int, stopping: asyncio.Event) -> None:
        """Add people to a list of its own, or replace it by a file with them and everybody before."""
        list_id = await self._make_list(number)
        members: list[int] = []
        for turn in count():
            if list_id is None or await _is_set(stopping, IMPORT_SECONDS):
                return
            start = FIRST_LISTED + number * OF_A_LIST + turn * PEOPLE
            people = list(range(start, start + PEOPLE))
            way = self._random.choice(("add", "whole"))
            rows = people if way == "add" else [*members, *people]
            file = "".join(f"{self._world.aviary.canary(person).token}@example.com\n" for person in rows).encode()
            if await self._insist("import", f"/v1/lists/{list_id}/imports?way={way}", file, "text/csv") is None:
                return
            members += people
            at = clock.now()
            self.listed |= dict.fromkeys(people, at)
            for person in people:
                self._traffic.submit(person)

    async def _make_list(self, number: int) -> str | None:
        body = msgspec.json.encode({"name": f"List {number + 1}"})
        answer = await self._insist("list", "/v1/lists", body, "application/json")
        return None if answer is None else msgspec.json.decode(answer, type=_Made).id

    async def _keep_revoking(self, stopping: asyncio.Event) -> None:
        """Record that the person of one of the latest leads has revoked consent."""
        while not await _is_set(stopping, REVOKE_SECONDS):
            leads = [lead_id for lead_id in self._traffic.recent_leads(LATEST) if lead_id not in self.revoked]
            if not leads:
                continue
            lead_id = self._random.choice(leads)
            body = msgspec.json.encode({"lead_id": lead_id, "reason": "STOP"})
            if await self._insist("revocation", "/v1/revocations", body, "application/json") is not None:
                self.revoked.setdefault(lead_id, clock.now())

    async def _insist(self, kind: str, path: str, body: bytes, media_type: str) -> bytes | None:
        """Send until there is a good answer, and return it; None if the run ends first, or it is refused for good."""
        for tries in count():
            url = self._world.urls[tries % len(self._world.urls)]
            status, text = await self._call(f"{url}{path}", body, media_type)
            self.statuses[f"{kind} {status or 'none'}"] += 1
            if status in SUCCESS:
                return text
            if status:
                self._on_problem(status, text)
            if self._over.is_set() or (status < 500 and status not in BUSY):
                return None
            await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
        return None

    async def _call(self, url: str, body: bytes, media_type: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._world.operator_key}", "Content-Type": media_type}
        try:
            async with self._world.http.post(url, data=body, headers=headers) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, b""


class _Made(msgspec.Struct, frozen=True):
    id: str


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Return whether the event is set within so many seconds."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
