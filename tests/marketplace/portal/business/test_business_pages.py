"""The pages of a business: first steps, leads, outcomes, returns, wallet, delivery and reports."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import msgspec
import pytest

from marketplace.directory.challenge import ChallengeEvent
from marketplace.portal import live
from marketplace.portal.business import subscription_form
from marketplace.portal.business.leads import read_amount
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from routing.subscription import Area, Circle, OpenHours, SubscriptionDefinition
from tests.builders.feedback import Desk, desk
from tests.builders.forms import read_form
from tests.builders.marketplaces import PRICE_MINOR, anywhere
from tests.builders.portal import Browser, signed_in
from tests.builders.subscriptions import a_cap, early_zone
from tests.receivers import Receiver, Visit, answer, ok, refuse, status
from tests.waiting import PATIENCE

MINUS = "\N{MINUS SIGN}"


class Shop:
    """A marketplace with a business, and a member of it who uses the portal."""

    def __init__(self, desk: Desk, browser: Browser) -> None:
        self.desk, self.browser, self.market, self.api = desk, browser, desk.market, desk.api

    async def page(self, path: str, browser: Browser | None = None) -> str:
        reply = await (browser or self.browser).get(path)
        assert reply.status_code == 200, reply.text
        return unescape(reply.text)

    async def report_outcome(self, lead: str, browser: Browser | None = None, /, **fields: Any) -> httpx.Response:
        return await (browser or self.browser).post(f"/business/leads/{lead}/outcome", fields)

    async def audited(self) -> list[str]:
        return [action for action, _ in await self.api.audited()]

    async def send_file(self, path: str, content: bytes, **fields: str) -> httpx.Response:
        """Send a form with a file, as a browser does."""
        return await self.browser.send_file(path, content, **fields)


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings)
        yield Shop(made, await signed_in(made.api, "business", made.buyer.business_id, name="Kim Alder"))


async def stranger_of(shop: Shop) -> Browser:
    other = await shop.market.buyer("https://stranger.example.com/", available_minor=0)
    return await signed_in(shop.api, "business", other.business_id, name="Kim Alder")


async def test_a_suspended_subscription_says_why_and_has_no_button_to_resume(shop: Shop) -> None:
    shop.desk.behave(refuse("other"))
    for number in range(1, 6):
        await shop.desk.sold(number)
    subscription = f"/business/matching/{ids.encode('sub', shop.desk.buyer.subscription_id)}"
    for path in ("/business", subscription):
        text = await shop.page(path)
        assert "5 of the last 5 leads were refused." in text
        assert f'action="{subscription}/switch"' not in text
    reply = await shop.browser.post(f"{subscription}/switch", {"state": "active"})
    assert reply.status_code == 409
    path = f"/v1/subscriptions/{ids.encode('sub', shop.desk.buyer.subscription_id)}"
    body = (await shop.desk.call("GET", path)).json()
    suspension = body["suspension"]
    assert (body["state"], suspension["reason"], suspension["counted"]) == ("suspended", "refusals", 5)
    refused = await shop.desk.call("POST", f"{path}/resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "subscription_suspended")
    resumed = await shop.desk.call("POST", f"{path}/resume", by="operator")
    assert (resumed.json()["state"], resumed.json()["suspension"]) == ("active", None)


# --- leads ------------------------------------------------------------------------------------------------------------


async def test_a_lead_is_shown_with_its_person_its_four_findings_and_what_happened(shop: Shop) -> None:
    lead = await shop.desk.sold()
    text = await shop.page(f"/business/leads/{lead}")
    for words in (
        "Robin Example",
        'href="tel:+13125550101"',
        "“leak after storm”",
        "Budget",
        "Authority",
        "Need",
        "Timing",
        "You were the only business that matched",
        "Your server answered 200.",
        "$50.00",
        "I agree to be called",
        "Exclusive to you",
    ):
        assert words in text, words
    listed = await shop.page("/business/leads")
    assert "Robin Example" in listed
    assert f"/business/leads/{lead}" in listed


async def test_outcomes_take_one_tap_each_and_the_latest_stands(shop: Shop) -> None:
    lead = await shop.desk.sold()
    assert (await shop.report_outcome(lead, kind="contacted")).status_code == 303
    assert (await shop.report_outcome(lead, kind="won", value="8,400")).status_code == 303
    text = await shop.page(f"/business/leads/{lead}")
    assert "Now: Won." in text
    assert "Worth $8,400.00." in text
    assert "$8,400.00" in await shop.page("/business/leads?outcome=won")
    assert "No lead fits" in await shop.page("/business/leads?outcome=lost")
    assert (await shop.audited()).count("lead.disposition") == 2


async def test_the_same_tap_twice_is_recorded_once(shop: Shop) -> None:
    lead = await shop.desk.sold()
    for _ in range(2):
        assert (await shop.report_outcome(lead, kind="contacted", once="evt_1c")).status_code == 303
    assert await shop.market.value("select count(*) from disposition") == 1


@pytest.mark.parametrize("fields", [
    {"kind": "won"}, {"kind": "won", "value": "a lot"}, {"kind": "won", "value": "1e99"},
    {"kind": "won", "value": "1.001"}, {"kind": "x"}, {}, {"kind": "lost", "reason": "x"},
    {"kind": "contacted", "note": "x" * 2_001},
])  # fmt: skip
async def test_an_outcome_with_a_fault_is_shown_again_and_records_nothing(shop: Shop, fields: dict[str, str]) -> None:
    lead = await shop.desk.sold()
    reply = await shop.report_outcome(lead, **fields)
    assert (reply.status_code, "needs attention" in reply.text) == (422, True)
    assert await shop.market.value("select count(*) from disposition") == 0


async def test_nobody_elses_lead_is_shown_or_told_of(shop: Shop) -> None:
    lead, stranger = await shop.desk.sold(), await stranger_of(shop)
    for path in (
        f"/business/leads/{lead}",
        f"/business/wallet?lead={lead}",
        f"/business/delivery?lead={lead}",
        "/business/leads",
        "/business/feed",
        "/business",
    ):
        assert "Robin Example" not in (await stranger.get(path)).text
    for path in ("outcome", "return"):
        reply = await stranger.post(f"/business/leads/{lead}/{path}", {"kind": "contacted", "ground": "outside_area"})
        assert reply.status_code == 404
    assert (await stranger.post("/business/delivery/resend", {"lead": lead})).status_code == 404


async def test_a_viewer_looks_and_takes_nothing_away(shop: Shop) -> None:
    lead = await shop.desk.sold()
    viewer = await signed_in(shop.api, "business", shop.desk.buyer.business_id, role="viewer")
    assert "Robin Example" in await shop.page("/business/leads", viewer)
    assert (await viewer.get("/business/leads?format=csv")).status_code == 403
    assert (await shop.report_outcome(lead, viewer, kind="contacted")).status_code == 403


async def test_a_file_of_leads_is_safe_in_a_spreadsheet(shop: Shop) -> None:
    contact = {
        "full_name": "=cmd()",
        "phone": "+1 312 555 0142",
        "email": "a@example.com",
        "postal_code": "60614",
        "country": "US",
    }
    await shop.desk.sold(contact=contact)
    reply = await shop.browser.get("/business/leads?format=csv")
    assert reply.headers["content-type"].startswith("text/csv")
    assert ",'=cmd()," in reply.text
    assert ",'+1 312" in reply.text


async def test_test_leads_are_apart(shop: Shop) -> None:
    lead = await shop.desk.rehearse()
    assert (await shop.browser.get(f"/business/leads/{lead}")).status_code == 404
    rehearsing = await signed_in(shop.api, "business", shop.desk.buyer.business_id, mode="test")
    assert "Not charged: this is a test." in await shop.page(f"/business/leads/{lead}", rehearsing)


async def test_an_undelivered_lead_shows_nobody(shop: Shop) -> None:
    shop.desk.behave(status(500))
    lead = await shop.desk.sold()
    text = await shop.page(f"/business/leads/{lead}")
    assert "On its way" in text
    assert "Your server answered 500." in text
    assert "Robin Example" not in text
    assert "Robin Example" not in await shop.page("/business/leads")


# --- returns ----------------------------------------------------------------------------------------------------------


async def test_a_return_is_asked_for_on_the_lead_and_its_finding_is_shown_there(shop: Shop) -> None:
    lead = await shop.desk.sold()
    assert "left</strong>" in await shop.page(f"/business/leads/{lead}")
    path = f"/business/leads/{lead}/return"
    for fields in ({"ground": "fraud"}, {"ground": "bant_mismatch"}, {"ground": "x"}, {}):
        assert (await shop.browser.post(path, fields)).status_code == 422, fields
    assert (await shop.browser.post(path, {"ground": "outside_area"})).status_code == 303
    text = await shop.page(f"/business/leads/{lead}")
    assert "Not refunded" in text
    assert "is in the area of the subscription" in text
    assert "is in the area of the subscription" in await shop.page("/business/returns")
    assert (await shop.browser.post(path, {"ground": "outside_area"})).status_code == 409


async def test_a_notice_is_shown_and_acknowledged_by_the_business_alone(shop: Shop) -> None:
    lead = await shop.desk.sold()
    assert "No notices yet" in await shop.page("/business/notices")
    await shop.desk.call("POST", "/v1/revocations", {"lead_id": lead, "reason": "said stop"}, by="operator")
    text = await shop.page("/business/notices")
    assert "Stop contacting this person" in text
    notice = ids.encode("ntc", await shop.market.value("select id from notice"))
    assert f'action="/business/notices/{notice}"' in text
    assert "1 notice waits" in await shop.page("/business")
    stranger = await stranger_of(shop)
    assert "notice waits" not in (await stranger.get("/business")).text
    assert (await stranger.post(f"/business/notices/{notice}", {})).status_code == 404
    assert (await shop.browser.post(f"/business/notices/{notice}", {})).status_code == 303
    assert "notice waits" not in await shop.page("/business")
    text = await shop.page("/business/notices?state=acknowledged")
    assert "Acknowledged" in text
    assert f'action="/business/notices/{notice}"' not in text
    assert lead in await shop.page("/business/notices?format=csv")
    assert "revocation.acknowledge" in await shop.audited()


async def test_calls_are_evidence_that_all_sides_see_and_no_number_is_kept(shop: Shop) -> None:
    lead = await shop.desk.sold()
    path = f"/business/leads/{lead}/return"
    called = clock.now().astimezone(ZoneInfo("America/Chicago"))
    form = {
        "ground": "wrong_person",
        "note": "A baker took it.",
        "called_1": f"{called:%Y-%m-%dT%H:%M}",
        "came_1": "somebody_else",
        "dialled_1": "(312) 555-0147",
        "called_2": "",
        "came_2": "no_answer",
    }
    ahead = f"{called + timedelta(days=1):%Y-%m-%dT%H:%M}"
    for change, field in (
        ({"called_1": ""}, "called_1"),
        ({"called_1": "noon"}, "called_1"),
        ({"called_3": ahead}, "called_3"),
        ({"came_1": "x"}, "came_1"),
    ):
        reply = await shop.browser.post(path, form | change)
        assert (reply.status_code, f'id="e-{field}"' in reply.text) == (422, True), change
        assert "A baker took it." in reply.text
    assert (await shop.browser.post(path, form)).status_code == 303
    evidence = await shop.market.value("select evidence::text from return_request")
    assert "0147" not in evidence
    assert evidence.count('"at"') == 1
    request_id = ids.encode("ret", await shop.market.value("select id from return_request"))
    operator = await signed_in(shop.api, "operator")
    provider = await signed_in(shop.api, "provider", shop.market.provider.owner)
    for browser, address in (
        (shop.browser, f"/business/leads/{lead}"),
        (operator, f"/operator/returns/{request_id}"),
        (provider, f"/provider/submissions/{lead}"),
    ):
        page = await shop.page(address, browser)
        assert "Somebody else" in page, address
        assert "ends in 47" in page, address
    assert "A baker took it." not in await shop.page(f"/provider/submissions/{lead}", provider)


# --- overview ---------------------------------------------------------------------------------------------------------


async def test_the_overview_counts_the_leads_and_asks_for_outcomes(shop: Shop) -> None:
    for number in range(3):
        await shop.desk.sold(number)
    await shop.report_outcome(await shop.desk.sold(3), kind="contacted")
    text = await shop.page("/business")
    assert '<a href="/business/leads?since=' in text
    assert ">4</a>" in text
    assert "3 leads have no outcome yet" in text
    assert "4 leads reached you in the last 7 days." in text
    assert "Your wallet covers 196 more leads at $50.00." in text


async def test_why_no_leads_come_is_answered_for_each_thing_in_the_way(shop: Shop) -> None:
    assert (await shop.browser.post("/business/pause", {"pause": "1"})).status_code == 303
    assert "Paused." in await shop.page("/business")
    assert (await shop.browser.post("/business/pause", {})).status_code == 303
    text = await shop.page("/business")
    assert "Your server accepts leads." in text
    assert "Few people in your area" in text
    await shop.market.owner.execute("update endpoint set breaker_open_until = now() + interval '5 minutes'")
    assert "failed repeatedly" in await shop.page("/business")
    fresh = await signed_in(shop.api, "business", (await shop.api.business())[0])
    assert "You have no subscription yet." in await shop.page("/business", fresh)


async def test_a_spent_limit_and_an_empty_wallet_are_said(shop: Shop, settings: Settings) -> None:
    subscription = anywhere(caps=({"window": "day", "count": 1},))
    poor = await shop.market.buyer(
        "https://poor.example.com/", msgspec.convert(subscription, SubscriptionDefinition), available_minor=0
    )
    await shop.market.owner.execute(
        "insert into cap_usage (subscription_id, cap_window, starts_at, used_count, limit_count) "
        "values ($1, 'day', date_trunc('day', now(), 'America/Chicago'), 1, 1)",
        poor.subscription_id,
    )
    text = await shop.page("/business", await signed_in(shop.api, "business", poor.business_id))
    assert "less than one lead costs ($50.00)" in text
    assert "limit for this day is used up" in text


async def test_a_lead_that_met_a_full_limit_is_among_the_missed_with_how_much_was_too_low(shop: Shop) -> None:
    full = await shop.market.buyer("https://full.example.com/", anywhere(caps=(a_cap("day", 1),)))
    await shop.market.owner.execute(
        "insert into cap_usage (subscription_id, cap_window, starts_at, used_count, limit_count) "
        "values ($1, 'day', date_trunc('day', now(), 'America/Chicago'), 1, 1)",
        full.subscription_id,
    )
    browser = await signed_in(shop.api, "business", full.business_id)
    assert "No lead in these days was kept from you" in await shop.page("/business/reports/missed", browser)
    await shop.desk.sold()
    sentence = "Raising the cap: +0 leads a week (1 more went to another business)."
    assert f"{sentence} It was too low by up to 1 lead on one day." in await shop.page(
        "/business/reports/missed", browser
    )
    file = (await browser.get("/business/reports/missed?format=csv")).text
    assert "cap_reached" in file
    assert "up to 1 lead on one day" in file
    assert "/business/reports/missed" in await shop.page("/business", browser)


async def test_a_limit_that_is_spread_says_when_the_next_lead_may_come(shop: Shop) -> None:
    subscription = anywhere(caps=(a_cap("day", 5),), pace=True, zone=early_zone())
    paced = await shop.market.buyer("https://paced.example.com/", subscription)
    await shop.market.owner.execute(
        "insert into cap_usage (subscription_id, cap_window, starts_at, used_count, limit_count) "
        "values ($1, 'day', date_trunc('day', now(), $2), 1, 1)",
        paced.subscription_id,
        subscription.zone,
    )
    text = await shop.page("/business", await signed_in(shop.api, "business", paced.business_id))
    assert "Your limit is spread over your open hours; the next lead may come in " in text


async def test_a_lead_appears_on_an_open_page_a_moment_after_its_delivery(shop: Shop) -> None:
    cookies = "; ".join(f"{name}={value}" for name, value in shop.browser.cookies.items())
    url = f"http://127.0.0.1:{shop.api.port}/live?parts=business.feed,business.why"
    async with (
        httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
        client.stream("GET", url, headers={"cookie": cookies}) as reply,
    ):
        lines = reply.aiter_lines()
        async for line in lines:
            if line == "event: business.why":
                break
        await asyncio.sleep(0.3)  # for the listener to hear
        await shop.desk.sold()
        async with asyncio.timeout(live.PING_SECONDS / 2):  # long before the page would have looked by itself
            async for line in lines:
                if "Robin Example" in line:
                    break


# --- wallet -----------------------------------------------------------------------------------------------------------


async def test_every_line_of_the_wallet_has_the_balance_after_it_on_every_page(shop: Shop) -> None:
    for number in range(3):
        await shop.desk.sold(number)
    whole = balances(await shop.page("/business/wallet"))
    assert whole == ["$9,850.00", "$9,900.00", "$9,950.00", "$10,000.00"]
    first = await shop.page("/business/wallet?limit=2")
    [following] = re.findall(r'href="(/business/wallet\?[^"]*cursor=[^"]+)" *>Next|rel="next" href="([^"]+)"', first)
    assert balances(first) + balances(await shop.page(following[0] or following[1])) == whole


def balances(text: str) -> list[str]:
    return re.findall(r'data-name="Balance" class="num[^"]*">([^<]+)<', text)


async def test_a_statement_adds_up_and_a_leads_own_lines_are_found(shop: Shop) -> None:
    lead = await shop.desk.sold()
    text = await shop.page("/business/wallet/statement")
    assert re.search(
        f"Balance at the beginning.*?\\$0.00.*?Lead charged.*?{MINUS}\\$50.00.*?Money added.*?\\$10,000.00"
        ".*?at the end.*?\\$9,950.00",
        text,
        re.S,
    )
    assert "Held for a lead" not in text
    own = await shop.page(f"/business/wallet?lead={lead}")
    assert (own.count("Lead charged"), own.count("Held for a lead")) == (1, 0)
    assert re.search(f"Lead charged.*?{MINUS}\\$50.00", own, re.S)
    assert "Money added" not in own
    assert "Statement of January 2026" in await shop.page("/business/wallet/statement?month=2026-01")
    assert (await shop.browser.get("/business/wallet/statement?month=x")).status_code == 200


async def test_a_statement_has_a_line_for_each_lead_charged_with_the_balance_after_it(shop: Shop) -> None:
    leads = [await shop.desk.sold(number) for number in (1, 2)]
    path = f"/business/wallet/statement?month={clock.now().astimezone(ZoneInfo('America/Chicago')):%Y-%m}"
    file = (await shop.browser.get(f"{path}&format=csv")).text.splitlines()
    rows = [line.split(",") for line in file[1:]]
    assert [row[-3:] for row in rows] == [
        ["1000000", "1000000", "USD"],
        ["-5000", "995000", "USD"],
        ["-5000", "990000", "USD"],
    ]
    assert all(lead in line for lead, line in zip(leads, file[2:], strict=True))
    page = await shop.page(path)
    assert balances(page)[-3:] == ["$10,000.00", "$9,950.00", "$9,900.00"]
    assert "Lead charged: Roofing, IL 60614" in page
    pdf = await shop.browser.get(f"{path}&format=pdf")
    assert pdf.headers["content-type"] == "application/pdf"
    assert pdf.content.startswith(b"%PDF-1.7")


async def test_a_lead_is_one_line_with_its_price_however_it_ended(shop: Shop) -> None:
    charged = await shop.desk.sold(1)
    shop.desk.behave(refuse("other"))
    refused = await shop.desk.sold(2)
    shop.desk.behave(status(503))
    under_way = await shop.desk.sold(3)
    text = await shop.page("/business/wallet")
    assert balances(text) == ["$9,950.00", "$10,000.00"]
    assert "$0.00" not in text
    assert f"{MINUS}$50.00" in await shop.page(f"/business/wallet?lead={charged}")
    assert "Not charged" in await shop.page(f"/business/wallet?lead={refused}")
    assert re.search(
        f"Held for a lead in delivery.*?{MINUS}\\$50.00", await shop.page(f"/business/wallet?lead={under_way}"), re.S
    )
    file = (await shop.browser.get("/business/wallet?format=csv")).text.splitlines()
    assert file[0] == "at,what,lead,payment,amount_minor,balance_minor,currency"
    assert [line.split(",")[4:6] for line in file[1:]] == [["-5000", "995000"], ["1000000", "1000000"]]


async def test_a_wallet_is_called_low_where_the_business_says(shop: Shop) -> None:
    assert (await shop.browser.post("/business/wallet/low", {"low_below": "x"})).status_code == 422
    assert (await shop.browser.post("/business/wallet/low", {"low_below": "20,000"})).status_code == 303
    assert '<span class="word">Low</span>' in await shop.page("/business/wallet")
    assert "wallet.low_below" in await shop.audited()


def test_money_is_read_as_people_write_it() -> None:
    assert [read_amount(text, "USD", "x") for text in ("8,400", "8400.50", "$1", "", None)] == [
        840_000,
        840_050,
        100,
        None,
        None,
    ]
    assert read_amount("5000", "JPY", "x") == 5_000


# --- first steps ------------------------------------------------------------------------------------------------------


async def owner_server(visit: Visit) -> None:
    """Return a challenge, and accept everything else."""
    await visit.read_request()
    kind = msgspec.json.decode(visit.body)["type"]
    body = b'{"status":"accepted"}'
    if kind == "endpoint.challenge":
        event = msgspec.json.decode(visit.body, type=ChallengeEvent)
        body = msgspec.json.encode({"challenge": event.data.challenge})
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    await visit.write(head + body)


async def test_a_business_sets_up_a_subscription_in_six_steps_and_can_leave_between_them(shop: Shop) -> None:
    owner = (await shop.api.business())[0]
    home = "/business/onboarding"
    first = await signed_in(shop.api, "business", owner)
    assert (await first.post(f"{home}/area", {"centre": "60614", "miles": "10"})).status_code == 409
    done = await first.post(f"{home}/company", {"name": "Northside Roofing", "zone": "America/Chicago"})
    assert done.headers["location"] == f"{home}/services"
    assert (await first.post(f"{home}/services", {"vertical": "roofing"})).status_code == 303
    assert (await first.post(f"{home}/area", {"centre": "99999", "miles": "10"})).status_code == 422

    browser = await signed_in(shop.api, "business", owner)  # another day, another device
    assert 'aria-current="step"><a href="/business/onboarding/area"' in await shop.page(home, browser)
    assert (await browser.post(f"{home}/area", {"centre": "60614", "miles": "25"})).status_code == 303
    week = {f"{what}_{day}": at for day in ("Mo", "Tu") for what, at in (("from", "08:00"), ("to", "18:00"))}
    assert (await browser.post(f"{home}/hours", week | {"price": "0"})).status_code == 422
    assert (await browser.post(f"{home}/hours", week | {"price": "62", "day_count": "5"})).status_code == 303
    async with Receiver(owner_server) as server:
        added = await browser.post(f"{home}/delivery", {"act": "add", "url": server.url})
        assert "whsec_" in added.text
        [endpoint] = set(re.findall(r'name="endpoint" value="(whe_\w+)"', added.text))
        trial = await browser.post(f"{home}/delivery", {"act": "test", "endpoint": endpoint})
        assert trial.status_code == 409  # not verified yet
        assert (await browser.post(f"{home}/delivery", {"act": "verify", "endpoint": endpoint})).status_code == 303
        trial = await browser.post(f"{home}/delivery", {"act": "test", "endpoint": endpoint})
        assert "Your server answered 200." in trial.text
        sent = msgspec.json.decode(server.visits[-1].body)
        assert (sent["type"], sent["data"]["mode"]) == ("lead.assigned", "test")
        assert (await browser.post(f"{home}/delivery", {"act": "use", "endpoint": endpoint})).status_code == 303
    assert (await browser.post(f"{home}/wallet", {"amount": "620", "low_below": "100"})).status_code == 303
    alert = await shop.market.row(
        "select object, detail ->> 'low_below_minor' as low from audit where action = 'wallet.low_below'"
    )
    assert alert == {"object": owner, "low": "10000"}

    saved = await shop.market.row(
        "select d.definition, s.state from subscription s join subscription_version d on d.subscription_id = s.id "
        "where s.business_id = $1",
        ids.decode("biz", owner),
    )
    made = msgspec.json.decode(saved["definition"], type=SubscriptionDefinition)
    assert (saved["state"], made.price_minor, made.area.circles[0].km) == ("active", 6_200, 40.2)
    assert made.hours == OpenHours(spec="Mo 08:00-18:00; Tu 08:00-18:00", zone="America/Chicago")
    assert "6 of 6 steps done" in await shop.page("/business", browser)


# --- matching rules ---------------------------------------------------------------------------------------------------


async def test_a_subscription_is_changed_by_its_form_and_what_the_form_does_not_show_stays(shop: Shop) -> None:
    subscription = ids.encode("sub", shop.desk.buyer.subscription_id)
    for number in range(4):
        await shop.desk.sold(number)
    text = await shop.page(f"/business/matching/{subscription}")
    assert "About 1 a week" in text
    assert "about 1 a week" in (await shop.page("/business/matching")).lower()
    fields = {
        "name": "Near us",
        "version": "1",
        "endpoint": ids.encode("whe", shop.desk.buyer.endpoint_id),
        "always": "1",
        "centre": "60614",
        "miles": "10",
        "codes": "60601, 60602\n60603",
        "price": "75.50",
        "week_count": "20",
        "month_amount": "900",
        "minimum_budget": "5000",
        "must_meet": "budget",
    }
    assert (await shop.browser.post(f"/business/matching/{subscription}", fields)).status_code == 303
    stale = await shop.browser.post(f"/business/matching/{subscription}", fields)
    assert (stale.status_code, "at version 2" in stale.text) == (409, True)
    made = msgspec.json.decode(
        await shop.market.value("select definition from subscription_version where version = 2"),
        type=SubscriptionDefinition,
    )
    assert (made.price_minor, made.area.postal_codes) == (7_550, ("60601", "60602", "60603"))
    assert {(cap.window, cap.count, cap.amount_minor) for cap in made.caps} == {
        ("week", 20, None),
        ("month", None, 90_000),
    }
    assert (made.bant.minimum_budget_minor, made.bant.must_meet, made.zone) == (500_000, ("budget",), "America/Chicago")
    assert "3 ZIP codes" in await shop.page(f"/business/matching/{subscription}")


@pytest.mark.parametrize("fault", [
    {"price": ""}, {"price": "x"}, {"centre": "60614"}, {"codes": "!"}, {"endpoint": "whe_x"}, {"version": "x"},
    {"day_count": "-1"}, {"minimum_score": "101"}, {"always": "", "from_Mo": "08:00", "to_Mo": ""},
])  # fmt: skip
async def test_a_subscription_with_a_fault_is_shown_again_and_stays(shop: Shop, fault: dict[str, str]) -> None:
    subscription = ids.encode("sub", shop.desk.buyer.subscription_id)
    fields = {
        "name": "Near us",
        "version": "1",
        "endpoint": ids.encode("whe", shop.desk.buyer.endpoint_id),
        "always": "1",
        "anywhere": "1",
        "price": "50",
    }
    reply = await shop.browser.post(f"/business/matching/{subscription}", fields | fault)
    assert (reply.status_code, "needs attention" in reply.text or "need attention" in reply.text) == (422, True)
    assert (
        await shop.market.value("select version from subscription where id = $1", shop.desk.buyer.subscription_id) == 1
    )


def test_hours_that_a_week_can_show_are_shown_and_others_are_left_alone() -> None:
    week = subscription_form.weekly_hours(OpenHours(spec="Mo-Fr 08:00-18:00; Sa 09:00-12:00", zone="UTC"))
    assert week is not None
    assert (week["We"], week["Sa"], week["Su"]) == (("08:00", "18:00"), ("09:00", "12:00"), ("", ""))
    seasonal = OpenHours(spec="Apr-Oct Mo-Fr 08:00-18:00", zone="UTC")
    assert subscription_form.weekly_hours(seasonal) is None
    assert subscription_form.read_hours({}, "UTC", seasonal) == seasonal


def test_an_area_is_said_in_a_line() -> None:
    area = Area(circles=(Circle(latitude=41.9, longitude=-87.6, km=40.2),), postal_codes=("60601",))
    assert subscription_form.area_words(area) == "25 miles (40 km) around 41.90, -87.60; 1 ZIP code"


# --- delivery ---------------------------------------------------------------------------------------------------------


async def test_every_attempt_is_shown_and_a_delivered_lead_can_be_sent_again_under_the_same_id(shop: Shop) -> None:
    seen: list[Visit] = []

    async def keep(visit: Visit) -> None:
        seen.append(visit)
        await ok(visit)

    shop.desk.behave(keep)
    lead = await shop.desk.sold()
    text = await shop.page("/business/delivery")
    assert "Your server answered 200." in text
    assert "1 of 1" in text
    before = await shop.market.wallet(shop.desk.buyer)
    again = await shop.browser.post("/business/delivery/resend", {"lead": lead})
    assert "Sent just now" in again.text
    first, second = [{name.lower(): value for name, value in visit.headers.items()} for visit in seen]
    assert first["webhook-id"] == second["webhook-id"]
    assert msgspec.json.decode(seen[0].body)["data"] == msgspec.json.decode(seen[1].body)["data"]
    assert await shop.market.wallet(shop.desk.buyer) == before
    assert "lead.resend" in await shop.audited()


async def test_an_endpoint_is_tried_switched_and_given_a_new_secret(shop: Shop) -> None:
    path = f"/business/delivery/{ids.encode('whe', shop.desk.buyer.endpoint_id)}"
    shop.desk.behave(answer(503, b"down for a while"))
    trial = await shop.browser.post(path, {"act": "test"})
    assert "Did not work" in trial.text
    assert "down for a while" in trial.text
    assert "End the old secret now" not in await shop.page("/business/delivery")
    assert "whsec_" in (await shop.browser.post(path, {"act": "rotate"})).text
    assert "End the old secret now" in await shop.page("/business/delivery")
    assert (await shop.browser.post(path, {"act": "end_previous"})).status_code == 303
    assert "End the old secret now" not in await shop.page("/business/delivery")
    assert (await shop.browser.post(path, {"act": "off"})).status_code == 303
    assert (await shop.browser.post(path, {"act": "test"})).status_code == 409
    assert (await shop.browser.post(path, {"act": "x"})).status_code == 422
    assert (await (await stranger_of(shop)).post(path, {"act": "rotate"})).status_code == 404
    assert (await shop.browser.post("/business/delivery", {"url": "ftp://x"})).status_code == 422
    for _ in range(2):
        assert "whsec_" in (await shop.browser.post("/business/delivery/hook")).text
    assert "End the old secret now" in await shop.page("/business/delivery")
    assert (await shop.browser.post("/business/delivery/hook", {"act": "end_previous"})).status_code == 303
    assert "End the old secret now" not in await shop.page("/business/delivery")


# --- reports ----------------------------------------------------------------------------------------------------------

HEADER = "Lead ID,Source,Date,Price,Won date,Sale value"


async def upload_for_preview(shop: Shop, path: str, content: bytes) -> tuple[str, str]:
    """Upload a file, and return the address and the text of its preview."""
    reply = await shop.send_file(path, content)
    assert reply.status_code == 303, reply.text
    address = reply.headers["location"]
    return address, unescape((await shop.browser.get(address)).text)


async def test_a_file_of_shared_leads_is_previewed_imported_and_undone(shop: Shop) -> None:
    day = f"{clock.now() - timedelta(days=40):%Y-%m-%d}"
    rows = [f"S{number},SharedCo,{day},30,," for number in range(5)]
    content = "\n".join([HEADER, *rows, f"S9,SharedCo,{day},a lot,,", f"S1,SharedCo,{day},31,,"]).encode()
    address, text = await upload_for_preview(shop, "/business/reports/shared-leads/preview", content)
    assert "5 rows are ready to import; 1 in conflict; 1 refused." in text
    assert "is stored with another cost" in text
    assert await shop.market.value("select count(*) from shared_lead") == 0
    assert (await shop.browser.get(f"{address}?format=csv")).text.count("\n") == 3
    stranger = await stranger_of(shop)
    assert (await stranger.get(address)).status_code == 404
    assert (await stranger.post(f"{address}/begin")).status_code == 404
    assert (await shop.browser.post(f"{address}/begin")).headers["location"] == address
    done = unescape((await shop.browser.get(address)).text)
    assert "Import finished" in done
    assert "Write an amount such as 45.50" in done
    assert await shop.market.value("select count(*) from shared_lead where undone_at is null") == 5
    assert (await shop.browser.get(f"{address}?outcome=refused&format=csv")).text.count("\n") == 2
    assert "SharedCo" in await shop.page("/business/reports/shared-leads")
    assert "SharedCo" not in await shop.page("/business/reports/shared-leads", stranger)
    assert (await stranger.post(f"{address}/undo")).status_code == 404
    assert (await shop.browser.post(f"{address}/undo")).status_code == 303
    assert "This import no longer counts in any report." in await shop.page(address)
    assert "SharedCo" not in await shop.page("/business/reports/shared-leads")
    assert "Import undone" in await shop.page(address)
    assert {"shared_leads.import", "import.undo"} <= set(await shop.audited())


async def test_what_the_rows_leave_open_is_asked_for_on_the_page(shop: Shop) -> None:
    header = "Lead ID,Source,Date,Price,Sale value,Status"
    content = "\n".join([header, "S1,SharedCo,03/04/2026,30,900,Signed it"]).encode()
    address, text = await upload_for_preview(shop, "/business/reports/shared-leads/preview", content)
    assert "the rows can be read in two ways" in text
    assert f'action="{address}/begin"' not in text
    columns = {
        f"column_{field}": name
        for field, name in (
            ("external_id", "Lead ID"),
            ("vendor", "Source"),
            ("received_at", "Date"),
            ("cost", "Price"),
            ("won_value", "Sale value"),
            ("status", "Status"),
        )
    }
    mapping = columns | {"dates": "dmy", "zone": "America/Chicago", "word": "Signed it", "meaning": "won"}
    refused = await shop.browser.post(f"{address}/look", mapping | {"dates": "ymd", "vendor": "SharedCo"})
    assert refused.status_code == 422
    assert 'id="e-dates"' in refused.text
    assert 'value="SharedCo"' in refused.text
    assert (await shop.browser.post(f"{address}/look", mapping)).status_code == 303
    text = await shop.page(address)
    assert "3 Apr 2026" in text
    assert f'action="{address}/begin"' in text
    await shop.browser.post(f"{address}/begin")
    assert await shop.market.value("select won_minor from shared_lead") == 90_000
    missing = columns | {"column_cost": "Nothing"}
    address, _ = await upload_for_preview(shop, "/business/reports/shared-leads/preview", content)
    await shop.browser.post(f"{address}/look", missing | {"dates": "dmy"})
    assert (await shop.browser.get(address)).status_code == 422


async def test_outcomes_are_reported_from_a_file_on_a_page_and_undone(shop: Shop) -> None:
    lead = await shop.desk.sold()
    when = f"{clock.now():%Y-%m-%dT%H:%M:%SZ}"
    content = f'lead_id,kind,happened_at,value\n{lead},won,{when},"$8,400"\nlead_1,won,{when},1\n'.encode()
    address, text = await upload_for_preview(shop, "/business/imports/outcomes", content)
    assert "1 row is ready to import; 1 refused." in text
    assert await shop.market.value("select count(*) from disposition") == 0
    await shop.browser.post(f"{address}/begin")
    assert await shop.market.value("select value_minor from disposition where undone_at is null") == 840_000
    assert "Outcomes" in await shop.page("/business/imports")
    assert (await shop.browser.post(f"{address}/undo")).status_code == 303
    assert await shop.market.value("select count(*) from disposition where undone_at is null") == 0
    assert "$8,400" not in await shop.page(f"/business/leads/{lead}")


async def test_a_file_as_large_as_any_may_be_is_followed_by_a_page_of_progress(shop: Shop) -> None:
    day = f"{clock.now() - timedelta(days=40):%Y-%m-%d}"
    rows = [f"S{number},{number * 7919 % 10_007:x} Company,{day},30,," for number in range(9_000)]
    address, text = await upload_for_preview(
        shop, "/business/reports/shared-leads/preview", "\n".join([HEADER, *rows]).encode()
    )
    assert "9,000 rows are ready to import" in text
    await shop.browser.post(f"{address}/begin")
    refreshed = 0
    while (page := await shop.browser.get(address)).headers.get("refresh"):
        assert "of 9,000 rows are done" in page.text
        refreshed += 1
        await asyncio.sleep(0.2)
    assert await shop.market.value("select count(*) from shared_lead") == 9_000


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x" * 300_000, b"PK\x03\x04"])
async def test_a_file_that_is_none_is_refused_in_words(shop: Shop, content: bytes) -> None:
    for path in ("/business/reports/shared-leads/preview", "/business/imports/outcomes"):
        reply = await shop.send_file(path, content)
        assert (reply.status_code, "attention" in reply.text or "problems" in reply.text) == (422, True)


async def test_a_file_without_the_columns_that_are_needed_asks_for_them(shop: Shop) -> None:
    for path in ("/business/reports/shared-leads/preview", "/business/imports/outcomes"):
        reply = await shop.send_file(path, b"a,b\n1,2\n")
        page = await shop.browser.get(reply.headers["location"])
        assert (page.status_code, "attention" in page.text) == (422, True)


async def test_whether_it_pays_is_answered_with_what_it_rests_on(shop: Shop) -> None:
    assert "No job won so far." in await shop.page("/business/reports/roi")
    await shop.report_outcome(await shop.desk.sold(), kind="won", value="8,400")
    text = await shop.page("/business/reports/roi")
    at_once = "1 job won so far, $8,400.00; in a week that is still open and not yet in the estimate."
    assert at_once in text
    assert at_once in await shop.page("/business")
    assert "There is nothing to compare with yet" in text
    counted = {"leads": "200", "won": "10", "weeks": "13"}
    for fields in (
        {"cost": "30"},
        counted,
        {"cost": "x"} | counted,
        {"cost": "30"} | counted | {"weeks": ""},
        {"cost": "30"} | counted | {"won": "201"},
        {"cost": "30"} | counted | {"won": "0"},
    ):
        assert (await shop.browser.post("/business/reports/roi", fields)).status_code == 422, fields
    assumptions = {"cost": "30", "labour": "20", "source": "last year's books"} | counted
    assert (await shop.browser.post("/business/reports/roi", assumptions)).status_code == 303
    text = await shop.page("/business/reports/roi")
    assert "what you declared" in text
    assert "Too early to say" in text
    assert "better than shared leads" not in text
    assert 'value="30.00"' in text
    assert "roi.assume" in await shop.audited()
    file = await shop.browser.get("/business/reports/roi?format=csv")
    assert file.text.startswith("about,figure,value,low,high")
    assert "won so far,value_minor,840000,," in file.text


async def test_declared_figures_are_saved_as_they_stand_as_often_as_one_likes(shop: Shop) -> None:
    path = "/business/reports/roi"
    declared = {"cost": "30.05", "leads": "243", "won": "30", "weeks": "13", "value": "900", "copies": "3.5"}
    declared |= {"labour": "20.10"}
    assert (await shop.browser.post(path, declared | {"source": "our books"})).status_code == 303
    sql = "select row_to_json(a)::jsonb - 'made_at' - 'id' from roi_assumption a"
    before = await shop.market.value(sql)
    for _ in range(2):
        assert (await shop.browser.post(path, read_form(await shop.page(path), path))).status_code == 303
        assert await shop.market.value(sql) == before


async def test_the_first_steps_are_saved_as_they_stand_as_often_as_one_likes(shop: Shop) -> None:
    home = "/business/onboarding"
    forms = {
        "company": {"name": "Northside Roofing", "zone": "America/Chicago"},
        "services": {"vertical": "roofing"},
        "area": {"centre": "60614", "miles": "25", "prefixes": "606"},
        "wallet": {"amount": "620", "low_below": "100"},
        "hours": {"always": "1", "price": "62", "day_count": "5"},
    }
    for step, fields in forms.items():
        assert (await shop.browser.post(f"{home}/{step}", fields)).status_code == 303, step
    sql = "select chosen::text from onboarding"
    low_below = "select low_below_minor from wallet where business_id = $1"
    before = await shop.market.value(sql), await shop.market.value(low_below, shop.desk.buyer.business_id)
    for step in forms:
        for _ in range(2):
            fields_as_shown = read_form(await shop.page(f"{home}/{step}"), f"{home}/{step}")
            assert (await shop.browser.post(f"{home}/{step}", fields_as_shown)).status_code == 303, step
    assert (await shop.market.value(sql), await shop.market.value(low_below, shop.desk.buyer.business_id)) == before


async def test_an_area_that_no_lead_could_lie_in_is_refused_at_its_own_step(shop: Shop) -> None:
    home = "/business/onboarding"
    assert (await shop.browser.post(f"{home}/services", {"vertical": "roofing"})).status_code == 303
    for fields, field in (
        ({"prefixes": "6061234"}, "prefixes"),
        ({"countries": "USA"}, "countries"),
        ({"codes": "!"}, "codes"),
    ):
        reply = await shop.browser.post(f"{home}/area", fields)
        assert (reply.status_code, f'id="e-{field}"' in reply.text) == (422, True)


async def test_speed_and_sources_tell_of_ones_own_leads_and_print_their_basis(shop: Shop) -> None:
    await shop.report_outcome(await shop.desk.sold(), kind="won", value="100")
    speed, sources = await shop.page("/business/reports/speed"), await shop.page("/business/reports/sources")
    assert "By received time, America/Chicago" in speed
    assert "You confirmed" in speed
    assert "Google" in sources
    assert f"${PRICE_MINOR / 100:.2f}" in sources
    assert "No leads in these days" in await shop.page("/business/reports/sources", await stranger_of(shop))
    assert (await shop.browser.get("/business/reports/speed?from=x")).status_code == 422
    assert (await shop.browser.get("/business/reports/sources?format=csv")).text.count("\n") == 2


async def test_an_endpoint_says_where_its_time_goes_and_how_close_it_is_to_a_pause(shop: Shop) -> None:
    shop.desk.behave(status(500))
    for number in range(1, 4):
        await shop.desk.sold(number)
    text = await shop.page("/business/delivery")
    assert "50% of the failures that pause it" in text
    assert re.search(r"connection [\d.]+ m?s, 95% within", text)
    assert re.search(r"answer [\d.]+ m?s, 95% within", text)
    assert "encryption" not in text
    for number in range(4, 6):
        await shop.desk.sold(number)
    assert "Paused after failures" in await shop.page("/business/delivery")
