-- name: insert_lead
insert into lead (id, submitted_at, received_at, contact, facts) values ($1, $2, $3, $4, $5);

-- name: award
select url, secret, contact, facts from award($1, $2, $3);

-- name: mark_delivered
update lead set state = $2, queue_ms = $3, receiver_ms = $4, delivered_at = $5 where id = $1;

-- name: list_times
-- Times of delivered leads, in seconds since 1970, and the milliseconds of their parts.
select id, extract(epoch from received_at)::float8 as received_at, extract(epoch from delivered_at)::float8 as settled_at,
       queue_ms, receiver_ms
from lead where id = any($1) and state = 'delivered';

-- name: count_open
select count(*) from lead where state in ('received', 'held');

-- name: count_findings
-- Wallets that lost something else than the price ($1) of each lead sold to their business; they began with $2.
select count(*) from business b
where b.available_minor + $1 * (select count(*) from lead l where l.business_number = b.number) <> $2;
