-- The audit made tamper-evident: every move of a lead recorded by trigger, every record digested, every digest sealed.
-- A row is sealed by the transaction that wrote it: once every transaction below a number has ended, nothing can be
-- added below it, so that a block is complete when it is made and no writer ever waits for the chain.

alter table audit add column committed_by xid8 not null default pg_current_xact_id();
alter table transfer add column committed_by xid8 not null default pg_current_xact_id();
create index audit_by_commit on audit (committed_by);
create index transfer_by_commit on transfer (committed_by);
create index exposure_by_commit on exposure (committed_by);
create trigger audit_is_kept before truncate on audit for each statement execute function refuse_change();

-- Which parts of the contact were given, by name: what a receipt can say was shown, also after the person was erased.
alter table inquiry add column contact_fields text[] not null default '{}';

-- Every move of a lead or, where it is named, of its assignment: from which state to which, and the role at work, so that
-- a move made by hand shows whose hand it was. A narrow table of its own with one index, the one that sealing reads by,
-- because each lead writes some eight rows.
create table move (
    position bigint generated always as identity,
    lead_id uuid not null,
    assignment_id uuid,
    left_state text,
    entered_state text not null,
    actor text not null default current_user,
    at timestamptz not null default clock_timestamp(),
    committed_by xid8 not null default pg_current_xact_id(),
    primary key (committed_by, position)
);
create trigger move_is_final before update or delete on move for each row execute function refuse_change();
create trigger move_is_kept before truncate on move for each statement execute function refuse_change();

create function record_lead_move() returns trigger language plpgsql as $$
begin
    insert into move (lead_id, left_state, entered_state)
    values (new.id, case when tg_op = 'UPDATE' then old.state end, new.state);
    return null;
end $$;
create function record_assignment_move() returns trigger language plpgsql as $$
begin
    insert into move (lead_id, assignment_id, left_state, entered_state)
    values (new.lead_id, new.id, case when tg_op = 'UPDATE' then old.state end, new.state);
    return null;
end $$;

insert into move (lead_id, assignment_id, entered_state)
select id, null, state from lead
union all
select lead_id, id, state from assignment;

create trigger lead_begun_recorded after insert on lead for each row execute function record_lead_move();
create trigger lead_move_recorded after update on lead
    for each row when (old.state is distinct from new.state) execute function record_lead_move();
create trigger assignment_begun_recorded after insert on assignment
    for each row execute function record_assignment_move();
create trigger assignment_move_recorded after update on assignment
    for each row when (old.state is distinct from new.state) execute function record_assignment_move();

-- What is sealed: each row's place (a letter for its table, and its id) and the digest of all its columns. No setting of a
-- session changes a byte of it. A column added later may only join where it is not null, or old seals would break.
create view audit_entry as
select committed_by, '\x61'::bytea || uuid_send(id) as place, at,
       sha256(convert_to(jsonb_build_array(committed_by::text, id, extract(epoch from at)::text, actor, action, object,
           detail)::text, 'UTF8')) as digest
from audit
union all
select committed_by, '\x65'::bytea || uuid_send(lead_id), exposed_at,
       sha256(convert_to(jsonb_build_array(committed_by::text, lead_id, assignment_id, business_id, live, seen, channel,
           endpoint_id, encode(url_sha256, 'hex'), address, encode(tls_sha256, 'hex'), attempt_no, position,
           extract(epoch from exposed_at)::text)::text, 'UTF8'))
from exposure
union all
select committed_by, '\x74'::bytea || uuid_send(id), made_at,
       sha256(convert_to(jsonb_build_array(committed_by::text, id, kind, amount_minor, currency, business_id,
           provider_id, assignment_id, event_id, extract(epoch from made_at)::text, price_minor, payout_minor)::text,
           'UTF8'))
from transfer
union all
select committed_by, '\x6d0000000000000000'::bytea || int8send(position), at,
       sha256(convert_to(jsonb_build_array(committed_by::text, position, lead_id, assignment_id, left_state,
           entered_state, actor, extract(epoch from at)::text)::text, 'UTF8'))
from move;

-- A block covers every row of the transactions from `xid_from` up to and without `xid_to`, where the next one begins.
-- `entries` is their places (17 bytes) and digests (32 bytes) in the order of transaction and place; `seal` is keyed, and
-- the key is never here: whoever may rewrite all of this still cannot seal it.
create table audit_block (
    number bigint primary key constraint audit_block_number check (number > 0),
    previous bytea not null unique constraint audit_block_previous check (octet_length(previous) = 32),
    xid_from xid8 not null,
    xid_to xid8 not null unique,
    entries bytea not null constraint audit_block_entries
        check (octet_length(entries) > 0 and octet_length(entries) % 49 = 0),
    sealed_at timestamptz not null,
    seal bytea not null unique constraint audit_block_seal check (octet_length(seal) = 32),
    constraint audit_block_span check (xid_from < xid_to)
);
alter table audit_block alter column entries set storage external;  -- digests do not compress
create trigger audit_block_is_final before update or delete on audit_block for each row execute function refuse_change();
create trigger audit_block_is_kept before truncate on audit_block for each statement execute function refuse_change();

-- committed_by must stay the writer's own, as in exposure: it decides which block a row belongs to. So must a move's actor.
revoke insert on audit, transfer from marketplace_api, marketplace_worker;
grant insert (id, at, actor, action, object, detail) on audit to marketplace_api, marketplace_worker;
grant insert (id, kind, amount_minor, currency, business_id, provider_id, assignment_id, event_id, made_at) on transfer
    to marketplace_api, marketplace_worker;
grant insert (lead_id, assignment_id, left_state, entered_state) on move to marketplace_api, marketplace_worker;
grant select on move, audit_entry, audit_block to marketplace_api, marketplace_worker, marketplace_reports;
grant insert on audit_block to marketplace_worker;
