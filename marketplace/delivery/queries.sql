-- name: find_delivery
-- Everything for one attempt except the contact, which needs an exposure first, with the facts after the whole journey; and the time, for its deadlines.
select a.id as assignment_id, a.lead_id, a.business_id, a.subscription_id, a.subscription_version, a.endpoint_id,
       a.provider_id, i.vertical_id, a.mode, a.state, a.price_minor, a.payout_minor, a.currency, a.attempts,
       a.awarded_at, a.hold_until, a.exposed_at, a.evidence_until,
       e.kind as endpoint_kind, e.url, e.state as endpoint_state, e.secret, e.previous_secret, e.previous_until, e.breaker,
       e.contract - 'samples' as contract, e.answer_shapes, e.mapping, e.credentials,
       exists (select from answer_alarm o
               where o.endpoint_id = e.id and o.kind = 'not_understood' and o.closed_at is null) as alarmed,
       facts_at(i.id, i.facts, l.revision) as facts, l.revision, d.verdict, is_withdrawn(a.lead_id) as withdrawn,
       w.persons, w.protected_until,
       (select position from exposure where lead_id = a.lead_id) as exposure_position,
       case when i.facts #> '{consent,certificates}' is not null then (
            select jsonb_agg(jsonb_build_object('kind', c.kind, 'state', c.state, 'settled_at', c.settled_at,
                'reason', c.reason, 'expires_at', c.expires_at, 'contact_corrected',
                contact_corrected(c.lead_id, c.compared_revision, c.phone_matches is not null)) order by c.kind)
            from certificate c where c.lead_id = a.lead_id) end as certificates,
       clock_timestamp() as read_at
from assignment a
join endpoint e on e.id = a.endpoint_id
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
join decision d on d.assignment_id = a.id and d.lead_id = a.lead_id and d.made_at = a.awarded_at
cross join lateral (
    select coalesce(array_agg(key), '{}') as persons, max(upper(during)) as protected_until
    from person_window where lead_id = a.lead_id
) w
where a.id = $1;

-- name: find_mail_target
-- Read for endpoints of kind email only, so that other deliveries do not pay for it.
select t.address, t.mode, t.with_adf, b.name as business_name, d.definition ->> 'name' as vertical_name,
       coalesce(d.definition -> 'needs', '{}') as needs
from assignment a
join mail_target t on t.endpoint_id = a.endpoint_id
join business b on b.id = a.business_id
join inquiry i on i.id = a.lead_id
join vertical v on v.id = i.vertical_id
join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
where a.id = $1;

-- name: find_claim
-- The columns that ending an assignment needs; none has to be decoded.
select id as assignment_id, lead_id, business_id, subscription_id, provider_id, mode, price_minor, payout_minor,
       currency, evidence_until, clock_timestamp() as read_at
from assignment where id = $1;

-- name: lock_delivery
-- Every change of state locks the lead first, then its assignment.
select a.state
from lead l join assignment a on a.lead_id = l.id
where l.id = $1 and a.id = $2
for no key update of l, a;

-- name: expose
-- Committed before the first byte of the contact is sent: afterwards no other business can get this lead. One statement
-- locks the lead, checks that it is still held (by the database's clock) and that its person has not withdrawn, inserts
-- the exposure and changes both states. A retry finds it exposed and writes nothing. No row: it is neither. The
-- revision is that of the locked lead, because an inquiry may have joined it since it was read.
with locked as (
    select a.state, l.revision, a.hold_until > clock_timestamp() and not is_withdrawn(l.id) as holdable
    from lead l join assignment a on a.lead_id = l.id
    where l.id = $1 and a.id = $2
    for no key update of l, a
), moved as (
    update lead set state = 'exposed' from locked
    where id = $1 and locked.state = 'held' and locked.holdable
), inserted as (
    insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address, tls_sha256,
        attempt_no, exposed_at)
    select $1, $2, $3, $11, $4, $5, $6, $7, $8, $9 from locked where locked.state = 'held' and locked.holdable
    returning position
), claimed as (
    update assignment set state = 'exposed', exposed_at = $9, evidence_until = $10 from locked
    where id = $2 and locked.state = 'held' and locked.holdable
)
select coalesce((select position from inserted), (select position from exposure where lead_id = $1)) as position,
       revision
from locked where state = 'exposed' or (state = 'held' and holdable);

-- name: read_contact
select sealed as box, wrapped, master_key_id, corrections from read_contact($1, $2);

-- name: settle_accepted
-- The usual end of a delivery, in one statement: the attempt, both changes of state, the capture and the payout.
-- Locks lead and assignment, then the wallet. An assignment that is no longer exposed keeps its outcome: late evidence
-- is recorded and nobody is charged. A test lead ($28 false) moves no money.
with locked as (
    select a.state
    from lead l join assignment a on a.lead_id = l.id
    where l.id = $3 and a.id = $2
    for no key update of l, a
), tried as (
    insert into attempt (id, assignment_id, lead_id, business_id, endpoint_id, attempt_no, started_at, outcome, reason,
        status, dns_ms, connect_ms, tls_ms, expose_ms, first_byte_ms, total_ms, address, body_sha256, answer_reference,
        answer_price)
    select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20 from locked
), moved as (
    update lead set state = 'delivered', reason = $9, settled_at = $21 from locked
    where id = $3 and locked.state = 'exposed'
), settled as (
    update assignment set state = 'delivered', reason = $9, evidence = 'answer', settled_at = $21, due_at = null
    from locked where id = $2 and locked.state = 'exposed'
), charged as (
    insert into transfer (id, kind, amount_minor, currency, business_id, provider_id, assignment_id, made_at)
    select booked.id, booked.kind, booked.amount_minor, $24, booked.business_id, booked.provider_id, $2, $21
    from locked, (values
        ($22::uuid, 'capture', $25::bigint, $4, null), ($23, 'payout', $26::bigint, null, $27::uuid)
    ) as booked (id, kind, amount_minor, business_id, provider_id)
    where locked.state = 'exposed' and $28 and booked.amount_minor > 0
), paid as (
    update wallet set held_minor = held_minor - $25 from locked
    where business_id = $4 and locked.state = 'exposed' and $28
)
select state from locked;

-- name: mark_settled
-- The final state: delivered (with its evidence), refused or lapsed. The caller holds the lock and has checked the state.
with moved as (
    update lead set state = $3, settled_at = $6, reason = $4 where id = $1
)
update assignment set state = $3, reason = $4, evidence = $5, settled_at = $6, due_at = null where id = $2;

-- name: mark_released
-- The only way for a lead to reach another business. Once there is an exposure, its foreign key refuses this update.
with moved as (
    update lead set state = 'prospect', due_at = $4, reason = $3 where id = $1
)
update assignment set state = 'released', reason = $3, settled_at = $5, due_at = null where id = $2
returning subscription_id, hour_at, day_at, week_at, month_at;

-- name: lock_subscription
select id from subscription where id = $1 for no key update;

-- name: find_quota
-- The terms of the subscription's vertical, and the time from which its leads count.
select d.definition, s.quota_since, s.quota_before, s.state
from subscription s
join vertical v on v.id = s.vertical_id
join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
where s.id = $1;

-- name: count_quota
-- Leads awarded since $2: those refused; those lapsed or exposed before $3, except where the person has withdrawn, since
-- nothing could be sent then; and those still undecided. The number shown is the sum of the caps' day windows, which is
-- cheaper than counting the assignments.
select count(*) filter (where a.state = 'refused') as refused,
       count(*) filter (where (a.state = 'lapsed' or (a.state = 'exposed' and a.exposed_at <= $3))
           and not is_withdrawn(a.lead_id)) as unacknowledged,
       count(*) filter (where a.state = 'exposed' and a.exposed_at > $3) as undecided,
       (select coalesce(sum(u.used_count), 0) from cap_usage u
        where u.subscription_id = $1 and u.cap_window = 'day' and u.starts_at > $2::timestamptz - interval '25 hours') as used
from assignment a
where a.subscription_id = $1 and a.awarded_at >= $2 and a.mode = 'live' and a.evidence is null
    and a.state in ('exposed', 'refused', 'lapsed');

-- name: suspend
update subscription set state = 'suspended', suspended_for = $2, suspended_at = $3, suspended_counted = $4, suspended_shown = $5
where id = $1 and state in ('active', 'paused');

-- name: lower_usage
-- The windows in which the award was counted, as stored with it: by now another hour or day may have begun.
update cap_usage set used_count = used_count - 1, used_minor = used_minor - $2
where subscription_id = $1 and (cap_window, starts_at) in (
    ('hour', $3), ('day', $4), ('week', $5), ('month', $6), ('total', 'epoch'));

-- name: await_reader
-- Placed in the feed, once, and due again at the end of its hold, or of its time to be acknowledged.
with waiting as (
    update assignment set due_at = case state when 'held' then hold_until else evidence_until end
    where id = $1 and state in ('held', 'exposed')
    returning id
)
select place_in_feed(id, 'lead.assigned', $2) from waiting;

-- name: mark_due
update assignment set due_at = $2, reason = $3 where id = $1;

-- name: insert_attempt
-- Under the lead's lock. An answer that arrives after the lead was erased is not kept: it might repeat personal data.
insert into attempt (id, assignment_id, lead_id, business_id, endpoint_id, attempt_no, started_at, outcome, reason,
    status, dns_ms, connect_ms, tls_ms, expose_ms, first_byte_ms, total_ms, address, body_sha256, answer_reference,
    answer_price, answer_excerpt)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
    case when not exists (select from erasure where lead_id = $3) then $21 end);

-- name: raise_answer_alarm
-- The open alarm of this kind at the endpoint counts the answer and shows it; without one, a new alarm is opened.
insert into answer_alarm (id, endpoint_id, business_id, kind, opened_at, last_at, lead_id, status, content_type, excerpt)
values ($1, $2, $3, $4, $5, $5, $6, $7, $8, case when not exists (select from erasure where lead_id = $6) then $9 end)
on conflict (endpoint_id, kind) where closed_at is null do update set answers = answer_alarm.answers + 1,
    last_at = excluded.last_at, lead_id = excluded.lead_id, status = excluded.status,
    content_type = excluded.content_type, excerpt = excluded.excerpt;

-- name: close_answer_alarm
-- The contract covers the server's answers again.
update answer_alarm set closed_at = $2, closed_for = 'understood'
where endpoint_id = $1 and kind = 'not_understood' and closed_at is null;

-- name: insert_answer_shape
-- The last twenty shapes are stored.
update endpoint set answer_shapes = (answer_shapes || $2::text)[greatest(1, cardinality(answer_shapes) - 18):]
where id = $1 and not $2 = any(answer_shapes);

-- name: lock_breaker
select breaker, state from endpoint where id = $1 for no key update;

-- name: save_breaker
update endpoint set breaker = $2, breaker_open_until = $3 where id = $1;

-- name: disable_endpoint
update endpoint set state = 'disabled' where id = $1 and state = 'active';

-- name: claim_due
-- Retries and deadlines that are due; each is leased to one worker, and is due again if the lease runs out.
update assignment set due_at = clock_timestamp() + $1, attempts = attempts + 1
where id in (
    select id from assignment
    where state in ('held', 'exposed') and due_at <= (select clock_timestamp())
    order by due_at for update skip locked limit $2)
returning id, lead_id;
