-- The schema as all migrations together make it, for reading. Nothing applies this file.
-- Written by `make schema`; do not edit it. A change of the schema is a new migration.
--
-- A table stands with its indexes, triggers, policies and grants, under the migration that made it. Partitions are
-- left out: make_partitions() makes one for each month.


-- Applied migrations --------------------------------------------------------------------------------------------------

-- Kept by `marketplace migrate` itself.
create function is_stopped(of_lead uuid) returns bool language sql as $$
select exists (select from erasure where lead_id = of_lead)
        or exists (select from revoked_lead where lead_id = of_lead)
        or exists (select from person_key k join suppression s on s.key = k.key where k.lead_id = of_lead)
        or exists (select from lead where id = of_lead and consent_until <= clock_timestamp())
$$;

-- Kept by `marketplace migrate` itself.
create table schema_migration (
    version int not null,
    name text not null,
    sha256 text not null,
    applied_at timestamptz not null default now(),
    constraint schema_migration_pkey primary key (version)
);
grant select on schema_migration to marketplace_reports;


-- Directory (migration 0001) ------------------------------------------------------------------------------------------

create table reference_data (
    name text not null,
    version text not null,
    rows int not null,
    loaded_at timestamptz not null default clock_timestamp(),
    constraint reference_data_pkey primary key (name)
);
grant select on reference_data to marketplace_api, marketplace_reports, marketplace_worker;

create table postal_area (
    country text not null,
    code text not null,
    city text not null,
    region text,
    latitude double precision,
    longitude double precision,
    time_zone text,
    constraint postal_area_pkey primary key (country, code)
);
grant select on postal_area to marketplace_api, marketplace_reports, marketplace_worker;

create table provider (
    id uuid not null,
    name text not null,
    state text not null default 'active',
    payout jsonb not null,
    created_at timestamptz not null default clock_timestamp(),
    number int not null generated always as identity,
    constraint provider_pkey primary key (id),
    constraint provider_number unique (number),
    constraint provider_state check (state in ('active', 'suspended'))
);
create trigger provider_begins after insert on provider for each row execute function record_catalog_change();
create trigger provider_changes after update on provider for each row when (old.state is distinct from new.state or
    old.payout is distinct from new.payout) execute function record_catalog_change();
grant insert, select, update (name, payout, state) on provider to marketplace_api;
grant select on provider to marketplace_reports, marketplace_worker;

create table business (
    id uuid not null,
    name text not null,
    state text not null default 'active',
    zone text not null,
    created_at timestamptz not null default clock_timestamp(),
    number int not null generated always as identity,
    seller_names text[] not null default '{}'::text[],
    constraint business_pkey primary key (id),
    constraint business_number unique (number),
    constraint business_seller_names check (cardinality(seller_names) <= 20),
    constraint business_state check (state in ('active', 'frozen'))
);
create trigger business_changes after update on business for each row when (old.state is distinct from new.state or
    old.seller_names is distinct from new.seller_names) execute function record_catalog_change();
grant insert, select, update (name, seller_names, state, zone) on business to marketplace_api;
grant select on business to marketplace_reports, marketplace_worker;

-- The secret itself is never stored, only its keyed hash; the public id finds the row.
create table api_key (
    id text not null,
    kind text not null,
    owner_id uuid,
    mode text not null,
    name text not null,
    secret_hmac bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz,
    rate_per_minute int,
    seen_in_url_at timestamptz,
    constraint api_key_pkey primary key (id),
    constraint api_key_kind check (kind in ('provider', 'business', 'operator')),
    constraint api_key_mode check (mode in ('live', 'test')),
    constraint api_key_owner check ((kind = 'operator') = (owner_id is null)),
    constraint api_key_rate check (rate_per_minute >= 1 and rate_per_minute <= 60000)
);
create index api_key_by_owner on api_key (owner_id);
grant insert, select, update (expires_at, revoked_at, seen_in_url_at) on api_key to marketplace_api;

create table vertical (
    id uuid not null,
    slug text not null,
    version int not null,
    created_at timestamptz not null default clock_timestamp(),
    number int not null generated always as identity,
    constraint vertical_pkey primary key (id),
    constraint vertical_number unique (number),
    constraint vertical_slug_key unique (slug),
    constraint vertical_current foreign key (id, version) references vertical_version(vertical_id, version) deferrable
        initially deferred
);
create trigger vertical_changes after insert or update on vertical for each row execute function
    record_catalog_change();
grant insert, select, update (version) on vertical to marketplace_api;
grant select on vertical to marketplace_reports, marketplace_worker;

create table vertical_version (
    vertical_id uuid not null,
    version int not null,
    definition jsonb not null,
    made_at timestamptz not null default clock_timestamp(),
    made_by text not null,
    constraint vertical_version_pkey primary key (vertical_id, version),
    constraint vertical_version_vertical_id_fkey foreign key (vertical_id) references vertical(id)
);
create trigger vertical_version_is_final before delete or update on vertical_version for each row execute function
    refuse_change();
grant insert, select on vertical_version to marketplace_api;
grant select on vertical_version to marketplace_reports, marketplace_worker;

-- Signing secrets are sealed under the master key. The breaker's numbers change with deliveries; only open_until is read by matching.
create table endpoint (
    id uuid not null,
    business_id uuid not null,
    url text,
    state text not null default 'unverified',
    secret bytea,
    previous_secret bytea,
    previous_until timestamptz,
    breaker jsonb not null default '{}'::jsonb,
    breaker_open_until timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    verified_at timestamptz,
    kind text not null default 'push',
    address_key text,
    hold_seconds int not null default 120,
    contract jsonb,
    contract_version int not null default 1,
    answer_shapes text[] not null default '{}'::text[],
    mapping jsonb,
    mapping_version int not null default 1,
    credentials bytea,
    constraint endpoint_pkey primary key (id),
    constraint endpoint_owner unique (id, business_id),
    constraint endpoint_address_of_one exclude using gist (address_key with =, business_id with <>) where (verified_at
        is not null and state <> 'disabled'),
    constraint endpoint_business_id_fkey foreign key (business_id) references business(id),
    constraint endpoint_answer_shapes check (cardinality(answer_shapes) <= 20),
    constraint endpoint_contract check (contract is null or kind = 'push' and jsonb_typeof(contract) = 'object'),
    constraint endpoint_credentials check (credentials is null or mapping is not null),
    constraint endpoint_door check ((url is not null) = (kind = 'push') and (secret is not null) = (kind = 'push')),
    constraint endpoint_hold check (hold_seconds >= 120 and hold_seconds <= 900 and ((kind in ('inbox', 'email')) or
        hold_seconds = 120)),
    constraint endpoint_kind check (kind in ('push', 'feed', 'inbox', 'email')),
    constraint endpoint_mapping check (mapping is null or kind = 'push' and jsonb_typeof(mapping) = 'object'),
    constraint endpoint_state check (state in ('unverified', 'active', 'disabled'))
);
create index endpoint_by_business on endpoint (business_id);
create trigger endpoint_changes after update on endpoint for each row when (old.state is distinct from new.state or
    old.breaker_open_until is distinct from new.breaker_open_until or old.hold_seconds is distinct from
    new.hold_seconds) execute function record_catalog_change();
grant insert, select, update (address_key, answer_shapes, breaker, breaker_open_until, contract, contract_version,
    credentials, hold_seconds, mapping, mapping_version, previous_secret, previous_until, secret, state, url,
    verified_at) on endpoint to marketplace_api;
grant select (id, kind, state) on endpoint to marketplace_feeder;
grant select (breaker, breaker_open_until, business_id, created_at, hold_seconds, id, kind, state, url, verified_at) on
    endpoint to marketplace_reports;
grant select, update (answer_shapes, breaker, breaker_open_until, state) on endpoint to marketplace_worker;

create table subscription (
    id uuid not null,
    business_id uuid not null,
    vertical_id uuid not null,
    endpoint_id uuid,
    mode text not null,
    name text not null,
    state text not null default 'active',
    version int not null,
    currency character(3) not null,
    created_at timestamptz not null default clock_timestamp(),
    number int not null generated always as identity,
    suspended_for text,
    suspended_at timestamptz,
    suspended_counted int,
    suspended_shown int,
    quota_since timestamptz,
    quota_before int not null default 0,
    constraint subscription_pkey primary key (id),
    constraint subscription_number unique (number),
    constraint subscription_owner unique (id, business_id, mode),
    constraint subscription_business_id_fkey foreign key (business_id) references business(id),
    constraint subscription_current foreign key (id, version) references subscription_version(subscription_id, version)
        deferrable initially deferred,
    constraint subscription_endpoint foreign key (endpoint_id, business_id) references endpoint(id, business_id),
    constraint subscription_vertical_id_fkey foreign key (vertical_id) references vertical(id),
    constraint subscription_wallet foreign key (business_id, currency) references wallet(business_id, currency),
    constraint subscription_mode check (mode in ('live', 'test')),
    constraint subscription_state check (state in ('active', 'paused', 'suspended', 'ended')),
    constraint subscription_suspended check (state <> 'suspended' or suspended_for is not null and suspended_at is not
        null and suspended_counted is not null and suspended_shown is not null),
    constraint subscription_suspended_for check (suspended_for in ('refusals', 'unacknowledged'))
);
create index subscription_by_business on subscription (business_id);
create index subscription_suspended_first on subscription (suspended_at) where (state = 'suspended');
create trigger subscription_begins after insert on subscription referencing new table as changed for each statement
    execute function record_catalog_change();
create trigger subscription_changes after update on subscription referencing new table as changed for each statement
    execute function record_catalog_change();
grant insert, select, update (endpoint_id, name, quota_before, quota_since, state, version) on subscription to
    marketplace_api;
grant select on subscription to marketplace_reports;
grant select, update (name, state, suspended_at, suspended_counted, suspended_for, suspended_shown) on subscription to
    marketplace_worker;

create table subscription_version (
    subscription_id uuid not null,
    version int not null,
    definition jsonb not null,
    made_at timestamptz not null default clock_timestamp(),
    made_by text not null,
    constraint subscription_version_pkey primary key (subscription_id, version),
    constraint subscription_version_subscription_id_fkey foreign key (subscription_id) references subscription(id)
);
create trigger subscription_version_is_final before delete or update on subscription_version for each row execute
    function refuse_change();
grant insert, select on subscription_version to marketplace_api;
grant select on subscription_version to marketplace_reports, marketplace_worker;

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% rows are never changed', tg_table_name using errcode = 'restrict_violation';
end $$;

-- One counter that every edit of the rules bumps in its own transaction, by trigger so that no edit can forget it.
-- Each matching index remembers the counter it was built at and is rebuilt when the two differ.
create table catalog_version (
    only_row bool not null default true,
    version bigint not null,
    constraint catalog_version_pkey primary key (only_row),
    constraint catalog_version_only_row_check check (only_row)
);
grant select on catalog_version to marketplace_api, marketplace_reports, marketplace_worker;


-- Leads (migration 0002) ----------------------------------------------------------------------------------------------

-- One submission as received; never changed. `facts` is what rules read and holds no contact data.
create table inquiry (
    id uuid not null,
    provider_id uuid not null,
    vertical_id uuid not null,
    mode text not null,
    provider_reference text,
    idempotency_key text,
    request_sha256 bytea not null,
    received_as text not null,
    facts jsonb not null,
    consent_sha256 bytea not null,
    consent_given_at timestamptz not null,
    submitted_at timestamptz not null,
    received_at timestamptz not null,
    contact_fields text[] not null default '{}'::text[],
    joined_lead_id uuid,
    joined_touch bytea,
    constraint inquiry_pkey primary key (id),
    constraint inquiry_whose unique (id, provider_id, vertical_id, mode),
    constraint inquiry_joined_touch foreign key (joined_lead_id, joined_touch) references touch(lead_id, fingerprint),
    constraint inquiry_provider_id_fkey foreign key (provider_id) references provider(id),
    constraint inquiry_vertical_id_fkey foreign key (vertical_id) references vertical(id),
    constraint inquiry_joined check ((joined_lead_id is null) = (joined_touch is null) and (joined_lead_id is null or
        received_as = 'duplicate')),
    constraint inquiry_mode check (mode in ('live', 'test')),
    constraint inquiry_named check (provider_reference is not null or idempotency_key is not null),
    constraint inquiry_received_as check (received_as in ('received', 'duplicate', 'suppressed'))
);
create unique index inquiry_idempotency_key on inquiry (provider_id, mode, idempotency_key) where (idempotency_key is
    not null);
create unique index inquiry_joined_once on inquiry (joined_lead_id, joined_touch) where (joined_lead_id is not null);
create unique index inquiry_provider_reference on inquiry (provider_id, mode, provider_reference) where
    (provider_reference is not null);
create trigger inquiry_is_final before delete or update on inquiry for each row execute function refuse_change();
create trigger inquiry_is_kept before truncate on inquiry for each statement execute function refuse_change();
grant insert, select on inquiry to marketplace_api;
grant select on inquiry to marketplace_reports, marketplace_worker;

-- `due_at` is the work queue: a lead that waits for us always has a time at which somebody looks at it again.
-- `seen` follows from the state and is what an exposure row leans on.
create table lead (
    id uuid not null,
    provider_id uuid not null,
    vertical_id uuid not null,
    mode text not null,
    state text not null,
    reason text,
    due_at timestamptz,
    received_at timestamptz not null,
    qualified_at timestamptz,
    settled_at timestamptz,
    seen bool not null generated always as ((state in ('exposed', 'delivered', 'refused', 'lapsed', 'returned')))
        stored,
    revision int not null default 0,
    reopened_at timestamptz,
    consent_until timestamptz,
    certificates text,
    waits_for text[],
    constraint lead_pkey primary key (id),
    constraint lead_seen unique (id, seen),
    constraint lead_whose unique (provider_id, id, mode),
    constraint lead_inquiry foreign key (id, provider_id, vertical_id, mode) references inquiry(id, provider_id,
        vertical_id, mode),
    constraint lead_certificates check (certificates in ('pending', 'verified', 'failed')),
    constraint lead_certificates_claimed check (certificates is distinct from 'pending' or (state in ('received',
        'rejected', 'nurturing', 'expired', 'prospect', 'unsold'))),
    constraint lead_due check ((due_at is not null) = (state in ('received', 'nurturing', 'prospect'))),
    constraint lead_state check (state in ('received', 'rejected', 'duplicate', 'suppressed', 'nurturing', 'expired',
        'prospect', 'unsold', 'held', 'exposed', 'delivered', 'refused', 'lapsed', 'returned')),
    constraint lead_waits_for check (cardinality(waits_for) > 0 and waits_for <@ array['date', 'budget', 'authority',
        'need', 'timing', 'points', 'interest'])
) with (fillfactor=80);
-- Neither index below names the state, so that a move that leaves their columns alone writes no index entry (a HOT update).
create index lead_due_soon on lead (due_at) where (due_at is not null);
-- Block ranges: a few bytes for each sixteen pages. An update of a lead never touches them, an insert hardly.
create index lead_received on lead using brin (received_at) with (pages_per_range='16', autosummarize='on');
-- Rehearsals, which are few and lie among all that is live.
create index lead_rehearsed on lead (provider_id, id) where (mode = 'test');
create trigger lead_beginning before insert on lead for each row execute function assert_lead_beginning();
create trigger lead_begun_recorded after insert on lead for each row execute function record_lead_move();
create trigger lead_consent_is_kept before update of consent_until on lead for each row when (old.consent_until is not
    null and old.consent_until is distinct from new.consent_until) execute function refuse_change();
create trigger lead_move before update of state on lead for each row when (old.state is distinct from new.state)
    execute function assert_lead_move();
create trigger lead_move_recorded after update on lead for each row when (old.state is distinct from new.state) execute
    function record_lead_move();
grant insert, select, update (consent_until, due_at) on lead to marketplace_api;
grant update (reason, settled_at, state) on lead to marketplace_eraser;
grant select, update (reason, settled_at, state) on lead to marketplace_feeder;
grant select on lead to marketplace_reports;
grant update (reason, state) on lead to marketplace_returner;
grant select, update (due_at, qualified_at, reason, settled_at, state, waits_for) on lead to marketplace_worker;

-- Moves of a lead whose facts have changed: a prospect is qualified again, and one that ended unsold or rejected is opened
-- again.
create function assert_lead_move() returns trigger language plpgsql as $$
begin
    if (old.state, new.state) not in (
        ('received', 'rejected'), ('received', 'nurturing'), ('received', 'prospect'), ('received', 'held'),
        ('received', 'unsold'), ('nurturing', 'prospect'), ('nurturing', 'held'), ('nurturing', 'unsold'),
        ('nurturing', 'rejected'), ('nurturing', 'expired'),
        ('prospect', 'held'), ('prospect', 'unsold'), ('prospect', 'nurturing'), ('prospect', 'received'),
        ('rejected', 'received'), ('unsold', 'received'),
        ('held', 'prospect'), ('held', 'exposed'),
        ('exposed', 'delivered'), ('exposed', 'refused'), ('exposed', 'lapsed'),
        ('delivered', 'returned'))
    then
        raise exception 'a lead never moves from % to %', old.state, new.state
            using errcode = 'check_violation', constraint = 'lead_move';
    end if;
    return new;
end $$;

create function assert_lead_beginning() returns trigger language plpgsql as $$
begin
    if new.state not in ('received', 'duplicate', 'suppressed') then
        raise exception 'a lead never begins as %', new.state
            using errcode = 'check_violation', constraint = 'lead_beginning';
    end if;
    return new;
end $$;

-- Contact data, sealed with AES-256-GCM under a data key of its own. Destroying the key is erasing the person.
create table contact (
    lead_id uuid not null,
    sealed bytea not null,
    constraint contact_pkey primary key (lead_id),
    constraint contact_lead_id_fkey foreign key (lead_id) references lead(id)
);
grant insert on contact to marketplace_api;
grant delete, select (lead_id) on contact to marketplace_eraser;
grant select (lead_id) on contact to marketplace_reports;

create table data_key (
    lead_id uuid not null,
    wrapped bytea not null,
    master_key_id text not null,
    constraint data_key_pkey primary key (lead_id),
    constraint data_key_lead_id_fkey foreign key (lead_id) references lead(id)
);
grant insert on data_key to marketplace_api;
grant delete, select (lead_id) on data_key to marketplace_eraser;
grant select (lead_id) on data_key to marketplace_reports;

-- The same person is not sold twice in one vertical inside the window. `key` is a keyed hash of phone or e-mail.
create table person_window (
    lead_id uuid not null,
    key bytea not null,
    vertical_id uuid not null,
    during tstzrange not null,
    scope int8range not null default '(,)'::int8range,
    constraint person_window_pkey primary key (lead_id, key),
    constraint person_window_once exclude using gist (key with =, vertical_id with =, during with &&, scope with &&),
    constraint person_window_lead_id_fkey foreign key (lead_id) references lead(id) deferrable initially deferred,
    constraint person_window_scope check (not isempty(scope))
);
create trigger person_window_fenced before insert on person_window for each row execute function keep_fenced_person();
grant insert, select on person_window to marketplace_api;
grant delete on person_window to marketplace_eraser;
grant select on person_window to marketplace_reports;
grant delete, select, update (during) on person_window to marketplace_worker;

create table suppression (
    key bytea not null,
    reason text not null,
    source text not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint suppression_pkey primary key (key)
);
create index suppression_by_source on suppression (source, created_at);
grant delete, insert, select on suppression to marketplace_api;
grant select on suppression to marketplace_feeder, marketplace_worker;
grant select (created_at, source) on suppression to marketplace_reports;

-- The exclusive claim of one business on one lead; money follows it.
-- `live` and `seen_lead_id` follow from the state and are what the foreign keys to and from the exposure lean on;
-- `chargeable_minor` and `payable_minor` are what a transfer may move, and nothing in a rehearsal.
create table assignment (
    id uuid not null,
    lead_id uuid not null,
    business_id uuid not null,
    subscription_id uuid not null,
    subscription_version int not null,
    endpoint_id uuid not null,
    provider_id uuid not null,
    mode text not null,
    state text not null default 'held',
    reason text,
    price_minor bigint not null,
    payout_minor bigint not null,
    currency character(3) not null,
    attempts int not null default 0,
    due_at timestamptz,
    awarded_at timestamptz not null,
    hold_until timestamptz not null,
    exposed_at timestamptz,
    evidence_until timestamptz,
    evidence text,
    settled_at timestamptz,
    hour_at timestamptz not null,
    day_at timestamptz not null,
    week_at timestamptz not null,
    month_at timestamptz not null,
    live bool not null generated always as ((state <> 'released')) stored,
    chargeable_minor bigint generated always as ( case when (mode = 'live') then price_minor else null::bigint end)
        stored,
    payable_minor bigint generated always as ( case when (mode = 'live') then payout_minor else null::bigint end)
        stored,
    seen_lead_id uuid generated always as ( case when (state in ('exposed', 'delivered', 'refused', 'lapsed',
        'returned')) then lead_id else null::uuid end) stored,
    lists_serial bigint,
    constraint assignment_pkey primary key (id),
    constraint assignment_charged unique (business_id, id, currency, chargeable_minor),
    constraint assignment_live unique (lead_id, id, business_id, live),
    constraint assignment_paid_out unique (id, provider_id, currency, payable_minor),
    constraint assignment_endpoint foreign key (endpoint_id, business_id) references endpoint(id, business_id),
    constraint assignment_exposure foreign key (seen_lead_id, id) references exposure(lead_id, assignment_id),
    constraint assignment_lead foreign key (lead_id, provider_id, mode) references lead(id, provider_id, mode),
    constraint assignment_subscription foreign key (subscription_id, business_id, mode) references subscription(id,
        business_id, mode),
    constraint assignment_terms foreign key (subscription_id, subscription_version) references
        subscription_version(subscription_id, version),
    constraint assignment_due check ((due_at is not null) = (state in ('held', 'exposed'))),
    constraint assignment_evidence check (evidence in ('answer', 'fetch', 'reveal', 'acknowledgement')),
    constraint assignment_evidenced check ((evidence is not null) = (state in ('delivered', 'returned'))),
    constraint assignment_exposed_at check ((exposed_at is not null and evidence_until is not null) = (state <> all
        (array['held', 'released']))),
    constraint assignment_payout check (payout_minor >= 0 and payout_minor <= price_minor),
    constraint assignment_price check (price_minor > 0),
    constraint assignment_state check (state in ('held', 'released', 'exposed', 'delivered', 'refused', 'lapsed',
        'returned'))
) with (fillfactor=80);
create index assignment_by_subscription on assignment (subscription_id, awarded_at);
create index assignment_due_soon on assignment (due_at) where (due_at is not null);
-- Terminal states are included on purpose: even after a lapse nobody else can be given the lead.
create unique index assignment_one_live on assignment (lead_id) where live;
create index assignment_rehearsed on assignment (business_id, id) where (mode = 'test');
-- Leads that were shown and are not paid for: what a quota counts. Those that are delivered leave it again.
create index assignment_unpaid on assignment (subscription_id, awarded_at) where ((mode = 'live') and (evidence is
    null));
create trigger assignment_begun_recorded after insert on assignment for each row execute function
    record_assignment_move();
create trigger assignment_move before update of state on assignment for each row when (old.state is distinct from
    new.state) execute function assert_assignment_move();
create trigger assignment_move_recorded after update on assignment for each row when (old.state is distinct from
    new.state) execute function record_assignment_move();
create constraint trigger assignment_takes_back_credits after update of state on assignment deferrable initially
    deferred for each row when (new.state = 'released' and old.state <> 'released') execute function
    take_back_credits();
grant select on assignment to marketplace_api, marketplace_reports;
grant update (due_at, reason, settled_at, state) on assignment to marketplace_eraser;
grant select, update (due_at, evidence, evidence_until, exposed_at, reason, settled_at, state) on assignment to
    marketplace_feeder;
grant update (reason, state) on assignment to marketplace_returner;
grant insert, select, update (attempts, due_at, evidence, evidence_until, exposed_at, reason, settled_at, state) on
    assignment to marketplace_worker;

create function assert_assignment_move() returns trigger language plpgsql as $$
begin
    if (old.state, new.state) not in (
        ('held', 'released'), ('held', 'exposed'),
        ('exposed', 'delivered'), ('exposed', 'refused'), ('exposed', 'lapsed'),
        ('delivered', 'returned'))
    then
        raise exception 'an assignment never moves from % to %', old.state, new.state
            using errcode = 'check_violation', constraint = 'assignment_move';
    end if;
    return new;
end $$;

-- Written and committed before any contact byte may leave. One per lead, for ever.
--  * its lead must be in a seen state, and no seen lead can go back while this row exists (exposure_lead);
--  * its assignment must be live, and no exposed assignment can be released (exposure_assignment);
--  * an assignment beyond held must have this row (assignment_exposure).
create table exposure (
    lead_id uuid not null,
    assignment_id uuid not null,
    business_id uuid not null,
    live bool not null default true,
    seen bool not null default true,
    channel text not null,
    endpoint_id uuid not null,
    url_sha256 bytea not null,
    address text not null,
    tls_sha256 bytea,
    attempt_no int not null,
    position bigint not null generated always as identity,
    committed_by xid8 not null default pg_current_xact_id(),
    exposed_at timestamptz not null default clock_timestamp(),
    constraint exposure_pkey primary key (lead_id),
    constraint exposure_of_assignment unique (lead_id, assignment_id),
    constraint exposure_assignment foreign key (assignment_id, lead_id, business_id, live) references assignment(id,
        lead_id, business_id, live),
    constraint exposure_lead foreign key (lead_id, seen) references lead(id, seen),
    constraint exposure_channel check (channel in ('push', 'fetch', 'email', 'feed', 'portal')),
    constraint exposure_live check (live),
    constraint exposure_seen check (seen)
);
create index exposure_by_commit on exposure (committed_by);
create trigger exposure_is_final before delete or update on exposure for each row execute function refuse_change();
create trigger exposure_is_kept before truncate on exposure for each statement execute function refuse_change();
create trigger exposure_of_nobody_erased before insert on exposure for each row execute function refuse_erased();
grant select on exposure to marketplace_api, marketplace_reports;
grant insert (address, assignment_id, attempt_no, business_id, channel, endpoint_id, exposed_at, lead_id, url_sha256),
    select on exposure to marketplace_feeder;
grant insert (address, assignment_id, attempt_no, business_id, channel, endpoint_id, exposed_at, lead_id, tls_sha256,
    url_sha256), select on exposure to marketplace_worker;

-- The only door to contact data: an exposure to this very business, committed by an earlier transaction.
create function read_contact(of_lead uuid, for_business uuid) returns table(sealed bytea, wrapped bytea, master_key_id
    text, corrections jsonb) language plpgsql security definer set search_path to 'pg_catalog', 'public' as $$
declare
    committed_by xid8;
begin
    select e.committed_by into committed_by from public.exposure e
    where e.lead_id = of_lead and e.business_id = for_business;
    if committed_by is null then
        raise exception 'no exposure of this lead to this business' using errcode = 'insufficient_privilege';
    end if;
    if committed_by = pg_current_xact_id_if_assigned() then
        raise exception 'the exposure is not committed yet' using errcode = 'object_not_in_prerequisite_state';
    end if;
    return query
        select c.sealed, k.wrapped, k.master_key_id, (
            select jsonb_agg(jsonb_build_object('master_key_id', r.master_key_id,
                'box', translate(encode(r.sealed, 'base64'), E'\n', ''),
                'wrapped', translate(encode(r.wrapped, 'base64'), E'\n', '')) order by r.revision)
            from public.correction r where r.lead_id = of_lead and r.sealed is not null)
        from public.contact c join public.data_key k on k.lead_id = c.lead_id
        where c.lead_id = of_lead;
end $$;
revoke all on function read_contact from public;
grant execute on function read_contact to marketplace_api, marketplace_worker;


-- Money (migration 0003) ----------------------------------------------------------------------------------------------

create table wallet (
    business_id uuid not null,
    currency character(3) not null,
    available_minor bigint not null default 0,
    held_minor bigint not null default 0,
    credit_limit_minor bigint not null default 0,
    low_below_minor bigint,
    constraint wallet_pkey primary key (business_id),
    constraint wallet_currency unique (business_id, currency),
    constraint wallet_business_id_fkey foreign key (business_id) references business(id),
    constraint wallet_covers check (available_minor >= (- credit_limit_minor)),
    constraint wallet_credit_limit check (credit_limit_minor >= 0),
    constraint wallet_held check (held_minor >= 0)
) with (fillfactor=70);
grant insert, select, update (available_minor, credit_limit_minor, low_below_minor) on wallet to marketplace_api;
grant update (held_minor) on wallet to marketplace_eraser;
grant select (business_id, held_minor), update (held_minor) on wallet to marketplace_feeder;
grant select on wallet to marketplace_reports;
grant select, update (available_minor, held_minor) on wallet to marketplace_worker;

create table transfer (
    id uuid not null,
    kind text not null,
    amount_minor bigint not null,
    currency character(3) not null,
    business_id uuid,
    provider_id uuid,
    assignment_id uuid,
    event_id text,
    made_at timestamptz not null default clock_timestamp(),
    price_minor bigint generated always as ( case when (kind in ('hold', 'release', 'capture', 'refund')) then
        amount_minor else null::bigint end) stored,
    payout_minor bigint generated always as ( case when (kind in ('payout', 'claw_back')) then amount_minor else
        null::bigint end) stored,
    committed_by xid8 not null default pg_current_xact_id(),
    share smallint,
    whole_payout_minor bigint generated always as ( case when ((kind in ('payout', 'claw_back')) and (share is null))
        then amount_minor else null::bigint end) stored,
    constraint transfer_pkey primary key (id),
    constraint transfer_at_agreed_payout foreign key (assignment_id, provider_id, currency, whole_payout_minor)
        references assignment(id, provider_id, currency, payable_minor),
    constraint transfer_at_agreed_share foreign key (assignment_id, share, provider_id, currency, amount_minor)
        references payout_share(assignment_id, share, provider_id, currency, amount_minor),
    constraint transfer_at_quoted_price foreign key (assignment_id, business_id, currency, price_minor) references
        assignment(id, business_id, currency, chargeable_minor),
    constraint transfer_wallet foreign key (business_id, currency) references wallet(business_id, currency),
    constraint transfer_amount check (amount_minor > 0),
    constraint transfer_cause check ( case when kind in ('top_up', 'withdrawal', 'paid') then event_id is not null and
        assignment_id is null else event_id is null and assignment_id is not null end),
    constraint transfer_kind check (kind in ('top_up', 'withdrawal', 'hold', 'release', 'capture', 'payout', 'refund',
        'claw_back', 'paid')),
    constraint transfer_parties check ( case when kind in ('payout', 'claw_back', 'paid') then provider_id is not null
        and business_id is null else provider_id is null and business_id is not null end),
    constraint transfer_share check (share is null or (kind in ('payout', 'claw_back')))
);
alter table transfer enable row level security;
create index transfer_by_business on transfer (business_id, id) include (kind, amount_minor, made_at) where
    (business_id is not null);
create index transfer_by_commit on transfer (committed_by);
create index transfer_by_provider on transfer (provider_id, id) where (provider_id is not null);
-- What a provider earned, month by month, from the index alone.
create index transfer_earned on transfer (provider_id, made_at) include (kind, currency, amount_minor) where
    (provider_id is not null);
create index transfer_made on transfer using brin (made_at) with (pages_per_range='16', autosummarize='on');
create unique index transfer_one_claw_back on transfer (assignment_id, coalesce((share)::int, 0)) where (kind =
    'claw_back');
create unique index transfer_one_event on transfer (event_id) where (event_id is not null);
create unique index transfer_one_hold on transfer (assignment_id) where (kind = 'hold');
create unique index transfer_one_payout on transfer (assignment_id, coalesce((share)::int, 0)) where (kind = 'payout');
create unique index transfer_one_refund on transfer (assignment_id) where (kind = 'refund');
create unique index transfer_one_settlement on transfer (assignment_id) where (kind in ('capture', 'release'));
-- Kinds of which the ledger's newest page would not be found among the newest transfers.
create index transfer_seldom on transfer (kind, id) where (kind <> all (array['hold', 'capture', 'payout']));
create constraint trigger transfer_every_share after insert on transfer deferrable initially deferred for each row when
    (new.share is not null) execute function assert_shares_move();
create trigger transfer_is_final before delete or update on transfer for each row execute function refuse_change();
create trigger transfer_is_kept before truncate on transfer for each statement execute function refuse_change();
create trigger transfer_is_owed after insert on transfer for each row when (new.kind = 'paid') execute function
    refuse_unowed_payment();
create policy transfer_of_erasures on transfer for insert to marketplace_eraser with check (kind = 'release');
create policy transfer_of_feeds on transfer for insert to marketplace_feeder with check (kind in ('capture', 'payout'));
create policy transfer_of_leads on transfer for insert to marketplace_worker with check (kind <> all (array['top_up',
    'withdrawal', 'paid']));
create policy transfer_of_payments on transfer for insert to marketplace_api with check (kind in ('top_up',
    'withdrawal', 'paid'));
create policy transfer_of_returns on transfer for insert to marketplace_returner with check (kind in ('refund',
    'claw_back'));
create policy transfer_seen_by_all on transfer for select using (true);
grant insert (amount_minor, assignment_id, business_id, currency, event_id, id, kind, made_at, provider_id, share),
    select on transfer to marketplace_api, marketplace_worker;
grant insert (amount_minor, assignment_id, business_id, currency, id, kind, made_at, provider_id, share) on transfer to
    marketplace_feeder;
grant select on transfer to marketplace_reports;

-- An entry's own parties are expressions, which no index answers; whose transfer it is, is a column.
create view entry as
 select t.id as transfer_id,
    t.kind,
    side.account,
    side.sign * t.amount_minor as amount_minor,
    t.currency,
        case
            when side.account in ('available', 'held') then t.business_id
            else null::uuid
        end as business_id,
        case
            when side.account = 'payable' then t.provider_id
            else null::uuid
        end as provider_id,
    t.assignment_id,
    t.event_id,
    t.made_at,
    t.business_id as of_business,
    t.provider_id as of_provider
   from transfer t
     join ( values ('top_up','outside','-1'::int), ('top_up','available',1), ('withdrawal','available','-1'::int),
         ('withdrawal','outside',1), ('hold','available','-1'::int), ('hold','held',1), ('release','held','-1'::int),
         ('release','available',1), ('capture','held','-1'::int), ('capture','revenue',1),
         ('payout','revenue','-1'::int), ('payout','payable',1), ('refund','revenue','-1'::int),
         ('refund','available',1), ('claw_back','payable','-1'::int), ('claw_back','revenue',1),
         ('paid','payable','-1'::int), ('paid','outside',1)) side(kind, account, sign) on side.kind = t.kind;
grant select on entry to marketplace_api, marketplace_reports, marketplace_worker;

-- How much of each cap is used, per calendar window of the subscription's own zone.
-- `limit_*` is the cap in force when the row was last raised, so that passing a cap is impossible, not only avoided.
create table cap_usage (
    subscription_id uuid not null,
    cap_window text not null,
    starts_at timestamptz not null,
    used_count int not null default 0,
    used_minor bigint not null default 0,
    limit_count int,
    limit_minor bigint,
    constraint cap_usage_pkey primary key (subscription_id, cap_window, starts_at),
    constraint cap_usage_subscription_id_fkey foreign key (subscription_id) references subscription(id),
    constraint cap_usage_count check (used_count <= limit_count),
    constraint cap_usage_minor check (used_minor <= limit_minor),
    constraint cap_usage_used_count_check check (used_count >= 0),
    constraint cap_usage_used_minor_check check (used_minor >= 0),
    constraint cap_usage_window check (cap_window in ('hour', 'day', 'week', 'month', 'total'))
) with (fillfactor=70);
grant select on cap_usage to marketplace_api, marketplace_reports;
grant update (used_count, used_minor) on cap_usage to marketplace_eraser;
grant insert, select, update (limit_count, limit_minor, used_count, used_minor) on cap_usage to marketplace_worker;


-- Records (migration 0004) --------------------------------------------------------------------------------------------

create table decision (
    id uuid not null,
    lead_id uuid not null,
    made_at timestamptz not null,
    outcome text not null,
    reason text,
    vertical_version int not null,
    catalog_version bigint not null,
    strategy text,
    verdict jsonb not null,
    candidates jsonb not null default '[]'::jsonb,
    left_out int not null default 0,
    subscription_id uuid,
    assignment_id uuid,
    credits jsonb,
    revision int not null default 0,
    constraint decision_pkey primary key (id, made_at),
    constraint decision_outcome check (outcome in ('rejected', 'nurturing', 'expired', 'held', 'unsold', 'waiting'))
) partition by range (made_at);
create index decision_by_lead on only decision (lead_id, made_at);
create trigger decision_is_final before delete or update on decision for each row execute function refuse_change();
grant select on decision to marketplace_api, marketplace_reports;
grant insert, select on decision to marketplace_worker;

create table attempt (
    id uuid not null,
    assignment_id uuid not null,
    lead_id uuid not null,
    business_id uuid not null,
    endpoint_id uuid not null,
    attempt_no int not null,
    started_at timestamptz not null,
    outcome text not null,
    reason text not null,
    status int,
    dns_ms double precision,
    connect_ms double precision,
    tls_ms double precision,
    expose_ms double precision,
    first_byte_ms double precision,
    total_ms double precision not null,
    address text,
    body_sha256 bytea,
    answer_excerpt text,
    answer_reference text,
    answer_price text,
    constraint attempt_pkey primary key (id, started_at)
) partition by range (started_at);
create index attempt_by_assignment on only attempt (assignment_id, started_at);
create index attempt_by_business on only attempt (business_id, started_at);
-- What went wrong at doors, over all businesses and at one's own.
create index attempt_failed on only attempt (outcome, id) where (outcome <> 'accepted');
create index attempt_failed_by_business on only attempt (business_id, outcome, started_at) where (outcome <>
    'accepted');
grant select on attempt to marketplace_api, marketplace_reports;
grant update (answer_excerpt, answer_price, answer_reference) on attempt to marketplace_eraser;
grant insert, select on attempt to marketplace_worker;

create table touch (
    lead_id uuid not null,
    fingerprint bytea not null,
    revision int not null,
    kind text not null,
    at timestamptz not null,
    detail text not null default '',
    direction text,
    seconds int,
    amount_minor bigint,
    currency character(3),
    starts_at timestamptz,
    touch_id text,
    supplies jsonb not null default '{}'::jsonb,
    recorded_at timestamptz not null,
    committed_by xid8 not null default pg_current_xact_id(),
    constraint touch_once primary key (lead_id, fingerprint),
    constraint touch_lead_id_fkey foreign key (lead_id) references lead(id),
    constraint touch_amount check (amount_minor >= 0),
    constraint touch_currency check ((amount_minor is null) = (currency is null)),
    constraint touch_direction check (direction in ('inbound', 'outbound')),
    constraint touch_seconds check (seconds >= 0 and seconds <= 86400)
);
create index touch_by_commit on touch (committed_by);
grant select on touch to marketplace_api, marketplace_reports, marketplace_worker;
grant update (detail) on touch to marketplace_eraser;

create table audit (
    id uuid not null,
    at timestamptz not null,
    actor text not null,
    action text not null,
    object text not null,
    detail jsonb not null default '{}'::jsonb,
    committed_by xid8 not null default pg_current_xact_id(),
    constraint audit_pkey primary key (id, at)
) partition by range (at);
-- One kind of change among all: an action, or the family before its point.
create index audit_by_action on only audit (action text_pattern_ops, id);
-- What an account's members did, newest first.
create index audit_by_actor on only audit (actor, id);
create index audit_by_commit on only audit (committed_by);
create index audit_by_object on only audit (object, at);
create index audit_by_object_newest on only audit (object, id);
create trigger audit_is_final before delete or update on audit for each row execute function refuse_change();
create trigger audit_is_kept before truncate on audit for each statement execute function refuse_change();
grant insert (action, actor, at, detail, id, object), select on audit to marketplace_api, marketplace_worker;
grant insert (action, actor, at, detail, id, object) on audit to marketplace_feeder;
grant select on audit to marketplace_reports;

-- Makes the monthly partitions from one month before `around` to `ahead` months after it; safe to repeat.
create function make_partitions(around timestamptz, ahead int) returns void language plpgsql security definer set
    search_path to 'pg_catalog', 'public' as $$
declare
    parent text;
    month timestamptz;
begin
    perform pg_advisory_xact_lock(hashtext('marketplace.make_partitions'));
    foreach parent in array array['decision', 'attempt', 'audit'] loop
        for month in select generate_series(
            date_trunc('month', around at time zone 'UTC') - interval '1 month',
            date_trunc('month', around at time zone 'UTC') + make_interval(months => ahead), interval '1 month')
            at time zone 'UTC'
        loop
            execute format('create table if not exists public.%I partition of public.%I for values from (%L) to (%L)',
                parent || to_char(month at time zone 'UTC', '_YYYY_MM'), parent, month,
                (month at time zone 'UTC' + interval '1 month') at time zone 'UTC');
        end loop;
    end loop;
end $$;
revoke all on function make_partitions from public;
grant execute on function make_partitions to marketplace_worker;


-- Audit chain (migration 0006) ----------------------------------------------------------------------------------------

-- Every move of a lead or, where it is named, of its assignment: from which state to which, and the role at work, so that
-- a move made by hand shows whose hand it was. A narrow table of its own with one index, the one that sealing reads by,
-- because each lead writes some eight rows.
create table move (
    position bigint not null generated always as identity,
    lead_id uuid not null,
    assignment_id uuid,
    left_state text,
    entered_state text not null,
    actor text not null default current_user,
    at timestamptz not null default clock_timestamp(),
    committed_by xid8 not null default pg_current_xact_id(),
    constraint move_pkey primary key (committed_by, "position")
);
create trigger move_is_final before delete or update on move for each row execute function refuse_change();
create trigger move_is_kept before truncate on move for each statement execute function refuse_change();
grant insert (assignment_id, entered_state, lead_id, left_state), select on move to marketplace_api, marketplace_worker;
grant insert (assignment_id, entered_state, lead_id, left_state) on move to marketplace_feeder;
grant select on move to marketplace_reports;

create function record_lead_move() returns trigger language plpgsql as $$
begin
    insert into move (lead_id, left_state, entered_state)
    values (new.id, case when tg_op = 'UPDATE' then old.state end, new.state);
    return null;
end $$;

create function record_assignment_move() returns trigger language plpgsql as $$
begin
    insert into move (lead_id, assignment_id, left_state, entered_state)
    values (new.lead_id, new.id, case when tg_op = 'UPDATE' then old.state end, new.state);
    return null;
end $$;

-- The form of 0006_audit_chain.sql, except that the digest of a transfer has its share where it has one: the seals of transfers
-- from before stay as they are.
create view audit_entry as
 select audit.committed_by,
    '\x61'::bytea || uuid_send(audit.id) as place,
    audit.at,
    sha256(convert_to(jsonb_build_array(audit.committed_by::text, audit.id, extract(epoch from audit.at)::text,
        audit.actor, audit.action, audit.object, audit.detail)::text, 'UTF8'::name)) as digest
   from audit
union all
 select exposure.committed_by,
    '\x65'::bytea || uuid_send(exposure.lead_id) as place,
    exposure.exposed_at as at,
    sha256(convert_to(jsonb_build_array(exposure.committed_by::text, exposure.lead_id, exposure.assignment_id,
        exposure.business_id, exposure.live, exposure.seen, exposure.channel, exposure.endpoint_id,
        encode(exposure.url_sha256, 'hex'), exposure.address, encode(exposure.tls_sha256, 'hex'), exposure.attempt_no,
        exposure."position", extract(epoch from exposure.exposed_at)::text)::text, 'UTF8'::name)) as digest
   from exposure
union all
 select transfer.committed_by,
    '\x74'::bytea || uuid_send(transfer.id) as place,
    transfer.made_at as at,
    sha256(convert_to((jsonb_build_array(transfer.committed_by::text, transfer.id, transfer.kind,
        transfer.amount_minor, transfer.currency, transfer.business_id, transfer.provider_id, transfer.assignment_id,
        transfer.event_id, extract(epoch from transfer.made_at)::text, transfer.price_minor, transfer.payout_minor) ||
        case
            when transfer.share is null then '[]'::jsonb
            else jsonb_build_array(transfer.share)
        end)::text, 'UTF8'::name)) as digest
   from transfer
union all
 select move.committed_by,
    '\x6d0000000000000000'::bytea || int8send(move."position") as place,
    move.at,
    sha256(convert_to(jsonb_build_array(move.committed_by::text, move."position", move.lead_id, move.assignment_id,
        move.left_state, move.entered_state, move.actor, extract(epoch from move.at)::text)::text, 'UTF8'::name)) as
        digest
   from move;
grant select on audit_entry to marketplace_api, marketplace_reports, marketplace_worker;

-- A block covers every row of the transactions from `xid_from` up to and without `xid_to`, where the next one begins.
-- `entries` is their places (17 bytes) and digests (32 bytes) in the order of transaction and place; `seal` is keyed, and
-- the key is never here: whoever may rewrite all of this still cannot seal it.
create table audit_block (
    number bigint not null,
    previous bytea not null,
    xid_from xid8 not null,
    xid_to xid8 not null,
    entries bytea storage external not null,
    sealed_at timestamptz not null,
    seal bytea not null,
    constraint audit_block_pkey primary key (number),
    constraint audit_block_previous_key unique (previous),
    constraint audit_block_seal_key unique (seal),
    constraint audit_block_xid_to_key unique (xid_to),
    constraint audit_block_entries check (octet_length(entries) > 0 and (octet_length(entries) % 49) = 0),
    constraint audit_block_number check (number > 0),
    constraint audit_block_previous check (octet_length(previous) = 32),
    constraint audit_block_seal check (octet_length(seal) = 32),
    constraint audit_block_span check (xid_from < xid_to)
);
create trigger audit_block_is_final before delete or update on audit_block for each row execute function
    refuse_change();
create trigger audit_block_is_kept before truncate on audit_block for each statement execute function refuse_change();
grant select on audit_block to marketplace_api, marketplace_reports;
grant insert, select on audit_block to marketplace_worker;


-- Erasure (migration 0007) --------------------------------------------------------------------------------------------

-- Which leads are one person's, by the keyed hashes that suppressions use: unlike a window it does not end, so that a
-- request years later finds the lead. Erasing a lead deletes its rows, and with them the last tie to the person.
create table person_key (
    lead_id uuid not null,
    key bytea not null,
    constraint person_key_pkey primary key (lead_id, key),
    constraint person_key_lead_id_fkey foreign key (lead_id) references lead(id)
);
create index person_key_by_key on person_key (key);
grant insert, select on person_key to marketplace_api;
grant delete on person_key to marketplace_eraser;
grant select on person_key to marketplace_feeder, marketplace_worker;

-- One lead's erasure, written in the transaction that destroyed its contact, and the notice to the one business that may
-- have seen it: no exposure, no notice. Only the notice's columns ever change.
create table erasure (
    lead_id uuid not null,
    requested_at timestamptz not null,
    requested_by text not null,
    reason text not null,
    suppressed bool not null,
    business_id uuid,
    notice_id uuid,
    constraint erasure_pkey primary key (lead_id),
    constraint erasure_lead_id_fkey foreign key (lead_id) references lead(id),
    constraint erasure_notice_id_fkey foreign key (notice_id) references notice(id),
    constraint erasure_announced check ((business_id is null) = (notice_id is null))
) with (fillfactor=80);
create index erasure_newest on erasure (requested_at, lead_id);
create trigger erasure_ends_certificates after insert on erasure for each row execute function end_certificates();
create trigger erasure_is_kept before delete on erasure for each row execute function refuse_change();
create trigger erasure_is_never_emptied before truncate on erasure for each statement execute function refuse_change();
grant select on erasure to marketplace_api, marketplace_feeder, marketplace_reports, marketplace_worker;
grant insert on erasure to marketplace_eraser;

-- Whether nothing of a lead may leave us any more: it was erased or revoked, its person asked anybody here not to be
-- contacted, or its consent has ended, by this database's clock at this moment. Every statement that exposes a lead asks
-- it, and so does the one that opens a lead again.
create function is_withdrawn(of_lead uuid) returns bool language sql as $$
select is_stopped(of_lead) or exists (
        select from person_key k
        join list_member m on m.key = substring(k.key for 16) and m.until is null
        join contact_list l on l.number = m.list and l.kind = 'do_not_contact' and l.removed_at is null
        where k.lead_id = of_lead)
$$;

-- Never exposed after the erasure or the revocation was accepted, whatever the code believes. Both hold the lead's lock
-- until they have committed, so that an exposure either came before, and has its notice, or finds the row here.
create function refuse_erased() returns trigger language plpgsql as $$
begin
    if exists (select from erasure where lead_id = new.lead_id) then
        raise exception 'this lead was erased' using errcode = 'restrict_violation', constraint = 'exposure_erased';
    end if;
    if exists (select from revoked_lead where lead_id = new.lead_id) then
        raise exception 'this lead was revoked' using errcode = 'restrict_violation', constraint = 'exposure_revoked';
    end if;
    return new;
end $$;


-- Fence (migration 0008) ----------------------------------------------------------------------------------------------

create table fenced_lead (
    lead_id uuid not null,
    assignment_id uuid not null,
    business_id uuid not null,
    vertical_id uuid not null,
    outcome text not null,
    persons bytea[] not null,
    exposed_at timestamptz not null,
    protected_until timestamptz not null,
    fenced_at timestamptz not null,
    constraint fenced_lead_pkey primary key (lead_id, assignment_id),
    constraint fenced_lead_outcome check (outcome in ('absent', 'closed', 'contradicted'))
);
create index fenced_lead_persons on fenced_lead using gin (persons);
create trigger fenced_lead_is_final before delete or update on fenced_lead for each row execute function
    refuse_change();
create trigger fenced_lead_is_kept before truncate on fenced_lead for each statement execute function refuse_change();
grant select on fenced_lead to marketplace_feeder, marketplace_reports;
grant insert, select on fenced_lead to marketplace_worker;

-- A fenced person who is submitted again finds the window taken, as if the lost lead were still here.
create function keep_fenced_person() returns trigger language plpgsql security definer set search_path to 'pg_catalog',
    'public' as $$
begin
    if exists (
        select from public.fenced_lead f
        where f.persons @> array[new.key] and f.vertical_id = new.vertical_id and f.lead_id <> new.lead_id
          and tstzrange(f.exposed_at, f.protected_until) && new.during)
    then
        return null;
    end if;
    return new;
end $$;


-- Feedback (migration 0010) -------------------------------------------------------------------------------------------

-- Append only. The latest by `happened_at` is where a lead stands; the earliest is its first touch, and the earliest of those
-- in which somebody was reached its first contact. `stage` is the business's own word, if it used one.
create table disposition (
    id uuid not null,
    assignment_id uuid not null,
    lead_id uuid not null,
    business_id uuid not null,
    live bool not null default true,
    kind text not null,
    value_minor bigint,
    reason text,
    note text,
    stage text,
    happened_at timestamptz not null,
    recorded_at timestamptz not null,
    source text not null,
    event_id text,
    committed_by xid8 not null default pg_current_xact_id(),
    file_import_id uuid,
    undone_at timestamptz,
    starts_at timestamptz,
    stage_id uuid,
    constraint disposition_pkey primary key (id),
    constraint disposition_assignment foreign key (assignment_id, lead_id, business_id, live) references assignment(id,
        lead_id, business_id, live),
    constraint disposition_exposed foreign key (lead_id, assignment_id) references exposure(lead_id, assignment_id),
    constraint disposition_file_import_id_fkey foreign key (file_import_id) references file_import(id),
    constraint disposition_stage foreign key (stage_id, business_id) references pipeline_stage(id, business_id),
    constraint disposition_appointment check ((starts_at is not null) = (kind = 'appointment')),
    constraint disposition_kind check (kind in ('contacted', 'qualified', 'appointment', 'quoted', 'won', 'lost',
        'unreachable')),
    constraint disposition_live check (live),
    constraint disposition_lost check (reason is null or kind = 'lost'),
    constraint disposition_reason check (reason in ('price', 'competitor', 'not_interested', 'no_need', 'bad_timing',
        'duplicate_job', 'other')),
    constraint disposition_source check (source in ('api', 'webhook', 'csv', 'portal', 'demo')),
    constraint disposition_undone check (undone_at is null or file_import_id is not null or source = 'portal'),
    constraint disposition_value check (value_minor >= 0),
    constraint disposition_won check ((value_minor is not null) = (kind = 'won'))
);
create index disposition_by_assignment on disposition (assignment_id, happened_at, id);
create index disposition_by_business on disposition (business_id, happened_at) include (assignment_id, kind,
    value_minor, recorded_at);
create index disposition_by_commit on disposition (committed_by);
create index disposition_by_lead on disposition (lead_id);
-- The last report of a business, up to which the outcomes of its leads are known, is found without reading all of its reports.
create index disposition_by_report on disposition (business_id, recorded_at) where (undone_at is null);
create unique index disposition_event on disposition (business_id, event_id) where (undone_at is null);
create index disposition_of_import on disposition (file_import_id) where ((file_import_id is not null) and (undone_at
    is null));
create trigger disposition_is_final before delete or update on disposition for each row execute function
    keep_disposition();
create trigger disposition_is_kept before truncate on disposition for each statement execute function refuse_change();
grant insert, select, update (committed_by, undone_at) on disposition to marketplace_api;
grant update (note) on disposition to marketplace_eraser;
grant select on disposition to marketplace_reports, marketplace_worker;

create function keep_disposition() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and new.note is null and to_jsonb(new) - 'note' = to_jsonb(old) - 'note' then
        return new;
    end if;
    if tg_op = 'UPDATE' and old.undone_at is null and new.undone_at is not null
        and new.committed_by = pg_current_xact_id()
        and to_jsonb(new) - array['undone_at', 'committed_by'] = to_jsonb(old) - array['undone_at', 'committed_by']
    then
        return new;
    end if;
    raise exception '% rows are never changed', tg_table_name using errcode = 'restrict_violation';
end $$;

-- One request per assignment, ever. `finding` is what both sides are told of the judgement; `judged_by` is 'machine' or the
-- actor. A machine's denial may be overruled by an operator; a granted return has moved money and stays.
create table return_request (
    id uuid not null,
    assignment_id uuid not null,
    lead_id uuid not null,
    business_id uuid not null,
    live bool not null default true,
    reason text not null,
    note text,
    evidence jsonb not null default '{}'::jsonb,
    state text not null,
    requested_at timestamptz not null,
    judged_at timestamptz,
    judged_by text,
    finding text,
    constraint return_request_pkey primary key (id),
    constraint return_request_once unique (assignment_id),
    constraint return_request_assignment foreign key (assignment_id, lead_id, business_id, live) references
        assignment(id, lead_id, business_id, live),
    constraint return_request_exposed foreign key (lead_id, assignment_id) references exposure(lead_id, assignment_id),
    constraint return_request_judged check ((judged_at is not null) = (state <> 'requested') and (judged_by is not
        null) = (state <> 'requested') and (finding is not null) = (state <> 'requested')),
    constraint return_request_live check (live),
    constraint return_request_reason check (reason in ('duplicate', 'outside_area', 'invalid_number', 'bant_mismatch',
        'wrong_person', 'no_consent_recalled', 'fraud', 'other')),
    constraint return_request_state check (state in ('requested', 'granted', 'denied'))
);
create index return_request_by_business on return_request (business_id, id);
create index return_request_by_lead on return_request (lead_id);
create index return_request_open on return_request (id) where (state = 'requested');
create trigger return_request_is_final before delete or update of id, assignment_id, lead_id, business_id, reason,
    requested_at on return_request for each row execute function refuse_change();
create trigger return_request_is_kept before truncate on return_request for each statement execute function
    refuse_change();
create trigger return_request_move before update of state, judged_at, judged_by, finding on return_request for each row
    execute function assert_return_move();
grant insert, select on return_request to marketplace_api;
grant update (note) on return_request to marketplace_eraser;
grant select on return_request to marketplace_reports, marketplace_worker;
grant update (finding, judged_at, judged_by, state) on return_request to marketplace_returner;

create function assert_return_move() returns trigger language plpgsql as $$
begin
    if (old.state, new.state) not in (('requested', 'granted'), ('requested', 'denied'), ('denied', 'granted'))
        or (old.state = 'denied' and old.judged_by <> 'machine')
    then
        raise exception 'a return never moves from % to %', old.state, new.state
            using errcode = 'check_violation', constraint = 'return_request_move';
    end if;
    return new;
end $$;

-- Each business's own words for where a lead stands, and which kind of disposition each of them means.
create table pipeline_stage (
    business_id uuid not null,
    stage text not null,
    kind text not null,
    position int not null,
    id uuid not null default gen_random_uuid(),
    limit_days int,
    retired_at timestamptz,
    merged_into uuid,
    colour text,
    constraint pipeline_stage_pkey primary key (id),
    constraint pipeline_stage_of_business unique (id, business_id),
    constraint pipeline_stage_business_id_fkey foreign key (business_id) references business(id),
    constraint pipeline_stage_merged foreign key (merged_into, business_id) references pipeline_stage(id, business_id),
    constraint pipeline_stage_colour check (colour in ('blue', 'orange', 'teal', 'purple', 'green', 'amber', 'red',
        'grey')),
    constraint pipeline_stage_kind check (kind in ('contacted', 'qualified', 'appointment', 'quoted', 'won', 'lost',
        'unreachable')),
    constraint pipeline_stage_limit check (limit_days >= 1 and limit_days <= 365),
    constraint pipeline_stage_successor check (merged_into is null or retired_at is not null)
);
create index pipeline_stage_by_business on pipeline_stage (business_id, "position");
grant insert, select, update (colour, kind, limit_days, merged_into, position, retired_at, stage) on pipeline_stage to
    marketplace_api;
grant select on pipeline_stage to marketplace_reports, marketplace_worker;

-- The secret by which a business's own systems sign what they tell us; sealed, like an endpoint's.
create table feedback_hook (
    business_id uuid not null,
    secret bytea not null,
    previous_secret bytea,
    previous_until timestamptz,
    made_at timestamptz not null,
    constraint feedback_hook_pkey primary key (business_id),
    constraint feedback_hook_business_id_fkey foreign key (business_id) references business(id)
);
grant insert, select, update (made_at, previous_secret, previous_until, secret) on feedback_hook to marketplace_api;


-- Shared leads (migration 0011) ---------------------------------------------------------------------------------------

-- One file or one call. The rows it refused were given back and are not kept. `records` has of each lead it added what the
-- estimates read of it: since a shared lead never changes, this is written once and read instead of the leads.
create table shared_import (
    id uuid not null,
    business_id uuid not null,
    source text not null,
    added int not null,
    known int not null,
    refused int not null,
    at timestamptz not null,
    currency character(3) not null,
    first_received_at timestamptz,
    last_received_at timestamptz,
    records bytea storage external not null,
    file_import_id uuid,
    undone_at timestamptz,
    constraint shared_import_pkey primary key (id),
    constraint shared_import_business_id_fkey foreign key (business_id) references business(id),
    constraint shared_import_file_import_id_fkey foreign key (file_import_id) references file_import(id) deferrable
        initially deferred,
    constraint shared_import_added_check check (added >= 0),
    constraint shared_import_known_check check (known >= 0),
    constraint shared_import_refused_check check (refused >= 0),
    constraint shared_import_source check (source in ('csv', 'api', 'demo'))
);
create index shared_import_by_business on shared_import (business_id, id);
create index shared_import_of_file on shared_import (file_import_id) where (file_import_id is not null);
create trigger shared_import_is_final before update on shared_import for each row execute function keep_but_undo();
grant insert, select, update (undone_at) on shared_import to marketplace_api;
grant select on shared_import to marketplace_reports, marketplace_worker;

-- A lead that was sold to others too, as its buyer tells it. Never changed: a lead sent again is known already. So what
-- became of it is known up to `observed_until`, and no further: one still open then is unfinished, not lost.
create table shared_lead (
    id uuid not null,
    business_id uuid not null,
    import_id uuid not null,
    vendor text not null,
    external_id text not null,
    vertical_id uuid,
    postal_code text,
    received_at timestamptz not null,
    observed_until timestamptz not null,
    cost_minor bigint not null,
    currency character(3) not null,
    contacted_at timestamptz,
    qualified bool,
    won_at timestamptz,
    won_minor bigint,
    lost_at timestamptz,
    lost bool not null default false,
    undone_at timestamptz,
    constraint shared_lead_pkey primary key (id),
    constraint shared_lead_business_id_fkey foreign key (business_id) references business(id),
    constraint shared_lead_import_id_fkey foreign key (import_id) references shared_import(id),
    constraint shared_lead_vertical_id_fkey foreign key (vertical_id) references vertical(id),
    constraint shared_lead_wallet foreign key (business_id, currency) references wallet(business_id, currency),
    constraint shared_lead_cost check (cost_minor >= 0),
    constraint shared_lead_in_order check (received_at <= observed_until and coalesce(contacted_at, received_at) >=
        received_at and coalesce(contacted_at, received_at) <= observed_until and coalesce(won_at, lost_at,
        received_at) >= received_at and coalesce(won_at, lost_at, received_at) <= observed_until),
    constraint shared_lead_one_end check (won_minor is null or lost_at is null and not lost),
    constraint shared_lead_value check (won_minor >= 0),
    constraint shared_lead_won check (won_at is null or won_minor is not null)
);
create index shared_lead_newest on shared_lead (business_id, id);
create index shared_lead_of_import on shared_lead (import_id);
create unique index shared_lead_once on shared_lead (business_id, vendor, external_id) where (undone_at is null);
create trigger shared_lead_is_final before update on shared_lead for each row execute function keep_but_undo();
grant insert, select, update (undone_at) on shared_lead to marketplace_api;
grant select on shared_lead to marketplace_reports, marketplace_worker;

-- What is taken to be so where nothing was measured: of a business by itself, or (business_id null) by the operator.
-- Only together do cost and win rate say what a shared lead brings.
create table roi_assumption (
    id uuid not null,
    business_id uuid,
    vertical_id uuid,
    currency character(3) not null,
    shared_cost_minor bigint,
    shared_win_rate double precision,
    shared_value_minor bigint,
    copies numeric,
    labour_minor bigint not null default 0,
    source text not null,
    made_at timestamptz not null,
    shared_leads int,
    shared_won int,
    shared_weeks int,
    constraint roi_assumption_pkey primary key (id),
    constraint roi_assumption_one unique nulls not distinct (business_id, vertical_id, currency),
    constraint roi_assumption_business_id_fkey foreign key (business_id) references business(id),
    constraint roi_assumption_vertical_id_fkey foreign key (vertical_id) references vertical(id),
    constraint roi_assumption_copies check (copies >= 1::numeric),
    constraint roi_assumption_cost check (shared_cost_minor > 0),
    constraint roi_assumption_counted check (num_nulls(shared_leads, shared_won, shared_weeks) = 3 or
        num_nulls(shared_leads, shared_won, shared_weeks) = 0 and shared_won >= 1 and shared_won <= shared_leads and
        shared_weeks >= 1 and shared_weeks <= 104 and shared_win_rate = (shared_won::double precision /
        shared_leads::double precision)),
    constraint roi_assumption_labour check (labour_minor >= 0),
    constraint roi_assumption_rate check (shared_win_rate > 0::double precision and shared_win_rate <= 1::double
        precision),
    constraint roi_assumption_value check (shared_value_minor > 0),
    constraint roi_assumption_whole check ((shared_cost_minor is null) = (shared_win_rate is null))
);
grant insert, select, update (copies, labour_minor, made_at, shared_cost_minor, shared_leads, shared_value_minor,
    shared_weeks, shared_win_rate, shared_won, source) on roi_assumption to marketplace_api;
grant select on roi_assumption to marketplace_reports, marketplace_worker;


-- Portal (migration 0012) ---------------------------------------------------------------------------------------------

create table member (
    id uuid not null,
    kind text not null,
    owner_id uuid,
    email text not null,
    name text not null,
    role text not null,
    state text not null default 'active',
    zone text,
    password_hash text,
    totp bytea,
    totp_step bigint,
    totp_confirmed_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    constraint member_pkey primary key (id),
    constraint member_email_key unique (email),
    constraint member_of_kind unique (id, kind),
    constraint member_email check (email = lower(email) and email ~~ '%_@_%'),
    constraint member_kind check (kind in ('provider', 'business', 'operator')),
    constraint member_owner check ((kind = 'operator') = (owner_id is null)),
    constraint member_role check (role in ('owner', 'member', 'viewer')),
    constraint member_state check (state in ('active', 'disabled')),
    constraint member_totp check (totp is not null or totp_step is null and totp_confirmed_at is null)
);
create index member_by_owner on member (owner_id, id);
grant insert, select, update (name, password_hash, role, state, totp, totp_confirmed_at, totp_step, zone) on member to
    marketplace_api;
grant select (id, kind, owner_id, role, state) on member to marketplace_worker;

-- A session is 'open' when everything asked for was shown; before that it leads nowhere but to the next question.
create table portal_session (
    id_hash bytea not null,
    member_id uuid not null,
    state text not null,
    mode text not null default 'live',
    device text not null default '',
    created_at timestamptz not null,
    seen_at timestamptz not null,
    expires_at timestamptz not null,
    factor bytea,
    constraint portal_session_pkey primary key (id_hash),
    constraint portal_session_member_id_fkey foreign key (member_id) references member(id),
    constraint portal_session_id check (octet_length(id_hash) = 32),
    constraint portal_session_mode check (mode in ('live', 'test')),
    constraint portal_session_state check (state in ('open', 'code_due', 'factor_due'))
);
create index portal_session_by_end on portal_session (expires_at);
create index portal_session_by_member on portal_session (member_id);
grant delete, insert, select, update on portal_session to marketplace_api;

-- A link that works once: to join, to choose a new password, to come in, or to set the whole thing up.
create table one_time_link (
    token_hash bytea not null,
    purpose text not null,
    member_id uuid,
    kind text,
    owner_id uuid,
    role text,
    email text,
    made_by text not null,
    made_at timestamptz not null,
    expires_at timestamptz not null,
    used_at timestamptz,
    opened_by text,
    opened_reason text,
    currency character(3),
    constraint one_time_link_pkey primary key (token_hash),
    constraint one_time_link_member_id_fkey foreign key (member_id) references member(id),
    constraint one_time_link_currency check ((currency is not null) = (purpose = 'sign_up')),
    constraint one_time_link_for_whom check ( case purpose when 'invite' then member_id is null and kind is not null
        and role is not null and email is not null and (kind = 'operator') = (owner_id is null) when 'set_up' then
        member_id is null and kind is null and owner_id is null and role is null when 'sign_up' then member_id is null
        and kind = 'business' and owner_id is null and role = 'owner' and email is null else member_id is not null and
        kind is null and owner_id is null and role is null end),
    constraint one_time_link_kind check (kind in ('provider', 'business', 'operator')),
    constraint one_time_link_opened check ((opened_by is null) = (opened_reason is null)),
    constraint one_time_link_purpose check (purpose in ('invite', 'reset', 'enter', 'set_up', 'factor', 'sign_up')),
    constraint one_time_link_role check (role in ('owner', 'member', 'viewer')),
    constraint one_time_link_token check (octet_length(token_hash) = 32)
);
create index one_time_link_by_owner on one_time_link (owner_id, made_at) where (purpose = 'invite');
grant insert, select, update (used_at) on one_time_link to marketplace_api;

-- Failed tries under one name (a keyed hash), with the moment from which the next one is heard.
create table sign_in_try (
    name bytea not null,
    failures int not null,
    tried_at timestamptz not null,
    next_at timestamptz not null,
    constraint sign_in_try_pkey primary key (name),
    constraint sign_in_try_failures check (failures > 0)
);
create index sign_in_try_by_age on sign_in_try (tried_at);
grant delete, insert, select, update on sign_in_try to marketplace_api;


-- Feed (migration 0013) -----------------------------------------------------------------------------------------------

-- The last place that was given out in each feed. Its lock is held until the event is committed, so that places become
-- visible in their order, and whoever has read up to one has missed none before it.
create table feed (
    business_id uuid not null,
    mode text not null,
    last_position bigint not null,
    constraint feed_pkey primary key (business_id, mode),
    constraint feed_business_id_fkey foreign key (business_id) references business(id),
    constraint feed_mode check (mode in ('live', 'test'))
) with (fillfactor=70);
grant select on feed to marketplace_api, marketplace_reports;
grant insert, select, update (last_position) on feed to marketplace_worker;

-- What a business is told, at its place; never any contact. `acknowledged_at` is when the business first said that it has it.
create table feed_event (
    business_id uuid not null,
    mode text not null,
    position bigint not null,
    kind text not null,
    assignment_id uuid not null,
    placed_at timestamptz not null,
    acknowledged_at timestamptz,
    notice_id uuid,
    constraint feed_event_pkey primary key (business_id, mode, "position"),
    constraint feed_event_of_notice unique (notice_id),
    constraint feed_event_assignment_id_fkey foreign key (assignment_id) references assignment(id),
    constraint feed_event_notice_id_fkey foreign key (notice_id) references notice(id),
    constraint feed_event_of_feed foreign key (business_id, mode) references feed(business_id, mode),
    constraint feed_event_kind check (kind in ('lead.assigned', 'lead.erased', 'lead.revoked', 'lead.updated')),
    constraint feed_event_notice check ((notice_id is null) = (kind = 'lead.assigned')),
    constraint feed_event_position check ("position" > 0)
);
create index feed_event_of_assignment on feed_event (assignment_id);
create unique index feed_event_of_lead on feed_event (assignment_id) where (kind = 'lead.assigned');
create index feed_event_open on feed_event (business_id, mode, "position") where (acknowledged_at is null);
create trigger feed_event_is_kept before truncate on feed_event for each statement execute function refuse_change();
grant select, update (acknowledged_at) on feed_event to marketplace_api, marketplace_feeder;
grant select on feed_event to marketplace_reports;
grant insert, select on feed_event to marketplace_worker;

-- The next place in the feed of the assignment's business, once; null where the event has its place already. An event
-- about a notice names it.
create function place_in_feed(of_assignment uuid, as_kind text, placed timestamptz, of_notice uuid default null::uuid)
    returns bigint language plpgsql as $$
declare
    owner uuid;
    in_mode text;
    place bigint;
begin
    select business_id, mode into strict owner, in_mode from assignment where id = of_assignment;
    insert into feed (business_id, mode, last_position) values (owner, in_mode, 0)
    on conflict (business_id, mode) do update set last_position = feed.last_position;
    if exists (select from feed_event where assignment_id = of_assignment and kind = as_kind
               and notice_id is not distinct from of_notice) then
        return null;
    end if;
    update feed set last_position = last_position + 1 where business_id = owner and mode = in_mode
    returning last_position into place;
    insert into feed_event (business_id, mode, position, kind, assignment_id, placed_at, notice_id)
    values (owner, in_mode, place, as_kind, of_assignment, placed, of_notice);
    return place;
end $$;
revoke all on function place_in_feed from public;
grant execute on function place_in_feed to marketplace_worker;

-- Opens one stream, once: what a browser puts in a URL in place of a key. Only its keyed hash is kept.
create table feed_ticket (
    ticket_hash bytea not null,
    key_id text not null,
    expires_at timestamptz not null,
    constraint feed_ticket_pkey primary key (ticket_hash),
    constraint feed_ticket_key_id_fkey foreign key (key_id) references api_key(id)
);
create index feed_ticket_by_end on feed_ticket (expires_at);
grant delete, insert, select on feed_ticket to marketplace_api;


-- Reports (migration 0014) --------------------------------------------------------------------------------------------

-- `part` is a mode for leads and candidates, a currency for money; `hour` is UTC. An hour without rows has no columns.
create table report_column (
    part text not null,
    field text not null,
    hour timestamptz not null,
    data bytea storage external not null,
    constraint report_column_pkey primary key (part, field, hour)
);
create index report_column_by_hour on report_column (hour);
grant select on report_column to marketplace_reports;
grant delete, insert, select on report_column to marketplace_worker;

-- Hours from `frontier` on are not kept yet: reports compute them. Before it, every change that `seen` shows
-- is in the columns or has its hour among the stale. `at` is when that was last looked after.
create table report_progress (
    only_row bool not null default true,
    frontier timestamptz not null,
    seen pg_snapshot not null,
    at timestamptz not null,
    constraint report_progress_pkey primary key (only_row),
    constraint report_progress_only_row_check check (only_row)
);
grant select on report_progress to marketplace_reports;
grant select, update (at, frontier, seen) on report_progress to marketplace_worker;

create table report_stale (
    hour timestamptz not null,
    since timestamptz not null,
    constraint report_stale_pkey primary key (hour)
);
grant select on report_stale to marketplace_reports;
grant delete, insert, select on report_stale to marketplace_worker;

-- As in 0032_background_passes.sql, and besides the touches.
create view report_changed as
 with progress as materialized (
         select report_progress.frontier,
            report_progress.seen,
            pg_snapshot_xmin(report_progress.seen) as since,
            pg_snapshot_xmax(pg_current_snapshot()) as upto
           from report_progress
        )
 select report_stale.hour
   from report_stale
union
 select date_trunc('hour', changed.at, 'UTC') as hour
   from progress p
     cross join lateral ( select l.received_at as at
           from ( select m.lead_id
                   from move m
                  where m.committed_by >= p.since and m.committed_by < p.upto and not
                      pg_visible_in_snapshot(m.committed_by, p.seen)
                union
                 select d.lead_id
                   from disposition d
                  where d.committed_by >= p.since and d.committed_by < p.upto and not
                      pg_visible_in_snapshot(d.committed_by, p.seen)
                union
                 select t.lead_id
                   from touch t
                  where t.committed_by >= p.since and t.committed_by < p.upto and not
                      pg_visible_in_snapshot(t.committed_by, p.seen)) changed_lead
             cross join lateral ( select lead.received_at
                   from lead
                  where lead.id = changed_lead.lead_id
                 limit 1) l
        union all
         select t.made_at
           from transfer t
          where t.committed_by >= p.since and t.committed_by < p.upto and not pg_visible_in_snapshot(t.committed_by,
              p.seen)) changed
  where changed.at < p.frontier;
grant select on report_changed to marketplace_reports, marketplace_worker;

-- The time of a lead that was opened again counts from its reopening, not from its receipt weeks before. Everything else in
-- the figures of a lead is as in 0032_background_passes.sql.
create view lead_figure as
 select l.id,
    l.mode,
    l.received_at,
    l.state,
    p.number as provider,
    v.number as vertical,
    coalesce(b.number, 0) as business,
    coalesce(s.number, 0) as subscription,
    coalesce(array_position(array['push', 'fetch', 'email', 'feed', 'portal'], e.channel), 0) as channel,
    coalesce(nullif(i.facts ->> 'sub_ids', '{}'), '') as sub_ids,
    reached.step,
        case reached.step
            when 1 then l.state
            when 2 then
            case l.state
                when 'rejected' then coalesce(l.reason, 'rejected')
                when 'received' then 'open'
                else l.state
            end
            when 5 then
            case l.state
                when 'refused' then coalesce(a.reason, 'refused')
                when 'lapsed' then 'lapsed'
                when 'unsold' then coalesce(l.reason, 'unreachable')
                else 'open'
            end
            when 6 then
            case
                when l.state = 'returned' then 'returned'
                else coalesce(ended.kind, 'no_word')
            end
            when 7 then
            case
                when l.state = 'returned' then 'returned'
                when ended.kind = 'lost' then coalesce(ended.reason, 'lost')
                else coalesce(ended.kind, 'open')
            end
            when 8 then ''
            else
            case l.state
                when 'unsold' then coalesce(l.reason, 'unsold')
                else 'open'
            end
        end as why,
    coalesce(told.demo, false) as demo,
    1000::numeric * extract(epoch from l.received_at - i.submitted_at) as to_receive,
        case
            when not decided.nurtured then 1000::numeric * extract(epoch from l.qualified_at - coalesce(l.reopened_at,
                l.received_at))
            else null::numeric
        end as to_qualify,
    1000::numeric * extract(epoch from a.awarded_at - l.qualified_at) as to_award,
    1000::numeric * extract(epoch from a.exposed_at - a.awarded_at) as to_expose,
    1000::numeric * extract(epoch from known.acknowledged_at - a.exposed_at) as to_acknowledge,
    1000::numeric * extract(epoch from told.touched_at - known.acknowledged_at) as to_touch,
    1000::numeric * extract(epoch from told.contacted_at - told.touched_at) as to_contact,
        case a.evidence
            when 'answer' then (1000::numeric * extract(epoch from waited.retried))::double precision +
                waited.answered_ms
            else (1000::numeric * extract(epoch from known.acknowledged_at - a.awarded_at))::double precision
        end as theirs,
    1000::numeric * extract(epoch from known.acknowledged_at - coalesce(l.reopened_at, l.received_at)) as acknowledged
   from lead l
     cross join lateral ( select inquiry.facts,
            inquiry.submitted_at
           from inquiry
          where inquiry.id = l.id
         limit 1) i
     join provider p on p.id = l.provider_id
     join vertical v on v.id = l.vertical_id
     left join lateral ( select assignment.id,
            assignment.lead_id,
            assignment.business_id,
            assignment.subscription_id,
            assignment.subscription_version,
            assignment.endpoint_id,
            assignment.provider_id,
            assignment.mode,
            assignment.state,
            assignment.reason,
            assignment.price_minor,
            assignment.payout_minor,
            assignment.currency,
            assignment.attempts,
            assignment.due_at,
            assignment.awarded_at,
            assignment.hold_until,
            assignment.exposed_at,
            assignment.evidence_until,
            assignment.evidence,
            assignment.settled_at,
            assignment.hour_at,
            assignment.day_at,
            assignment.week_at,
            assignment.month_at,
            assignment.live,
            assignment.chargeable_minor,
            assignment.payable_minor,
            assignment.seen_lead_id
           from assignment
          where assignment.lead_id = l.id and assignment.state <> 'released'
         limit 1) a on true
     left join business b on b.id = a.business_id
     left join subscription s on s.id = a.subscription_id
     left join lateral ( select exposure.channel
           from exposure
          where exposure.lead_id = l.id
         limit 1) e on true
     cross join lateral ( select count(*) > 0 as ever
           from ( select
                   from assignment
                  where assignment.lead_id = l.id
                 limit 1) r) tried
     cross join lateral ( select
                case
                    when a.evidence is not null then a.settled_at
                    else null::timestamptz
                end as acknowledged_at) known
     cross join lateral ( select coalesce(bool_or(d.outcome = 'nurturing'), false) as nurtured,
            coalesce(bool_or(jsonb_path_exists(d.candidates, '$[*]."position"'::jsonpath)), false) as had_candidate
           from decision d
          where d.lead_id = l.id and d.made_at >= (l.received_at - '01:00:00'::interval)) decided
     left join lateral ( select max(t.started_at) - min(t.started_at) as retried,
            (array_agg(coalesce(t.connect_ms, 0::double precision) + coalesce(t.tls_ms, 0::double precision) +
                coalesce(t.first_byte_ms, 0::double precision) order by t.started_at desc))[1] as answered_ms
           from attempt t
          where t.assignment_id = a.id and t.started_at >= (a.awarded_at - '01:00:00'::interval)) waited on a.evidence
              = 'answer'
     left join lateral ( select min(greatest(d.happened_at, known.acknowledged_at)) as touched_at,
            min(greatest(d.happened_at, known.acknowledged_at)) filter (where d.kind in ('contacted', 'appointment',
                'qualified', 'quoted', 'won')) as contacted_at,
            bool_or(d.source = 'demo') as demo
           from disposition d
          where d.assignment_id = a.id and d.undone_at is null) told on known.acknowledged_at is not null
     left join lateral ( select d.kind,
            d.reason
           from disposition d
          where d.assignment_id = a.id and d.undone_at is null and (d.kind in ('won', 'lost', 'unreachable'))
          order by d.happened_at desc, d.recorded_at desc, d.id desc
         limit 1) ended on known.acknowledged_at is not null
     cross join lateral ( select
                case
                    when l.state in ('duplicate', 'suppressed') then 1
                    when l.state in ('received', 'rejected', 'nurturing', 'expired') then 2
                    when a.id is null and not tried.ever then
                    case
                        when l.state = 'unsold' and decided.had_candidate then 4
                        else 3
                    end
                    when known.acknowledged_at is null then 5
                    when told.contacted_at is null then 6
                    when ended.kind is distinct from 'won' then 7
                    else 8
                end as step) reached;
grant select on lead_figure to marketplace_reports, marketplace_worker;

-- A word of a column is its place among the hour's words, from 1; the words themselves, a line each, are a field of their
-- own. A length of time that is not known is NaN.
create function lead_columns(of_mode text, since timestamptz, until timestamptz) returns table(field text, hour
    timestamptz, data bytea) language sql stable as $$
with figure as materialized (
    select f.*, date_trunc('hour', f.received_at, 'UTC') as at_hour
    from lead_figure f where f.mode = of_mode and f.received_at >= since and f.received_at < until
), coded as (
    select figure.*, dense_rank() over (partition by at_hour order by why) as why_code,
           dense_rank() over (partition by at_hour order by sub_ids) as sub_ids_code
    from figure
), packed as (
    select at_hour,
        string_agg(uuid_send(id), ''::bytea order by received_at, id) as lead,
        string_agg(int2send(extract(minute from received_at)::int2), ''::bytea order by received_at, id) as minute,
        string_agg(int4send(provider), ''::bytea order by received_at, id) as provider,
        string_agg(int4send(vertical), ''::bytea order by received_at, id) as vertical,
        string_agg(int4send(business), ''::bytea order by received_at, id) as business,
        string_agg(int4send(subscription), ''::bytea order by received_at, id) as subscription,
        string_agg(int2send(channel::int2), ''::bytea order by received_at, id) as channel,
        string_agg(int2send((demo::int)::int2), ''::bytea order by received_at, id) as demo,
        string_agg(int2send(step::int2), ''::bytea order by received_at, id) as step,
        string_agg(int2send(array_position(array['received', 'rejected', 'duplicate', 'suppressed', 'nurturing',
            'expired', 'prospect', 'unsold', 'held', 'exposed', 'delivered', 'refused', 'lapsed', 'returned'],
            state)::int2), ''::bytea order by received_at, id) as state,
        string_agg(int2send(why_code::int2), ''::bytea order by received_at, id) as why,
        convert_to(string_agg(distinct why, E'\n' order by why), 'UTF8') as why_words,
        string_agg(int4send(sub_ids_code::int4), ''::bytea order by received_at, id) as sub_ids,
        convert_to(string_agg(distinct sub_ids, E'\n' order by sub_ids), 'UTF8') as sub_ids_words,
        string_agg(float4send(coalesce(to_receive, 'NaN')::float4), ''::bytea order by received_at, id) as to_receive,
        string_agg(float4send(coalesce(to_qualify, 'NaN')::float4), ''::bytea order by received_at, id) as to_qualify,
        string_agg(float4send(coalesce(to_award, 'NaN')::float4), ''::bytea order by received_at, id) as to_award,
        string_agg(float4send(coalesce(to_expose, 'NaN')::float4), ''::bytea order by received_at, id) as to_expose,
        string_agg(float4send(coalesce(to_acknowledge, 'NaN')::float4), ''::bytea order by received_at, id)
            as to_acknowledge,
        string_agg(float4send(coalesce(to_touch, 'NaN')::float4), ''::bytea order by received_at, id) as to_touch,
        string_agg(float4send(coalesce(to_contact, 'NaN')::float4), ''::bytea order by received_at, id) as to_contact,
        string_agg(float4send(coalesce(theirs, 'NaN')::float4), ''::bytea order by received_at, id) as theirs,
        string_agg(float4send(coalesce(acknowledged, 'NaN')::float4), ''::bytea order by received_at, id)
            as acknowledged
    from coded group by at_hour
)
select c.field, p.at_hour, c.data
from packed p
cross join lateral (values
    ('lead', lead), ('minute', minute), ('provider', provider), ('vertical', vertical), ('business', business),
    ('subscription', subscription), ('channel', channel), ('demo', demo), ('step', step), ('state', state),
    ('why', why), ('why_words', why_words), ('sub_ids', sub_ids), ('sub_ids_words', sub_ids_words),
    ('to_receive', to_receive), ('to_qualify', to_qualify), ('to_award', to_award), ('to_expose', to_expose),
    ('to_acknowledge', to_acknowledge), ('to_touch', to_touch), ('to_contact', to_contact), ('theirs', theirs),
    ('acknowledged', acknowledged)
) as c (field, data)
$$;

-- What the decisions say of the candidates. `share_*`, one row per hour and subscription: the awards for which it stood,
-- those that it got, and, where its vertical divides by weight, those and its fair part of them. `miss_*`, one row
-- per lead and subscription that a single rule kept apart: the lead's place in its hour, the rule with unit and side,
-- the distance. Only a lead's last award or its end unsold counts.
--
-- The form of 0014_reports.sql, except that the subscriptions of one business that stood for a lead divide one share.
create function candidate_columns(of_mode text, since timestamptz, until timestamptz) returns table(field text, hour
    timestamptz, data bytea) language sql stable as $$
with placed as materialized (
    select l.id, l.received_at, date_trunc('hour', l.received_at, 'UTC') as at_hour,
           row_number() over (partition by date_trunc('hour', l.received_at, 'UTC') order by l.received_at, l.id) - 1
               as place
    from lead l where l.mode = of_mode and l.received_at >= since and l.received_at < until
), weighed as materialized (
    select p.at_hour, p.place, d.outcome, d.strategy in ('weighted_share', 'fair') as by_weight,
           c.*, d.subscription_id as winner
    from placed p
    cross join lateral (
        select outcome, strategy, candidates, subscription_id from decision
        where lead_id = p.id and made_at >= p.received_at - interval '1 hour' and outcome in ('held', 'unsold')
        order by made_at desc, id desc limit 1
    ) d
    cross join lateral jsonb_to_recordset(d.candidates)
        as c (subscription_id uuid, business_id uuid, version int, position int, failures jsonb)
), weight as materialized (
    select v.subscription_id, v.version, coalesce((v.definition ->> 'weight')::float8, 1) as weight
    from subscription_version v
    where (v.subscription_id, v.version) in (select w.subscription_id, w.version from weighed w where w.by_weight)
), ranked as (
    select w.at_hour, w.place, w.subscription_id, w.by_weight, w.subscription_id = w.winner as won,
           g.weight / count(*) over (partition by w.at_hour, w.place, w.business_id) as share
    from weighed w
    left join weight g on (g.subscription_id, g.version) = (w.subscription_id, w.version)
    where w.outcome = 'held' and w.position is not null
      and coalesce(w.failures -> 0 ->> 'rule', 'outranked') = 'outranked'
), stood as (
    select r.*, r.share / sum(r.share) over (partition by r.at_hour, r.place) as part from ranked r
), share as (
    select t.at_hour, s.number, count(*) as stood, count(*) filter (where t.won) as won,
           count(*) filter (where t.won and t.by_weight) as won_by_weight,
           coalesce(sum(t.part order by t.place) filter (where t.by_weight), 0) as entitled
    from stood t join subscription s on s.id = t.subscription_id
    group by t.at_hour, s.number
), miss as (
    select w.at_hour, w.place, s.number, (w.failures -> 0 ->> 'distance')::float8 as distance,
           concat_ws(' ', w.failures -> 0 ->> 'rule', coalesce(w.failures -> 0 ->> 'unit', '-'),
               substring(w.failures -> 0 ->> 'detail' from '(below|above)$')) as rule
    from weighed w join subscription s on s.id = w.subscription_id
    where jsonb_array_length(w.failures) = 1
      and w.failures -> 0 ->> 'rule' not in ('outranked', 'cap_race', 'unreachable', 'own_customer')
), coded as (
    select miss.*, dense_rank() over (partition by at_hour order by rule) as rule_code from miss
), shares as (
    select at_hour, string_agg(int4send(number), ''::bytea order by number) as subscription,
           string_agg(int4send(stood::int), ''::bytea order by number) as stood,
           string_agg(int4send(won::int), ''::bytea order by number) as won,
           string_agg(int4send(won_by_weight::int), ''::bytea order by number) as won_by_weight,
           string_agg(float8send(entitled), ''::bytea order by number) as entitled
    from share group by at_hour
), misses as (
    select at_hour, string_agg(int4send(number), ''::bytea order by place, number) as subscription,
           string_agg(int4send(place::int), ''::bytea order by place, number) as lead,
           string_agg(float4send(coalesce(distance, 'NaN')::float4), ''::bytea order by place, number) as distance,
           string_agg(int2send(rule_code::int2), ''::bytea order by place, number) as rule,
           convert_to(string_agg(distinct rule, E'\n' order by rule), 'UTF8') as rule_words
    from coded group by at_hour
)
select c.field, s.at_hour, c.data
from shares s
cross join lateral (values
    ('share_subscription', subscription), ('share_stood', stood), ('share_won', won),
    ('share_won_by_weight', won_by_weight), ('share_entitled', entitled)
) as c (field, data)
union all
select c.field, m.at_hour, c.data
from misses m
cross join lateral (values
    ('miss_subscription', subscription), ('miss_lead', lead), ('miss_distance', distance), ('miss_rule', rule),
    ('miss_rule_words', rule_words)
) as c (field, data)
$$;

-- `money_total` has one sum for each kind, so that it grows by one; nothing else in these columns is new.
create function money_columns(since timestamptz, until timestamptz) returns table(part text, field text, hour
    timestamptz, data bytea) language sql stable as $$
with moved as materialized (
    select t.currency, date_trunc('hour', t.made_at, 'UTC') as at_hour, t.made_at, t.id, t.amount_minor,
           array_position(array['top_up', 'withdrawal', 'hold', 'release', 'capture', 'payout', 'refund', 'claw_back',
               'paid'],
               t.kind) as kind,
           coalesce(b.number, p.number) as party, coalesce(theirs.number, its.number, 0) as other
    from transfer t
    left join business b on b.id = t.business_id
    left join provider p on p.id = t.provider_id
    left join lateral (select provider_id, business_id from assignment where id = t.assignment_id limit 1) a on true
    left join provider theirs on theirs.id = a.provider_id and t.business_id is not null
    left join business its on its.id = a.business_id and t.business_id is null
    where t.made_at >= since and t.made_at < until
), packed as (
    select currency, at_hour,
           string_agg(int2send(extract(minute from made_at)::int2), ''::bytea order by made_at, id) as minute,
           string_agg(int2send(kind::int2), ''::bytea order by made_at, id) as kind,
           string_agg(int4send(party), ''::bytea order by made_at, id) as party,
           string_agg(int4send(other), ''::bytea order by made_at, id) as other,
           string_agg(int8send(amount_minor), ''::bytea order by made_at, id) as minor
    from moved group by currency, at_hour
), total as (
    select p.currency, p.at_hour, string_agg(int8send(coalesce(m.minor, 0)::bigint), ''::bytea order by n.nth) as total
    from packed p
    cross join generate_series(1, 9) as n (nth)
    left join (
        select currency, at_hour, kind, sum(amount_minor) as minor from moved group by currency, at_hour, kind
    ) m on (m.currency, m.at_hour, m.kind) = (p.currency, p.at_hour, n.nth)
    group by p.currency, p.at_hour
)
select p.currency::text, c.field, p.at_hour, c.data
from packed p
join total t using (currency, at_hour)
cross join lateral (values
    ('money_minute', minute), ('money_kind', p.kind), ('money_party', party), ('money_other', other),
    ('money_minor', minor), ('money_total', total)
) as c (field, data)
$$;

-- All columns of the hours from `since` up to and without `until`.
create function report_columns(since timestamptz, until timestamptz) returns table(part text, field text, hour
    timestamptz, data bytea) language sql stable as $$
select of_mode, c.field, c.hour, c.data
from unnest(array['live', 'test']) as of_mode
cross join lateral (
    select field, hour, data from lead_columns(of_mode, since, until)
    union all
    select field, hour, data from candidate_columns(of_mode, since, until)
    union all
    select field, hour, data from unready_columns(of_mode, since, until)
) c
union all
select part, field, hour, data from money_columns(since, until)
$$;

-- For files made by COPY: an id as people see it (a kind and 26 characters of 5 bits), and a text that no spreadsheet runs.
create function public_id(kind text, id uuid) returns text language sql immutable as $$
select kind || '_' || string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz',
           1 + substring(b'00' || ('x' || replace(id::text, '-', ''))::bit(128) from 5 * nth + 1 for 5)::bit(5)::int, 1),
           '' order by nth)
from generate_series(0, 25) as nth
where id is not null
$$;

create function safe_cell(cell text) returns text language sql immutable as $$
select case when cell ~ '^[-=+@\t\r\n＝＋－＠]' then '''' || cell else cell end
$$;

-- Inquiries that were refused with faults never become rows of their own: only how often which field failed how, by day.
create table refusal_count (
    provider_id uuid not null,
    mode text not null,
    hour timestamptz not null,
    pointer text not null,
    code text not null,
    count int not null,
    constraint refusal_count_pkey primary key (provider_id, mode, hour, pointer, code),
    constraint refusal_count_provider_id_fkey foreign key (provider_id) references provider(id),
    constraint refusal_count_count_check check (count > 0),
    constraint refusal_count_mode check (mode in ('live', 'test'))
);
grant insert, select, update (count) on refusal_count to marketplace_api;
grant select on refusal_count to marketplace_reports;


-- Roi (migration 0015) ------------------------------------------------------------------------------------------------

-- The first three characters of a postal code as a number; 0 where there are none.
create function area_number(postal_code text) returns int language sql immutable parallel safe as $$
select case when postal_code ~ '^[!-~]{3}'
        then ascii(postal_code) * 65536 + ascii(substr(postal_code, 2)) * 256 + ascii(substr(postal_code, 3)) else 0 end
$$;

-- Whole seconds from one moment to another, none of which is negative: a report may be a moment ahead of our clock. -1 where
-- the second never came.
create function seconds_after(start timestamptz, at timestamptz) returns int language sql immutable parallel safe as $$
select case when at is null then -1 else least(greatest(floor(date_part('epoch', at - start)), 0), 2000000000)::int end
$$;

-- As before, with the area and the budget as touches and corrections have left them. Only leads with a revision are looked up.
create view exclusive_outcome as
 select a.id as assignment_id,
    a.business_id,
    l.vertical_id,
        case
            when shares_codes(area.place ->> 'country', ( select coalesce(d.definition ->> 'country', 'US') as
                "coalesce"
               from vertical v
                 join vertical_version d on d.vertical_id = v.id and d.version = v.version
              where v.id = l.vertical_id)) then area.place ->> 'postal_code'
            else null::text
        end as postal_code,
    a.exposed_at as received_at,
    charge.amount_minor - coalesce(refund.amount_minor, 0::bigint) as cost_minor,
    a.currency,
    told.contacted_at,
        case
            when told.qualified then true
            when final.kind is not null then false
            else null::bool
        end as qualified,
        case
            when final.kind = 'won' then final.happened_at
            else null::timestamptz
        end as won_at,
        case
            when final.kind = 'won' then final.value_minor
            else null::bigint
        end as won_minor,
        case
            when final.kind <> 'won' then final.happened_at
            else null::timestamptz
        end as lost_at,
    coalesce(told.demo, false) as demo,
        case
            when f.place is null then ((i.facts -> 'budget') ->> 'minor')::bigint
            else f.budget_minor
        end as budget_minor,
    ( select
                case
                    when ((terms.definition ->> 'delay_per_mille')::int) > 0 then (exists ( select
                       from decision h
                      where h.lead_id = a.lead_id and h.reason = 'delayed' and h.made_at > (a.awarded_at -
                          '1 day'::interval) and h.made_at <= a.awarded_at))
                    else null::bool
                end as "case"
           from decision w
             join vertical_version terms on terms.vertical_id = l.vertical_id and terms.version = w.vertical_version
          where w.assignment_id = a.id and w.lead_id = a.lead_id and w.made_at = a.awarded_at) as delayed
   from assignment a
     join lead l on l.id = a.lead_id
     join inquiry i on i.id = a.lead_id
     left join lateral ( select r.place,
            r.budget_minor
           from revised_facts r
          where l.revision > 0 and r.lead_id = l.id
         limit 1) f on true
     cross join lateral ( select coalesce(f.place, i.facts -> 'place') as place) area
     join transfer charge on charge.assignment_id = a.id and charge.kind = 'capture'
     left join transfer refund on refund.assignment_id = a.id and refund.kind = 'refund'
     left join lateral ( select min(d.happened_at) filter (where d.kind in ('contacted', 'appointment', 'qualified',
         'quoted', 'won')) as contacted_at,
            bool_or(d.kind in ('qualified', 'quoted', 'won')) as qualified,
            bool_or(d.source = 'demo') as demo
           from disposition d
          where d.assignment_id = a.id and d.undone_at is null) told on true
     left join lateral ( select d.kind,
            d.happened_at,
            d.value_minor
           from disposition d
          where d.assignment_id = a.id and d.undone_at is null and (d.kind in ('won', 'lost', 'unreachable'))
          order by d.happened_at desc, d.id desc
         limit 1) final on true
  where a.mode = 'live';
grant select on exclusive_outcome to marketplace_api, marketplace_reports, marketplace_worker;

-- The same in big-endian numbers of fixed width, which marketplace/reports/roi.py reads: whose and what it was (business,
-- vertical, area), when it was received (seconds since 1970), what it cost, the seconds until it was contacted and until
-- it was won, what the win was worth, and in bits what was told: qualified 1, not qualified 2, ended 4, made up to look
-- at 8, could have been held back at random 32, was held back 64; from 256 on the band of the budget.
create view exclusive_record as
 select o.assignment_id,
    o.business_id,
    o.currency,
    o.received_at,
    (((((((int4send(b.number) || int4send(v.number)) || int4send(area_number(o.postal_code))) ||
        int8send(date_part('epoch', o.received_at)::bigint)) || int8send(o.cost_minor)) ||
        int4send(seconds_after(o.received_at, o.contacted_at))) || int4send(seconds_after(o.received_at, o.won_at))) ||
        int8send(coalesce(o.won_minor, 0::bigint))) || int4send(
        case o.qualified
            when true then 1
            when false then 2
            else 0
        end +
        case
            when o.won_at is null and o.lost_at is null then 0
            else 4
        end +
        case
            when o.demo then 8
            else 0
        end +
        case o.delayed
            when true then 64
            when false then 32
            else 0
        end + 256 * budget_band(o.budget_minor)) as record
   from exclusive_outcome o
     join business b on b.id = o.business_id
     join vertical v on v.id = o.vertical_id;
grant select on exclusive_record to marketplace_api, marketplace_reports, marketplace_worker;

-- Kept, each written again when its lead has moved or its business has spoken.
create table kept_outcome (
    assignment_id uuid not null,
    currency character(3) not null,
    received_at timestamptz not null,
    record bytea not null,
    business int not null generated always as (((((get_byte(record, 0) * 16777216) + (get_byte(record, 1) * 65536)) +
        (get_byte(record, 2) * 256)) + get_byte(record, 3))) stored,
    number bigint not null generated always as identity,
    constraint kept_outcome_pkey primary key (assignment_id),
    constraint kept_outcome_number unique (number)
) with (fillfactor=85);
create index kept_outcome_by_business on kept_outcome (business, received_at);
create index kept_outcome_received on kept_outcome (currency, received_at);
grant select on kept_outcome to marketplace_api, marketplace_reports;
grant insert, select, update on kept_outcome to marketplace_worker;

-- Up to which transaction the kept rows have followed what moved and what was told, and when that was last looked after.
create table kept_outcome_progress (
    only_row bool not null default true,
    xid xid8 not null,
    at timestamptz not null,
    constraint kept_outcome_progress_pkey primary key (only_row),
    constraint kept_outcome_progress_only_row_check check (only_row)
);
grant select on kept_outcome_progress to marketplace_api, marketplace_reports;
grant select, update (at, xid) on kept_outcome_progress to marketplace_worker;


-- Award (migration 0017) ----------------------------------------------------------------------------------------------

-- For workers of the release before, until they have stopped: the same by position. A later migration drops it.
create function award_lead(of_lead uuid, from_states text[], new_id uuid, to_business uuid, by_subscription uuid,
    by_version int, at_endpoint uuid, of_provider uuid, in_mode text, price bigint, payout bigint, in_currency text,
    cover_minor bigint, awarded timestamptz, due timestamptz, held_until timestamptz, starts timestamptz[],
    count_limits int[], minor_limits bigint[], hold_id uuid, decision_id uuid, by_vertical_version int,
    by_catalog_version bigint, by_strategy text, by_verdict jsonb, weighed jsonb, not_weighed int) returns text
    language sql as $$
select award_lead(jsonb_build_object(
        'id', new_id, 'lead_id', of_lead, 'lead_state', from_states[1], 'business_id', to_business,
        'subscription_id', by_subscription, 'subscription_version', by_version, 'endpoint_id', at_endpoint,
        'provider_id', of_provider, 'mode', in_mode, 'price_minor', price, 'payout_minor', payout,
        'currency', in_currency, 'awarded_at', awarded, 'due_at', due, 'hold_until', held_until, 'hour_at', starts[1],
        'day_at', starts[2], 'week_at', starts[3], 'month_at', starts[4], 'windows', (
            select jsonb_agg(jsonb_build_object('cap_window', w.cap_window, 'starts_at', w.starts_at,
                'most_count', w.most_count, 'most_minor', w.most_minor))
            from unnest(array['hour', 'day', 'week', 'month', 'total'], starts, count_limits, minor_limits)
                as w (cap_window, starts_at, most_count, most_minor)),
        'hold_id', hold_id, 'decision_id', decision_id, 'vertical_version', by_vertical_version,
        'catalog_version', by_catalog_version, 'strategy', by_strategy, 'verdict', by_verdict, 'candidates', weighed,
        'left_out', not_weighed))
$$;
revoke all on function award_lead from public;
grant execute on function award_lead to marketplace_worker;


-- Intake (migration 0018) ---------------------------------------------------------------------------------------------

-- Taking an inquiry in: who was here before, then the inquiry, its lead, its sealed contact and what finds the person again,
-- there together or not at all, in one call. Called by the api alone, with the api's own rights.
--
-- Answers 'received' or, with nothing written, 'suppressed'. Raises unique_violation: person_window_once when the person is
-- taken, inquiry_idempotency_key or inquiry_provider_reference when the submission was here before.
create function take_inquiry(new_id uuid, of_provider uuid, in_vertical uuid, in_mode text, reference text, key text,
    request bytea, new_facts jsonb, consent bytea, consent_at timestamptz, submitted timestamptz, received timestamptz,
    given_fields text[], due timestamptz, box bytea, wrapped_key bytea, master_key text, window_keys bytea[],
    shared_keys bytea[], person_keys bytea[], protected_until timestamptz) returns text language plpgsql as $$
declare
    claimed int;
begin
    if exists (select from suppression s where s.key = any(person_keys)) then
        return 'suppressed';
    end if;
    -- In the order of the keys, so that two inquiries of one person wait for each other instead of blocking each other. A
    -- window that is taken, or that a fence keeps, is left out, and fewer than asked means: seen before.
    insert into person_window (lead_id, key, vertical_id, during, scope)
    select new_id, asked.key, in_vertical, tstzrange(received, protected_until),
           case when asked.key = any(shared_keys) then shared_scope(new_id) else '(,)' end
    from unnest(window_keys || shared_keys) as asked (key) order by asked.key
    on conflict on constraint person_window_once do nothing;
    get diagnostics claimed = row_count;
    if claimed < cardinality(window_keys || shared_keys) then
        raise unique_violation using constraint = 'person_window_once', message = 'this person was here before';
    end if;
    insert into inquiry (id, provider_id, vertical_id, mode, provider_reference, idempotency_key, request_sha256,
        received_as, facts, consent_sha256, consent_given_at, submitted_at, received_at, contact_fields)
    values (new_id, of_provider, in_vertical, in_mode, reference, key, request, 'received', new_facts, consent,
        consent_at, submitted, received, given_fields);
    insert into lead (id, provider_id, vertical_id, mode, state, due_at, received_at)
    values (new_id, of_provider, in_vertical, in_mode, 'received', due, received);
    insert into contact (lead_id, sealed) values (new_id, box);
    insert into data_key (lead_id, wrapped, master_key_id) values (new_id, wrapped_key, master_key);
    insert into person_key (lead_id, key) select new_id, asked.key from unnest(person_keys) as asked (key);
    return 'received';
end $$;
revoke all on function take_inquiry from public;
grant execute on function take_inquiry to marketplace_api;


-- Going live (migration 0019) -----------------------------------------------------------------------------------------

-- How a provider comes from its first key to a live one: what it has rehearsed on the pages, when it asked to go live, and
-- which operator let it. A provider with a live key of before needs no row.
create table go_live (
    provider_id uuid not null,
    accepted_at timestamptz,
    repeated_at timestamptz,
    refused_at timestamptz,
    requested_at timestamptz,
    requested_by text,
    approved_at timestamptz,
    approved_by text,
    constraint go_live_pkey primary key (provider_id),
    constraint go_live_provider_id_fkey foreign key (provider_id) references provider(id),
    constraint go_live_approved check ((approved_at is null) = (approved_by is null)),
    constraint go_live_requested check ((requested_at is null) = (requested_by is null))
);
create index go_live_open on go_live (requested_at) where ((approved_at is null) and (requested_at is not null));
grant insert, select, update (accepted_at, approved_at, approved_by, refused_at, repeated_at, requested_at,
    requested_by) on go_live to marketplace_api;


-- Onboarding (migration 0021) -----------------------------------------------------------------------------------------

create table onboarding (
    business_id uuid not null,
    chosen jsonb not null,
    changed_at timestamptz not null,
    constraint onboarding_pkey primary key (business_id),
    constraint onboarding_business_id_fkey foreign key (business_id) references business(id)
);
grant insert, select, update (changed_at, chosen) on onboarding to marketplace_api;
grant select on onboarding to marketplace_reports;


-- Pages (migration 0022) ----------------------------------------------------------------------------------------------

-- What reports read of months that are over: each field's hours behind one another in one run, with when they were and how
-- long, so that a year is twelve rows of a field and not nine thousand. A month is closed once nothing in it has changed
-- for a while, and open again in the transaction that changes an hour of it; then its hours are read one by one.
create table report_month (
    part text not null,
    field text not null,
    month timestamptz not null,
    data bytea storage external not null,
    hours bytea storage external not null,
    lengths bytea storage external not null,
    constraint report_month_pkey primary key (part, field, month)
);
create index report_month_by_month on report_month (month);
grant select on report_month to marketplace_reports;
grant delete, insert, select on report_month to marketplace_worker;

create table report_month_open (
    month timestamptz not null,
    since timestamptz not null,
    constraint report_month_open_pkey primary key (month)
);
grant select on report_month_open to marketplace_reports;
grant delete, insert, select, update (since) on report_month_open to marketplace_worker;


-- Refusal example (migration 0023) ------------------------------------------------------------------------------------

-- For each fault of each field, the shape of the value that had it last, so that whoever sends it knows it again: letters are
-- x, digits 0 (marketplace/masking.py). A refused inquiry leaves nothing else but the counts.
create table refusal_example (
    provider_id uuid not null,
    mode text not null,
    pointer text not null,
    code text not null,
    shape text not null,
    seen_at timestamptz not null,
    constraint refusal_example_pkey primary key (provider_id, mode, pointer, code),
    constraint refusal_example_provider_id_fkey foreign key (provider_id) references provider(id),
    constraint refusal_example_masked check (shape !~ '[1-9]' or shape ~ '^an? (object|list) of [0-9]+$'),
    constraint refusal_example_mode check (mode in ('live', 'test'))
);
grant insert, select, update (seen_at, shape) on refusal_example to marketplace_api;


-- Imports (migration 0029) --------------------------------------------------------------------------------------------

-- One file or one call. `position` says how many of its rows have been judged, which the four counts add up to. While it
-- waits for work it has a due time: whoever works on it moves that ahead, and after a crash another process takes it over.
create table file_import (
    id uuid not null,
    business_id uuid not null,
    subject text not null,
    source text not null,
    mode text,
    state text not null,
    actor text not null,
    digest bytea not null,
    mapping jsonb not null,
    rows int not null,
    position int not null default 0,
    taken int not null default 0,
    known int not null default 0,
    conflicts int not null default 0,
    refused int not null default 0,
    undone int not null default 0,
    tries int not null default 0,
    due_at timestamptz,
    made_at timestamptz not null,
    ended_at timestamptz,
    undone_at timestamptz,
    undone_by text,
    constraint file_import_pkey primary key (id),
    constraint file_import_business_id_fkey foreign key (business_id) references business(id),
    constraint file_import_conflicts_check check (conflicts >= 0),
    constraint file_import_due check ((state in ('running', 'undoing')) = (due_at is not null)),
    constraint file_import_known_check check (known >= 0),
    constraint file_import_mode check (mode in ('live', 'test')),
    constraint file_import_position check ("position" >= 0 and "position" <= rows and "position" = (taken + known +
        conflicts + refused)),
    constraint file_import_refused_check check (refused >= 0),
    constraint file_import_rows check (rows >= 0),
    constraint file_import_source check (source in ('csv', 'api')),
    constraint file_import_state check (state in ('previewed', 'running', 'done', 'failed', 'undoing', 'undone')),
    constraint file_import_subject check (subject in ('shared_leads', 'dispositions')),
    constraint file_import_taken_check check (taken >= 0),
    constraint file_import_undone check ((state in ('undoing', 'undone')) = (undone_by is not null) and (state =
        'undone') = (undone_at is not null) and undone <= taken),
    constraint file_import_undone_check check (undone >= 0)
);
create index file_import_newest on file_import (business_id, id);
create index file_import_waiting on file_import (due_at) where (due_at is not null);
grant insert, select, update (actor, conflicts, due_at, ended_at, known, mapping, position, refused, state, taken,
    tries, undone, undone_at, undone_by) on file_import to marketplace_api;
grant select on file_import to marketplace_reports, marketplace_worker;

-- The file itself, sealed under the master key: from the look at it, or the start of the import, to its end, a day at most.
create table import_file (
    import_id uuid not null,
    box bytea storage external not null,
    made_at timestamptz not null,
    constraint import_file_pkey primary key (import_id),
    constraint import_file_import_id_fkey foreign key (import_id) references file_import(id)
);
create index import_file_oldest on import_file (made_at);
grant delete, insert, select on import_file to marketplace_api;

-- What became of each row. `label` is by what the business knows the row: the vendor's number, the lead's id.
create table import_row (
    import_id uuid not null,
    number int not null,
    outcome text not null,
    label text not null,
    field text,
    code text,
    detail text,
    constraint import_row_pkey primary key (import_id, number),
    constraint import_row_import_id_fkey foreign key (import_id) references file_import(id),
    constraint import_row_outcome check (outcome in ('taken', 'known', 'conflict', 'refused'))
);
create index import_row_left on import_row (import_id, number) where (outcome <> 'taken');
create trigger import_row_is_final before delete or update on import_row for each row execute function refuse_change();
grant insert, select on import_row to marketplace_api;
grant select on import_row to marketplace_reports, marketplace_worker;

create function keep_but_undo() returns trigger language plpgsql as $$
begin
    if old.undone_at is null and new.undone_at is not null
        and to_jsonb(new) - array['undone_at', 'committed_by'] = to_jsonb(old) - array['undone_at', 'committed_by']
    then
        return new;
    end if;
    raise exception '% rows are never changed', tg_table_name using errcode = 'restrict_violation';
end $$;


-- Background passes (migration 0032) ----------------------------------------------------------------------------------

-- One row for each background pass that the workers share. Whoever runs it takes the row until `rest_until`, so that all
-- workers together run it once and then rest, however many they are. A pass that keeps failing is tried less and less often.
create table background_pass (
    name text not null,
    rest_until timestamptz not null default '-infinity'::timestamptz,
    ended_at timestamptz,
    seconds double precision,
    failures int not null default 0,
    failing_since timestamptz,
    failure text,
    constraint background_pass_pkey primary key (name),
    constraint background_pass_failing check ((failures > 0) = (failing_since is not null) and (failures > 0) =
        (failure is not null)),
    constraint background_pass_failures check (failures >= 0)
);
grant select on background_pass to marketplace_api, marketplace_reports;
grant select, update (ended_at, failing_since, failure, failures, rest_until, seconds) on background_pass to
    marketplace_worker;

-- What can change the record of an exclusive lead, by the transaction that did it: a charge or its refund, each of which
-- moves the assignment, what the business says, and a new revision of the lead's facts. Other moves change no record.
create view exclusive_change as
 select move.committed_by,
    move.assignment_id
   from move
  where move.assignment_id is not null and (move.entered_state in ('delivered', 'returned'))
union all
 select disposition.committed_by,
    disposition.assignment_id
   from disposition
union all
 select r.committed_by,
    a.id as assignment_id
   from revised_facts r
     join assignment a on a.lead_id = r.lead_id and a.live;
grant select on exclusive_change to marketplace_api, marketplace_reports, marketplace_worker;

create table kept_outcome_run (
    currency character(3) not null,
    run bigint not null,
    first_received_at timestamptz not null,
    last_received_at timestamptz not null,
    records bytea storage external not null,
    constraint kept_outcome_run_pkey primary key (currency, run)
);
grant select on kept_outcome_run to marketplace_api, marketplace_reports;
grant insert, select, update on kept_outcome_run to marketplace_worker;


-- Tenancy (migration 0040) --------------------------------------------------------------------------------------------

create table opened_access (
    subject text not null,
    kind text not null,
    owner_id uuid not null,
    way text not null,
    opened_by text not null,
    reason text not null,
    opened_at timestamptz not null,
    confirmed_by text,
    confirmed_at timestamptz,
    constraint opened_access_pkey primary key (subject),
    constraint opened_access_confirmed check ((confirmed_by is null) = (confirmed_at is null)),
    constraint opened_access_kind check (kind in ('provider', 'business')),
    constraint opened_access_reason check (reason ~ '\S'),
    constraint opened_access_way check (way in ('member', 'key', 'endpoint'))
);
create index opened_access_by_owner on opened_access (owner_id, opened_at);
grant insert, select, update (confirmed_at, confirmed_by, opened_at, opened_by, reason) on opened_access to
    marketplace_api;

-- A suppression that was lifted, with why and by whom: what a provider suppressed for everybody can be looked at and undone.
create table lifted_suppression (
    key bytea not null,
    reason text not null,
    source text not null,
    created_at timestamptz not null,
    lifted_at timestamptz not null,
    lifted_by text not null,
    lifted_reason text not null,
    constraint lifted_suppression_reason check (lifted_reason ~ '\S')
);
create index lifted_suppression_by_key on lifted_suppression (key);
grant insert, select on lifted_suppression to marketplace_api;


-- Failing work (migration 0042) ---------------------------------------------------------------------------------------

-- `id` is the lead's or the assignment's; a notice of erasure has its lead's. `failure` is the class of the error and never
-- its text, which may carry values. `retry_at` is when somebody asked for another try, `ended_at` when it was given up.
create table failing_work (
    kind text not null,
    id uuid not null,
    lead_id uuid not null,
    failure text not null,
    failures int not null,
    first_failed_at timestamptz not null,
    last_failed_at timestamptz not null,
    quarantined_at timestamptz,
    retry_at timestamptz,
    ended_at timestamptz,
    constraint failing_work_pkey primary key (kind, id),
    constraint failing_work_lead_id_fkey foreign key (lead_id) references lead(id),
    constraint failing_work_ended check (ended_at is null or quarantined_at is not null),
    constraint failing_work_failures check (failures > 0),
    constraint failing_work_kind check (kind in ('lead', 'assignment', 'notice'))
);
create index failing_work_quarantined on failing_work (quarantined_at) where (quarantined_at is not null);
create index failing_work_retried on failing_work (retry_at) where (retry_at is not null);
grant delete, select, update (retry_at) on failing_work to marketplace_api;
grant select on failing_work to marketplace_reports;
grant delete, insert, select, update on failing_work to marketplace_worker;

-- What was set aside and still is somebody's to mend: open work, and what was given up and not looked at since.
create view quarantined_work as
 select f.kind,
    f.id,
    f.lead_id,
    l.mode,
    l.state as lead_state,
    f.failure,
    f.failures,
    f.first_failed_at,
    f.last_failed_at,
    f.quarantined_at,
    f.retry_at,
    f.ended_at
   from failing_work f
     join lead l on l.id = f.lead_id
     left join assignment a on f.kind = 'assignment' and a.id = f.id
     left join notice n on f.kind = 'notice' and n.id = f.id
  where f.quarantined_at is not null and (f.ended_at is not null or f.kind = 'lead' and (l.state in ('received',
      'nurturing', 'prospect')) or f.kind = 'assignment' and (a.state in ('held', 'exposed')) or f.kind = 'notice' and
      n.state = 'due');
grant select on quarantined_work to marketplace_api, marketplace_reports, marketplace_worker;


-- Statement (migration 0043) ------------------------------------------------------------------------------------------

-- Lines of a wallet's statement: each transfer that changed the wallet's balance, which is what is available and what is
-- held together, with the sign of the change. A hold and its release move money between these two and are no lines, so
-- that a lead that was charged is one line with its price. The API, the pages and their files read this view.
create view statement_line as
 select id,
    business_id,
    kind,
        case
            when kind in ('top_up', 'refund') then amount_minor
            else - amount_minor
        end as amount_minor,
    currency,
    assignment_id,
    event_id,
    made_at
   from transfer
  where kind in ('top_up', 'withdrawal', 'capture', 'refund');
grant select on statement_line to marketplace_api;


-- Old rows and areas (migration 0044) ---------------------------------------------------------------------------------

-- A postal code means nothing without its country. Those of shared leads are in the country of their vertical; the code of an
-- exclusive lead from elsewhere is like none of them, so that it has no area in the comparison.
create function shares_codes(country text, other text) returns bool language sql immutable parallel safe as $$
select country = other or (
        country = any('{US,PR,VI,GU,AS,MP,UM,FM,MH,PW}') and other = any('{US,PR,VI,GU,AS,MP,UM,FM,MH,PW}'))
$$;


-- Award record (migration 0045) ---------------------------------------------------------------------------------------

-- The form of 0054_exposed_with_the_award.sql, except for `revision`: an award never rests on facts that have been revised
-- since. 'moved' also means that the lead has another revision than that which was decided about.
create function award_lead(award jsonb) returns text language plpgsql as $$
declare
    a record;
    live boolean;
    opened_until timestamptz;
    now_exposed timestamptz;
begin
    select * into a from jsonb_to_record(award) as r (
        id uuid, lead_id uuid, lead_state text, business_id uuid, subscription_id uuid, subscription_version int,
        endpoint_id uuid, provider_id uuid, mode text, price_minor bigint, payout_minor bigint, currency text,
        awarded_at timestamptz, due_at timestamptz, hold_until timestamptz, hour_at timestamptz, day_at timestamptz,
        week_at timestamptz, month_at timestamptz, windows jsonb, hold_id uuid, decision_id uuid, vertical_version int,
        catalog_version bigint, strategy text, verdict jsonb, candidates jsonb, left_out int, credits jsonb,
        exposure jsonb, revision int);
    live := a.mode = 'live';
    perform from lead where id = a.lead_id and state = a.lead_state and revision = a.revision for no key update;
    if not found then
        return 'moved';
    end if;
    perform from subscription where id = a.subscription_id for no key update;
    select e.breaker_open_until into opened_until
    from subscription s
    join business b on b.id = s.business_id and b.state = 'active'
    join endpoint e on e.id = s.endpoint_id and e.id = a.endpoint_id and e.state = 'active'
        and (e.breaker_open_until is null or e.breaker_open_until <= a.awarded_at)
    where s.id = a.subscription_id and s.version = a.subscription_version and s.state = 'active';
    if not found then
        return 'withdrawn';
    end if;
    if is_withdrawn(a.lead_id) then
        return 'moved';
    end if;
    if is_own_customer(a.lead_id, a.business_id) then
        return 'own_customer';
    end if;
    perform from jsonb_to_recordset(a.windows)
        as w (cap_window text, starts_at timestamptz, most_count int, most_minor bigint)
    cross join lateral (
        select used_count, used_minor from cap_usage
        where (subscription_id, cap_window, starts_at) = (a.subscription_id, w.cap_window, w.starts_at)
        limit 1
    ) u
    where live and (w.most_count is not null or w.most_minor is not null)
      and (u.used_count >= w.most_count or u.used_minor + a.price_minor > w.most_minor);
    if found then
        return 'capped';
    end if;
    perform from wallet
    where business_id = a.business_id and (not live or available_minor + credit_limit_minor >= a.price_minor)
    for no key update;
    if not found then
        return 'unfunded';
    end if;
    update lead set state = 'held', due_at = null, qualified_at = coalesce(qualified_at, a.awarded_at)
    where id = a.lead_id;
    insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id,
        mode, price_minor, payout_minor, currency, attempts, due_at, awarded_at, hold_until, hour_at, day_at, week_at,
        month_at, lists_serial)
    values (a.id, a.lead_id, a.business_id, a.subscription_id, a.subscription_version, a.endpoint_id, a.provider_id,
        a.mode, a.price_minor, a.payout_minor, a.currency, 1, a.due_at, a.awarded_at, a.hold_until, a.hour_at,
        a.day_at, a.week_at, a.month_at, (award ->> 'lists_serial')::bigint);
    if live then
        insert into cap_usage (subscription_id, cap_window, starts_at, used_count, used_minor, limit_count, limit_minor)
        select a.subscription_id, w.cap_window, w.starts_at, 1, a.price_minor, w.most_count, w.most_minor
        from jsonb_to_recordset(a.windows)
            as w (cap_window text, starts_at timestamptz, most_count int, most_minor bigint)
        on conflict (subscription_id, cap_window, starts_at) do update
        set used_count = cap_usage.used_count + 1, used_minor = cap_usage.used_minor + excluded.used_minor,
            limit_count = excluded.limit_count, limit_minor = excluded.limit_minor;
        insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id, made_at)
        values (a.hold_id, 'hold', a.price_minor, a.currency, a.business_id, a.id, a.awarded_at);
        update wallet set available_minor = available_minor - a.price_minor, held_minor = held_minor + a.price_minor
        where business_id = a.business_id;
    end if;
    insert into decision (id, lead_id, made_at, outcome, vertical_version, catalog_version, strategy, verdict,
        candidates, left_out, subscription_id, assignment_id, credits, revision)
    values (a.decision_id, a.lead_id, a.awarded_at, 'held', a.vertical_version, a.catalog_version, a.strategy,
        a.verdict, a.candidates, a.left_out, a.subscription_id, a.id, a.credits, a.revision);
    if a.exposure is not null and opened_until is null and not is_withdrawn(a.lead_id) then
        now_exposed := clock_timestamp();
        update lead set state = 'exposed' where id = a.lead_id;
        insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address, tls_sha256,
            attempt_no, exposed_at)
        values (a.lead_id, a.id, a.business_id, 'push', a.endpoint_id, decode(a.exposure ->> 'url_sha256', 'base64'),
            a.exposure ->> 'address', decode(a.exposure ->> 'tls_sha256', 'base64'), 1, now_exposed);
        update assignment set state = 'exposed', exposed_at = now_exposed,
            evidence_until = (a.exposure ->> 'evidence_until')::timestamptz
        where id = a.id;
    end if;
    if a.credits is not null then
        insert into share_credit (vertical_id, mode, business_id, credit)
        select l.vertical_id, a.mode, change.key::uuid, change.value::bigint
        from lead l cross join lateral jsonb_each_text(a.credits) as change
        where l.id = a.lead_id
        order by change.key
        on conflict (vertical_id, mode, business_id) do update set credit = share_credit.credit + excluded.credit;
    end if;
    return 'won';
end $$;
revoke all on function award_lead from public;
grant execute on function award_lead to marketplace_worker;


-- Catalog changes (migration 0047) ------------------------------------------------------------------------------------

-- Each edit of the rules records which rows it changed, so that a process reads those and not all of them. One row for each
-- party, with the version of the catalog at its latest change: the table never has more rows than there are parties.
--
-- The counter is a locked row, not a sequence, and its lock is held until the commit. A transaction is given version N + 1 only
-- after the one with version N has ended, so that whoever sees N sees every change up to N.
create table catalog_change (
    kind text not null,
    id uuid not null,
    version bigint not null,
    constraint catalog_change_pkey primary key (kind, id),
    constraint catalog_change_kind check (kind in ('business', 'endpoint', 'provider', 'subscription', 'vertical'))
);
create index catalog_change_by_version on catalog_change (version);
grant select on catalog_change to marketplace_api, marketplace_worker;

-- The kind of a change is the name of the table. A statement trigger names its transition table `changed`; one version for
-- all rows of a statement keeps large imports linear.
create function record_catalog_change() returns trigger language plpgsql security definer set search_path to
    'pg_catalog', 'public' as $$
declare
    ids uuid[];
    at bigint;
begin
    if tg_level = 'ROW' then
        ids := array[new.id];
    else
        ids := array(select id from changed);
    end if;
    if cardinality(ids) > 0 then
        update public.catalog_version set version = version + 1 returning version into at;
        insert into public.catalog_change (kind, id, version)
        select tg_table_name, id, at from unnest(ids) as id
        on conflict (kind, id) do update set version = excluded.version;
    end if;
    return null;
end $$;

-- One number of all that the catalog holds of a row, besides versions, which never change. Processes keep their sum, by which
-- they compare what they hold with what is stored.
create function catalog_fingerprint(v vertical) returns bigint language sql stable as $$
select hash_record_extended(row(v.id, v.slug, v.version,
        (select string_agg(c.state || c.version, ' ' order by c.version) from scorecard c
         where c.vertical_id = v.id and c.state in ('shadow', 'ranking')),
        (select max(s.counted_at) from business_sales s where s.vertical_id = v.id)), 0)
$$;

create function catalog_fingerprint(p provider) returns bigint language sql stable as $$
select hash_record_extended(row(p.id, p.state, p.payout), 0)
$$;

create function catalog_fingerprint(s subscription, b business, e endpoint) returns bigint language sql stable as $$
select hash_record_extended(row(s.id, s.business_id, s.endpoint_id, s.vertical_id, s.mode, s.version, s.state,
        s.suspended_for, b.state, b.seller_names, e.state, e.breaker_open_until, e.hold_seconds), 0)
$$;


-- Share credits (migration 0049) --------------------------------------------------------------------------------------

-- Leads by which a business is behind its share of a vertical, in billionths of a lead. Integers, so that the sum does not
-- depend on the order of the additions; those of a vertical and mode sum to zero. A business without a row has none yet.
create table share_credit (
    vertical_id uuid not null,
    mode text not null,
    business_id uuid not null,
    credit bigint not null,
    constraint share_credit_pkey primary key (vertical_id, mode, business_id),
    constraint share_credit_business_id_fkey foreign key (business_id) references business(id),
    constraint share_credit_vertical_id_fkey foreign key (vertical_id) references vertical(id),
    constraint share_credit_mode check (mode in ('live', 'test'))
) with (fillfactor=70);
grant select on share_credit to marketplace_api, marketplace_reports;
grant insert, select, update (credit) on share_credit to marketplace_worker;

-- A released award counts for nothing: the next decision about the lead has changes of its own. At the commit, so that the
-- credits are the last rows that any transaction locks, and always in the order of the businesses.
create function take_back_credits() returns trigger language plpgsql security definer set search_path to 'pg_catalog',
    'public' as $$
begin
    insert into public.share_credit (vertical_id, mode, business_id, credit)
    select l.vertical_id, new.mode, change.key::uuid, -change.value::bigint
    from public.decision d
    join public.lead l on l.id = d.lead_id
    cross join lateral jsonb_each_text(d.credits) as change
    where d.lead_id = new.lead_id and d.made_at = new.awarded_at and d.assignment_id = new.id
    order by change.key
    on conflict (vertical_id, mode, business_id) do update set credit = share_credit.credit + excluded.credit;
    return null;
end $$;


-- Business terms (migration 0051) -------------------------------------------------------------------------------------

-- Weight and priority belong to the operator: one pair for a business in a vertical, however many subscriptions it has there. A
-- business without a row has the defaults of a definition, weight 1 and priority 100.
create table business_terms (
    vertical_id uuid not null,
    business_id uuid not null,
    weight int not null,
    priority int not null,
    constraint business_terms_pkey primary key (vertical_id, business_id),
    constraint business_terms_business_id_fkey foreign key (business_id) references business(id),
    constraint business_terms_vertical_id_fkey foreign key (vertical_id) references vertical(id),
    constraint business_terms_priority check (priority >= 0 and priority <= 1000000),
    constraint business_terms_weight check (weight >= 1 and weight <= 1000)
);
grant insert, select, update (priority, weight) on business_terms to marketplace_api;
grant select on business_terms to marketplace_reports;


-- Arrival curves (migration 0055) -------------------------------------------------------------------------------------

-- Learned once a day where a subscription paces its caps. Rows are only added, so that a recorded decision can be repeated with
-- the curve of its time. The first hour begins on Monday at 00:00 UTC; no hour is without a lead.
create table arrival_curve (
    vertical_id uuid not null,
    learned_at timestamptz not null,
    arrivals integer[] not null,
    constraint arrival_curve_pkey primary key (vertical_id, learned_at),
    constraint arrival_curve_vertical_id_fkey foreign key (vertical_id) references vertical(id),
    constraint arrival_curve_hours check (cardinality(arrivals) = 168 and (1 <= all (arrivals)))
);
create trigger arrival_curve_changes after insert on arrival_curve for each row execute function record_arrival_curve();
grant select on arrival_curve to marketplace_api, marketplace_reports;
grant insert, select on arrival_curve to marketplace_worker;

-- A new curve is a change of its vertical, so that every process reads it.
create function record_arrival_curve() returns trigger language plpgsql security definer set search_path to
    'pg_catalog', 'public' as $$
declare
    at bigint;
begin
    update public.catalog_version set version = version + 1 returning version into at;
    insert into public.catalog_change (kind, id, version) values ('vertical', new.vertical_id, at)
    on conflict (kind, id) do update set version = excluded.version;
    return null;
end $$;


-- Budget bands (migration 0056) ---------------------------------------------------------------------------------------

-- Doublings of a person's budget in minor units, from 1; 0 if no budget was stated.
create function budget_band(minor bigint) returns int language sql immutable parallel safe as $$
select case when minor > 0 then floor(log(minor::float8) / log(2::float8))::int + 1 else 0 end
$$;


-- Scorecards (migration 0057) -----------------------------------------------------------------------------------------

-- Moves of the state are in marketplace/learning/states.py as well, and a test compares the two. A card never changes what it
-- says: `document` and `evaluation` are those of its training. `shadow_figures` are those on which it was signed off, and
-- `replaces` is the card that ranked before it, which ranks again when it is rolled back.
create table scorecard (
    vertical_id uuid not null,
    version int not null,
    state text not null default 'trained',
    document jsonb not null,
    evaluation jsonb not null,
    profile jsonb not null,
    trained_at timestamptz not null,
    trained_by text not null,
    shadow_since timestamptz,
    signed_off_at timestamptz,
    signed_off_by uuid,
    signed_off_kind text generated always as ( case when (signed_off_by is not null) then 'operator' else null::text
        end) stored,
    shadow_leads int,
    shadow_figures jsonb,
    replaces int,
    suspended_for text,
    constraint scorecard_pkey primary key (vertical_id, version),
    constraint scorecard_operator foreign key (signed_off_by, signed_off_kind) references member(id, kind),
    constraint scorecard_replaced foreign key (vertical_id, replaces) references scorecard(vertical_id, version),
    constraint scorecard_vertical_id_fkey foreign key (vertical_id) references vertical(id),
    constraint scorecard_replaces_another check (replaces <> version),
    constraint scorecard_shadow_leads check (shadow_leads > 0),
    constraint scorecard_shadowed check ((state <> all (array['shadow', 'ranking', 'suspended'])) or shadow_since is
        not null),
    constraint scorecard_signed_off check ((num_nulls(signed_off_at, signed_off_by, shadow_leads, shadow_figures) in
        (0, 4)) and (signed_off_at is not null or (state <> all (array['ranking', 'suspended'])))),
    constraint scorecard_state check (state in ('trained', 'shadow', 'ranking', 'suspended', 'retired')),
    constraint scorecard_suspended check ((state = 'suspended') = (suspended_for is not null)),
    constraint scorecard_version check (version > 0)
);
-- A suspended card keeps its place until an operator retires or replaces it.
create unique index scorecard_one_ranking on scorecard (vertical_id) where (state in ('ranking', 'suspended'));
create unique index scorecard_one_shadow on scorecard (vertical_id) where (state = 'shadow');
create trigger scorecard_beginning before insert on scorecard for each row execute function
    assert_scorecard_beginning();
create trigger scorecard_changes after update on scorecard referencing new table as changed for each statement execute
    function record_vertical_change();
create trigger scorecard_is_final before delete or update of vertical_id, version, document, evaluation, profile,
    trained_at, trained_by on scorecard for each row execute function refuse_change();
create trigger scorecard_move before update of state on scorecard for each row when (old.state is distinct from
    new.state) execute function assert_scorecard_move();
grant insert, select, update (replaces, shadow_figures, shadow_leads, shadow_since, signed_off_at, signed_off_by,
    state, suspended_for) on scorecard to marketplace_api;
grant select on scorecard to marketplace_reports;
grant insert, select, update (shadow_since, state, suspended_for) on scorecard to marketplace_worker;

create function assert_scorecard_move() returns trigger language plpgsql as $$
begin
    if (old.state, new.state) not in (
        ('trained', 'shadow'), ('trained', 'retired'),
        ('shadow', 'ranking'), ('shadow', 'retired'),
        ('ranking', 'suspended'), ('ranking', 'retired'),
        ('suspended', 'ranking'), ('suspended', 'retired'),
        ('retired', 'ranking'))
    then
        raise exception 'a scorecard never moves from % to %', old.state, new.state
            using errcode = 'check_violation', constraint = 'scorecard_move';
    end if;
    return new;
end $$;

create function assert_scorecard_beginning() returns trigger language plpgsql as $$
begin
    if new.state <> 'trained' then
        raise exception 'a scorecard never begins as %', new.state
            using errcode = 'check_violation', constraint = 'scorecard_beginning';
    end if;
    return new;
end $$;

-- The last training of a vertical, begun at `tried_at`, and the sentence by which it was refused, if it was.
create table scorecard_training (
    vertical_id uuid not null,
    tried_at timestamptz not null,
    leads int not null default 0,
    refusal text,
    constraint scorecard_training_pkey primary key (vertical_id),
    constraint scorecard_training_vertical_id_fkey foreign key (vertical_id) references vertical(id)
);
grant insert, select, update (leads, refusal, tried_at) on scorecard_training to marketplace_api, marketplace_worker;
grant select on scorecard_training to marketplace_reports;

-- What the businesses of a vertical did with the leads that they were charged for, counted again each day. `jobs` are wins
-- with a value. The strategy by expected value reads it (routing/expectation.py).
create table business_sales (
    vertical_id uuid not null,
    business_id uuid not null,
    leads int not null,
    returned int not null,
    jobs int not null,
    jobs_minor bigint not null,
    counted_at timestamptz not null,
    constraint business_sales_pkey primary key (vertical_id, business_id),
    constraint business_sales_business_id_fkey foreign key (business_id) references business(id),
    constraint business_sales_vertical_id_fkey foreign key (vertical_id) references vertical(id),
    constraint business_sales_counted check (leads >= 0 and returned >= 0 and returned <= leads and jobs >= 0 and jobs
        <= leads and jobs_minor >= 0)
);
create trigger business_sales_begin after insert on business_sales referencing new table as changed for each statement
    execute function record_vertical_change();
create trigger business_sales_change after update on business_sales referencing new table as changed for each statement
    execute function record_vertical_change();
grant select on business_sales to marketplace_api, marketplace_reports;
grant insert, select, update (counted_at, jobs, jobs_minor, leads, returned) on business_sales to marketplace_worker;

-- A card that begins or ends to be computed, and new counts, are changes of the rules of their vertical.
create function record_vertical_change() returns trigger language plpgsql security definer set search_path to
    'pg_catalog', 'public' as $$
declare
    ids uuid[] := array(select distinct vertical_id from changed);
    at bigint;
begin
    if cardinality(ids) > 0 then
        update public.catalog_version set version = version + 1 returning version into at;
        insert into public.catalog_change (kind, id, version)
        select 'vertical', id, at from unnest(ids) as id
        on conflict (kind, id) do update set version = excluded.version;
    end if;
    return null;
end $$;


-- Scorecard watch (migration 0058) ------------------------------------------------------------------------------------

-- The weekly look at a card in shadow or in charge: whether what it says still comes true, and whether the leads are still like
-- those that it was trained on. `alarm` is the reason for which a ranking card was suspended, or would have been.
create table scorecard_check (
    vertical_id uuid not null,
    version int not null,
    checked_at timestamptz not null,
    figures jsonb not null,
    alarm text,
    constraint scorecard_check_pkey primary key (vertical_id, version, checked_at),
    constraint scorecard_check_card foreign key (vertical_id, version) references scorecard(vertical_id, version),
    constraint scorecard_check_alarm check (alarm in ('inputs_shifted', 'calibration_off'))
);
create trigger scorecard_check_is_final before delete or update on scorecard_check for each row execute function
    refuse_change();
grant select on scorecard_check to marketplace_api, marketplace_reports;
grant insert, select on scorecard_check to marketplace_worker;


-- Simulations (migration 0059) ----------------------------------------------------------------------------------------

-- One simulation. While it waits or is computed it has a due time: the process that computes it moves that ahead, and after a
-- crash another worker takes it over. The result is kept for 30 days.
create table simulation (
    id uuid not null,
    vertical_id uuid not null,
    state text not null,
    actor text not null,
    request jsonb not null,
    since timestamptz not null,
    until timestamptz not null,
    leads int not null default 0,
    leads_done int not null default 0,
    result jsonb,
    failure text,
    tries int not null default 0,
    due_at timestamptz,
    made_at timestamptz not null,
    ended_at timestamptz,
    constraint simulation_pkey primary key (id),
    constraint simulation_vertical_id_fkey foreign key (vertical_id) references vertical(id),
    constraint simulation_due check ((state in ('waiting', 'running')) = (due_at is not null)),
    constraint simulation_ended check ((state in ('waiting', 'running')) = (ended_at is null)),
    constraint simulation_failure check ((state = 'failed') = (failure is not null)),
    constraint simulation_leads check (leads >= 0),
    constraint simulation_leads_done check (leads_done >= 0 and leads_done <= leads),
    constraint simulation_result check ((state = 'done') = (result is not null)),
    constraint simulation_state check (state in ('waiting', 'running', 'done', 'failed', 'cancelled')),
    constraint simulation_time check (since < until)
);
create index simulation_due_soon on simulation (due_at) where (due_at is not null);
create index simulation_oldest on simulation (made_at);
grant insert, select, update (due_at, ended_at, state) on simulation to marketplace_api;
grant select on simulation to marketplace_reports;
grant delete, select, update (due_at, ended_at, failure, leads, leads_done, result, state, tries) on simulation to
    marketplace_worker;


-- Journey (migration 0060) --------------------------------------------------------------------------------------------

-- A correction of an inquiry. `signals` are those of a corrected phone number or e-mail address. `clears` are the names of values that it removed, `contact` those of the contact
-- fields that it changed; their values are in `sealed`, under a key of its own, which an erasure destroys.
create table correction (
    lead_id uuid not null,
    revision int not null,
    made_at timestamptz not null,
    made_by text not null,
    supplies jsonb not null default '{}'::jsonb,
    clears text[] not null default '{}'::text[],
    signals jsonb,
    contact text[] not null default '{}'::text[],
    sealed bytea,
    wrapped bytea,
    master_key_id text,
    idempotency_key text,
    request_sha256 bytea not null,
    place jsonb,
    constraint correction_pkey primary key (lead_id, revision),
    constraint correction_idempotency_key unique (lead_id, idempotency_key),
    constraint correction_lead_id_fkey foreign key (lead_id) references lead(id),
    constraint correction_sealed check ((sealed is null) = (wrapped is null) and (sealed is null) = (master_key_id is
        null) and (sealed is null or contact <> '{}'::text[]))
);
create trigger correction_counts after insert on correction for each row when (new.contact && array['phone', 'email'])
    execute function mark_certificates();
grant select on correction to marketplace_api, marketplace_reports, marketplace_worker;
grant update (master_key_id, sealed, wrapped) on correction to marketplace_eraser;

-- The facts of an inquiry with the entries of its lead's journey up to a revision, which routing/journey.py folds.
create function facts_at(of_lead uuid, own jsonb, up_to int) returns jsonb language sql stable as $$
select case when up_to = 0 then own else own || jsonb_build_object('journey', (
        select coalesce(jsonb_agg(entry), '[]') from (
            select jsonb_build_object('type', 'touch', 'revision', t.revision, 'supplies', t.supplies, 'touch',
                jsonb_strip_nulls(jsonb_build_object('kind', t.kind, 'at', t.at, 'detail', t.detail,
                    'direction', t.direction, 'seconds', t.seconds, 'starts_at', t.starts_at, 'touch_id', t.touch_id,
                    'amount', case when t.amount_minor is not null then
                        jsonb_build_object('minor', t.amount_minor, 'currency', t.currency) end))) as entry
            from touch t where t.lead_id = of_lead and t.revision <= up_to
            union all
            select jsonb_build_object('type', 'correction', 'revision', c.revision, 'at', c.made_at,
                'supplies', c.supplies, 'clears', c.clears, 'signals', c.signals, 'place', c.place, 'contact', c.contact)
            from correction c where c.lead_id = of_lead and c.revision <= up_to
        ) journey)) end
$$;

-- The form of 0060_journey.sql, except that each row keeps its scope.
create function retake_window(of_lead uuid, since timestamptz, until timestamptz) returns void language plpgsql as $$
declare
    own record;
    claimed int;
begin
    select array_agg(key order by key) as keys, array_agg(scope order by key) as scopes,
           min(vertical_id::text)::uuid as vertical_id into own
    from person_window where lead_id = of_lead;
    delete from person_window where lead_id = of_lead;
    insert into person_window (lead_id, key, vertical_id, during, scope)
    select of_lead, mine.key, own.vertical_id, tstzrange(since, until), mine.scope
    from unnest(own.keys, own.scopes) as mine (key, scope) order by mine.key
    on conflict on constraint person_window_once do nothing;
    get diagnostics claimed = row_count;
    if claimed = 0 or claimed < cardinality(own.keys) then
        raise unique_violation using constraint = 'person_window_once', message = 'this person was here since';
    end if;
end $$;
revoke all on function retake_window from public;

-- The form of 0060_journey.sql, except that each of `window_keys` has a `key` and says whether it is `shared`: then it has the
-- scope of the lead, as in 0073_same_person.sql.
create function add_person(of_lead uuid, window_keys jsonb, person_keys jsonb) returns void language plpgsql as $$
declare
    asked int;
    claimed int;
begin
    select count(*) into asked
    from jsonb_to_recordset(window_keys) as added (key text, shared boolean)
    where not exists (select from person_window w where w.lead_id = of_lead and w.key = decode(added.key, 'base64'));
    insert into person_window (lead_id, key, vertical_id, during, scope)
    select of_lead, decode(added.key, 'base64'), own.vertical_id, own.during,
           case when added.shared then shared_scope(of_lead) else '(,)' end
    from jsonb_to_recordset(window_keys) as added (key text, shared boolean)
    cross join lateral (select vertical_id, during from person_window where lead_id = of_lead limit 1) own
    where not exists (select from person_window w where w.lead_id = of_lead and w.key = decode(added.key, 'base64'))
    order by decode(added.key, 'base64')
    on conflict on constraint person_window_once do nothing;
    get diagnostics claimed = row_count;
    if claimed < asked and exists (select from person_window where lead_id = of_lead) then
        raise unique_violation using constraint = 'person_window_once', message = 'another lead has this person';
    end if;
    insert into person_key (lead_id, key)
    select of_lead, decode(added.key, 'base64') from jsonb_array_elements_text(person_keys) as added (key)
    on conflict do nothing;
end $$;
revoke all on function add_person from public;

-- As before, and with a corrected place, and what reports read of the lead's facts from then on.
create function revise_lead(change jsonb) returns jsonb language plpgsql security definer set search_path to
    'pg_catalog', 'public' as $$
declare
    c record;
    erased boolean;
    added text[];
begin
    select * into c from jsonb_to_record(change) as r (
        lead_id uuid, state text, revision int, next text, made_at timestamptz, touches jsonb, correction jsonb,
        protected_until timestamptz, place jsonb, budget_minor bigint);
    perform from lead where id = c.lead_id and state = c.state and revision = c.revision for no key update;
    if not found then
        return null;
    end if;
    erased := exists (select from erasure where lead_id = c.lead_id);
    with stored as (
        insert into touch (lead_id, fingerprint, revision, kind, at, detail, direction, seconds, amount_minor, currency,
            starts_at, touch_id, supplies, recorded_at)
        select c.lead_id, decode(t.fingerprint, 'base64'), c.revision + 1, t.kind, t.at,
               case when erased then '' else t.detail end, t.direction, t.seconds, t.amount_minor, t.currency, t.starts_at,
               t.touch_id, t.supplies, c.made_at
        from jsonb_to_recordset(c.touches) as t (fingerprint text, kind text, at timestamptz, detail text, direction text,
            seconds int, amount_minor bigint, currency text, starts_at timestamptz, touch_id text, supplies jsonb)
        on conflict (lead_id, fingerprint) do nothing
        returning encode(fingerprint, 'base64') as fingerprint
    )
    select coalesce(array_agg(fingerprint), '{}') into added from stored;
    if c.correction is not null then
        if erased then
            return jsonb_build_object('added', added, 'state', c.state, 'erased', true);
        end if;
        insert into correction (lead_id, revision, made_at, made_by, supplies, clears, signals, place, contact, sealed,
            wrapped, master_key_id, idempotency_key, request_sha256)
        select c.lead_id, c.revision + 1, c.made_at, r.made_by, r.supplies, r.clears, r.signals, r.place, r.contact,
               decode(r.sealed, 'base64'), decode(r.wrapped, 'base64'), r.master_key_id, r.idempotency_key,
               decode(r.request_sha256, 'base64')
        from jsonb_to_record(c.correction) as r (made_by text, supplies jsonb, clears text[], signals jsonb, place jsonb,
            contact text[], sealed text, wrapped text, master_key_id text, idempotency_key text, request_sha256 text);
        perform add_person(c.lead_id, c.correction -> 'window_keys', c.correction -> 'person_keys');
    elsif added = '{}' then
        return jsonb_build_object('added', added, 'state', c.state);
    end if;
    if c.next = 'receive' and not is_withdrawn(c.lead_id) then
        begin
            if c.state <> 'prospect' then
                perform retake_window(c.lead_id, c.made_at, c.protected_until);
                update lead set qualified_at = null, settled_at = null, reopened_at = c.made_at where id = c.lead_id;
            end if;
            update lead set state = 'received', reason = null, due_at = c.made_at where id = c.lead_id;
        exception when unique_violation then
            null;  -- the person has asked anew meanwhile: the lead stays as it ended
        end;
    elsif c.next = 'due' then
        update lead set due_at = least(due_at, c.made_at) where id = c.lead_id;
    end if;
    insert into revised_facts (lead_id, place, budget_minor) values (c.lead_id, c.place, c.budget_minor)
    on conflict (lead_id) do update
    set place = excluded.place, budget_minor = excluded.budget_minor, committed_by = excluded.committed_by;
    update lead set revision = c.revision + 1 where id = c.lead_id;
    return jsonb_build_object('added', added, 'state', (select state from lead where id = c.lead_id));
end $$;
revoke all on function revise_lead from public;
grant execute on function revise_lead to marketplace_api;


-- Give back (migration 0062) ------------------------------------------------------------------------------------------

-- A provider gives a waiting lead back before its time: the lead expires and its person may ask again. The keys of the
-- window stay with an empty range, as for every lead that ends without an exposure. Returns the state that the lead has
-- then, or null for a lead that is not the provider's.
create function give_back(of_lead uuid, for_provider uuid, in_mode text, given_at timestamptz) returns text language
    plpgsql security definer set search_path to 'pg_catalog', 'public' as $$
declare
    before text;
begin
    select state into before from public.lead
    where id = of_lead and provider_id = for_provider and mode = in_mode for no key update;
    if before is distinct from 'nurturing' then
        return before;
    end if;
    update public.lead set state = 'expired', due_at = null, reason = 'given_back', settled_at = given_at
    where id = of_lead;
    update public.person_window set during = 'empty' where lead_id = of_lead;
    return 'given_back';
end $$;
revoke all on function give_back from public;
grant execute on function give_back to marketplace_api;


-- Certificates (migration 0065) ---------------------------------------------------------------------------------------

create table certificate (
    lead_id uuid not null,
    kind text not null,
    token_sha256 bytea not null,
    state text not null default 'pending',
    box bytea,
    made_at timestamptz not null,
    attempts int not null default 0,
    first_tried_at timestamptz,
    settled_at timestamptz,
    reason text,
    response_sha256 bytea,
    expires_at timestamptz,
    phone_matches bool,
    email_matches bool,
    page_matches bool,
    compared_revision int,
    constraint certificate_pkey primary key (lead_id, kind),
    constraint certificate_lead_id_fkey foreign key (lead_id) references lead(id),
    constraint certificate_boxed check ((box is not null) = (state = 'pending')),
    constraint certificate_compared check (compared_revision is null or state <> 'pending'),
    constraint certificate_kind check (kind in ('trustedform', 'jornaya')),
    constraint certificate_settled check ((settled_at is not null) = (state <> 'pending')),
    constraint certificate_state check (state in ('pending', 'verified', 'mismatched', 'refused', 'unanswered')),
    constraint certificate_token check (octet_length(token_sha256) = 32)
) with (fillfactor=80);
create index certificate_by_state on certificate (state, lead_id);
create trigger certificate_counts after insert or update of state on certificate for each row execute function
    mark_certificates();
create trigger certificate_is_final before update on certificate for each row when (old.state <> 'pending') execute
    function refuse_change();
create trigger certificate_is_kept before delete on certificate for each row execute function refuse_change();
grant insert (box, kind, lead_id, made_at, token_sha256), select (attempts, compared_revision, email_matches,
    expires_at, first_tried_at, kind, lead_id, made_at, page_matches, phone_matches, reason, response_sha256,
    settled_at, state, token_sha256) on certificate to marketplace_api;
grant select (attempts, compared_revision, email_matches, expires_at, first_tried_at, kind, lead_id, made_at,
    page_matches, phone_matches, reason, response_sha256, settled_at, state, token_sha256) on certificate to
    marketplace_reports;
grant select (attempts, compared_revision, email_matches, expires_at, first_tried_at, kind, lead_id, made_at,
    page_matches, phone_matches, reason, response_sha256, settled_at, state, token_sha256), update (attempts, box,
    compared_revision, email_matches, expires_at, first_tried_at, page_matches, phone_matches, reason, response_sha256,
    settled_at, state) on certificate to marketplace_worker;

create function mark_certificates() returns trigger language plpgsql security definer set search_path to 'pg_catalog',
    'public' as $$
begin
    update public.lead set certificates = standing_of_certificates(new.lead_id) where id = new.lead_id;
    return null;
end $$;

-- An erasure ends the claims of its lead, whose key is gone: nothing can be compared any more.
create function end_certificates() returns trigger language plpgsql security definer set search_path to 'pg_catalog',
    'public' as $$
begin
    update public.certificate set state = 'unanswered', box = null, settled_at = new.requested_at, reason = 'erased'
    where lead_id = new.lead_id and state = 'pending';
    return null;
end $$;

-- What a claim sends, for the worker, while the certificate is pending and nobody was shown the lead.
create function read_certificates(of_lead uuid) returns table(kind text, attempts int, first_tried_at timestamptz, box
    bytea, wrapped bytea, master_key_id text, revision int, corrections jsonb) language sql stable security definer set
    search_path to 'pg_catalog', 'public' as $$
select c.kind, c.attempts, c.first_tried_at, c.box, k.wrapped, k.master_key_id, l.revision, (
        select jsonb_agg(jsonb_build_object('master_key_id', r.master_key_id,
            'box', translate(encode(r.sealed, 'base64'), E'\n', ''),
            'wrapped', translate(encode(r.wrapped, 'base64'), E'\n', '')) order by r.revision)
        from public.correction r where r.lead_id = of_lead and r.sealed is not null)
    from public.certificate c
    join public.lead l on l.id = c.lead_id and l.state in ('received', 'nurturing', 'prospect')
    join public.data_key k on k.lead_id = c.lead_id
    where c.lead_id = of_lead and c.state = 'pending'
$$;
revoke all on function read_certificates from public;
grant execute on function read_certificates to marketplace_worker;


-- Notices (migration 0066) --------------------------------------------------------------------------------------------

-- `detail` has no contact data. A due notice is sent until it is acknowledged; an overdue one is sent again each day until
-- its due time is null; a withdrawn one is about a person who was erased before it arrived.
create table notice (
    id uuid not null,
    lead_id uuid not null,
    kind text not null,
    business_id uuid not null,
    assignment_id uuid not null,
    made_at timestamptz not null,
    detail jsonb not null default '{}'::jsonb,
    state text not null,
    due_at timestamptz,
    attempts int not null default 0,
    result text,
    acknowledged_at timestamptz,
    deadline_at timestamptz not null,
    live bool not null default true,
    constraint notice_pkey primary key (id),
    constraint notice_exposure foreign key (lead_id, assignment_id) references exposure(lead_id, assignment_id),
    constraint notice_holder foreign key (assignment_id, lead_id, business_id, live) references assignment(id, lead_id,
        business_id, live),
    constraint notice_acknowledged check ((acknowledged_at is not null) = (state = 'acknowledged')),
    constraint notice_due check ( case state when 'due' then due_at is not null when 'overdue' then true else due_at is
        null end),
    constraint notice_kind check (kind in ('erased', 'revoked', 'updated')),
    constraint notice_live check (live),
    constraint notice_state check (state in ('due', 'acknowledged', 'overdue', 'withdrawn'))
) with (fillfactor=80);
create index notice_due_soon on notice (due_at) where (due_at is not null);
create index notice_of_business on notice (business_id, made_at, id);
create unique index notice_of_erasure on notice (lead_id) where (kind = 'erased');
create index notice_of_lead on notice (lead_id, made_at);
-- What a business has to acknowledge: counted on each of its pages, and those overdue on the operator's overview.
create index notice_open on notice (business_id) where ((kind in ('erased', 'revoked')) and (state in ('due',
    'overdue')));
create trigger notice_is_kept before delete on notice for each row execute function refuse_change();
create trigger notice_is_never_emptied before truncate on notice for each statement execute function refuse_change();
grant insert, select, update (acknowledged_at, detail, due_at, result, state) on notice to marketplace_api;
grant select on notice to marketplace_feeder, marketplace_reports;
grant insert, select, update (acknowledged_at, attempts, due_at, result, state) on notice to marketplace_worker;


-- Revocations (migration 0067) ----------------------------------------------------------------------------------------

-- No contact data: `channels` are those that the person may not be contacted by, none named means all. A signed message
-- with the same id of the same sender is one revocation.
create table revocation (
    id uuid not null,
    revoked_at timestamptz not null,
    requested_by text not null,
    provider_id uuid,
    mode text not null,
    channels text[] not null,
    reason text not null,
    message_id text,
    constraint revocation_pkey primary key (id),
    constraint revocation_provider_id_fkey foreign key (provider_id) references provider(id),
    constraint revocation_channels check (channels <@ array['call', 'text', 'email', 'post']),
    constraint revocation_mode check (mode in ('live', 'test'))
);
create unique index revocation_of_message on revocation (requested_by, message_id) where (message_id is not null);
create trigger revocation_is_kept before delete or update on revocation for each row execute function refuse_change();
create trigger revocation_is_never_emptied before truncate on revocation for each statement execute function
    refuse_change();
grant insert, select on revocation to marketplace_api;
grant select on revocation to marketplace_reports, marketplace_worker;

-- The leads of the person. `state` is the lead's before; a lead that was shown has the notice to its business.
create table revoked_lead (
    lead_id uuid not null,
    revocation_id uuid not null,
    state text not null,
    business_id uuid,
    notice_id uuid,
    constraint revoked_lead_pkey primary key (lead_id, revocation_id),
    constraint revoked_lead_notice unique (notice_id),
    constraint revoked_lead_lead_id_fkey foreign key (lead_id) references lead(id),
    constraint revoked_lead_notice_id_fkey foreign key (notice_id) references notice(id),
    constraint revoked_lead_revocation_id_fkey foreign key (revocation_id) references revocation(id),
    constraint revoked_lead_announced check ((business_id is null) = (notice_id is null))
);
create index revoked_lead_by_revocation on revoked_lead (revocation_id);
create trigger revoked_lead_has_notice before insert on revoked_lead for each row execute function demand_notice();
create trigger revoked_lead_is_kept before delete or update on revoked_lead for each row execute function
    refuse_change();
create trigger revoked_lead_is_never_emptied before truncate on revoked_lead for each statement execute function
    refuse_change();
grant select on revoked_lead to marketplace_api, marketplace_feeder, marketplace_reports, marketplace_worker;
grant insert on revoked_lead to marketplace_eraser;

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

-- The secret by which a service for STOP messages signs; a provider's own, or the operator's under the id of zeros.
create table revocation_hook (
    owner_id uuid not null,
    provider_id uuid,
    secret bytea not null,
    previous_secret bytea,
    previous_until timestamptz,
    made_at timestamptz not null,
    constraint revocation_hook_pkey primary key (owner_id),
    constraint revocation_hook_provider_id_fkey foreign key (provider_id) references provider(id),
    constraint revocation_hook_owner check (owner_id = coalesce(provider_id,
        '00000000-0000-0000-0000-000000000000'::uuid))
);
grant insert, select, update (made_at, previous_secret, previous_until, secret) on revocation_hook to marketplace_api;


-- Contact lists (migration 0068) --------------------------------------------------------------------------------------

-- One list. Its `number` stands in each of its members, which are millions. A list is replaced or extended by an import as a
-- whole: `version` counts these, and `refreshed_at` is the time of the last one.
create table contact_list (
    id uuid not null,
    number int not null generated always as identity,
    kind text not null,
    business_id uuid,
    name text not null,
    source text,
    refresh_hours int,
    maximum_age_days int not null default 31,
    stops_sales bool not null default false,
    version int not null default 0,
    members int not null default 0,
    made_at timestamptz not null,
    made_by text not null,
    refreshed_at timestamptz,
    removed_at timestamptz,
    constraint contact_list_pkey primary key (id),
    constraint contact_list_number unique (number),
    constraint contact_list_business_id_fkey foreign key (business_id) references business(id),
    constraint contact_list_age check (maximum_age_days >= 1 and maximum_age_days <= 3650),
    constraint contact_list_kind check (kind in ('do_not_contact', 'own_customers')),
    constraint contact_list_members check (members >= 0),
    constraint contact_list_name check (name ~ '\S'),
    constraint contact_list_owner check ((kind = 'own_customers') = (business_id is not null)),
    constraint contact_list_refresh check (refresh_hours >= 1 and refresh_hours <= 8760),
    constraint contact_list_schedule check (refresh_hours is null or source is not null),
    constraint contact_list_stops check (kind = 'do_not_contact' or not stops_sales)
);
create unique index contact_list_once on contact_list (business_id, name) nulls not distinct where (removed_at is null);
grant insert, select, update (maximum_age_days, members, name, refresh_hours, refreshed_at, removed_at, source,
    stops_sales, version) on contact_list to marketplace_api;
grant select on contact_list to marketplace_feeder, marketplace_reports, marketplace_worker;

-- A key is the first 16 bytes of a keyed hash of person_key. `since` and `until` are versions of the list. A member with
-- `until` has left the list, and is kept until the next import, so that the last one can be undone.
create table list_member (
    key bytea not null,
    list int not null,
    since int not null,
    until int,
    constraint list_member_pkey primary key (key, list),
    constraint list_member_key check (octet_length(key) = 16)
);
grant delete, insert, select, update (since, until) on list_member to marketplace_api;
grant select on list_member to marketplace_feeder, marketplace_worker;

-- One import of a file into a list. While it runs it has a due time, which the process that works on it moves ahead. The
-- digest is that of the first `position` bytes of the file, by which an import continues after a crash.
create table list_import (
    id uuid not null,
    number int not null generated always as identity,
    list_id uuid not null,
    state text not null,
    way text not null,
    file_name text not null,
    actor text not null,
    position bigint not null default 0,
    digest bytea not null default '\x'::bytea,
    rows int not null default 0,
    readable int not null default 0,
    faulty int not null default 0,
    repeated int not null default 0,
    added int not null default 0,
    removed int not null default 0,
    version int,
    serial bigint,
    failure text,
    due_at timestamptz,
    made_at timestamptz not null,
    ended_at timestamptz,
    constraint list_import_pkey primary key (id),
    constraint list_import_number unique (number),
    constraint list_import_list_id_fkey foreign key (list_id) references contact_list(id),
    constraint list_import_due check ((state = 'running') = (due_at is not null)),
    constraint list_import_ended check ((state = 'running') = (ended_at is null)),
    constraint list_import_failure check ((state = 'failed') = (failure is not null)),
    constraint list_import_published check ((state in ('done', 'undone')) = (serial is not null)),
    constraint list_import_state check (state in ('running', 'done', 'failed', 'undone')),
    constraint list_import_way check (way in ('whole', 'add'))
);
create index list_import_newest on list_import (list_id, id);
create unique index list_import_one_at_a_time on list_import (list_id) where (state = 'running');
grant insert, select, update (added, digest, due_at, ended_at, failure, faulty, position, readable, removed, repeated,
    rows, serial, state, version) on list_import to marketplace_api;
grant select on list_import to marketplace_reports;

-- The first faulty rows of an import, by number and code; never their text.
create table list_fault (
    import_id uuid not null,
    row int not null,
    code text not null,
    constraint list_fault_pkey primary key (import_id, "row"),
    constraint list_fault_import_id_fkey foreign key (import_id) references list_import(id)
);
grant insert, select on list_fault to marketplace_api;

-- Keys that a running import has read so far.
create table list_staging (
    import int not null,
    key bytea not null
);
grant delete, insert, select on list_staging to marketplace_api;

-- Number of the last change of any list, raised in the transaction of the change. A decision reads it together with the lists,
-- and its assignment has it: which versions of the lists had cleared the lead. Award and exposure ask the lists again.
create table lists_serial (
    is_single bool not null default true,
    serial bigint not null,
    constraint lists_serial_pkey primary key (is_single),
    constraint lists_serial_one_row check (is_single)
);
grant select, update (serial) on lists_serial to marketplace_api;
grant select on lists_serial to marketplace_reports, marketplace_worker;

-- Whether one of the keys is on a list of people who must not be contacted.
create function is_listed(keys bytea[]) returns bool language sql stable as $$
select exists (
        select from unnest(keys) as mine (key)
        join list_member m on m.key = substring(mine.key for 16) and m.until is null
        join contact_list l on l.number = m.list and l.kind = 'do_not_contact' and l.removed_at is null)
$$;


-- Own customers (migration 0069) --------------------------------------------------------------------------------------

-- Whether the lead's person is on a list of this business's own customers.
create function is_own_customer(of_lead uuid, of_business uuid) returns bool language sql stable as $$
select exists (
        select from person_key k
        join list_member m on m.key = substring(k.key for 16) and m.until is null
        join contact_list l on l.number = m.list and l.business_id = of_business and l.removed_at is null
        where k.lead_id = of_lead)
$$;

-- Leads that a business would have been offered, were their person not on its list of own customers. The business sees
-- their number of whole days alone.
create table kept_away (
    business_id uuid not null,
    lead_id uuid not null,
    kept_at timestamptz not null,
    constraint kept_away_pkey primary key (business_id, lead_id),
    constraint kept_away_business_id_fkey foreign key (business_id) references business(id),
    constraint kept_away_lead_id_fkey foreign key (lead_id) references lead(id)
);
create index kept_away_newest on kept_away (business_id, kept_at);
grant select on kept_away to marketplace_api;
grant insert, select on kept_away to marketplace_worker;


-- Pipelines (migration 0070) ------------------------------------------------------------------------------------------

-- Each name that means a stage: the present one, former ones, and words of a business's software. In lower case, so that one
-- name never means two stages.
create table stage_name (
    business_id uuid not null,
    name text not null,
    stage_id uuid not null,
    constraint stage_name_pkey primary key (business_id, name),
    constraint stage_name_stage foreign key (stage_id, business_id) references pipeline_stage(id, business_id)
);
create index stage_name_by_stage on stage_name (stage_id);
grant delete, insert, select, update (stage_id) on stage_name to marketplace_api;
grant select on stage_name to marketplace_worker;

-- Reports whose stage no name means. They are recorded when the name is mapped, and deleted after 30 days. `note` is what a
-- person wrote, and is erased with the lead's person.
create table unmapped_report (
    id uuid not null,
    business_id uuid not null,
    assignment_id uuid not null,
    lead_id uuid not null,
    live bool not null default true,
    stage text not null,
    name text not null,
    report jsonb not null,
    note text,
    source text not null,
    event_id text not null,
    file_import_id uuid,
    received_at timestamptz not null,
    fault text,
    constraint unmapped_report_pkey primary key (id),
    constraint unmapped_report_event unique (business_id, event_id),
    constraint unmapped_report_assignment foreign key (assignment_id, lead_id, business_id, live) references
        assignment(id, lead_id, business_id, live),
    constraint unmapped_report_file_import_id_fkey foreign key (file_import_id) references file_import(id),
    constraint unmapped_report_live check (live),
    constraint unmapped_report_source check (source in ('api', 'webhook', 'csv'))
);
create index unmapped_report_by_lead on unmapped_report (lead_id);
create index unmapped_report_of_import on unmapped_report (file_import_id) where (file_import_id is not null);
create index unmapped_report_oldest on unmapped_report (received_at);
grant delete, insert, select, update (fault) on unmapped_report to marketplace_api;
grant update (note) on unmapped_report to marketplace_eraser;
grant delete, select on unmapped_report to marketplace_worker;


-- Next actions (migration 0071) ---------------------------------------------------------------------------------------

-- What the business means to do next about a lead, and when. One per lead: a new one replaces it. `note` is what a person
-- wrote; the row is deleted when the person is erased.
create table next_action (
    assignment_id uuid not null,
    lead_id uuid not null,
    business_id uuid not null,
    live bool not null default true,
    note text not null,
    due_at timestamptz not null,
    set_at timestamptz not null,
    set_by text not null,
    done_at timestamptz,
    constraint next_action_pkey primary key (assignment_id),
    constraint next_action_assignment foreign key (assignment_id, lead_id, business_id, live) references assignment(id,
        lead_id, business_id, live),
    constraint next_action_exposed foreign key (lead_id, assignment_id) references exposure(lead_id, assignment_id),
    constraint next_action_live check (live),
    constraint next_action_note check (length(note) >= 1 and length(note) <= 300)
);
create index next_action_by_lead on next_action (lead_id);
create index next_action_due on next_action (business_id, due_at) where (done_at is null);
grant insert, select, update (done_at, due_at, note, set_at, set_by) on next_action to marketplace_api;
grant delete, select (lead_id) on next_action to marketplace_eraser;
grant select on next_action to marketplace_worker;

-- The endpoint to which a business has its changes of stage sent.
create table stage_hook (
    business_id uuid not null,
    endpoint_id uuid not null,
    set_at timestamptz not null,
    constraint stage_hook_pkey primary key (business_id),
    constraint stage_hook_endpoint foreign key (endpoint_id, business_id) references endpoint(id, business_id)
);
grant delete, insert, select, update (endpoint_id, set_at) on stage_hook to marketplace_api;
grant select on stage_hook to marketplace_worker;

-- Changes of stage that wait to be sent, were received, or were given up after a day. Rows are the queue.
create table stage_change (
    id uuid not null,
    business_id uuid not null,
    disposition_id uuid not null,
    previous_stage text,
    undone bool not null default false,
    state text not null,
    due_at timestamptz,
    attempts int not null default 0,
    result text,
    made_at timestamptz not null,
    position bigint not null,
    constraint stage_change_pkey primary key (id),
    constraint stage_change_once unique (disposition_id, undone),
    constraint stage_change_place unique (business_id, "position"),
    constraint stage_change_business_id_fkey foreign key (business_id) references business(id),
    constraint stage_change_due check ((state = 'due') = (due_at is not null)),
    constraint stage_change_state check (state in ('listed', 'due', 'received', 'given_up'))
);
create index stage_change_waiting on stage_change (due_at) where (due_at is not null);
grant insert, select on stage_change to marketplace_api;
grant delete, select, update (attempts, due_at, result, state) on stage_change to marketplace_worker;


-- Same person (migration 0073) ----------------------------------------------------------------------------------------

-- Scope of the shared marks of a lead.
create function shared_scope(of_lead uuid) returns int8range language sql immutable strict as $$
select int8range(hashtextextended(of_lead::text, 0) / 2, hashtextextended(of_lead::text, 0) / 2, '[]')
$$;
revoke all on function shared_scope from public;
grant execute on function shared_scope to marketplace_api;


-- Unready columns (migration 0074) ------------------------------------------------------------------------------------

-- One row per lead that was nurtured at any time, or rejected at first: its place in its hour, as in `miss_lead`.
-- `unready_first` is 1 if its first decision nurtured it, 2 if that rejected it, 0 if it was ready then. `unready_end` is 1
-- for a lead that its provider gave back, 2 for one whose person was erased or revoked consent. `unready_promoted` are the
-- seconds from the receipt to the qualification. `unready_touches` has a bit for each kind of touch recorded before that;
-- the highest is for kinds of the providers' own. Price and payout are those of a live lead that its business kept.
create function unready_columns(of_mode text, since timestamptz, until timestamptz) returns table(field text, hour
    timestamptz, data bytea) language sql stable as $$
with placed as materialized (
    select l.id, l.state, l.reason, l.received_at, l.qualified_at, date_trunc('hour', l.received_at, 'UTC') as at_hour,
           row_number() over (partition by date_trunc('hour', l.received_at, 'UTC') order by l.received_at, l.id) - 1
               as place
    from lead l where l.mode = of_mode and l.received_at >= since and l.received_at < until
), unready as materialized (
    select p.*, decided.nurtured, coalesce(array_position(array['nurturing', 'rejected'], decided.first), 0) as first,
           coalesce(touched.kinds, 0) as touches, coalesce(a.chargeable_minor, 0) as price,
           coalesce(a.payable_minor, 0) as payout
    from placed p
    cross join lateral (
        select bool_or(d.outcome = 'nurturing') as nurtured,
               (array_agg(d.outcome order by d.made_at, d.id))[1] as first
        from decision d where d.lead_id = p.id and d.made_at >= p.received_at - interval '1 hour'
    ) decided
    left join lateral (
        select bit_or(1 << coalesce(array_position(array['page_view', 'form', 'link_click', 'email_open', 'email_reply',
                   'call', 'chat', 'appointment', 'purchase', 'inquiry'], h.kind) - 1, 10)) as kinds
        from touch h where h.lead_id = p.id and h.recorded_at <= coalesce(p.qualified_at, 'infinity')
    ) touched on decided.nurtured or decided.first = 'rejected'
    left join lateral (
        select chargeable_minor, payable_minor from assignment where lead_id = p.id and state = 'delivered' limit 1
    ) a on decided.nurtured or decided.first = 'rejected'
    where decided.nurtured or decided.first = 'rejected'
), packed as (
    select at_hour, string_agg(int4send(place::int), ''::bytea order by place) as lead,
           string_agg(int2send(first::int2), ''::bytea order by place) as first,
           string_agg(int2send((nurtured::int)::int2), ''::bytea order by place) as nurtured,
           string_agg(int2send(case when state <> 'expired' then 0 when reason = 'given_back' then 1
               when reason in ('erased', 'revoked') then 2 else 0 end::int2), ''::bytea order by place) as ended,
           string_agg(float4send(coalesce(extract(epoch from qualified_at - received_at), 'NaN')::float4), ''::bytea
               order by place) as promoted,
           string_agg(int2send(touches::int2), ''::bytea order by place) as touches,
           string_agg(int8send(price), ''::bytea order by place) as price,
           string_agg(int8send(payout), ''::bytea order by place) as payout
    from unready group by at_hour
)
select c.field, p.at_hour, c.data
from packed p
cross join lateral (values
    ('unready_lead', lead), ('unready_first', first), ('unready_nurtured', nurtured), ('unready_end', ended),
    ('unready_promoted', promoted), ('unready_touches', touches), ('unready_price', price), ('unready_payout', payout)
) as c (field, data)
$$;


-- Deletion requests (migration 0075) ----------------------------------------------------------------------------------

-- `keys` are the person's keyed hashes, as in person_key. `contact` is sealed, and empty once the request has ended. A
-- request by lead id has no contact. `erased`: all leads of the person are erased, and a business that was shown one has
-- time to acknowledge its notice.
create table deletion_request (
    id uuid not null,
    mode text not null,
    received_at timestamptz not null,
    deadline_at timestamptz not null,
    requested_by text not null,
    keys bytea[] not null,
    lead_id uuid,
    contact bytea,
    suppresses bool not null,
    state text not null default 'open',
    refusal text,
    erased_at timestamptz,
    ended_at timestamptz,
    has_contact bool generated always as ((contact is not null)) stored,
    constraint deletion_request_pkey primary key (id),
    constraint deletion_request_lead_id_fkey foreign key (lead_id) references lead(id),
    constraint deletion_request_carried_out check ((erased_at is not null) = (state in ('erased', 'done'))),
    constraint deletion_request_contact check (contact is null or ended_at is null),
    constraint deletion_request_deadline check (deadline_at > received_at and deadline_at <= (received_at +
        '90 days'::interval)),
    constraint deletion_request_ended check ((ended_at is not null) = (state in ('done', 'refused'))),
    constraint deletion_request_mode check (mode in ('live', 'test')),
    constraint deletion_request_person check (cardinality(keys) > 0 or lead_id is not null),
    constraint deletion_request_refusal check (refusal in ('not_found', 'identity_not_proved', 'legal_duty_to_keep')),
    constraint deletion_request_refused check ((refusal is not null) = (state = 'refused')),
    constraint deletion_request_state check (state in ('open', 'erased', 'done', 'refused'))
);
create index deletion_request_late on deletion_request (deadline_at) where (ended_at is null);
create index deletion_request_queue on deletion_request (((ended_at is not null)), deadline_at, id);
create trigger deletion_request_is_kept before delete on deletion_request for each row execute function refuse_change();
create trigger deletion_request_is_never_emptied before truncate on deletion_request for each statement execute
    function refuse_change();
create trigger deletion_request_moves before update on deletion_request for each row execute function check_deletion();
grant insert, select, update (contact, ended_at, erased_at, refusal, state) on deletion_request to marketplace_api;
grant select (deadline_at, ended_at, has_contact, id, mode, state) on deletion_request to marketplace_reports;
grant select (ended_at, id, state), update (contact, ended_at, state) on deletion_request to marketplace_worker;

-- The leads of the person, named before they are erased, so that carrying out a request can be continued.
create table deletion_lead (
    request_id uuid not null,
    lead_id uuid not null,
    constraint deletion_lead_pkey primary key (request_id, lead_id),
    constraint deletion_lead_lead_id_fkey foreign key (lead_id) references lead(id),
    constraint deletion_lead_request_id_fkey foreign key (request_id) references deletion_request(id)
);
create index deletion_lead_of_lead on deletion_lead (lead_id);
create trigger deletion_lead_is_kept before delete or update on deletion_lead for each row execute function
    refuse_change();
create trigger deletion_lead_is_never_emptied before truncate on deletion_lead for each statement execute function
    refuse_change();
create trigger deletion_lead_open before insert on deletion_lead for each row execute function check_deletion_lead();
grant insert, select on deletion_lead to marketplace_api;
grant select on deletion_lead to marketplace_reports, marketplace_worker;

-- What a proof lists is complete: no lead is added to a request that is not open any more.
create function check_deletion_lead() returns trigger language plpgsql as $$
begin
    if (select state from deletion_request where id = new.request_id for share) <> 'open' then
        raise exception 'leads are named while the request is open'
            using errcode = 'check_violation', constraint = 'deletion_lead_open';
    end if;
    return new;
end $$;

-- A request is erased when each of its leads is, and done when no notice of these erasures waits any more. Nothing is
-- refused after its first lead was named, and a request that has ended stays as it is.
create function check_deletion() returns trigger language plpgsql as $$
begin
    if (old.state, new.state) not in (('open', 'erased'), ('open', 'refused'), ('erased', 'done')) then
        raise exception 'a deletion request does not go from % to %', old.state, new.state
            using errcode = 'check_violation', constraint = 'deletion_request_moves';
    end if;
    if new.state = 'erased' and exists (
        select from deletion_lead d
        where d.request_id = new.id and not exists (select from erasure e where e.lead_id = d.lead_id)
    ) then
        raise exception 'a lead of this request is not erased'
            using errcode = 'check_violation', constraint = 'deletion_request_erased';
    end if;
    if new.state = 'refused' and exists (select from deletion_lead where request_id = new.id) then
        raise exception 'this request has begun to be carried out'
            using errcode = 'check_violation', constraint = 'deletion_request_begun';
    end if;
    if new.state = 'done' and exists (
        select from deletion_lead d join erasure e on e.lead_id = d.lead_id join notice n on n.id = e.notice_id
        where d.request_id = new.id and n.state = 'due'
    ) then
        raise exception 'a business has time to acknowledge this erasure'
            using errcode = 'check_violation', constraint = 'deletion_request_announced';
    end if;
    return new;
end $$;


-- Corrected area (migration 0076) -------------------------------------------------------------------------------------

-- What reports read of the facts of a lead that touches or corrections have revised, as routing/journey.py folds them: one row
-- for each lead with a revision, written again with each one. `budget_minor` is null if no budget is known.
create table revised_facts (
    lead_id uuid not null,
    place jsonb not null,
    budget_minor bigint,
    committed_by xid8 not null default pg_current_xact_id(),
    constraint revised_facts_pkey primary key (lead_id),
    constraint revised_facts_lead_id_fkey foreign key (lead_id) references lead(id)
);
create index revised_facts_committed on revised_facts (committed_by);
grant select on revised_facts to marketplace_api, marketplace_reports, marketplace_worker;


-- Payout shares (migration 0079) --------------------------------------------------------------------------------------

-- An inquiry that joined a lead before the lead was exposed: its provider takes part in the payout. `revision` is that of
-- the lead with the inquiry's answers, and so gives the order of the claims.
create table payout_claim (
    inquiry_id uuid not null,
    lead_id uuid not null,
    provider_id uuid not null,
    vertical_id uuid not null,
    mode text not null,
    revision int not null,
    constraint payout_claim_pkey primary key (inquiry_id),
    constraint payout_claim_of_lead unique (lead_id, provider_id, inquiry_id),
    constraint payout_claim_inquiry foreign key (inquiry_id, provider_id, vertical_id, mode) references inquiry(id,
        provider_id, vertical_id, mode),
    constraint payout_claim_lead_id_fkey foreign key (lead_id) references lead(id),
    constraint payout_claim_revision check (revision > 0)
);
create trigger payout_claim_in_time before insert on payout_claim for each row execute function assert_claim();
create trigger payout_claim_is_final before delete or update on payout_claim for each row execute function
    refuse_change();
create trigger payout_claim_is_kept before truncate on payout_claim for each statement execute function refuse_change();
grant insert (inquiry_id, lead_id, mode, provider_id, revision, vertical_id), select on payout_claim to marketplace_api;
grant select on payout_claim to marketplace_reports, marketplace_worker;

-- The writer of a claim holds the lock of the lead, which an exposure takes as well: so the check is exact.
create function assert_claim() returns trigger language plpgsql as $$
begin
    if not exists (select from inquiry where id = new.inquiry_id and joined_lead_id = new.lead_id) then
        raise exception 'only an inquiry that joined a lead gives a claim to its payout'
            using errcode = 'check_violation', constraint = 'payout_claim_joined';
    end if;
    if exists (select from exposure where lead_id = new.lead_id) then
        raise exception 'an inquiry that joins a lead after its exposure gives no claim to its payout'
            using errcode = 'check_violation', constraint = 'payout_claim_in_time';
    end if;
    return new;
end $$;

-- A part of an agreed payout, for one provider. Rows exist only where the payout is not paid as a whole to the provider of
-- the lead. `span` are the minor units of the payout that the share consists of: spans lie within the payout and do not
-- overlap, so that the shares never exceed it, and at the commit they fill it. The provider of the lead needs no claim.
create table payout_share (
    assignment_id uuid not null,
    share smallint not null,
    provider_id uuid not null,
    lead_id uuid not null,
    lead_provider_id uuid not null,
    inquiry_id uuid,
    currency character(3) not null,
    payout_minor bigint not null,
    span int8range not null,
    amount_minor bigint generated always as ((upper(span) - lower(span))) stored,
    constraint payout_share_pkey primary key (assignment_id, share),
    constraint payout_share_once unique (assignment_id, provider_id),
    constraint payout_share_paid_out unique (assignment_id, share, provider_id, currency, amount_minor),
    constraint payout_share_apart exclude using gist (assignment_id with =, span with &&),
    constraint payout_share_agreed foreign key (assignment_id, lead_provider_id, currency, payout_minor) references
        assignment(id, provider_id, currency, payable_minor),
    constraint payout_share_claim foreign key (lead_id, provider_id, inquiry_id) references payout_claim(lead_id,
        provider_id, inquiry_id),
    constraint payout_share_exposed foreign key (lead_id, assignment_id) references exposure(lead_id, assignment_id),
    constraint payout_share_claimed check ((inquiry_id is null) = (provider_id = lead_provider_id)),
    constraint payout_share_first check ((share = 0) = (lower(span) = 0)),
    constraint payout_share_number check (share >= 0),
    constraint payout_share_within check (not isempty(span) and span <@ int8range(0::bigint, payout_minor))
);
create unique index payout_share_of_inquiry on payout_share (inquiry_id) where (inquiry_id is not null);
create constraint trigger payout_share_fills after insert on payout_share deferrable initially deferred for each row
    execute function assert_shares_fill();
create trigger payout_share_is_final before delete or update on payout_share for each row execute function
    refuse_change();
create trigger payout_share_is_kept before truncate on payout_share for each statement execute function refuse_change();
grant select on payout_share to marketplace_api, marketplace_reports;
grant insert (assignment_id, currency, inquiry_id, lead_id, lead_provider_id, payout_minor, provider_id, share, span)
    on payout_share to marketplace_feeder;
grant insert (assignment_id, currency, inquiry_id, lead_id, lead_provider_id, payout_minor, provider_id, share, span),
    select on payout_share to marketplace_worker;

create function assert_shares_fill() returns trigger language plpgsql security definer set search_path to 'pg_catalog',
    'public' as $$
begin
    if new.payout_minor <> (
        select sum(amount_minor) from public.payout_share where assignment_id = new.assignment_id
    ) then
        raise exception 'the shares of a payout add up to the payout'
            using errcode = 'check_violation', constraint = 'payout_share_fills';
    end if;
    return null;
end $$;
revoke all on function assert_shares_fill from public;

create function assert_shares_move() returns trigger language plpgsql security definer set search_path to 'pg_catalog',
    'public' as $$
declare
    moved bigint;
begin
    if new.kind = 'payout' then
        select count(share) into moved from public.transfer
        where assignment_id = new.assignment_id and kind = 'payout';
    else
        select count(share) into moved from public.transfer
        where assignment_id = new.assignment_id and kind = 'claw_back';
    end if;
    if moved <> (select count(*) from public.payout_share where assignment_id = new.assignment_id) then
        raise exception 'the shares of a payout are paid and clawed back together'
            using errcode = 'check_violation', constraint = 'transfer_every_share';
    end if;
    return null;
end $$;
revoke all on function assert_shares_move from public;


-- List sources (migration 0082) ---------------------------------------------------------------------------------------

-- `header_value` is sealed; `set_at` is the time of the present settings. While a process fetches, `leased_until` is ahead. `version` is the version of the list that this
-- source made last, with what its server said of that file; `failures` counts those since. A file with less than half of the
-- list waits for an operator: `smaller_rows` is its number of rows, and `confirmed_rows` the number that was confirmed.
create table list_source (
    list_id uuid not null,
    url text not null,
    format text not null,
    schedule text not null,
    country text not null,
    header_name text,
    header_value bytea,
    set_at timestamptz not null,
    due_at timestamptz not null,
    leased_until timestamptz,
    version int,
    etag text,
    last_modified text,
    content_sha256 bytea,
    checked_at timestamptz,
    failures int not null default 0,
    failure text,
    failed_at timestamptz,
    smaller_rows int,
    confirmed_rows int,
    constraint list_source_pkey primary key (list_id),
    constraint list_source_list_id_fkey foreign key (list_id) references contact_list(id),
    constraint list_source_confirmed check (confirmed_rows > 0),
    constraint list_source_content check (octet_length(content_sha256) = 32),
    constraint list_source_country check (country ~ '^[A-Z]{2}$'),
    constraint list_source_failing check ((failures > 0) = (failure is not null) and (failures > 0) = (failed_at is not
        null)),
    constraint list_source_failures check (failures >= 0),
    constraint list_source_format check (format in ('csv', 'csv_gzip')),
    constraint list_source_header check ((header_name is null) = (header_value is null)),
    constraint list_source_published check ((version is null) = (content_sha256 is null)),
    constraint list_source_question check ((smaller_rows is not null) = (not failure is distinct from 'much_smaller')),
    constraint list_source_schedule check (schedule in ('hourly', 'daily', 'weekly')),
    constraint list_source_smaller check (smaller_rows > 0),
    constraint list_source_url check (url ~ '^https?://')
);
grant delete, insert, select, update (checked_at, confirmed_rows, content_sha256, country, due_at, etag, failed_at,
    failure, failures, format, header_name, header_value, last_modified, leased_until, schedule, set_at, smaller_rows,
    url, version) on list_source to marketplace_api;
grant select (due_at, leased_until, list_id), update (leased_until) on list_source to marketplace_worker;


-- Corrected certificates (migration 0084) -----------------------------------------------------------------------------

-- Whether the contact was corrected after a revision, in the field that a certificate compares: the phone number, or where
-- its service said nothing about one, the address too.
create function contact_corrected(of_lead uuid, after_revision int, compares_phone bool) returns bool language sql
    stable set search_path to 'pg_catalog', 'public' as $$
select exists (
        select from public.correction
        where lead_id = of_lead and revision > coalesce(after_revision, 0)
          and contact && case when compares_phone then array['phone'] else array['phone', 'email'] end)
$$;

-- As before, and verified only while the contact is the one that was compared.
create function standing_of_certificates(of_lead uuid) returns text language sql stable set search_path to
    'pg_catalog', 'public' as $$
select case when bool_or(state = 'pending') then 'pending'
                when bool_and(state = 'verified'
                    and not contact_corrected(lead_id, compared_revision, phone_matches is not null)) then 'verified'
                else 'failed' end
    from public.certificate where lead_id = of_lead
    having count(*) > 0
$$;


-- Board (migration 0087) ----------------------------------------------------------------------------------------------

-- Time at which a lead came into the stage of its latest disposition, which is of this kind and stage: that of the first one
-- after the last of another stage. Null without a disposition.
create function entered_stage_at(of_assignment uuid, of_kind text, of_stage uuid) returns timestamptz language sql
    stable as $$
select min(d.happened_at) from disposition d
    where d.assignment_id = of_assignment and d.undone_at is null and d.happened_at > coalesce((
        select max(o.happened_at) from disposition o
        where o.assignment_id = of_assignment and o.undone_at is null
            and (o.kind, o.stage_id) is distinct from (of_kind, of_stage)), '-infinity')
$$;
revoke all on function entered_stage_at from public;
grant execute on function entered_stage_at to marketplace_api;


-- Push subscriptions (migration 0089) ---------------------------------------------------------------------------------

-- `url` is at the push service of the browser's vendor and belongs to one browser; whoever signs in there last has it. `keys` is
-- sealed: the browser's public key and its secret, by which messages are encrypted for it alone.
create table push_subscription (
    id uuid not null,
    member_id uuid not null,
    url text not null,
    url_sha256 bytea not null,
    keys bytea not null,
    device text not null,
    made_at timestamptz not null,
    constraint push_subscription_pkey primary key (id),
    constraint push_subscription_once unique (url_sha256),
    constraint push_subscription_member_id_fkey foreign key (member_id) references member(id),
    constraint push_subscription_url check (length(url) <= 2000)
);
create index push_subscription_of_member on push_subscription (member_id, made_at);
grant delete, insert, select on push_subscription to marketplace_api;
grant delete, select on push_subscription to marketplace_worker;


-- Mail (migration 0091) -----------------------------------------------------------------------------------------------

-- Where the leads of an endpoint of kind email are sent. A message of mode `full` has the contact; one of mode `link` has a
-- link to the lead in the portal, and no contact data.
create table mail_target (
    endpoint_id uuid not null,
    business_id uuid not null,
    address text not null,
    mode text not null,
    with_adf bool not null default false,
    constraint mail_target_pkey primary key (endpoint_id),
    constraint mail_target_endpoint foreign key (endpoint_id, business_id) references endpoint(id, business_id),
    constraint mail_target_address check (length(address) >= 3 and length(address) <= 320),
    constraint mail_target_adf check (mode = 'full' or not with_adf),
    constraint mail_target_mode check (mode in ('link', 'full'))
);
grant insert, select, update (address, mode, with_adf) on mail_target to marketplace_api;
grant select on mail_target to marketplace_reports, marketplace_worker;

-- Messages without contact data that wait, were sent or were given up. Rows are the queue. `occasion` says what a message
-- is about, so that nobody is told twice; `letter` is its text, which is deleted once it has been sent.
create table outgoing_mail (
    id uuid not null,
    kind text not null,
    business_id uuid,
    endpoint_id uuid,
    assignment_id uuid,
    recipient text not null,
    occasion text not null,
    letter jsonb,
    state text not null default 'due',
    due_at timestamptz,
    give_up_at timestamptz not null,
    attempts int not null default 0,
    result text,
    made_at timestamptz not null,
    sent_at timestamptz,
    constraint outgoing_mail_pkey primary key (id),
    constraint outgoing_mail_once unique (kind, recipient, occasion),
    constraint outgoing_mail_assignment_id_fkey foreign key (assignment_id) references assignment(id),
    constraint outgoing_mail_business_id_fkey foreign key (business_id) references business(id),
    constraint outgoing_mail_endpoint_id_fkey foreign key (endpoint_id) references endpoint(id),
    constraint outgoing_mail_due check ((state = 'due') = (due_at is not null) and (state = 'due') = (letter is not
        null)),
    constraint outgoing_mail_kind check (kind in ('confirmation', 'lead', 'test', 'alert')),
    constraint outgoing_mail_sent check ((state = 'sent') = (sent_at is not null)),
    constraint outgoing_mail_state check (state in ('due', 'sent', 'given_up'))
);
create index outgoing_mail_of_assignment on outgoing_mail (assignment_id) where (assignment_id is not null);
create index outgoing_mail_of_business on outgoing_mail (business_id, made_at);
create index outgoing_mail_waiting on outgoing_mail (due_at) where (due_at is not null);
grant insert, select on outgoing_mail to marketplace_api;
grant select on outgoing_mail to marketplace_reports;
grant delete, insert, select, update (attempts, due_at, letter, result, sent_at, state) on outgoing_mail to
    marketplace_worker;

-- Messages that came back: one row per bounce. Of the bounce itself only its status code is kept, such as 5.1.1.
create table mail_bounce (
    id uuid not null,
    digest bytea not null,
    business_id uuid,
    endpoint_id uuid,
    assignment_id uuid,
    mail_id uuid,
    status text not null,
    received_at timestamptz not null,
    constraint mail_bounce_pkey primary key (id),
    constraint mail_bounce_once unique (digest),
    constraint mail_bounce_assignment_id_fkey foreign key (assignment_id) references assignment(id),
    constraint mail_bounce_business_id_fkey foreign key (business_id) references business(id),
    constraint mail_bounce_endpoint_id_fkey foreign key (endpoint_id) references endpoint(id),
    constraint mail_bounce_mail_id_fkey foreign key (mail_id) references outgoing_mail(id),
    constraint mail_bounce_of_one check ((assignment_id is null) <> (mail_id is null)),
    constraint mail_bounce_status check (status ~ '^[245]\.[0-9]{1,3}\.[0-9]{1,3}$')
);
create index mail_bounce_of_assignment on mail_bounce (assignment_id) where (assignment_id is not null);
create index mail_bounce_of_business on mail_bounce (business_id, received_at);
grant select on mail_bounce to marketplace_api, marketplace_reports;
grant insert, select on mail_bounce to marketplace_worker;


-- Response contracts (migration 0094) ---------------------------------------------------------------------------------

-- Answers that nobody decided about: those that the contract does not cover, and accepted ones of a shape not seen before.
-- One open alarm of a kind at an endpoint counts them. The excerpt is of the last one, masked, and goes with its person.
create table answer_alarm (
    id uuid not null,
    endpoint_id uuid not null,
    business_id uuid not null,
    kind text not null,
    opened_at timestamptz not null,
    last_at timestamptz not null,
    answers int not null default 1,
    lead_id uuid not null,
    status int not null,
    content_type text not null,
    excerpt text,
    closed_at timestamptz,
    closed_for text,
    constraint answer_alarm_pkey primary key (id),
    constraint answer_alarm_endpoint foreign key (endpoint_id, business_id) references endpoint(id, business_id),
    constraint answer_alarm_lead_id_fkey foreign key (lead_id) references lead(id),
    constraint answer_alarm_answers check (answers > 0),
    constraint answer_alarm_closed check ((closed_at is null) = (closed_for is null)),
    constraint answer_alarm_closed_for check (closed_for in ('contract', 'understood', 'seen')),
    constraint answer_alarm_kind check (kind in ('not_understood', 'new_shape'))
);
create index answer_alarm_of_business on answer_alarm (business_id) where (closed_at is null);
create index answer_alarm_of_lead on answer_alarm (lead_id) where (excerpt is not null);
create unique index answer_alarm_open on answer_alarm (endpoint_id, kind) where (closed_at is null);
grant select, update (closed_at, closed_for) on answer_alarm to marketplace_api;
grant select (excerpt, lead_id), update (excerpt) on answer_alarm to marketplace_eraser;
grant select on answer_alarm to marketplace_reports;
grant insert, select, update (answers, closed_at, closed_for, content_type, excerpt, last_at, lead_id, status) on
    answer_alarm to marketplace_worker;


-- Payments to providers (migration 0097) ------------------------------------------------------------------------------

-- What a provider is owed has no balance row that a CHECK could guard. The provider's row is locked, so that two payments are
-- booked one after the other, and the sum is read after that: it includes the payment itself. Claw-backs may come later and
-- leave the provider owing; then nothing more is paid until payouts have made up for them.
create function refuse_unowed_payment() returns trigger language plpgsql as $$
begin
    perform from provider where id = new.provider_id for no key update;
    if not found then
        raise foreign_key_violation using message = 'there is no such provider',
            table = 'transfer', constraint = 'transfer_of_provider';
    end if;
    if (select sum(amount_minor) < 0 from entry
        where of_provider = new.provider_id and account = 'payable' and currency = new.currency) then
        raise check_violation using message = 'more is paid than the provider is owed',
            table = 'transfer', constraint = 'transfer_owed';
    end if;
    return null;
end
$$;
