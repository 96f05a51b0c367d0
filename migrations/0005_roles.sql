-- Who may touch what. The login that migrates owns everything and is not used at run time; each process takes one of
-- these roles. None of them may read contact data: that goes through read_contact(), and only the worker may call it.

do $$
declare
    role_name text;
begin
    foreach role_name in array array['marketplace_api', 'marketplace_worker', 'marketplace_reports'] loop
        begin
            execute format('create role %I nologin', role_name);
        exception when duplicate_object or unique_violation then null;
        end;
        if not pg_has_role(current_user, role_name, 'member') then
            execute format('grant %I to current_user', role_name);
        end if;
        execute format('grant usage on schema public to %I', role_name);
    end loop;
end $$;

revoke all on function read_contact(uuid, uuid) from public;
revoke all on function make_partitions(timestamptz, int) from public;

grant select on
    reference_data, postal_area, provider, business, vertical, vertical_version, endpoint, subscription,
    subscription_version, catalog_version, inquiry, lead, person_window, suppression, assignment, exposure,
    wallet, transfer, entry, cap_usage, decision, attempt, touch, audit
    to marketplace_api, marketplace_worker;

-- api: takes inquiries in, keeps the directory; cannot move a lead, an assignment or a hold
grant select on api_key to marketplace_api;
grant insert on
    provider, business, api_key, vertical, vertical_version, endpoint, subscription, subscription_version,
    inquiry, lead, contact, data_key, person_window, suppression, wallet, touch, audit
    to marketplace_api;
grant update (state, name, payout) on provider to marketplace_api;
grant update (state, name, zone) on business to marketplace_api;
grant update (revoked_at, expires_at) on api_key to marketplace_api;
grant update (version) on vertical to marketplace_api;
grant update (state, name, version, endpoint_id) on subscription to marketplace_api;
grant update (url, state, secret, previous_secret, previous_until, verified_at, breaker, breaker_open_until)
    on endpoint to marketplace_api;
grant update (due_at) on lead to marketplace_api;
grant update (available_minor, credit_limit_minor, low_below_minor) on wallet to marketplace_api;
grant insert on transfer to marketplace_api;

-- worker: walks leads, moves money, delivers
grant update (state, reason, due_at, qualified_at, settled_at) on lead to marketplace_worker;
grant update (during), delete on person_window to marketplace_worker;
grant insert on assignment, transfer, decision, attempt, touch, audit, cap_usage to marketplace_worker;
-- all but committed_by, which must stay the writer's own: read_contact() trusts it
grant insert (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address, tls_sha256, attempt_no,
    exposed_at) on exposure to marketplace_worker;
grant update (state, reason, attempts, due_at, exposed_at, evidence_until, evidence, settled_at) on assignment
    to marketplace_worker;
grant update (available_minor, held_minor) on wallet to marketplace_worker;
grant update (used_count, used_minor, limit_count, limit_minor) on cap_usage to marketplace_worker;
grant update (state, breaker, breaker_open_until) on endpoint to marketplace_worker;
-- row locks need a privilege to update some column of the locked row
grant update (name) on subscription to marketplace_worker;
grant execute on function read_contact(uuid, uuid) to marketplace_worker;
grant execute on function make_partitions(timestamptz, int) to marketplace_worker;

-- reports: reads everything but contact data, keys and signing secrets
grant select on
    reference_data, postal_area, provider, business, vertical, vertical_version, subscription, subscription_version,
    catalog_version, inquiry, lead, assignment, exposure, wallet, transfer, entry, cap_usage, decision, attempt,
    touch, audit
    to marketplace_reports;
grant select (id, business_id, url, state, breaker, breaker_open_until, created_at, verified_at) on endpoint
    to marketplace_reports;
-- what `marketplace verify` compares beside: whose contact is there, which persons' windows overlap, what missed its month
grant select (lead_id) on contact, data_key to marketplace_reports;
grant select on person_window, decision_other, attempt_other, touch_other, audit_other to marketplace_reports;

-- The api may book a payment and nothing else; what leads move is moved by the worker.
alter table transfer enable row level security;
create policy transfer_seen_by_all on transfer for select using (true);
create policy transfer_of_payments on transfer for insert to marketplace_api
    with check (kind in ('top_up', 'withdrawal'));
create policy transfer_of_leads on transfer for insert to marketplace_worker
    with check (kind not in ('top_up', 'withdrawal'));
