-- name: list_submissions
-- Newest first, with state and the provider's own payout; never the business.
select l.id, l.state, l.reason, v.slug as vertical, i.provider_reference, l.received_at,
       t.amount_minor - coalesce(c.amount_minor, 0) as payout_minor, t.currency
from lead l
join inquiry i on i.id = l.id
join vertical v on v.id = l.vertical_id
left join assignment a on a.lead_id = l.id and a.state <> 'released'
left join payout_share s on s.inquiry_id = l.id
left join transfer t on t.assignment_id = coalesce(a.id, s.assignment_id) and t.kind = 'payout' and t.provider_id = l.provider_id
left join transfer c on c.assignment_id = t.assignment_id and c.kind = 'claw_back' and c.provider_id = l.provider_id
where l.provider_id = $1 and l.mode = $2 and ($3::uuid is null or l.id < $3)
order by l.id desc
limit $4;

-- name: list_these_submissions
-- Leads of a report or a search, in the order of the ids; those of other providers are left out.
select l.id, l.state, l.reason, v.slug as vertical, i.provider_reference, l.received_at,
       t.amount_minor - coalesce(c.amount_minor, 0) as payout_minor, t.currency
from unnest($3::uuid[]) with ordinality as listed (id, place)
join lead l on l.id = listed.id and l.provider_id = $1 and l.mode = $2
join inquiry i on i.id = l.id
join vertical v on v.id = l.vertical_id
left join assignment a on a.lead_id = l.id and a.state <> 'released'
left join payout_share s on s.inquiry_id = l.id
left join transfer t on t.assignment_id = coalesce(a.id, s.assignment_id) and t.kind = 'payout' and t.provider_id = l.provider_id
left join transfer c on c.assignment_id = t.assignment_id and c.kind = 'claw_back' and c.provider_id = l.provider_id
order by listed.place;

-- name: find_submissions
-- By the provider's reference, or by the keyed hashes of a phone number or e-mail address; each half reads an index.
select matching.id
from (
    select i.id from inquiry i where i.provider_id = $1 and i.mode = $2 and i.provider_reference = $3
    union
    select l.id from person_key k join lead l on l.id = k.lead_id
    where k.key = any($4::bytea[]) and l.provider_id = $1 and l.mode = $2
) matching
order by matching.id desc
limit $5;

-- name: count_refused_by_hour
-- Requests that were refused with faults, by hour.
select r.hour, sum(r.count)::bigint as requests
from refusal_count r
where r.provider_id = $1 and r.mode = $2 and r.pointer = '*' and r.hour >= $3 and r.hour < $4
group by r.hour
order by r.hour;

-- name: sum_earned
-- Payouts less claw-backs, from the index alone.
select t.currency::text as currency,
       sum(case when t.kind = 'claw_back' then -t.amount_minor else t.amount_minor end)::bigint as earned_minor
from transfer t
where t.provider_id = $1 and t.kind in ('payout', 'claw_back') and t.made_at >= $2 and t.made_at < $3
group by t.currency
order by t.currency;

-- name: list_earnings
-- Payouts, claw-backs and payments, newest first, each with the provider's own inquiry: of a share, the one that joined the
-- lead.
select t.id, t.kind, t.currency, t.made_at, i.id as lead_id, i.provider_reference, t.event_id,
       case when t.kind = 'payout' then t.amount_minor else -t.amount_minor end as amount_minor
from transfer t
left join assignment a on a.id = t.assignment_id
left join payout_share s on (s.assignment_id, s.share) = (t.assignment_id, t.share)
left join inquiry i on i.id = coalesce(s.inquiry_id, a.lead_id)
where t.provider_id = $1 and ($2::uuid is null or t.id < $2)
order by t.id desc
limit $3;

-- name: list_statement
-- Payouts, claw-backs and payments of one month, oldest first.
select t.id, t.kind, t.currency, t.made_at, i.id as lead_id, i.provider_reference, t.event_id,
       case when t.kind = 'payout' then t.amount_minor else -t.amount_minor end as amount_minor
from transfer t
left join assignment a on a.id = t.assignment_id
left join payout_share s on (s.assignment_id, s.share) = (t.assignment_id, t.share)
left join inquiry i on i.id = coalesce(s.inquiry_id, a.lead_id)
where t.provider_id = $1 and t.made_at >= $2 and t.made_at < $3
order by t.made_at, t.id
limit $4;

-- name: sum_months
-- Payouts, claw-backs and payments by month of a time zone, newest first; their sum is the amount owed.
-- One index range per month, because computing the month of each transfer takes longer.
with first as (select min(made_at) as at from transfer where provider_id = $1)
select month.begins at time zone $2 as begins, moved.currency, moved.earned_minor, moved.taken_minor,
       moved.paid_minor
from first
cross join generate_series(date_trunc('month', first.at at time zone $2), clock_timestamp() at time zone $2,
    interval '1 month') as month (begins)
cross join lateral (
    select t.currency, coalesce(sum(t.amount_minor) filter (where t.kind = 'payout'), 0)::bigint as earned_minor,
           coalesce(sum(t.amount_minor) filter (where t.kind = 'claw_back'), 0)::bigint as taken_minor,
           coalesce(sum(t.amount_minor) filter (where t.kind = 'paid'), 0)::bigint as paid_minor
    from transfer t
    where t.provider_id = $1 and t.made_at >= month.begins at time zone $2
      and t.made_at < (month.begins + interval '1 month') at time zone $2
    group by t.currency
) moved
order by month.begins desc, moved.currency;

-- name: sum_statement
-- Owed at the start of the month, and payouts, claw-backs, payments and lines of the whole month, however many are shown.
with moved as (
    select t.currency, t.kind, t.made_at >= $2 as inside, sum(t.amount_minor) as minor, count(*) as lines
    from transfer t
    where t.provider_id = $1 and t.made_at < $3
    group by t.currency, t.kind, inside
)
select m.currency,
       coalesce(sum(case when m.kind = 'payout' then m.minor else -m.minor end) filter (where not m.inside), 0)::bigint
           as opening_minor,
       coalesce(sum(m.minor) filter (where m.kind = 'payout' and m.inside), 0)::bigint as earned_minor,
       coalesce(sum(m.minor) filter (where m.kind = 'claw_back' and m.inside), 0)::bigint as taken_minor,
       coalesce(sum(m.minor) filter (where m.kind = 'paid' and m.inside), 0)::bigint as paid_minor,
       coalesce(sum(m.lines) filter (where m.inside), 0)::bigint as lines
from moved m
group by m.currency
order by m.currency;

-- name: list_versions
-- Versions of a vertical's definition, newest first.
select d.version, d.definition, d.made_at
from vertical_version d
where d.vertical_id = $1
order by d.version desc
limit $2;

-- name: list_return_reasons
-- Reasons and results of returns of leads received in a span. Starts from the requests, which are far fewer than leads;
-- a request is never older than its lead.
with requested as materialized (select lead_id, reason, state from return_request where requested_at >= $3)
select r.reason, r.state, count(*) as leads
from requested r
cross join lateral (
    select from lead where id = r.lead_id and provider_id = $1 and mode = $2 and received_at >= $3 and received_at < $4
    offset 0  -- one by one, by the primary key
) l
group by r.reason, r.state
order by leads desc, r.reason, r.state;

-- name: list_fault_shapes
-- Last values with each fault; they were masked before they were stored.
select pointer, code, shape, seen_at from refusal_example where provider_id = $1 and mode = $2;

-- name: list_rejected
-- The newest of these leads for each reason, with its verdict: answers and required values.
select distinct on (l.reason) l.id, l.reason, d.verdict
from lead l
join decision d on d.lead_id = l.id and d.outcome = 'rejected'
where l.id = any($2::uuid[]) and l.provider_id = $1 and l.state = 'rejected'
order by l.reason, l.id desc;

-- name: find_evidence
-- The evidence that a business gave with the return of a lead of this provider.
select r.evidence from return_request r join lead l on l.id = r.lead_id where r.lead_id = $1 and l.provider_id = $2;
