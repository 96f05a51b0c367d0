-- name: insert_mail
-- Once per kind, recipient and occasion; due at once.
insert into outgoing_mail (id, kind, business_id, endpoint_id, assignment_id, recipient, occasion, letter, due_at, made_at, give_up_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10)
on conflict on constraint outgoing_mail_once do nothing
returning id;

-- name: claim_due
-- Each is leased to one worker, and due again if the lease runs out.
update outgoing_mail set due_at = clock_timestamp() + $1, attempts = attempts + 1
where id in (
    select id from outgoing_mail
    where due_at <= (select clock_timestamp())
    order by due_at for update skip locked limit $2)
returning id;

-- name: find_mail
select id, recipient, letter, attempts, made_at, give_up_at, clock_timestamp() as read_at
from outgoing_mail where id = $1 and state = 'due';

-- name: mark_sent
-- The text is deleted once nothing is to be sent any more.
update outgoing_mail
set state = $2, due_at = $3, result = $4, sent_at = case when $2 = 'sent' then $5::timestamptz end,
    letter = case when $2 = 'due' then letter end
where id = $1 and state = 'due';

-- name: delete_old
delete from outgoing_mail o
where state <> 'due' and made_at < $1 and not exists (select from mail_bounce b where b.mail_id = o.id);
