-- What a lead moved belongs to its business and to its provider: a transfer that names one of them is kept with the number of
-- the other too (`money_other`; 0 where no lead moved it), so that each party's revenue can be told apart.
create or replace function money_columns(since timestamptz, until timestamptz)
    returns table (part text, field text, hour timestamptz, data bytea) language sql stable as $$
with moved as materialized (
    select t.currency, date_trunc('hour', t.made_at, 'UTC') as at_hour, t.made_at, t.id, t.amount_minor,
           array_position(array['top_up', 'withdrawal', 'hold', 'release', 'capture', 'payout', 'refund', 'claw_back'],
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
    cross join generate_series(1, 8) as n (nth)
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

-- What is kept already, again with the new column: hours first, then the months in which they lie together.
delete from report_column where field like 'money\_%';
insert into report_column (part, field, hour, data)
select m.part, m.field, m.hour, m.data
from report_progress p
cross join lateral money_columns('-infinity', p.frontier) m;
delete from report_month where field like 'money\_%';
insert into report_month (part, field, month, data, hours, lengths)
select c.part, c.field, m.month, string_agg(c.data, ''::bytea order by c.hour),
       string_agg(int4send((date_part('epoch', c.hour) / 3600)::int), ''::bytea order by c.hour),
       string_agg(int4send(octet_length(c.data)), ''::bytea order by c.hour)
from (select distinct month from report_month) m
join report_column c on c.hour >= m.month and c.hour < m.month + interval '1 month' and c.field like 'money\_%'
group by c.part, c.field, m.month;
