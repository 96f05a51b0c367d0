-- name: claim_due_leads
-- Leads whose time has come: a lost knock, a nurtured date, a wait that is over. Leased to whoever takes them.
update lead set due_at = clock_timestamp() + $1
where id in (
    select id from lead
    where state in ('received', 'nurturing', 'prospect') and due_at <= clock_timestamp()
    order by due_at for no key update skip locked limit $2)
returning id;

-- name: make_partitions
select make_partitions(clock_timestamp(), $1);
