-- name: insert_certificates
-- In the transaction that takes the inquiry in. The trigger marks the lead as one that waits for its certificates.
insert into certificate (lead_id, kind, token_sha256, box, made_at)
select $1, later.kind, later.token_sha256, later.box, $5
from unnest($2::text[], $3::bytea[], $4::bytea[]) as later (kind, token_sha256, box);

-- name: find_claim_case
select l.id as lead_id, l.vertical_id, l.provider_id, l.state, clock_timestamp() as read_at from lead l where l.id = $1;

-- name: read_certificates
-- Pending ones of a lead that nobody was shown, with what a claim sends.
select kind, attempts, first_tried_at, box, wrapped, master_key_id, revision, corrections from read_certificates($1);

-- name: lock_lead
-- Every change of a lead's certificates locks the lead first, as its trigger updates it.
select state from lead where id = $1 for no key update;

-- name: note_attempt
-- An attempt without an answer: the certificate stays pending.
update certificate set attempts = attempts + 1, first_tried_at = coalesce(first_tried_at, $3), reason = $4,
    response_sha256 = $5
where lead_id = $1 and kind = $2 and state = 'pending';

-- name: settle
update certificate set state = $4, box = null, attempts = attempts + 1, first_tried_at = coalesce(first_tried_at, $3),
    settled_at = $3, reason = $5, response_sha256 = $6, expires_at = $7, phone_matches = $8, email_matches = $9,
    page_matches = $10, compared_revision = $11
where lead_id = $1 and kind = $2 and state = 'pending';

-- name: mark_lead_due
-- A waiting lead is decided about again at $2.
update lead set due_at = $2 where id = $1 and state in ('nurturing', 'prospect');

-- name: list_of_lead
select kind, state, token_sha256, made_at, settled_at, reason, response_sha256, expires_at, phone_matches, email_matches,
       page_matches, contact_corrected(lead_id, compared_revision, phone_matches is not null) as contact_corrected
from certificate where lead_id = $1 order by kind;

-- name: list_newest
-- Certificates of the newest leads before $1 that have one in the state $2, with the lead's provider; $3 is a number of leads.
with newest as (
    select distinct lead_id from certificate
    where ($1::uuid is null or lead_id < $1) and ($2::text is null or state = $2)
    order by lead_id desc
    limit $3
)
select c.lead_id, p.name as provider, c.kind, c.state, c.made_at, c.settled_at, c.reason, c.attempts, c.expires_at,
       c.token_sha256, l.state in ('received', 'nurturing', 'prospect') as waiting
from newest
join certificate c on c.lead_id = newest.lead_id and ($2::text is null or c.state = $2)
join lead l on l.id = c.lead_id
join provider p on p.id = l.provider_id
order by c.lead_id desc, c.kind;

-- name: count_states
-- Certificates of a provider's live leads that were received from $2 to $3, by service, state and reason.
select c.kind, c.state, c.reason, count(*)::int as certificates
from lead l join certificate c on c.lead_id = l.id
where l.provider_id = $1 and l.received_at >= $2 and l.received_at < $3
group by c.kind, c.state, c.reason
order by c.kind, count(*) desc, c.state, c.reason;
