-- name: list_leads
-- Leads that a business was shown, newest award first, with their latest disposition. $3 is the last assignment of the
-- previous page; a `disposition` of 'none' selects leads without any, $8 the leads with these ids.
select a.id as assignment_id, a.lead_id, a.subscription_id, a.mode, a.state, v.slug as vertical,
       area.place ->> 'country' as country, area.place ->> 'region' as region,
       area.place ->> 'postal_code' as postal_code, a.price_minor, a.currency, l.received_at, a.exposed_at,
       case when a.evidence is not null then a.settled_at end as delivered_at,
       latest.kind as disposition, latest.stage, latest.value_minor, latest.starts_at, latest.happened_at,
       first.touch_at as first_touch_at, first.contact_at as first_contact_at, r.state as return_state
from assignment a
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
left join revised_facts f on f.lead_id = l.id and l.revision > 0
cross join lateral (select coalesce(f.place, i.facts -> 'place') as place) area
join vertical v on v.id = l.vertical_id
left join return_request r on r.assignment_id = a.id
left join lateral (
    select kind, stage, value_minor, starts_at, happened_at from disposition
    where assignment_id = a.id and undone_at is null order by happened_at desc, id desc limit 1
) latest on true
left join lateral (
    select min(happened_at) as touch_at,
           min(happened_at) filter (where kind in ('contacted', 'qualified', 'appointment', 'quoted', 'won'))
               as contact_at
    from disposition where assignment_id = a.id and undone_at is null
) first on true
where a.business_id = $1 and ($2::text is null or a.mode = $2) and ($3::uuid is null or a.id < $3)
    and a.state in ('exposed', 'delivered', 'refused', 'lapsed', 'returned')
    and ($4::text is null or a.state = $4) and ($5::timestamptz is null or a.exposed_at >= $5)
    and ($6::text is null or coalesce(latest.kind, 'none') = $6) and ($8::uuid[] is null or a.lead_id = any($8))
order by a.id desc
limit $7;

-- name: find_lead
-- One lead that the business was shown, with everything that was delivered except the contact (see read_contact).
select a.id as assignment_id, a.lead_id, a.business_id, a.subscription_id, a.mode, a.state, a.reason,
       v.slug as vertical, a.price_minor, a.currency, facts_at(i.id, i.facts, l.revision) as facts, d.verdict, s.definition -> 'hours' as hours,
       i.submitted_at, l.received_at, l.qualified_at, a.awarded_at, a.exposed_at,
       case when a.evidence is not null then a.settled_at end as delivered_at, a.settled_at,
       exists (select from erasure where lead_id = a.lead_id) as erased
from assignment a
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
join vertical v on v.id = l.vertical_id
join subscription_version s on (s.subscription_id, s.version) = (a.subscription_id, a.subscription_version)
left join decision d on d.assignment_id = a.id and d.lead_id = a.lead_id and d.made_at = a.awarded_at
where a.lead_id = $1 and a.business_id = $2 and ($3::text is null or a.mode = $3)
    and a.state in ('exposed', 'delivered', 'refused', 'lapsed', 'returned');

-- name: read_contact
select sealed as box, wrapped, master_key_id, corrections from read_contact($1, $2);

-- name: list_dispositions
-- By the time at which they happened; the last one is current.
select id, assignment_id, lead_id, kind, value_minor, reason, note, stage, stage_id, starts_at, happened_at,
       recorded_at, source, event_id
from disposition where assignment_id = $1 and undone_at is null order by happened_at, id;

-- name: list_targets
-- Assignments of the business by their leads' ids or by their own, including those that are not exposed yet.
select id as assignment_id, lead_id, business_id, state, currency, exposed_at
from assignment
where business_id = $1 and ($2::text is null or mode = $2) and state <> 'released'
    and (lead_id = any($3::uuid[]) or id = any($4::uuid[]));

-- name: list_events
-- Dispositions that were recorded under the same event ids.
select id, assignment_id, lead_id, kind, value_minor, reason, note, stage, stage_id, starts_at, happened_at,
       recorded_at, source, event_id
from disposition where business_id = $1 and event_id = any($2::text[]) and undone_at is null;

-- name: insert_dispositions
-- Rows whose event id is already recorded are left out. A note about an erased person is not stored.
insert into disposition (id, assignment_id, lead_id, business_id, kind, value_minor, reason, note, stage, happened_at,
    recorded_at, source, event_id, file_import_id, stage_id, starts_at)
select r.id, r.assignment_id, r.lead_id, $1, r.kind, r.value_minor, r.reason,
       case when not exists (select from erasure where lead_id = r.lead_id) then r.note end,
       r.stage, r.happened_at, $2, $3, r.event_id, $4, r.stage_id, r.starts_at
from unnest($5::uuid[], $6::uuid[], $7::uuid[], $8::text[], $9::bigint[], $10::text[], $11::text[], $12::text[],
            $13::timestamptz[], $14::text[], $15::uuid[], $16::timestamptz[])
    as r (id, assignment_id, lead_id, kind, value_minor, reason, note, stage, happened_at, event_id, stage_id, starts_at)
on conflict (business_id, event_id) where undone_at is null do nothing
returning id;

-- name: find_money_and_zone
select w.currency, b.zone from business b join wallet w on w.business_id = b.id where b.id = $1;

-- name: undo_dispositions
-- Some of an import's dispositions. `committed_by` is set anew, so that readers that follow the transactions notice it.
update disposition set undone_at = $4, committed_by = pg_current_xact_id()
where business_id = $2 and id in (
    select id from disposition where file_import_id = $1 and business_id = $2 and undone_at is null limit $3)
returning id;

-- name: lock_leads_of_notes
-- An erasure that has begun is finished first, and the insert that follows sees it; a later one empties the notes. Locked
-- in the order of the ids, so that two imports do not deadlock.
select id from lead where id = any($1::uuid[]) order by id for no key update;

-- name: find_hook
select business_id, secret, previous_secret, previous_until, made_at from feedback_hook where business_id = $1;

-- name: save_hook
-- The previous secret stays valid beside the new one until $3.
insert into feedback_hook (business_id, secret, made_at) values ($1, $2, $4)
on conflict (business_id) do update
set previous_secret = feedback_hook.secret, previous_until = $3, secret = excluded.secret, made_at = excluded.made_at
returning business_id, secret, previous_secret, previous_until, made_at;

-- name: mark_previous_secret_ended
-- For a secret that has leaked: reports signed with it are refused from now on.
update feedback_hook set previous_secret = null, previous_until = null where business_id = $1
returning business_id, secret, previous_secret, previous_until, made_at;

-- name: become_returner
-- For this transaction only: the API's own role can neither change a lead's state nor refund.
set local role marketplace_returner;

-- name: lock_lead
-- Every change of state locks the lead first, here with its assignment to this business unless that was released.
select a.id as assignment_id
from lead l join assignment a on a.lead_id = l.id
where l.id = $1 and a.business_id = $2 and ($3::text is null or a.mode = $3) and a.state <> 'released'
for no key update of l, a;

-- name: lock_wallet
-- The second lock: two returns of one business are judged one after the other, so that both cannot use the last return
-- that the quota allows.
select business_id from wallet where business_id = $1 for no key update;

-- name: find_case
-- Everything that a return is judged by, read under the locks: facts, subscription, vertical and verdict in the versions
-- by which the lead was awarded.
select a.id as assignment_id, a.lead_id, a.business_id, a.provider_id, a.mode, a.state, a.price_minor, a.payout_minor,
       a.currency, a.exposed_at, a.settled_at, facts_at(i.id, i.facts, d.revision) as facts, 'phone' = any(i.contact_fields) as has_phone,
       s.definition as order_definition, m.version as vertical_version, m.definition as vertical_definition, d.verdict,
       d.made_at as decided_at, exists (select from person_key where lead_id = a.lead_id) as person_known,
       (select max(x.exposed_at) from person_key mine
        join person_key theirs on theirs.key = mine.key and theirs.lead_id <> mine.lead_id
        join exposure x on x.lead_id = theirs.lead_id and x.business_id = a.business_id
        join lead other on other.id = x.lead_id and other.mode = a.mode
        where mine.lead_id = a.lead_id and x.exposed_at < a.exposed_at
            and x.exposed_at >= a.exposed_at - make_interval(days => coalesce((m.definition ->> 'window_days')::int, 30))
            and (coalesce(m.definition ->> 'same_person', 'either') = 'either' or exists (
                select from person_window own join person_window same on same.key = own.key and same.scope && own.scope
                where own.lead_id = a.lead_id and same.lead_id = x.lead_id))
       ) as seen_before_at
from assignment a
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
join subscription_version s on (s.subscription_id, s.version) = (a.subscription_id, a.subscription_version)
join decision d on d.assignment_id = a.id and d.lead_id = a.lead_id and d.made_at = a.awarded_at
join vertical_version m on (m.vertical_id, m.version) = (l.vertical_id, d.vertical_version)
where a.id = $1;

-- name: count_recent
-- Leads delivered since $3, and those of them that were returned or are requested to be. Their assignments have ids from
-- $4 on.
select count(*) as delivered, count(r.id) filter (where r.state <> 'denied') as returned
from assignment a left join return_request r on r.assignment_id = a.id
where a.business_id = $1 and a.mode = $2 and a.state in ('delivered', 'returned') and a.settled_at >= $3
    and a.id >= $4;

-- name: insert_return
-- A note about an erased person is not stored.
insert into return_request (id, assignment_id, lead_id, business_id, reason, note, evidence, state, requested_at,
    judged_at, judged_by, finding)
values ($1, $2, $3, $4, $5, case when not exists (select from erasure where lead_id = $3) then $6 end, $7, $8, $9,
    $10, $11, $12);

-- name: mark_judged
update return_request set state = $2, judged_at = $3, judged_by = $4, finding = $5 where id = $1;

-- name: mark_returned
-- The time and evidence of the delivery are kept; the state and the reason of the return are added.
with moved as (update lead set state = 'returned', reason = $3 where id = $1)
update assignment set state = 'returned', reason = $3 where id = $2;

-- name: find_return
-- By its own id, or by its assignment, which can have only one.
select r.id, r.assignment_id, r.lead_id, r.business_id, a.provider_id, a.mode, v.slug as vertical, a.price_minor,
       a.currency, r.reason, r.note, r.evidence, r.state, r.requested_at, r.judged_at, r.judged_by, r.finding,
       a.settled_at as delivered_at
from return_request r
join assignment a on a.id = r.assignment_id
join lead l on l.id = r.lead_id
join vertical v on v.id = l.vertical_id
where r.id = $1 or r.assignment_id = $2;

-- name: list_returns
-- Newest first; $1 limits a business to its own.
select r.id, r.assignment_id, r.lead_id, r.business_id, a.provider_id, a.mode, v.slug as vertical, a.price_minor,
       a.currency, r.reason, r.note, r.evidence, r.state, r.requested_at, r.judged_at, r.judged_by, r.finding,
       a.settled_at as delivered_at
from return_request r
join assignment a on a.id = r.assignment_id
join lead l on l.id = r.lead_id
join vertical v on v.id = l.vertical_id
where ($1::uuid is null or r.business_id = $1) and ($2::text is null or a.mode = $2)
    and ($3::text is null or r.state = $3) and ($4::uuid is null or r.id < $4)
order by r.id desc
limit $5;

-- name: undo_move
-- The last disposition of a lead of the business, if it is this one, was recorded on the pages since $4, and is not undone yet.
-- `committed_by` is set anew, so that readers that follow the transactions notice it.
update disposition d set undone_at = $5, committed_by = pg_current_xact_id()
where d.id = $2 and d.business_id = $1 and d.source = 'portal' and d.undone_at is null and d.recorded_at >= $4
    and exists (select from assignment a where a.id = d.assignment_id and ($3::text is null or a.mode = $3))
    and not exists (
        select from disposition l where l.assignment_id = d.assignment_id and l.undone_at is null
            and (l.recorded_at, l.id) > (d.recorded_at, d.id))
returning d.id, d.assignment_id, d.lead_id, d.kind, d.value_minor, d.reason, d.note, d.stage, d.stage_id, d.starts_at,
          d.happened_at, d.recorded_at, d.source, d.event_id;

-- name: lock_changes
-- Changes of one business get their positions in the order in which their transactions end.
select pg_advisory_xact_lock(hashtextextended('stage_changes:' || $1::uuid::text, 0));

-- name: insert_changes
-- Dispositions by which the lead's stage changed: the latest of their lead, after one in another stage, or undone ($4).
-- The changes are sent if the business has an endpoint for them, else listed only.
insert into stage_change (id, position, business_id, disposition_id, previous_stage, undone, state, due_at, made_at)
select r.id, (select coalesce(max(c.position), 0) from stage_change c where c.business_id = d.business_id)
           + row_number() over (order by r.id),
       d.business_id, d.id, coalesce(s.stage, p.stage, p.kind), $4,
       case when h.business_id is null then 'listed' else 'due' end, case when h.business_id is not null then $5::timestamptz end, $5
from unnest($2::uuid[], $3::uuid[]) as r (id, disposition_id)
join disposition d on d.id = r.disposition_id and (d.undone_at is not null) = $4
left join stage_hook h on h.business_id = d.business_id
left join lateral (
    select o.kind, o.stage, o.stage_id from disposition o
    where o.assignment_id = d.assignment_id and o.id <> d.id and o.undone_at is null
    order by o.happened_at desc, o.id desc limit 1
) p on true
left join pipeline_stage s on s.id = p.stage_id
where d.business_id = $1 and (p.kind, p.stage_id) is distinct from (d.kind, d.stage_id)
    and not exists (
        select from disposition l where l.assignment_id = d.assignment_id and l.undone_at is null
            and (l.happened_at, l.id) > (d.happened_at, d.id))
on conflict (disposition_id, undone) do nothing;
