-- name: list_contacts
-- Of many leads at once, each through the door that opens only for a committed exposure to this business.
select asked.lead_id, c.sealed, c.wrapped, c.master_key_id
from unnest($1::uuid[]) as asked (lead_id) cross join lateral read_contact(asked.lead_id, $2) c;

-- name: count_days
-- Leads shown to the business since $3, by the days of zone $4.
select (exposed_at at time zone $4)::date as day, count(*) as leads
from assignment
where business_id = $1 and mode = $2 and exposed_at >= $3
group by 1
order by 1;

-- name: measure_delivery
-- Leads shown since $3 and before $4: how many, how fast the business had them, what they cost, how many wait for a word.
select count(*) as leads, count(a.evidence) as delivered,
       percentile_cont(0.5) within group (order by extract(epoch from a.settled_at - l.received_at)::float8)
           filter (where a.evidence is not null) as p50_seconds,
       percentile_cont(0.95) within group (order by extract(epoch from a.settled_at - l.received_at)::float8)
           filter (where a.evidence is not null) as p95_seconds,
       coalesce(sum(a.price_minor) filter (where a.state = 'delivered'), 0)::bigint as spent_minor,
       count(*) filter (where a.state = 'delivered'
           and not exists (select from disposition where assignment_id = a.id and undone_at is null)) as untold
from assignment a join lead l on l.id = a.lead_id
where a.business_id = $1 and a.mode = $2 and a.exposed_at >= $3 and a.exposed_at < $4;

-- name: count_shown
-- Leads shown since $3 and before $4, and no more about them.
select count(*) from assignment where business_id = $1 and mode = $2 and exposed_at >= $3 and exposed_at < $4;

-- name: find_terms
-- The market of a lead in the version by which it was awarded, and the order that it came by.
select m.definition, s.name as subscription
from assignment a
join lead l on l.id = a.lead_id
join subscription s on s.id = a.subscription_id
join decision d on d.assignment_id = a.id and d.lead_id = a.lead_id and d.made_at = a.awarded_at
join vertical_version m on (m.vertical_id, m.version) = (l.vertical_id, d.vertical_version)
where a.id = $1 and a.business_id = $2;

-- name: list_decided
-- What was weighed when a lead was decided about; the caller confines it to a lead of its own.
select made_at, outcome, strategy, candidates, left_out, subscription_id
from decision where lead_id = $1 order by made_at, id;

-- name: list_attempts
-- One business's attempts, newest first; $3 is when the last of the page before began.
select t.id, t.lead_id, t.assignment_id, t.endpoint_id, t.attempt_no, t.started_at, t.outcome, t.reason, t.status,
       t.dns_ms, t.connect_ms, t.tls_ms, t.expose_ms, t.first_byte_ms, t.total_ms, t.address, t.answer_excerpt,
       a.state, a.due_at, a.mode
from attempt t join assignment a on a.id = t.assignment_id
where t.business_id = $1 and a.business_id = $1 and a.mode = $2 and ($3::timestamptz is null or t.started_at < $3)
    and ($4::text is null or t.outcome = $4)
    and ($5::uuid is null or t.assignment_id = any(array(select id from assignment where lead_id = $5)))
    and ($6::uuid is null or t.endpoint_id = $6)
order by t.started_at desc
limit $7;

-- name: list_health
-- How the endpoints of a business have done since $2.
select t.endpoint_id, count(*) as attempts, count(*) filter (where t.outcome = 'accepted') as accepted,
       percentile_cont(0.5) within group (order by t.total_ms) as p50_ms,
       percentile_cont(0.95) within group (order by t.total_ms) as p95_ms,
       (array_agg(t.reason order by t.started_at desc) filter (where t.outcome <> 'accepted'))[1] as last_reason,
       (array_agg(t.status order by t.started_at desc) filter (where t.outcome <> 'accepted'))[1] as last_status,
       max(t.started_at) filter (where t.outcome <> 'accepted') as last_failed_at,
       max(t.started_at) filter (where t.outcome = 'accepted') as last_accepted_at
from attempt t
where t.business_id = $1 and t.started_at >= $2
group by t.endpoint_id;

-- name: sum_month
-- A wallet's two accounts by what moved them: before a moment, and from then on until another. All from one index.
select kind, account, count(*) filter (where made_at >= $2) as lines,
       coalesce(sum(amount_minor) filter (where made_at < $2), 0)::bigint as before_minor,
       coalesce(sum(amount_minor) filter (where made_at >= $2), 0)::bigint as amount_minor
from entry
where of_business = $1 and account in ('available', 'held') and made_at < $3
group by kind, account
order by kind, account;

-- name: find_low_below
select low_below_minor from wallet where business_id = $1;

-- name: list_sources
-- Leads shown since $3 and before $4 by where they came from, and what became of them. All that the business ever told is
-- one stretch of an index; nothing is told of a lead before it was shown, give or take how far two clocks are apart.
with told as (
    select assignment_id, bool_or(kind in ('contacted', 'qualified', 'quoted', 'won')) as contacted,
           bool_or(kind = 'won') as won, max(value_minor) as won_minor
    from disposition where business_id = $1 and undone_at is null and recorded_at >= $3::timestamptz - interval '1 day'
    group by assignment_id
)
select coalesce(i.facts ->> 'source', '') as source, count(*) as leads,
       sum(a.price_minor) filter (where a.state = 'delivered')::bigint as spent_minor,
       count(*) filter (where told.contacted) as contacted, count(*) filter (where told.won) as won,
       coalesce(sum(told.won_minor), 0)::bigint as won_minor,
       count(*) filter (where a.state = 'returned') as returned
from assignment a
join inquiry i on i.id = a.lead_id
left join told on told.assignment_id = a.id
where a.business_id = $1 and a.mode = $2 and a.exposed_at >= $3 and a.exposed_at < $4
group by 1
order by leads desc, source
limit 200;

-- name: list_places
-- Where postal codes lie.
select code, city, region, latitude, longitude from postal_area
where country = $1 and code = any($2::text[]) and latitude is not null;

-- name: find_onboarding
select chosen from onboarding where business_id = $1;

-- name: save_onboarding
insert into onboarding (business_id, chosen, changed_at) values ($1, $2, $3)
on conflict (business_id) do update set chosen = excluded.chosen, changed_at = excluded.changed_at;

-- name: has_been_delivered
-- Whether anything live was ever delivered to the business.
select exists (select from assignment where business_id = $1 and mode = 'live' and evidence is not null);
