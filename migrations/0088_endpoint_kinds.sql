-- Two more ways to receive leads, both without a server: the inbox of the portal, where a member takes a lead, and e-mail.
-- `endpoint_door` holds for them as it is: only a webhook has a URL and a signing secret.
alter table endpoint drop constraint endpoint_kind,
    add constraint endpoint_kind check (kind in ('push', 'feed', 'inbox', 'email'));

-- People need longer than servers: how long a lead is held for them before it goes to the next business.
alter table endpoint add column hold_seconds int not null default 120
    constraint endpoint_hold check (hold_seconds between 120 and 900 and (kind in ('inbox', 'email') or hold_seconds = 120));

-- Every process holds the time as a part of the rules in force.
drop trigger endpoint_changes on endpoint;
create trigger endpoint_changes after update on endpoint
    for each row
    when ((old.state, old.breaker_open_until, old.hold_seconds)
        is distinct from (new.state, new.breaker_open_until, new.hold_seconds))
    execute function record_catalog_change();
create or replace function catalog_fingerprint(s subscription, b business, e endpoint) returns bigint language sql stable as $$
    select hash_record_extended(row(s.id, s.business_id, s.endpoint_id, s.vertical_id, s.mode, s.version, s.state,
        s.suspended_for, b.state, b.seller_names, e.state, e.breaker_open_until, e.hold_seconds), 0)
$$;

grant update (hold_seconds) on endpoint to marketplace_api;
grant select (hold_seconds) on endpoint to marketplace_reports;
