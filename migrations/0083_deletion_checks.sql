-- Verify reads whether a deletion request still has its contact, and never the contact.

alter table deletion_request add column has_contact boolean generated always as (contact is not null) stored;
grant select (has_contact) on deletion_request to marketplace_reports;
grant select on deletion_lead to marketplace_reports;
