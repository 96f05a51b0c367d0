-- name: note_failure
-- Count one more failure in a row for the lead's open work: its assignment if it has one, else the lead while it waits,
-- or the notice $3 if one is passed. No row when no work is open.
with work as (
    select 'notice' as kind, id from notice where id = $3::uuid and lead_id = $1 and state = 'due'
    union all
    select 'assignment', id from assignment where $3::uuid is null and lead_id = $1 and state in ('held', 'exposed')
    union all
    select 'lead', id from lead where $3::uuid is null and id = $1 and state in ('received', 'nurturing', 'prospect')
    limit 1
)
insert into failing_work (kind, id, lead_id, failure, failures, first_failed_at, last_failed_at)
select kind, id, $1, $2, 1, clock_timestamp(), clock_timestamp() from work
on conflict (kind, id) do update set failure = excluded.failure, failures = failing_work.failures + 1,
    last_failed_at = excluded.last_failed_at
returning kind, id, failures, first_failed_at, last_failed_at, quarantined_at;

-- name: mark_quarantined
update failing_work set quarantined_at = clock_timestamp() where kind = $1 and id = $2 and quarantined_at is null;

-- name: put_to_end
-- Due again when it is given up: a lead at $3, a shown assignment and a notice at their deadlines.
with lead_put as (
    update lead set due_at = $3 where $1 = 'lead' and id = $2 and state in ('received', 'nurturing', 'prospect')
), assignment_put as (
    update assignment set due_at = evidence_until where $1 = 'assignment' and id = $2 and state = 'exposed'
)
update notice set due_at = deadline_at where $1 = 'notice' and id = $2 and state = 'due';

-- name: put_off
-- Due again at $3, or at its deadline if that is sooner.
with lead_put_off as (
    update lead set due_at = $3 where $1 = 'lead' and id = $2 and state in ('received', 'nurturing', 'prospect')
), assignment_put_off as (
    update assignment set due_at = least($3, coalesce(evidence_until, $3))
    where $1 = 'assignment' and id = $2 and state in ('held', 'exposed')
)
update notice set due_at = least($3, greatest(deadline_at, clock_timestamp()))
where $1 = 'notice' and id = $2 and state = 'due';

-- name: find_failing
-- Whether this work is quarantined; no row when it has no failure on record.
select quarantined_at is not null as quarantined, first_failed_at from failing_work where kind = $1 and id = $2;

-- name: forget
delete from failing_work where kind = $1 and id = $2;

-- name: forget_old
-- Failures that did not recur and never led to quarantine.
delete from failing_work where quarantined_at is null and last_failed_at < clock_timestamp() - interval '2 days';

-- name: take_retries
-- Work for which a retry was requested: no failures any more, and due now.
with retried as (
    delete from failing_work where retry_at <= clock_timestamp() and ended_at is null returning kind, id
), leads as (
    update lead set due_at = clock_timestamp() from retried
    where retried.kind = 'lead' and lead.id = retried.id and state in ('received', 'nurturing', 'prospect')
), assignments as (
    update assignment set due_at = clock_timestamp() from retried
    where retried.kind = 'assignment' and assignment.id = retried.id and state in ('held', 'exposed')
)
update notice set due_at = clock_timestamp() from retried
where retried.kind = 'notice' and notice.id = retried.id and state = 'due';

-- name: end_lead
-- A lead that nobody was shown and that cannot be processed ends unsold; the person may inquire again.
with ended as (
    update lead set state = 'unsold', due_at = null, reason = $2, settled_at = clock_timestamp()
    where id = $1 and state in ('received', 'nurturing', 'prospect')
    returning id
)
delete from person_window using ended where lead_id = ended.id;

-- name: mark_ended
update failing_work set ended_at = clock_timestamp() where kind = $1 and id = $2;

-- name: list_quarantined
-- Newest first, for the operator.
select kind, id, lead_id, mode, lead_state, failure, failures, first_failed_at, last_failed_at, quarantined_at,
       retry_at, ended_at
from quarantined_work order by quarantined_at desc, id limit $1;

-- name: ask_for_retry
update failing_work set retry_at = clock_timestamp()
where kind = $1 and id = $2 and quarantined_at is not null and ended_at is null
returning lead_id;

-- name: dismiss
-- Only ended work: open work stays listed until it is resolved.
delete from failing_work where kind = $1 and id = $2 and ended_at is not null returning lead_id;
