"""Every two transitions on one lead, in every order of their statements: one outcome, one business, the books right.

Statements and commits are the steps; each duel runs one schedule of every set that cannot be told apart by what its
steps touch (tests/model/concerns.py, tests/model/schedules.py). MODEL_DEEP=1 in the environment runs all schedules
there are, which takes far longer. The count of each duel is the property `schedules` in the report of `--junitxml`, and
`pruned` the count of those given up.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import msgspec
import pytest

from marketplace.operations.verify import verify
from marketplace.runtime import clock
from marketplace.runtime.errors import Conflict
from marketplace.runtime.settings import Settings
from tests.builders.inquiries import roofing_body
from tests.model.concerns import Concerns
from tests.model.interleaving import COMMIT, Actor, Pair, interleave
from tests.model.schedules import RunAlready, Schedules
from tests.model.transitions import (
    CERTIFICATE,
    CORRECTED,
    DEAD,
    EARLY,
    LATER,
    POOR,
    Pools,
    Stage,
    Subject,
    Transition,
    ask_anew,
    ask_back,
    award,
    award_and_expose,
    claim,
    come_back,
    correct,
    correct_email,
    deliver,
    edit,
    erase,
    freeze,
    give_back,
    grant,
    join,
    lapse,
    list_person,
    pause,
    restore,
    revoke,
    run_out,
    stage,
    start_sooner,
    stop_waiting,
    take,
    take_up,
    take_up_shown,
    top_up,
    touch,
)
from tests.receivers import Behaviour, drop_after_read, ok, refuse

UNREDUCED: Final = bool(os.environ.get("MODEL_DEEP"))

no: Final = refuse("other", 409)
ANSWERS: Final[dict[str, tuple[Behaviour, ...]]] = {
    "accepted": (ok, ok),
    "refused": (no, no),
    "silent": (drop_after_read, drop_after_read),
    "accepted then refused": (ok, no),
    "refused then accepted": (no, ok),
    "silent then accepted": (drop_after_read, ok),
    "accepted then silent": (ok, drop_after_read),
    "dead": (),
}
"Answers of the business's server to the first and the second request."

OTHERS: Final[dict[str, Transition]] = {
    "award": award,
    "take_up": take_up,
    "pause": pause,
    "edit": edit,
    "top_up": top_up,
    "freeze": freeze,
    "erase": erase,
    "touch": touch,
}


class Duel(msgspec.Struct, frozen=True, kw_only=True):
    """Two transitions upon a lead in one state, and the behaviour of its business's server."""

    begins: str
    first: str
    second: str
    server: str = "accepted"

    def __str__(self) -> str:
        return f"{self.begins}: {self.first} and {self.second}, {self.server}"


SHOWN: Final = ("exposed", "delivered", "refused", "lapsed", "returned")

RETURNS: Final[dict[str, Transition]] = {"ask_back": ask_back, "grant": grant, "give_back": give_back}

TRANSITIONS: Final = (
    OTHERS
    | RETURNS
    | {
        "award_and_expose": award_and_expose,
        "ask_anew": ask_anew,
        "claim": claim,
        "correct_email": correct_email,
        "list_person": list_person,
        "come_back": come_back,
        "correct": correct,
        "deliver": deliver,
        "join": join,
        "lapse": lapse,
        "revoke": revoke,
        "run_out": run_out,
        "start_sooner": start_sooner,
        "stop_waiting": stop_waiting,
        "take": take,
        "take_up_shown": take_up_shown,
    }
)
DUELS: Final = (
    *(Duel(begins="prospect", first="award", second=other) for other in OTHERS),
    *(Duel(begins="prospect", first="award_and_expose", second=other) for other in ("award_and_expose", *OTHERS)),
    *(Duel(begins="prospect", first="erase", second=other) for other in ("erase", "take_up", "pause")),
    *(
        Duel(begins=begins, first="deliver", second="deliver", server=d)
        for begins in ("held", "exposed")
        for d in ANSWERS
    ),
    *(
        Duel(begins="held", first="deliver", second=other, server=server)
        for other in ("award", "take_up", "erase", "run_out")
        for server in ("accepted", "refused", "silent", "dead")
    ),
    *(
        Duel(begins="held", first="deliver", second=other, server=server)
        for other in ("pause", "edit", "top_up", "freeze")
        for server in ("accepted", "dead")
    ),
    *(
        Duel(begins="exposed", first="deliver", second=other, server=server)
        for other in ("award", "take_up_shown", "erase", "lapse", "top_up")
        for server in ("accepted", "refused", "silent")
    ),
    *(Duel(begins="held", first="run_out", second=other) for other in ("erase", "run_out", "award", "pause", "edit")),
    *(Duel(begins="exposed", first="lapse", second=other) for other in ("erase", "lapse", "award", "top_up")),
    *(Duel(begins="delivered", first="ask_back", second=other) for other in ("ask_back", "erase", "give_back")),
    *(Duel(begins="asked back", first="grant", second=other) for other in ("grant", "ask_back", "erase", "top_up")),
    *(Duel(begins="prospect", first="touch", second=other) for other in ("touch", "erase")),
    Duel(begins="held", first="deliver", second="touch"),
    Duel(begins="exposed", first="deliver", second="touch"),
    *(
        Duel(begins="prospect", first="join", second=other)
        for other in ("award", "award_and_expose", "erase", "touch", "join")
    ),
    Duel(begins="held", first="deliver", second="join"),
    Duel(begins="exposed", first="deliver", second="join"),
    Duel(begins="exposed", first="lapse", second="join"),
    Duel(begins="asked back", first="grant", second="join"),
    *(Duel(begins="joined", first="deliver", second=other) for other in ("deliver", "join", "run_out")),
    *(Duel(begins="joined, asked back", first="grant", second=other) for other in ("grant", "join")),
    Duel(begins="delivered", first="erase", second="join"),
    *(Duel(begins="rejected", first="come_back", second=other) for other in ("ask_anew", "come_back", "erase")),
    Duel(begins="exposed", first="deliver", second="give_back"),
    *(
        Duel(begins="waiting", first="stop_waiting", second=other)
        for other in ("stop_waiting", "start_sooner", "erase")
    ),
    *(
        Duel(begins="ready again", first="stop_waiting", second=other)
        for other in ("award", "award_and_expose", "start_sooner")
    ),
    *(
        Duel(begins="prospect", first="revoke", second=other)
        for other in ("award", "award_and_expose", "erase", "revoke")
    ),
    *(
        Duel(begins=begins, first="deliver", second="revoke", server=server)
        for begins in ("held", "exposed")
        for server in ("accepted", "refused", "silent")
    ),
    Duel(begins="held", first="run_out", second="revoke"),
    Duel(begins="exposed", first="lapse", second="revoke"),
    Duel(begins="asked back", first="grant", second="revoke"),
    *(
        Duel(begins="in the inbox", first="take", second=other)
        for other in ("take", "run_out", "revoke", "erase", "take_up", "touch", "freeze")
    ),
    *(
        Duel(begins="prospect", first="correct", second=other)
        for other in ("award", "award_and_expose", "erase", "touch", "correct")
    ),
    *(
        Duel(begins=begins, first="deliver", second="correct", server=server)
        for begins in ("held", "exposed")
        for server in ("accepted", "refused", "silent")
    ),
    *(Duel(begins="held", first="correct", second=other) for other in ("correct", "erase", "run_out", "award", "edit")),
    Duel(begins="exposed", first="lapse", second="correct"),
    *(Duel(begins="prospect", first=award, second="list_person") for award in ("award", "award_and_expose")),
    Duel(begins="held", first="deliver", second="list_person"),
    *(
        Duel(begins="certified", first="claim", second=other)
        for other in ("award", "award_and_expose", "correct_email", "revoke")
    ),
)


@pytest.fixture
async def arena(settings: Settings) -> AsyncIterator[Stage]:
    async with stage(settings) as arena:
        yield arena


@pytest.mark.parametrize("duel", DUELS, ids=str)
async def test_two_transitions_in_any_order_have_one_outcome(
    arena: Stage, duel: Duel, record_property: Callable[[str, object], None]
) -> None:
    async with arena.market.owner.acquire() as connection:
        concerns = await Concerns.of(connection, answers_differ=len(set(ANSWERS[duel.server])) > 1)
    schedules = Schedules(None if UNREDUCED else concerns, alike=not UNREDUCED and duel.first == duel.second)
    await fight(arena, duel, schedules)
    while schedules.more():
        await fight(arena, duel, schedules)
    record_property("schedules", schedules.whole)
    record_property("pruned", schedules.pruned)
    async with arena.market.owner.acquire() as connection:
        report = await verify(connection)
    assert [check for check in report.checks if check.findings] == []


async def fight(arena: Stage, duel: Duel, schedules: Schedules) -> None:
    """One schedule, on a lead of its own."""
    subject = await begin(arena, duel)
    actors = act(arena, duel.first, subject), act(arena, duel.second, subject)
    async with arena.market.owner.acquire() as observer:

        async def is_blocked(pid: int) -> bool:
            return bool(await observer.fetchval("select pg_blocking_pids($1) <> '{}'", pid))

        schedules.begin()
        try:
            await interleave(actors, schedules.choose, is_blocked)
        except RunAlready:
            schedules.pruned += 1
            return
        finally:
            for actor in actors:
                await actor.stop()
            await restore(arena)
    schedules.whole += 1
    for actor in actors:
        if isinstance(actor.outcome, Exception) and not isinstance(actor.outcome, Conflict):
            raise actor.outcome
    await judge(arena, duel, subject, actors)


def act(arena: Stage, name: str, subject: Subject) -> Actor:
    real = arena.pools

    def run(actor: Actor) -> object:
        stepped = Pools(
            owner=actor.stepped(real.owner),
            api=actor.stepped(real.api),
            worker=actor.stepped(real.worker),
            feeder=actor.stepped(real.feeder),
        )
        return TRANSITIONS[name](arena, stepped, subject)

    return Actor(name, run)  # type: ignore[arg-type]


PUT_OFF: Final = """
with claims as (update assignment set due_at = due_at + $1 where due_at < clock_timestamp() + $1)
update lead set due_at = due_at + $1 where due_at < clock_timestamp() + $1"""

TAKES_BY_HAND: Final = "update endpoint set kind = 'inbox', url = null, secret = null where id = $1 and kind = 'push'"

CALL_UP: Final = """
with claims as (update assignment set due_at = clock_timestamp() where id = $1 and due_at is not null)
update lead set due_at = clock_timestamp() where id = $2 and due_at is not null"""


ALIKE: Final = """
select distinct l.id, l.state from lead l join inquiry i on i.id = l.id
where i.provider_reference like (select provider_reference || '%' from inquiry where id = $1)"""


ANSWERED: Final = {"rejected": {"bant": POOR}, "waiting": {"bant": EARLY}, "ready again": {"bant": EARLY}}
"Answers of the person for the states that follow from them. A lead that is ready again has waited until a touch."

JOINED_ANOTHER: Final = """
select count(*) from inquiry i
where i.provider_reference like (select provider_reference || '%' from inquiry where id = $1)
  and i.joined_lead_id <> $1"""

CORRECTIONS: Final = "select count(*) from correction where lead_id = $1"
UNANNOUNCED: Final = """
select count(*) from correction c
left join assignment a on a.lead_id = c.lead_id and a.state <> 'released'
left join decision d on d.assignment_id = a.id
left join notice n on n.lead_id = c.lead_id and n.kind = 'updated' and (n.detail ->> 'revision')::int = c.revision
where c.lead_id = $1 and coalesce(a.state not in ('refused', 'lapsed'), true)
  and (n.id is not null) <> coalesce(a.state in ('exposed', 'delivered') and d.revision < c.revision, false)"""
"Corrections that are neither in the facts of the award that was shown nor in a notice to its business, or in both."
PAID: Final = """
select count(t.id) filter (where t.kind = 'payout') as payouts,
       count(t.id) filter (where t.kind = 'claw_back') as claw_backs,
       (select count(*) from payout_claim where lead_id = $1) as claims
from assignment a left join transfer t on t.assignment_id = a.id where a.lead_id = $1"""
"Payouts and claw-backs of a lead: one, or one each of its provider and the other where an inquiry joined it in time."

ANNOUNCED_ERASED: Final = """
select count(*) from notice join erasure using (lead_id)
where lead_id = $1 and notice.kind = 'updated' and notice.state <> 'withdrawn'"""


PUBLICATION: Final = "update contact_list set version"
"Beginning of the statement whose transaction publishes a list."
TAKING: Final = ("award_lead(", "insert into exposure")
"Parts of the statements that award and expose a lead."

CERTIFICATE_ROW: Final = """
select c.state, l.certificates, exists (select from correction where lead_id = l.id) as corrected
from certificate c join lead l on l.id = c.lead_id where l.id = $1"""

ANNOUNCED_STOP: Final = "select count(*) from notice where lead_id = $1 and kind in ('revoked', 'erased')"
ENDED: Final = ("expired", "rejected", "unsold", "erased", *SHOWN)
"States of a lead that nobody is shown any more."


async def begin(arena: Stage, duel: Duel) -> Subject:
    """A lead in the state in which the duel begins, due now; other leads are out of the way."""
    owner = arena.market.owner
    await owner.execute(PUT_OFF, LATER)
    sections = ANSWERED.get(duel.begins, {})
    if duel.begins == "certified":
        sections = {"consent": roofing_body(now=clock.now())["consent"] | {"certificates": [CERTIFICATE]}}
    if duel.begins == "in the inbox":
        await owner.execute(TAKES_BY_HAND, arena.buyers[0].endpoint_id)
    subject = await arena.take_in(**sections)
    if duel.begins in ANSWERED:
        await arena.award(subject)
        if duel.begins == "ready again":
            await start_sooner(arena, arena.pools, subject)
    elif duel.begins not in ("prospect", "certified"):
        subject = await arena.award(subject)
        assert subject.assignment_id is not None
    if duel.begins == "in the inbox":
        await deliver(arena, arena.pools, subject)
    if duel.begins in ("joined", "joined, asked back"):
        await join(arena, arena.pools, subject)
    if duel.begins in ("exposed", "delivered", "asked back", "joined, asked back"):
        arena.answers = [drop_after_read if duel.begins == "exposed" else ok]
        await deliver(arena, arena.pools, subject)
    if duel.begins in ("asked back", "joined, asked back"):
        await ask_back(arena, arena.pools, subject)
    arena.answers = list(ANSWERS[duel.server])
    if duel.server == "dead":  # the third attempt of a hold is its last
        await owner.execute("update endpoint set url = $2 where id = $1", arena.buyers[0].endpoint_id, DEAD)
        await owner.execute("update assignment set attempts = 3 where id = $1", subject.assignment_id)
    await owner.execute(CALL_UP, subject.assignment_id, subject.lead_id)
    return subject


async def judge(arena: Stage, duel: Duel, subject: Subject, actors: Pair) -> None:
    """Check what must not exist after any order: two businesses, two live claims, a charge without evidence."""
    duel_words = f"{duel}, {[actor.sent for actor in actors]}"
    row = await arena.market.row(
        """select l.state, count(a.id) filter (where a.state <> 'released') as live,
               count(t.id) filter (where t.kind = 'capture') as captures, count(distinct e.business_id) as shown
        from lead l left join assignment a on a.lead_id = l.id left join transfer t on t.assignment_id = a.id
        and t.kind = 'capture' left join exposure e on e.lead_id = l.id where l.id = $1 group by l.state""",
        subject.lead_id,
    )
    assert row["live"] <= 1, duel_words
    assert row["captures"] == (row["state"] in ("delivered", "returned")), duel_words
    seen_by = arena.seen_by(subject)
    assert len(seen_by) <= row["shown"] <= 1, duel_words
    if duel.begins in ("exposed", "delivered", "asked back", "joined, asked back") or row["state"] in SHOWN:
        assert row["shown"] == 1, duel_words
    if duel.first == "stop_waiting" and actors[0].outcome is None:
        assert (row["live"], row["shown"]) == (0, 0), duel_words
        assert row["state"] in ("expired", "erased"), duel_words
    if "revoke" in (duel.first, duel.second):
        assert row["state"] in ENDED, duel_words
        notices = await arena.market.owner.fetchval(ANNOUNCED_STOP, subject.lead_id)
        assert (notices > 0) == (row["shown"] == 1), duel_words
    if "correct" in (duel.first, duel.second) and "erase" not in (duel.first, duel.second):
        assert await arena.market.owner.fetchval(UNANNOUNCED, subject.lead_id) == 0, duel_words
        corrections = [duel.first, duel.second].count("correct")
        made = await arena.market.owner.fetchval(CORRECTIONS, subject.lead_id)
        assert made >= 1, duel_words
        assert made + sum(isinstance(actor.outcome, Conflict) for actor in actors) <= corrections, duel_words
    if duel.second == "list_person":
        judge_list(duel_words, row, actors)
    if duel.first == "claim":
        await judge_claim(arena, duel_words, subject, row)
    paid = await arena.market.row(PAID, subject.lead_id)
    assert paid["payouts"] == (row["captures"] and (2 if paid["claims"] else 1)), (duel_words, paid)
    assert paid["claw_backs"] == (paid["payouts"] if row["state"] == "returned" else 0), (duel_words, paid)
    if "join" in (duel.first, duel.second):
        assert await arena.market.owner.fetchval(JOINED_ANOTHER, subject.lead_id) == 0, duel_words
        assert await arena.market.owner.fetchval(ANNOUNCED_ERASED, subject.lead_id) == 0, duel_words
        if "erase" not in (duel.first, duel.second):
            states = await arena.market.owner.fetch(ALIKE, subject.lead_id)
            joins = [duel.first, duel.second].count("join") + duel.begins.startswith("joined")
            expected = sorted([row["state"], *["duplicate"] * joins])
            assert sorted(each["state"] for each in states) == expected, duel_words
    if "ask_anew" in (duel.first, duel.second):
        states = await arena.market.owner.fetch(ALIKE, subject.lead_id)
        assert sorted(each["state"] for each in states) in (["duplicate", "received"], ["received", "rejected"]), states


def judge_list(duel_words: str, row: Mapping[str, object], actors: Pair) -> None:
    """Nobody is awarded or exposed by a statement that was sent after the list with the person was published."""
    taking, publishing = actors
    place = next(place for place, sql in enumerate(publishing.sent) if PUBLICATION in sql)
    published_at = publishing.sent_at[publishing.sent.index(COMMIT, place)]
    taken_at = [at for sql, at in zip(taking.sent, taking.sent_at, strict=True) if any(part in sql for part in TAKING)]
    if taken_at and min(taken_at) < published_at:
        return
    assert row["shown"] == 0, duel_words
    assert row["live"] == 0 or taking.name == "deliver", duel_words


async def judge_claim(arena: Stage, duel_words: str, subject: Subject, row: Mapping[str, object]) -> None:
    """Nobody has a lead whose certificate is pending, and a verified one is of the contact as it is now."""
    [certificate] = await arena.market.owner.fetch(CERTIFICATE_ROW, subject.lead_id)
    if row["live"] or row["shown"]:
        assert certificate["state"] != "pending", duel_words
    if certificate["certificates"] == "verified" and certificate["corrected"]:
        mark = (CORRECTED + subject.canary).encode()
        assert any(mark in visit.raw for visit in arena.service.visits), duel_words
