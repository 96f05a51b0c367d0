"""The doctor: each setting broken once, on a real server that has it broken."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import msgspec
import pytest
from redis.asyncio import Redis

from marketplace.database.doctor import DoctorFindingCode, examine, unsafe
from marketplace.database.embedded import Engines, Postgres, Valkey
from marketplace.database.migrate import MigrationFault
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings, SettingsFault
from tests.waiting import PATIENCE


async def codes(settings: Settings, **engines: str) -> set[str]:
    """Return the codes of unsafe findings, after checking that each has a sentence and a remedy."""
    urls = {"database_url": str(settings.database_url), "valkey_url": str(settings.valkey_url)} | engines
    findings = await examine(settings, Engines(database_url=urls["database_url"], valkey_url=urls["valkey_url"]))
    assert all(finding.sentence and finding.remedy for finding in findings)
    assert unsafe(findings) == any(finding.severity == "unsafe" for finding in findings)
    return {finding.code for finding in findings if finding.severity == "unsafe"}


async def run(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
async def careless(enterable_dir: Path) -> AsyncIterator[Postgres]:
    """A server that trades every promise for speed."""
    options = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "shared_buffers": "16MB"}
    postgres = Postgres(enterable_dir, options)
    await postgres.start()
    yield postgres
    await postgres.stop()


async def test_a_sound_installation_has_nothing_unsafe(settings: Settings) -> None:
    assert await codes(settings) == set()


async def test_a_server_that_may_lose_commits_is_unsafe(settings: Settings, careless: Postgres) -> None:
    ailments = await codes(settings, database_url=careless.url)
    careless_of = {
        DoctorFindingCode.FSYNC_OFF,
        DoctorFindingCode.FULL_PAGE_WRITES_OFF,
        DoctorFindingCode.SYNCHRONOUS_COMMIT_OFF,
    }
    assert ailments == careless_of | {DoctorFindingCode.LOGIN_REFUSED}  # nobody has migrated there


@pytest.mark.parametrize("value", ["off", "false"])
async def test_a_database_that_commits_carelessly_is_unsafe(settings: Settings, value: str) -> None:
    url = str(settings.database_url)
    name = url.split("/")[3].split("?")[0]
    await run(url, f"alter database {name} set synchronous_commit = {value}")
    assert await codes(settings) == {DoctorFindingCode.SYNCHRONOUS_COMMIT_OFF}


async def test_a_role_that_commits_carelessly_is_unsafe(settings: Settings) -> None:
    url = str(settings.database_url)
    name = url.split("/")[3].split("?")[0]
    await run(url, f"create role careless_in_{name}")
    try:
        await run(url, f"alter role careless_in_{name} in database {name} set synchronous_commit = off")
        assert await codes(settings) == {DoctorFindingCode.SYNCHRONOUS_COMMIT_OFF}
    finally:
        await run(url, f"drop role careless_in_{name}")


async def test_a_schema_newer_than_the_code_is_unsafe(settings: Settings) -> None:
    record = "insert into schema_migration (version, name, sha256) values (9999, '9999_future', 'x')"
    await run(str(settings.database_url), record)
    assert await codes(settings) == {MigrationFault.SCHEMA_NEWER}


async def test_a_schema_that_is_behind_is_only_a_warning(settings: Settings, empty_database_url: str) -> None:
    engines = Engines(database_url=empty_database_url, valkey_url=str(settings.valkey_url))
    findings = await examine(settings, engines)
    assert DoctorFindingCode.SCHEMA_BEHIND in {finding.code for finding in findings}
    assert not unsafe(findings)


@pytest.mark.parametrize(
    ("skew_s", "expected"), [(-90, {DoctorFindingCode.CLOCK_WRONG}), (90, {DoctorFindingCode.CLOCK_WRONG}), (20, set())]
)
async def test_a_clock_far_from_the_databases_is_unsafe(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, skew_s: int, expected: set[str]
) -> None:
    monkeypatch.setattr(clock, "_SKEW", timedelta(seconds=skew_s))
    assert await codes(settings) == expected


async def test_a_secret_that_is_none_is_unsafe(settings: Settings) -> None:
    weak = msgspec.structs.replace(settings, pepper=b"a" * 32)
    assert await codes(weak) == {SettingsFault.SECRET_PLACEHOLDER}


async def test_a_valkey_that_evicts_is_unsafe(settings: Settings, tmp_path: Path) -> None:
    valkey = Valkey(tmp_path)
    await valkey.start()
    try:
        async with Redis.from_url(valkey.url) as client:
            await client.config_set("maxmemory-policy", "allkeys-lru")
        assert await codes(settings, valkey_url=valkey.url) == {DoctorFindingCode.VALKEY_EVICTS}
    finally:
        await valkey.stop()


async def test_a_valkey_that_is_away_is_only_a_warning(settings: Settings) -> None:
    engines = Engines(database_url=str(settings.database_url), valkey_url="redis://127.0.0.1:1/0")
    findings = await examine(settings, engines)
    assert [(finding.code, finding.severity) for finding in findings] == [(DoctorFindingCode.VALKEY_AWAY, "warning")]


async def test_a_valkey_that_never_answers_holds_nobody_up(settings: Settings) -> None:
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with asyncio.timeout(PATIENCE):
        assert await codes(settings, valkey_url=f"redis://127.0.0.1:{port}/0") == set()
    silent.close()


async def test_a_postgres_that_is_away_is_unsafe(settings: Settings) -> None:
    ailments = await codes(settings, database_url="postgresql://nobody@127.0.0.1:1/nothing")
    assert ailments == {MigrationFault.DATABASE_AWAY}
