-- Files of a business that are imported in parts, followed, resumed after a crash, and undone.

-- One file or one call. `position` says how many of its rows have been judged, which the four counts add up to. While it
-- waits for work it has a due time: whoever works on it moves that ahead, and after a crash another process takes it over.
create table file_import (
    id uuid primary key,
    business_id uuid not null references business (id),
    subject text not null constraint file_import_subject check (subject in ('shared_leads', 'dispositions')),
    source text not null constraint file_import_source check (source in ('csv', 'api')),
    mode text constraint file_import_mode check (mode in ('live', 'test')),
    state text not null constraint file_import_state check (state in (
        'previewed', 'running', 'done', 'failed', 'undoing', 'undone')),
    actor text not null,
    digest bytea not null,
    mapping jsonb not null,
    rows int not null constraint file_import_rows check (rows >= 0),
    position int not null default 0,
    taken int not null default 0 check (taken >= 0),
    known int not null default 0 check (known >= 0),
    conflicts int not null default 0 check (conflicts >= 0),
    refused int not null default 0 check (refused >= 0),
    undone int not null default 0 check (undone >= 0),
    tries int not null default 0,
    due_at timestamptz,
    made_at timestamptz not null,
    ended_at timestamptz,
    undone_at timestamptz,
    undone_by text,
    constraint file_import_position check (position between 0 and rows and position = taken + known + conflicts + refused),
    constraint file_import_due check ((state in ('running', 'undoing')) = (due_at is not null)),
    constraint file_import_undone check ((state in ('undoing', 'undone')) = (undone_by is not null)
        and (state = 'undone') = (undone_at is not null) and undone <= taken)
);
create index file_import_waiting on file_import (due_at) where due_at is not null;
create index file_import_newest on file_import (business_id, id);

-- The file itself, sealed under the master key: from the look at it, or the start of the import, to its end, a day at most.
create table import_file (
    import_id uuid primary key references file_import (id),
    box bytea not null,
    made_at timestamptz not null
);
alter table import_file alter column box set storage external;
create index import_file_oldest on import_file (made_at);

-- What became of each row. `label` is by what the business knows the row: the vendor's number, the lead's id.
create table import_row (
    import_id uuid not null references file_import (id),
    number int not null,
    outcome text not null constraint import_row_outcome check (outcome in ('taken', 'known', 'conflict', 'refused')),
    label text not null,
    field text,
    code text,
    detail text,
    primary key (import_id, number)
);
create index import_row_left on import_row (import_id, number) where outcome <> 'taken';
create trigger import_row_is_final before update or delete on import_row for each row execute function refuse_change();

-- Shared leads. A row of shared_import is one part of an import; undone, neither it nor its leads count any more, and the
-- same leads may come again. A win or a loss may have no day: a win without one has a value and no time.
alter table shared_import add column file_import_id uuid references file_import (id) deferrable initially deferred;
alter table shared_import add column undone_at timestamptz;
create index shared_import_of_file on shared_import (file_import_id) where file_import_id is not null;
alter table shared_lead add column lost boolean not null default false;
alter table shared_lead add column undone_at timestamptz;
alter table shared_lead drop constraint shared_lead_once;
create unique index shared_lead_once on shared_lead (business_id, vendor, external_id) where undone_at is null;
create index shared_lead_of_import on shared_lead (import_id);
alter table shared_lead drop constraint shared_lead_won;
alter table shared_lead add constraint shared_lead_won check (won_at is null or won_minor is not null);
alter table shared_lead drop constraint shared_lead_one_end;
alter table shared_lead add constraint shared_lead_one_end check (won_minor is null or (lost_at is null and not lost));

create function keep_but_undo() returns trigger language plpgsql as $$
begin
    if old.undone_at is null and new.undone_at is not null
        and to_jsonb(new) - array['undone_at', 'committed_by'] = to_jsonb(old) - array['undone_at', 'committed_by']
    then
        return new;
    end if;
    raise exception '% rows are never changed', tg_table_name using errcode = 'restrict_violation';
end $$;
drop trigger shared_lead_is_final on shared_lead;
create trigger shared_lead_is_final before update on shared_lead for each row execute function keep_but_undo();
create trigger shared_import_is_final before update on shared_import for each row execute function keep_but_undo();

-- Dispositions. One that came with an import can be undone, once; every reader leaves it out, and it is followed as a new
-- one is, by the transaction that undid it.
alter table disposition add column file_import_id uuid references file_import (id);
alter table disposition add column undone_at timestamptz;
alter table disposition add constraint disposition_undone check (undone_at is null or file_import_id is not null);
alter table disposition drop constraint disposition_event;
create unique index disposition_event on disposition (business_id, event_id) where undone_at is null;
create index disposition_of_import on disposition (file_import_id) where file_import_id is not null and undone_at is null;

create or replace function keep_disposition() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and new.note is null and to_jsonb(new) - 'note' = to_jsonb(old) - 'note' then
        return new;
    end if;
    if tg_op = 'UPDATE' and old.undone_at is null and new.undone_at is not null
        and new.committed_by = pg_current_xact_id()
        and to_jsonb(new) - array['undone_at', 'committed_by'] = to_jsonb(old) - array['undone_at', 'committed_by']
    then
        return new;
    end if;
    raise exception '% rows are never changed', tg_table_name using errcode = 'restrict_violation';
end $$;

-- The reader that is a view, as it was but for what was undone; the other one, lead_figure, is in 0032.
create or replace view exclusive_outcome as
select a.id as assignment_id, a.business_id, l.vertical_id, i.facts -> 'place' ->> 'postal_code' as postal_code,
       a.exposed_at as received_at,
       charge.amount_minor - coalesce(refund.amount_minor, 0) as cost_minor, a.currency,
       told.contacted_at,
       case when told.qualified then true when final.kind is not null then false end as qualified,
       case when final.kind = 'won' then final.happened_at end as won_at,
       case when final.kind = 'won' then final.value_minor end as won_minor,
       case when final.kind <> 'won' then final.happened_at end as lost_at,
       coalesce(told.demo, false) as demo
from assignment a
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
join transfer charge on charge.assignment_id = a.id and charge.kind = 'capture'
left join transfer refund on refund.assignment_id = a.id and refund.kind = 'refund'
left join lateral (
    select min(d.happened_at) filter (where d.kind in ('contacted', 'qualified', 'quoted', 'won')) as contacted_at,
           bool_or(d.kind in ('qualified', 'quoted', 'won')) as qualified,
           bool_or(d.source = 'demo') as demo
    from disposition d where d.assignment_id = a.id and d.undone_at is null
) told on true
left join lateral (
    select d.kind, d.happened_at, d.value_minor from disposition d
    where d.assignment_id = a.id and d.undone_at is null and d.kind in ('won', 'lost', 'unreachable')
    order by d.happened_at desc, d.id desc
    limit 1
) final on true
where a.mode = 'live';

grant select on file_import, import_row to marketplace_api, marketplace_worker, marketplace_reports;
grant insert on file_import, import_file, import_row to marketplace_api;
grant select, delete on import_file to marketplace_api;
grant update (state, actor, mapping, position, taken, known, conflicts, refused, undone, tries, due_at, ended_at, undone_at,
    undone_by) on file_import to marketplace_api;
grant update (undone_at) on shared_import, shared_lead to marketplace_api;
grant update (undone_at, committed_by) on disposition to marketplace_api;
