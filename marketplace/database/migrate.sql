-- name: create_record
-- What has been applied, and as what: an applied file may never change.
create table if not exists schema_migration (
    version integer primary key,
    name text not null,
    sha256 text not null,
    applied_at timestamptz not null default now()
);

-- name: let_record_be_read
-- Processes look at their start whether code and schema fit together, and log in as others than the owner.
grant select on schema_migration to marketplace_reports;

-- name: record_exists
-- A database that was never migrated has no record to read, and one of an older release keeps it from all but its owner.
select coalesce(has_table_privilege(to_regclass('schema_migration'), 'select'), false) as found;

-- name: list_applied
-- In the order of applying, which is the order of numbers.
select version, name, sha256 from schema_migration order by version;

-- name: insert_applied
-- In the transaction of the migration itself, so that neither is ever seen without the other.
insert into schema_migration (version, name, sha256) values ($1, $2, $3);

-- name: lock_schema
-- One migrator at a time: of several processes that start at once, one works and the others find it done.
select pg_advisory_lock(7290111);
