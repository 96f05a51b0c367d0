-- name: list_leads
-- Leads with everything that the rules may read.
select l.id as lead_id, l.state, l.reason, l.due_at, l.received_at, l.qualified_at, l.settled_at, l.mode, l.provider_id,
       p.name as provider, l.vertical_id, v.slug as vertical, i.provider_reference,
       l.revision, facts_at(l.id, i.facts, l.revision) as facts, e.business_id, e.exposed_at
from lead l
join inquiry i on i.id = l.id
join provider p on p.id = l.provider_id
join vertical v on v.id = l.vertical_id
left join exposure e on e.lead_id = l.id
where l.id = any($1::uuid[]);

-- name: find_by_reference
-- The latest lead with this reference, of any provider; one index look-up for each provider and mode.
select i.id
from provider p
cross join (values ('live'), ('test')) as m (mode)
cross join lateral (
    select id, received_at from inquiry where provider_id = p.id and mode = m.mode and provider_reference = $1
) i
order by i.received_at desc limit 1;

-- name: list_latest_leads
-- The latest decisions, with the winner and the time since the lead was received.
select d.lead_id, d.made_at, d.outcome, d.reason, v.slug as vertical,
       coalesce(f.place, i.facts -> 'place') ->> 'postal_code' as postal_code,
       (d.verdict ->> 'score')::int as score, jsonb_array_length(d.candidates) as weighed,
       (select count(*) from jsonb_array_elements(d.candidates) as c where c ? 'position')::int as eligible,
       b.name as winner, l.mode, (extract(epoch from d.made_at - l.received_at))::float8 as seconds
from (
    select id, lead_id, made_at, outcome, reason, verdict, candidates, subscription_id from decision
    order by id desc limit $1
) d
join lead l on l.id = d.lead_id
join inquiry i on i.id = d.lead_id
left join revised_facts f on f.lead_id = l.id and l.revision > 0
join vertical v on v.id = l.vertical_id
left join subscription s on s.id = d.subscription_id
left join business b on b.id = s.business_id
order by d.id desc;

-- name: list_decisions
-- All decisions about one lead, oldest first.
select id, lead_id, made_at, outcome, reason, vertical_version, catalog_version, strategy, verdict, candidates, left_out,
       subscription_id, assignment_id, revision
from decision where lead_id = $1 order by made_at, id;

-- name: list_last_decisions
-- The latest decision about each of the leads.
select l.id as lead_id, d.made_at, d.vertical_version, d.candidates, d.left_out
from unnest($1::uuid[]) as l (id)
cross join lateral (
    select made_at, vertical_version, candidates, left_out from decision
    where lead_id = l.id order by made_at desc limit 1
) d;

-- name: list_subscriptions
-- Names of subscriptions and of their businesses.
select s.id, s.name, s.business_id, b.name as business
from subscription s join business b on b.id = s.business_id
where s.id = any($1::uuid[]);

-- name: list_vertical_versions
-- The versions of a vertical, newest first.
select version, definition, made_at, made_by from vertical_version where vertical_id = $1 order by version desc;

-- name: list_waiting
-- Prospects that no business can take yet. Each is decided again at its due time, and ends unsold when the waiting time of
-- its vertical is over.
select l.id, l.reason, l.due_at, l.received_at, l.qualified_at, v.slug as vertical,
       coalesce(f.place, i.facts -> 'place') ->> 'postal_code' as postal_code,
       coalesce(l.qualified_at, l.received_at)
           + make_interval(secs => coalesce((d.definition ->> 'patience_seconds')::int, 0)) as ends_at
from lead l
join inquiry i on i.id = l.id
left join revised_facts f on f.lead_id = l.id and l.revision > 0
join vertical v on v.id = l.vertical_id
join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
where l.due_at is not null and l.state = 'prospect' and ($1::text is null or l.mode = $1) and ($3::uuid[] is null or l.id = any($3))
order by l.due_at limit $2;

-- name: list_facts
-- The facts that the rules read, after the whole journey of each lead.
select l.id, facts_at(l.id, i.facts, l.revision) as facts from lead l join inquiry i on i.id = l.id where l.id = any($1::uuid[]);

-- name: find_facts
-- The facts of a lead at one revision.
select facts_at(i.id, i.facts, $2) as facts from inquiry i where i.id = $1;

-- name: mark_due
-- Sets the due time of each lead from $2. A lead that is no longer a prospect is left as it is.
update lead set due_at = planned.due_at
from unnest($1::uuid[], $2::timestamptz[]) as planned (id, due_at)
where lead.id = planned.id and lead.state = 'prospect' returning lead.id;

-- name: count_fresh
-- Live leads since the id $1; ids rise with time.
select count(*) filter (where l.state not in ('duplicate', 'suppressed'))::int as accepted,
       count(*) filter (where l.qualified_at is not null)::int as qualified,
       count(*) filter (where l.seen or l.state = 'held')::int as routed
from lead l where l.id >= $1 and l.mode = 'live';

-- name: list_arrivals
-- Times of the latest accepted live leads, newest first.
select received_at from lead where mode = 'live' and state not in ('duplicate', 'suppressed') order by id desc limit $1;

-- name: read_alarms
-- Figures that need attention. Waiting rows are read by the index of their due time.
select (select count(*) from endpoint where state = 'active' and breaker_open_until > $1)::int as failing,
       (select count(*) from endpoint where state = 'active')::int as endpoints,
       (select count(distinct endpoint_id) from answer_alarm where closed_at is null)::int as answers,
       (select count(distinct w.business_id)
        from wallet w
        join business b on b.id = w.business_id and b.state = 'active'
        join subscription s on s.business_id = w.business_id and s.state = 'active' and s.mode = 'live'
        join subscription_version d on (d.subscription_id, d.version) = (s.id, s.version)
        where w.available_minor + w.credit_limit_minor < (d.definition ->> 'price_minor')::bigint)::int as poor,
       (select count(*) from lead where due_at is not null and state = 'prospect' and mode = 'live')::int as waiting,
       (select count(*) from return_request where state = 'requested')::int as returns,
       (select count(*) from (
            select from suppression where source like 'prov\_%' and created_at > $1 - interval '24 hours'
            group by source having count(distinct created_at) >= $2) as busy)::int as suppressing,
       (select count(*) from quarantined_work)::int as set_aside,
       (select count(*) from scorecard where state = 'suspended')::int as cards,
       (select count(*) from notice n join lead l on l.id = n.lead_id
        where n.kind in ('erased', 'revoked') and n.state = 'overdue' and l.mode = 'live')::int as notices,
       (select count(*) from deletion_request
        where ended_at is null and deadline_at <= $1 and mode = 'live')::int as deletions,
       greatest(0, coalesce(extract(epoch from $1 - least(
           (select min(due_at) from lead where due_at is not null and state in ('received', 'nurturing', 'prospect')),
           (select min(due_at) from assignment where due_at is not null and state in ('held', 'exposed')))), 0))::float8 as overdue_seconds;

-- name: list_returns
-- Return requests, oldest first ($4) or newest first, with the names of the business and the provider.
select r.id, r.lead_id, r.reason, r.note, r.state, r.requested_at, r.judged_at, r.judged_by, r.finding, a.mode,
       a.price_minor, a.payout_minor, a.currency, b.id as business_id, b.name as business, p.id as provider_id,
       p.name as provider, v.slug as vertical, a.settled_at as delivered_at
from return_request r
join assignment a on a.id = r.assignment_id
join business b on b.id = r.business_id
join provider p on p.id = a.provider_id
join lead l on l.id = r.lead_id
join vertical v on v.id = l.vertical_id
where ($1::text is null or r.state = $1) and ($2::text is null or r.reason = $2)
  and ($3::uuid is null or case when $4 then r.id > $3 else r.id < $3 end)
order by case when $4 then r.id end, case when not $4 then r.id end desc
limit $5;

-- name: find_return
-- One return request with its lead, its decision and the amounts.
select r.id, r.lead_id, r.assignment_id, r.reason, r.note, r.evidence, r.state, r.requested_at, r.judged_at, r.judged_by,
       r.finding, a.mode, a.price_minor, a.payout_minor, a.currency, b.id as business_id, b.name as business,
       p.id as provider_id, p.name as provider, v.slug as vertical, l.received_at, a.awarded_at, a.exposed_at,
       a.settled_at as delivered_at, facts_at(i.id, i.facts, coalesce(d.revision, 0)) as facts, d.verdict, s.name as subscription, e.channel,
       exists (select from erasure where lead_id = r.lead_id) as erased,
       coalesce((
           select jsonb_agg(jsonb_build_object('provider', m.name, 'amount_minor', m.amount_minor) order by m.share)
           from (select n.name, h.amount_minor, h.share from payout_share h join provider n on n.id = h.provider_id
                 where h.assignment_id = a.id) m), '[]') as shares
from return_request r
join assignment a on a.id = r.assignment_id
join business b on b.id = r.business_id
join provider p on p.id = a.provider_id
join lead l on l.id = r.lead_id
join vertical v on v.id = l.vertical_id
join inquiry i on i.id = r.lead_id
join subscription s on s.id = a.subscription_id
left join exposure e on e.lead_id = r.lead_id
left join decision d on d.assignment_id = a.id and d.lead_id = a.lead_id and d.made_at = a.awarded_at
where r.id = $1;

-- name: count_business_returns
-- Leads of a business delivered since $2, with ids of their assignments from $3 on, and its returns of them.
select count(*)::int as delivered, count(r.id)::int as requested,
       count(*) filter (where r.state = 'granted')::int as granted, count(*) filter (where r.state = 'denied')::int as denied
from assignment a left join return_request r on r.assignment_id = a.id
where a.business_id = $1 and a.mode = 'live' and a.state in ('delivered', 'returned') and a.settled_at >= $2
  and a.id >= $3;

-- name: count_provider_returns
-- Leads of a provider delivered since $2, and the returns of them.
select count(*)::int as delivered, count(r.id)::int as requested,
       count(*) filter (where r.state = 'granted')::int as granted, count(*) filter (where r.state = 'denied')::int as denied
from lead l
join assignment a on a.lead_id = l.id and a.state in ('delivered', 'returned')
left join return_request r on r.assignment_id = a.id
where l.provider_id = $1 and l.mode = 'live' and l.id >= $3 and a.settled_at >= $2;

-- name: list_dispositions
-- Dispositions of an assignment that were not undone, oldest first.
select kind, reason, happened_at, source from disposition where assignment_id = $1 and undone_at is null order by happened_at, id;

-- name: list_attempts
-- The first attempts to deliver an assignment.
select attempt_no, started_at, outcome, reason, status, total_ms from attempt
where assignment_id = $1 order by started_at, id limit 50;
