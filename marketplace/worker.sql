-- name: claim_due_leads
-- Leads that are due: a lost wake-up, a nurtured date, a wait that is over. The worker that takes them has the lease.
-- The time is a subquery, which an index can be searched by: a volatile function would be asked for every waiting lead.
update lead set due_at = clock_timestamp() + $1
where id in (
    select id from lead
    where state in ('received', 'nurturing', 'prospect') and due_at <= (select clock_timestamp())
    order by due_at for no key update skip locked limit $2)
returning id;

-- name: make_partitions
select make_partitions(clock_timestamp(), $1);
