-- name: take_turn
-- Lock against other workers, and the transactions that have ended by now.
select pg_try_advisory_xact_lock(hashtext('marketplace.reports.refresh')) as ours,
       pg_current_snapshot()::text as seen, frontier, clock_timestamp() as now
from report_progress;

-- name: mark_stale
-- Stored hours whose leads or transfers have changed since.
insert into report_stale (hour, since) select hour, $1 from report_changed on conflict do nothing;

-- name: list_stale
select hour from report_stale order by since, hour limit $1;

-- name: clear_hours
-- Delete the stored columns of these hours, and their mark as stale.
with dropped as (delete from report_column where hour = any($1))
delete from report_stale where hour = any($1);

-- name: keep_hours
-- Store the columns of these hours as they are now.
insert into report_column (part, field, hour, data)
select c.part, c.field, c.hour, c.data
from unnest($1::timestamptz[]) as kept (hour)
cross join lateral report_columns(kept.hour, kept.hour + interval '1 hour') c;

-- name: keep_span
-- Store the columns of all hours from $1 to $2, none of which was stored before.
insert into report_column (part, field, hour, data) select part, field, hour, data from report_columns($1, $2);

-- name: open_months
-- Reopen the months of these hours: they are read by the hour until they have settled.
with touched as (
    select distinct date_trunc('month', hour, 'UTC') as month from unnest($1::timestamptz[]) as written (hour)
), opened as (
    delete from report_month where month in (select month from touched)
)
insert into report_month_open (month, since) select month, $2 from touched
on conflict (month) do update set since = excluded.since;

-- name: list_settled
-- Past months in which nothing has changed since $1.
select m.month from report_month_open m, report_progress p
where m.since <= $1 and m.month + interval '1 month' <= p.frontier
order by m.month limit $2;

-- name: close_month
-- Store the hours of a month in one run per field.
with closed as (delete from report_month_open where month = $1)
insert into report_month (part, field, month, data, hours, lengths)
select c.part, c.field, $1, string_agg(c.data, ''::bytea order by c.hour),
       string_agg(int4send((date_part('epoch', c.hour) / 3600)::int), ''::bytea order by c.hour),
       string_agg(int4send(octet_length(c.data)), ''::bytea order by c.hour)
from report_column c
where c.hour >= $1 and c.hour < $1 + interval '1 month'
group by c.part, c.field;

-- name: mark_progress
update report_progress set frontier = $1, seen = $2::text::pg_snapshot, at = $3;
