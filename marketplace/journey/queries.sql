-- name: find_journey
-- A lead of this provider with the facts of its inquiry and all entries of its journey, read without a lock.
select l.id as lead_id, l.vertical_id, l.mode, l.state, l.reason, l.received_at, l.settled_at, l.revision, i.facts, i.contact_fields,
       facts_at(l.id, '{}', l.revision) -> 'journey' as journey, (select version from catalog_version) as catalog_version
from lead l join inquiry i on i.id = l.id
where l.id = $1 and l.provider_id = $2 and l.mode = $3;

-- name: find_lead_of_person
-- The lead that has the window of a person: $1 is the vertical, $2 the keys that no second lead takes, $3 those that others may
-- have as well, $4 to $5 the time that the window of another lead would take. No row if two leads have it, such as by phone number and by e-mail address, or if the person
-- was erased.
with person as (
    select distinct w.lead_id
    from unnest($2::bytea[] || $3::bytea[]) as asked (key)
    join person_window w on w.key = asked.key and w.vertical_id = $1 and w.during && tstzrange($4, $5)
        and (upper_inf(w.scope) or asked.key <> all($3))
)
select l.id as lead_id, l.vertical_id, l.mode, l.state, l.reason, l.received_at, l.settled_at, l.revision, i.facts, i.contact_fields,
       facts_at(l.id, '{}', l.revision) -> 'journey' as journey, (select version from catalog_version) as catalog_version
from person
join lead l on l.id = person.lead_id
join inquiry i on i.id = l.id
where (select count(*) from person) = 1 and not exists (select from erasure e where e.lead_id = l.id);

-- name: is_erased
select exists (select from erasure where lead_id = $1);

-- name: list_joined_touches
-- Touches of a lead that are inquiries of other providers than $2.
select joined_touch from inquiry where joined_lead_id = $1 and provider_id <> $2;

-- name: list_entries
-- All entries of the journey of a lead, whoever it belongs to: the caller has checked who asks.
select facts_at(id, '{}', revision) -> 'journey' as journey from lead where id = $1;

-- name: list_person_keys
select key from person_key where lead_id = $1;

-- name: find_correction
select revision, request_sha256 from correction where lead_id = $1 and idempotency_key = $2;

-- name: lock_held
-- The lead as it was read: held by a business that has not been shown it. Its release and its revision follow.
select id from lead where id = $1 and state = 'held' and revision = $2 for no key update;

-- name: revise_lead
-- Touches and a correction, the lead's new revision and its new state, or nothing: see migrations/0060_journey.sql.
select revise_lead($1::jsonb);
