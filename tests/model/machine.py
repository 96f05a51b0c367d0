"""Any sequence of moves by any number of processes, and what must hold after each of them.

Hypothesis draws the bytes that choose the moves, upon what, and when: all bytes of an example at once, because drawing
each choice by itself, as its state machines do, takes longer than the moves. A Plan that was decided and not committed,
and a Visit that has not come back, stay in the world's hands: committed late, twice decided, or never, as by a process
that was stopped or killed. Afterwards the world is left to the sweeper alone and must come to rest.

Run as a program, it takes as many steps as it is told and prints how many it took.
"""

import argparse
import os
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import combinations
from time import monotonic
from typing import ClassVar, Final
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st

from routing.delivery import NoAnswer, NoAnswerReason, NotSent, NotSentReason
from routing.inquiry import Mode
from routing.lifecycle import OPEN_ASSIGNMENT, SEEN, WAITING_LEAD, AssignmentState, LeadState
from routing.ranking import Strategy
from tests.model.world import ANSWERS, CAPS, SIDES, ZONE, Claim, Kind, Lead, Plan, Visit, World

STEPS: Final = 100
"Moves in one example, less those that a byte of 0 leaves out, by which Hypothesis shortens a failing example."
MOVE_BYTES: Final = 5
"Which kind of move, two choices of its own, and two bytes for which lead, claim or other row."
BEGINNING_BYTES: Final = 2
"When and with which strategy the example begins, and which kinds of moves it leaves out."
MOST_LEADS: Final = 8
REST_WITHIN: Final = timedelta(hours=25)
"How soon everything ends once the sweeper runs and nothing else does."
MOST_SWEEPS: Final = 2_000

BEFORE_SPRING: Final = datetime(2026, 3, 8, 4, 0, tzinfo=UTC)
BEFORE_AUTUMN: Final = datetime(2026, 11, 1, 3, 0, tzinfo=UTC)
"Late on the evenings before the clocks of the caps' zone change."

CLAIMED: Final = {
    AssignmentState.held: LeadState.held,
    AssignmentState.exposed: LeadState.exposed,
    AssignmentState.delivered: LeadState.delivered,
    AssignmentState.refused: LeadState.refused,
    AssignmentState.lapsed: LeadState.lapsed,
}
"The lead's state beside each state of its live assignment."

UNSENT = (
    NotSentReason.dns_failed,
    NotSentReason.connect_refused,
    NotSentReason.connect_timeout,
    NotSentReason.tls_wrong_host,
)
DECIDING: Final = ("one, at once", "one, later", "all, later", "commit", "commit")
COMING_BACK: Final = ("proceed", "fail", "answer", "answer")
DEEDS = (
    *4 * ("submit", "wait", "wait"),
    *2 * ("resume", "thaw", "top up", "edit", "crash"),
    "pause", "freeze", "erase", "submit again", "wait until midnight", "touch", "touch",
    "correct",
)  # fmt: skip
KINDS: Final[tuple[Kind, ...]] = ("ready", "ready", "ready", "ready", "ready", "early", "poor")
MODES: Final = (Mode.live, Mode.live, Mode.live, Mode.test)
WAITS: Final = (
    *3 * (timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=31)),
    timedelta(minutes=2, seconds=1),
    timedelta(hours=1),
    timedelta(days=40),
)


def midnight_after(now: datetime) -> datetime:
    """The next midnight of the caps' zone, to the second before it."""
    local = now.astimezone(ZoneInfo(ZONE))
    following = (local + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return following.astimezone(UTC) - timedelta(seconds=1)


class Moves:
    """Transition that may occur. `taken` counts the steps of this process."""

    taken: ClassVar[int] = 0
    make: ClassVar[Callable[[datetime, Strategy], World]] = World

    def __init__(self, beginning: bytes) -> None:
        start, left_out = beginning
        began_at = (BEFORE_SPRING, BEFORE_AUTUMN)[start % 2]
        strategy = tuple(Strategy)[start // 2 % len(Strategy)]
        self.moves = (self.decide, self.set_out, self.come_back, self.meanwhile)
        self.left_out = [move for bit, move in enumerate(self.moves) if left_out >> bit & left_out >> bit + 4 & 1]
        self.story: list[tuple[str, int, int, int]] = []
        self.world = type(self).make(began_at, strategy)
        self.plans: list[Plan] = []
        self.visits: list[Visit] = []
        for business, amount_minor in enumerate((20_000, 12_000, 7_000)):
            self.world.top_up(business, amount_minor)
        for person in range(4):
            self.world.submit(f"key-{person}", person, "ready", Mode.live)

    def move(self, choices: bytes) -> None:
        """Make the move that the bytes choose, of those that are possible now; none if the first of them is 0."""
        kind, how, what = choices[:3]
        if not kind:
            return
        possible = [
            move
            for move, may_be in zip(
                self.moves, (self.plans or self._waiting(), self._open(), self.visits, True), strict=True
            )
            if may_be
        ]
        move_kinds = [move for move in possible if move not in self.left_out] or possible
        move = move_kinds[kind % len(move_kinds)]
        which = int.from_bytes(choices[3:])
        self.story.append((move.__name__, how, what, which))
        Moves.taken += 1
        move(how, what, which)

    # --- the workers

    def decide(self, how_number: int, _what: int, which: int) -> None:
        """A lead is weighed, and the decision committed at once or later; or all are, by as many processes."""
        how = DECIDING[how_number % len(DECIDING)]
        waiting = self._waiting()
        if self.plans and (how == "commit" or not waiting):
            self.world.commit(self.plans.pop(which % len(self.plans)))
            return
        weighed = waiting if how == "all, later" else waiting[which % len(waiting) :][:1]
        plans = [plan for lead in weighed if (plan := self.world.weigh(lead))]
        if how == "one, at once":
            for plan in plans:
                self.world.commit(plan)
        else:
            self.plans += plans

    def set_out(self, how: int, _what: int, which: int) -> None:
        """An attempt begins, perhaps at its deadline, and goes so far in one stride: not yet, to the exposure, to the
        first byte."""
        retried, late, stride = how % 2 == 1, how // 2 % 3 == 0, how // 6 % 3
        claims = self._open()
        claim = claims[which % len(claims)]
        if late and claim.evidence_until:
            self.world.now = max(self.world.now, claim.evidence_until)
        if retried:
            self.world.take_up(claim)
        if visit := self.world.begin(claim):
            self.visits.append(visit)
            for _ in range(stride):
                self._proceed(visit)

    def come_back(self, how_number: int, what: int, which: int) -> None:
        """An attempt goes on; or nothing leaves, for want of a connection or of time; or the business answers."""
        how = COMING_BACK[how_number % len(COMING_BACK)]
        visit = self.visits[which % len(self.visits)]
        if how == "proceed" or visit.lapses or visit.obstacle is not None:
            self._proceed(visit)
            return
        while how == "answer" and visit in self.visits and not visit.sent:
            self._proceed(visit)
        if visit not in self.visits:
            return
        self.visits.remove(visit)
        if visit.sent:
            self.world.settle(visit, ANSWERS[what % len(ANSWERS)])
        else:
            reason = NotSentReason.too_late if visit.connected else UNSENT[what % len(UNSENT)]
            self.world.settle(visit, NotSent(reason=reason))

    def _proceed(self, visit: Visit) -> None:
        """One step nearer: the deadline's consequence, the obstacle's, the exposure, the first byte, or no answer."""
        world = self.world
        if visit not in self.visits:
            return
        if visit.lapses:
            world.lapse(visit)
        elif visit.obstacle is not None:
            world.settle(visit, NotSent(reason=visit.obstacle))
        elif not visit.connected:
            if world.expose(visit):
                return
            world.settle(visit, NotSent(reason=NotSentReason.abandoned))
        elif not visit.sent:
            world.send(visit)
            return
        else:
            world.settle(visit, NoAnswer(reason=NoAnswerReason.timeout))
        self.visits.remove(visit)

    # --- everybody else, and time

    def meanwhile(self, deed_number: int, _what: int, which: int) -> None:
        """A provider, a business, an operator or a person does something; a process dies, and what it had under way is
        never heard of again; or time passes."""
        deed = DEEDS[deed_number % len(DEEDS)]
        world, business = self.world, which % len(self.world.wallets)
        order = world.orders[which % len(world.orders)]
        lead = world.leads[which % len(world.leads)]
        match deed:
            case "submit" if len(world.leads) < MOST_LEADS:
                kind, mode = KINDS[which % len(KINDS)], MODES[which % len(MODES)]
                world.submit(f"key-{len(world.leads)}", which % 10, kind, mode)
            case "submit again":
                world.submit(lead.key, lead.person, "ready", lead.facts.mode)
            case "edit":
                world.edit(order, 5_000 + 500 * (which % 3), CAPS[which % len(CAPS)])
            case "pause":
                order.paused = True
            case "resume":  # whoever comes to look switches the endpoint on again
                order.paused, order.endpoint_active = False, True
            case "freeze":
                world.frozen |= {business}
            case "thaw":
                world.frozen -= {business}
            case "top up":
                world.top_up(business, 8_000)
            case "erase":
                world.erase(lead)
            case "touch":
                world.touch(lead, KINDS[-1 - which // 8 % 3])
            case "correct":
                world.correct(lead, KINDS[-1 - which // 8 % 3])
            case "crash" if self.visits:
                self.visits.pop(which % len(self.visits))
            case "crash" if self.plans:
                self.plans.pop(which % len(self.plans))
            case "wait":
                world.now += WAITS[which % len(WAITS)]
            case "wait until midnight":
                world.now = midnight_after(world.now)
        world.changed()

    # --- afterwards

    def check(self) -> None:
        """Raise AssertionError where a promise is broken. Here nobody watches."""

    def come_to_rest(self) -> None:
        """Leave the world to the sweeper, which must end everything in time."""
        began_at, world = self.world.now, self.world
        for _ in range(MOST_SWEEPS):
            if world.at_rest():
                break
            world.sweep(lambda _visit: NoAnswer(reason=NoAnswerReason.timeout))
        assert world.at_rest(), "P4: the sweeper alone does not bring it to rest"
        for lead in world.leads:
            assert lead.ended_at is not None, f"P4: lead {lead.id} never ended"
            since = max(began_at, lead.nurtured_until or began_at, lead.reopened_at or began_at)
            assert lead.ended_at - since <= REST_WITHIN, f"P4: lead {lead.id} took {lead.ended_at - since}"

    def _waiting(self) -> list[Lead]:
        return [lead for lead in self.world.leads if lead.state in WAITING_LEAD]

    def _open(self) -> list[Claim]:
        return [claim for claim in self.world.claims if claim.state in OPEN_ASSIGNMENT]


class Machine(Moves):
    """The promises, named by their numbers in a failing example: I1 and I2 are what businesses see, the rest what is
    kept."""

    def i1_contact_reaches_one_business(self) -> None:
        counts: dict[int, int] = {}
        for sighting in self.world.sightings:
            assert counts.setdefault(sighting.lead.id, sighting.business) == sighting.business, "I1"

    def i2_nothing_is_seen_before_its_exposure(self) -> None:
        assert all(sighting.allowed for sighting in self.world.sightings), "I2"

    def i3_one_exposure_of_a_live_assignment(self) -> None:
        exposures = self.world.exposures
        assert len({exposure.lead.id for exposure in exposures}) == len(exposures), "I3"
        hidden = (AssignmentState.held, AssignmentState.released)
        assert all(exposure.claim.state not in hidden for exposure in exposures), "I3"
        exposed = {exposure.claim.id for exposure in exposures}
        assert all(claim.id in exposed for claim in self.world.claims if claim.state not in hidden), "I3"

    def i4_one_person_is_seen_once_per_window(self) -> None:
        leads = [exposure.lead for exposure in self.world.exposures]
        for first, two in combinations(leads, 2):
            assert two.window is not None, "I4"
            assert not self.world.overlaps(first, two.person, two.facts.mode, two.window), "I4"

    def i5_a_key_has_one_answer(self) -> None:
        assert len(dict(self.world.answers)) == len(set(self.world.answers)) == len(self.world.leads), "I5"

    def i6_what_was_acknowledged_is_there(self) -> None:
        assert {number for _, number in self.world.answers} == {lead.id for lead in self.world.leads}, "I6"

    def i7_whoever_waits_is_looked_at_again(self) -> None:
        for lead in self.world.leads:
            assert (lead.due_at is not None) == (lead.state in WAITING_LEAD), "I7"
        for claim in self.world.claims:
            assert (claim.due_at is not None) == (claim.state in OPEN_ASSIGNMENT), "I7"

    def i8_nothing_waits_beyond_its_deadline(self) -> None:
        latest = max(REST_WITHIN, timedelta(days=180))
        for lead in self.world.leads:
            assert lead.due_at is None or lead.due_at <= max(self.world.now, lead.received_at) + latest, "I8"
        for claim in self.world.claims:
            assert claim.due_at is None or claim.due_at <= max(self.world.now, claim.awarded_at) + REST_WITHIN, "I8"

    def i9_cached_balances_are_the_sums_of_their_entries(self) -> None:
        sums: Counter[tuple[str, int]] = Counter()
        for transfer in self.world.transfers:
            for account, sign in SIDES[transfer.kind]:
                sums[account, transfer.business] += sign * transfer.amount_minor
        assert sum(sums.values()) == 0, "I9"
        for business, wallet in self.world.wallets.items():
            assert wallet.available_minor == sums["available", business], "I9"
            assert wallet.held_minor == sums["held", business], "I9"

    def i10_what_is_held_is_the_price_of_what_is_open(self) -> None:
        open_minor: Counter[int] = Counter()
        for claim in self._open():
            if claim.mode is Mode.live:
                open_minor[claim.business] += claim.price_minor
        assert all(wallet.held_minor == open_minor[b] for b, wallet in self.world.wallets.items()), "I10"

    def i11_no_wallet_is_overdrawn(self) -> None:
        assert all(w.available_minor >= -w.credit_limit_minor for w in self.world.wallets.values()), "I11"

    def i12_charged_once_and_only_with_evidence_and_exposure(self) -> None:
        moved: dict[int, Counter[str]] = defaultdict(Counter)
        for transfer in self.world.transfers:
            if transfer.claim is not None:
                moved[transfer.claim.id][transfer.kind] += 1
        exposed = {exposure.claim.id for exposure in self.world.exposures}
        for claim in self.world.claims:
            kinds = moved[claim.id]
            ended, live = claim.state not in OPEN_ASSIGNMENT, claim.mode is Mode.live
            assert (kinds["hold"], kinds["capture"] + kinds["release"]) == (live, live and ended), "I12"
            assert kinds["capture"] == kinds["payout"], "I12"
            if kinds["capture"]:
                assert claim.state is AssignmentState.delivered, "I12"
                assert claim.id in exposed, "I12"
                assert claim.evidence_at is not None, "I12"

    def i13_the_price_is_the_quoted_one(self) -> None:
        for transfer in self.world.transfers:
            if transfer.claim is not None and transfer.kind != "payout":
                assert transfer.amount_minor == transfer.claim.quoted_minor, "I13"
            elif transfer.claim is not None:
                assert transfer.amount_minor <= transfer.claim.quoted_minor, "I13"

    def i14_usage_counts_what_was_not_released_and_passes_no_cap(self) -> None:
        counted: dict[object, list[int]] = defaultdict(lambda: [0, 0])
        for claim in self.world.claims:
            if claim.mode is Mode.live and claim.state is not AssignmentState.released:
                for window, start in claim.starts.items():
                    row = counted[claim.number, window, start]
                    row[0] += 1
                    row[1] += claim.price_minor
        for bucket, used in self.world.usage.items():
            assert [used.count, used.minor] == counted.pop(bucket, [0, 0]), "I14"
            assert used.limit_count is None or used.count <= used.limit_count, "I14"
            assert used.limit_minor is None or used.minor <= used.limit_minor, "I14"
        assert not counted, "I14"

    def i15_the_lead_follows_its_assignment(self) -> None:
        live = [claim for claim in self.world.claims if claim.state is not AssignmentState.released]
        owner = {claim.lead.id: claim for claim in live}
        assert len(owner) == len(live), "I15"
        for lead in self.world.leads:
            claim = owner.get(lead.id)
            if claim is None:
                assert lead.state is not LeadState.held, "I15"
                assert lead.state not in SEEN, "I15"
            else:
                assert lead.state is CLAIMED[claim.state], "I15"

    def i16_evidence_and_lapse_exclude_each_other(self) -> None:
        for claim in self.world.claims:
            delivered = claim.state is AssignmentState.delivered
            assert (claim.evidence_at is not None) == delivered, "I16"

    def i20_nobody_is_shown_after_asking_to_be_forgotten(self) -> None:
        for lead in self.world.leads:
            if lead.erased:
                assert lead.state not in (*WAITING_LEAD, LeadState.held), "I20"

    def check(self) -> None:
        """Raise AssertionError where a promise is broken."""
        for promise in PROMISES:
            getattr(self, promise)()


PROMISES: Final = tuple(name for name in vars(Machine) if name[0] == "i" and name[1].isdigit())
"Names of the methods that each check one promise."


def run(shard: int, examples: int, base: int = 0, machine: type[Moves] = Machine, *, shrink: bool = True) -> int:
    """So many examples of the machine from a seed of their own; the steps taken. Raises what a check raises."""
    before = Moves.taken
    profile = settings(
        max_examples=examples + 1,  # the first one that Hypothesis plays is zeros, which are no moves
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
    )
    size = BEGINNING_BYTES + STEPS * MOVE_BYTES

    @seed(base + shard)
    @profile
    @given(st.binary(min_size=size, max_size=size))
    def play(choices: bytes) -> None:
        moves = machine(choices[:BEGINNING_BYTES])
        try:
            moves.check()
            for at in range(BEGINNING_BYTES, size, MOVE_BYTES):
                moves.move(choices[at : at + MOVE_BYTES])
                moves.check()
            moves.come_to_rest()
        except AssertionError:
            for number, move in enumerate(moves.story):
                note(f"{number}: {move}")
            raise

    play()
    return Moves.taken - before


def main() -> None:
    """Shares the steps out among the processors; a failing example is printed and ends the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    base = secrets.randbelow(2**32) if options.seed is None else options.seed
    processors = os.cpu_count() or 1
    began, steps, shard = monotonic(), 0, 0
    with ProcessPoolExecutor(processors) as workers:
        while steps < options.steps:
            size = max(1, min(100, (options.steps - steps) // (STEPS * processors)))
            batch = [workers.submit(run, shard + n, size, base) for n in range(processors)]
            steps, shard = steps + sum(done.result() for done in batch), shard + processors
    print(f"no invariant broken in {steps:,} steps, {monotonic() - began:.0f} s, seed {base}")


if __name__ == "__main__":
    main()
