-- Notices to the one business that was shown a lead: its person was erased or revoked consent, or its facts changed.

-- `detail` has no contact data. A due notice is sent until it is acknowledged; an overdue one is sent again each day until
-- its due time is null; a withdrawn one is about a person who was erased before it arrived.
create table notice (
    id uuid primary key,
    lead_id uuid not null,
    kind text not null constraint notice_kind check (kind in ('erased', 'revoked', 'updated')),
    business_id uuid not null,
    assignment_id uuid not null,
    made_at timestamptz not null,
    detail jsonb not null default '{}',
    state text not null constraint notice_state check (state in ('due', 'acknowledged', 'overdue', 'withdrawn')),
    due_at timestamptz,
    attempts int not null default 0,
    result text,
    acknowledged_at timestamptz,
    deadline_at timestamptz not null,
    live bool not null default true constraint notice_live check (live),
    constraint notice_exposure foreign key (lead_id, assignment_id) references exposure (lead_id, assignment_id),
    constraint notice_holder foreign key (assignment_id, lead_id, business_id, live)
        references assignment (id, lead_id, business_id, live),
    constraint notice_due check (case state when 'due' then due_at is not null when 'overdue' then true
        else due_at is null end),
    constraint notice_acknowledged check ((acknowledged_at is not null) = (state = 'acknowledged'))
) with (fillfactor = 80);
create index notice_due_soon on notice (due_at) where due_at is not null;
create index notice_of_lead on notice (lead_id, made_at);
create index notice_of_business on notice (business_id, made_at, id);
create unique index notice_of_erasure on notice (lead_id) where kind = 'erased';
create trigger notice_is_kept before delete on notice for each row execute function refuse_change();
create trigger notice_is_never_emptied before truncate on notice for each statement execute function refuse_change();

-- The notice of an earlier erasure keeps the lead's id as its own, so that a repeated message keeps its `webhook-id`.
insert into notice (id, lead_id, kind, business_id, assignment_id, made_at, state, due_at, attempts, result,
    acknowledged_at, deadline_at)
select e.lead_id, e.lead_id, 'erased', e.business_id, x.assignment_id, e.requested_at, e.notice_state, e.notice_due_at,
       e.attempts, e.notice_result, e.acknowledged_at, e.deadline_at
from erasure e join exposure x on x.lead_id = e.lead_id
where e.notice_state <> 'not_needed';

drop view quarantined_work;
alter table erasure
    drop column notice_state, drop column notice_due_at, drop column attempts, drop column notice_result,
    drop column acknowledged_at, drop column deadline_at,
    add column notice_id uuid references notice (id);
update erasure e set notice_id = n.id from notice n where n.lead_id = e.lead_id and n.kind = 'erased';
alter table erasure add constraint erasure_announced check ((business_id is null) = (notice_id is null));

create view quarantined_work as
select f.kind, f.id, f.lead_id, l.mode, l.state as lead_state, f.failure, f.failures, f.first_failed_at, f.last_failed_at,
       f.quarantined_at, f.retry_at, f.ended_at
from failing_work f
join lead l on l.id = f.lead_id
left join assignment a on f.kind = 'assignment' and a.id = f.id
left join notice n on f.kind = 'notice' and n.id = f.id
where f.quarantined_at is not null and (
    f.ended_at is not null
    or (f.kind = 'lead' and l.state in ('received', 'nurturing', 'prospect'))
    or (f.kind = 'assignment' and a.state in ('held', 'exposed'))
    or (f.kind = 'notice' and n.state = 'due'));

-- A notice has one place in its business's feed, a lead has one.
alter table feed_event
    drop constraint feed_event_once, drop constraint feed_event_kind,
    add constraint feed_event_kind check (kind in ('lead.assigned', 'lead.erased', 'lead.revoked', 'lead.updated')),
    add column notice_id uuid references notice (id);
update feed_event f set notice_id = n.id
from notice n where f.kind = 'lead.erased' and n.assignment_id = f.assignment_id and n.kind = 'erased';
alter table feed_event
    add constraint feed_event_notice check ((notice_id is null) = (kind = 'lead.assigned')),
    add constraint feed_event_of_notice unique (notice_id);
create unique index feed_event_of_lead on feed_event (assignment_id) where kind = 'lead.assigned';

drop function place_in_feed(uuid, text, timestamptz);

-- The next place in the feed of the assignment's business, once; null where the event has its place already. An event
-- about a notice names it.
create function place_in_feed(of_assignment uuid, as_kind text, placed timestamptz, of_notice uuid default null)
    returns bigint language plpgsql as $$
declare
    owner uuid;
    in_mode text;
    place bigint;
begin
    select business_id, mode into strict owner, in_mode from assignment where id = of_assignment;
    insert into feed (business_id, mode, last_position) values (owner, in_mode, 0)
    on conflict (business_id, mode) do update set last_position = feed.last_position;
    if exists (select from feed_event where assignment_id = of_assignment and kind = as_kind
               and notice_id is not distinct from of_notice) then
        return null;
    end if;
    update feed set last_position = last_position + 1 where business_id = owner and mode = in_mode
    returning last_position into place;
    insert into feed_event (business_id, mode, position, kind, assignment_id, placed_at, notice_id)
    values (owner, in_mode, place, as_kind, of_assignment, placed, of_notice);
    return place;
end $$;
revoke all on function place_in_feed from public;
grant execute on function place_in_feed to marketplace_worker;
create index feed_event_of_assignment on feed_event (assignment_id);

grant select, insert on notice to marketplace_api, marketplace_worker;
grant select on notice to marketplace_reports, marketplace_feeder;
grant update (state, due_at, result, acknowledged_at, detail) on notice to marketplace_api;
grant update (state, due_at, result, acknowledged_at, attempts) on notice to marketplace_worker;
grant select on quarantined_work to marketplace_api, marketplace_worker, marketplace_reports;
