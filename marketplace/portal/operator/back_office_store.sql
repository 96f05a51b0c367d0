-- name: read_server
-- The server's version, the size of the database, and the number of connections of each kind of process.
select current_setting('server_version') as version, pg_database_size(current_database()) as bytes,
       count(*) filter (where application_name = 'marketplace_api')::int as api,
       count(*) filter (where application_name = 'marketplace_worker')::int as worker,
       count(*) filter (where application_name = 'marketplace_reports')::int as reports,
       count(*)::int as connections
from pg_stat_activity where datname = current_database();

-- name: read_activity
-- The last time of each background activity, from the rows that it writes, and the earliest due times.
select b.number as block, b.sealed_at, r.at as reports_at, k.at as outcomes_at,
       (select min(due_at) from lead where due_at is not null and state in ('received', 'nurturing', 'prospect'))
           as lead_due_at,
       (select min(due_at) from assignment where due_at is not null) as assignment_due_at
from (select) as single
left join lateral (select number, sealed_at from audit_block order by number desc limit 1) as b on true
left join report_progress r on true
left join kept_outcome_progress k on true;

-- name: list_passes
-- Every background pass with its last success and its failures since.
select name, ended_at, seconds, failures, failure from background_pass order by name;

-- name: count_waiting
-- Leads and assignments that wait, by state, and how many are due; reads the two partial indexes of the sweeper.
select 'lead' as what, state, count(*)::int as waiting, count(*) filter (where due_at <= clock_timestamp())::int as due
from lead where due_at is not null group by state
union all
select 'assignment', state, count(*)::int, count(*) filter (where due_at <= clock_timestamp())::int
from assignment where due_at is not null group by state
order by what desc, state;

-- name: list_audit
-- Changes in every account, newest first. Ids rise with time, so the primary key gives the order.
select id, at, actor, action, object, detail from audit
where ($1::text is null or actor = $1) and ($2::text is null or object = $2)
  and ($3::text is null or action = $3 or starts_with(action, $3 || '.'))
  and ($4::timestamptz is null or at >= $4) and ($5::timestamptz is null or at < $5)
  and ($6::uuid is null or id < $6)
order by id desc
limit $7;

-- name: list_actor_names
-- Names of members and keys, in every account.
select id::text as id, name, email as about from member where id = any($1::uuid[])
union all
select id, name, kind as about from api_key where id = any($2::text[]);

-- name: find_head
-- The last sealed block of the chain, and the number of rows after it.
select b.number, b.sealed_at, encode(b.seal, 'hex') as seal,
       (select count(*) from audit_entry e where e.committed_by >= coalesce(b.xid_to, '0'::xid8))::int as unsealed
from (select) as single
left join lateral (select number, sealed_at, seal, xid_to from audit_block order by number desc limit 1) as b on true;

-- name: list_suppressions
-- Suppressions grouped by request, newest first. The keys are hashes and are not shown.
select reason, source, created_at, count(*)::int as keys from suppression
where $1::timestamptz is null or created_at < $1
group by reason, source, created_at order by created_at desc
limit $2;

-- name: count_suppressions
-- All suppressed keys.
select count(*)::int from suppression;

-- name: find_suppressed
-- Those of the keys that are suppressed, with the time and the reason.
select key, reason, source, created_at from suppression where key = any($1::bytea[]);

-- name: list_troubled
-- Endpoints that are paused after failures or switched off, those with most waiting leads first.
select e.id, e.business_id, b.name as business, e.kind, e.url, e.state, e.breaker_open_until as open_until,
       (select count(*) from assignment a
        where a.due_at is not null and a.endpoint_id = e.id and a.state in ('held', 'exposed'))::int as waiting,
       t.outcome as last_outcome, t.reason as last_reason, t.status as last_status, t.started_at as last_at
from endpoint e
join business b on b.id = e.business_id
left join lateral (
    select outcome, reason, status, started_at from attempt
    where business_id = e.business_id and endpoint_id = e.id order by started_at desc limit 1
) t on true
where e.state = 'disabled' or e.breaker_open_until > clock_timestamp()
order by waiting desc, e.id
limit $1;

-- name: list_suspended
-- Subscriptions that a quota has suspended, the latest first.
select s.id, s.name, s.business_id, b.name as business, v.slug as vertical, s.suspended_for as reason, s.suspended_at,
       s.suspended_counted as counted, s.suspended_shown as leads
from subscription s
join business b on b.id = s.business_id
join vertical v on v.id = s.vertical_id
where s.state = 'suspended'
order by s.suspended_at desc, s.id
limit $1;

-- name: list_retries
-- Assignments that were tried and wait for the next attempt or the deadline, the soonest first.
select a.id as assignment_id, a.lead_id, a.business_id, b.name as business, a.state, a.reason, a.attempts, a.due_at,
       a.evidence_until, a.mode
from assignment a join business b on b.id = a.business_id
where a.due_at is not null and a.state in ('held', 'exposed') and a.attempts > 0
order by a.due_at
limit $1;

-- name: list_attempts
-- Attempts of every business, newest first; ids rise with time.
select t.id, t.lead_id, t.business_id, b.name as business, t.endpoint_id, t.attempt_no, t.started_at, t.outcome, t.reason,
       t.status, t.dns_ms, t.connect_ms, t.tls_ms, t.first_byte_ms, t.total_ms, t.address, t.answer_excerpt,
       t.answer_reference, t.answer_price
from attempt t join business b on b.id = t.business_id
where ($1::uuid is null or t.id < $1) and ($2::text is null or t.outcome = $2)
  and ($3::uuid is null or t.business_id = $3)
  and ($4::uuid is null or t.assignment_id = any(array(select id from assignment where lead_id = $4)))
order by t.id desc
limit $5;

-- name: list_unconfirmed
-- The live assignment of each of the leads, in the order of $1.
select a.lead_id, a.business_id, b.name as business, a.state, a.reason, a.attempts, a.awarded_at, a.settled_at,
       a.price_minor, a.currency
from unnest($1::uuid[]) with ordinality as wanted (id, place)
join assignment a on a.lead_id = wanted.id and a.live
join business b on b.id = a.business_id
order by wanted.place;

-- name: list_versions
-- The versions of a vertical, newest first.
select version, definition, made_at, made_by from vertical_version where vertical_id = $1 order by version desc limit $2;

-- name: list_businesses
-- Businesses, newest first, each with its money and the time of its last lead.
select b.id, b.name, b.state, b.zone, b.seller_names, b.created_at, w.currency, w.available_minor, w.held_minor, w.credit_limit_minor,
       (select count(*) from subscription s where s.business_id = b.id and s.state = 'active' and s.mode = 'live')::int
           as subscriptions,
       (select a.awarded_at from assignment a where a.business_id = b.id order by a.id desc limit 1) as last_lead_at
from business b join wallet w on w.business_id = b.id
where ($1::text is null or strpos(lower(b.name), lower($1)) > 0) and ($2::text is null or b.state = $2)
  and ($3::uuid is null or b.id < $3) and ($5::uuid is null or b.id = $5)
order by b.id desc
limit $4;

-- name: list_providers
-- Providers, newest first, each with its valid live keys and the time of its last lead.
select p.id, p.name, p.state, p.payout, p.created_at,
       (select count(*) from api_key k
        where k.owner_id = p.id and k.mode = 'live' and k.revoked_at is null
          and (k.expires_at is null or k.expires_at > clock_timestamp()))::int as live_keys,
       (select l.received_at from lead l where l.provider_id = p.id order by l.id desc limit 1) as last_lead_at
from provider p
where ($1::text is null or strpos(lower(p.name), lower($1)) > 0) and ($2::text is null or p.state = $2)
  and ($3::uuid is null or p.id < $3) and ($5::uuid is null or p.id = $5)
order by p.id desc
limit $4;

-- name: list_subscriptions
-- Subscriptions of a business in their current versions, with the name of the vertical.
select s.id, s.name, s.state, s.mode, s.version, s.currency, v.slug, v.definition ->> 'name' as vertical,
       (x.definition ->> 'price_minor')::bigint as price_minor, coalesce((x.definition ->> 'weight')::int, 1) as weight,
       coalesce((x.definition ->> 'priority')::int, 100) as priority
from subscription s
join subscription_version x on x.subscription_id = s.id and x.version = s.version
join (select c.id, c.slug, d.definition from vertical c join vertical_version d on d.vertical_id = c.id
      and d.version = c.version) v on v.id = s.vertical_id
where s.business_id = $1
order by s.id desc
limit $2;

-- name: list_subscription_versions
-- Versions of a subscription, newest first.
select version, definition, made_at, made_by from subscription_version
where subscription_id = $1 and ($2::int is null or version < $2)
order by version desc
limit $3;

-- name: list_low_wallets
-- Wallets, those with the least to spend first, credit included.
select w.business_id, b.name as business, b.state, w.currency, w.available_minor, w.held_minor, w.credit_limit_minor,
       w.low_below_minor
from wallet w join business b on b.id = w.business_id
order by w.available_minor + w.credit_limit_minor, w.business_id
limit $1;

-- name: list_owed
-- Earnings, claw-backs and payments of each provider by currency, the largest amount owed first; from an index alone.
select p.id as provider_id, p.name as provider, t.currency, t.earned_minor, t.taken_minor, t.paid_minor,
       t.earned_minor - t.taken_minor - t.paid_minor as owed_minor, t.last_paid_at
from provider p
cross join lateral (
    select currency::text as currency,
           coalesce(sum(amount_minor) filter (where kind = 'payout'), 0)::bigint as earned_minor,
           coalesce(sum(amount_minor) filter (where kind = 'claw_back'), 0)::bigint as taken_minor,
           coalesce(sum(amount_minor) filter (where kind = 'paid'), 0)::bigint as paid_minor,
           max(made_at) filter (where kind = 'paid') as last_paid_at
    from transfer where provider_id = p.id group by currency
) t
order by owed_minor desc, p.id, t.currency
limit $1;

-- name: list_differences
-- Wallets that differ from the sums of their entries; one pass over the ledger, on one snapshot.
select w.business_id, b.name as business, w.currency, w.available_minor, w.held_minor,
       coalesce(e.available_minor, 0)::bigint as entries_available_minor,
       coalesce(e.held_minor, 0)::bigint as entries_held_minor
from wallet w
join business b on b.id = w.business_id
left join (
    select business_id, sum(amount_minor) filter (where account = 'available') as available_minor,
           sum(amount_minor) filter (where account = 'held') as held_minor
    from entry where business_id is not null group by business_id
) e on e.business_id = w.business_id
where (w.available_minor, w.held_minor) <> (coalesce(e.available_minor, 0), coalesce(e.held_minor, 0))
order by w.business_id;

-- name: list_transfers
-- The ledger, newest first. The transfers of a lead are read by its assignments, each kind from its own index.
select t.id, t.kind, t.amount_minor, t.currency, t.business_id, b.name as business, t.provider_id, p.name as provider,
       a.lead_id, t.event_id, t.made_at
from transfer t
left join business b on b.id = t.business_id
left join provider p on p.id = t.provider_id
left join assignment a on a.id = t.assignment_id
where ($1::uuid is null or t.id < $1) and ($2::text is null or t.kind = $2)
  and ($3::uuid is null or t.business_id = $3) and ($4::uuid is null or t.provider_id = $4)
  and ($5::uuid is null or t.id = any(array(
      select m.id from assignment of
      cross join lateral (
          select id from transfer where kind = 'hold' and assignment_id = of.id
          union all
          select id from transfer where kind in ('capture', 'release') and assignment_id = of.id
          union all
          select id from transfer where kind = 'payout' and assignment_id = of.id
          union all
          select id from transfer where kind = 'refund' and assignment_id = of.id
          union all
          select id from transfer where kind = 'claw_back' and assignment_id = of.id
      ) m where of.lead_id = $5)))
  and ($6::text is null or t.event_id = $6)
order by t.id desc
limit $7;
