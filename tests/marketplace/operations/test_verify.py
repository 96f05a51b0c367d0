"""Verify on a real database: a consistent world is clean, and each thing broken in it is named by exactly its check."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result
from rich.console import Console

from marketplace.operations.verify import CHECKS, ROWS_SHOWN, VerifyReport, command, promise, show, verify
from marketplace.runtime.settings import Settings
from tests.builders.world import TOP_UP, WALKS, World
from tests.conftest import Administration, Ready, new_database
from tests.waiting import tries

LATE = "now() - interval '3 minutes'"
FORGET_DELIVERED = """
delete from contact where lead_id = '{lead_delivered}';
delete from data_key where lead_id = '{lead_delivered}';"""
DUE_LATER = """
update lead set due_at = due_at + interval '1 hour' where due_at is not null;
update assignment set due_at = due_at + interval '1 hour', hold_until = hold_until + interval '1 hour'
where due_at is not null;"""
JOIN_DUPLICATE = """
insert into touch (lead_id, fingerprint, revision, kind, at, recorded_at)
values ('{lead}', '\\x01', 1, '{kind}', now(), now());
update lead set revision = 1 where id = '{lead}';
update inquiry set joined_lead_id = '{lead}', joined_touch = '\\x01' where id = '{lead_duplicate}'"""
ERASE_DELIVERED = """
with announced as (
    insert into notice (id, lead_id, kind, business_id, assignment_id, made_at, state, due_at, deadline_at)
    select lead_id, lead_id, 'erased', business_id, assignment_id, now(), 'due', now(), now() + interval '14 days'
    from exposure where lead_id = '{lead_delivered}' returning id, lead_id, business_id
)
insert into erasure (lead_id, requested_at, requested_by, reason, suppressed, business_id, notice_id)
select lead_id, now(), 'operator', 'asked', true, business_id, id from announced"""

REVOKE = """
insert into revocation (id, revoked_at, requested_by, mode, channels, reason)
values ('{lead}', now(), 'operator', 'live', array[]::text[], 'asked');
insert into revoked_lead (lead_id, revocation_id, state) values ('{lead}', '{lead}', 'delivered')"""

DELETION = """
insert into deletion_request (id, mode, received_at, deadline_at, requested_by, keys, suppresses, state, erased_at,
    ended_at)
values ('{lead}', 'live', now() - interval '46 days', now() - interval '1 day', 'operator', array['\\x01'::bytea], true,
    'done', now(), now())"""


class Peopled(msgspec.Struct, frozen=True, kw_only=True):
    """A world with a lead in each state. `names` are the ids that a broken world's SQL may speak of."""

    connection: Any
    world: World
    names: dict[str, UUID]


async def people(url: str) -> Peopled:
    """Build a world in the database at `url`; the caller closes its connection."""
    connection = await asyncpg.connect(url)
    world = World(connection, fair=True)
    claims: dict[str, UUID] = {}
    async with connection.transaction():
        await world.make()
        walked = {state: await world.lead(state) for state in WALKS}
        walked["paid"] = await world.lead("refused", paid=True)
        for name, state in (("shared", "delivered"), ("shared_back", "returned")):
            received = await world.accept("received", "live")
            claims[f"{name}_claim"] = await world.join(received)
            walked[name] = await world.walk(received, state)
        walked["test_held"] = await world.lead("held", mode="test")
        walked["test_delivered"] = await world.lead("delivered", mode="test")
    names = claims | {f"lead_{state}": lead.id for state, lead in walked.items()}
    names |= {state: lead.assignment_id for state, lead in walked.items() if lead.assignment_id}
    names |= {
        name: getattr(world, name)
        for name in ("provider", "other_provider", "business", "other_business", "endpoint", "other_endpoint")
    }
    names["subscription"] = world.subscriptions["live"]
    await connection.execute("select place_in_feed($1, 'lead.assigned', now())", names["delivered"])
    await connection.execute(
        "insert into touch (lead_id, fingerprint, revision, kind, at, recorded_at) "
        "values ($1, '', 1, 'call', now(), now())",
        names["lead_prospect"],
    )
    await connection.execute("update lead set revision = 1 where id = $1", names["lead_prospect"])
    await connection.execute("set session_replication_role = replica")
    joined = JOIN_DUPLICATE.replace("{lead}", "{lead_nurturing}").replace("{kind}", "inquiry")
    await connection.execute(joined.format(**names))
    await connection.execute("set session_replication_role = origin")
    await connection.execute(REVOKE.format(lead=names["lead_rejected"]))
    await connection.execute(DELETION.format(lead=names["lead_rejected"]))
    return Peopled(connection=connection, world=world, names=names)


@pytest.fixture
async def peopled(database_url: str) -> AsyncIterator[Peopled]:
    """A world of this test's own."""
    peopled = await people(database_url)
    yield peopled
    await peopled.connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(servers: Ready, administration: Administration) -> AsyncIterator[Peopled]:
    """A world for all tests that undo what they change. Nothing in it is overdue, however long they take."""
    async for url in new_database(administration, servers.admin_url, servers.template):
        peopled = await people(url)
        await peopled.connection.execute(DUE_LATER)
        yield peopled
        await peopled.connection.close()


async def broken(peopled: Peopled, sql: str) -> VerifyReport:
    """Return the report of verify after `sql` has broken the data past the constraints."""
    await peopled.connection.execute("set session_replication_role = replica")
    await peopled.connection.execute(sql.format(**peopled.names))
    await peopled.connection.execute("set session_replication_role = origin")
    return await verify(peopled.connection)


async def broken_and_undone(peopled: Peopled, sql: str) -> VerifyReport:
    """Return the report of verify after `sql` has broken the data, which is then as it was before.

    The transaction of verify is a savepoint here, in the snapshot of the transaction that is rolled back.
    """
    transaction = peopled.connection.transaction(isolation="repeatable_read")
    await transaction.start()
    try:
        return await broken(peopled, sql)
    finally:
        await transaction.rollback()


async def test_a_consistent_world_is_clean(peopled: Peopled) -> None:
    report = await verify(peopled.connection)
    assert [check for check in report.checks if check.findings] == []
    assert (report.checked, report.findings, report.warnings) == (len(CHECKS), 0, 0)
    assert report.examined == sum(check.examined for check in report.checks)
    assert [check.name for check in report.checks if not check.examined] == []


async def test_an_empty_marketplace_is_clean(pool: Any) -> None:
    async with pool.acquire() as connection:
        report = await verify(connection)
    assert (report.findings, report.warnings) == (0, 0)


BREAKAGES: tuple[tuple[str, str, str, str], ...] = (
    # check, fault, whose row, how it is broken
    (
        "wallet_equals_entries", "available differs from its entries", "business",
        "update wallet set available_minor = available_minor + 1 where business_id = '{business}'",
    ),
    (
        "wallet_equals_entries", "entries without a wallet", "other_business",
        "delete from wallet where business_id = '{other_business}'",
    ),
    (
        "wallet_holds_open_assignments", "held differs from what is open", "business",
        """alter table transfer drop constraint transfer_cause;
        insert into transfer (id, kind, amount_minor, currency, business_id)
        values (gen_random_uuid(), 'hold', 10, 'USD', '{business}');
        update wallet set available_minor = available_minor - 10, held_minor = held_minor + 10
        where business_id = '{business}'""",
    ),
    (
        "wallet_within_credit", "overdrawn", "other_business",
        """alter table wallet drop constraint wallet_covers;
        insert into transfer (id, kind, amount_minor, currency, business_id, event_id)
        values (gen_random_uuid(), 'withdrawal', 100001, 'USD', '{other_business}', 'too much');
        update wallet set available_minor = -1 where business_id = '{other_business}'""",
    ),
    (
        "transfer_balances", "not two sides", "",
        """alter table transfer drop constraint transfer_kind;
        insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id)
        values (gen_random_uuid(), 'gift', 10, 'USD', '{business}', '{delivered}')""",
    ),
    (
        "cap_usage_equals_assignments", "count differs from the assignments", "subscription",
        "update cap_usage set used_count = used_count + 1 where cap_window = 'week'",
    ),
    (
        "cap_usage_equals_assignments", "money differs from the assignments", "subscription",
        "update cap_usage set used_minor = used_minor - 1 where cap_window = 'total'",
    ),
    (
        "cap_usage_equals_assignments", "usage is missing", "subscription",
        "delete from cap_usage where cap_window = 'hour'",
    ),
    (
        "cap_usage_equals_assignments", "past the cap", "subscription",
        """alter table cap_usage drop constraint cap_usage_count;
        update cap_usage set limit_count = 1 where cap_window = 'day'""",
    ),
    (
        "share_credits_equal_awards", "credit differs from the awards", "business",
        "update share_credit set credit = credit + 1 where business_id = '{business}' and mode = 'live'",
    ),
    (
        "share_credits_equal_awards", "credit is missing", "other_business",
        "delete from share_credit where business_id = '{other_business}' and mode = 'live'",
    ),
    (
        "assignment_held_and_settled_once", "not one hold", "held",
        """drop index transfer_one_hold;
        update transfer set assignment_id = '{exposed}' where assignment_id = '{held}' and kind = 'hold'""",
    ),
    (
        "assignment_held_and_settled_once", "settled while open", "exposed",
        "update transfer set assignment_id = '{exposed}' where assignment_id = '{lapsed}' and kind = 'release'",
    ),
    (
        "assignment_held_and_settled_once", "not settled once", "lapsed",
        """drop index transfer_one_settlement;
        update transfer set assignment_id = '{released}' where assignment_id = '{lapsed}' and kind = 'release'""",
    ),
    (
        "capture_has_evidence_and_exposure", "captured without evidence", "lapsed",
        """update transfer set kind = 'capture' where assignment_id = '{lapsed}' and kind = 'release';
        update wallet set available_minor = available_minor - 4000 where business_id = '{business}';
        insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id)
        values (gen_random_uuid(), 'payout', 2400, 'USD', '{provider}', '{lapsed}')""",
    ),
    (
        "capture_has_evidence_and_exposure", "evidence without a capture", "delivered",
        """update transfer set kind = 'release' where assignment_id = '{delivered}' and kind = 'capture';
        update wallet set available_minor = available_minor + 4000 where business_id = '{business}';
        delete from transfer where assignment_id = '{delivered}' and kind = 'payout'""",
    ),
    (
        "capture_has_evidence_and_exposure", "captured on a refusal that no attempt recorded", "paid",
        "delete from attempt where assignment_id = '{paid}'",
    ),
    (
        "charged_at_quoted_price", "another price", "delivered",
        """update transfer set amount_minor = 3999
        where assignment_id = '{delivered}' and kind in ('hold', 'capture');
        update wallet set available_minor = available_minor + 1 where business_id = '{business}'""",
    ),
    (
        "charged_at_quoted_price", "another business", "lapsed",
        """update transfer set business_id = '{other_business}'
        where assignment_id = '{lapsed}' and kind in ('hold', 'release')""",
    ),
    (
        "payout_as_agreed", "another payout than agreed", "delivered",
        "update transfer set amount_minor = 2401 where assignment_id = '{delivered}' and kind = 'payout'",
    ),
    (
        "payout_as_agreed", "not paid out once", "delivered",
        "delete from transfer where assignment_id = '{delivered}' and kind = 'payout'",
    ),
    (
        "payout_as_agreed", "paid out without a capture", "lapsed",
        """insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id)
        values (gen_random_uuid(), 'payout', 2400, 'USD', '{provider}', '{lapsed}')""",
    ),
    (
        "payout_as_agreed", "another provider or currency", "delivered",
        """update transfer set provider_id = '{other_provider}'
        where assignment_id = '{delivered}' and kind = 'payout'""",
    ),
    (
        "paid_within_payouts", "paid more than was earned", "provider",
        """insert into transfer (id, kind, amount_minor, currency, provider_id, event_id)
        values (gen_random_uuid(), 'paid', 1000000, 'USD', '{provider}', 'wire 1')""",
    ),
    (
        "payout_as_agreed", "another payout than agreed", "shared",
        "delete from transfer where assignment_id = '{shared}' and kind = 'payout' and share = 1",
    ),
    (
        "payout_as_agreed", "not paid out once", "shared",
        """update transfer set share = null where assignment_id = '{shared}' and kind = 'payout' and share = 0""",
    ),
    (
        "payout_as_agreed", "a provider was paid twice", "shared",
        "update transfer set provider_id = '{provider}' where assignment_id = '{shared}' and share = 1",
    ),
    (
        "payout_as_agreed", "another provider or currency", "shared",
        "update payout_share set inquiry_id = '{lead_duplicate}' where assignment_id = '{shared}' and share = 1",
    ),
    (
        "claim_is_of_a_join_in_time", "its inquiry did not join the lead", "lead_prospect",
        """insert into payout_claim (inquiry_id, lead_id, provider_id, vertical_id, mode, revision)
        select id, '{lead_prospect}', provider_id, vertical_id, mode, 1 from inquiry where id = '{lead_duplicate}'""",
    ),
    (
        "claim_is_of_a_join_in_time", "it joined after the exposure", "lead_shared",
        "update inquiry set received_at = now() + interval '1 minute' where id = '{shared_claim}'",
    ),
    (
        "return_refunded_once", "not clawed back once", "shared_back",
        "delete from transfer where assignment_id = '{shared_back}' and kind = 'claw_back' and share = 1",
    ),
    (
        "return_refunded_once", "clawed back from another provider", "shared_back",
        """update transfer set provider_id = '{provider}'
        where assignment_id = '{shared_back}' and kind = 'claw_back' and share = 1""",
    ),
    (
        "return_refunded_once", "not refunded once", "returned",
        """delete from transfer where assignment_id = '{returned}' and kind = 'refund';
        update wallet set available_minor = available_minor - 4000 where business_id = '{business}'""",
    ),
    (
        "return_refunded_once", "not clawed back once", "returned",
        "delete from transfer where assignment_id = '{returned}' and kind = 'claw_back'",
    ),
    (
        "return_was_granted", "returned, and nobody granted it", "returned",
        "update return_request set state = 'denied' where assignment_id = '{returned}'",
    ),
    (
        "return_was_granted", "granted for another lead or business", "returned",
        "update return_request set business_id = '{other_business}' where assignment_id = '{returned}'",
    ),
    (
        "return_was_granted", "granted, and not returned", "delivered",
        """insert into return_request (id, assignment_id, lead_id, business_id, reason, state, requested_at, judged_at,
            judged_by, finding)
        select gen_random_uuid(), id, lead_id, business_id, 'other', 'granted', now(), now(), 'operator', 'so it is'
        from assignment where id = '{delivered}'""",
    ),
    (
        "return_refunded_once", "not refunded once", "delivered",
        """insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id)
        values (gen_random_uuid(), 'refund', 4000, 'USD', '{business}', '{delivered}');
        update wallet set available_minor = available_minor + 4000 where business_id = '{business}'""",
    ),
    (
        "test_mode_moves_no_money", "money moved in test mode", "test_delivered",
        """insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id)
        select gen_random_uuid(), kind, 4000, 'USD', '{business}', '{test_delivered}'
        from unnest(array['hold', 'release']) as kind""",
    ),
    (
        "lead_state_follows_assignment", "its assignment is in another state", "lead_delivered",
        "update lead set state = 'lapsed' where id = '{lead_delivered}'",
    ),
    (
        "lead_state_follows_assignment", "its assignment is in another state", "lead_exposed",
        "update lead set state = 'prospect', due_at = now() where id = '{lead_exposed}'",
    ),
    (
        "lead_state_follows_assignment", "no live assignment", "lead_released",
        "update lead set state = 'held', due_at = null where id = '{lead_released}'",
    ),
    (
        "one_live_assignment", "more than one", "lead_test_held",
        """drop index assignment_one_live;
        insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id,
            provider_id, mode, price_minor, payout_minor, currency, due_at, awarded_at, hold_until, hour_at, day_at,
            week_at, month_at)
        select lead_id, lead_id, business_id, subscription_id, subscription_version, endpoint_id,
            provider_id, mode, price_minor, payout_minor, currency, due_at, awarded_at, hold_until, hour_at, day_at,
            week_at, month_at
        from assignment where id = '{test_held}';
        insert into decision (id, lead_id, made_at, outcome, vertical_version, catalog_version, verdict,
            subscription_id, assignment_id)
        select gen_random_uuid(), lead_id, made_at, outcome, 1, 1, verdict, subscription_id, lead_id
        from decision where assignment_id = '{test_held}'""",
    ),
    (
        "exposure_matches_assignment", "no exposure", "lead_lapsed",
        "delete from exposure where lead_id = '{lead_lapsed}'",
    ),
    (
        "exposure_matches_assignment", "its assignment is missing, held or released", "lead_held",
        """insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address,
            attempt_no)
        values ('{lead_held}', '{held}', '{business}', 'push', '{endpoint}', '', '127.0.0.1', 1)""",
    ),
    (
        "exposure_matches_assignment", "exposed to another business than its assignment", "lead_delivered",
        "update exposure set business_id = '{other_business}' where lead_id = '{lead_delivered}'",
    ),
    (
        "exposure_matches_assignment", "sent to an endpoint of another business", "lead_delivered",
        "update exposure set endpoint_id = '{other_endpoint}' where lead_id = '{lead_delivered}'",
    ),
    (
        "exposure_matches_assignment", "exposed more than once", "lead_exposed",
        """alter table assignment drop constraint assignment_exposure;
        alter table exposure drop constraint exposure_pkey;
        alter table exposure drop constraint exposure_of_assignment cascade;
        insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address,
            attempt_no)
        values ('{lead_exposed}', '{exposed}', '{business}', 'push', '{endpoint}', '', '127.0.0.1', 2)""",
    ),
    (
        "feed_has_its_own", "exposed by feed, but not in the feed", "exposed",
        "update exposure set channel = 'feed' where assignment_id = '{exposed}'",
    ),
    (
        "feed_has_its_own", "the lead of another business", "held",
        """insert into feed (business_id, mode, last_position) values ('{other_business}', 'live', 1);
        insert into feed_event (business_id, mode, position, kind, assignment_id, placed_at)
        values ('{other_business}', 'live', 1, 'lead.assigned', '{held}', now())""",
    ),
    (
        "feed_has_its_own", "a position that was never assigned", "held",
        """insert into feed_event (business_id, mode, position, kind, assignment_id, placed_at)
        values ('{business}', 'live', 2, 'lead.assigned', '{held}', now())""",
    ),
    (
        "one_person_seen_once", "the same person inside the window", "lead_delivered",
        """alter table person_window drop constraint person_window_once;
        update person_window set key = 'one person' where lead_id in ('{lead_delivered}', '{lead_lapsed}')""",
    ),
    (
        "consent_covers_exposure", "exposed after the end of the consent", "exposed",
        "update lead set consent_until = now() - interval '1 hour' where id = '{lead_exposed}'",
    ),
    (
        "consent_covers_exposure", "exposed with an unclaimed certificate", "exposed",
        """alter table lead drop constraint lead_certificates_claimed;
        update lead set certificates = 'pending' where id = '{lead_exposed}'""",
    ),
    (
        "waiting_lead_is_due", "overdue", "lead_prospect",
        f"update lead set due_at = {LATE} where id = '{{lead_prospect}}'",
    ),
    (
        "waiting_lead_is_due", "no due time", "lead_nurturing",
        """alter table lead drop constraint lead_due;
        update lead set due_at = null where id = '{lead_nurturing}'""",
    ),
    (
        "waiting_lead_is_due", "a due time in a state that is never due", "lead_unsold",
        "alter table lead drop constraint lead_due; update lead set due_at = now() where id = '{lead_unsold}'",
    ),
    (
        "open_assignment_is_due", "overdue", "exposed",
        f"update assignment set due_at = {LATE} where id = '{{exposed}}'",
    ),
    (
        "open_assignment_is_due", "no due time", "held",
        """alter table assignment drop constraint assignment_due;
        update assignment set due_at = null where id = '{held}'""",
    ),
    (
        "open_assignment_is_due", "held too long", "held",
        f"update assignment set hold_until = {LATE} where id = '{{held}}'",
    ),
    (
        "open_assignment_is_due", "not lapsed in time", "exposed",
        f"update assignment set evidence_until = {LATE} where id = '{{exposed}}'",
    ),
    (
        "lead_ends_in_time", "neither ended nor nurtured", "lead_prospect",
        "update lead set received_at = now() - interval '26 hours' where id = '{lead_prospect}'",
    ),
    (
        "revision_counts_journey", "another revision than its newest touch or correction", "lead_prospect",
        "update lead set revision = 2 where id = '{lead_prospect}'",
    ),
    (
        "inquiry_answered_once", "more than one inquiry", "",
        """drop index inquiry_provider_reference;
        update inquiry set provider_reference = 'twice' where id in ('{lead_received}', '{lead_rejected}')""",
    ),
    (
        "inquiry_answered_once", "more than one inquiry", "",
        """drop index inquiry_idempotency_key;
        update inquiry set idempotency_key = 'twice' where id in ('{lead_received}', '{lead_rejected}')""",
    ),
    ("inquiry_became_its_lead", "no lead", "lead_rejected", "delete from lead where id = '{lead_rejected}'"),
    ("inquiry_became_its_lead", "no inquiry", "lead_rejected", "delete from inquiry where id = '{lead_rejected}'"),
    (
        "inquiry_became_its_lead", "another provider, vertical or mode", "lead_rejected",
        "update lead set provider_id = '{other_provider}' where id = '{lead_rejected}'",
    ),
    (
        "inquiry_became_its_lead", "received as something else", "lead_duplicate",
        "update lead set state = 'rejected' where id = '{lead_duplicate}'",
    ),
    (
        "joined_inquiry_is_of_its_lead", "another vertical or mode", "lead_duplicate",
        JOIN_DUPLICATE.replace("{lead}", "{lead_test_held}").replace("{kind}", "inquiry"),
    ),
    (
        "joined_inquiry_is_of_its_lead", "a touch of another kind", "lead_duplicate",
        JOIN_DUPLICATE.replace("{lead}", "{lead_prospect}").replace("{kind}", "call"),
    ),
    (
        "assignment_is_of_its_parties", "an endpoint of another business", "held",
        "update assignment set endpoint_id = '{other_endpoint}' where id = '{held}'",
    ),
    (
        "assignment_is_of_its_parties", "not of its lead", "held",
        "update assignment set provider_id = '{other_provider}' where id = '{held}'",
    ),
    (
        "assignment_is_of_its_parties", "not of its subscription", "test_held",
        """update assignment set business_id = '{other_business}', endpoint_id = '{other_endpoint}'
        where id = '{test_held}'""",
    ),
    ("contact_is_sealed", "no contact", "lead_prospect", "delete from contact where lead_id = '{lead_prospect}'"),
    ("contact_is_sealed", "no key", "lead_delivered", "delete from data_key where lead_id = '{lead_delivered}'"),
    (
        "contact_is_sealed", "erased, and its key is still there", "lead_delivered",
        "delete from contact where lead_id = '{lead_delivered}';" + ERASE_DELIVERED,
    ),
    (
        "contact_is_sealed", "erased, and its contact is still there", "lead_delivered",
        "delete from data_key where lead_id = '{lead_delivered}';" + ERASE_DELIVERED,
    ),
    (
        "contact_is_sealed", "its notice is overdue", "lead_delivered",
        FORGET_DELIVERED + ERASE_DELIVERED + f"; update notice set due_at = {LATE}",
    ),
    (
        "contact_is_sealed", "exposed after it was erased", "lead_delivered",
        FORGET_DELIVERED + ERASE_DELIVERED + """; update erasure set business_id = null, notice_id = null""",
    ),
    (
        "contact_is_sealed", "erased, and still active", "lead_prospect",
        """delete from contact where lead_id = '{lead_prospect}';
        delete from data_key where lead_id = '{lead_prospect}';
        insert into erasure (lead_id, requested_at, requested_by, reason, suppressed)
        values ('{lead_prospect}', now(), 'operator', 'asked', true)""",
    ),
    (
        "revocation_reached_the_holder", "shown, and its business was not notified", "lead_delivered",
        "alter table revoked_lead disable trigger revoked_lead_has_notice;" + REVOKE.format(lead="{lead_delivered}"),
    ),
    (
        "revocation_reached_the_holder", "its notice is not sent", "lead_delivered",
        """insert into notice (id, lead_id, kind, business_id, assignment_id, made_at, state, due_at, deadline_at)
        select lead_id, lead_id, 'revoked', business_id, assignment_id, now(), 'due', {late}, now()
        from exposure where lead_id = '{lead_delivered}';
        insert into revocation (id, revoked_at, requested_by, mode, channels, reason)
        values ('{lead_delivered}', now(), 'operator', 'live', array[]::text[], 'asked');
        insert into revoked_lead (lead_id, revocation_id, state, business_id, notice_id)
        select lead_id, lead_id, 'delivered', business_id, id from notice""".replace("{late}", LATE),
    ),
    (
        "revocation_reached_the_holder", "revoked, and still active", "lead_prospect",
        REVOKE.format(lead="{lead_prospect}"),
    ),
    (
        "deletion_was_carried_out", "ended, and its contact is still stored", "lead_rejected",
        """alter table deletion_request drop constraint deletion_request_contact;
        update deletion_request set contact = '\\x01'""",
    ),
    (
        "deletion_was_carried_out", "a lead is not erased", "lead_delivered",
        "insert into deletion_lead select id, '{lead_delivered}' from deletion_request",
    ),
    (
        "deletion_was_carried_out", "done, and a business has time to acknowledge it", "lead_delivered",
        FORGET_DELIVERED + ERASE_DELIVERED
        + "; insert into deletion_lead select id, '{lead_delivered}' from deletion_request",
    ),
    (
        "deletion_is_in_time", "past its deadline", "lead_rejected",
        "update deletion_request set state = 'open', erased_at = null, ended_at = null",
    ),
    (
        "answer_was_recorded", "no accepted attempt", "delivered",
        "update attempt set outcome = 'unknown' where assignment_id = '{delivered}'",
    ),
    (
        "award_was_decided", "no decision", "lapsed",
        """update share_credit c set credit = credit - (d.credits ->> c.business_id::text)::bigint
        from decision d where d.assignment_id = '{lapsed}' and c.mode = 'live';
        delete from decision where assignment_id = '{lapsed}'""",
    ),
    (
        "award_was_decided", "decided about another lead or subscription", "lapsed",
        "update decision set lead_id = '{lead_held}' where assignment_id = '{lapsed}'",
    ),
    (
        "award_was_decided", "no assignment", "lead_unsold",
        """insert into decision (id, lead_id, made_at, outcome, vertical_version, catalog_version, verdict,
            assignment_id)
        values (gen_random_uuid(), '{lead_unsold}', now(), 'held', 1, 1, '{{}}', gen_random_uuid())""",
    ),
    (
        "work_is_not_set_aside", "quarantined, to be repaired and retried", "held",
        """insert into failing_work (kind, id, lead_id, failure, failures, first_failed_at, last_failed_at,
            quarantined_at)
        values ('assignment', '{held}', '{lead_held}', 'ValueError', 8, now() - interval '1 hour', now(), now())""",
    ),
    (
        "work_is_not_set_aside", "given up", "lead_unsold",
        """insert into failing_work (kind, id, lead_id, failure, failures, first_failed_at, last_failed_at,
            quarantined_at, ended_at)
        values ('lead', '{lead_unsold}', '{lead_unsold}', 'ValueError', 8, now(), now(), now(), now())""",
    ),
    (
        "background_passes_succeed", "keeps failing", "",
        """update background_pass set failures = 8, failing_since = now() - interval '31 minutes',
            failure = 'ValueError' where name = 'outcomes'""",
    ),
    (
        "record_has_its_month", "records outside their month", "",
        """insert into attempt (id, assignment_id, lead_id, business_id, endpoint_id, attempt_no, started_at, outcome,
            reason, total_ms)
        select gen_random_uuid(), id, lead_id, business_id, endpoint_id, 1, '1999-12-31', 'failed', 'timeout', 1
        from assignment where lead_id = '{lead_held}'""",
    ),
    (
        "report_hours_are_complete", "another number of leads than were received", "",
        """insert into report_column
        select 'live', 'step', frontier - interval '2 days', '\\x0001' from report_progress""",
    ),
    (
        "report_hours_are_complete", "stored before the hour was over", "",
        "insert into report_column select 'live', 'step', frontier, '' from report_progress",
    ),
    (
        "report_months_equal_hours", "differs from its hours", "",
        "insert into report_month values ('live', 'step', '2020-01-01Z', '\\x0001', '\\x00000001', '\\x00000002')",
    ),
    (
        "report_columns_equal_recomputation", "differs from a computation from scratch", "",
        """insert into report_column
        select 'live', 'step', frontier - interval '2 hours', '\\x0001' from report_progress""",
    ),
)  # fmt: skip


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("check", "fault", "whose", "sql"), BREAKAGES, ids=[f"{check}: {fault}" for check, fault, _, _ in BREAKAGES]
)
async def test_what_is_broken_is_named_by_its_check_alone(
    shared_world: Peopled, check: str, fault: str, whose: str, sql: str
) -> None:
    report = await broken_and_undone(shared_world, sql)
    failed = {row.name: row for row in report.checks if row.findings}
    assert set(failed) == {check}
    named = [row for row in failed[check].rows if row["fault"] == fault]
    assert named
    assert not whose or str(shared_world.names[whose]) in {value for row in named for value in row.values()}


def test_every_check_has_been_seen_to_find_something() -> None:
    assert {check for check, *_ in BREAKAGES} == set(CHECKS)


def test_every_check_says_what_it_promises() -> None:
    assert [name for name in CHECKS if not promise(name).endswith(".")] == []


@pytest.mark.asyncio(loop_scope="module")
async def test_an_erased_lead_is_no_finding(shared_world: Peopled) -> None:
    report = await broken_and_undone(
        shared_world,
        FORGET_DELIVERED + ERASE_DELIVERED,
    )
    assert report.findings == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_a_lead_that_was_nurtured_has_its_25_hours_from_then(shared_world: Peopled) -> None:
    report = await broken_and_undone(
        shared_world,
        """update lead set received_at = now() - interval '40 days' where id = '{lead_prospect}';
        insert into decision (id, lead_id, made_at, outcome, vertical_version, catalog_version, verdict)
        select gen_random_uuid(), '{lead_prospect}', now() - ago, outcome, 1, 1, '{{}}'
        from (values (interval '39 days', 'nurturing'), (interval '1 hour', 'waiting')) as made (ago, outcome)""",
    )
    assert report.findings == 0


async def test_many_findings_are_counted_and_the_first_rows_shown(peopled: Peopled) -> None:
    for _ in range(ROWS_SHOWN + 5):
        await peopled.world.lead("prospect")
    report = await broken(peopled, f"update lead set due_at = {LATE} where state = 'prospect'")
    (check,) = [each for each in report.checks if each.findings]
    assert check.findings == ROWS_SHOWN + 7  # with the two that were there
    assert len(check.rows) == ROWS_SHOWN
    output = io.StringIO()
    show(report, Console(file=output, width=120))
    assert "waiting_lead_is_due" in output.getvalue()
    assert f"lead_id={check.rows[0]['lead_id']}" in output.getvalue()
    assert "and 7 more" in output.getvalue()


async def test_a_live_system_is_always_seen_at_one_instant(peopled: Peopled, pool: Any) -> None:
    """Wallets and transfers change while verify reads them one after the other."""
    stopping = asyncio.Event()

    async def pay() -> int:
        payments = 0
        while not stopping.is_set():
            await pool.execute(TOP_UP, uuid4(), 1, peopled.world.business, f"event-{uuid4()}")
            payments += 1
        return payments

    paying = [asyncio.create_task(pay()) for _ in range(3)]
    reports = [await verify(peopled.connection) for _ in range(5)]
    stopping.set()
    assert min(await asyncio.gather(*paying)) > 0
    assert [report.findings for report in reports] == [0] * 5
    assert reports[0].examined < reports[-1].examined


async def test_verify_and_writers_never_wait_for_each_other(peopled: Peopled, pool: Any) -> None:
    async with pool.acquire() as writer, writer.transaction():
        for table in ("lead", "assignment", "wallet", "cap_usage", "transfer", "exposure"):
            await writer.execute(f"lock table {table} in exclusive mode")  # the strongest that any writer takes
        assert (await verify(peopled.connection)).findings == 0


async def test_verify_leaves_the_connection_as_it_was(peopled: Peopled) -> None:
    before = await peopled.connection.fetchrow("select current_user, current_setting('statement_timeout')")
    await verify(peopled.connection)
    after = await peopled.connection.fetchrow("select current_user, current_setting('statement_timeout')")
    assert before == after


async def invoke(settings: Settings, *arguments: str) -> Result:
    """The command as typed, on this test's database; in a thread, because it runs a loop of its own."""
    environment = {
        "DATABASE_URL": settings.database_url,
        "VALKEY_URL": settings.valkey_url,
        "MARKETPLACE_DATA": str(settings.data_dir),
        "MARKETPLACE_MASTER_KEY": base64.b64encode(settings.master_key).decode(),
        "MARKETPLACE_PEPPER": base64.b64encode(settings.pepper).decode(),
    }
    return await asyncio.to_thread(CliRunner().invoke, command, arguments, env=environment)


async def test_the_command_writes_the_report_and_exits_0_when_clean(
    peopled: Peopled, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    result = await invoke(settings, "--json", str(file))
    assert (result.exit_code, result.exception) == (0, None)
    report_in_file = msgspec.json.decode(file.read_bytes(), type=VerifyReport)
    assert (report_in_file.checked, report_in_file.findings) == (len(CHECKS), 0)
    assert {"name", "examined", "findings", "rows"} <= set(msgspec.json.decode(file.read_bytes())["checks"][0])
    assert f"0 findings in {report_in_file.examined:,} rows" in result.stdout


async def test_the_command_exits_1_with_the_rows_on_a_finding(
    peopled: Peopled, settings: Settings, tmp_path: Path
) -> None:
    await broken(peopled, "delete from exposure where lead_id = '{lead_lapsed}'")
    file = tmp_path / "report.json"
    result = await invoke(settings, "--json", str(file))
    assert result.exit_code == 1
    assert str(peopled.names["lead_lapsed"]) in result.stdout
    (failed,) = [check for check in msgspec.json.decode(file.read_bytes(), type=VerifyReport).checks if check.findings]
    assert failed.rows[0]["lead_id"] == str(peopled.names["lead_lapsed"])


async def test_a_warning_is_shown_and_does_not_fail_the_command(peopled: Peopled, settings: Settings) -> None:
    old = """insert into attempt (id, assignment_id, lead_id, business_id, endpoint_id, attempt_no, started_at, outcome,
            reason, total_ms)
        select gen_random_uuid(), id, lead_id, business_id, endpoint_id, 1, '1999-12-31', 'failed', 'timeout', 1
        from assignment where lead_id = '{lead_held}'"""
    await broken(peopled, old)
    result = await invoke(settings)
    assert result.exit_code == 0
    assert "warning: record_has_its_month" in result.stdout


def wait_for(file: Path) -> None:
    for _ in tries("the file of the report", pause=0.02):
        if file.exists():
            return


async def test_a_watch_ends_at_the_first_finding(peopled: Peopled, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    watching = asyncio.create_task(invoke(settings, "--watch", "0.05", "--json", str(file)))
    await asyncio.to_thread(wait_for, file)
    assert not watching.done()
    await broken(peopled, "delete from exposure where lead_id = '{lead_lapsed}'")
    assert (await watching).exit_code == 1


async def test_a_database_without_the_schema_is_said_in_a_sentence(empty_database_url: str, settings: Settings) -> None:
    result = await invoke(msgspec.structs.replace(settings, database_url=empty_database_url))
    assert "cannot be verified" in str(result.exception)
    assert "marketplace doctor" in str(result.exception)
