-- name: give_back
-- Ends a waiting lead of the provider and frees its person: see migrations/0062_give_back.sql.
select give_back($1, $2, $3, $4);

-- name: list_nurtured
-- Leads that wait in the lane, newest first, with the facts after their journey. A provider passes its id as $1, an operator
-- null; $3 is a vertical or null, $4 what they wait for or null, $5 the last id of the page before. lead_due_soon finds the
-- leads that wait.
select l.id as lead_id, l.state, l.reason, l.mode, l.received_at, l.due_at, l.provider_id, l.vertical_id,
       v.slug as vertical, p.name as provider, i.provider_reference, facts_at(l.id, i.facts, l.revision) as facts,
       (select min(d.made_at) from decision d where d.lead_id = l.id and d.outcome = 'nurturing') as nurtured_at,
       l.waits_for
from lead l
join inquiry i on i.id = l.id
join vertical v on v.id = l.vertical_id
join provider p on p.id = l.provider_id
where l.due_at is not null and l.state = 'nurturing' and ($1::uuid is null or l.provider_id = $1) and l.mode = $2
  and ($3::text is null or v.slug = $3) and ($4::text is null or $4 = any(l.waits_for))
  and ($5::uuid is null or l.id < $5)
order by l.id desc
limit $6;
