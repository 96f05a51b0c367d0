-- name: insert_next_version
-- Another price, in a new version of the subscription.
insert into subscription_version (subscription_id, version, definition, made_by)
select s.id, s.version + 1, d.definition || jsonb_build_object('price_minor', 5000 + s.version), 'benchmark'
from subscription s join subscription_version d on (d.subscription_id, d.version) = (s.id, s.version)
where s.id = $1;

-- name: use_next_version
update subscription set version = version + 1 where id = $1;
