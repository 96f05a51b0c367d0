-- What the answers of a business's server mean: a contract for each endpoint, the answers that it does not cover, and what
-- an answer names.

-- Without a contract of its own, an endpoint accepts by an empty body or JSON with the status accepted. `answer_shapes` are
-- the shapes of the last answers that were accepted.
alter table endpoint
    add column contract jsonb
        constraint endpoint_contract check (contract is null or (kind = 'push' and jsonb_typeof(contract) = 'object')),
    add column contract_version int not null default 1,
    add column answer_shapes text[] not null default '{}'
        constraint endpoint_answer_shapes check (cardinality(answer_shapes) <= 20);

-- Servers of today may go on confirming by one of the words that always counted.
update endpoint set contract = '{
    "refused": [{"path": "status", "values": ["refused"]}],
    "accepted": [{"empty": true}, {"path": "status", "values": ["accepted"]}, {"text": "1"}, {"text": "200 ok"},
        {"text": "accepted"}, {"text": "acknowledged"}, {"text": "created"}, {"text": "done"}, {"text": "ok"},
        {"text": "okay"}, {"text": "received"}, {"text": "success"}, {"text": "thank you"}, {"text": "thanks"},
        {"text": "true"}, {"text": "yes"}],
    "reason": "reason"}'
where kind = 'push';

-- What the answer names: the business's own number of the lead, and a price, which is never charged.
alter table attempt add column answer_reference text, add column answer_price text;

-- Answers that nobody decided about: those that the contract does not cover, and accepted ones of a shape not seen before.
-- One open alarm of a kind at an endpoint counts them. The excerpt is of the last one, masked, and goes with its person.
create table answer_alarm (
    id uuid primary key,
    endpoint_id uuid not null,
    business_id uuid not null,
    kind text not null constraint answer_alarm_kind check (kind in ('not_understood', 'new_shape')),
    opened_at timestamptz not null,
    last_at timestamptz not null,
    answers int not null default 1 constraint answer_alarm_answers check (answers > 0),
    lead_id uuid not null references lead (id),
    status int not null,
    content_type text not null,
    excerpt text,
    closed_at timestamptz,
    closed_for text constraint answer_alarm_closed_for check (closed_for in ('contract', 'understood', 'seen')),
    constraint answer_alarm_closed check ((closed_at is null) = (closed_for is null)),
    constraint answer_alarm_endpoint foreign key (endpoint_id, business_id) references endpoint (id, business_id)
);
create unique index answer_alarm_open on answer_alarm (endpoint_id, kind) where closed_at is null;
create index answer_alarm_of_business on answer_alarm (business_id) where closed_at is null;
create index answer_alarm_of_lead on answer_alarm (lead_id) where excerpt is not null;

grant update (contract, contract_version, answer_shapes) on endpoint to marketplace_api;
grant update (answer_shapes) on endpoint to marketplace_worker;
grant select, update (closed_at, closed_for) on answer_alarm to marketplace_api;
grant select, insert, update (answers, closed_at, closed_for, content_type, excerpt, last_at, lead_id, status)
    on answer_alarm to marketplace_worker;
grant update (excerpt), select (lead_id, excerpt) on answer_alarm to marketplace_eraser;
grant update (answer_reference, answer_price) on attempt to marketplace_eraser;
grant select on answer_alarm to marketplace_reports;
