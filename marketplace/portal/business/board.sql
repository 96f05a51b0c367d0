-- name: list_cards
-- Leads of the business shown since $3, each in the column of its latest disposition: the stage that this means, that which
-- took it over, or the first of the same kind; 'new' without a disposition, 'other' without any such stage. The counts are
-- of the whole column; its newest $7 leads are returned, after the assignment $6 if the column is $5. $8 and $9 are the
-- seconds after which a lead of a column is stuck; $4 keeps those that are stuck or have an action due. What is shown of a
-- lead is read for the returned ones alone, and since when it is in its column for these or if $4 asks who is stuck.
with placed as (
    select a.id as assignment_id, a.lead_id, a.state, a.exposed_at, a.currency,
           latest.id as disposition_id, latest.kind, latest.stage_id, latest.source, latest.recorded_at,
           latest.value_minor, latest.starts_at, n.note as action, n.due_at as action_due_at,
           case when latest.id is null then 'new'
               when s.id is not null and s.retired_at is null then s.id::text
               else coalesce(m.id::text, f.id::text, 'other') end as column_key
    from assignment a
    left join lateral (
        select d.id, d.kind, d.stage_id, d.source, d.recorded_at, d.value_minor, d.starts_at
        from disposition d where d.assignment_id = a.id and d.undone_at is null
        order by d.happened_at desc, d.id desc limit 1
    ) latest on true
    left join pipeline_stage s on s.id = latest.stage_id
    left join pipeline_stage m on m.id = s.merged_into and m.retired_at is null
    left join lateral (
        select k.id from pipeline_stage k
        where k.business_id = a.business_id and k.kind = latest.kind and k.retired_at is null
        order by k.position limit 1
    ) f on true
    left join next_action n on n.assignment_id = a.id and n.done_at is null
    where a.business_id = $1 and a.mode = $2 and a.state in ('exposed', 'delivered') and a.exposed_at >= $3
), limited as (
    select p.*, $10::timestamptz - make_interval(secs => q.seconds) as stuck_before
    from placed p left join unnest($8::text[], $9::float8[]) as q (column_key, seconds) using (column_key)
), counted as (
    select c.*, count(*) over column_of as column_leads,
           coalesce(sum(c.value_minor) over column_of, 0)::bigint as column_minor
    from limited c
    where case $4::text
        when 'stuck' then c.stuck_before is not null
            and coalesce(entered_stage_at(c.assignment_id, c.kind, c.stage_id), c.exposed_at) < c.stuck_before
        when 'due' then coalesce(c.action_due_at <= $10, false)
        else true end
    window column_of as (partition by c.column_key)
), numbered as (
    select t.*, row_number() over (partition by t.column_key order by t.assignment_id desc) as place
    from counted t
    where ($5::text is null or t.column_key = $5) and ($6::uuid is null or t.assignment_id < $6)
)
select c.assignment_id, c.lead_id, c.state, c.exposed_at, c.currency, v.slug as vertical,
       area.place ->> 'region' as region, area.place ->> 'postal_code' as postal_code, c.disposition_id,
       c.source, c.recorded_at, c.value_minor, c.starts_at, stay.since, c.action, c.action_due_at, c.column_key,
       coalesce(stay.since < c.stuck_before, false) as stuck, c.column_leads, c.column_minor
from numbered c
join inquiry i on i.id = c.lead_id
join vertical v on v.id = i.vertical_id
join lead l on l.id = c.lead_id
left join revised_facts r on r.lead_id = l.id and l.revision > 0
cross join lateral (select coalesce(r.place, i.facts -> 'place') as place) area
cross join lateral (
    select coalesce(entered_stage_at(c.assignment_id, c.kind, c.stage_id), c.exposed_at) as since
) stay
where c.place <= $7
order by c.assignment_id desc;

-- name: measure_stays
-- How long three quarters of the leads that left a stage had stayed in it, for stages that $3 leads or more have left since $2.
with step as (
    select d.stage_id, d.happened_at as from_at,
           lead(d.happened_at) over (partition by d.assignment_id order by d.happened_at, d.id) as to_at
    from disposition d
    where d.business_id = $1 and d.undone_at is null and d.happened_at >= $2
)
select stage_id, percentile_cont(0.75) within group (order by extract(epoch from to_at - from_at)) as p75_seconds
from step where to_at is not null and stage_id is not null
group by stage_id having count(*) >= $3;
