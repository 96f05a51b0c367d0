-- name: leads
-- $1: number of leads of market 1, waiting for an award. Written without triggers and foreign keys.
create unlogged table drawn as select uuidv7() as id, md5('provider' || 1 + n % 20)::uuid as provider_id
from generate_series(1, $1::int) n;
insert into inquiry (id, provider_id, vertical_id, mode, provider_reference, request_sha256, received_as, facts,
    consent_sha256, consent_given_at, submitted_at, received_at)
select id, provider_id, md5('vertical1')::uuid, 'live', id::text, '\x00', 'received', '{}', '\x00', now(), now(), now()
from drawn;
insert into lead (id, provider_id, vertical_id, mode, state, due_at, received_at)
select id, provider_id, md5('vertical1')::uuid, 'live', 'received', now() + interval '1 hour', now() from drawn;
drop table drawn;

-- name: fund
-- Half of the wallets have ten times as much as the others, so that in a race they are stopped by their caps instead.
update wallet set held_minor = 0,
    available_minor = $1::bigint * case when get_byte(uuid_send(business_id), 0) % 2 = 0 then 1 else 10 end;

-- name: list_leads
select id, provider_id from lead where state = 'received' order by id limit $1;

-- name: count_breaches
-- Leads with several live claims; cap windows above their limit, or that count other than what was awarded; wallets
-- below zero, or that lost other than what was awarded; leads held without a claim.
select (select count(*) from (select from assignment where state <> 'released' group by lead_id having count(*) > 1) x)
     + (select count(*) from cap_usage where used_count > limit_count or used_minor > limit_minor)
     + (select count(*) from cap_usage u where u.cap_window = 'total' and u.used_count <> (
            select count(*) from assignment a where a.subscription_id = u.subscription_id))
     + (select count(*) from wallet w where w.available_minor < 0 or w.available_minor + w.held_minor
                <> $1::bigint * case when get_byte(uuid_send(w.business_id), 0) % 2 = 0 then 1 else 10 end
            or w.held_minor <> (
                select coalesce(sum(a.price_minor), 0) from assignment a where a.business_id = w.business_id))
     + (select count(*) from lead l where (l.state = 'held') <> exists (
            select from assignment a where a.lead_id = l.id)) as breaches;

-- name: count_claims
select count(*) from assignment;
