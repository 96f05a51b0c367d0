-- name: insert_audit
-- Append only, in the transaction of the change.
insert into audit (id, at, actor, action, object, detail) values ($1, $2, $3, $4, $5, $6);

-- name: take_turn
-- One worker seals at a time.
select pg_try_advisory_xact_lock(hashtext('marketplace.audit.seal'));

-- name: find_end
-- End of the chain, and the transaction number below which all transactions have ended, so that no row can be added.
select coalesce(b.number, 0) as number, b.seal, coalesce(b.xid_to, '0'::xid8) as xid_to,
       pg_snapshot_xmin(pg_current_snapshot()) as settled
from (select) as single
left join (select number, seal, xid_to from audit_block order by number desc limit 1) as b on true;

-- name: find_cut
-- Transaction in which a block of $3 rows would end, if so many wait: rows of one transaction stay in one block.
select committed_by from audit_entry
where committed_by >= $1 and committed_by < $2
order by committed_by offset $3 limit 1;

-- name: digest_entries
-- Place and digest of each row of these transactions, in order, concatenated.
select string_agg(place || digest, ''::bytea order by committed_by, place)
from audit_entry where committed_by >= $1 and committed_by < $2;

-- name: insert_block
insert into audit_block (number, previous, xid_from, xid_to, entries, sealed_at, seal)
values ($1, $2, $3, $4, $5, $6, $7);

-- name: prepare_snapshot
-- Read as the role that sees no contact data, without waiting for locks, bounded in time and memory.
select set_config('role', 'marketplace_reports', true), set_config('statement_timeout', '60s', true),
       set_config('lock_timeout', '1s', true), set_config('work_mem', '64MB', true), set_config('jit', 'off', true),
       set_config('max_parallel_workers_per_gather', '0', true);

-- name: list_blocks
select number, previous, xid_from, xid_to, entries, sealed_at, seal from audit_block order by number;

-- name: list_places
-- Which of these rows exist in the tables, in whatever transaction.
select '\x61'::bytea || uuid_send(id) as place from audit where id = any($1::uuid[])
union all
select '\x65'::bytea || uuid_send(lead_id) from exposure where lead_id = any($1::uuid[])
union all
select '\x74'::bytea || uuid_send(id) from transfer where id = any($1::uuid[])
union all
select '\x6d0000000000000000'::bytea || int8send(position) from move where position = any($2::bigint[]);

-- name: list_unsealed
-- Rows after the end of the chain that should have been sealed by now.
select place from audit_entry
where committed_by >= $1 and at < clock_timestamp() - $2::interval
order by committed_by, place limit $3;

-- name: list_unrecorded
-- Each recorded move enters one state and leaves another, so that the states of all moves of a lead cancel out except
-- its current one. A remaining difference means that a state or a move was changed without the triggers.
with net_states as (
    select lead_id, assignment_id, entered_state as state, 1 as net from move
    union all
    select lead_id, assignment_id, left_state, -1 from move where left_state is not null
    union all
    select id, null, state, -1 from lead
    union all
    select lead_id, id, state, -1 from assignment
)
select distinct case when assignment_id is null then 'lead' else 'assignment' end as "table",
       coalesce(assignment_id, lead_id)::text as id
from (
    select lead_id, assignment_id from net_states group by lead_id, assignment_id, state having sum(net) <> 0
) as unbalanced
order by 1, 2 limit $1;
