-- name: find_case
-- Input of a decision, read without a lock: the lead, its facts after its journey, the businesses tried before, the catalog
-- version that the rules must have at least, and the time, by which the decision and all its windows go. A business from
-- which a correction took the lead may have it again.
select l.id as lead_id, l.state, l.due_at, l.received_at, l.qualified_at, l.provider_id, l.vertical_id, l.mode,
       l.revision, facts_at(l.id, i.facts, l.revision) as facts,
       array(select a.business_id from assignment a
             where a.lead_id = l.id and not (a.state = 'released' and a.reason = 'corrected')) as tried,
       l.certificates, (select version from catalog_version) as catalog_version, is_withdrawn(l.id) as withdrawn,
       array(select c.business_id from person_key k
             join list_member m on m.key = substring(k.key for 16) and m.until is null
             join contact_list c on c.number = m.list and c.kind = 'own_customers' and c.removed_at is null
             where k.lead_id = l.id) as customers_of,
       exists (select from contact_list c
               where c.stops_sales and c.removed_at is null
                 and coalesce(c.refreshed_at + make_interval(days => c.maximum_age_days), c.made_at) < clock_timestamp()
              ) as lists_outdated,
       (select serial from lists_serial) as lists_serial,
       clock_timestamp() as read_at
from lead l join inquiry i on i.id = l.id
where l.id = $1;

-- name: list_standings
-- Current usage and wallets of the eligible candidates, read without a lock; the award reads them again under lock.
-- $2..$4 are the windows to read, each looked up by its key: a plain join would read all windows of the past. Credits are
-- read only if $5, for the strategy that ranks by them.
select w.subscription_id, w.available_minor, w.credit_limit_minor, u.cap_window, u.used_count, u.used_minor,
       w.share_credit
from (
    select s.id as subscription_id, wallet.available_minor, wallet.credit_limit_minor,
           (select c.credit from share_credit c
            where $5 and (c.vertical_id, c.mode, c.business_id) = (s.vertical_id, s.mode, s.business_id)) as share_credit
    from subscription s join wallet on wallet.business_id = s.business_id
    where s.id = any($1::uuid[])
) w
left join (
    select listed.subscription_id, listed.cap_window, usage.used_count, usage.used_minor
    from unnest($2::uuid[], $3::text[], $4::timestamptz[]) as listed (subscription_id, cap_window, starts_at)
    cross join lateral (
        select used_count, used_minor from cap_usage
        where (subscription_id, cap_window, starts_at) = (listed.subscription_id, listed.cap_window, listed.starts_at)
        limit 1
    ) usage
) u on u.subscription_id = w.subscription_id;

-- name: award
-- Every condition of the award and all its writes, in one function: see migrations/0060_journey.sql.
select award_lead($1::jsonb);

-- name: insert_kept_away
-- Businesses that would have been offered a lead, were its person not their customer; each once.
insert into kept_away (business_id, lead_id, kept_at) select kept.id, $1, $3 from unnest($2::uuid[]) as kept (id)
on conflict do nothing;

-- name: find_current
-- The current terms, states, caps and wallet of a subscription, to explain a lost award.
select s.version, s.state, s.suspended_for, s.endpoint_id, d.definition,
       b.state as business_state, e.state as endpoint_state, e.breaker_open_until,
       w.available_minor, w.credit_limit_minor, u.cap_window, u.used_count, u.used_minor
from subscription s
join wallet w on w.business_id = s.business_id
join subscription_version d on (d.subscription_id, d.version) = (s.id, s.version)
join business b on b.id = s.business_id
left join endpoint e on e.id = s.endpoint_id
left join cap_usage u on u.subscription_id = s.id and (u.cap_window, u.starts_at) in (
    ('hour', $2), ('day', $3), ('week', $4), ('month', $5), ('total', 'epoch'))
where s.id = $1;

-- name: keep_lead
-- A lead that waits until $17, as prospect or nurtured; the person of a nurtured lead stays protected until $18, and $19
-- says what it waits for. One statement with the record of the decision. A lead that has changed its state or its facts
-- meanwhile is left as it is.
with waiting as (
    update lead set state = $4, due_at = $17, reason = $5, waits_for = coalesce($19, waits_for),
        qualified_at = case when $4 = 'prospect' then coalesce(qualified_at, $3) else qualified_at end
    where id = $1 and state = $2 and revision = $16
    returning id
), protected as (
    update person_window set during = tstzrange(lower(during), greatest(upper(during), $18)) from waiting
    where lead_id = waiting.id and $18::timestamptz is not null
)
insert into decision (lead_id, made_at, id, outcome, reason, vertical_version, catalog_version, strategy, verdict,
    candidates, left_out, subscription_id, assignment_id, revision)
select $1, $3, $6, $7, $5, $8, $9, $10, $11, $12, $13, $14, $15, $16 from waiting
returning lead_id;

-- name: end_lead
-- A lead that ends without an exposure: rejected, expired or unsold. One statement with the record of the decision. The
-- person may ask again, so the person's window is emptied: it overlaps no other, and its keys stay for the day on which the
-- lead is opened again. A lead that has changed its state or its facts meanwhile is left as it is.
with ended as (
    update lead set state = $4, due_at = null, reason = $17, settled_at = $3,
        qualified_at = case when $4 = 'unsold' then coalesce(qualified_at, $3) else qualified_at end
    where id = $1 and state = $2 and revision = $16
    returning id
), freed as (
    update person_window set during = 'empty' from ended where lead_id = ended.id
)
insert into decision (lead_id, made_at, id, outcome, reason, vertical_version, catalog_version, strategy, verdict,
    candidates, left_out, subscription_id, assignment_id, revision)
select $1, $3, $6, $7, $5, $8, $9, $10, $11, $12, $13, $14, $15, $16 from ended
returning lead_id;

-- name: mark_ended
-- End a lead that the caller has locked: an erasure or a fence, each of which keeps its own record of the reason.
with freed as (delete from person_window where lead_id = $1)
update lead set state = $2, due_at = null, reason = $3, settled_at = $4 where id = $1;

-- name: insert_decision
insert into decision (id, lead_id, made_at, outcome, reason, vertical_version, catalog_version, strategy, verdict,
    candidates, left_out, subscription_id, assignment_id, revision)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14);

-- name: list_decisions
select id, lead_id, made_at, outcome, reason, vertical_version, catalog_version, strategy, verdict, candidates, left_out,
       subscription_id, assignment_id, revision
from decision where lead_id = $1 order by made_at, id;

-- name: find_traced_lead
select l.provider_id, l.mode, v.slug as vertical, l.state, l.reason, l.received_at, l.settled_at,
       e.business_id, e.channel, e.exposed_at, i.joined_lead_id
from lead l join vertical v on v.id = l.vertical_id join inquiry i on i.id = l.id left join exposure e on e.lead_id = l.id
where l.id = $1;

-- name: list_traced_attempts
-- A business passes its id as $2 and sees its own attempts; an operator passes null and sees all.
select attempt_no, started_at, outcome, reason, status, dns_ms, connect_ms, tls_ms, expose_ms, first_byte_ms, total_ms
from attempt where lead_id = $1 and ($2::uuid is null or business_id = $2) order by started_at, id;
