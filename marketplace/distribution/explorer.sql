-- name: list_subscription_versions
-- Subscriptions in the versions that a decision recorded.
select v.subscription_id, v.version, s.business_id, s.endpoint_id, v.definition
from unnest($1::uuid[], $2::int[]) as pair (id, version)
join subscription_version v on (v.subscription_id, v.version) = (pair.id, pair.version)
join subscription s on s.id = v.subscription_id;

-- name: list_past_standings
-- Wallets as they stood before $2, and present credits. A past balance is the present one less the transfers made since;
-- these are found by their ids, which rise with time, from $3 on.
select s.id as subscription_id,
       w.available_minor - coalesce((
           select sum(case when t.kind in ('hold', 'withdrawal') then -t.amount_minor
                           when t.kind in ('top_up', 'release', 'refund') then t.amount_minor else 0 end)
           from transfer t where t.business_id = s.business_id and t.id >= $3 and t.made_at >= $2), 0)::bigint
           as available_minor,
       w.credit_limit_minor,
       (select c.credit from share_credit c
        where (c.vertical_id, c.mode, c.business_id) = (s.vertical_id, s.mode, s.business_id)) as share_credit
from unnest($1::uuid[]) as listed (id)
join subscription s on s.id = listed.id
join wallet w on w.business_id = s.business_id;

-- name: list_past_usage
-- Usage of each window before $4. A released assignment counts until its release.
select w.subscription_id, w.cap_window, count(a.id)::int as used_count,
       coalesce(sum(a.price_minor), 0)::bigint as used_minor
from unnest($1::uuid[], $2::text[], $3::timestamptz[]) as w (subscription_id, cap_window, starts_at)
left join assignment a on a.subscription_id = w.subscription_id and a.mode = 'live'
    and a.awarded_at >= w.starts_at and a.awarded_at < $4
    and not (a.state = 'released' and a.settled_at < $4)
group by w.subscription_id, w.cap_window;

-- name: find_area
-- A postal area of the United States, for a lead whose place is changed in the explorer.
select country, code as postal_code, region, latitude, longitude, time_zone
from postal_area where country = 'US' and code = $1;

-- name: find_arrivals
-- The arrival curve of a vertical that was in force at $2.
select c.arrivals
from vertical v
cross join lateral (
    select arrivals from arrival_curve where vertical_id = v.id and learned_at <= $2 order by learned_at desc limit 1
) c
where v.slug = $1;
