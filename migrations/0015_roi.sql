-- What the comparison with shared leads reads of each exclusive lead, and the same kept for the whole marketplace at once.

-- The first three characters of a postal code as a number; 0 where there are none.
create function area_number(postal_code text) returns int language sql immutable parallel safe as $$
    select case when postal_code ~ '^[!-~]{3}'
        then ascii(postal_code) * 65536 + ascii(substr(postal_code, 2)) * 256 + ascii(substr(postal_code, 3)) else 0 end
$$;

-- Whole seconds from one moment to another, none of which is negative: a report may be a moment ahead of our clock. -1 where
-- the second never came.
create function seconds_after(start timestamptz, at timestamptz) returns int language sql immutable parallel safe as $$
    select case when at is null then -1 else least(greatest(floor(date_part('epoch', at - start)), 0), 2000000000)::int end
$$;

-- An exclusive lead that was paid for and what became of it, read from the truth: the charge less its refund, and the
-- dispositions. The last word decides between won and lost; a first contact stays one. Its clock begins when the
-- business was shown the lead, as that of a shared lead does.
create view exclusive_outcome as
select a.id as assignment_id, a.business_id, l.vertical_id, i.facts -> 'place' ->> 'postal_code' as postal_code,
       a.exposed_at as received_at,
       charge.amount_minor - coalesce(refund.amount_minor, 0) as cost_minor, a.currency,
       told.contacted_at,
       case when told.qualified then true when final.kind is not null then false end as qualified,
       case when final.kind = 'won' then final.happened_at end as won_at,
       case when final.kind = 'won' then final.value_minor end as won_minor,
       case when final.kind <> 'won' then final.happened_at end as lost_at,
       coalesce(told.demo, false) as demo
from assignment a
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
join transfer charge on charge.assignment_id = a.id and charge.kind = 'capture'
left join transfer refund on refund.assignment_id = a.id and refund.kind = 'refund'
left join lateral (
    select min(d.happened_at) filter (where d.kind in ('contacted', 'qualified', 'quoted', 'won')) as contacted_at,
           bool_or(d.kind in ('qualified', 'quoted', 'won')) as qualified,
           bool_or(d.source = 'demo') as demo
    from disposition d where d.assignment_id = a.id
) told on true
left join lateral (
    select d.kind, d.happened_at, d.value_minor from disposition d
    where d.assignment_id = a.id and d.kind in ('won', 'lost', 'unreachable')
    order by d.happened_at desc, d.id desc
    limit 1
) final on true
where a.mode = 'live';

-- The same in big-endian numbers of fixed width, which marketplace/reports/roi.py reads: whose and what it was (business,
-- vertical, area), when it was received (seconds since 1970), what it cost, the seconds until it was contacted and until
-- it was won, what the win was worth, and in bits what was told: qualified 1, not qualified 2, ended 4, made up to look
-- at 8.
create view exclusive_record as
select o.assignment_id, o.business_id, o.currency, o.received_at,
       int4send(b.number) || int4send(v.number) || int4send(area_number(o.postal_code))
           || int8send(date_part('epoch', o.received_at)::bigint) || int8send(o.cost_minor)
           || int4send(seconds_after(o.received_at, o.contacted_at)) || int4send(seconds_after(o.received_at, o.won_at))
           || int8send(coalesce(o.won_minor, 0))
           || int4send(case o.qualified when true then 1 when false then 2 else 0 end
               + case when o.won_at is null and o.lost_at is null then 0 else 4 end
               + case when o.demo then 8 else 0 end) as record
from exclusive_outcome o join business b on b.id = o.business_id join vertical v on v.id = o.vertical_id;

-- Kept, each written again when its lead has moved or its business has spoken.
create table kept_outcome (
    assignment_id uuid primary key,
    currency char(3) not null,
    received_at timestamptz not null,
    record bytea not null
) with (fillfactor = 85);
create index kept_outcome_received on kept_outcome (currency, received_at) include (record);

-- And once more, a day (UTC) in one run: what is asked of the whole marketplace reads a million leads in one go.
create table kept_outcome_day (
    currency char(3) not null,
    day date not null,
    records bytea not null,
    primary key (currency, day)
);
alter table kept_outcome_day alter column records set storage external;  -- read whole, and often

-- Up to which transaction the kept rows have followed what moved and what was told, and when that was last looked after.
create table kept_outcome_progress (
    only_row boolean primary key default true check (only_row),
    xid xid8 not null,
    at timestamptz not null
);
insert into kept_outcome_progress (xid, at) values ('0', clock_timestamp());

grant select on exclusive_outcome, exclusive_record, kept_outcome, kept_outcome_day, kept_outcome_progress
    to marketplace_api, marketplace_worker, marketplace_reports;
grant insert, update on kept_outcome, kept_outcome_day to marketplace_worker;
grant update (xid, at) on kept_outcome_progress to marketplace_worker;
