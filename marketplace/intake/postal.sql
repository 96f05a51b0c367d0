-- name: lock_reference_data
-- One loader at a time: two processes may start on the same empty database.
select pg_advisory_xact_lock(hashtext('reference_data'));

-- name: find_loaded_version
-- A database that has this version already is not loaded again.
select version, rows from reference_data where name = 'postal_area';

-- name: delete_postal_areas
-- Areas come and go between versions; a load replaces the country's whole set.
delete from postal_area where country = $1;

-- name: record_loaded_version
-- The origin of the areas, by which the next start skips the load.
insert into reference_data (name, version, rows, loaded_at)
values ('postal_area', $1, $2, clock_timestamp())
on conflict (name) do update set version = excluded.version, rows = excluded.rows, loaded_at = excluded.loaded_at;

-- name: list_postal_areas
-- One code or a district of them, by primary key. A process reads each district once while its cache has room.
select country, code, city, region, latitude, longitude, time_zone from postal_area
where country = $1 and code between $2 and $3;
