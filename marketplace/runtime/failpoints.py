"""Failpoints: named places where a process can be told to die, to wait, to fail or to lose its database.

They exist so that a crash can be had at the one moment between two steps where it would hurt most, which chance seldom
hits. They are inert, one look into an empty dict, unless the environment says so twice: MARKETPLACE_FAILPOINTS says
what happens where, and MARKETPLACE_FAILPOINTS_ALLOWED=yes that this is not a process which anybody relies on.

    MARKETPLACE_FAILPOINTS='after_award_commit=exit@3,amid_settle=exit%0.01,before_award=sleep:0.5'

Actions: `exit` (as kill -9), `sleep:SECONDS`, `raise`, `drop` (the connection to Postgres that is in use breaks; where
none is, as `raise`). Afterwards `@N` for the Nth time only, `%P` with probability P,
nothing for always.
"""

import asyncio
import os
import re
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

import msgspec

from marketplace.runtime import clock

T = TypeVar("T")

PLACES: Final = (
    "amid_intake",
    "after_intake_commit_before_answer",
    "before_award",
    "amid_award",
    "after_award_commit",
    "after_connect_before_expose",
    "after_expose_before_read",
    "after_read_before_write",
    "after_write_before_answer",
    "after_answer_before_settle",
    "amid_settle",
    "after_settle_commit",
    "after_claim_due",
)
"""Where `reach` or `amid` is called, in the order of a lead's walk."""

EXIT_CODE: Final = 137
"""As the shell tells of a process that died by signal 9."""

ON_ITS_WAY_SECONDS: Final = 0.001
"""Enough to send a statement, about what it takes to be answered."""

_SPECIFICATION = re.compile(
    r"(?P<place>[a-z_]+)=(?P<action>exit|raise|drop|sleep:(?P<seconds>\d+(\.\d+)?))"
    r"(@(?P<nth>[1-9]\d*)|%(?P<probability>[01](\.\d+)?|0?\.\d+))?"
)


class FailpointReached(Exception):
    """What `raise` raises: an error that nobody expects."""


class Failpoint(msgspec.Struct, kw_only=True):
    """What happens at one place. Counts its visits, and so is the one Struct here that changes."""

    place: str
    action: str
    seconds: float = 0.0
    nth: int | None = None
    probability: float = 1.0
    visits: int = 0

    def strikes(self) -> bool:
        """Whether this visit is one on which it happens."""
        self.visits += 1
        if self.nth is not None:
            return self.visits == self.nth
        return self.probability >= 1.0 or int.from_bytes(clock.random_bytes(4), "big") < self.probability * 2**32

    async def strike(self, connection: Any) -> None:
        """Let it happen. Raises FailpointReached for `raise`."""
        os.write(2, f"failpoint {self.place} {self.action}\n".encode())
        match self.action:
            case "exit":
                os._exit(EXIT_CODE)
            case "sleep":
                await asyncio.sleep(self.seconds)
            case "drop" if connection is not None:
                connection.terminate()
            case _:
                raise FailpointReached(self.place)


def read(environ: Mapping[str, str]) -> dict[str, Failpoint]:
    """The failpoints that `environ` arms, by place.

    Raises ValueError for what it cannot read: a misspelt failpoint must not pass for one that was survived.
    """
    text = environ.get("MARKETPLACE_FAILPOINTS", "")
    if not text or environ.get("MARKETPLACE_FAILPOINTS_ALLOWED") != "yes":
        return {}
    return {failpoint.place: failpoint for failpoint in map(_read, text.split(","))}


def _read(text: str) -> Failpoint:
    found = _SPECIFICATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a failpoint: {text}")
    place, action = found["place"], found["action"].partition(":")[0]
    if place not in PLACES:
        raise ValueError(f"there is no failpoint at {place}")
    return Failpoint(
        place=place,
        action=action,
        seconds=float(found["seconds"] or 0),
        nth=int(found["nth"]) if found["nth"] else None,
        probability=float(found["probability"] or 1),
    )


_ARMED: Final = read(os.environ)


async def reach(place: str, connection: Any = None) -> None:
    """Called at each of PLACES; `connection` is the one to Postgres that is in use there."""
    failpoint = _ARMED.get(place)
    if failpoint is not None and failpoint.strikes():
        await failpoint.strike(connection)


async def amid(place: str, statement: Coroutine[Any, Any, T], connection: Any) -> T:
    """Runs `statement`. What strikes here strikes once it is on its way: nobody knows whether it will be committed."""
    failpoint = _ARMED.get(place)
    if failpoint is None or not failpoint.strikes():
        return await statement
    under_way = asyncio.create_task(statement)
    await asyncio.sleep(ON_ITS_WAY_SECONDS)
    try:
        await failpoint.strike(connection)
        return await under_way
    finally:
        under_way.cancel()
