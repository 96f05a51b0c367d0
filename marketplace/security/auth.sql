-- name: insert_key
-- Only the keyed hash of the secret is stored: a copy of the table gives no access.
insert into api_key (id, kind, owner_id, mode, name, secret_hmac, created_at, expires_at, rate_per_minute)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: find_key
-- Includes the state of the owner, so that suspending a provider or freezing a business takes effect at the next
-- request.
select k.id, k.kind, k.owner_id, k.mode, k.secret_hmac, k.expires_at, k.revoked_at, k.rate_per_minute,
       coalesce(p.state, b.state, 'active') as owner_state, o.opened_by, o.reason as opened_reason
from api_key k
left join provider p on k.kind = 'provider' and p.id = k.owner_id
left join business b on k.kind = 'business' and b.id = k.owner_id
left join opened_access o on o.subject = k.id and o.confirmed_at is null
where k.id = $1;

-- name: mark_key_revoked
-- The first revocation is kept.
update api_key set revoked_at = coalesce(revoked_at, $2) where id = $1
returning id, kind, owner_id, mode, name, created_at, expires_at, revoked_at, rate_per_minute, seen_in_url_at;

-- name: lock_key
select id, kind, owner_id, mode, name, created_at, expires_at, revoked_at, rate_per_minute,
       seen_in_url_at
from api_key where id = $1 and owner_id = $2 for no key update;

-- name: mark_key_expiring
-- An earlier expiry is kept.
update api_key set expires_at = least(coalesce(expires_at, $2), $2) where id = $1;

-- name: mark_key_seen_in_url
-- The first time is kept; later requests with the same key write nothing.
update api_key set seen_in_url_at = $2 where id = $1 and seen_in_url_at is null;

-- name: list_keys
-- Newest first, of one owner or of all; $2 is the last id of the previous page.
select id, kind, owner_id, mode, name, created_at, expires_at, revoked_at, rate_per_minute,
       seen_in_url_at
from api_key
where ($1::uuid is null or owner_id = $1) and ($4::text is null or mode = $4)
  and ($2::text is null or (created_at, id) < (select c.created_at, c.id from api_key c where c.id = $2))
order by created_at desc, id desc
limit $3;
