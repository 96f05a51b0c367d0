-- name: find_top_up
-- The transfer of a payment event, to give the same answer each time the event is sent.
select id, business_id, amount_minor, currency, event_id, made_at from transfer
where event_id = $1 and kind = 'top_up';

-- name: mark_credit_limit
-- The wallet's CHECK refuses a limit below what is already owed.
update wallet set credit_limit_minor = $2 where business_id = $1
returning business_id, currency, available_minor, held_minor, credit_limit_minor;

-- name: list_statement
-- Newest first. One row per transfer, so that a page never separates its two entries.
select t.id, t.kind, t.currency, t.assignment_id, t.event_id, t.made_at,
       coalesce(sum(e.amount_minor) filter (where e.account = 'available'), 0)::bigint as available_minor,
       coalesce(sum(e.amount_minor) filter (where e.account = 'held'), 0)::bigint as held_minor
from (
    select id, kind, currency, assignment_id, event_id, made_at from transfer
    where business_id = $1 and ($2::uuid is null or id < $2)
    order by id desc
    limit $3
) t
join entry e on e.transfer_id = t.id and e.business_id = $1
group by t.id, t.kind, t.currency, t.assignment_id, t.event_id, t.made_at
order by t.id desc;

-- name: sum_payable
-- Amounts owed to a provider, by currency: payouts less claw-backs.
select currency, sum(amount_minor)::bigint as owed_minor from entry
where of_provider = $1 and account = 'payable'
group by currency
order by currency;
