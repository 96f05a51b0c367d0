"""Lists refreshed from real servers: published as a whole, and as they were after every failure."""

import asyncio
import gzip
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.runtime import clock, errors
from marketplace.runtime.settings import Settings
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists import job, source_store, sources
from marketplace.suppression_lists.source_store import SourceFormat, SourceRow, SourceSchedule, SourceSettings
from marketplace.suppression_lists.sources import RefreshResult, SourceRefresh, pause_after
from marketplace.suppression_lists.store import ContactList, ListKind, ListTerms
from marketplace.webhook.address import AddressRules
from marketplace.worker import REFRESH
from tests import receivers
from tests.builders import forks
from tests.builders.marketplaces import Marketplace, marketplace
from tests.builders.service import until
from tests.conftest import SECRETS
from tests.receivers import Behaviour, Receiver, answer, status
from tests.waiting import PATIENCE

BY = "test"
GUARD = AddressRules(http_allowed=True, networks=(ip_network("127.0.0.0/8"),))


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings) as made:
        yield made


def phones(*numbers: int) -> bytes:
    return "".join(f"+1312555{number:04}\n" for number in numbers).encode()


FIRST, SECOND = phones(101, 102, 103, 104), phones(102, 103, 104, 105)


class Source:
    """A list with a source at a server of the test."""

    def __init__(self, market: Marketplace, contact_list: ContactList) -> None:
        self.market, self.contact_list = market, contact_list

    async def refresh(self) -> SourceRefresh:
        return await sources.refresh_now(self.market.api, self.market.sealer, GUARD, self.contact_list)

    async def row(self) -> SourceRow:
        async with self.market.api.acquire() as connection:
            [row] = await source_store.list_sources(connection, None, 2)
        return row

    async def list_now(self) -> ContactList:
        return await lists_flow.load_list(self.market.api, self.contact_list.id, None)

    async def size(self) -> int:
        count: int = await self.market.value("select count(*) from list_member where until is null")
        assert (await self.list_now()).members == count
        return count


async def new_source(
    market: Marketplace, url: str, header: tuple[str, str] | None = None, guard: AddressRules = GUARD, **settings: Any
) -> Source:
    contact_list = await lists_flow.make_list(market.api, BY, ListKind.do_not_contact, None, "National", ListTerms())
    values = SourceSettings(url=url, **({"format": SourceFormat.csv, "schedule": SourceSchedule.daily} | settings))
    await sources.save_source(market.api, market.sealer, guard, BY, contact_list, values, header)
    return Source(market, contact_list)


async def test_a_list_is_fetched_when_it_is_due_with_its_sealed_key(market: Marketplace) -> None:
    async with Receiver(answer(200, FIRST)) as receiver:
        source = await new_source(market, receiver.url, ("Authorization", "Bearer k-very-secret"))
        refreshed = await sources.refresh_due(market.api, market.sealer, GUARD)
        assert refreshed is not None
        assert refreshed.result is RefreshResult.published
        assert await sources.refresh_due(market.api, market.sealer, GUARD) is None
    assert receiver.visits[0].headers["Authorization"] == "Bearer k-very-secret"
    assert await source.size() == 4
    row = await source.row()
    assert row.checked_at is not None
    assert row.due_at - row.checked_at == timedelta(days=1)
    assert (await market.submit(1)).state == "suppressed"
    for table in ("list_source", "audit", "list_import"):
        rows = str([dict(each) for each in await market.owner.fetch(f"select * from {table}")])
        assert "very-secret" not in rows


async def test_a_file_that_has_not_changed_is_not_imported_again(market: Marketplace) -> None:
    etag = answer(200, FIRST, etag='"a"', last_modified="Tue, 01 Dec 2026 10:00:00 GMT")
    async with Receiver(etag, status(304), answer(200, FIRST), answer(200, SECOND)) as receiver:
        source = await new_source(market, receiver.url)
        results = []
        for days in (3, 2, 1, 0):
            results.append((await source.refresh()).result)
            age = "update contact_list set refreshed_at = refreshed_at - make_interval(days => $1)"
            assert clock.now() - ((await source.list_now()).refreshed_at or clock.now()) < timedelta(minutes=1)
            await market.owner.execute(age, days)
    assert results == ["published", "unchanged", "unchanged", "published"]
    asked = [visit.headers for visit in receiver.visits]
    assert "If-None-Match" not in asked[0]
    assert (asked[1]["If-None-Match"], asked[1]["If-Modified-Since"]) == ('"a"', "Tue, 01 Dec 2026 10:00:00 GMT")
    assert await market.value("select count(*) from list_import") == 2
    assert (await source.list_now()).version == 2


async def test_a_list_that_was_changed_by_hand_is_fetched_whole_again(market: Marketplace) -> None:
    async with Receiver(answer(200, FIRST, etag='"a"')) as receiver:
        source = await new_source(market, receiver.url)
        await source.refresh()
        await market.owner.execute("update contact_list set version = version + 1")
        assert (await source.refresh()).result is RefreshResult.published
    assert "If-None-Match" not in receiver.visits[1].headers


async def test_a_file_that_was_undone_does_not_come_back(market: Marketplace) -> None:
    async with Receiver(answer(200, FIRST), answer(200, SECOND), answer(200, SECOND), answer(200, FIRST)) as receiver:
        source = await new_source(market, receiver.url)
        await source.refresh()
        await source.refresh()
        await lists_flow.undo_last(market.api, BY, await source.list_now())
        assert (await source.refresh()).result is RefreshResult.unchanged
        assert (await source.list_now()).version == 3
        assert (await source.refresh()).result is RefreshResult.published


@pytest.mark.parametrize(
    ("behaviour", "failure"),
    [
        (receivers.hang, "too_late"),
        (receivers.cut_body, "cut"),
        (receivers.huge_body, "too_large"),
        (status(500), "busy"),
        (status(403), "key_refused"),
        (status(404), "not_found"),
        (status(304), "unchanged"),
        (status(400), "refused"),
        (receivers.redirect("http://10.0.0.1/list"), "address_refused"),
        (answer(200, b"<!doctype html><title>Sign in</title>"), "field_missing"),
        (answer(200, b'{"numbers": ["+13125550101"]}\n'), "no_rows"),
        (answer(200, b""), "no_rows"),
        (answer(200, FIRST[:-5]), "file_cut"),
        (answer(200, gzip.compress(FIRST)), "format_differs"),
    ],
)
async def test_a_failure_leaves_the_list_as_it_was(
    market: Marketplace, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour, failure: str
) -> None:
    monkeypatch.setattr(sources, "DOWNLOAD_SECONDS", 0.3)
    monkeypatch.setattr(sources, "LARGEST_FILE", 1_000_000)
    async with Receiver(answer(200, FIRST), behaviour) as receiver:
        source = await new_source(market, receiver.url)
        await source.refresh()
        refreshed = await source.refresh()
    row = await source.row()
    if failure == "unchanged":
        assert refreshed.result is RefreshResult.unchanged
        return
    assert (refreshed.result, refreshed.failure, row.failure, row.failures) == ("failed", failure, failure, 1)
    assert row.failed_at is not None
    assert row.due_at - row.failed_at == timedelta(minutes=5)
    assert await source.size() == 4
    assert not await market.value("select count(*) from list_staging")


async def test_an_answer_of_no_change_counts_only_if_there_is_a_file(market: Marketplace) -> None:
    async with Receiver(status(304)) as receiver:
        source = await new_source(market, receiver.url)
        assert (await source.refresh()).failure == "refused"


async def test_the_next_success_ends_the_failing(market: Marketplace) -> None:
    async with Receiver(status(503), status(503), answer(200, FIRST)) as receiver:
        source = await new_source(market, receiver.url)
        await source.refresh()
        await source.refresh()
        assert (await source.row()).failures == 2
        await source.refresh()
    row = await source.row()
    assert (row.failures, row.failure, row.failed_at) == (0, None, None)


async def test_a_source_that_shrinks_by_more_than_half_waits_for_an_operator(market: Marketplace) -> None:
    async with Receiver(answer(200, phones(*range(10))), answer(200, phones(1, 2, 3))) as receiver:
        source = await new_source(market, receiver.url)
        await source.refresh()
        assert (await source.refresh()).result is RefreshResult.smaller
        row = await source.row()
        assert (row.failure, row.smaller_rows) == ("much_smaller", 3)
        assert await source.size() == 10
        with pytest.raises(errors.Conflict):
            await sources.confirm_smaller(market.api, BY, source.contact_list, 4)
        await sources.confirm_smaller(market.api, BY, source.contact_list, 3)
        assert (await source.row()).due_at <= clock.now()
        assert (await source.refresh()).result is RefreshResult.published
    assert await source.size() == 3
    row = await source.row()
    assert (row.smaller_rows, row.confirmed_rows, row.failures) == (None, None, 0)


async def test_a_confirmation_is_for_a_file_of_that_size(market: Marketplace) -> None:
    many, few, one = (answer(200, phones(*range(count))) for count in (20, 8, 1))
    async with Receiver(many, few, one) as receiver:
        source = await new_source(market, receiver.url)
        await source.refresh()
        await source.refresh()
        await sources.confirm_smaller(market.api, BY, source.contact_list, 8)
        assert (await source.refresh()).result is RefreshResult.smaller
    assert await source.size() == 20
    assert (await source.row()).smaller_rows == 1


async def test_a_packed_file_is_unpacked_within_the_limit(market: Marketplace, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(FIRST)
    bomb, cut, torn = gzip.compress(bytes(3_000_000)), packed[:-12], packed[:12] + b"xx" + packed[14:]
    behaviours = [answer(200, body) for body in (packed, bomb, cut, torn, FIRST)]
    monkeypatch.setattr(sources, "LARGEST_FILE", 1_000_000)
    async with Receiver(*behaviours) as receiver:
        source = await new_source(market, receiver.url, format=SourceFormat.csv_gzip)
        assert (await source.refresh()).result is RefreshResult.published
        failures = [(await source.refresh()).failure for _ in behaviours[1:]]
    assert failures == ["too_large", "file_cut", "format_differs", "format_differs"]
    assert await source.size() == 4


async def test_a_source_is_fetched_by_one_process_at_a_time(market: Marketplace) -> None:
    async with Receiver(receivers.after(0.1, answer(200, FIRST))) as receiver:
        await new_source(market, receiver.url)
        both = await asyncio.gather(*(sources.refresh_due(market.api, market.sealer, GUARD) for _ in range(2)))
    assert len(receiver.visits) == 1
    assert both.count(None) == 1


async def test_a_source_whose_process_died_is_taken_over_after_its_lease(market: Marketplace) -> None:
    async with Receiver(answer(200, FIRST)) as receiver:
        source = await new_source(market, receiver.url)
        now = clock.now()
        async with market.worker.acquire() as connection:
            assert await source_store.claim_due(connection, now + source_store.LEASE, now) == source.contact_list.id
            assert await source_store.claim_due(connection, now + source_store.LEASE, now) is None
        await market.owner.execute("update list_source set leased_until = $1", now)
        assert await sources.refresh_due(market.api, market.sealer, GUARD) is not None


async def test_a_source_that_was_changed_meanwhile_publishes_nothing_of_the_earlier_one(market: Marketplace) -> None:
    async with Receiver(answer(200, SECOND)) as other:
        saved: list[Source] = []

        async def change(visit: receivers.Visit) -> None:
            [source] = saved
            settings = SourceSettings(url=other.url, format=SourceFormat.csv, schedule=SourceSchedule.hourly)
            await sources.save_source(market.api, market.sealer, GUARD, BY, source.contact_list, settings, None)
            await answer(200, FIRST)(visit)

        async with Receiver(change) as receiver:
            saved.append(await new_source(market, receiver.url))
            assert (await saved[0].refresh()).result is RefreshResult.replaced
        assert await saved[0].size() == 0
        refreshed = await sources.refresh_due(market.api, market.sealer, GUARD)
    assert refreshed is not None
    assert refreshed.result is RefreshResult.published


async def test_a_list_without_a_source_and_a_removed_list_are_not_fetched(market: Marketplace) -> None:
    async with Receiver(answer(200, FIRST)) as receiver:
        source = await new_source(market, receiver.url)
        await lists_flow.remove_list(market.api, BY, source.contact_list)
        assert await sources.refresh_due(market.api, market.sealer, GUARD) is None
        with pytest.raises(errors.Conflict):
            await source.refresh()
        with pytest.raises(errors.NotFound):
            await sources.remove_source(market.api, BY, source.contact_list)
    assert receiver.visits == []


@pytest.mark.parametrize(
    ("url", "header", "field"),
    [
        ("http://10.0.0.1/list.csv", None, "/url"),
        ("https://user:pw@example.com/", None, "/url"),
        ("list.csv", None, "/url"),
        ("https://example.com/", ("Host", "x"), "/header_name"),
        ("https://example.com/", ("X Key", "x"), "/header_name"),
        ("https://example.com/", ("X-Key", "a\r\nb: c"), "/header_value"),
        ("https://example.com/", ("X-Key", ""), "/header_value"),
    ],
)
async def test_a_source_that_must_not_be_fetched_is_refused_at_its_field(
    market: Marketplace, url: str, header: tuple[str, str] | None, field: str
) -> None:
    with pytest.raises(errors.InvalidInput) as refusal:
        await new_source(market, url, header)
    assert refusal.value.faults[0].pointer == field
    assert not await market.value("select count(*) from list_source")


@given(
    schedule=st.sampled_from(SourceSchedule),
    failures=st.integers(1, 100),
    stated=st.none() | st.integers(0, 10**9),
)
def test_the_pause_after_a_failure_grows_and_never_exceeds_the_schedule(
    schedule: SourceSchedule, failures: int, stated: int | None
) -> None:
    pause = pause_after(schedule, failures, stated)
    assert timedelta(minutes=5) <= pause <= schedule.interval
    assert pause >= pause_after(schedule, failures)
    assert pause_after(schedule, failures + 1, stated) >= pause


async def test_a_worker_refreshes_what_is_due_in_a_process_of_its_own(
    market: Marketplace, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = SECRETS | {
        "DATABASE_URL": settings.database_url,
        "VALKEY_URL": settings.valkey_url,
        "MARKETPLACE_OUTBOUND_HTTP": "true",
        "MARKETPLACE_OUTBOUND_NETWORKS": "127.0.0.0/8",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value or "")
    monkeypatch.setattr(job, "LOOK_SECONDS", 0.05)
    async with Receiver(answer(200, FIRST)) as receiver:
        source = await new_source(market, receiver.url)
        stopping = asyncio.Event()
        keeping = asyncio.create_task(job.keep_refreshing(market.worker, REFRESH, stopping))

        async def refreshed() -> bool:
            return (await source.row()).checked_at is not None

        assert await until(refreshed, PATIENCE)
        stopping.set()
        await keeping
    assert await source.size() == 4
    assert (await source.row()).leased_until is None


async def test_a_process_that_dies_leaves_its_source_to_the_end_of_the_lease(
    market: Marketplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "LOOK_SECONDS", 0.01)
    source = await new_source(market, "https://example.com/list.csv")
    stopping = asyncio.Event()
    command = (sys.executable, "-S", "-c", "raise SystemExit(1)")
    keeping = asyncio.create_task(job.keep_refreshing(market.worker, command, stopping))

    async def leased() -> bool:
        return (await source.row()).leased_until is not None

    assert await until(leased, PATIENCE)
    stopping.set()
    await keeping
    row = await source.row()
    assert row.leased_until is not None
    assert row.leased_until > clock.now()


async def test_the_command_refreshes_one_list_at_once_and_fails_with_the_reason(
    market: Marketplace, settings: Settings, tmp_path: Path
) -> None:
    environment = SECRETS | {
        "DATABASE_URL": str(settings.database_url),
        "VALKEY_URL": str(settings.valkey_url),
        "MARKETPLACE_OUTBOUND_HTTP": "true",
        "MARKETPLACE_OUTBOUND_NETWORKS": "127.0.0.0/8",
    }
    file = tmp_path / "refreshes.json"
    async with Receiver(answer(200, FIRST), status(503)) as receiver:
        await new_source(market, receiver.url)
        good = await forks.run("lists", "refresh", "--name", "National", "--json", str(file), **environment)
        assert good.returncode == 0, good.stderr
        assert "National: 4 rows: 4 new" in good.stdout
        [view] = msgspec.json.decode(file.read_bytes())
        assert (view["result"], view["run"]["added"]) == ("published", 4)
        idle = await forks.run("lists", "refresh", **environment)
        assert idle.stdout == "No list is due.\n"
        bad = await forks.run("lists", "refresh", "--name", "National", **environment)
    assert bad.returncode == 1
    assert "National: busy" in bad.stderr
