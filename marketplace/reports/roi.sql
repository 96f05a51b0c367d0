-- name: find_currency
-- In which currency most was bought, where nobody says which is meant: that of the wallet, or the busiest one.
select coalesce(
    (select currency from wallet where business_id = $1),
    (select currency from kept_outcome_hour where $1::uuid is null group by currency
     order by sum(length(records)) desc, currency limit 1),
    (select currency from wallet where $1::uuid is null group by currency order by count(*) desc, currency limit 1)
) as currency;

-- name: list_hours
-- The whole marketplace, from the records that are kept: the hours that hold any moment from $2 to $3.
select records from kept_outcome_hour
where currency = $1 and hour >= date_trunc('hour', $2::timestamptz, 'UTC') and hour < $3
order by hour;

-- name: list_own
-- The same of one business, as it stands at this moment: what is kept, and in place of that the truth of every lead that
-- has moved or was spoken of since it was last followed, which with a worker running are a few seconds' worth.
with later as materialized (
    select m.assignment_id from move m, kept_outcome_progress p
    where m.committed_by > p.xid and m.assignment_id is not null
    union
    select d.assignment_id from disposition d, kept_outcome_progress p
    where d.committed_by > p.xid and d.business_id = $1
), own as materialized (
    select a.id from later join assignment a on a.id = later.assignment_id where a.business_id = $1
)
select string_agg(record, '') as records from (
    select k.record from business b join kept_outcome k on k.business = b.number
    where b.id = $1 and k.currency = $2 and k.received_at >= $3 and k.received_at < $4
        and k.assignment_id not in (select id from own)
    union all
    select r.record from own join exclusive_record r on r.assignment_id = own.id
    where r.currency = $2 and r.received_at >= $3 and r.received_at < $4
) found;

-- name: list_shared
-- The same of shared leads, of one business or of all, each followed by until when it was observed.
select records, source = 'demo' as demo from shared_import
where ($1::uuid is null or business_id = $1) and currency = $2 and undone_at is null and last_received_at >= $3 and first_received_at < $4;

-- name: list_assumptions
-- A business's own words before the operator's, those on the vertical before those on all.
select business_id, shared_cost_minor, shared_win_rate, shared_value_minor, copies::float8 as copies, labour_minor,
       source, made_at
from roi_assumption
where (business_id = $1 or business_id is null) and (vertical_id = $2 or vertical_id is null) and currency = $3
order by business_id nulls last, vertical_id nulls last;

-- name: list_verticals
select id, number, slug from vertical;

-- name: find_progress
select at from kept_outcome_progress;

-- name: take_turn
-- One worker at a time. How far to follow: to the last of the next $1 changes whose transactions have all ended.
with turn as (
    select pg_try_advisory_xact_lock(hashtext('marketplace.reports.roi')) as ours, xid from kept_outcome_progress
), next as (
    (select m.committed_by from move m, turn where m.committed_by > turn.xid order by m.committed_by limit $1)
    union all
    (select d.committed_by from disposition d, turn where d.committed_by > turn.xid order by d.committed_by limit $1)
)
select turn.ours, turn.xid as since, (
    select max(ended.committed_by) from (
        select n.committed_by from next n where n.committed_by < pg_snapshot_xmin(pg_current_snapshot())
        order by n.committed_by limit $1) ended
) as upto, clock_timestamp() as now from turn;

-- name: keep_outcomes
-- Every lead that moved or was spoken of in those transactions, as it is now; and the hours that this changes.
with changed as (
    select assignment_id from move where committed_by > $1 and committed_by <= $2 and assignment_id is not null
    union
    select assignment_id from disposition where committed_by > $1 and committed_by <= $2
), kept as (
    insert into kept_outcome (assignment_id, currency, received_at, record)
    select r.assignment_id, r.currency, r.received_at, r.record
    from changed c join exclusive_record r on r.assignment_id = c.assignment_id
    on conflict (assignment_id) do update set record = excluded.record where kept_outcome.record <> excluded.record
    returning currency, received_at
)
select distinct currency::text as currency, date_trunc('hour', received_at, 'UTC') as hour from kept;

-- name: keep_runs
-- The records of these hours.
insert into kept_outcome_hour (currency, hour, records)
select asked.currency::char(3), asked.hour, run.records
from unnest($1::text[], $2::timestamptz[]) as asked (currency, hour)
cross join lateral (
    select string_agg(k.record, '') as records from kept_outcome k
    where k.currency = asked.currency::char(3) and k.received_at >= asked.hour
        and k.received_at < asked.hour + interval '1 hour'
) run
on conflict (currency, hour) do update set records = excluded.records;

-- name: mark_progress
update kept_outcome_progress set xid = $1, at = $2;

-- name: save_assumption
-- One for each business (or the operator), vertical and currency; nothing where one that is named does not exist.
insert into roi_assumption (id, business_id, vertical_id, currency, shared_cost_minor, shared_win_rate, shared_value_minor,
    copies, labour_minor, source, made_at)
select $1, $2, v.id, $4, $5, $6, $7, ($8::float8)::numeric, $9, $10, $11
from (select 1) as one left join vertical v on v.slug = $3
where ($3::text is null or v.id is not null) and ($2::uuid is null or exists (select from business where id = $2))
on conflict on constraint roi_assumption_one do update set shared_cost_minor = excluded.shared_cost_minor,
    shared_win_rate = excluded.shared_win_rate, shared_value_minor = excluded.shared_value_minor,
    copies = excluded.copies, labour_minor = excluded.labour_minor, source = excluded.source, made_at = excluded.made_at
returning made_at;
