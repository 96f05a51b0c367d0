"""Every two transitions on one lead, each in every gap of the other: one outcome, one business, and the books right."""

import os
from collections.abc import AsyncIterator
from typing import Final

import msgspec
import pytest

from marketplace.errors import Conflict
from marketplace.settings import Settings
from marketplace.verify import verify
from tests.model.interleaving import END, Actor, interleave
from tests.model.transitions import (
    DEAD,
    LATER,
    Pools,
    Stage,
    Subject,
    Transition,
    award,
    deliver,
    edit,
    erase,
    freeze,
    lapse,
    pause,
    restore,
    run_out,
    stage,
    take_up,
    top_up,
)
from tests.receivers import Behaviour, drop_after_read, ok, refuse

BOTH_CUT: Final = bool(os.environ.get("MODEL_DEEP"))
"Also all orders in which each transition is interrupted by the other: some ten times as many."

ANSWERS: Final[dict[str, tuple[Behaviour, ...]]] = {
    "accepted": (ok, ok),
    "refused": (refuse("other", 409), refuse("other", 409)),
    "silent": (drop_after_read, drop_after_read),
    "accepted then refused": (ok, refuse("other", 409)),
    "refused then accepted": (refuse("other", 409), ok),
    "silent then accepted": (drop_after_read, ok),
    "accepted then silent": (ok, drop_after_read),
    "dead": (),
}
"What the business's door does with the first and the second who come."

OTHERS: Final[dict[str, Transition]] = {
    "award": award,
    "take_up": take_up,
    "pause": pause,
    "edit": edit,
    "top_up": top_up,
    "freeze": freeze,
    "erase": erase,
}


class Duel(msgspec.Struct, frozen=True, kw_only=True):
    """Two transitions upon a lead in one state, and how its business's door behaves."""

    begins: str
    first: str
    second: str
    door: str = "accepted"

    def __str__(self) -> str:
        return f"{self.begins}: {self.first} and {self.second}, {self.door}"


TRANSITIONS: Final = OTHERS | {"deliver": deliver, "lapse": lapse, "run_out": run_out}
DUELS: Final = (
    *(Duel(begins="prospect", first="award", second=other) for other in OTHERS),
    *(Duel(begins="prospect", first="erase", second=other) for other in ("erase", "take_up", "pause")),
    *(
        Duel(begins=begins, first="deliver", second="deliver", door=d)
        for begins in ("held", "exposed")
        for d in ANSWERS
    ),
    *(
        Duel(begins="held", first="deliver", second=other, door=door)
        for other in ("award", "take_up", "erase", "run_out")
        for door in ("accepted", "refused", "silent", "dead")
    ),
    *(
        Duel(begins="held", first="deliver", second=other, door=door)
        for other in ("pause", "edit", "top_up", "freeze")
        for door in ("accepted", "dead")
    ),
    *(
        Duel(begins="exposed", first="deliver", second=other, door=door)
        for other in ("award", "take_up", "erase", "lapse", "top_up")
        for door in ("accepted", "refused", "silent")
    ),
    *(Duel(begins="held", first="run_out", second=other) for other in ("erase", "run_out", "award", "pause", "edit")),
    *(Duel(begins="exposed", first="lapse", second=other) for other in ("erase", "lapse", "award", "top_up")),
)


@pytest.fixture
async def arena(settings: Settings) -> AsyncIterator[Stage]:
    async with stage(settings) as arena:
        yield arena


@pytest.mark.parametrize("duel", DUELS, ids=str)
async def test_two_transitions_in_any_order_have_one_outcome(arena: Stage, duel: Duel) -> None:
    first_cut, sent = -1, (END, END)
    while sent[0] > first_cut:  # the second in every gap of the first, and before and after it
        first_cut += 1
        sent = await fight(arena, duel, (first_cut, END))
        for second_cut in range(1, sent[1]) if BOTH_CUT else ():
            await fight(arena, duel, (first_cut, second_cut))
    second_cut, sent = 0, (END, END)
    while sent[1] > second_cut + 1:  # and the first in every gap of the second
        second_cut += 1
        sent = await fight(arena, duel, (0, second_cut))
    async with arena.market.owner.acquire() as connection:
        report = await verify(connection)
    assert [check for check in report.checks if check.findings] == []


async def fight(arena: Stage, duel: Duel, cuts: tuple[int, int]) -> tuple[int, int]:
    """One run on a lead of its own; how many statements each of the two sent."""
    subject = await begin(arena, duel)
    first, second = act(arena, duel.first, subject), act(arena, duel.second, subject)
    async with arena.market.owner.acquire() as observer:

        async def is_blocked(pid: int) -> bool:
            return bool(await observer.fetchval("select pg_blocking_pids($1) <> '{}'", pid))

        try:
            await interleave(first, second, cuts, is_blocked)
        finally:
            for actor in (first, second):
                await actor.stop()
    for actor in (first, second):
        if isinstance(actor.outcome, Exception) and not isinstance(actor.outcome, Conflict):
            raise actor.outcome
    await judge(arena, duel, subject, cuts)
    await restore(arena)
    return len(first.sent), len(second.sent)


def act(arena: Stage, name: str, subject: Subject) -> Actor:
    real = arena.pools

    def run(actor: Actor) -> object:
        stepped = Pools(owner=actor.stepped(real.owner), api=actor.stepped(real.api), worker=actor.stepped(real.worker))
        return TRANSITIONS[name](arena, stepped, subject)

    return Actor(name, run)  # type: ignore[arg-type]


async def begin(arena: Stage, duel: Duel) -> Subject:
    """A lead in the state in which the duel begins, due now; other leads are out of the way."""
    owner = arena.market.owner
    for table in ("lead", "assignment"):
        await owner.execute(f"update {table} set due_at = due_at + $1 where due_at < clock_timestamp() + $1", LATER)
    subject = await arena.take_in()
    if duel.begins != "prospect":
        subject = await arena.award(subject)
        assert subject.assignment_id is not None
    if duel.begins == "exposed":
        arena.answers = [drop_after_read]
        await deliver(arena, arena.pools, subject)
    arena.answers = list(ANSWERS[duel.door])
    if duel.door == "dead":  # the third attempt of a hold is its last
        await owner.execute("update endpoint set url = $2 where id = $1", arena.buyers[0].endpoint_id, DEAD)
        await owner.execute("update assignment set attempts = 3 where id = $1", subject.assignment_id)
    await owner.execute("update assignment set due_at = clock_timestamp() where id = $1", subject.assignment_id)
    await owner.execute(
        "update lead set due_at = clock_timestamp() where id = $1 and due_at is not null", subject.lead_id
    )
    return subject


async def judge(arena: Stage, duel: Duel, subject: Subject, cuts: tuple[int, int]) -> None:
    """What nobody may see, whatever the order: two businesses, two claims, a price for nothing."""
    told = f"{duel}, cut at {cuts}"
    row = await arena.market.row(
        """select l.state, count(a.id) filter (where a.state <> 'released') as live,
               count(t.id) filter (where t.kind = 'capture') as captures, count(distinct e.business_id) as shown
        from lead l left join assignment a on a.lead_id = l.id left join transfer t on t.assignment_id = a.id
        and t.kind = 'capture' left join exposure e on e.lead_id = l.id where l.id = $1 group by l.state""",
        subject.lead_id,
    )
    assert row["live"] <= 1, told
    assert row["captures"] == (row["state"] == "delivered"), told
    seen = arena.seen_by(subject)
    assert len(seen) <= row["shown"] <= 1, told
    if duel.begins == "exposed" or row["state"] in ("exposed", "delivered", "refused", "lapsed"):
        assert row["shown"] == 1, told
