-- Simulations of past leads under changed rules: what was asked for, how far it is, and the result.

-- One simulation. While it waits or is computed it has a due time: the process that computes it moves that ahead, and after a
-- crash another worker takes it over. The result is kept for 30 days.
create table simulation (
    id uuid primary key,
    vertical_id uuid not null references vertical (id),
    state text not null constraint simulation_state check (state in ('waiting', 'running', 'done', 'failed', 'cancelled')),
    actor text not null,
    request jsonb not null,
    since timestamptz not null,
    until timestamptz not null,
    leads int not null default 0 constraint simulation_leads check (leads >= 0),
    leads_done int not null default 0 constraint simulation_leads_done check (leads_done between 0 and leads),
    result jsonb,
    failure text,
    tries int not null default 0,
    due_at timestamptz,
    made_at timestamptz not null,
    ended_at timestamptz,
    constraint simulation_time check (since < until),
    constraint simulation_due check ((state in ('waiting', 'running')) = (due_at is not null)),
    constraint simulation_ended check ((state in ('waiting', 'running')) = (ended_at is null)),
    constraint simulation_result check ((state = 'done') = (result is not null)),
    constraint simulation_failure check ((state = 'failed') = (failure is not null))
);
create index simulation_due_soon on simulation (due_at) where due_at is not null;
create index simulation_oldest on simulation (made_at);

grant select on simulation to marketplace_api, marketplace_worker, marketplace_reports;
grant insert, update (state, due_at, ended_at) on simulation to marketplace_api;
grant update (state, leads, leads_done, result, failure, tries, due_at, ended_at), delete on simulation to marketplace_worker;
