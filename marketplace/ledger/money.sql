-- name: insert_wallet
insert into wallet (business_id, currency, credit_limit_minor) values ($1, $2, $3);

-- name: find_wallet
select business_id, currency, available_minor, held_minor, credit_limit_minor from wallet where business_id = $1;

-- name: top_up
-- One payment event is one transfer: a repeated event conflicts on its unique id and changes nothing.
with moved as (
    insert into transfer (id, kind, amount_minor, currency, business_id, event_id, made_at)
    values ($1, 'top_up', $2, $3, $4, $5, $6)
    on conflict (event_id) where event_id is not null do nothing
    returning amount_minor
)
update wallet set available_minor = available_minor + moved.amount_minor from moved
where business_id = $4 and currency = $3
returning available_minor;

-- name: find_event
select id, kind, amount_minor, currency, business_id, provider_id, made_at from transfer where event_id = $1;

-- name: release
-- Without evidence of receipt nothing is charged: the held price is returned.
with moved as (
    insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id, made_at)
    values ($1, 'release', $2, $3, $4, $5, $6)
)
update wallet set available_minor = available_minor + $2, held_minor = held_minor - $2 where business_id = $4;

-- name: capture
-- On evidence of receipt the held price becomes revenue, and the provider is owed its payout, as a transfer without a
-- balance row to lock.
with moved as (
    insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id, made_at)
    values ($1, 'capture', $2, $3, $4, $5, $6)
), owed as (
    insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id, made_at)
    select $7, 'payout', $8::bigint, $3, $9, $5, $6 where $8::bigint > 0
)
update wallet set held_minor = held_minor - $2 where business_id = $4;

-- name: pay_provider
-- A payment to a provider, once for each reference: a repeated one conflicts on its unique id and changes nothing.
insert into transfer (id, kind, amount_minor, currency, provider_id, event_id, made_at)
values ($1, 'paid', $2, $3, $4, $5, $6)
on conflict (event_id) where event_id is not null do nothing
returning id;

-- name: refund
-- A granted return: the charged price is returned to the business, and the payout is deducted from what the provider is
-- owed.
with moved as (
    insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id, made_at)
    values ($1, 'refund', $2, $3, $4, $5, $6)
), owed as (
    insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id, made_at)
    select $7, 'claw_back', $8::bigint, $3, $9, $5, $6 where $8::bigint > 0
)
update wallet set available_minor = available_minor + $2 where business_id = $4;

-- name: list_shares
select share, provider_id, inquiry_id, lower(span) as begins_minor, amount_minor
from payout_share where assignment_id = $1 order by share;

-- name: pay_shares
-- The payout of an assignment in shares, each stored and paid. Arrays: ids of the transfers, numbers, providers, inquiries,
-- first minor units and amounts of the shares.
with part as (
    select p.id, p.share, p.provider_id, p.inquiry_id, p.begins_minor, p.amount_minor
    from unnest($3::uuid[], $4::smallint[], $5::uuid[], $6::uuid[], $7::bigint[], $8::bigint[])
        as p (id, share, provider_id, inquiry_id, begins_minor, amount_minor)
), divided as (
    insert into payout_share (assignment_id, share, provider_id, lead_id, lead_provider_id, inquiry_id, currency,
        payout_minor, span)
    select a.id, p.share, p.provider_id, a.lead_id, a.provider_id, p.inquiry_id, a.currency, a.payout_minor,
           int8range(p.begins_minor, p.begins_minor + p.amount_minor)
    from assignment a cross join part p where a.id = $1
)
insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id, made_at, share)
select p.id, 'payout', p.amount_minor, a.currency, p.provider_id, a.id, $2, p.share
from assignment a cross join part p where a.id = $1;

-- name: claw_back_shares
-- Each share of a payout is deducted from what its provider is owed.
insert into transfer (id, kind, amount_minor, currency, provider_id, assignment_id, made_at, share)
select new.id, 'claw_back', s.amount_minor, s.currency, s.provider_id, s.assignment_id, $2, s.share
from payout_share s join unnest($3::uuid[]) with ordinality as new (id, place) on new.place = s.share + 1
where s.assignment_id = $1;
