-- A year of made-up leads, written past the triggers and foreign keys: what reports read at that size, in a minute or two.
-- Chance is md5 of the lead's number, so that every run measures the same world.

-- name: parties
insert into provider (id, name, payout)
select md5('provider' || n)::uuid, 'Provider ' || n, '{"type": "share", "basis_points": 6000}' from generate_series(1, 20) n;
insert into vertical_version (vertical_id, version, definition, made_by)
select md5('vertical' || n)::uuid, 1, '{}', 'seed' from generate_series(1, 4) n;
insert into vertical (id, slug, version) select md5('vertical' || n)::uuid, 'market-' || n, 1 from generate_series(1, 4) n;
insert into business (id, name, zone)
select md5('business' || n)::uuid, 'Business ' || n, 'America/Chicago' from generate_series(1, 200) n;
insert into wallet (business_id, currency, available_minor)
select md5('business' || n)::uuid, 'USD', 100000000 from generate_series(1, 200) n;
insert into endpoint (id, business_id, url, state, secret)
select md5('endpoint' || n)::uuid, md5('business' || n)::uuid, 'https://' || n || '.example.com/', 'active', ''
from generate_series(1, 200) n;
insert into subscription_version (subscription_id, version, definition, made_by)
select md5('subscription' || n)::uuid, 1,
       jsonb_build_object('area', '{"anywhere": true}'::jsonb, 'zone', 'America/Chicago', 'price_minor', 5000,
           'currency', 'USD', 'weight', 1 + n % 3,
           'hours', '{"spec": "Mo-Fr 08:00-18:00", "zone": "America/Chicago"}'::jsonb), 'seed'
from generate_series(1, 200) n;
insert into subscription (id, business_id, vertical_id, endpoint_id, mode, name, version, currency)
select md5('subscription' || n)::uuid, md5('business' || n)::uuid, md5('vertical' || 1 + n % 4)::uuid,
       md5('endpoint' || n)::uuid, 'live', 'Subscription ' || n, 1, 'USD' from generate_series(1, 200) n;

-- name: draw
-- $1 to $2: the numbers of this portion; $3: the year's end; $4: leads in all.
create unlogged table seeded as
select n, received_at, uuidv7(received_at - clock_timestamp()) as id, uuidv7(received_at - clock_timestamp()) as assignment,
       1 + n % 4 as market, 1 + (chance[1] % 20) as source, 1 + n % 4 + 4 * ((chance[2] % 50)) as buyer, chance,
       case when fate < 30 then 'duplicate' when fate < 40 then 'suppressed' when fate < 120 then 'rejected'
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
           '{"roof_type": "tile"}'::jsonb, 'source', 'google', 'sub_ids', jsonb_build_object('ad', chance[3] % 12)),
       '\x00', received_at, received_at - interval '1 ms' * (500 + chance[3] % 9000), received_at
from seeded order by n;
insert into lead (id, provider_id, vertical_id, mode, state, reason, received_at, qualified_at, settled_at)
select id, md5('provider' || source)::uuid, md5('vertical' || market)::uuid, 'live', state,
       case state when 'rejected' then (array['budget_fails', 'timing_fails', 'score_below'])[1 + chance[4] % 3]
                  when 'unsold' then (array['outside_area', 'cap_reached', 'closed', 'budget_minimum'])[1 + chance[4] % 4]
                  when 'refused' then 'answered_4xx' end,
       received_at,
       case when state not in ('duplicate', 'suppressed', 'rejected', 'expired')
            then received_at + interval '1 ms' * (2 + chance[5] % 20) end, received_at + interval '1 second'
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
insert into attempt (id, assignment_id, lead_id, business_id, endpoint_id, attempt_no, started_at, outcome, reason,
    connect_ms, tls_ms, expose_ms, first_byte_ms, total_ms)
select uuidv7(), assignment, id, md5('business' || buyer)::uuid, md5('endpoint' || buyer)::uuid, 1,
       received_at + interval '3 ms', 'accepted', 'accepted', 2, 5, 3, 10 + chance[6] % 200, 25 + chance[6] % 300
from seeded where state in ('refused', 'lapsed', 'delivered', 'returned') order by n;
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
where wanted and state in ('delivered', 'returned') and received_at + after < $3::timestamptz order by n;

-- name: decisions
insert into decision (id, lead_id, made_at, outcome, reason, vertical_version, catalog_version, strategy, verdict,
    candidates, subscription_id, assignment_id)
select uuidv7(received_at - clock_timestamp()), id, received_at + interval '2 ms',
       case when state in ('rejected', 'expired', 'unsold') then state else 'held' end, null, 1, 1, 'weighted_share', '{}',
       case when state in ('rejected', 'expired') then '[]'::jsonb else (
           select jsonb_agg(jsonb_strip_nulls(jsonb_build_object('subscription_id', md5('subscription' || other)::uuid,
               'business_id', md5('business' || other)::uuid, 'version', 1, 'price_minor', 5000,
               'position', case when state <> 'unsold' and nth < 3 then nth end,
               'failures', case
                   when state <> 'unsold' and nth = 1 then null
                   when state <> 'unsold' and nth = 2 then '[{"rule": "outranked", "detail": "ranked 2 of 2", "distance": 1, "unit": "places"}]'::jsonb
                   when nth = 3 then jsonb_build_array(jsonb_build_object('rule', 'outside_area', 'detail',
                       'km outside', 'distance', (chance[5] % 400) / 10.0, 'unit', 'km'))
                   when nth = 4 then '[{"rule": "paused", "detail": "paused by the business"}, {"rule": "closed", "detail": "closed"}]'::jsonb
                   else jsonb_build_array(jsonb_build_object('rule', 'budget_minimum', 'detail', 'budget below',
                       'distance', 100 * (chance[6] % 3000), 'unit', 'minor')) end)))
           from (select nth, 1 + n % 4 + 4 * ((chance[2] + 7 * (nth - 1)) % 50) as other from generate_series(1, 4) nth) o)
       end,
       case when state in ('refused', 'lapsed', 'delivered', 'returned') then md5('subscription' || buyer)::uuid end,
       case when state in ('refused', 'lapsed', 'delivered', 'returned') then assignment end
from seeded where state not in ('duplicate', 'suppressed') order by n;

-- name: drop
drop table seeded;
