-- Leads of a vertical for each hour of the week, over which caps are spread (routing/pacing.py).

-- Learned once a day where a subscription paces its caps. Rows are only added, so that a recorded decision can be repeated with
-- the curve of its time. The first hour begins on Monday at 00:00 UTC; no hour is without a lead.
create table arrival_curve (
    vertical_id uuid not null references vertical (id),
    learned_at timestamptz not null,
    arrivals int[] not null
        constraint arrival_curve_hours check (cardinality(arrivals) = 168 and 1 <= all (arrivals)),
    primary key (vertical_id, learned_at)
);
grant select on arrival_curve to marketplace_api, marketplace_worker, marketplace_reports;
grant insert on arrival_curve to marketplace_worker;

-- A new curve is a change of its vertical, so that every process reads it.
create function record_arrival_curve() returns trigger language plpgsql security definer
    set search_path = pg_catalog, public as $$
declare
    at bigint;
begin
    update public.catalog_version set version = version + 1 returning version into at;
    insert into public.catalog_change (kind, id, version) values ('vertical', new.vertical_id, at)
    on conflict (kind, id) do update set version = excluded.version;
    return null;
end $$;
create trigger arrival_curve_changes after insert on arrival_curve
    for each row execute function record_arrival_curve();

insert into background_pass (name) values ('arrival_curves');
