-- What reports read: the figures of every lead and every transfer, kept by the hour in columns.
--
-- A report over a year of a million leads reads a few narrow columns of all of them. Rows as they lie are far too wide for
-- that, and sums by day fit neither every zone nor a percentile. So each hour's figures are written once, column by
-- column, each column one run of big-endian numbers: a report adds the hours' runs up to one array. The functions below
-- are the only definition of every figure: kept hours are what they said, later hours are what they say now.

-- A short number for each party, so that a column of a million is four megabytes.
alter table provider add column number int generated always as identity constraint provider_number unique;
alter table business add column number int generated always as identity constraint business_number unique;
alter table vertical add column number int generated always as identity constraint vertical_number unique;
alter table subscription add column number int generated always as identity constraint subscription_number unique;

-- Block ranges: a few bytes for each sixteen pages. An update of a lead never touches them, an insert hardly.
create index lead_received on lead using brin (received_at) with (pages_per_range = 16, autosummarize = on);
create index transfer_made on transfer using brin (made_at) with (pages_per_range = 16, autosummarize = on);

-- `part` is a mode for leads and candidates, a currency for money; `hour` is UTC. An hour without rows has no columns.
create table report_column (
    part text not null,
    field text not null,
    hour timestamptz not null,
    data bytea not null,
    primary key (part, field, hour)
);
alter table report_column alter column data set storage external;  -- numbers of one column are read whole, and often
create index report_column_by_hour on report_column (hour);

-- Hours from `frontier` on are not kept yet: reports compute them. Before it, every change that `seen` shows
-- is in the columns or has its hour among the stale. `at` is when that was last looked after.
create table report_progress (
    only_row boolean primary key default true check (only_row),
    frontier timestamptz not null,
    seen pg_snapshot not null,
    at timestamptz not null
);
insert into report_progress (frontier, seen, at)
select date_trunc('hour', least((select min(received_at) from lead), (select min(made_at) from transfer),
           clock_timestamp()), 'UTC'),
       pg_current_snapshot(), clock_timestamp();

create table report_stale (
    hour timestamptz primary key,
    since timestamptz not null
);

-- So that what a business tells is followed as a move is, to the transaction.
alter table disposition add column committed_by xid8 not null default pg_current_xact_id();
create index disposition_by_commit on disposition (committed_by);

-- Kept hours that something has changed since, whether or not it was noticed yet.
create view report_changed as
select hour from report_stale
union
select date_trunc('hour', changed.at, 'UTC')
from report_progress p
cross join lateral (
    select l.received_at as at from move m join lead l on l.id = m.lead_id
    where m.committed_by >= pg_snapshot_xmin(p.seen) and not pg_visible_in_snapshot(m.committed_by, p.seen)
    union all
    select l.received_at from disposition d join lead l on l.id = d.lead_id
    where d.committed_by >= pg_snapshot_xmin(p.seen) and not pg_visible_in_snapshot(d.committed_by, p.seen)
    union all
    select t.made_at from transfer t
    where t.committed_by >= pg_snapshot_xmin(p.seen) and not pg_visible_in_snapshot(t.committed_by, p.seen)
) changed
where changed.at < p.frontier;

-- One row per lead: how far it came, why no further, and how long each step took, in milliseconds.
-- Steps: 1 received, 2 valid, 3 qualified, 4 eligible, 5 awarded, 6 delivered, 7 contacted, 8 won. What is still under
-- way is `open` and told by its state alone, so that nothing but a move or a disposition changes a row.
create view lead_figure as
select l.id, l.mode, l.received_at, l.state, p.number as provider, v.number as vertical,
       coalesce(b.number, 0) as business, coalesce(s.number, 0) as subscription,
       coalesce(array_position(array['push', 'fetch', 'email', 'feed', 'portal'], e.channel), 0) as channel,
       coalesce(nullif(i.facts ->> 'sub_ids', '{}'), '') as sub_ids,
       reached.step,
       case reached.step
           when 1 then l.state
           when 2 then case l.state when 'rejected' then coalesce(l.reason, 'rejected') when 'received' then 'open'
                                    else l.state end
           when 5 then case l.state when 'refused' then coalesce(a.reason, 'refused') when 'lapsed' then 'lapsed'
                                    when 'unsold' then coalesce(l.reason, 'unreachable') else 'open' end
           when 6 then case when l.state = 'returned' then 'returned' else coalesce(ended.kind, 'no_word') end
           when 7 then case when l.state = 'returned' then 'returned' when ended.kind = 'lost'
                            then coalesce(ended.reason, 'lost') else coalesce(ended.kind, 'open') end
           when 8 then ''
           else case l.state when 'unsold' then coalesce(l.reason, 'unsold') else 'open' end
       end as why,
       coalesce(told.demo, false) as demo,
       1000 * extract(epoch from l.received_at - i.submitted_at) as to_receive,
       case when not decided.nurtured then 1000 * extract(epoch from l.qualified_at - l.received_at) end as to_qualify,
       1000 * extract(epoch from a.awarded_at - l.qualified_at) as to_award,
       1000 * extract(epoch from a.exposed_at - a.awarded_at) as to_expose,
       1000 * extract(epoch from known.acknowledged_at - a.exposed_at) as to_acknowledge,
       1000 * extract(epoch from told.touched_at - known.acknowledged_at) as to_touch,
       1000 * extract(epoch from told.contacted_at - told.touched_at) as to_contact,
       case a.evidence
           when 'answer' then 1000 * extract(epoch from waited.retried) + waited.answered_ms
           else 1000 * extract(epoch from known.acknowledged_at - a.awarded_at) end as theirs,
       1000 * extract(epoch from known.acknowledged_at - l.received_at) as acknowledged
from lead l
join inquiry i on i.id = l.id
join provider p on p.id = l.provider_id
join vertical v on v.id = l.vertical_id
left join assignment a on a.lead_id = l.id and a.state <> 'released'
left join business b on b.id = a.business_id
left join subscription s on s.id = a.subscription_id
left join exposure e on e.lead_id = l.id
cross join lateral (select case when a.evidence is not null then a.settled_at end as acknowledged_at) known
cross join lateral (
    select coalesce(bool_or(d.outcome = 'nurturing'), false) as nurtured,
           coalesce(bool_or(jsonb_path_exists(d.candidates, '$[*].position')), false) as had_candidate
    from decision d where d.lead_id = l.id and d.made_at >= l.received_at - interval '1 hour'
) decided
left join lateral (
    select max(t.started_at) - min(t.started_at) as retried,
           (array_agg(coalesce(t.connect_ms, 0) + coalesce(t.tls_ms, 0) + coalesce(t.first_byte_ms, 0)
               order by t.started_at desc))[1] as answered_ms
    from attempt t where t.assignment_id = a.id and t.started_at >= a.awarded_at - interval '1 hour'
) waited on a.evidence = 'answer'
left join lateral (
    select min(greatest(d.happened_at, known.acknowledged_at)) as touched_at,
           min(greatest(d.happened_at, known.acknowledged_at))
               filter (where d.kind in ('contacted', 'qualified', 'quoted', 'won')) as contacted_at,
           bool_or(d.source = 'demo') as demo
    from disposition d where d.assignment_id = a.id
) told on known.acknowledged_at is not null
left join lateral (
    select d.kind, d.reason from disposition d
    where d.assignment_id = a.id and d.kind in ('won', 'lost', 'unreachable')
    order by d.happened_at desc, d.recorded_at desc, d.id desc limit 1
) ended on known.acknowledged_at is not null
cross join lateral (
    select case
        when l.state in ('duplicate', 'suppressed') then 1
        when l.state in ('received', 'rejected', 'nurturing', 'expired') then 2
        when a.id is null and not exists (select from assignment r where r.lead_id = l.id)
            then case when l.state = 'unsold' and decided.had_candidate then 4 else 3 end
        when known.acknowledged_at is null then 5
        when told.contacted_at is null then 6
        when ended.kind is distinct from 'won' then 7
        else 8 end as step
) reached;

-- A word of a column is its place among the hour's words, from 1; the words themselves, a line each, are a field of their
-- own. A length of time that is not known is NaN.
create function lead_columns(of_mode text, since timestamptz, until timestamptz)
    returns table (field text, hour timestamptz, data bytea) language sql stable as $$
with figure as materialized (
    select f.*, date_trunc('hour', f.received_at, 'UTC') as at_hour
    from lead_figure f where f.mode = of_mode and f.received_at >= since and f.received_at < until
), coded as (
    select figure.*, dense_rank() over (partition by at_hour order by why) as why_code,
           dense_rank() over (partition by at_hour order by sub_ids) as sub_ids_code
    from figure
), packed as (
    select at_hour,
        string_agg(uuid_send(id), ''::bytea order by received_at, id) as lead,
        string_agg(int2send(extract(minute from received_at)::int2), ''::bytea order by received_at, id) as minute,
        string_agg(int4send(provider), ''::bytea order by received_at, id) as provider,
        string_agg(int4send(vertical), ''::bytea order by received_at, id) as vertical,
        string_agg(int4send(business), ''::bytea order by received_at, id) as business,
        string_agg(int4send(subscription), ''::bytea order by received_at, id) as subscription,
        string_agg(int2send(channel::int2), ''::bytea order by received_at, id) as channel,
        string_agg(int2send((demo::int)::int2), ''::bytea order by received_at, id) as demo,
        string_agg(int2send(step::int2), ''::bytea order by received_at, id) as step,
        string_agg(int2send(array_position(array['received', 'rejected', 'duplicate', 'suppressed', 'nurturing',
            'expired', 'prospect', 'unsold', 'held', 'exposed', 'delivered', 'refused', 'lapsed', 'returned'],
            state)::int2), ''::bytea order by received_at, id) as state,
        string_agg(int2send(why_code::int2), ''::bytea order by received_at, id) as why,
        convert_to(string_agg(distinct why, E'\n' order by why), 'UTF8') as why_words,
        string_agg(int4send(sub_ids_code::int4), ''::bytea order by received_at, id) as sub_ids,
        convert_to(string_agg(distinct sub_ids, E'\n' order by sub_ids), 'UTF8') as sub_ids_words,
        string_agg(float4send(coalesce(to_receive, 'NaN')::float4), ''::bytea order by received_at, id) as to_receive,
        string_agg(float4send(coalesce(to_qualify, 'NaN')::float4), ''::bytea order by received_at, id) as to_qualify,
        string_agg(float4send(coalesce(to_award, 'NaN')::float4), ''::bytea order by received_at, id) as to_award,
        string_agg(float4send(coalesce(to_expose, 'NaN')::float4), ''::bytea order by received_at, id) as to_expose,
        string_agg(float4send(coalesce(to_acknowledge, 'NaN')::float4), ''::bytea order by received_at, id)
            as to_acknowledge,
        string_agg(float4send(coalesce(to_touch, 'NaN')::float4), ''::bytea order by received_at, id) as to_touch,
        string_agg(float4send(coalesce(to_contact, 'NaN')::float4), ''::bytea order by received_at, id) as to_contact,
        string_agg(float4send(coalesce(theirs, 'NaN')::float4), ''::bytea order by received_at, id) as theirs,
        string_agg(float4send(coalesce(acknowledged, 'NaN')::float4), ''::bytea order by received_at, id)
            as acknowledged
    from coded group by at_hour
)
select c.field, p.at_hour, c.data
from packed p
cross join lateral (values
    ('lead', lead), ('minute', minute), ('provider', provider), ('vertical', vertical), ('business', business),
    ('subscription', subscription), ('channel', channel), ('demo', demo), ('step', step), ('state', state),
    ('why', why), ('why_words', why_words), ('sub_ids', sub_ids), ('sub_ids_words', sub_ids_words),
    ('to_receive', to_receive), ('to_qualify', to_qualify), ('to_award', to_award), ('to_expose', to_expose),
    ('to_acknowledge', to_acknowledge), ('to_touch', to_touch), ('to_contact', to_contact), ('theirs', theirs),
    ('acknowledged', acknowledged)
) as c (field, data)
$$;

-- What the decisions say of the candidates. `share_*`, one row per hour and subscription: the awards for which it stood,
-- those that it got, and, where its vertical divides by weight, those and its fair part of them. `miss_*`, one row
-- per lead and subscription that a single rule kept apart: the lead's place in its hour, the rule with unit and side,
-- the distance. Only a lead's last award or its end unsold counts.
create function candidate_columns(of_mode text, since timestamptz, until timestamptz)
    returns table (field text, hour timestamptz, data bytea) language sql stable as $$
with placed as materialized (
    select l.id, l.received_at, date_trunc('hour', l.received_at, 'UTC') as at_hour,
           row_number() over (partition by date_trunc('hour', l.received_at, 'UTC') order by l.received_at, l.id) - 1
               as place
    from lead l where l.mode = of_mode and l.received_at >= since and l.received_at < until
), weighed as materialized (
    select p.at_hour, p.place, d.outcome, d.strategy in ('weighted_share', 'fair') as by_weight,
           c.*, d.subscription_id as winner
    from placed p
    cross join lateral (
        select outcome, strategy, candidates, subscription_id from decision
        where lead_id = p.id and made_at >= p.received_at - interval '1 hour' and outcome in ('held', 'unsold')
        order by made_at desc, id desc limit 1
    ) d
    cross join lateral jsonb_to_recordset(d.candidates)
        as c (subscription_id uuid, version int, position int, failures jsonb)
), weight as materialized (
    select v.subscription_id, v.version, coalesce((v.definition ->> 'weight')::float8, 1) as weight
    from subscription_version v
    where (v.subscription_id, v.version) in (select w.subscription_id, w.version from weighed w where w.by_weight)
), stood as (
    select w.at_hour, w.place, w.subscription_id, w.by_weight, w.subscription_id = w.winner as won,
           g.weight / sum(g.weight) over (partition by w.at_hour, w.place) as part
    from weighed w
    left join weight g on (g.subscription_id, g.version) = (w.subscription_id, w.version)
    where w.outcome = 'held' and w.position is not null
      and coalesce(w.failures -> 0 ->> 'rule', 'outranked') = 'outranked'
), share as (
    select t.at_hour, s.number, count(*) as stood, count(*) filter (where t.won) as won,
           count(*) filter (where t.won and t.by_weight) as won_by_weight,
           coalesce(sum(t.part order by t.place) filter (where t.by_weight), 0) as entitled
    from stood t join subscription s on s.id = t.subscription_id
    group by t.at_hour, s.number
), miss as (
    select w.at_hour, w.place, s.number, (w.failures -> 0 ->> 'distance')::float8 as distance,
           concat_ws(' ', w.failures -> 0 ->> 'rule', coalesce(w.failures -> 0 ->> 'unit', '-'),
               substring(w.failures -> 0 ->> 'detail' from '(below|above)$')) as rule
    from weighed w join subscription s on s.id = w.subscription_id
    where jsonb_array_length(w.failures) = 1
      and w.failures -> 0 ->> 'rule' not in ('outranked', 'cap_race', 'unreachable')
), coded as (
    select miss.*, dense_rank() over (partition by at_hour order by rule) as rule_code from miss
), shares as (
    select at_hour, string_agg(int4send(number), ''::bytea order by number) as subscription,
           string_agg(int4send(stood::int), ''::bytea order by number) as stood,
           string_agg(int4send(won::int), ''::bytea order by number) as won,
           string_agg(int4send(won_by_weight::int), ''::bytea order by number) as won_by_weight,
           string_agg(float8send(entitled), ''::bytea order by number) as entitled
    from share group by at_hour
), misses as (
    select at_hour, string_agg(int4send(number), ''::bytea order by place, number) as subscription,
           string_agg(int4send(place::int), ''::bytea order by place, number) as lead,
           string_agg(float4send(coalesce(distance, 'NaN')::float4), ''::bytea order by place, number) as distance,
           string_agg(int2send(rule_code::int2), ''::bytea order by place, number) as rule,
           convert_to(string_agg(distinct rule, E'\n' order by rule), 'UTF8') as rule_words
    from coded group by at_hour
)
select c.field, s.at_hour, c.data
from shares s
cross join lateral (values
    ('share_subscription', subscription), ('share_stood', stood), ('share_won', won),
    ('share_won_by_weight', won_by_weight), ('share_entitled', entitled)
) as c (field, data)
union all
select c.field, m.at_hour, c.data
from misses m
cross join lateral (values
    ('miss_subscription', subscription), ('miss_lead', lead), ('miss_distance', distance), ('miss_rule', rule),
    ('miss_rule_words', rule_words)
) as c (field, data)
$$;

-- Transfers by the hour in which they were made; the party is a business's number or, for payouts and claw-backs, a
-- provider's. `money_total` has the sum of each kind, in the order of the kinds, so that a balance needs no more.
create function money_columns(since timestamptz, until timestamptz)
    returns table (part text, field text, hour timestamptz, data bytea) language sql stable as $$
with moved as materialized (
    select t.currency, date_trunc('hour', t.made_at, 'UTC') as at_hour, t.made_at, t.id, t.amount_minor,
           array_position(array['top_up', 'withdrawal', 'hold', 'release', 'capture', 'payout', 'refund', 'claw_back'],
               t.kind) as kind,
           coalesce(b.number, p.number) as party
    from transfer t
    left join business b on b.id = t.business_id
    left join provider p on p.id = t.provider_id
    where t.made_at >= since and t.made_at < until
), packed as (
    select currency, at_hour,
           string_agg(int2send(extract(minute from made_at)::int2), ''::bytea order by made_at, id) as minute,
           string_agg(int2send(kind::int2), ''::bytea order by made_at, id) as kind,
           string_agg(int4send(party), ''::bytea order by made_at, id) as party,
           string_agg(int8send(amount_minor), ''::bytea order by made_at, id) as minor
    from moved group by currency, at_hour
), total as (
    select p.currency, p.at_hour, string_agg(int8send(coalesce(m.minor, 0)::bigint), ''::bytea order by n.nth) as total
    from packed p
    cross join generate_series(1, 8) as n (nth)
    left join (
        select currency, at_hour, kind, sum(amount_minor) as minor from moved group by currency, at_hour, kind
    ) m on (m.currency, m.at_hour, m.kind) = (p.currency, p.at_hour, n.nth)
    group by p.currency, p.at_hour
)
select p.currency::text, c.field, p.at_hour, c.data
from packed p
join total t using (currency, at_hour)
cross join lateral (values
    ('money_minute', minute), ('money_kind', p.kind), ('money_party', party), ('money_minor', minor),
    ('money_total', total)
) as c (field, data)
$$;

-- All columns of the hours from `since` up to and without `until`.
create function report_columns(since timestamptz, until timestamptz)
    returns table (part text, field text, hour timestamptz, data bytea) language sql stable as $$
select of_mode, c.field, c.hour, c.data
from unnest(array['live', 'test']) as of_mode
cross join lateral (
    select field, hour, data from lead_columns(of_mode, since, until)
    union all
    select field, hour, data from candidate_columns(of_mode, since, until)
) c
union all
select part, field, hour, data from money_columns(since, until)
$$;

-- For files made by COPY: an id as people see it (a kind and 26 characters of 5 bits), and a text that no spreadsheet runs.
create function public_id(kind text, id uuid) returns text language sql immutable as $$
select kind || '_' || string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz',
           1 + substring(b'00' || ('x' || replace(id::text, '-', ''))::bit(128) from 5 * nth + 1 for 5)::bit(5)::int, 1),
           '' order by nth)
from generate_series(0, 25) as nth
where id is not null
$$;
create function safe_cell(cell text) returns text language sql immutable as $$
select case when cell ~ '^[-=+@\t\r\n＝＋－＠]' then '''' || cell else cell end
$$;

-- Inquiries that were refused with faults never become rows of their own: only how often which field failed how, by day.
create table refusal_count (
    provider_id uuid not null references provider (id),
    mode text not null constraint refusal_count_mode check (mode in ('live', 'test')),
    hour timestamptz not null,
    pointer text not null,
    code text not null,
    count int not null check (count > 0),
    primary key (provider_id, mode, hour, pointer, code)
);

grant select on report_column, report_progress, report_stale, report_changed, lead_figure
    to marketplace_reports, marketplace_worker;
grant insert, delete on report_column, report_stale to marketplace_worker;
grant update (frontier, seen, at) on report_progress to marketplace_worker;
grant select on refusal_count to marketplace_reports;
grant select, insert, update (count) on refusal_count to marketplace_api;
