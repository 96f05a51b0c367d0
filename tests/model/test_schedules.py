"""The schedules themselves, on transitions that are only lists of words: all of them, and one of each kind."""

from collections.abc import Sequence
from itertools import pairwise
from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    def next(self) -> str:
        return self.steps[self.at]


def concern(scripts: Any) -> bool:
    return bool(set(scripts[0].next) & set(scripts[1].next))


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
                order.append((number, scripts[number].next))
                scripts[number].at += 1
        except RunAlready:
            pass
        else:
            outcomes.append(tuple(order))
        more = schedules.more()
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
