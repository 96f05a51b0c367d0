"""Quality by provider and sub-id, refused requests included."""

from datetime import timedelta
from urllib.parse import parse_qsl

from marketplace.database.db import open_pool
from marketplace.intake.refusals import MOST_KEPT, Refusals
from marketplace.reports.quality import QualityReport, load_quality
from marketplace.reports.rows import find_ids, read_filters
from marketplace.runtime import clock
from marketplace.security.auth import CallerKind, Principal
from marketplace.text.faults import Fault
from tests.marketplace.reports.conftest import DAY, Ledger, asked

NOON = DAY + timedelta(hours=12)


async def story(ledger: Ledger) -> QualityReport:
    won = await ledger.sold("Ann", NOON, sub_ids={"ad": "7", "page": "a"})
    await ledger.tells(won, "won", NOON + timedelta(hours=2), value=1)
    await ledger.sold("Bob", NOON, state="returned", sub_ids={"ad": "7"})
    await ledger.lead("rejected", NOON, reason="score_below", sub_ids={"ad": "8"})
    await ledger.lead("duplicate", NOON)
    await ledger.lead("unsold", NOON, provider="Slow")
    await ledger.keep()
    insert = "insert into refusal_count values ($1, 'live', $2, $3, $4, $5)"
    for pointer, code, count in (
        ("*", "refused", 3),
        ("/contact/phone", "phone_invalid", 2),
        ("/bant", "type_wrong", 1),
    ):
        await ledger.owner.execute(insert, ledger.providers["Slow"], NOON, pointer, code, count)
    await ledger.owner.execute(insert, ledger.providers["Slow"], NOON - timedelta(days=1), "*", "refused", 9)
    return await load_quality(ledger.reports, asked())


async def test_each_provider_has_its_figures(ledger: Ledger) -> None:
    report = await story(ledger)
    quick, slow = report.providers
    assert (quick.name, quick.sent, quick.duplicates, quick.rejected, quick.qualified) == ("Quick", 4, 1, 1, 2)
    assert (quick.sold, quick.delivered, quick.returned, quick.contacted, quick.won) == (2, 2, 1, 1, 1)
    assert (quick.acceptance, quick.return_rate, quick.conversion) == (round(2 / 3, 4), 0.5, 0.5)
    assert (slow.sent, slow.refused, slow.qualified, slow.acceptance, slow.conversion) == (4, 3, 1, 1.0, None)
    assert (report.total.sent, report.total.refused) == (8, 3)


async def test_what_was_refused_and_rejected_has_its_reasons(ledger: Ledger) -> None:
    report = await story(ledger)
    assert [(each.pointer, each.code, each.requests) for each in report.faults] == [
        ("/contact/phone", "phone_invalid", 2),
        ("/bant", "type_wrong", 1),
    ]
    assert [(each.why, each.leads) for each in report.rejections] == [("score_below", 1)]


async def test_sub_ids_are_told_apart_and_lead_to_their_rows(ledger: Ledger) -> None:
    report = await story(ledger)
    assert {each.key: (each.sent, each.delivered) for each in report.sub_ids} == {
        "ad=7": (2, 2),
        "page=a": (1, 1),
        "ad=8": (1, 0),
    }
    figures = [(each.rows, each.sent) for each in report.sub_ids]
    for rows, leads in [*figures, *((each.rows, each.leads) for each in report.rejections)]:
        filters = read_filters(dict(parse_qsl(rows.partition("?")[2])))
        assert len(await find_ids(ledger.reports, asked(), filters)) == leads


async def test_a_provider_sees_its_own_alone(ledger: Ledger) -> None:
    await story(ledger)
    report = await load_quality(ledger.reports, asked(provider_id=ledger.providers["Quick"]))
    assert [each.name for each in report.providers] == ["Quick"]
    assert (report.total.sent, report.faults) == (4, ())


async def test_refusals_are_counted_by_field_and_nothing_that_callers_make_up(
    ledger: Ledger, database_url: str
) -> None:
    caller = Principal(key_id="k", kind=CallerKind.provider, owner_id=ledger.providers["Slow"], mode="live")
    async with await open_pool(database_url, "marketplace_api", size=2) as pool:
        refusals = Refusals(pool)
        pointers = ("/touches/0/at", "/touches/17/at", "/attribution/sub_ids/made/up")
        faults = [Fault(pointer=pointer, code="out_of_range", detail="") for pointer in pointers]
        for name in range(3):
            unknown = Fault(pointer=f"/contact/x{name}", code="unknown_field", detail="")
            refusals.note(caller, [*faults, unknown], NOON)
            await refusals.flush()
        for number in range(MOST_KEPT + 10):
            refusals.note(caller, [Fault(pointer=f"/f{number}", code="type_wrong", detail="")], clock.now())
        await refusals.flush()
        await refusals.flush()
    rows = await ledger.owner.fetch("select pointer, code, count from refusal_count where hour = $1 order by 1", NOON)
    assert [tuple(row) for row in rows] == [
        ("*", "refused", 3),
        ("/attribution/sub_ids/made", "out_of_range", 3),
        ("/contact/*", "unknown_field", 3),
        ("/touches/*/at", "out_of_range", 3),
    ]
    assert await ledger.owner.fetchval("select count(*) from refusal_count where hour > $1", NOON) <= MOST_KEPT + 1
