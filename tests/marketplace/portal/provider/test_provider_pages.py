"""Provider pages: going live, console, spec, submissions, figures, earnings and keys."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from html import unescape
from typing import Any

import msgspec
import pytest

from marketplace.directory import posting
from marketplace.directory.posting import PastVersion
from marketplace.portal.provider.wording import NOT_AVAILABLE, REASONS, STATES, reason_in_words
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from routing.lifecycle import LeadState
from routing.matching import Rule
from routing.qualification import RejectionReason
from routing.ranking import Strategy
from tests.builders.feedback import Desk, desk
from tests.builders.inquiries import NOW, changed, roofing_body
from tests.builders.marketplaces import roofing
from tests.builders.portal import Browser, signed_in
from tests.waiting import PATIENCE, within

POOR = {"budget": {"minor": 5, "currency": "USD"}, "need": {"fields": {"roof_type": "tile"}}}
SPOKEN = 'name="body"[^>]*>(.*?)</textarea>'


def in_days(days: int) -> str:
    """Return the day that is `days` from today."""
    return f"{clock.now() + timedelta(days=days):%Y-%m-%d}"


class Office:
    """A marketplace with a buying business, and a signed-in member of its provider."""

    def __init__(self, desk: Desk, browser: Browser) -> None:
        self.desk, self.browser, self.market, self.api = desk, browser, desk.market, desk.api

    @property
    def provider_id(self) -> str:
        return ids.encode("prov", self.market.provider.owner)

    async def page(self, path: str, browser: Browser | None = None) -> str:
        reply = await (browser or self.browser).get(path)
        assert reply.status_code == 200, reply.text
        return reply.text

    async def send(self, body: dict[str, Any] | str) -> str:
        """Send this body from the console and return the page."""
        text = body if isinstance(body, str) else msgspec.json.encode(body).decode()
        reply = await self.browser.post("/provider/console", {"body": text})
        assert reply.status_code == 200, reply.text
        return unescape(reply.text)

    async def sample(self, kind: str = "good") -> dict[str, Any]:
        """Return the sample body that the console shows."""
        match = re.search(SPOKEN, await self.page(f"/provider/console?sample={kind}"), re.DOTALL)
        assert match
        body: dict[str, Any] = msgspec.json.decode(unescape(match[1]))
        return body

    async def approve(self) -> None:
        """Approve the provider as an operator."""
        operator = await signed_in(self.api, "operator")
        assert "Approve Example Provider" in await self.page("/operator/going-live", operator)
        await operator.post(f"/operator/going-live/{self.provider_id}")
        assert "No provider is waiting." in await self.page("/operator/going-live", operator)


@pytest.fixture
async def office(settings: Settings) -> AsyncIterator[Office]:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings)
        yield Office(made, await signed_in(made.api, "provider", made.market.provider.owner))


@pytest.fixture
async def newcomer(office: Office) -> Office:
    """A member of a provider that has no key yet."""
    fresh = (await office.market.another_provider()).owner
    office.market.provider = msgspec.structs.replace(office.market.provider, owner_id=fresh)
    return Office(office.desk, await signed_in(office.api, "provider", fresh))


# --- from the first key to a live one ---------------------------------------------------------------------------------


async def test_a_provider_goes_from_the_console_to_a_live_key(newcomer: Office) -> None:
    assert (await newcomer.page("/provider/start")).count('<li class="is-muted">') == 3
    body = await newcomer.sample()
    first = await newcomer.send(body)
    assert "202 Accepted" in first
    repeat = await newcomer.send(body)
    assert "idempotency-replayed: true" in repeat
    refused = await newcomer.send(await newcomer.sample("faulty"))
    assert "422" in refused
    assert '"code": "phone_invalid"' in refused
    start = await newcomer.page("/provider/start")
    assert start.count('<li class="is-good">') == 3
    assert "Ask to go live" in start
    answer = await newcomer.browser.post("/provider/start/live")
    assert answer.headers["location"] == "/provider/start"
    assert "An operator checks your test" in await newcomer.page("/provider/start")
    early = await newcomer.browser.post("/provider/keys", {"name": "form", "mode": "live"})
    assert (early.status_code, "lk_live_" in early.text) == (409, False)
    await newcomer.approve()
    made = await newcomer.browser.post("/provider/keys", {"name": "form", "mode": "live"})
    key = re.search("<code>(lk_live_[0-9a-z_]+)</code>", made.text)
    assert key
    assert key[1] not in await newcomer.page("/provider/keys")
    accepted = await newcomer.api.call("POST", "/v1/inquiries", roofing_body(7, clock.now()), key=key[1])
    assert (accepted.status_code, accepted.json()["mode"]) == (202, "live")
    assert [action for action, _ in await newcomer.api.audited()] == [
        "provider.request_live", "provider.approve_live", "key.create",
    ]  # fmt: skip


async def test_asking_before_the_checks_are_green_is_refused_and_not_recorded(newcomer: Office) -> None:
    await newcomer.browser.post("/provider/start/live")
    assert "Let the three checks turn green first" in await newcomer.page("/provider/start")
    assert await newcomer.api.audited() == []


async def test_checks_turn_green_from_a_test_key_as_well(newcomer: Office) -> None:
    key = await newcomer.api.key("provider", newcomer.provider_id, "test")
    body = changed(roofing_body(8, clock.now()), "bant.timing", {"not_before": in_days(100)})
    later = changed(body, "provider_reference", "another")
    faulty = changed(changed(body, "contact.phone", "123"), "provider_reference", "a third")
    answers = [await newcomer.api.call("POST", "/v1/inquiries", each, key=key) for each in (body, later, faulty)]
    assert [answer.status_code for answer in answers] == [202, 200, 422]
    await newcomer.send(await newcomer.sample("faulty"))  # which writes what was counted
    assert (await newcomer.page("/provider/start")).count('<li class="is-good">') == 3


# --- the console ------------------------------------------------------------------------------------------------------


async def test_the_console_shows_the_very_answer_the_reading_the_points_and_what_would_become_of_it(
    office: Office,
) -> None:
    body = changed(await office.sample(), "contact.phone", "(312) 555-0143")
    text = await office.send(body)
    row = await office.market.row("select id, mode, provider_id from lead")
    assert (row["mode"], row["provider_id"]) == ("test", office.market.provider.owner)
    match = re.search(r'"id": "(lead_[0-9a-z]{26})"', text)
    assert match
    assert ids.decode("lead", match[1]) == row["id"]
    assert "+13125550143" in text
    assert "A business would take it" in text
    assert "100 of 100 points" in text
    assert "Example Business" not in text
    trace = await office.page(f"/provider/submissions/{match[1]}")
    assert "A test submission" in trace


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("bant.budget", {"minor": 100, "currency": "USD"}, "The budget is below the minimum of this service."),
        ("bant.timing", {"not_before": in_days(130)}, "Too early"),
        ("contact.email", None, "/contact/email"),
        ("nonsense", 1, "unknown_field"),
    ],
)
async def test_the_console_says_why_not(office: Office, path: str, value: object, says: str) -> None:
    assert says in await office.send(changed(await office.sample(), path, value))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"vertical": 1}', "\x00", "<script>", "{" * 200, '"' * 20_000]
)
async def test_whatever_is_typed_the_console_answers(office: Office, text: str) -> None:
    page = await office.send(text)
    assert re.search('badge is-bad">4[0-9][0-9]', page)
    assert await office.market.value("select count(*) from inquiry") == 0


async def test_a_viewer_sends_nothing_and_makes_no_key(office: Office) -> None:
    viewer = await signed_in(office.api, "provider", office.market.provider.owner, role="viewer")
    body = msgspec.json.encode(roofing_body(9, clock.now())).decode()
    replies = [
        await viewer.post("/provider/console", {"body": body}), await viewer.post("/provider/keys", {"name": "a"}),
        await viewer.post("/provider/start/live"),
    ]  # fmt: skip
    assert [reply.status_code for reply in replies] == [403, 403, 403]
    assert await office.market.value("select count(*) from inquiry") == 0


# --- the spec ---------------------------------------------------------------------------------------------------------


async def test_the_spec_names_every_field_and_its_link_opens_it_to_others(office: Office) -> None:
    page = await office.page("/provider/spec")
    for field in ("contact.phone", "bant.need.fields.roof_type", "consent.text", "attribution.sub_ids"):
        assert f"<code>{field}</code>" in page
    link = re.search(r'href="(/spec/[^"/]+)/fields.csv"', page)
    assert link
    stranger = Browser(office.api)
    assert "tile, shingle, metal" in await office.page(link[1], stranger)
    fields = await stranger.get(f"{link[1]}/fields.csv")
    assert fields.headers["content-type"].startswith("text/csv")
    assert "bant.need.fields.roof_type,choice,yes,tile" in fields.text
    schema = (await stranger.get(f"{link[1]}/schema.json")).json()
    assert schema["$defs"]["NeedBody"]["properties"]["fields"]["required"] == ["roof_type"]
    assert schema["$defs"]["InquiryBody"]["properties"]["vertical"] == {"const": "roofing"}
    for place in (len("/spec/"), len("/spec/") + 30, len(link[1]) - 1):  # whose it is, the seal, the service
        other = "A" if link[1][place] != "A" else "B"
        assert (await stranger.get(link[1][:place] + other + link[1][place + 1 :])).status_code == 404
    for token in ("x", "A" * 43, "%00", "ä", "A" * 400):
        assert (await stranger.get(f"/spec/{token}")).status_code == 404
    await office.market.owner.execute("update provider set state = 'suspended'")
    assert (await stranger.get(link[1])).status_code == 404


async def test_the_sample_of_the_spec_is_accepted_by_the_interface(office: Office) -> None:
    body = await office.sample()
    reply = await office.api.call("POST", "/v1/inquiries:validate", body, key=office.desk.keys["provider"])
    assert (reply.status_code, reply.json()["would"]) == (200, "prospect")


async def test_the_python_sample_of_the_spec_runs_as_it_stands(office: Office) -> None:
    url = f"http://127.0.0.1:{office.api.port}"
    samples = {
        sample.language: sample.code
        for sample in posting.samples(await office.sample(), url, office.desk.keys["provider"])
    }
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", samples["Python"], stdout=asyncio.subprocess.PIPE, env={"no_proxy": "*"}
    )
    output, _ = await within(PATIENCE, running.communicate(), "the sample of the spec to end")
    assert output.startswith(b"202 {")
    assert samples.keys() == {"curl", "Python", "PHP", "JavaScript"}


async def test_the_change_log_says_what_a_version_asks_differently(office: Office) -> None:
    path = "/v1/verticals/roofing"
    read = (await office.api.call("GET", path)).json()
    read["definition"]["needs"]["storm"] = {"kind": "boolean", "required": True}
    del read["definition"]["needs"]["owns_home"]
    read["definition"]["requires_email"] = False
    reply = await office.api.call("PUT", path, {"version": 1, "definition": read["definition"]})
    assert reply.status_code == 200, reply.text
    page = await office.page("/provider/spec")
    assert "bant.need.fields.storm is new, and required." in page
    assert "bant.need.fields.owns_home was taken out: leave it out." in page
    assert "contact.email is no longer required." in page
    assert "First version." in page


# --- submissions ------------------------------------------------------------------------------------------------------


async def test_a_sold_lead_is_told_in_the_providers_words_without_a_word_on_the_business(office: Office) -> None:
    lead = await office.desk.sold(1)
    page = await office.page(f"/provider/submissions/{lead}")
    titles = [unescape(title) for title in re.findall("<p><strong>(.*?)</strong></p>", page)]
    assert titles == [
        "Submitted by the person", "Received", "Qualified and assigned to one business", "Sent to the business",
        "Sold: the business received it",
    ]  # fmt: skip
    assert "$30.00" in page
    assert "$50.00" not in page
    for secret in ("Example Business", office.desk.business_id, "/hook", "robin.1@example.com", "+1312555"):
        assert secret not in page


async def test_a_return_is_told_with_its_reason_and_the_payout_is_gone(office: Office) -> None:
    lead = await office.desk.sold(1)
    request = (await office.desk.give_back(lead, reason="wrong_person", note="It is a bakery.")).json()
    await office.desk.judge(request["id"], "granted", "Somebody else answered.")
    page = unescape(await office.page(f"/provider/submissions/{lead}"))
    assert "Returned: the payout was taken back" in page
    assert "Somebody else answered." in page
    assert "Somebody else answered." in page
    earnings = unescape(await office.page("/provider/earnings"))
    assert ("$30.00" in earnings, "\u2212$30.00" in earnings) == (True, True)
    assert '<p class="figure">$0.00</p>' in earnings


@pytest.mark.parametrize("looked_for", ["ref-3", "robin.3@example.com", "ROBIN.3@Example.com", "(312) 555-0103"])
async def test_a_submission_is_found_by_reference_address_or_number_and_no_address_holds_a_person(
    office: Office, looked_for: str
) -> None:
    for number in (2, 3):
        await office.desk.sold(number)
    reply = await office.browser.post("/provider/submissions/search", {"q": looked_for})
    where = reply.headers["location"]
    assert "robin" not in where.lower()
    assert "5550103" not in where
    page = await office.page(where)
    assert ("ref-3" in page, ">ref-2<" in page) == (True, False)
    other = await signed_in(office.api, "provider", (await office.market.another_provider()).owner)
    assert ">ref-3<" not in await office.page(where, other)


@pytest.mark.parametrize("looked_for", ["Jane.Doe@googlemail.com", "janedoe+x@gmail.com", "jane.doe@gmail.com"])
async def test_a_submission_is_found_by_any_spelling_of_its_mailbox(office: Office, looked_for: str) -> None:
    contact = roofing_body(4)["contact"] | {"email": "jane.doe@gmail.com"}
    await office.desk.sold(4, contact=contact)
    await office.desk.sold(5)
    reply = await office.browser.post("/provider/submissions/search", {"q": looked_for})
    page = await office.page(reply.headers["location"])
    assert (">ref-4<" in page, ">ref-5<" in page) == (True, False)


async def test_a_search_by_our_id_leads_to_it_and_one_that_finds_nothing_says_what_to_do(
    office: Office,
) -> None:
    lead = await office.desk.sold(1)
    reply = await office.browser.post("/provider/submissions/search", {"q": f" {lead} "})
    assert reply.headers["location"] == f"/provider/submissions/{lead}"
    for nothing in ("nobody@example.com", "+1 212 555 0199", "a" * 255, "' or 1=1 --"):
        reply = await office.browser.post("/provider/submissions/search", {"q": nothing})
        assert "No submission was found." in await office.page(reply.headers["location"])
    assert (await office.browser.post("/provider/submissions/search", {"q": "x", "csrf": "y"})).status_code == 403


async def test_the_list_filters_pages_and_goes_into_a_file(office: Office) -> None:
    for number in range(5):
        await office.market.submit(number)
    await office.market.submit(5, bant=POOR)
    for row in await office.market.owner.fetch("select id from lead"):
        await office.market.walker.walk(row["id"])
    assert (await office.page("/provider/submissions")).count('data-name="Reference"') == 6
    rejected = await office.page("/provider/submissions?state=rejected")
    assert (rejected.count('data-name="Reference"'), "The budget is below the minimum" in rejected) == (1, True)
    for query in ("", "state=delivered&"):
        first = await office.page(f"/provider/submissions?{query}limit=2")
        following = re.search('rel="next" href="([^"]+)"', first)
        assert following
        second = await office.page(unescape(following[1]))
        ids_of = [set(re.findall("/provider/submissions/(lead_[0-9a-z]{26})", page)) for page in (first, second)]
        assert [len(leads) for leads in ids_of] == [2, 2]
        assert ids_of[0].isdisjoint(ids_of[1])
    file = await office.browser.get("/provider/submissions?format=csv")
    assert len(file.text.splitlines()) == 7
    for wrong in ("state=nowhere", "from=yesterday", "limit=0", "cursor=x", "from=2026-02-01&to=2026-01-01"):
        assert (await office.browser.get(f"/provider/submissions?{wrong}")).status_code == 422, wrong


# --- figures ----------------------------------------------------------------------------------------------------------


async def test_the_overview_counts_what_was_sent_and_says_why_the_rest_was_refused(office: Office) -> None:
    await office.desk.sold(1)
    await office.desk.sold(2, bant=POOR)
    again = changed(roofing_body(1, clock.now()), "provider_reference", "once more")
    bad = changed(roofing_body(4, clock.now()), "contact.phone", "123")
    for body in (again, bad, changed(bad, "contact.postal_code", None)):
        await office.api.call("POST", "/v1/inquiries", body, key=office.desk.keys["provider"])
    await office.send("{")  # in test mode: writes the counts, and is in no total
    page = unescape(await office.page("/provider"))
    figures = re.findall(r'<p class="figure">(?:<a [^>]*>)?([^<]+)', page)
    assert figures == ["2", "40.0%", "1", "0", "$30.00"]
    faults = re.findall(r'<code>([a-z_.]+)</code></td><td data-name="Reason"><code>([a-z_]+)</code></td>'
                        r'<td data-name="Requests" class="num">([0-9]+)', page)  # fmt: skip
    assert faults == [("contact.phone", "phone_invalid", "2"), ("contact.postal_code", "field_missing", "1")]
    assert "The budget is below the minimum of this service." in page
    assert "ad 7" in page
    quality = unescape(await office.page("/provider/quality"))
    assert "1 of 2 leads qualified" in quality
    file = await office.browser.get("/provider/quality?format=csv")
    assert file.text.splitlines()[1].startswith("all,5,2,2,1,1,1,1,0")
    other = await signed_in(office.api, "provider", (await office.market.another_provider()).owner)
    assert "phone_invalid" not in await office.page("/provider", other)


async def test_quality_has_an_example_of_each_fault_and_reason_from_which_nobody_can_be_told(office: Office) -> None:
    poor = await office.desk.sold(2, bant=POOR)
    secret = "Call 312-555-0142 or ann@Example.com"
    for pointer, value in (("contact.phone", secret), ("contact.full_name", 77), ("bant.budget.minor", "12,000")):
        body = changed(roofing_body(4, clock.now()), pointer, value)
        await office.api.call("POST", "/v1/inquiries", body, key=office.desk.keys["provider"])
    missing = changed(roofing_body(4, clock.now()), "contact.postal_code", None)
    await office.api.call("POST", "/v1/inquiries", missing, key=office.desk.keys["provider"])
    await office.send("{")  # in test mode: writes the counts
    quality = unescape(await office.page("/provider/quality"))
    lines = r'<code>([a-z_.]+)</code></td><td data-name="Reason">.*?data-name="Last value \(masked\)"><code>(.*?)<'
    values = dict(re.findall(lines, quality))
    assert values == {
        "contact.phone": "“Xxxx 000-000-0000 xx xxx@Xxxxxxx.xxx”", "contact.full_name": "00",
        "bant.budget.minor": "“00,000”", "contact.postal_code": "nothing",
    }  # fmt: skip
    stored = await office.market.value("select string_agg(shape, ' ') from refusal_example")
    assert not any(part in stored for part in ("312", "0142", "ann@", "Call"))
    [example] = re.findall(r'data-name="For example"><a href="/provider/submissions/(lead_[0-9a-z]+)">.*?</a> ([^<]+)<',
                           quality)  # fmt: skip
    assert example[0] == poor
    assert "required" in example[1]
    other = await signed_in(office.api, "provider", (await office.market.another_provider()).owner)
    assert "Last value (masked)" not in await office.page("/provider/quality", other)


async def test_test_data_is_in_no_live_figure(office: Office) -> None:
    await office.send(await office.sample())
    assert "You sent nothing on these days" in await office.page("/provider")
    await office.browser.post("/account/mode", {"mode": "test"})
    figures = re.findall(r'<p class="figure">(?:<a [^>]*>)?([^<]+)', await office.page("/provider"))
    assert figures[:2] == ["1", "100.0%"]


async def test_a_statement_adds_up_from_what_was_owed_before_to_what_is_owed_after(office: Office) -> None:
    for number in (1, 2):
        await office.desk.sold(number)
    month = clock.now().strftime("%Y-%m")
    page = unescape(await office.page(f"/provider/earnings/statement?month={month}"))
    cash = re.findall(r'data-name="([A-Za-z ]+)" class="num[^"]*">([^<]+)<', page)
    assert cash[:5] == [
        ("Owed before", "$0.00"),
        ("Earned", "$60.00"),
        ("Taken back", "$0.00"),
        ("Paid to you", "$0.00"),
        ("Owed after", "$60.00"),
    ]
    assert sum(name == "Amount" for name, _ in cash) == 2
    file = await office.browser.get(f"/provider/earnings/statement?month={month}&format=csv")
    assert file.text.count(",payout,") == 2
    for wrong in ("2026-13", "x", "2026-1"):
        assert (await office.browser.get(f"/provider/earnings/statement?month={wrong}")).status_code == 404


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_a_key_is_rotated_with_an_overlap_and_revoked_with_a_reason(office: Office) -> None:
    old = office.desk.keys["provider"]
    key_id = old.split("_")[2]
    rotated = await office.browser.post(f"/provider/keys/{key_id}/rotate", {"hours": "1"})
    new = re.search("<code>(lk_live_[0-9a-z_]+)</code>", rotated.text)
    assert new
    for key in (old, new[1]):
        assert (await office.api.call("GET", "/v1/inquiries", key=key)).status_code == 200
    assert (await office.browser.post(f"/provider/keys/{key_id}/revoke", {"reason": " "})).status_code == 422
    done = await office.browser.post(f"/provider/keys/{key_id}/revoke", {"reason": "It was in a repository."})
    assert done.status_code == 303
    assert (await office.api.call("GET", "/v1/inquiries", key=old)).status_code == 401
    assert [action for action, _ in await office.api.audited()] == ["key.rotate", "key.revoke"]
    detail = await office.market.value("select detail from audit where action = 'key.revoke'")
    assert msgspec.json.decode(detail) == {"reason": "It was in a repository."}


async def test_a_key_of_somebody_else_does_not_exist(office: Office) -> None:
    for name in ("other provider", "business", "operator"):
        key_id = office.desk.keys[name].split("_")[2]
        for act, fields in (("rotate", {"hours": "1"}), ("revoke", {"reason": "a"})):
            reply = await office.browser.post(f"/provider/keys/{key_id}/{act}", fields)
            assert reply.status_code == 404
    assert (await office.browser.post("/provider/keys/x/revoke", {"reason": "a"})).status_code == 404


@pytest.mark.parametrize("fields", [{}, {"name": ""}, {"name": "a", "mode": "x"}, {"name": "a", "days": "0"},
                                    {"name": "a" * 101}])  # fmt: skip
async def test_a_key_form_with_a_fault_is_shown_again(office: Office, fields: dict[str, str]) -> None:
    reply = await office.browser.post("/provider/keys", fields)
    assert (reply.status_code, "needs attention" in reply.text) == (422, True)


# --- words ------------------------------------------------------------------------------------------------------------


def test_every_state_and_every_reason_has_its_words() -> None:
    assert STATES.keys() == set(LeadState)
    assert set(RejectionReason) <= REASONS.keys()
    for rule in Rule:
        assert reason_in_words(rule) in {*REASONS.values(), NOT_AVAILABLE}
    assert reason_in_words("wallet_empty") == reason_in_words("paused") == NOT_AVAILABLE


def test_a_version_that_changes_nothing_for_providers_is_not_in_the_log() -> None:
    first = PastVersion(version=1, definition=roofing(), made_at=NOW)
    dearer = msgspec.structs.replace(first, version=2, definition=roofing(strategy=Strategy.weighted_share))
    assert [change.version for change in posting.changes((dearer, first))] == [1]
    assert posting.changes(()) == ()
