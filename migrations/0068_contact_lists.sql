-- Lists of people as keyed hashes: people who must not be contacted, and the customers that a business has already.

-- One list. Its `number` stands in each of its members, which are millions. A list is replaced or extended by an import as a
-- whole: `version` counts these, and `refreshed_at` is the time of the last one.
create table contact_list (
    id uuid primary key,
    number int generated always as identity constraint contact_list_number unique,
    kind text not null constraint contact_list_kind check (kind in ('do_not_contact', 'own_customers')),
    business_id uuid references business (id),
    name text not null constraint contact_list_name check (name ~ '\S'),
    source text,
    refresh_hours int constraint contact_list_refresh check (refresh_hours between 1 and 8760),
    maximum_age_days int not null default 31 constraint contact_list_age check (maximum_age_days between 1 and 3650),
    stops_sales boolean not null default false,
    version int not null default 0,
    members int not null default 0 constraint contact_list_members check (members >= 0),
    made_at timestamptz not null,
    made_by text not null,
    refreshed_at timestamptz,
    removed_at timestamptz,
    constraint contact_list_owner check ((kind = 'own_customers') = (business_id is not null)),
    constraint contact_list_schedule check (refresh_hours is null or source is not null),
    constraint contact_list_stops check (kind = 'do_not_contact' or not stops_sales)
);
create unique index contact_list_once on contact_list (business_id, name) nulls not distinct where removed_at is null;

-- A key is the first 16 bytes of a keyed hash of person_key. `since` and `until` are versions of the list. A member with
-- `until` has left the list, and is kept until the next import, so that the last one can be undone.
create table list_member (
    key bytea not null constraint list_member_key check (octet_length(key) = 16),
    list int not null,
    since int not null,
    until int,
    primary key (key, list)
);

-- One import of a file into a list. While it runs it has a due time, which the process that works on it moves ahead. The
-- digest is that of the first `position` bytes of the file, by which an import continues after a crash.
create table list_import (
    id uuid primary key,
    number int generated always as identity constraint list_import_number unique,
    list_id uuid not null references contact_list (id),
    state text not null constraint list_import_state check (state in ('running', 'done', 'failed', 'undone')),
    way text not null constraint list_import_way check (way in ('whole', 'add')),
    file_name text not null,
    actor text not null,
    position bigint not null default 0,
    digest bytea not null default '',
    rows int not null default 0,
    readable int not null default 0,
    faulty int not null default 0,
    repeated int not null default 0,
    added int not null default 0,
    removed int not null default 0,
    version int,
    serial bigint,
    failure text,
    due_at timestamptz,
    made_at timestamptz not null,
    ended_at timestamptz,
    constraint list_import_due check ((state = 'running') = (due_at is not null)),
    constraint list_import_ended check ((state = 'running') = (ended_at is null)),
    constraint list_import_published check ((state in ('done', 'undone')) = (serial is not null)),
    constraint list_import_failure check ((state = 'failed') = (failure is not null))
);
create unique index list_import_one_at_a_time on list_import (list_id) where state = 'running';
create index list_import_newest on list_import (list_id, id);

-- The first faulty rows of an import, by number and code; never their text.
create table list_fault (
    import_id uuid not null references list_import (id),
    row int not null,
    code text not null,
    primary key (import_id, row)
);

-- Keys that a running import has read so far.
create table list_staging (
    import int not null,
    key bytea not null
);

-- Number of the last change of any list, raised in the transaction of the change. A decision reads it together with the lists,
-- and its assignment has it: which versions of the lists had cleared the lead. Award and exposure ask the lists again.
create table lists_serial (
    is_single boolean primary key default true constraint lists_serial_one_row check (is_single),
    serial bigint not null
);
insert into lists_serial (serial) values (0);
alter table assignment add column lists_serial bigint;

-- Whether one of the keys is on a list of people who must not be contacted.
create function is_listed(keys bytea[]) returns boolean language sql stable as $$
    select exists (
        select from unnest(keys) as mine (key)
        join list_member m on m.key = substring(mine.key for 16) and m.until is null
        join contact_list l on l.number = m.list and l.kind = 'do_not_contact' and l.removed_at is null)
$$;

-- Whether nothing of a lead may leave us any more: for the reasons of before, or because its person is on a list of people
-- who must not be contacted.
alter function is_withdrawn(uuid) rename to is_stopped;
create function is_withdrawn(of_lead uuid) returns boolean language sql volatile as $$
    select is_stopped(of_lead) or exists (
        select from person_key k
        join list_member m on m.key = substring(k.key for 16) and m.until is null
        join contact_list l on l.number = m.list and l.kind = 'do_not_contact' and l.removed_at is null
        where k.lead_id = of_lead)
$$;

grant select on contact_list, list_member to marketplace_api, marketplace_worker, marketplace_feeder;
grant select on lists_serial to marketplace_api, marketplace_worker, marketplace_reports;
grant select on contact_list, list_import to marketplace_reports;
grant insert on contact_list, list_import, list_fault, list_staging, list_member to marketplace_api;
grant select on list_import, list_fault, list_staging to marketplace_api;
grant update (name, source, refresh_hours, maximum_age_days, stops_sales, version, members, refreshed_at, removed_at)
    on contact_list to marketplace_api;
grant update (state, position, digest, rows, readable, faulty, repeated, added, removed, version, serial, failure, due_at,
    ended_at) on list_import to marketplace_api;
grant update (since, until), delete on list_member to marketplace_api;
grant delete on list_staging to marketplace_api;
grant update (serial) on lists_serial to marketplace_api;
