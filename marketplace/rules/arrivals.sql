-- name: list_due
-- Of these verticals, those without a curve that is younger than $2.
select v.id
from unnest($1::uuid[]) as v (id)
where not exists (
    select from arrival_curve c where c.vertical_id = v.id and c.learned_at > clock_timestamp() - $2::interval);

-- name: learn_curve
-- Qualified live leads of the last $2 by the hour of the week; the first hour of 1970 was the 73rd of its week. Found by
-- their time of receipt, which has an index of block ranges.
with counted as (
    select (floor(extract(epoch from l.received_at) / 3600)::bigint + 72) % 168 as hour, count(*)::int as leads
    from lead l
    where l.vertical_id = $1 and l.mode = 'live' and l.qualified_at is not null
      and l.received_at >= clock_timestamp() - $2::interval
    group by 1
)
insert into arrival_curve (vertical_id, learned_at, arrivals)
select $1, clock_timestamp(), array_agg(1 + coalesce(counted.leads, 0) order by hours.hour)
from generate_series(0, 167) as hours (hour)
left join counted on counted.hour = hours.hour;
