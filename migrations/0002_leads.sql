-- A lead's life: the inquiry as received, the lead that walks, its sealed contact, the claim of one business, the exposure.
-- The promises of exclusivity are constraints here. Code may be wrong; these rows may not.

-- One submission as received; never changed. `facts` is what rules read and holds no contact data.
create table inquiry (
    id uuid primary key,
    provider_id uuid not null references provider (id),
    vertical_id uuid not null references vertical (id),
    mode text not null constraint inquiry_mode check (mode in ('live', 'test')),
    provider_reference text,
    idempotency_key text,
    request_sha256 bytea not null,
    received_as text not null
        constraint inquiry_received_as check (received_as in ('received', 'duplicate', 'suppressed')),
    facts jsonb not null,
    consent_sha256 bytea not null,
    consent_given_at timestamptz not null,
    submitted_at timestamptz not null,
    received_at timestamptz not null,
    constraint inquiry_named check (provider_reference is not null or idempotency_key is not null),
    constraint inquiry_provider_reference unique (provider_id, mode, provider_reference),
    constraint inquiry_idempotency_key unique (provider_id, mode, idempotency_key),
    constraint inquiry_whose unique (id, provider_id, vertical_id, mode)
);
create trigger inquiry_is_final before update or delete on inquiry for each row execute function refuse_change();
create trigger inquiry_is_kept before truncate on inquiry for each statement execute function refuse_change();

-- `due_at` is the work queue: a lead that waits for us always has a time at which somebody looks at it again.
-- `seen` follows from the state and is what an exposure row leans on.
create table lead (
    id uuid primary key,
    provider_id uuid not null,
    vertical_id uuid not null,
    mode text not null,
    state text not null constraint lead_state check (state in (
        'received', 'rejected', 'duplicate', 'suppressed', 'nurturing', 'expired', 'prospect', 'unsold',
        'held', 'exposed', 'delivered', 'refused', 'lapsed', 'returned')),
    reason text,
    due_at timestamptz,
    received_at timestamptz not null,
    qualified_at timestamptz,
    settled_at timestamptz,
    seen boolean not null generated always as (
        state in ('exposed', 'delivered', 'refused', 'lapsed', 'returned')) stored,
    constraint lead_due check ((due_at is not null) = (state in ('received', 'nurturing', 'prospect'))),
    constraint lead_seen unique (id, seen),
    constraint lead_whose unique (id, provider_id, mode),
    constraint lead_inquiry foreign key (id, provider_id, vertical_id, mode)
        references inquiry (id, provider_id, vertical_id, mode)
) with (fillfactor = 80);
-- Neither index below names the state, so that a move that leaves their columns alone writes no index entry (a HOT update).
create index lead_due_soon on lead (due_at) where due_at is not null;
create index lead_by_provider on lead (provider_id, id);

-- The moves of DESIGN's life table, asserted a second time: routing/lifecycle.py says the same and a test compares the two.
create function assert_lead_move() returns trigger language plpgsql as $$
begin
    if (old.state, new.state) not in (
        ('received', 'rejected'), ('received', 'nurturing'), ('received', 'prospect'), ('received', 'held'),
        ('received', 'unsold'), ('nurturing', 'prospect'), ('nurturing', 'held'), ('nurturing', 'unsold'),
        ('nurturing', 'rejected'), ('nurturing', 'expired'),
        ('prospect', 'held'), ('prospect', 'unsold'), ('prospect', 'nurturing'),
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
create trigger lead_beginning before insert on lead for each row execute function assert_lead_beginning();
create trigger lead_move before update of state on lead
    for each row when (old.state is distinct from new.state) execute function assert_lead_move();

-- Contact data, sealed with AES-256-GCM under a data key of its own. Destroying the key is erasing the person.
create table contact (
    lead_id uuid primary key references lead (id),
    sealed bytea not null
);
create table data_key (
    lead_id uuid primary key references lead (id),
    wrapped bytea not null,
    master_key_id text not null
);

-- The same person is not sold twice in one vertical inside the window. `key` is a keyed hash of phone or e-mail.
create table person_window (
    lead_id uuid not null references lead (id) deferrable initially deferred,
    key bytea not null,
    vertical_id uuid not null,
    during tstzrange not null,
    primary key (lead_id, key),
    constraint person_window_once exclude using gist (key with =, vertical_id with =, during with &&)
);

create table suppression (
    key bytea primary key,
    reason text not null,
    source text not null,
    created_at timestamptz not null default clock_timestamp()
);

-- The exclusive claim of one business on one lead; money follows it.
-- `live` and `seen_lead_id` follow from the state and are what the foreign keys to and from the exposure lean on;
-- `chargeable_minor` and `payable_minor` are what a transfer may move, and nothing in a rehearsal.
create table assignment (
    id uuid primary key,
    lead_id uuid not null,
    business_id uuid not null,
    subscription_id uuid not null,
    subscription_version int not null,
    endpoint_id uuid not null,
    provider_id uuid not null,
    mode text not null,
    state text not null default 'held' constraint assignment_state check (state in (
        'held', 'released', 'exposed', 'delivered', 'refused', 'lapsed', 'returned')),
    reason text,
    price_minor bigint not null constraint assignment_price check (price_minor > 0),
    payout_minor bigint not null constraint assignment_payout check (payout_minor between 0 and price_minor),
    currency char(3) not null,
    attempts int not null default 0,
    due_at timestamptz,
    awarded_at timestamptz not null,
    hold_until timestamptz not null,
    exposed_at timestamptz,
    evidence_until timestamptz,
    evidence text constraint assignment_evidence check (evidence in ('answer', 'fetch', 'reveal', 'acknowledgement')),
    settled_at timestamptz,
    hour_at timestamptz not null,
    day_at timestamptz not null,
    week_at timestamptz not null,
    month_at timestamptz not null,
    live boolean not null generated always as (state <> 'released') stored,
    chargeable_minor bigint generated always as (case when mode = 'live' then price_minor end) stored,
    payable_minor bigint generated always as (case when mode = 'live' then payout_minor end) stored,
    seen_lead_id uuid generated always as (
        case when state in ('exposed', 'delivered', 'refused', 'lapsed', 'returned') then lead_id end) stored,
    constraint assignment_due check ((due_at is not null) = (state in ('held', 'exposed'))),
    constraint assignment_evidenced check ((evidence is not null) = (state in ('delivered', 'returned'))),
    constraint assignment_exposed_at check (
        (exposed_at is not null and evidence_until is not null) = (state not in ('held', 'released'))),
    constraint assignment_live unique (id, lead_id, business_id, live),
    constraint assignment_charged unique (id, business_id, currency, chargeable_minor),
    constraint assignment_paid_out unique (id, provider_id, currency, payable_minor),
    -- one lead, one business, one endpoint, one mode: nothing here can belong to somebody else
    constraint assignment_lead foreign key (lead_id, provider_id, mode) references lead (id, provider_id, mode),
    constraint assignment_endpoint foreign key (endpoint_id, business_id) references endpoint (id, business_id),
    constraint assignment_subscription foreign key (subscription_id, business_id, mode)
        references subscription (id, business_id, mode),
    constraint assignment_terms foreign key (subscription_id, subscription_version)
        references subscription_version (subscription_id, version)
) with (fillfactor = 80);
-- Terminal states are included on purpose: even after a lapse nobody else can be given the lead.
create unique index assignment_one_live on assignment (lead_id) where live;
create index assignment_by_lead on assignment (lead_id);
create index assignment_due_soon on assignment (due_at) where due_at is not null;
create index assignment_by_business on assignment (business_id, id);
create index assignment_by_subscription on assignment (subscription_id, awarded_at);

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
create trigger assignment_move before update of state on assignment
    for each row when (old.state is distinct from new.state) execute function assert_assignment_move();

-- Written and committed before any contact byte may leave. One per lead, for ever.
--  * its lead must be in a seen state, and no seen lead can go back while this row exists (exposure_lead);
--  * its assignment must be live, and no exposed assignment can be released (exposure_assignment);
--  * an assignment beyond held must have this row (assignment_exposure).
create table exposure (
    lead_id uuid primary key,
    assignment_id uuid not null,
    business_id uuid not null,
    live boolean not null default true constraint exposure_live check (live),
    seen boolean not null default true constraint exposure_seen check (seen),
    channel text not null constraint exposure_channel check (channel in ('push', 'fetch', 'email', 'feed', 'portal')),
    endpoint_id uuid not null,
    url_sha256 bytea not null,
    address text not null,
    tls_sha256 bytea,
    attempt_no int not null,
    position bigint generated always as identity,
    committed_by xid8 not null default pg_current_xact_id(),
    exposed_at timestamptz not null default clock_timestamp(),
    constraint exposure_of_assignment unique (lead_id, assignment_id),
    constraint exposure_lead foreign key (lead_id, seen) references lead (id, seen),
    constraint exposure_assignment foreign key (assignment_id, lead_id, business_id, live)
        references assignment (id, lead_id, business_id, live)
);
alter table assignment add constraint assignment_exposure
    foreign key (seen_lead_id, id) references exposure (lead_id, assignment_id);
create trigger exposure_is_final before update or delete on exposure for each row execute function refuse_change();
create trigger exposure_is_kept before truncate on exposure for each statement execute function refuse_change();

-- The only door to contact data: an exposure to this very business, committed by an earlier transaction.
create function read_contact(of_lead uuid, for_business uuid)
    returns table (sealed bytea, wrapped bytea, master_key_id text)
    language plpgsql security definer set search_path = pg_catalog, public as $$
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
        select c.sealed, k.wrapped, k.master_key_id
        from public.contact c join public.data_key k on k.lead_id = c.lead_id
        where c.lead_id = of_lead;
end $$;
