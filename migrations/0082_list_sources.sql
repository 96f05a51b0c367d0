-- Sources on the web of lists of people who must not be contacted: the service fetches each one itself when it is due.

-- `header_value` is sealed; `set_at` is the time of the present settings. While a process fetches, `leased_until` is ahead. `version` is the version of the list that this
-- source made last, with what its server said of that file; `failures` counts those since. A file with less than half of the
-- list waits for an operator: `smaller_rows` is its number of rows, and `confirmed_rows` the number that was confirmed.
create table list_source (
    list_id uuid primary key references contact_list (id),
    url text not null constraint list_source_url check (url ~ '^https?://'),
    format text not null constraint list_source_format check (format in ('csv', 'csv_gzip')),
    schedule text not null constraint list_source_schedule check (schedule in ('hourly', 'daily', 'weekly')),
    country text not null constraint list_source_country check (country ~ '^[A-Z]{2}$'),
    header_name text,
    header_value bytea,
    set_at timestamptz not null,
    due_at timestamptz not null,
    leased_until timestamptz,
    version int,
    etag text,
    last_modified text,
    content_sha256 bytea constraint list_source_content check (octet_length(content_sha256) = 32),
    checked_at timestamptz,
    failures int not null default 0 constraint list_source_failures check (failures >= 0),
    failure text,
    failed_at timestamptz,
    smaller_rows int constraint list_source_smaller check (smaller_rows > 0),
    confirmed_rows int constraint list_source_confirmed check (confirmed_rows > 0),
    constraint list_source_header check ((header_name is null) = (header_value is null)),
    constraint list_source_published check ((version is null) = (content_sha256 is null)),
    constraint list_source_failing check (
        (failures > 0) = (failure is not null) and (failures > 0) = (failed_at is not null)),
    constraint list_source_question check ((smaller_rows is not null) = (failure is not distinct from 'much_smaller'))
);

grant select, insert, delete on list_source to marketplace_api;
grant update (url, format, schedule, country, header_name, header_value, set_at, due_at, leased_until, version, etag, last_modified,
    content_sha256, checked_at, failures, failure, failed_at, smaller_rows, confirmed_rows) on list_source to marketplace_api;
grant select (list_id, due_at, leased_until), update (leased_until) on list_source to marketplace_worker;

-- Replaces a part of a function, and fails where it has no such part. A function of a hundred lines is changed in one place.
create or replace function pg_temp.change_function(changed regprocedure, old_part text, new_part text) returns void
    language plpgsql as $$
declare
    before constant text := pg_get_functiondef(changed);
    after constant text := replace(before, old_part, new_part);
begin
    if after = before then
        raise exception '% has no such part: %', changed, old_part;
    end if;
    execute after;
end $$;

-- The award asks the lists for every lead, and not only for one that it exposes: a list that was published before this moment
-- keeps the lead from being held as well. It answers 'moved', and the next decision ends the lead.
select pg_temp.change_function('award_lead(jsonb)', $part$    if is_own_customer(a.lead_id, a.business_id) then$part$,
    $part$    if is_withdrawn(a.lead_id) then
        return 'moved';
    end if;
    if is_own_customer(a.lead_id, a.business_id) then$part$);
