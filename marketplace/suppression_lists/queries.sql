-- name: insert_list
insert into contact_list (id, kind, business_id, name, source, refresh_hours, maximum_age_days, stops_sales, made_at, made_by)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: change_list
update contact_list set source = $2, refresh_hours = $3, maximum_age_days = $4, stops_sales = $5
where id = $1 and removed_at is null;

-- name: find_list
-- A list by its id; $2 limits it to a business's own.
select id, number, kind, business_id, name, source, refresh_hours, maximum_age_days, stops_sales, version, members, made_at,
       refreshed_at
from contact_list where id = $1 and ($2::uuid is null or business_id = $2) and removed_at is null;

-- name: find_named_list
select id, number, kind, business_id, name, source, refresh_hours, maximum_age_days, stops_sales, version, members, made_at,
       refreshed_at
from contact_list where kind = $1 and business_id is not distinct from $2 and name = $3 and removed_at is null;

-- name: list_lists
-- The lists of a kind, or of one business, the newest first, older than $3.
select id, number, kind, business_id, name, source, refresh_hours, maximum_age_days, stops_sales, version, members, made_at,
       refreshed_at
from contact_list
where kind = $1 and ($2::uuid is null or business_id = $2) and ($3::uuid is null or id < $3) and removed_at is null
order by id desc limit $4;

-- name: find_names_with
-- Names of the lists of people who must not be contacted that have one of these keys.
select distinct l.name from unnest($1::bytea[]) as mine (key)
join list_member m on m.key = substring(mine.key for 16) and m.until is null
join contact_list l on l.number = m.list and l.kind = 'do_not_contact' and l.removed_at is null
order by l.name;

-- name: count_lists
select count(*)::int from contact_list where business_id = $1 and removed_at is null;

-- name: list_due
-- Lists whose source is to be read again at $1.
select id, number, kind, business_id, name, source, refresh_hours, maximum_age_days, stops_sales, version, members, made_at,
       refreshed_at
from contact_list
where refresh_hours is not null and removed_at is null
    and coalesce(refreshed_at + make_interval(hours => refresh_hours), made_at) <= $1
order by refreshed_at nulls first, id;

-- name: insert_import
insert into list_import (id, list_id, state, way, file_name, actor, due_at, made_at)
values ($1, $2, 'running', $3, $4, $5, $6, $7)
returning number;

-- name: find_running
select id, number, list_id, state, way, file_name, actor, position, digest, rows, readable, faulty, repeated, added, removed,
       version, failure, due_at, made_at, ended_at
from list_import where list_id = $1 and state = 'running';

-- name: find_import
select id, number, list_id, state, way, file_name, actor, position, digest, rows, readable, faulty, repeated, added, removed,
       version, failure, due_at, made_at, ended_at
from list_import where id = $1;

-- name: find_published
select id, number, list_id, state, way, file_name, actor, position, digest, rows, readable, faulty, repeated, added, removed,
       version, failure, due_at, made_at, ended_at
from list_import where list_id = $1 and version = $2;

-- name: list_imports
select id, number, list_id, state, way, file_name, actor, position, digest, rows, readable, faulty, repeated, added, removed,
       version, failure, due_at, made_at, ended_at
from list_import where list_id = $1 order by id desc limit $2;

-- name: list_named_imports
select r.id, r.number, r.list_id, r.state, r.way, r.file_name, r.actor, r.position, r.digest, r.rows, r.readable, r.faulty,
       r.repeated, r.added, r.removed, r.version, r.failure, r.due_at, r.made_at, r.ended_at, l.name as list_name
from list_import r join contact_list l on l.id = r.list_id and l.removed_at is null
where l.kind = $1 and ($2::uuid is null or l.business_id = $2)
order by r.id desc limit $3;

-- name: count_kept_away
select count(*)::int from kept_away where business_id = $1 and kept_at >= $2 and kept_at < $3;

-- name: claim_import
-- Takes an import over whose process has stopped: its due time is over.
update list_import set due_at = $2 where id = $1 and state = 'running' and due_at <= $3 returning id;

-- name: advance
-- The next rows of a file, read by the process that still has the import: it is at the position that the process knows.
update list_import set position = $3, digest = $4, rows = $5, readable = $6, faulty = $7, due_at = $8
where id = $1 and state = 'running' and position = $2
returning id;

-- name: insert_faults
insert into list_fault (import_id, row, code)
select $1, fault.row, fault.code from unnest($2::int[], $3::text[]) as fault (row, code);

-- name: list_faults
select row, code from list_fault where import_id = $1 order by row;

-- name: delete_staging
delete from list_staging where import = $1;

-- name: fail_import
update list_import set state = 'failed', failure = $2, due_at = null, ended_at = $3 where id = $1 and state = 'running'
returning id;

-- name: lock_list
-- Changes of one list wait for each other.
select version from contact_list where id = $1 and removed_at is null for no key update;

-- name: purge_members
-- Members that had left the list before its present version: they were kept for the undoing of the import before.
delete from list_member where list = $1 and until is not null;

-- name: end_members
-- Members of a list that its new version $2 does not have. $3 is the import that has read the new version.
with gone as (
    update list_member m set until = $2
    where m.list = $1 and m.until is null and not exists (select from list_staging s where s.import = $3 and s.key = m.key)
    returning m.key
)
select count(*)::int from gone;

-- name: insert_members
-- The keys of an import, each once, in the order of the index, which is then built without splits.
with fresh as (
    insert into list_member (key, list, since)
    select distinct key, $1::int, $2::int from list_staging where import = $3 order by key
    on conflict (key, list) do nothing
    returning key
)
select (select count(*)::int from fresh) as added,
       (select count(*)::int - count(distinct key)::int from list_staging where import = $3) as repeated;

-- name: raise_serial
update lists_serial set serial = serial + 1 returning serial;

-- name: publish_list
update contact_list set version = $2, members = members + $3, refreshed_at = $4 where id = $1;

-- name: end_import
update list_import set state = 'done', repeated = $2, added = $3, removed = $4, version = $5, serial = $6, due_at = null,
    ended_at = $7
where id = $1 and state = 'running'
returning id;

-- name: undo_added
with gone as (delete from list_member where list = $1 and since = $2 returning key)
select count(*)::int from gone;

-- name: undo_removed
with back as (update list_member set until = null where list = $1 and until = $2 returning key)
select count(*)::int from back;

-- name: mark_undone
update list_import set state = 'undone', serial = $2 where id = $1 and state = 'done' returning id;

-- name: mark_list_removed
update contact_list set removed_at = $2, members = 0 where id = $1 and removed_at is null returning id;

-- name: delete_members
delete from list_member where list = $1;
