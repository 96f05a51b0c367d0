-- name: lock_lead
-- An erasure that has begun is finished first, and the insert that follows sees it.
select id from lead where id = $1 for no key update;

-- name: save_action
-- The next action of a lead, in place of the previous one. Nothing is stored about an erased person.
insert into next_action (assignment_id, lead_id, business_id, note, due_at, set_at, set_by)
select a.id, a.lead_id, a.business_id, $4, $5, $6, $7
from assignment a
where a.lead_id = $1 and a.business_id = $2 and ($3::text is null or a.mode = $3)
    and a.state in ('exposed', 'delivered') and not exists (select from erasure where lead_id = a.lead_id)
on conflict (assignment_id) do update
set note = excluded.note, due_at = excluded.due_at, set_at = excluded.set_at, set_by = excluded.set_by, done_at = null
returning assignment_id, lead_id, note, due_at;

-- name: mark_done
update next_action set done_at = $4
where lead_id = $1 and business_id = $2 and done_at is null
    and exists (select from assignment a where a.id = assignment_id and ($3::text is null or a.mode = $3))
returning assignment_id, lead_id, note, due_at;

-- name: mark_snoozed
update next_action set due_at = $4
where lead_id = $1 and business_id = $2 and done_at is null
    and exists (select from assignment a where a.id = assignment_id and ($3::text is null or a.mode = $3))
returning assignment_id, lead_id, note, due_at;

-- name: find_action
select assignment_id, lead_id, note, due_at from next_action where lead_id = $1 and business_id = $2 and done_at is null;

-- name: list_due
-- Open actions of a business that are due until $3, the longest due first.
select n.assignment_id, n.lead_id, n.note, n.due_at
from next_action n join assignment a on a.id = n.assignment_id
where n.business_id = $1 and a.mode = $2 and n.done_at is null and n.due_at <= $3
order by n.due_at
limit $4;

-- name: list_open
-- Open actions of a business page by page, those of the newest assignments first.
select n.assignment_id, n.lead_id, n.note, n.due_at
from next_action n join assignment a on a.id = n.assignment_id
where n.business_id = $1 and ($2::text is null or a.mode = $2) and n.done_at is null
    and ($3::timestamptz is null or n.due_at < $3) and ($4::uuid is null or n.assignment_id < $4)
order by n.assignment_id desc
limit $5;
