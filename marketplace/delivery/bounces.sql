-- name: find_lead
select business_id, endpoint_id, id as assignment_id, null::uuid as mail_id from assignment where id = $1;

-- name: find_mail
-- Only a message about a lead says something about the endpoint.
select business_id, case when kind = 'lead' then endpoint_id end as endpoint_id, null::uuid as assignment_id, id as mail_id
from outgoing_mail where id = $1;

-- name: insert_bounce
-- Once per message that came back.
insert into mail_bounce (id, digest, business_id, endpoint_id, assignment_id, mail_id, status, received_at)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict on constraint mail_bounce_once do nothing
returning id;

-- name: list_bounces
-- Newest first, of one business or of all. The lead of a message that only announced it may be another business's by now.
select m.id, m.business_id, b.name as business_name, m.status, m.received_at, a.lead_id, coalesce(o.recipient, t.address) as address
from mail_bounce m
left join business b on b.id = m.business_id
left join assignment a on a.id = m.assignment_id
left join outgoing_mail o on o.id = m.mail_id
left join mail_target t on t.endpoint_id = m.endpoint_id
where $1::uuid is null or m.business_id = $1
order by m.received_at desc
limit $2;
