-- name: count_states
-- Number of leads of these providers in each state, received since $2.
select state, count(*) as leads from lead where provider_id = any($1) and received_at >= $2 group by state;

-- name: begin_tally
-- Transaction from which moves are counted.
select pg_snapshot_xmin(pg_current_snapshot())::text;

-- name: count_moves
-- Number of leads of these providers, received since $2, that entered each state, minus those that left it, in ended
-- transactions from $3 on; and the transaction to continue from. The cost depends on the moves, not on the leads.
with span as materialized (
    select $3::text::xid8 as since, pg_snapshot_xmin(pg_current_snapshot()) as upto
), moved as (
    select m.left_state, m.entered_state
    from move m
    cross join lateral (select provider_id, received_at from lead where id = m.lead_id limit 1) l
    where m.committed_by >= (select since from span) and m.committed_by < (select upto from span)
      and m.assignment_id is null and l.provider_id = any($1) and l.received_at >= $2
), net as (
    select entered_state as state, 1 as leads from moved
    union all
    select left_state, -1 from moved where left_state is not null
)
select span.upto::text as upto, net.state, coalesce(sum(net.leads), 0)::int as leads
from span left join net on true group by span.upto, net.state;

-- name: count_journeys
-- Leads whose person came back or waits, by their decisions; inquiries that joined one, and payouts that were divided.
with lead_journey as (
    select l.id, l.state, l.qualified_at,
           coalesce(l.waits_for && array['budget', 'authority', 'need', 'timing'], false) as was_asked,
           exists (select from decision d where d.lead_id = l.id and d.outcome = 'nurturing') as was_nurtured,
           exists (select from decision d where d.lead_id = l.id and d.outcome in ('nurturing', 'rejected')) as was_not_ready,
           exists (select from correction c where c.lead_id = l.id) as was_corrected,
           exists (select from revoked_lead r where r.lead_id = l.id) as was_revoked,
           (select count(*) from notice n where n.lead_id = l.id) as notices,
           (select count(*) from notice n where n.lead_id = l.id and n.state = 'acknowledged') as acknowledged
    from lead l where l.provider_id = any($1) and l.received_at >= $2
)
select count(*) filter (where was_not_ready and qualified_at is not null) as promoted,
       count(*) filter (where state = 'nurturing') as waiting,
       count(*) filter (where was_nurtured and state <> 'nurturing') as reentered,
       count(*) filter (where was_nurtured and state in ('delivered', 'returned')) as sold,
       count(*) filter (where was_asked) as with_question,
       count(*) filter (where was_asked and state in ('delivered', 'returned')) as sold_after_answer,
       count(*) filter (where was_corrected) as corrected, count(*) filter (where was_revoked) as revoked,
       coalesce(sum(notices), 0)::int as notices, coalesce(sum(acknowledged), 0)::int as acknowledged,
       (select count(*) from inquiry i
        where i.provider_id = any($1) and i.received_at >= $2 and i.joined_lead_id is not null)::int as joined,
       (select count(*) from payout_claim c join inquiry i on i.id = c.inquiry_id
        where i.provider_id = any($1) and i.received_at >= $2)::int as joined_in_time,
       (select count(distinct s.assignment_id) from payout_share s join lead l on l.id = s.lead_id
        where l.provider_id = any($1) and l.received_at >= $2)::int as shared
from lead_journey;

-- name: count_claims
-- Certificates of these providers' leads, received since $2, whose claim has ended.
select count(*) filter (where c.state = 'verified')::int as claimed,
       count(*) filter (where c.state in ('mismatched', 'refused', 'unanswered'))::int as failed
from lead l join certificate c on c.lead_id = l.id
where l.provider_id = any($1) and l.received_at >= $2;

-- name: count_reasons
-- Reasons of leads that ended without a business, or were refused by one.
select state, reason, count(*) as leads
from lead
where provider_id = any($1) and received_at >= $2 and state in ('rejected', 'unsold', 'refused', 'lapsed', 'expired')
group by state, reason order by state, leads desc, reason;

-- name: list_near_misses
-- Unsold leads by the rule that failed for the nearest business: number, median distance, and one example in words.
select l.reason as rule, count(*) as leads, min(near.unit) as unit,
       percentile_cont(0.5) within group (order by near.distance) as distance,
       (array_agg(near.detail order by near.distance))[(count(*) + 1) / 2] as example
from lead l
join lateral (
    select d.candidates from decision d where d.lead_id = l.id order by d.made_at desc limit 1
) last on true
left join lateral (
    select f ->> 'detail' as detail, (f ->> 'distance')::float8 as distance, f ->> 'unit' as unit
    from jsonb_array_elements(last.candidates) c, jsonb_array_elements(c -> 'failures') f
    where f ->> 'rule' = l.reason
    order by jsonb_array_length(c -> 'failures'), (f ->> 'distance')::float8 nulls last
    limit 1
) near on true
where l.provider_id = any($1) and l.received_at >= $2 and l.state = 'unsold'
group by l.reason order by leads desc, rule;

-- name: find_latency
-- Milliseconds from acceptance and from submission to the acknowledgement, and from acceptance to the first byte that was
-- sent to a business, which is the marketplace's own part. Leads that were not ready or unsold at first are left out: their
-- time runs from when the person came back.
select percentile_cont(array[0.5, 0.95, 0.99]) within group (
           order by extract(epoch from a.settled_at - l.received_at) * 1000) as accepted,
       percentile_cont(array[0.5, 0.95, 0.99]) within group (
           order by extract(epoch from a.settled_at - i.submitted_at) * 1000) as submitted,
       percentile_cont(array[0.5, 0.95, 0.99]) within group (
           order by extract(epoch from first.exposed_at - l.received_at) * 1000) as sent
from assignment a
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
join exposure first on first.lead_id = a.lead_id
where a.provider_id = any($1) and l.received_at >= $2 and a.state = 'delivered'
  and not exists (
      select from decision d where d.lead_id = l.id and d.outcome in ('nurturing', 'rejected', 'unsold'));

-- name: sum_money
-- Amounts that the businesses paid in, that are held, charged and refunded, and that the providers earned.
select coalesce(sum(amount_minor) filter (where kind = 'top_up'), 0)::bigint as topped_up_minor,
       coalesce(sum(case kind when 'hold' then amount_minor when 'release' then -amount_minor
                              when 'capture' then -amount_minor end), 0)::bigint as held_minor,
       coalesce(sum(amount_minor) filter (where kind = 'capture'), 0)::bigint as captured_minor,
       coalesce(sum(amount_minor) filter (where kind = 'refund'), 0)::bigint as refunded_minor,
       coalesce(sum(case kind when 'payout' then amount_minor when 'claw_back' then -amount_minor end), 0)::bigint
           as paid_to_providers_minor,
       min(currency) as currency
from transfer where (business_id = any($1) or provider_id = any($2)) and made_at >= $3;

-- name: list_exposures
-- Exposures, to compare with the requests that the receivers saw.
select e.lead_id, e.business_id from exposure e where e.business_id = any($1) and e.exposed_at >= $2;

-- name: find_example
-- Newest delivered lead, as an example.
select lead_id from assignment where provider_id = any($1) and state = 'delivered' order by settled_at desc limit 1;
