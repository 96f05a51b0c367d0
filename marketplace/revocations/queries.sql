-- name: insert_revocation
-- No row if the same sender has sent this message before.
insert into revocation (id, revoked_at, requested_by, provider_id, mode, channels, reason, message_id)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (requested_by, message_id) where message_id is not null do nothing
returning id;

-- name: find_of_message
-- The revocation that a signed message made.
select id, revoked_at, channels from revocation where requested_by = $1 and message_id = $2;

-- name: is_settled
-- Whether the lead was erased, or an earlier revocation has said as much: of all channels, or of these.
select exists (select from erasure where lead_id = $1)
    or exists (select from revoked_lead d join revocation r on r.id = d.revocation_id
               where d.lead_id = $1 and (r.channels = '{}' or ($2::text[] <> '{}' and r.channels @> $2)));

-- name: insert_revoked_lead
-- The exposure, if there is one, names the business to which the notice $4 goes.
insert into revoked_lead (lead_id, revocation_id, state, business_id, notice_id)
select l.id, $2, $3, x.business_id, $4 from lead l left join exposure x on x.lead_id = l.id where l.id = $1;

-- name: list_revocations
-- Newest first, with how many leads ended and how many businesses were told; $1 is the last of the previous page.
select r.id, r.revoked_at, r.requested_by, r.mode, r.channels, r.reason, count(d.lead_id) as leads,
       count(n.id) as notices, count(n.id) filter (where n.state = 'acknowledged') as acknowledged,
       count(n.id) filter (where n.state = 'overdue') as overdue
from revocation r
left join revoked_lead d on d.revocation_id = r.id
left join notice n on n.id = d.notice_id
where ($1::uuid is null or r.id < $1) and ($2::text is null or r.mode = $2)
group by r.id
order by r.id desc
limit $3;

-- name: find_hook
select owner_id, secret, previous_secret, previous_until from revocation_hook where owner_id = $1;

-- name: save_hook
-- The secret in use becomes the previous one, valid until $4.
insert into revocation_hook (owner_id, provider_id, secret, made_at) values ($1, $2, $3, $5)
on conflict (owner_id) do update
set previous_secret = revocation_hook.secret, previous_until = $4, secret = excluded.secret, made_at = excluded.made_at
returning owner_id, secret, previous_secret, previous_until;
