-- A person's revoked consent: what ended, and which business was told.

-- No contact data: `channels` are those that the person may not be contacted by, none named means all. A signed message
-- with the same id of the same sender is one revocation.
create table revocation (
    id uuid primary key,
    revoked_at timestamptz not null,
    requested_by text not null,
    provider_id uuid references provider (id),
    mode text not null constraint revocation_mode check (mode in ('live', 'test')),
    channels text[] not null
        constraint revocation_channels check (channels <@ array['call', 'text', 'email', 'post']),
    reason text not null,
    message_id text
);
create unique index revocation_of_message on revocation (requested_by, message_id) where message_id is not null;
create trigger revocation_is_kept before delete or update on revocation for each row execute function refuse_change();
create trigger revocation_is_never_emptied before truncate on revocation
    for each statement execute function refuse_change();

-- The leads of the person. `state` is the lead's before; a lead that was shown has the notice to its business.
create table revoked_lead (
    lead_id uuid not null references lead (id),
    revocation_id uuid not null references revocation (id),
    state text not null,
    business_id uuid,
    notice_id uuid references notice (id),
    primary key (lead_id, revocation_id),
    constraint revoked_lead_announced check ((business_id is null) = (notice_id is null)),
    constraint revoked_lead_notice unique (notice_id)
);
create index revoked_lead_by_revocation on revoked_lead (revocation_id);
create trigger revoked_lead_is_kept before delete or update on revoked_lead
    for each row execute function refuse_change();
create trigger revoked_lead_is_never_emptied before truncate on revoked_lead
    for each statement execute function refuse_change();

-- A shown lead is never revoked without the notice to its business. The revocation has the lead's lock, so that no
-- exposure can come between.
create function demand_notice() returns trigger language plpgsql as $$
begin
    if new.business_id is distinct from (select business_id from exposure where lead_id = new.lead_id) then
        raise exception 'the business that was shown this lead gets a notice'
            using errcode = 'check_violation', constraint = 'revoked_lead_holder';
    end if;
    return new;
end $$;
create trigger revoked_lead_has_notice before insert on revoked_lead for each row execute function demand_notice();

-- Never exposed after the erasure or the revocation was accepted, whatever the code believes. Both hold the lead's lock
-- until they have committed, so that an exposure either came before, and has its notice, or finds the row here.
create or replace function refuse_erased() returns trigger language plpgsql as $$
begin
    if exists (select from erasure where lead_id = new.lead_id) then
        raise exception 'this lead was erased' using errcode = 'restrict_violation', constraint = 'exposure_erased';
    end if;
    if exists (select from revoked_lead where lead_id = new.lead_id) then
        raise exception 'this lead was revoked' using errcode = 'restrict_violation', constraint = 'exposure_revoked';
    end if;
    return new;
end $$;

-- Whether nothing of a lead may leave us any more: it was erased or revoked, its person asked anybody here not to be
-- contacted, or its consent has ended, by this database's clock at this moment. Every statement that exposes a lead asks
-- it, and so does the one that opens a lead again.
create or replace function is_withdrawn(of_lead uuid) returns boolean language sql volatile as $$
    select exists (select from erasure where lead_id = of_lead)
        or exists (select from revoked_lead where lead_id = of_lead)
        or exists (select from person_key k join suppression s on s.key = k.key where k.lead_id = of_lead)
        or exists (select from lead where id = of_lead and consent_until <= clock_timestamp())
$$;

-- The secret by which a service for STOP messages signs; a provider's own, or the operator's under the id of zeros.
create table revocation_hook (
    owner_id uuid primary key,
    provider_id uuid references provider (id),
    secret bytea not null,
    previous_secret bytea,
    previous_until timestamptz,
    made_at timestamptz not null,
    constraint revocation_hook_owner check (owner_id = coalesce(provider_id, '00000000-0000-0000-0000-000000000000'))
);

grant select, insert on revocation, revocation_hook to marketplace_api;
grant update (secret, previous_secret, previous_until, made_at) on revocation_hook to marketplace_api;
grant select on revoked_lead to marketplace_api, marketplace_worker, marketplace_feeder, marketplace_reports;
grant insert on revoked_lead to marketplace_eraser;
grant select on revocation to marketplace_worker, marketplace_reports;
