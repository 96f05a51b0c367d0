-- name: count_leads
select state, count(*) as count from lead where received_at > clock_timestamp() - interval '24 hours' group by state;

-- name: sum_held
select currency, sum(held_minor)::bigint as held_minor from wallet group by currency;

-- name: find_oldest_due
select coalesce(extract(epoch from clock_timestamp() - least(
    (select min(due_at) from lead where state in ('received', 'nurturing', 'prospect')),
    (select min(due_at) from assignment where state in ('held', 'exposed')))), 0)::float8;

-- name: find_speed
select percentile_cont(0.5) within group (order by took) as p50, percentile_cont(0.95) within group (order by took) as p95,
       percentile_cont(0.99) within group (order by took) as p99
from (
    select extract(epoch from a.settled_at - l.received_at)::float8 as took
    from assignment a join lead l on l.id = a.lead_id
    where a.state = 'delivered' and a.settled_at > clock_timestamp() - interval '1 hour'
) recent;
