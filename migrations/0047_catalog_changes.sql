-- Each edit of the rules records which rows it changed, so that a process reads those and not all of them. One row for each
-- party, with the version of the catalog at its latest change: the table never has more rows than there are parties.
--
-- The counter is a locked row, not a sequence, and its lock is held until the commit. A transaction is given version N + 1 only
-- after the one with version N has ended, so that whoever sees N sees every change up to N.
create table catalog_change (
    kind text not null constraint catalog_change_kind
        check (kind in ('business', 'endpoint', 'provider', 'subscription', 'vertical')),
    id uuid not null,
    version bigint not null,
    constraint catalog_change_pkey primary key (kind, id)
);
create index catalog_change_by_version on catalog_change (version);
grant select on catalog_change to marketplace_api, marketplace_worker;

drop trigger vertical_bumps on vertical;
drop trigger provider_bumps on provider;
drop trigger subscription_bumps on subscription;
drop trigger business_bumps on business;
drop trigger endpoint_bumps on endpoint;
drop function bump_catalog_version();

-- The kind of a change is the name of the table. A statement trigger names its transition table `changed`; one version for
-- all rows of a statement keeps large imports linear.
create function record_catalog_change() returns trigger language plpgsql security definer
    set search_path = pg_catalog, public as $$
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

create trigger vertical_changes after insert or update on vertical
    for each row execute function record_catalog_change();
create trigger provider_begins after insert on provider
    for each row execute function record_catalog_change();
create trigger provider_changes after update on provider
    for each row when (old.state is distinct from new.state or old.payout is distinct from new.payout)
    execute function record_catalog_change();
create trigger business_changes after update on business
    for each row when (old.state is distinct from new.state)
    execute function record_catalog_change();
create trigger endpoint_changes after update on endpoint
    for each row
    when (old.state is distinct from new.state or old.breaker_open_until is distinct from new.breaker_open_until)
    execute function record_catalog_change();
create trigger subscription_begins after insert on subscription referencing new table as changed
    for each statement execute function record_catalog_change();
create trigger subscription_changes after update on subscription referencing new table as changed
    for each statement execute function record_catalog_change();

-- One number of all that the catalog holds of a row, besides versions, which never change. Processes keep their sum, by which
-- they compare what they hold with what is stored.
create function catalog_fingerprint(v vertical) returns bigint language sql stable as $$
    select hash_record_extended(row(v.id, v.slug, v.version), 0)
$$;
create function catalog_fingerprint(p provider) returns bigint language sql stable as $$
    select hash_record_extended(row(p.id, p.state, p.payout), 0)
$$;
create function catalog_fingerprint(s subscription, b business, e endpoint) returns bigint language sql stable as $$
    select hash_record_extended(row(s.id, s.business_id, s.endpoint_id, s.vertical_id, s.mode, s.version, s.state,
        s.suspended_for, b.state, e.state, e.breaker_open_until), 0)
$$;
