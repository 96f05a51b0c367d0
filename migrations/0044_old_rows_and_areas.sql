-- An address that leads are sent to is one business's: held by the database, not by code under a lock. A switched-off
-- endpoint holds no address; switching it on again asks for it anew. Where two businesses proved one address before this
-- rule, that of the one who was first stays theirs; the endpoints of the other go on working, without a claim to it.
update endpoint e set address_key = null
from (
    select distinct on (address_key) address_key, business_id from endpoint
    where verified_at is not null and state <> 'disabled' and address_key is not null
    order by address_key, verified_at, id
) first
where e.address_key = first.address_key and e.business_id <> first.business_id
    and e.verified_at is not null and e.state <> 'disabled';

alter table endpoint add constraint endpoint_address_of_one
    exclude using gist (address_key with =, business_id with <>)
    where (verified_at is not null and state <> 'disabled');
drop index endpoint_by_address;

grant update (address_key) on endpoint to marketplace_api;  -- in its normal form, when it is proven

-- Ways into a tenant's account that an operator made before they were recorded (0040): the audit says who made each key and
-- endpoint, a used link who let a member in or gave one a new password. They are told to the owners like later ones, and
-- what they made in turn with them; a way into an account that nobody ran yet stays the tenant's own.
create function text_of_id(prefix text, id uuid) returns text language sql immutable as $$
    select prefix || '_' || string_agg(
        substr('0123456789abcdefghjkmnpqrstvwxyz', substring(bits from 5 * place + 1 for 5)::bit(5)::int + 1, 1), ''
        order by place)
    from generate_series(0, 25) place, (select B'00' || ('x' || replace(id::text, '-', ''))::bit(128) as bits) number
$$;

with recursive operator as (
    select id as actor from api_key where kind = 'operator'
    union all
    select text_of_id('mem', id) from member where kind = 'operator'
    union all
    select 'command line'
), made as (
    select k.id as subject, k.id as public_id, k.kind, k.owner_id, 'key' as way, a.actor, a.at
    from audit a join api_key k on k.id = a.object
    where a.action = 'key.create' and k.owner_id is not null
    union all
    select e.id::text, a.object, 'business', e.business_id, 'endpoint', a.actor, a.at
    from audit a join endpoint e on text_of_id('whe', e.id) = a.object
    where a.action = 'endpoint.create' and e.kind = 'push'
    union all
    select m.id::text, text_of_id('mem', m.id), m.kind, m.owner_id, 'member', l.made_by,
           case l.purpose when 'invite' then m.created_at else l.used_at end
    from one_time_link l
    join member m on m.id = l.member_id or (l.purpose = 'invite' and (m.owner_id, m.email) = (l.owner_id, l.email))
    where l.purpose in ('invite', 'reset') and l.used_at is not null and m.owner_id is not null
), in_use as (
    select * from made
    where at < (select applied_at from schema_migration where version = 40)
      and (exists (
               select from member o
               where o.owner_id = made.owner_id and o.role = 'owner' and o.created_at < made.at and o.id::text <> subject)
           or exists (
               select from assignment a where a.business_id = made.owner_id and a.exposed_at < made.at))
), opened as (
    select u.*, u.actor as opened_by from in_use u join operator using (actor)
    union
    select u.*, o.opened_by from in_use u join opened o on o.public_id = u.actor
)
insert into opened_access (subject, kind, owner_id, way, opened_by, reason, opened_at)
select distinct on (subject) subject, kind, owner_id, way, opened_by,
       'Made before the marketplace kept a reason.', at
from opened order by subject, at desc
on conflict (subject) do nothing;

drop function text_of_id(text, uuid);

-- A fixed payout has a bound now. One above it was cut to the price at each sale, and still is.
update provider set payout = jsonb_set(payout, '{minor}', '1000000000000')
where payout ->> 'type' = 'fixed' and (payout ->> 'minor')::numeric > 1000000000000;

-- A postal code means nothing without its country. Those of shared leads are in the country of their vertical; the code of an
-- exclusive lead from elsewhere is like none of them, so that it has no area in the comparison.
create function shares_codes(country text, other text) returns boolean language sql immutable parallel safe as $$
    select country = other or (
        country = any('{US,PR,VI,GU,AS,MP,UM,FM,MH,PW}') and other = any('{US,PR,VI,GU,AS,MP,UM,FM,MH,PW}'))
$$;

create or replace view exclusive_outcome as
select a.id as assignment_id, a.business_id, l.vertical_id,
       case when shares_codes(i.facts -> 'place' ->> 'country', (
           select coalesce(d.definition ->> 'country', 'US')
           from vertical v join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
           where v.id = l.vertical_id)) then i.facts -> 'place' ->> 'postal_code' end as postal_code,
       a.exposed_at as received_at,
       charge.amount_minor - coalesce(refund.amount_minor, 0) as cost_minor, a.currency,
       told.contacted_at,
       case when told.qualified then true when final.kind is not null then false end as qualified,
       case when final.kind = 'won' then final.happened_at end as won_at,
       case when final.kind = 'won' then final.value_minor end as won_minor,
       case when final.kind <> 'won' then final.happened_at end as lost_at,
       coalesce(told.demo, false) as demo
from assignment a
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
join transfer charge on charge.assignment_id = a.id and charge.kind = 'capture'
left join transfer refund on refund.assignment_id = a.id and refund.kind = 'refund'
left join lateral (
    select min(d.happened_at) filter (where d.kind in ('contacted', 'qualified', 'quoted', 'won')) as contacted_at,
           bool_or(d.kind in ('qualified', 'quoted', 'won')) as qualified,
           bool_or(d.source = 'demo') as demo
    from disposition d where d.assignment_id = a.id and d.undone_at is null
) told on true
left join lateral (
    select d.kind, d.happened_at, d.value_minor from disposition d
    where d.assignment_id = a.id and d.undone_at is null and d.kind in ('won', 'lost', 'unreachable')
    order by d.happened_at desc, d.id desc
    limit 1
) final on true
where a.mode = 'live';

-- What was kept of such leads: the area is the third number of a record.
update kept_outcome k set record = overlay(k.record placing '\x00000000'::bytea from 9 for 4)
from assignment a
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
join vertical v on v.id = l.vertical_id
join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
where a.id = k.assignment_id
    and not shares_codes(i.facts -> 'place' ->> 'country', coalesce(d.definition ->> 'country', 'US'));
update kept_outcome_run r set records = now.records
from (
    select currency, number / 128 as run, string_agg(record, '' order by number) as records
    from kept_outcome group by currency, number / 128
) now
where (r.currency, r.run) = (now.currency, now.run) and r.records <> now.records;
