-- The live feed: a door that the business itself comes to. Instead of a URL an endpoint may be a feed; leads awarded to it
-- wait in the business's feed, in one order that never changes, and are exposed to whoever of the business reads them.

alter table endpoint add column kind text not null default 'push'
    constraint endpoint_kind check (kind in ('push', 'feed'));
alter table endpoint alter column url drop not null, alter column secret drop not null;
alter table endpoint add constraint endpoint_door check (
    (url is not null) = (kind = 'push') and (secret is not null) = (kind = 'push'));

-- The last place that was given out in each feed. Its lock is held until the event is committed, so that places become
-- visible in their order, and whoever has read up to one has missed none before it.
create table feed (
    business_id uuid not null references business (id),
    mode text not null constraint feed_mode check (mode in ('live', 'test')),
    last_position bigint not null,
    primary key (business_id, mode)
) with (fillfactor = 70);

-- What a business is told, at its place; never any contact. `acknowledged_at` is when the business first said that it has it.
create table feed_event (
    business_id uuid not null,
    mode text not null,
    position bigint not null constraint feed_event_position check (position > 0),
    kind text not null constraint feed_event_kind check (kind in ('lead.assigned', 'lead.erased')),
    assignment_id uuid not null references assignment (id),
    placed_at timestamptz not null,
    acknowledged_at timestamptz,
    primary key (business_id, mode, position),
    constraint feed_event_of_feed foreign key (business_id, mode) references feed (business_id, mode),
    constraint feed_event_once unique (assignment_id, kind)
);
create index feed_event_open on feed_event (business_id, mode, position) where acknowledged_at is null;
create trigger feed_event_is_kept before truncate on feed_event for each statement execute function refuse_change();

-- The next place in the feed of the assignment's business, once; null where the event has its place already.
create function place_in_feed(of_assignment uuid, as_kind text, placed timestamptz) returns bigint language plpgsql as $$
declare
    owner uuid;
    in_mode text;
    place bigint;
begin
    select business_id, mode into strict owner, in_mode from assignment where id = of_assignment;
    insert into feed (business_id, mode, last_position) values (owner, in_mode, 0)
    on conflict (business_id, mode) do update set last_position = feed.last_position;
    if exists (select from feed_event where assignment_id = of_assignment and kind = as_kind) then
        return null;
    end if;
    update feed set last_position = last_position + 1 where business_id = owner and mode = in_mode
    returning last_position into place;
    insert into feed_event (business_id, mode, position, kind, assignment_id, placed_at)
    values (owner, in_mode, place, as_kind, of_assignment, placed);
    return place;
end $$;
revoke all on function place_in_feed from public;

-- Opens one stream, once: what a browser puts in a URL in place of a key. Only its keyed hash is kept.
create table feed_ticket (
    ticket_hash bytea primary key,
    key_id text not null references api_key (id),
    expires_at timestamptz not null
);
create index feed_ticket_by_end on feed_ticket (expires_at);

-- What a reader of the feed brings about: an exposure to the business that the lead is held for, and its settlement. A role
-- of its own, in a pool of its own, because the api's can do neither; a role and not a function of the owner's, so that the
-- record of moves names it and the rules for transfers bind it.
do $$
begin
    begin
        create role marketplace_feeder nologin;
    exception when duplicate_object or unique_violation then null;
    end;
    if not pg_has_role(current_user, 'marketplace_feeder', 'member') then
        grant marketplace_feeder to current_user;
    end if;
end $$;
grant usage on schema public to marketplace_feeder;
grant select on lead, assignment, exposure, fenced_lead, erasure, person_key, suppression, feed_event
    to marketplace_feeder;
grant select (id, kind, state) on endpoint to marketplace_feeder;
grant select (business_id, held_minor) on wallet to marketplace_feeder;
grant insert (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address, attempt_no, exposed_at)
    on exposure to marketplace_feeder;
grant insert (lead_id, assignment_id, left_state, entered_state) on move to marketplace_feeder;
grant insert (id, at, actor, action, object, detail) on audit to marketplace_feeder;
grant insert (id, kind, amount_minor, currency, business_id, provider_id, assignment_id, made_at) on transfer
    to marketplace_feeder;
grant update (state, reason, settled_at) on lead to marketplace_feeder;
grant update (state, reason, due_at, exposed_at, evidence_until, evidence, settled_at) on assignment
    to marketplace_feeder;
grant update (held_minor) on wallet to marketplace_feeder;
grant update (acknowledged_at) on feed_event to marketplace_feeder;
create policy transfer_of_feeds on transfer for insert to marketplace_feeder with check (kind in ('capture', 'payout'));

grant select on feed, feed_event to marketplace_api, marketplace_worker, marketplace_reports;
grant insert on feed, feed_event to marketplace_worker;
grant update (last_position) on feed to marketplace_worker;
grant execute on function place_in_feed to marketplace_worker;
grant update (acknowledged_at) on feed_event to marketplace_api;
grant select, insert, delete on feed_ticket to marketplace_api;
grant select (kind) on endpoint to marketplace_reports;
-- a reader of its feed may open a lead that was exposed to it
grant execute on function read_contact(uuid, uuid) to marketplace_api;
