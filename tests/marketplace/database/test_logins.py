"""Processes log in as somebody who owns nothing, on our own server and on those of others."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import asyncpg
import msgspec
import pytest

from marketplace.database import db
from marketplace.database.db import connect
from marketplace.database.doctor import DoctorFinding, DoctorFindingCode, examine, unsafe
from marketplace.database.embedded import Engines
from marketplace.database.logins import ACTS_AS, GROUPS, Role, login_of, script
from marketplace.database.migrate import MigrationError, MigrationFault, migrate
from marketplace.runtime.settings import Settings
from tests.builders.servers import PASSWORD, Server, server
from tests.builders.world import World
from tests.conftest import MASTER_KEY

ROLES: tuple[Role, ...] = get_args(Role)
EVERYBODY = [(role, group) for role, groups in ACTS_AS.items() for group in groups]


async def as_group(url: str, role: Role, group: str) -> Any:
    connection = await connect(url, role, master_key=MASTER_KEY)
    await connection.execute(f"set role {group}")
    return connection


async def refused(connection: Any, sql: str, *values: Any) -> bool:
    try:
        async with connection.transaction():
            await connection.execute(sql, *values)
    except asyncpg.InsufficientPrivilegeError:
        return True
    return False


# --- what a login may do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
async def test_a_login_is_nothing_but_its_roles(role: Role, database_url: str) -> None:
    """Yield statements that an attacker would run through a process's connection."""
    connection = await connect(database_url, role, master_key=MASTER_KEY)
    try:
        assert await connection.fetchval("select current_user") == role
        assert await connection.fetchval("select session_user") == login_of(MASTER_KEY, role).name
        assert await refused(connection, "select sealed from contact")
        assert await refused(connection, "create table mine (id int)")
        await connection.execute("set role none")
        assert await connection.fetchval("select current_user") == login_of(MASTER_KEY, role).name
        for statement in (
            "select 1 from lead",
            "select 1 from contact",
            "select read_contact(null, null)",
            "delete from exposure",
            "alter table exposure disable trigger all",
            "set role marketplace",
            "set session authorization marketplace",
            "set session_replication_role = replica",
            "create role stranger",
            "create extension dblink",
            "copy (select 1) to program 'true'",
            "select pg_read_file('/etc/passwd')",
            "create schema mine",
        ):
            assert await refused(connection, statement), statement
        for other in GROUPS.keys() - set(ACTS_AS[role]):
            assert await refused(connection, f"set role {other}"), other
        for group in ACTS_AS[role]:
            assert not await refused(connection, f"set role {group}"), group
    finally:
        await connection.close()


async def test_a_login_without_its_password_is_not_let_in(database_url: str) -> None:
    login = login_of(MASTER_KEY, "marketplace_api")
    for password in ("", "guessed", login_of(MASTER_KEY, "marketplace_worker").password):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(database_url, user=login.name, password=password)
    assert login.password not in repr(login)


async def test_another_installation_has_other_logins() -> None:
    ours, theirs = login_of(MASTER_KEY, "marketplace_api"), login_of(bytes(32), "marketplace_api")
    assert ours.name != theirs.name
    assert ours.password != theirs.password


MAY_OPEN = {"marketplace_api", "marketplace_worker", "marketplace_eraser", "marketplace_returner"}
"""The door takes the worker, which delivers, and the api, whose feed, pages and returns desk show what was exposed; it
remains the api where it erases or grants a return. docs/ARCHITECTURE.md says the same."""


@pytest.mark.parametrize(("role", "group"), EVERYBODY)
async def test_contact_data_comes_through_the_door_or_not_at_all(role: Role, group: str, database_url: str) -> None:
    owner = await asyncpg.connect(database_url)
    world = World(owner)
    await world.make()
    lead, held = await world.lead("exposed"), await world.lead("held")
    connection = await as_group(database_url, role, group)
    try:
        for sql in ("select sealed from contact", "select wrapped from data_key", "table contact"):
            assert await refused(connection, sql)
        door = "select read_contact($1, $2)"
        assert await refused(connection, door, lead.id, world.business) == (group not in MAY_OPEN)
        assert await refused(connection, door, lead.id, world.other_business)
        assert await refused(connection, door, held.id, world.business)
    finally:
        await connection.close()
        await owner.close()


# --- on servers of others ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[15, 18])
def foreign(request: pytest.FixtureRequest) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="marketplace-test-") as name:
        Path(name).chmod(0o755)
        with server(request.param, Path(name)) as running:
            yield running


SHARED = "owner_of_the_shared"
"A database that several tests leave as it was, and its owner."


@pytest.fixture
async def migrated(foreign: Server) -> str:
    """URL of a database that is migrated once for all tests which undo what they change; to migrate takes a second."""
    if not await _list(foreign, f"select from pg_database where datname = '{SHARED}'"):
        await clear(foreign)
        await migrate(await foreign.make_owner(SHARED, "createrole"), MASTER_KEY)
    return foreign.url(SHARED, SHARED)


@asynccontextmanager
async def changed(foreign: Server, change: str, undo: str) -> AsyncIterator[None]:
    """Change something in the shared database or its roles, and undo it at the end."""
    await foreign.run(change, database=SHARED)
    try:
        yield
    finally:
        await foreign.run(undo, database=SHARED)


@pytest.fixture
async def bare(foreign: Server) -> Server:
    """The server as it was at first: roles belong to all databases, and so would be there from the test before."""
    await clear(foreign)
    return foreign


async def clear(foreign: Server) -> None:
    """Remove the databases and roles of earlier tests."""
    for (name,) in await _list(foreign, "select datname from pg_database where datname like 'owner\\_%'"):
        await foreign.run(f"drop database {name} with (force)")
    rows = await _list(foreign, "select rolname from pg_roles where rolname ~ '^(owner|marketplace)_' order by 1")
    for (name,) in rows:
        await foreign.run(f'drop role "{name}"')


async def _list(foreign: Server, sql: str) -> list[Any]:
    connection = await asyncpg.connect(foreign.url())
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


async def found(settings: Settings, url: str) -> tuple[DoctorFinding, ...]:
    findings = await examine(settings, Engines(database_url=url, valkey_url=str(settings.valkey_url)))
    return tuple(finding for finding in findings if finding.code != DoctorFindingCode.CHECKSUMS_OFF)


async def run_script(bare: Server, text: str) -> None:
    connection = await asyncpg.connect(bare.url())
    await connection.execute(text)
    await connection.close()


async def every_role_works(url: str) -> None:
    for role, group in EVERYBODY:
        connection = await as_group(url, role, group)
        assert await connection.fetchval("select count(*) from lead") == 0
        await connection.close()


@pytest.mark.parametrize("rights", ["superuser", "createrole"])
async def test_whoever_may_make_roles_migrates_and_every_process_logs_in(
    bare: Server, settings: Settings, rights: str
) -> None:
    url = await bare.make_owner("owner_of_it", rights)
    assert {finding.code for finding in await found(settings, url)} == {DoctorFindingCode.LOGIN_REFUSED}
    assert await migrate(url, MASTER_KEY)
    assert await found(settings, url) == ()
    await every_role_works(url)
    assert await migrate(url, MASTER_KEY) == ()


async def test_whoever_may_make_no_roles_is_told_of_the_script_and_migrates_after_it(
    bare: Server, settings: Settings
) -> None:
    url = await bare.make_owner("owner_of_it", "nocreaterole")
    with pytest.raises(MigrationError) as raised:
        await migrate(url, MASTER_KEY)
    assert raised.value.code == MigrationFault.ROLES_MISSING
    assert "marketplace migrate --roles" in raised.value.remedy
    text = script(MASTER_KEY, "owner_of_it")
    assert not any(login_of(MASTER_KEY, role).password in text for role in ROLES)
    await run_script(bare, text)
    await run_script(bare, text)  # changes nothing
    assert await migrate(url, MASTER_KEY)
    assert await found(settings, url) == ()
    await every_role_works(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_passwords_of_any_characters_and_both_kinds_of_addresses_work(
    bare: Server, settings: Settings, host: str
) -> None:
    await bare.make_owner("owner_of_it", "createrole")
    url = bare.url("owner_of_it", "owner_of_it", host)
    await migrate(url, MASTER_KEY, to=1)
    assert PASSWORD not in f"{msgspec.structs.replace(settings, database_url=url)}"
    assert {finding.code for finding in await found(settings, url)} == {DoctorFindingCode.SCHEMA_BEHIND}


async def test_processes_log_in_over_tls_where_the_certificate_is_right_and_not_where_it_is_wrong(
    bare: Server, settings: Settings
) -> None:
    if bare.authority is None:
        pytest.skip("the server from the wheel is built without TLS")
    await bare.make_owner("owner_of_it", "createrole")
    trusted = {"sslmode": "verify-full", "sslrootcert": str(bare.authority)}
    url = bare.url("owner_of_it", "owner_of_it", "localhost", **trusted)
    await migrate(url, MASTER_KEY, to=1)
    connection = await connect(url, "marketplace_api", master_key=MASTER_KEY)
    await connection.execute("set role none")  # what others are connected by is hidden from the role
    assert await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
    await connection.close()
    for wrong in (
        bare.url("owner_of_it", "owner_of_it", "127.0.0.1", **trusted),  # not the name in the certificate
        bare.url("owner_of_it", "owner_of_it", "localhost", sslmode="verify-full", sslrootcert="/nowhere/ca.pem"),
    ):
        findings = await found(settings, wrong)
        assert unsafe(findings)
        assert {finding.code for finding in findings} <= {"tls_failed", "database_url_unusable", "database_away"}
        with pytest.raises(MigrationError):
            await migrate(wrong, MASTER_KEY)


# --- settings that promises rest on -----------------------------------------------------------------------------------

CHANGED = {
    "search_path": "pg_catalog",
    "row_security": "off",
    "default_transaction_isolation": "'repeatable read'",
    "default_transaction_read_only": "on",
    "standard_conforming_strings": "off",
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "sql_standard",
    "extra_float_digits": "-10",
    "timezone": "'Asia/Kolkata'",
    "bytea_output": "escape",
    "transform_null_equals": "on",
    "statement_timeout": "'7ms'",
    "lock_timeout": "'7ms'",
    "idle_in_transaction_session_timeout": "'7ms'",
    "idle_session_timeout": "'7ms'",
    "exit_on_error": "on",
    "synchronous_commit": "local",
}


@pytest.mark.parametrize("where", ["database", "login"])
async def test_whatever_a_database_or_a_login_sets_a_process_has_the_settings_that_it_rests_on(
    bare: Server, settings: Settings, where: str
) -> None:
    assert CHANGED.keys() <= db.SESSION.keys()
    url = await bare.make_owner("owner_of_it", "createrole")
    if where == "database":
        await _set(bare, "alter database owner_of_it", CHANGED)
        await migrate(url, MASTER_KEY)
    else:
        await migrate(url, MASTER_KEY)
        for role in ROLES:
            await _set(bare, f'alter role "{login_of(MASTER_KEY, role).name}"', CHANGED)
        await _set(bare, "alter role owner_of_it", CHANGED)
    assert await migrate(url, MASTER_KEY) == ()
    assert await found(settings, url) == ()
    for role in ROLES:
        connection = await connect(url, role, master_key=MASTER_KEY)
        for name, value in db.SESSION.items():
            if not name.endswith("timeout"):
                assert await connection.fetchval("select current_setting($1)", name) == value, name
        assert await connection.fetchval("select count(*) from lead") == 0
        await connection.close()


async def test_the_doctor_names_what_a_process_cannot_set(migrated: str, foreign: Server, settings: Settings) -> None:
    assert await found(settings, migrated) == ()
    role = f'alter role "{login_of(MASTER_KEY, "marketplace_worker").name}"'
    setting = "session_replication_role"
    async with changed(foreign, f"{role} set {setting} = replica", f"{role} reset {setting}"):
        findings = await found(settings, migrated)
    assert [finding.code for finding in findings] == [DoctorFindingCode.SETTING_CHANGES_ANSWERS]
    assert "session_replication_role is replica for marketplace_worker" in findings[0].sentence


@pytest.mark.parametrize(
    ("grant", "undo", "words"),
    [
        ('alter role "{}" superuser', 'alter role "{}" nosuperuser', "is a superuser"),
        ('alter role "{}" inherit', 'alter role "{}" noinherit', "without acting"),
        ('grant pg_read_all_data to "{}"', 'revoke pg_read_all_data from "{}"', "not the marketplace's"),
        ('alter table touch owner to "{}"', f"alter table touch owner to {SHARED}", "owns tables"),
        ("alter role marketplace_api bypassrls", "alter role marketplace_api nobypassrls", "row-level"),
    ],
)
async def test_the_doctor_names_a_login_that_may_do_too_much(
    migrated: str, foreign: Server, settings: Settings, grant: str, undo: str, words: str
) -> None:
    assert await found(settings, migrated) == ()
    name = login_of(MASTER_KEY, "marketplace_api").name
    async with changed(foreign, grant.format(name), undo.format(name)):
        findings = await found(settings, migrated)
    assert {finding.code for finding in findings} == {DoctorFindingCode.LOGIN_TOO_STRONG}
    assert words in findings[0].sentence


async def _set(bare: Server, whose: str, values: dict[str, str]) -> None:
    connection = await asyncpg.connect(bare.url())
    try:
        for name, value in values.items():
            await connection.execute(f"{whose} set {name} = {value}")
    finally:
        await connection.close()
