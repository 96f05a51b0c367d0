-- Ways into a tenant's account that the marketplace made: a member whom an operator invited or gave a link for a new
-- password, a key, an endpoint. Until an owner of the tenant confirms one, contact data read through it is a reveal on
-- the record of whoever made it.

create table opened_access (
    subject text primary key,  -- a member's or an endpoint's id, or a key's public id
    kind text not null constraint opened_access_kind check (kind in ('provider', 'business')),
    owner_id uuid not null,
    way text not null constraint opened_access_way check (way in ('member', 'key', 'endpoint')),
    opened_by text not null,
    reason text not null constraint opened_access_reason check (reason ~ '\S'),
    opened_at timestamptz not null,
    confirmed_by text,
    confirmed_at timestamptz,
    constraint opened_access_confirmed check ((confirmed_by is null) = (confirmed_at is null))
);
create index opened_access_by_owner on opened_access (owner_id, opened_at);

alter table one_time_link add column opened_by text, add column opened_reason text,
    add constraint one_time_link_opened check ((opened_by is null) = (opened_reason is null));

grant select, insert on opened_access to marketplace_api;
grant update (opened_by, reason, opened_at, confirmed_by, confirmed_at) on opened_access to marketplace_api;

-- An address is a business's once it has proven it: until then it keeps nobody else away. Compared in one spelling, without
-- scheme, default port and the slash at the end; that of older rows lacks the normal form of the path alone.
alter table endpoint add column address_key text;
update endpoint set address_key = regexp_replace(regexp_replace(url, '^https?://', ''), '/+$', '') where url is not null;
create index endpoint_by_address on endpoint (address_key) where verified_at is not null;

-- A suppression that was lifted, with why and by whom: what a provider suppressed for everybody can be looked at and undone.
create table lifted_suppression (
    key bytea not null,
    reason text not null,
    source text not null,
    created_at timestamptz not null,
    lifted_at timestamptz not null,
    lifted_by text not null,
    lifted_reason text not null constraint lifted_suppression_reason check (lifted_reason ~ '\S')
);
create index lifted_suppression_by_key on lifted_suppression (key);
create index suppression_by_source on suppression (source, created_at);

grant delete on suppression to marketplace_api;
grant select, insert on lifted_suppression to marketplace_api;
grant select (source, created_at) on suppression to marketplace_reports;
