-- name: list_contacts
-- Sealed contacts of many leads at once. read_contact() refuses a lead that has no committed exposure to this business.
select requested.lead_id, c.sealed as box, c.wrapped, c.master_key_id, c.corrections
from unnest($1::uuid[]) as requested (lead_id) cross join lateral read_contact(requested.lead_id, $2) c;

-- name: find_leads_of_person
-- The delivered leads of a business that have one of the keyed hashes. An erased person has none.
select distinct a.lead_id from person_key k join assignment a on a.lead_id = k.lead_id
where k.key = any($1::bytea[]) and a.business_id = $2 and a.mode = $3 and a.state = 'delivered'
limit $4;

-- name: count_days
-- Leads shown to the business since $3, by days in the zone $4. Their assignments have ids from $5 on.
select (exposed_at at time zone $4)::date as day, count(*) as leads
from assignment
where business_id = $1 and mode = $2 and exposed_at >= $3 and id >= $5
group by 1
order by 1;

-- name: measure_delivery
-- Leads shown since $3 and before $4, with ids from $5 to $6: their number, time to delivery, cost, and how many have no
-- outcome.
select count(*) as leads, count(a.evidence) as delivered,
       percentile_cont(0.5) within group (order by extract(epoch from a.settled_at - l.received_at)::float8)
           filter (where a.evidence is not null) as p50_seconds,
       percentile_cont(0.95) within group (order by extract(epoch from a.settled_at - l.received_at)::float8)
           filter (where a.evidence is not null) as p95_seconds,
       coalesce(sum(a.price_minor) filter (where a.state = 'delivered'), 0)::bigint as spent_minor,
       count(*) filter (where a.state = 'delivered'
           and not exists (select from disposition where assignment_id = a.id and undone_at is null)) as without_outcome
from assignment a join lead l on l.id = a.lead_id
where a.business_id = $1 and a.mode = $2 and a.exposed_at >= $3 and a.exposed_at < $4 and a.id between $5 and $6;

-- name: count_shown
-- Number of leads shown since $3 and before $4, with ids from $5 to $6.
select count(*) from assignment
where business_id = $1 and mode = $2 and exposed_at >= $3 and exposed_at < $4 and id between $5 and $6;

-- name: find_terms
-- The vertical of a lead in the version by which it was awarded, and the name of its subscription.
select m.definition as vertical, s.name as subscription
from assignment a
join lead l on l.id = a.lead_id
join subscription s on s.id = a.subscription_id
join decision d on d.assignment_id = a.id and d.lead_id = a.lead_id and d.made_at = a.awarded_at
join vertical_version m on (m.vertical_id, m.version) = (l.vertical_id, d.vertical_version)
where a.id = $1 and a.business_id = $2;

-- name: list_decisions
-- The decisions about a lead with their candidates. The caller has checked that the lead is the business's own.
select made_at, outcome, strategy, candidates, left_out, subscription_id
from decision where lead_id = $1 order by made_at, id;

-- name: list_attempts
-- Attempts of a business, newest first; $3 is the start of the last attempt of the previous page.
select t.id, t.lead_id, t.assignment_id, t.endpoint_id, t.attempt_no, t.started_at, t.outcome, t.reason, t.status,
       t.dns_ms, t.connect_ms, t.tls_ms, t.expose_ms, t.first_byte_ms, t.total_ms, t.address, t.answer_excerpt,
       t.answer_reference, t.answer_price, a.state, a.due_at, a.mode
from attempt t join assignment a on a.id = t.assignment_id
where t.business_id = $1 and a.business_id = $1 and a.mode = $2 and ($3::timestamptz is null or t.started_at < $3)
    and ($4::text is null or t.outcome = $4)
    and ($5::uuid is null or t.assignment_id = any(array(select id from assignment where lead_id = $5)))
    and ($6::uuid is null or t.endpoint_id = $6)
order by t.started_at desc
limit $7;

-- name: list_health
-- Health of the endpoints of a business since $2, with the median and the 95th percentile of each phase, and the breaker now.
select t.endpoint_id, count(*) as attempts, count(*) filter (where t.outcome = 'accepted') as accepted,
       percentile_cont(0.5) within group (order by t.total_ms) as p50_ms,
       percentile_cont(0.95) within group (order by t.total_ms) as p95_ms,
       percentile_cont(array[0.5, 0.95]) within group (order by t.dns_ms) as dns_ms,
       percentile_cont(array[0.5, 0.95]) within group (order by t.connect_ms) as connect_ms,
       percentile_cont(array[0.5, 0.95]) within group (order by t.tls_ms) as tls_ms,
       percentile_cont(array[0.5, 0.95]) within group (order by t.first_byte_ms) as first_byte_ms,
       (select breaker from endpoint where id = t.endpoint_id) as breaker,
       (array_agg(t.reason order by t.started_at desc) filter (where t.outcome <> 'accepted'))[1] as last_reason,
       (array_agg(t.status order by t.started_at desc) filter (where t.outcome <> 'accepted'))[1] as last_status,
       max(t.started_at) filter (where t.outcome <> 'accepted') as last_failed_at,
       max(t.started_at) filter (where t.outcome = 'accepted') as last_accepted_at
from attempt t
where t.business_id = $1 and t.started_at >= $2
group by t.endpoint_id;

-- name: sum_month
-- Sums of a wallet's two accounts by kind of transfer: before $2, and from $2 until $3. Reads a single index.
select kind, account, count(*) filter (where made_at >= $2) as lines,
       coalesce(sum(amount_minor) filter (where made_at < $2), 0)::bigint as before_minor,
       coalesce(sum(amount_minor) filter (where made_at >= $2), 0)::bigint as amount_minor
from entry
where of_business = $1 and account in ('available', 'held') and made_at < $3
group by kind, account
order by kind, account;

-- name: list_month
-- What changed a wallet's balance from $2 until $3, oldest first, with the service and place of each lead.
select s.id, s.kind, s.amount_minor, s.currency, a.lead_id, s.event_id, s.made_at, v.slug as vertical,
       i.facts -> 'place' ->> 'region' as region, i.facts -> 'place' ->> 'postal_code' as postal_code
from statement_line s
left join assignment a on a.id = s.assignment_id
left join lead l on l.id = a.lead_id
left join inquiry i on i.id = a.lead_id
left join vertical v on v.id = l.vertical_id
where s.business_id = $1 and s.made_at >= $2 and s.made_at < $3
order by s.made_at, s.id
limit $4;

-- name: find_low_below
-- The balance below which the business wants a warning.
select low_below_minor from wallet where business_id = $1;

-- name: list_sources
-- Leads shown since $3 and before $4, with ids from $5 to $6, by source, with their outcomes. The outcomes of a business
-- are one range of an index.
-- No outcome is older than the time at which its lead was shown, but two clocks may differ: hence the day of margin.
with outcome as (
    select assignment_id, bool_or(kind in ('contacted', 'qualified', 'appointment', 'quoted', 'won')) as contacted,
           bool_or(kind = 'won') as won, max(value_minor) as won_minor
    from disposition where business_id = $1 and undone_at is null and recorded_at >= $3::timestamptz - interval '1 day'
    group by assignment_id
)
select coalesce(i.facts ->> 'source', '') as source, count(*) as leads,
       sum(a.price_minor) filter (where a.state = 'delivered')::bigint as spent_minor,
       count(*) filter (where outcome.contacted) as contacted, count(*) filter (where outcome.won) as won,
       coalesce(sum(outcome.won_minor), 0)::bigint as won_minor,
       count(*) filter (where a.state = 'returned') as returned
from assignment a
join inquiry i on i.id = a.lead_id
left join outcome on outcome.assignment_id = a.id
where a.business_id = $1 and a.mode = $2 and a.exposed_at >= $3 and a.exposed_at < $4 and a.id between $5 and $6
group by 1
order by leads desc, source
limit 200;

-- name: list_places
-- Places of postal codes.
select code, city, region, latitude, longitude from postal_area
where country = $1 and code = any($2::text[]) and latitude is not null;

-- name: list_places_of_prefixes
-- Places of postal codes that begin with one of the prefixes; of more than $3, those of every prefix in turn.
select p.code, p.city, p.region, p.latitude, p.longitude
from (select code, city, region, latitude, longitude, row_number() over (partition by prefix order by code) as place
      from unnest($2::text[]) as wanted (prefix)
      cross join lateral (
          select a.code, a.city, a.region, a.latitude, a.longitude from postal_area a
          where a.country = $1 and a.latitude is not null and a.code >= prefix and a.code < prefix || '~'
              and starts_with(a.code, prefix)
      ) of_prefix
) p
order by p.place, p.code
limit $3;

-- name: find_onboarding
-- The choices that a business has saved on its way through the first steps.
select chosen from onboarding where business_id = $1;

-- name: save_onboarding
-- Saves the choices of a business, in place of the previous ones.
insert into onboarding (business_id, chosen, changed_at) values ($1, $2, $3)
on conflict (business_id) do update set chosen = excluded.chosen, changed_at = excluded.changed_at;
