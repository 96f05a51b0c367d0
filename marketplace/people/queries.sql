-- name: list_leads
-- The leads that have one of the keyed hashes, newest first, with the business that was shown each.
select l.id as lead_id, l.mode, v.slug as vertical, l.provider_id, p.name as provider_name, l.received_at, l.state,
       l.reason, x.business_id, b.name as business_name, x.exposed_at, x.channel
from (select distinct lead_id from person_key where key = any($1::bytea[])) k
join lead l on l.id = k.lead_id
join vertical v on v.id = l.vertical_id
join provider p on p.id = l.provider_id
left join exposure x on x.lead_id = l.id
left join business b on b.id = x.business_id
order by l.received_at desc, l.id desc
limit $2;

-- name: list_suppressions
select reason, source, created_at from suppression where key = any($1::bytea[]) order by created_at;

-- name: list_memberships
-- The lists that have one of the keyed hashes, each with the time of the import that the person came with.
select l.name, l.kind, b.name as business, min(i.ended_at) as since
from unnest($1::bytea[]) as mine (key)
join list_member m on m.key = substring(mine.key for 16) and m.until is null
join contact_list l on l.number = m.list and l.removed_at is null
left join business b on b.id = l.business_id
left join list_import i on i.list_id = l.id and i.version = m.since
group by l.id, b.name
order by l.kind, l.name, l.id;

-- name: find_inquiry
select provider_reference, submitted_at, received_at, consent_given_at, contact_fields, facts from inquiry where id = $1;

-- name: list_joined
-- Inquiries of the same person that joined the lead, whoever sent them. They had no contact fields that are kept.
select p.name as provider, i.provider_reference, i.submitted_at, i.received_at, i.consent_given_at, i.facts
from inquiry i join provider p on p.id = i.provider_id
where i.joined_lead_id = $1 order by i.received_at, i.id;

-- name: list_touches
select kind, at, detail, recorded_at from touch where lead_id = $1 order by at, recorded_at;

-- name: list_decisions
select made_at, outcome, reason, vertical_version from decision where lead_id = $1 order by made_at;

-- name: list_dispositions
select business_id, kind, reason, note, happened_at, recorded_at from disposition
where lead_id = $1 and undone_at is null order by recorded_at;

-- name: list_reveals
-- When contact data was shown to an operator.
select at, actor, detail ->> 'reason' as reason from audit where action = 'contact.reveal' and object = $1 order by at;
