-- name: insert_request
insert into deletion_request (id, mode, received_at, deadline_at, requested_by, keys, lead_id, contact, suppresses)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: list_keys_of_lead
-- The keyed hashes of the person of a lead. None for an erased lead.
select key from person_key where lead_id = $1 order by key;

-- name: lock_request
-- One caller at a time names leads of a request, refuses it or ends it.
select id, mode, state, keys, lead_id, contact, suppresses from deletion_request where id = $1 for no key update;

-- name: list_unnamed_leads
-- The leads of the person that the request does not name yet.
select l.id
from (select lead_id from person_key where key = any($3::bytea[]) union select $4::uuid) p
join lead l on l.id = p.lead_id
where l.mode = $2 and not exists (select from deletion_lead d where d.request_id = $1 and d.lead_id = l.id)
order by l.id
limit $5;

-- name: name_leads
insert into deletion_lead (request_id, lead_id) select $1, unnest($2::uuid[]) on conflict do nothing;

-- name: list_unerased_leads
-- The leads that the request names and that were not erased yet.
select d.lead_id from deletion_lead d
where d.request_id = $1 and not exists (select from erasure e where e.lead_id = d.lead_id)
order by d.lead_id;

-- name: mark_erased
update deletion_request set state = 'erased', erased_at = $2 where id = $1 and state = 'open' returning id;

-- name: mark_refused
update deletion_request set state = 'refused', refusal = $2, ended_at = $3, contact = null
where id = $1 and state = 'open' returning id;

-- name: complete
-- Those of which no notice waits any more: each was acknowledged, or is overdue. $2 limits them to one request.
update deletion_request r set state = 'done', ended_at = $1, contact = null
where r.state = 'erased' and r.ended_at is null and ($2::uuid is null or r.id = $2) and not exists (
    select from deletion_lead d join erasure e on e.lead_id = d.lead_id join notice n on n.id = e.notice_id
    where d.request_id = r.id and n.state = 'due')
returning id;

-- name: find_request
select r.id, r.mode, r.received_at, r.deadline_at, r.requested_by, r.lead_id, r.suppresses, r.state, r.refusal,
       r.erased_at, r.ended_at, r.contact is not null as has_contact, c.leads, c.notices, c.acknowledged, c.overdue
from deletion_request r
cross join lateral (
    select count(*) as leads, count(n.id) as notices, count(n.id) filter (where n.state = 'acknowledged') as acknowledged,
           count(n.id) filter (where n.state = 'overdue') as overdue
    from deletion_lead d left join erasure e on e.lead_id = d.lead_id left join notice n on n.id = e.notice_id
    where d.request_id = r.id
) c
where r.id = $1;

-- name: list_requests
-- Those that wait first, by their deadline; $1 is the last of the previous page. $2 is a state, or 'late' for those that
-- have not ended by $3; $4 limits them to a mode.
select r.id, r.mode, r.received_at, r.deadline_at, r.requested_by, r.lead_id, r.suppresses, r.state, r.refusal,
       r.erased_at, r.ended_at, r.contact is not null as has_contact, c.leads, c.notices, c.acknowledged, c.overdue
from deletion_request r
cross join lateral (
    select count(*) as leads, count(n.id) as notices, count(n.id) filter (where n.state = 'acknowledged') as acknowledged,
           count(n.id) filter (where n.state = 'overdue') as overdue
    from deletion_lead d left join erasure e on e.lead_id = d.lead_id left join notice n on n.id = e.notice_id
    where d.request_id = r.id
) c
where ($1::uuid is null or ((r.ended_at is not null), r.deadline_at, r.id) >
       (select (p.ended_at is not null), p.deadline_at, p.id from deletion_request p where p.id = $1))
  and ($2::text is null or r.state = $2 or ($2 = 'late' and r.ended_at is null and r.deadline_at <= $3))
  and ($4::text is null or r.mode = $4)
order by (r.ended_at is not null), r.deadline_at, r.id
limit $5;

-- name: list_leads
-- The leads of a request, each with its erasure and the notice to the business that was shown it.
select d.lead_id, e.requested_at as erased_at, e.suppressed, e.business_id, b.name as business_name,
       n.state as notice_state, n.made_at as notified_at, n.acknowledged_at, n.deadline_at
from deletion_lead d
left join erasure e on e.lead_id = d.lead_id
left join business b on b.id = e.business_id
left join notice n on n.id = e.notice_id
where d.request_id = $1
order by d.lead_id;
