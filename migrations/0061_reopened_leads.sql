-- The time of a lead that was opened again counts from its reopening, not from its receipt weeks before. Everything else in
-- the figures of a lead is as in 0032_background_passes.sql.
create or replace view lead_figure as
select l.id, l.mode, l.received_at, l.state, p.number as provider, v.number as vertical,
       coalesce(b.number, 0) as business, coalesce(s.number, 0) as subscription,
       coalesce(array_position(array['push', 'fetch', 'email', 'feed', 'portal'], e.channel), 0) as channel,
       coalesce(nullif(i.facts ->> 'sub_ids', '{}'), '') as sub_ids,
       reached.step,
       case reached.step
           when 1 then l.state
           when 2 then case l.state when 'rejected' then coalesce(l.reason, 'rejected') when 'received' then 'open'
                                    else l.state end
           when 5 then case l.state when 'refused' then coalesce(a.reason, 'refused') when 'lapsed' then 'lapsed'
                                    when 'unsold' then coalesce(l.reason, 'unreachable') else 'open' end
           when 6 then case when l.state = 'returned' then 'returned' else coalesce(ended.kind, 'no_word') end
           when 7 then case when l.state = 'returned' then 'returned' when ended.kind = 'lost'
                            then coalesce(ended.reason, 'lost') else coalesce(ended.kind, 'open') end
           when 8 then ''
           else case l.state when 'unsold' then coalesce(l.reason, 'unsold') else 'open' end
       end as why,
       coalesce(told.demo, false) as demo,
       1000 * extract(epoch from l.received_at - i.submitted_at) as to_receive,
       case when not decided.nurtured
            then 1000 * extract(epoch from l.qualified_at - coalesce(l.reopened_at, l.received_at)) end as to_qualify,
       1000 * extract(epoch from a.awarded_at - l.qualified_at) as to_award,
       1000 * extract(epoch from a.exposed_at - a.awarded_at) as to_expose,
       1000 * extract(epoch from known.acknowledged_at - a.exposed_at) as to_acknowledge,
       1000 * extract(epoch from told.touched_at - known.acknowledged_at) as to_touch,
       1000 * extract(epoch from told.contacted_at - told.touched_at) as to_contact,
       case a.evidence
           when 'answer' then 1000 * extract(epoch from waited.retried) + waited.answered_ms
           else 1000 * extract(epoch from known.acknowledged_at - a.awarded_at) end as theirs,
       1000 * extract(epoch from known.acknowledged_at - coalesce(l.reopened_at, l.received_at)) as acknowledged
from lead l
cross join lateral (select facts, submitted_at from inquiry where id = l.id limit 1) i
join provider p on p.id = l.provider_id
join vertical v on v.id = l.vertical_id
left join lateral (select * from assignment where lead_id = l.id and state <> 'released' limit 1) a on true
left join business b on b.id = a.business_id
left join subscription s on s.id = a.subscription_id
left join lateral (select channel from exposure where lead_id = l.id limit 1) e on true
cross join lateral (select count(*) > 0 as ever from (select from assignment where lead_id = l.id limit 1) r) tried
cross join lateral (select case when a.evidence is not null then a.settled_at end as acknowledged_at) known
cross join lateral (
    select coalesce(bool_or(d.outcome = 'nurturing'), false) as nurtured,
           coalesce(bool_or(jsonb_path_exists(d.candidates, '$[*].position')), false) as had_candidate
    from decision d where d.lead_id = l.id and d.made_at >= l.received_at - interval '1 hour'
) decided
left join lateral (
    select max(t.started_at) - min(t.started_at) as retried,
           (array_agg(coalesce(t.connect_ms, 0) + coalesce(t.tls_ms, 0) + coalesce(t.first_byte_ms, 0)
               order by t.started_at desc))[1] as answered_ms
    from attempt t where t.assignment_id = a.id and t.started_at >= a.awarded_at - interval '1 hour'
) waited on a.evidence = 'answer'
left join lateral (
    select min(greatest(d.happened_at, known.acknowledged_at)) as touched_at,
           min(greatest(d.happened_at, known.acknowledged_at))
               filter (where d.kind in ('contacted', 'qualified', 'quoted', 'won')) as contacted_at,
           bool_or(d.source = 'demo') as demo
    from disposition d where d.assignment_id = a.id and d.undone_at is null
) told on known.acknowledged_at is not null
left join lateral (
    select d.kind, d.reason from disposition d
    where d.assignment_id = a.id and d.undone_at is null and d.kind in ('won', 'lost', 'unreachable')
    order by d.happened_at desc, d.recorded_at desc, d.id desc limit 1
) ended on known.acknowledged_at is not null
cross join lateral (
    select case
        when l.state in ('duplicate', 'suppressed') then 1
        when l.state in ('received', 'rejected', 'nurturing', 'expired') then 2
        when a.id is null and not tried.ever
            then case when l.state = 'unsold' and decided.had_candidate then 4 else 3 end
        when known.acknowledged_at is null then 5
        when told.contacted_at is null then 6
        when ended.kind is distinct from 'won' then 7
        else 8 end as step
) reached;
