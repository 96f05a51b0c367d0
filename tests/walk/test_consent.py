"""What a person agreed to, from intake to exposure: who may get the lead, until when, and by which channels."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from marketplace.database.db import session
from marketplace.distribution.matching_preview import load_previews
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from routing.consent import Channel, ConsentNeeds, ConsentPolicy
from tests.builders.inquiries import iso, roofing_body
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace, roofing
from tests.receivers import Receiver, status


def a_consent(**changes: Any) -> dict[str, Any]:
    terms: dict[str, Any] = roofing_body(now=clock.now())["consent"]
    return terms | changes


async def name(market: Marketplace, buyer: Buyer, *names: str) -> None:
    await market.owner.execute("update business set seller_names = $2 where id = $1", buyer.business_id, list(names))


async def outcome(market: Marketplace, lead_id: UUID) -> tuple[str, str | None]:
    row = await market.row("select state, reason from lead where id = $1", lead_id)
    return row["state"], row["reason"]


async def test_a_consent_for_one_seller_is_for_that_business_alone(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver, Receiver(status(200)) as other:
        await market.buyer(other.url, anywhere(priority=1))
        named = await market.buyer(receiver.url, anywhere(priority=2))
        await name(market, named, "Roofs & Sons LLC")
        lead_id = await market.sold(consent=a_consent(sellers=["ROOFS AND SONS"], channels=["phone", "sms"]))
        assert await market.state(lead_id) == "delivered"
        assert (len(receiver.visits), len(other.visits)) == (1, 0)
        data = msgspec.json.decode(receiver.visits[0].body)["data"]
        assert data["consent"] == {"sellers": ["ROOFS AND SONS"], "channels": ["call", "text"]}


async def test_a_changed_name_counts_from_the_next_lead(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url)
        first = await market.sold(1, consent=a_consent(sellers=["Third Roofs"]))
        assert await outcome(market, first) == ("unsold", "consent_seller")
        await name(market, buyer, "Third Roofs")
        assert await market.state(await market.sold(2, consent=a_consent(sellers=["Third Roofs"]))) == "delivered"


async def test_a_vertical_may_insist_on_a_named_seller(settings: Settings) -> None:
    vertical = roofing(consent=ConsentPolicy(requires_named_seller=True))
    async with marketplace(settings, vertical) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        assert await outcome(market, await market.sold()) == ("unsold", "consent_seller")


async def test_a_business_that_writes_e_mails_gets_no_lead_without_consent_to_them(settings: Settings) -> None:
    order = anywhere(consent=ConsentNeeds(channels=(Channel.email,)))
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url, order)
        lead_id = await market.sold(consent=a_consent(channels=["call", "text"]))
        assert await outcome(market, lead_id) == ("unsold", "consent_channel")
        assert receiver.visits == []


# The end of a consent. The clock is moved by moving the end, which a row keeps once it is written.


async def expire(market: Marketplace, lead_id: UUID) -> None:
    async with market.owner.acquire() as connection, connection.transaction():
        await connection.execute("alter table lead disable trigger lead_consent_is_kept")
        await connection.execute("update lead set consent_until = now() where id = $1", lead_id)
        await connection.execute("alter table lead enable trigger lead_consent_is_kept")


async def test_the_end_of_a_consent_is_written_once(settings: Settings) -> None:
    async with marketplace(settings) as market:
        end = clock.now() + timedelta(days=30)
        receipt = await market.submit(consent=a_consent(expires_at=iso(end)))
        stored = await market.value("select consent_until from lead where id = $1", receipt.id)
        assert abs(stored - end) < timedelta(seconds=1)
        with pytest.raises(asyncpg.RestrictViolationError):
            await market.api.execute("update lead set consent_until = now() where id = $1", receipt.id)


async def test_a_consent_that_ends_before_the_decision_ends_the_lead(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        await market.buyer(receiver.url)
        receipt = await market.submit(consent=a_consent(expires_at=iso(clock.now() + timedelta(days=1))))
        await expire(market, receipt.id)
        await market.walker.walk(receipt.id)
        assert await market.state(receipt.id) == "rejected"
        assert receiver.visits == []


async def test_a_consent_that_ends_between_award_and_exposure_is_not_exposed(settings: Settings) -> None:
    async with marketplace(settings) as market, Receiver(status(200)) as receiver:
        buyer = await market.buyer(receiver.url)
        receipt = await market.submit(consent=a_consent(expires_at=iso(clock.now() + timedelta(days=1))))
        assignment_id = await market.distribution.distribute(receipt.id)
        assert assignment_id is not None
        await expire(market, receipt.id)
        await market.walker.attempt_and_walk_on(assignment_id, receipt.id)
        assert await market.state(receipt.id) == "unsold"
        assert await market.value("select count(*) from exposure") == 0
        assert receiver.visits == []
        assert await market.wallet(buyer) == (100_000, 0)


# What is said about such leads elsewhere.


async def test_a_preview_counts_the_leads_whose_consent_names_the_business(settings: Settings) -> None:
    async with marketplace(settings) as market:
        buyer = await market.buyer("http://127.0.0.1:1/hook")
        for number, sellers in enumerate((["Third Roofs"], ["Example Roofs"], []), 1):
            receipt = await market.submit(number, consent=a_consent(sellers=sellers))
            await market.owner.execute("update lead set qualified_at = received_at where id = $1", receipt.id)
        rules = await market.intake._catalog.recent()

        async def preview() -> float:
            async with session(market.api) as connection:
                vertical = rules.by_slug["roofing"]
                [counted] = await load_previews(connection, vertical, buyer.business_id, [anywhere()])
            return counted.a_week * 4

        assert await preview() == pytest.approx(1)
        await name(market, buyer, "Third Roofs")
        assert await preview() == pytest.approx(2)
