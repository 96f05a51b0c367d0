-- The terms of a person's consent become rules: who may get the lead, and until when anybody may.

-- Legal and trade names of a business, by which a consent may name it. Only operators write them: a business that could would
-- pass as any seller. Its display name, which it may change, does not count.
alter table business add column seller_names text[] not null default '{}'
    constraint business_seller_names check (cardinality(seller_names) <= 20);
grant update (seller_names) on business to marketplace_api;

drop trigger business_changes on business;
create trigger business_changes after update on business
    for each row
    when (old.state is distinct from new.state or old.seller_names is distinct from new.seller_names)
    execute function record_catalog_change();
create or replace function catalog_fingerprint(s subscription, b business, e endpoint) returns bigint language sql stable as $$
    select hash_record_extended(row(s.id, s.business_id, s.endpoint_id, s.vertical_id, s.mode, s.version, s.state,
        s.suspended_for, b.state, b.seller_names, e.state, e.breaker_open_until), 0)
$$;

-- The end of the person's consent, null without one. Written once, in the transaction that takes the inquiry in.
alter table lead add column consent_until timestamptz;
grant update (consent_until) on lead to marketplace_api;
create trigger lead_consent_is_kept before update of consent_until on lead for each row
    when (old.consent_until is not null and old.consent_until is distinct from new.consent_until)
    execute function refuse_change();

-- Whether nothing of a lead may leave us any more: it was erased, its person asked anybody here not to be contacted, or the
-- consent has ended, by this database's clock at this moment. Every statement that exposes a lead asks it, so that a consent
-- that ends between the decision and the exposure is found.
create or replace function is_withdrawn(of_lead uuid) returns boolean language sql volatile as $$
    select exists (select from erasure where lead_id = of_lead)
        or exists (select from person_key k join suppression s on s.key = k.key where k.lead_id = of_lead)
        or exists (select from lead where id = of_lead and consent_until <= clock_timestamp())
$$;
