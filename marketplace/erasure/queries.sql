-- name: become_eraser
-- For this transaction only: the API's own role can neither end a lead nor delete a data key.
set local role marketplace_eraser;

-- name: find_lead
-- $3 limits a provider to its own leads.
select id from lead where id = $1 and mode = $2 and ($3::uuid is null or provider_id = $3);

-- name: list_leads_of_person
select distinct l.id
from person_key k join lead l on l.id = k.lead_id
where k.key = any($1::bytea[]) and l.mode = $2 and ($3::uuid is null or l.provider_id = $3)
order by l.id
limit $4;

-- name: lock_lead
-- Every change of state locks the lead first: an award or exposure that has begun is finished before this, and a later
-- one finds the lead ended.
select state from lead where id = $1 for no key update;

-- name: find_held
select id from assignment where lead_id = $1 and state = 'held';

-- name: suppress_person
-- The phone and e-mail keys that the lead came in with. An existing suppression is kept.
insert into suppression (key, reason, source, created_at)
select key, $2, $3, $4 from person_key where lead_id = $1 order by key
on conflict (key) do nothing;

-- name: is_known
select exists (select from person_key where lead_id = $1);

-- name: destroy_person
-- Without the data key, no copy of the sealed contact can be read. The other columns hold text that people wrote.
with key_gone as (
    delete from data_key where lead_id = $1
), contact_gone as (
    delete from contact where lead_id = $1
), tie_gone as (
    delete from person_key where lead_id = $1
), journey_gone as (
    update touch set detail = '' where lead_id = $1 and detail <> ''
), corrected_gone as (
    update correction set sealed = null, wrapped = null, master_key_id = null where lead_id = $1 and sealed is not null
), words_gone as (
    update disposition set note = null where lead_id = $1 and note is not null
), unmapped_gone as (
    update unmapped_report set note = null where lead_id = $1 and note is not null
), action_gone as (
    delete from next_action where lead_id = $1
), request_gone as (
    update return_request set note = null where lead_id = $1 and note is not null
), alarm_gone as (
    update answer_alarm set excerpt = null where lead_id = $1 and excerpt is not null
)
update attempt set answer_excerpt = null, answer_reference = null, answer_price = null
where coalesce(answer_excerpt, answer_reference, answer_price) is not null
    and assignment_id in (select id from assignment where lead_id = $1);

-- name: insert_erasure
-- The exposure, if there is one, gives the only business that may have seen the person; $6 is the notice to it.
insert into erasure (lead_id, requested_at, requested_by, reason, suppressed, business_id, notice_id)
select l.id, $2::timestamptz, $3, $4, $5, x.business_id, $6
from lead l left join exposure x on x.lead_id = l.id
where l.id = $1;

-- name: find_erasure
select e.lead_id, l.provider_id, l.mode, l.state, e.requested_at, e.requested_by, e.reason, e.suppressed, e.business_id,
       n.assignment_id, e.notice_id, coalesce(n.state, 'not_needed') as notice_state, n.due_at as notice_due_at,
       coalesce(n.attempts, 0) as attempts, n.result as notice_result, n.acknowledged_at, n.deadline_at
from erasure e join lead l on l.id = e.lead_id left join notice n on n.id = e.notice_id
where e.lead_id = $1;

-- name: list_erasures
-- Newest first; $1 is the last lead of the previous page.
select e.lead_id, l.provider_id, l.mode, l.state, e.requested_at, e.requested_by, e.reason, e.suppressed, e.business_id,
       n.assignment_id, e.notice_id, coalesce(n.state, 'not_needed') as notice_state, n.due_at as notice_due_at,
       coalesce(n.attempts, 0) as attempts, n.result as notice_result, n.acknowledged_at, n.deadline_at
from erasure e join lead l on l.id = e.lead_id left join notice n on n.id = e.notice_id
where ($1::uuid is null
       or (e.requested_at, e.lead_id) < (select c.requested_at, c.lead_id from erasure c where c.lead_id = $1))
  and ($2::text is null or coalesce(n.state, 'not_needed') = $2)
  and ($4::text is null or l.mode = $4)
order by e.requested_at desc, e.lead_id desc
limit $3;
