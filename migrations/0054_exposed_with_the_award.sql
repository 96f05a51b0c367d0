-- A lead whose business can be sent it at once is exposed by the award itself: one commit less on its way.

-- Every condition of the award again on locked rows, then the claim as a whole, in one call. A function because each of its
-- statements sees what was committed before it began. Called by the worker alone, with the worker's own rights.
--
-- Locks lead, subscription, wallet, in that order. Writes nothing unless it answers 'won'; otherwise how far it came:
-- 'moved' (the lead is not in the state in which it was decided about), 'withdrawn' (subscription, business or endpoint
-- changed), 'capped', 'unfunded'. A rehearsal uses neither caps nor wallet. `windows` are those of hour, day, week, month and
-- total, each with its limits; no limit is null. tests/marketplace/distribution/test_award.py holds the conditions to those
-- of routing/awarding.py. The changes of credits come last of all locks, in the order of the businesses.
--
-- The form of 0049_share_credits.sql, except for `exposure`: the hash of the URL, the address and the hash of the certificate
-- of a connection to the endpoint that is open now, and the deadline for evidence. With it the lead is exposed as by the
-- statement `expose` of marketplace/delivery/queries.sql, unless the endpoint has to be probed first, or the person has
-- withdrawn; it is held then, as without.
create or replace function award_lead(award jsonb) returns text language plpgsql as $$
declare
    a record;
    live boolean;
    opened_until timestamptz;
    now_exposed timestamptz;
begin
    select * into a from jsonb_to_record(award) as r (
        id uuid, lead_id uuid, lead_state text, business_id uuid, subscription_id uuid, subscription_version int,
        endpoint_id uuid, provider_id uuid, mode text, price_minor bigint, payout_minor bigint, currency text,
        awarded_at timestamptz, due_at timestamptz, hold_until timestamptz, hour_at timestamptz, day_at timestamptz,
        week_at timestamptz, month_at timestamptz, windows jsonb, hold_id uuid, decision_id uuid, vertical_version int,
        catalog_version bigint, strategy text, verdict jsonb, candidates jsonb, left_out int, credits jsonb,
        exposure jsonb);
    live := a.mode = 'live';
    perform from lead where id = a.lead_id and state = a.lead_state for no key update;
    if not found then
        return 'moved';
    end if;
    perform from subscription where id = a.subscription_id for no key update;
    select e.breaker_open_until into opened_until
    from subscription s
    join business b on b.id = s.business_id and b.state = 'active'
    join endpoint e on e.id = s.endpoint_id and e.id = a.endpoint_id and e.state = 'active'
        and (e.breaker_open_until is null or e.breaker_open_until <= a.awarded_at)
    where s.id = a.subscription_id and s.version = a.subscription_version and s.state = 'active';
    if not found then
        return 'withdrawn';
    end if;
    perform from jsonb_to_recordset(a.windows)
        as w (cap_window text, starts_at timestamptz, most_count int, most_minor bigint)
    cross join lateral (
        select used_count, used_minor from cap_usage
        where (subscription_id, cap_window, starts_at) = (a.subscription_id, w.cap_window, w.starts_at)
        limit 1
    ) u
    where live and (w.most_count is not null or w.most_minor is not null)
      and (u.used_count >= w.most_count or u.used_minor + a.price_minor > w.most_minor);
    if found then
        return 'capped';
    end if;
    perform from wallet
    where business_id = a.business_id and (not live or available_minor + credit_limit_minor >= a.price_minor)
    for no key update;
    if not found then
        return 'unfunded';
    end if;
    update lead set state = 'held', due_at = null, qualified_at = coalesce(qualified_at, a.awarded_at)
    where id = a.lead_id;
    insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id,
        mode, price_minor, payout_minor, currency, attempts, due_at, awarded_at, hold_until, hour_at, day_at, week_at,
        month_at)
    values (a.id, a.lead_id, a.business_id, a.subscription_id, a.subscription_version, a.endpoint_id, a.provider_id,
        a.mode, a.price_minor, a.payout_minor, a.currency, 1, a.due_at, a.awarded_at, a.hold_until, a.hour_at,
        a.day_at, a.week_at, a.month_at);
    if live then
        insert into cap_usage (subscription_id, cap_window, starts_at, used_count, used_minor, limit_count, limit_minor)
        select a.subscription_id, w.cap_window, w.starts_at, 1, a.price_minor, w.most_count, w.most_minor
        from jsonb_to_recordset(a.windows)
            as w (cap_window text, starts_at timestamptz, most_count int, most_minor bigint)
        on conflict (subscription_id, cap_window, starts_at) do update
        set used_count = cap_usage.used_count + 1, used_minor = cap_usage.used_minor + excluded.used_minor,
            limit_count = excluded.limit_count, limit_minor = excluded.limit_minor;
        insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id, made_at)
        values (a.hold_id, 'hold', a.price_minor, a.currency, a.business_id, a.id, a.awarded_at);
        update wallet set available_minor = available_minor - a.price_minor, held_minor = held_minor + a.price_minor
        where business_id = a.business_id;
    end if;
    insert into decision (id, lead_id, made_at, outcome, vertical_version, catalog_version, strategy, verdict,
        candidates, left_out, subscription_id, assignment_id, credits)
    values (a.decision_id, a.lead_id, a.awarded_at, 'held', a.vertical_version, a.catalog_version, a.strategy,
        a.verdict, a.candidates, a.left_out, a.subscription_id, a.id, a.credits);
    if a.exposure is not null and opened_until is null and not is_withdrawn(a.lead_id) then
        now_exposed := clock_timestamp();
        update lead set state = 'exposed' where id = a.lead_id;
        insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address, tls_sha256,
            attempt_no, exposed_at)
        values (a.lead_id, a.id, a.business_id, 'push', a.endpoint_id, decode(a.exposure ->> 'url_sha256', 'base64'),
            a.exposure ->> 'address', decode(a.exposure ->> 'tls_sha256', 'base64'), 1, now_exposed);
        update assignment set state = 'exposed', exposed_at = now_exposed,
            evidence_until = (a.exposure ->> 'evidence_until')::timestamptz
        where id = a.id;
    end if;
    if a.credits is not null then
        insert into share_credit (vertical_id, mode, business_id, credit)
        select l.vertical_id, a.mode, change.key::uuid, change.value::bigint
        from lead l cross join lateral jsonb_each_text(a.credits) as change
        where l.id = a.lead_id
        order by change.key
        on conflict (vertical_id, mode, business_id) do update set credit = share_credit.credit + excluded.credit;
    end if;
    return 'won';
end $$;
