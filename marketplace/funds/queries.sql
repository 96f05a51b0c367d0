-- name: find_top_up
-- The transfer of a payment event, to give the same answer each time the event is sent.
select id, business_id, amount_minor, currency, event_id, made_at from transfer
where event_id = $1 and kind = 'top_up';

-- name: mark_credit_limit
-- The wallet's CHECK refuses a limit below what is already owed.
update wallet set credit_limit_minor = $2 where business_id = $1
returning business_id, currency, available_minor, held_minor, credit_limit_minor;

-- name: mark_low_balance
-- The figure below which the wallet is called low; null for never.
update wallet set low_below_minor = $2 where business_id = $1;

-- name: list_statement
-- What changed a wallet's balance, newest first, from behind the transfer $2 on, with the balance after each line: counted
-- back from the wallet as it is now. One statement, so that wallet and transfers are of one moment.
with page as (
    select id, kind, amount_minor, currency, assignment_id, event_id, made_at from statement_line
    where business_id = $1 and ($2::uuid is null or id < $2)
    order by id desc
    limit $3
)
select p.id, p.kind, p.amount_minor, p.currency, a.lead_id, p.assignment_id, p.event_id, p.made_at,
       (w.available_minor + w.held_minor
        - (select coalesce(sum(amount_minor), 0) from statement_line where business_id = $1 and id >= $2)
        - coalesce(sum(p.amount_minor) over (
            order by p.id desc rows between unbounded preceding and 1 preceding), 0))::bigint as balance_minor
from page p
join wallet w on w.business_id = $1
left join assignment a on a.id = p.assignment_id
order by p.id desc;

-- name: list_lead_lines
-- The lines of one lead, newest first; each kind has its own unique index by assignment. Where the lead was not charged, the
-- hold stands in their place while it is open, and its release, which charged nothing, after that.
with a as (select id from assignment where lead_id = $2 and business_id = $1), moved as (
    select id, kind, amount_minor, currency, assignment_id, made_at from statement_line
    where kind = 'capture' and assignment_id in (select id from a)
    union all
    select id, kind, amount_minor, currency, assignment_id, made_at from statement_line
    where kind = 'refund' and assignment_id in (select id from a)
    union all
    select id, kind, 0, currency, assignment_id, made_at from transfer
    where kind = 'release' and assignment_id in (select id from a)
    union all
    select id, kind, -amount_minor, currency, assignment_id, made_at from transfer h
    where kind = 'hold' and assignment_id in (select id from a) and not exists (
        select from transfer t where t.assignment_id = h.assignment_id and t.kind in ('capture', 'release'))
)
select id, kind, amount_minor, currency, $2::uuid as lead_id, assignment_id, null as event_id, made_at
from moved
order by id desc;

-- name: sum_payable
-- Amounts owed to a provider, by currency: payouts less claw-backs and payments.
select currency, sum(amount_minor)::bigint as owed_minor from entry
where of_provider = $1 and account = 'payable'
group by currency
order by currency;
