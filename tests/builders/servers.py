"""A PostgreSQL that is somebody else's: of an older version or the newest, over TCP, with passwords and TLS."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import asyncpg
import pytest

from marketplace.database.embedded import Postgres
from tests.builders.service import free_port
from tests.receivers import Authority
from tests.waiting import PATIENCE

DEBIAN_15: Final = Path("/usr/lib/postgresql/15/bin")
PASSWORD: Final = "p@ss:w/rd?#[x]%41&=+ \"é';\\"
"""Of every login made here: each character that means something in a URL or in SQL."""


class Server:
    """A running server and its superuser, `boss`."""

    def __init__(self, port: int, authority: Path | None) -> None:
        self.port = port
        self.authority = authority
        "The certificate to trust, where this server speaks TLS."

    def url(self, user: str = "boss", database: str = "postgres", host: str = "127.0.0.1", **options: str) -> str:
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
        return f"postgresql://{quote(user, safe='')}:{quote(PASSWORD, safe='')}@{host}:{self.port}/{database}?{query}"

    async def run(self, *statements: str, **where: str) -> Any:
        """The answer of the last of `statements`, run by the superuser."""
        connection = await asyncpg.connect(self.url(**where))
        try:
            for statement in statements:
                answer = await connection.fetchval(statement)
            return answer
        finally:
            await connection.close()

    async def make_owner(self, name: str, rights: str) -> str:
        """A login with `rights` and a database that it owns; the URL of both."""
        password = PASSWORD.replace("'", "''")
        connection = await asyncpg.connect(self.url())
        try:
            await connection.execute(f"create role {name} login {rights} password '{password}'")
            await connection.execute(f"create database {name} owner {name}")
        finally:
            await connection.close()
        return self.url(name, name)


@contextmanager
def server(version: int, directory: Path) -> Iterator[Server]:
    """A new server of PostgreSQL 15, with TLS (Debian's), or 18, without (the wheel's). Skips where there is no 15."""
    if version == 15 and not DEBIAN_15.exists():
        pytest.skip(f"PostgreSQL 15 is not in {DEBIAN_15}: apt-get install postgresql-15")
    wheel = Postgres(directory)
    programs, account = DEBIAN_15 if version == 15 else Path(wheel._program("postgres")).parent, wheel.account
    identity: dict[str, Any] = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
    home, port = directory / f"server-{version}", free_port()
    home.mkdir(mode=0o700)
    password = home / "password"
    password.write_text(PASSWORD)
    authority, certificate, key = Authority(home).files("localhost")
    for file in (home, password, certificate, key, authority):
        os.chown(file, *((account.pw_uid, account.pw_gid) if account else (-1, -1)))
    key.chmod(0o600)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    make = [
        f"{programs}/initdb",
        "-D",
        f"{home}/data",
        "-U",
        "boss",
        f"--pwfile={password}",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    made = subprocess.run(
        [*make, "-A", "scram-sha-256"], env=environment, cwd=home, capture_output=True, check=False, **identity
    )
    assert made.returncode == 0, made.stderr
    options: dict[str, object] = {
        "port": port,
        "listen_addresses": "127.0.0.1,::1",
        "unix_socket_directories": home,
        "shared_buffers": "32MB",
        "max_connections": 60,
    }
    if version == 15:
        options |= {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key}
    command = [str(programs / "postgres"), "-D", str(home / "data")]
    command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    log = (home / "log").open("ab")
    process = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log, **identity)
    try:
        running = Server(port, authority if version == 15 else None)
        _until_it_answers(programs / "pg_isready", port, home / "log")
        reached = home.parent
        if running.authority is not None:
            running.authority = Path(shutil.copy(authority, reached / "authority.pem"))
        yield running
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(PATIENCE)
        log.close()


def _until_it_answers(ready: Path, port: int, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while subprocess.run([ready, "-h", "127.0.0.1", "-p", str(port), "-q"], check=False).returncode != 0:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
