"""The form of a subscription shows everything that it holds, keeps it when saved, and can remove it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import unescape
from typing import Any

import msgspec
import pytest

from marketplace.portal.business import subscription_form
from marketplace.portal.business.matching import CHOOSING
from marketplace.runtime import ids
from marketplace.runtime.settings import Settings
from routing.calendar import CapWindow
from routing.inquiry import Authority
from routing.qualification import Dimension
from routing.ranking import Strategy
from routing.subscription import Area, BantMinimum, Cap, Circle, FieldRule, OpenHours, Persona, SubscriptionDefinition
from tests.builders.feedback import Desk, desk
from tests.builders.forms import read_form
from tests.builders.marketplaces import anywhere
from tests.builders.portal import Browser, signed_in

LAKE = Circle(latitude=41.9227, longitude=-87.6533, km=40.2)
CAPS = tuple(
    Cap(window=window, count=10 * number, amount_minor=100_050 * number) for number, window in enumerate(CapWindow, 1)
)
FULL = anywhere(
    area=Area(
        countries=("US", "CA"),
        postal_codes=("K1A 0B1", "60614-1234", "60601"),
        prefixes=("606", "k1a"),
        circles=(LAKE, Circle(latitude=43.04, longitude=-87.91, km=33.3)),
    ),
    attributes=(
        FieldRule(field="roof_type", any_of=("tile", "metal")),
        FieldRule(field="square_metres", minimum=10, maximum=3_000),
        FieldRule(field="owns_home", none_of=(False,)),
    ),
    bant=BantMinimum(
        must_meet=(Dimension.timing, Dimension.budget),
        minimum_score=40,
        minimum_budget_minor=123_456,
        timing_within_days=0,
    ),
    persona=Persona(
        authorities=(Authority.influencer, Authority.decision_maker),
        roles=("Owner, or  partner", "Facility manager"),
        minimum_company_size=2,
        maximum_company_size=900,
        minimum_price_minor=10_050,
        maximum_price_minor=9_000_000,
        phone_types=("voip", "mobile"),
        excluded_sources=("Dark Corner", "x, y"),
        refuses_disposable_email=True,
    ),
    hours=OpenHours(spec="Fr-Mo 18:00-06:00; Tu 00:00-24:00; PH off", zone="America/Denver", holidays="US-TX"),
    caps=CAPS,
    pace=True,
    price_minor=7_501,
    priority=7,
    weight=3,
)
DEFINITIONS: dict[str, SubscriptionDefinition] = {
    "everything": FULL,
    "next to nothing": anywhere(),
    "anywhere in two countries": anywhere(area=Area(anywhere=True, countries=("US", "CA"))),
    "one circle": anywhere(area=Area(circles=(LAKE,))),
    "prefixes alone": anywhere(area=Area(prefixes=("606", "607"))),
    "whole countries": anywhere(area=Area(countries=("US",))),
    "hours in words": anywhere(
        hours=OpenHours(spec="Apr-Oct Mo-Fr 07:00-19:00; Nov-Mar Mo-Fr 08:00-17:00; PH off", zone="UTC", holidays="US")
    ),
    "a week without holidays": anywhere(hours=OpenHours(spec="Mo-Fr 08:00-18:00; Sa 09:00-12:00", zone="UTC")),
    "holidays that no rule names": anywhere(hours=OpenHours(spec="Mo 08:00-18:00", zone="UTC", holidays="CA")),
    "hours past midnight in figures": anywhere(hours=OpenHours(spec="Fr 20:00-26:00", zone="UTC")),
}


class Shop:
    """A business with a subscription, and a member who opens its form."""

    def __init__(self, desk: Desk, browser: Browser) -> None:
        self.desk, self.browser = desk, browser
        self.path = f"/business/matching/{ids.encode('sub', desk.buyer.subscription_id)}"

    async def store(self, definition: SubscriptionDefinition) -> None:
        await self.desk.market.owner.execute("alter table subscription_version disable trigger all")
        await self.desk.market.owner.execute(
            "update subscription_version set definition = $1 where subscription_id = $2",
            msgspec.json.encode(definition).decode(),
            self.desk.buyer.subscription_id,
        )
        await self.desk.market.owner.execute(
            "insert into business_terms (vertical_id, business_id, weight, priority) values ($1, $2, $3, $4) "
            "on conflict (vertical_id, business_id) do update "
            "set weight = excluded.weight, priority = excluded.priority",
            self.desk.market.vertical_id,
            self.desk.buyer.business_id,
            definition.weight,
            definition.priority,
        )

    async def stored(self) -> SubscriptionDefinition:
        definition = await self.desk.market.value(
            "select definition from subscription_version where subscription_id = $1 order by version desc limit 1",
            self.desk.buyer.subscription_id,
        )
        return msgspec.json.decode(definition, type=SubscriptionDefinition)

    async def page(self) -> str:
        reply = await self.browser.get(self.path)
        assert reply.status_code == 200, reply.text
        return reply.text

    async def save(self, **changes: Any) -> SubscriptionDefinition:
        """Send the form as it is shown, with these fields changed, and return the definition that is stored then."""
        fields: dict[str, Any] = read_form(await self.page(), self.path) | changes
        reply = await self.browser.post(self.path, fields)
        assert reply.status_code == 303, unescape(reply.text)
        return await self.stored()


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings)
        yield Shop(made, await signed_in(made.api, "business", made.buyer.business_id))


async def test_a_price_below_the_lowest_is_refused_at_the_price_with_the_amount(shop: Shop) -> None:
    await shop.store(anywhere())
    await shop.desk.market.owner.execute("alter table vertical_version disable trigger all")
    await shop.desk.market.owner.execute(
        """update vertical_version set definition = definition || '{"reserve_minor": 4500}'"""
    )
    fields: dict[str, Any] = read_form(await shop.page(), shop.path)
    reply = await shop.browser.post(shop.path, fields | {"price": "44.99"})
    assert reply.status_code == 422
    assert "Give at least USD 45, the lowest price of a lead in this vertical." in unescape(reply.text)
    assert (await shop.save(price="45")).price_minor == 4_500


async def test_saving_a_form_that_nobody_touched_changes_nothing_however_often(shop: Shop) -> None:
    for name, definition in DEFINITIONS.items():
        await shop.store(definition)
        for _ in range(2):
            assert await shop.save() == definition, name


async def test_everything_that_a_subscription_holds_is_shown(shop: Shop) -> None:
    await shop.store(FULL)
    owner = unescape(await shop.page())
    viewer = await signed_in(shop.desk.api, "business", shop.desk.buyer.business_id, role="viewer")
    read_only = unescape((await viewer.get(shop.path)).text)
    for page in (owner, read_only):
        for words in (
            "606",
            "US",
            "CA",
            "25 miles (40 km) around 41.92, -87.65",
            "21 miles (33 km) around 43.04",
            'value="metal" checked' if page is owner else "Roof type: tile or metal",
            'value="3000"' if page is owner else "Square metres: at least 10; at most 3,000",
            "Owns home: not no",
            "1234.56",
            "75.01",
            "Facility manager",
            "Dark Corner",
            "900",
            "America/Denver",
            "US-TX",
            "over my open hours" if page is owner else "over the open hours",
            "1000.50",
            "5002.50",
            "50",
            "priority 7" if page is owner else "7, lower",
        ):
            assert words in page, words
    assert 'value="voip" checked' in owner


@pytest.mark.parametrize(("changes", "removed"), [
    ({"prefixes": [""]}, "area.prefixes"), ({"countries": [""]}, "area.countries"),
    ({"codes": [""]}, "area.postal_codes"),
    ({"keep": [""]}, "area.circles"), ({"must_meet": [""]}, "bant.must_meet"),
    ({"minimum_score": [""]}, "bant.minimum_score"), ({"minimum_budget": [""]}, "bant.minimum_budget_minor"),
    ({"within_days": [""]}, "bant.timing_within_days"), ({"authorities": [""]}, "persona.authorities"),
    ({"roles": [""]}, "persona.roles"), ({"size_from": [""]}, "persona.minimum_company_size"),
    ({"price_from": [""]}, "persona.minimum_price_minor"), ({"price_to": [""]}, "persona.maximum_price_minor"),
    ({"size_to": [""]}, "persona.maximum_company_size"), ({"phone_types": [""]}, "persona.phone_types"),
    ({"excluded_sources": [""]}, "persona.excluded_sources"),
    ({"refuses_disposable": ["0"]}, "persona.refuses_disposable_email"), ({"always": ["0", "1"]}, "hours"),
    ({"pace": ["0"]}, "pace"),
    ({f"{window}_{part}": [""] for window in CapWindow for part in ("count", "amount")}, "caps"),
])  # fmt: skip
async def test_whatever_a_subscription_holds_can_be_removed_and_all_else_stays(
    shop: Shop, changes: dict[str, list[str]], removed: str
) -> None:
    await shop.store(FULL)
    expected = msgspec.to_builtins(FULL)
    outer, _, inner = removed.partition(".")
    blank = msgspec.to_builtins(anywhere(area=Area()))
    if inner:
        expected[outer][inner] = blank[outer][inner]
    else:
        expected[outer] = blank[outer]
    expected["pace"] = expected["pace"] and bool(expected["caps"])  # there is nothing to spread
    assert await shop.save(**changes) == msgspec.convert(expected, SubscriptionDefinition)


async def test_one_circle_and_one_rule_of_several_can_be_dropped(shop: Shop) -> None:
    await shop.store(FULL)
    made = await shop.save(keep=["", "1"], keep_rule=[""])
    assert made.area.circles == FULL.area.circles[1:]
    assert made.attributes == FULL.attributes[:2]


async def test_the_questions_of_the_trade_are_asked_answered_and_left_open(shop: Shop) -> None:
    await shop.store(anywhere())
    answers = {
        "need.roof_type": ["", "shingle", "tile"],
        "need.square_metres.from": ["1,000"],
        "need.owns_home": ["yes"],
    }
    made = await shop.save(**answers)
    assert sorted(made.attributes, key=lambda rule: rule.field) == [
        FieldRule(field="owns_home", any_of=(True,)),
        FieldRule(field="roof_type", any_of=("tile", "shingle")),
        FieldRule(field="square_metres", minimum=1_000),
    ]
    assert await shop.save() == made
    opened = await shop.save(**{"need.roof_type": [""], "need.square_metres.from": [""], "need.owns_home": [""]})
    assert opened == anywhere()


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("need.square_metres.from", "many"),
        ("need.square_metres.from", "1.5"),
        ("need.square_metres.to", "9" * 30),
        ("need.square_metres.to", "5"),
    ],
)
async def test_an_answer_that_no_lead_can_have_is_refused_at_its_field(shop: Shop, field: str, text: str) -> None:
    await shop.store(FULL)
    fields = read_form(await shop.page(), shop.path) | {field: [text]}
    reply = await shop.browser.post(shop.path, fields)
    assert (reply.status_code, f'id="e-{field}"' in reply.text, text in reply.text) == (422, True, True)
    assert await shop.stored() == FULL


async def test_several_circles_are_added_at_once_in_miles_or_kilometres(shop: Shop) -> None:
    await shop.store(anywhere(area=Area(circles=(LAKE,))))
    await shop.desk.market.owner.execute(
        "insert into postal_area (country, code, city, region, latitude, longitude) values "
        "('US', '60601', 'Chicago', 'IL', 41.88, -87.62), ('US', '53202', 'Milwaukee', 'WI', 43.05, -87.9) "
        "on conflict do nothing"
    )
    made = await shop.save(centre=["60601, 53202"], miles=["30"], unit=["km"])
    assert [circle.km for circle in made.area.circles] == [40.2, 30.0, 30.0]
    fields = read_form(await shop.page(), shop.path) | {"centre": ["60601 00000"], "miles": ["5"]}
    reply = await shop.browser.post(shop.path, fields)
    assert (reply.status_code, "We do not know the ZIP code 00000" in reply.text) == (422, True)


async def test_the_page_says_how_the_marketplace_chooses_and_draws_prefixes(shop: Shop) -> None:
    await shop.store(anywhere(area=Area(prefixes=("606",))))
    page = unescape(await shop.page())
    assert "How the marketplace chooses" in page
    assert "60614" in page


def test_every_way_of_choosing_has_its_sentence() -> None:
    assert set(CHOOSING) == set(Strategy)


async def test_a_form_with_a_fault_is_shown_again_with_every_tick_as_it_was_sent(shop: Shop) -> None:
    await shop.store(FULL)
    fields = read_form(await shop.page(), shop.path)
    changes = fields | {"prefixes": ["6061234"], "keep": ["", "1"], "authorities": [""], "refuses_disposable": ["0"]}
    reply = await shop.browser.post(shop.path, changes)
    assert (reply.status_code, 'id="e-prefixes"' in reply.text) == (422, True)
    again = read_form(reply.text, shop.path)
    assert {name: again[name] for name in changes} == changes
    assert await shop.stored() == FULL


async def test_every_postal_code_of_a_large_country_can_be_saved_from_the_form(shop: Shop) -> None:
    large = anywhere(area=Area(postal_codes=tuple(f"{code:05}" for code in range(10_000, 52_000))))
    await shop.store(large)
    assert await shop.save() == large
    smaller = await shop.save(codes=[" ".join(large.area.postal_codes[:30_000])])
    assert len(smaller.area.postal_codes) == 30_000


async def test_a_circle_around_a_zip_code_is_refused_where_a_subscription_is_for_another_country(shop: Shop) -> None:
    await shop.store(anywhere(area=Area(countries=("IN",), prefixes=("33",))))
    fields = read_form(await shop.page(), shop.path) | {"centre": ["60614"], "miles": ["10"]}
    reply = await shop.browser.post(shop.path, fields)
    assert (reply.status_code, "this subscription is for IN" in reply.text) == (422, True)


async def test_amounts_of_every_currency_come_back_as_they_were() -> None:
    for currency in ("USD", "JPY", "KWD", "EUR"):
        definition = msgspec.structs.replace(FULL, currency=currency)
        sent = {name: (text,) for name, text in subscription_form.fields_of(definition).items()}
        form = subscription_form.LimitsForm(price=sent["price"][0])
        saved = subscription_form.apply_limits(form, sent, definition, "UTC")
        assert (saved.price_minor, saved.caps, saved.bant) == (definition.price_minor, CAPS, definition.bant)
