"""The trading floor: the control room, what nobody could take, the returns desk, and the leads behind a figure."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from html import unescape

import pytest

from marketplace.portal.operator.lead_store import Alarms
from marketplace.portal.operator.overview import alarms_of, silence_of
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from routing.subscription import Area, Circle
from tests.builders.feedback import Desk, desk
from tests.builders.marketplaces import anywhere
from tests.builders.portal import Browser, signed_in


class Floor:
    """A marketplace, and an operator in front of the portal."""

    def __init__(self, desk: Desk, browser: Browser) -> None:
        self.desk, self.market, self.browser = desk, desk.market, browser

    async def page(self, path: str, status: int = 200) -> str:
        """The words of a page, without its tags."""
        return words(await self.browser.get(path), status)

    async def claim(self, number: int = 1, **changes: str) -> str:
        """A delivered lead that its business asks to give back; the return's id."""
        lead = await self.desk.sold(number)
        asked = await self.desk.give_back(
            lead, **{"reason": "wrong_person", "note": "Somebody else answered."} | changes
        )
        assert asked.status_code == 201, asked.text
        return str(asked.json()["id"])


def words(reply: object, status: int = 200) -> str:
    assert getattr(reply, "status_code", None) == status, getattr(reply, "text", "")
    text = re.sub(r"<script.*?</script>|<[^>]+>", " ", str(getattr(reply, "text", "")), flags=re.DOTALL)
    return unescape(re.sub(r"\s+", " ", text))


@pytest.fixture
async def floor(settings: Settings) -> AsyncIterator[Floor]:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings)
        yield Floor(made, await signed_in(made.api, "operator"))


@pytest.fixture
async def far(settings: Settings) -> AsyncIterator[Floor]:
    """Where the one business that buys lies some five kilometres off every lead."""
    order = anywhere(area=Area(circles=(Circle(latitude=41.9229, longitude=-87.4, km=15),)))
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings, order=order)
        await made.market.owner.execute(
            "update subscription set state = 'paused' where business_id <> $1", made.buyer.business_id
        )
        yield Floor(made, await signed_in(made.api, "operator"))


# --- the returns desk -------------------------------------------------------------------------------------------------


async def test_a_claim_stands_beside_the_lead_and_both_histories_and_says_what_a_yes_would_do(floor: Floor) -> None:
    claim = await floor.claim()
    assert "Wrong person" in await floor.page("/operator/returns")
    text = await floor.page(f"/operator/returns/{claim}")
    assert "Somebody else answered." in text
    assert "Example Business gets back $50.00" in text
    assert "Example Provider gives back $30.00" in text
    assert "We lose $20.00" in text
    assert "1 (100.0%)" in text
    assert "robin" not in text.replace("Robin Example", "").casefold()


async def test_a_granted_return_moves_the_money_once_and_leaves_the_desk(floor: Floor) -> None:
    claim = await floor.claim()
    before = await floor.market.wallet(floor.desk.buyer)
    for _ in range(2):
        reply = await floor.browser.post(
            f"/operator/returns/{claim}", {"verdict": "granted", "finding": "The number is somebody else's."}
        )
        assert reply.status_code == 303
    after = await floor.market.wallet(floor.desk.buyer)
    assert (after[0] - before[0], after[1]) == (5_000, 0)
    assert "No return is waiting for a decision." in await floor.page("/operator/returns")
    assert "The number is somebody else's." in await floor.page(f"/operator/returns/{claim}")
    assert "granted" in (await floor.browser.get("/operator/returns?state=granted&format=csv")).text
    assert (await floor.desk.api.audited())[-1][0] == "return.judge"


async def test_a_word_without_a_finding_changes_nothing_and_says_so(floor: Floor) -> None:
    claim = await floor.claim()
    for fields in (
        {"verdict": "granted"},
        {"verdict": "granted", "finding": "  "},
        {"verdict": "maybe", "finding": "x"},
    ):
        text = words(await floor.browser.post(f"/operator/returns/{claim}", fields), 422)
        assert "needs attention" in text
    assert await floor.market.value("select state from return_request") == "requested"


async def test_a_contact_is_masked_until_somebody_says_why_and_that_is_written_down(floor: Floor) -> None:
    claim = await floor.claim()
    assert "robin.1@example.com" not in (await floor.browser.get(f"/operator/returns/{claim}")).text
    text = words(await floor.browser.post(f"/operator/returns/{claim}/reveal", {"reason": "Calling back."}))
    assert "robin.1@example.com" in text
    assert "robin.1@example.com" not in (await floor.browser.get(f"/operator/returns/{claim}")).text
    row = await floor.market.row("select action, detail::text from audit order by id desc limit 1")
    assert row["action"] == "contact.reveal"
    assert "Calling back." in row["detail"]
    assert "Contact reveal" in await floor.page("/operator/compliance/reveals")
    await floor.browser.post(f"/operator/returns/{claim}/reveal", {"reason": " "})
    assert await floor.market.value("select count(*) from audit where action = 'contact.reveal'") == 1


async def test_a_return_that_is_none_is_not_found(floor: Floor) -> None:
    for text in ("ret_x", ids.encode("ret", clock.new_id())):
        await floor.page(f"/operator/returns/{text}", 404)
    await floor.page("/operator/returns?state=eaten", 422)


# --- what nobody could take -----------------------------------------------------------------------------------------


async def test_unsold_leads_are_grouped_by_their_nearest_miss_with_the_distance(far: Floor) -> None:
    leads = [await far.desk.sold(number) for number in (1, 2)]
    text = await far.page("/operator/unroutable")
    assert "Outside area" in text
    assert "2 (100%)" in text
    assert re.search(r"Example Business 5\.\d km outside", text)
    assert re.search(r"Widening the area by 10 km: \+2 leads a week", text)
    assert leads[0] in (await far.browser.get("/operator/unroutable?why=outside_area&format=csv")).text
    assert "None was unsold for this reason" in await far.page("/operator/unroutable?why=closed")


async def test_unsold_leads_taken_again_by_todays_rules_write_nothing(far: Floor) -> None:
    await far.desk.sold(1)
    assert "0 of the newest 1" in await far.page("/operator/unroutable?today=1")
    await far.market.owner.execute("update subscription set state = 'active'")
    decisions = await far.market.value("select count(*) from decision")
    assert "0 of the newest 1" in await far.page("/operator/unroutable?today=1")
    await far.market.owner.execute("update wallet set available_minor = 100000")
    assert "1 of the newest 1 would find a business" in await far.page("/operator/unroutable?today=1")
    assert await far.market.value("select count(*) from decision") == decisions
    assert await far.market.value("select state from lead") == "unsold"


async def test_leads_that_still_wait_are_looked_at_again_now_with_a_reason_in_the_audit(far: Floor) -> None:
    lead = (await far.market.submit(1)).id
    later = clock.now() + timedelta(minutes=30)
    await far.market.owner.execute(
        "update lead set state = 'prospect', due_at = $2, qualified_at = now(), reason = 'closed' where id = $1",
        lead, later,
    )  # fmt: skip
    public = ids.encode("lead", lead)
    assert public in (await far.browser.get("/operator/unroutable")).text
    await far.browser.post("/operator/unroutable", {"lead": public})
    assert await far.market.value("select due_at from lead") == later
    reply = await far.browser.post("/operator/unroutable", {"lead": public, "reason": "A wallet was topped up."})
    assert reply.status_code == 303
    assert await far.market.value("select due_at <= now() from lead")
    assert ("lead.look_again", public) in await far.desk.api.audited()


async def test_a_waiting_lead_is_held_until_later_but_never_past_its_end_and_stays_where_it_stands(far: Floor) -> None:
    lead = (await far.market.submit(1)).id
    await far.market.owner.execute(
        "update lead set state = 'prospect', due_at = now(), qualified_at = now() - interval '25 minutes'"
    )
    await far.market.owner.execute(
        "alter table vertical_version disable trigger all; "
        "update vertical_version set definition = definition || '{\"patience_seconds\": 3600}'"
    )
    public = ids.encode("lead", lead)
    for minutes, shown in ((10, "10 min"), (60, "35 min")):
        fields = {"lead": public, "act": "hold", "minutes": minutes, "reason": "A cap is being raised."}
        assert (await far.browser.post("/operator/unroutable", fields)).status_code == 303
        assert shown in await far.page("/operator/unroutable")
        assert await far.market.value("select state from lead") == "prospect"
    assert await far.market.value("select due_at = qualified_at + interval '1 hour' from lead")
    assert ("lead.hold", public) in await far.desk.api.audited()
    await far.market.owner.execute("update lead set state = 'unsold', due_at = null, settled_at = now()")
    fields = {"lead": public, "act": "hold", "reason": "Too late."}
    assert (await far.browser.post("/operator/unroutable", fields)).status_code == 303
    assert "1 had moved on meanwhile" in await far.page("/operator/unroutable")
    assert await far.market.value("select due_at from lead") is None


# --- the control room -------------------------------------------------------------------------------------------------


async def test_the_control_room_shows_pace_funnel_and_decisions(floor: Floor) -> None:
    await floor.desk.sold(1)
    text = await floor.page("/operator")
    assert "1 of 1 qualified" in text
    assert "Example Business" in text
    assert "1 of 2" in text
    assert "Last accepted lead" in text
    assert "1 business cannot pay" in text
    funnel = (await floor.browser.get("/operator")).text
    for address in set(re.findall(r'href="(/operator/leads\?[^"]+)"', funnel)):
        assert (await floor.browser.get(unescape(address))).status_code == 200, address


async def test_the_leads_behind_a_figure_are_those_that_were_counted(far: Floor) -> None:
    await far.desk.sold(1)
    assert "Outside area" in await far.page("/operator/leads?state=unsold")
    assert "No lead fits" in await far.page("/operator/leads?reached=delivered")
    assert "unsold" in (await far.browser.get("/operator/leads?format=csv")).text
    await far.page("/operator/leads?state=eaten", 422)
    await far.page("/operator/leads?business_id=biz_x", 404)


def test_silence_is_an_alarm_when_it_lasts_far_longer_than_is_usual() -> None:
    now = clock.now()
    every_two = [now - timedelta(minutes=2 * number) for number in range(1, 30)]
    assert not silence_of(every_two, now).alarming
    silent = silence_of([at - timedelta(minutes=10) for at in every_two], now + timedelta(minutes=1))
    assert (silent.alarming, silent.usual_seconds) == (True, 120.0)
    assert not silence_of(every_two[:3], now + timedelta(days=1)).alarming
    assert silence_of((), now).lasted_seconds is None
    calm = Alarms(failing=0, endpoints=3, poor=0, waiting=0, returns=0, suppressing=0, set_aside=0, overdue_seconds=0.0)
    told = alarms_of(silent, calm)
    assert told[0][:2] == (False, "No accepted lead for 13 min, usual gap 2 min.")
    assert all(ok for ok, *_ in told[1:])
