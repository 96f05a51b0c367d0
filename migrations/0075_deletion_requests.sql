-- Requests of people to be deleted: a queue with deadlines, and what each needs as proof that it was carried out.

-- `keys` are the person's keyed hashes, as in person_key. `contact` is sealed, and empty once the request has ended. A
-- request by lead id has no contact. `erased`: all leads of the person are erased, and a business that was shown one has
-- time to acknowledge its notice.
create table deletion_request (
    id uuid primary key,
    mode text not null constraint deletion_request_mode check (mode in ('live', 'test')),
    received_at timestamptz not null,
    deadline_at timestamptz not null,
    requested_by text not null,
    keys bytea[] not null,
    lead_id uuid references lead (id),
    contact bytea,
    suppresses boolean not null,
    state text not null default 'open'
        constraint deletion_request_state check (state in ('open', 'erased', 'done', 'refused')),
    refusal text constraint deletion_request_refusal
        check (refusal in ('not_found', 'identity_not_proved', 'legal_duty_to_keep')),
    erased_at timestamptz,
    ended_at timestamptz,
    constraint deletion_request_deadline
        check (deadline_at > received_at and deadline_at <= received_at + interval '90 days'),
    constraint deletion_request_person check (cardinality(keys) > 0 or lead_id is not null),
    constraint deletion_request_refused check ((refusal is not null) = (state = 'refused')),
    constraint deletion_request_ended check ((ended_at is not null) = (state in ('done', 'refused'))),
    constraint deletion_request_carried_out check ((erased_at is not null) = (state in ('erased', 'done'))),
    constraint deletion_request_contact check (contact is null or ended_at is null)
);
create index deletion_request_queue on deletion_request ((ended_at is not null), deadline_at, id);
create index deletion_request_late on deletion_request (deadline_at) where ended_at is null;
create trigger deletion_request_is_kept before delete on deletion_request
    for each row execute function refuse_change();
create trigger deletion_request_is_never_emptied before truncate on deletion_request
    for each statement execute function refuse_change();

-- The leads of the person, named before they are erased, so that carrying out a request can be continued.
create table deletion_lead (
    request_id uuid not null references deletion_request (id),
    lead_id uuid not null references lead (id),
    primary key (request_id, lead_id)
);
create index deletion_lead_of_lead on deletion_lead (lead_id);
create trigger deletion_lead_is_kept before delete or update on deletion_lead
    for each row execute function refuse_change();
create trigger deletion_lead_is_never_emptied before truncate on deletion_lead
    for each statement execute function refuse_change();

-- What a proof lists is complete: no lead is added to a request that is not open any more.
create function check_deletion_lead() returns trigger language plpgsql as $$
begin
    if (select state from deletion_request where id = new.request_id for share) <> 'open' then
        raise exception 'leads are named while the request is open'
            using errcode = 'check_violation', constraint = 'deletion_lead_open';
    end if;
    return new;
end $$;
create trigger deletion_lead_open before insert on deletion_lead
    for each row execute function check_deletion_lead();

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
create trigger deletion_request_moves before update on deletion_request
    for each row execute function check_deletion();

-- What a business has to acknowledge: counted on each of its pages, and those overdue on the operator's overview.
create index notice_open on notice (business_id) where kind in ('erased', 'revoked') and state in ('due', 'overdue');

insert into background_pass (name) values ('deletions');

grant select, insert on deletion_request, deletion_lead to marketplace_api;
grant update (state, refusal, contact, erased_at, ended_at) on deletion_request to marketplace_api;
grant select (id, state, ended_at) on deletion_request to marketplace_worker;
grant select on deletion_lead to marketplace_worker;
grant update (state, contact, ended_at) on deletion_request to marketplace_worker;
grant select (id, mode, state, deadline_at, ended_at) on deletion_request to marketplace_reports;
