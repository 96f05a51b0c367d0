-- What was decided, tried, done and changed: append only, partitioned by month from the start.

create table decision (
    id uuid not null,
    lead_id uuid not null,
    made_at timestamptz not null,
    outcome text not null constraint decision_outcome check (outcome in (
        'rejected', 'nurturing', 'expired', 'held', 'unsold', 'waiting')),
    reason text,
    vertical_version int not null,
    catalog_version bigint not null,
    strategy text,
    verdict jsonb not null,
    candidates jsonb not null default '[]',
    left_out int not null default 0,
    subscription_id uuid,
    assignment_id uuid,
    primary key (id, made_at)
) partition by range (made_at);
create index decision_by_lead on decision (lead_id, made_at);

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
    dns_ms float8,
    connect_ms float8,
    tls_ms float8,
    expose_ms float8,
    first_byte_ms float8,
    total_ms float8 not null,
    address text,
    body_sha256 bytea,
    answer_excerpt text,
    primary key (id, started_at)
) partition by range (started_at);
create index attempt_by_assignment on attempt (assignment_id, started_at);
create index attempt_by_business on attempt (business_id, started_at);

create table touch (
    id uuid not null,
    lead_id uuid not null,
    kind text not null,
    at timestamptz not null,
    detail text not null default '',
    recorded_at timestamptz not null,
    primary key (id, recorded_at)
) partition by range (recorded_at);
create index touch_by_lead on touch (lead_id, recorded_at);

create table audit (
    id uuid not null,
    at timestamptz not null,
    actor text not null,
    action text not null,
    object text not null,
    detail jsonb not null default '{}',
    primary key (id, at)
) partition by range (at);
create index audit_by_object on audit (object, at);

create table decision_other partition of decision default;
create table attempt_other partition of attempt default;
create table touch_other partition of touch default;
create table audit_other partition of audit default;

-- Makes the monthly partitions from one month before `around` to `ahead` months after it; safe to repeat.
create function make_partitions(around timestamptz, ahead int) returns void language plpgsql security definer
    set search_path = pg_catalog, public as $$
declare
    parent text;
    month timestamptz;
begin
    perform pg_advisory_xact_lock(hashtext('marketplace.make_partitions'));
    foreach parent in array array['decision', 'attempt', 'touch', 'audit'] loop
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
select make_partitions(clock_timestamp(), 3);

create trigger decision_is_final before update or delete on decision for each row execute function refuse_change();
create trigger audit_is_final before update or delete on audit for each row execute function refuse_change();
