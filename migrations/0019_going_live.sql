-- How a provider comes from its first key to a live one: what it has rehearsed on the pages, when it asked to go live, and
-- which operator let it. A provider with a live key of before needs no row.
create table go_live (
    provider_id uuid primary key references provider (id),
    accepted_at timestamptz,
    repeated_at timestamptz,
    refused_at timestamptz,
    requested_at timestamptz,
    requested_by text,
    approved_at timestamptz,
    approved_by text,
    constraint go_live_requested check ((requested_at is null) = (requested_by is null)),
    constraint go_live_approved check ((approved_at is null) = (approved_by is null))
);
create index go_live_open on go_live (requested_at) where approved_at is null and requested_at is not null;

grant select, insert on go_live to marketplace_api;
grant update (accepted_at, repeated_at, refused_at, requested_at, requested_by, approved_at, approved_by)
    on go_live to marketplace_api;

-- What a provider earned, month by month, from the index alone.
create index transfer_earned on transfer (provider_id, made_at) include (kind, currency, amount_minor)
    where provider_id is not null;
