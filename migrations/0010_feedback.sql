-- What businesses tell about their leads: what became of each, and which they give back. Nothing here can be written about
-- a lead that the business was not shown, and nothing that was written changes but to forget a person.

-- Append only. The latest by `happened_at` is where a lead stands; the earliest is its first touch, and the earliest of those
-- in which somebody was reached its first contact. `stage` is the business's own word, if it used one.
create table disposition (
    id uuid primary key,
    assignment_id uuid not null,
    lead_id uuid not null,
    business_id uuid not null,
    live boolean not null default true constraint disposition_live check (live),
    kind text not null constraint disposition_kind check (kind in (
        'contacted', 'qualified', 'quoted', 'won', 'lost', 'unreachable')),
    value_minor bigint constraint disposition_value check (value_minor >= 0),
    reason text constraint disposition_reason check (reason in (
        'price', 'competitor', 'not_interested', 'no_need', 'bad_timing', 'duplicate_job', 'other')),
    note text,
    stage text,
    happened_at timestamptz not null,
    recorded_at timestamptz not null,
    source text not null constraint disposition_source check (source in ('api', 'webhook', 'csv', 'portal', 'demo')),
    event_id text,
    constraint disposition_won check ((value_minor is not null) = (kind = 'won')),
    constraint disposition_lost check (reason is null or kind = 'lost'),
    constraint disposition_event unique (business_id, event_id),
    constraint disposition_assignment foreign key (assignment_id, lead_id, business_id, live)
        references assignment (id, lead_id, business_id, live),
    constraint disposition_exposed foreign key (lead_id, assignment_id) references exposure (lead_id, assignment_id)
);
create index disposition_by_assignment on disposition (assignment_id, happened_at, id);
create index disposition_by_lead on disposition (lead_id);
create index disposition_by_business on disposition (business_id, happened_at);

create function keep_disposition() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and new.note is null and to_jsonb(new) - 'note' = to_jsonb(old) - 'note' then
        return new;
    end if;
    raise exception '% rows are never changed', tg_table_name using errcode = 'restrict_violation';
end $$;
create trigger disposition_is_final before update or delete on disposition
    for each row execute function keep_disposition();
create trigger disposition_is_kept before truncate on disposition for each statement execute function refuse_change();

-- One request per assignment, ever. `finding` is what both sides are told of the judgement; `judged_by` is 'machine' or the
-- actor. A machine's denial may be overruled by an operator; a granted return has moved money and stays.
create table return_request (
    id uuid primary key,
    assignment_id uuid not null constraint return_request_once unique,
    lead_id uuid not null,
    business_id uuid not null,
    live boolean not null default true constraint return_request_live check (live),
    reason text not null constraint return_request_reason check (reason in (
        'duplicate', 'outside_area', 'invalid_number', 'bant_mismatch',
        'wrong_person', 'no_consent_recalled', 'fraud', 'other')),
    note text,
    evidence jsonb not null default '{}',
    state text not null constraint return_request_state check (state in ('requested', 'granted', 'denied')),
    requested_at timestamptz not null,
    judged_at timestamptz,
    judged_by text,
    finding text,
    constraint return_request_judged check (
        (judged_at is not null) = (state <> 'requested') and (judged_by is not null) = (state <> 'requested')
        and (finding is not null) = (state <> 'requested')),
    constraint return_request_assignment foreign key (assignment_id, lead_id, business_id, live)
        references assignment (id, lead_id, business_id, live),
    constraint return_request_exposed foreign key (lead_id, assignment_id) references exposure (lead_id, assignment_id)
);
create index return_request_by_business on return_request (business_id, id);
create index return_request_by_lead on return_request (lead_id);
create index return_request_open on return_request (id) where state = 'requested';

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
create trigger return_request_move before update of state, judged_at, judged_by, finding on return_request
    for each row execute function assert_return_move();
create trigger return_request_is_final before delete or update of id, assignment_id, lead_id, business_id, reason,
    requested_at on return_request for each row execute function refuse_change();
create trigger return_request_is_kept before truncate on return_request
    for each statement execute function refuse_change();

-- Each business's own words for where a lead stands, and which kind of disposition each of them means.
create table pipeline_stage (
    business_id uuid not null references business (id),
    stage text not null,
    kind text not null constraint pipeline_stage_kind check (kind in (
        'contacted', 'qualified', 'quoted', 'won', 'lost', 'unreachable')),
    position int not null,
    primary key (business_id, stage)
);

-- The secret by which a business's own systems sign what they tell us; sealed, like an endpoint's.
create table feedback_hook (
    business_id uuid primary key references business (id),
    secret bytea not null,
    previous_secret bytea,
    previous_until timestamptz,
    made_at timestamptz not null
);

-- A returned lead keeps its exposure, its evidence and the time at which it was delivered: only that it was given back, and
-- why, is added. The api takes this role for the length of one granted return; its own can neither move a lead nor refund.
do $$
begin
    begin
        create role marketplace_returner nologin;
    exception when duplicate_object or unique_violation then null;
    end;
    if not pg_has_role(current_user, 'marketplace_returner', 'member') then
        grant marketplace_returner to current_user;
    end if;
    if not pg_has_role('marketplace_returner', 'marketplace_api', 'member') then
        grant marketplace_api to marketplace_returner;
    end if;
end $$;
grant update (state, reason) on lead, assignment to marketplace_returner;
grant update (state, judged_at, judged_by, finding) on return_request to marketplace_returner;
create policy transfer_of_returns on transfer for insert to marketplace_returner
    with check (kind in ('refund', 'claw_back'));

grant select on disposition, return_request, pipeline_stage to marketplace_api, marketplace_worker, marketplace_reports;
grant select, insert on feedback_hook to marketplace_api;
grant update (secret, previous_secret, previous_until, made_at) on feedback_hook to marketplace_api;
grant insert on disposition, return_request to marketplace_api;
grant insert, delete on pipeline_stage to marketplace_api;
grant update (note) on disposition to marketplace_eraser;
grant update (note) on return_request to marketplace_eraser;

-- A business reads the lead that it holds; the door itself asks for a committed exposure to that business.
grant execute on function read_contact(uuid, uuid) to marketplace_api;
