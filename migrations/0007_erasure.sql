-- Erasure of a person: how one is found again, what was destroyed when, and whom we had to tell.

-- Which leads are one person's, by the keyed hashes that suppressions use: unlike a window it does not end, so that a
-- request years later finds the lead. Erasing a lead deletes its rows, and with them the last tie to the person.
create table person_key (
    lead_id uuid not null references lead (id),
    key bytea not null,
    primary key (lead_id, key)
);
create index person_key_by_key on person_key (key);

-- One lead's erasure, written in the transaction that destroyed its contact, and the notice to the one business that may
-- have seen it: no exposure, no notice. Only the notice's columns ever change.
create table erasure (
    lead_id uuid primary key references lead (id),
    requested_at timestamptz not null,
    requested_by text not null,
    reason text not null,
    suppressed boolean not null,
    business_id uuid,
    notice_state text not null
        constraint erasure_notice check (notice_state in ('not_needed', 'due', 'acknowledged', 'overdue')),
    notice_due_at timestamptz,
    attempts int not null default 0,
    notice_result text,
    acknowledged_at timestamptz,
    deadline_at timestamptz,
    constraint erasure_recipient check ((business_id is not null) = (notice_state <> 'not_needed')),
    constraint erasure_deadline check ((deadline_at is not null) = (notice_state <> 'not_needed')),
    constraint erasure_due check ((notice_due_at is not null) = (notice_state = 'due')),
    constraint erasure_acknowledged check ((acknowledged_at is not null) = (notice_state = 'acknowledged'))
) with (fillfactor = 80);
create index erasure_due_soon on erasure (notice_due_at) where notice_state = 'due';
create index erasure_newest on erasure (requested_at, lead_id);
create trigger erasure_is_kept before delete on erasure for each row execute function refuse_change();
create trigger erasure_is_never_emptied before truncate on erasure for each statement execute function refuse_change();

-- Whether nothing of a lead may leave us any more: it was erased, or its person asked anybody here not to be contacted.
create function is_withdrawn(of_lead uuid) returns boolean language sql stable as $$
    select exists (select from erasure where lead_id = of_lead)
        or exists (select from person_key k join suppression s on s.key = k.key where k.lead_id = of_lead)
$$;

-- Never exposed after the erasure was accepted, whatever the code believes. The erasure holds the lead's lock until it
-- has committed, so that an exposure either came before it, and has its notice, or finds its row here.
create function refuse_erased() returns trigger language plpgsql as $$
begin
    if exists (select from erasure where lead_id = new.lead_id) then
        raise exception 'this lead was erased' using errcode = 'restrict_violation', constraint = 'exposure_erased';
    end if;
    return new;
end $$;
create trigger exposure_of_nobody_erased before insert on exposure for each row execute function refuse_erased();

-- What the api may do for the length of one erasure: all that it always may, and besides stop a lead and destroy data.
do $$
begin
    begin
        create role marketplace_eraser nologin;
    exception when duplicate_object or unique_violation then null;
    end;
    if not pg_has_role(current_user, 'marketplace_eraser', 'member') then
        grant marketplace_eraser to current_user;
    end if;
    if not pg_has_role('marketplace_eraser', 'marketplace_api', 'member') then
        grant marketplace_api to marketplace_eraser;
    end if;
end $$;

grant select (lead_id) on contact, data_key to marketplace_eraser;
grant delete on contact, data_key, person_key, person_window to marketplace_eraser;
grant update (detail) on touch to marketplace_eraser;
grant update (answer_excerpt) on attempt to marketplace_eraser;
grant update (state, reason, settled_at) on lead to marketplace_eraser;
grant update (state, reason, due_at, settled_at) on assignment to marketplace_eraser;
grant update (held_minor) on wallet to marketplace_eraser;
grant update (used_count, used_minor) on cap_usage to marketplace_eraser;
grant insert on erasure to marketplace_eraser;
create policy transfer_of_erasures on transfer for insert to marketplace_eraser with check (kind = 'release');

grant select, insert on person_key to marketplace_api;
grant select on person_key to marketplace_worker;
grant select on erasure to marketplace_api, marketplace_worker, marketplace_reports;
grant update (notice_state, notice_due_at, notice_result, acknowledged_at) on erasure to marketplace_api;
grant update (notice_state, notice_due_at, notice_result, acknowledged_at, attempts) on erasure to marketplace_worker;
