-- Who takes part, and under which rules: providers, businesses, keys, verticals, endpoints, subscriptions.
-- Rules are versioned: a version is written once and never changed, and each decision names the version it was made by.

create extension if not exists btree_gist;

create table reference_data (
    name text primary key,
    version text not null,
    rows int not null,
    loaded_at timestamptz not null default clock_timestamp()
);

create table postal_area (
    country text not null,
    code text not null,
    city text not null,
    region text,
    latitude float8,
    longitude float8,
    time_zone text,
    primary key (country, code)
);

create table provider (
    id uuid primary key,
    name text not null,
    state text not null default 'active' constraint provider_state check (state in ('active', 'suspended')),
    payout jsonb not null,
    created_at timestamptz not null default clock_timestamp()
);

create table business (
    id uuid primary key,
    name text not null,
    state text not null default 'active' constraint business_state check (state in ('active', 'frozen')),
    zone text not null,
    created_at timestamptz not null default clock_timestamp()
);

-- The secret itself is never stored, only its keyed hash; the public id finds the row.
create table api_key (
    id text primary key,
    kind text not null constraint api_key_kind check (kind in ('provider', 'business', 'operator')),
    owner_id uuid,
    mode text not null constraint api_key_mode check (mode in ('live', 'test')),
    name text not null,
    secret_hmac bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz,
    constraint api_key_owner check ((kind = 'operator') = (owner_id is null))
);
create index api_key_by_owner on api_key (owner_id);

create table vertical (
    id uuid primary key,
    slug text not null unique,
    version int not null,
    created_at timestamptz not null default clock_timestamp()
);

create table vertical_version (
    vertical_id uuid not null references vertical (id),
    version int not null,
    definition jsonb not null,
    made_at timestamptz not null default clock_timestamp(),
    made_by text not null,
    primary key (vertical_id, version)
);
alter table vertical add constraint vertical_current
    foreign key (id, version) references vertical_version (vertical_id, version) deferrable initially deferred;

-- Signing secrets are sealed under the master key. The breaker's numbers change with deliveries; only open_until is read by matching.
create table endpoint (
    id uuid primary key,
    business_id uuid not null references business (id),
    url text not null,
    state text not null default 'unverified'
        constraint endpoint_state check (state in ('unverified', 'active', 'disabled')),
    secret bytea not null,
    previous_secret bytea,
    previous_until timestamptz,
    breaker jsonb not null default '{}',
    breaker_open_until timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    verified_at timestamptz,
    constraint endpoint_owner unique (id, business_id)
);
create index endpoint_by_business on endpoint (business_id);

create table subscription (
    id uuid primary key,
    business_id uuid not null references business (id),
    vertical_id uuid not null references vertical (id),
    endpoint_id uuid,
    mode text not null constraint subscription_mode check (mode in ('live', 'test')),
    name text not null,
    state text not null default 'active' constraint subscription_state check (state in ('active', 'paused', 'ended')),
    version int not null,
    currency char(3) not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint subscription_owner unique (id, business_id, mode),
    constraint subscription_endpoint foreign key (endpoint_id, business_id) references endpoint (id, business_id)
);
create index subscription_by_business on subscription (business_id);

create table subscription_version (
    subscription_id uuid not null references subscription (id),
    version int not null,
    definition jsonb not null,
    made_at timestamptz not null default clock_timestamp(),
    made_by text not null,
    primary key (subscription_id, version)
);
alter table subscription add constraint subscription_current
    foreign key (id, version) references subscription_version (subscription_id, version) deferrable initially deferred;

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% rows are never changed', tg_table_name using errcode = 'restrict_violation';
end $$;

create trigger vertical_version_is_final before update or delete on vertical_version
    for each row execute function refuse_change();
create trigger subscription_version_is_final before update or delete on subscription_version
    for each row execute function refuse_change();

-- One counter that every edit of the rules bumps in its own transaction, by trigger so that no edit can forget it.
-- Each matching index remembers the counter it was built at and is rebuilt when the two differ.
create table catalog_version (
    only_row boolean primary key default true check (only_row),
    version bigint not null
);
insert into catalog_version (version) values (1);

create function bump_catalog_version() returns trigger language plpgsql security definer
    set search_path = pg_catalog, public as $$
begin
    update public.catalog_version set version = version + 1;
    return null;
end $$;

create trigger vertical_bumps after insert or update on vertical
    for each statement execute function bump_catalog_version();
create trigger provider_bumps after insert or update of state, payout on provider
    for each statement execute function bump_catalog_version();
create trigger subscription_bumps after insert or update on subscription
    for each statement execute function bump_catalog_version();
create trigger business_bumps after update of state, zone on business
    for each statement execute function bump_catalog_version();
create trigger endpoint_bumps after update on endpoint
    for each row
    when (old.state is distinct from new.state or old.breaker_open_until is distinct from new.breaker_open_until)
    execute function bump_catalog_version();
