"""Rate limits per key, and of failed authentications per address, shared by all processes through Valkey.

While Valkey answers, at most the quota of requests under one name is allowed within any 60 seconds across all
processes, because one script counts and decides. It uses the clocks of the processes, so that two machines may allow
too many by as much as their clocks differ. Requests of a busy caller are counted in blocks: the process takes several
from the quota at once and allows them by itself. A block is at most AHEAD of the quota and expires after AHEAD_S, which
limits the error.

While Valkey is away or slower than VALKEY_LIMIT_S, each process applies the same quota by itself: never an error, and
at most one quota for each process.

Valkey stores only ids of keys, keyed hashes of addresses, and the times of their requests.
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
"Longest wait of a request for Valkey: ten times what it takes on a busy machine."
TURNS: Final = 5
"Parts into which the wait is divided, so that the delay of a busy process is not mistaken for Valkey's."
BACK_OFF_S: Final = 1.0
"Time after a failure for which Valkey is not used; then one request tries it for all others."
AHEAD: Final = 1 / 120
"Largest share of a quota taken at once: half a second's worth. A quota below 240 is counted one by one."
AHEAD_S: Final = 2.0
"Seconds after which the unused part of a block expires."
CONNECTIONS: Final = 32
MOST_NAMES: Final = 10_000
"Names that one process stores; beyond it, the least recently used is dropped."

_AWAY: Final = (RedisError, OSError, TimeoutError, RuntimeError)


class RateBudget(StrEnum):
    """Kinds of requests that are counted separately."""

    submissions = "submissions"
    """POST requests of providers: inquiries, touches, suppressions."""
    calls = "calls"
    """All other requests with a key."""
    failures = "failures"
    """Requests from one address without a valid key."""
    sign_ins = "sign_ins"
    """Attempts to sign in to the portal, from one address and in total."""


class RatePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Quota of requests within any 60 seconds."""

    budget: RateBudget
    quota: int


class RateStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one more request: `remaining` of the quota, and `reset_s`, the seconds until more is available."""

    policy: RatePolicy
    allowed: bool
    remaining: int
    reset_s: int

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """RateLimit-Policy and RateLimit headers, as in draft 11 of the IETF's RateLimit header fields."""
        name = f'"{self.policy.budget}"'
        return (
            (b"ratelimit-policy", f"{name};q={self.policy.quota};w={WINDOW_S}".encode()),
            (b"ratelimit", f"{name};r={self.remaining};t={self.reset_s}".encode()),
        )


class _Block(msgspec.Struct, kw_only=True):
    """Requests under one name that one process may still allow by itself. Mutable, because it counts down."""

    size: int
    left: int
    standing: RateStatus
    good_until: float


class Limiter:
    """Rate limiter of one process. Close it when the process ends."""

    def __init__(self, valkey_url: str) -> None:
        self._pool = BlockingConnectionPool.from_url(
            re.sub("^valkey", "redis", valkey_url),
            max_connections=CONNECTIONS,
        )
        options: dict[str, Any] = {"connection_pool": self._pool}  # an option that its types do not declare
        storage = RedisStorage("redis://", implementation="redispy", key_prefix="rate", **options)
        self._window = MovingWindowRateLimiter(storage)
        self._own = OwnWindows()
        self._blocks: OrderedDict[tuple[RatePolicy, str], _Block] = OrderedDict()
        self._away = False
        self._backed_off_until = 0.0

    async def count(self, policy: RatePolicy, name: str) -> RateStatus:
        """Count one more request under `name`, unless the quota is used up. Never raises."""
        block = self._blocks.get((policy, name))
        if block is not None and block.left and clock.monotonic() < block.good_until:
            block.left -= 1
            return msgspec.structs.replace(block.standing, remaining=block.standing.remaining + block.left)
        if not self._is_backing_off():
            try:
                standing = await _await_answer(self._count_together(policy, name))
            except _AWAY as error:
                self._note_failure(error)
            else:
                self._note_answer()
                return standing
        return self._own.count(policy, name, clock.monotonic())

    async def _count_together(self, policy: RatePolicy, name: str) -> RateStatus:
        """Count a block of requests in Valkey, or a single one when the quota does not suffice."""
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
        """Return the size of the next block: doubled while blocks are used up in time, else one."""
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
        """Return whether to count without Valkey; after a back-off, the first caller tries it for all others."""
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
        """Close the connections."""
        await self._pool.disconnect()


class OwnWindows:
    """The same moving window in the memory of one process."""

    def __init__(self) -> None:
        self._times: OrderedDict[tuple[RatePolicy, str], deque[float]] = OrderedDict()

    def count(self, policy: RatePolicy, name: str, now: float) -> RateStatus:
        """Count one request, like Limiter.count; `now` is in seconds of a monotonic clock."""
        times = self._times.setdefault((policy, name), deque())
        self._times.move_to_end((policy, name))
        if len(self._times) > MOST_NAMES:
            self._times.popitem(last=False)
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        allowed = len(times) < policy.quota
        if allowed:
            times.append(now)
        reset_s = _whole_seconds(times[0] + WINDOW_S - now)
        return RateStatus(policy=policy, allowed=allowed, remaining=policy.quota - len(times), reset_s=reset_s)


def _whole_seconds(seconds: float) -> int:
    """Return seconds rounded up, from 1 to WINDOW_S."""
    return min(WINDOW_S, max(1, math.ceil(seconds)))


async def _await_answer(answer: Coroutine[Any, Any, RateStatus]) -> RateStatus:
    """Return the result of `answer`. Raises TimeoutError after VALKEY_LIMIT_S, unless this process was busy."""
    asking = asyncio.create_task(answer)
    try:
        for _ in range(TURNS):
            if asking in (await asyncio.wait((asking,), timeout=VALKEY_LIMIT_S / TURNS))[0]:
                return asking.result()
    finally:
        asking.cancel()
    raise TimeoutError
