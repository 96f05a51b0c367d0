-- name: list_claims
-- Inquiries that joined the lead of an assignment before its exposure, in the order in which they did, each with the
-- policy of the vertical in the version by which the lead was awarded.
select c.provider_id, c.inquiry_id, coalesce(m.definition ->> 'pay_joined', 'first') as pay_joined
from assignment a
join payout_claim c on c.lead_id = a.lead_id
join decision d on d.assignment_id = a.id and d.lead_id = a.lead_id and d.made_at = a.awarded_at
join vertical_version m on (m.vertical_id, m.version) = (c.vertical_id, d.vertical_version)
where a.id = $1
order by c.revision;
