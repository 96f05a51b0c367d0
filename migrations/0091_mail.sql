-- Leads by e-mail: the address of an endpoint, messages that wait to be sent, and messages that came back.

-- Where the leads of an endpoint of kind email are sent. A message of mode `full` has the contact; one of mode `link` has a
-- link to the lead in the portal, and no contact data.
create table mail_target (
    endpoint_id uuid primary key,
    business_id uuid not null,
    address text not null constraint mail_target_address check (length(address) between 3 and 320),
    mode text not null constraint mail_target_mode check (mode in ('link', 'full')),
    with_adf boolean not null default false,
    constraint mail_target_endpoint foreign key (endpoint_id, business_id) references endpoint (id, business_id),
    constraint mail_target_adf check (mode = 'full' or not with_adf)
);

-- Messages without contact data that wait, were sent or were given up. Rows are the queue. `occasion` says what a message
-- is about, so that nobody is told twice; `letter` is its text, which is deleted once it has been sent.
create table outgoing_mail (
    id uuid primary key,
    kind text not null constraint outgoing_mail_kind check (kind in ('confirmation', 'lead', 'test', 'alert')),
    business_id uuid references business (id),
    endpoint_id uuid references endpoint (id),
    assignment_id uuid references assignment (id),
    recipient text not null,
    occasion text not null,
    letter jsonb,
    state text not null default 'due' constraint outgoing_mail_state check (state in ('due', 'sent', 'given_up')),
    due_at timestamptz,
    give_up_at timestamptz not null,
    attempts int not null default 0,
    result text,
    made_at timestamptz not null,
    sent_at timestamptz,
    constraint outgoing_mail_once unique (kind, recipient, occasion),
    constraint outgoing_mail_due check ((state = 'due') = (due_at is not null) and (state = 'due') = (letter is not null)),
    constraint outgoing_mail_sent check ((state = 'sent') = (sent_at is not null))
);
create index outgoing_mail_waiting on outgoing_mail (due_at) where due_at is not null;
create index outgoing_mail_of_business on outgoing_mail (business_id, made_at);
create index outgoing_mail_of_assignment on outgoing_mail (assignment_id) where assignment_id is not null;

-- Messages that came back: one row per bounce. Of the bounce itself only its status code is kept, such as 5.1.1.
create table mail_bounce (
    id uuid primary key,
    digest bytea not null constraint mail_bounce_once unique,
    business_id uuid references business (id),
    endpoint_id uuid references endpoint (id),
    assignment_id uuid references assignment (id),
    mail_id uuid references outgoing_mail (id),
    status text not null constraint mail_bounce_status check (status ~ '^[245]\.[0-9]{1,3}\.[0-9]{1,3}$'),
    received_at timestamptz not null,
    constraint mail_bounce_of_one check ((assignment_id is null) <> (mail_id is null))
);
create index mail_bounce_of_business on mail_bounce (business_id, received_at);
create index mail_bounce_of_assignment on mail_bounce (assignment_id) where assignment_id is not null;

grant select on mail_target, outgoing_mail, mail_bounce to marketplace_api, marketplace_worker, marketplace_reports;
grant insert, update (address, mode, with_adf) on mail_target to marketplace_api;
grant insert on outgoing_mail to marketplace_api, marketplace_worker;
grant update (state, due_at, attempts, result, sent_at, letter) on outgoing_mail to marketplace_worker;
grant delete on outgoing_mail to marketplace_worker;
grant insert on mail_bounce to marketplace_worker;
