"""The migration runner, on databases of its own and folders of its own."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from marketplace.database.migrate import MigrationError, MigrationFault, migrate, migrations_directory, status

FIRST = "create table first (id int primary key);"
SECOND = """
do $$ begin perform 1; end $$;  -- a body with semicolons; and a comment with one
create table second (id int references first);
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text(FIRST)
    (tmp_path / "0002_second.sql").write_text(SECOND)
    return tmp_path


async def fetch(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


async def tables(url: str) -> set[str]:
    return {row["name"] for row in await fetch(url, "select relname as name from pg_class where relkind = 'r'")}


async def fault(url: str, folder: Path) -> str:
    with pytest.raises(MigrationError) as raised:
        await migrate(url, directory=folder, reference_data=())
    return raised.value.code


async def test_every_file_is_applied_once_and_in_order(empty_database_url: str, folder: Path) -> None:
    applied = await migrate(empty_database_url, directory=folder, reference_data=())
    assert [migration.name for migration in applied] == ["0001_first", "0002_second"]
    assert await migrate(empty_database_url, directory=folder, reference_data=()) == ()
    assert all(migration.applied for migration in await status(empty_database_url, folder))


async def test_many_migrators_at_once_apply_each_file_once(empty_database_url: str, folder: Path) -> None:
    runs = [migrate(empty_database_url, directory=folder, reference_data=()) for _ in range(6)]
    assert sorted(len(applied) for applied in await asyncio.gather(*runs)) == [0, 0, 0, 0, 0, 2]


async def test_asking_for_the_status_changes_nothing(empty_database_url: str, folder: Path) -> None:
    assert [migration.applied for migration in await status(empty_database_url, folder)] == [False, False]
    assert "schema_migration" not in await tables(empty_database_url)


async def test_a_target_stops_the_run_there(empty_database_url: str, folder: Path) -> None:
    await migrate(empty_database_url, directory=folder, to=1, reference_data=())
    assert {"first", "second"} & await tables(empty_database_url) == {"first"}


async def test_an_edited_file_is_refused_by_its_name(empty_database_url: str, folder: Path) -> None:
    await migrate(empty_database_url, directory=folder, reference_data=())
    (folder / "0001_first.sql").write_text(FIRST + "-- a remark")
    with pytest.raises(MigrationError, match=r"0001_first\.sql was edited"):
        await migrate(empty_database_url, directory=folder, reference_data=())


async def test_a_database_newer_than_the_code_is_refused(empty_database_url: str, folder: Path) -> None:
    await migrate(empty_database_url, directory=folder, reference_data=())
    (folder / "0002_second.sql").unlink()
    assert await fault(empty_database_url, folder) == MigrationFault.SCHEMA_NEWER


async def test_a_vanished_file_is_refused(empty_database_url: str, folder: Path) -> None:
    await migrate(empty_database_url, directory=folder, reference_data=())
    (folder / "0001_first.sql").unlink()
    assert await fault(empty_database_url, folder) == MigrationFault.MIGRATION_MISSING


async def test_the_printed_schema_is_not_a_migration(empty_database_url: str, folder: Path) -> None:
    (folder / "schema.sql").write_text("this is no statement")
    applied = await migrate(empty_database_url, directory=folder, reference_data=())
    assert [migration.name for migration in applied] == ["0001_first", "0002_second"]


async def test_a_file_that_comes_too_late_is_refused(empty_database_url: str, folder: Path) -> None:
    (folder / "0001_first.sql").rename(folder / "0003_first.sql")
    (folder / "0002_second.sql").write_text("select 1;")
    await migrate(empty_database_url, directory=folder, reference_data=())
    (folder / "0001_late.sql").write_text("select 1;")
    assert await fault(empty_database_url, folder) == MigrationFault.MIGRATION_LATE


@pytest.mark.parametrize("name", ["0002_again.sql", "3_short.sql", "later.sql"])
async def test_a_file_without_a_number_of_its_own_is_refused(empty_database_url: str, folder: Path, name: str) -> None:
    (folder / name).write_text("select 1;")
    assert await fault(empty_database_url, folder) == MigrationFault.MIGRATION_MISNAMED


async def test_nothing_of_a_file_that_fails_remains(empty_database_url: str, folder: Path) -> None:
    (folder / "0002_second.sql").write_text("create table second (id int); select 1/0;")
    assert await fault(empty_database_url, folder) == MigrationFault.MIGRATION_FAILED
    assert {"first", "second"} & await tables(empty_database_url) == {"first"}
    assert [migration.applied for migration in await status(empty_database_url, folder)] == [True, False]


async def test_a_file_may_ask_to_run_outside_a_transaction(empty_database_url: str, folder: Path) -> None:
    sql = "-- no-transaction\ncreate index concurrently if not exists second_id on second (id);"
    (folder / "0003_index.sql").write_text(sql)
    assert len(await migrate(empty_database_url, directory=folder, reference_data=())) == 3


async def test_an_owner_who_is_no_superuser_may_migrate(empty_database_url: str, folder: Path) -> None:
    name = empty_database_url.split("/")[3].split("?")[0]
    role = f"owner_of_{name}"
    await fetch(empty_database_url, f"create role {role} login password 'only here'")
    try:
        await fetch(empty_database_url, f"alter database {name} owner to {role}")
        url = empty_database_url.partition("://")[2].partition("@")[2]
        applied = await migrate(f"postgresql://{role}:only%20here@{url}", directory=folder, reference_data=())
        assert len(applied) == 2
    finally:
        await fetch(empty_database_url, f"reassign owned by {role} to current_user")
        await fetch(empty_database_url, f"drop owned by {role}")
        await fetch(empty_database_url, f"drop role {role}")


async def load_greeting(connection: asyncpg.Connection) -> None:
    await connection.execute("create table if not exists greeting (word text)")


async def test_reference_data_is_loaded_after_the_last_file(empty_database_url: str, folder: Path) -> None:
    await migrate(empty_database_url, directory=folder, reference_data=(f"{__name__}:load_greeting",))
    assert "greeting" in await tables(empty_database_url)


async def test_reference_data_waits_for_a_whole_schema(empty_database_url: str, folder: Path) -> None:
    await migrate(empty_database_url, directory=folder, to=1, reference_data=(f"{__name__}:load_greeting",))
    assert "greeting" not in await tables(empty_database_url)


async def test_a_server_that_is_away_is_said_in_a_sentence() -> None:
    with pytest.raises(MigrationError) as raised:
        await status("postgresql://nobody@127.0.0.1:1/nothing")
    assert raised.value.code == MigrationFault.DATABASE_AWAY


async def test_the_shipped_migrations_are_all_in_the_template(database_url: str) -> None:
    assert all(migration.applied for migration in await status(database_url))
    assert {path.stem for path in migrations_directory().glob("[0-9]*.sql")} == {
        migration.name for migration in await status(database_url)
    }
