"""The only place where time, chance and ids come from, so that everything else can be given them."""

import os
import time
import uuid
from datetime import UTC, datetime
from random import Random

import uuid_utils.compat

__all__ = ["Random", "monotonic", "new_id", "now", "random_bytes", "seeded"]


def now() -> datetime:
    """The wall clock, always aware and always UTC."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds on a clock that never goes back; only differences mean anything."""
    return time.monotonic()


def new_id() -> uuid.UUID:
    """A fresh UUIDv7: unique, and later ids sort after earlier ones, which keeps new rows together in an index.

    It tells its time of birth to whoever sees it: right for a lead, wrong for a secret.
    """
    return uuid_utils.compat.uuid7()


def random_bytes(count: int) -> bytes:
    """`count` bytes that nobody can guess: for keys, secrets and tokens."""
    return os.urandom(count)


def seeded(text: str) -> Random:
    """Chance that follows from `text` alone, so that a run can be repeated; never for what must not be guessed."""
    return Random(text)
