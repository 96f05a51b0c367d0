-- name: list_hours
-- The open hours of each subscription that has some, as it stands now.
select s.number, v.definition -> 'hours' as hours
from subscription s
join subscription_version v on (v.subscription_id, v.version) = (s.id, s.version)
where jsonb_typeof(v.definition -> 'hours') = 'object';
