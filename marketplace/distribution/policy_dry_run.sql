-- name: list_past_leads
-- The newest live leads of a vertical that have been decided about, with the facts after the whole journey of each, among the
-- newest 40,000 leads of all verticals: the limit keeps a vertical with few leads from reading the whole table.
select l.id, facts_at(l.id, i.facts, l.revision) as facts, l.received_at, l.state,
       (select a.price_minor from assignment a where a.lead_id = l.id and a.live and a.state = 'delivered') as sold_minor
from (select id, vertical_id, received_at, mode, state, revision from lead order by id desc limit 40000) l
join inquiry i on i.id = l.id
where l.vertical_id = $1 and l.mode = 'live' and l.received_at >= $2 and l.state not in ('duplicate', 'suppressed')
order by l.id desc
limit $3;

-- name: list_past_awards
-- The last award of each of these leads: the winner, and the eligible candidates in their order. Candidates that failed
-- a rule are left out of the answer: there may be two hundred of them.
select d.lead_id, d.made_at, d.strategy, d.subscription_id as winner, (
    select coalesce(jsonb_agg(jsonb_build_object(
        'subscription_id', c -> 'subscription_id', 'business_id', c -> 'business_id', 'version', c -> 'version',
        'price_minor', c -> 'price_minor') order by (c ->> 'position')::int), '[]')
    from jsonb_array_elements(d.candidates) as c
    where c ? 'position' and coalesce(c -> 'failures' -> 0 ->> 'rule', 'outranked') = 'outranked'
) as candidates
from unnest($1::uuid[]) as l (id)
cross join lateral (
    select lead_id, made_at, strategy, subscription_id, candidates from decision
    where lead_id = l.id and outcome = 'held' order by made_at desc limit 1
) d
order by d.made_at, d.lead_id;
