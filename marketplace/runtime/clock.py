"""The only place where time, chance and ids come from, so that everything else can be given them."""

import os
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

import uuid_utils.compat

__all__ = [
    "DatabaseTime",
    "Random",
    "correct",
    "id_at",
    "machine_time",
    "monotonic",
    "new_id",
    "now",
    "random_bytes",
    "seeded",
    "skew",
]


def skew(environ: Mapping[str, str]) -> timedelta:
    """How far this process's wall clock is to be off: not at all, except where failpoints are allowed.

    MARKETPLACE_CLOCK_SKEW_SECONDS, negative for a clock that is behind, shows what a machine with a wrong clock does.
    """
    allowed = environ.get("MARKETPLACE_FAILPOINTS_ALLOWED") == "yes"
    return timedelta(seconds=float(environ.get("MARKETPLACE_CLOCK_SKEW_SECONDS") or 0) if allowed else 0)


EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SKEW: Final = skew(os.environ)


TOLERANCE: Final = timedelta(seconds=1)
"Machines that keep time differ by less, and so does what an answer's way tells: such a difference is left alone."


class _Correction:
    by = timedelta(0)


def machine_time() -> datetime:
    """What the clock of this machine says, right or wrong; always aware and always UTC."""
    return datetime.now(UTC) + _SKEW


def now() -> datetime:
    """The time, always aware and always UTC: this machine's, corrected where the database's clock differs."""
    return machine_time() + _Correction.by


def correct(database_time: datetime) -> None:
    """Take over the database's clock, which says `database_time` at this moment, from the machine's if they differ."""
    difference = database_time - machine_time()
    _Correction.by = difference if abs(difference) > TOLERANCE else timedelta(0)


class DatabaseTime:
    """A moment that was read from the database with the rows it belongs to, and the time that has passed since.

    What is decided about those rows goes by this, so that no machine's clock moves a window or a deadline.
    """

    def __init__(self, read_at: datetime) -> None:
        self.read_at = read_at
        self._began = monotonic()

    def now(self) -> datetime:
        """The database's time: `read_at` and what has passed since, on a clock that nobody sets."""
        return self.read_at + timedelta(seconds=monotonic() - self._began)


def monotonic() -> float:
    """Seconds on a clock that never goes back; only differences mean anything."""
    return time.monotonic()


def new_id() -> uuid.UUID:
    """A fresh UUIDv7: unique, and later ids sort after earlier ones, which keeps new rows together in an index.

    It tells its time of birth to whoever sees it: right for a lead, wrong for a secret.
    """
    return uuid_utils.compat.uuid7()


def id_at(moment: datetime, random: Random) -> uuid.UUID:
    """The UUIDv7 (RFC 9562) that `random` gives to something of `moment`: for what is invented about the past."""
    milliseconds = (moment - EPOCH) // timedelta(milliseconds=1)
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | random.getrandbits(12) << 64 | 2 << 62 | random.getrandbits(62))


ID_EARLY_SECONDS: Final = 3_600
"How much older than its row an id is taken to be at most: it is made a moment before."


def id_bound(moment: datetime, early_seconds: int = 0) -> uuid.UUID:
    """Return the smallest id that something made `early_seconds` before `moment` or later can have."""
    milliseconds = int(moment.timestamp() * 1000) - 1000 * early_seconds
    return uuid.UUID(int=max(0, milliseconds) << 80)


def random_bytes(count: int) -> bytes:
    """`count` bytes that nobody can guess: for keys, secrets and tokens."""
    return os.urandom(count)


def seeded(text: str) -> Random:
    """Chance that follows from `text` alone, so that a run can be repeated; never for what must not be guessed."""
    return Random(text)
