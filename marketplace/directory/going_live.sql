-- name: load_readiness
-- The answers that the provider has had, in the portal (go_live) or with a test key (inquiry, refusal_count), and its
-- valid keys.
select g.requested_at, g.approved_at,
       g.accepted_at is not null or exists (
           select from inquiry i where i.provider_id = p.id and i.mode = 'test' and i.received_as = 'received') as accepted,
       g.repeated_at is not null or exists (
           select from inquiry i where i.provider_id = p.id and i.mode = 'test' and i.received_as = 'duplicate') as repeated,
       g.refused_at is not null or exists (
           select from refusal_count r where r.provider_id = p.id and r.mode = 'test') as refused,
       (select count(*) from api_key k where k.owner_id = p.id and k.mode = 'test' and k.revoked_at is null
           and (k.expires_at is null or k.expires_at > $2)) as test_keys,
       (select count(*) from api_key k where k.owner_id = p.id and k.mode = 'live' and k.revoked_at is null
           and (k.expires_at is null or k.expires_at > $2)) as live_keys,
       exists (select from api_key k where k.owner_id = p.id and k.mode = 'live') as was_live
from provider p left join go_live g on g.provider_id = p.id
where p.id = $1;

-- name: mark_rehearsed
-- Only the first time of each answer is stored.
insert into go_live as g (provider_id, accepted_at, repeated_at, refused_at)
values ($1, case when $2 = 'accepted' then $3::timestamptz end, case when $2 = 'repeated' then $3 end,
    case when $2 = 'refused' then $3 end)
on conflict (provider_id) do update set accepted_at = coalesce(g.accepted_at, excluded.accepted_at),
    repeated_at = coalesce(g.repeated_at, excluded.repeated_at),
    refused_at = coalesce(g.refused_at, excluded.refused_at);

-- name: mark_requested
-- A row only if this call made the request; an earlier request is kept.
insert into go_live as g (provider_id, requested_at, requested_by) values ($1, $2, $3)
on conflict (provider_id) do update set requested_at = $2, requested_by = $3 where g.requested_at is null
returning provider_id;

-- name: mark_approved
-- A row only if this call approved; an earlier approval is kept.
insert into go_live as g (provider_id, approved_at, approved_by) values ($1, $2, $3)
on conflict (provider_id) do update set approved_at = $2, approved_by = $3 where g.approved_at is null
returning provider_id;

-- name: list_requests
-- Requests that wait for an operator, the oldest first.
select g.provider_id, p.name, g.requested_at, g.requested_by
from go_live g join provider p on p.id = g.provider_id
where g.approved_at is null and g.requested_at is not null
order by g.requested_at
limit $1;
