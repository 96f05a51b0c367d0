-- name: take_inquiry
-- Stores the inquiry, its lead, contact and person window in one call, or nothing: see migrations/0073_same_person.sql.
-- Nothing either for a person who is on a list of people who must not be contacted.
select case when is_listed($20) then 'suppressed' else take_inquiry($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21) end;

-- name: mark_consent_end
update lead set consent_until = $2 where id = $1;

-- name: insert_turned_away
-- A duplicate or a suppressed person has an outcome, and so a row, but no contact data. A duplicate may have joined lead $14.
with taken as (
    insert into inquiry (id, provider_id, vertical_id, mode, provider_reference, idempotency_key, request_sha256,
        received_as, facts, consent_sha256, consent_given_at, submitted_at, received_at, joined_lead_id, joined_touch)
    values ($1, $2, $3, $4, $5, $6, $7, $13, $8, $9, $10, $11, $12, $14, $15)
)
insert into lead (id, provider_id, vertical_id, mode, state, reason, received_at, settled_at)
values ($1, $2, $3, $4, $13, $16, $12, $12);

-- name: insert_claim
-- The claim of the provider of inquiry $1 to a part of the payout of lead $2, which it joined before any exposure.
insert into payout_claim (inquiry_id, lead_id, provider_id, vertical_id, mode, revision)
select id, $2, provider_id, vertical_id, mode, $3 from inquiry where id = $1;

-- name: find_earlier
-- The first inquiry under the same key or reference; one with the same key counts before one with the reference. The
-- reason is that of an inquiry which became no lead.
select id, mode, received_as, received_at, request_sha256,
       coalesce(idempotency_key = $3, false) as same_key,
       case when received_as <> 'received' then (select l.reason from lead l where l.id = inquiry.id) end as reason
from inquiry
where provider_id = $1 and mode = $2 and (idempotency_key = $3 or provider_reference = $4)
order by same_key desc
limit 1;

-- name: find_status
-- Status of a provider's own inquiry: state, reason, times, payout, and the finding of a return. Never the business. The
-- payout is the provider's own: of a lead, or a share in that of the lead which the inquiry joined.
select l.id, l.state, l.reason, l.mode, v.slug as vertical, i.provider_reference, i.submitted_at, l.received_at,
       l.qualified_at, l.due_at, a.awarded_at, a.exposed_at,
       case when a.evidence is not null then a.settled_at end as acknowledged_at, l.settled_at,
       t.amount_minor - coalesce(c.amount_minor, 0) as payout_minor, t.currency as payout_currency,
       r.state as return_state, r.reason as return_reason, r.finding, r.requested_at, r.judged_at
from lead l
join inquiry i on i.id = l.id
join vertical v on v.id = l.vertical_id
left join assignment a on a.lead_id = l.id and a.state <> 'released'
left join payout_share s on s.inquiry_id = l.id
left join transfer t on t.assignment_id = coalesce(a.id, s.assignment_id) and t.kind = 'payout' and t.provider_id = l.provider_id
left join transfer c on c.assignment_id = t.assignment_id and c.kind = 'claw_back' and c.provider_id = l.provider_id
left join return_request r on r.assignment_id = a.id
where l.id = $1 and l.provider_id = $2 and l.mode = $3;

-- name: find_nurtured
-- A waiting lead of this provider, with its facts after its journey, to say what would unlock it.
select l.id as lead_id, l.state, l.received_at, l.provider_id, l.vertical_id,
       facts_at(l.id, i.facts, l.revision) as facts, (select version from catalog_version) as catalog_version
from lead l join inquiry i on i.id = l.id
where l.id = $1 and l.provider_id = $2 and l.mode = $3 and l.state = 'nurturing';

-- name: find_state
-- Read in a loop while a provider waits for the outcome, so by primary key alone.
select state from lead where id = $1;

-- name: list_statuses
-- One page of find_status, newest first: ids are in order of time.
select l.id, l.state, l.reason, l.mode, v.slug as vertical, i.provider_reference, i.submitted_at, l.received_at,
       l.qualified_at, l.due_at, a.awarded_at, a.exposed_at,
       case when a.evidence is not null then a.settled_at end as acknowledged_at, l.settled_at,
       t.amount_minor - coalesce(c.amount_minor, 0) as payout_minor, t.currency as payout_currency,
       r.state as return_state, r.reason as return_reason, r.finding, r.requested_at, r.judged_at
from lead l
join inquiry i on i.id = l.id
join vertical v on v.id = l.vertical_id
left join assignment a on a.lead_id = l.id and a.state <> 'released'
left join payout_share s on s.inquiry_id = l.id
left join transfer t on t.assignment_id = coalesce(a.id, s.assignment_id) and t.kind = 'payout' and t.provider_id = l.provider_id
left join transfer c on c.assignment_id = t.assignment_id and c.kind = 'claw_back' and c.provider_id = l.provider_id
left join return_request r on r.assignment_id = a.id
where l.provider_id = $1 and l.mode = $2 and ($3::uuid is null or l.id < $3)
order by l.id desc
limit $4;
