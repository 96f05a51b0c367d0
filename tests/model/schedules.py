"""Every schedule of two transitions, or one of each set of schedules that cannot be told apart.

A schedule is the sequence of choices whose statement goes next, made wherever both transitions may go on; where one
waits for a lock of the other there is nothing to choose. The first transition goes first everywhere, and the next
schedule takes the other way at the last place that still has one. Of two transitions that are alike in everything, the
one that goes first is the first.

Many schedules differ only in the order of neighbours that do not concern each other. Of those that swapping such
neighbours turns into one another, one is run, by two rules (Abdulla, Aronis, Jonsson and Sagonas, "Optimal dynamic
partial order reduction", 2014, which for two transitions needs no more than this):

* Source sets. The other way is taken only where it matters: where, in a schedule run so far, the step with which the
  first went on raced with a later step of the second. They do if they concern each other, and if no step of the first
  in between concerns that of the second, or one of the second's before it: else that one has to be turned round first.
* Sleep sets. In the other way the first transition sleeps until a step of the second concerns its own.

So the second goes on from there to the step in question, which wakes the first. Only if it goes on differently without
the first may it reach its end before: such a schedule has been run already, and is given up.
"""

from collections.abc import Callable

from tests.model.interleaving import Pair, Step

Concern = Callable[[Step, Step], bool]
"Function that returns whether a step of the first transition and one of the second depend on each other."


class RunAlready(Exception):
    """Raised when the remaining schedule differs from another only in the order of independent steps."""


class Fork:
    """A place at which both may go on.

    `turn` is the transition that goes on in this schedule, `asleep` whether the first one sleeps here, and `raced`
    whether its step has raced with a later one of the second.
    """

    def __init__(self, *, asleep: bool, raced: bool) -> None:
        self.asleep = asleep
        self.turn = 1 if asleep else 0
        self.raced = raced


class Schedules:
    """Schedules, one at a time: `begin`, `choose` before every step, and `more` at the end of each.

    Without a `concern`, all there are.
    """

    def __init__(self, concern: Concern | None, *, alike: bool = False) -> None:
        self.whole = 0
        "Schedules run to their end."
        self.pruned = 0
        "Schedules given up half-way, as run already."
        self._concern = concern
        self._alike = alike
        self._forks: list[Fork] = []
        self.begin()

    def begin(self) -> None:
        self._at, self._asleep = 0, False
        self._firsts: list[tuple[Step, Fork | None]] = []
        "Steps of the first transition in this schedule, with the place of each if the other might have gone on there."
        self._before = 0
        "How many of them must come before whatever the second does next."

    def choose(self, actors: Pair) -> int:
        """Return the task whose step is next. Raises RunAlready if the only one left is asleep."""
        able = [number for number in (0, 1) if actors[number].may_move]
        if able == [0] and self._asleep:
            raise RunAlready
        fork = self._fork() if len(able) == 2 else None
        number = able[0] if fork is None else fork.turn
        if number == 0:
            self._firsts.append((actors[0].next_step, fork))
        else:
            self._note_race(actors[1].next_step)
        if fork is not None:
            self._asleep = number == 1 and not self._concerns(actors[0].next_step, actors[1].next_step)
        return number

    def _fork(self) -> Fork:
        if self._at == len(self._forks):
            self._forks.append(Fork(asleep=self._asleep, raced=self._concern is None))
        self._at += 1
        return self._forks[self._at - 1]

    def _note_race(self, step: Step) -> None:
        for number in range(len(self._firsts), self._before, -1):
            earlier, fork = self._firsts[number - 1]
            if self._concerns(earlier, step):
                self._before = number
                if fork is not None:
                    fork.raced = True
                return

    def _concerns(self, first: Step, second: Step) -> bool:
        return self._concern is None or self._concern(first, second)

    def more(self) -> bool:
        """Turn to the next schedule, if there is one."""
        del self._forks[self._at :]
        while self._forks and (self._forks[-1].turn == 1 or not self._forks[-1].raced):
            self._forks.pop()
        if len(self._forks) <= self._alike:  # the very first choice is between the two
            return False
        self._forks[-1].turn = 1
        return True
