-- What a restored database cannot hold as an exposure: leads that were shown to a business after the backup was taken and
-- whose own rows, or whose business's rows, are not in it. Written by `marketplace fence` from the exposure journal.

create table fenced_lead (
    lead_id uuid not null,
    assignment_id uuid not null,
    business_id uuid not null,
    vertical_id uuid not null,
    outcome text not null constraint fenced_lead_outcome check (outcome in ('absent', 'closed', 'contradicted')),
    persons bytea[] not null,
    exposed_at timestamptz not null,
    protected_until timestamptz not null,
    fenced_at timestamptz not null,
    primary key (lead_id, assignment_id)
);
create index fenced_lead_persons on fenced_lead using gin (persons);
create trigger fenced_lead_is_final before update or delete on fenced_lead for each row execute function refuse_change();
create trigger fenced_lead_is_kept before truncate on fenced_lead for each statement execute function refuse_change();

-- A fenced person who is submitted again finds the window taken, as if the lost lead were still here.
create function keep_fenced_person() returns trigger language plpgsql security definer
    set search_path = pg_catalog, public as $$
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
create trigger person_window_fenced before insert on person_window for each row execute function keep_fenced_person();

grant select on fenced_lead to marketplace_worker, marketplace_reports;
grant insert on fenced_lead to marketplace_worker;
