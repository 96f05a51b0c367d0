"""Back office of the operator: system, audit, compliance, deliveries, verticals, parties, wallets and reports."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from html import unescape
from typing import Any, Final
from uuid import UUID

import msgspec
import pytest

from marketplace.distribution.policy_dry_run import PastAward, rerank
from marketplace.portal.operator.audit_trail import describe_detail
from marketplace.portal.operator.back_office_store import AuditEntry, ServiceActivity
from marketplace.portal.operator.system import check_activity
from marketplace.runtime import clock, ids
from marketplace.runtime.queue import QueueStatus
from marketplace.runtime.settings import Settings
from marketplace.security import audit
from routing.decision import CandidateRecord
from routing.ranking import Strategy
from tests.builders.feedback import Desk, desk
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import anywhere
from tests.builders.portal import Browser, signed_in
from tests.receivers import Receiver, ok, refuse, status
from tests.waiting import PATIENCE


class Office:
    """A marketplace with a provider and a business, and an operator in front of the portal."""

    def __init__(self, desk: Desk, browser: Browser) -> None:
        self.desk, self.browser, self.market, self.api = desk, browser, desk.market, desk.api

    async def page(self, path: str) -> str:
        reply = await self.browser.get(path)
        assert reply.status_code == 200, reply.text
        return reply.text

    async def seal(self) -> None:
        """Seal the audit rows, as a worker does within a second."""
        key = audit.seal_key(self.api.settings.master_key)
        sealed = "coalesce((select max(xid_to) from audit_block), '0')"
        waiting = f"select exists (select from audit where committed_by >= {sealed})"
        async with asyncio.timeout(PATIENCE):
            while await self.market.value(waiting) is not False:
                await audit.seal(self.market.worker, key)
                await asyncio.sleep(0.02)

    async def submit(self, path: str, status: int = 303, **fields: object) -> str:
        """Submit a form and return the text of the answer."""
        reply = await self.browser.post(path, fields)
        assert reply.status_code == status, reply.text
        return reply.text


@pytest.fixture
async def office(settings: Settings) -> AsyncIterator[Office]:
    async with AsyncExitStack() as stack:
        made = await desk(stack, settings)
        yield Office(made, await signed_in(made.api, "operator"))


# --- system -----------------------------------------------------------------------------------------------------------


async def test_the_system_shows_what_waits_and_never_a_secret(office: Office) -> None:
    await office.market.submit(1)
    text = await office.page("/operator/system")
    assert 'data-name="Waiting" class="num">1<' in text
    assert "(hidden)" in text
    assert office.api.settings.master_key.hex() not in text


async def test_work_that_was_set_aside_is_shown_and_tried_again_by_a_button(office: Office) -> None:
    lead = (await office.market.submit(1)).id
    assert "No work was set aside" in await office.page("/operator/system")
    await office.market.owner.execute(
        """insert into failing_work (kind, id, lead_id, failure, failures, first_failed_at, last_failed_at,
            quarantined_at)
        values ('lead', $1, $1, 'ValidationError', 8, now() - interval '1 hour', now(), now())""",
        lead,
    )
    await office.market.owner.execute(
        "update background_pass set failures = 3, failing_since = now(), failure = 'ValueError' where name = 'outcomes'"
    )
    text = await office.page("/operator/system")
    assert "1 job was set aside" in text
    assert "ValidationError" in text
    assert "“outcomes” has failed 3 times in a row (ValueError)" in text
    assert "1 job was set aside" in await office.page("/operator")
    asked: dict[str, Any] = {"kind": "lead", "id": str(lead), "act": "dismiss"}
    await office.submit("/operator/system/work", **asked)  # it is still open: nothing happens
    await office.submit("/operator/system/work", **asked | {"act": "retry"})
    await office.market.sweeper.sweep()
    assert await office.market.value("select count(*) from failing_work") == 0
    assert await office.market.value("select due_at <= clock_timestamp() from lead")
    assert await office.market.value("select array_agg(action) from audit where action like 'work.%'") == ["work.retry"]
    await office.submit("/operator/system/work", **asked)  # gone meanwhile: no error


async def test_the_doctor_shows_every_migration(office: Office) -> None:
    text = await office.page("/operator/system/doctor")
    assert "0001_directory" in text
    assert "Not applied" not in text


def test_silent_workers_and_an_overdue_lead_are_reported() -> None:
    now = clock.now()
    activity = ServiceActivity(
        block=3,
        sealed_at=now,
        reports_at=now,
        outcomes_at=now,
        lead_due_at=now - timedelta(minutes=5),
        assignment_due_at=now + timedelta(minutes=5),
    )
    silent = QueueStatus(waiting=4, running=0, answered=False, version="9", bytes=1)
    assert [ok for ok, *_ in check_activity(activity, silent, now)] == [False, False, True, True, True, True]
    assert check_activity(activity, None, now)[0][0] is False


async def test_a_suspended_subscription_is_shown_with_its_figures_and_resumed_with_a_reason(office: Office) -> None:
    async with Receiver(refuse("other")) as receiver:
        buyer = await office.market.buyer(receiver.url, anywhere(priority=1))
        for number in range(31, 36):
            await office.market.sold(number)
    text = await office.page("/operator/deliveries/suspended")
    assert "5 of the last 5 leads were refused." in text
    path = "/operator/deliveries/suspended/" + ids.encode("sub", buyer.subscription_id)
    await office.submit(path, 422, reason=" ")
    await office.submit(path, reason="They mended it.")
    assert "No subscription is suspended." in await office.page("/operator/deliveries/suspended")
    assert await office.market.value("select state from subscription where id = $1", buyer.subscription_id) == "active"
    assert (
        await office.market.value("select detail ->> 'reason' from audit where action = 'subscription.switch'")
        == "They mended it."
    )


# --- subscriptions ----------------------------------------------------------------------------------------------------


async def revise(office: Office, version: int, **changes: Any) -> dict[str, Any]:
    subscription = ids.encode("sub", office.desk.buyer.subscription_id)
    body = {
        "name": "All roofs",
        "endpoint_id": ids.encode("whe", office.desk.buyer.endpoint_id),
        "definition": msgspec.to_builtins(anywhere()) | changes,
        "version": version,
    }
    reply = await office.desk.call("PUT", f"/v1/subscriptions/{subscription}", body)
    assert reply.status_code == 200, reply.text
    revised: dict[str, Any] = reply.json()
    return revised


async def test_a_subscription_shows_each_change_of_its_price_and_who_made_it(office: Office) -> None:
    first = await revise(office, 1, price_minor=4_000)
    await revise(office, first["version"], price_minor=5_250)
    subscription = ids.encode("sub", office.desk.buyer.subscription_id)
    text = unescape(await office.page(f"/operator/subscriptions/{subscription}"))
    assert "Price: from 40.00 USD to 52.50 USD" in text
    assert "First version" in text
    audited = unescape(await office.page(f"/operator/audit?object={subscription}"))
    assert "price: from $40.00 to $52.50" in audited
    assert f"/operator/subscriptions/{subscription}" in await office.page(
        f"/operator/businesses/{office.desk.business_id}"
    )


async def test_the_same_subscription_saved_twice_is_one_version(office: Office) -> None:
    first = await revise(office, 1, price_minor=4_000)
    again = await revise(office, first["version"], price_minor=4_000)
    assert (first["version"], again["version"], again["updated_at"]) == (2, 2, first["updated_at"])
    assert await office.market.value("select count(*) from audit where action = 'subscription.revise'") == 1


def entry(**detail: object) -> AuditEntry:
    return AuditEntry(id=clock.new_id(), at=clock.now(), actor="", action="", object="", detail=detail)


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ({"price_minor": 5_250, "price_before_minor": 4_000, "currency": "USD"}, "price: from $40.00 to $52.50"),
        ({"amount_minor": 500, "currency": "JPY", "reason": "wire"}, "amount: JPY\N{NO-BREAK SPACE}500; reason: wire"),
        ({"weight": 2, "weight_before": 1, "vertical": "roofing"}, "weight: from 1 to 2; vertical: roofing"),
        ({"amount_minor": 500}, "amount minor: 500"),
        ({"low_below_minor": None}, ""),
        ({"state": "frozen"}, "state: frozen"),
    ],
)
def test_a_detail_of_the_audit_is_in_words_and_amounts_in_their_currency(detail: dict[str, Any], text: str) -> None:
    assert describe_detail(entry(**detail)) == text


# --- audit ------------------------------------------------------------------------------------------------------------


async def test_a_change_is_found_by_what_it_was_about_and_as_a_file(office: Office) -> None:
    await office.submit(
        "/operator/accounts/" + office.desk.business_id + "/team", 200, email="a@example.com", role="owner"
    )
    by_object = await office.page(f"/operator/audit?object={office.desk.business_id}")
    assert "Invited a member" in by_object
    assert "Robin Example" in by_object
    assert "Invited a member" not in await office.page("/operator/audit?action=wallet")
    lines = (await office.page("/operator/audit?action=member&format=csv")).splitlines()
    assert lines[0].startswith("at,actor")
    assert "member.invite" in lines[1]
    assert (await office.browser.get("/operator/audit?from=yesterday")).status_code == 422


async def test_the_chain_is_verified_and_a_row_changed_behind_it_is_named(office: Office) -> None:
    await office.submit(
        "/operator/accounts/" + office.desk.business_id + "/team", 200, email="a@example.com", role="owner"
    )
    await office.seal()
    assert "all unchanged since they were sealed" in await office.submit("/operator/audit/verify", 200)
    async with office.market.owner.acquire() as owner, owner.transaction():
        await owner.execute("set local session_replication_role = replica")
        await owner.execute("update audit set actor = 'somebody else' where action = 'member.invite'")
    assert "Row changed" in await office.submit("/operator/audit/verify", 200)


# --- compliance -------------------------------------------------------------------------------------------------------


async def test_people_are_suppressed_by_the_list_all_or_none_and_found_again(office: Office) -> None:
    path = "/operator/compliance"
    refused = await office.submit(path, 422, people="+13125550143\nnot a person", country="US", reason="asked")
    assert "in line 2" in refused
    assert await office.market.value("select count(*) from suppression") == 0
    await office.submit(path, people="+1 312 555 0143\nsomebody@example.com", country="US", reason="asked by telephone")
    assert await office.market.value("select count(*) from suppression") == 2
    assert "Yes: “asked by telephone”" in await office.submit(f"{path}/look", 200, person="(312) 555-0143")
    assert "No: nothing is on record" in await office.submit(f"{path}/look", 200, person="+13125550199")
    text = await office.page(path)
    assert "asked by telephone" in text
    assert "555 0143" not in text
    assert "5550143" not in text


async def test_a_person_is_erased_by_lead_and_the_business_is_told(office: Office) -> None:
    lead = await office.desk.sold(1)
    path = "/operator/compliance/erasures"
    await office.submit(path, who=lead, country="US", reason="asked by letter", also_suppress="1")
    text = await office.page(f"{path}?notice=due")
    assert lead in text
    assert "asked by letter" in text
    assert "No erasures match" in await office.page(f"{path}?notice=overdue")
    assert "lead.erase" in await office.desk.audited()
    assert lead in await office.page(f"{path}?format=csv")
    await office.submit(path, 404, who=ids.encode("lead", clock.new_id()), country="US", reason="wrong id")
    await office.submit(path, 422, who="nobody", country="US", reason="no person")


def phone_of(number: int) -> str:
    phone: str = roofing_body(number)["contact"]["phone"]
    return phone


async def test_an_operator_finds_who_has_a_number_in_one_step_and_it_stays_out_of_the_trail(office: Office) -> None:
    lead = await office.desk.sold(1)
    assert 'action="/operator/people"' in await office.page("/operator")
    text = await office.submit("/operator/people", 200, person=phone_of(1), country="US")
    assert lead in text
    assert office.desk.business_id in text
    assert "No lead has this number" in await office.submit("/operator/people", 200, person="+13125550999")
    assert "person" in await office.submit("/operator/people", 422, person="nobody")
    [look_up, _] = await office.market.owner.fetch("select object, detail from audit where action = 'person.look_up'")
    assert (look_up["object"], look_up["detail"]) == ("person", '{"leads": 1}')


async def test_a_file_holds_all_of_a_person_and_each_contact_in_it_is_a_reveal(office: Office) -> None:
    lead = await office.desk.sold(1)
    await office.submit("/operator/compliance/notices", who=phone_of(1), country="US", text="1", reason="said stop")
    form = {"exported": phone_of(1), "exported_country": "US", "reason": "asked for access"}
    content = msgspec.json.decode((await office.submit("/operator/people/export", 200, **form)).encode())
    [sold] = content["leads"]
    assert sold["lead"] == lead
    assert sold["contact"]["phone"] == "+13125550101"
    assert [notice["kind"] for notice in sold["notices"]] == ["revoked"]
    assert sold["decisions"][-1]["outcome"] == "held"
    actions = await office.desk.audited()
    assert (actions.count("person.export"), actions.count("contact.reveal")) == (1, 1)
    text = await office.submit("/operator/people/export", 200, **form, printed="1")
    for part in (lead, "+13125550101", "Example Business", "Stop contacting this person", "asked for access"):
        assert part in text
    waiting = ids.encode("lead", (await office.market.submit(2)).id)
    form["exported"] = phone_of(2)
    content = msgspec.json.decode((await office.submit("/operator/people/export", 200, **form)).encode())
    assert [(row["lead"], row["contact"]) for row in content["leads"]] == [(waiting, None)]
    text = await office.submit("/operator/people/export", 200, **form, printed="1")
    assert "Stored sealed" in text
    form["exported"] = "+13125550999"
    assert "No lead has this number" in await office.submit("/operator/people/export", 200, **form, printed="1")


DELETIONS: Final = "/operator/compliance/deletions"


def deletion_form(who: str, **fields: str) -> dict[str, Any]:
    form = {"who": who, "country": "US", "received_on": clock.now().date().isoformat(), "deadline_days": "45"}
    return {**form, "also_suppress": "1", **fields}


async def test_a_request_to_be_deleted_goes_through_the_queue_to_its_proof(office: Office) -> None:
    lead = (await office.market.submit(1)).id
    assert "Nobody has asked to be deleted yet" in await office.page(DELETIONS)
    await office.submit(DELETIONS, **deletion_form(phone_of(1)))
    [request_id] = await office.market.owner.fetchrow("select id from deletion_request")
    request = ids.encode("del", request_id)
    assert f'href="{DELETIONS}/{request}"' in await office.page(f"{DELETIONS}?state=open")
    shown = await office.page(f"{DELETIONS}/{request}")
    assert "5550101" not in shown
    assert "Overdue" not in shown
    revealed = await office.submit(f"{DELETIONS}/{request}/reveal", 200, reason="to answer")
    assert phone_of(1) in revealed
    assert "contact.reveal" in await office.desk.audited()
    await office.submit(f"{DELETIONS}/{request}/carry-out")
    shown = await office.page(f"{DELETIONS}/{request}")
    assert ids.encode("lead", lead) in shown
    assert f'href="{DELETIONS}/{request}/proof"' in shown
    await office.submit(f"{DELETIONS}/{request}/reveal", 404, reason="to answer")
    proof = msgspec.json.decode((await office.page(f"{DELETIONS}/{request}/proof")).encode())
    assert [erased["lead"] for erased in proof["leads"]] == [ids.encode("lead", lead)]
    assert request in await office.page(f"{DELETIONS}?format=csv")
    assert "No requests match" in await office.page(f"{DELETIONS}?state=late")


async def test_a_late_request_is_marked_and_is_refused_with_a_reason_of_the_list(office: Office) -> None:
    received = (clock.now() - timedelta(days=50)).date().isoformat()
    await office.submit(DELETIONS, **deletion_form("robin@example.com", received_on=received))
    [request_id] = await office.market.owner.fetchrow("select id from deletion_request")
    path = f"{DELETIONS}/{ids.encode('del', request_id)}"
    assert "Overdue" in await office.page(path)
    assert "Overdue" in await office.page(f"{DELETIONS}?state=late")
    assert "1 deletion request is past the deadline" in await office.page("/operator")
    await office.submit(f"{path}/refuse", 422, refusal="no wish")
    await office.submit(f"{path}/refuse", refusal="identity_not_proved")
    shown = await office.page(path)
    assert "did not prove who they are" in shown
    assert "Overdue" not in shown


async def test_a_request_with_a_fault_is_shown_again(office: Office) -> None:
    later = (clock.now() + timedelta(days=3)).date().isoformat()
    for form in (deletion_form("nobody"), deletion_form(phone_of(1), received_on=later), deletion_form(" ")):
        await office.submit(DELETIONS, 422, **form)
    await office.submit(DELETIONS, 404, **deletion_form(ids.encode("lead", clock.new_id())))
    assert await office.market.value("select count(*) from deletion_request") == 0


async def test_a_stop_is_recorded_on_a_page_and_its_notice_is_shown(office: Office) -> None:
    lead, path = await office.desk.sold(1), "/operator/compliance/notices"
    assert "No business has been sent a notice" in await office.page(path)
    await office.submit(path, who=lead, country="US", text="1", reason="said stop")
    text = await office.page(path)
    assert lead in text
    assert "text messages" in text
    assert "Stop contacting this person" in text
    assert "No notices match" in await office.page(f"{path}?state=overdue")
    assert lead in await office.page(f"{path}?format=csv")
    await office.submit(path, 422, who="nobody", country="US", reason="no person")


async def test_overdue_notices_are_on_the_overview_and_lead_to_their_list(office: Office) -> None:
    lead = await office.desk.sold(1)
    await office.submit("/operator/compliance/notices", who=lead, country="US", text="1", reason="said stop")
    assert "Every notice was acknowledged in time" in await office.page("/operator")
    await office.market.owner.execute("update notice set state = 'overdue'")
    text = await office.page("/operator")
    assert "1 notice was not acknowledged in time" in text
    assert 'href="/operator/compliance/notices?state=overdue"' in text


async def test_the_reveal_log_shows_who_saw_which_lead_and_why(office: Office) -> None:
    assert "No contact data has been shown" in await office.page("/operator/compliance/reveals")
    async with office.market.api.acquire() as connection:
        lead = "lead_01h455vb4pex5vsknk084sn02q"
        await audit.record(connection, clock.now(), "command line", "contact.reveal", lead, reason="a dispute")
    text = await office.page("/operator/compliance/reveals")
    assert "a dispute" in text
    assert lead in text


# --- deliveries -------------------------------------------------------------------------------------------------------


async def test_a_failing_endpoint_is_shown_with_its_waiting_leads_and_switched_on_with_a_reason(office: Office) -> None:
    office.desk.behave(status(500))
    lead = await office.desk.sold(1)
    endpoint = office.desk.buyer.endpoint_id
    broken = "update endpoint set breaker_open_until = now() + interval '1 hour', verified_at = now() where id = $1"
    await office.market.owner.execute(broken, endpoint)
    where = f"/operator/deliveries/endpoints/{ids.encode('whe', endpoint)}"
    text = await office.page("/operator/deliveries")
    assert "Paused" in text
    assert "Answered 500" in text
    assert lead in text
    await office.submit(where, 422, state="active", reason=" ")
    await office.submit(where, state="active", reason="their server is back")
    assert "All endpoints are working" in await office.page("/operator/deliveries")
    assert "their server is back" in await office.page("/operator/audit?action=endpoint")


async def test_attempts_are_found_by_outcome_business_and_lead_and_as_a_file(office: Office) -> None:
    lead = await office.desk.sold(1)
    path = "/operator/deliveries/attempts"
    for query in ("", "?outcome=accepted", f"?business={office.desk.business_id}", f"?lead={lead}"):
        assert lead in await office.page(path + query)
    assert lead not in await office.page(f"{path}?outcome=refused")
    assert lead in await office.page(f"{path}?format=csv")
    assert (await office.browser.get(f"{path}?lead=x")).status_code == 404


async def test_a_lead_that_was_not_confirmed_is_listed_with_the_amount_not_charged(office: Office) -> None:
    office.desk.behave(status(422))
    lead = await office.desk.sold(1)
    text = await office.page("/operator/deliveries/dead?state=refused")
    assert lead in text
    assert "$50.00" in text
    assert lead not in await office.page("/operator/deliveries/dead")


# --- verticals --------------------------------------------------------------------------------------------------------

QUICK: Final = {
    "minimum_score": 60,
    "on_low_score": "reject",
    "budget_minimum": "5,000",
    "within_days": 30,
    **dict.fromkeys(("budget_fails", "authority_fails", "need_fails", "timing_fails"), "reject"),
    **dict.fromkeys(("budget_unknown", "authority_unknown", "need_unknown", "timing_unknown"), "accept"),
    "nurture_limit_days": 180,
    "nurture_days": 90,
    "patience_seconds": 0,
    "strategy": "priority",
    "reserve": "0.01",
}


async def test_new_rules_are_tried_on_past_leads_and_then_published_with_a_reason(office: Office) -> None:
    await office.desk.sold(1)
    small = roofing_body()["bant"] | {"budget": {"minor": 600_000, "currency": "USD"}}
    await office.desk.sold(2, bant=small)
    path = "/operator/verticals/roofing"
    text = unescape(await office.submit(f"{path}/try", 200, **QUICK | {"budget_minimum": "10000.00"}))
    assert "The new rules would change 1 of 2 leads." in text
    assert "$50.00 was charged for them" in text
    assert "budget below minimum" in text
    assert await office.market.value("select max(version) from vertical_version") == 1
    draft = re.search(r'name="definition" hidden[^>]*>(.*?)</textarea>', text, re.DOTALL)
    assert draft
    await office.submit(f"{path}/publish", definition=draft[1], version=1, reason="too many small jobs")
    assert "Version 2 is in force" in await office.page(path)
    assert "too many small jobs" in await office.page("/operator/audit?action=vertical")
    late = await office.submit(f"{path}/publish", 409, definition=draft[1], version=1, reason="again")
    assert "It is at version 2 by now" in late


async def test_what_jobs_cost_is_published_on_the_page_of_the_vertical_and_counts_from_then_on(office: Office) -> None:
    """Everybody has a budget of USD 12,000."""
    path = "/operator/verticals/roofing"
    refused = await office.submit(f"{path}/try", 422, **QUICK | {"job_minimum": 2, "job_maximum": 1})
    assert "No price is above the maximum" in unescape(refused)
    text = unescape(await office.submit(f"{path}/try", 200, **QUICK | {"job_minimum": "", "job_maximum": "10,800"}))
    draft = re.search(r'name="definition" hidden[^>]*>(.*?)</textarea>', text, re.DOTALL)
    assert draft
    await office.submit(f"{path}/publish", definition=draft[1], version=1, reason="small jobs only")
    assert "At most USD 10,800" in await office.page(path)
    lead_id = await office.market.sold()
    row = await office.market.row("select state, reason from lead where id = $1", lead_id)
    assert (row["state"], row["reason"]) == ("unsold", "price_range")
    lead = await office.page(f"/operator/routing/{ids.encode('lead', lead_id)}")
    assert "price USD 1,200 above what jobs cost here" in lead


async def test_rules_by_which_leaving_an_answer_out_pays_are_warned_of_before_they_are_published(
    office: Office,
) -> None:
    path = "/operator/verticals/roofing"
    assert "Warnings about version 1" in await office.page(path)
    text = unescape(await office.submit(f"{path}/try", 200, **QUICK | {"budget_minimum": "10000.00"}))
    assert "Warnings about the new rules" in text
    assert 'a lead with the budget "USD 5,000" is rejected, the same lead without it scores 85' in text


async def test_another_strategy_is_tried_by_ranking_past_awards_again(office: Office) -> None:
    async with Receiver(ok) as receiver:
        await office.market.buyer(receiver.url, anywhere(priority=200, price_minor=9_000))
        await office.desk.sold(1)
        await office.desk.sold(2)
    path = "/operator/verticals/roofing"
    text = unescape(await office.submit(f"{path}/try", 200, **QUICK | {"strategy": "highest_price"}))
    assert "The new rules would change 2 of 2 leads." in text
    assert "2 of 2 awarded leads would have gone to another business" in text
    assert "sold for $100.00;\nwith the new rules the price would have been $180.00" in text
    same = unescape(await office.submit(f"{path}/try", 200, **QUICK))
    assert "The new rules would change none of 2 leads." in same


def award(number: int, strategy: Strategy, winner: UUID, *others: UUID) -> PastAward:
    candidates = tuple(
        CandidateRecord(subscription_id=one, business_id=one, version=1, price_minor=5_000) for one in (winner, *others)
    )
    return PastAward(
        lead_id=UUID(int=number),
        made_at=clock.now().replace(hour=12) + timedelta(minutes=number),
        strategy=strategy,
        winner=winner,
        candidates=candidates,
    )


def test_fair_turns_are_reconstructed_from_the_awards_before() -> None:
    first, second = UUID(int=1), UUID(int=2)
    definitions = {(one, 1): anywhere(priority=place) for place, one in enumerate((first, second))}
    awards = [award(number, Strategy.priority, first, second) for number in range(6)]
    result = rerank(Strategy.priority, Strategy.fair, awards, definitions)
    assert (result.awards, result.alone) == (6, 0)
    assert result.moved == 3  # each has every other lead
    assert {(share.before, share.after) for share in result.shares} == {(6, 3), (0, 3)}
    back = rerank(Strategy.fair, Strategy.priority, [award(0, Strategy.fair, second, first)], definitions)
    assert [(move.before, move.after) for move in back.named] == [(second, first)]
    alone = rerank(Strategy.priority, Strategy.fair, [award(0, Strategy.priority, first)], definitions)
    assert (alone.alone, alone.moved) == (1, 0)


async def test_rules_that_cannot_be_are_refused_at_their_field_and_an_older_version_is_still_shown(
    office: Office,
) -> None:
    path = "/operator/verticals/roofing"
    assert "needs attention" in await office.submit(f"{path}/try", 422, definition="{")
    assert "needs attention" in await office.submit(f"{path}/try", 422, **QUICK | {"minimum_score": 101})
    await office.submit(f"{path}/publish", 422, definition='{"name": "x"}', version=1, reason="a test")
    assert "BANT policy, version 1" in await office.page(f"{path}?version=1")
    assert (await office.browser.get("/operator/verticals/gardening")).status_code == 404


async def test_a_vertical_is_added_from_the_rules_of_another(office: Office) -> None:
    pattern = re.search(r'name="definition"[^>]*>(.*?)</textarea>', await office.page("/operator/verticals"), re.DOTALL)
    assert pattern
    rules = unescape(pattern[1]).replace('"Roofing"', '"Gardening"')
    await office.submit("/operator/verticals", slug="gardening", definition=rules)
    assert "Gardening" in await office.page("/operator/verticals/gardening")
    await office.submit("/operator/verticals", 409, slug="gardening", definition=rules)


# --- businesses and providers -----------------------------------------------------------------------------------------


async def test_a_business_is_added_invited_frozen_with_a_reason_and_unfrozen(office: Office) -> None:
    reply = await office.browser.post(
        "/operator/businesses", {"name": "North Roofs", "zone": "America/Chicago", "currency": "USD"}
    )
    assert reply.headers["location"].startswith("/operator/accounts/biz_")
    home = "/operator/businesses/" + reply.headers["location"].split("/")[3]
    assert "North Roofs" in await office.page("/operator/businesses?name=north")
    await office.submit(home, 422, state="frozen", reason="")
    await office.submit(home, state="frozen", reason="payments bounced")
    text = await office.page(home)
    assert "Frozen" in text
    assert "payments bounced" in text
    assert "North Roofs" in await office.page("/operator/businesses?state=frozen&format=csv")
    await office.submit(home, state="active", reason="paid again")
    await office.submit("/operator/businesses", 422, name="Nowhere Roofs", zone="Mars/Base", currency="USD")


async def test_weight_and_priority_of_a_business_are_set_with_a_reason(office: Office) -> None:
    home = f"/operator/businesses/{office.desk.business_id}"
    terms: dict[str, Any] = {"vertical": "roofing", "weight": 4, "priority": 10}
    await office.submit(f"{home}/terms", 422, **terms, reason="")
    await office.submit(f"{home}/terms", 422, **(terms | {"weight": 0}), reason="a new contract")
    await office.submit(f"{home}/terms", **terms, reason="a new contract")
    text = await office.page(home)
    assert "a new contract" in text
    assert "Set weight and priority" in text
    [definition] = await office.market.owner.fetch(
        "select definition from subscription_version order by version desc limit 1"
    )
    assert '"weight": 4' in definition["definition"]
    await office.submit(f"{home}/terms", 404, **(terms | {"vertical": "none-such"}), reason="a new contract")


async def test_a_key_is_shown_once_works_and_is_revoked_with_a_reason(office: Office) -> None:
    home = f"/operator/businesses/{office.desk.business_id}"
    made = await office.submit(f"{home}/keys", 200, key_name="CRM", mode="live", days="")
    key = re.search(r"lk_live_\w+", made)
    assert key
    assert (await office.api.call("GET", "/v1/wallet", key=key[0])).status_code == 200
    assert key[0] not in await office.page(home)
    await office.submit(f"{home}/keys/{key[0].split('_')[2]}", reason="left on a laptop")
    assert (await office.api.call("GET", "/v1/wallet", key=key[0])).status_code == 401
    assert "left on a laptop" in await office.page("/operator/audit?action=key")
    other = f"/operator/providers/{ids.encode('prov', office.market.provider.owner)}"
    await office.submit(f"{other}/keys/{key[0].split('_')[2]}", 404, reason="of another account")


async def test_a_provider_is_suspended_and_its_terms_are_changed(office: Office) -> None:
    home = f"/operator/providers/{ids.encode('prov', office.market.provider.owner)}"
    await office.submit(home, state="suspended", reason="bought lists")
    await office.submit(home, fixed="25.00", reason="a new contract")
    text = await office.page(home)
    assert "$25.00 per lead" in text
    assert "Suspended" in text
    assert "bought lists" in text
    await office.submit("/operator/providers", name="South Leads", share_percent="55.5")
    assert "55.5% of the price" in await office.page("/operator/providers")


# --- wallets ----------------------------------------------------------------------------------------------------------


async def test_the_trial_balance_is_zero_after_a_sale_and_a_payment_recorded_once(office: Office) -> None:
    before = (await office.market.wallet(office.desk.buyer))[0]
    lead = await office.desk.sold(1)
    path = "/operator/wallets"
    paid: dict[str, Any] = {
        "business": office.desk.business_id,
        "amount": "250.50",
        "reference": "bank-7",
        "reason": "bank transfer",
    }
    await office.submit(f"{path}/top-up", **paid)
    await office.submit(f"{path}/top-up", **paid)
    assert (await office.market.wallet(office.desk.buyer))[0] == before - 5_000 + 25_050
    text = await office.page(path)
    assert "USD: the total of all accounts is $0.00." in text
    assert "$30.00" in text  # owed to the provider
    assert "Every wallet equals the sum of its entries" in await office.submit(f"{path}/reconcile", 200)
    assert lead in await office.page(f"{path}/ledger?lead={lead}")
    assert "bank-7" in await office.page(f"{path}/ledger?event=bank-7&format=csv")
    assert "bank transfer" in await office.page("/operator/audit?action=wallet")
    assert "No transfers match" in await office.page(f"{path}/ledger?kind=refund")


async def test_a_wallet_that_differs_from_its_entries_is_named(office: Office) -> None:
    wrong = "update wallet set available_minor = available_minor + 1 where business_id = $1"
    await office.market.owner.execute(wrong, office.desk.buyer.business_id)
    assert "1 wallet differs" in await office.submit("/operator/wallets/reconcile", 200)


async def test_an_invalid_payment_is_refused_at_its_field(office: Office) -> None:
    path = "/operator/wallets"
    fields = {"business": office.desk.business_id, "amount": "10", "reference": "r", "reason": "a test"}
    for change in ({"amount": "ten"}, {"amount": "0"}, {"business": "biz_x"}, {"reason": " "}, {"reference": ""}):
        await office.submit(f"{path}/top-up", 422, **fields | change)
    await office.submit(f"{path}/credit", business=office.desk.business_id, limit="500", reason="an old customer")
    limit = "select credit_limit_minor from wallet where business_id = $1"
    assert await office.market.value(limit, office.desk.buyer.business_id) == 50_000


# --- reports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        ("routing", "1 of 1 inquiries were delivered as prospects"),
        ("unsold", "0 of 1 prospects ended unsold"),
        ("speed", "1 inquiries"),
        ("journey", "a prospect is a lead that qualified"),
        ("nurturing", "no lead that was received on these days has waited"),
        ("roi", "Cost per won job"),
        ("quality", "1 inquiries sent, 100% of the leads became prospects"),
        ("money", "$20.00 net of $50.00 charged"),
    ],
)
async def test_each_report_answers_its_question_says_its_basis_and_is_a_file(
    office: Office, report: str, sentence: str
) -> None:
    await office.desk.sold(1)
    text = unescape(await office.page(f"/operator/reports/{report}"))
    assert sentence.lower() in text.lower()
    assert 'class="basis"' in text
    lines = (await office.page(f"/operator/reports/{report}?format=csv")).splitlines()
    assert "," in lines[0]
    assert (await office.browser.get(f"/operator/reports/{report}?from=never")).status_code == 422


async def test_the_figures_of_a_report_lead_to_their_rows(office: Office) -> None:
    lead = await office.desk.sold(1)
    links = re.findall(r'href="(/operator/leads\?[^"]+)"', await office.page("/operator/reports/routing"))
    assert links
    assert lead in await office.page(unescape(links[0]))
