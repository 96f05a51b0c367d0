"""The queue: wake-ups for workers, and the worker that takes them.

Postgres is the truth. What crosses this module is a job's name and the id of a row, nothing else, so contact data
cannot be in Valkey, and losing the whole of Valkey loses nothing: the sweeper finds every due row in Postgres and
notifies again. For the same reason a job may run twice and must not mind: it reads the state of its row first.

Three Lua scripts hold the whole protocol on arq's own keys, one round trip each. *Notify* writes the job, puts it in
the
queue and leaves a wake token. *Claim* takes a batch of due jobs under a lease. *Finish* removes a job whose lease still
stands. A job under lease stands in the queue at the moment its lease ends: it never hides a due one, and when its
worker is killed it comes due by itself. All times are the server's, so no two machines need agree on the hour.

A notification for a job that is already waiting collapses into it. A notification for a job that is running makes it
run once more when it ends, because that run may have read its row before the change which the notification is about.

arq is imported here and nowhere else. From it come the key layout (so that its tooling works), the table of
functions and the health record; its polling, its claims and its logging of arguments and exception texts are replaced.
"""

import asyncio
import re
import traceback
from collections import Counter
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
"""What a job is: given the id of a row, it does whatever the row's state asks for."""

OnJob = Callable[[str, UUID, float, float, str | None], None]
"""Told after each run: job, id, milliseconds waited, milliseconds taken, class name of the error (never its text)."""


class QueueTrouble(StrEnum):
    """What went wrong around the queue, to be counted. None of it loses a lead."""

    MISSED = "missed"
    """A notification did not reach Valkey; the sweeper will find the row."""
    OUTAGE = "outage"
    """Valkey went away from a worker: one, however long it lasted."""
    REFUSED = "refused"
    """An entry in the queue was not one of our jobs; it was removed, not run."""
    UNFINISHED = "unfinished"
    """A job ran but Valkey could not be told; it runs again when its lease ends."""


class QueueLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long a worker waits for what, in seconds, and how much it takes at once."""

    job_timeout_s: float = 25.0
    """A job that runs longer is cancelled. Longer than a delivery attempt (20 s), yet a kill is soon made good."""
    lease_margin_s: float = 5.0
    """The lease outlives the timeout by this, for the cancelled job to clean up and for its finish to arrive."""
    poll_delay_s: float = 0.5
    """The longest an idle worker trusts its wake token; a lost token or a lapsed lease is noticed this late."""
    drain_s: float = 25.0
    """How long a stopping worker waits for its running jobs before it gives them back to the queue."""
    batch: int = 8
    """Most jobs taken by one claim; small, so that a burst is shared among the workers."""

    @property
    def patience_s(self) -> float:
        """How long Valkey may take over anything: somewhat longer than the longest wait that it is asked for."""
        return self.poll_delay_s + 1.0


DEFAULT_LIMITS = QueueLimits()

NOTIFY_LIMIT_S = 0.5
"""A notification never takes longer, whatever Valkey does: the answer to the provider waits for it."""
FAILURES_BEFORE_BACK_OFF = 3
"""After so many failed notifications in a row, notifications fail at once..."""
BACK_OFF_S = 1.0
"""...for so long; then one notification tries the connection for all others."""
NOTIFY_CONNECTIONS = 32
"""Most connections of one notifier; further notifications wait for a free one inside their limit."""
FIRST_RETRY_S, LAST_RETRY_S = 0.1, 1.0
"""A worker that lost Valkey tries again after the first, then twice as long each time up to the last."""
LOOK_LIMIT_S = 2.0
"""Whoever asks how the queue stands is told within this time that it does not answer."""
UNBLOCK_S = 0.05
"""A stopping worker is called away from its wait this often until it hears."""
CANCEL_S = 2.0
"""A job given back at the end of a drain has so long to take its cancellation."""

_AWAY = (RedisError, OSError, TimeoutError, RuntimeError)
"""How an absent Valkey shows. RuntimeError is uvloop's word for writing to a transport that has just been closed."""

_WAKE = "arq:wake"
_JOB_NAME = re.compile(r"[a-z][a-z_]{0,39}")

_PRELUDE = f"""
local QUEUE, WAKE = KEYS[1], KEYS[2]
local JOB, LEASE, AGAIN = '{job_key_prefix}', '{in_progress_key_prefix}', 'arq:again:'
local JOB_TTL_MS, MOST_TOKENS = {expires_extra_ms}, 64
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
-- LT: a waiting job keeps its earlier place; one whose lease was lost is due now, not at the end of the lost lease.
elseif redis.call('ZADD', QUEUE, 'LT', 'CH', now, key) == 1 then
  wake()
end
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
-- Each entry read moves behind now, so the reading ends; one that is leased elsewhere does not use up the limit.
while #claims < limit do
  local due = redis.call('ZRANGE', QUEUE, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit - #claims, 'WITHSCORES')
  if #due == 0 then break end
  for i = 1, #due, 2 do claim(due[i], due[i + 1]) end
end
return claims
"""

_FINISH = """
local key, token, give_back = ARGV[1], ARGV[2], ARGV[3] == '1'
-- A lease that lapsed, or was lost with the whole of Valkey, is not ours to end: the job may be another worker's now.
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


class _Payload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """arq's record of a job, narrowed to what may cross: a name and one id."""

    f: str
    a: tuple[UUID]
    k: Annotated[dict[str, None], msgspec.Meta(max_length=0)]
    t: int | None
    et: int


class _Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A job taken under a lease; `token` tells this lease from every other."""

    key: bytes
    job: str
    id: UUID
    token: bytes
    waited_ms: float


def job_key(job: str, id: UUID) -> str:
    """The one name shared by all notifications for this job on this row. Raises for all but a plain name and a UUID."""
    if not _JOB_NAME.fullmatch(job):
        raise ValueError("a job's name is up to 40 lower-case letters and underscores")
    if not isinstance(id, UUID):
        raise TypeError("a job is given a UUID and nothing else")
    return f"{job}:{id}"


def _open(valkey_url: str, *, connections: int, timeout_s: float) -> ArqRedis:
    """A client with a pool of its own, connected at the first command; no inherited path of it can reach pickle.

    Whoever uses it limits each wait: redis-py's own limit on a write costs a task every time, and loses a cancellation
    that comes in the moment in which the write ends.
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
    """One step of the protocol, bound to a client."""

    def __init__(self, valkey: ArqRedis, lua: str) -> None:
        self._script = valkey.register_script(_PRELUDE + lua)

    async def __call__(self, *args: str | bytes | int) -> Any:
        return await self._script(keys=[default_queue_name, _WAKE], args=args)


class Notifier:
    """Notifies workers for one process. Never raises for trouble with Valkey and never waits longer than
    NOTIFY_LIMIT_S.

    `troubles` counts the notifications missed. Close it when the process ends.
    """

    def __init__(self, valkey_url: str) -> None:
        self.troubles: Counter[QueueTrouble] = Counter()
        self._valkey = _open(valkey_url, connections=NOTIFY_CONNECTIONS, timeout_s=NOTIFY_LIMIT_S)
        self._script = _Script(self._valkey, _NOTIFY)
        self._failures = 0
        self._backed_off_until = 0.0

    async def notify(self, job: str, id: UUID) -> bool:
        """Ask for `job` to be run on row `id`. True when Valkey has the notification, new or collapsed into a waiting
        one.

        Call it after the commit that made the row due, and carry on whatever it answers.
        Raises ValueError or TypeError only for arguments that may not cross (see `job_key`).
        """
        key = job_key(job, id)
        if self._is_backing_off():
            self.troubles[QueueTrouble.MISSED] += 1
            return False
        try:
            async with asyncio.timeout(NOTIFY_LIMIT_S):
                await self._script(key, job, str(id))
        except _AWAY as error:
            self._note_failure(error)
            return False
        if self._failures >= FAILURES_BEFORE_BACK_OFF:
            log.info("knocks_heard_again")
        self._failures = 0
        return True

    def _is_backing_off(self) -> bool:
        """Whether to fail at once. After a back-off the first call tries Valkey while others still fail."""
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
            log.warning("knocks_unheard", error=type(error).__name__)
        self._backed_off_until = asyncio.get_running_loop().time() + BACK_OFF_S

    async def close(self) -> None:
        """Let go of the connections."""
        await self._valkey.aclose(close_connection_pool=True)


class _QueueWorker(Worker):
    """An arq worker that is woken, claims in batches, survives its Valkey, and says no more than names and ids."""

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
        self._waiting_connection: Any = None  # the connection at which it waits
        self._waiting_connection_id = 0
        self._more_due = False
        self._decoder = msgspec.json.Decoder(_Payload)

    async def main(self) -> None:
        """Answer until `stopping`, through any number of outages. Leaves running jobs to `drain`."""
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
        """Start what is due; if nothing is, wait for the first reason to look again.

        With every slot taken that reason is a job's end, and the wake tokens are left to workers that have room. With
        room, a job's end is no reason: whatever it leaves to be done has a token of its own.
        """
        async with asyncio.timeout(self._patience_s):
            await self.record_health()
        free = self.max_jobs - len(self.tasks)
        if free == 0:
            waiting = (*self.tasks.values(), stop)
            await asyncio.wait(waiting, timeout=self.poll_delay_s, return_when=asyncio.FIRST_COMPLETED)
            return
        limit = min(free, self._limits.batch)
        found = await self._claim(limit)
        if self._away:
            self._away = False
            log.info("queue_back")
        for key, payload, token, waited_us in found:
            claim = self._read(key, payload, token, waited_us / 1000)
            running = self._refuse(key, token) if claim is None else self._run(claim)
            self._keep(key + b" " + token, asyncio.create_task(running))
        self._more_due = len(found) == limit
        await asyncio.sleep(0)  # the jobs begin before this goes back to the door

    async def _claim(self, limit: int) -> Any:
        """What is due, at most `limit`; unless there is surely more of it, after the wait for a token.

        Token and claim are asked for in one breath, and Valkey claims in the moment in which the token comes. A token
        lost here costs at most a poll delay. Cut off in between, a claim comes due again when its lease ends.
        """
        claim = ("EVAL", _PRELUDE + _CLAIM, 2, default_queue_name, _WAKE, limit, self._lease_ms)
        wait = () if self._more_due else (("BLPOP", _WAKE, self.poll_delay_s),)
        pool = cast(Any, self.pool.connection_pool)
        waiting_connection = self._waiting_connection or await pool.get_connection()
        try:
            async with asyncio.timeout(self._patience_s):
                if self._waiting_connection is None:
                    await waiting_connection.send_command("CLIENT", "ID")
                    self._waiting_connection_id, self._waiting_connection = (
                        await waiting_connection.read_response(),
                        waiting_connection,
                    )
                await waiting_connection.send_packed_command(waiting_connection.pack_commands((*wait, claim)))
                for _ in wait:
                    await waiting_connection.read_response()
                return await waiting_connection.read_response()
        except BaseException:
            self._waiting_connection, self._more_due = None, False
            await waiting_connection.disconnect(nowait=True)
            await pool.release(waiting_connection)
            raise

    async def _end_wait_at_stop(self) -> None:
        """Ends the wait at the door when it is time to stop; again, should it have begun in that very moment."""
        await self._stopping.wait()
        while True:
            with suppress(*_AWAY):
                async with asyncio.timeout(self._patience_s):
                    await cast(Any, self.pool).client_unblock(self._waiting_connection_id)
            await asyncio.sleep(UNBLOCK_S)

    def _keep(self, name: bytes, task: asyncio.Task[None]) -> None:
        """Let the task occupy a slot until it ends."""
        slot = name.decode(errors="replace")
        self.tasks[slot] = task
        task.add_done_callback(lambda _: self.tasks.pop(slot, None))

    def _read(self, key: bytes, payload: bytes, token: bytes, waited_ms: float) -> _Claim | None:
        """The job in the payload, if it is a known one and the very one that its key names."""
        try:
            job = self._decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        if job.f not in self.functions or key != job_key(job.f, job.a[0]).encode():
            return None
        return _Claim(key=key, job=job.f, id=job.a[0], token=token, waited_ms=waited_ms)

    async def _refuse(self, key: bytes, token: bytes) -> None:
        """Remove what is not one of our jobs. Its content is not logged: nobody knows what it is."""
        self._troubles[QueueTrouble.REFUSED] += 1
        log.warning("entry_refused")
        await self._finish(key, token)

    async def _run(self, claim: _Claim) -> None:
        """Run one job to its end, whatever that is, and report it."""
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
        await self._finish(claim.key, claim.token, give_back="1" if give_back else "0")
        self._on_job(claim.job, claim.id, claim.waited_ms, took_ms, error_name)

    async def _finish(self, key: bytes, token: bytes, give_back: str = "0") -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._finish_script(key, token, give_back)
        except _AWAY:
            self._troubles[QueueTrouble.UNFINISHED] += 1

    def _note_outage(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            self._troubles[QueueTrouble.OUTAGE] += 1
            log.warning("queue_away", error=type(error).__name__)

    async def drain(self, patience_s: float) -> None:
        """Wait for the running jobs; after `patience_s` cancel the rest, which puts them back in the queue, due now."""
        if self.tasks:
            await asyncio.wait(self.tasks.values(), timeout=patience_s)
        self._giving_back = True
        for task in self.tasks.values():
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks.values(), timeout=CANCEL_S)


def _function(name: str, job: Job) -> Function:
    """arq's form of a job: it is given a context, which it ignores, and the id."""

    async def coroutine(ctx: dict[Any, Any], id: str) -> None:
        await job(UUID(id))

    return Function(name, coroutine, None, 0, False, 1)


def _log_failure(claim: _Claim, failure: BaseException) -> None:
    """Say which job failed and where, never why in the exception's words: a database error's text may carry values."""
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
    """Run `jobs` as they are knocked for, at most `slots` at a time, until `stopping` is set; then drain and return.

    A Valkey that dies, restarts, is emptied or was never there is waited for, logged once per outage. Cancelling this
    coroutine instead of setting `stopping` gives running jobs back at once. `troubles`, if given, is counted up.
    """
    for name in jobs:
        job_key(name, UUID(int=0))
    # A running job may hold one connection for its finish; the door is another, and so is the call away from it.
    valkey = _open(valkey_url, connections=slots + 2, timeout_s=limits.patience_s)
    queue_worker = _QueueWorker(
        valkey,
        jobs,
        slots=slots,
        stopping=stopping,
        on_job=on_job,
        limits=limits,
        troubles=Counter() if troubles is None else troubles,
    )
    try:
        await queue_worker.main()
    finally:
        await queue_worker.drain(limits.drain_s if stopping.is_set() else 0.0)
        await valkey.aclose(close_connection_pool=True)


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the queue stands. `answered`: some worker has looked for work within the last six seconds."""

    waiting: int
    running: int
    answered: bool
    version: str
    bytes: int


async def look(valkey_url: str) -> QueueStatus | None:
    """The queue as it stands now; None while Valkey does not answer. A job under lease stands at its lease's end."""
    valkey = _open(valkey_url, connections=1, timeout_s=NOTIFY_LIMIT_S)
    try:
        async with asyncio.timeout(LOOK_LIMIT_S):
            seconds, micros = await valkey.time()
            now = seconds * 1000 + micros / 1000
            answered = await valkey.exists(default_queue_name + health_check_key_suffix)
            about: dict[str, Any] = await valkey.info()
            return QueueStatus(
                waiting=await valkey.zcount(default_queue_name, "-inf", now),
                running=await valkey.zcount(default_queue_name, f"({now}", "+inf"),
                answered=bool(answered),
                version=str(about.get("valkey_version") or about["redis_version"]),
                bytes=int(about["used_memory"]),
            )
    except _AWAY:
        return None
    finally:
        await valkey.aclose(close_connection_pool=True)
