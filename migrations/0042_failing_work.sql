-- Work that keeps failing: it is tried less and less often, set aside after so many failures in a row, and found by whoever looks.

-- `id` is the lead's or the assignment's; a notice of erasure has its lead's. `failure` is the class of the error and never
-- its text, which may carry values. `retry_at` is when somebody asked for another try, `ended_at` when it was given up.
create table failing_work (
    kind text not null constraint failing_work_kind check (kind in ('lead', 'assignment', 'notice')),
    id uuid not null,
    lead_id uuid not null references lead (id),
    failure text not null,
    failures int not null constraint failing_work_failures check (failures > 0),
    first_failed_at timestamptz not null,
    last_failed_at timestamptz not null,
    quarantined_at timestamptz,
    retry_at timestamptz,
    ended_at timestamptz,
    primary key (kind, id),
    constraint failing_work_ended check (ended_at is null or quarantined_at is not null)
);
create index failing_work_retried on failing_work (retry_at) where retry_at is not null;
create index failing_work_quarantined on failing_work (quarantined_at) where quarantined_at is not null;

-- What was set aside and still is somebody's to mend: open work, and what was given up and not looked at since.
create view quarantined_work as
select f.kind, f.id, f.lead_id, l.mode, l.state as lead_state, f.failure, f.failures, f.first_failed_at, f.last_failed_at,
       f.quarantined_at, f.retry_at, f.ended_at
from failing_work f
join lead l on l.id = f.lead_id
left join assignment a on f.kind = 'assignment' and a.id = f.id
left join erasure e on f.kind = 'notice' and e.lead_id = f.id
where f.quarantined_at is not null and (
    f.ended_at is not null
    or (f.kind = 'lead' and l.state in ('received', 'nurturing', 'prospect'))
    or (f.kind = 'assignment' and a.state in ('held', 'exposed'))
    or (f.kind = 'notice' and e.notice_state = 'due'));

grant select on failing_work, quarantined_work to marketplace_api, marketplace_worker, marketplace_reports;
grant insert, update, delete on failing_work to marketplace_worker;
grant update (retry_at), delete on failing_work to marketplace_api;
