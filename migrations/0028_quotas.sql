-- A business that refuses what it has read, or never acknowledges it, reads for nothing. Past its vertical's quota the
-- subscription is suspended, in the transaction that settles the lead which crossed it; award_lead takes active ones only.
alter table subscription drop constraint subscription_state;
alter table subscription
    add constraint subscription_state check (state in ('active', 'paused', 'suspended', 'ended')),
    add column suspended_for text constraint subscription_suspended_for check (suspended_for in ('refusals', 'unacknowledged')),
    add column suspended_at timestamptz,
    add column suspended_counted int,
    add column suspended_shown int,
    -- where the counting began anew, and how many leads of the day windows open then had been counted before
    add column quota_since timestamptz,
    add column quota_before int not null default 0,
    add constraint subscription_suspended check (state <> 'suspended'
        or (suspended_for is not null and suspended_at is not null and suspended_counted is not null
            and suspended_shown is not null));

-- Leads that were shown and are not paid for: what a quota counts. Those that are delivered leave it again.
create index assignment_unpaid on assignment (subscription_id, awarded_at)
    where mode = 'live' and state in ('exposed', 'refused', 'lapsed');
create index subscription_suspended_first on subscription (suspended_at) where state = 'suspended';

grant update (state, suspended_for, suspended_at, suspended_counted, suspended_shown) on subscription to marketplace_worker;
grant update (quota_since, quota_before) on subscription to marketplace_api;
