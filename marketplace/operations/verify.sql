-- Each check returns every row that it examines, identifying columns first. `fault` is null when the promise holds, and
-- otherwise says how it is broken. The comment above a statement is the promise, which reports show.
--
-- Not checkable here: that nobody was exposed after asking not to be contacted. Both times are taken before their
-- transactions commit, so that the order of two rows within the same second is unknown; this role also has no access to
-- the suppression list. Intake and exposure are tested for it instead.

-- name: prepare_snapshot
-- Read as the role that sees no contact data, on one core, without waiting for locks, bounded in time and memory.
select set_config('role', 'marketplace_reports', true), set_config('statement_timeout', '60s', true),
       set_config('lock_timeout', '1s', true), set_config('work_mem', '64MB', true), set_config('jit', 'off', true),
       set_config('max_parallel_workers_per_gather', '0', true), set_config('timezone', 'UTC', true);

-- name: wallet_equals_entries
-- A wallet's available and held money are the sums of its entries.
select coalesce(w.business_id, e.business_id) as business_id, coalesce(w.currency, e.currency) as currency,
       w.available_minor, coalesce(e.available_minor, 0) as available_entries_minor,
       w.held_minor, coalesce(e.held_minor, 0) as held_entries_minor,
       case when w.business_id is null then 'entries without a wallet'
            when w.available_minor <> coalesce(e.available_minor, 0) then 'available differs from its entries'
            when w.held_minor <> coalesce(e.held_minor, 0) then 'held differs from its entries' end as fault
from wallet w
full join (
    select business_id, currency,
           sum(amount_minor) filter (where account = 'available') as available_minor,
           sum(amount_minor) filter (where account = 'held') as held_minor
    from entry where business_id is not null group by business_id, currency
) e on (e.business_id, e.currency) = (w.business_id, w.currency);

-- name: wallet_holds_open_assignments
-- The held money of a wallet is the price of its open live assignments.
select coalesce(w.business_id, a.business_id) as business_id, coalesce(w.currency, a.currency) as currency,
       w.held_minor, coalesce(a.open_minor, 0) as open_minor,
       case when w.business_id is null then 'open assignments without a wallet'
            when w.held_minor <> coalesce(a.open_minor, 0) then 'held differs from what is open' end as fault
from wallet w
full join (
    select business_id, currency, sum(price_minor) as open_minor
    from assignment where state in ('held', 'exposed') and mode = 'live' group by business_id, currency
) a on (a.business_id, a.currency) = (w.business_id, w.currency);

-- name: wallet_within_credit
-- No wallet is overdrawn beyond its credit limit, and none holds a negative amount.
select business_id, currency, available_minor, held_minor, credit_limit_minor,
       case when available_minor < -credit_limit_minor then 'overdrawn'
            when held_minor < 0 then 'negative held amount' end as fault
from wallet;

-- name: transfer_balances
-- Every transfer has two sides that sum to zero, and all transfers of a currency sum to zero.
select t.id::text as transfer, t.kind, t.currency, e.sides, e.total_minor,
       case when e.sides is distinct from 2 then 'not two sides'
            when e.total_minor <> 0 then 'the sides do not sum to zero' end as fault
from transfer t
left join (
    select transfer_id, count(*) as sides, sum(amount_minor) as total_minor from entry group by transfer_id
) e on e.transfer_id = t.id
union all
select 'all', null, currency, count(*), sum(amount_minor),
       case when sum(amount_minor) <> 0 then 'the ledger does not sum to zero' end
from entry group by currency;

-- name: cap_usage_equals_assignments
-- Each cap's usage is the count and price of the live assignments in its window that were not released.
with counted as (
    select a.subscription_id, w.cap_window, w.starts_at, count(*) as used_count, sum(a.price_minor) as used_minor
    from assignment a
    cross join lateral (values ('hour', a.hour_at), ('day', a.day_at), ('week', a.week_at), ('month', a.month_at),
                               ('total', timestamptz 'epoch')) as w (cap_window, starts_at)
    where a.mode = 'live' and a.state <> 'released'
    group by a.subscription_id, w.cap_window, w.starts_at
)
select subscription_id, cap_window, starts_at, u.used_count, coalesce(c.used_count, 0) as assigned_count,
       u.used_minor, coalesce(c.used_minor, 0) as assigned_minor, u.limit_count, u.limit_minor,
       case when u.used_count is null then 'usage is missing'
            when u.used_count <> coalesce(c.used_count, 0) then 'count differs from the assignments'
            when u.used_minor <> coalesce(c.used_minor, 0) then 'money differs from the assignments'
            when u.used_count > u.limit_count or u.used_minor > u.limit_minor then 'past the cap' end as fault
from counted c full join cap_usage u using (subscription_id, cap_window, starts_at);

-- name: assignment_held_and_settled_once
-- Each live assignment has one hold, which is settled once when the assignment ends and not before.
select a.id as assignment_id, a.lead_id, a.state, coalesce(t.holds, 0) as holds,
       coalesce(t.settlements, 0) as settlements,
       case when coalesce(t.holds, 0) <> 1 then 'not one hold'
            when a.state in ('held', 'exposed') and t.settlements > 0 then 'settled while open'
            when a.state not in ('held', 'exposed') and t.settlements <> 1 then 'not settled once' end as fault
from assignment a
left join (
    select assignment_id, count(*) filter (where kind = 'hold') as holds,
           count(*) filter (where kind in ('capture', 'release')) as settlements
    from transfer where assignment_id is not null group by assignment_id
) t on t.assignment_id = a.id
where a.mode = 'live';

-- name: capture_has_evidence_and_exposure
-- A lead is charged exactly when there is evidence of receipt and an exposure; a refused one only with a recorded
-- answer.
select a.id as assignment_id, a.lead_id, a.state, a.evidence, t.id as transfer_id,
       case when t.id is null and a.evidence is not null then 'evidence without a capture'
            when t.id is null then null
            when e.lead_id is null then 'captured without an exposure'
            when a.state = 'refused' and not exists (
                select from attempt where assignment_id = a.id and outcome in ('refused', 'gone')
            ) then 'captured on a refusal that no attempt recorded'
            when a.state <> 'refused' and a.evidence is null then 'captured without evidence' end as fault
from assignment a
left join transfer t on t.assignment_id = a.id and t.kind = 'capture'
left join exposure e on e.assignment_id = a.id and e.lead_id = a.lead_id
where a.mode = 'live';

-- name: charged_at_quoted_price
-- The amount held, captured, released or refunded is the price quoted at the award, for the same business.
select t.id as transfer_id, t.kind, t.assignment_id, t.amount_minor, a.price_minor, t.currency, t.business_id,
       case when a.id is null then 'no such assignment'
            when t.amount_minor <> a.price_minor then 'another price'
            when t.currency <> a.currency then 'another currency'
            when t.business_id <> a.business_id then 'another business' end as fault
from transfer t
left join assignment a on a.id = t.assignment_id
where t.kind in ('hold', 'capture', 'release', 'refund') and t.assignment_id is not null;

-- name: payout_as_agreed
-- The payout agreed at the award is owed for a captured lead, once, to its provider or in shares; no payout exists for
-- other leads. A share is owed to the provider of the lead, or to one whose inquiry joined it before its exposure.
select a.id as assignment_id, a.state, a.payout_minor, coalesce(t.captures, 0) as captures,
       coalesce(t.payouts, 0) as payouts, t.paid_minor,
       case when coalesce(t.captures, 0) = 0 and t.payouts > 0 then 'paid out without a capture'
            when t.captures > 0 and t.wholes <> (a.payout_minor > 0 and t.shares = 0)::int then 'not paid out once'
            when t.captures > 0 and t.paid_minor <> a.payout_minor then 'another payout than agreed'
            when t.repeated > 0 then 'a provider was paid twice'
            when t.elsewhere > 0 then 'another provider or currency' end as fault
from assignment a
left join (
    select t.assignment_id, count(*) filter (where t.kind = 'capture') as captures,
           count(*) filter (where t.kind = 'payout') as payouts,
           count(*) filter (where t.kind = 'payout' and t.share is null) as wholes,
           count(t.share) as shares,
           count(*) filter (where t.share is not null and exists (
               select from transfer o where o.assignment_id = t.assignment_id and o.kind = 'payout'
                   and o.provider_id = t.provider_id and o.id <> t.id)) as repeated,
           coalesce(sum(t.amount_minor) filter (where t.kind = 'payout'), 0) as paid_minor,
           count(*) filter (where t.kind = 'payout' and (t.currency <> p.currency
               or t.provider_id <> p.provider_id and (t.share is null or c.lead_id is distinct from p.lead_id))) as elsewhere
    from transfer t
    join assignment p on p.id = t.assignment_id
    left join payout_share s on (s.assignment_id, s.share) = (t.assignment_id, t.share)
    left join payout_claim c on (c.inquiry_id, c.provider_id) = (s.inquiry_id, t.provider_id)
    where t.kind in ('capture', 'payout') group by t.assignment_id
) t on t.assignment_id = a.id;

-- name: paid_within_payouts
-- No provider was paid more than all its payouts, in no currency.
select p.provider_id, p.currency, p.paid_minor, p.payout_minor,
       case when p.paid_minor > p.payout_minor then 'paid more than was earned' end as fault
from (
    select provider_id, currency, coalesce(sum(amount_minor) filter (where kind = 'paid'), 0)::bigint as paid_minor,
           coalesce(sum(amount_minor) filter (where kind = 'payout'), 0)::bigint as payout_minor
    from transfer where provider_id is not null group by provider_id, currency
) p;

-- name: claim_is_of_a_join_in_time
-- A claim to a payout is that of an inquiry which joined the lead before its exposure, and so was received before it. The
-- time of an exposure is taken before it waits for the lock of the lead, which is at most 3 seconds.
select c.inquiry_id, c.lead_id, c.provider_id, i.received_at, e.exposed_at,
       case when i.joined_lead_id is distinct from c.lead_id or i.provider_id <> c.provider_id
            then 'its inquiry did not join the lead'
            when i.received_at > e.exposed_at + interval '5 seconds' then 'it joined after the exposure' end as fault
from payout_claim c join inquiry i on i.id = c.inquiry_id left join exposure e on e.lead_id = c.lead_id;

-- name: return_refunded_once
-- A returned lead is refunded once, and its payout is clawed back once from each provider that was paid; no other lead
-- is refunded.
select a.id as assignment_id, a.state, a.payout_minor, coalesce(t.refunds, 0) as refunds,
       coalesce(t.claw_backs, 0) as claw_backs, t.clawed_minor,
       case when coalesce(t.refunds, 0) <> (a.state = 'returned' and a.mode = 'live')::int then 'not refunded once'
            when coalesce(t.claw_backs, 0) <> (
                select count(*) from transfer o
                where o.assignment_id = a.id and o.kind = 'payout' and a.state = 'returned') then 'not clawed back once'
            when t.claw_backs > 0 and t.clawed_minor <> a.payout_minor then 'another amount clawed back than paid out'
            when t.elsewhere > 0 then 'clawed back from another provider' end as fault
from assignment a
left join (
    select t.assignment_id, count(*) filter (where t.kind = 'refund') as refunds,
           count(*) filter (where t.kind = 'claw_back') as claw_backs,
           sum(t.amount_minor) filter (where t.kind = 'claw_back') as clawed_minor,
           count(*) filter (where t.kind = 'claw_back' and not exists (
               select from transfer o where o.assignment_id = t.assignment_id and o.kind = 'payout'
                   and o.share is not distinct from t.share
                   and (o.provider_id, o.currency, o.amount_minor) = (t.provider_id, t.currency, t.amount_minor)
           )) as elsewhere
    from transfer t where t.kind in ('refund', 'claw_back') group by t.assignment_id
) t on t.assignment_id = a.id
where a.state = 'returned' or t.assignment_id is not null;

-- name: return_was_granted
-- Exactly the leads whose return was granted are returned.
select coalesce(a.id, r.assignment_id) as assignment_id, a.lead_id, a.state, r.id as return_id, r.state as return_state,
       case when r.state is distinct from 'granted' then 'returned, and nobody granted it'
            when a.id is null then 'granted, and not returned'
            when r.lead_id <> a.lead_id or r.business_id <> a.business_id
            then 'granted for another lead or business' end as fault
from (select id, lead_id, business_id, state from assignment where state = 'returned') a
full join (
    select id, assignment_id, lead_id, business_id, state from return_request where state = 'granted'
) r on r.assignment_id = a.id;

-- name: test_mode_moves_no_money
-- An assignment in test mode never touches a wallet.
select a.id as assignment_id, a.state, t.id as transfer_id, t.kind,
       case when t.id is not null then 'money moved in test mode' end as fault
from assignment a
left join transfer t on t.assignment_id = a.id
where a.mode = 'test';

-- name: share_credits_equal_awards
-- The credit of a business in a vertical is the sum of its changes by the awards that were not released, and the credits
-- of a vertical sum to zero.
with changed as (
    select l.vertical_id, a.mode, change.key::uuid as business_id, sum(change.value::bigint) as awards_credit
    from decision d
    join assignment a on a.id = d.assignment_id and a.state <> 'released'
    join lead l on l.id = d.lead_id
    cross join lateral jsonb_each_text(d.credits) as change
    where d.credits is not null
    group by l.vertical_id, a.mode, change.key
)
select vertical_id, mode, business_id, c.credit, coalesce(n.awards_credit, 0) as awards_credit,
       case when c.credit is null then 'credit is missing'
            when c.credit <> coalesce(n.awards_credit, 0) then 'credit differs from the awards' end as fault
from changed n full join share_credit c using (vertical_id, mode, business_id)
union all
select vertical_id, mode, null, sum(credit), 0,
       case when sum(credit) <> 0 then 'the credits do not sum to zero' end
from share_credit group by vertical_id, mode;

-- name: lead_state_follows_assignment
-- A lead with a live assignment has the state of the assignment; every other lead has none.
select coalesce(l.id, a.lead_id) as lead_id, l.state as lead_state, a.id as assignment_id, a.state as assignment_state,
       case when l.id is null then 'an assignment without its lead'
            when a.id is null and l.state in (
                'held', 'exposed', 'delivered', 'refused', 'lapsed', 'returned') then 'no live assignment'
            when a.state <> l.state then 'its assignment is in another state' end as fault
from lead l
full join (select id, lead_id, state from assignment where state <> 'released') a on a.lead_id = l.id;

-- name: one_live_assignment
-- No lead has two assignments that were not released.
select lead_id, count(*) as live_assignments, case when count(*) > 1 then 'more than one' end as fault
from assignment where state <> 'released' group by lead_id;

-- name: exposure_matches_assignment
-- A lead is exposed once, to the business of its assignment; exactly the assignments after the held state have an
-- exposure.
select coalesce(e.lead_id, a.lead_id) as lead_id, a.id as assignment_id, a.state, e.assignment_id as exposed_assignment_id,
       case when e.lead_id is null then 'no exposure'
            when a.id is null then 'its assignment is missing, held or released'
            when e.lead_id <> a.lead_id then 'exposes another lead than its assignment'
            when e.business_id <> a.business_id then 'exposed to another business than its assignment'
            when p.business_id is distinct from e.business_id then 'sent to an endpoint of another business'
            when count(e.lead_id) over (partition by e.lead_id) > 1 then 'exposed more than once' end as fault
from (
    select id, lead_id, business_id, state from assignment
    where state in ('exposed', 'delivered', 'refused', 'lapsed', 'returned')
) a
full join exposure e on e.assignment_id = a.id
left join endpoint p on p.id = e.endpoint_id;

-- name: feed_has_its_own
-- A feed has only leads of its business, at positions that were assigned, and every lead that was exposed there or in the
-- inbox.
-- Leads exposed again by a fence are not in it.
select coalesce(f.assignment_id, x.assignment_id) as assignment_id, f.business_id, f.mode, f.position,
       case when f.position is null then 'exposed by feed, but not in the feed'
            when (a.business_id, a.mode) is distinct from (f.business_id, f.mode) then 'the lead of another business'
            when f.position > d.last_position then 'a position that was never assigned' end as fault
from feed_event f
full join (
    select e.assignment_id from exposure e join assignment b on b.id = e.assignment_id
    where e.channel in ('feed', 'portal') and b.reason is distinct from 'restored'
) x on x.assignment_id = f.assignment_id and f.kind = 'lead.assigned'
left join assignment a on a.id = f.assignment_id
left join feed d on (d.business_id, d.mode) = (f.business_id, f.mode);

-- name: one_person_seen_once
-- No person was sold twice in one vertical within the window.
with exposed as (
    select w.lead_id, w.key, w.vertical_id, w.during, w.scope from person_window w join lead l on l.id = w.lead_id where l.seen
)
select lead.lead_id, lead.vertical_id, lead.during, other.lead_id as other_lead_id,
       case when other.lead_id is not null then 'the same person inside the window' end as fault
from exposed lead
left join exposed other on other.key = lead.key and other.vertical_id = lead.vertical_id
    and other.lead_id <> lead.lead_id and other.during && lead.during and other.scope && lead.scope;

-- name: consent_covers_exposure
-- No lead was exposed after its consent had ended, or before its certificates of consent were claimed.
-- An exposure and the check of its consent are of one statement, and so within a second of each other.
select e.lead_id, e.assignment_id, e.exposed_at, l.consent_until, l.certificates,
       case when e.exposed_at > l.consent_until + interval '1 second' then 'exposed after the end of the consent'
            when l.certificates = 'pending' then 'exposed with an unclaimed certificate' end as fault
from exposure e join lead l on l.id = e.lead_id;

-- name: waiting_lead_is_due
-- Every lead that waits for the service has a due time, at most 120 seconds ago; no other lead has one.
select id as lead_id, state, due_at,
       case when state not in ('received', 'nurturing', 'prospect') then 'a due time in a state that is never due'
            when due_at is null then 'no due time'
            when due_at < now() - interval '120 seconds' then 'overdue' end as fault
from lead where due_at is not null or state in ('received', 'nurturing', 'prospect');

-- name: open_assignment_is_due
-- Every open assignment has a due time, and neither that nor its deadline is more than 120 seconds ago.
select id as assignment_id, lead_id, state, due_at, hold_until, evidence_until,
       case when state not in ('held', 'exposed') then 'a due time in a state that is never due'
            when due_at is null then 'no due time'
            when due_at < now() - interval '120 seconds' then 'overdue'
            when state = 'held' and hold_until < now() - interval '120 seconds' then 'held too long'
            when state = 'exposed' and evidence_until < now() - interval '120 seconds' then 'not lapsed in time' end
       as fault
from assignment where due_at is not null or state in ('held', 'exposed');

-- name: work_is_not_set_aside
-- No work is quarantined after repeated failures, and no work was given up without an operator dismissing it.
select coalesce(q.kind, waiting.kind) as kind, coalesce(q.id, waiting.id) as id, q.lead_id, q.failure, q.failures,
       q.first_failed_at, q.last_failed_at, q.ended_at,
       case when q.ended_at is not null then 'given up'
            when q.id is not null then 'quarantined, to be repaired and retried' end as fault
from (
    select 'lead' as kind, id from lead where due_at is not null
    union all
    select 'assignment', id from assignment where due_at is not null
) waiting
full join quarantined_work q on q.kind = waiting.kind and q.id = waiting.id;

-- name: background_passes_succeed
-- No background pass has failed eight times in a row over half an hour.
select name, failures, failing_since, failure, ended_at,
       case when failures >= 8 and failing_since < now() - interval '30 minutes' then 'keeps failing' end as fault
from background_pass;

-- name: lead_ends_in_time
-- 25 hours after its receipt, after it was opened again, or after its last nurturing ended, a lead has ended or is nurtured.
select l.id as lead_id, l.state, l.received_at, l.reopened_at, walking.since,
       case when greatest(walking.since, l.reopened_at, l.received_at) < now() - interval '25 hours 120 seconds'
            then 'neither ended nor nurtured' end as fault
from lead l
left join lateral (
    select min(d.made_at) as since from decision d
    where l.received_at < now() - interval '25 hours 120 seconds' and d.lead_id = l.id and d.made_at > (
        select max(n.made_at) from decision n where n.lead_id = l.id and n.outcome = 'nurturing')
) walking on true
where l.state in ('received', 'prospect', 'held', 'exposed');

-- name: revision_counts_journey
-- The revision of every lead is that of the newest touch or correction of it.
select l.id as lead_id, l.revision, j.newest,
       case when l.revision <> coalesce(j.newest, 0) then 'another revision than its newest touch or correction' end as fault
from lead l
left join (
    select lead_id, max(revision) as newest
    from (select lead_id, revision from touch union all select lead_id, revision from correction) entry
    group by lead_id
) j on j.lead_id = l.id
where l.revision > 0 or j.lead_id is not null;

-- name: inquiry_answered_once
-- Each idempotency key and each provider's reference names one inquiry.
select min(id::text) as inquiry_id, max(id::text) as other_inquiry_id, provider_id, mode, 'provider_reference' as named_by,
       count(*) as inquiries, case when count(*) > 1 then 'more than one inquiry' end as fault
from inquiry where provider_reference is not null group by provider_id, mode, provider_reference
union all
select min(id::text), max(id::text), provider_id, mode, 'idempotency_key',
       count(*), case when count(*) > 1 then 'more than one inquiry' end
from inquiry where idempotency_key is not null group by provider_id, mode, idempotency_key;

-- name: inquiry_became_its_lead
-- Every accepted inquiry has its lead, of the same provider, vertical and mode.
select coalesce(i.id, l.id) as lead_id, i.received_as, l.state,
       case when l.id is null then 'no lead'
            when i.id is null then 'no inquiry'
            when (l.provider_id, l.vertical_id, l.mode) <> (i.provider_id, i.vertical_id, i.mode)
            then 'another provider, vertical or mode'
            when (i.received_as <> 'received' or l.state in ('duplicate', 'suppressed')) and l.state <> i.received_as
            then 'received as something else' end as fault
from inquiry i full join lead l on l.id = i.id;

-- name: joined_inquiry_is_of_its_lead
-- An inquiry that joined a lead is of its vertical and mode, and the touch that stands for it is one of an inquiry.
select i.id as lead_id, i.joined_lead_id,
       case when (i.vertical_id, i.mode) <> (l.vertical_id, l.mode) then 'another vertical or mode'
            when t.kind <> 'inquiry' then 'a touch of another kind' end as fault
from inquiry i
join lead l on l.id = i.joined_lead_id
join touch t on t.lead_id = i.joined_lead_id and t.fingerprint = i.joined_touch
where i.joined_lead_id is not null;

-- name: assignment_is_of_its_parties
-- An assignment's provider, business, endpoint, currency and mode are those of its lead and its subscription.
select a.id as assignment_id, a.lead_id, a.subscription_id, a.endpoint_id,
       case when (a.provider_id, a.mode) is distinct from (l.provider_id, l.mode) then 'not of its lead'
            when (a.business_id, a.mode, a.currency) is distinct from (s.business_id, s.mode, s.currency)
            then 'not of its subscription'
            when a.business_id is distinct from p.business_id then 'an endpoint of another business' end as fault
from assignment a
left join lead l on l.id = a.lead_id
left join subscription s on s.id = a.subscription_id
left join endpoint p on p.id = a.endpoint_id;

-- name: contact_is_sealed
-- Every active or exposed lead has a sealed contact and its key. An erased lead has neither, is not active, was not
-- exposed since, and the business that had seen it is notified in time.
select l.id as lead_id, l.state, c.lead_id is not null as has_contact, k.lead_id is not null as has_key,
       case when e.lead_id is not null and k.lead_id is not null then 'erased, and its key is still there'
            when e.lead_id is not null and c.lead_id is not null then 'erased, and its contact is still there'
            when e.lead_id is not null and l.state in ('received', 'nurturing', 'prospect', 'held')
            then 'erased, and still active'
            when e.lead_id is not null and x.business_id is distinct from e.business_id then 'exposed after it was erased'
            when n.state = 'due' and n.due_at < now() - interval '120 seconds' then 'its notice is overdue'
            when e.lead_id is not null then null
            when c.lead_id is null then 'no contact'
            when k.lead_id is null then 'no key' end as fault
from lead l
left join contact c on c.lead_id = l.id
left join data_key k on k.lead_id = l.id
left join erasure e on e.lead_id = l.id
left join notice n on n.id = e.notice_id
left join exposure x on x.lead_id = l.id
where l.seen or l.state in ('received', 'nurturing', 'prospect', 'held') or e.lead_id is not null;

-- name: revocation_reached_the_holder
-- A revoked lead ended, or its business has a notice, which is sent in time. None was shown after it was revoked.
select d.lead_id, d.revocation_id, l.state, x.business_id,
       case when x.lead_id is not null and n.id is null then 'shown, and its business was not notified'
            when n.id is not null and n.business_id is distinct from x.business_id then 'another business was notified'
            when n.state = 'due' and n.due_at < now() - interval '120 seconds' then 'its notice is not sent'
            when l.state in ('received', 'nurturing', 'prospect', 'held') then 'revoked, and still active' end as fault
from revoked_lead d
join lead l on l.id = d.lead_id
left join notice n on n.id = d.notice_id
left join exposure x on x.lead_id = d.lead_id;

-- name: deletion_was_carried_out
-- A deletion request that has ended has no contact, all its leads are erased, and no notice of them waits.
select r.id as request_id, d.lead_id, r.state,
       case when r.ended_at is not null and r.has_contact then 'ended, and its contact is still stored'
            when r.state in ('erased', 'done') and d.lead_id is not null and e.lead_id is null then 'a lead is not erased'
            when r.state = 'done' and n.state = 'due' then 'done, and a business has time to acknowledge it' end as fault
from deletion_request r
left join deletion_lead d on d.request_id = r.id
left join erasure e on e.lead_id = d.lead_id
left join notice n on n.id = e.notice_id;

-- name: deletion_is_in_time
-- No deletion request waits after its deadline.
select id as request_id, state, deadline_at::text as deadline_at,
       case when ended_at is null and deadline_at < now() then 'past its deadline' end as fault
from deletion_request;

-- name: answer_was_recorded
-- Every lead charged on an answer has an accepted attempt.
select a.id as assignment_id, a.lead_id, a.state, t.attempts,
       case when t.attempts is null then 'no accepted attempt' end as fault
from assignment a
left join (
    select assignment_id, count(*) as attempts from attempt where outcome = 'accepted' group by assignment_id
) t on t.assignment_id = a.id
where a.evidence = 'answer';

-- name: award_was_decided
-- Every assignment has the one decision that made it, and every decision to award has its assignment.
select coalesce(a.id, d.assignment_id) as assignment_id, coalesce(a.lead_id, d.lead_id) as lead_id, a.state,
       d.id as decision_id,
       case when d.id is null then 'no decision'
            when a.id is null then 'no assignment'
            when (d.lead_id, d.subscription_id) is distinct from (a.lead_id, a.subscription_id)
            then 'decided about another lead or subscription'
            when count(d.id) over (partition by d.assignment_id) > 1 then 'decided more than once' end as fault
from assignment a
full join (
    select id, lead_id, subscription_id, assignment_id from decision where outcome = 'held'
) d on d.assignment_id = a.id;

-- name: record_has_its_month
-- Records are in the partition of their month; those in the catch-all partition slow down creating the next one.
select 'decision_other' as partition, count(*) as records,
       case when count(*) > 0 then 'records outside their month' end as fault from decision_other
union all
select 'attempt_other', count(*), case when count(*) > 0 then 'records outside their month' end from attempt_other
union all
select 'audit_other', count(*), case when count(*) > 0 then 'records outside their month' end from audit_other;

-- name: report_hours_are_complete
-- Every hour stored for reports has all leads received in it, except hours with changes that are still to be processed.
select 'all' as part, frontier as hour, null::bigint as leads, null::int as kept,
       case when exists (select from report_column c where c.hour >= frontier)
            then 'stored before the hour was over' end as fault
from report_progress
union all
select coalesce(k.part, l.mode), coalesce(k.hour, l.hour), l.leads, k.leads,
       case when l.leads is distinct from k.leads and coalesce(k.hour, l.hour) not in (select hour from report_changed)
            then 'another number of leads than were received' end
from (
    select mode, date_trunc('hour', received_at, 'UTC') as hour, count(*) as leads from lead
    where received_at < (select frontier - interval '1 day' from report_progress) group by 1, 2
) l
full join (
    select part, hour, octet_length(data) / 2 as leads from report_column
    where field = 'step' and hour < (select frontier - interval '1 day' from report_progress)
) k on (k.part, k.hour) = (l.mode, l.hour);

-- name: report_months_equal_hours
-- The stored data of a month equal those of its hours, concatenated, byte for byte.
select 'all' as part, null as field, frontier as hour, null::int as kept_bytes, null::int as said_bytes,
       case when exists (select from report_month m where m.month + interval '1 month' > frontier)
            then 'stored before the month was over' end as fault
from report_progress
union all
select coalesce(m.part, h.part), coalesce(m.field, h.field), coalesce(m.month, h.month),
       octet_length(m.data), octet_length(h.data),
       case when m.data is distinct from h.data or m.hours is distinct from h.hours or m.lengths is distinct from h.lengths
            then 'differs from its hours' end
from report_month m
full join (
    select part, field, date_trunc('month', hour, 'UTC') as month, string_agg(data, ''::bytea order by hour) as data,
           string_agg(int4send((date_part('epoch', hour) / 3600)::int), ''::bytea order by hour) as hours,
           string_agg(int4send(octet_length(data)), ''::bytea order by hour) as lengths
    from report_column
    where date_trunc('month', hour, 'UTC') in (select month from report_month)
    group by 1, 2, 3
) h on (h.part, h.field, h.month) = (m.part, m.field, m.month);

-- name: report_columns_equal_recomputation
-- The data stored for reports of the last day equal a computation from leads, decisions and transfers, byte for byte.
select 'all' as part, null as field, frontier as hour, null::int as kept_bytes, null::int as said_bytes,
       case when at > clock_timestamp() then 'processed in the future' end as fault
from report_progress
union all
select coalesce(k.part, s.part), coalesce(k.field, s.field), coalesce(k.hour, s.hour), octet_length(k.data),
       octet_length(s.data),
       case when k.data is distinct from s.data and coalesce(k.hour, s.hour) not in (select hour from report_changed)
            then 'differs from a computation from scratch' end
from report_progress p
cross join lateral report_columns(p.frontier - interval '1 day', p.frontier) s
full join (
    select part, field, hour, data from report_column
    where hour >= (select frontier - interval '1 day' from report_progress)
      and hour < (select frontier from report_progress)
) k on (k.part, k.field, k.hour) = (s.part, s.field, s.hour);
