-- name: count_leads
-- Live leads of a vertical in a time: those that can be decided about again, and the others by the reason why not. The
-- bound $4 on the id keeps the search to the time.
select count(*) filter (where kind = 'replayable')::int as replayable,
       count(*) filter (where kind = 'repeated')::int as repeated,
       count(*) filter (where kind = 'suppressed')::int as suppressed,
       count(*) filter (where kind = 'erased')::int as erased
from (
    select case when e.lead_id is not null then 'erased'
                when l.state = 'duplicate' then 'repeated'
                when l.state = 'suppressed' or l.reason = 'withdrawn' then 'suppressed'
                else 'replayable' end as kind
    from lead l left join erasure e on e.lead_id = l.id
    where l.vertical_id = $1 and l.mode = 'live' and l.received_at >= $2 and l.received_at < $3 and l.id >= $4
) k;

-- name: list_leads
-- The next of these leads after $4, with the business that got each one, and those that could not be reached for it. A lead that
-- touches or corrections have revised also has its journey, and the time of the first decision by each revision.
select l.id, l.provider_id, i.facts, l.received_at, a.business_id,
       case when l.revision > 0 then facts_at(l.id, '{}', l.revision) -> 'journey' end as journey,
       case when l.revision > 0 then (
           select jsonb_agg(jsonb_build_object('revision', d.revision, 'at', d.at) order by d.at)
           from (select revision, min(made_at) as at from decision
                 where lead_id = l.id and made_at >= l.received_at - interval '1 hour' group by revision) d) end as decided,
       coalesce((select o.won_at is not null from exclusive_outcome o where o.assignment_id = a.id), false) as won,
       array(select r.business_id from assignment r
             where r.lead_id = l.id and r.state = 'released' and r.reason <> 'corrected') as unreachable
from lead l
join inquiry i on i.id = l.id
left join assignment a on a.lead_id = l.id and a.live
where l.vertical_id = $1 and l.mode = 'live' and l.received_at >= $2 and l.received_at < $3 and l.id > $4
    and l.state not in ('duplicate', 'suppressed') and l.reason is distinct from 'withdrawn'
    and not exists (select from erasure e where e.lead_id = l.id)
order by l.id
limit $5;

-- name: list_movements
-- What came into the wallets of these businesses and left them in a time, apart from the sales that are simulated: those
-- of leads that are listed. Money of a lead that was refused, lapsed or was given back comes back when it did in fact.
select t.business_id, t.made_at,
       case when t.kind in ('hold', 'withdrawal') then -t.amount_minor else t.amount_minor end as amount_minor
from transfer t
left join assignment a on a.id = t.assignment_id
left join lead l on l.id = a.lead_id
where t.business_id = any($1::uuid[]) and t.made_at >= $2 and t.made_at < $3 and t.id >= $5
    and t.kind in ('top_up', 'withdrawal', 'hold', 'release', 'refund')
    and not (
        l.vertical_id is not distinct from $4 and l.received_at >= $2 and l.received_at < $3
        and (t.kind = 'hold' or (t.kind = 'release' and a.state = 'released'))
        and l.reason is distinct from 'withdrawn' and not exists (select from erasure e where e.lead_id = l.id)
    )
order by t.made_at, t.id;

-- name: list_credits
-- Share credits of a vertical as they stood at $2: the present ones without the changes of the awards made since. A
-- released award counts for nothing.
select c.business_id, (c.credit - coalesce(s.change, 0))::bigint as credit
from share_credit c
left join (
    select change.key::uuid as business_id, sum(change.value::bigint) as change
    from decision d
    join assignment a on a.id = d.assignment_id and a.live and a.mode = 'live'
    join lead l on l.id = d.lead_id and l.vertical_id = $1
    cross join lateral jsonb_each_text(d.credits) as change
    where d.made_at >= $2 and d.credits is not null
    group by change.key
) s on s.business_id = c.business_id
where c.vertical_id = $1 and c.mode = 'live';

-- name: count_versions
-- Versions of the rules published since $2: of the vertical and of its live subscriptions.
select (select count(*) from vertical_version where vertical_id = $1 and made_at >= $2)::int
     + (select count(*) from subscription s
        join subscription_version d on d.subscription_id = s.id and d.made_at >= $2
        where s.vertical_id = $1 and s.mode = 'live')::int;

-- name: list_business_names
select id, name from business where id = any($1::uuid[]);

-- name: list_vertical_history
-- Versions of a vertical that were in force in a time.
select v.version, v.definition, v.made_at
from vertical_version v
where v.vertical_id = $1 and v.made_at < $3
    and not exists (select from vertical_version n
                    where n.vertical_id = v.vertical_id and n.version = v.version + 1 and n.made_at <= $2)
order by v.version;

-- name: list_subscription_history
-- Versions of the live subscriptions of a vertical that were in force in a time, also of those that have ended since.
select s.id, s.business_id, v.version, v.definition, v.made_at, b.seller_names as business_names
from subscription s
join business b on b.id = s.business_id
join subscription_version v on v.subscription_id = s.id
where s.vertical_id = $1 and s.mode = 'live' and v.made_at < $3
    and not exists (select from subscription_version n
                    where n.subscription_id = v.subscription_id and n.version = v.version + 1 and n.made_at <= $2)
order by s.id, v.version;

-- name: list_switches
-- When subscriptions, by their public ids, were paused, resumed, suspended or ended before $2.
select object, at, coalesce(detail ->> 'state', 'suspended') as state
from audit
where object = any($1::text[]) and action in ('subscription.switch', 'subscription.suspend') and at < $2
order by at, id;
