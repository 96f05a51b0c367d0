"""Tables that a statement touches, from its text and a catalog of two tables, a trigger and a function."""

import pytest

from tests.model.concerns import Concerns
from tests.model.interleaving import COMMIT, Step

CATALOG = [
    {"kind": kind, "name": name, "more": more}
    for kind, name, more in (
        ("table", "lead", ""),
        ("table", "move", ""),
        ("table", "change", ""),
        ("trigger", "lead", "note_change"),
        ("function", "note_change", "begin insert into public.change default values; end"),
        ("function", "read_contact", "select * from lead"),
    )
]
LEAD, MOVE, CHANGE, NOTHING = frozenset({"lead"}), frozenset({"move"}), frozenset({"change"}), frozenset[str]()


@pytest.mark.parametrize(
    ("statement", "reads", "changes", "adds"),
    [
        ("select * from lead", LEAD, NOTHING, NOTHING),
        ("select * from lead for update", LEAD, LEAD, NOTHING),
        ("insert into public.move select * from lead", LEAD | MOVE, NOTHING, MOVE),
        ("update only public.lead set id = 1", LEAD | CHANGE, LEAD, CHANGE),
    ],
)
def test_a_statement_touches_what_it_names_and_what_its_triggers_do(
    statement: str, reads: frozenset[str], changes: frozenset[str], adds: frozenset[str]
) -> None:
    touch = Concerns(CATALOG, answers_differ=False).touch(statement)
    assert (touch.reads, touch.changes, touch.adds) == (reads, changes, adds)


def step(statement: str, *uncommitted: str, in_transaction: bool = True) -> Step:
    return Step(statement, in_transaction, uncommitted)


READ = step("select * from read_contact($1)", in_transaction=False)


@pytest.mark.parametrize(
    ("first", "second", "dependent"),
    [
        (step("select * from lead"), step("update lead set id = 1"), False),
        (step("select * from lead"), step("update lead set id = 1", in_transaction=False), True),
        (step("select * from lead"), step(COMMIT, "update lead set id = 1"), True),
        (step("select * from move"), step(COMMIT, "update lead set id = 1"), False),
        (step("select * from lead for share"), step("select * from lead for update"), True),
        (READ, READ, False),
    ],
)
def test_two_steps_depend_on_each_other(first: Step, second: Step, dependent: bool) -> None:
    concerns = Concerns(CATALOG, answers_differ=False)
    assert concerns(first, second) == concerns(second, first) == dependent


def test_requests_are_ordered_where_their_answers_differ() -> None:
    assert Concerns(CATALOG, answers_differ=True)(READ, READ)
