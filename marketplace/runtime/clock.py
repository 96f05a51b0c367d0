"""Source of time, randomness and ids: other modules receive them as arguments or call this one."""

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
    """Return the configured error of this process's wall clock: zero unless failpoints are allowed.

    MARKETPLACE_CLOCK_SKEW_SECONDS, negative for a slow clock, tests how the system behaves on a machine with a wrong
    clock.
    """
    allowed = environ.get("MARKETPLACE_FAILPOINTS_ALLOWED") == "yes"
    seconds = float(environ.get("MARKETPLACE_CLOCK_SKEW_SECONDS") or 0) if allowed else 0
    return timedelta(seconds=seconds)


EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SKEW: Final = skew(os.environ)


TOLERANCE: Final = timedelta(seconds=1)
"Differences up to this are ignored: machines with NTP differ by less, and the round trip adds an error of its own."


class _Correction:
    by = timedelta(0)


def machine_time() -> datetime:
    """Return the uncorrected time of this machine in UTC."""
    return datetime.now(UTC) + _SKEW


def now() -> datetime:
    """Return the current time in UTC: this machine's, corrected when the database's clock differs."""
    return machine_time() + _Correction.by


def correct(database_time: datetime) -> None:
    """Adjust `now` to the database's clock if it differs by more than TOLERANCE.

    `database_time` is what that clock reads at this moment.
    """
    difference = database_time - machine_time()
    _Correction.by = difference if abs(difference) > TOLERANCE else timedelta(0)


class DatabaseTime:
    """Database time at which some rows were read, and the time that has passed since.

    Decisions about those rows use it, so that a machine's wrong clock moves no window and no deadline.
    """

    def __init__(self, read_at: datetime) -> None:
        self.read_at = read_at
        self._began = monotonic()

    def now(self) -> datetime:
        """Return the database's time: `read_at` plus the time since, measured by the monotonic clock."""
        return self.read_at + timedelta(seconds=monotonic() - self._began)


def monotonic() -> float:
    """Return seconds of a clock that never goes back; only differences are meaningful."""
    return time.monotonic()


def new_id() -> uuid.UUID:
    """Return a new UUIDv7: unique, and sorted by time of creation, which keeps new rows together in an index.

    It reveals when it was created, so it must not be used as a secret.
    """
    return uuid_utils.compat.uuid7()


def id_at(moment: datetime, random: Random) -> uuid.UUID:
    """Return the UUIDv7 (RFC 9562) with the time `moment` and bits from `random`, for generated history."""
    milliseconds = (moment - EPOCH) // timedelta(milliseconds=1)
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | random.getrandbits(12) << 64 | 2 << 62 | random.getrandbits(62))


ID_EARLY_SECONDS: Final = 3_600
"Upper limit of how much earlier than its row an id is created."


def id_bound(moment: datetime, early_seconds: int = 0) -> uuid.UUID:
    """Return the smallest id that something created `early_seconds` before `moment` or later can have."""
    milliseconds = int(moment.timestamp() * 1000) - 1000 * early_seconds
    return uuid.UUID(int=max(0, milliseconds) << 80)


def random_bytes(count: int) -> bytes:
    """Return `count` unpredictable bytes, for keys, secrets and tokens."""
    return os.urandom(count)


def seeded(text: str) -> Random:
    """Return a generator seeded by `text`, for repeatable runs; never for secrets."""
    return Random(text)
