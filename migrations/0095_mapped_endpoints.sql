-- Endpoints whose requests have the form of the business's own software: a template and headers, and sealed credentials.
alter table endpoint
    add column mapping jsonb
        constraint endpoint_mapping check (mapping is null or (kind = 'push' and jsonb_typeof(mapping) = 'object')),
    add column mapping_version int not null default 1,
    add column credentials bytea constraint endpoint_credentials check (credentials is null or mapping is not null);

grant update (mapping, mapping_version, credentials) on endpoint to marketplace_api;
