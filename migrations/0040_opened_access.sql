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
