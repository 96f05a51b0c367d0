-- name: find_hook
select endpoint_id from stage_hook where business_id = $1;

-- name: save_hook
-- Only an active webhook endpoint of the business receives changes.
insert into stage_hook (business_id, endpoint_id, set_at)
select e.business_id, e.id, $3 from endpoint e
where e.id = $2 and e.business_id = $1 and e.kind = 'push' and e.state = 'active'
on conflict (business_id) do update set endpoint_id = excluded.endpoint_id, set_at = excluded.set_at
returning endpoint_id;

-- name: delete_hook
delete from stage_hook where business_id = $1 returning endpoint_id;

-- name: claim_due
-- Each is leased to one worker, and is due again if the lease runs out.
update stage_change set due_at = clock_timestamp() + $1, attempts = attempts + 1
where id in (
    select id from stage_change where due_at <= (select clock_timestamp())
    order by due_at for no key update skip locked limit $2)
returning id;

-- name: find_change
-- With the endpoint that the business chose; without one, or if it is switched off, there is no URL.
select c.id, c.business_id, c.previous_stage, c.undone, c.attempts, c.made_at, d.lead_id, d.assignment_id, a.mode,
       a.currency, d.kind, coalesce(s.stage, d.stage, d.kind) as stage, d.value_minor, d.starts_at, d.happened_at,
       e.id as endpoint_id, e.url, e.secret, e.previous_secret, e.previous_until,
       e.contract - 'samples' as contract, clock_timestamp() as read_at
from stage_change c
join disposition d on d.id = c.disposition_id
join assignment a on a.id = d.assignment_id
left join pipeline_stage s on s.id = d.stage_id
left join stage_hook h on h.business_id = c.business_id
left join endpoint e on e.id = h.endpoint_id and e.state = 'active' and e.mapping is null
where c.id = $1 and c.state = 'due';

-- name: mark_sent
update stage_change set state = $2, due_at = $3, result = $4 where id = $1 and state = 'due';

-- name: list_changes
-- The last changes of a business and what became of each.
select id, state, attempts, result, made_at, due_at from stage_change
where business_id = $1 and state <> 'listed' order by position desc limit $2;

-- name: find_position
-- Position of a change in the list of its business.
select position from stage_change where id = $1 and business_id = $2;

-- name: list_after
-- Changes of a business after a position, oldest first.
select c.id, c.previous_stage, c.undone, c.made_at, d.lead_id, d.assignment_id, a.mode, a.currency, d.kind,
       coalesce(s.stage, d.stage, d.kind) as stage, d.value_minor, d.starts_at, d.happened_at
from stage_change c
join disposition d on d.id = c.disposition_id
join assignment a on a.id = d.assignment_id
left join pipeline_stage s on s.id = d.stage_id
where c.business_id = $1 and c.position > $2 and ($3::text is null or a.mode = $3)
order by c.position
limit $4;

-- name: delete_old
delete from stage_change where made_at < $1 and due_at is null;
