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
