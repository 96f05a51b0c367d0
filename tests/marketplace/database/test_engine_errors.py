"""Errors of engines and of the machine: a command prints a sentence with a remedy, and exits with 1."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
from redis import exceptions as valkey
from redis.asyncio import Redis

from marketplace.database.embedded import Valkey
from marketplace.database.engine_errors import database_error, machine_error, plain_error, valkey_error
from marketplace.runtime.settings import Settings, StartError
from tests.builders.forks import run
from tests.conftest import SECRETS, run_sql, with_database
from tests.marketplace.test_cli import of
from tests.waiting import PATIENCE

COMMANDS = (
    ("serve",),
    ("work",),
    ("up",),
    ("migrate",),
    ("migrate", "--status"),
    ("doctor",),
    ("verify",),
    ("fence", "--dry-run"),
    ("audit", "verify"),
    ("key", "list"),
    ("member", "link", "--email", "a@example.com"),
)
AWAY = {"DATABASE_URL": "postgresql://x:hunter2@127.0.0.1:1/leads", "VALKEY_URL": "redis://127.0.0.1:1"}


def check(ran: subprocess.CompletedProcess[str], words: str) -> None:
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
    assert "hunter2" not in ran.stdout + ran.stderr
    assert words in " ".join(ran.stderr.split()), ran.stderr


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of a web server."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_no_command_ends_in_a_traceback_where_nothing_listens(command: tuple[str, ...], tmp_path: Path) -> None:
    ran = await run(*command, **SECRETS | AWAY | {"MARKETPLACE_DATA": str(tmp_path / "missing")})
    check(ran, "")
    assert "DATABASE_URL" in ran.stderr or "marketplace doctor" in ran.stderr


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://x@no-such-host.invalid/leads", "name of PostgreSQL's host is not known"),
        ("postgresql://x@127.0.0.1:1/leads", "Nothing takes connections where DATABASE_URL points"),
        ("postgresql://x@/leads?host=/nowhere/at/all", "cannot be opened"),
        ("postgresql://x@127.0.0.1:1/leads?sslmode=verify-full&sslrootcert=/nowhere", "DATABASE_URL"),
        ("postgresql://x@127.0.0.1:1/leads?sslmode=perhaps", "DATABASE_URL"),
        ("postgresql://x@127.0.0.1:{stranger}/leads", "does not use TLS"),
        ("postgresql://x@127.0.0.1:{stranger}/leads?sslmode=require", "TLS"),
    ],
)
@pytest.mark.parametrize("command", ["migrate", "doctor"])
async def test_the_way_to_postgres_is_told_apart(command: str, url: str, words: str, stranger: int) -> None:
    urls = {"DATABASE_URL": url.format(stranger=stranger), "VALKEY_URL": "redis://127.0.0.1:1"}
    check(await run(command, **SECRETS | urls), words)


async def test_a_database_that_is_not_there_and_one_that_is_full(settings: Settings) -> None:
    url = str(settings.database_url)
    nowhere = of(settings) | {"DATABASE_URL": with_database(url, "no_such_database")}
    for command in ("migrate", "doctor", "serve", "verify"):
        check(await run(command, **nowhere), "")
    check(await run("migrate", **nowhere), "no database of that name")
    name = url.split("/")[3].split("?")[0]
    await run_sql(url, f"alter database {name} connection limit 0")
    for command in ("doctor", "serve", "work", "verify"):
        check(await run(command, **of(settings)), "")
    check(await run("doctor", **of(settings)), "no connection left")


async def test_a_schema_that_is_not_there_stops_a_process_with_the_remedy(
    settings: Settings, empty_database_url: str
) -> None:
    behind = of(settings) | {"DATABASE_URL": empty_database_url}
    for command in ("serve", "work", "verify"):
        check(await run(command, **behind), "marketplace")
    check(await run("serve", **behind), "Run: marketplace migrate")


@pytest.fixture
async def own_valkey(tmp_path: Path) -> AsyncIterator[Valkey]:
    engine = Valkey(tmp_path)
    await engine.start()
    yield engine
    await engine.stop()


async def test_what_valkey_answers_is_told_apart(settings: Settings, own_valkey: Valkey, stranger: int) -> None:
    async def says(url: str, words: str) -> None:
        ran = await run("doctor", **of(settings) | {"VALKEY_URL": url})
        assert ran.returncode == 0
        assert "Traceback" not in ran.stderr
        assert words in " ".join(ran.stderr.split()), ran.stderr

    await says(f"redis://127.0.0.1:{stranger}/0", "warning: ")
    await says("redis://no-such-host.invalid/0", "Valkey's host is not known")
    await says(f"rediss://127.0.0.1:{stranger}/0", "does not use TLS")
    client = Redis.from_url(own_valkey.url)
    await client.execute_command("REPLICAOF", "127.0.0.1", "1")
    await says(own_valkey.url, "is a replica")
    await client.execute_command("REPLICAOF", "NO", "ONE")
    await client.config_set("requirepass", "hunter2")
    await says(own_valkey.url, "refuses the user or password, or wants one")
    await says(f"{own_valkey.url}?password=wrong", "refuses the user or password, or wants one")
    await client.aclose()
    async with Redis.from_url(f"{own_valkey.url}?password=hunter2") as let_in:
        await let_in.config_set("requirepass", "")


async def test_a_port_that_is_taken_is_said(stranger: int, settings: Settings) -> None:
    check(await run("serve", **of(settings) | {"MARKETPLACE_PORT": str(stranger)}), "Nothing can listen on")
    taken = of(settings) | {"MARKETPLACE_WORKER_METRICS_PORT": str(stranger)}
    check(await run("work", **taken), "in use by another program")


async def test_directories_that_cannot_be_used_are_said(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "file").write_text("")
    for command in ("up", "migrate", "doctor", "key"):
        arguments = ("list",) if command == "key" else ()
        check(await run(command, *arguments, MARKETPLACE_DATA=str(tmp_path / "file" / "under")), "")
    check(await run("work", **of(settings) | {"MARKETPLACE_JOURNAL": str(tmp_path / "file")}), "journal")
    check(await run("doctor", "--json", str(tmp_path / "no" / "such" / "out.json"), **of(settings)), "missing")


async def test_a_data_directory_that_is_missing_is_made_or_not_needed(settings: Settings, tmp_path: Path) -> None:
    """With a database of one's own there is nothing in it that a command must find."""
    environment = of(settings) | {"MARKETPLACE_DATA": str(tmp_path / "not" / "there")}
    for command in (("doctor",), ("migrate",), ("key", "list"), ("verify",)):
        ran = await run(*command, **environment)
        assert ran.returncode == 0, ran.stderr
    without_valkey = {name: value for name, value in environment.items() if name != "VALKEY_URL"}
    ran = await run("doctor", **without_valkey)
    assert ran.returncode == 0, ran.stderr


def test_ctrl_c_ends_a_command_without_a_traceback(settings: Settings) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **of(settings)}
    command = [sys.executable, "-m", "marketplace.cli", "verify", "--watch", "60"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        while b" findings" not in process.stdout.readline():
            pass
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert b"Traceback" not in errors


def test_an_error_of_ours_is_noted_in_the_log_without_its_text(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    script = (
        "import marketplace.cli as cli\n"
        "def fail(**_): raise LookupError('jane@example.com')\n"
        "cli.marketplace.commands['doctor'].callback = fail\n"
        "cli.main()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, "doctor"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "MARKETPLACE_DATA": str(tmp_path)},
    )
    log = tmp_path / "logs" / "errors.log"
    check(ran, f"should not happen (LookupError). Please report it, with the end of {log}.")
    assert "in fail" in log.read_text()
    assert "jane" not in log.read_text() + ran.stderr
    assert log.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (asyncpg.InvalidPasswordError("x"), "database_password_wrong"),
        (asyncpg.InvalidAuthorizationSpecificationError("x"), "database_login_refused"),
        (asyncpg.TooManyConnectionsError("x"), "database_full"),
        (asyncpg.CannotConnectNowError("x"), "database_starting"),
        (asyncpg.ReadOnlySQLTransactionError("x"), "database_read_only"),
        (asyncpg.DiskFullError("x"), "database_disk_full"),
        (asyncpg.ConnectionDoesNotExistError("x"), "database_away"),
        (asyncpg.InternalClientError("x"), "database_away"),
        (asyncpg.DivisionByZeroError("x"), "database_error"),
        (ssl.SSLCertVerificationError("x"), "tls_failed"),
        (ConnectionError("PostgreSQL server at x rejected SSL upgrade"), "tls_failed"),
        (TimeoutError(), "database_away"),
    ],
)
def test_each_answer_of_postgres_has_its_words(error: Exception, code: str) -> None:
    words = database_error(error)
    assert words.code == code
    assert words.sentence.endswith(".")
    assert words.remedy


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (valkey.AuthenticationError("x"), "valkey_password_wrong"),
        (valkey.ResponseError("NOAUTH Authentication required."), "valkey_password_wrong"),
        (valkey.ReadOnlyError("x"), "valkey_read_only"),
        (valkey.BusyLoadingError("x"), "valkey_loading"),
        (valkey.NoPermissionError("x"), "valkey_permission_denied"),
        (valkey.InvalidResponse("x"), "valkey_foreign"),
        (valkey.ResponseError("unknown command"), "valkey_refuses"),
        (valkey.ConnectionError("x"), "valkey_away"),
        (ConnectionRefusedError(), "valkey_away"),
    ],
)
def test_each_answer_of_valkey_has_its_words(error: Exception, code: str) -> None:
    assert valkey_error(error).code == code


def test_what_is_wrong_in_a_group_of_errors_is_found() -> None:
    refusal = StartError("refused", "No.", "Yes.")
    group = ExceptionGroup("x", [ValueError(), ExceptionGroup("y", [OSError(28, "No space left on device")])])
    words = plain_error(group)
    assert words is not None
    assert words.sentence == "The disk is full."
    assert plain_error(ExceptionGroup("x", [OSError(), refusal])) is refusal
    assert plain_error(ExceptionGroup("x", [ValueError()])) is None
    assert "(/x/y)" in machine_error(PermissionError(13, "Permission denied", "/x/y")).sentence
