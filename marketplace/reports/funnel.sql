-- name: list_failures
-- First failing rule of each of these subscriptions in the decisions on these leads, the most frequent first.
select c.subscription_id, c.failures -> 0 ->> 'rule' as rule, count(*) as leads
from decision d
cross join lateral jsonb_to_recordset(d.candidates) as c (subscription_id uuid, failures jsonb)
where d.lead_id = any($1) and d.outcome in ('held', 'unsold') and c.subscription_id = any($2)
  and jsonb_array_length(c.failures) > 0 and c.failures -> 0 ->> 'rule' <> 'own_customer'
group by c.subscription_id, c.failures -> 0 ->> 'rule'
order by c.subscription_id, leads desc, rule;

-- name: list_last_awards
-- Last award of each of these subscriptions.
select asked.subscription_id, last.awarded_at
from unnest($1::uuid[]) as asked (subscription_id)
join lateral (
    select a.awarded_at from assignment a where a.subscription_id = asked.subscription_id
    order by a.awarded_at desc limit 1
) last on true;
