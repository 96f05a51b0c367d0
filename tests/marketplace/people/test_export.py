"""Export of all that is held about a person: it leaves out nothing that other providers sent."""

from contextlib import AsyncExitStack

import msgspec

from marketplace.people.flow import export_person
from marketplace.runtime.settings import Settings
from routing.joining import RepeatInquiries
from tests.builders.feedback import desk
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import marketplace, roofing
from tests.builders.portal import signed_in

JOINING = roofing(patience_seconds=3_600, repeat_inquiries=RepeatInquiries.joined)
PERSON = "phone:+13125550101"


async def test_inquiries_of_other_providers_that_joined_a_lead_are_exported_with_it(settings: Settings) -> None:
    bant = roofing_body()["bant"] | {"budget": {"minor": 777_700, "currency": "USD"}}
    async with marketplace(settings, JOINING) as market:
        await market.submit(1)
        by = await market.another_provider()
        for reference in ("again-1", "again-2"):
            await market.submit(1, by=by, provider_reference=reference, bant=bant)
        await market.submit(2)
        export = await export_person(market.api, market.sealer, "test", (PERSON,), "The person asked.")
    [lead] = export.leads
    assert [inquiry.provider_reference for inquiry in lead.joined] == ["again-1", "again-2"]
    assert {inquiry.facts["budget"]["minor"] for inquiry in lead.joined} == {777_700}
    assert {inquiry.provider for inquiry in lead.joined} == {"Example Provider"}


async def test_a_lead_that_none_joined_has_no_other_inquiry_in_its_export(settings: Settings) -> None:
    async with marketplace(settings) as market:
        await market.submit(1)
        assert (await market.submit(1, provider_reference="again")).state == "duplicate"
        export = await export_person(market.api, market.sealer, "test", (PERSON,), "The person asked.")
    assert [lead.joined for lead in export.leads] == [()]


async def test_the_printed_export_names_each_joined_inquiry(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        shop = await desk(stack, settings, vertical=msgspec.structs.replace(JOINING, name="Roofs"))
        await shop.market.submit(1)
        await shop.market.submit(1, by=await shop.market.another_provider(), provider_reference="again-1")
        operator = await signed_in(shop.api, "operator", None)
        form = {"exported": "+1 312 555 0101", "exported_country": "US", "reason": "asked", "printed": "1"}
        reply = await operator.post("/operator/people/export", form)
    assert "Other inquiries of this person" in reply.text
    assert "again-1" in reply.text
