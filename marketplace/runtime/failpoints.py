"""Failpoints: named places where a process can be made to die, wait, fail or lose its database, for tests.

They reproduce a crash between two steps, where it would hurt most and where chance seldom hits. They do nothing unless
two environment variables are set: MARKETPLACE_FAILPOINTS says what happens where, and
MARKETPLACE_FAILPOINTS_ALLOWED=yes that nobody relies on this process.

    MARKETPLACE_FAILPOINTS='after_award_commit=exit@3,amid_settle=exit%0.01,before_award=sleep:0.5'

Actions: `exit` (like kill -9), `sleep:SECONDS`, `raise`, `drop` (break the connection to Postgres in use; without one,
like `raise`). A suffix limits them: `@N` only the Nth time, `%P` with probability P, none always.
"""

import asyncio
import os
import re
from collections.abc import Coroutine, Mapping
from typing import Any, Final, Protocol, TypeVar

import msgspec

from marketplace.runtime import clock

T = TypeVar("T")


class OpenConnection(Protocol):
    """A connection to Postgres that can be broken off."""

    def terminate(self) -> None: ...


PLACES: Final = (
    "amid_intake",
    "after_intake_commit_before_answer",
    "amid_revision",
    "after_revision_commit",
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
"""Names at which `reach` or `amid` is called, in the order in which a lead passes them."""

LIST_PLACES: Final = ("after_list_batch", "before_list_publication")
"""The same, in the order in which the import of a list passes them."""

EXIT_CODE: Final = 137
"""Exit code that a shell reports for a process killed by signal 9."""

ON_ITS_WAY_SECONDS: Final = 0.001
"""Time to send a statement: about what its answer takes."""

_SPECIFICATION = re.compile(
    r"(?P<place>[a-z_]+)=(?P<action>exit|raise|drop|sleep:(?P<seconds>\d+(\.\d+)?))"
    r"(@(?P<nth>[1-9]\d*)|%(?P<probability>[01](\.\d+)?|0?\.\d+))?"
)


class FailpointReached(Exception):
    """Raised by the action `raise`, as an unexpected error."""


class Failpoint(msgspec.Struct, kw_only=True):
    """Action at one place. Mutable, because it counts its visits."""

    place: str
    action: str
    seconds: float = 0.0
    nth: int | None = None
    probability: float = 1.0
    visits: int = 0

    def strikes(self) -> bool:
        """Count a visit and return whether the action happens at this one."""
        self.visits += 1
        if self.nth is not None:
            return self.visits == self.nth
        return self.probability >= 1.0 or int.from_bytes(clock.random_bytes(4), "big") < self.probability * 2**32

    async def strike(self, connection: OpenConnection | None) -> None:
        """Perform the action. Raises FailpointReached for `raise`."""
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
    """Return the failpoints that `environ` sets, by place.

    Raises ValueError for a text that cannot be read, so that a misspelt failpoint does not look like one that was
    survived.
    """
    text = environ.get("MARKETPLACE_FAILPOINTS", "")
    if not text or environ.get("MARKETPLACE_FAILPOINTS_ALLOWED") != "yes":
        return {}
    return {failpoint.place: failpoint for failpoint in map(_read, text.split(","))}


def _read(text: str) -> Failpoint:
    """Return the failpoint of one entry. Raises ValueError."""
    match = _SPECIFICATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a failpoint: {text}")
    place, action = match["place"], match["action"].partition(":")[0]
    if place not in (*PLACES, *LIST_PLACES):
        raise ValueError(f"there is no failpoint at {place}")
    nth = int(match["nth"]) if match["nth"] else None
    return Failpoint(
        place=place,
        action=action,
        seconds=float(match["seconds"] or 0),
        nth=nth,
        probability=float(match["probability"] or 1),
    )


_ARMED: Final = read(os.environ)


async def reach(place: str, connection: OpenConnection | None = None) -> None:
    """Perform the action of `place`, if one is set; `connection` is the connection to Postgres in use there."""
    failpoint = _ARMED.get(place)
    if failpoint is not None and failpoint.strikes():
        await failpoint.strike(connection)


async def amid(place: str, statement: Coroutine[Any, Any, T], connection: OpenConnection) -> T:
    """Run `statement`; the action of `place` happens after it was sent, so that its commit is uncertain."""
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
