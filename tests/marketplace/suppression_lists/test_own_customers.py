"""A business's own customers: not sold to it, checked at the match and at the award, and known to nobody else."""

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from uuid import UUID

import pytest

from marketplace.distribution import http as distribution_http
from marketplace.distribution import store as distribution_store
from marketplace.runtime import errors, failpoints
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists.flow import ImportOptions
from marketplace.suppression_lists.store import ContactList, ListKind, ListTerms
from routing.lifecycle import LeadState
from routing.matching import Rule
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace, roofing

BY = "test"


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings) as made:
        yield made


async def fill(market: Marketplace, contact_list: ContactList, *numbers: int) -> None:
    text = "".join(f"+1312555{number:04}\n" for number in numbers)
    options = ImportOptions(accepts_smaller=True)
    await lists_flow.import_stream(market.api, market.sealer, BY, contact_list, BytesIO(text.encode()), "x", options)


async def customers(market: Marketplace, buyer: Buyer, *numbers: int) -> ContactList:
    new = await lists_flow.make_list(
        market.api, BY, ListKind.own_customers, buyer.business_id, "Customers", ListTerms()
    )
    await fill(market, new, *numbers)
    return new


async def holder(market: Marketplace, lead_id: UUID) -> UUID | None:
    found: UUID | None = await market.value("select business_id from assignment where lead_id = $1", lead_id)
    return found


async def test_a_lead_is_not_sold_to_the_business_that_has_the_person_as_a_customer(market: Marketplace) -> None:
    favourite = await market.buyer(None, anywhere(price_minor=9_000))
    other = await market.buyer(None, anywhere(price_minor=5_000))
    await customers(market, favourite, 101)
    lead_id, next_id = await market.sold(1), await market.sold(2)
    assert await holder(market, lead_id) == other.business_id
    assert await holder(market, next_id) is not None
    assert await market.row("select business_id, lead_id from kept_away") == {
        "business_id": favourite.business_id,
        "lead_id": lead_id,
    }


async def test_a_lead_that_nobody_else_takes_says_nothing_of_the_list_to_its_provider(market: Marketplace) -> None:
    buyer = await market.buyer(None)
    await customers(market, buyer, 101)
    lead_id = await market.sold(1)
    assert await market.row("select state, reason from lead") == {"state": "unsold", "reason": "no_subscription"}
    async with market.api.acquire() as connection:
        trace = await distribution_http.load_trace(connection, market.provider, lead_id)
        assert [decision.candidates for decision in trace.decisions] == [()]
        business = Principal(key_id="b", kind=CallerKind.business, owner_id=buyer.business_id, mode="live")
        with pytest.raises(errors.NotFound):
            await distribution_http.load_trace(connection, business, lead_id)
        operator = Principal(key_id="o", kind=CallerKind.operator, owner_id=None, mode="live")
        trace = await distribution_http.load_trace(connection, operator, lead_id)
    assert trace.decisions[0].candidates[0].failures[0].rule is Rule.own_customer


async def test_a_list_that_is_published_between_the_match_and_the_award_is_found(
    market: Marketplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer = await market.buyer(None)
    receipt = await market.submit(1)

    async def publish(place: str) -> None:
        if place == "before_award":
            await customers(market, buyer, 101)

    monkeypatch.setattr(failpoints, "reach", publish)
    assert await market.distribution.distribute(receipt.id) is None
    assert await market.state(receipt.id) == LeadState.prospect
    assert not await market.value("select count(*) from assignment")
    async with market.api.acquire() as connection:
        (decision,) = await distribution_store.list_decisions(connection, receipt.id)
    (candidate,) = distribution_store.read_candidates(decision.candidates)
    assert [failure.rule for failure in candidate.failures] == [Rule.own_customer]
    assert decision.reason == "no_subscription"


@pytest.mark.parametrize("trial", range(4))
async def test_a_list_races_an_award_and_one_of_them_is_first(market: Marketplace, trial: int) -> None:
    """An award that is committed rests on the lists of before, and says so."""
    buyer = await market.buyer(None)
    receipt = await market.submit(1)

    async def publish() -> None:
        await asyncio.sleep(0.004 * trial)
        await customers(market, buyer, 101)

    await asyncio.gather(publish(), market.distribution.distribute(receipt.id))
    await market.distribution.distribute(receipt.id)
    serials = [row["lists_serial"] for row in await market.owner.fetch("select lists_serial from assignment")]
    assert serials in ([], [0])
    assert await market.state(receipt.id) == (LeadState.held if serials else LeadState.unsold)


async def test_a_sold_lead_stays_sold_when_its_person_is_added_later(market: Marketplace) -> None:
    buyer = await market.buyer(None)
    lead_id = await market.sold(1)
    await customers(market, buyer, 101)
    assert await market.state(lead_id) in (LeadState.held, LeadState.exposed, LeadState.delivered)
    assert await holder(market, lead_id) == buyer.business_id


@pytest.mark.parametrize(("patience", "state"), [(3_600, LeadState.prospect), (0, LeadState.unsold)])
async def test_an_outdated_list_that_stops_sales_lets_leads_wait_for_the_patience_of_their_vertical(
    settings: Settings, patience: int, state: LeadState
) -> None:
    async with marketplace(settings, roofing(patience_seconds=patience)) as market:
        await market.buyer(None)
        terms = ListTerms(maximum_age_days=31, stops_sales=True)
        contact_list = await lists_flow.make_list(market.api, BY, ListKind.do_not_contact, None, "National", terms)
        await fill(market, contact_list, 7)
        await market.owner.execute("update contact_list set refreshed_at = refreshed_at - interval '32 days'")
        lead_id = await market.sold(1)
        assert await market.row("select state, reason from lead") == {"state": state, "reason": "list_outdated"}
        await fill(market, await lists_flow.load_list(market.api, contact_list.id, None), 7)
        await market.walker.walk(lead_id)
        assert (await holder(market, lead_id) is not None) == (state is LeadState.prospect)
