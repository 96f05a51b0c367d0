"""Every schedule of two transitions, or one of each set of schedules that cannot be told apart.

A schedule is the sequence of choices whose statement goes next, made wherever both transitions may go on; where one
waits for a lock of the other there is nothing to choose. The next schedule takes the other way at the last place that
still has one. Of two transitions that are alike in everything, the one that goes first is the first.

Many schedules differ only in the order of neighbours that do not concern each other. Of those that swapping such
neighbours turns into one another, sleep sets (Godefroid, 1996) run one: where both ways are open, the first transition,
once its way has been tried, sleeps in the other way until a step that concerns its own. A schedule in which only a
sleeper is left has been run already.
"""

from collections.abc import Callable

from tests.model.interleaving import Pair

Concern = Callable[[Pair], bool]
"Function that returns whether the next steps of the two depend on each other."


class RunAlready(Exception):
    """Raised when the remaining schedule differs from another only in the order of independent steps."""


class Fork:
    """A place at which both may go on: whose turn it is in this schedule, and whether the first one sleeps."""

    def __init__(self, asleep: bool) -> None:
        self.asleep = asleep
        self.turn = 1 if asleep else 0


class Schedules:
    """All schedules, one at a time: `begin`, `choose` wherever there is a choice, and `more` at its end."""

    def __init__(self, concern: Concern | None, *, alike: bool = False) -> None:
        self.whole = 0
        "Schedules run to their end."
        self.pruned = 0
        "Schedules given up half-way, as run already."
        self._concern = concern
        self._alike = alike
        self._forks: list[Fork] = []
        self._at = 0
        self._asleep = False

    def begin(self) -> None:
        self._at, self._asleep = 0, False

    def choose(self, actors: Pair) -> int:
        """Return the task whose step is next. Raises RunAlready if the only one left is asleep."""
        able = [number for number in (0, 1) if actors[number].may_move]
        if len(able) == 1:
            if self._asleep and able == [0]:
                raise RunAlready
            return able[0]
        if self._at == len(self._forks):
            self._forks.append(Fork(self._asleep))
        fork = self._forks[self._at]
        self._at += 1
        self._asleep = fork.turn == 1 and self._concern is not None and not self._concern(actors)
        return fork.turn

    def more(self) -> bool:
        """Turn to the next schedule, if there is one."""
        del self._forks[self._at :]
        while self._forks and self._forks[-1].turn == 1:
            self._forks.pop()
        if len(self._forks) <= self._alike:  # the very first choice is between the two
            return False
        self._forks[-1].turn = 1
        return True
