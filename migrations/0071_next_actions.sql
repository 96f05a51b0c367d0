-- The next action of a lead with its reminder, and changes of stage that are sent to a business's own software.

-- What the business means to do next about a lead, and when. One per lead: a new one replaces it. `note` is what a person
-- wrote; the row is deleted when the person is erased.
create table next_action (
    assignment_id uuid primary key,
    lead_id uuid not null,
    business_id uuid not null,
    live boolean not null default true constraint next_action_live check (live),
    note text not null constraint next_action_note check (length(note) between 1 and 300),
    due_at timestamptz not null,
    set_at timestamptz not null,
    set_by text not null,
    done_at timestamptz,
    constraint next_action_assignment foreign key (assignment_id, lead_id, business_id, live)
        references assignment (id, lead_id, business_id, live),
    constraint next_action_exposed foreign key (lead_id, assignment_id) references exposure (lead_id, assignment_id)
);
create index next_action_by_lead on next_action (lead_id);
create index next_action_due on next_action (business_id, due_at) where done_at is null;

-- The endpoint to which a business has its changes of stage sent.
create table stage_hook (
    business_id uuid primary key,
    endpoint_id uuid not null,
    set_at timestamptz not null,
    constraint stage_hook_endpoint foreign key (endpoint_id, business_id) references endpoint (id, business_id)
);

-- Changes of stage that wait to be sent, were received, or were given up after a day. Rows are the queue.
create table stage_change (
    id uuid primary key,
    business_id uuid not null references business (id),
    disposition_id uuid not null,
    previous_stage text,
    undone boolean not null default false,
    state text not null constraint stage_change_state check (state in ('due', 'received', 'given_up')),
    due_at timestamptz,
    attempts int not null default 0,
    result text,
    made_at timestamptz not null,
    constraint stage_change_due check ((state = 'due') = (due_at is not null)),
    constraint stage_change_once unique (disposition_id, undone)
);
create index stage_change_waiting on stage_change (due_at) where due_at is not null;
create index stage_change_newest on stage_change (business_id, id);

grant select on next_action, stage_hook, stage_change to marketplace_api, marketplace_worker;
grant insert, update (note, due_at, set_at, set_by, done_at) on next_action to marketplace_api;
grant insert, update (endpoint_id, set_at), delete on stage_hook to marketplace_api;
grant insert on stage_change to marketplace_api;
grant update (state, due_at, attempts, result) on stage_change to marketplace_worker;
grant delete on stage_change to marketplace_worker;
grant select (lead_id), delete on next_action to marketplace_eraser;
