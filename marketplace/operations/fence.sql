-- name: lock_lead
-- The lead is locked first, as everywhere; no row when the backup is older than the lead.
select state from lead where id = $1 for no key update;

-- name: find_held
select id from assignment where lead_id = $1 and state = 'held';

-- name: find_zone
-- Time zone of the caps; no row when the backup lacks the business, its endpoint or the version of its subscription.
select v.definition ->> 'zone'
from subscription s
join subscription_version v on v.subscription_id = s.id and v.version = $2
join endpoint e on e.id = $3 and e.business_id = s.business_id
where s.id = $1 and s.business_id = $4 and s.mode = $5 and s.currency = $6;

-- name: lock_subscription
select id from subscription where id = $1 for no key update;

-- name: award_again
-- The award as journaled, without checking rules and wallet: the lead held, the assignment inserted, one more lead in
-- each calendar window. Test mode ($18 false) counts in no window.
with held as (
    update lead set state = 'held', due_at = null, qualified_at = coalesce(qualified_at, $12) where id = $2
), counted as (
    insert into cap_usage (subscription_id, cap_window, starts_at, used_count, used_minor)
    select $4, raised.cap_window, raised.starts_at, 1, $9
    from unnest(array['hour', 'day', 'week', 'month', 'total'],
                array[$14, $15, $16, $17, 'epoch']::timestamptz[])
        as raised (cap_window, starts_at)
    where $18
    on conflict (subscription_id, cap_window, starts_at) do update
    set used_count = cap_usage.used_count + 1, used_minor = cap_usage.used_minor + excluded.used_minor,
        limit_count = null, limit_minor = null
)
insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id, mode,
    price_minor, payout_minor, currency, attempts, due_at, awarded_at, hold_until, hour_at, day_at, week_at, month_at)
values ($1, $2, $3, $4, $5, $6, $7, case when $18 then 'live' else 'test' end, $9, $10, $8, 1, $11, $12, $13,
    $14, $15, $16, $17);

-- name: hold_and_release
-- Hold and release in one statement leave the wallet unchanged, so that an insufficient balance does not matter.
insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id, made_at)
values ($1, 'hold', $3, $4, $5, $6, $7), ($2, 'release', $3, $4, $5, $6, $7);

-- name: expose_again
-- The exposure as journaled; the constraints of a first exposure apply.
with moved as (
    update lead set state = 'exposed' where id = $1
), exposed as (
    insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address, tls_sha256,
        attempt_no, exposed_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
)
update assignment set state = 'exposed', exposed_at = $10, evidence_until = $11 where id = $2;

-- name: lapse
-- The evidence of receipt is lost, so nobody is charged.
with moved as (
    update lead set state = 'lapsed', reason = 'restored', settled_at = $3 where id = $1
)
update assignment set state = 'lapsed', reason = 'restored', settled_at = $3, due_at = null where id = $2;

-- name: lock_credits
-- The credits that the commit takes back for these leads. Their triggers run lead by lead, each in the order of the businesses:
-- two transactions that take back several leads could wait for one another. So all are locked before, in one order.
select c.credit
from share_credit c
where (c.vertical_id, c.mode, c.business_id) in (
    select l.vertical_id, a.mode, change.key::uuid
    from assignment a
    join lead l on l.id = a.lead_id
    join decision d on d.lead_id = a.lead_id and d.made_at = a.awarded_at and d.assignment_id = a.id
    cross join lateral jsonb_each_text(d.credits) as change
    where a.lead_id = any($1::uuid[]) and a.state = 'released')
order by c.vertical_id, c.mode, c.business_id
for no key update;

-- name: lock_windows
-- A person who is being submitted now is inserted before the person is protected, or finds the protection.
lock table person_window in share row exclusive mode;

-- name: remember
insert into fenced_lead (lead_id, assignment_id, business_id, vertical_id, outcome, persons, exposed_at, protected_until,
    fenced_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: list_waiting_of_persons
-- Leads of the same persons that were submitted before the fence and not shown to anybody yet.
select distinct l.id
from person_window w
join lead l on l.id = w.lead_id
where w.vertical_id = $1 and w.key = any($2) and w.during && tstzrange($3, $4)
  and l.state in ('received', 'nurturing', 'prospect', 'held')
order by l.id;
