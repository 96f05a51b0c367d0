"""The doctor: what about this installation would break a promise, told before the first inquiry, not after the loss.

Runs at every start. An unsafe finding stops the service; a warning is told and the service runs.
"""

import asyncio
from datetime import timedelta
from enum import StrEnum
from typing import Literal

import asyncpg
import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from marketplace import clock
from marketplace.db import Queries
from marketplace.embedded import Engines
from marketplace.journal import Damage, DatabaseSetBack, Exposure, JournalUnusable, SchemaBehind, missing, read_newest
from marketplace.migrate import MigrationError, MigrationFault, status
from marketplace.settings import Settings, SettingsFault, secret_fault

MOST_SKEW = timedelta(seconds=60)
"""One process writes when something is due and another looks: half of the delay that `marketplace verify` tolerates."""
OLDEST_POSTGRES = 150000  # server_version_num: the schema relies on what PostgreSQL 15 brought
VALKEY_SECONDS = 2.0

_queries = Queries(__file__, "doctor.sql")


class Ailment(StrEnum):
    """What the doctor may find, beside a fault of the settings or of the migrations."""

    FSYNC_OFF = "fsync_off"
    """A power cut may corrupt the whole database."""
    FULL_PAGE_WRITES_OFF = "full_page_writes_off"
    """A power cut may leave half-written pages that recovery cannot mend."""
    SYNCHRONOUS_COMMIT_OFF = "synchronous_commit_off"
    """A crash may lose inquiries that were answered with a 2xx, and exposures of contact data already sent."""
    POSTGRES_TOO_OLD = "postgres_too_old"
    """The server lacks what the schema relies on."""
    CLOCK_WRONG = "clock_wrong"
    """What this machine writes would be due, or over, long before or after its time."""
    VALKEY_EVICTS = "valkey_evicts"
    """Knocks may vanish under memory pressure, and every lead then waits for the sweeper."""
    SCHEMA_BEHIND = "schema_behind"
    """Migrations are waiting: the code may ask for what is not there yet."""
    CHECKSUMS_OFF = "checksums_off"
    """A disk that returns wrong bytes goes unnoticed."""
    JOURNAL_DAMAGED = "journal_damaged"
    """A line of the exposure journal was changed after it was written: it may protect no lead after a restore."""
    VALKEY_AWAY = "valkey_away"
    """Leads are found by the sweeper instead of by a knock: slower, and nothing is lost."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong: a stable code, a sentence that says it, a sentence that mends it."""

    code: str
    severity: Literal["unsafe", "warning"]
    sentence: str
    remedy: str


async def examine(settings: Settings, engines: Engines) -> tuple[Finding, ...]:
    """Everything wrong, worst first; () for a healthy installation. Changes nothing."""
    findings = [
        *_of_secrets(settings),
        *await _of_postgres(engines.database_url),
        *await _of_schema(engines.database_url),
        *await _of_journal(settings, engines.database_url),
        *await _of_valkey(engines.valkey_url),
    ]
    return tuple(sorted(findings, key=lambda finding: finding.severity != "unsafe"))


def unsafe(findings: tuple[Finding, ...]) -> bool:
    """Whether the service must not start."""
    return any(finding.severity == "unsafe" for finding in findings)


def _of_secrets(settings: Settings) -> list[Finding]:
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


async def _of_postgres(database_url: str) -> list[Finding]:
    try:
        connection = await asyncpg.connect(database_url, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        return [
            _unsafe(
                MigrationFault.DATABASE_AWAY,
                f"PostgreSQL does not let us in ({type(error).__name__}).",
                "Check that DATABASE_URL names a running server, an existing database and a user who may use it.",
            )
        ]
    try:
        server = await connection.fetchrow(_queries["read_server"])
        skew = clock.machine_time() - server["now"]
        overrides = await connection.fetch(_queries["list_overrides"])
    finally:
        await connection.close()
    careless = [
        _unsafe(
            Ailment.SYNCHRONOUS_COMMIT_OFF,
            f"synchronous_commit is off for {row['role_name']} in {row['database_name']}.",
            "Reset it where it was set: alter role …, alter database …, or alter role … in database …",
        )
        for row in overrides
    ]
    return [*_of_server(server), *_of_clock(skew), *careless]


def _of_server(server: asyncpg.Record) -> list[Finding]:
    findings = []
    if server["version"] < OLDEST_POSTGRES:
        findings.append(
            _unsafe(
                Ailment.POSTGRES_TOO_OLD,
                f"PostgreSQL {server['version'] // 10000} is too old.",
                "Upgrade the server to PostgreSQL 15 or later.",
            )
        )
    for setting, ailment in (
        ("fsync", Ailment.FSYNC_OFF),
        ("full_page_writes", Ailment.FULL_PAGE_WRITES_OFF),
        ("synchronous_commit", Ailment.SYNCHRONOUS_COMMIT_OFF),
    ):
        if server[setting] == "off":
            sentence = f"{setting} is off, so that a crash may lose what was promised to be on disk."
            findings.append(_unsafe(ailment, sentence, f"Set {setting} = on in postgresql.conf and reload the server."))
    if server["data_checksums"] == "off":
        findings.append(
            _warning(
                Ailment.CHECKSUMS_OFF,
                "Data checksums are off, so that a failing disk goes unnoticed.",
                "Stop the server and run: pg_checksums --enable",
            )
        )
    return findings


def _of_clock(skew: timedelta) -> list[Finding]:
    if abs(skew) <= MOST_SKEW:
        return []
    way = "behind" if skew < timedelta() else "ahead of"
    sentence = f"The clock of this machine is {abs(skew.total_seconds()):.0f} seconds {way} the database's."
    return [_unsafe(Ailment.CLOCK_WRONG, sentence, "Set both clocks by NTP, for example with chrony.")]


async def _of_schema(database_url: str) -> list[Finding]:
    try:
        waiting = [migration.name for migration in await status(database_url) if not migration.applied]
    except MigrationError as error:
        return [] if error.code == MigrationFault.DATABASE_AWAY else [_unsafe(error.code, error.sentence, error.remedy)]
    if not waiting:
        return []
    return [_warning(Ailment.SCHEMA_BEHIND, f"{waiting[0]} is not applied yet.", "Run: marketplace migrate")]


async def _of_journal(settings: Settings, database_url: str) -> list[Finding]:
    """Whether the database is older than this machine's exposure journal, and whether that can be read."""
    directory = settings.journal_dir
    try:
        found = await asyncio.to_thread(lambda: tuple(read_newest(directory)))
    except OSError as error:
        unusable = JournalUnusable(directory, error)
        return [_unsafe(unusable.code, unusable.sentence, unusable.remedy)]
    newest = [one for one in found if isinstance(one, Exposure)]
    findings = []
    if forgotten := await _forgotten(database_url, newest):
        set_back = DatabaseSetBack(directory, forgotten, len(newest))
        findings.append(_unsafe(set_back.code, set_back.sentence, set_back.remedy))
    if damaged := [one for one in found if isinstance(one, Damage)]:
        sentence = f"In the exposure journal, {damaged[0].file} has a line that does not match its checksum."
        findings.append(_warning(Ailment.JOURNAL_DAMAGED, sentence, "Run: marketplace fence --dry-run"))
    return findings


async def _forgotten(database_url: str, newest: list[Exposure]) -> int:
    """How many the database lacks. One that is away or has no such tables yet is told of elsewhere."""
    if not newest:
        return 0
    try:
        connection = await asyncpg.connect(database_url, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError):
        return 0
    try:
        return len(await missing(connection, newest))
    except SchemaBehind:
        return 0
    finally:
        await connection.close()


async def _of_valkey(valkey_url: str) -> list[Finding]:
    try:
        async with Redis.from_url(
            valkey_url, socket_connect_timeout=VALKEY_SECONDS, socket_timeout=VALKEY_SECONDS
        ) as client:
            policy = (await client.info("memory"))["maxmemory_policy"]
    except (RedisError, OSError, ValueError) as error:
        return [
            _warning(
                Ailment.VALKEY_AWAY,
                f"Valkey does not answer ({type(error).__name__}), so that leads wait for the sweeper.",
                "Start Valkey, or check VALKEY_URL.",
            )
        ]
    if policy == "noeviction":
        return []
    return [
        _unsafe(
            Ailment.VALKEY_EVICTS,
            f"Valkey drops keys when its memory is full (maxmemory-policy {policy}).",
            "Run: valkey-cli config set maxmemory-policy noeviction, and set the same in valkey.conf.",
        )
    ]


def _unsafe(code: str, sentence: str, remedy: str) -> Finding:
    return Finding(code=str(code), severity="unsafe", sentence=sentence, remedy=remedy)


def _warning(code: str, sentence: str, remedy: str) -> Finding:
    return Finding(code=str(code), severity="warning", sentence=sentence, remedy=remedy)
