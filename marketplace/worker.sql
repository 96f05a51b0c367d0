-- name: claim_due_leads
-- Due leads after a lost wake-up, a nurturing date or a wait, leased to this worker. The time is a subquery, by which
-- an index can be searched: a volatile function would be evaluated for every waiting lead.
update lead set due_at = clock_timestamp() + $1
where id in (
    select id from lead
    where state in ('received', 'nurturing', 'prospect') and due_at <= (select clock_timestamp())
    order by due_at for no key update skip locked limit $2)
returning id;

-- name: make_partitions
select make_partitions(clock_timestamp(), $1);
