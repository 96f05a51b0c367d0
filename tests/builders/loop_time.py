"""Processor time of each callback of the event loop: how long everything else in the process waits for it.

Measured in the thread's own processor time, which is the same on a busy machine and on an idle one.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

SHOWN: Final = 10
_HANDLES: Any = asyncio.events.Handle


class LoopTimes:
    """Milliseconds of processor time that each callback took, with what it was."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, str]] = []

    def count_above(self, milliseconds: float) -> int:
        """Return how many callbacks took longer than this."""
        return sum(took > milliseconds for took, _ in self.taken)

    @property
    def longest(self) -> float:
        return max((took for took, _ in self.taken), default=0.0)

    def __str__(self) -> str:
        slowest = sorted(self.taken, reverse=True)[:SHOWN]
        lines = [f"{took:8.1f} ms  {name}" for took, name in slowest]
        return "\n".join((f"{len(self.taken):,} callbacks; the longest:", *lines))


@contextmanager
def loop_times() -> Iterator[LoopTimes]:
    """Measure every callback that asyncio's own loop runs in this thread; uvloop runs its callbacks elsewhere.

    What is there at the start is kept out of garbage collection meanwhile, as processes of the service do it: to search
    all that a run of tests has made takes hundreds of milliseconds.
    """
    times, thread, handles = LoopTimes(), threading.get_ident(), _HANDLES
    original = handles._run

    def run(handle: Any) -> None:
        if threading.get_ident() != thread:
            original(handle)
            return
        name = _name(handle._callback)
        began = time.thread_time()
        original(handle)
        times.taken.append(((time.thread_time() - began) * 1000, name))

    gc.collect()
    gc.freeze()
    handles._run = run
    try:
        yield times
    finally:
        handles._run = original
        gc.unfreeze()


def _name(callback: Any) -> str:
    """Name of a task's coroutine and of where it waits, or of a plain callback."""
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return repr(callback)[:200]
    coroutine: Any = task.get_coro()
    names: list[str] = []
    while coroutine is not None and len(names) < 30:
        frame: Any = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        names.append(f"{getattr(coroutine, '__qualname__', coroutine)}:{frame.f_lineno if frame else '?'}")
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return " > ".join(names[-6:])
