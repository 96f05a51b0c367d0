"""The exposure journal on real files: what is promised is there, and what was touched is told."""

import asyncio
import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from marketplace.database import journal
from marketplace.database.db import open_pool
from marketplace.database.doctor import examine
from marketplace.database.embedded import Engines
from marketplace.database.journal import (
    DatabaseSetBack,
    Journal,
    JournalDamage,
    JournalError,
    JournalExposure,
    JournalUnusable,
    SchemaBehind,
)
from marketplace.delivery.flow import AttemptResult, Delivery
from marketplace.runtime.settings import Settings, load
from tests.builders.marketplaces import marketplace
from tests.builders.world import World
from tests.receivers import Receiver, status

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def an_exposure(**changes: Any) -> JournalExposure:
    standard = {
        "lead_id": uuid4(), "assignment_id": uuid4(), "business_id": uuid4(), "subscription_id": uuid4(),
        "subscription_version": 1, "endpoint_id": uuid4(), "provider_id": uuid4(), "vertical_id": uuid4(),
        "mode": "live", "channel": "push", "price_minor": 5_000, "payout_minor": 3_000, "currency": "USD",
        "awarded_at": NOW, "exposed_at": NOW, "position": 7, "attempt_no": 1, "url_sha256": bytes(32),
        "address": "192.0.2.1:443", "tls_sha256": bytes(32), "persons": (bytes(32), bytes(32)),
        "protected_until": NOW + timedelta(days=30),
    }  # fmt: skip
    return JournalExposure(**{**standard, **changes})


async def written(directory: Path, count: int, *, at_once: int = 1, file_bytes: int = journal.FILE_BYTES) -> Path:
    """A journal of so many exposures, and its first file."""
    book = await Journal.open(directory, file_bytes=file_bytes)
    for start in range(0, count, at_once):
        await asyncio.gather(*(book.append(an_exposure()) for _ in range(start, min(start + at_once, count))))
    await book.close()
    return min(files(directory))


@contextmanager
def files_no_larger_than(limit: int) -> Iterator[None]:
    """Simulate a full disk: a write beyond the limit is done in part, then refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def whole(directory: Path) -> list[JournalExposure]:
    entries = list(journal.read(directory))
    assert not [entry for entry in entries if isinstance(entry, JournalDamage)]
    return [entry for entry in entries if isinstance(entry, JournalExposure)]


async def test_an_exposure_is_readable_as_soon_as_its_append_returns(tmp_path: Path) -> None:
    book = await Journal.open(tmp_path / "journal")
    exposure = an_exposure()
    await book.append(exposure)
    assert whole(tmp_path / "journal") == [exposure]
    await book.close()


async def test_those_who_append_at_once_share_an_fsync(tmp_path: Path) -> None:
    book = await Journal.open(tmp_path)
    await asyncio.gather(*(book.append(an_exposure()) for _ in range(300)))
    assert book.fsyncs <= 2
    assert len(whole(tmp_path)) == 300
    await book.close()


async def test_an_append_whose_caller_gave_up_holds_nobody_up(tmp_path: Path) -> None:
    book = await Journal.open(tmp_path)
    gone = asyncio.create_task(book.append(an_exposure()))
    await asyncio.sleep(0)
    gone.cancel()
    await book.append(an_exposure())
    await book.close()


async def test_a_line_torn_by_a_crash_is_ignored(tmp_path: Path) -> None:
    path = await written(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:-10])
    assert len(whole(tmp_path)) == 2
    assert len(list(journal.read_newest(tmp_path))) == 2


async def test_a_changed_line_is_a_finding_and_the_others_still_count(tmp_path: Path) -> None:
    path = await written(tmp_path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b'"price_minor":5000', b'"price_minor":5001') + lines[2])
    entries = list(journal.read(tmp_path))
    assert [type(entry) for entry in entries] == [JournalExposure, JournalDamage, JournalExposure]
    assert entries[1] == JournalDamage(file=path.name, line=2, what=journal.CHANGED)
    assert [type(entry) for entry in journal.read_newest(tmp_path)] == [JournalExposure, JournalDamage, JournalExposure]


async def test_a_line_taken_out_is_a_finding(tmp_path: Path) -> None:
    path = await written(tmp_path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    damages = [entry for entry in journal.read(tmp_path) if isinstance(entry, JournalDamage)]
    assert damages == [JournalDamage(file=path.name, line=2, what="line 2 is expected here, not 3")]


@pytest.mark.parametrize("rubbish", [b"\n", b"\xff\n", b"{}\n", b'{"crc32":0,"line":{}}\n', b"null\n"])
async def test_whatever_a_line_holds_reading_goes_on(tmp_path: Path, rubbish: bytes) -> None:
    path = await written(tmp_path, 1)
    path.write_bytes(rubbish + path.read_bytes())
    assert [type(one) for one in journal.read(tmp_path)] in (
        [JournalDamage, JournalExposure],
        [JournalDamage, JournalDamage, JournalExposure],
    )


async def test_a_full_file_is_followed_by_the_next(tmp_path: Path) -> None:
    await written(tmp_path, 10, file_bytes=2_000)
    assert len(files(tmp_path)) > 2
    assert len(whole(tmp_path)) == 10


async def test_the_newest_exposures_are_found_at_the_end_of_a_long_file(tmp_path: Path) -> None:
    book = await Journal.open(tmp_path)
    await asyncio.gather(*(book.append(an_exposure()) for _ in range(500)))
    last = an_exposure()
    await book.append(last)
    await book.close()
    newest = list(journal.read_newest(tmp_path))
    assert newest[-1] == last
    assert 10 < len(newest) < 100
    assert not [entry for entry in newest if isinstance(entry, JournalDamage)]


async def test_a_process_that_exposed_nothing_leaves_no_file(tmp_path: Path) -> None:
    book = await Journal.open(tmp_path)
    await book.close()
    assert files(tmp_path) == []


async def test_files_past_their_retention_are_removed(tmp_path: Path) -> None:
    old, young = await written(tmp_path / "a", 1), await written(tmp_path / "b", 1)
    directory = tmp_path / "journal"
    directory.mkdir()
    for path, age in ((old, journal.RETENTION + timedelta(days=1)), (young, journal.RETENTION - timedelta(days=1))):
        target = directory / path.name
        path.rename(target)
        written_at = time.time() - age.total_seconds()
        os.utime(target, (written_at, written_at))
    await (await Journal.open(directory)).close()
    assert [path.name for path in directory.iterdir()] == [young.name]


async def test_a_disk_that_is_full_fails_the_append_and_the_journal_recovers(tmp_path: Path) -> None:
    book = await Journal.open(tmp_path)
    await book.append(an_exposure())
    with files_no_larger_than(1_500), pytest.raises(JournalError):
        await asyncio.gather(*(book.append(an_exposure()) for _ in range(3)))
    await book.append(an_exposure())
    await book.close()
    assert len(whole(tmp_path)) >= 2  # what was written before the disk was full may be there as well


async def test_a_journal_without_a_place_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file, not a directory")
    with pytest.raises(JournalUnusable, match="MARKETPLACE_JOURNAL"):
        await Journal.open(tmp_path / "journal")


async def test_a_database_that_has_forgotten_an_exposure_is_refused(database_url: str, tmp_path: Path) -> None:
    book = await Journal.open(tmp_path)
    pool = await open_pool(database_url, "marketplace_worker", size=1, at_once=1, on_connect=book.check)
    await pool.close()
    await book.append(an_exposure())
    with pytest.raises(DatabaseSetBack, match="marketplace fence"):
        await open_pool(database_url, "marketplace_worker", size=1, at_once=1, on_connect=book.check)
    await book.close()


async def test_a_database_that_knows_every_exposure_is_taken(pool: Any, database_url: str, tmp_path: Path) -> None:
    async with pool.acquire() as connection:
        world = World(connection)
        await world.make()
        leads = [await world.lead(state) for state in ("exposed", "delivered", "lapsed")]
    book = await Journal.open(tmp_path)
    for lead in leads:
        await book.append(an_exposure(lead_id=lead.id, assignment_id=lead.assignment_id))
    worker = await open_pool(database_url, "marketplace_worker", size=1, at_once=1, on_connect=book.check)
    await worker.close()
    await book.close()


async def test_a_lead_is_journaled_when_its_business_reads_it_and_its_contact_is_not(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as door:
        buyer = await market.buyer(door.url)
        lead_id = await market.sold()
        content = b"".join(path.read_bytes() for path in settings.journal_dir.iterdir())
        (exposure,) = whole(settings.journal_dir)
        row = await market.row("select * from exposure where lead_id = $1", lead_id)
        assert (exposure.lead_id, exposure.business_id, exposure.position) == (
            lead_id,
            buyer.business_id,
            row["position"],
        )
        assert (exposure.url_sha256, exposure.address, exposure.exposed_at) == (
            row["url_sha256"],
            row["address"],
            row["exposed_at"],
        )
        keys = await market.owner.fetch("select key from person_window where lead_id = $1", lead_id)
        assert set(exposure.persons) == {key["key"] for key in keys}
        contact = msgspec.json.decode(door.visits[0].body)["data"]["contact"]
        values = [value for value in contact.values() if isinstance(value, str) and len(value) > 2]
        assert len(values) > 3
        assert [value for value in values if value.encode() in content] == []


async def test_nothing_is_sent_while_the_journal_cannot_be_written(settings: Settings, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    book = await Journal.open(place, file_bytes=0)  # a new file for every line
    async with marketplace(settings) as market, Receiver(status(200)) as door:
        await market.buyer(door.url)
        delivery = Delivery(market.worker, market.sealer, market.guard, book)
        lead_id = (await market.submit()).id
        assignment_id = await market.distribution.distribute(lead_id)
        assert assignment_id is not None
        shutil.rmtree(place)
        place.write_text("in the way")
        assert await delivery.deliver(assignment_id) is AttemptResult.retrying
        assert door.visits[0].raw == b""
        assert await market.state(lead_id) == "exposed"
        assert await market.value("select due_at > clock_timestamp() from assignment")
        place.unlink()
        assert await delivery.deliver(assignment_id) is AttemptResult.delivered
        assert [exposure.lead_id for exposure in whole(place)] == [lead_id]
    await book.close()


async def test_the_doctor_names_a_database_set_back_and_a_damaged_line(settings: Settings) -> None:
    engines = Engines(database_url=str(settings.database_url), valkey_url=str(settings.valkey_url))
    path = await written(settings.journal_dir, 2)
    findings = await examine(settings, engines)
    assert [(finding.code, finding.severity) for finding in findings] == [("database_set_back", "unsafe")]
    path.write_bytes(path.read_bytes().replace(b"push", b"feed"))
    findings = await examine(settings, engines)
    assert [(finding.code, finding.severity) for finding in findings] == [("journal_damaged", "warning")]


async def test_a_schema_that_cannot_tell_is_to_be_migrated_first(empty_database_url: str, tmp_path: Path) -> None:
    await written(tmp_path, 1)
    connection = await asyncpg.connect(empty_database_url)
    with pytest.raises(SchemaBehind, match="marketplace migrate"):
        await Journal(tmp_path).check(connection)
    await connection.close()


async def test_processes_that_come_and_go_disturb_no_reader(tmp_path: Path) -> None:
    async def come_and_go() -> None:
        for _ in range(50):
            await (await Journal.open(tmp_path)).close()

    coming = asyncio.create_task(come_and_go())
    while not coming.done():
        await asyncio.to_thread(lambda: list(journal.read_newest(tmp_path)))
    await coming


def test_the_journal_goes_where_it_is_told_and_else_beside_the_data(tmp_path: Path) -> None:
    environment = {"MARKETPLACE_DATA": str(tmp_path)}
    assert load(environment).journal_dir == tmp_path / "journal"
    assert load(environment | {"MARKETPLACE_JOURNAL": str(tmp_path / "disk2")}).journal_dir == tmp_path / "disk2"
