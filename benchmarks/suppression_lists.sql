-- name: read_sizes
select pg_table_size('list_member')::bigint as table_bytes, pg_indexes_size('list_member')::bigint as index_bytes;

-- name: insert_keys
-- The keys of one lead, without the lead.
insert into person_key (lead_id, key) select $1, mine.key from unnest($2::bytea[]) as mine (key);

-- name: is_stopped
select is_stopped($1::uuid);

-- name: is_withdrawn
select is_withdrawn($1::uuid);

-- name: is_own_customer
select is_own_customer($1::uuid, $1::uuid);
