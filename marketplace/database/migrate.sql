-- name: create_record
-- Applied migrations with their checksums: an applied file must not change.
create table if not exists schema_migration (
    version integer primary key,
    name text not null,
    sha256 text not null,
    applied_at timestamptz not null default now()
);

-- name: let_record_be_read
-- At their start, processes check as other logins than the owner that code and schema match.
grant select on schema_migration to marketplace_reports;

-- name: record_exists
-- A database that was never migrated has no record, and one of an older release lets only its owner read it.
select coalesce(has_table_privilege(to_regclass('schema_migration'), 'select'), false) as found;

-- name: list_applied
-- In the order of application, which is the order of numbers.
select version, name, sha256 from schema_migration order by version;

-- name: insert_applied
-- In the transaction of the migration, so that both are visible together.
insert into schema_migration (version, name, sha256) values ($1, $2, $3);

-- name: lock_schema
-- One migration run at a time: of several processes that start together, one applies and the others wait.
select pg_advisory_lock(7290111);
