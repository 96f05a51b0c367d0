"""A small world in the database, written as the service would write it: leads that walked to each state of their life.

Nothing here calls the service's own code, so that what checks that code is not checked against itself. Every walk goes
through the schema's constraints and triggers, money and caps included.
"""

from typing import Any, Final
from uuid import UUID, uuid4

import msgspec

PRICE: Final = 4000
PAYOUT: Final = 2400

WALKS: Final = {
    "received": (),
    "duplicate": (),
    "suppressed": (),
    "rejected": ("rejected",),
    "nurturing": ("nurturing",),
    "expired": ("nurturing", "expired"),
    "prospect": ("prospect",),
    "unsold": ("prospect", "unsold"),
    "held": ("prospect", "held"),
    "released": ("prospect", "held", "released"),
    "exposed": ("prospect", "held", "exposed"),
    "delivered": ("prospect", "held", "exposed", "delivered"),
    "refused": ("prospect", "held", "exposed", "refused"),
    "lapsed": ("prospect", "held", "exposed", "lapsed"),
    "returned": ("prospect", "held", "exposed", "delivered", "returned"),
}
"""The moves to each state; `released` is a prospect again, with the released assignment behind it."""

SETTLEMENT: Final = {"released": "release", "refused": "release", "lapsed": "release", "delivered": "capture"}
CLOSING_OUTCOME: Final = {"delivered": "accepted", "refused": "refused", "lapsed": "unknown"}


class Lead(msgspec.Struct, frozen=True, kw_only=True):
    """A lead that walked, and its last assignment if it ever had one."""

    id: UUID
    assignment_id: UUID | None = None


class World:
    """One provider, one vertical, two businesses with money, and as many leads as are asked for."""

    def __init__(self, connection: Any, *, fair: bool = False) -> None:
        """With `fair`, each award is one half of the other business's, whose credit it changes."""
        self.connection, self.fair = connection, fair
        self.provider, self.other_provider, self.vertical = uuid4(), uuid4(), uuid4()
        self.business, self.other_business = uuid4(), uuid4()
        self.endpoint, self.other_endpoint = uuid4(), uuid4()
        self.subscriptions = {"live": uuid4(), "test": uuid4()}
        self.claimed: set[UUID] = set()
        self.shared: set[UUID | None] = set()

    async def make(self) -> None:
        """Everybody who takes part."""
        run = self.connection.execute
        for provider in (self.provider, self.other_provider):
            await run("insert into provider (id, name, payout) values ($1, 'p', '{}')", provider)
        async with self.connection.transaction():  # a vertical and its version refer to each other
            await run("insert into vertical (id, slug, version) values ($1, 'roofing', 1)", self.vertical)
            await run("insert into vertical_version values ($1, 1, '{}', now(), 'test')", self.vertical)
        for business, endpoint in ((self.business, self.endpoint), (self.other_business, self.other_endpoint)):
            await run("insert into business (id, name, zone) values ($1, 'b', 'UTC')", business)
            await run("insert into wallet (business_id, currency) values ($1, 'USD')", business)
            await run(
                "insert into endpoint (id, business_id, url, secret) values ($1, $2, 'u', '')", endpoint, business
            )
            await self.top_up(business, 100_000)
        for mode, subscription in self.subscriptions.items():
            async with self.connection.transaction():
                await run(INSERT_SUBSCRIPTION, subscription, self.business, self.vertical, self.endpoint, mode)
                await run("insert into subscription_version values ($1, 1, '{}', now(), 'test')", subscription)

    async def top_up(self, business: UUID, amount: int) -> None:
        """Money from outside."""
        await self.connection.execute(TOP_UP, uuid4(), amount, business, f"event-{uuid4()}")

    async def lead(self, state: str, *, mode: str = "live", paid: bool = False) -> Lead:
        """A lead that walked to `state`. A refused one is `paid` where the refusal is charged."""
        beginning = state if state in ("duplicate", "suppressed") else "received"
        return await self.walk(await self.accept(beginning, mode), state, mode=mode, paid=paid)

    async def walk(self, lead: UUID, state: str, *, mode: str = "live", paid: bool = False) -> Lead:
        """The moves of a received lead to `state`."""
        assignment = None
        for step in WALKS[state]:
            match step:
                case "held":
                    assignment = await self._award(lead, mode)
                case "exposed":
                    await self._expose(lead, assignment)
                case "released" | "delivered" | "refused" | "lapsed":
                    await self._settle(lead, assignment, step, mode, paid=paid)
                case "returned":
                    await self.give_back(Lead(id=lead, assignment_id=assignment), mode)
                case _:
                    await self._decide(lead, step)
        return Lead(id=lead, assignment_id=assignment)

    async def accept(self, beginning: str, mode: str) -> UUID:
        """An inquiry, and its lead in the state in which it begins."""
        lead, run = uuid4(), self.connection.execute
        parties = (self.provider, self.vertical, mode)
        await run(INSERT_INQUIRY, lead, *parties, f"reference-{lead}", beginning)
        await run(INSERT_LEAD, lead, *parties, beginning)
        await run("insert into contact values ($1, '\\x01')", lead)
        await run("insert into data_key values ($1, '\\x02', 'key')", lead)
        if beginning == "received":
            await run(INSERT_WINDOW, lead, lead.bytes, self.vertical)
        return lead

    async def join(self, lead: UUID, mode: str = "live", *, in_time: bool = True) -> UUID:
        """An inquiry of the other provider that joined a lead, with a claim to its payout if it came `in_time`."""
        inquiry, run = uuid4(), self.connection.execute
        parties = (self.other_provider, self.vertical, mode)
        await run(INSERT_INQUIRY_TOUCH, lead, inquiry.bytes)
        await run("update lead set revision = revision + 1 where id = $1", lead)
        await run(INSERT_JOINED_INQUIRY, inquiry, *parties, f"reference-{inquiry}", lead, inquiry.bytes)
        await run(INSERT_LEAD, inquiry, *parties, "duplicate")
        if in_time:
            await run(INSERT_CLAIM, inquiry, lead)
            self.claimed.add(lead)
        return inquiry

    async def _decide(self, lead: UUID, state: str) -> None:
        if state in ("rejected", "expired", "unsold"):
            await self.connection.execute("delete from person_window where lead_id = $1", lead)
        await self.connection.execute(MOVE_LEAD, lead, state)
        if state != "prospect":
            await self.connection.execute(INSERT_DECISION, uuid4(), lead, state, None, None)

    async def _award(self, lead: UUID, mode: str) -> UUID:
        assignment, subscription = uuid4(), self.subscriptions[mode]
        if lead in self.claimed:
            self.shared.add(assignment)
        run = self.connection.execute
        await run(
            INSERT_ASSIGNMENT,
            assignment,
            lead,
            self.business,
            subscription,
            self.endpoint,
            self.provider,
            mode,
            PRICE,
            PAYOUT,
        )
        if mode == "live":
            await self.move_money("hold", assignment)
            await run(RAISE_USAGE, assignment)
        await run(MOVE_LEAD, lead, "held")
        if self.fair:
            changes = {str(self.business): -500_000_000, str(self.other_business): 500_000_000}
            credits = msgspec.json.encode(changes).decode()
            await run(INSERT_FAIR_DECISION, uuid4(), assignment, credits)
            await run(CHANGE_CREDITS, lead, credits)
        else:
            await run(INSERT_DECISION, uuid4(), lead, "held", subscription, assignment)
        return assignment

    async def _expose(self, lead: UUID, assignment: UUID | None) -> None:
        run = self.connection.execute
        async with self.connection.transaction():
            await run(MOVE_LEAD, lead, "exposed")
            await run(INSERT_EXPOSURE, assignment)
            await run(MARK_EXPOSED, assignment)

    async def _settle(self, lead: UUID, assignment: UUID | None, state: str, mode: str, *, paid: bool) -> None:
        run = self.connection.execute
        if state in CLOSING_OUTCOME:
            await run(INSERT_ATTEMPT, uuid4(), assignment, CLOSING_OUTCOME[state])
        await run(MARK_SETTLED, assignment, state)
        await run(MOVE_LEAD, lead, "prospect" if state == "released" else state)
        if mode != "live":
            return
        kind = "capture" if paid else SETTLEMENT[state]
        await self.move_money(kind, assignment)
        if kind == "capture":
            await self.move_money("payout", assignment)
        if state == "released":
            await run(LOWER_USAGE, assignment)

    async def give_back(self, lead: Lead, mode: str = "live") -> None:
        """A granted return of a delivered lead."""
        run = self.connection.execute
        await run(GRANT_RETURN, uuid4(), lead.assignment_id)
        await run("update assignment set state = 'returned' where id = $1", lead.assignment_id)
        await run("update lead set state = 'returned' where id = $1", lead.id)
        if mode == "live":
            await run(REFUND, uuid4(), lead.assignment_id)
            await self._owe("claw_back", lead.assignment_id)

    async def move_money(self, kind: str, assignment: UUID | None) -> None:
        """One transfer of `assignment`, and what it does to the wallet."""
        if kind == "payout":
            if assignment in self.shared:
                await self.connection.execute(DIVIDE, assignment)
            await self._owe(kind, assignment)
            return
        available, held = {"hold": (-1, 1), "release": (1, -1), "capture": (0, -1)}[kind]
        await self.connection.execute(MOVE_MONEY, uuid4(), kind, assignment, available, held)

    async def _owe(self, kind: str, assignment: UUID | None) -> None:
        """The payout, or each share of it."""
        if assignment in self.shared:
            await self.connection.execute(OWE_SHARES, kind, assignment)
        else:
            await self.connection.execute(OWE, uuid4(), kind, assignment)


INSERT_SUBSCRIPTION = """
insert into subscription (id, business_id, vertical_id, endpoint_id, mode, name, version, currency)
values ($1, $2, $3, $4, $5, 's', 1, 'USD')"""

TOP_UP = """
with moved as (
    insert into transfer (id, kind, amount_minor, currency, business_id, event_id)
    values ($1, 'top_up', $2, 'USD', $3, $4)
)
update wallet set available_minor = available_minor + $2 where business_id = $3"""

INSERT_INQUIRY = """
insert into inquiry (id, provider_id, vertical_id, mode, provider_reference, request_sha256, received_as, facts,
    consent_sha256, consent_given_at, submitted_at, received_at)
values ($1, $2, $3, $4, $5, '', $6, '{}', '', now(), now(), now())"""

INSERT_INQUIRY_TOUCH = """
insert into touch (lead_id, fingerprint, revision, kind, at, recorded_at)
select id, $2, revision + 1, 'inquiry', now(), now() from lead where id = $1"""

INSERT_JOINED_INQUIRY = """
insert into inquiry (id, provider_id, vertical_id, mode, provider_reference, request_sha256, received_as, facts,
    consent_sha256, consent_given_at, submitted_at, received_at, joined_lead_id, joined_touch)
values ($1, $2, $3, $4, $5, '', 'duplicate', '{}', '', now(), now(), now(), $6, $7)"""

INSERT_CLAIM = """
insert into payout_claim (inquiry_id, lead_id, provider_id, vertical_id, mode, revision)
select i.id, $2, i.provider_id, i.vertical_id, i.mode, l.revision
from inquiry i join lead l on l.id = $2 where i.id = $1"""

INSERT_LEAD = """
insert into lead (id, provider_id, vertical_id, mode, state, due_at, received_at)
values ($1, $2, $3, $4, $5::text, case when $5::text = 'received' then now() end, now())"""

INSERT_WINDOW = """
insert into person_window values ($1, $2, $3, tstzrange(now(), now() + interval '30 days'))"""

MOVE_LEAD = """
update lead set state = $2::text,
    due_at = case when $2::text in ('nurturing', 'prospect') then now() + interval '1 minute' end
where id = $1"""

INSERT_DECISION = """
insert into decision (id, lead_id, made_at, outcome, vertical_version, catalog_version, verdict, subscription_id,
    assignment_id)
values ($1, $2, now(), $3, 1, 1, '{}', $4, $5)"""

INSERT_FAIR_DECISION = """
insert into decision (id, lead_id, made_at, outcome, vertical_version, catalog_version, verdict, subscription_id,
    assignment_id, credits)
select $1, lead_id, awarded_at, 'held', 1, 1, '{}', subscription_id, id, $3 from assignment where id = $2"""

CHANGE_CREDITS = """
insert into share_credit (vertical_id, mode, business_id, credit)
select vertical_id, mode, change.key::uuid, change.value::bigint
from lead, jsonb_each_text($2) as change where id = $1
on conflict (vertical_id, mode, business_id) do update set credit = share_credit.credit + excluded.credit"""

INSERT_ASSIGNMENT = """
insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id, mode,
    price_minor, payout_minor, currency, due_at, awarded_at, hold_until, hour_at, day_at, week_at, month_at)
values ($1, $2, $3, $4, 1, $5, $6, $7, $8, $9, 'USD', now(), now(), now() + interval '2 minutes',
    date_trunc('hour', now()), date_trunc('day', now()), date_trunc('week', now()), date_trunc('month', now()))"""

RAISE_USAGE = """
insert into cap_usage (subscription_id, cap_window, starts_at, used_count, used_minor)
select a.subscription_id, w.cap_window, w.starts_at, 1, a.price_minor
from assignment a
cross join lateral (values ('hour', a.hour_at), ('day', a.day_at), ('week', a.week_at), ('month', a.month_at),
                           ('total', timestamptz 'epoch')) as w (cap_window, starts_at)
where a.id = $1
on conflict (subscription_id, cap_window, starts_at) do update
set used_count = cap_usage.used_count + 1, used_minor = cap_usage.used_minor + excluded.used_minor"""

LOWER_USAGE = """
update cap_usage u set used_count = used_count - 1, used_minor = used_minor - a.price_minor
from assignment a
where a.id = $1 and u.subscription_id = a.subscription_id and (u.cap_window, u.starts_at) in (
    ('hour', a.hour_at), ('day', a.day_at), ('week', a.week_at), ('month', a.month_at), ('total', 'epoch'))"""

INSERT_EXPOSURE = """
insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address, attempt_no)
select lead_id, id, business_id, 'push', endpoint_id, '', '127.0.0.1', 1 from assignment where id = $1"""

MARK_EXPOSED = """
update assignment set state = 'exposed', exposed_at = now(), evidence_until = now() + interval '1 day' where id = $1"""

INSERT_ATTEMPT = """
insert into attempt (id, assignment_id, lead_id, business_id, endpoint_id, attempt_no, started_at, outcome, reason,
    total_ms)
select $1, id, lead_id, business_id, endpoint_id, 1, now(), $3, 'test', 1 from assignment where id = $2"""

MARK_SETTLED = """
update assignment set state = $2::text, due_at = null, settled_at = now(),
    evidence = case when $2::text in ('delivered', 'returned') then 'answer' end
where id = $1"""

GRANT_RETURN = """
insert into return_request (id, assignment_id, lead_id, business_id, reason, state, requested_at, judged_at, judged_by,
    finding)
select $1, id, lead_id, business_id, 'other', 'granted', now(), now(), 'operator', 'as the business says'
from assignment where id = $2"""

OWE = """
insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id)
select $1, $2, payout_minor, currency, provider_id, id from assignment where id = $3"""

DIVIDE = """
insert into payout_share (assignment_id, share, provider_id, lead_id, lead_provider_id, inquiry_id, currency,
    payout_minor, span)
select a.id, part.share, part.provider_id, a.lead_id, a.provider_id, part.inquiry_id, a.currency, a.payout_minor,
       part.span
from assignment a join payout_claim c on c.lead_id = a.lead_id
cross join lateral (values
    (0, a.provider_id, null::uuid, int8range(0, a.payout_minor / 2)),
    (1, c.provider_id, c.inquiry_id, int8range(a.payout_minor / 2, a.payout_minor))
) as part (share, provider_id, inquiry_id, span)
where a.id = $1"""

OWE_SHARES = """
insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id, share)
select gen_random_uuid(), $1, amount_minor, currency, provider_id, assignment_id, share
from payout_share where assignment_id = $2"""

REFUND = """
with moved as (
    insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id)
    select $1, 'refund', price_minor, currency, business_id, id from assignment where id = $2
    returning business_id, amount_minor
)
update wallet w set available_minor = available_minor + moved.amount_minor
from moved where w.business_id = moved.business_id"""

MOVE_MONEY = """
with moved as (
    insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id)
    select $1, $2, price_minor, currency, business_id, id from assignment where id = $3
    returning business_id, amount_minor
)
update wallet w set available_minor = available_minor + $4::int * moved.amount_minor,
    held_minor = held_minor + $5::int * moved.amount_minor
from moved where w.business_id = moved.business_id"""
