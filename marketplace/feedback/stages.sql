-- name: list_stages
-- Stages in use, in their order, each with all names that mean it.
select s.id, s.stage, s.kind, s.limit_days, s.colour,
       array(select n.name from stage_name n where n.stage_id = s.id order by n.name) as names
from pipeline_stage s where s.business_id = $1 and s.retired_at is null order by s.position;

-- name: list_names
-- Each name with the stage that it means.
select n.name, n.stage_id, s.kind from stage_name n join pipeline_stage s on s.id = n.stage_id where n.business_id = $1;

-- name: lock_pipeline
-- Two calls that set the stages at the same time run one after the other, and after the reports that are being kept.
select pg_advisory_xact_lock(hashtextextended('pipeline:' || $1::uuid::text, 0));

-- name: lock_names
-- Reports that are being kept see the names before a change of them, or after it: none is kept whose name was mapped.
select pg_advisory_xact_lock_shared(hashtextextended('pipeline:' || $1::uuid::text, 0));

-- name: mark_retired
-- Leads of an ended stage, and of those that it had taken over, are in $3 from now on.
update pipeline_stage set retired_at = coalesce(retired_at, $4), merged_into = $3
where business_id = $1 and (id = $2 or merged_into = $2);

-- name: delete_names
delete from stage_name where business_id = $1;

-- name: save_stages
-- New stages, and new values of the present ones.
insert into pipeline_stage (business_id, id, stage, kind, limit_days, colour, position)
select $1, s.id, s.stage, s.kind, s.limit_days, s.colour, s.position
from unnest($2::uuid[], $3::text[], $4::text[], $5::int[], $6::text[])
    with ordinality as s (id, stage, kind, limit_days, colour, position)
on conflict (id) do update
set stage = excluded.stage, kind = excluded.kind, limit_days = excluded.limit_days, colour = excluded.colour,
    position = excluded.position
where pipeline_stage.business_id = $1;

-- name: insert_names
insert into stage_name (business_id, name, stage_id)
select $1, n.name, n.stage_id from unnest($2::text[], $3::uuid[]) as n (name, stage_id);

-- name: insert_unmapped
-- The first report of an event is kept; a business has at most $2 of them. A note about an erased person is not stored.
insert into unmapped_report (id, business_id, assignment_id, lead_id, stage, name, report, note, source, event_id,
    file_import_id, received_at)
select r.id, $1, r.assignment_id, r.lead_id, r.stage, r.name, r.report::jsonb,
       case when not exists (select from erasure where lead_id = r.lead_id) then r.note end,
       $3, r.event_id, $4, $5
from unnest($6::uuid[], $7::uuid[], $8::uuid[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])
    as r (id, assignment_id, lead_id, stage, name, report, note, event_id)
where (select count(*) from unmapped_report where business_id = $1) < $2
on conflict (business_id, event_id) do nothing;

-- name: list_mapped
-- Kept reports whose name means a stage now, oldest first.
select r.id, r.assignment_id, r.report, r.note, r.source, r.event_id, r.file_import_id
from unmapped_report r
where r.business_id = $1 and r.received_at >= $2
    and exists (select from stage_name n where n.business_id = r.business_id and n.name = r.name)
order by r.received_at, r.id
limit $3;

-- name: delete_unmapped
delete from unmapped_report where id = any($1::uuid[]);

-- name: mark_faulty
-- A report that its stage does not fit: it is shown with the fault until it is deleted.
update unmapped_report u set fault = f.fault from unnest($1::uuid[], $2::text[]) as f (id, fault) where u.id = f.id;

-- name: delete_unmapped_of_import
delete from unmapped_report where file_import_id = $1 and business_id = $2;

-- name: delete_old_unmapped
delete from unmapped_report where received_at < $1;

-- name: list_unmapped_names
-- Names that no stage has, with their reports since $2, most reports first; then those whose reports do not fit their stage.
select r.name, min(r.stage) as stage, count(*) as reports, max(r.received_at) as last_at, min(r.fault) as fault
from unmapped_report r
where r.business_id = $1 and r.received_at >= $2
group by r.name
order by min(r.fault) is not null, reports desc, r.name
limit $3;
