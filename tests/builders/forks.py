"""Processes of the service, forked from a process that has imported the libraries.

A process of the service spends most of its start on imports of libraries, which a fork spares. A fork imports only the
marketplace's own modules, and so reads its environment at import as any other process does. It has a session, an
environment and a log of its own, and ends with the exit code of the command.

`python -m tests.builders.forks DESCRIPTOR` is the process that is forked. It accepts requests on that socket until its
standard input ends. For each it forks a process that starts the command, reports its process id, waits for its end and
reports its exit code; it kills the command when whoever asked for it has ended.
"""

import asyncio
import atexit
import functools
import gc
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final

from tests.waiting import within

LIBRARIES: Final = (
    "argon2", "arq.worker", "asyncpg", "cryptography.hazmat.primitives.asymmetric.ed25519",
    "cryptography.hazmat.primitives.ciphers.aead", "difflib", "disposable_email_domains", "email_validator", "h11",
    "holidays", "httptools", "idna", "jinja2", "limits.aio", "litestar", "litestar.openapi.plugins", "numpy.typing",
    "opening_hours", "phonenumbers", "prometheus_client", "pyotp", "redis.asyncio", "rich_click", "segno",
    "standardwebhooks", "statistics", "structlog", "uuid_utils.compat", "uvicorn", "uvloop", "zipcodes", "zoneinfo",
    "zxcvbn",
)  # fmt: skip
"Imported before the first fork. A fork imports what is missing here itself."
LONGEST_REQUEST: Final = 1_000_000
"Bytes of a command and its environment."
LONGEST_RUN: Final = 100.0
"Seconds of a command that is run to its end."
WAITING: Final = 100
"Requests at once, while the libraries are being imported."


class Fork:
    """A running command of the service."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self._writer = writer
        self._end = asyncio.create_task(self._read_code(reader))

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while the command runs."""
        return self._end.result() if self._end.done() else None

    async def wait(self) -> int:
        """Wait for the end and return the exit code."""
        return await asyncio.shield(self._end)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the command has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _read_code(self, reader: asyncio.StreamReader) -> int:
        try:
            return int(await reader.readline())
        finally:
            self._writer.close()


async def start(
    arguments: str | Sequence[str], environment: Mapping[str, str], log: Path, errors: Path | None = None
) -> Fork:
    """Start `marketplace` with these arguments and this environment, and nothing else of ours.

    Its output is appended to `log`, and what it writes to standard error to `errors`, or to `log` too.
    """
    reader, writer = await asyncio.open_unix_connection(_server())
    words = [arguments] if isinstance(arguments, str) else list(arguments)
    request = {"arguments": words, "environment": dict(environment), "log": str(log), "errors": str(errors or log)}
    writer.write(json.dumps(request).encode() + b"\n")
    return Fork(int(await reader.readline()), reader, writer)


async def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `marketplace` with these arguments to its end, as `subprocess.run` does, and kill it after LONGEST_RUN."""
    with tempfile.TemporaryDirectory(prefix="marketplace-run-") as directory:
        output, errors = Path(directory, "output"), Path(directory, "errors")
        whole = {"PATH": os.environ["PATH"], "COLUMNS": "200"} | environment
        fork = await start(arguments, whole, output, errors)
        try:
            code = await within(LONGEST_RUN, fork.wait(), " ".join(("marketplace", *arguments, "to end")))
        finally:
            fork.send_signal(signal.SIGKILL)
        return _completed(arguments, code, output, errors)


def _completed(arguments: Sequence[str], code: int, output: Path, errors: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())


@functools.cache
def _server() -> str:
    """Start the process that is forked, and return the path of its socket."""
    directory = Path(tempfile.mkdtemp(prefix="marketplace-forks-"))
    path = directory / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(WAITING)
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.builders.forks", str(listener.fileno())],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
        )
    atexit.register(_end, server, directory)
    return str(path)


def _end(server: subprocess.Popen[bytes], directory: Path) -> None:
    server.communicate()
    shutil.rmtree(directory)


def _serve(listener: socket.socket) -> None:
    """Fork for each request until standard input ends. Returns in a process that is a command's own."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            sys.exit()
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(connection)
            return
        connection.close()


def _answer(connection: socket.socket) -> None:
    """Fork for one request and report on the fork. Returns in the fork alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection, connection.makefile("rwb") as stream:
        request = json.loads(stream.readline(LONGEST_REQUEST))
        pid = os.fork()
        if pid == 0:
            _become(**request)
            return
        stream.write(b"%d\n" % pid)
        stream.flush()
        ended, _, _ = select.select([os.pidfd_open(pid), connection.fileno()], [], [])
        if connection.fileno() in ended:
            os.kill(pid, signal.SIGKILL)
        else:
            stream.write(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def _become(arguments: list[str], environment: dict[str, str], log: str, errors: str) -> None:
    """Make this process the command's own: its session, environment, arguments and output."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    files = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for path in (log, errors)]
    for source, target in ((nothing, 0), (files[0], 1), (files[1], 2)):
        os.dup2(source, target)
    for descriptor in (nothing, *files):
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["marketplace", *arguments]


if __name__ == "__main__":
    for name in LIBRARIES:
        import_module(name)
    gc.collect()
    gc.freeze()  # a fork shares what no collection visits
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        _serve(listening)
    import_module("marketplace.cli").main()
