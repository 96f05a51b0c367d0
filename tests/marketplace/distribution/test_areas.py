"""A lead's place against a subscription's area, from the inquiry to the sale, and wherever it is judged again."""

from contextlib import AsyncExitStack
from typing import Any

import pytest

from marketplace.database.db import session
from marketplace.distribution.matching_preview import load_previews
from marketplace.runtime.settings import Settings
from routing.subscription import Area, Circle
from tests.builders.feedback import Desk, desk
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import anywhere, roofing
from tests.builders.portal import signed_in

MIAMI = {"country": "US", "postal_code": "33131"}
CHENNAI = {"country": "IN", "postal_code": "33131"}
SAN_JUAN = {"country": "PR", "postal_code": "00901"}
AROUND_MIAMI = Circle(latitude=25.77, longitude=-80.19, km=30)


@pytest.mark.parametrize(
    ("country", "area", "inside", "outside"),
    [
        ("US", Area(postal_codes=("33131",)), MIAMI, CHENNAI),
        ("US", Area(prefixes=("33",)), MIAMI, CHENNAI),
        ("US", Area(circles=(AROUND_MIAMI,)), MIAMI, CHENNAI),
        ("US", Area(countries=("US",), postal_codes=("33131",)), MIAMI, SAN_JUAN),
        ("US", Area(countries=("IN",), postal_codes=("33131",)), CHENNAI, MIAMI),
        ("US", Area(postal_codes=("00901",)), SAN_JUAN, MIAMI),
        ("IN", Area(postal_codes=("33131",)), CHENNAI, MIAMI),
        ("US", Area(countries=("IN",)), CHENNAI, MIAMI),
    ],
)
async def test_a_code_is_sold_in_its_own_country_only_and_every_judgement_agrees(
    settings: Settings, country: str, area: Area, inside: dict[str, str], outside: dict[str, str]
) -> None:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings, order=anywhere(area=area), vertical=roofing(country=country))
        await made.market.owner.execute(
            "update subscription set state = 'paused' where business_id <> $1", made.buyer.business_id
        )
        bought = await made.sold(1, contact=_contact(1, inside))
        unsold = await made.sold(2, contact=_contact(2, outside))
        assert (await made.inquiry(bought))["state"] == "delivered"
        assert (await made.inquiry(unsold))["state"] == "unsold"
        denied = (await made.give_back(bought, reason="outside_area")).json()
        assert denied["state"] == "denied"
        assert await _supplied(made, area) == 1
        operator = await signed_in(made.api, "operator")
        for lead in (bought, unsold):
            page = await operator.get(f"/operator/routing/{lead}?rules=recorded")
            assert "The result is the same" in page.text


def _contact(number: int, place: dict[str, str]) -> dict[str, Any]:
    contact: dict[str, Any] = roofing_body(number)["contact"]
    return contact | place


async def _supplied(made: Desk, area: Area) -> int:
    """Leads of the market that the order would have matched, as its business is told before it orders."""
    rules = await made.market.intake._catalog.recent()
    async with session(made.market.api) as connection:
        business_id = made.buyer.business_id
        [preview] = await load_previews(connection, rules.by_slug["roofing"], business_id, [anywhere(area=area)])
    return round(preview.a_week * 4)
