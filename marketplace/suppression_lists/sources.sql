-- name: save_source
-- A new source, or another one in its place: it is fetched at once, and as a whole.
insert into list_source (list_id, url, format, schedule, country, header_name, header_value, set_at, due_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $8)
on conflict (list_id) do update set url = $2, format = $3, schedule = $4, country = $5, header_name = $6, header_value = $7,
    set_at = $8, due_at = $8, leased_until = null, version = null, etag = null, last_modified = null, content_sha256 = null,
    failures = 0, failure = null, failed_at = null, smaller_rows = null, confirmed_rows = null;

-- name: clear_file_source
-- A list is refreshed from the web or from a file, not from both.
update contact_list set source = null, refresh_hours = null where id = $1 and refresh_hours is not null;

-- name: find_source
-- `is_current`: the list is as this source made it. `was_undone`: its last import was undone, or another came after.
select s.list_id, l.name, s.url, s.format, s.schedule, s.country, s.header_name, s.header_value, s.set_at, s.due_at,
       s.leased_until, s.etag, s.last_modified, s.content_sha256, s.checked_at, l.refreshed_at, l.members, s.failures, s.failure, s.failed_at,
       s.smaller_rows, s.confirmed_rows, coalesce(l.version = s.version, false) as is_current,
       exists (select from list_import i where i.list_id = s.list_id and i.version = s.version and i.state = 'undone')
           as was_undone
from list_source s join contact_list l on l.id = s.list_id and l.removed_at is null
where s.list_id = $1;

-- name: list_sources
-- Sources of lists that are not removed, the newest list first, older than $1.
select s.list_id, l.name, s.url, s.format, s.schedule, s.country, s.header_name, s.due_at, s.leased_until, s.checked_at,
       l.members, s.failures, s.failure, s.failed_at, s.smaller_rows, s.confirmed_rows
from list_source s join contact_list l on l.id = s.list_id and l.removed_at is null
where $1::uuid is null or s.list_id < $1
order by s.list_id desc limit $2;

-- name: claim_due
-- One source that is due and that nobody fetches, until $1. $2 is the present time.
update list_source set leased_until = $1
where list_id = (
    select list_id from list_source where due_at <= $2 and coalesce(leased_until, $2) <= $2
    order by due_at
    for update skip locked
    limit 1
)
returning list_id;

-- name: claim_source
-- The source of one list, due or not, unless somebody fetches it.
update list_source set leased_until = $2 where list_id = $1 and coalesce(leased_until, $3) <= $3 returning list_id;

-- name: extend_lease
update list_source set leased_until = $3 where list_id = $1 and set_at = $2;

-- name: mark_published
-- $2 is the time of the settings that were used: after a change of them, nothing is recorded.
update list_source set version = $3, etag = $4, last_modified = $5, content_sha256 = $6, checked_at = $7, due_at = $8,
    leased_until = null, failures = 0, failure = null, failed_at = null, smaller_rows = null, confirmed_rows = null
where list_id = $1 and set_at = $2;

-- name: mark_unchanged
-- The list is as fresh as its source, if it still is what this source made of it.
with checked as (
    update list_source set checked_at = $3, due_at = $4, leased_until = null, failures = 0, failure = null,
        failed_at = null, smaller_rows = null, confirmed_rows = null
    where list_id = $1 and set_at = $2
    returning version
)
update contact_list l set refreshed_at = $3 from checked where l.id = $1 and l.version = checked.version;

-- name: mark_failed
update list_source set failures = failures + 1, failure = $3, failed_at = $4, due_at = $5, leased_until = null,
    smaller_rows = $6
where list_id = $1 and set_at = $2;

-- name: request_refresh
-- As if it were due, with the pause after a failure ended.
update list_source set due_at = least(due_at, $2) where list_id = $1 returning list_id;

-- name: confirm_smaller
-- The file with this number of rows ($2) is complete: it is fetched again, and may replace the list.
update list_source set confirmed_rows = $2, due_at = $3 where list_id = $1 and smaller_rows = $2 returning list_id;

-- name: delete_source
delete from list_source where list_id = $1 returning list_id;
