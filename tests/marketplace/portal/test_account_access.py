"""Access that an operator opens to a tenant's account: shown to its owners, and recorded in the reveal log."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from marketplace.runtime import ids
from marketplace.runtime.settings import Settings
from tests.builders.feedback import Desk, desk
from tests.builders.portal import Browser, signed_in
from tests.builders.service import an_order

PASSWORD = "four plain words here"
WHY = "Helps with the CRM"


class Account:
    """A business with an owner and one lead, and an operator who wants to see the lead."""

    def __init__(self, desk: Desk, owner: Browser, operator: Browser, lead: str) -> None:
        self.desk, self.owner, self.operator, self.lead = desk, owner, operator, lead
        self.team = f"/operator/accounts/{desk.business_id}/team"

    async def enter(self, **fields: Any) -> Browser:
        """Return a browser signed in as a member of the business, by an invitation of the operator."""
        body = {"email": "op@elsewhere.example", "role": "owner", "reason": WHY} | fields
        reply = await self.operator.post(self.team, body)
        return await self.follow(reply.text, {"name": "Op Example", "password": PASSWORD})

    async def follow(self, page: str, fields: dict[str, str]) -> Browser:
        [path] = re.findall(r"https://marketplace\.example\.org(/link/[\w-]+)", page)[:1]
        browser = Browser(self.desk.api)
        assert (await browser.post(path, fields)).status_code == 303
        return browser

    async def reveals(self) -> list[tuple[str, str, str]]:
        """Return lead, actor and reason of each recorded reveal."""
        rows = await self.desk.api.pool.fetch(
            "select object, actor, detail ->> 'reason' as reason from audit where action = 'contact.reveal' order by id"
        )
        return [(row["object"], row["actor"], row["reason"]) for row in rows]

    @property
    def revealed(self) -> list[tuple[str, str, str]]:
        assert self.operator.member_id
        return [(self.lead, ids.encode("mem", self.operator.member_id), WHY)]

    async def decide(self, act: str, browser: Browser | None = None) -> int:
        subject = await self.desk.api.pool.fetchval("select subject from opened_access")
        reply = await (browser or self.owner).post("/account/access", {"act": act, "subject": subject})
        return reply.status_code


@pytest.fixture
async def account(settings: Settings) -> AsyncIterator[Account]:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings)
        owner = await signed_in(made.api, "business", made.business_id)
        operator = await signed_in(made.api, "operator", role="member")
        yield Account(made, owner, operator, await made.sold())


async def test_an_operator_says_why_before_anybody_is_let_into_an_account_in_use(account: Account) -> None:
    reply = await account.operator.post(account.team, {"email": "op@elsewhere.example", "role": "owner"})
    assert (reply.status_code, "Say why" in reply.text, "/link/" in reply.text) == (422, True, False)
    member = f"{account.team}/{ids.encode('mem', account.owner.member_id)}"  # type: ignore[arg-type]
    for act in ("reset", "renew_factor"):
        reply = await account.operator.post(member, {"act": act})
        assert (reply.status_code, "/link/" in reply.text) == (422, False)
    key = {"key_name": "x", "mode": "live"}
    reply = await account.operator.post(f"/operator/businesses/{account.desk.business_id}/keys", key)
    assert (reply.status_code, "lk_live_" in reply.text) == (422, False)
    assert re.search('id="f-key_reason"[^>]*aria-invalid="true"', reply.text)
    assert not re.search('id="f-reason"[^>]*aria-invalid="true"', reply.text)
    body: dict[str, Any] = {"kind": "business", "owner_id": account.desk.business_id, "mode": "live", "name": "x"}
    reply = await account.desk.call("POST", "/v1/keys", body, by="operator")
    assert reply.json()["errors"][0]["pointer"] == "/reason"
    body = {"url": "https://op.example.com/", "business_id": account.desk.business_id}
    reply = await account.desk.call("POST", "/v1/endpoints", body, by="operator")
    assert reply.json()["errors"][0]["pointer"] == "/reason"


LOOKS = {
    "lead": "/business/leads/{lead}", "list": "/business/leads", "file": "/business/leads?format=csv",
    "overview": "/business",
}  # fmt: skip


@pytest.mark.parametrize("look", [*LOOKS, "sent again"])
async def test_what_an_invited_operator_reads_of_contacts_is_in_the_reveal_log(account: Account, look: str) -> None:
    browser = await account.enter()
    if look == "sent again":
        reply = await browser.post("/business/delivery/resend", {"lead": account.lead})
    else:
        reply = await browser.get(LOOKS[look].format(lead=account.lead))
    assert (reply.status_code, "Robin" in reply.text) == (200, True)
    assert await account.reveals() == account.revealed
    log = await (await signed_in(account.desk.api, "operator")).get("/operator/compliance/reveals")
    assert WHY in log.text


async def test_a_page_that_renews_itself_is_one_look(account: Account) -> None:
    browser = await account.enter()
    for _ in range(3):
        await browser.get("/business/leads")
    assert await account.reveals() == account.revealed


async def test_a_link_for_a_new_password_is_such_a_way_too(account: Account) -> None:
    member = f"{account.team}/{ids.encode('mem', account.owner.member_id)}"  # type: ignore[arg-type]
    reply = await account.operator.post(member, {"act": "reset", "reason": WHY})
    browser = await account.follow(reply.text, {"password": PASSWORD})
    assert "Robin" in (await browser.get(f"/business/leads/{account.lead}")).text
    assert await account.reveals() == account.revealed


async def test_a_key_that_an_operator_made_is_such_a_way_too(account: Account) -> None:
    path = f"/operator/businesses/{account.desk.business_id}/keys"
    reply = await account.operator.post(path, {"key_name": "crm", "mode": "live", "key_reason": WHY})
    [key] = set(re.findall(r"lk_live_\w+", reply.text))
    reply = await account.desk.api.call("GET", f"/v1/leads/{account.lead}", key=key)
    assert reply.json()["contact"]["full_name"].startswith("Robin")
    assert await account.reveals() == account.revealed
    assert await account.decide("end") == 303
    assert (await account.desk.api.call("GET", f"/v1/leads/{account.lead}", key=key)).status_code == 401


async def test_what_such_a_member_makes_is_opened_by_the_same_operator(account: Account) -> None:
    browser = await account.enter()
    reply = await browser.post("/account/team", {"email": "second@elsewhere.example", "role": "member"})
    second = await account.follow(reply.text, {"name": "Second", "password": PASSWORD})
    await second.get(f"/business/leads/{account.lead}")
    assert await account.reveals() == account.revealed
    await browser.post("/business/delivery", {"url": "https://op.example.com/hook"})
    ways = await account.desk.api.pool.fetch("select way, opened_by from opened_access order by way")
    assert [row["way"] for row in ways] == ["endpoint", "member", "member"]
    assert {row["opened_by"] for row in ways} == {account.revealed[0][1]}


async def test_no_live_lead_is_sent_to_an_endpoint_that_an_operator_added_before_an_owner_confirms_it(
    account: Account,
) -> None:
    body = {"url": "https://op.example.com/", "business_id": account.desk.business_id, "reason": WHY}
    made = (await account.desk.call("POST", "/v1/endpoints", body, by="operator")).json()
    order = an_order(made["id"], business_id=account.desk.business_id)
    for by in ("operator", "business"):
        body = order if by == "operator" else {name: value for name, value in order.items() if name != "business_id"}
        refused = await account.desk.call("POST", "/v1/subscriptions", body, by=by)
        assert refused.json()["errors"][0]["code"] == "endpoint_unconfirmed"
    path = f"/v1/subscriptions/{ids.encode('sub', account.desk.buyer.subscription_id)}"
    revised = {"name": "x", "endpoint_id": made["id"], "definition": order["definition"], "version": 1}
    refused = await account.desk.call("PUT", path, revised, by="operator")
    assert refused.json()["errors"][0]["code"] == "endpoint_unconfirmed"
    assert await account.decide("confirm") == 303
    assert (await account.desk.call("PUT", path, revised, by="operator")).status_code == 200


async def test_a_subscription_that_sends_to_an_unconfirmed_endpoint_already_may_be_revised(account: Account) -> None:
    """A subscription with an endpoint recorded by an upgrade can be revised in everything else."""
    buyer = account.desk.buyer
    await account.desk.market.owner.execute(
        "insert into opened_access (subject, kind, owner_id, way, opened_by, reason, opened_at) "
        "select endpoint_id::text, 'business', business_id, 'endpoint', 'command line', 'Old.', now() "
        "from subscription where id = $1",
        buyer.subscription_id,
    )
    path = f"/v1/subscriptions/{ids.encode('sub', buyer.subscription_id)}"
    current = (await account.desk.call("GET", path)).json()
    fields = ("endpoint_id", "definition", "version")
    revised = {"name": "Another name"} | {name: current[name] for name in fields}
    assert (await account.desk.call("PUT", path, revised)).status_code == 200


async def test_the_owner_sees_who_came_in_and_why_and_confirms_or_ends_it(account: Account) -> None:
    browser = await account.enter()
    page = (await account.owner.get("/account/access")).text
    assert all(words in page for words in (WHY, "Robin Example", "op@elsewhere.example", "Not confirmed"))
    activity = (await account.owner.get("/account/activity")).text
    assert "Added access to an account" in activity
    assert await account.decide("confirm", browser) == 403
    viewer = await signed_in(account.desk.api, "business", account.desk.business_id, role="member")
    assert await account.decide("confirm", viewer) == 403
    stranger = await signed_in(account.desk.api, "business", (await account.desk.api.business())[0])
    assert await account.decide("confirm", stranger) == await account.decide("end", stranger) == 404
    assert await account.decide("confirm") == 303
    await browser.get(f"/business/leads/{account.lead}")
    assert await account.reveals() == []
    assert await account.decide("end") == 303
    assert (await browser.get("/business")).status_code == 303


async def test_the_first_ways_into_a_new_account_are_the_tenants_own(account: Account) -> None:
    api = account.desk.api
    business, _ = await api.business()
    key = {"kind": "business", "owner_id": business, "mode": "live", "name": "x"}
    assert (await account.desk.call("POST", "/v1/keys", key, by="operator")).status_code == 201
    body = {"email": "first@elsewhere.example", "role": "owner"}
    reply = await account.operator.post(f"/operator/accounts/{business}/team", body)
    await account.follow(reply.text, {"name": "First", "password": PASSWORD})
    assert not await api.pool.fetchval("select count(*) from opened_access")


async def test_an_account_that_nobody_runs_but_that_has_leads_is_in_use(account: Account) -> None:
    await account.desk.api.pool.execute("update member set state = 'disabled' where kind = 'business'")
    browser = await account.enter()
    await browser.get(f"/business/leads/{account.lead}")
    assert await account.reveals() == account.revealed


async def test_an_export_is_logged_whoever_makes_it(account: Account) -> None:
    await account.owner.get("/business/leads?format=csv")
    row = await account.desk.api.pool.fetchrow(
        "select actor, object, detail ->> 'leads' as leads from audit where action = 'leads.export'"
    )
    assert account.owner.member_id
    assert tuple(row) == (ids.encode("mem", account.owner.member_id), account.desk.business_id, "1")
    assert await account.reveals() == []


async def test_an_invitation_tells_nothing_of_other_accounts_members(account: Account) -> None:
    api = account.desk.api
    other, _ = await api.business()
    member = await signed_in(api, "business", other)
    email = await api.pool.fetchval("select email from member where id = $1", member.member_id)
    replies = [
        await account.owner.post("/account/team", {"email": address, "role": "viewer"})
        for address in (email, "nobody@elsewhere.example")
    ]
    assert [(reply.status_code, "/link/" in reply.text) for reply in replies] == [(200, True)] * 2
    assert not any("belongs" in reply.text for reply in replies)
    [path] = re.findall(r"/link/[\w-]+", replies[0].text)[:1]
    fields = {"name": "X", "password": PASSWORD}
    refused = await Browser(api).post(path, fields)
    assert (refused.status_code, "already" in refused.text, "member" in refused.text.lower()) == (409, False, False)
    assert (await Browser(api).post(path, fields)).status_code == 410
    assert ("member.join_refused", account.desk.business_id) in await api.audited()
