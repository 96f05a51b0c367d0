"""Each promise has two protections: a constraint, and a lock or a check in code. Here each one holds alone.

Without the constraint, dropped in the test's own database, the flows keep the promise however many run at once. Without
the lock, the statements sent past it, the constraint keeps it. So a test fails when either of them is removed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

import asyncpg
import pytest

from marketplace.database.db import transaction
from marketplace.delivery import store as delivery_store
from marketplace.distribution import store as distribution_store
from marketplace.distribution.store import Decision, NewAssignment
from marketplace.ledger import money
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from routing.calendar import CapWindow, window_starts
from routing.lifecycle import AssignmentState, LeadState
from routing.subscription import Cap
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import PAYOUT_MINOR, PRICE_MINOR, anywhere
from tests.builders.service import waits_for_locks
from tests.model.interleaving import Actor
from tests.model.transitions import DEAD, Pools, Stage, Subject, award, deliver, gather_all, stage, subscribe_again
from tests.receivers import ok

CROWD: Final = 8
NO_LIFE_TABLES: Final = (
    "alter table lead disable trigger lead_move",
    "alter table assignment disable trigger assignment_move",
)
HOLD_AGAIN: Final = """
insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id)
select gen_random_uuid(), 'hold', price_minor, currency, business_id, id from assignment
"""
TWO: Final = (Cap(window=CapWindow.total, count=2),)


@pytest.fixture
async def arena(settings: Settings) -> AsyncIterator[Stage]:
    async with stage(settings, anywhere(caps=TWO)) as arena:
        yield arena


async def drop(arena: Stage, *statements: str) -> None:
    for statement in statements:
        await arena.market.owner.execute(statement)


async def count(arena: Stage, sql: str, *values: object) -> int:
    return int(await arena.market.value(f"select count(*) from {sql}", *values))


async def held(arena: Stage) -> Subject:
    subject = await arena.award(await arena.take_in())
    assert subject.assignment_id is not None
    return subject


async def run_overlapping(arena: Stage, barrier: str, *actions: Coroutine[Any, Any, object]) -> None:
    """Run all `actions` at once, and let none go on before all have stopped at a lock.

    `barrier` is a statement that locks what each action writes after it has read what its own lock protects. An action
    that does not take its own lock has then read the old state before any other has changed it, in every run.
    """
    expected: int = min(len(actions), arena.market.worker.get_max_size())

    async with arena.market.owner.acquire() as connection:
        async with connection.transaction():
            await connection.execute(barrier)
            tasks = [asyncio.create_task(action) for action in actions]
            overlapped = await waits_for_locks(arena.market, expected)
        await asyncio.gather(*tasks)
    assert overlapped, "the actions did not overlap: no more than some of them waited for a lock"


# --- without the constraint, the code


async def test_locks_alone_keep_a_lead_to_one_exposure(arena: Stage) -> None:
    await drop(arena, "alter table exposure drop constraint exposure_pkey")
    subject = await held(arena)
    deliveries_at_once = (deliver(arena, arena.pools, subject) for _ in range(CROWD))
    await run_overlapping(arena, "lock table exposure in share mode", *deliveries_at_once)
    assert await count(arena, "exposure") == 1


async def test_locks_alone_keep_a_lead_to_one_live_assignment(arena: Stage) -> None:
    await drop(arena, "drop index assignment_one_live")
    subject = await arena.take_in()
    awards_at_once = (award(arena, arena.pools, subject) for _ in range(CROWD))
    await run_overlapping(arena, "select from subscription for no key update", *awards_at_once)
    assert await count(arena, "assignment") == 1


async def test_locks_alone_keep_a_cap(arena: Stage) -> None:
    await drop(arena, "alter table cap_usage drop constraint cap_usage_count")
    subjects = [await arena.take_in() for _ in range(CROWD)]
    awards_at_once = (award(arena, arena.pools, subject) for subject in subjects)
    await run_overlapping(arena, "select from wallet for no key update", *awards_at_once)
    assert await count(arena, "assignment") == 2


async def test_locks_alone_keep_a_wallet_from_being_overdrawn(settings: Settings) -> None:
    """Assign leads of two subscriptions with one wallet, so that a subscription's lock is not enough."""
    async with stage(settings, anywhere(priority=1), anywhere(priority=2)) as arena:
        await subscribe_again(arena)
        await drop(
            arena,
            "alter table wallet drop constraint wallet_covers",
            f"update wallet set available_minor = {PRICE_MINOR + 1_000}",
        )
        subjects = [await arena.take_in() for _ in range(CROWD)]
        awards_at_once = (award(arena, arena.pools, subject) for subject in subjects)
        await run_overlapping(arena, "lock table transfer in share mode", *awards_at_once)
        assert await count(arena, "assignment") == 2
        assert await arena.market.value("select min(available_minor) from wallet") == 1_000


async def test_locks_alone_keep_a_hold_to_one_settlement(arena: Stage) -> None:
    await drop(arena, "drop index transfer_one_hold, transfer_one_settlement, transfer_one_payout")
    subject = await held(arena)
    deliveries_at_once = (deliver(arena, arena.pools, subject) for _ in range(CROWD))
    await run_overlapping(arena, "lock table transfer in share mode", *deliveries_at_once)
    kinds = await arena.market.value("select array_agg(kind order by kind) from transfer where kind <> 'top_up'")
    assert kinds == ["capture", "hold", "payout"]


async def test_without_the_window_constraint_nobody_is_taken_in(arena: Stage) -> None:
    """Intake has no second opinion on who was here before: it claims the window by name, or fails."""
    await drop(arena, "alter table person_window drop constraint person_window_once")
    outcomes = await gather_all(*(arena.market.submit(n, provider_reference=f"r-{n}") for n in range(CROWD)))
    assert [type(outcome) for outcome in outcomes] == [asyncpg.UndefinedObjectError] * CROWD
    assert await count(arena, "inquiry") == 0


async def test_locks_alone_keep_an_exposed_lead_from_being_released(arena: Stage) -> None:
    """An attempt that found the server unreachable comes back after another attempt has exposed the lead."""
    await drop(
        arena,
        "alter table exposure drop constraint exposure_assignment, drop constraint exposure_lead",
        *NO_LIFE_TABLES,
    )
    subject = await held(arena)
    owner, here = arena.market.owner, arena.pools
    await owner.execute("update endpoint set url = $1", DEAD)
    await owner.execute("update assignment set attempts = 3")

    def late(actor: Actor) -> Awaitable[object]:
        return deliver(arena, Pools(owner=owner, api=here.api, worker=actor.stepped(here.worker)), subject)

    actor = Actor("deliver", late)
    await actor.advance_to(delivery_store.SQL["lock_delivery"], nobody_waits)
    await owner.execute("update endpoint set url = $1", arena.receivers[0].url)
    await deliver(arena, here, subject)
    while not actor.done:
        await actor.advance(nobody_waits)
    assert await arena.market.state(subject.lead_id) == "delivered"
    assert await count(arena, "assignment where state = 'released'") == 0


async def nobody_waits(_pid: int) -> bool:
    return False


# --- without the lock, the constraint

Deed = Callable[[Any], Awaitable[object]]


async def one_is_refused(arena: Stage, constraint: str, *deeds: Deed) -> None:
    """All at once, each in a transaction of its own: one is committed, and the others run into the constraint."""

    async def do(deed: Deed) -> object:
        async with transaction(arena.market.worker) as connection:
            return await deed(connection)

    outcomes = await gather_all(*(do(deed) for deed in deeds))
    refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert [getattr(error, "constraint_name", error) for error in refused] == [constraint] * (len(deeds) - 1), refused


async def test_the_constraint_alone_keeps_a_lead_to_one_exposure(arena: Stage) -> None:
    subject = await held(arena)
    await drop(
        arena, "alter table lead disable trigger lead_move", "alter table assignment disable trigger assignment_move"
    )
    await arena.market.owner.execute("update lead set state = 'exposed'")

    async def expose(connection: Any) -> None:
        await connection.execute(
            """insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address,
                attempt_no) select lead_id, id, business_id, 'push', endpoint_id, '', '127.0.0.1', 1 from assignment
            where id = $1""",
            subject.assignment_id,
        )

    await one_is_refused(arena, "exposure_pkey", *[expose] * 4)


async def test_the_constraint_alone_keeps_a_lead_to_one_live_assignment(arena: Stage) -> None:
    subject = await arena.take_in()
    await leave_out_the_questions(arena)
    await one_is_refused(arena, "assignment_one_live", *(claim(arena, subject) for _ in range(4)))


async def test_the_constraint_alone_keeps_a_cap(arena: Stage) -> None:
    subjects = [await arena.take_in() for _ in range(3)]
    await leave_out_the_questions(arena)
    caps = (Cap(window=CapWindow.total, count=1),)
    await one_is_refused(arena, "cap_usage_count", *(claim(arena, subject, caps) for subject in subjects))


async def test_the_constraint_alone_keeps_a_wallet_from_being_overdrawn(arena: Stage) -> None:
    subjects = [await arena.take_in() for _ in range(3)]
    await leave_out_the_questions(arena)
    await drop(arena, f"update wallet set available_minor = {PRICE_MINOR}")
    await one_is_refused(arena, "wallet_covers", *(claim(arena, subject) for subject in subjects))


async def test_the_constraint_alone_keeps_an_assignment_to_one_hold(arena: Stage) -> None:
    await held(arena)
    with pytest.raises(asyncpg.UniqueViolationError, match="transfer_one_hold"):
        await arena.market.owner.execute(HOLD_AGAIN)


async def test_the_constraint_alone_keeps_a_hold_to_one_settlement(arena: Stage) -> None:
    """Hold money for two leads, so that the wallet covers a second settlement of the first."""
    subject, _other = await held(arena), await held(arena)
    await drop(arena, "drop index transfer_one_payout")
    case = await delivery_store.find_delivery(arena.market.worker, subject.assignment_id)  # type: ignore[arg-type]
    assert case is not None
    deeds: list[Deed] = [
        lambda connection: money.capture(connection, case.price, clock.now()),
        lambda connection: money.release(connection, case.price, clock.now()),
    ]
    await one_is_refused(arena, "transfer_one_settlement", *deeds, *deeds)


async def test_the_constraint_alone_keeps_a_person_to_one_lead(arena: Stage) -> None:
    """Nobody looks before: as many inquiries of one person as you like, at the same moment."""
    outcomes = await gather_all(
        *(arena.market.submit(1, provider_reference=f"r-{n}", contact=roofing_body(1)["contact"]) for n in range(CROWD))
    )
    assert sorted(str(getattr(outcome, "state", outcome)) for outcome in outcomes) == ["duplicate"] * 7 + ["received"]
    sql = """insert into person_window (lead_id, key, vertical_id, during)
        select gen_random_uuid(), key, vertical_id, during from person_window limit 1"""
    with pytest.raises(asyncpg.ExclusionViolationError, match="person_window_once"):
        await arena.market.api.execute(sql)


async def test_the_constraints_alone_keep_an_exposed_lead_from_being_released(arena: Stage) -> None:
    subject = await held(arena)
    arena.answers = [ok]
    await deliver(arena, arena.pools, subject)
    await drop(
        arena,
        *NO_LIFE_TABLES,
        "alter table assignment drop constraint assignment_evidenced, drop constraint assignment_exposed_at",
    )
    async with arena.market.owner.acquire() as connection:
        with pytest.raises(asyncpg.ForeignKeyViolationError, match="exposure_assignment"):
            await connection.execute("update assignment set state = 'released', evidence = null")
        with pytest.raises(asyncpg.ForeignKeyViolationError, match="exposure_lead"):
            await connection.execute("update lead set state = 'prospect', due_at = now()")


async def test_the_life_table_alone_keeps_an_exposed_lead_from_being_released(arena: Stage) -> None:
    """The statement of a release, sent without the lock and the question that come before it."""
    subject = await held(arena)
    arena.answers = [ok]
    await deliver(arena, arena.pools, subject)
    case = await delivery_store.find_delivery(arena.market.worker, subject.assignment_id)  # type: ignore[arg-type]
    assert case is not None
    assert case.state is AssignmentState.delivered
    with pytest.raises(asyncpg.CheckViolationError, match="never moves from delivered"):
        async with transaction(arena.market.worker) as connection:
            await delivery_store.mark_released(connection, case, "by mistake", clock.now(), clock.now())


async def leave_out_the_questions(arena: Stage) -> None:
    """The award as it is written, without any of its locks and questions."""
    whole = await arena.market.value("select pg_get_functiondef('award_lead(jsonb)'::regprocedure)")
    questions, writes = whole.index("perform from lead"), whole.index("update lead set state = 'held'")
    await drop(arena, whole[:questions] + whole[writes:])


def claim(arena: Stage, subject: Subject, caps: tuple[Cap, ...] = ()) -> Deed:
    buyer, now = arena.buyers[0], clock.now()
    new = NewAssignment(
        id=clock.new_id(),
        lead_id=subject.lead_id,
        business_id=buyer.business_id,
        subscription_id=buyer.subscription_id,
        subscription_version=1,
        endpoint_id=buyer.endpoint_id,
        provider_id=arena.market.provider.owner,
        mode="live",
        price_minor=PRICE_MINOR,
        payout_minor=PAYOUT_MINOR,
        currency="USD",
        due_at=now,
        awarded_at=now,
        hold_until=now + timedelta(minutes=2),
        window_starts=window_starts(now, "America/Chicago"),
    )
    decision = Decision(
        id=clock.new_id(),
        lead_id=subject.lead_id,
        made_at=now,
        outcome="held",
        reason=None,
        vertical_version=1,
        catalog_version=1,
        strategy=None,
        verdict=b"{}",
        candidates=b"[]",
        left_out=0,
    )

    async def do(connection: Any) -> NewAssignment:
        await distribution_store.award(connection, new, caps, decision, expected=LeadState.received)
        return new

    return do
