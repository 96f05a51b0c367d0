-- A year of generated leads, written without triggers and foreign keys, for reports at that size. Takes a minute or two.
-- Random numbers are md5 of the lead's number, so that every run has the same data.

-- name: parties
-- $1: the definitions of the verticals; $2: those of the subscriptions.
insert into provider (id, name, payout, created_at)
select md5('provider' || n)::uuid, 'Provider ' || n, '{"type": "share", "basis_points": 6000}', now() - interval '1 year'
from generate_series(1, 20) n;
insert into vertical_version (vertical_id, version, definition, made_by)
select md5('vertical' || n)::uuid, 1, $1::jsonb, 'seed' from generate_series(1, 4) n;
insert into vertical (id, slug, version) select md5('vertical' || n)::uuid, 'market-' || n, 1 from generate_series(1, 4) n;
insert into business (id, name, zone, created_at)
select md5('business' || n)::uuid, 'Business ' || n, 'America/Chicago', now() - interval '1 year'
from generate_series(1, 200) n;
insert into wallet (business_id, currency) select md5('business' || n)::uuid, 'USD' from generate_series(1, 200) n;
insert into endpoint (id, business_id, url, state, secret)
select md5('endpoint' || n)::uuid, md5('business' || n)::uuid, 'https://' || n || '.example.com/', 'active', ''
from generate_series(1, 200) n;
insert into subscription_version (subscription_id, version, definition, made_by)
select md5('subscription' || n)::uuid, 1, $2::jsonb || jsonb_build_object('weight', 1 + n % 3), 'seed'
from generate_series(1, 200) n;
insert into subscription (id, business_id, vertical_id, endpoint_id, mode, name, version, currency, created_at)
select md5('subscription' || n)::uuid, md5('business' || n)::uuid, md5('vertical' || 1 + n % 4)::uuid,
       md5('endpoint' || n)::uuid, 'live', 'Subscription ' || n, 1, 'USD', now() - interval '1 year'
from generate_series(1, 200) n;
insert into api_key (id, kind, owner_id, mode, name, secret_hmac)
select 'seed' || n, 'provider', md5('provider' || 1 + n % 20)::uuid, 'live', 'Key ' || n, '\x00'
from generate_series(1, 60) n;

-- name: draw
-- $1 to $2: the numbers of this portion; $3: the year's end; $4: leads in all. The square of a chance makes the first few
-- of many the largest.
create unlogged table seeded as
select n, received_at, uuidv7(received_at - clock_timestamp()) as id, uuidv7(received_at - clock_timestamp()) as assignment,
       1 + n % 4 as market, 1 + floor(20 * (chance[1] / 65536.0) ^ 2)::int as source,
       floor(50 * (chance[2] / 65536.0) ^ 2)::int as place, 1 + n % 4 + 4 * floor(50 * (chance[2] / 65536.0) ^ 2)::int as buyer,
       chance,
       case when fate between 40 and 99 and n > $4::int - $4::int / 500 then 'prospect'
            when fate between 100 and 119 and n > $4::int - $4::int / 50 then 'nurturing' when fate < 30 then 'duplicate' when fate < 40 then 'suppressed' when fate < 120 then 'rejected'
            when fate < 140 then 'expired' when fate < 290 then 'unsold' when fate < 320 then 'refused'
            when fate < 340 then 'lapsed' when fate < 380 then 'returned' else 'delivered' end as state
from (
    select n, $3::timestamptz - interval '365 days' * ($4::float8 - n + 0.5) / $4 as received_at,
           array(select (get_byte(h, i) * 256 + get_byte(h, i + 1)) from generate_series(0, 14, 2) i) as chance,
           (get_byte(h, 14) * 256 + get_byte(h, 15)) % 1000 as fate
    from generate_series($1::int, $2::int) n cross join lateral decode(md5(n::text), 'hex') h
) drawn;

-- name: leads
insert into inquiry (id, provider_id, vertical_id, mode, provider_reference, request_sha256, received_as, facts,
    consent_sha256, consent_given_at, submitted_at, received_at)
select id, md5('provider' || source)::uuid, md5('vertical' || market)::uuid, 'live', 'ref-' || n, '\x00',
       case when state in ('duplicate', 'suppressed') then state else 'received' end,
       jsonb_build_object('vertical', 'market-' || market, 'mode', 'live', 'submitted_at', received_at,
           'received_at', received_at, 'place', jsonb_build_object('country', 'US', 'postal_code', '60614',
           'latitude', 41.92, 'longitude', -87.64, 'time_zone', 'America/Chicago'), 'signals',
           '{"phone_type": "mobile"}'::jsonb, 'budget', '{"minor": 1200000, "currency": "USD"}'::jsonb, 'need_fields',
           '{"service": "roofing", "roof_type": "tile"}'::jsonb, 'source', (array['google', 'partner', 'mail'])[1 + chance[5] % 3],
           'sub_ids', jsonb_build_object('ad', (chance[3] % 12)::text))
           || case when state = 'nurturing' then jsonb_build_object('timing', jsonb_build_object('not_before',
               (received_at + interval '200 days')::date)) else '{}' end,
       '\x00', received_at, received_at - interval '1 ms' * (500 + chance[3] % 9000), received_at
from seeded order by n;
insert into person_key (lead_id, key) select id, sha256(convert_to('person' || n, 'UTF8')) from seeded order by n;
insert into lead (id, provider_id, vertical_id, mode, state, reason, waits_for, due_at, received_at, qualified_at, settled_at)
select id, md5('provider' || source)::uuid, md5('vertical' || market)::uuid, 'live', state,
       case state when 'rejected' then (array['budget_fails', 'timing_fails', 'score_below'])[1 + chance[4] % 3]
                  when 'unsold' then (array['outside_area', 'cap_reached', 'closed', 'budget_minimum'])[1 + chance[4] % 4]
                  when 'prospect' then 'closed' when 'refused' then 'answered_4xx' end,
       case when state = 'nurturing' then array['date'] end,
       case when state in ('prospect', 'nurturing') then $1::timestamptz + interval '1 s' * chance[4] end, received_at,
       case when state not in ('duplicate', 'suppressed', 'rejected', 'expired', 'nurturing')
            then received_at + interval '1 ms' * (2 + chance[5] % 20) end,
       case when state not in ('prospect', 'nurturing') then received_at + interval '1 second' end
from seeded order by n;

-- name: awards
insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id, mode,
    state, reason, price_minor, payout_minor, currency, attempts, awarded_at, hold_until, exposed_at, evidence_until,
    evidence, settled_at, hour_at, day_at, week_at, month_at)
select assignment, id, md5('business' || buyer)::uuid, md5('subscription' || buyer)::uuid, 1,
       md5('endpoint' || buyer)::uuid, md5('provider' || source)::uuid, 'live', state,
       case when state = 'refused' then 'answered_4xx' end, 5000, 3000, 'USD', 1, at, at, at + interval '5 ms', at,
       case when state in ('delivered', 'returned') then 'answer' end, at + interval '1 ms' * (20 + chance[6] % 300),
       at, at, at, at
from (select s.*, received_at + interval '1 ms' * (2 + chance[5] % 20) as at from seeded s) s
where state in ('refused', 'lapsed', 'delivered', 'returned') order by n;
insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address, attempt_no,
    exposed_at)
select id, assignment, md5('business' || buyer)::uuid, (array['push', 'push', 'push', 'fetch', 'email'])[1 + chance[7] % 5],
       md5('endpoint' || buyer)::uuid, '\x00', '192.0.2.1:443', 1, received_at + interval '5 ms'
from seeded where state in ('refused', 'lapsed', 'delivered', 'returned') order by n;
insert into attempt (id, assignment_id, lead_id, business_id, endpoint_id, attempt_no, started_at, outcome, reason, status,
    connect_ms, tls_ms, expose_ms, first_byte_ms, total_ms, address, body_sha256)
select uuidv7(received_at - clock_timestamp()), assignment, id, md5('business' || buyer)::uuid,
       md5('endpoint' || buyer)::uuid, tried.no, received_at + interval '1 ms' * (1 + 2 * tried.no), tried.outcome,
       tried.reason, tried.status, 2, 5, 3, 10 + chance[6] % 200, 25 + chance[6] % 300, '192.0.2.1:443', '\x00'
from seeded
cross join lateral (
    select 1 as no, 'busy' as outcome, 'server_error' as reason, 503 as status where chance[4] % 25 = 0
    union all
    select case when chance[4] % 25 = 0 then 2 else 1 end,
           case state when 'refused' then 'refused' when 'lapsed' then 'unknown' else 'accepted' end,
           case state when 'refused' then 'answered_4xx' when 'lapsed' then 'no_answer' else 'taken' end,
           case state when 'refused' then 422 when 'lapsed' then null else 200 end
) tried
where state in ('refused', 'lapsed', 'delivered', 'returned') order by n, tried.no;
insert into transfer (id, kind, amount_minor, currency, business_id, provider_id, assignment_id, made_at)
select uuidv7(received_at - clock_timestamp()), kind, minor, 'USD', case when paid then null else md5('business' || buyer)::uuid end,
       case when paid then md5('provider' || source)::uuid end, assignment, received_at + interval '1 ms' * (10 * nth)
from seeded
cross join lateral (values
    (1, 'hold', 5000, false, true), (2, 'capture', 5000, false, state in ('delivered', 'returned')),
    (2, 'release', 5000, false, state in ('refused', 'lapsed')), (3, 'payout', 3000, true, state in ('delivered', 'returned')),
    (4, 'refund', 5000, false, state = 'returned'), (5, 'claw_back', 3000, true, state = 'returned')
) as moved (nth, kind, minor, paid, wanted)
where wanted and state in ('refused', 'lapsed', 'delivered', 'returned') order by n, nth;

-- name: told
insert into disposition (id, assignment_id, lead_id, business_id, kind, value_minor, reason, happened_at, recorded_at, source)
select gen_random_uuid(), assignment, id, md5('business' || buyer)::uuid, kind, value_minor, reason,
       received_at + after, received_at + after, 'api'
from seeded
cross join lateral (values
    ('contacted', null::bigint, null, interval '1 minute' * (1 + chance[3] % 600), chance[1] % 10 < 7),
    ('won', 500000 + chance[2], null, interval '1 day' * (1 + chance[4] % 20), chance[1] % 10 < 2),
    ('lost', null, (array['price', 'competitor', 'not_interested'])[1 + chance[6] % 3],
        interval '1 day' * (1 + chance[4] % 20), chance[1] % 10 in (2, 3, 4)),
    ('unreachable', null, null, interval '1 day', chance[1] % 10 = 8)
) as told (kind, value_minor, reason, after, wanted)
where wanted and state in ('delivered', 'returned') and received_at + after < $1::timestamptz order by n;
insert into return_request (id, assignment_id, lead_id, business_id, reason, state, requested_at, judged_at, judged_by,
    finding)
select uuidv7(received_at - clock_timestamp()), assignment, id, md5('business' || buyer)::uuid,
       (array['duplicate', 'invalid_number', 'wrong_person'])[1 + chance[5] % 3], asked.found, received_at, judged.at,
       judged.by, judged.finding
from seeded
cross join lateral (
    select case when state = 'returned' then 'granted' when n > $3::int - $3::int / 100 then 'requested' else 'denied' end
        as found
) asked
cross join lateral (
    select case when asked.found <> 'requested' then received_at + interval '1 hour' end as at,
           case when asked.found <> 'requested' then 'machine' end as by,
           case when asked.found <> 'requested' then 'As the stored decision says.' end as finding
) judged
where state = 'returned' or (state = 'delivered' and chance[7] % 200 = 0) order by n;

-- name: decisions
-- $2: the verdict of qualification.
insert into decision (id, lead_id, made_at, outcome, reason, vertical_version, catalog_version, strategy, verdict,
    candidates, subscription_id, assignment_id)
select uuidv7(received_at - clock_timestamp()), id,
       case when state in ('refused', 'lapsed', 'delivered', 'returned') then received_at + interval '1 ms' * (2 + chance[5] % 20)
            else received_at + interval '2 ms' end,
       case when state in ('rejected', 'expired', 'unsold', 'nurturing') then state when state = 'prospect' then 'waiting'
            else 'held' end,
       null, 1, 1, 'weighted_share', $2::jsonb,
       case when state in ('rejected', 'expired', 'nurturing') then '[]'::jsonb else (
           select jsonb_agg(jsonb_strip_nulls(jsonb_build_object('subscription_id', md5('subscription' || other)::uuid,
               'business_id', md5('business' || other)::uuid, 'version', 1, 'price_minor', 5000,
               'position', case when state not in ('unsold', 'prospect') and nth < 3 then nth end,
               'failures', case
                   when state not in ('unsold', 'prospect') and nth = 1 then null
                   when state not in ('unsold', 'prospect') and nth = 2 then '[{"rule": "outranked", "detail": "ranked 2 of 2", "distance": 1, "unit": "places"}]'::jsonb
                   when nth = 3 then jsonb_build_array(jsonb_build_object('rule', 'outside_area', 'detail',
                       'km outside', 'distance', (chance[5] % 400) / 10.0, 'unit', 'km'))
                   when nth = 4 then '[{"rule": "paused", "detail": "paused by the business"}, {"rule": "closed", "detail": "closed"}]'::jsonb
                   else jsonb_build_array(jsonb_build_object('rule', 'budget_minimum', 'detail', 'budget below',
                       'distance', 100 * (chance[6] % 3000), 'unit', 'minor')) end)))
           from (select nth, 1 + n % 4 + 4 * ((place + 7 * (nth - 1)) % 50) as other from generate_series(1, 4) nth) o)
       end,
       case when state in ('refused', 'lapsed', 'delivered', 'returned') then md5('subscription' || buyer)::uuid end,
       case when state in ('refused', 'lapsed', 'delivered', 'returned') then assignment end
from seeded where state not in ('duplicate', 'suppressed') order by n;

-- name: nurtured
-- $2: the verdict of qualification. One lead in five was nurtured first; half of these had a touch before they were qualified.
insert into decision (id, lead_id, made_at, outcome, reason, vertical_version, catalog_version, strategy, verdict, candidates)
select uuidv7(received_at - clock_timestamp()), id, received_at + interval '1 ms', 'nurturing', null, 1, 1,
       'weighted_share', $2::jsonb, '[]'
from seeded where state not in ('duplicate', 'suppressed', 'rejected', 'nurturing') and chance[6] % 5 = 0 order by n;
insert into touch (lead_id, fingerprint, revision, kind, at, recorded_at)
select id, decode(md5('touch' || n), 'hex'), 1, (array['page_view', 'email_open', 'call', 'form'])[1 + chance[3] % 4],
       received_at, received_at
from seeded where state not in ('duplicate', 'suppressed') and chance[6] % 10 = 0 order by n;

-- name: drop
drop table seeded;

-- name: books
-- $1: the year's end. Top-ups, so that every wallet equals the sum of its entries; audit rows; refused requests;
-- suppressed persons; and one sealed block, as if all rows had been sealed.
insert into transfer (id, kind, amount_minor, currency, business_id, event_id, made_at)
select uuidv7(at - clock_timestamp()), 'top_up', 20000000, 'USD', md5('business' || n)::uuid, 'payment-' || n || '-' || month, at
from generate_series(1, 200) n, generate_series(0, 12) month,
     lateral (select $1::timestamptz - interval '1 day' * (366 - 30 * month) as at) moment;
update wallet w set available_minor = e.available, held_minor = e.held
from (
    select business_id, sum(amount_minor) filter (where account = 'available') as available,
           coalesce(sum(amount_minor) filter (where account = 'held'), 0) as held
    from entry where business_id is not null group by business_id
) e where e.business_id = w.business_id;
insert into audit (id, at, actor, action, object, detail)
select uuidv7(at - clock_timestamp()), at,
       case when n % 7 = 0 then 'command line' else public_id('mem', md5('member' || n % 50)::uuid) end,
       case when n % 20000 = 0 then 'key.revoke'
            else (array['subscription.change', 'endpoint.breaker', 'top_up.book', 'lead.open', 'return.judge'])[1 + n % 5] end,
       public_id('biz', md5('business' || 1 + n % 200)::uuid), '{"reason": "seed"}'
from generate_series(1, 300000) n, lateral (select $1::timestamptz - interval '365 days' * (300000 - n) / 300000 as at) moment;
insert into refusal_count (provider_id, mode, hour, pointer, code, count)
select md5('provider' || n)::uuid, 'live', date_trunc('hour', $1::timestamptz, 'UTC') - interval '4 hours' * nth, pointer,
       case when pointer = '*' then '' else 'field_missing' end, 1 + nth % 9
from generate_series(1, 20) n, generate_series(1, 2190) nth, unnest(array['*', '/contact/phone', '/bant/budget']) pointer;
insert into suppression (key, reason, source, created_at)
select decode(md5('suppressed' || n), 'hex'), 'asked', 'list', $1::timestamptz - interval '1 hour' * (n / 10)
from generate_series(1, 20000) n;
insert into erasure (lead_id, requested_at, requested_by, reason, suppressed)
select id, received_at + interval '1 day', 'command line', 'asked', false
from lead where state = 'rejected' and received_at < $1::timestamptz - interval '2 days' limit 2000;
insert into audit_block (number, previous, xid_from, xid_to, entries, sealed_at, seal)
select 1, sha256(''), '0', (pg_current_xact_id()::text::bigint + 1)::text::xid8, decode(repeat('00', 49), 'hex'), $1, sha256('seed');

-- name: outcomes
-- Outcome records that the worker would have stored by now, and $2 shared leads per business.
insert into kept_outcome (assignment_id, currency, received_at, record)
select assignment_id, currency, received_at, record from exclusive_record order by received_at;
insert into kept_outcome_run (currency, run, first_received_at, last_received_at, records)
select currency, number / 128, min(received_at), max(received_at), string_agg(record, '' order by number)
from kept_outcome group by 1, 2;
update kept_outcome_progress set xid = pg_current_xact_id(), at = $1;
insert into shared_import (id, business_id, source, added, known, refused, at, currency, first_received_at,
    last_received_at, records)
select md5('import' || b.number)::uuid, b.id, 'csv', $2::int, 0, 0, $1, 'USD', $1::timestamptz - interval '365 days', $1, (
    select string_agg(int4send(b.number) || int4send(v.number) || int4send(area_number('60614'))
        || int8send(date_part('epoch', r)::bigint) || int8send(3000)
        || int4send(case when chance[1] % 10 < 7 then chance[2]::int * 7 else -1 end)
        || int4send(case when chance[3] % 100 < 5 then chance[4]::int * 80 else -1 end) || int8send(100000 + chance[5] * 3)
        || int4send(case when chance[6] % 2 = 0 then 4 else 0 end + 1 + (chance[7] % 2)::int)
        || int8send(date_part('epoch', $1::timestamptz)::bigint), '')
    from generate_series(1, $2::int) n
    cross join lateral (select decode(md5(b.number || 'shared' || n), 'hex') as h) hashed
    cross join lateral (select array(
        select get_byte(h, i) * 256 + get_byte(h, i + 1) from generate_series(0, 14, 2) i) as chance) drawn
    cross join lateral (select $1::timestamptz - interval '365 days' * (n - 0.5) / $2::int as r) moment
    cross join (select number from vertical where slug = 'market-1') v)
from business b;
