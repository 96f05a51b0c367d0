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
