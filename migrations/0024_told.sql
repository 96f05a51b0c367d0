-- What a business told of all its leads, from one stretch of an index: for its sources of a whole year. In place of the one
-- without these columns, on rows that are never changed but for a note: a disposition writes as many entries as before.
drop index disposition_by_business;
create index disposition_by_business on disposition (business_id, happened_at) include (assignment_id, kind, value_minor,
    recorded_at);
