-- The last report of a business, up to which the outcomes of its leads are known, is found without reading all of its reports.
create index disposition_by_report on disposition (business_id, recorded_at) where (undone_at is null);
