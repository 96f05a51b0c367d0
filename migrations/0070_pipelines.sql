-- Appointments as a kind of disposition, stages that keep their identity under a new name, and reports in words that are
-- not mapped to a stage yet.

-- An appointment has the time at which it begins. It counts as a contact: nobody agrees on a time without being reached.
alter table disposition add column starts_at timestamptz;
alter table disposition drop constraint disposition_kind;
alter table disposition add constraint disposition_kind check (kind in (
    'contacted', 'qualified', 'appointment', 'quoted', 'won', 'lost', 'unreachable'));
alter table disposition add constraint disposition_appointment check ((starts_at is not null) = (kind = 'appointment'));

-- Every view of first contacts takes the new kind in at the place of its list; nothing else in them changes.
do $$
declare
    reader text;
begin
    foreach reader in array array['exclusive_outcome', 'lead_figure'] loop
        execute format('create or replace view %I as %s', reader,
            replace(pg_get_viewdef(reader::regclass), '''contacted''::text, ', '''contacted''::text, ''appointment''::text, '));
    end loop;
end $$;

-- A stage keeps its id when it is renamed. `retired_at` ends it, `merged_into` is the stage that then has its leads.
-- `limit_days` is the time after which a lead in it counts as stuck; null where the usual time of the business decides.
alter table pipeline_stage drop constraint pipeline_stage_pkey;
alter table pipeline_stage add column id uuid not null default gen_random_uuid();
alter table pipeline_stage add constraint pipeline_stage_pkey primary key (id);
alter table pipeline_stage add constraint pipeline_stage_of_business unique (id, business_id);
alter table pipeline_stage add column limit_days int
    constraint pipeline_stage_limit check (limit_days between 1 and 365);
alter table pipeline_stage add column retired_at timestamptz;
alter table pipeline_stage add column merged_into uuid;
alter table pipeline_stage add constraint pipeline_stage_merged foreign key (merged_into, business_id)
    references pipeline_stage (id, business_id);
alter table pipeline_stage add constraint pipeline_stage_successor check (merged_into is null or retired_at is not null);
alter table pipeline_stage drop constraint pipeline_stage_kind;
alter table pipeline_stage add constraint pipeline_stage_kind check (kind in (
    'contacted', 'qualified', 'appointment', 'quoted', 'won', 'lost', 'unreachable'));
create index pipeline_stage_by_business on pipeline_stage (business_id, position);

-- Each name that means a stage: the present one, former ones, and words of a business's software. In lower case, so that one
-- name never means two stages.
create table stage_name (
    business_id uuid not null,
    name text not null,
    stage_id uuid not null,
    primary key (business_id, name),
    constraint stage_name_stage foreign key (stage_id, business_id) references pipeline_stage (id, business_id)
);
create index stage_name_by_stage on stage_name (stage_id);
insert into stage_name (business_id, name, stage_id)
select distinct on (business_id, lower(stage)) business_id, lower(stage), id from pipeline_stage
order by business_id, lower(stage), position;

-- Businesses without stages get the usual ones.
with usual (stage, kind, position) as (values
    ('Contacted', 'contacted', 1), ('Appointment', 'appointment', 2), ('Quoted', 'quoted', 3), ('Won', 'won', 4),
    ('Lost', 'lost', 5), ('No answer', 'unreachable', 6)
), made as (
    insert into pipeline_stage (business_id, stage, kind, position)
    select b.id, u.stage, u.kind, u.position from business b cross join usual u
    where not exists (select from pipeline_stage p where p.business_id = b.id)
    returning business_id, stage, id
)
insert into stage_name (business_id, name, stage_id) select business_id, lower(stage), id from made;

-- The stage of a disposition by its id; `stage` remains the word that was sent.
alter table disposition add column stage_id uuid;
alter table disposition disable trigger disposition_is_final;
update disposition d set stage_id = n.stage_id
from stage_name n join pipeline_stage s on s.id = n.stage_id
where d.stage is not null and n.business_id = d.business_id and n.name = lower(d.stage) and s.kind = d.kind;
alter table disposition enable trigger disposition_is_final;
alter table disposition add constraint disposition_stage foreign key (stage_id, business_id)
    references pipeline_stage (id, business_id);

-- A move on the board can be undone, as an import can: the row stays, and every reader leaves it out.
alter table disposition drop constraint disposition_undone;
alter table disposition add constraint disposition_undone check (
    undone_at is null or file_import_id is not null or source = 'portal');

-- Reports whose stage no name means. They are recorded when the name is mapped, and deleted after 30 days. `note` is what a
-- person wrote, and is erased with the lead's person.
create table unmapped_report (
    id uuid primary key,
    business_id uuid not null,
    assignment_id uuid not null,
    lead_id uuid not null,
    live boolean not null default true constraint unmapped_report_live check (live),
    stage text not null,
    name text not null,
    report jsonb not null,
    note text,
    source text not null constraint unmapped_report_source check (source in ('api', 'webhook', 'csv')),
    event_id text not null,
    file_import_id uuid references file_import (id),
    received_at timestamptz not null,
    fault text,
    constraint unmapped_report_event unique (business_id, event_id),
    constraint unmapped_report_assignment foreign key (assignment_id, lead_id, business_id, live)
        references assignment (id, lead_id, business_id, live)
);
create index unmapped_report_by_lead on unmapped_report (lead_id);
create index unmapped_report_oldest on unmapped_report (received_at);
create index unmapped_report_of_import on unmapped_report (file_import_id) where file_import_id is not null;

grant select on stage_name, unmapped_report to marketplace_api, marketplace_worker;
grant insert, update (stage_id), delete on stage_name to marketplace_api;
revoke delete on pipeline_stage from marketplace_api;
grant update (stage, kind, position, limit_days, retired_at, merged_into) on pipeline_stage to marketplace_api;
grant insert, update (fault), delete on unmapped_report to marketplace_api;
grant delete on unmapped_report to marketplace_worker;
grant update (note) on unmapped_report to marketplace_eraser;
