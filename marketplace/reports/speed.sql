-- name: list_hours
-- Current open hours of each subscription that has some.
select s.number, v.definition -> 'hours' as hours
from subscription s
join subscription_version v on (v.subscription_id, v.version) = (s.id, s.version)
where jsonb_typeof(v.definition -> 'hours') = 'object';
