-- What is due to a business with several subscriptions is one share, as the strategies give it.

-- What the decisions say of the candidates. `share_*`, one row per hour and subscription: the awards for which it stood,
-- those that it got, and, where its vertical divides by weight, those and its fair part of them. `miss_*`, one row
-- per lead and subscription that a single rule kept apart: the lead's place in its hour, the rule with unit and side,
-- the distance. Only a lead's last award or its end unsold counts.
--
-- The form of 0014_reports.sql, except that the subscriptions of one business that stood for a lead divide one share.
create or replace function candidate_columns(of_mode text, since timestamptz, until timestamptz)
    returns table (field text, hour timestamptz, data bytea) language sql stable as $$
with placed as materialized (
    select l.id, l.received_at, date_trunc('hour', l.received_at, 'UTC') as at_hour,
           row_number() over (partition by date_trunc('hour', l.received_at, 'UTC') order by l.received_at, l.id) - 1
               as place
    from lead l where l.mode = of_mode and l.received_at >= since and l.received_at < until
), weighed as materialized (
    select p.at_hour, p.place, d.outcome, d.strategy in ('weighted_share', 'fair') as by_weight,
           c.*, d.subscription_id as winner
    from placed p
    cross join lateral (
        select outcome, strategy, candidates, subscription_id from decision
        where lead_id = p.id and made_at >= p.received_at - interval '1 hour' and outcome in ('held', 'unsold')
        order by made_at desc, id desc limit 1
    ) d
    cross join lateral jsonb_to_recordset(d.candidates)
        as c (subscription_id uuid, business_id uuid, version int, position int, failures jsonb)
), weight as materialized (
    select v.subscription_id, v.version, coalesce((v.definition ->> 'weight')::float8, 1) as weight
    from subscription_version v
    where (v.subscription_id, v.version) in (select w.subscription_id, w.version from weighed w where w.by_weight)
), ranked as (
    select w.at_hour, w.place, w.subscription_id, w.by_weight, w.subscription_id = w.winner as won,
           g.weight / count(*) over (partition by w.at_hour, w.place, w.business_id) as share
    from weighed w
    left join weight g on (g.subscription_id, g.version) = (w.subscription_id, w.version)
    where w.outcome = 'held' and w.position is not null
      and coalesce(w.failures -> 0 ->> 'rule', 'outranked') = 'outranked'
), stood as (
    select r.*, r.share / sum(r.share) over (partition by r.at_hour, r.place) as part from ranked r
), share as (
    select t.at_hour, s.number, count(*) as stood, count(*) filter (where t.won) as won,
           count(*) filter (where t.won and t.by_weight) as won_by_weight,
           coalesce(sum(t.part order by t.place) filter (where t.by_weight), 0) as entitled
    from stood t join subscription s on s.id = t.subscription_id
    group by t.at_hour, s.number
), miss as (
    select w.at_hour, w.place, s.number, (w.failures -> 0 ->> 'distance')::float8 as distance,
           concat_ws(' ', w.failures -> 0 ->> 'rule', coalesce(w.failures -> 0 ->> 'unit', '-'),
               substring(w.failures -> 0 ->> 'detail' from '(below|above)$')) as rule
    from weighed w join subscription s on s.id = w.subscription_id
    where jsonb_array_length(w.failures) = 1
      and w.failures -> 0 ->> 'rule' not in ('outranked', 'cap_race', 'unreachable')
), coded as (
    select miss.*, dense_rank() over (partition by at_hour order by rule) as rule_code from miss
), shares as (
    select at_hour, string_agg(int4send(number), ''::bytea order by number) as subscription,
           string_agg(int4send(stood::int), ''::bytea order by number) as stood,
           string_agg(int4send(won::int), ''::bytea order by number) as won,
           string_agg(int4send(won_by_weight::int), ''::bytea order by number) as won_by_weight,
           string_agg(float8send(entitled), ''::bytea order by number) as entitled
    from share group by at_hour
), misses as (
    select at_hour, string_agg(int4send(number), ''::bytea order by place, number) as subscription,
           string_agg(int4send(place::int), ''::bytea order by place, number) as lead,
           string_agg(float4send(coalesce(distance, 'NaN')::float4), ''::bytea order by place, number) as distance,
           string_agg(int2send(rule_code::int2), ''::bytea order by place, number) as rule,
           convert_to(string_agg(distinct rule, E'\n' order by rule), 'UTF8') as rule_words
    from coded group by at_hour
)
select c.field, s.at_hour, c.data
from shares s
cross join lateral (values
    ('share_subscription', subscription), ('share_stood', stood), ('share_won', won),
    ('share_won_by_weight', won_by_weight), ('share_entitled', entitled)
) as c (field, data)
union all
select c.field, m.at_hour, c.data
from misses m
cross join lateral (values
    ('miss_subscription', subscription), ('miss_lead', lead), ('miss_distance', distance), ('miss_rule', rule),
    ('miss_rule_words', rule_words)
) as c (field, data)
$$;
