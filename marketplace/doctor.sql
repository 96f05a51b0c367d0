-- name: read_server
-- Each setting whose wrong value loses or corrupts what was answered with a 2xx, as this connection sees it; and the time.
select
    clock_timestamp() as now,
    current_setting('server_version_num')::int as version,
    current_setting('fsync') as fsync,
    current_setting('full_page_writes') as full_page_writes,
    current_setting('synchronous_commit') as synchronous_commit,
    current_setting('data_checksums') as data_checksums;

-- name: list_overrides
-- A role or a database may carry a setting of its own, which other connections than this one would get.
select coalesce(r.rolname, 'every role') as role_name, coalesce(d.datname, 'every database') as database_name
from pg_db_role_setting s
left join pg_roles r on r.oid = s.setrole
left join pg_database d on d.oid = s.setdatabase
cross join unnest(s.setconfig) as setting
where setting ~* '^synchronous_commit=(off|false|no|0)$'  -- kept as it was typed
  and (s.setdatabase = 0 or d.datname = current_database())
order by 1, 2;
