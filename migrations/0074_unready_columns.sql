-- Report columns of leads that were not ready at some time: what the nurture lane earned, and what promotes a lead.

-- A touch is followed to its transaction, as a disposition is: it may come without a move of its lead.
alter table touch add column committed_by xid8 not null default pg_current_xact_id();
create index touch_by_commit on touch (committed_by);

-- As in 0032_background_passes.sql, and besides the touches.
create or replace view report_changed as
with progress as materialized (
   select frontier, seen, pg_snapshot_xmin(seen) as since, pg_snapshot_xmax(pg_current_snapshot()) as upto
   from report_progress
)
select hour from report_stale
union
select date_trunc('hour', changed.at, 'UTC')
from progress p
cross join lateral (
    select l.received_at as at
    from (
        select m.lead_id from move m
        where m.committed_by >= p.since and m.committed_by < p.upto and not pg_visible_in_snapshot(m.committed_by, p.seen)
        union
        select d.lead_id from disposition d
        where d.committed_by >= p.since and d.committed_by < p.upto and not pg_visible_in_snapshot(d.committed_by, p.seen)
        union
        select t.lead_id from touch t
        where t.committed_by >= p.since and t.committed_by < p.upto and not pg_visible_in_snapshot(t.committed_by, p.seen)
    ) changed_lead
    cross join lateral (select received_at from lead where id = changed_lead.lead_id limit 1) l
    union all
    select t.made_at from transfer t
    where t.committed_by >= p.since and t.committed_by < p.upto and not pg_visible_in_snapshot(t.committed_by, p.seen)
) changed
where changed.at < p.frontier;

-- One row per lead that was nurtured at any time, or rejected at first: its place in its hour, as in `miss_lead`.
-- `unready_first` is 1 if its first decision nurtured it, 2 if that rejected it, 0 if it was ready then. `unready_end` is 1
-- for a lead that its provider gave back, 2 for one whose person was erased or revoked consent. `unready_promoted` are the
-- seconds from the receipt to the qualification. `unready_touches` has a bit for each kind of touch recorded before that;
-- the highest is for kinds of the providers' own. Price and payout are those of a live lead that its business kept.
create function unready_columns(of_mode text, since timestamptz, until timestamptz)
    returns table (field text, hour timestamptz, data bytea) language sql stable as $$
with placed as materialized (
    select l.id, l.state, l.reason, l.received_at, l.qualified_at, date_trunc('hour', l.received_at, 'UTC') as at_hour,
           row_number() over (partition by date_trunc('hour', l.received_at, 'UTC') order by l.received_at, l.id) - 1
               as place
    from lead l where l.mode = of_mode and l.received_at >= since and l.received_at < until
), unready as materialized (
    select p.*, decided.nurtured, coalesce(array_position(array['nurturing', 'rejected'], decided.first), 0) as first,
           coalesce(touched.kinds, 0) as touches, coalesce(a.chargeable_minor, 0) as price,
           coalesce(a.payable_minor, 0) as payout
    from placed p
    cross join lateral (
        select bool_or(d.outcome = 'nurturing') as nurtured,
               (array_agg(d.outcome order by d.made_at, d.id))[1] as first
        from decision d where d.lead_id = p.id and d.made_at >= p.received_at - interval '1 hour'
    ) decided
    left join lateral (
        select bit_or(1 << coalesce(array_position(array['page_view', 'form', 'link_click', 'email_open', 'email_reply',
                   'call', 'chat', 'appointment', 'purchase', 'inquiry'], h.kind) - 1, 10)) as kinds
        from touch h where h.lead_id = p.id and h.recorded_at <= coalesce(p.qualified_at, 'infinity')
    ) touched on decided.nurtured or decided.first = 'rejected'
    left join lateral (
        select chargeable_minor, payable_minor from assignment where lead_id = p.id and state = 'delivered' limit 1
    ) a on decided.nurtured or decided.first = 'rejected'
    where decided.nurtured or decided.first = 'rejected'
), packed as (
    select at_hour, string_agg(int4send(place::int), ''::bytea order by place) as lead,
           string_agg(int2send(first::int2), ''::bytea order by place) as first,
           string_agg(int2send((nurtured::int)::int2), ''::bytea order by place) as nurtured,
           string_agg(int2send(case when state <> 'expired' then 0 when reason = 'given_back' then 1
               when reason in ('erased', 'revoked') then 2 else 0 end::int2), ''::bytea order by place) as ended,
           string_agg(float4send(coalesce(extract(epoch from qualified_at - received_at), 'NaN')::float4), ''::bytea
               order by place) as promoted,
           string_agg(int2send(touches::int2), ''::bytea order by place) as touches,
           string_agg(int8send(price), ''::bytea order by place) as price,
           string_agg(int8send(payout), ''::bytea order by place) as payout
    from unready group by at_hour
)
select c.field, p.at_hour, c.data
from packed p
cross join lateral (values
    ('unready_lead', lead), ('unready_first', first), ('unready_nurtured', nurtured), ('unready_end', ended),
    ('unready_promoted', promoted), ('unready_touches', touches), ('unready_price', price), ('unready_payout', payout)
) as c (field, data)
$$;

create or replace function report_columns(since timestamptz, until timestamptz)
    returns table (part text, field text, hour timestamptz, data bytea) language sql stable as $$
select of_mode, c.field, c.hour, c.data
from unnest(array['live', 'test']) as of_mode
cross join lateral (
    select field, hour, data from lead_columns(of_mode, since, until)
    union all
    select field, hour, data from candidate_columns(of_mode, since, until)
    union all
    select field, hour, data from unready_columns(of_mode, since, until)
) c
union all
select part, field, hour, data from money_columns(since, until)
$$;

-- What is stored already, with the new columns: hours first, then the months in which they lie together.
insert into report_column (part, field, hour, data)
select m.mode, u.field, u.hour, u.data
from report_progress p
cross join unnest(array['live', 'test']) as m (mode)
cross join lateral unready_columns(m.mode, '-infinity', p.frontier) u;
insert into report_month (part, field, month, data, hours, lengths)
select c.part, c.field, m.month, string_agg(c.data, ''::bytea order by c.hour),
       string_agg(int4send((date_part('epoch', c.hour) / 3600)::int), ''::bytea order by c.hour),
       string_agg(int4send(octet_length(c.data)), ''::bytea order by c.hour)
from (select distinct month from report_month) m
join report_column c on c.hour >= m.month and c.hour < m.month + interval '1 month' and c.field like 'unready\_%'
group by c.part, c.field, m.month;
