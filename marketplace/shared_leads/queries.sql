-- name: find_buyer
-- Time zone of the times in a business's files, and the currency in which leads are compared.
select b.zone, w.currency from business b join wallet w on w.business_id = b.id where b.id = $1;

-- name: list_verticals
select id, slug from vertical;

-- name: insert_leads
-- Insert the new leads and, in the same statement, the records that the estimates read: those of `exclusive_record`, each
-- followed by the time up to which it was observed. Stored leads do not change. Bit 16 marks a win whose day is unknown.
with given as (
    select * from unnest($7::uuid[], $8::text[], $9::text[], $10::uuid[], $11::text[], $12::timestamptz[], $13::bigint[],
        $14::timestamptz[], $15::bool[], $16::timestamptz[], $17::bigint[], $18::timestamptz[], $19::bool[])
        as g (id, vendor, external_id, vertical_id, postal_code, received_at, cost_minor, contacted_at, qualified, won_at,
            won_minor, lost_at, lost)
), added as (
    insert into shared_lead (id, business_id, import_id, vendor, external_id, vertical_id, postal_code, received_at,
        observed_until, cost_minor, currency, contacted_at, qualified, won_at, won_minor, lost_at, lost)
    select g.id, $2, $1, g.vendor, g.external_id, g.vertical_id, g.postal_code, g.received_at,
        $6, g.cost_minor, $5, g.contacted_at, g.qualified, g.won_at, g.won_minor, g.lost_at, g.lost
    from given g
    on conflict (business_id, vendor, external_id) where undone_at is null do nothing
    returning id, vertical_id, postal_code, received_at, observed_until, cost_minor, contacted_at, qualified, won_at,
        won_minor, lost_at, lost
), part as (
    insert into shared_import (id, business_id, source, added, known, refused, at, currency, first_received_at,
        last_received_at, records, file_import_id)
    select $1, $2, $3, count(a.received_at), cardinality($7) - count(a.received_at), $4, $6, $5, min(a.received_at),
        max(a.received_at), coalesce(string_agg(
            int4send(b.number) || int4send(coalesce(v.number, 0)) || int4send(area_number(a.postal_code))
            || int8send(date_part('epoch', a.received_at)::bigint) || int8send(a.cost_minor)
            || int4send(seconds_after(a.received_at, a.contacted_at)) || int4send(seconds_after(a.received_at, a.won_at))
            || int8send(coalesce(a.won_minor, 0))
            || int4send(case a.qualified when true then 1 when false then 2 else 0 end
                + case when a.won_minor is null and a.lost_at is null and not a.lost then 0 else 4 end
                + case when a.won_minor is not null and a.won_at is null then 16 else 0 end)
            || int8send(date_part('epoch', a.observed_until)::bigint), ''), ''), $20
    from business b left join added a on true left join vertical v on v.id = a.vertical_id
    where b.id = $2
)
select id from added;

-- name: list_known
-- Stored leads with these ids.
select s.id, s.vendor, s.external_id, v.slug as vertical, s.postal_code, s.received_at, s.observed_until, s.cost_minor,
       s.currency, s.contacted_at, s.qualified, s.won_at, s.won_minor, s.lost_at, s.lost
from unnest($2::text[], $3::text[]) as asked (vendor, external_id)
join shared_lead s on s.business_id = $1 and s.vendor = asked.vendor and s.external_id = asked.external_id
    and s.undone_at is null
left join vertical v on v.id = s.vertical_id;

-- name: find_part
-- First part of an import that was not undone.
select id, added from shared_import where file_import_id = $1 and business_id = $2 and undone_at is null order by id limit 1;

-- name: undo_part
-- Undo a part and its leads. They do not count any more and may be imported again.
with part as (
    update shared_import set undone_at = $3 where id = $1 and business_id = $2 and undone_at is null returning id
)
update shared_lead set undone_at = $3 from part where import_id = part.id and business_id = $2 and undone_at is null;

-- name: list_leads
-- Newest first.
select s.id, s.vendor, s.external_id, v.slug as vertical, s.postal_code, s.received_at, s.observed_until, s.cost_minor,
       s.currency, s.contacted_at, s.qualified, s.won_at, s.won_minor, s.lost_at, s.lost
from shared_lead s left join vertical v on v.id = s.vertical_id
where s.business_id = $1 and ($2::uuid is null or s.id < $2) and s.undone_at is null
order by s.id desc
limit $3;
