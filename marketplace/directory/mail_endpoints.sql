-- name: insert_target
insert into mail_target (endpoint_id, business_id, address, mode, with_adf) values ($1, $2, $3, $4, $5);

-- name: find_target
select t.endpoint_id, t.business_id, b.name as business_name, e.state, t.address, t.mode, t.with_adf
from mail_target t
join endpoint e on e.id = t.endpoint_id
join business b on b.id = t.business_id
where t.endpoint_id = $1;

-- name: mark_terms
update mail_target set mode = $2, with_adf = $3 where endpoint_id = $1;

-- name: count_sent
-- Confirmations and test messages since $3: to one address, and of one business.
select (select count(*) from outgoing_mail where recipient = $1 and kind in ('confirmation', 'test') and made_at > $3) as to_address,
       (select count(*) from outgoing_mail where business_id = $2 and kind in ('confirmation', 'test') and made_at > $3) as of_business;
