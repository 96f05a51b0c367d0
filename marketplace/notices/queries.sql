-- name: insert_notice
-- The exposure names the only business that was shown the lead; no row without one.
insert into notice (id, lead_id, kind, business_id, assignment_id, made_at, detail, state, due_at, deadline_at)
select $1, x.lead_id, $3, x.business_id, x.assignment_id, $4::timestamptz, $5, 'due', $4::timestamptz, $6
from exposure x where x.lead_id = $2
returning id;

-- name: claim_due_notices
-- Each is leased to one worker, and is due again if the lease runs out.
update notice set due_at = clock_timestamp() + $1, attempts = attempts + 1
where id in (
    select id from notice
    where due_at <= (select clock_timestamp())
    order by due_at for no key update skip locked limit $2)
returning id, lead_id;

-- name: find_notice
-- With the endpoint that the lead was sent to, or another active one of the business if that is switched off. Software that
-- gets requests of its own form does not read notices.
select n.id, n.lead_id, n.kind, n.assignment_id, n.business_id, l.mode, n.made_at, n.detail, n.state, n.deadline_at,
       n.attempts, p.id as endpoint_id, p.kind as endpoint_kind, p.url, p.secret, p.previous_secret, p.previous_until,
       p.contract, clock_timestamp() as read_at
from notice n
join lead l on l.id = n.lead_id
join exposure x on x.lead_id = n.lead_id
left join lateral (
    select id, kind, url, secret, previous_secret, previous_until, contract - 'samples' as contract from endpoint
    where business_id = n.business_id and state = 'active' and mapping is null
    order by id = x.endpoint_id desc, id desc limit 1
) p on true
where n.id = $1 and n.due_at is not null;

-- name: find_event
-- The notice as its business reads it in the feed. No row for one that was withdrawn.
select n.id, n.lead_id, n.kind, n.assignment_id, n.business_id, l.mode, n.made_at, n.detail, n.deadline_at
from notice n join lead l on l.id = n.lead_id
where n.id = $1 and n.state <> 'withdrawn';

-- name: place_notice
-- In the feed of the business that was shown the lead; null if it is there already.
select place_in_feed($1, $2, $3, $4);

-- name: mark_due
-- The time of the next attempt; none ends the reminders of an overdue notice.
update notice set due_at = $2, result = coalesce($3, result) where id = $1 and state in ('due', 'overdue');

-- name: mark_overdue
update notice set state = 'overdue', due_at = $2 where id = $1 and state = 'due' returning id;

-- name: mark_acknowledged
-- Only the first acknowledgement is recorded; one after the deadline is accepted.
update notice set state = 'acknowledged', due_at = null, result = $3, acknowledged_at = $2
where id = $1 and state in ('due', 'overdue')
returning lead_id, kind;

-- name: withdraw_updates
-- Facts of an erased person are destroyed, and news of them is not sent any more.
update notice set detail = '{}', due_at = null, state = case when state = 'acknowledged' then state else 'withdrawn' end
where lead_id = $1 and kind = 'updated';

-- name: list_notices
-- Newest first; $1 limits them to a lead, $2 to a business, $3 to a mode, $4 to a state, $5 is the last of the previous page.
select n.id, n.lead_id, n.kind, n.business_id, b.name as business_name, l.mode, n.made_at, n.detail, n.state, n.attempts,
       n.result, n.acknowledged_at, n.deadline_at
from notice n join lead l on l.id = n.lead_id join business b on b.id = n.business_id
where ($1::uuid is null or n.lead_id = $1) and ($2::uuid is null or n.business_id = $2)
  and ($3::text is null or l.mode = $3) and ($4::text is null or n.state = $4)
  and ($5::uuid is null or (n.made_at, n.id) < (select c.made_at, c.id from notice c where c.id = $5))
order by n.made_at desc, n.id desc
limit $6;

-- name: count_open
-- What a business has to act on: revoked consent and erased people of this mode that it has not acknowledged.
select count(*) from notice n join lead l on l.id = n.lead_id
where n.business_id = $1 and n.kind in ('erased', 'revoked') and n.state in ('due', 'overdue') and l.mode = $2;

-- name: find_of_business
-- A notice to this business, as lists show it.
select n.id, n.lead_id, n.kind, n.business_id, b.name as business_name, l.mode, n.made_at, n.detail, n.state, n.attempts,
       n.result, n.acknowledged_at, n.deadline_at
from notice n join lead l on l.id = n.lead_id join business b on b.id = n.business_id
where n.id = $1 and n.business_id = $2;
