-- name: insert_member
insert into member (id, kind, owner_id, email, name, role, password_hash, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: find_member
select id, kind, owner_id, email, name, role, state, zone, password_hash is not null as has_password,
       totp_confirmed_at is not null as has_factor, created_at
from member where id = $1;

-- name: find_member_by_email
select id, kind, owner_id, email, name, role, state, zone, password_hash is not null as has_password,
       totp_confirmed_at is not null as has_factor, created_at
from member where email = $1;

-- name: list_members
-- Oldest first, so that the first member of the account comes first.
select id, kind, owner_id, email, name, role, state, zone, password_hash is not null as has_password,
       totp_confirmed_at is not null as has_factor, created_at
from member
where kind = $1 and owner_id is not distinct from $2 and ($3::uuid is null or id > $3)
order by id
limit $4;

-- name: find_owner
-- The name of a provider or of a business, by the kind of account.
select name from provider where $1 = 'provider' and id = $2
union all
select name from business where $1 = 'business' and id = $2;

-- name: count_operators
select count(*) from member where kind = 'operator';

-- name: lock_owners
-- Locked in the order of their ids, so that two transactions cannot deadlock.
select id from member
where kind = $1 and owner_id is not distinct from $2 and role = 'owner' and state = 'active'
order by id
for no key update;

-- name: mark_member
-- A null leaves the column as it is.
update member set role = coalesce($2, role), state = coalesce($3, state) where id = $1;

-- name: mark_profile
update member set name = $2, zone = $3 where id = $1;

-- name: find_credentials
select id, kind, state, password_hash, totp, totp_step, totp_confirmed_at from member where email = $1;

-- name: lock_credentials
-- Locked, so that two requests cannot use the same code.
select id, kind, state, password_hash, totp, totp_step, totp_confirmed_at from member where id = $1
for no key update;

-- name: mark_password
update member set password_hash = $2 where id = $1;

-- name: activate_factor
-- Replaces the active factor, in the transaction that checked the first code of the new one. Nulls remove the factor.
update member set totp = $2, totp_step = $3, totp_confirmed_at = $4 where id = $1;

-- name: mark_code_used
-- Time steps only increase: a code that was used, or an older one, updates no row.
update member set totp_step = $2
where id = $1 and totp is not null and totp_confirmed_at is not null and coalesce(totp_step, 0) < $2
returning true;

-- name: find_epoch
select extract(epoch from clock_timestamp())::float8;

-- name: insert_session
-- Times are those of the database, which all processes share.
insert into portal_session (id_hash, member_id, state, device, created_at, seen_at, expires_at)
values ($1, $2, $3, $4, clock_timestamp(), clock_timestamp(), clock_timestamp() + make_interval(mins => $5::int));

-- name: find_session
-- With the present role and state of the member and account, so that a change takes effect at the next request.
select s.id_hash, s.member_id, s.state, s.mode, s.device, s.created_at, s.seen_at, s.expires_at, m.kind, m.owner_id,
       coalesce(p.name, b.name, '') as owner_name, coalesce(p.state, b.state, 'active') as owner_state,
       m.name, m.email, m.role, coalesce(m.zone, b.zone, 'UTC') as zone, m.totp_confirmed_at is not null as has_factor,
       o.opened_by, o.reason as opened_reason
from portal_session s
join member m on m.id = s.member_id and m.state = 'active'
left join opened_access o on o.subject = m.id::text and o.confirmed_at is null
left join provider p on m.kind = 'provider' and p.id = m.owner_id
left join business b on m.kind = 'business' and b.id = m.owner_id
where s.id_hash = $1 and s.expires_at > clock_timestamp()
  and s.seen_at > clock_timestamp() - make_interval(mins => $2::int);

-- name: mark_session_factor
-- The sealed factor waits for its first code in the session that set it up.
update portal_session set factor = $3 where id_hash = $1 and member_id = $2;

-- name: find_session_factor
select factor from portal_session where id_hash = $1 and member_id = $2 and expires_at > clock_timestamp();

-- name: mark_seen
update portal_session set seen_at = clock_timestamp() where id_hash = $1;

-- name: mark_mode
update portal_session set mode = $2 where id_hash = $1;

-- name: delete_session
delete from portal_session where id_hash = $1 and member_id = $2 returning true;

-- name: delete_sessions
delete from portal_session where member_id = $1;

-- name: delete_ended_sessions
delete from portal_session where id_hash in (
    select id_hash from portal_session where expires_at < (select clock_timestamp()) limit 100 for update skip locked);

-- name: delete_old_tries
delete from sign_in_try where name in (
    select name from sign_in_try where tried_at < (select clock_timestamp()) - interval '1 day' limit 100
    for update skip locked);

-- name: list_sessions
-- Last used first.
select id_hash, device, created_at, seen_at from portal_session
where member_id = $1 and state = 'open' and expires_at > clock_timestamp()
order by seen_at desc
limit 50;

-- name: insert_link
insert into one_time_link (token_hash, purpose, member_id, kind, owner_id, role, email, made_by, made_at, expires_at,
    opened_by, opened_reason, currency)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: find_link
select purpose, member_id, kind, owner_id, role, email, made_by, made_at, expires_at, used_at,
       expires_at <= clock_timestamp() as expired, opened_by, opened_reason, currency
from one_time_link where token_hash = $1;

-- name: mark_link_used
-- Of two requests at once, the second updates no row.
update one_time_link set used_at = clock_timestamp()
where token_hash = $1 and used_at is null and expires_at > clock_timestamp()
returning true;

-- name: mark_links_dead
-- A new password or factor ends all open links of the member.
update one_time_link set used_at = clock_timestamp() where member_id = $1 and used_at is null;

-- name: list_invitations
-- Open invitations, newest first.
select purpose, member_id, kind, owner_id, role, email, made_by, made_at, expires_at, used_at, false as expired,
       opened_by, opened_reason
from one_time_link
where purpose = 'invite' and kind = $1 and owner_id is not distinct from $2
  and used_at is null and expires_at > clock_timestamp()
order by made_at desc
limit 50;

-- name: insert_try
-- Counted before the attempt is made, so that attempts at the same time are all counted. The first four failures cost no
-- wait; each further one doubles it, from 1 second up to 15 minutes. An hour without an attempt resets the count.
insert into sign_in_try as t (name, failures, tried_at, next_at)
values ($1, 1, clock_timestamp(), clock_timestamp())
on conflict (name) do update set
    failures = case when t.tried_at < clock_timestamp() - interval '1 hour' then 1 else t.failures + 1 end,
    tried_at = clock_timestamp(),
    next_at = clock_timestamp() + case
        when t.tried_at < clock_timestamp() - interval '1 hour' or t.failures < 4 then interval '0'
        else make_interval(secs => least(900, power(2, least(t.failures - 4, 10)))) end
where t.next_at <= clock_timestamp()
returning failures;

-- name: find_wait
select ceil(extract(epoch from next_at - clock_timestamp()))::int from sign_in_try where name = $1;

-- name: delete_try
delete from sign_in_try where name = $1;

-- name: list_changes
-- Changes by the members of an account, or to the account or its members; each half reads an index, newest first.
select id, at, actor, action, object from (
    (select id, at, actor, action, object from audit
     where actor = any($1::text[]) and ($3::uuid is null or id < $3) order by id desc limit $4)
    union
    (select id, at, actor, action, object from audit
     where object = any($2::text[]) and ($3::uuid is null or id < $3) order by id desc limit $4)
) as change
order by id desc
limit $4;
