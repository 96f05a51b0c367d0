"""Processor time and memory of the processes of a system, by kind, and of the rest of the machine."""

import contextlib
import os
import resource
from collections.abc import Iterator
from typing import Any, Final

import psutil

from marketplace.database.embedded import Engines
from marketplace.runtime.supervisor import Supervisor

SERVING: Final = ("api", "workers", "postgres", "valkey")
"Kinds of processes that serve leads. The others send and receive."


class ProcessGroup:
    """Processes of one running system."""

    def __init__(self, supervisor: Supervisor, engines: Engines) -> None:
        self._supervisor = supervisor
        self._engines = engines

    def pids(self) -> dict[str, list[int]]:
        """Return the process ids by kind."""
        children = self._supervisor.pids
        postgres, valkey = self._engines.postgres, self._engines.valkey
        return {
            "api": [pid for name, pid in children.items() if name.startswith("api")],
            "workers": [pid for name, pid in children.items() if name.startswith("worker-")],
            "postgres": [postgres.pid] if postgres and postgres.pid else [],
            "valkey": [valkey.pid] if valkey and valkey.pid else [],
            "receivers": [pid for name, pid in children.items() if name == "receivers"],
        }

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor seconds used so far by each kind, with those of children that have ended."""
        return {kind: sum(map(tree_seconds, pids)) for kind, pids in self.pids().items()}

    def memory_megabytes(self) -> dict[str, float]:
        """Return the proportional memory (PSS) by kind, in MB, with the children of each process."""
        return {kind: round(sum(map(_tree_megabytes, pids)), 1) for kind, pids in self.pids().items()}


class MachineTime:
    """Processor time of the whole machine, to see how much of it others used."""

    def __init__(self, processes: ProcessGroup) -> None:
        self._processes = processes
        self._machine = _busy_seconds()
        self._ours = self._own_seconds()

    def others_seconds(self) -> float:
        """Return the processor seconds that neither the system, its receivers nor the sender used since the start."""
        return max(0.0, (_busy_seconds() - self._machine) - (self._own_seconds() - self._ours))

    def _own_seconds(self) -> float:
        own = psutil.Process(os.getpid()).cpu_times()
        return float(own.user + own.system + sum(self._processes.cpu_seconds().values()))


def allow_connections() -> None:
    """Let this process and its children open as many files as the system allows: an overload needs many connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def tree_seconds(pid: int) -> float:
    """Return the processor seconds of a process, its living children, and those that have ended and were waited for."""
    seconds = 0.0
    for process in _family(pid):
        with contextlib.suppress(psutil.Error):
            times: Any = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def _tree_megabytes(pid: int) -> float:
    total = 0.0
    for process in _family(pid):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss / 1e6
    return total


def _family(pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        yield process
        yield from process.children(recursive=True)
