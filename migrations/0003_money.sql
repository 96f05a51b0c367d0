-- Money: immutable transfers in integer minor units. The kind of a transfer names both accounts, so that every transfer
-- balances by construction; `entry` shows its two signed sides. Only wallets carry a balance row: a shared balance row
-- for revenue would serialise the whole system on one lock.

create table wallet (
    business_id uuid primary key references business (id),
    currency char(3) not null,
    available_minor bigint not null default 0,
    held_minor bigint not null default 0 constraint wallet_held check (held_minor >= 0),
    credit_limit_minor bigint not null default 0 constraint wallet_credit_limit check (credit_limit_minor >= 0),
    low_below_minor bigint,
    constraint wallet_covers check (available_minor >= -credit_limit_minor),
    constraint wallet_currency unique (business_id, currency)
) with (fillfactor = 70);

alter table subscription add constraint subscription_wallet
    foreign key (business_id, currency) references wallet (business_id, currency);

create table transfer (
    id uuid primary key,
    kind text not null constraint transfer_kind check (kind in (
        'top_up', 'withdrawal', 'hold', 'release', 'capture', 'payout', 'refund', 'claw_back')),
    amount_minor bigint not null constraint transfer_amount check (amount_minor > 0),
    currency char(3) not null,
    business_id uuid,
    provider_id uuid references provider (id),
    assignment_id uuid,
    event_id text,
    made_at timestamptz not null default clock_timestamp(),
    -- the price that was quoted at the claim is the price that is held, captured, released and refunded
    price_minor bigint generated always as (
        case when kind in ('hold', 'release', 'capture', 'refund') then amount_minor end) stored,
    payout_minor bigint generated always as (
        case when kind in ('payout', 'claw_back') then amount_minor end) stored,
    constraint transfer_parties check (
        case when kind in ('payout', 'claw_back')
             then provider_id is not null and business_id is null
             else provider_id is null and business_id is not null end),
    constraint transfer_cause check (
        case when kind in ('top_up', 'withdrawal')
             then event_id is not null and assignment_id is null
             else event_id is null and assignment_id is not null end),
    constraint transfer_wallet foreign key (business_id, currency) references wallet (business_id, currency),
    constraint transfer_at_quoted_price foreign key (assignment_id, business_id, currency, price_minor)
        references assignment (id, business_id, currency, chargeable_minor),
    constraint transfer_at_agreed_payout foreign key (assignment_id, provider_id, currency, payout_minor)
        references assignment (id, provider_id, currency, payable_minor)
);
create unique index transfer_one_hold on transfer (assignment_id) where kind = 'hold';
create unique index transfer_one_settlement on transfer (assignment_id) where kind in ('capture', 'release');
create unique index transfer_one_payout on transfer (assignment_id) where kind = 'payout';
create unique index transfer_one_refund on transfer (assignment_id) where kind = 'refund';
create unique index transfer_one_claw_back on transfer (assignment_id) where kind = 'claw_back';
create unique index transfer_one_event on transfer (event_id) where event_id is not null;
create index transfer_by_business on transfer (business_id, id) where business_id is not null;
create index transfer_by_provider on transfer (provider_id, id) where provider_id is not null;
create trigger transfer_is_final before update or delete on transfer for each row execute function refuse_change();
create trigger transfer_is_kept before truncate on transfer for each statement execute function refuse_change();

-- Both signed sides of each transfer. Accounts: outside, available, held, revenue, payable.
create view entry as
select t.id as transfer_id, t.kind, side.account, side.sign * t.amount_minor as amount_minor, t.currency,
       case when side.account in ('available', 'held') then t.business_id end as business_id,
       case when side.account = 'payable' then t.provider_id end as provider_id,
       t.assignment_id, t.event_id, t.made_at
from transfer t
join (values
    ('top_up', 'outside', -1), ('top_up', 'available', 1),
    ('withdrawal', 'available', -1), ('withdrawal', 'outside', 1),
    ('hold', 'available', -1), ('hold', 'held', 1),
    ('release', 'held', -1), ('release', 'available', 1),
    ('capture', 'held', -1), ('capture', 'revenue', 1),
    ('payout', 'revenue', -1), ('payout', 'payable', 1),
    ('refund', 'revenue', -1), ('refund', 'available', 1),
    ('claw_back', 'payable', -1), ('claw_back', 'revenue', 1)
) as side (kind, account, sign) on side.kind = t.kind;

-- How much of each cap is used, per calendar window of the subscription's own zone.
-- `limit_*` is the cap in force when the row was last raised, so that passing a cap is impossible, not only avoided.
create table cap_usage (
    subscription_id uuid not null references subscription (id),
    cap_window text not null constraint cap_usage_window check (cap_window in ('hour', 'day', 'week', 'month', 'total')),
    starts_at timestamptz not null,
    used_count int not null default 0 check (used_count >= 0),
    used_minor bigint not null default 0 check (used_minor >= 0),
    limit_count int,
    limit_minor bigint,
    primary key (subscription_id, cap_window, starts_at),
    constraint cap_usage_count check (used_count <= limit_count),
    constraint cap_usage_minor check (used_minor <= limit_minor)
) with (fillfactor = 70);
