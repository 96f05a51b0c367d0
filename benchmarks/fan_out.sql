-- name: count_open
-- Leads of $1 without an end, but for those that were sent to one of the businesses of $2.
select count(*) from lead l
where l.id = any($1) and (l.state in ('received', 'prospect', 'held') or l.state = 'exposed' and not exists (
    select from assignment a where a.lead_id = l.id and a.state = 'exposed' and a.business_id = any($2)));

-- name: list_leads
-- State of each lead, its businesses in the order of awards, and its times in seconds since 1970.
select l.id, l.state, a.business_ids, a.settled_at, extract(epoch from l.received_at)::float8 as received_at
from lead l cross join lateral (
    select coalesce(array_agg(business_id order by awarded_at, id), '{}') as business_ids,
           extract(epoch from max(settled_at) filter (where state = 'delivered'))::float8 as settled_at
    from assignment where lead_id = l.id
) a
where l.id = any($1);
