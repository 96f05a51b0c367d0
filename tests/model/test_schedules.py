"""The schedules themselves: all of them, and one of each kind.

On transitions that are only lists of words, and on those that read, write, wait for locks and go on as they have read.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.interleaving import COMMIT, Step
from tests.model.schedules import RunAlready, Schedules


class Script:
    """A transition that is known beforehand: a word a step, and steps with a letter in common concern each other."""

    def __init__(self, steps: Sequence[str]) -> None:
        self.steps = steps
        self.at = 0

    @property
    def may_move(self) -> bool:
        return self.at < len(self.steps)

    @property
    def next_step(self) -> str:
        return self.steps[self.at]


def concern(first: Any, second: Any) -> bool:
    return bool(set(first) & set(second))


def runs(
    first: Sequence[str], second: Sequence[str], *, reduced: bool, alike: bool = False
) -> list[tuple[tuple[int, str], ...]]:
    """Each schedule as the steps in their order, with whose each is."""
    outcomes, schedules, more = [], Schedules(concern if reduced else None, alike=alike), True
    while more:
        scripts: Any = (Script(first), Script(second))
        order = []
        schedules.begin()
        try:
            while any(script.may_move for script in scripts):
                number = schedules.choose(scripts)
                order.append((number, scripts[number].next_step))
                scripts[number].at += 1
        except RunAlready:
            schedules.pruned += 1
        else:
            outcomes.append(tuple(order))
        more = schedules.more()
    assert schedules.pruned == 0
    return outcomes


def kind_of(order: tuple[tuple[int, str], ...]) -> tuple[tuple[int, str], ...]:
    """Return the alphabetically first of all orders that differ only in the order of independent steps."""
    steps = list(order)
    swapped = True
    while swapped:
        swapped = False
        for at, (step, other) in enumerate(pairwise(steps)):
            if step[0] > other[0] and not set(step[1]) & set(other[1]):
                steps[at : at + 2] = [other, step]
                swapped = True
                break
    return tuple(steps)


steps = st.lists(st.text("abc", max_size=2), max_size=4)


@given(steps, steps)
def test_unreduced_every_order_is_run_once(first: list[str], second: list[str]) -> None:
    orders = runs(first, second, reduced=False)
    assert len(orders) == len(set(orders)) == comb(len(first) + len(second), len(first))


@given(steps, steps)
def test_reduced_one_of_each_kind_of_order_is_run(first: list[str], second: list[str]) -> None:
    orders = runs(first, second, reduced=True)
    kinds = {kind_of(order) for order in runs(first, second, reduced=False)}
    assert len(orders) == len(kinds)
    assert {kind_of(order) for order in orders} == kinds


@given(steps)
def test_of_reduced_twins_one_of_each_kind_begins_with_the_first(both: list[str]) -> None:
    orders = runs(both, both, reduced=True, alike=True)
    assert all(order[0][0] == 0 for order in orders if order)
    swapped = {tuple((1 - number, step) for number, step in order) for order in orders}
    kinds = {kind_of(order) for order in runs(both, both, reduced=False)}
    assert {kind_of(order) for order in swapped | set(orders)} == kinds


@given(steps)
def test_of_twins_only_the_first_begins(both: list[str]) -> None:
    orders = runs(both, both, reduced=False, alike=True)
    assert all(order[0][0] == 0 for order in orders if order)
    swapped = {tuple((1 - number, step) for number, step in order) for order in orders}
    assert swapped | set(orders) == set(runs(both, both, reduced=False))


@pytest.mark.parametrize(
    ("first", "second", "count"), [(["a"], ["b"], 1), (["a"], ["a"], 2), (["a", "b"], ["b", "a"], 3), ([], ["a"], 1)]
)
def test_only_what_concerns_each_other_is_ordered(first: list[str], second: list[str], count: int) -> None:
    assert len(runs(first, second, reduced=True)) == count


class Rows:
    """Values of rows by their names, and the transition that holds the lock of each."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.holders: dict[str, Transition] = {}


class Transition:
    """A transition of statements such as "read a", "write a" and "lock a", in transactions of READ COMMITTED.

    A write locks its row too, and its value tells all that the transition has read. "if foreign read a" is a step only
    if the value that was read last is the other transition's, so that the steps depend on what was read.
    """

    def __init__(self, rows: Rows, number: int, statements: Sequence[str]) -> None:
        self.rows = rows
        self.number = number
        self.remaining = [*statements, COMMIT]
        self.seen: list[object] = []
        self.written: dict[str, object] = {}
        self.sent: list[str] = []
        self.waits_for: str | None = None
        self._skip()

    @property
    def done(self) -> bool:
        return not self.remaining

    @property
    def may_move(self) -> bool:
        return not self.done and self.waits_for is None

    @property
    def next_step(self) -> Step:
        return Step(self.remaining[0], True, tuple(self.sent))

    def advance(self) -> None:
        """Take a step, or begin to wait for its lock."""
        verb, _, name = self.remaining[0].partition(" ")
        if verb in ("write", "lock") and self.rows.holders.setdefault(name, self) is not self:
            self.waits_for = name
            return
        self.waits_for = None
        self.sent.append(self.remaining.pop(0))
        match verb:
            case "commit":
                self.rows.values |= self.written
                self.end()
            case "write":
                self.written[name] = (self.number, tuple(self.seen))
            case _:
                self.seen.append(self.written.get(name, self.rows.values.get(name)))
        self._skip()

    def end(self) -> None:
        """Give up every lock."""
        for name in [name for name, holder in self.rows.holders.items() if holder is self]:
            del self.rows.holders[name]
        self.written, self.sent = {}, []

    def _skip(self) -> None:
        """Leave out statements that are only sent after a value of the other transition, where none was read."""
        last = self.seen[-1] if self.seen else None
        foreign = isinstance(last, tuple) and last[0] != self.number
        while self.remaining and self.remaining[0].startswith("if foreign "):
            statement = self.remaining.pop(0).removeprefix("if foreign ")
            if foreign:
                self.remaining.insert(0, statement)


def touches(statement: str) -> tuple[set[str], set[str]]:
    """Return the names of the rows that a statement reads, and of those that it writes or locks."""
    verb, _, name = statement.partition(" ")
    names = {name} if name else set()
    return names, names if verb in ("write", "lock") else set()


def depend(first: Step, second: Step) -> bool:
    """Return whether two steps do: both lock a row, or one commits a row that the other reads or writes."""
    committed = [
        set().union(*(touches(sent)[1] for sent in step.uncommitted)) if step.statement == COMMIT else set()
        for step in (first, second)
    ]
    left, right = touches(first.statement), touches(second.statement)
    return bool(left[1] & right[1] or committed[0] & right[0] or committed[1] & left[0])


def outcomes(first: Sequence[str], second: Sequence[str], *, reduced: bool) -> tuple[set[object], int]:
    """Return what comes of all schedules, and how many there were."""
    results, schedules, more = set[object](), Schedules(depend if reduced else None), True
    while more:
        rows = Rows()
        pair: Any = (Transition(rows, 0, first), Transition(rows, 1, second))
        schedules.begin()
        try:
            while not all(transition.done for transition in pair):
                if not any(transition.may_move for transition in pair):  # each waits for the other
                    pair[0].remaining, pair[0].waits_for = [], None
                    pair[0].seen.append("deadlock")
                    pair[0].end()
                else:
                    pair[schedules.choose(pair)].advance()
                for transition in pair:
                    if transition.waits_for is not None and transition.waits_for not in rows.holders:
                        transition.advance()
        except RunAlready:
            schedules.pruned += 1
        else:
            schedules.whole += 1
            results.add((tuple(pair[0].seen), tuple(pair[1].seen), tuple(sorted(rows.values.items(), key=repr))))
        more = schedules.more()
    return results, schedules.whole + schedules.pruned


statements = st.lists(
    st.builds(
        "{}{} {}".format,
        st.sampled_from(("", "", "if foreign ")),
        st.sampled_from(("read", "write", "lock")),
        st.sampled_from("ab"),
    )
    | st.just(COMMIT),
    max_size=4,
)


@given(statements, statements)
def test_reduced_every_outcome_is_seen_also_where_steps_wait_and_depend_on_what_was_read(
    first: list[str], second: list[str]
) -> None:
    every, count = outcomes(first, second, reduced=False)
    reduced, fewer = outcomes(first, second, reduced=True)
    assert reduced == every
    assert fewer <= count
