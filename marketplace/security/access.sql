-- name: is_in_use
-- An account with an active owner, or a business that was shown a lead: its owners must confirm new access.
select exists (
    select from member where kind = $1 and owner_id = $2 and role = 'owner' and state = 'active'
) or ($1 = 'business' and exists (
    select from assignment where business_id = $2 and exposed_at is not null
));

-- name: save_opened
-- Access that is made again, such as a second password link, must be confirmed again.
insert into opened_access (subject, kind, owner_id, way, opened_by, reason, opened_at)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (subject) do update
set opened_by = excluded.opened_by, reason = excluded.reason, opened_at = excluded.opened_at,
    confirmed_by = null, confirmed_at = null;

-- name: is_unconfirmed
select exists (select from opened_access where subject = $1 and confirmed_at is null);

-- name: list_opened
-- Unconfirmed access first, then the newest.
select o.subject, o.kind, o.owner_id, o.way, o.opened_by, o.reason, o.opened_at, o.confirmed_at,
       coalesce(m.name || ', ' || m.email, k.name, e.url, 'Feed') as name,
       coalesce(m.state = 'active', k.revoked_at is null and (k.expires_at is null or k.expires_at > clock_timestamp()),
                e.state <> 'disabled') as active
from opened_access o
left join member m on o.way = 'member' and m.id::text = o.subject
left join api_key k on o.way = 'key' and k.id = o.subject
left join endpoint e on o.way = 'endpoint' and e.id::text = o.subject
where o.kind = $1 and o.owner_id = $2
order by o.confirmed_at is not null, o.opened_at desc
limit $3;

-- name: mark_confirmed
update opened_access set confirmed_by = $4, confirmed_at = $5
where subject = $1 and kind = $2 and owner_id = $3 and confirmed_at is null
returning way;

-- name: insert_reveals
-- At most one row an hour for the same lead and access, so that a page that refreshes itself does not fill the table.
insert into audit (id, at, actor, action, object, detail)
select r.id, $3::timestamptz, $4::text, 'contact.reveal', r.object, $5::jsonb
from unnest($1::uuid[], $2::text[]) as r (id, object)
where not exists (
    select from audit a
    where a.object = r.object and a.action = 'contact.reveal' and a.actor = $4 and a.detail = $5::jsonb
      and a.at > $3::timestamptz - interval '1 hour'
);
