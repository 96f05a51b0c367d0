-- name: take_pass
-- The lock of a pass, held by the connection and released with it.
select pg_try_advisory_lock(hashtext('marketplace.learning'));

-- name: end_pass
select pg_advisory_unlock(hashtext('marketplace.learning'));

-- name: take_turn
-- Changes of the scorecards of a vertical follow one another. A lock of its own, because the worker may not lock the vertical.
select pg_advisory_xact_lock(hashtext('marketplace.scorecards'), hashtext($1::uuid::text));

-- name: find_vertical
select id from vertical where slug = $1;

-- name: list_verticals
-- Every vertical, with the times of its last training and of the last count of its sales.
select v.id, v.slug,
       (select t.tried_at from scorecard_training t where t.vertical_id = v.id) as trained_at,
       exists (select 1 from scorecard c where c.vertical_id = v.id and c.state = 'shadow') as has_shadow,
       (select max(s.counted_at) from business_sales s where s.vertical_id = v.id) as counted_at
from vertical v order by v.slug;

-- name: begin_training
insert into scorecard_training (vertical_id, tried_at) values ($1, $2)
on conflict (vertical_id) do update set tried_at = excluded.tried_at, leads = 0, refusal = null;

-- name: end_training
update scorecard_training set leads = $2, refusal = $3 where vertical_id = $1;

-- name: find_training
select tried_at, leads, refusal from scorecard_training where vertical_id = $1;

-- name: insert_card
insert into scorecard (vertical_id, version, document, evaluation, profile, trained_at, trained_by)
select $1, coalesce(max(version), 0) + 1, $2, $3, $4, $5, $6 from scorecard where vertical_id = $1
returning version;

-- name: list_cards
-- The cards of a vertical, the newest first.
select c.vertical_id, v.slug as vertical, c.version, c.state, c.document, c.evaluation, c.trained_at, c.trained_by,
       c.shadow_since, c.signed_off_at, c.signed_off_by, c.shadow_leads, c.shadow_figures, c.replaces, c.suspended_for
from scorecard c join vertical v on v.id = c.vertical_id
where c.vertical_id = $1 and ($2::int is null or c.version < $2)
order by c.version desc limit $3;

-- name: find_card
select c.vertical_id, v.slug as vertical, c.version, c.state, c.document, c.evaluation, c.trained_at, c.trained_by,
       c.shadow_since, c.signed_off_at, c.signed_off_by, c.shadow_leads, c.shadow_figures, c.replaces, c.suspended_for
from scorecard c join vertical v on v.id = c.vertical_id
where c.vertical_id = $1 and c.version = $2;

-- name: list_by_version
-- The cards by which a decision was made.
select c.vertical_id, v.slug as vertical, c.version, c.state, c.document, c.evaluation, c.trained_at, c.trained_by,
       c.shadow_since, c.signed_off_at, c.signed_off_by, c.shadow_leads, c.shadow_figures, c.replaces, c.suspended_for
from scorecard c join vertical v on v.id = c.vertical_id
where c.vertical_id = $1 and c.version = any($2::int[])
order by c.version;

-- name: find_profile
select profile from scorecard where vertical_id = $1 and version = $2;

-- name: list_computed
-- The cards that are computed for leads, of all verticals, with the time of their last check.
select c.vertical_id, v.slug as vertical, c.version, c.state, c.document, c.evaluation, c.trained_at, c.trained_by,
       c.shadow_since, c.signed_off_at, c.signed_off_by, c.shadow_leads, c.shadow_figures, c.replaces, c.suspended_for,
       (select max(k.checked_at) from scorecard_check k
        where (k.vertical_id, k.version) = (c.vertical_id, c.version)) as checked_at
from scorecard c join vertical v on v.id = c.vertical_id
where c.state in ('shadow', 'ranking')
order by v.slug, c.version;

-- name: list_in_use
-- Version and state of the cards of a vertical that are not trained alone or retired.
select version, state, replaces from scorecard
where vertical_id = $1 and state in ('shadow', 'ranking', 'suspended');

-- name: mark_shadow
update scorecard set state = 'shadow', shadow_since = $3 where vertical_id = $1 and version = $2;

-- name: mark_retired
update scorecard set state = 'retired', suspended_for = null where vertical_id = $1 and version = $2;

-- name: mark_signed_off
update scorecard
set state = 'ranking', signed_off_at = $3, signed_off_by = $4, shadow_leads = $5, shadow_figures = $6, replaces = $7
where vertical_id = $1 and version = $2;

-- name: mark_ranking
-- A card that was signed off before ranks again.
update scorecard set state = 'ranking', suspended_for = null where vertical_id = $1 and version = $2;

-- name: mark_suspended
update scorecard set state = 'suspended', suspended_for = $3 where vertical_id = $1 and version = $2 and state = 'ranking'
returning version;

-- name: list_outcomes
-- One page of the charged live leads of a vertical, the newest first: facts at the award, the chances recorded with the award, and
-- what became of each. A business is heard of up to its last report, about whichever lead; one that never reported says
-- nothing. A lead that was given back ended without a win. Columns of a lead that cannot be judged are null.
with page as (
    select l.id, l.provider_id, l.received_at
    from lead l
    where l.vertical_id = $1 and l.mode = 'live' and l.state in ('delivered', 'returned') and l.id < $2
      and l.received_at >= $3
    order by l.id desc limit $4
)
select p.id as lead_id, p.provider_id, facts_at(i.id, i.facts, coalesce(d.revision, 0)) as facts, o.business_id, o.received_at, o.won_at,
       coalesce(o.lost_at, r.judged_at) as ended_at, told.until as told_until, d.chances
from page p
join inquiry i on i.id = p.id
left join assignment a on a.lead_id = p.id and a.live
left join exclusive_outcome o on o.assignment_id = a.id
left join return_request r on r.assignment_id = a.id and r.state = 'granted'
left join lateral (
    select max(n.recorded_at) as until from disposition n where n.business_id = a.business_id and n.undone_at is null
) told on true
left join lateral (
    select (select c -> 'chances' from jsonb_array_elements(n.candidates) as c
            where c ->> 'subscription_id' = a.subscription_id::text limit 1) as chances,
           n.revision
    from decision n where n.lead_id = p.id and n.made_at = a.awarded_at and n.assignment_id = a.id
) d on true
order by p.id desc;

-- name: list_sellers
-- Businesses that have had a subscription in a vertical, whose sales are counted.
select distinct business_id from subscription where vertical_id = $1;

-- name: count_sales
-- What one business did with the leads of a vertical that it was charged for since $3. One business at a time: the statement
-- stays short however many leads the vertical has.
select $2::uuid as business_id, count(*)::int as leads, count(r.id)::int as returned,
       (count(*) filter (where o.won_minor > 0))::int as jobs, coalesce(sum(o.won_minor), 0)::bigint as jobs_minor
from exclusive_outcome o left join return_request r on r.assignment_id = o.assignment_id and r.state = 'granted'
where o.vertical_id = $1 and o.business_id = $2 and o.received_at >= $3;

-- name: save_sales
-- All counts of a vertical at once, which is one change of its rules.
insert into business_sales (vertical_id, business_id, leads, returned, jobs, jobs_minor, counted_at)
select $1, c.business_id, c.leads, c.returned, c.jobs, c.jobs_minor, $3
from jsonb_to_recordset($2) as c (business_id uuid, leads int, returned int, jobs int, jobs_minor bigint)
on conflict (vertical_id, business_id) do update
set leads = excluded.leads, returned = excluded.returned, jobs = excluded.jobs, jobs_minor = excluded.jobs_minor,
    counted_at = excluded.counted_at;

-- name: insert_check
insert into scorecard_check (vertical_id, version, checked_at, figures, alarm) values ($1, $2, $3, $4, $5);

-- name: list_checks
-- The checks of a card, the newest first.
select checked_at, figures, alarm from scorecard_check
where vertical_id = $1 and version = $2
order by checked_at desc limit $3;

-- name: load_words
-- The rules of a vertical, which have the words of its questions, and the names of its providers and businesses.
select d.definition, (
    select coalesce(jsonb_object_agg(p.id, p.name), '{}') from provider p
    where exists (select 1 from lead l where l.provider_id = p.id and l.vertical_id = v.id)
) as providers, (
    select coalesce(jsonb_object_agg(b.id, b.name), '{}') from business b
    where exists (select 1 from subscription s where s.business_id = b.id and s.vertical_id = v.id)
) as businesses
from vertical v join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
where v.id = $1;

-- name: find_operator
-- An operator who may sign a card off, by the address.
select id from member where email = $1 and kind = 'operator' and state = 'active' and role <> 'viewer';
