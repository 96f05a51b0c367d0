-- name: list_remembered
-- Leads that the database knows to be exposed, by an exposure or by a fence after a restore.
select lead_id, assignment_id from exposure where lead_id = any($1)
union all
select lead_id, assignment_id from fenced_lead where lead_id = any($1);
