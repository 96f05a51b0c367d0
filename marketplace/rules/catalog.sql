-- name: find_version
select version from catalog_version;

-- name: list_verticals
select v.id, v.slug, v.version, d.definition
from vertical v join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version);

-- name: list_providers
select id, state, payout from provider;

-- name: list_subscriptions
-- Without ended ones, which never return; with paused ones, because "paused" is a reason to show.
select s.id, s.business_id, s.endpoint_id, v.slug as vertical, s.mode, s.version, d.definition,
       s.state = 'paused' as paused, case when s.state = 'suspended' then s.suspended_for end as suspended,
       b.state = 'active' as business_active,
       coalesce(e.state = 'active', false) as endpoint_active, e.breaker_open_until
from subscription s
join subscription_version d on (d.subscription_id, d.version) = (s.id, s.version)
join business b on b.id = s.business_id
join vertical v on v.id = s.vertical_id
left join endpoint e on e.id = s.endpoint_id
where s.state <> 'ended';
