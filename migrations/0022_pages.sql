-- What pages and reports need with a million leads stored, and what it costs those who write.
--
-- Nothing here is on a column that a move changes, so that moves of leads and assignments stay HOT. The partial indexes
-- are written for the few rows that they hold and for no others.

-- A wallet's statement sums all that ever moved: from the index alone. In place of the one without these columns, on rows
-- that are never changed: a delivered lead writes as many entries as before.
drop index transfer_by_business;
create index transfer_by_business on transfer (business_id, id) include (kind, amount_minor, made_at)
    where business_id is not null;

-- Kinds of which the ledger's newest page would not be found among the newest transfers.
create index transfer_seldom on transfer (kind, id) where kind not in ('hold', 'capture', 'payout');

-- What went wrong at doors, over all businesses and at one's own.
create index attempt_failed on attempt (outcome, id) where outcome <> 'accepted';
create index attempt_failed_by_business on attempt (business_id, outcome, started_at) where outcome <> 'accepted';

-- Rehearsals, which are few and lie among all that is live.
create index lead_rehearsed on lead (provider_id, id) where mode = 'test';
create index assignment_rehearsed on assignment (business_id, id) where mode = 'test';

-- One kind of change among all: an action, or the family before its point.
create index audit_by_action on audit (action text_pattern_ops, id);

-- An entry's own parties are expressions, which no index answers; whose transfer it is, is a column.
create or replace view entry as
select t.id as transfer_id, t.kind, side.account, side.sign * t.amount_minor as amount_minor, t.currency,
       case when side.account in ('available', 'held') then t.business_id end as business_id,
       case when side.account = 'payable' then t.provider_id end as provider_id,
       t.assignment_id, t.event_id, t.made_at, t.business_id as of_business, t.provider_id as of_provider
from transfer t
join (values
    ('top_up', 'outside', -1), ('top_up', 'available', 1),
    ('withdrawal', 'available', -1), ('withdrawal', 'outside', 1),
    ('hold', 'available', -1), ('hold', 'held', 1),
    ('release', 'held', -1), ('release', 'available', 1),
    ('capture', 'held', -1), ('capture', 'revenue', 1),
    ('payout', 'revenue', -1), ('payout', 'payable', 1),
    ('refund', 'revenue', -1), ('refund', 'available', 1),
    ('claw_back', 'payable', -1), ('claw_back', 'revenue', 1)
) as side (kind, account, sign) on side.kind = t.kind;

-- One business's outcomes out of those that are kept, without reading each lead's whole story again. That a record changes
-- then touches no index (a HOT update): it is in none.
alter table kept_outcome add column business int not null generated always as (
    get_byte(record, 0) * 16777216 + get_byte(record, 1) * 65536 + get_byte(record, 2) * 256 + get_byte(record, 3)) stored;
create index kept_outcome_by_business on kept_outcome (business, received_at);
drop index kept_outcome_received;
create index kept_outcome_received on kept_outcome (currency, received_at);

-- What reports read of months that are over: each field's hours behind one another in one run, with when they were and how
-- long, so that a year is twelve rows of a field and not nine thousand. A month is closed once nothing in it has changed
-- for a while, and open again in the transaction that changes an hour of it; then its hours are read one by one.
create table report_month (
    part text not null,
    field text not null,
    month timestamptz not null,
    data bytea not null,
    hours bytea not null,
    lengths bytea not null,
    primary key (part, field, month)
);
alter table report_month alter column data set storage external, alter column hours set storage external,
    alter column lengths set storage external;
create index report_month_by_month on report_month (month);
create table report_month_open (
    month timestamptz primary key,
    since timestamptz not null
);
insert into report_month_open select distinct date_trunc('month', hour, 'UTC'), now() from report_column;

grant select on report_month, report_month_open to marketplace_reports, marketplace_worker;
grant insert, delete on report_month, report_month_open to marketplace_worker;
grant update (since) on report_month_open to marketplace_worker;

-- The whole marketplace's outcomes in one run an hour instead of one a day: what follows a change writes a twenty-fourth of
-- it again, and today's run does not grow all day under the hands of who writes it every few seconds.
create table kept_outcome_hour (
    currency char(3) not null,
    hour timestamptz not null,
    records bytea not null,
    primary key (currency, hour)
);
alter table kept_outcome_hour alter column records set storage external;  -- read whole, and often
insert into kept_outcome_hour (currency, hour, records)
select currency, date_trunc('hour', received_at, 'UTC') as hour, string_agg(record, '')
from kept_outcome group by currency, hour;
drop table kept_outcome_day;
grant select on kept_outcome_hour to marketplace_api, marketplace_worker, marketplace_reports;
grant insert, update on kept_outcome_hour to marketplace_worker;
