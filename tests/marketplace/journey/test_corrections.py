"""Corrections of an inquiry: what they change before a business has the lead, and afterwards."""

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec
import pytest

from marketplace.database.migrate import migrations_directory
from marketplace.directory import flow as directory_flow
from marketplace.erasure.flow import erase_lead
from marketplace.intake.flow import Intake
from marketplace.intake.postal import PostalBook
from marketplace.journey.flow import Journey, SentCorrection
from marketplace.journey.shapes import CorrectionBody
from marketplace.operations.verify import verify
from marketplace.rules.catalog import Catalog
from marketplace.runtime.errors import Conflict, IdempotencyKeyReused, InvalidInput, NotFound
from marketplace.runtime.queue import Notifier
from marketplace.runtime.settings import Settings
from routing.person import SamePerson
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import NOWHERE, Marketplace, anywhere, marketplace, roofing
from tests.builders.subscriptions import a_cap
from tests.receivers import Receiver, status

POOR = {"bant": {"budget": {"minor": 100, "currency": "USD"}}}
RICH = {"bant": {"budget": {"minor": 900_000, "currency": "USD"}}}


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings, roofing(patience_seconds=3_600)) as ready:
        yield ready


async def correct(
    market: Marketplace, lead_id: UUID, body: dict[str, Any], *, key: str | None = None, by: Any = None
) -> int:
    journey = Journey(market.api, Catalog(market.api), PostalBook(), market.sealer, Notifier(NOWHERE))
    digest = sha256(msgspec.json.encode(body)).digest()
    sent = SentCorrection(body=msgspec.convert(body, CorrectionBody), request_sha256=digest, key=key)
    return await journey.correct(by or market.provider, lead_id, sent)


async def decisions(market: Marketplace, lead_id: UUID) -> list[tuple[str, int]]:
    rows = await market.owner.fetch(
        "select outcome, revision from decision where lead_id = $1 order by made_at", lead_id
    )
    return [(row["outcome"], row["revision"]) for row in rows]


async def test_a_waiting_lead_is_qualified_again_by_a_correction(market: Marketplace) -> None:
    await market.buyer("http://127.0.0.1:1/hook")
    await market.owner.execute("update endpoint set breaker_open_until = clock_timestamp() + interval '9 min'")
    await market.owner.execute("update subscription set name = name || '.'")
    lead_id = await market.sold()
    assert await market.state(lead_id) == "prospect"
    assert await correct(market, lead_id, POOR) == 1
    assert await market.state(lead_id) == "received"
    await market.walker.walk(lead_id)
    assert await decisions(market, lead_id) == [("waiting", 0), ("rejected", 1)]
    assert await correct(market, lead_id, {"bant": {"budget": {"minor": 900_000, "currency": "USD"}}}) == 2
    await market.walker.walk(lead_id)
    assert (await decisions(market, lead_id))[-1] == ("waiting", 2)


async def test_null_removes_an_answer_and_the_history_is_kept(market: Marketplace) -> None:
    lead_id = await market.sold()
    await correct(market, lead_id, {"bant": {"timing": None}, "contact": {"role": "owner"}})
    row = await market.row("select supplies, clears, contact, made_by from correction where lead_id = $1", lead_id)
    assert (row["clears"], row["contact"], row["made_by"]) == (["timing"], [], "test")
    assert msgspec.json.decode(row["supplies"]) == {"role": "owner"}


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"bant": {"budget": {"minor": 1, "currency": "EUR"}}}, "/bant/budget/currency", "currency_not_accepted"),
        ({"bant": {"need": {"fields": {"roof_type": None}}}}, "/bant/need/fields/roof_type", "need_field_missing"),
        ({"bant": {"need": {"fields": {"colour": "red"}}}}, "/bant/need/fields/colour", "need_field_unknown"),
        ({"contact": {"phone": "none"}}, "/contact/phone", "phone_invalid"),
        ({"contact": {"email": "nobody"}}, "/contact/email", "email_invalid"),
        ({"contact": {"full_name": " "}}, "/contact/full_name", "name_empty"),
    ],
)
async def test_a_faulty_correction_is_refused_with_its_place(
    market: Marketplace, body: dict[str, Any], pointer: str, code: str
) -> None:
    lead_id = (await market.submit()).id
    with pytest.raises(InvalidInput) as refused:
        await correct(market, lead_id, body)
    assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [(pointer, code)]


async def test_a_corrected_postal_code_moves_the_lead_to_its_area(market: Marketplace) -> None:
    lead_id = (await market.submit()).id
    await correct(market, lead_id, {"contact": {"postal_code": "10001-1234"}})
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        await market.walker.walk(lead_id)
        sent = msgspec.json.decode(receiver.visits[-1].body)["data"]
    assert sent["contact"]["postal_code"] == "10001-1234"
    assert sent["place"]["postal_code"] == "10001"
    assert sent["place"]["region"] == "NY"


async def test_a_postal_code_that_the_vertical_requires_is_neither_wrong_nor_removed(settings: Settings) -> None:
    async with marketplace(settings, roofing(requires_postal_code=True)) as market:
        lead_id = (await market.submit()).id
        for code, reason in ((None, "field_missing"), ("00000", "postal_code_unknown")):
            with pytest.raises(InvalidInput) as refused:
                await correct(market, lead_id, {"contact": {"postal_code": code}})
            assert [fault.code for fault in refused.value.faults] == [reason]


async def test_an_upgrade_gives_reports_the_budget_that_the_journey_left(market: Marketplace) -> None:
    """The rows that the service writes are those that the migration makes of earlier journeys."""
    journeys: tuple[list[dict[str, Any]], ...] = (
        [POOR],
        [RICH, {"bant": {"budget": None}}],
        [POOR, RICH],
        [{"contact": {"role": "owner"}}],
    )
    for number, bodies in enumerate(journeys, start=1):
        lead_id = (await market.submit(number)).id
        for body in bodies:
            await correct(market, lead_id, body)
    reading = "select lead_id, place, budget_minor from revised_facts order by lead_id"
    written = [tuple(row) for row in await market.owner.fetch(reading)]
    assert len({row[2] for row in written}) == len(journeys)
    await market.owner.execute("delete from revised_facts")
    migration = (migrations_directory() / "0076_corrected_area.sql").read_text()
    start = migration.index("insert into revised_facts")
    await market.owner.execute(migration[start : migration.index(";", start)])
    assert [tuple(row) for row in await market.owner.fetch(reading)] == written


async def test_an_empty_correction_writes_nothing(market: Marketplace) -> None:
    lead_id = (await market.submit()).id
    assert await correct(market, lead_id, {}) == 0
    assert await market.value("select count(*) from correction") == 0


async def test_the_same_call_under_the_same_key_corrects_once(market: Marketplace) -> None:
    lead_id = (await market.submit()).id
    assert [await correct(market, lead_id, POOR, key="k") for _ in range(2)] == [1, 1]
    with pytest.raises(IdempotencyKeyReused):
        await correct(market, lead_id, {"bant": {"timing": None}}, key="k")


async def test_another_providers_inquiry_is_not_there(market: Marketplace) -> None:
    lead_id = (await market.submit()).id
    with pytest.raises(NotFound):
        await correct(market, lead_id, POOR, by=await market.another_provider())


async def test_the_business_gets_the_corrected_contact_and_nothing_else_changed(market: Marketplace) -> None:
    lead_id = (await market.submit()).id
    contact = {"phone": "+1 312 555 0177", "email": "corrected@example.com", "street": None}
    await correct(market, lead_id, {"contact": contact})
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        await market.walker.walk(lead_id)
        sent = msgspec.json.decode(receiver.visits[-1].body)["data"]["contact"]
    original = roofing_body()["contact"]
    assert (sent["phone"], sent["email"], sent["street"]) == ("+13125550177", "corrected@example.com", None)
    assert sent["full_name"] == original["full_name"]
    assert sent["consent"]["text"] == roofing_body()["consent"]["text"]


async def test_the_person_is_found_by_the_corrected_number_and_by_the_earlier_one(market: Marketplace) -> None:
    lead_id = (await market.submit(1)).id
    await correct(market, lead_id, {"contact": {"phone": roofing_body(2)["contact"]["phone"]}})
    assert (await market.submit(1, provider_reference="same")).state == "duplicate"
    contact = roofing_body(2)["contact"]
    assert (await market.submit(2, contact=contact)).state == "duplicate"


async def test_a_number_that_another_lead_has_is_a_conflict_and_changes_nothing(market: Marketplace) -> None:
    other, lead_id = (await market.submit(1)).id, (await market.submit(2)).id
    with pytest.raises(Conflict, match="Another inquiry has this phone number"):
        await correct(market, lead_id, {"contact": {"phone": roofing_body(1)["contact"]["phone"]}})
    assert await market.value("select revision from lead where id = $1", lead_id) == 0
    assert await market.value("select count(*) from correction") == 0
    assert await market.state(other) == "received"


OWN_PHONE, NEW_PHONE, THIRD_PHONE = "+1 312 555 0101", "+1 312 555 0177", "+1 312 555 0188"
OWN_EMAIL, NEW_EMAIL, THIRD_EMAIL = "robin.1@example.com", "corrected@example.com", "third@example.com"
WITH_EXTENSION = {"phone": f"{NEW_PHONE} ext. 7"}


@pytest.mark.parametrize(
    ("setting", "corrected", "phone", "email", "state"),
    [
        ("either", {"phone": NEW_PHONE}, NEW_PHONE, THIRD_EMAIL, "duplicate"),
        ("either", {"email": NEW_EMAIL}, THIRD_PHONE, NEW_EMAIL, "duplicate"),
        ("both", {"phone": NEW_PHONE}, NEW_PHONE, OWN_EMAIL, "duplicate"),
        ("both", {"phone": NEW_PHONE}, OWN_PHONE, OWN_EMAIL, "duplicate"),
        ("both", {"phone": NEW_PHONE}, NEW_PHONE, THIRD_EMAIL, "received"),
        ("both", {"email": NEW_EMAIL}, OWN_PHONE, NEW_EMAIL, "duplicate"),
        ("both", {"email": NEW_EMAIL}, THIRD_PHONE, NEW_EMAIL, "received"),
        ("both", {"phone": NEW_PHONE, "email": NEW_EMAIL}, NEW_PHONE, NEW_EMAIL, "duplicate"),
        ("both", {"phone": NEW_PHONE, "email": NEW_EMAIL}, NEW_PHONE, THIRD_EMAIL, "received"),
        ("phone", {"phone": NEW_PHONE}, NEW_PHONE, THIRD_EMAIL, "duplicate"),
        ("phone", {"email": NEW_EMAIL}, THIRD_PHONE, NEW_EMAIL, "received"),
        ("phone", WITH_EXTENSION, f"{NEW_PHONE} ext. 7", THIRD_EMAIL, "duplicate"),
        ("phone", WITH_EXTENSION, f"{NEW_PHONE} ext. 8", THIRD_EMAIL, "received"),
        ("phone", WITH_EXTENSION, NEW_PHONE, THIRD_EMAIL, "duplicate"),
    ],
)
async def test_after_a_correction_the_setting_says_who_is_the_same_person(
    settings: Settings, setting: str, corrected: dict[str, str], phone: str, email: str, state: str
) -> None:
    async with marketplace(settings, roofing(same_person=SamePerson(setting))) as market:
        lead_id = (await market.submit(1)).id
        await correct(market, lead_id, {"contact": corrected})
        contact = roofing_body(1)["contact"] | {"phone": phone, "email": email}
        assert (await market.submit(1, provider_reference="another", contact=contact)).state == state


@pytest.mark.parametrize("before", SamePerson)
@pytest.mark.parametrize("after", SamePerson)
async def test_a_corrected_person_is_not_taken_again_after_a_change_of_the_setting(
    settings: Settings, before: SamePerson, after: SamePerson
) -> None:
    async with marketplace(settings, roofing(same_person=before)) as market:
        lead_id = (await market.submit(1)).id
        await correct(market, lead_id, {"contact": {"phone": NEW_PHONE}})
        await directory_flow.revise_vertical(market.api, "test", "roofing", 1, roofing(same_person=after))
        market.intake = Intake(market.api, Catalog(market.api), PostalBook(), market.sealer, Notifier(NOWHERE))
        contact = roofing_body(1)["contact"] | {"phone": NEW_PHONE}
        assert (await market.submit(1, provider_reference="another", contact=contact)).state == "duplicate"


async def test_a_number_may_be_corrected_to_that_of_a_family_where_two_marks_make_a_person(settings: Settings) -> None:
    async with marketplace(settings, roofing(same_person=SamePerson.both)) as market:
        await market.submit(1)
        other = (await market.submit(2)).id
        assert await correct(market, other, {"contact": {"phone": OWN_PHONE}}) == 1
        with pytest.raises(Conflict, match="Another inquiry has this phone number"):
            await correct(market, other, {"contact": {"email": OWN_EMAIL}})


@pytest.mark.parametrize(("missing", "new"), [("email", {"phone": NEW_PHONE}), ("phone", {"email": NEW_EMAIL})])
async def test_a_contact_that_lacks_a_mark_is_found_by_the_corrected_one_alone(
    settings: Settings, missing: str, new: dict[str, str]
) -> None:
    definition = roofing(same_person=SamePerson.both, requires_phone=False, requires_email=False)
    async with marketplace(settings, definition) as market:
        contact = {name: value for name, value in roofing_body(1)["contact"].items() if name != missing}
        lead_id = (await market.submit(1, contact=contact)).id
        await correct(market, lead_id, {"contact": new})
        other = {"phone": THIRD_PHONE, "email": THIRD_EMAIL} | new
        same = roofing_body(1)["contact"] | other
        assert (await market.submit(1, provider_reference="another", contact=same)).state == "duplicate"


async def test_the_contact_of_an_erased_person_is_gone_with_its_corrections(market: Marketplace) -> None:
    lead_id = (await market.submit()).id
    await correct(market, lead_id, {"contact": {"street": "2 Example Street"}})
    await erase_lead(market.api, market.provider, lead_id, "asked", also_suppress=False)
    row = await market.row("select sealed, wrapped, contact from correction where lead_id = $1", lead_id)
    assert (row["sealed"], row["wrapped"], row["contact"]) == (None, None, ["street"])
    with pytest.raises(Conflict, match="erased"):
        await correct(market, lead_id, {"contact": {"street": "3 Example Street"}})


async def test_a_lead_that_is_held_is_taken_back_and_decided_about_again_by_a_correction(market: Marketplace) -> None:
    """The price is available again and the cap has room; the same business gets the corrected lead."""
    async with Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url, anywhere(caps=(a_cap("day", 1),)))
        lead_id = (await market.submit()).id
        assignment_id = await market.distribution.distribute(lead_id)
        assert assignment_id is not None
        assert await market.state(lead_id) == "held"
        assert await correct(market, lead_id, {"contact": {"street": "2 Example Street"}}) == 1
        assert await market.state(lead_id) == "received"
        row = await market.row("select state, reason from assignment where id = $1", assignment_id)
        assert (row["state"], row["reason"]) == ("released", "corrected")
        assert await market.value("select held_minor from wallet where business_id = $1", buyer.business_id) == 0
        assert await market.delivery.deliver(assignment_id) == "nothing_to_do"
        await market.walker.walk(lead_id)
        assert await market.state(lead_id) == "delivered"
        [visit] = receiver.visits
    assert msgspec.json.decode(visit.body)["data"]["contact"]["street"] == "2 Example Street"
    assert await market.value("select count(*) from notice") == 0
    assert await decisions(market, lead_id) == [("held", 0), ("held", 1)]


async def test_a_held_lead_that_no_longer_qualifies_goes_to_nobody(market: Marketplace) -> None:
    await market.buyer(None)
    lead_id = (await market.submit()).id
    await market.distribution.distribute(lead_id)
    await correct(market, lead_id, POOR)
    await market.walker.walk(lead_id)
    assert await market.state(lead_id) == "rejected"
    async with market.owner.acquire() as connection:
        report = await verify(connection)
    assert [check for check in report.checks if check.findings] == []


async def test_a_held_lead_stays_with_its_business_if_the_correction_is_refused(market: Marketplace) -> None:
    await market.buyer(None)
    await market.submit(2)
    lead_id = (await market.submit(1)).id
    await market.distribution.distribute(lead_id)
    with pytest.raises(Conflict, match="Another inquiry has this phone number"):
        await correct(market, lead_id, {"contact": {"phone": roofing_body(2)["contact"]["phone"]}})
    assert await market.state(lead_id) == "held"
    assert await market.value("select count(*) from transfer where kind = 'release'") == 0


async def test_a_delivered_lead_keeps_its_business_and_sends_it_what_was_corrected(market: Marketplace) -> None:
    async with Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        lead_id = await market.sold()
        assert await correct(market, lead_id, POOR | {"contact": {"street": "2 Example Street"}}) == 1
        notice_id = await market.value("select id from notice where lead_id = $1 and kind = 'updated'", lead_id)
        assert await market.notices.send(notice_id) == "acknowledged"
        sent = msgspec.json.decode(receiver.visits[-1].body)
    assert sent["type"] == "lead.updated"
    assert [change["name"] for change in sent["data"]["changes"]] == ["budget"]
    assert sent["data"]["changes"][0]["after"]["minor"] == 100
    assert sent["data"]["contact"]["street"] == "2 Example Street"
    assert await market.state(lead_id) == "delivered"
    facts = await market.value(
        "select facts_at(i.id, i.facts, l.revision) from lead l join inquiry i on i.id = l.id where l.id = $1", lead_id
    )
    assert msgspec.json.decode(facts)["journey"][0]["supplies"]["budget"]["minor"] == 100
