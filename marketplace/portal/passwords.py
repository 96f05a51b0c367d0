"""Passwords: hashed with Argon2id in a few threads; comparing takes the same time for an unknown member.

A new password is refused if zxcvbn finds it easy to guess, by its lists of common passwords, names and words and its
patterns of keyboards, dates and repeats. No rule requires certain characters.
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
"Characters."
FEWEST_GUESSES: Final = 10**10
"zxcvbn's bound of its best score: safe against offline guessing of slow hashes (Wheeler, USENIX Security 2016)."
RATED_CHARACTERS: Final = 40
"zxcvbn takes 10 ms for so many, and 40 ms for twice as many; only the beginning of a longer password is rated."
OWN_WORDS: Final = ("marketplace", "leads", "exclusive")

MEMORY_KIB, PASSES, LANES = 47_104, 2, 1
"80 ms on a slow core; twice the passes that OWASP recommends at 46 MiB."
AT_ONCE: Final = 4
"Hashes at once: sign-ins take at most 184 MiB and four cores."
WAITING: Final = 16
"Passwords that may wait for a thread, about a second of work; further ones are refused as Unavailable."


class Passwords:
    """Hashes and compares passwords in threads, so that the event loop never waits. Close it when the process ends."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._threads = ThreadPoolExecutor(AT_ONCE, "password")
        self._queued = 0
        self._decoy_hash: str | None = None
        self._rating = threading.Lock()

    async def hash(self, password: str) -> str:
        """Return the hash of a password. Raises Unavailable if too many wait."""
        return await self._run(self._hasher.hash, password)

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Return whether the hash is of this password; False for None, after the same time. Raises Unavailable."""
        if self._decoy_hash is None:
            self._decoy_hash = await self.hash(clock.random_bytes(16).hex())
        same = await self._run(self._compare, password_hash or self._decoy_hash, password)
        return bool(same) and password_hash is not None

    def _compare(self, password_hash: str, password: str) -> str:
        try:
            return "yes" if self._hasher.verify(password_hash, password) else ""
        except (VerificationError, InvalidHashError):
            return ""

    async def demand_strong(self, password: str, email: str, name: str = "", field: str = "password") -> None:
        """Raise InvalidInput if `password` is too weak for this member, and Unavailable if too many wait."""
        fault = length_fault(password, field)
        if fault is None and await self._run(self._guessable, password, email, name):
            detail = "This password is easy to guess. Choose four or five words that do not belong together."
            fault = Fault(pointer=f"/{field}", code=FaultCode.value_not_allowed, detail=detail)
        if fault is not None:
            raise InvalidInput((fault,))

    def _guessable(self, password: str, email: str, name: str) -> str:
        own = [email, *email.replace("@", ".").split("."), name, *name.split(), *OWN_WORDS]
        with self._rating:  # zxcvbn stores `user_inputs` in a global
            guesses = zxcvbn(password[:RATED_CHARACTERS], user_inputs=[word for word in own if word])["guesses"]
        return "yes" if guesses < FEWEST_GUESSES else ""

    async def _run(self, work: Callable[..., str], *texts: str) -> str:
        if self._queued >= AT_ONCE + WAITING:
            raise Unavailable("Too many sign-ins at once.")
        self._queued += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *texts)
        finally:
            self._queued -= 1

    def close(self) -> None:
        """Stop the threads; work in progress is finished and its result dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def length_fault(password: str, field: str = "password") -> Fault | None:
    """Return the fault of a password that is too short, too long or holds a NUL character, or None."""
    if "\x00" in password:
        return Fault(pointer=f"/{field}", code=FaultCode.character_not_allowed, detail="Leave out the NUL character.")
    if len(password.encode()) > LONGEST_BYTES:
        detail = f"Choose at most {LONGEST_BYTES:,} bytes."
        return Fault(pointer=f"/{field}", code=FaultCode.too_long, detail=detail)
    if len(password) < SHORTEST:
        detail = f"Choose at least {SHORTEST} characters, such as four or five words."
        return Fault(pointer=f"/{field}", code=FaultCode.value_not_allowed, detail=detail)
    return None


def demand_possible(password: str) -> None:
    """Raise InvalidInput for a text that no member can have as password, before anything is hashed."""
    fault = length_fault(password)
    if fault is not None and fault.code in (FaultCode.character_not_allowed, FaultCode.too_long):
        raise InvalidInput((fault,))
