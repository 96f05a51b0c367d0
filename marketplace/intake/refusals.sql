-- name: add_refusals
-- Adds the counts of one process since its last write. Pointer `*` counts requests, all others count faults.
insert into refusal_count (provider_id, mode, hour, pointer, code, count)
select c.provider_id, c.mode, c.hour, c.pointer, c.code, c.count
from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::int[])
    as c (provider_id, mode, hour, pointer, code, count)
order by c.provider_id, c.mode, c.hour, c.pointer, c.code
on conflict (provider_id, mode, hour, pointer, code) do update set count = refusal_count.count + excluded.count;

-- name: keep_examples
-- Replaces the shape by that of the last value.
insert into refusal_example (provider_id, mode, pointer, code, shape, seen_at)
select e.provider_id, e.mode, e.pointer, e.code, e.shape, e.seen_at
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
    as e (provider_id, mode, pointer, code, shape, seen_at)
order by e.provider_id, e.mode, e.pointer, e.code
on conflict (provider_id, mode, pointer, code) do update set shape = excluded.shape, seen_at = excluded.seen_at;
