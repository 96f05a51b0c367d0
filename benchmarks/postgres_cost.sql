-- What PostgreSQL has written and run, for benchmarks/postgres_cost.py.

-- name: sum_log
-- Records and bytes of the log between two positions, page images apart, and the transactions that committed.
select count(*) as records, sum(record_length - fpi_length)::bigint as bytes, sum(fpi_length)::bigint as image_bytes,
       count(*) filter (where resource_manager = 'Transaction' and record_type like 'COMMIT%') as commits
from pg_get_wal_records_info($1::text::pg_lsn, $2::text::pg_lsn);

-- name: list_changes
-- Changes of tables and indexes by kind. A record counts for its first block alone: an update names two pages. Partitions
-- count as their table. `rows` of a multiple insert is in its description.
select coalesce(case when c.relkind in ('i', 'I') then 'index' when c.relkind in ('r', 'p', 't') then 'table' else 'other' end,
           'other') as kind,
       coalesce(parent.relname, regexp_replace(c.relname, '_20\d\d_\d\d', ''), 'another') as relation,
       b.record_type, count(*) as records, sum(b.record_length - b.fpi_total)::bigint as bytes,
       sum(coalesce((regexp_match(b.description, 'ntuples: (\d+)'))[1]::int, 1))::bigint as rows
from (
    select distinct on (start_lsn) start_lsn, reltablespace, relfilenode, resource_manager, record_type, description,
           record_length, sum(block_fpi_length) over (partition by start_lsn) as fpi_total
    from pg_get_wal_block_info($1::text::pg_lsn, $2::text::pg_lsn)
    where relforknumber = 0
    order by start_lsn, block_id
) b
left join pg_class c on c.oid = pg_filenode_relation(b.reltablespace, b.relfilenode)
left join pg_inherits i on i.inhrelid = c.oid
left join pg_class parent on parent.oid = i.inhparent
where b.resource_manager <> 'XLOG'
group by 1, 2, 3
order by 1, 2, 3;

-- name: list_statements
select query, toplevel, sum(calls)::bigint as calls, sum(total_exec_time) as run_ms, sum(total_plan_time) as plan_ms,
       sum(wal_bytes)::bigint as wal_bytes
from pg_stat_statements
where dbid = (select oid from pg_database where datname = current_database())
group by query, toplevel
order by sum(total_exec_time) + sum(total_plan_time) desc;
