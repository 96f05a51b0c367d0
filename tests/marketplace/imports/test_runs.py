"""Imports and their undoing, also across crashes: no row counts twice, and none is left over."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from marketplace.database.db import open_pool
from marketplace.imports import flow as imports_flow
from marketplace.imports import store as imports_store
from marketplace.imports.flow import Imports
from marketplace.imports.table import LARGEST_FILE
from marketplace.imports.wire import ImportState, ImportSubject
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.security.sealing import Sealer
from marketplace.shared_leads.flow import SharedLeads
from marketplace.web.gate import LARGEST_BODY
from tests.builders.feedback import Desk, ago, desk
from tests.builders.service import Served, serve, until
from tests.waiting import PATIENCE, tries

HEADER = "Lead ID,Source,Received,Price,Won on,Job value,Lost on,Status\n"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served


@pytest.fixture
async def pool(api: Served, settings: Settings) -> AsyncIterator[Any]:
    """A pool with the API's own role."""
    async with await open_pool(settings.database_url or "", "marketplace_api", size=2) as opened:
        yield opened


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings)


async def send(
    api: Served, what: str, text: str | bytes, key: str, mapping: object = None, kind: str = "shared-leads"
) -> httpx.Response:
    raw = text.encode() if isinstance(text, str) else text
    query = f"?mapping={quote(json.dumps(mapping))}" if mapping is not None else ""
    return await api.call("POST", f"/v1/{kind}:{what}{query}", raw, key=key, headers={"content-type": "text/csv"})


def lines(*rows: str, header: str = HEADER) -> str:
    return header + "\n".join(rows) + "\n"


def day(days: int) -> str:
    return f"{clock.now() - timedelta(days=days):%Y-%m-%d}"


async def left(api: Served, key: str, import_id: str, outcome: str = "left") -> list[tuple[int, str, str]]:
    rows = (await api.call("GET", f"/v1/imports/{import_id}/rows?outcome={outcome}", key=key)).json()["data"]
    return [(row["row"], row["outcome"], row["code"]) for row in rows]


async def test_the_preview_says_of_each_row_what_the_import_then_does(api: Served) -> None:
    _, key = await api.business()
    first = lines(f"A1,V,{day(9)},30,,,,open", f"A2,V,{day(9)},30,,,,lost")
    await send(api, "import", first, key)
    second = lines(
        f"A1,V,{day(9)},30,,,,open",
        f"A2,V,{day(9)},31,,,,lost",
        f"B1,V,{day(9)},30,,,,open",
        f"B1,V,{day(9)},30,,,,open",
        f"B1,V,{day(8)},30,,,,open",
        f"1.23457E+15,V,{day(9)},30,,,,open",
        f"1.23457E+15,V,{day(8)},40,,,,open",
        f"B2,V,{day(9)},€30,,,,open",
        f"B3,V,{day(9)},30,,,,maybe",
    )
    preview = (await send(api, "preview", second, key)).json()
    done = (await send(api, "import", second, key)).json()
    assert (preview["good"], preview["known"], preview["conflict_count"], preview["refused_count"]) == (1, 2, 2, 4)
    assert (done["added"], done["known"], done["conflict_count"], done["refused_count"]) == (1, 2, 2, 4)
    assert (preview["conflicts"], preview["refused"]) == (done["conflicts"], done["refused"])
    assert [(row["row"], row["column"], row["code"]) for row in done["refused"]] == [
        (7, "Lead ID", "mangled_by_spreadsheet"),
        (8, "Lead ID", "mangled_by_spreadsheet"),
        (9, "Price", "currency_differs"),
        (10, "Status", "status_unknown"),
    ]
    assert [row["row"] for row in done["conflicts"]] == [3, 6]
    assert preview["statuses"] == ["maybe"]
    rows = await left(api, key, done["id"])
    assert [(number, outcome) for number, outcome, _ in rows] == [
        (2, "known"),
        (3, "conflict"),
        (5, "known"),
        (6, "conflict"),
        (7, "refused"),
        (8, "refused"),
        (9, "refused"),
        (10, "refused"),
    ]
    assert [row[0] for row in await left(api, key, done["id"], "taken")] == [4]
    text = (await api.call("GET", f"/v1/imports/{done['id']}/rows?format=csv&outcome=refused", key=key)).text
    assert text.count("\n") == 5


async def test_a_status_column_and_unknown_days_let_won_and_lost_rows_in_alike(api: Served) -> None:
    _, key = await api.business()
    text = lines(
        f"A1,V,{day(40)},30,,900,,won",
        f"A2,V,{day(40)},30,,,,lost",
        f"A3,V,{day(40)},30,,450,,open",
        f"A4,V,{day(40)},30,{day(20)},900,,Signed it",
        f"A5,V,{day(40)},30,,900,{day(20)},lost",
        f"A6,V,{day(40)},30,{day(20)},900,,lost",
        f"A7,V,{day(40)},30,,,,won",
    )
    guessed = (await send(api, "preview", text, key)).json()
    assert guessed["statuses"] == ["Signed it"]
    mapping = guessed["mapping"] | {"statuses": {"signed it": "won"}}
    done = (await send(api, "import", text, key, mapping)).json()
    assert (done["added"], [(row["row"], row["code"]) for row in done["refused"]]) == (
        5,
        [(7, "status_contradicts"), (8, "field_missing")],
    )
    leads = {lead["external_id"]: lead for lead in (await api.call("GET", "/v1/shared-leads", key=key)).json()["data"]}
    ends = {name: (lead["won_minor"], lead["won_at"] is None, lead["lost"]) for name, lead in leads.items()}
    assert ends == {
        "A1": (90_000, True, False),
        "A2": (None, True, True),
        "A3": (None, True, False),
        "A4": (90_000, False, False),
        "A5": (None, True, False),
    }
    roi = (await api.call("GET", "/v1/reports/roi", key=key)).json()["answer"]["shared"]
    assert (roi["leads"], roi["outcomes"], roi["wins"]) == (5, 4, 2)


async def test_an_order_of_dates_or_a_decimal_mark_that_the_rows_leave_open_is_asked_for(api: Served) -> None:
    _, key = await api.business()
    american = lines("A1,V,11/21/2025,30,,,,", "A2,V,03/04/2026,30,,,,", "A3,V,13/45/2026,30,,,,")
    done = (await send(api, "import", american, key)).json()
    assert (done["added"], [(row["row"], row["code"]) for row in done["refused"]]) == (2, [(4, "date_invalid")])
    leads = (await api.call("GET", "/v1/shared-leads", key=key)).json()["data"]
    assert {lead["received_at"][:10] for lead in leads} == {"2025-11-21", "2026-03-04"}
    unclear = lines("B1,V,03/04/2026,30,,,,")
    preview = (await send(api, "preview", unclear, key)).json()
    assert preview["open"] == ["dates"]
    reply = await send(api, "import", unclear, key)
    assert (reply.status_code, reply.json()["errors"][0]["code"]) == (422, "dates_ambiguous")
    assert (await send(api, "import", unclear, key, preview["mapping"] | {"dates": "dmy"})).json()["added"] == 1


async def test_amounts_have_the_digits_of_the_wallets_currency_in_files_as_in_json(api: Served) -> None:
    business = await api.make("/v1/businesses", {"name": "K", "zone": "Asia/Kuwait", "currency": "KWD"})
    key = await api.key("business", ids.decode("biz", business["id"]))
    text = "Lead ID,Source,Received,Price (KWD),Job value\nA1,V,2026-03-01,12.500,KD 1234.567\nA2,V,2026-03-01,$5,\n"
    done = (await send(api, "import", text, key)).json()
    assert (done["added"], [row["code"] for row in done["refused"]]) == (1, ["currency_differs"])
    [lead] = (await api.call("GET", "/v1/shared-leads", key=key)).json()["data"]
    assert (lead["cost_minor"], lead["won_minor"]) == (12_500, 1_234_567)
    heading = text.replace("(KWD)", "(EUR)").replace("A1", "B1")
    refused = (await send(api, "import", heading, key)).json()["refused"]
    assert [row["code"] for row in refused] == ["currency_differs", "currency_differs"]
    column = "Lead ID,Source,Received,Price,Currency\nC1,V,2026-03-01,5,KWD\nC2,V,2026-03-01,5,USD\n"
    assert (await send(api, "import", column, key)).json()["added"] == 1


async def test_an_import_is_undone_and_the_same_file_may_come_again(api: Served) -> None:
    _, key = await api.business()
    _, stranger = await api.business()
    text = lines(*(f"A{number},V,{day(40)},30,{day(20)},900,," for number in range(1_200)))
    done = (await send(api, "import", text, key)).json()
    assert (done["state"], done["added"]) == ("done", 1_200)

    async def leads() -> int:
        report = (await api.call("GET", "/v1/reports/roi", key=key)).json()
        shared = report["answer"]["shared"]
        return shared["leads"] if shared else 0

    assert await leads() == 1_200
    assert (await api.call("POST", f"/v1/imports/{done['id']}/undo", key=stranger)).status_code == 404
    undone = (await api.call("POST", f"/v1/imports/{done['id']}/undo", key=key)).json()
    assert (undone["state"], undone["undone"], undone["taken"]) == ("undone", 1_200, 1_200)
    assert await leads() == 0
    assert (await api.call("GET", "/v1/shared-leads", key=key)).json()["data"] == []
    assert (await api.call("POST", f"/v1/imports/{done['id']}/undo", key=key)).json()["state"] == "undone"
    again = (await send(api, "import", text, key)).json()
    assert (again["added"], again["known"]) == (1_200, 0)
    assert await leads() == 1_200
    actions = [action for action, _ in await api.audited()]
    assert (actions.count("shared_leads.import"), actions.count("import.undo")) == (2, 1)


async def test_an_undoing_that_keeps_failing_ends_and_may_be_asked_for_again(
    api: Served, pool: Any, settings: Settings
) -> None:
    business, key = await api.business()
    owner = ids.decode("biz", business)
    assert owner is not None
    text = lines(*(f"A{number},V,{day(40)},30,,,," for number in range(700)))
    done = ids.decode("imp", (await send(api, "import", text, key)).json()["id"])
    assert done is not None
    await api.pool.execute(
        "create function fail() returns trigger language plpgsql as $$ begin raise 'broken'; end $$; "
        "create trigger broken before update on shared_lead for each row execute function fail()"
    )
    imports = Imports(pool, Sealer(settings.master_key, settings.pepper), {ImportSubject.shared_leads: SharedLeads()})
    await imports.undo(done, owner, "member")
    pauses = []
    for _ in tries("the undoing to end"):
        one = await imports.wait(done, seconds=0)
        if one.state is not ImportState.undoing:
            break
        if not imports._tasks:
            pauses.append(await api.pool.fetchval("select due_at from file_import where id = $1", done) - clock.now())
            async with pool.acquire() as connection:
                now = clock.now() + timedelta(hours=1)
                assert await imports_store.claim_due(connection, now, now) == done
            imports._start(done)
        await asyncio.sleep(0.05)
    assert (one.state, one.undone) == (ImportState.failed, 0)
    assert len(pauses) == imports_flow.MOST_TRIES
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(pauses))
    await api.pool.execute("drop trigger broken on shared_lead")
    await imports.undo(done, owner, "member")
    undone = await imports.wait(done)
    assert (undone.state, undone.undone) == (ImportState.undone, 700)


async def test_outcomes_of_an_undone_import_count_nowhere_and_may_come_again(shop: Desk) -> None:
    lead = await shop.sold()
    text = f'lead_id,kind,happened_at,value\n{lead},won,{ago()},"$8,400"\n'
    headers = {"content_type": "text/csv"}
    preview = (await shop.call("POST", "/v1/dispositions:preview", text.encode(), **headers)).json()
    assert (preview["good"], preview["rejected_count"]) == (1, 0)
    done = (await shop.call("POST", "/v1/dispositions:import", text.encode(), **headers)).json()
    assert (done["recorded"], done["state"]) == (1, "done")
    [won] = (await shop.shown(lead))["dispositions"]
    assert (won["value_minor"], won["source"]) == (840_000, "csv")
    assert (await shop.call("POST", f"/v1/imports/{done['id']}/undo")).json()["undone"] == 1
    assert (await shop.shown(lead))["dispositions"] == []
    figures = "select count(won_at) from exclusive_outcome", "select count(*) from lead_figure where step = 8"
    assert [await shop.market.value(sql) for sql in figures] == [0, 0]
    listed = (await shop.call("GET", "/v1/leads?disposition=none")).json()["data"]
    assert [row["id"] for row in listed] == [lead]
    again = (await shop.call("POST", "/v1/dispositions:import", text.encode(), **headers)).json()
    assert (again["recorded"], again["repeated"]) == (1, 0)
    assert [await shop.market.value(sql) for sql in figures] == [1, 1]


async def test_only_what_an_import_brought_can_be_undone_and_only_once(shop: Desk) -> None:
    lead = await shop.sold()
    await shop.tell(lead, kind="contacted")
    undo = "update disposition set undone_at = now(), committed_by = pg_current_xact_id()"
    with pytest.raises(Exception, match="disposition_undone"):
        await shop.market.owner.execute(undo)
    text = f"lead_id,kind,happened_at\n{lead},quoted,{ago()}\n"
    await shop.call("POST", "/v1/dispositions:import", text.encode(), content_type="text/csv")
    of_file = f"{undo} where file_import_id is not null"
    unfollowed, worth = (
        of_file.replace("pg_current_xact_id()", "committed_by"),
        of_file.replace("undone", "kind = 'won', undone"),
    )
    for changed in (unfollowed, worth):
        with pytest.raises(Exception, match="rows are never changed"):
            await shop.market.owner.execute(changed)
    await shop.market.owner.execute(of_file)
    with pytest.raises(Exception, match="rows are never changed"):
        await shop.market.owner.execute(of_file)


async def test_an_import_whose_process_died_is_taken_over_and_no_row_counts_twice(
    api: Served, pool: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    business, key = await api.business()
    text = lines(*(f"A{number},V,{day(40)},30,,,," for number in range(1_800))).encode()
    sealer = Sealer(settings.master_key, settings.pepper)
    dying = Imports(pool, sealer, {ImportSubject.shared_leads: Dying()})
    owner = ids.decode("biz", business)
    assert owner is not None
    begun = await dying.submit(ImportSubject.shared_leads, owner, None, "key", text)

    async def stopped() -> bool:
        return not dying._tasks

    assert await until(stopped, PATIENCE)
    dead = await dying.load(begun, owner)
    assert (dead.state, dead.position, dead.taken) == (
        ImportState.running,
        2 * imports_flow.BATCH,
        2 * imports_flow.BATCH,
    )
    await api.pool.execute("update file_import set due_at = now()")
    monkeypatch.setattr(imports_flow, "LOOK_SECONDS", 0.05)
    living, stopping = Imports(pool, sealer, {ImportSubject.shared_leads: SharedLeads()}), asyncio.Event()
    working = asyncio.create_task(living.keep_working(stopping))

    async def ended() -> bool:
        return (await living.load(begun, owner)).state is ImportState.done

    assert await until(ended, PATIENCE)
    stopping.set()
    await working
    done = await living.load(begun, owner)
    assert (done.taken, done.repeated, done.conflicts, done.refused) == (1_800, 0, 0, 0)
    assert await api.pool.fetchval("select count(*) from shared_lead") == 1_800
    assert await api.pool.fetchval("select count(*) from import_row") == 1_800
    assert await api.pool.fetchval("select count(*) from import_file") == 0
    assert (await send(api, "import", text, key)).json()["known"] == 1_800


class Dying(SharedLeads):
    """An importer whose process dies after two batches."""

    async def open(self, *arguments: Any) -> Any:
        file = await super().open(*arguments)
        keep, calls = file.keep, []

        async def keep_or_die(connection: Any, import_: Any, rows: Any) -> Any:
            calls.append(rows)
            if len(calls) > 2:
                raise SystemError("gone")
            return await keep(connection, import_, rows)

        file.keep = keep_or_die  # type: ignore[method-assign]
        return file


async def test_a_file_is_sealed_while_it_is_kept_and_forgotten_when_its_import_ends(
    api: Served, pool: Any, settings: Settings
) -> None:
    business, key = await api.business()
    sealer = Sealer(settings.master_key, settings.pepper)
    imports, owner = Imports(pool, sealer, {ImportSubject.shared_leads: SharedLeads()}), ids.decode("biz", business)
    assert owner is not None
    raw = lines(f"A1,SecretVendor,{day(9)},30,,,,").encode()
    import_id = await imports.keep_file(ImportSubject.shared_leads, owner, None, "member", raw, 1)
    box = await api.pool.fetchval("select box from import_file")
    assert b"SecretVendor" not in box
    assert await imports.read_file(import_id, owner) == raw
    await imports.begin(import_id, owner, "member")
    assert (await imports.wait(import_id)).state is ImportState.done
    assert await api.pool.fetchval("select count(*) from import_file") == 0
    await imports.keep_file(ImportSubject.shared_leads, owner, None, "member", raw, 1)
    await api.pool.execute("update import_file set made_at = now() - interval '25 hours'")
    assert (await send(api, "import", raw, key)).status_code == 200
    assert await api.pool.fetchval("select count(*) from import_file") == 0


async def test_hostile_headers_are_answered_at_once_and_briefly(api: Served) -> None:
    _, key = await api.business()
    for kind in ("shared-leads", "dispositions"):
        for header in (b",".join([b"same"] * 50_000), b",".join(b"c%d" % number for number in range(30_000))):
            began = clock.monotonic()
            refused = await send(api, "import", header + b"\n1\n", key, kind=kind)
            assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "too_many_columns")
            assert len(refused.content) < 1_000
            assert clock.monotonic() - began < PATIENCE / 4
    unknown = b",".join(b"c%d" % number for number in range(200)) + b"\n"
    assert len((await send(api, "import", unknown, key, kind="dispositions")).json()["errors"]) == 100


async def test_a_file_far_larger_than_other_bodies_is_taken(api: Served) -> None:
    _, key = await api.business()
    text = lines(*(f"A{number},V,{day(40)},30,,,," + " " * 6_000 for number in range(200)))
    assert LARGEST_BODY < len(text) < LARGEST_FILE
    assert (await send(api, "import", text, key)).json()["added"] == 200
