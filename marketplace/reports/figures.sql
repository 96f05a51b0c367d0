-- name: find_progress
-- The hour from which nothing is stored, and the time as of which the stored hours are. The settings are for the planner:
-- stored hours are usually in memory and their index has the order that is needed, so random pages cost little; and a
-- generic plan is enough, because the queries always look alike and those that compute take longer to plan than to run.
select frontier, coalesce((select min(since) from report_stale), at) as as_of,
       set_config('random_page_cost', '1.1', true) as told, set_config('work_mem', '32MB', true) as given,
       set_config('plan_cache_mode', 'force_generic_plan', true) as planned
from report_progress;

-- name: find_numbers
-- Numbers, as in the columns, of the parties to which a question is limited.
select (select number from provider where id = $1) as provider, (select number from business where id = $2) as business,
       (select number from vertical where slug = $3) as vertical;

-- name: list_closed
-- Closed months within $1 to $2: their hours are stored in one run per field.
select distinct month from report_month where month >= $1 and month + interval '1 month' <= $2 order by month;

-- name: read_months
-- Runs of each field in these months.
select part, field, month as since, data, lengths, hours from report_month
where part = any($1) and field = any($2) and month = any($3);

-- name: read_hours
-- One run per field and span, from the stored hours of each span: its start is in $3, its end in $4.
select p.part, f.field, s.since, kept.data, kept.lengths, kept.hours
from unnest($1::text[]) as p (part)
cross join unnest($2::text[]) as f (field)
cross join unnest($3::timestamptz[], $4::timestamptz[]) as s (since, until)
cross join lateral (
    select string_agg(c.data, ''::bytea order by c.hour) as data,
           string_agg(int4send(octet_length(c.data)), ''::bytea order by c.hour) as lengths,
           string_agg(int4send((date_part('epoch', c.hour) / 3600)::int), ''::bytea order by c.hour) as hours
    from report_column c
    where c.part = p.part and c.field = f.field and c.hour >= s.since and c.hour < s.until
) kept
where kept.data is not null;

-- name: compute_leads
-- Runs of hours that are not stored yet, as their leads are now.
select part, field, string_agg(data, ''::bytea order by hour) as data,
       string_agg(int4send(octet_length(data)), ''::bytea order by hour) as lengths,
       string_agg(int4send((date_part('epoch', hour) / 3600)::int), ''::bytea order by hour) as hours
from unnest($1::text[]) as p (part) cross join lateral lead_columns(p.part, $3, $4) where field = any($2)
group by part, field;

-- name: compute_candidates
select part, field, string_agg(data, ''::bytea order by hour) as data,
       string_agg(int4send(octet_length(data)), ''::bytea order by hour) as lengths,
       string_agg(int4send((date_part('epoch', hour) / 3600)::int), ''::bytea order by hour) as hours
from unnest($1::text[]) as p (part) cross join lateral candidate_columns(p.part, $3, $4) where field = any($2)
group by part, field;

-- name: compute_unready
select part, field, string_agg(data, ''::bytea order by hour) as data,
       string_agg(int4send(octet_length(data)), ''::bytea order by hour) as lengths,
       string_agg(int4send((date_part('epoch', hour) / 3600)::int), ''::bytea order by hour) as hours
from unnest($1::text[]) as p (part) cross join lateral unready_columns(p.part, $3, $4) where field = any($2)
group by part, field;

-- name: compute_money
select part, field, string_agg(data, ''::bytea order by hour) as data,
       string_agg(int4send(octet_length(data)), ''::bytea order by hour) as lengths,
       string_agg(int4send((date_part('epoch', hour) / 3600)::int), ''::bytea order by hour) as hours
from money_columns($3, $4) where part = any($1) and field = any($2)
group by part, field;

-- name: list_currencies
select distinct currency::text as currency from wallet order by currency;

-- name: list_providers
select number, id, name from provider;

-- name: list_businesses
select number, id, name from business;

-- name: list_verticals
select number, id, slug as name from vertical;

-- name: list_subscriptions
-- Subscriptions of a mode, with state, business and vertical.
select s.number, s.id, s.name, s.state, s.business_id, b.name as business, v.slug as vertical, v.number as vertical_number,
       s.currency, s.created_at
from subscription s
join business b on b.id = s.business_id
join vertical v on v.id = s.vertical_id
where s.mode = $1;

-- name: list_last_reports
-- When each business, or the one named, last reported an outcome of any lead, and how many seconds late its 50 newest reports
-- were: after the first report that came when what they tell had happened. A row per business with a report. Only
-- reports of what happened over a day before can be late, so that most need no search.
select b.number as business, max(newest.recorded_at) as reported_at,
       array_agg(extract(epoch from newest.recorded_at - coalesce(next.recorded_at, newest.recorded_at))::bigint) as late_seconds
from business b
cross join lateral (
    select d.recorded_at, d.happened_at from disposition d
    where d.business_id = b.id and d.undone_at is null
    order by d.recorded_at desc limit 50
) newest
left join lateral (
    select n.recorded_at from disposition n
    where n.business_id = b.id and n.undone_at is null and n.recorded_at >= newest.happened_at
    order by n.recorded_at limit 1
) next on newest.recorded_at - newest.happened_at > interval '1 day'
where $1::uuid is null or b.id = $1
group by b.number;
