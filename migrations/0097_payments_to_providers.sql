-- Payments to providers. A transfer `paid` moves money from what a provider is owed to outside, once for each reference of a
-- payment, and never more than the provider is owed.
alter table transfer drop constraint transfer_kind, drop constraint transfer_cause, drop constraint transfer_parties;
alter table transfer
    add constraint transfer_kind check (kind in (
        'top_up', 'withdrawal', 'hold', 'release', 'capture', 'payout', 'refund', 'claw_back', 'paid')),
    add constraint transfer_cause check (
        case when kind in ('top_up', 'withdrawal', 'paid') then event_id is not null and assignment_id is null
             else event_id is null and assignment_id is not null end),
    add constraint transfer_parties check (
        case when kind in ('payout', 'claw_back', 'paid') then provider_id is not null and business_id is null
             else provider_id is null and business_id is not null end);

drop policy transfer_of_payments on transfer;
create policy transfer_of_payments on transfer for insert to marketplace_api
    with check (kind in ('top_up', 'withdrawal', 'paid'));
drop policy transfer_of_leads on transfer;
create policy transfer_of_leads on transfer for insert to marketplace_worker
    with check (kind not in ('top_up', 'withdrawal', 'paid'));

create or replace view entry as
select t.id as transfer_id, t.kind, side.account, side.sign * t.amount_minor as amount_minor, t.currency,
       case when side.account in ('available', 'held') then t.business_id end as business_id,
       case when side.account = 'payable' then t.provider_id end as provider_id,
       t.assignment_id, t.event_id, t.made_at, t.business_id as of_business, t.provider_id as of_provider
from transfer t
join (values
    ('top_up', 'outside', -1), ('top_up', 'available', 1),
    ('withdrawal', 'available', -1), ('withdrawal', 'outside', 1),
    ('hold', 'available', -1), ('hold', 'held', 1),
    ('release', 'held', -1), ('release', 'available', 1),
    ('capture', 'held', -1), ('capture', 'revenue', 1),
    ('payout', 'revenue', -1), ('payout', 'payable', 1),
    ('refund', 'revenue', -1), ('refund', 'available', 1),
    ('claw_back', 'payable', -1), ('claw_back', 'revenue', 1),
    ('paid', 'payable', -1), ('paid', 'outside', 1)
) as side (kind, account, sign) on side.kind = t.kind;

-- What a provider is owed has no balance row that a CHECK could guard. The provider's row is locked, so that two payments are
-- booked one after the other, and the sum is read after that: it includes the payment itself. Claw-backs may come later and
-- leave the provider owing; then nothing more is paid until payouts have made up for them.
create function refuse_unowed_payment() returns trigger language plpgsql as $$
begin
    perform from provider where id = new.provider_id for no key update;
    if not found then
        raise foreign_key_violation using message = 'there is no such provider',
            table = 'transfer', constraint = 'transfer_of_provider';
    end if;
    if (select sum(amount_minor) < 0 from entry
        where of_provider = new.provider_id and account = 'payable' and currency = new.currency) then
        raise check_violation using message = 'more is paid than the provider is owed',
            table = 'transfer', constraint = 'transfer_owed';
    end if;
    return null;
end
$$;
create trigger transfer_is_owed after insert on transfer for each row when (new.kind = 'paid')
    execute function refuse_unowed_payment();

-- `money_total` has one sum for each kind, so that it grows by one; nothing else in these columns is new.
create or replace function money_columns(since timestamptz, until timestamptz)
    returns table (part text, field text, hour timestamptz, data bytea) language sql stable as $$
with moved as materialized (
    select t.currency, date_trunc('hour', t.made_at, 'UTC') as at_hour, t.made_at, t.id, t.amount_minor,
           array_position(array['top_up', 'withdrawal', 'hold', 'release', 'capture', 'payout', 'refund', 'claw_back',
               'paid'],
               t.kind) as kind,
           coalesce(b.number, p.number) as party, coalesce(theirs.number, its.number, 0) as other
    from transfer t
    left join business b on b.id = t.business_id
    left join provider p on p.id = t.provider_id
    left join lateral (select provider_id, business_id from assignment where id = t.assignment_id limit 1) a on true
    left join provider theirs on theirs.id = a.provider_id and t.business_id is not null
    left join business its on its.id = a.business_id and t.business_id is null
    where t.made_at >= since and t.made_at < until
), packed as (
    select currency, at_hour,
           string_agg(int2send(extract(minute from made_at)::int2), ''::bytea order by made_at, id) as minute,
           string_agg(int2send(kind::int2), ''::bytea order by made_at, id) as kind,
           string_agg(int4send(party), ''::bytea order by made_at, id) as party,
           string_agg(int4send(other), ''::bytea order by made_at, id) as other,
           string_agg(int8send(amount_minor), ''::bytea order by made_at, id) as minor
    from moved group by currency, at_hour
), total as (
    select p.currency, p.at_hour, string_agg(int8send(coalesce(m.minor, 0)::bigint), ''::bytea order by n.nth) as total
    from packed p
    cross join generate_series(1, 9) as n (nth)
    left join (
        select currency, at_hour, kind, sum(amount_minor) as minor from moved group by currency, at_hour, kind
    ) m on (m.currency, m.at_hour, m.kind) = (p.currency, p.at_hour, n.nth)
    group by p.currency, p.at_hour
)
select p.currency::text, c.field, p.at_hour, c.data
from packed p
join total t using (currency, at_hour)
cross join lateral (values
    ('money_minute', minute), ('money_kind', p.kind), ('money_party', party), ('money_other', other),
    ('money_minor', minor), ('money_total', total)
) as c (field, data)
$$;

-- What is kept already, again with one sum more: hours first, then the months in which they lie together.
delete from report_column where field = 'money_total';
insert into report_column (part, field, hour, data)
select m.part, m.field, m.hour, m.data
from report_progress p
cross join lateral money_columns('-infinity', p.frontier) m
where m.field = 'money_total';
delete from report_month where field = 'money_total';
insert into report_month (part, field, month, data, hours, lengths)
select c.part, c.field, m.month, string_agg(c.data, ''::bytea order by c.hour),
       string_agg(int4send((date_part('epoch', c.hour) / 3600)::int), ''::bytea order by c.hour),
       string_agg(int4send(octet_length(c.data)), ''::bytea order by c.hour)
from (select distinct month from report_month) m
join report_column c on c.hour >= m.month and c.hour < m.month + interval '1 month' and c.field = 'money_total'
group by c.part, c.field, m.month;
