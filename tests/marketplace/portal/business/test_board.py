"""The board: leads in columns by stage, moved and moved back, with reminders and what is stuck."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from importlib.resources import files
from uuid import UUID

import pytest

from marketplace.feedback.stages_store import PipelineStage, StageColour
from marketplace.feedback.store import DispositionKind
from marketplace.portal.business.board import limits_of
from marketplace.portal.business.board_store import UsualStay
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from tests.builders.feedback import Desk, ago, desk, uuid_of
from tests.builders.portal import Browser, signed_in


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings)


@pytest.fixture
async def office(shop: Desk) -> Browser:
    return await signed_in(shop.api, "business", shop.buyer.business_id)


async def stages_of(shop: Desk) -> dict[str, str]:
    """The internal id of each stage by its name, as the forms of the board name it."""
    rows = await shop.market.owner.fetch(
        "select stage, id::text from pipeline_stage where business_id = $1 and retired_at is null",
        shop.buyer.business_id,
    )
    return {row["stage"]: row["id"] for row in rows}


async def usual(shop: Desk) -> dict[str, str]:
    names = ("contacted", "appointment", "quoted", "won", "lost")
    stages = [{"stage": name.capitalize(), "kind": name} for name in names]
    await shop.call("PUT", "/v1/pipeline", {"stages": stages})
    return await stages_of(shop)


def lane_of(page: str, lead: str) -> str:
    """The column of the board in which a lead's card stands."""
    before = page[: page.index(f'data-lead="{lead}"')]
    return before.rpartition('data-stage="')[2].partition('"')[0]


async def board(office: Browser, query: str = "") -> str:
    reply = await office.get(f"/business/board{query}")
    assert reply.status_code == 200, reply.text
    return reply.text


async def test_a_lead_is_moved_by_a_form_and_the_move_is_its_disposition(shop: Desk, office: Browser) -> None:
    lead, stages = await shop.sold(), await usual(shop)
    assert lane_of(await board(office), lead) == "new"
    moved = await office.post(f"/business/leads/{lead}/move", {"stage": stages["Contacted"], "once": "a"})
    again = await office.post(f"/business/leads/{lead}/move", {"stage": stages["Contacted"], "once": "a"})
    assert (moved.status_code, again.status_code) == (303, 303)
    page = await board(office)
    assert (lane_of(page, lead), "Robin" in page) == (stages["Contacted"], True)
    [disposition] = (await shop.shown(lead))["dispositions"]
    assert (disposition["kind"], disposition["source"]) == ("contacted", "portal")


async def test_a_move_asks_for_what_its_stage_needs(shop: Desk, office: Browser) -> None:
    lead, stages = await shop.sold(), await usual(shop)
    move = f"/business/leads/{lead}/move"
    asked = await office.post(move, {"stage": stages["Won"], "once": "a"})
    assert asked.headers["location"] == f"{move}?stage={stages['Won']}"
    empty = await office.post(move, {"stage": stages["Won"], "once": "b", "complete": "1"})
    assert (empty.status_code, "Enter the value of the job" in empty.text) == (422, True)
    await office.post(move, {"stage": stages["Won"], "once": "c", "complete": "1", "value": "8,400"})
    begins = f"{clock.now() + timedelta(days=3):%Y-%m-%dT%H:%M}"
    await office.post(move, {"stage": stages["Appointment"], "once": "d", "complete": "1", "starts_at": begins})
    assert [each["kind"] for each in (await shop.shown(lead))["dispositions"]] == ["won", "appointment"]
    assert "Appointment <time" in await board(office)


async def test_an_undone_move_counts_nowhere_and_its_lead_is_back(shop: Desk, office: Browser) -> None:
    lead, stages = await shop.sold(), await usual(shop)
    move = f"/business/leads/{lead}/move"
    await office.post(move, {"stage": stages["Contacted"], "once": "a"})
    await office.post(move, {"stage": stages["Won"], "once": "b", "complete": "1", "value": "8,400"})
    page = await board(office, f"?moved={lead}")
    disposition = page.partition('name="disposition"')[2].partition('value="')[2].partition('"')[0]
    undone = await office.post(f"/business/leads/{lead}/undo-move", {"disposition": disposition})
    assert undone.status_code == 303
    assert lane_of(await board(office), lead) == stages["Contacted"]
    assert [each["kind"] for each in (await shop.shown(lead))["dispositions"]] == ["contacted"]
    assert await shop.market.value("select won_at is null from exclusive_outcome")
    assert await shop.market.value("select count(*) from disposition where undone_at is not null") == 1
    await office.post(f"/business/leads/{lead}/undo-move", {"disposition": disposition})
    assert [each["kind"] for each in (await shop.shown(lead))["dispositions"]] == ["contacted"]
    assert (await shop.audited()).count("lead.undo_disposition") == 1


async def test_a_report_that_is_not_a_move_or_not_the_last_one_is_not_undone(shop: Desk, office: Browser) -> None:
    lead, stages = await shop.sold(), await usual(shop)
    by_api = (await shop.tell(lead, kind="contacted")).json()["id"]
    await office.post(f"/business/leads/{lead}/undo-move", {"disposition": by_api})
    await office.post(f"/business/leads/{lead}/move", {"stage": stages["Quoted"], "once": "a"})
    moved = (await shop.shown(lead))["dispositions"][1]["id"]
    await shop.tell(lead, kind="contacted")
    await office.post(f"/business/leads/{lead}/undo-move", {"disposition": moved})
    assert await shop.market.value("select count(*) from disposition where undone_at is null") == 3


async def test_leads_of_an_ended_stage_are_where_they_were_sent_or_with_their_kind(shop: Desk, office: Browser) -> None:
    lead = await shop.sold()
    stages = [{"stage": "First call", "kind": "contacted"}, {"stage": "Second call", "kind": "contacted"}]
    await shop.call("PUT", "/v1/pipeline", {"stages": stages})
    await shop.tell(lead, stage="Second call")
    assert lane_of(await board(office), lead) == (await stages_of(shop))["Second call"]
    await shop.call("PUT", "/v1/pipeline", {"stages": stages[:1]})
    assert lane_of(await board(office), lead) == (await stages_of(shop))["First call"]
    await shop.call("PUT", "/v1/pipeline", {"stages": []})
    assert lane_of(await board(office), lead) == "other"


async def test_a_reminder_is_shown_when_it_is_due_put_off_done_and_erased(shop: Desk, office: Browser) -> None:
    lead = await shop.sold()
    path = f"/business/leads/{lead}/next-action"
    past = await office.post(path, {"note": "Call Robin", "due_at": "2020-01-01T10:00"})
    assert (past.status_code, "within two years" in past.text) == (422, True)
    later = f"{clock.now() + timedelta(days=1):%Y-%m-%dT%H:%M}"
    assert (await office.post(path, {"note": "Call Robin", "due_at": later})).status_code == 303
    assert "Reminders due" not in (await office.get("/business")).text
    await shop.market.owner.execute("update next_action set due_at = now() - interval '1 hour'")
    assert "Call Robin" in (await office.get("/business")).text
    assert lead in await board(office, "?show=due")
    await office.post(f"{path}/done", {"snooze": "day", "back": "overview"})
    assert lead not in await board(office, "?show=due")
    await office.post(f"{path}/done", {})
    assert "Call Robin" not in await board(office)
    await office.post(path, {"note": "Call Robin", "due_at": later})
    assert (await shop.call("POST", "/v1/erasures", {"lead_id": lead, "reason": "asked"}, by="operator")).is_success
    assert await shop.market.value("select count(*) from next_action") == 0
    assert (await office.post(path, {"note": "Call Robin", "due_at": later})).status_code == 404
    assert [action for action in await shop.audited() if action.startswith("next_action")] == [
        "next_action.set",
        "next_action.snooze",
        "next_action.done",
        "next_action.set",
    ]


async def test_a_lead_that_waits_too_long_is_stuck_and_found_by_name(
    shop: Desk, office: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = await shop.sold(1), await shop.sold(2)
    await shop.delivered_at(slow, clock.now() - timedelta(days=9))
    await shop.call("PUT", "/v1/pipeline", {"stages": [{"stage": "Called", "kind": "contacted", "limit_days": 5}]})
    await shop.tell(slow, stage="Called", happened_at=ago(days=6))
    await shop.tell(quick, stage="Called")
    page = await board(office, "?show=stuck")
    assert (slow in page, quick in page) == (True, False)
    assert (slow in await board(office, "?q=robin"), slow in await board(office, "?q=nobody")) == (True, False)
    assert "The search looks through" not in await board(office, "?q=robin")
    monkeypatch.setattr("marketplace.portal.business.board.SEARCHED", 1)
    assert "The search looks through the newest 1 leads of each column" in await board(office, "?q=robin")


async def test_a_column_has_pages_and_counts_all_its_leads(
    shop: Desk, office: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketplace.portal.business.board.COLUMN_CARDS", 2)
    monkeypatch.setattr("marketplace.portal.business.board.CARDS", 1)
    leads = [await shop.sold(number) for number in range(1, 4)]
    first = await board(office)
    assert ("All 3" in first, leads[2] in first, leads[0] in first) == (True, True, False)
    page = await board(office, "?column=new")
    assert (leads[1] in page, leads[0] in page) == (True, False)
    following = page.partition('rel="next" href="/business/board')[2].partition('"')[0].replace("&amp;", "&")
    assert leads[0] in await board(office, following)


async def test_stages_are_renamed_ordered_and_merged_on_their_page(shop: Desk, office: Browser) -> None:
    lead, stages = await shop.sold(), await usual(shop)
    await shop.tell(lead, stage="Quoted")
    page = "/business/board/stages"

    def path(stage: str) -> str:
        return f"{page}/{ids.encode('stg', UUID(stages[stage]))}"

    renamed = await office.post(
        path("Quoted"), {"stage": "Offer", "kind": "quoted", "limit_days": "7", "colour": "teal"}
    )
    assert renamed.status_code == 303, renamed.text
    assert (await office.post(path("Won"), {"stage": "Offer", "kind": "won"})).status_code == 409
    assert (await office.post(page, {"stage": "OFFER", "kind": "won"})).status_code == 409
    await office.post(page, {"stage": "Site visit", "kind": "qualified"})
    await office.post(f"{path('Lost')}/act", {"act": "up"})
    rows = (await shop.call("GET", "/v1/pipeline")).json()["stages"]
    assert [row["stage"] for row in rows] == ["Contacted", "Appointment", "Offer", "Lost", "Won", "Site visit"]
    assert (rows[2]["limit_days"], rows[2]["colour"], rows[2]["names"]) == (7, "teal", ["offer", "quoted"])
    page_of_board = await board(office)
    assert ("hue-teal" in page_of_board, "hue-grey" in page_of_board) == (True, True)
    successor = ids.encode("stg", UUID(stages["Contacted"]))
    await office.post(f"{path('Quoted')}/act", {"act": "remove", "successor": successor})
    assert lane_of(await board(office), lead) == stages["Contacted"]
    assert (await shop.tell(lead, stage="Offer")).json()["kind"] == "contacted"


async def test_a_name_without_a_stage_is_mapped_with_one_tap(shop: Desk, office: Browser) -> None:
    lead, stages = await shop.sold(), await usual(shop)
    await shop.tell(lead, stage="Rückruf", event_id="crm-1")
    assert "Rückruf" in (await office.get("/business/board/stages")).text
    contacted = ids.encode("stg", UUID(stages["Contacted"]))
    mapped = await office.post("/business/board/stages/names", {"name": "Rückruf", "stage": contacted})
    assert mapped.status_code == 303, mapped.text
    assert lane_of(await board(office), lead) == stages["Contacted"]
    taken = ids.encode("stg", UUID(stages["Won"]))
    again = await office.post("/business/board/stages/names", {"name": "rückruf", "stage": taken})
    assert again.status_code == 409


async def test_another_business_neither_sees_nor_moves_a_lead(shop: Desk) -> None:
    lead, stages = await shop.sold(), await usual(shop)
    other = await shop.market.owner.fetchval("select id from business where id <> $1 limit 1", shop.buyer.business_id)
    stranger = await signed_in(shop.api, "business", other)
    assert lead not in await board(stranger)
    later = f"{clock.now() + timedelta(days=1):%Y-%m-%dT%H:%M}"
    for path, fields in (
        ("move", {"stage": stages["Contacted"]}),
        ("next-action", {"note": "x", "due_at": later}),
        ("next-action/done", {}),
    ):
        assert (await stranger.post(f"/business/leads/{lead}/{path}", fields)).status_code == 404
    assert await shop.market.value("select count(*) from disposition") == 0
    assert uuid_of(lead)


def test_a_stage_is_stuck_by_its_own_limit_else_by_the_usual_stay_and_ends_never_are() -> None:
    def stage(number: int, kind: str, limit_days: int | None = None) -> PipelineStage:
        return PipelineStage(id=UUID(int=number), stage="x", kind=DispositionKind(kind), limit_days=limit_days)

    stages = [stage(1, "contacted", 2), stage(2, "quoted"), stage(3, "won"), stage(4, "contacted")]
    stays = [UsualStay(stage_id=UUID(int=number), p75_seconds=60.0) for number in (1, 2, 3)]
    assert limits_of(stages, stays, 10.0) == {"new": 10.0, str(UUID(int=1)): 172_800.0, str(UUID(int=2)): 60.0}


def test_each_colour_of_a_stage_has_contrast_with_the_page_in_light_and_dark() -> None:
    css = (files("marketplace.portal") / "assets" / "portal.css").read_text()
    values = dict(re.findall(r"--([a-z-]+): (light-dark\([^)]+\))", css))
    hues = dict(re.findall(r"\.hue-([a-z]+) { --hue: (light-dark\([^)]+\)|var\(--[a-z-]+\)) }", css))
    assert set(hues) == set(StageColour)
    for name, text in hues.items():
        reference = re.fullmatch(r"var\(--([a-z-]+)\)", text)
        shades = shades_of(values[reference[1]] if reference else text)
        for around in ("page", "sunk"):
            for shade, background in zip(shades, shades_of(values[around]), strict=True):
                assert contrast(shade, background) >= 3, (name, around)  # WCAG 2.2, 1.4.11


def shades_of(text: str) -> list[str]:
    """Return the colours in light and in dark mode as six digits."""
    return [
        digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
        for digits in re.findall("#([0-9a-f]+)", text)
    ]


def contrast(front: str, back: str) -> float:
    """Return the contrast ratio of two colours by WCAG 2.2."""
    light, dark = sorted((luminance(front), luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(digits: str) -> float:
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
