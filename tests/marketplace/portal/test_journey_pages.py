"""The journey of a person on the pages of a lead: for its provider, its business and the operator."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from html import unescape

import msgspec
import pytest

from marketplace.distribution.policy_dry_run import try_policy
from marketplace.portal.journey_words import journey_events
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from routing.inquiry import Budget, Direction, Timing, Touch, TouchAmount
from routing.interest import InterestCriterion
from routing.joining import PayJoined, RepeatInquiries
from routing.journey import CorrectionEntry, Supplied, TouchEntry
from tests.builders.feedback import Desk, desk
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import roofing
from tests.builders.portal import Browser, signed_in

AT = datetime(2026, 12, 1, 10, 0, tzinfo=UTC)
CALL = InterestCriterion(name="answered", label="Answered a call", kinds=("call",), minimum_seconds=60, points=5)


@pytest.fixture
async def office(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings, vertical=roofing(interest=(CALL,)))


async def text_of(browser: Browser, path: str) -> str:
    """Return the text of a page without its tags."""
    reply = await browser.get(path)
    assert reply.status_code == 200, reply.text
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", reply.text)))


async def test_a_touch_and_a_correction_are_shown_to_everybody_who_has_a_part_in_the_lead(office: Desk) -> None:
    lead = await office.sold(1)
    key = await office.api.key("provider", office.market.provider.owner)
    call = {"kind": "call", "at": clock.now(), "seconds": 90, "direction": "inbound"}
    sent = {"touches": [call | {"supplies": {"budget": {"minor": 2_500_000, "currency": "USD"}}}]}
    assert (await office.api.call("POST", f"/v1/inquiries/{lead}/touches", sent, key=key)).status_code == 201
    provider = await signed_in(office.api, "provider", office.market.provider.owner)
    reply = await provider.post(f"/provider/submissions/{lead}/correct", {"within_days": "5", "street": "2 New Street"})
    assert (reply.status_code, reply.headers["location"]) == (303, f"/provider/submissions/{lead}")
    business_id = await office.market.value(
        "select business_id from exposure where lead_id = $1", ids.decode("lead", lead)
    )
    pages = (
        (provider, f"/provider/submissions/{lead}"),
        (await signed_in(office.api, "operator"), f"/operator/routing/{lead}"),
        (await signed_in(office.api, "business", business_id), f"/business/leads/{lead}"),
    )
    for browser, path in pages:
        text = await text_of(browser, path)
        assert "begun by the person, 90 seconds" in text, path
        assert "Timing: within 5 days. Changed: street" in text, path
        assert ("2 New Street" in text) == path.startswith("/business"), path


async def test_a_correction_with_a_fault_is_shown_again_with_what_was_typed(office: Desk) -> None:
    lead = await office.sold(1)
    provider = await signed_in(office.api, "provider", office.market.provider.owner)
    reply = await provider.post(f"/provider/submissions/{lead}/correct", {"phone": "nobody", "budget": "9000"})
    assert reply.status_code == 422
    assert "Send a phone number that exists" in reply.text
    assert 'value="9000"' in reply.text
    assert await office.market.value("select count(*) from correction") == 0


async def test_the_verdict_shows_interest_with_the_touches_that_met_it(office: Desk) -> None:
    call = {"kind": "call", "at": clock.now(), "seconds": 75}
    lead = await office.sold(1, touches=[call])
    text = await text_of(await signed_in(office.api, "operator"), f"/operator/routing/{lead}")
    assert "Answered a call Call" in text
    business = await signed_in(office.api, "business", await office.market.value("select business_id from exposure"))
    assert "Meets Answered a call. Required: call, at least 60 seconds. 5 points." in await text_of(
        business, f"/business/leads/{lead}"
    )
    rules = await text_of(await signed_in(office.api, "operator"), "/operator/verticals/roofing")
    assert "Answered a call call, at least 60 seconds 5 Only its points count stays unknown" in rules
    assert "call, at least 60 seconds meets 5" in text.replace("Meets", "meets"), text[-900:]


async def test_a_dry_run_judges_a_lead_by_what_is_known_of_it_since(office: Desk) -> None:
    lead = await office.sold(1, bant={"need": {"fields": {"roof_type": "tile"}}})
    key = await office.api.key("provider", office.market.provider.owner)
    call = {"kind": "call", "at": clock.now(), "seconds": 90}
    await office.api.call("POST", f"/v1/inquiries/{lead}/touches", {"touches": [call]}, key=key)
    vertical = (await Catalog(office.market.api).current()).verticals[office.market.vertical_id]
    points = msgspec.structs.replace(CALL, points=40)
    draft = msgspec.structs.replace(vertical.definition, interest=(points,))
    dry_run = await try_policy(office.market.api, vertical, draft, clock.now())
    assert [(turn.before, turn.after) for turn in dry_run.turns] == [("rejected: score_below_minimum", "qualified")], (
        dry_run
    )


@pytest.mark.parametrize(
    ("entry", "title", "text"),
    [
        (
            TouchEntry(revision=1, touch=Touch(kind="page_view", at=AT, detail="/pricing")),
            "Page view",
            "/pricing",
        ),
        (
            TouchEntry(
                revision=1,
                touch=Touch(kind="call", at=AT, detail="", direction=Direction.outbound, seconds=0),
                supplies=Supplied(timing=Timing(within_days=3), need_fields={"owns_home": True}),
            ),
            "Call",
            "begun by the provider, not answered. Timing: within 3 days. Owns home: yes",
        ),
        (
            TouchEntry(
                revision=1,
                touch=Touch(kind="purchase", at=AT, detail="", amount=TouchAmount(minor=5_000, currency="USD")),
            ),
            "Purchase",
            "USD 50",
        ),
        (
            CorrectionEntry(
                revision=1,
                at=AT,
                supplies=Supplied(budget=Budget(minor=100, maximum_minor=200, currency="USD")),
                clears=("timing", "need.roof_type"),
                contact=("phone",),
            ),
            "Corrected by the provider",
            "Budget: USD 1 to USD 2. Removed: timing, roof type. Changed: phone number",
        ),
    ],
)
def test_an_entry_is_told_in_words(entry: TouchEntry | CorrectionEntry, title: str, text: str) -> None:
    (event,) = journey_events((entry,))
    assert (event.at, event.title, event.text) == (AT, title, text)


async def test_a_joined_inquiry_is_shown_to_the_business_and_to_its_own_provider_and_not_to_that_of_the_lead(
    settings: Settings,
) -> None:
    definition = roofing(repeat_inquiries=RepeatInquiries.joined, provider_may_know=True)
    async with AsyncExitStack() as stack:
        shop = await desk(stack, settings, vertical=definition)
        lead, another = await shop.sold(1), await shop.market.another_provider()
        bant = roofing_body()["bant"] | {"budget": {"minor": 2_500_000, "currency": "USD"}}
        receipt = await shop.market.submit(1, by=another, provider_reference="again", bant=bant)
        own, of_lead = [await signed_in(shop.api, "provider", each.owner) for each in (another, shop.market.provider)]
        business = await signed_in(shop.api, "business", shop.buyer.business_id)
        told = await text_of(own, f"/provider/submissions/{ids.encode('lead', receipt.id)}")
        assert "The answers were added to the earlier lead." in told
        assert "25,000" in await text_of(business, f"/business/leads/{lead}")
        assert "25,000" not in await text_of(of_lead, f"/provider/submissions/{lead}")


async def test_a_provider_whose_inquiry_joined_in_time_sees_its_share_and_an_operator_all_of_them(
    settings: Settings,
) -> None:
    definition = roofing(
        patience_seconds=3_600,
        repeat_inquiries=RepeatInquiries.joined,
        provider_may_know=True,
        pay_joined=PayJoined.split,
    )
    async with AsyncExitStack() as stack:
        shop = await desk(stack, settings, vertical=definition)
        another = await shop.market.another_provider()
        first = await shop.market.submit(1, provider_reference="of-the-lead")
        receipt = await shop.market.submit(1, by=another, provider_reference="of-the-join")
        own = await signed_in(shop.api, "provider", another.owner)
        submission = f"/provider/submissions/{ids.encode('lead', receipt.id)}"
        assert "If the lead is sold, you get an equal part of its payout." in await text_of(own, submission)
        await shop.market.walker.walk(first.id)
        assert "$15.00" in await text_of(own, submission)
        for page in ("/provider/earnings", "/provider/earnings/statement"):
            text = await text_of(own, page)
            assert ("$15.00" in text, "of-the-join" in text, "of-the-lead" in text) == (True, True, False)
        request = await shop.give_back(ids.encode("lead", first.id), reason="fraud", note="Nobody knows this person.")
        operator = await signed_in(shop.api, "operator", None)
        text = await text_of(operator, f"/operator/returns/{request.json()['id']}")
        assert text.count("gives back $15.00") == 2
