"""Pages of scorecards: which card ranks, how each does, the buttons, and the chance of a lead in words."""

import msgspec

from marketplace.runtime import ids
from marketplace.runtime.settings import Settings
from routing.ranking import Strategy
from tests.builders.learning import report, shown_ago, store_card
from tests.builders.marketplaces import marketplace, roofing
from tests.builders.portal import signed_in
from tests.builders.service import serve
from tests.receivers import Receiver, ok

LIST = "/operator/verticals/roofing/scorecards"


async def test_an_operator_signs_a_card_off_and_takes_it_back(settings: Settings) -> None:
    few = msgspec.structs.replace(settings, shadow_leads=2)
    strategy = roofing(strategy=Strategy.expected_value)
    async with marketplace(settings, strategy) as market, Receiver(ok) as receiver, serve(few) as api:
        browser = await signed_in(api, "operator")
        assert browser.member_id is not None
        await market.buyer(receiver.url)
        await store_card(market)
        page = (await browser.get(f"{LIST}/1")).text
        assert "It can be signed off from 2 on." in page
        assert "/sign-off" not in page
        refused = await browser.post(f"{LIST}/1/sign-off")
        assert refused.status_code == 409
        sold = [await market.sold(number) for number in (1, 2)]
        for lead_id, kind in zip(sold, ("won", "lost"), strict=True):
            await shown_ago(market, lead_id, weeks=20)
            await report(market, lead_id, kind, 90_000 if kind == "won" else None, weeks=19)
        page = (await browser.get(f"{LIST}/1")).text
        assert "the outcome of 2 is known. It may be signed off." in page
        assert (await browser.post(f"{LIST}/1/sign-off")).status_code == 303
        assert "Version 1 ranks." in (await browser.get(LIST)).text
        signed = await market.value("select count(*) from scorecard where signed_off_by = $1", browser.member_id)
        assert signed == 1
        lead = ids.encode("lead", await market.sold(3))
        explained = (await browser.get(f"/operator/routing/{lead}")).text
        assert "Chance of winning, by scorecard version 1" in explained
        assert "This card ranked the lead." in explained
        assert "Raised by Authority: decides (+2.00)." in explained
        again = (await browser.get(f"/operator/routing/{lead}?rules=recorded")).text
        assert "The result is the same" in again
        trace = (await api.call("GET", f"/v1/leads/{lead}/trace")).json()
        assert trace["decisions"][0]["chances"] == [{"scorecard": 1, "probability": 0.880797}]
        before = (await browser.get(f"/operator/routing/{ids.encode('lead', sold[0])}")).text
        assert "was in shadow and had no effect" in before
        assert (await browser.post(f"{LIST}/1/retire", {"reason": "wrong"})).status_code == 303
        assert "No card ranks." in (await browser.get(LIST)).text
        assert (await browser.get(f"{LIST}?format=csv")).text.splitlines()[1].startswith("1,retired,")
        shown = (await api.call("GET", "/v1/verticals/roofing/scorecards/1")).json()
        assert (shown["state"], shown["shadow"]["ended"]) == ("retired", 2)
        assert shown["signed_off_by"] == ids.encode("mem", browser.member_id)
        listed = (await api.call("GET", "/v1/verticals/roofing/scorecards?limit=1")).json()
        assert [row["version"] for row in listed["data"]] == [1]
        wrong = await api.call("GET", "/v1/verticals/roofing/scorecards?cursor=x")
        assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (422, "cursor_invalid")
        for path in ("scorecards/x", "scorecards/0", "scorecards/2", "scorecards/99999999999"):
            assert (await api.call("GET", f"/v1/verticals/roofing/{path}")).status_code == 404
            assert (await browser.get(f"/operator/verticals/roofing/{path}")).status_code == 404
