-- Do exclusive leads pay better than shared ones? What a business bought elsewhere, and what it assumes about it.

-- One file or one call. The rows it refused were given back and are not kept. `records` has of each lead it added what the
-- estimates read of it: since a shared lead never changes, this is written once and read instead of the leads.
create table shared_import (
    id uuid primary key,
    business_id uuid not null references business (id),
    source text not null constraint shared_import_source check (source in ('csv', 'api', 'demo')),
    added int not null check (added >= 0),
    known int not null check (known >= 0),
    refused int not null check (refused >= 0),
    at timestamptz not null,
    currency char(3) not null,
    first_received_at timestamptz,
    last_received_at timestamptz,
    records bytea not null
);
alter table shared_import alter column records set storage external;  -- read whole, and often
create index shared_import_by_business on shared_import (business_id, id);

-- A lead that was sold to others too, as its buyer tells it. Never changed: a lead sent again is known already. So what
-- became of it is known up to `observed_until`, and no further: one still open then is unfinished, not lost.
create table shared_lead (
    id uuid primary key,
    business_id uuid not null references business (id),
    import_id uuid not null references shared_import (id),
    vendor text not null,
    external_id text not null,
    vertical_id uuid references vertical (id),
    postal_code text,
    received_at timestamptz not null,
    observed_until timestamptz not null,
    cost_minor bigint not null constraint shared_lead_cost check (cost_minor >= 0),
    currency char(3) not null,
    contacted_at timestamptz,
    qualified boolean,
    won_at timestamptz,
    won_minor bigint constraint shared_lead_value check (won_minor >= 0),
    lost_at timestamptz,
    constraint shared_lead_once unique (business_id, vendor, external_id),
    constraint shared_lead_won check ((won_at is null) = (won_minor is null)),
    constraint shared_lead_one_end check (won_at is null or lost_at is null),
    constraint shared_lead_in_order check (
        received_at <= observed_until and coalesce(contacted_at, received_at) between received_at and observed_until
        and coalesce(won_at, lost_at, received_at) between received_at and observed_until),
    -- money is compared in the currency of the business's wallet
    constraint shared_lead_wallet foreign key (business_id, currency) references wallet (business_id, currency)
);
create index shared_lead_newest on shared_lead (business_id, id);
create trigger shared_lead_is_final before update on shared_lead for each row execute function refuse_change();

-- What is taken to be so where nothing was measured: of a business by itself, or (business_id null) by the operator.
-- Only together do cost and win rate say what a shared lead brings.
create table roi_assumption (
    id uuid primary key,
    business_id uuid references business (id),
    vertical_id uuid references vertical (id),
    currency char(3) not null,
    shared_cost_minor bigint constraint roi_assumption_cost check (shared_cost_minor > 0),
    shared_win_rate float8 constraint roi_assumption_rate check (shared_win_rate > 0 and shared_win_rate <= 1),
    shared_value_minor bigint constraint roi_assumption_value check (shared_value_minor > 0),
    copies numeric constraint roi_assumption_copies check (copies >= 1),
    labour_minor bigint not null default 0 constraint roi_assumption_labour check (labour_minor >= 0),
    source text not null,
    made_at timestamptz not null,
    constraint roi_assumption_whole check ((shared_cost_minor is null) = (shared_win_rate is null)),
    constraint roi_assumption_one unique nulls not distinct (business_id, vertical_id, currency)
);

grant select on shared_import, shared_lead, roi_assumption to marketplace_api, marketplace_worker, marketplace_reports;
grant insert on shared_import, shared_lead, roi_assumption to marketplace_api;
grant update (shared_cost_minor, shared_win_rate, shared_value_minor, copies, labour_minor, source, made_at)
    on roi_assumption to marketplace_api;
