-- name: find_currency
-- In which currency most was bought, where nobody says which is meant: that of the wallet, or the busiest one.
select coalesce(
    (select currency from wallet where business_id = $1),
    (select currency from kept_outcome_day where $1::uuid is null group by currency
     order by sum(length(records)) desc, currency limit 1),
    (select currency from wallet where $1::uuid is null group by currency order by count(*) desc, currency limit 1)
) as currency;

-- name: list_days
-- The whole marketplace, from the records that are kept: the days that hold any moment from $2 to $3.
select records from kept_outcome_day
where currency = $1 and day between ($2::timestamptz at time zone 'UTC')::date
    and (($3::timestamptz - interval '1 microsecond') at time zone 'UTC')::date
order by day;

-- name: list_own
-- The same of one business, from the truth as it stands.
select string_agg(record, '') as records from exclusive_record
where business_id = $1 and currency = $2 and received_at >= $3 and received_at < $4;

-- name: list_shared
-- The same of shared leads, of one business or of all, each followed by until when it was observed.
select records, source = 'demo' as demo from shared_import
where ($1::uuid is null or business_id = $1) and currency = $2 and last_received_at >= $3 and first_received_at < $4;

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
-- Every lead that moved or was spoken of in those transactions, as it is now; and the days that this changes.
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
select distinct currency, (received_at at time zone 'UTC')::date as day from kept;

-- name: keep_days
-- The records of a day.
insert into kept_outcome_day (currency, day, records)
select $1::char(3), $2::date, string_agg(record, '') from kept_outcome
where currency = $1::char(3) and received_at >= $2::date::timestamp at time zone 'UTC'
    and received_at < ($2::date + 1)::timestamp at time zone 'UTC'
on conflict (currency, day) do update set records = excluded.records;

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
