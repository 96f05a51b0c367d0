-- name: may_load
-- Only a superuser may write past the triggers: the history's rows are begun, moved and ended in one go.
select rolsuper from pg_roles where rolname = current_user;

-- name: take_turn
-- Nobody else keeps the columns of reports meanwhile, until this connection ends.
select pg_advisory_lock(hashtext('marketplace.reports.refresh'));

-- name: list_endpoints
select id, url from endpoint where url is not null;

-- name: list_areas
-- Where the people of the history live.
select country, code, city, region, latitude, longitude, time_zone
from postal_area where country = 'US' and code = any($1::text[]);

-- name: write_past
-- For this transaction alone: no triggers and no foreign keys. `marketplace verify` looks at all of it afterwards.
select set_config('session_replication_role', 'replica', true), make_partitions($1, 3);

-- name: age_parties
-- Everybody was here before the history began.
with aged_providers as (update provider set created_at = $1),
     aged_businesses as (update business set created_at = $1),
     aged_verticals as (update vertical set created_at = $1),
     aged_versions as (update vertical_version set made_at = $1),
     aged_endpoints as (update endpoint set created_at = $1, verified_at = $1)
update subscription set created_at = $1;

-- name: keep_order
-- What a subscription says today is its second version; before today it kept ordinary hours, which is its first.
with today as (
    update subscription_version set version = 2 where subscription_id = $1 and version = 1
)
update subscription set version = 2 where id = $1;

-- name: insert_first_order
insert into subscription_version (subscription_id, version, definition, made_at, made_by) values ($1, 1, $2, $3, 'demo');

-- name: age_order
update subscription_version set made_at = $2 where subscription_id = $1 and version = 1;

-- name: bump_catalog
-- By hand, because no trigger does it here: whoever has read the rules before reads them again.
update catalog_version set version = version + 1;

-- name: add_balances
update wallet set available_minor = available_minor + past.amount_minor
from unnest($1::uuid[], $2::bigint[]) as past (business_id, amount_minor)
where wallet.business_id = past.business_id;

-- name: save_benchmark
-- What the operator assumes of shared leads, for businesses that brought none to compare with.
insert into roi_assumption (id, currency, shared_cost_minor, shared_win_rate, copies, labour_minor, source, made_at)
values ($1, $2, 2600, 0.045, 4, 700, 'The demo''s benchmark: an invented figure', $3)
on conflict on constraint roi_assumption_one do nothing;

-- name: analyze
analyze inquiry, lead, person_window, person_key, assignment, exposure, transfer, cap_usage, decision, attempt, move,
    disposition, return_request, shared_lead, subscription, subscription_version, wallet;

-- name: keep_columns
-- The columns of all hours of the past, as the refresh would keep them one after the other.
insert into report_column (part, field, hour, data)
select c.part, c.field, c.hour, c.data
from report_progress p cross join lateral report_columns(date_trunc('hour', $1::timestamptz, 'UTC'), p.frontier) c;

-- name: open_months
insert into report_month_open (month, since)
select distinct date_trunc('month', hour, 'UTC'), '-infinity'::timestamptz from report_column on conflict do nothing;

-- name: mark_columns
-- What was written before this transaction is in the columns.
update report_progress set seen = pg_current_snapshot(), at = clock_timestamp();
