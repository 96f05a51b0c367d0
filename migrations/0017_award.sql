-- The award: every condition again on locked rows, then the claim as a whole, in one call and so in one breath. A function
-- because each of its statements sees what was committed before it began: what is read after a lock is what stands now,
-- not what stood before the wait. Called by the worker alone, with the worker's own rights.
--
-- Locks lead, subscription, wallet, in that order. Writes nothing unless it answers 'won'; otherwise how far it came:
-- 'moved' (the lead is somebody else's business by now), 'withdrawn' (subscription, business or endpoint changed),
-- 'capped', 'unfunded'. `cover_minor` is what the wallet must cover, null for a rehearsal, which counts nowhere.
-- The windows are those of hour, day, week, month and total, and so are the limits; no limit is null.
create function award_lead(
    of_lead uuid, from_states text[], new_id uuid, to_business uuid, by_subscription uuid, by_version int,
    at_endpoint uuid, of_provider uuid, in_mode text, price bigint, payout bigint, in_currency text, cover_minor bigint,
    awarded timestamptz, due timestamptz, held_until timestamptz, starts timestamptz[], count_limits int[],
    minor_limits bigint[], hold_id uuid, decision_id uuid, by_vertical_version int, by_catalog_version bigint,
    by_strategy text, by_verdict jsonb, weighed jsonb, not_weighed int
) returns text language plpgsql as $$
declare
    windows constant text[] := array['hour', 'day', 'week', 'month', 'total'];
    live constant boolean := in_mode = 'live';
begin
    perform from lead where id = of_lead and state = any(from_states) for no key update;
    if not found then
        return 'moved';
    end if;
    perform from subscription where id = by_subscription for no key update;
    perform from subscription s
    join business b on b.id = s.business_id and b.state = 'active'
    join endpoint e on e.id = s.endpoint_id and e.id = at_endpoint and e.state = 'active'
        and (e.breaker_open_until is null or e.breaker_open_until <= awarded)
    where s.id = by_subscription and s.version = by_version and s.state = 'active';
    if not found then
        return 'withdrawn';
    end if;
    perform from cap_usage u
    join unnest(windows, starts, count_limits, minor_limits) as cap (cap_window, starts_at, most_count, most_minor)
        on (u.cap_window, u.starts_at) = (cap.cap_window, cap.starts_at)
    where u.subscription_id = by_subscription and live
      and (u.used_count >= cap.most_count or u.used_minor + price > cap.most_minor);
    if found then
        return 'capped';
    end if;
    perform from wallet
    where business_id = to_business and (cover_minor is null or available_minor + credit_limit_minor >= cover_minor)
    for no key update;
    if not found then
        return 'unfunded';
    end if;
    update lead set state = 'held', due_at = null, qualified_at = coalesce(qualified_at, awarded) where id = of_lead;
    insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id,
        mode, price_minor, payout_minor, currency, attempts, due_at, awarded_at, hold_until, hour_at, day_at, week_at,
        month_at)
    values (new_id, of_lead, to_business, by_subscription, by_version, at_endpoint, of_provider, in_mode, price, payout,
        in_currency, 1, due, awarded, held_until, starts[1], starts[2], starts[3], starts[4]);
    if live then
        insert into cap_usage (subscription_id, cap_window, starts_at, used_count, used_minor, limit_count, limit_minor)
        select by_subscription, cap.cap_window, cap.starts_at, 1, price, cap.most_count, cap.most_minor
        from unnest(windows, starts, count_limits, minor_limits) as cap (cap_window, starts_at, most_count, most_minor)
        on conflict (subscription_id, cap_window, starts_at) do update
        set used_count = cap_usage.used_count + 1, used_minor = cap_usage.used_minor + excluded.used_minor,
            limit_count = excluded.limit_count, limit_minor = excluded.limit_minor;
        insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id, made_at)
        values (hold_id, 'hold', price, in_currency, to_business, new_id, awarded);
        update wallet set available_minor = available_minor - price, held_minor = held_minor + price
        where business_id = to_business;
    end if;
    insert into decision (id, lead_id, made_at, outcome, vertical_version, catalog_version, strategy, verdict,
        candidates, left_out, subscription_id, assignment_id)
    values (decision_id, of_lead, awarded, 'held', by_vertical_version, by_catalog_version, by_strategy, by_verdict,
        weighed, not_weighed, by_subscription, new_id);
    return 'won';
end $$;
revoke all on function award_lead from public;
grant execute on function award_lead to marketplace_worker;
