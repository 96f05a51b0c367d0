-- name: find_journey
-- A lead of this provider with the facts of its inquiry and all entries of its journey, read without a lock.
select l.id as lead_id, l.vertical_id, l.mode, l.state, l.reason, l.received_at, l.settled_at, l.revision, i.facts,
       facts_at(l.id, '{}', l.revision) -> 'journey' as journey, (select version from catalog_version) as catalog_version
from lead l join inquiry i on i.id = l.id
where l.id = $1 and l.provider_id = $2 and l.mode = $3;

-- name: list_entries
-- All entries of the journey of a lead, whoever it belongs to: the caller has checked who asks.
select facts_at(id, '{}', revision) -> 'journey' as journey from lead where id = $1;

-- name: find_correction
select revision, request_sha256 from correction where lead_id = $1 and idempotency_key = $2;

-- name: revise_lead
-- Touches and a correction, the lead's new revision and its new state, or nothing: see migrations/0060_journey.sql.
select revise_lead($1::jsonb);
