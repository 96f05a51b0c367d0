-- Learned scorecards of a vertical (routing/scorecard.py): what each was trained from, how it did, and which one may rank.

-- The actor of a sign-off is an operator, by a key and not by a check of the code.
alter table member add constraint member_of_kind unique (id, kind);

-- Moves of the state are in marketplace/learning/states.py as well, and a test compares the two. A card never changes what it
-- says: `document` and `evaluation` are those of its training. `shadow_figures` are those on which it was signed off, and
-- `replaces` is the card that ranked before it, which ranks again when it is rolled back.
create table scorecard (
    vertical_id uuid not null references vertical (id),
    version int not null constraint scorecard_version check (version > 0),
    state text not null default 'trained' constraint scorecard_state check (state in (
        'trained', 'shadow', 'ranking', 'suspended', 'retired')),
    document jsonb not null,
    evaluation jsonb not null,
    profile jsonb not null,
    trained_at timestamptz not null,
    trained_by text not null,
    shadow_since timestamptz,
    signed_off_at timestamptz,
    signed_off_by uuid,
    signed_off_kind text generated always as (case when signed_off_by is not null then 'operator' end) stored,
    shadow_leads int constraint scorecard_shadow_leads check (shadow_leads > 0),
    shadow_figures jsonb,
    replaces int,
    suspended_for text,
    primary key (vertical_id, version),
    constraint scorecard_shadowed check (state not in ('shadow', 'ranking', 'suspended') or shadow_since is not null),
    constraint scorecard_signed_off check (
        num_nulls(signed_off_at, signed_off_by, shadow_leads, shadow_figures) in (0, 4)
        and (signed_off_at is not null or state not in ('ranking', 'suspended'))),
    constraint scorecard_suspended check ((state = 'suspended') = (suspended_for is not null)),
    constraint scorecard_operator foreign key (signed_off_by, signed_off_kind) references member (id, kind),
    constraint scorecard_replaced foreign key (vertical_id, replaces) references scorecard (vertical_id, version),
    constraint scorecard_replaces_another check (replaces <> version)
);
create unique index scorecard_one_shadow on scorecard (vertical_id) where state = 'shadow';
-- A suspended card keeps its place until an operator retires or replaces it.
create unique index scorecard_one_ranking on scorecard (vertical_id) where state in ('ranking', 'suspended');

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
create trigger scorecard_beginning before insert on scorecard
    for each row execute function assert_scorecard_beginning();
create trigger scorecard_move before update of state on scorecard
    for each row when (old.state is distinct from new.state) execute function assert_scorecard_move();
create trigger scorecard_is_final
    before delete or update of vertical_id, version, document, evaluation, profile, trained_at, trained_by on scorecard
    for each row execute function refuse_change();

-- The last training of a vertical, begun at `tried_at`, and the sentence by which it was refused, if it was.
create table scorecard_training (
    vertical_id uuid primary key references vertical (id),
    tried_at timestamptz not null,
    leads int not null default 0,
    refusal text
);

-- What the businesses of a vertical did with the leads that they were charged for, counted again each day. `jobs` are wins
-- with a value. The strategy by expected value reads it (routing/expectation.py).
create table business_sales (
    vertical_id uuid not null references vertical (id),
    business_id uuid not null references business (id),
    leads int not null,
    returned int not null,
    jobs int not null,
    jobs_minor bigint not null,
    counted_at timestamptz not null,
    primary key (vertical_id, business_id),
    constraint business_sales_counted check (
        leads >= 0 and returned between 0 and leads and jobs between 0 and leads and jobs_minor >= 0)
);

-- A card that begins or ends to be computed, and new counts, are changes of the rules of their vertical.
create function record_vertical_change() returns trigger language plpgsql security definer
    set search_path = pg_catalog, public as $$
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
create trigger scorecard_changes after update on scorecard referencing new table as changed
    for each statement execute function record_vertical_change();
create trigger business_sales_begin after insert on business_sales referencing new table as changed
    for each statement execute function record_vertical_change();
create trigger business_sales_change after update on business_sales referencing new table as changed
    for each statement execute function record_vertical_change();

create or replace function catalog_fingerprint(v vertical) returns bigint language sql stable as $$
    select hash_record_extended(row(v.id, v.slug, v.version,
        (select string_agg(c.state || c.version, ' ' order by c.version) from scorecard c
         where c.vertical_id = v.id and c.state in ('shadow', 'ranking')),
        (select max(s.counted_at) from business_sales s where s.vertical_id = v.id)), 0)
$$;

insert into background_pass (name) values ('learning');

grant select on scorecard, scorecard_training, business_sales to marketplace_api, marketplace_worker, marketplace_reports;
grant insert on scorecard to marketplace_api, marketplace_worker;
grant insert, update (tried_at, leads, refusal) on scorecard_training to marketplace_api, marketplace_worker;
grant update (state, shadow_since, signed_off_at, signed_off_by, shadow_leads, shadow_figures, replaces, suspended_for)
    on scorecard to marketplace_api;
grant update (state, shadow_since, suspended_for) on scorecard to marketplace_worker;
grant insert, update (leads, returned, jobs, jobs_minor, counted_at) on business_sales to marketplace_worker;
