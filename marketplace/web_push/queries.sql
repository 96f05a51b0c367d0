-- name: delete_url
-- Before it is inserted anew: a browser belongs to the member who signed in there last.
delete from push_subscription where url_sha256 = $1;

-- name: insert_subscription
insert into push_subscription (id, member_id, url, url_sha256, keys, device, made_at) values ($1, $2, $3, $4, $5, $6, $7);

-- name: count_of_member
select count(*) from push_subscription where member_id = $1;

-- name: list_of_member
select id, member_id, url, keys, device, made_at from push_subscription where member_id = $1 order by made_at desc, id;

-- name: delete_of_member
delete from push_subscription where id = $1 and member_id = $2 returning id;

-- name: list_of_business
-- Subscriptions of all members of a business who may take leads.
select p.id, p.member_id, p.url, p.keys, p.device, p.made_at
from member m join push_subscription p on p.member_id = m.id
where m.owner_id = $1 and m.kind = 'business' and m.state = 'active' and m.role <> 'viewer'
order by p.made_at desc, p.id
limit $2;

-- name: delete_ended
-- The push service says that the browser has ended its subscription.
delete from push_subscription where id = $1;
