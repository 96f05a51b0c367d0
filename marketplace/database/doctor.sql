-- name: read_server
-- Settings whose wrong value loses or corrupts data that was answered with a 2xx, as this connection sees them; and the
-- time.
select
    clock_timestamp() as now,
    pg_is_in_recovery() as standby,
    current_setting('server_version_num')::int as version,
    current_setting('fsync') as fsync,
    current_setting('full_page_writes') as full_page_writes,
    current_setting('synchronous_commit') as synchronous_commit,
    current_setting('data_checksums') as data_checksums;

-- name: list_overrides
-- Roles and databases with a setting of their own, which other connections than this one would get.
select coalesce(r.rolname, 'every role') as role_name, coalesce(d.datname, 'every database') as database_name
from pg_db_role_setting s
left join pg_roles r on r.oid = s.setrole
left join pg_database d on d.oid = s.setdatabase
cross join unnest(s.setconfig) as setting
where setting ~* '^synchronous_commit=(off|false|no|0)$'  -- stored as it was typed
  and (s.setdatabase = 0 or d.datname = current_database())
order by 1, 2;

-- name: list_settings
-- Settings with another value on this connection than expected; unknown ones of newer versions are left out.
select s.name, current_setting(s.name) as value, expected.value as expected, s.source
from unnest($1::text[], $2::text[]) as expected (name, value) join pg_settings s on lower(s.name) = expected.name
where case
    when s.unit = 'ms' then s.setting::numeric <> 1000 * extract(epoch from expected.value::interval)
    else current_setting(s.name) <> expected.value
end
order by s.name;

-- name: list_powers
-- Rights that the login of a process must not have, directly or through a role.
select array_remove(array[
    case when bool_or(r.rolsuper) then 'is a superuser' end,
    case when bool_or(r.rolcreaterole) then 'may create roles' end,
    case when bool_or(r.rolcreatedb) then 'may create databases' end,
    case when bool_or(r.rolreplication) then 'may replicate' end,
    case when bool_or(r.rolbypassrls) then 'passes row-level security by' end,
    case when bool_or(r.rolname = session_user and r.rolinherit) then 'has privileges without acting as a role' end,
    case when bool_or(r.rolname not like 'marketplace\_%') then 'belongs to roles that are not the marketplace''s' end,
    case when exists (select from pg_class c where pg_has_role(session_user, c.relowner, 'member'))
        then 'owns tables' end,
    case when has_schema_privilege('public', 'public', 'create') then 'may create tables' end
], null) as powers
from pg_roles r where pg_has_role(session_user, r.oid, 'member');
