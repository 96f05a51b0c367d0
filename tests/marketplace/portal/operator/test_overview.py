"""Overview, unsold and waiting leads, returns desk, and the list of leads behind a figure."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from html import unescape

import pytest

from marketplace.portal.operator.lead_store import Alarms
from marketplace.portal.operator.overview import list_checks, measure_silence
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from routing.subscription import Area, Circle
from tests.builders.feedback import Desk, desk
from tests.builders.marketplaces import anywhere
from tests.builders.portal import Browser, signed_in


class OperatorScene:
    """A marketplace, and an operator in front of the portal."""

    def __init__(self, desk: Desk, browser: Browser) -> None:
        self.desk, self.market, self.browser = desk, desk.market, browser

    async def page(self, path: str, status: int = 200) -> str:
        """Return the text of a page without its tags."""
        return words(await self.browser.get(path), status)

    async def claim(self, number: int = 1, **changes: str) -> str:
        """Deliver a lead, request its return, and return the id of the request."""
        lead = await self.desk.sold(number)
        reply = await self.desk.give_back(
            lead, **{"reason": "wrong_person", "note": "Somebody else answered."} | changes
        )
        assert reply.status_code == 201, reply.text
        return str(reply.json()["id"])


def words(reply: object, status: int = 200) -> str:
    assert getattr(reply, "status_code", None) == status, getattr(reply, "text", "")
    text = re.sub(r"<script.*?</script>|<[^>]+>", " ", str(getattr(reply, "text", "")), flags=re.DOTALL)
    return unescape(re.sub(r"\s+", " ", text))


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[OperatorScene]:
    async with AsyncExitStack() as stack:
        scene = await desk(stack, settings)
        yield OperatorScene(scene, await signed_in(scene.api, "operator"))


@pytest.fixture
async def far(settings: Settings) -> AsyncIterator[OperatorScene]:
    """A marketplace whose only buying business is about five kilometres too far from every lead."""
    subscription = anywhere(area=Area(circles=(Circle(latitude=41.9229, longitude=-87.4, km=15),)))
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings, order=subscription)
        await made.market.owner.execute(
            "update subscription set state = 'paused' where business_id <> $1", made.buyer.business_id
        )
        yield OperatorScene(made, await signed_in(made.api, "operator"))


# --- the returns desk -------------------------------------------------------------------------------------------------


async def test_a_return_is_shown_with_its_lead_both_histories_and_the_effect_of_granting_it(
    scene: OperatorScene,
) -> None:
    claim = await scene.claim()
    assert "Wrong person" in await scene.page("/operator/returns")
    text = await scene.page(f"/operator/returns/{claim}")
    assert "Somebody else answered." in text
    assert "Example Business gets back $50.00" in text
    assert "Example Provider gives back $30.00" in text
    assert "We lose $20.00" in text
    assert "1 (100.0%)" in text
    assert "robin" not in text.replace("Robin Example", "").casefold()


async def test_a_granted_return_moves_the_money_once_and_leaves_the_desk(scene: OperatorScene) -> None:
    claim = await scene.claim()
    before = await scene.market.wallet(scene.desk.buyer)
    for _ in range(2):
        reply = await scene.browser.post(
            f"/operator/returns/{claim}", {"verdict": "granted", "finding": "The number is somebody else's."}
        )
        assert reply.status_code == 303
    after = await scene.market.wallet(scene.desk.buyer)
    assert (after[0] - before[0], after[1]) == (5_000, 0)
    assert "No return is waiting for a decision." in await scene.page("/operator/returns")
    assert "The number is somebody else's." in await scene.page(f"/operator/returns/{claim}")
    assert "granted" in (await scene.browser.get("/operator/returns?state=granted&format=csv")).text
    assert (await scene.desk.api.audited())[-1][0] == "return.judge"


async def test_a_decision_without_a_finding_changes_nothing_and_says_so(scene: OperatorScene) -> None:
    claim = await scene.claim()
    for fields in (
        {"verdict": "granted"},
        {"verdict": "granted", "finding": "  "},
        {"verdict": "maybe", "finding": "x"},
    ):
        text = words(await scene.browser.post(f"/operator/returns/{claim}", fields), 422)
        assert "needs attention" in text
    assert await scene.market.value("select state from return_request") == "requested"


async def test_a_contact_is_masked_until_an_operator_gives_a_reason_which_is_recorded(scene: OperatorScene) -> None:
    claim = await scene.claim()
    assert "robin.1@example.com" not in (await scene.browser.get(f"/operator/returns/{claim}")).text
    text = words(await scene.browser.post(f"/operator/returns/{claim}/reveal", {"reason": "Calling back."}))
    assert "robin.1@example.com" in text
    assert "robin.1@example.com" not in (await scene.browser.get(f"/operator/returns/{claim}")).text
    row = await scene.market.row("select action, detail::text from audit order by id desc limit 1")
    assert row["action"] == "contact.reveal"
    assert "Calling back." in row["detail"]
    assert "Was shown contact data" in await scene.page("/operator/compliance/reveals")
    await scene.browser.post(f"/operator/returns/{claim}/reveal", {"reason": " "})
    assert await scene.market.value("select count(*) from audit where action = 'contact.reveal'") == 1


async def test_an_unknown_return_is_not_found(scene: OperatorScene) -> None:
    for text in ("ret_x", ids.encode("ret", clock.new_id())):
        await scene.page(f"/operator/returns/{text}", 404)
    await scene.page("/operator/returns?state=eaten", 422)


# --- unsold and waiting leads -----------------------------------------------------------------------------------------


async def test_unsold_leads_are_grouped_by_the_rule_of_the_nearest_business_with_the_distance(
    far: OperatorScene,
) -> None:
    leads = [await far.desk.sold(number) for number in (1, 2)]
    text = await far.page("/operator/unroutable")
    assert "Outside area" in text
    assert "2 (100%)" in text
    assert re.search(r"Example Business 5\.\d km outside", text)
    assert re.search(r"Widening the area by 10 km: \+2 leads a week", text)
    assert leads[0] in (await far.browser.get("/operator/unroutable?why=outside_area&format=csv")).text
    assert "No prospect was unsold for this reason" in await far.page("/operator/unroutable?why=closed")


async def test_unsold_leads_decided_again_by_todays_rules_write_nothing(far: OperatorScene) -> None:
    await far.desk.sold(1)
    assert "0 of the newest 1" in await far.page("/operator/unroutable?today=1")
    await far.market.owner.execute("update subscription set state = 'active'")
    decisions = await far.market.value("select count(*) from decision")
    assert "0 of the newest 1" in await far.page("/operator/unroutable?today=1")
    await far.market.owner.execute("update wallet set available_minor = 100000")
    assert "1 of the newest 1 would be sold" in await far.page("/operator/unroutable?today=1")
    assert await far.market.value("select count(*) from decision") == decisions
    assert await far.market.value("select state from lead") == "unsold"


async def test_waiting_leads_are_decided_now_with_a_reason_in_the_audit(far: OperatorScene) -> None:
    lead = (await far.market.submit(1)).id
    later = clock.now() + timedelta(minutes=30)
    await far.market.owner.execute(
        "update lead set state = 'prospect', due_at = $2, qualified_at = now(), reason = 'closed' where id = $1",
        lead,
        later,
    )
    public = ids.encode("lead", lead)
    assert public in (await far.browser.get("/operator/unroutable")).text
    await far.browser.post("/operator/unroutable", {"lead": public})
    assert await far.market.value("select due_at from lead") == later
    reply = await far.browser.post("/operator/unroutable", {"lead": public, "reason": "A wallet was topped up."})
    assert reply.status_code == 303
    assert await far.market.value("select due_at <= now() from lead")
    assert ("lead.look_again", public) in await far.desk.api.audited()


async def test_a_waiting_lead_is_held_but_never_beyond_its_end_and_keeps_its_state(far: OperatorScene) -> None:
    lead = (await far.market.submit(1)).id
    await far.market.owner.execute(
        "update lead set state = 'prospect', due_at = now(), qualified_at = now() - interval '25 minutes'"
    )
    await far.market.owner.execute(
        "alter table vertical_version disable trigger all; "
        "update vertical_version set definition = definition || '{\"patience_seconds\": 3600}'"
    )
    public = ids.encode("lead", lead)
    for minutes, text in ((10, "10 min"), (60, "35 min")):
        fields = {"lead": public, "act": "hold", "minutes": minutes, "reason": "A cap is being raised."}
        assert (await far.browser.post("/operator/unroutable", fields)).status_code == 303
        assert text in await far.page("/operator/unroutable")
        assert await far.market.value("select state from lead") == "prospect"
    assert await far.market.value("select due_at = qualified_at + interval '1 hour' from lead")
    assert ("lead.hold", public) in await far.desk.api.audited()
    await far.market.owner.execute("update lead set state = 'unsold', due_at = null, settled_at = now()")
    fields = {"lead": public, "act": "hold", "reason": "Too late."}
    assert (await far.browser.post("/operator/unroutable", fields)).status_code == 303
    assert "1 no longer waiting" in await far.page("/operator/unroutable")
    assert await far.market.value("select due_at from lead") is None


# --- the overview -----------------------------------------------------------------------------------------------------


async def test_the_overview_shows_rates_funnel_and_decisions(scene: OperatorScene) -> None:
    await scene.desk.sold(1)
    text = await scene.page("/operator")
    assert "1 of 1 prospects" in text
    assert "Example Business" in text
    assert "1 of 2" in text
    assert "Last accepted lead" in text
    assert "1 business cannot pay" in text
    funnel = (await scene.browser.get("/operator")).text
    for address in set(re.findall(r'href="(/operator/leads\?[^"]+)"', funnel)):
        assert (await scene.browser.get(unescape(address))).status_code == 200, address


async def test_the_leads_behind_a_figure_are_those_that_were_counted(far: OperatorScene) -> None:
    await far.desk.sold(1)
    assert "Outside area" in await far.page("/operator/leads?state=unsold")
    assert "No leads match" in await far.page("/operator/leads?reached=delivered")
    assert "unsold" in (await far.browser.get("/operator/leads?format=csv")).text
    await far.page("/operator/leads?state=eaten", 422)
    await far.page("/operator/leads?business_id=biz_x", 404)


def test_silence_is_an_alarm_when_it_lasts_far_longer_than_is_usual() -> None:
    now = clock.now()
    every_two = [now - timedelta(minutes=2 * number) for number in range(1, 30)]
    assert not measure_silence(every_two, now).alarming
    silent = measure_silence([at - timedelta(minutes=10) for at in every_two], now + timedelta(minutes=1))
    assert (silent.alarming, silent.usual_seconds) == (True, 120.0)
    assert not measure_silence(every_two[:3], now + timedelta(days=1)).alarming
    assert measure_silence((), now).lasted_seconds is None
    calm = Alarms(
        failing=0,
        endpoints=3,
        answers=0,
        poor=0,
        waiting=0,
        returns=0,
        suppressing=0,
        set_aside=0,
        cards=0,
        notices=0,
        deletions=0,
        overdue_seconds=0.0,
    )
    checks = list_checks(silent, calm)
    assert checks[0][:2] == (False, "No accepted lead for 13 min, usual gap 2 min.")
    assert all(ok for ok, *_ in checks[1:])
    words = "More inquiries arrive than can be handled: about 180 a second are taken in."
    assert (False, words) in [check[:2] for check in list_checks(silent, calm, 180.2)]
