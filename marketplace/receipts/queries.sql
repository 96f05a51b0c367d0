-- name: find_shown_lead
-- The lead with its business, its exposure and the decision that awarded it. `exposures` can only be 0 or 1.
select l.provider_id, l.mode, v.slug as vertical, a.business_id, b.name as business_name, i.contact_fields as fields,
       e.exposed_at, e.channel, e.url_sha256, e.committed_by,
       (select count(*) from exposure where lead_id = l.id) as exposures,
       d.id as decision_id, d.made_at, d.vertical_version, d.catalog_version, a.subscription_version,
       a.evidence, case when a.evidence is not null then coalesce(t.made_at, a.settled_at) end as evidence_at,
       (select body_sha256 from attempt where assignment_id = a.id and outcome = 'accepted'
        order by started_at limit 1) as body_sha256
from lead l
join inquiry i on i.id = l.id
join vertical v on v.id = l.vertical_id
left join assignment a on a.lead_id = l.id and a.state <> 'released'
left join business b on b.id = a.business_id
left join exposure e on e.lead_id = l.id
left join decision d on d.assignment_id = a.id and d.lead_id = l.id and d.made_at = a.awarded_at
left join transfer t on t.assignment_id = a.id and t.kind = 'capture'
where l.id = $1;

-- name: find_seal
-- The block that covers the exposure's transaction, and the exposure's position in it. No row until it is sealed, nor if
-- the exposure's row differs from what was sealed: then no receipt may be issued.
select b.number as block, b.at / 49 + 1 as position, x.digest as row_sha256, b.seal
from audit_entry x
cross join lateral (
    select number, seal, xid_from, position(x.place || x.digest in entries) - 1 as at
    from audit_block where xid_to > x.committed_by order by xid_to limit 1
) b
where x.committed_by = $2 and x.place = '\x65'::bytea || uuid_send($1)
    and b.xid_from <= x.committed_by and b.at >= 0 and b.at % 49 = 0;

-- name: list_notices
-- In the order in which they were made; news of facts that an erasure has withdrawn is left out.
select kind, made_at, deadline_at, acknowledged_at from notice where lead_id = $1 and state <> 'withdrawn'
order by made_at, id;
