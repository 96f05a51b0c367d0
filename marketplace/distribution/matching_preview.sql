-- name: list_qualified
-- The newest leads of a vertical that were qualified, for a count of how many a subscription would have matched. Of no more
-- than the newest 20,000 of all verticals, so that a quiet one costs no more than a busy one.
select l.id, i.facts, l.received_at
from (select id, vertical_id, received_at, qualified_at, mode from lead order by id desc limit 20000) l
join inquiry i on i.id = l.id
where l.vertical_id = $1 and l.mode = 'live' and l.received_at >= $2 and l.qualified_at is not null
order by l.id desc
limit $3;
