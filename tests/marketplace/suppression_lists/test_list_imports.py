"""Imports of lists: whole or not at all, resumed where they were, undone; and leads checked against their members."""

from collections.abc import AsyncIterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest

from marketplace.runtime import clock, errors, failpoints
from marketplace.runtime.settings import Settings
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists import reading
from marketplace.suppression_lists import store as lists_store
from marketplace.suppression_lists.flow import ImportOptions
from marketplace.suppression_lists.store import (
    ContactList,
    ImportWay,
    ListImport,
    ListImportState,
    ListKind,
    ListTerms,
)
from tests.builders.marketplaces import Marketplace, marketplace

BY = "test"


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings) as made:
        yield made


async def new_list(market: Marketplace, **terms: object) -> ContactList:
    return await lists_flow.make_list(
        market.api,
        BY,
        ListKind.do_not_contact,
        None,
        "National list",
        ListTerms(**terms),  # type: ignore[arg-type]
    )


async def load(market: Marketplace, contact_list: ContactList) -> ContactList:
    return await lists_flow.load_list(market.api, contact_list.id, None)


async def fill(market: Marketplace, contact_list: ContactList, text: str, **options: object) -> ListImport:
    current = await load(market, contact_list)
    return await lists_flow.import_stream(
        market.api,
        market.sealer,
        BY,
        current,
        BytesIO(text.encode()),
        "list.csv",
        ImportOptions(**options),  # type: ignore[arg-type]
    )


def phones(*numbers: int) -> str:
    return "".join(f"+1312555{number:04}\n" for number in numbers)


async def test_an_import_counts_new_repeated_and_unreadable_rows_of_mixed_formats(market: Marketplace) -> None:
    contact_list = await new_list(market)
    digest = sha256(b"+13125550103").hexdigest()
    text = f"+13125550101\n(312) 555-0101\n312,5550102\njane@example.com\n{digest}\nnobody\n3125550102"
    run = await fill(market, contact_list, text.replace("jane@example.com", "jane@gmail.com"))
    assert (run.rows, run.readable, run.faulty, run.added, run.repeated) == (7, 6, 1, 4, 2)
    async with market.api.acquire() as connection:
        faults = await lists_store.list_faults(connection, run.id)
    assert [(fault.row, fault.code) for fault in faults] == [(6, "phone_invalid")]
    assert (await load(market, contact_list)).members == 4
    assert not await market.value("select count(*) from list_staging")


async def test_a_person_on_a_list_is_sold_to_nobody(market: Marketplace) -> None:
    await market.buyer(None)
    contact_list = await new_list(market)
    await fill(market, contact_list, phones(101))
    assert (await market.submit(1)).state == "suppressed"
    assert (await market.submit(2)).state == "received"
    await lists_flow.remove_list(market.api, BY, await load(market, contact_list))
    assert (await market.submit(1, by=await market.another_provider())).state == "received"
    assert not await market.value("select count(*) from list_member")


@pytest.mark.parametrize("text", ["+13125550101", "13125550101", "robin.1@example.com"])
async def test_a_plain_hash_on_a_list_is_that_of_the_person(market: Marketplace, text: str) -> None:
    await fill(market, await new_list(market), sha256(text.encode()).hexdigest() + "\n")
    assert (await market.submit(1)).state == "suppressed"


async def test_a_lead_that_waits_ends_when_its_person_comes_onto_a_list(market: Marketplace) -> None:
    receipt = await market.submit(1)
    await market.buyer(None)
    await fill(market, await new_list(market), phones(101))
    await market.walker.walk(receipt.id)
    assert await market.row("select state, reason from lead") == {"state": "rejected", "reason": "withdrawn"}


async def test_an_award_has_the_number_of_the_lists_that_cleared_it(market: Marketplace) -> None:
    await market.buyer(None)
    run = await fill(market, await new_list(market), phones(7, 8))
    await market.sold(2)
    serial = await market.value("select serial from list_import where id = $1", run.id)
    assert await market.value("select lists_serial from assignment") == serial == 1


async def test_a_refresh_changes_the_difference_and_can_be_undone_once(market: Marketplace) -> None:
    contact_list = await new_list(market)
    first = await fill(market, contact_list, phones(1, 2, 3))
    second = await fill(market, contact_list, phones(2, 3, 4))
    assert (second.added, second.removed, second.version) == (1, 1, 2)
    with pytest.raises(errors.Conflict):
        await lists_flow.undo_import(market.api, BY, contact_list, first.id)
    with pytest.raises(errors.InvalidInput):
        await fill(market, contact_list, "1")  # one that failed is not the last
    undone = await lists_flow.undo_last(market.api, BY, await load(market, contact_list))
    assert undone.state is ListImportState.undone
    assert (await load(market, contact_list)).members == 3
    assert await current_keys(market) == keys_of(market, 1, 2, 3)
    for run in (first, second):
        with pytest.raises(errors.Conflict):
            await lists_flow.undo_import(market.api, BY, contact_list, run.id)
    third = await fill(market, contact_list, phones(1, 4), way=ImportWay.add)
    assert (third.added, third.removed) == (1, 0)
    assert await current_keys(market) == keys_of(market, 1, 2, 3, 4)


async def current_keys(market: Marketplace) -> set[bytes]:
    return {row["key"] for row in await market.owner.fetch("select key from list_member where until is null")}


def keys_of(market: Marketplace, *numbers: int) -> set[bytes]:
    marks = (f"phone:+1312555{number:04}" for number in numbers)
    return {market.sealer.keyed_hash("suppression", mark)[: reading.KEY_BYTES] for mark in marks}


@pytest.mark.parametrize("batches", [0, 1, 3])
@pytest.mark.parametrize("finishes", [True, False])
async def test_an_import_that_was_killed_continues_where_it_was(
    market: Marketplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int, finishes: bool
) -> None:
    """The process dies after some batches, or before the publication; nothing of it is seen until the import ends."""
    monkeypatch.setattr(reading.read_batches, "__defaults__", (5,))
    contact_list = await new_list(market)
    path = tmp_path / "list.csv"
    path.write_text("phone\n" + phones(*range(18)) + "nobody\n" + phones(*range(18, 20)))
    left = batches

    async def die(place: str) -> None:
        nonlocal left
        left -= place == "after_list_batch"
        if left <= 0 and (place == "before_list_publication") is finishes:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "reach", die)
        with pytest.raises(KeyboardInterrupt):
            await lists_flow.import_path(market.api, market.sealer, BY, contact_list, path, ImportOptions())
    assert not await market.value("select count(*) from list_member")
    with pytest.raises(errors.Conflict):
        await lists_flow.import_path(market.api, market.sealer, BY, contact_list, path, ImportOptions())
    await market.owner.execute("update list_import set due_at = $1", clock.now())
    seen: list[int] = []
    run = await lists_flow.import_path(
        market.api, market.sealer, BY, contact_list, path, ImportOptions(), lambda step: seen.append(step.rows)
    )
    assert (run.rows, run.readable, run.faulty, run.added, run.repeated) == (21, 20, 1, 20, 0)
    assert await current_keys(market) == keys_of(market, *range(20))
    assert await market.value("select count(*) from list_import") == 1


async def test_another_file_ends_an_interrupted_import(market: Marketplace) -> None:
    contact_list = await new_list(market)
    await market.owner.execute(
        "insert into list_import (id, list_id, state, way, file_name, actor, position, digest, due_at, made_at) "
        "values (gen_random_uuid(), $1, 'running', 'whole', 'x', 'x', 4, '', now(), now())",
        contact_list.id,
    )
    await fill(market, contact_list, phones(1, 2))
    states = [tuple(row) for row in await market.owner.fetch("select state, failure from list_import order by made_at")]
    assert states == [("failed", "interrupted"), ("done", None)]


CUT = [
    (phones(1, 2) + "+131255", {}, "file_cut"),
    (phones(1, 2), {"expected_rows": 3}, "file_cut"),
    ("\n\n", {}, "no_rows"),
    ("1\n2\n" + phones(1), {}, "mostly_faulty"),
    (phones(1), {}, "much_smaller"),
]


@pytest.mark.parametrize(("text", "options", "code"), CUT)
async def test_a_file_that_is_cut_off_or_is_no_list_changes_nothing(
    market: Marketplace, text: str, options: dict[str, object], code: str
) -> None:
    contact_list = await new_list(market)
    await fill(market, contact_list, phones(1, 2, 3, 4))
    with pytest.raises(errors.InvalidInput) as refusal:
        await fill(market, contact_list, text, **options)
    assert refusal.value.faults[0].code == code
    assert await current_keys(market) == keys_of(market, 1, 2, 3, 4)
    assert await market.value("select failure from list_import order by number desc limit 1") == code
    assert not await market.value("select count(*) from list_staging")
    if code == "much_smaller":
        assert (await fill(market, contact_list, text, accepts_smaller=True)).removed == 3


async def test_a_list_is_outdated_after_its_maximum_age(market: Marketplace) -> None:
    contact_list = await new_list(market, maximum_age_days=31)
    assert lists_flow.is_stale(contact_list, clock.now())
    await fill(market, contact_list, phones(1))
    contact_list = await load(market, contact_list)
    assert not lists_flow.is_stale(contact_list, clock.now())
    await market.owner.execute("update contact_list set refreshed_at = refreshed_at - interval '32 days'")
    assert lists_flow.is_stale(await load(market, contact_list), clock.now())


async def test_neither_the_list_nor_the_audit_holds_a_value(market: Marketplace) -> None:
    await fill(market, await new_list(market), "+13125550142\nsecret@gmail.com\nsecret@\n")
    for table in ("list_member", "list_import", "list_fault", "contact_list", "audit"):
        rows = str([dict(row) for row in await market.owner.fetch(f"select * from {table}")])
        assert "5550142" not in rows
        assert "secret" not in rows
