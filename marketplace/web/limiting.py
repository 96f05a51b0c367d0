"""How often one key may call, and one address may fail to show a key: budgets that all processes share.

While Valkey answers: of all requests under one name no more than its quota are let through within any 60 seconds,
whichever processes they reach, because one script counts and decides. It goes by the clocks of the processes, so two
machines whose clocks differ may let through at one edge of the window what falls into that difference.
A busy caller's requests are counted a block at a time: the process takes a few from the quota at once and lets them
through by itself, so that asking costs one in so many requests. A block is never more than AHEAD of the quota and is
forgotten after AHEAD_S; by so much may a minute's edge be off.

While Valkey is away, or slower than VALKEY_LIMIT_S, each process keeps the same quota by itself: never an error, never
more than one quota for each process.

Only names of keys and keyed hashes of addresses get into Valkey, and the times of their requests.
"""

import asyncio
import math
import re
from collections import OrderedDict, deque
from collections.abc import Coroutine
from enum import StrEnum
from typing import Any, Final

import msgspec
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import BlockingConnectionPool
from redis.exceptions import RedisError

from marketplace.runtime import clock
from marketplace.runtime.log import logger

log = logger("api")

WINDOW_S: Final = 60
VALKEY_LIMIT_S: Final = 0.05
"A request waits no longer for Valkey; ten times what it takes on a busy machine."
TURNS: Final = 5
"The wait is cut into so many: a process too busy to look for so long must not take its own delay for Valkey's."
BACK_OFF_S: Final = 1.0
"After a failure nobody asks Valkey for so long; then one request tries it for all the others."
AHEAD: Final = 1 / 120
"The most of a quota that one process takes at once: half a second's worth. A quota below 240 is counted one by one."
AHEAD_S: Final = 2.0
"Seconds after which what a process has taken and not used is given up."
CONNECTIONS: Final = 32
MOST_NAMES: Final = 10_000
"Names that one process remembers by itself; beyond it, the one unheard of for longest is forgotten."

_AWAY: Final = (RedisError, OSError, TimeoutError, RuntimeError)


class RateBudget(StrEnum):
    """What is counted apart."""

    submissions = "submissions"
    """What a provider posts: inquiries, touches, suppressions."""
    calls = "calls"
    """Everything else that is done with a key."""
    failures = "failures"
    """Calls from one address without a good key."""
    sign_ins = "sign_ins"
    """Tries to come into the portal, from one address and altogether."""


class RatePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """So many requests in any 60 seconds."""

    budget: RateBudget
    quota: int


class RateStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a name stands after one more request: `remaining` of the quota, more of it after `reset_s` seconds."""

    policy: RatePolicy
    allowed: bool
    remaining: int
    reset_s: int

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """RateLimit-Policy and RateLimit, as draft 11 of the IETF's RateLimit header fields spells them."""
        name = f'"{self.policy.budget}"'
        return (
            (b"ratelimit-policy", f"{name};q={self.policy.quota};w={WINDOW_S}".encode()),
            (b"ratelimit", f"{name};r={self.remaining};t={self.reset_s}".encode()),
        )


class _Block(msgspec.Struct, kw_only=True):
    """What one process may let through by itself under one name. Counts down, and so is a Struct that changes."""

    size: int
    left: int
    standing: RateStatus
    good_until: float


class Limiter:
    """Counts for one process, with all the others. Close it when the process ends."""

    def __init__(self, valkey_url: str) -> None:
        self._pool = BlockingConnectionPool.from_url(
            re.sub("^valkey", "redis", valkey_url),
            max_connections=CONNECTIONS,
        )
        given: dict[str, Any] = {"connection_pool": self._pool}  # which its types do not know
        storage = RedisStorage("redis://", implementation="redispy", key_prefix="rate", **given)
        self._window = MovingWindowRateLimiter(storage)
        self._own = OwnWindows()
        self._blocks: OrderedDict[tuple[RatePolicy, str], _Block] = OrderedDict()
        self._away = False
        self._backed_off_until = 0.0

    async def count(self, policy: RatePolicy, name: str) -> RateStatus:
        """Counts one more request under `name`, unless the quota is used up. Never raises."""
        block = self._blocks.get((policy, name))
        if block is not None and block.left and clock.monotonic() < block.good_until:
            block.left -= 1
            return msgspec.structs.replace(block.standing, remaining=block.standing.remaining + block.left)
        if not self._is_backing_off():
            try:
                standing = await _patiently(self._count_together(policy, name))
            except _AWAY as error:
                self._note_failure(error)
            else:
                self._note_answer()
                return standing
        return self._own.count(policy, name, clock.monotonic())

    async def _count_together(self, policy: RatePolicy, name: str) -> RateStatus:
        item = RateLimitItemPerMinute(policy.quota)
        size = self._next_block(policy, name)
        allowed = await self._window.hit(item, policy.budget, name, cost=size)
        if not allowed and size > 1:
            size = 1
            allowed = await self._window.hit(item, policy.budget, name)
        reset_at, remaining = await self._window.get_window_stats(item, policy.budget, name)
        reset_s = _whole_seconds(reset_at - clock.now().timestamp())
        standing = RateStatus(policy=policy, allowed=allowed, remaining=remaining, reset_s=reset_s)
        if allowed:
            self._keep_block(policy, name, size, standing)
        return standing

    def _next_block(self, policy: RatePolicy, name: str) -> int:
        """Twice the last one while blocks are used up in time; one for a caller not heard of lately."""
        most = int(policy.quota * AHEAD)
        last = self._blocks.get((policy, name))
        used_up = last is not None and not last.left and clock.monotonic() < last.good_until
        return max(1, min(most, 2 * last.size)) if last is not None and used_up else 1

    def _keep_block(self, policy: RatePolicy, name: str, size: int, standing: RateStatus) -> None:
        if policy.quota * AHEAD < 2:
            return
        self._blocks[policy, name] = _Block(
            size=size, left=size - 1, standing=standing, good_until=clock.monotonic() + AHEAD_S
        )
        self._blocks.move_to_end((policy, name))
        if len(self._blocks) > MOST_NAMES:
            self._blocks.popitem(last=False)

    def _is_backing_off(self) -> bool:
        """Whether to leave Valkey alone. After a back-off the first call tries Valkey while others still count
        alone."""
        if not self._away:
            return False
        now = clock.monotonic()
        if now < self._backed_off_until:
            return True
        self._backed_off_until = now + VALKEY_LIMIT_S
        return False

    def _note_failure(self, error: Exception) -> None:
        if not self._away:
            log.warning("limits_kept_alone", error=type(error).__name__)
        self._away = True
        self._backed_off_until = clock.monotonic() + BACK_OFF_S

    def _note_answer(self) -> None:
        if self._away:
            log.info("limits_shared_again")
        self._away = False

    async def close(self) -> None:
        """Let go of the connections."""
        await self._pool.disconnect()


class OwnWindows:
    """The same moving window in the memory of one process."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[RatePolicy, str], deque[float]] = OrderedDict()

    def count(self, policy: RatePolicy, name: str, now: float) -> RateStatus:
        """As Limiter.count; `now` is in seconds of a clock that never goes back."""
        seen = self._seen.setdefault((policy, name), deque())
        self._seen.move_to_end((policy, name))
        if len(self._seen) > MOST_NAMES:
            self._seen.popitem(last=False)
        while seen and seen[0] <= now - WINDOW_S:
            seen.popleft()
        allowed = len(seen) < policy.quota
        if allowed:
            seen.append(now)
        reset_s = _whole_seconds(seen[0] + WINDOW_S - now)
        return RateStatus(policy=policy, allowed=allowed, remaining=policy.quota - len(seen), reset_s=reset_s)


def _whole_seconds(seconds: float) -> int:
    return min(WINDOW_S, max(1, math.ceil(seconds)))


async def _patiently(answer: Coroutine[Any, Any, RateStatus]) -> RateStatus:
    """The answer. Raises TimeoutError when it does not come within VALKEY_LIMIT_S of a process that is not busy."""
    asking = asyncio.create_task(answer)
    try:
        for _ in range(TURNS):
            if asking in (await asyncio.wait((asking,), timeout=VALKEY_LIMIT_S / TURNS))[0]:
                return asking.result()
    finally:
        asking.cancel()
    raise TimeoutError
