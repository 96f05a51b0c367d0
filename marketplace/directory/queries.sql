-- name: insert_vertical
insert into vertical (id, slug, version, created_at) values ($1, $2, 1, $3);

-- name: insert_vertical_version
insert into vertical_version (vertical_id, version, definition, made_at, made_by) values ($1, $2, $3, $4, $5);

-- name: find_vertical
select v.id, v.slug, v.version, d.definition
from vertical v join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
where v.slug = $1;

-- name: lock_vertical
-- The second of two editors of one version waits here, and then reads the version that the first one made. The lock is a
-- statement of its own: one that waited and joined would look for the new version's row in its old snapshot and find none.
select id from vertical where slug = $1 for no key update;

-- name: mark_vertical_version
update vertical set version = $2 where id = $1;

-- name: list_verticals
select v.id, v.slug, v.version, d.definition
from vertical v join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
where $1::uuid is null or v.id < $1
order by v.id desc
limit $2;

-- name: insert_provider
insert into provider (id, name, payout, created_at) values ($1, $2, $3, $4)
returning id, name, state, payout, created_at;

-- name: find_provider
select id, name, state, payout, created_at from provider where id = $1;

-- name: list_providers
select id, name, state, payout, created_at from provider
where $1::uuid is null or id < $1
order by id desc
limit $2;

-- name: mark_provider
-- Columns whose parameter is null do not change.
update provider set name = coalesce($2, name), state = coalesce($3, state), payout = coalesce($4, payout)
where id = $1
returning id, name, state, payout, created_at;

-- name: insert_business
-- The name that an operator gives it is the first by which a consent may name it.
insert into business (id, name, zone, created_at, seller_names) values ($1, $2, $3, $4, array[$2]);

-- name: find_business
-- The business with its wallet's currency: every business has a wallet.
select b.id, b.name, b.state, b.zone, w.currency, b.created_at, b.seller_names
from business b join wallet w on w.business_id = b.id
where b.id = $1;

-- name: list_businesses
select b.id, b.name, b.state, b.zone, w.currency, b.created_at, b.seller_names
from business b join wallet w on w.business_id = b.id
where $1::uuid is null or b.id < $1
order by b.id desc
limit $2;

-- name: mark_business
-- Columns whose parameter is null do not change.
update business set name = coalesce($2, name), state = coalesce($3, state), zone = coalesce($4, zone),
    seller_names = coalesce($5, seller_names)
where id = $1
returning id;

-- name: lock_address
-- Two businesses that claim one address at the same moment take turns: without it each could wait for the other's row, and
-- PostgreSQL would end one of them as a deadlock.
select pg_advisory_xact_lock(hashtextextended(address_key, 0)) from endpoint where id = $1 and address_key is not null;

-- name: has_other_owner
-- An address that was registered and never proven, or whose endpoint is off, keeps nobody else away.
select exists (
    select from endpoint
    where address_key = $1 and business_id <> $2 and verified_at is not null and state <> 'disabled');

-- name: insert_endpoint
insert into endpoint (id, business_id, kind, url, state, secret, created_at, verified_at, address_key, hold_seconds)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: find_endpoint
-- `serves_live` is whether a live subscription uses it: then only a live key may change it.
select e.id, e.business_id, e.kind, e.url, e.state, e.hold_seconds, e.previous_until, e.breaker_open_until, e.created_at,
       e.verified_at, t.address, t.mode as mail_mode, t.with_adf,
       exists (select from subscription s
               where s.endpoint_id = e.id and s.mode = 'live' and s.state <> 'ended') as serves_live
from endpoint e
left join mail_target t on t.endpoint_id = e.id
where e.id = $1 and ($2::uuid is null or e.business_id = $2);

-- name: list_endpoints
select e.id, e.business_id, e.kind, e.url, e.state, e.hold_seconds, e.previous_until, e.breaker_open_until, e.created_at,
       e.verified_at, t.address, t.mode as mail_mode, t.with_adf,
       exists (select from subscription s
               where s.endpoint_id = e.id and s.mode = 'live' and s.state <> 'ended') as serves_live
from endpoint e
left join mail_target t on t.endpoint_id = e.id
where ($1::uuid is null or e.business_id = $1) and ($2::uuid is null or e.id < $2)
order by e.id desc
limit $3;

-- name: find_secrets
-- Sealed; the previous one is valid until the end of the rotation.
select secret, previous_secret, previous_until from endpoint where id = $1;

-- name: mark_endpoint_verified
-- Only if its state is still $2: if the owner has switched it in the meantime, that stays. The address is the business's now.
update endpoint set state = 'active', verified_at = $3, address_key = $4, breaker = '{}', breaker_open_until = null
where id = $1 and state = $2
returning id;

-- name: mark_endpoint_state
-- The breaker is reset: an owner who switches an endpoint on says that it works.
update endpoint set state = $2, breaker = '{}', breaker_open_until = null where id = $1;

-- name: mark_hold
update endpoint set hold_seconds = $2 where id = $1;

-- name: mark_secret
-- The old secret stays valid beside the new one until $3, so that no delivery fails during the change.
update endpoint set previous_secret = secret, previous_until = $3, secret = $2 where id = $1;

-- name: mark_previous_secret_ended
-- End a secret that has leaked or is no longer used: from now on requests are signed with the present one only.
update endpoint set previous_secret = null, previous_until = null where id = $1;

-- name: find_contract
select kind, contract_version as version, contract from endpoint
where id = $1 and ($2::uuid is null or business_id = $2);

-- name: mark_contract
-- Only on top of version $2. The shapes of accepted answers are counted anew.
update endpoint set contract = $3::jsonb, contract_version = contract_version + 1, answer_shapes = '{}'
where id = $1 and contract_version = $2
returning id;

-- name: find_mapping
select kind, url, mapping_version as version, mapping, credentials from endpoint
where id = $1 and ($2::uuid is null or business_id = $2);

-- name: mark_mapping
-- Only on top of version $2.
update endpoint set mapping = $3::jsonb, credentials = $4, address_key = $5, mapping_version = mapping_version + 1
where id = $1 and mapping_version = $2
returning id;

-- name: close_alarms
-- A new contract ends every alarm; a look at the answers ends only the one about a new shape.
update answer_alarm set closed_at = $3, closed_for = $2
where endpoint_id = $1 and closed_at is null and ($2 = 'contract' or kind = 'new_shape');

-- name: list_answer_alarms
select o.id, o.endpoint_id, o.business_id, b.name as business, e.url, o.kind, o.opened_at, o.last_at, o.answers, o.status,
       o.content_type, o.excerpt
from answer_alarm o join endpoint e on e.id = o.endpoint_id join business b on b.id = o.business_id
where o.closed_at is null and ($1::uuid is null or o.business_id = $1)
order by o.last_at desc
limit $2;

-- name: insert_subscription
insert into subscription (id, business_id, vertical_id, endpoint_id, mode, name, version, currency, created_at)
values ($1, $2, $3, $4, $5, $6, 1, $7, $8);

-- name: insert_subscription_version
insert into subscription_version (subscription_id, version, definition, made_at, made_by) values ($1, $2, $3, $4, $5);

-- name: find_subscription
select s.id, s.business_id, v.slug as vertical, s.endpoint_id, s.mode, s.name, s.state, s.version, d.definition,
       s.created_at, d.made_at, s.suspended_for, s.suspended_at, s.suspended_counted, s.suspended_shown
from subscription s
join subscription_version d on (d.subscription_id, d.version) = (s.id, s.version)
join vertical v on v.id = s.vertical_id
where s.id = $1 and ($2::uuid is null or s.business_id = $2) and ($3::text is null or s.mode = $3);

-- name: lock_subscription
-- An award that has begun on this subscription is finished first; the next one sees the edit. The caller reads after this.
select id from subscription
where id = $1 and ($2::uuid is null or business_id = $2) and ($3::text is null or mode = $3)
for no key update;

-- name: list_subscriptions
select s.id, s.business_id, v.slug as vertical, s.endpoint_id, s.mode, s.name, s.state, s.version, d.definition,
       s.created_at, d.made_at, s.suspended_for, s.suspended_at, s.suspended_counted, s.suspended_shown
from subscription s
join subscription_version d on (d.subscription_id, d.version) = (s.id, s.version)
join vertical v on v.id = s.vertical_id
where ($1::uuid is null or s.business_id = $1) and ($2::text is null or s.mode = $2)
  and ($3::uuid is null or s.id < $3)
order by s.id desc
limit $4;

-- name: mark_subscription_version
update subscription set version = $2, name = $3, endpoint_id = $4 where id = $1;

-- name: has_suspended
-- While a subscription of the business to this vertical is suspended, it may not create another one.
select exists (
    select from subscription s join vertical v on v.id = s.vertical_id
    where s.business_id = $1 and v.slug = $2 and s.mode = $3 and s.state = 'suspended');

-- name: mark_subscription_state
update subscription set state = $2 where id = $1;

-- name: lock_business
-- A change of the operator's terms and a new subscription of the business take turns: neither could see the other's rows.
select id from business where id = $1 for no key update;

-- name: find_terms
select weight, priority from business_terms where vertical_id = $1 and business_id = $2;

-- name: put_terms
insert into business_terms (vertical_id, business_id, weight, priority) values ($1, $2, $3, $4)
on conflict (vertical_id, business_id) do update set weight = excluded.weight, priority = excluded.priority;

-- name: lock_subscriptions
-- All at once and in one order, before the catalog's counter, which the change of the first would lock.
select id from subscription
where vertical_id = $1 and business_id = $2 and state <> 'ended'
order by id for no key update;

-- name: revise_terms
-- The next version of each subscription that has other terms, the same in all else.
with revised as (
    insert into subscription_version (subscription_id, version, definition, made_at, made_by)
    select s.id, s.version + 1, d.definition || jsonb_build_object('weight', $3::int, 'priority', $4::int), $5, $6
    from subscription s
    join subscription_version d on (d.subscription_id, d.version) = (s.id, s.version)
    where s.vertical_id = $1 and s.business_id = $2 and s.state <> 'ended'
      and (coalesce((d.definition ->> 'weight')::int, 1), coalesce((d.definition ->> 'priority')::int, 100))
          is distinct from ($3::int, $4::int)
    returning subscription_id, version
)
update subscription s set version = revised.version from revised where s.id = revised.subscription_id
returning s.id, s.version;

-- name: lock_suppressions
-- Calls of one provider run one after the other, so that two concurrent ones cannot both use the last of its daily limit.
select pg_advisory_xact_lock(hashtextextended('suppression:' || $1, 0));

-- name: count_suppressed
-- Counts people: all keys of one person have the time of the same call.
select count(distinct created_at)::int from suppression where source = $1 and created_at > (select clock_timestamp()) - interval '24 hours';

-- name: lift_suppressions
-- Suppressions of these keys, or of one source since a time; each is stored with the reason for lifting it.
with lifted as (
    delete from suppression
    where ($1::bytea[] is null or key = any($1)) and ($2::text is null or source = $2)
      and ($3::timestamptz is null or created_at >= $3) and ($1::bytea[] is not null or $2::text is not null)
    returning key, reason, source, created_at
), recorded as (
    insert into lifted_suppression (key, reason, source, created_at, lifted_at, lifted_by, lifted_reason)
    select key, reason, source, created_at, $4, $5, $6 from lifted
)
select count(*)::int from lifted;

-- name: begin_quota
-- A suspension ends: leads that were shown until now are not counted any more. `quota_before` is the part of the day
-- windows that belongs to them, since a quota is counted by day windows.
update subscription set quota_since = $2, quota_before = (
    select coalesce(sum(used_count), 0) from cap_usage
    where subscription_id = $1 and cap_window = 'day' and starts_at > $2::timestamptz - interval '25 hours')
where id = $1;

-- name: insert_suppressions
-- Keyed hashes only; an existing suppression is kept.
insert into suppression (key, reason, source, created_at)
select person.key, $2, $3, $4 from unnest($1::bytea[]) as person (key)
on conflict (key) do nothing;
