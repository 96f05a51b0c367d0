-- name: find_version
select version from catalog_version;

-- name: list_changes
-- The present version, and the parties that changed after the given one, up to the present one. Two bounds, or the planner
-- takes "later than" for a third of the table.
select v.version, c.kind, c.id
from catalog_version v
left join catalog_change c on c.version > $1 and c.version <= v.version;

-- name: list_subscriptions_of
-- Subscriptions of changed businesses and endpoints.
select id from subscription where business_id = any($1::uuid[])
union
select s.id
from endpoint e
join subscription s on s.business_id = e.business_id and s.endpoint_id = e.id
where e.id = any($2::uuid[]);

-- name: list_ids
-- One page of the subscriptions that have not ended, by id.
select id from subscription where state <> 'ended' and id > $1 order by id limit $2;

-- name: list_verticals
-- The given ones, or all, each with its newest arrival curve, the scorecards that are computed for its leads, and the sales of
-- its businesses. A value that a business declared for one vertical counts before one that it declared for all.
select v.id, v.slug, v.version, d.definition, catalog_fingerprint(v) as fingerprint,
       (select c.arrivals from arrival_curve c where c.vertical_id = v.id order by c.learned_at desc limit 1) as arrivals,
       (select jsonb_agg(jsonb_build_object('state', c.state, 'version', c.version, 'card', c.document))
        from scorecard c where c.vertical_id = v.id and c.state in ('shadow', 'ranking')) as cards,
       (select jsonb_object_agg(s.business_id, jsonb_build_object('leads', s.leads, 'returned', s.returned,
            'jobs', s.jobs, 'jobs_minor', s.jobs_minor, 'declared_minor', (
                select a.shared_value_minor from roi_assumption a
                where a.business_id = s.business_id and (a.vertical_id = v.id or a.vertical_id is null)
                  and a.currency = d.definition ->> 'currency' and a.shared_value_minor is not null
                order by a.vertical_id nulls last limit 1)))
        from business_sales s where s.vertical_id = v.id) as sales
from vertical v join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
where $1::uuid[] is null or v.id = any($1);

-- name: list_providers
-- The given ones, or all.
select p.id, p.state, p.payout, catalog_fingerprint(p) as fingerprint
from provider p
where $1::uuid[] is null or p.id = any($1);

-- name: list_subscriptions
-- Without ended ones, which never return; with paused ones, because "paused" is a reason to show.
select s.id, s.business_id, s.endpoint_id, v.slug as vertical, s.mode, s.version, d.definition,
       s.state = 'paused' as paused, case when s.state = 'suspended' then s.suspended_for end as suspended,
       b.state = 'active' as business_active, b.seller_names as business_names,
       coalesce(e.state = 'active', false) as endpoint_active, e.url as endpoint_url, e.breaker_open_until,
       coalesce(e.hold_seconds, 120) as hold_seconds,
       catalog_fingerprint(s, b, e) as fingerprint
from subscription s
join subscription_version d on (d.subscription_id, d.version) = (s.id, s.version)
join business b on b.id = s.business_id
join vertical v on v.id = s.vertical_id
left join endpoint e on e.id = s.endpoint_id
where s.id = any($1::uuid[]) and s.state <> 'ended';

-- name: add_up
-- Number and sum of the fingerprints of all that the catalog holds, without any definition.
select count(*) as entries, coalesce(sum(fingerprint), 0)::text as total
from (
    select catalog_fingerprint(v) as fingerprint from vertical v
    union all
    select catalog_fingerprint(p) from provider p
    union all
    select catalog_fingerprint(s, b, e)
    from subscription s
    join business b on b.id = s.business_id
    left join endpoint e on e.id = s.endpoint_id
    where s.state <> 'ended'
) held;
