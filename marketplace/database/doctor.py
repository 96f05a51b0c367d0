"""Checks at every start for settings and states of this installation that would break a promise.

An unsafe finding stops the service; a warning is printed and the service runs.
"""

import asyncio
import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Literal, get_args

import asyncpg
import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from marketplace.database.db import (
    PLANNING,
    SESSION,
    UNPINNED,
    Connection,
    Queries,
    connect,
    connect_to_look,
    load_record,
)
from marketplace.database.embedded import Engines
from marketplace.database.engine_errors import database_error, valkey_error
from marketplace.database.journal import (
    DatabaseSetBack,
    JournalDamage,
    JournalExposure,
    JournalUnusable,
    SchemaBehind,
    missing,
    read_newest,
)
from marketplace.database.logins import Role, login_of
from marketplace.database.migrate import MigrationError, compare
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings, SettingsFault, secret_fault

MOST_SKEW = timedelta(seconds=60)
"""Tolerated difference of the clocks: half of the delay that `marketplace verify` tolerates, as one process writes when
something is due and another reads it."""
OLDEST_POSTGRES = 150000  # server_version_num: the schema uses features of PostgreSQL 15
VALKEY_SECONDS = 2.0
DOCTOR_KEY = "marketplace:doctor"
"""Written and removed again, to test whether Valkey accepts the commands of the queue."""
SEES_MOST: Role = "marketplace_reports"
REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidParameterValueError,
)
"""Errors that mean: the server runs, and this login does not exist, is not let in or may not act as its role."""
UNREACHABLE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError)

_queries = Queries(__file__, "doctor.sql")


class DoctorFindingCode(StrEnum):
    """Codes of findings, besides faults of the settings and of the migrations."""

    FSYNC_OFF = "fsync_off"
    """A power cut may corrupt the whole database."""
    FULL_PAGE_WRITES_OFF = "full_page_writes_off"
    """A power cut may leave half-written pages that recovery cannot repair."""
    SYNCHRONOUS_COMMIT_OFF = "synchronous_commit_off"
    """A crash may lose inquiries that were answered with a 2xx, and exposures of contact data already sent."""
    POSTGRES_TOO_OLD = "postgres_too_old"
    """The server lacks features that the schema uses."""
    CLOCK_WRONG = "clock_wrong"
    """Due times and deadlines that this machine writes would be far too early or too late."""
    VALKEY_EVICTS = "valkey_evicts"
    """Wake-ups may be lost under memory pressure, so that leads wait for the sweeper."""
    SCHEMA_BEHIND = "schema_behind"
    """Migrations are not applied: the code may use tables and columns that do not exist yet."""
    LOGIN_REFUSED = "login_refused"
    """A process cannot log in, or not act as the role that its privileges are granted to."""
    LOGIN_TOO_STRONG = "login_too_strong"
    """A login of a process owns tables or has more rights than its roles: an error in it could break any promise."""
    SETTING_CHANGES_ANSWERS = "setting_changes_answers"
    """A setting that promises depend on has another value on the connections of a process, which cannot set it."""
    DATABASE_READ_ONLY = "database_read_only"
    """Nothing can be written: every inquiry would be answered 503."""
    CHECKSUMS_OFF = "checksums_off"
    """A disk that returns wrong bytes goes unnoticed."""
    JOURNAL_DAMAGED = "journal_damaged"
    """A line of the exposure journal was changed after it was written: it may protect no lead after a restore."""
    VALKEY_READ_ONLY = "valkey_read_only"
    """Valkey is a replica: wake-ups are refused, and the sweeper finds the leads."""
    VALKEY_AWAY = "valkey_away"
    """The sweeper finds the leads instead of a wake-up: slower, and nothing is lost."""


class DoctorFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One problem: a stable code, a sentence about it, and a sentence with the remedy."""

    code: str
    severity: Literal["unsafe", "warning"]
    sentence: str
    remedy: str


async def examine(settings: Settings, engines: Engines) -> tuple[DoctorFinding, ...]:
    """Return all findings, unsafe ones first; () for a healthy installation. Changes nothing."""
    findings = [
        *_check_secrets(settings),
        *await _check_database(settings, engines.database_url),
        *await _check_valkey(engines.valkey_url),
    ]
    return tuple(sorted(findings, key=lambda finding: finding.severity != "unsafe"))


def before_migrating(findings: tuple[DoctorFinding, ...]) -> tuple[DoctorFinding, ...]:
    """Return the findings without those that the next migration resolves."""
    resolved = (DoctorFindingCode.SCHEMA_BEHIND, DoctorFindingCode.LOGIN_REFUSED)
    return tuple(finding for finding in findings if finding.code not in resolved)


def unsafe(findings: tuple[DoctorFinding, ...]) -> bool:
    """Return whether a finding forbids the service to start."""
    return any(finding.severity == "unsafe" for finding in findings)


def _check_secrets(settings: Settings) -> list[DoctorFinding]:
    named = (("MARKETPLACE_MASTER_KEY", settings.master_key), ("MARKETPLACE_PEPPER", settings.pepper))
    return [
        _unsafe(
            SettingsFault.SECRET_PLACEHOLDER,
            f"{name} is not 32 random bytes.",
            f"Set {name} to the output of: openssl rand -base64 32",
        )
        for name, secret in named
        if secret_fault(secret) is not None
    ]


async def _check_database(settings: Settings, database_url: str) -> list[DoctorFinding]:
    """Examine the database as the login of each process; before the first migration, as the owner."""
    findings = []
    for role in get_args(Role):
        try:
            connection = await connect(database_url, role, master_key=settings.master_key, name="marketplace_doctor")
        except REFUSED as error:
            findings.append(_refused_login(role, error, settings))
        except UNREACHABLE as error:
            words = database_error(error)
            return [_unsafe(words.code, words.sentence, words.remedy)]
        else:
            try:
                findings += await _check_session(connection, role)
                if role == SEES_MOST:
                    findings += [*await _check_schema(connection), *await _check_journal(settings, connection)]
            finally:
                await connection.close()
    return findings + await _check_postgres(settings, database_url)


def _refused_login(role: Role, error: Exception, settings: Settings) -> DoctorFinding:
    """Return the finding about a login that the server refuses."""
    login = login_of(settings.master_key, role)
    return _unsafe(
        DoctorFindingCode.LOGIN_REFUSED,
        f"The login {login.name} cannot act as {role}: {error}.",
        "Run marketplace migrate as the owner of the database, and allow the login in the server's pg_hba.conf.",
    )


async def _check_session(connection: Connection, role: Role) -> list[DoctorFinding]:
    """Check the settings and the rights of a connection that acts as `role`."""
    expected: Mapping[str, str] = {**SESSION, **PLANNING.get(role, {}), **UNPINNED}
    rows = await connection.fetch(_queries["list_settings"], list(expected), list(expected.values()))
    findings = [
        _unsafe(
            DoctorFindingCode.SETTING_CHANGES_ANSWERS,
            f"{row['name']} is {row['value'] or 'empty'} for {role}, which must be {row['expected'] or 'empty'}.",
            f"Reset it where it is set ({row['source']}): alter database …, alter role …, postgresql.conf, a pooler.",
        )
        for row in rows
    ]
    powers = await connection.fetchval(_queries["list_powers"])
    if powers:
        sentence = f"The login of {role} {' and '.join(powers)}."
        findings.append(
            _unsafe(DoctorFindingCode.LOGIN_TOO_STRONG, sentence, "Take it back, so that it may act as its role only.")
        )
    return findings


async def _check_postgres(settings: Settings, database_url: str) -> list[DoctorFinding]:
    """Check the server's own settings, as a login of a process, or as the owner before the first migration."""
    try:
        connection = await connect_to_look(database_url, SEES_MOST, master_key=settings.master_key)
    except REFUSED:
        try:
            connection = await connect_to_look(database_url, None, master_key=settings.master_key)
        except UNREACHABLE:
            return []  # the refused login is a finding already
    try:
        server = await load_record(connection, _queries["read_server"])
        skew = clock.machine_time() - server["now"]
        overrides = await connection.fetch(_queries["list_overrides"])
    finally:
        await connection.close()
    overridden = [
        _unsafe(
            DoctorFindingCode.SYNCHRONOUS_COMMIT_OFF,
            f"synchronous_commit is off for {row['role_name']} in {row['database_name']}.",
            "Reset it where it was set: alter role …, alter database …, or alter role … in database …",
        )
        for row in overrides
    ]
    return [*_check_server(server), *_check_clock(skew), *overridden]


def _check_server(server: asyncpg.Record) -> list[DoctorFinding]:
    """Check version, role and durability settings of the server."""
    findings = []
    if server["standby"]:
        sentence = "This PostgreSQL is a standby, which takes no changes."
        findings.append(
            _unsafe(DoctorFindingCode.DATABASE_READ_ONLY, sentence, "Let DATABASE_URL name the primary server.")
        )
    if server["version"] < OLDEST_POSTGRES:
        findings.append(
            _unsafe(
                DoctorFindingCode.POSTGRES_TOO_OLD,
                f"PostgreSQL {server['version'] // 10000} is too old.",
                "Upgrade the server to PostgreSQL 15 or later.",
            )
        )
    for setting, ailment in (
        ("fsync", DoctorFindingCode.FSYNC_OFF),
        ("full_page_writes", DoctorFindingCode.FULL_PAGE_WRITES_OFF),
        ("synchronous_commit", DoctorFindingCode.SYNCHRONOUS_COMMIT_OFF),
    ):
        if server[setting] == "off":
            sentence = f"{setting} is off, so that a crash may lose what was promised to be on disk."
            findings.append(_unsafe(ailment, sentence, f"Set {setting} = on in postgresql.conf and reload the server."))
    if server["data_checksums"] == "off":
        findings.append(
            _warning(
                DoctorFindingCode.CHECKSUMS_OFF,
                "Data checksums are off, so that a failing disk goes unnoticed.",
                "Stop the server and run: pg_checksums --enable",
            )
        )
    return findings


def _check_clock(skew: timedelta) -> list[DoctorFinding]:
    if abs(skew) <= MOST_SKEW:
        return []
    way = "behind" if skew < timedelta() else "ahead of"
    sentence = f"The clock of this machine is {abs(skew.total_seconds()):.0f} seconds {way} the database's."
    return [_unsafe(DoctorFindingCode.CLOCK_WRONG, sentence, "Set both clocks by NTP, for example with chrony.")]


async def _check_schema(connection: Connection) -> list[DoctorFinding]:
    """Check whether all migrations are applied and unchanged."""
    try:
        waiting = [migration.name for migration in await compare(connection) if not migration.applied]
    except MigrationError as error:
        return [_unsafe(error.code, error.sentence, error.remedy)]
    if not waiting:
        return []
    return [_warning(DoctorFindingCode.SCHEMA_BEHIND, f"{waiting[0]} is not applied yet.", "Run: marketplace migrate")]


async def _check_journal(settings: Settings, connection: Connection) -> list[DoctorFinding]:
    """Check whether the exposure journal is readable and the database has its newest exposures."""
    directory = settings.journal_dir
    try:
        entries = await asyncio.to_thread(lambda: tuple(read_newest(directory)))
    except OSError as error:
        unusable = JournalUnusable(directory, error)
        return [_unsafe(unusable.code, unusable.sentence, unusable.remedy)]
    newest = [entry for entry in entries if isinstance(entry, JournalExposure)]
    findings = []
    if forgotten := await _count_forgotten(connection, newest):
        set_back = DatabaseSetBack(directory, forgotten, len(newest))
        findings.append(_unsafe(set_back.code, set_back.sentence, set_back.remedy))
    if damaged := [entry for entry in entries if isinstance(entry, JournalDamage)]:
        sentence = f"In the exposure journal, {damaged[0].file} has a line that does not match its checksum."
        findings.append(_warning(DoctorFindingCode.JOURNAL_DAMAGED, sentence, "Run: marketplace fence --dry-run"))
    return findings


async def _count_forgotten(connection: Connection, newest: list[JournalExposure]) -> int:
    """Return how many of these exposures the database lacks; 0 without the tables, which is a finding of its own."""
    try:
        return len(await missing(connection, newest)) if newest else 0
    except (SchemaBehind, asyncpg.InsufficientPrivilegeError):
        return 0


async def _check_valkey(valkey_url: str) -> list[DoctorFinding]:
    """Check that Valkey answers, accepts writes and does not evict keys."""
    try:
        async with Redis.from_url(
            re.sub("^valkey", "redis", valkey_url),
            socket_connect_timeout=VALKEY_SECONDS,
            socket_timeout=VALKEY_SECONDS,
        ) as client:
            policy = (await client.info("memory"))["maxmemory_policy"]
            await client.zadd(DOCTOR_KEY, {"examined": 1}, lt=True)
            await client.delete(DOCTOR_KEY)
    except (RedisError, OSError, ValueError, KeyError) as error:
        words = valkey_error(error)
        sentence = f"{words.sentence.removesuffix('.')}, so that leads wait for the sweeper."
        return [_warning(words.code, sentence, words.remedy)]
    return _check_policy(policy)


def _check_policy(policy: str) -> list[DoctorFinding]:
    if policy == "noeviction":
        return []
    return [
        _unsafe(
            DoctorFindingCode.VALKEY_EVICTS,
            f"Valkey drops keys when its memory is full (maxmemory-policy {policy}).",
            "Run: valkey-cli config set maxmemory-policy noeviction, and set the same in valkey.conf.",
        )
    ]


def _unsafe(code: str, sentence: str, remedy: str) -> DoctorFinding:
    return DoctorFinding(code=str(code), severity="unsafe", sentence=sentence, remedy=remedy)


def _warning(code: str, sentence: str, remedy: str) -> DoctorFinding:
    return DoctorFinding(code=str(code), severity="warning", sentence=sentence, remedy=remedy)
