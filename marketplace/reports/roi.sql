-- name: find_currency
-- Default currency: that of the business's wallet, or for all businesses the one with the most leads.
select coalesce(
    (select currency from wallet where business_id = $1),
    (select currency from kept_outcome_run where $1::uuid is null group by currency
     order by sum(length(records)) desc, currency limit 1),
    (select currency from wallet where $1::uuid is null group by currency order by count(*) desc, currency limit 1)
) as currency;

-- name: list_runs
-- Records of the whole marketplace: the runs with any time of receipt from $2 to $3.
select records from kept_outcome_run
where currency = $1 and last_received_at >= $2 and first_received_at < $3
order by run;

-- name: list_own
-- Records of one business as of now: the stored ones, with current ones in place of those that may have changed since the
-- last pass (a few seconds' worth while a worker runs). The range has two bounds, both unknown to the planner, because
-- it then expects few rows; with only a lower bound it expects a third of all.
with progress as materialized (
    select xid as since, pg_snapshot_xmax(pg_current_snapshot()) as upto from kept_outcome_progress
), later as materialized (
    select distinct assignment_id from exclusive_change
    where committed_by >= (select since from progress) and committed_by < (select upto from progress)
), own as materialized (
    select a.id from later
    cross join lateral (select id, business_id from assignment where id = later.assignment_id limit 1) a
    where a.business_id = $1
)
select string_agg(record, '') as records from (
    select k.record from business b join kept_outcome k on k.business = b.number
    where b.id = $1 and k.currency = $2 and k.received_at >= $3 and k.received_at < $4
        and k.assignment_id not in (select id from own)
    union all
    select r.record from own
    cross join lateral (
        select record, currency, received_at from exclusive_record where assignment_id = own.id limit 1
    ) r
    where r.currency = $2 and r.received_at >= $3 and r.received_at < $4
) of_business;

-- name: list_shared
-- Records of shared leads, of one business or of all; each also has the time up to which it was observed.
select records, source = 'demo' as demo from shared_import
where ($1::uuid is null or business_id = $1) and currency = $2 and undone_at is null and last_received_at >= $3 and first_received_at < $4;

-- name: list_assumptions
-- Assumptions of the business before those of the operator; those on the vertical before those on all verticals.
select business_id, shared_cost_minor, shared_win_rate, shared_leads, shared_won, shared_weeks, shared_value_minor, copies::float8 as copies, labour_minor,
       source, made_at
from roi_assumption
where (business_id = $1 or business_id is null) and (vertical_id = $2 or vertical_id is null) and currency = $3
order by business_id nulls last, vertical_id nulls last;

-- name: list_verticals
select id, number, slug from vertical;

-- name: find_progress
select at from kept_outcome_progress;

-- name: take_turn
-- Lock against other workers, and the transactions of the next pass. Those from `since` up to but not including `upto`
-- have all ended and have at most $1 moves, dispositions and revisions, unless a single one has more: a transaction is never split.
-- `more` is true if others wait after them.
with turn as (
    select pg_try_advisory_xact_lock(hashtext('marketplace.reports.roi')) as ours, xid as since,
           pg_snapshot_xmin(pg_current_snapshot()) as settled
    from kept_outcome_progress
), next as (
    select count(*) as count, min(committed_by) as first, max(committed_by) as last from (
        select change.committed_by from turn
        cross join lateral (
            (select committed_by from move where committed_by >= turn.since and committed_by < turn.settled
             order by committed_by limit $1::bigint + 1)
            union all
            (select committed_by from disposition where committed_by >= turn.since and committed_by < turn.settled
             order by committed_by limit $1::bigint + 1)
            union all
            (select committed_by from revised_facts where committed_by >= turn.since and committed_by < turn.settled
             order by committed_by limit $1::bigint + 1)
        ) change order by change.committed_by limit $1::bigint + 1
    ) of_both
)
select ours, since, count > $1 as more,
       case when count <= $1 then settled when last > first then last
            else (last::text::bigint + 1)::text::xid8 end as upto
from turn, next;

-- name: keep_outcomes
-- Store the current record of every lead that may have changed in those transactions, and return the runs that change.
-- `limit 1` makes the planner look up each record by its key instead of reading all leads.
with changed as (
    select distinct assignment_id from exclusive_change where committed_by >= $1 and committed_by < $2
), now as materialized (
    select r.assignment_id, r.currency, r.received_at, r.record
    from changed
    cross join lateral (
        select assignment_id, currency, received_at, record from exclusive_record
        where assignment_id = changed.assignment_id limit 1
    ) r
), renewed as (
    update kept_outcome k set record = now.record from now
    where k.assignment_id = now.assignment_id and k.record <> now.record
    returning k.currency, k.number
), added as (
    insert into kept_outcome (assignment_id, currency, received_at, record)
    select assignment_id, currency, received_at, record from now
    where not exists (select from kept_outcome k where k.assignment_id = now.assignment_id)
    order by received_at
    returning currency, number
)
select distinct currency::text as currency, number / 128 as run from (
    select currency, number from renewed union all select currency, number from added
) written;

-- name: keep_runs
-- Store these runs again from their records.
insert into kept_outcome_run (currency, run, first_received_at, last_received_at, records)
select written.currency::char(3), written.run, held.first_received_at, held.last_received_at, held.records
from unnest($1::text[], $2::bigint[]) as written (currency, run)
cross join lateral (
    select min(k.received_at) as first_received_at, max(k.received_at) as last_received_at,
           string_agg(k.record, '' order by k.number) as records
    from kept_outcome k
    where k.number >= 128 * written.run and k.number < 128 * (written.run + 1) and k.currency = written.currency::char(3)
) held
on conflict (currency, run) do update set first_received_at = excluded.first_received_at,
    last_received_at = excluded.last_received_at, records = excluded.records;

-- name: mark_progress
-- The records are as of the last pass after which no change waited ($2).
update kept_outcome_progress set xid = $1, at = case when $2 then clock_timestamp() else at end;

-- name: save_assumption
-- One assumption per business (or operator), vertical and currency. No row if the business or vertical does not exist.
insert into roi_assumption (id, business_id, vertical_id, currency, shared_cost_minor, shared_win_rate, shared_leads,
    shared_won, shared_weeks, shared_value_minor, copies, labour_minor, source, made_at)
select $1, $2, v.id, $4, $5, $6, $7, $8, $9, $10, ($11::float8)::numeric, $12, $13, $14
from (select 1) as one left join vertical v on v.slug = $3
where ($3::text is null or v.id is not null) and ($2::uuid is null or exists (select from business where id = $2))
on conflict on constraint roi_assumption_one do update set shared_cost_minor = excluded.shared_cost_minor,
    shared_win_rate = excluded.shared_win_rate, shared_leads = excluded.shared_leads, shared_won = excluded.shared_won,
    shared_weeks = excluded.shared_weeks, shared_value_minor = excluded.shared_value_minor, copies = excluded.copies,
    labour_minor = excluded.labour_minor, source = excluded.source, made_at = excluded.made_at
returning made_at;
