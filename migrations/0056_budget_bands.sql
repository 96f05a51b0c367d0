-- The comparison of leads that were contacted soon and later takes leads with like budgets together, and leads that were held
-- back at random are compared with those that were not.

-- Doublings of a person's budget in minor units, from 1; 0 if no budget was stated.
create function budget_band(minor bigint) returns int language sql immutable parallel safe as $$
    select case when minor > 0 then floor(log(minor::float8) / log(2::float8))::int + 1 else 0 end
$$;

-- An exclusive lead that was paid for and what became of it, read from the truth: the charge less its refund, and the
-- dispositions that were not undone. The last word decides between won and lost; a first contact stays one. Its clock begins
-- when the business was shown the lead. The budget is what the person stated, in minor units. `delayed`: whether the lead was held
-- back at random; null where its vertical holds none back.
create or replace view exclusive_outcome as
select a.id as assignment_id, a.business_id, l.vertical_id,
       case when shares_codes(i.facts -> 'place' ->> 'country', (
           select coalesce(d.definition ->> 'country', 'US')
           from vertical v join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
           where v.id = l.vertical_id)) then i.facts -> 'place' ->> 'postal_code' end as postal_code,
       a.exposed_at as received_at,
       charge.amount_minor - coalesce(refund.amount_minor, 0) as cost_minor, a.currency,
       told.contacted_at,
       case when told.qualified then true when final.kind is not null then false end as qualified,
       case when final.kind = 'won' then final.happened_at end as won_at,
       case when final.kind = 'won' then final.value_minor end as won_minor,
       case when final.kind <> 'won' then final.happened_at end as lost_at,
       coalesce(told.demo, false) as demo,
       (i.facts -> 'budget' ->> 'minor')::bigint as budget_minor,
       (select case when (terms.definition ->> 'delay_per_mille')::int > 0 then exists (
                   select from decision h where h.lead_id = a.lead_id and h.reason = 'delayed'
                       and h.made_at > a.awarded_at - interval '1 day' and h.made_at <= a.awarded_at) end
        from decision w
        join vertical_version terms on (terms.vertical_id, terms.version) = (l.vertical_id, w.vertical_version)
        where w.assignment_id = a.id and w.lead_id = a.lead_id and w.made_at = a.awarded_at) as delayed
from assignment a
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
join transfer charge on charge.assignment_id = a.id and charge.kind = 'capture'
left join transfer refund on refund.assignment_id = a.id and refund.kind = 'refund'
left join lateral (
    select min(d.happened_at) filter (where d.kind in ('contacted', 'qualified', 'quoted', 'won')) as contacted_at,
           bool_or(d.kind in ('qualified', 'quoted', 'won')) as qualified,
           bool_or(d.source = 'demo') as demo
    from disposition d where d.assignment_id = a.id and d.undone_at is null
) told on true
left join lateral (
    select d.kind, d.happened_at, d.value_minor from disposition d
    where d.assignment_id = a.id and d.undone_at is null and d.kind in ('won', 'lost', 'unreachable')
    order by d.happened_at desc, d.id desc
    limit 1
) final on true
where a.mode = 'live';

-- The same in big-endian numbers of fixed width, which marketplace/reports/roi.py reads: whose and what it was (business,
-- vertical, area), when it was received (seconds since 1970), what it cost, the seconds until it was contacted and until
-- it was won, what the win was worth, and in bits what was told: qualified 1, not qualified 2, ended 4, made up to look
-- at 8, could have been held back at random 32, was held back 64; from 256 on the band of the budget.
create or replace view exclusive_record as
select o.assignment_id, o.business_id, o.currency, o.received_at,
       int4send(b.number) || int4send(v.number) || int4send(area_number(o.postal_code))
           || int8send(date_part('epoch', o.received_at)::bigint) || int8send(o.cost_minor)
           || int4send(seconds_after(o.received_at, o.contacted_at)) || int4send(seconds_after(o.received_at, o.won_at))
           || int8send(coalesce(o.won_minor, 0))
           || int4send(case o.qualified when true then 1 when false then 2 else 0 end
               + case when o.won_at is null and o.lost_at is null then 0 else 4 end
               + case when o.demo then 8 else 0 end + case o.delayed when true then 64 when false then 32 else 0 end
               + 256 * budget_band(o.budget_minor)) as record
from exclusive_outcome o join business b on b.id = o.business_id join vertical v on v.id = o.vertical_id;

-- What was kept of such leads: the band is the last byte but one.
update kept_outcome k set record = set_byte(k.record, 46, budget_band((i.facts -> 'budget' ->> 'minor')::bigint))
from assignment a join inquiry i on i.id = a.lead_id
where a.id = k.assignment_id and (i.facts -> 'budget' ->> 'minor')::bigint > 0;

update kept_outcome_run r set records = now.records
from (
    select currency, number / 128 as run, string_agg(record, '' order by number) as records
    from kept_outcome group by currency, number / 128
) now
where (r.currency, r.run) = (now.currency, now.run) and r.records <> now.records;
