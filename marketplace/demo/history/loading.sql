-- name: may_load
-- Only a superuser may switch the triggers off: the rows of the history are written once, in their final state.
select rolsuper from pg_roles where rolname = current_user;

-- name: lock_refresh
-- No other process refreshes the columns of reports until this connection ends.
select pg_advisory_lock(hashtext('marketplace.reports.refresh'));

-- name: list_endpoints
select id, url from endpoint where url is not null;

-- name: list_areas
-- Postal areas in which the people of the history live.
select country, code, city, region, latitude, longitude, time_zone
from postal_area where country = 'US' and code = any($1::text[]);

-- name: open_for_writing
-- No triggers and no foreign keys in this transaction. `marketplace verify` checks all rows afterwards.
select set_config('session_replication_role', 'replica', true), make_partitions($1, 3);

-- name: age_parties
-- Providers, businesses and verticals are older than the history.
with aged_providers as (update provider set created_at = $1),
     aged_businesses as (update business set created_at = $1),
     aged_verticals as (update vertical set created_at = $1),
     aged_versions as (update vertical_version set made_at = $1),
     aged_endpoints as (update endpoint set created_at = $1, verified_at = $1)
update subscription set created_at = $1;

-- name: make_second_version
-- The present terms of a subscription become its second version; the first has ordinary hours.
with today as (
    update subscription_version set version = 2 where subscription_id = $1 and version = 1
)
update subscription set version = 2 where id = $1;

-- name: insert_first_version
insert into subscription_version (subscription_id, version, definition, made_at, made_by) values ($1, 1, $2, $3, 'demo');

-- name: age_version
update subscription_version set made_at = $2 where subscription_id = $1 and version = 1;

-- name: record_changes
-- Triggers are off, so the changes are recorded here; every process then reads the subscriptions again.
with raised as (update catalog_version set version = version + 1 returning version)
insert into catalog_change (kind, id, version)
select 'subscription', s.id, raised.version from subscription s cross join raised
on conflict (kind, id) do update set version = excluded.version;

-- name: add_balances
update wallet set available_minor = available_minor + past.amount_minor
from unnest($1::uuid[], $2::bigint[]) as past (business_id, amount_minor)
where wallet.business_id = past.business_id;

-- name: save_benchmark
-- The operator's assumptions about shared leads, for businesses that have imported none.
insert into roi_assumption (id, currency, shared_cost_minor, shared_win_rate, shared_leads, shared_won, shared_weeks,
    copies, labour_minor, source, made_at)
values ($1, $2, 2600, 45 / 1000::float8, 1000, 45, 13, 4, 700, 'The demo''s benchmark: an invented figure', $3)
on conflict on constraint roi_assumption_one do nothing;

-- name: analyze
analyze inquiry, lead, person_window, person_key, assignment, exposure, transfer, cap_usage, decision, attempt, move,
    disposition, return_request, shared_lead, subscription, subscription_version, wallet;

-- name: insert_columns
-- Columns of all past hours, as the refresh stores them hour by hour.
insert into report_column (part, field, hour, data)
select c.part, c.field, c.hour, c.data
from report_progress p cross join lateral report_columns(date_trunc('hour', $1::timestamptz, 'UTC'), p.frontier) c;

-- name: open_months
insert into report_month_open (month, since)
select distinct date_trunc('month', hour, 'UTC'), '-infinity'::timestamptz from report_column on conflict do nothing;

-- name: mark_columns
-- The columns include everything that was written before this transaction.
update report_progress set seen = pg_current_snapshot(), at = clock_timestamp();

-- name: delete_usual_names
-- Some businesses have stages of their own instead of the usual ones.
delete from stage_name where business_id = any($1::uuid[]);

-- name: delete_usual_stages
delete from pipeline_stage where business_id = any($1::uuid[]);
