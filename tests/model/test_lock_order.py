"""Every transaction takes its locks in one order, so that none ever waits in a circle: by a crowd, and by the text.

    lead → subscription → wallet → endpoint → catalog → credits

Two need no place in it. Usage of caps is touched only under its subscription's lock. An assignment moves only under its
lead's lock, and who takes it up as due work does so alone in a transaction and waits for nobody.
"""

import asyncio
import re
from collections.abc import Iterator
from hashlib import sha256
from random import Random
from typing import Final
from uuid import UUID

import pytest

from marketplace.database.db import open_pool, session
from marketplace.directory import flow as directory_flow
from marketplace.distribution import store as distribution_store
from marketplace.operations.verify import verify
from marketplace.runtime.clock import monotonic
from marketplace.runtime.errors import Conflict
from marketplace.runtime.settings import Settings
from routing.calendar import CapWindow
from routing.subscription import Cap
from tests.builders.marketplaces import anywhere
from tests.model.interleaving import Actor, SteppedPool
from tests.model.transitions import (
    ALL,
    DEAD,
    OPERATOR,
    Pools,
    Stage,
    Subject,
    Transition,
    award,
    deliver,
    edit,
    erase,
    freeze,
    give_back,
    lapse,
    pause,
    run_out,
    stage,
    subscribe_again,
    take_up,
    top_up,
)
from tests.receivers import Behaviour, drop_after_read, ok, refuse
from tests.waiting import PATIENCE, tries

ORDER: Final = ("lead", "subscription", "wallet", "endpoint", "catalog_version", "share_credit")
BUMPS: Final = ("subscription", "vertical", "provider", "business", "endpoint")
"Updates of these raise the catalog's version, by trigger."
SECONDS: Final = 4.0
CROWD: Final = 8


async def switch(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The endpoint's owner switches it on."""
    return await directory_flow.switch_endpoint(pools.api, OPERATOR, ALL, stage.buyers[0].endpoint_id, "disabled")


async def resume(stage: Stage, pools: Pools, subject: Subject) -> object:
    for buyer in stage.buyers:
        await directory_flow.switch_subscription(pools.api, "test", ALL, buyer.subscription_id, "active")
        await directory_flow.change_business(pools.api, "test", buyer.business_id, None, "active", None)
    async with session(pools.owner) as connection:
        await connection.execute("update endpoint set state = 'active', breaker = '{}', breaker_open_until = null")
    return None


# --- a crowd

CROWD_DOES: Final[tuple[tuple[Transition, int], ...]] = (
    (award, 30), (deliver, 30), (take_up, 10), (edit, 3), (pause, 3), (resume, 6), (freeze, 1), (top_up, 15),
    (erase, 3), (lapse, 3), (run_out, 3), (give_back, 3),
)  # fmt: skip
"What the crowd does, and how often."


async def test_a_crowd_of_transitions_on_few_rows_never_deadlocks(settings: Settings) -> None:
    few = (Cap(window=CapWindow.total, count=1_000),)
    orders = (anywhere(priority=1, caps=few), anywhere(priority=1), anywhere(priority=1))
    async with stage(settings, *orders) as arena:
        await subscribe_again(arena)
        owner = arena.market.owner
        await owner.execute("update endpoint set url = $2 where id = $1", arena.buyers[2].endpoint_id, DEAD)
        for buyer in arena.buyers:  # so little money that awards are lost to each other all the time
            await drain(arena, buyer.business_id)
        assert settings.database_url is not None
        async with (
            await open_pool(settings.database_url, "marketplace_worker", size=CROWD) as workers,
            await open_pool(settings.database_url, "marketplace_api", size=CROWD) as api,
        ):
            crowd = Crowd(arena, Pools(owner=owner, api=api, worker=workers))
            await asyncio.gather(*(crowd.live(Random(f"{number}")) for number in range(CROWD)))
        assert crowd.troubles == []
        assert min(crowd.done.values()) > 0
        async with owner.acquire() as connection:
            report = await verify(connection)
            assert [check for check in report.checks if check.findings] == []
            deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
            assert await connection.fetchval(deadlocks) == 0


async def drain(arena: Stage, business_id: object) -> None:
    """A withdrawal of all but the price of one lead."""
    async with arena.market.owner.acquire() as connection, connection.transaction():
        sql = "select available_minor - 6000 from wallet where business_id = $1"
        amount = await connection.fetchval(sql, business_id)
        await connection.execute(
            """insert into transfer (id, kind, amount_minor, currency, business_id, event_id)
            values (gen_random_uuid(), 'withdrawal', $1, 'USD', $2, gen_random_uuid())""",
            amount,
            business_id,
        )
        await connection.execute("update wallet set available_minor = 6000 where business_id = $1", business_id)


class Crowd:
    """Eight who do whatever comes to their minds, on a handful of leads."""

    def __init__(self, arena: Stage, pools: Pools) -> None:
        self.arena, self.pools = arena, pools
        self.subjects: list[Subject] = []
        self.troubles: list[str] = []
        self.done = {transition.__name__: 0 for transition, _ in CROWD_DOES}
        self.until = monotonic() + SECONDS

    async def live(self, chance: Random) -> None:
        transitions, weights = zip(*CROWD_DOES, strict=True)
        answers: tuple[Behaviour, ...] = (ok, ok, refuse("other", 409), drop_after_read)
        while monotonic() < self.until or (not min(self.done.values()) and monotonic() < self.until + PATIENCE):
            subject = await self._subject(chance)
            self.arena.answers = [chance.choice(answers)]
            transition = chance.choices(transitions, weights)[0]
            try:
                await transition(self.arena, self.pools, subject)
            except (Conflict, AssertionError):
                continue  # somebody else edited it first
            except Exception as error:
                self.troubles.append(f"{transition.__name__}: {type(error).__name__} {error}")
            self.done[transition.__name__] += 1

    async def _subject(self, chance: Random) -> Subject:
        """One of the four newest leads, with its newest assignment; now and then a new one."""
        if len(self.subjects) < 4 or chance.random() < 0.25:
            self.subjects.append(await self.arena.take_in())
        lead = chance.choice(self.subjects[-4:])
        latest = "select id from assignment where lead_id = $1 order by awarded_at desc limit 1"
        assignment_id = await self.arena.market.owner.fetchval(latest, lead.lead_id)
        return Subject(lead_id=lead.lead_id, assignment_id=assignment_id, canary=lead.canary)


async def test_a_candidate_that_was_lost_is_unlocked_before_the_next_is_asked(settings: Settings) -> None:
    """Two leads, two orders on one wallet, and each lead asks another of them first: a circle, if losers kept locks."""
    async with stage(settings) as arena:
        owner, here = arena.market.owner, arena.pools
        await owner.execute("update subscription set state = 'ended' where id = $1", arena.buyers[1].subscription_id)
        await subscribe_again(arena)
        one, two = await arena.take_in(), await arena.take_in()
        first = await ranked_first(arena, one)
        for _ in tries("a lead that ranks the other subscription first"):
            if await ranked_first(arena, two) != first:
                break
            two = await arena.take_in()
        async with owner.acquire() as observer:

            async def is_blocked(pid: int) -> bool:
                return bool(await observer.fetchval("select pg_blocking_pids($1) <> '{}'", pid))

            actors = [
                Actor(
                    "award",
                    lambda actor, lead=lead: award(  # type: ignore[misc]
                        arena, Pools(owner=here.owner, api=here.api, worker=actor.stepped(here.worker)), lead
                    ),
                )
                for lead in (one, two)
            ]
            for actor in actors:  # each is about to ask the order that it ranks first
                await actor.advance_to(distribution_store.SQL["award"], is_blocked)
            await pause_subscription(arena, first)
            while not all(actor.done for actor in actors):
                for actor in actors:
                    if not actor.done:
                        await actor.advance(is_blocked)
        assert [actor.outcome for actor in actors if isinstance(actor.outcome, Exception)] == []
        assert await owner.fetchval("select count(*) from assignment") == 2


async def ranked_first(arena: Stage, subject: Subject) -> UUID:
    """The order that this lead asks first: equal in all else, they are told apart by hashes of lead and business, and
    of lead and order."""
    rows = await arena.market.owner.fetch("select id, business_id from subscription where state = 'active'")
    lead = subject.lead_id.bytes
    hashes: dict[UUID, list[bytes]] = {
        row["id"]: [sha256(lead + row[name].bytes).digest()[:16] for name in ("business_id", "id")] for row in rows
    }
    return min(hashes, key=lambda order: hashes[order])


async def pause_subscription(arena: Stage, subscription_id: UUID) -> None:
    await directory_flow.switch_subscription(arena.market.api, "test", ALL, subscription_id, "paused")


# --- the text


@pytest.mark.parametrize(
    "answer", [ok, refuse("other", 410), drop_after_read, None], ids=["200", "410", "silent", "dead"]
)
@pytest.mark.parametrize(
    "transition",
    [award, deliver, take_up, edit, pause, freeze, top_up, erase, lapse, run_out, switch, give_back],
    ids=lambda transition: transition.__name__,
)
async def test_a_transition_locks_in_the_order_of_all(
    settings: Settings, transition: Transition, answer: Behaviour | None
) -> None:
    async with stage(settings) as arena:
        subject = await arena.take_in()
        if transition is not award:
            subject = await arena.award(subject)
        if transition is lapse:
            arena.answers = [drop_after_read]
            await deliver(arena, arena.pools, subject)
        if transition is give_back:
            await deliver(arena, arena.pools, subject)
        if answer is None:
            await arena.market.owner.execute("update endpoint set url = $1", DEAD)
        arena.answers = [answer or ok]
        third = "update assignment set attempts = 3, due_at = clock_timestamp() where due_at is not null"
        await arena.market.owner.execute(third)
        log = Log()
        real = arena.pools
        watched = Pools(
            owner=real.owner, api=SteppedPool(real.api, log.note), worker=SteppedPool(real.worker, log.note)
        )
        await transition(arena, watched, subject)
    assert any(log.transactions)
    for statements in log.transactions:
        in_order(statements)


class Log:
    """The statements of each transaction; one that stands alone is its own."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []
        self._open = False

    async def note(self, statement: str, pid: int | None, _in_transaction: bool) -> None:
        if statement in ("begin", "commit"):
            self._open = statement == "begin"
            self.transactions += [[]] if self._open else []
        elif self._open:
            self.transactions[-1].append(statement)
        else:
            self.transactions.append([statement])


def in_order(statements: list[str]) -> None:
    """Each statement locks only what comes after all that is locked already."""
    held: set[str] = set()
    for statement in statements:
        fresh = {table for table in locked_by(statement) if table in ORDER} - held
        assert not fresh or not held or min(map(ORDER.index, fresh)) > max(map(ORDER.index, held)), (
            f"{sorted(fresh)} after {sorted(held)} in: {statement}"
        )
        held |= fresh


def locked_by(statement: str) -> Iterator[str]:
    """The tables of which a statement locks rows, triggers included."""
    text = re.sub(r"--[^\n]*", "", statement)
    for table in re.findall(r"\bupdate (\w+)(?: (?:as )?\w+)? set\b", text):
        yield table
        if table in BUMPS and not (table == "endpoint" and "breaker" not in text and "state" not in text):
            yield "catalog_version"
    for table in re.findall(r"\bfrom (\w+)\b(?:(?!\bfrom\b).)*?\bfor (?:no key )?update\b", text, re.DOTALL):
        yield table


def test_the_reading_of_statements_sees_locks() -> None:
    assert list(locked_by("select id from lead where id = $1 for no key update")) == ["lead"]
    assert list(locked_by("update subscription set state = $2 where id = $1")) == ["subscription", "catalog_version"]
    with pytest.raises(AssertionError, match="lead"):
        in_order(["update wallet set held_minor = 0", "update lead set state = 'held'"])
