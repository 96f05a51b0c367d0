-- name: list_qualified
-- The newest qualified leads of a vertical, to count those that a subscription would have matched. Read among the newest
-- 20,000 leads of all verticals: the limit keeps a vertical with few leads from reading the whole table.
select l.id, facts_at(l.id, i.facts, l.revision) as facts, l.received_at
from (select id, vertical_id, received_at, qualified_at, mode, revision from lead order by id desc limit 20000) l
join inquiry i on i.id = l.id
where l.vertical_id = $1 and l.mode = 'live' and l.received_at >= $2 and l.qualified_at is not null
order by l.id desc
limit $3;

-- name: find_business_names
-- Names by which a consent may name a business.
select seller_names from business where id = $1;
