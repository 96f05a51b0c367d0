"""The database itself refuses what must never happen, whatever the code above it tries.

Each test arranges as the owner, whom no grant holds back; what a role may do at all is the golden table at the end.
"""

from collections.abc import AsyncIterator
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from marketplace.runtime import clock
from routing.lifecycle import ASSIGNMENT_MOVES, LEAD_MOVES, AssignmentState, LeadState
from tests.builders.world import (
    GRANT_RETURN,
    INSERT_CLAIM,
    INSERT_EXPOSURE,
    MARK_EXPOSED,
    MOVE_LEAD,
    OWE_SHARES,
    WALKS,
    Lead,
    World,
)

States = type[LeadState] | type[AssignmentState]

OTHER_ASSIGNMENT = """
insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id, mode,
    price_minor, payout_minor, currency, due_at, awarded_at, hold_until, hour_at, day_at, week_at, month_at)
select $2, lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id, mode,
    price_minor, payout_minor, currency, now(), awarded_at, hold_until, hour_at, day_at, week_at, month_at
from assignment where id = $1"""

OTHER_BUSINESS_ASSIGNMENT = """
insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id, mode,
    state, price_minor, payout_minor, currency, due_at, awarded_at, hold_until, exposed_at, evidence_until, hour_at,
    day_at, week_at, month_at)
select $2, lead_id, $3, subscription_id, subscription_version, endpoint_id, provider_id, mode, 'exposed', price_minor,
    payout_minor, currency, now(), awarded_at, hold_until, now(), now(), hour_at, day_at, week_at, month_at
from assignment where id = $1"""

TRANSFER = """
insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id)
select gen_random_uuid(), $2, $3, currency, business_id, id from assignment where id = $1"""


SUBMIT_AGAIN = """
insert into inquiry (id, provider_id, vertical_id, mode, provider_reference, idempotency_key, request_sha256,
    received_as, facts, consent_sha256, consent_given_at, submitted_at, received_at)
select gen_random_uuid(), provider_id, vertical_id, mode, $1, $2, request_sha256, received_as, facts, consent_sha256,
    consent_given_at, submitted_at, received_at
from inquiry limit 1"""


TELL = """
insert into disposition (id, assignment_id, lead_id, business_id, kind, value_minor, note, happened_at, recorded_at,
    source)
select gen_random_uuid(), id, lead_id, business_id, $2, $3, 'n', now(), now(), 'api' from assignment where id = $1"""


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A world with nobody's lead in it yet, on a connection of the owner."""
    connection = await asyncpg.connect(database_url)
    made = World(connection)
    await made.make()
    yield made
    await connection.close()


async def refused(world: World, by: str, sql: str, *values: Any) -> None:
    """`sql` fails on the constraint named `by`, and whatever it had done is undone."""
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as raised:
        async with world.connection.transaction():
            await world.connection.execute(sql, *values)
    assert raised.value.constraint_name == by


async def never_changes(world: World, table: str, *statements: str) -> None:
    """Each of `statements` on a row of `table` is refused by the table's trigger."""
    assert await world.connection.fetchval(f"select count(*) from {table}") > 0
    for sql in statements:
        with pytest.raises(asyncpg.RestrictViolationError, match="rows are never changed"):
            await world.connection.execute(sql)


# --- exclusivity ------------------------------------------------------------------------------------------------------


SEEN = ("exposed", "delivered", "refused", "lapsed", "returned")


@pytest.mark.parametrize("state", SEEN)
async def test_a_lead_is_exposed_once_for_ever(world: World, state: str) -> None:
    lead = await world.lead(state)
    await refused(world, "exposure_pkey", INSERT_EXPOSURE, lead.assignment_id)


@pytest.mark.parametrize("state", SEEN)
async def test_a_lead_is_exposed_to_no_second_business(world: World, state: str) -> None:
    """Even with a second assignment, to another business, that says it is exposed."""
    lead = await world.lead(state)
    await world.connection.execute("drop index assignment_one_live")
    await world.connection.execute("set session_replication_role = replica")  # past the life tables and foreign keys
    other = uuid4()
    await world.connection.execute(OTHER_BUSINESS_ASSIGNMENT, lead.assignment_id, other, world.other_business)
    await world.connection.execute("set session_replication_role = origin")
    await refused(world, "exposure_pkey", INSERT_EXPOSURE, other)


async def test_an_address_that_leads_are_sent_to_is_one_businesss(world: World) -> None:
    """Proven and on, for two businesses, it is refused; the same business may have it twice."""
    insert = (
        "insert into endpoint (id, business_id, url, state, secret, verified_at, address_key) "
        "values (gen_random_uuid(), $1, 'https://one.example/', $2, '', $3::timestamptz, $4)"
    )
    key, now = "one.example/" + "p" * 2_000, clock.now()
    for business, state, verified in (
        (world.business, "active", now),
        (world.business, "active", now),
        (world.other_business, "unverified", None),
        (world.other_business, "disabled", now),
    ):
        await world.connection.execute(insert, business, state, verified, key)
    by = "endpoint_address_of_one"
    await refused(world, by, insert, world.other_business, "active", now, key)
    own = "where business_id = $1 and address_key = $2"
    await refused(
        world, by, f"update endpoint set state = 'active', verified_at = now() {own}", world.other_business, key
    )


async def test_an_exposure_is_never_updated_deleted_or_truncated(world: World) -> None:
    await world.lead("exposed")
    await never_changes(
        world, "exposure",
        "update exposure set channel = 'portal'", "delete from exposure", "truncate exposure cascade",
        "truncate lead cascade",
    )  # fmt: skip


async def test_an_exposed_assignment_is_never_released(world: World) -> None:
    lead = await world.lead("exposed")
    release = "update assignment set state = 'released', due_at = null where id = $1"
    await refused(world, "assignment_move", release, lead.assignment_id)


async def test_an_exposed_assignment_is_not_released_even_without_the_table_of_moves(world: World) -> None:
    lead = await world.lead("exposed")
    await world.connection.execute("alter table assignment disable trigger assignment_move")
    release = """update assignment set state = 'released', due_at = null, exposed_at = null, evidence_until = null
        where id = $1"""
    await refused(world, "exposure_assignment", release, lead.assignment_id)


async def test_a_lead_with_an_exposure_is_never_a_prospect_again(world: World) -> None:
    lead = await world.lead("exposed")
    await refused(world, "lead_move", MOVE_LEAD, lead.id, "prospect")


async def test_a_lead_with_an_exposure_stays_seen_even_without_the_table_of_moves(world: World) -> None:
    lead = await world.lead("exposed")
    await world.connection.execute("alter table lead disable trigger lead_move")
    await refused(world, "exposure_lead", MOVE_LEAD, lead.id, "prospect")


async def test_an_assignment_is_not_exposed_without_its_exposure(world: World) -> None:
    lead = await world.lead("held")
    await refused(world, "assignment_exposure", MARK_EXPOSED, lead.assignment_id)


async def test_a_lead_that_is_not_marked_as_seen_is_not_exposed(world: World) -> None:
    lead = await world.lead("held")
    await refused(world, "exposure_lead", INSERT_EXPOSURE, lead.assignment_id)


async def test_a_released_assignment_is_not_exposed(world: World) -> None:
    lead = await world.lead("released")
    await world.connection.execute(MOVE_LEAD, lead.id, "held")
    await world.connection.execute(MOVE_LEAD, lead.id, "exposed")
    await refused(world, "exposure_assignment", INSERT_EXPOSURE, lead.assignment_id)


async def test_an_exposure_to_another_business_than_the_assignments_is_refused(world: World) -> None:
    lead = await world.lead("held")
    await world.connection.execute(MOVE_LEAD, lead.id, "exposed")
    sql = INSERT_EXPOSURE.replace("business_id, 'push'", "$2::uuid, 'push'")
    await refused(world, "exposure_assignment", sql, lead.assignment_id, world.other_business)


@pytest.mark.parametrize("state", ["held", "exposed", "delivered", "refused", "lapsed", "returned"])
async def test_a_lead_has_one_assignment_that_was_not_released(world: World, state: str) -> None:
    lead = await world.lead(state)
    await refused(world, "assignment_one_live", OTHER_ASSIGNMENT, lead.assignment_id, uuid4())


async def test_a_released_lead_may_be_assigned_again(world: World) -> None:
    lead = await world.lead("released")
    await world.connection.execute(OTHER_ASSIGNMENT, lead.assignment_id, uuid4())


async def test_a_person_is_not_taken_twice_in_one_vertical_inside_the_window(world: World) -> None:
    lead, other = await world.lead("prospect"), await world.lead("received")
    window = "insert into person_window values ($1, $2, $3, tstzrange(now() + $4::interval, now() + '90 days'))"
    inside, after = "29 days", "30 days 1 hour"
    await refused(
        world, "person_window_once", window.replace("$4::interval", f"interval '{inside}'"),
        other.id, lead.id.bytes, world.vertical,
    )  # fmt: skip
    await world.connection.execute(
        window.replace("$4::interval", f"interval '{after}'"), other.id, lead.id.bytes, world.vertical
    )


async def test_a_window_that_was_emptied_keeps_nobody_out_and_is_not_filled_again_over_another(world: World) -> None:
    lead, other = await world.lead("unsold"), await world.lead("received")
    await world.connection.execute("update person_window set during = 'empty' where lead_id = $1", lead.id)
    if not await world.connection.fetchval("select count(*) from person_window where lead_id = $1", lead.id):
        await world.connection.execute(
            "insert into person_window values ($1, $2, $3, 'empty')", lead.id, lead.id.bytes, world.vertical
        )
    window = "insert into person_window values ($1, $2, $3, tstzrange(now(), now() + interval '30 days'))"
    await world.connection.execute(window, other.id, lead.id.bytes, world.vertical)
    again = "select retake_window($1, now(), now() + interval '30 days')"
    with pytest.raises(asyncpg.UniqueViolationError, match="this person was here since"):
        await world.connection.fetchval(again, lead.id)


async def test_a_touch_of_a_lead_is_stored_once(world: World) -> None:
    lead = await world.lead("received")
    touch = """insert into touch (lead_id, fingerprint, revision, kind, at, recorded_at)
        values ($1, 'one', 1, 'call', now(), now())"""
    await world.connection.execute(touch, lead.id)
    await refused(world, "touch_once", touch, lead.id)


@pytest.mark.parametrize(
    ("by", "columns", "values"),
    [
        ("touch_direction", "direction", "'sideways'"),
        ("touch_seconds", "seconds", "-1"),
        ("touch_amount", "amount_minor, currency", "-1, 'USD'"),
        ("touch_currency", "amount_minor", "1"),
    ],
)
async def test_what_a_touch_says_is_within_bounds(world: World, by: str, columns: str, values: str) -> None:
    lead = await world.lead("received")
    sql = f"""insert into touch (lead_id, fingerprint, revision, kind, at, recorded_at, {columns})
        values ($1, 'one', 1, 'call', now(), now(), {values})"""
    await refused(world, by, sql, lead.id)


async def test_a_correction_of_the_contact_is_sealed_and_counts_once_under_its_key(world: World) -> None:
    lead = await world.lead("received")
    sql = """insert into correction (lead_id, revision, made_at, made_by, request_sha256, idempotency_key, contact,
        sealed) values ($1, $2, now(), 'test', '', $3, $4, $5)"""
    await refused(world, "correction_sealed", sql, lead.id, 1, None, ["phone"], b"box without a key")
    await world.connection.execute(sql, lead.id, 1, "k", [], None)
    await refused(world, "correction_idempotency_key", sql, lead.id, 2, "k", [], None)


# --- contact data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["marketplace_api", "marketplace_worker"])
async def test_contact_is_read_by_the_business_it_was_exposed_to_after_the_commit(world: World, role: str) -> None:
    lead = await world.lead("exposed")
    await world.connection.execute(f"set role {role}")
    row = await world.connection.fetchrow("select * from read_contact($1, $2)", lead.id, world.business)
    assert tuple(row) == (b"\x01", b"\x02", "key", None)


async def test_contact_is_not_read_before_the_exposure_is_committed(world: World) -> None:
    lead = await world.lead("held")
    connection = world.connection
    async with connection.transaction():
        await connection.execute("set local role marketplace_worker")
        await connection.execute(MOVE_LEAD, lead.id, "exposed")
        await connection.execute(INSERT_EXPOSURE, lead.assignment_id)
        await connection.execute(MARK_EXPOSED, lead.assignment_id)
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="not committed yet"):
            async with connection.transaction():  # a savepoint is still the same transaction
                await connection.fetchrow("select * from read_contact($1, $2)", lead.id, world.business)
    assert await connection.fetchrow("select * from read_contact($1, $2)", lead.id, world.business)


async def test_the_worker_cannot_pass_an_exposure_off_as_committed(world: World) -> None:
    lead = await world.lead("held")
    await world.connection.execute("set role marketplace_worker")
    await world.connection.execute(MOVE_LEAD, lead.id, "exposed")
    forged = INSERT_EXPOSURE.replace("attempt_no)", "attempt_no, committed_by)").replace("1 from", "1, '3' from")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await world.connection.execute(forged, lead.assignment_id)


@pytest.mark.parametrize(("state", "reader"), [("exposed", "other_business"), ("held", "business")])
async def test_contact_is_not_read_without_an_exposure_to_that_business(world: World, state: str, reader: str) -> None:
    lead = await world.lead(state)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="no exposure of this lead to this business"):
        await world.connection.fetchrow("select * from read_contact($1, $2)", lead.id, getattr(world, reader))


@pytest.mark.parametrize("role", ["marketplace_api", "marketplace_worker", "marketplace_reports"])
@pytest.mark.parametrize("column", ["contact.sealed", "data_key.wrapped"])
async def test_no_role_selects_contact_data_or_its_key(world: World, role: str, column: str) -> None:
    await world.lead("exposed")
    await world.connection.execute(f"set role {role}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await world.connection.fetch(f"select {column} from {column.split('.')[0]}")


async def test_who_reports_may_not_ask_for_contact(world: World) -> None:
    lead = await world.lead("exposed")
    await world.connection.execute("set role marketplace_reports")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="read_contact"):
        await world.connection.fetch("select * from read_contact($1, $2)", lead.id, world.business)


# --- money and caps ---------------------------------------------------------------------------------------------------


async def test_a_capture_at_another_price_than_the_quoted_one_is_refused(world: World) -> None:
    lead = await world.lead("exposed")
    await refused(world, "transfer_at_quoted_price", TRANSFER, lead.assignment_id, "capture", 3999)


async def test_a_payout_of_another_amount_than_the_agreed_one_is_refused(world: World) -> None:
    lead = await world.lead("refused", paid=True)
    sql = """insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id)
        values (gen_random_uuid(), 'claw_back', 2399, 'USD', $1, $2)"""
    await refused(world, "transfer_at_agreed_payout", sql, world.provider, lead.assignment_id)


@pytest.mark.parametrize("kind", ["payout", "claw_back"])
async def test_a_provider_that_does_not_exist_is_owed_nothing(world: World, kind: str) -> None:
    lead = await world.lead("exposed")
    sql = """insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id)
        select gen_random_uuid(), $2, payout_minor, currency, gen_random_uuid(), id from assignment where id = $1"""
    await refused(world, "transfer_at_agreed_payout", sql, lead.assignment_id, kind)


async def test_a_provider_of_a_transfer_is_never_deleted(world: World) -> None:
    await world.lead("delivered")
    await refused(world, "inquiry_provider_id_fkey", "delete from provider where id = $1", world.provider)


JOIN = """
insert into inquiry (id, provider_id, vertical_id, mode, provider_reference, request_sha256, received_as, facts,
    consent_sha256, consent_given_at, submitted_at, received_at, joined_lead_id, joined_touch)
select gen_random_uuid(), provider_id, vertical_id, mode, gen_random_uuid()::text, '', $2, '{}', '',
       now(), now(), now(), id, $3
from inquiry where id = $1"""


async def test_an_inquiry_joins_a_lead_as_a_duplicate_by_one_touch_of_its_own(world: World) -> None:
    lead = await world.accept("received", "live")
    await refused(world, "inquiry_joined_touch", JOIN, lead, "duplicate", b"\x01")
    await world.connection.execute(
        "insert into touch (lead_id, fingerprint, revision, kind, at, recorded_at) values ($1, $2, 1, 'inquiry', "
        "now(), now())",
        lead,
        b"\x01",
    )
    await refused(world, "inquiry_joined", JOIN, lead, "received", b"\x01")
    await refused(world, "inquiry_joined", JOIN, lead, "duplicate", None)
    await world.connection.execute(JOIN, lead, "duplicate", b"\x01")
    await refused(world, "inquiry_joined_once", JOIN, lead, "duplicate", b"\x01")


SHARE = """
insert into payout_share (assignment_id, share, provider_id, lead_id, lead_provider_id, inquiry_id, currency,
    payout_minor, span)
select id, $2, $3, lead_id, provider_id, $4, currency, payout_minor, int8range($5, $6) from assignment where id = $1"""

PAY_SHARE = """
insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id, share)
values (gen_random_uuid(), $2, $5, 'USD', $3, $1, $4)"""


async def joined(world: World, state: str) -> tuple[Lead, UUID]:
    """A lead of the state, and the inquiry of the other provider that joined it before anybody was shown it."""
    received = await world.accept("received", "live")
    inquiry = await world.join(received)
    return await world.walk(received, state), inquiry


async def test_an_inquiry_gives_a_claim_to_the_payout_of_the_lead_that_it_joined_before_its_exposure(
    world: World,
) -> None:
    held, other = await world.lead("held"), await world.lead("held")
    inquiry = await world.join(held.id, in_time=False)
    await refused(world, "payout_claim_joined", INSERT_CLAIM, inquiry, other.id)
    shown = await world.lead("exposed")
    late = await world.join(shown.id, in_time=False)
    await refused(world, "payout_claim_in_time", INSERT_CLAIM, late, shown.id)
    await world.connection.execute(INSERT_CLAIM, inquiry, held.id)
    await refused(world, "payout_claim_pkey", INSERT_CLAIM, inquiry, held.id)


async def test_shares_fill_a_payout_and_never_exceed_it(world: World) -> None:
    lead, inquiry = await joined(world, "exposed")
    first, second = (
        (lead.assignment_id, 0, world.provider, None),
        (lead.assignment_id, 1, world.other_provider, inquiry),
    )
    await refused(world, "payout_share_fills", SHARE, *first, 0, 2_399)
    await refused(world, "payout_share_within", SHARE, *first, 0, 2_401)
    await refused(world, "payout_share_within", SHARE, *second, 2_400, 2_400)
    await refused(world, "payout_share_first", SHARE, *second, 0, 2_400)
    async with world.connection.transaction():
        await world.connection.execute(SHARE, *first, 0, 1_200)
        await refused(world, "payout_share_apart", SHARE, *second, 1_199, 2_400)
        await refused(world, "payout_share_once", SHARE, lead.assignment_id, 1, world.provider, None, 1_200, 2_400)
        await world.connection.execute(SHARE, *second, 1_200, 2_400)
    await never_changes(
        world, "payout_share",
        "update payout_share set share = share", "delete from payout_share", "truncate payout_share cascade",
    )  # fmt: skip


async def test_a_share_is_of_a_provider_that_has_a_claim_to_an_exposed_lead(world: World) -> None:
    lead, inquiry = await joined(world, "exposed")
    other, _ = await joined(world, "exposed")
    whole = (0, 2_400)
    await refused(world, "payout_share_claimed", SHARE, lead.assignment_id, 0, world.other_provider, None, *whole)
    await refused(world, "payout_share_claim", SHARE, other.assignment_id, 0, world.other_provider, inquiry, *whole)
    held, inquiry = await joined(world, "held")
    await refused(world, "payout_share_exposed", SHARE, held.assignment_id, 0, world.other_provider, inquiry, *whole)


async def test_a_payout_is_paid_whole_or_in_all_its_shares(world: World) -> None:
    lead, inquiry = await joined(world, "exposed")
    subject = lead.assignment_id
    async with world.connection.transaction():
        await world.connection.execute(SHARE, subject, 0, world.provider, None, 0, 1_200)
        await world.connection.execute(SHARE, subject, 1, world.other_provider, inquiry, 1_200, 2_400)
    for kind, index in (("payout", "transfer_one_payout"), ("claw_back", "transfer_one_claw_back")):
        await refused(world, "transfer_every_share", PAY_SHARE, subject, kind, world.provider, 0, 1_200)
        await refused(world, "transfer_at_agreed_share", PAY_SHARE, subject, kind, world.provider, 0, 1_201)
        await refused(world, "transfer_at_agreed_share", PAY_SHARE, subject, kind, world.other_provider, 0, 1_200)
        await refused(world, "transfer_at_agreed_payout", PAY_SHARE, subject, kind, world.other_provider, None, 1_200)
        await world.connection.execute(OWE_SHARES, kind, subject)
        await refused(world, index, PAY_SHARE, subject, kind, world.provider, None, 2_400)
        await refused(world, index, PAY_SHARE, subject, kind, world.other_provider, 1, 1_200)
    capture = TRANSFER.replace("assignment_id)", "assignment_id, share)").replace("id from", "id, 0 from")
    await refused(world, "transfer_share", capture, subject, "capture", 4_000)


async def test_a_payout_that_was_paid_whole_is_not_paid_in_shares_as_well(world: World) -> None:
    lead = await world.lead("exposed")
    await world.connection.execute(
        "insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id) "
        "values (gen_random_uuid(), 'payout', 2400, 'USD', $1, $2)",
        world.provider,
        lead.assignment_id,
    )
    await world.connection.execute(SHARE, lead.assignment_id, 0, world.provider, None, 0, 2_400)
    await refused(world, "transfer_one_payout", OWE_SHARES, "payout", lead.assignment_id)


async def test_a_submission_is_taken_once_under_its_reference_and_once_under_its_key(world: World) -> None:
    await world.accept("received", "live")
    reference = await world.connection.fetchval("select provider_reference from inquiry")
    await world.connection.execute(SUBMIT_AGAIN, None, "key")
    await refused(world, "inquiry_provider_reference", SUBMIT_AGAIN, reference, "another key")
    await refused(world, "inquiry_idempotency_key", SUBMIT_AGAIN, "another reference", "key")
    for number in range(2):
        await world.connection.execute(SUBMIT_AGAIN, None, f"key {number}")
        await world.connection.execute(SUBMIT_AGAIN, f"reference {number}", None)


@pytest.mark.parametrize(
    ("state", "kind", "index"),
    [
        ("exposed", "hold", "transfer_one_hold"),
        ("delivered", "capture", "transfer_one_settlement"),
        ("delivered", "release", "transfer_one_settlement"),
        ("lapsed", "capture", "transfer_one_settlement"),
        ("returned", "refund", "transfer_one_refund"),
    ],
)
async def test_a_price_is_held_settled_and_refunded_once(world: World, state: str, kind: str, index: str) -> None:
    lead = await world.lead(state)
    await refused(world, index, TRANSFER, lead.assignment_id, kind, 4000)


@pytest.mark.parametrize(
    ("state", "kind", "index"),
    [("delivered", "payout", "transfer_one_payout"), ("returned", "claw_back", "transfer_one_claw_back")],
)
async def test_a_provider_is_paid_and_clawed_back_once(world: World, state: str, kind: str, index: str) -> None:
    lead = await world.lead(state)
    sql = """insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id)
        values (gen_random_uuid(), $1, 2400, 'USD', $2, $3)"""
    await refused(world, index, sql, kind, world.provider, lead.assignment_id)


async def test_one_payment_event_is_booked_once(world: World) -> None:
    sql = """insert into transfer (id, kind, amount_minor, currency, business_id, event_id)
        select gen_random_uuid(), kind, amount_minor, currency, business_id, event_id from transfer"""
    await refused(world, "transfer_one_event", sql)


PAY = """insert into transfer (id, kind, amount_minor, currency, provider_id, event_id, assignment_id)
    values (gen_random_uuid(), 'paid', $1, 'USD', $2, $3, $4)"""


async def test_a_provider_is_never_paid_more_than_it_is_owed(world: World) -> None:
    await refused(world, "transfer_owed", PAY, 1, world.provider, "wire 1", None)
    lead = await world.lead("delivered")
    await refused(world, "transfer_owed", PAY, 2401, world.provider, "wire 1", None)
    await world.connection.execute(PAY, 2400, world.provider, "wire 1", None)
    await refused(world, "transfer_owed", PAY, 1, world.provider, "wire 2", None)
    await refused(world, "transfer_cause", PAY, 1, world.provider, "wire 2", lead.assignment_id)
    await refused(world, "transfer_cause", PAY, 1, world.provider, None, None)
    await refused(world, "transfer_of_provider", PAY, 1, world.business, "wire 2", None)


async def test_a_wallet_is_not_overdrawn_beyond_its_credit(world: World) -> None:
    overdraw = "update wallet set available_minor = -1 where business_id = $1"
    await refused(world, "wallet_covers", overdraw, world.business)
    await world.connection.execute("update wallet set credit_limit_minor = 1 where business_id = $1", world.business)
    await world.connection.execute(overdraw, world.business)


@pytest.mark.parametrize(("unit", "cap"), [("count", 1), ("minor", 7999)])
async def test_a_cap_is_not_passed(world: World, unit: str, cap: int) -> None:
    await world.lead("held")
    await world.connection.execute(f"update cap_usage set limit_{unit} = {cap} where cap_window = 'day'")
    raise_usage = "update cap_usage set used_count = used_count + 1, used_minor = used_minor + 4000"
    await refused(world, f"cap_usage_{unit}", raise_usage)


# --- what is written once ---------------------------------------------------------------------------------------------


async def test_an_inquiry_never_changes(world: World) -> None:
    await world.lead("rejected")
    await never_changes(world, "inquiry", "update inquiry set facts = '{}'", "delete from inquiry")


async def test_a_transfer_never_changes(world: World) -> None:
    await never_changes(world, "transfer", "update transfer set amount_minor = 1", "delete from transfer")


async def test_a_decision_never_changes(world: World) -> None:
    await world.lead("held")
    await never_changes(world, "decision", "update decision set outcome = 'unsold'", "delete from decision")


async def test_an_audit_row_never_changes(world: World) -> None:
    await world.connection.execute("insert into audit values (gen_random_uuid(), now(), 'a', 'b', 'c')")
    await never_changes(world, "audit", "update audit set actor = 'z'", "delete from audit")


@pytest.mark.parametrize("table", ["vertical_version", "subscription_version"])
async def test_a_version_of_the_rules_never_changes(world: World, table: str) -> None:
    await never_changes(world, table, f"update {table} set definition = '{{}}'", f"delete from {table}")


async def test_a_disposition_never_changes_but_to_lose_its_note(world: World) -> None:
    lead = await world.lead("delivered")
    await world.connection.execute(TELL, lead.assignment_id, "won", 100)
    await never_changes(
        world, "disposition",
        "update disposition set kind = 'lost', value_minor = null", "update disposition set note = 'y'",
        "delete from disposition", "truncate disposition",
    )  # fmt: skip
    await world.connection.execute("update disposition set note = null")


async def test_a_disposition_of_a_lead_that_nobody_was_shown_is_refused(world: World) -> None:
    lead = await world.lead("held")
    await refused(world, "disposition_exposed", TELL, lead.assignment_id, "contacted", None)


@pytest.mark.parametrize(("kind", "value"), [("won", None), ("lost", 1), ("quoted", 1)])
async def test_only_a_lead_that_was_won_has_a_value_and_always(world: World, kind: str, value: int | None) -> None:
    lead = await world.lead("delivered")
    await refused(world, "disposition_won", TELL, lead.assignment_id, kind, value)


async def test_a_return_is_asked_for_once_and_what_was_asked_stays(world: World) -> None:
    lead = await world.lead("returned")
    await refused(world, "return_request_once", GRANT_RETURN, uuid4(), lead.assignment_id)
    await never_changes(
        world, "return_request", "update return_request set reason = 'fraud'", "delete from return_request"
    )


@pytest.mark.parametrize(
    ("before", "by", "after"),
    [("granted", "machine", "denied"), ("granted", "machine", "requested"), ("denied", "operator", "granted"),
     ("denied", "machine", "requested"), ("denied", "machine", "denied")],
)  # fmt: skip
async def test_a_judgement_stands_but_for_a_machines_denial(world: World, before: str, by: str, after: str) -> None:
    lead = await world.lead("delivered")
    await world.connection.execute(GRANT_RETURN, uuid4(), lead.assignment_id)
    await world.connection.execute("set session_replication_role = replica")  # puts the row there without a move
    await world.connection.execute("update return_request set state = $1, judged_by = $2", before, by)
    await world.connection.execute("set session_replication_role = origin")
    await refused(world, "return_request_move", "update return_request set state = $1", after)


# --- the moves --------------------------------------------------------------------------------------------------------


async def moves_allowed(connection: Any, table: str, states: States) -> dict[str, set[str]]:
    """Every move that the trigger on `table` lets pass, found by trying all pairs on one row."""
    allowed: dict[str, set[str]] = {state: set() for state in states}
    refused_by = set()
    for before, after in permutations(states, 2):
        await connection.execute("set session_replication_role = replica")  # puts the row there without a move
        await connection.execute(f"update {table} set state = $1", before)
        await connection.execute("set session_replication_role = origin")
        try:
            await connection.execute(f"update {table} set state = $1", after)
        except asyncpg.CheckViolationError as error:
            refused_by.add(error.constraint_name)
        else:
            allowed[before].add(after)
    assert refused_by == {f"{table}_move"}
    return allowed


async def test_a_lead_moves_in_the_database_as_in_the_life_table(world: World) -> None:
    await world.lead("received")
    await world.connection.execute("alter table lead drop constraint lead_due")
    assert await moves_allowed(world.connection, "lead", LeadState) == LEAD_MOVES


async def test_an_assignment_moves_in_the_database_as_in_the_life_table(world: World) -> None:
    await world.lead("held")
    await world.connection.execute(
        """alter table assignment drop constraint assignment_due, drop constraint assignment_evidenced,
            drop constraint assignment_exposed_at, drop constraint assignment_exposure"""
    )
    assert await moves_allowed(world.connection, "assignment", AssignmentState) == ASSIGNMENT_MOVES


@pytest.mark.parametrize(("table", "states"), [("lead", LeadState), ("assignment", AssignmentState)])
async def test_the_database_knows_the_states_of_the_life_table(world: World, table: str, states: States) -> None:
    check = await world.connection.fetchval(
        "select pg_get_constraintdef(oid) from pg_constraint where conname = $1", f"{table}_state"
    )
    assert {part for part in check.split("'") if part.isalpha() and part.islower()} == set(states)


# --- who may do what --------------------------------------------------------------------------------------------------

LIST_PRIVILEGES = """
select held.role, lower(held.privilege) as privilege, held.object, held.columns from (
    select g.grantee, g.grantee::regrole::text as role, g.privilege_type as privilege, c.relname::text as object,
           null as columns
    from pg_class c cross join lateral aclexplode(c.relacl) g
    where c.relnamespace = 'public'::regnamespace and g.grantee <> c.relowner
    union all
    select g.grantee, g.grantee::regrole::text, g.privilege_type, c.relname::text,
           string_agg(a.attname, ' ' order by a.attnum)
    from pg_attribute a join pg_class c on c.oid = a.attrelid cross join lateral aclexplode(a.attacl) g
    where c.relnamespace = 'public'::regnamespace
    group by g.grantee, g.privilege_type, c.relname
    union all
    select g.grantee, g.grantee::regrole::text, g.privilege_type, f.proname::text, null
    from pg_proc f cross join lateral aclexplode(f.proacl) g
    where f.pronamespace = 'public'::regnamespace and g.grantee not in (0, f.proowner)
) held
order by 1, 2, 3"""

PRIVILEGES = {
    ("marketplace_api", "delete"): """
        list_member list_source list_staging push_subscription
        failing_work feed_ticket import_file portal_session sign_in_try stage_hook stage_name suppression
        unmapped_report""",
    ("marketplace_api", "execute"): "entered_stage_at give_back read_contact revise_lead shared_scope take_inquiry",
    ("marketplace_api", "insert"): """
        push_subscription
        payout_claim(inquiry_id lead_id mode provider_id revision vertical_id)
        mail_target outgoing_mail
        deletion_lead deletion_request
        revocation revocation_hook
        certificate(box kind lead_id made_at token_sha256)
        notice
        contact_list list_fault list_import list_member list_source list_staging
        next_action stage_change stage_hook stage_name unmapped_report
        simulation
        business_terms feed_ticket
        business_terms feed_ticket scorecard scorecard_training
        go_live
        file_import import_file import_row
        roi_assumption shared_import shared_lead
        move(assignment_id entered_state lead_id left_state)
        api_key audit(action actor at detail id object) business contact data_key disposition endpoint feedback_hook
        inquiry lead person_key person_window pipeline_stage provider return_request subscription subscription_version
        lifted_suppression
        suppression onboarding member one_time_link opened_access portal_session sign_in_try
        transfer(amount_minor assignment_id business_id currency event_id id kind made_at provider_id share)
        vertical vertical_version wallet
        refusal_count refusal_example""",
    ("marketplace_api", "select"): """
        push_subscription
        payout_claim payout_share
        mail_bounce mail_target outgoing_mail
        answer_alarm
        deletion_lead deletion_request
        revocation revocation_hook revoked_lead
        certificate(attempts compared_revision email_matches expires_at first_tried_at kind lead_id made_at
            page_matches phone_matches reason response_sha256 settled_at state token_sha256)
        notice
        contact_list kept_away list_fault list_import list_member list_source list_staging lists_serial
        next_action stage_change stage_hook stage_name unmapped_report
        simulation
        feed feed_event feed_ticket
        go_live
        file_import import_file import_row
        exclusive_outcome exclusive_record kept_outcome kept_outcome_progress kept_outcome_run roi_assumption
        background_pass exclusive_change failing_work quarantined_work
        shared_import shared_lead
        arrival_curve business_terms share_credit
        business_sales business_terms scorecard scorecard_check scorecard_training share_credit
        api_key assignment attempt audit audit_block audit_entry business cap_usage catalog_change
        catalog_version decision disposition endpoint entry erasure exposure feedback_hook inquiry lead move person_key
        person_window pipeline_stage postal_area provider reference_data return_request statement_line subscription
        subscription_version suppression touch correction revised_facts transfer vertical vertical_version wallet
        lifted_suppression onboarding member one_time_link opened_access portal_session sign_in_try
        refusal_count refusal_example""",
    ("marketplace_api", "update"): """
        mail_target(address mode with_adf)
        contact_list(name source refresh_hours maximum_age_days stops_sales version members refreshed_at removed_at)
        list_import(state position digest rows readable faulty repeated added removed version serial failure due_at
            ended_at)
        list_member(since until) lists_serial(serial)
        list_source(url format schedule country header_name header_value set_at due_at leased_until version etag
            last_modified content_sha256 checked_at failures failure failed_at smaller_rows confirmed_rows)
        next_action(done_at due_at note set_at set_by) stage_hook(endpoint_id set_at)
        pipeline_stage(colour kind limit_days merged_into position retired_at stage) stage_name(stage_id)
        unmapped_report(fault)
        simulation(state due_at ended_at)
        business_terms(weight priority) feed_event(acknowledged_at)
        scorecard_training(tried_at leads refusal)
        scorecard(replaces shadow_figures shadow_leads shadow_since signed_off_at signed_off_by state suspended_for)
        disposition(committed_by undone_at) shared_import(undone_at) shared_lead(undone_at)
        file_import(actor conflicts due_at ended_at known mapping position refused state taken tries undone undone_at
            undone_by)
        failing_work(retry_at)
        go_live(accepted_at repeated_at refused_at requested_at requested_by approved_at approved_by)
        roi_assumption(shared_cost_minor shared_win_rate shared_leads shared_won shared_weeks shared_value_minor copies
            labour_minor source made_at)
        api_key(expires_at revoked_at seen_in_url_at) business(name seller_names state zone)
        answer_alarm(closed_at closed_for)
        endpoint(address_key url state secret previous_secret previous_until breaker breaker_open_until hold_seconds
            verified_at contract contract_version answer_shapes mapping mapping_version credentials)
        notice(state due_at result acknowledged_at detail)
        deletion_request(state refusal contact erased_at ended_at)
        feedback_hook(secret previous_secret previous_until made_at)
        revocation_hook(secret previous_secret previous_until made_at)
        lead(consent_until due_at) provider(name state payout)
        subscription(endpoint_id name quota_before quota_since state version)
        vertical(version)
        wallet(available_minor credit_limit_minor low_below_minor)
        member(name role state zone password_hash totp totp_step totp_confirmed_at) one_time_link(used_at)
        opened_access(opened_by reason opened_at confirmed_by confirmed_at)
        onboarding(chosen changed_at) portal_session sign_in_try
        refusal_count(count) refusal_example(shape seen_at)""",
    ("marketplace_eraser", "delete"): "contact data_key next_action person_key person_window",
    ("marketplace_eraser", "insert"): "erasure revoked_lead",
    (
        "marketplace_eraser",
        "select",
    ): "answer_alarm(lead_id excerpt) contact(lead_id) data_key(lead_id) next_action(lead_id)",
    ("marketplace_eraser", "update"): """
        answer_alarm(excerpt) assignment(state reason due_at settled_at)
        attempt(answer_excerpt answer_reference answer_price) cap_usage(used_count used_minor)
        disposition(note) lead(state reason settled_at) return_request(note) touch(detail) unmapped_report(note)
        correction(sealed wrapped master_key_id) wallet(held_minor)""",
    ("marketplace_feeder", "insert"): """
        payout_share(assignment_id currency inquiry_id lead_id lead_provider_id payout_minor provider_id share span)
        audit(action actor at detail id object)
        exposure(lead_id assignment_id business_id channel endpoint_id url_sha256 address attempt_no exposed_at)
        move(assignment_id entered_state lead_id left_state)
        transfer(amount_minor assignment_id business_id currency id kind made_at provider_id share)""",
    ("marketplace_feeder", "select"): """
        notice
        contact_list list_member
        revoked_lead
        assignment endpoint(id kind state) erasure exposure feed_event fenced_lead lead person_key suppression
        wallet(business_id held_minor)""",
    ("marketplace_feeder", "update"): """
        assignment(state reason due_at exposed_at evidence_until evidence settled_at) feed_event(acknowledged_at)
        lead(state reason settled_at) wallet(held_minor)""",
    ("marketplace_returner", "update"): """
        assignment(state reason) lead(state reason) return_request(state judged_at judged_by finding)""",
    ("marketplace_reports", "select"): """
        deletion_lead deletion_request(id mode deadline_at state ended_at has_contact)
        payout_claim payout_share
        mail_bounce mail_target outgoing_mail
        revocation revoked_lead
        certificate(attempts compared_revision email_matches expires_at first_tried_at kind lead_id made_at
            page_matches phone_matches reason response_sha256 settled_at state token_sha256)
        notice
        answer_alarm
        contact_list list_import lists_serial
        simulation
        feed feed_event
        file_import import_row
        exclusive_outcome exclusive_record kept_outcome kept_outcome_progress kept_outcome_run roi_assumption
        background_pass exclusive_change failing_work quarantined_work
        shared_import shared_lead
        assignment attempt attempt_other audit audit_block audit_entry audit_other business cap_usage catalog_version
        contact(lead_id) data_key(lead_id) decision decision_other disposition share_credit business_terms
        arrival_curve
        endpoint(id business_id kind url state breaker breaker_open_until hold_seconds created_at verified_at)
        entry erasure exposure
        fenced_lead inquiry lead move person_window pipeline_stage postal_area provider reference_data return_request
        suppression(source created_at)
        subscription subscription_version touch correction revised_facts transfer vertical vertical_version wallet
        onboarding lead_figure refusal_count report_changed report_column report_month report_month_open report_progress
        business_sales scorecard scorecard_check scorecard_training
        report_stale schema_migration""",
    ("marketplace_worker", "delete"): """
        push_subscription
        outgoing_mail
        simulation
        failing_work person_window report_column report_month report_month_open report_stale stage_change
        unmapped_report""",
    ("marketplace_worker", "execute"): "award_lead make_partitions place_in_feed read_certificates read_contact",
    ("marketplace_worker", "insert"): """
        payout_share(assignment_id currency inquiry_id lead_id lead_provider_id payout_minor provider_id share span)
        mail_bounce outgoing_mail
        answer_alarm
        notice
        kept_away
        feed feed_event
        failing_work kept_outcome kept_outcome_run
        move(assignment_id entered_state lead_id left_state)
        arrival_curve share_credit
        business_sales scorecard scorecard_check scorecard_training share_credit
        assignment attempt audit(action actor at detail id object) audit_block cap_usage decision fenced_lead
        exposure(lead_id assignment_id business_id channel endpoint_id url_sha256 address tls_sha256 attempt_no
            exposed_at)
        transfer(amount_minor assignment_id business_id currency event_id id kind made_at provider_id share)
        report_column report_month report_month_open report_stale""",
    ("marketplace_worker", "select"): """
        push_subscription member(id kind owner_id role state)
        payout_claim payout_share
        mail_bounce mail_target outgoing_mail
        answer_alarm
        deletion_lead deletion_request(id state ended_at)
        revocation revoked_lead
        certificate(attempts compared_revision email_matches expires_at first_tried_at kind lead_id made_at
            page_matches phone_matches reason response_sha256 settled_at state token_sha256)
        notice
        contact_list kept_away list_member list_source(list_id due_at leased_until) lists_serial
        next_action stage_change stage_hook stage_name unmapped_report
        simulation
        feed feed_event
        file_import import_row
        exclusive_outcome exclusive_record kept_outcome kept_outcome_progress kept_outcome_run roi_assumption
        background_pass exclusive_change failing_work quarantined_work
        shared_import shared_lead
        arrival_curve assignment attempt audit audit_block audit_entry business cap_usage catalog_change share_credit
        catalog_version decision disposition endpoint entry erasure exposure fenced_lead inquiry lead move person_key
        person_window pipeline_stage postal_area provider reference_data return_request subscription
        subscription_version suppression touch correction revised_facts transfer vertical vertical_version wallet
        business_sales scorecard scorecard_check scorecard_training
        lead_figure report_changed report_column report_month report_month_open report_progress report_stale""",
    ("marketplace_worker", "update"): """
        list_source(leased_until)
        outgoing_mail(attempts due_at letter result sent_at state)
        answer_alarm(answers closed_at closed_for content_type excerpt last_at lead_id status)
        deletion_request(state contact ended_at)
        certificate(attempts box compared_revision email_matches expires_at first_tried_at page_matches phone_matches
            reason
            response_sha256 settled_at state)
        stage_change(attempts due_at result state)
        simulation(state leads leads_done result failure tries due_at ended_at)
        feed(last_position)
        kept_outcome kept_outcome_run kept_outcome_progress(xid at)
        background_pass(rest_until ended_at seconds failures failing_since failure) failing_work
        assignment(state reason attempts due_at exposed_at evidence_until evidence settled_at)
        share_credit(credit)
        business_sales(leads returned jobs jobs_minor counted_at) scorecard(state shadow_since suspended_for)
        scorecard_training(tried_at leads refusal)
        cap_usage(used_count used_minor limit_count limit_minor)
        endpoint(answer_shapes state breaker breaker_open_until)
        notice(state due_at result acknowledged_at attempts)
        lead(state reason due_at qualified_at settled_at waits_for) person_window(during)
        subscription(name state suspended_at suspended_counted suspended_for suspended_shown)
        wallet(available_minor held_minor)
        report_month_open(since) report_progress(at frontier seen)""",
}
"""Everything that a role may do, columns in parentheses; a grant beside these is a change to think about."""


async def test_each_role_may_do_what_this_table_says_and_nothing_else(world: World) -> None:
    held: dict[tuple[str, str], set[str]] = {}
    for row in await world.connection.fetch(LIST_PRIVILEGES):
        columns = f"({' '.join(sorted(row['columns'].split()))})" if row["columns"] else ""
        held.setdefault((row["role"], row["privilege"]), set()).add(row["object"] + columns)
    assert held == {key: read_privileges(text) for key, text in PRIVILEGES.items()}


def read_privileges(text: str) -> set[str]:
    """`a b(y x)` as {"a", "b(x y)"}: the order of columns means nothing."""
    whole = text.replace("(", " ( ").replace(")", " ) ").split()
    places: list[str] = []
    while whole:
        name = whole.pop(0)
        if name == "(":
            end = whole.index(")")
            places[-1] += f"({' '.join(sorted(whole[:end]))})"
            whole = whole[end + 1 :]
        else:
            places.append(name)
    return set(places)


async def test_a_role_is_no_more_than_its_grants(world: World) -> None:
    rows = await world.connection.fetch(
        """select rolname from pg_roles where rolname like 'marketplace\\_%' and rolname ~ '_(api|worker|reports)$'
        and (rolsuper or rolcreaterole or rolcreatedb or rolbypassrls or rolcanlogin)"""
    )
    assert rows == []


@pytest.mark.parametrize("state", WALKS)
async def test_the_grants_are_enough_for_a_leads_whole_life(world: World, state: str) -> None:
    """Taken in by the api, walked by the worker, and given back by whom the api becomes for that."""
    beginning = state if state in ("duplicate", "suppressed") else "received"
    await world.connection.execute("set role marketplace_api")
    lead = await world.accept(beginning, "live")
    await world.connection.execute("set role marketplace_worker")
    walked = await world.walk(lead, "delivered" if state == "returned" else state)
    if state == "returned":
        await world.connection.execute("set role marketplace_returner")
        await world.give_back(walked)
