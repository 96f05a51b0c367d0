"""Passwords: Argon2id, a few at once, and the same time whether or not there is anybody to compare with.

A new password is refused when it is easy to guess, by zxcvbn's lists of common passwords, names and words and its
patterns of keyboards, dates and repeats. No rule asks for certain characters.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn import zxcvbn

from marketplace.runtime import clock
from marketplace.runtime.errors import InvalidInput, Unavailable
from marketplace.text.faults import Fault, FaultCode

LONGEST_BYTES: Final = 1_024
SHORTEST: Final = 12
"Characters. Length is what counts; no rule says which characters."
FEWEST_GUESSES: Final = 10**10
"zxcvbn's bound of its best score: safe against offline guessing of slow hashes (Wheeler, USENIX Security 2016)."
RATED_CHARACTERS: Final = 40
"zxcvbn takes 10 ms for so many, and four times that for twice as many. A password is as good as its beginning."
OWN_WORDS: Final = ("marketplace", "leads", "exclusive")

MEMORY_KIB, PASSES, LANES = 47_104, 2, 1
"80 ms on a slow core, twice the passes that OWASP asks for at 46 MiB."
AT_ONCE: Final = 4
"So that sign-ins take at most 184 MiB and four cores, however many come."
WAITING: Final = 16
"Beyond so many waiting for a place, a second or so of work, the next is told to come back."


class Passwords:
    """Hashes and compares in threads of its own; the loop never waits for a hash. Close it when the process ends."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._threads = ThreadPoolExecutor(AT_ONCE, "password")
        self._queued = 0
        self._nobodys: str | None = None
        self._rating = threading.Lock()

    async def hash(self, password: str) -> str:
        """Raises Unavailable when too many wait."""
        return await self._run(self._hasher.hash, password)

    async def matches(self, kept: str | None, password: str) -> bool:
        """Whether `password` made the hash `kept`; without one, no, after the same time. Raises Unavailable."""
        if self._nobodys is None:
            self._nobodys = await self.hash(clock.random_bytes(16).hex())
        same = await self._run(self._compare, kept or self._nobodys, password)
        return bool(same) and kept is not None

    def _compare(self, kept: str, password: str) -> str:
        try:
            return "yes" if self._hasher.verify(kept, password) else ""
        except (VerificationError, InvalidHashError):
            return ""

    async def demand_strong(self, password: str, email: str, name: str = "", field: str = "password") -> None:
        """Raises InvalidInput unless `password` may be the new password of this member, and Unavailable."""
        fault = length_fault(password, field)
        if fault is None and await self._run(self._guessable, password, email, name):
            detail = "This one is easy to guess: it is common, or made of common parts. Four or five words do well."
            fault = Fault(pointer=f"/{field}", code=FaultCode.value_not_allowed, detail=detail)
        if fault is not None:
            raise InvalidInput((fault,))

    def _guessable(self, password: str, email: str, name: str) -> str:
        own = [email, *email.replace("@", ".").split("."), name, *name.split(), *OWN_WORDS]
        with self._rating:  # the library keeps the words of the call in a global
            guesses = zxcvbn(password[:RATED_CHARACTERS], user_inputs=[word for word in own if word])["guesses"]
        return "yes" if guesses < FEWEST_GUESSES else ""

    async def _run(self, work: Callable[..., str], *given: str) -> str:
        if self._queued >= AT_ONCE + WAITING:
            raise Unavailable("Too many sign-ins at once.")
        self._queued += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)
        finally:
            self._queued -= 1

    def close(self) -> None:
        """Let go of the threads; what they are at is finished and thrown away."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def length_fault(password: str, field: str = "password") -> Fault | None:
    """Return the fault of a password that is too short, too long or cannot be typed, or None."""
    if "\x00" in password:
        return Fault(pointer=f"/{field}", code=FaultCode.character_not_allowed, detail="Leave out the NUL character.")
    if len(password.encode()) > LONGEST_BYTES:
        detail = f"Choose at most {LONGEST_BYTES:,} bytes."
        return Fault(pointer=f"/{field}", code=FaultCode.too_long, detail=detail)
    if len(password) < SHORTEST:
        detail = f"Choose at least {SHORTEST} characters: four or five words do well."
        return Fault(pointer=f"/{field}", code=FaultCode.value_not_allowed, detail=detail)
    return None


def demand_possible(password: str) -> None:
    """Raises InvalidInput for what can be nobody's password, before anything is hashed."""
    fault = length_fault(password)
    if fault is not None and fault.code in (FaultCode.character_not_allowed, FaultCode.too_long):
        raise InvalidInput((fault,))
