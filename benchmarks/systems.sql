-- name: count_open
-- Leads of these providers on which the marketplace is working, received since $2.
select count(*) from lead
where provider_id = any($1) and received_at >= $2 and state in ('received', 'prospect', 'held', 'exposed');

-- name: list_times
-- Times of delivered leads, in seconds since 1970, and the receiver's milliseconds in the attempt that was accepted.
select l.id, extract(epoch from l.received_at)::float8 as received_at,
       extract(epoch from a.settled_at)::float8 as settled_at, t.first_byte_ms::float8 as receiver_ms
from lead l
join assignment a on a.lead_id = l.id and a.state = 'delivered'
join attempt t on t.assignment_id = a.id and t.outcome = 'accepted'
where l.id = any($1);
