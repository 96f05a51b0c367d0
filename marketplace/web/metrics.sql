-- name: count_leads
-- statement_timestamp() can use an index; clock_timestamp(), which changes during the statement, cannot.
select state, count(*) as count from lead where received_at > statement_timestamp() - interval '24 hours' group by state;

-- name: sum_held
select currency, sum(held_minor)::bigint as held_minor from wallet group by currency;

-- name: find_oldest_due
-- Only waiting rows have a due time (indexes lead_due and assignment_due), so the first entry of each index is the
-- answer.
select coalesce(extract(epoch from clock_timestamp() - least(
    (select min(due_at) from lead), (select min(due_at) from assignment))), 0)::float8;

-- name: find_speed
-- Live leads, by their charges: those of the last hour are found by their time.
select percentile_cont(0.5) within group (order by took) as p50, percentile_cont(0.95) within group (order by took) as p95,
       percentile_cont(0.99) within group (order by took) as p99
from (
    select extract(epoch from t.made_at - l.received_at)::float8 as took
    from transfer t
    cross join lateral (select lead_id from assignment where id = t.assignment_id limit 1) a
    cross join lateral (select received_at from lead where id = a.lead_id limit 1) l
    where t.kind = 'capture' and t.made_at > statement_timestamp() - interval '1 hour'
) recent;

-- name: count_quarantined
select kind.kind, count(q.id)::int as count
from unnest(array['lead', 'assignment', 'notice']) as kind (kind) left join quarantined_work q on q.kind = kind.kind
group by kind.kind;

-- name: list_passes
select name, failures from background_pass;

-- name: count_list_sources
-- Sources of lists by their last refresh; `smaller` ones wait for an operator's confirmation.
select result.result, count(s.list_id)::int as count
from unnest(array['in_order', 'failed', 'smaller']) as result (result)
left join list_source s on result.result = case when s.smaller_rows is not null then 'smaller'
                                                when s.failures > 0 then 'failed' else 'in_order' end
group by result.result;
