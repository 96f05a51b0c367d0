-- The number of a share is part of what is sealed.

-- The form of 0006_audit_chain.sql, except that the digest of a transfer has its share where it has one: the seals of transfers
-- from before stay as they are.
create or replace view audit_entry as
select committed_by, '\x61'::bytea || uuid_send(id) as place, at,
       sha256(convert_to(jsonb_build_array(committed_by::text, id, extract(epoch from at)::text, actor, action, object,
           detail)::text, 'UTF8')) as digest
from audit
union all
select committed_by, '\x65'::bytea || uuid_send(lead_id), exposed_at,
       sha256(convert_to(jsonb_build_array(committed_by::text, lead_id, assignment_id, business_id, live, seen, channel,
           endpoint_id, encode(url_sha256, 'hex'), address, encode(tls_sha256, 'hex'), attempt_no, position,
           extract(epoch from exposed_at)::text)::text, 'UTF8'))
from exposure
union all
select committed_by, '\x74'::bytea || uuid_send(id), made_at,
       sha256(convert_to((jsonb_build_array(committed_by::text, id, kind, amount_minor, currency, business_id,
           provider_id, assignment_id, event_id, extract(epoch from made_at)::text, price_minor, payout_minor)
           || case when share is null then '[]' else jsonb_build_array(share) end)::text, 'UTF8'))
from transfer
union all
select committed_by, '\x6d0000000000000000'::bytea || int8send(position), at,
       sha256(convert_to(jsonb_build_array(committed_by::text, position, lead_id, assignment_id, left_state,
           entered_state, actor, extract(epoch from at)::text)::text, 'UTF8'))
from move;
