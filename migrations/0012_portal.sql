-- Who uses the portal: members of a provider, of a business or of the operator, their sessions, and links that work once.
-- Nothing here opens anything when it is stolen: passwords are Argon2id hashes, ids of sessions and links are kept as
-- digests of 256 random bits, second factors are sealed under the master key.

create table member (
    id uuid primary key,
    kind text not null constraint member_kind check (kind in ('provider', 'business', 'operator')),
    owner_id uuid,
    email text not null unique constraint member_email check (email = lower(email) and email like '%_@_%'),
    name text not null,
    role text not null constraint member_role check (role in ('owner', 'member', 'viewer')),
    state text not null default 'active' constraint member_state check (state in ('active', 'disabled')),
    zone text,
    password_hash text,
    totp bytea,
    totp_step bigint,
    totp_confirmed_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    constraint member_owner check ((kind = 'operator') = (owner_id is null)),
    constraint member_totp check (totp is not null or (totp_step is null and totp_confirmed_at is null))
);
create index member_by_owner on member (owner_id, id);

-- A session is 'open' when everything asked for was shown; before that it leads nowhere but to the next question.
create table portal_session (
    id_hash bytea primary key constraint portal_session_id check (octet_length(id_hash) = 32),
    member_id uuid not null references member (id),
    state text not null constraint portal_session_state check (state in ('open', 'code_due', 'factor_due')),
    mode text not null default 'live' constraint portal_session_mode check (mode in ('live', 'test')),
    device text not null default '',
    created_at timestamptz not null,
    seen_at timestamptz not null,
    expires_at timestamptz not null
);
create index portal_session_by_member on portal_session (member_id);
create index portal_session_by_end on portal_session (expires_at);

-- A link that works once: to join, to choose a new password, to come in, or to set the whole thing up.
create table one_time_link (
    token_hash bytea primary key constraint one_time_link_token check (octet_length(token_hash) = 32),
    purpose text not null constraint one_time_link_purpose check (purpose in ('invite', 'reset', 'enter', 'set_up')),
    member_id uuid references member (id),
    kind text constraint one_time_link_kind check (kind in ('provider', 'business', 'operator')),
    owner_id uuid,
    role text constraint one_time_link_role check (role in ('owner', 'member', 'viewer')),
    email text,
    made_by text not null,
    made_at timestamptz not null,
    expires_at timestamptz not null,
    used_at timestamptz,
    constraint one_time_link_for_whom check (
        case purpose
            when 'invite' then member_id is null and kind is not null and role is not null and email is not null
                and (kind = 'operator') = (owner_id is null)
            when 'set_up' then member_id is null and kind is null and owner_id is null and role is null
            else member_id is not null and kind is null and owner_id is null and role is null
        end)
);
create index one_time_link_by_owner on one_time_link (owner_id, made_at) where purpose = 'invite';

-- Failed tries under one name (a keyed hash), with the moment from which the next one is heard.
create table sign_in_try (
    name bytea primary key,
    failures int not null constraint sign_in_try_failures check (failures > 0),
    tried_at timestamptz not null,
    next_at timestamptz not null
);
create index sign_in_try_by_age on sign_in_try (tried_at);

-- What an account's members did, newest first.
create index audit_by_actor on audit (actor, id);
create index audit_by_object_newest on audit (object, id);

grant select, insert on member, one_time_link to marketplace_api;
grant update (name, role, state, zone, password_hash, totp, totp_step, totp_confirmed_at) on member to marketplace_api;
grant update (used_at) on one_time_link to marketplace_api;
grant select, insert, update, delete on portal_session, sign_in_try to marketplace_api;

-- The portal shows a business its leads. The door itself demands a committed exposure to that very business.
grant execute on function read_contact(uuid, uuid) to marketplace_api;
