-- name: find_last
-- The last position of this feed; no row while it is empty.
select last_position from feed where business_id = $1 and mode = $2;

-- name: find_oldest_open
-- The oldest entry that is not acknowledged and still can be: a reader without a position starts there.
select min(f.position)
from feed_event f
join assignment a on a.id = f.assignment_id
where f.business_id = $1 and f.mode = $2 and f.acknowledged_at is null
  and (f.notice_id is not null or a.state in ('held', 'exposed'));

-- name: list_entries
-- Entries after position $3, in order. Those up to $4 were read before: of these, only the ones still open.
select f.position, f.kind, f.assignment_id, a.lead_id, a.state, f.notice_id
from feed_event f
join assignment a on a.id = f.assignment_id
where f.business_id = $1 and f.mode = $2 and f.position > $3
  and (f.position > $4 or (f.acknowledged_at is null and (f.notice_id is not null or a.state in ('held', 'exposed'))))
order by f.position
limit $5;

-- name: expose
-- Committed before the event is sent, or the contact is shown to a member; the same as `expose` of delivery. $3 is the
-- reader's business and $4 the id of its key or member. $8 is the channel: a feed's leads are read there, an inbox's and those
-- announced by e-mail in the portal. The lead must be held (by the database's clock), its person not withdrawn, and the
-- endpoint active. A concurrent call that waited for the lock finds it exposed. No row: it is neither.
with locked as (
    select a.state, a.endpoint_id, a.attempts, l.revision,
           a.hold_until > clock_timestamp() and e.state = 'active' and not is_withdrawn(l.id) as holdable
    from lead l join assignment a on a.lead_id = l.id join endpoint e on e.id = a.endpoint_id
    where l.id = $1 and a.id = $2 and a.business_id = $3
      and (e.kind, $8::text) in (('feed', 'feed'), ('inbox', 'portal'), ('email', 'portal'))
    for no key update of l, a
), moved as (
    update lead set state = 'exposed' from locked
    where id = $1 and locked.state = 'held' and locked.holdable
), inserted as (
    insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address, attempt_no,
        exposed_at)
    select $1, $2, $3, $8, endpoint_id, $5, $4, attempts, $6 from locked where state = 'held' and holdable
    returning position
), claimed as (
    update assignment set state = 'exposed', exposed_at = $6, evidence_until = $7, due_at = $7 from locked
    where id = $2 and locked.state = 'held' and locked.holdable
)
select (select position from inserted) as position, revision
from locked where state = 'exposed' or (state = 'held' and holdable);

-- name: close_breaker
-- The feed is read again, so it may be awarded leads at once.
update endpoint set breaker = '{}', breaker_open_until = null
where business_id = $1 and kind = 'feed' and breaker <> '{}';

-- name: list_inbox
-- Leads that wait for a member of this business, newest first, without any contact. A lead is held for 15 minutes at most, so
-- it is among the newest entries; older ones that nobody took are not looked at.
select a.id as assignment_id, a.lead_id, a.subscription_id, a.state, a.mode, a.price_minor, a.currency, a.awarded_at,
       a.hold_until, facts_at(i.id, i.facts, l.revision) as facts
from (
    select assignment_id from feed_event
    where business_id = $1 and mode = $2 and acknowledged_at is null and kind = 'lead.assigned'
    order by position desc limit 200
) f
join assignment a on a.id = f.assignment_id
join endpoint e on e.id = a.endpoint_id and e.kind in ('inbox', 'email')
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
where a.state = 'exposed' or (a.state = 'held' and a.hold_until > clock_timestamp() and not is_withdrawn(a.lead_id))
order by a.awarded_at desc, a.id;

-- name: find_inbox_lead
-- One lead that is waiting for a member of this business, or that was.
select a.id as assignment_id, a.lead_id, a.subscription_id, a.state, a.mode, a.price_minor, a.currency, a.awarded_at,
       a.hold_until, facts_at(i.id, i.facts, l.revision) as facts
from assignment a
join endpoint e on e.id = a.endpoint_id and e.kind in ('inbox', 'email')
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
where a.id = $1 and a.business_id = $2 and a.mode = $3;

-- name: close_inbox_breaker
-- Somebody looks at the inbox again, so it may be awarded leads at once.
update endpoint set breaker = '{}', breaker_open_until = null
where business_id = $1 and kind = 'inbox' and breaker <> '{}';

-- name: list_unacknowledged
-- Entries up to position $3 that the reader was sent and has not acknowledged.
select f.position, f.kind, f.assignment_id, a.lead_id, a.state, f.notice_id
from feed_event f
join assignment a on a.id = f.assignment_id
where f.business_id = $1 and f.mode = $2 and f.position <= $3 and f.acknowledged_at is null
  and (f.notice_id is not null or a.state not in ('held', 'released'))
order by f.position
limit $4;

-- name: find_shown
-- The assignment by which this business was shown the lead.
select a.id
from assignment a join exposure e on (e.lead_id, e.assignment_id) = (a.lead_id, a.id)
where a.lead_id = $1 and a.business_id = $2 and a.mode = $3;

-- name: mark_acknowledged
-- Only the first acknowledgement is recorded.
update feed_event set acknowledged_at = $2
where assignment_id = $1 and kind = 'lead.assigned' and acknowledged_at is null
returning position;

-- name: mark_notice_acknowledged
-- Only the first acknowledgement is recorded.
update feed_event set acknowledged_at = $2 where notice_id = $1 and acknowledged_at is null returning position;

-- name: list_lasts
-- The last position of each feed that has readers in this process.
select f.business_id, f.mode, f.last_position
from feed f join unnest($1::uuid[], $2::text[]) as reading (business_id, mode)
    on (f.business_id, f.mode) = (reading.business_id, reading.mode);

-- name: list_ended
-- The keys with open streams that are no longer valid.
select k.id
from api_key k join business b on b.id = k.owner_id
where k.id = any($1::text[]) and (k.revoked_at is not null or k.expires_at <= $2 or b.state <> 'active');

-- name: insert_ticket
insert into feed_ticket (ticket_hash, key_id, expires_at) values ($1, $2, $3);

-- name: take_ticket
-- Read and deleted in one statement, so that a ticket opens only one stream.
delete from feed_ticket where ticket_hash = $1 returning key_id, expires_at;

-- name: forget_tickets
delete from feed_ticket where expires_at < $1;
