-- name: take_turn
-- One worker at a time; and which transactions have ended by now.
select pg_try_advisory_xact_lock(hashtext('marketplace.reports.refresh')) as ours,
       pg_current_snapshot()::text as seen, frontier, clock_timestamp() as now
from report_progress;

-- name: mark_stale
-- Kept hours whose leads or transfers have moved since.
insert into report_stale (hour, since) select hour, $1 from report_changed on conflict do nothing;

-- name: list_stale
select hour from report_stale order by since, hour limit $1;

-- name: clear_hours
-- What was kept of these hours, and that it was stale.
with dropped as (delete from report_column where hour = any($1))
delete from report_stale where hour = any($1);

-- name: keep_hours
-- The columns of these hours as they are now.
insert into report_column (part, field, hour, data)
select c.part, c.field, c.hour, c.data
from unnest($1::timestamptz[]) as kept (hour)
cross join lateral report_columns(kept.hour, kept.hour + interval '1 hour') c;

-- name: keep_span
-- The columns of all hours from $1 to $2, none of which was kept before.
insert into report_column (part, field, hour, data) select part, field, hour, data from report_columns($1, $2);

-- name: mark_progress
update report_progress set frontier = $1, seen = $2::text::pg_snapshot, at = $3;
