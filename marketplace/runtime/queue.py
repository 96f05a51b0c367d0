"""Queue: notifications that a row has work, and the worker that takes them.

Postgres holds all state. Only a job's name and the id of a row pass through Valkey, so it holds no contact data, and
losing all of it loses no work: the sweeper finds every due row in Postgres and notifies again. For the same reason a
job may run twice, and reads the state of its row first.

Three Lua scripts implement the protocol on arq's keys, in one round trip each. The first writes a job, adds it to the
queue and pushes a wake-up token. The second claims a batch of due jobs under a lease. The third removes a job whose
lease is still valid. A leased job stays in the queue with the end of its lease as its due time: it never delays other
jobs, and becomes due by itself when its worker is killed. All times are the server's, so the clocks of machines do not
matter.

Jobs that became due within FRESH_MS are claimed before older ones: after an outage a new lead does not wait behind the
backlog. Workers report how long leads wait and how many they handle (`LoadReporter`); each notification brings these
figures back, and how many notifications there have been, so that intake knows them without a call of its own.

A notification for a waiting job is merged into it. A notification for a running job makes it run once more afterwards,
because the run may have read its row before the change.

Only this module imports arq. It uses arq's key layout (so that its tools work), table of functions and health record;
it replaces polling, claiming, and the logging of arguments and error texts.
"""

import asyncio
import re
import traceback
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any, cast
from uuid import UUID

import msgspec
import structlog
from arq.connections import ArqRedis
from arq.constants import (
    default_queue_name,
    expires_extra_ms,
    health_check_key_suffix,
    in_progress_key_prefix,
    job_key_prefix,
)
from arq.worker import Function, Worker
from redis.asyncio import BlockingConnectionPool
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

Job = Callable[[UUID], Awaitable[None]]
"""Function that does the work that the state of a row requires, given the id of the row."""

OnJob = Callable[[str, UUID, float, float, str | None], None]
"""Callback after each run: job, id, milliseconds waited, milliseconds taken, class name of the error (never
its text)."""


class QueueTrouble(StrEnum):
    """Kinds of queue problems that are counted. None of them loses a lead."""

    MISSED = "missed"
    """A notification did not reach Valkey; the sweeper will find the row."""
    OUTAGE = "outage"
    """A worker lost Valkey; counted once per outage."""
    REFUSED = "refused"
    """An entry in the queue was not a known job; it was removed, not run."""
    UNFINISHED = "unfinished"
    """A job ran but Valkey did not record it; it runs again when its lease ends."""


class QueueLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Time limits of a worker in seconds, and jobs claimed at once."""

    job_timeout_s: float = 25.0
    """A longer job is cancelled. Longer than a delivery attempt (20 s), but short, because the lease of a killed worker
    depends on it."""
    lease_margin_s: float = 5.0
    """Time by which the lease exceeds the timeout, so that a cancelled job can clean up and be finished."""
    poll_delay_s: float = 0.5
    """Longest wait for a wake-up token; a lost token or an expired lease is noticed after this time."""
    drain_s: float = 25.0
    """Time for which a stopping worker waits for running jobs before it returns them to the queue."""
    batch: int = 8
    """Limit of jobs in one claim; small, so that a burst is shared among the workers."""

    @property
    def patience_s(self) -> float:
        """Limit of any call to Valkey: somewhat longer than the longest blocking wait."""
        return self.poll_delay_s + 1.0


DEFAULT_LIMITS = QueueLimits()

NOTIFY_LIMIT_S = 0.5
"""Limit of a notification. No answer to a provider waits for it."""
FAILURES_BEFORE_BACK_OFF = 3
"""Failed notifications in a row after which notifications fail immediately, for BACK_OFF_S."""
BACK_OFF_S = 1.0
"""Length of a back-off; afterwards one notification tries Valkey for all others."""
NOTIFY_CONNECTIONS = 32
"""Limit of connections; further notifications wait for a free one within their limit."""
FIRST_RETRY_S, LAST_RETRY_S = 0.1, 1.0
"""First and longest pause before a worker that lost Valkey retries; the pause doubles each time."""
LOOK_LIMIT_S = 2.0
"""Limit of reading the status of the queue."""
UNBLOCK_S = 0.05
"""Interval at which a stopping worker's blocking wait is interrupted, until it ends."""
CANCEL_S = 2.0
"""Time for a cancelled job to end at the end of a drain."""

LOAD_S = 1.0
"""Seconds after which the load that a notification brought back is out of date."""
SHARE_S = 1.0
"""Seconds over which the share of a process in all notifications is measured."""
LATE_S = 1.0
"""Seconds after which a lead is found by the sweeper."""
REPORT_S = 0.1
"""Interval of a worker's reports on its load."""

_AWAY = (RedisError, OSError, TimeoutError, RuntimeError)
"""Errors of an absent Valkey. uvloop raises RuntimeError on writing to a transport that was just closed."""

_WAKE = "arq:wake"
_JOB_NAME = re.compile(r"[a-z][a-z_]{0,39}")

FRESH_MS = 500
"""Milliseconds for which a due job goes before older ones."""
_LOAD = "marketplace:load"
_LOAD_TTL_MS = 1000
"""Milliseconds after which a worker's report no longer counts."""
_COUNT = "marketplace:notifications"

_PRELUDE = f"""
local QUEUE, WAKE = KEYS[1], KEYS[2]
local JOB, LEASE, AGAIN = '{job_key_prefix}', '{in_progress_key_prefix}', 'arq:again:'
local JOB_TTL_MS, MOST_TOKENS = {expires_extra_ms}, 64
local LOAD, LOAD_TTL_MS, FRESH_MS = '{_LOAD}', {_LOAD_TTL_MS}, {FRESH_MS}
local COUNT = '{_COUNT}'
local time = redis.call('TIME')
local now = string.format('%.3f', time[1] * 1000 + time[2] / 1000)
local function wake()
  if redis.call('LLEN', WAKE) < MOST_TOKENS then redis.call('RPUSH', WAKE, 1) end
end
"""

_NOTIFY = """
local key, name, id = ARGV[1], ARGV[2], ARGV[3]
local job = cjson.encode({f = name, a = {id}, k = {}, t = cjson.null, et = math.floor(now)})
redis.call('SET', JOB .. key, job, 'PX', JOB_TTL_MS)
if redis.call('EXISTS', LEASE .. key) == 1 then
  redis.call('SET', AGAIN .. key, 1, 'PX', JOB_TTL_MS)
-- LT: a waiting job keeps its earlier due time; one whose lease was lost is due now, not at the end of that lease.
elseif redis.call('ZADD', QUEUE, 'LT', 'CH', now, key) == 1 then
  wake()
end
local waited, rate = 0, 0
for _, report in ipairs(redis.call('HVALS', LOAD)) do
  local at, wait, handled = report:match('(%S+) (%S+) (%S+)')
  if now - at < LOAD_TTL_MS then waited, rate = math.max(waited, wait), rate + handled end
end
return {math.floor(waited), math.floor(rate), redis.call('INCR', COUNT)}
"""

_REPORT = """
redis.call('HSET', LOAD, ARGV[1], now .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
redis.call('PEXPIRE', LOAD, 10 * LOAD_TTL_MS)
"""

_CLAIM = """
local limit, lease_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local token = time[1] .. '.' .. time[2]
local claims = {}
local function claim(key, score)
  redis.call('ZADD', QUEUE, string.format('%.3f', now + lease_ms), key)
  if redis.call('SET', LEASE .. key, token, 'NX', 'PX', lease_ms) then
    local job = redis.pcall('GETRANGE', JOB .. key, 0, 1023)
    if type(job) ~= 'string' then job = '' end
    claims[#claims + 1] = {key, job, token, math.floor((now - score) * 1000)}
  else
    redis.call('PEXPIRE', LEASE .. key, lease_ms, 'NX')
  end
end
-- Each entry read becomes due later than now, so the loops end; one leased elsewhere does not count towards the limit.
for _, since in ipairs({string.format('%.3f', now - FRESH_MS), '-inf'}) do
  while #claims < limit do
    local due = redis.call('ZRANGE', QUEUE, since, now, 'BYSCORE', 'LIMIT', 0, limit - #claims, 'WITHSCORES')
    if #due == 0 then break end
    for i = 1, #due, 2 do claim(due[i], due[i + 1]) end
  end
end
return claims
"""

_FINISH = """
local key, token, give_back = ARGV[1], ARGV[2], ARGV[3] == '1'
-- After a lease has expired or was lost with all of Valkey, the job may be another worker's, and is left alone.
if redis.call('GET', LEASE .. key) ~= token then return end
redis.call('DEL', LEASE .. key)
local again = redis.call('DEL', AGAIN .. key) == 1
if again or give_back then
  redis.call('ZADD', QUEUE, now, key)
  wake()
else
  redis.call('DEL', JOB .. key)
  redis.call('ZREM', QUEUE, key)
end
"""


class WorkerLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Load of the workers in the last second: the longest typical wait of a new lead, and leads handled per second, of
    which this process counts the share that its notifications are of those of all processes."""

    waited_s: float
    per_second: float


class _OwnPart:
    """Part of the notifications of all processes that this one sends, from the count of all that each brings back."""

    def __init__(self) -> None:
        self.value = 1.0
        self._own = 0
        self._since: tuple[float, int] | None = None

    def note(self, total: int, now: float) -> None:
        """Count one notification of this process, after which there are `total`. The part follows every second."""
        self._own += 1
        if self._since is None or total <= self._since[1]:  # Valkey was emptied
            self._since, self._own = (now, total), 0
        elif now - self._since[0] >= SHARE_S:
            self.value = min(1.0, self._own / (total - self._since[1]))
            self._since, self._own = (now, total), 0


class _Payload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """arq's record of a job, limited to a name and one id."""

    f: str
    a: tuple[UUID]
    k: Annotated[dict[str, None], msgspec.Meta(max_length=0)]
    t: int | None
    et: int


class _Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A job taken under a lease, which `token` identifies."""

    key: bytes
    job: str
    id: UUID
    token: bytes
    waited_ms: float


def job_key(job: str, id: UUID) -> str:
    """Return the key of this job on this row. Raises ValueError for another name, TypeError for another id
    than a UUID."""
    if not _JOB_NAME.fullmatch(job):
        raise ValueError("a job's name is up to 40 lower-case letters and underscores")
    if not isinstance(id, UUID):
        raise TypeError("a job is given a UUID and nothing else")
    return f"{job}:{id}"


def _open(valkey_url: str, *, connections: int, timeout_s: float) -> ArqRedis:
    """Return a client with its own pool, which connects at the first command. No method of it can unpickle data.

    Callers limit each wait: redis-py's own limit of a write creates a task each time, and loses a cancellation that
    arrives at the moment at which the write ends.
    """
    pool = BlockingConnectionPool.from_url(
        re.sub("^valkey", "redis", valkey_url),
        max_connections=connections,
        timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        lib_name=None,
        lib_version=None,
    )
    return ArqRedis(pool, job_serializer=msgspec.json.encode, job_deserializer=msgspec.json.decode)


class _Script:
    """One script of the protocol, bound to a client."""

    def __init__(self, valkey: ArqRedis, lua: str) -> None:
        self._script = valkey.register_script(_PRELUDE + lua)

    async def __call__(self, *args: str | bytes | int) -> Any:
        return await self._script(keys=[default_queue_name, _WAKE], args=args)


class Notifier:
    """Sender of notifications for one process. Never raises for problems of Valkey, and takes at most NOTIFY_LIMIT_S.

    `troubles` counts the missed notifications. Close it when the process ends.
    """

    def __init__(self, valkey_url: str) -> None:
        self.troubles: Counter[QueueTrouble] = Counter()
        self._load: WorkerLoad | None = None
        self._load_at = 0.0
        self._own_part = _OwnPart()
        self._valkey = _open(valkey_url, connections=NOTIFY_CONNECTIONS, timeout_s=NOTIFY_LIMIT_S)
        self._script = _Script(self._valkey, _NOTIFY)
        self._failures = 0
        self._backed_off_until = 0.0

    async def notify(self, job: str, id: UUID) -> bool:
        """Request that `job` runs for row `id`; return whether Valkey has the notification, new or merged.

        Call it after the commit that made the row due, and continue whatever it returns. Raises ValueError or TypeError
        only for invalid arguments (see `job_key`).
        """
        key = job_key(job, id)
        if self._is_backing_off():
            self.troubles[QueueTrouble.MISSED] += 1
            return False
        try:
            async with asyncio.timeout(NOTIFY_LIMIT_S):
                waited_ms, per_second, count = await self._script(key, job, str(id))
        except _AWAY as error:
            self._note_failure(error)
            return False
        if self._failures >= FAILURES_BEFORE_BACK_OFF:
            log.info("notifications_again")
        self._failures = 0
        self._load_at = asyncio.get_running_loop().time()
        self._own_part.note(count, self._load_at)
        self._load = WorkerLoad(waited_s=waited_ms / 1000, per_second=per_second * self._own_part.value)
        return True

    @property
    def load(self) -> WorkerLoad | None:
        """Load of the workers as of the last notification, or None if there was none in LOAD_S."""
        return self._load if asyncio.get_running_loop().time() - self._load_at < LOAD_S else None

    def _is_backing_off(self) -> bool:
        """Return whether to fail immediately; after a back-off, the first caller tries Valkey for all others."""
        if self._failures < FAILURES_BEFORE_BACK_OFF:
            return False
        now = asyncio.get_running_loop().time()
        if now < self._backed_off_until:
            return True
        self._backed_off_until = now + NOTIFY_LIMIT_S
        return False

    def _note_failure(self, error: Exception) -> None:
        self.troubles[QueueTrouble.MISSED] += 1
        self._failures += 1
        if self._failures == FAILURES_BEFORE_BACK_OFF:
            log.warning("notifications_missed", error=type(error).__name__)
        self._backed_off_until = asyncio.get_running_loop().time() + BACK_OFF_S

    async def close(self) -> None:
        """Close the connections."""
        await self._valkey.aclose(close_connection_pool=True)


class LoadReporter:
    """Report of one worker's load to the processes that send notifications. Close it when the process ends."""

    def __init__(self, valkey_url: str, worker: str) -> None:
        self._worker = worker
        self._valkey = _open(valkey_url, connections=1, timeout_s=NOTIFY_LIMIT_S)
        self._script = _Script(self._valkey, _REPORT)
        self._waits: list[float] = []
        self._late = 0
        self._handled: deque[int] = deque(maxlen=round(1 / REPORT_S))

    def note(self, waited_s: float) -> None:
        """Note the first decision on a lead, `waited_s` after the lead was accepted.

        A lead that waited for LATE_S was left over from an outage, and says nothing about the wait of new ones.
        """
        if waited_s < LATE_S:
            self._waits.append(waited_s)
        else:
            self._late += 1

    async def keep_reporting(self, stopping: asyncio.Event) -> None:
        """Report every REPORT_S while leads come, until `stopping` is set. A report that fails is left out."""
        while not stopping.is_set():
            waits, late = sorted(self._waits), self._late
            self._waits, self._late = [], 0
            self._handled.append(len(waits) + late)
            median_s = waits[len(waits) // 2] if waits else 0.0
            if any(self._handled):
                with suppress(*_AWAY):
                    async with asyncio.timeout(REPORT_S):
                        await self._script(self._worker, round(1000 * median_s), sum(self._handled))
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), REPORT_S)

    async def close(self) -> None:
        """Close the connection."""
        await self._valkey.aclose(close_connection_pool=True)


class _QueueWorker(Worker):
    """arq worker that waits for tokens, claims in batches, survives outages of Valkey, and logs only names and ids."""

    def __init__(
        self,
        valkey: ArqRedis,
        jobs: Mapping[str, Job],
        *,
        slots: int,
        stopping: asyncio.Event,
        on_job: OnJob,
        limits: QueueLimits,
        troubles: Counter[QueueTrouble],
    ) -> None:
        super().__init__(
            [_function(name, job) for name, job in jobs.items()],
            redis_pool=valkey,
            queue_name=default_queue_name,
            handle_signals=False,
            max_jobs=slots,
            job_timeout=limits.job_timeout_s,
            keep_result=0,
            max_tries=1,
            retry_jobs=False,
            poll_delay=limits.poll_delay_s,
            health_check_interval=5,
            job_serializer=msgspec.json.encode,
            job_deserializer=msgspec.json.decode,
            log_results=False,
        )
        self._limits = limits
        self._patience_s = limits.patience_s
        self._lease_ms = round((limits.job_timeout_s + limits.lease_margin_s) * 1000)
        self._on_job = on_job
        self._troubles = troubles
        self._stopping = stopping
        self._away = False
        self._giving_back = False
        self._finish_script = _Script(valkey, _FINISH)
        self._connection: Any = None  # the connection of the blocking wait
        self._connection_id = 0
        self._more_due = False
        self._decoder = msgspec.json.Decoder(_Payload)

    async def main(self) -> None:
        """Run jobs until `stopping` is set, through any number of outages. Leaves running jobs to `drain`."""
        stop = asyncio.create_task(self._stopping.wait())
        leaving = asyncio.create_task(self._end_wait_at_stop())
        retry_s = FIRST_RETRY_S
        try:
            while not self._stopping.is_set():
                try:
                    await self._answer_once(stop)
                    retry_s = FIRST_RETRY_S
                except _AWAY as error:
                    self._note_outage(error)
                    await asyncio.wait((stop,), timeout=retry_s)
                    retry_s = min(2 * retry_s, LAST_RETRY_S)
        finally:
            stop.cancel()
            leaving.cancel()

    async def _answer_once(self, stop: asyncio.Task[Any]) -> None:
        """Start due jobs; when none is due, wait for the first reason to claim again.

        When every slot is taken, that reason is the end of a job, and tokens are left to workers with free slots.
        Otherwise the end of a job is no reason: new work that it causes has a token of its own.
        """
        async with asyncio.timeout(self._patience_s):
            await self.record_health()
        free = self.max_jobs - len(self.tasks)
        if free == 0:
            waiting = (*self.tasks.values(), stop)
            await asyncio.wait(waiting, timeout=self.poll_delay_s, return_when=asyncio.FIRST_COMPLETED)
            return
        limit = min(free, self._limits.batch)
        claimed = await self._claim(limit)
        if self._away:
            self._away = False
            log.info("queue_back")
        for key, payload, token, waited_us in claimed:
            claim = self._read(key, payload, token, waited_us / 1000)
            running = self._refuse(key, token) if claim is None else self._run(claim)
            self._keep(key + b" " + token, asyncio.create_task(running))
        self._more_due = len(claimed) == limit
        await asyncio.sleep(0)  # the jobs begin before the next wait

    async def _claim(self, limit: int) -> Any:
        """Return at most `limit` due jobs, after waiting for a token unless more jobs are known to be due.

        Wait and claim are sent together, and Valkey claims at the moment at which the token arrives. A token lost here
        costs at most a poll delay. A claim that was cut off becomes due again when its lease ends.
        """
        claim = ("EVAL", _PRELUDE + _CLAIM, 2, default_queue_name, _WAKE, limit, self._lease_ms)
        wait = () if self._more_due else (("BLPOP", _WAKE, self.poll_delay_s),)
        pool = cast(Any, self.pool.connection_pool)
        connection = self._connection or await pool.get_connection()
        try:
            async with asyncio.timeout(self._patience_s):
                if self._connection is None:
                    await connection.send_command("CLIENT", "ID")
                    self._connection_id, self._connection = await connection.read_response(), connection
                await connection.send_packed_command(connection.pack_commands((*wait, claim)))
                for _ in wait:
                    await connection.read_response()
                return await connection.read_response()
        except BaseException:
            self._connection, self._more_due = None, False
            await connection.disconnect(nowait=True)
            await pool.release(connection)
            raise

    async def _end_wait_at_stop(self) -> None:
        """Interrupt the blocking wait once `stopping` is set, repeatedly in case it begins at that moment."""
        await self._stopping.wait()
        while True:
            with suppress(*_AWAY):
                async with asyncio.timeout(self._patience_s):
                    await cast(Any, self.pool).client_unblock(self._connection_id)
            await asyncio.sleep(UNBLOCK_S)

    def _keep(self, name: bytes, task: asyncio.Task[None]) -> None:
        """Let the task occupy a slot until it ends."""
        slot = name.decode(errors="replace")
        self.tasks[slot] = task
        task.add_done_callback(lambda _: self.tasks.pop(slot, None))

    def _read(self, key: bytes, payload: bytes, token: bytes, waited_ms: float) -> _Claim | None:
        """Return the job in the payload, or None unless it is a known one and matches its key."""
        try:
            job = self._decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        if job.f not in self.functions or key != job_key(job.f, job.a[0]).encode():
            return None
        return _Claim(key=key, job=job.f, id=job.a[0], token=token, waited_ms=waited_ms)

    async def _refuse(self, key: bytes, token: bytes) -> None:
        """Remove an entry that is no known job. Its content is not logged, because it is unknown."""
        self._troubles[QueueTrouble.REFUSED] += 1
        log.warning("entry_refused")
        await self._finish(key, token)

    async def _run(self, claim: _Claim) -> None:
        """Run one job to its end or failure, and report it."""
        started = self.loop.time()
        failure: BaseException | None = None
        try:
            async with asyncio.timeout(self.job_timeout_s):
                await self.functions[claim.job].coroutine(self.ctx, str(claim.id))
            self.jobs_complete += 1
        except (Exception, asyncio.CancelledError) as error:
            failure = error
            self.jobs_failed += 1
        took_ms = (self.loop.time() - started) * 1000
        error_name = None if failure is None else type(failure).__name__
        give_back = self._giving_back and isinstance(failure, asyncio.CancelledError)
        if failure is not None and not give_back:
            _log_failure(claim, failure)
        await self._finish(claim.key, claim.token, give_back=give_back)
        self._on_job(claim.job, claim.id, claim.waited_ms, took_ms, error_name)

    async def _finish(self, key: bytes, token: bytes, *, give_back: bool = False) -> None:
        """Remove a job from the queue, or with `give_back` make it due again; a failure is only counted."""
        try:
            async with asyncio.timeout(self._patience_s):
                await self._finish_script(key, token, int(give_back))
        except _AWAY:
            self._troubles[QueueTrouble.UNFINISHED] += 1

    def _note_outage(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            self._troubles[QueueTrouble.OUTAGE] += 1
            log.warning("queue_away", error=type(error).__name__)

    async def drain(self, patience_s: float) -> None:
        """Wait for running jobs; after `patience_s` cancel the others, which returns them to the queue, due now."""
        if self.tasks:
            await asyncio.wait(self.tasks.values(), timeout=patience_s)
        self._giving_back = True
        for task in self.tasks.values():
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks.values(), timeout=CANCEL_S)


def _function(name: str, job: Job) -> Function:
    """Return a job in arq's form, which receives a context and the id."""

    async def coroutine(ctx: dict[Any, Any], id: str) -> None:
        await job(UUID(id))

    return Function(name, coroutine, None, 0, False, 1)


def _log_failure(claim: _Claim, failure: BaseException) -> None:
    """Log which job failed and where, without the error's text, which may hold values of a database."""
    frames = traceback.extract_tb(failure.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
    log.error("job_failed", job=claim.job, id=str(claim.id), error=type(failure).__name__, where=where)


async def answer(
    valkey_url: str,
    jobs: Mapping[str, Job],
    *,
    slots: int,
    stopping: asyncio.Event,
    on_job: OnJob,
    limits: QueueLimits = DEFAULT_LIMITS,
    troubles: Counter[QueueTrouble] | None = None,
) -> None:
    """Run `jobs` when they are notified, at most `slots` at a time, until `stopping` is set; then drain and return.

    While Valkey is away or was emptied, it waits, and logs once per outage. Cancelling this coroutine instead of
    setting `stopping` returns running jobs to the queue at once. `troubles`, if passed, is counted up.
    """
    for name in jobs:
        job_key(name, UUID(int=0))
    # One connection for the end of each job, one for the blocking wait, and one to interrupt that wait.
    valkey = _open(valkey_url, connections=slots + 2, timeout_s=limits.patience_s)
    counted: Counter[QueueTrouble] = Counter() if troubles is None else troubles
    queue_worker = _QueueWorker(
        valkey,
        jobs,
        slots=slots,
        stopping=stopping,
        on_job=on_job,
        limits=limits,
        troubles=counted,
    )
    try:
        await queue_worker.main()
    finally:
        patience_s = limits.drain_s if stopping.is_set() else 0.0
        await queue_worker.drain(patience_s)
        await valkey.aclose(close_connection_pool=True)


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Status of the queue. `answered`: a worker has claimed jobs within the last six seconds."""

    waiting: int
    running: int
    answered: bool
    version: str
    bytes: int


async def look(valkey_url: str) -> QueueStatus | None:
    """Return the status of the queue; None while Valkey does not answer.

    A leased job counts as running until its lease ends.
    """
    valkey = _open(valkey_url, connections=1, timeout_s=NOTIFY_LIMIT_S)
    try:
        async with asyncio.timeout(LOOK_LIMIT_S):
            seconds, micros = await valkey.time()
            now = seconds * 1000 + micros / 1000
            answered = await valkey.exists(default_queue_name + health_check_key_suffix)
            server: dict[str, Any] = await valkey.info()
            return QueueStatus(
                waiting=await valkey.zcount(default_queue_name, "-inf", now),
                running=await valkey.zcount(default_queue_name, f"({now}", "+inf"),
                answered=bool(answered),
                version=str(server.get("valkey_version") or server["redis_version"]),
                bytes=int(server["used_memory"]),
            )
    except _AWAY:
        return None
    finally:
        await valkey.aclose(close_connection_pool=True)
