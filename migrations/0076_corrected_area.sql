-- The postal code of an inquiry can be corrected, and reports by area and budget read what touches and corrections have made
-- of a lead's facts.

alter table correction add column place jsonb;

-- The facts of an inquiry with the entries of its lead's journey up to a revision, which routing/journey.py folds.
create or replace function facts_at(of_lead uuid, own jsonb, up_to int) returns jsonb language sql stable as $$
select case when up_to = 0 then own else own || jsonb_build_object('journey', (
        select coalesce(jsonb_agg(entry), '[]') from (
            select jsonb_build_object('type', 'touch', 'revision', t.revision, 'supplies', t.supplies, 'touch',
                jsonb_strip_nulls(jsonb_build_object('kind', t.kind, 'at', t.at, 'detail', t.detail,
                    'direction', t.direction, 'seconds', t.seconds, 'starts_at', t.starts_at, 'touch_id', t.touch_id,
                    'amount', case when t.amount_minor is not null then
                        jsonb_build_object('minor', t.amount_minor, 'currency', t.currency) end))) as entry
            from touch t where t.lead_id = of_lead and t.revision <= up_to
            union all
            select jsonb_build_object('type', 'correction', 'revision', c.revision, 'at', c.made_at,
                'supplies', c.supplies, 'clears', c.clears, 'signals', c.signals, 'place', c.place, 'contact', c.contact)
            from correction c where c.lead_id = of_lead and c.revision <= up_to
        ) journey)) end
$$;

-- What reports read of the facts of a lead that touches or corrections have revised, as routing/journey.py folds them: one row
-- for each lead with a revision, written again with each one. `budget_minor` is null if no budget is known.
create table revised_facts (
    lead_id uuid primary key references lead,
    place jsonb not null,
    budget_minor bigint,
    committed_by xid8 not null default pg_current_xact_id()
);
create index revised_facts_committed on revised_facts (committed_by);
grant select on revised_facts to marketplace_api, marketplace_worker, marketplace_reports;

-- The leads that were revised before. No place was corrected then. The budget is the newest that was stated or verified after
-- the newest correction of it, or that correction.
insert into revised_facts (lead_id, place, budget_minor)
select l.id, i.facts -> 'place', current.minor
from lead l
join inquiry i on i.id = l.id
left join lateral (
    select (s.budget ->> 'minor')::bigint as minor
    from (
        select i.facts -> 'budget' as budget, least(i.submitted_at, l.received_at) as at,
               i.facts -> 'evidence' ->> 'budget' as evidence, false as corrects
        union all
        select t.supplies -> 'budget', t.at, t.supplies -> 'evidence' ->> 'budget', false from touch t where t.lead_id = l.id
        union all
        select c.supplies -> 'budget', c.made_at, c.supplies -> 'evidence' ->> 'budget', true
        from correction c
        where c.lead_id = l.id and (c.supplies ? 'budget' or 'budget' = any(c.clears))
    ) s
    cross join lateral (
        select max(c.made_at) as at from correction c
        where c.lead_id = l.id and (c.supplies ? 'budget' or 'budget' = any(c.clears))
    ) newest
    where (s.budget ->> 'minor') is not null
        and (newest.at is null or s.at > newest.at or (s.corrects and s.at = newest.at))
    order by coalesce(s.evidence = 'inferred', false), s.at desc
    limit 1
) current on true
where l.revision > 0;

-- As before, and with a corrected place, and what reports read of the lead's facts from then on.
create or replace function revise_lead(change jsonb) returns jsonb language plpgsql security definer
    set search_path = pg_catalog, public as $$
declare
    c record;
    erased boolean;
    added text[];
begin
    select * into c from jsonb_to_record(change) as r (
        lead_id uuid, state text, revision int, next text, made_at timestamptz, touches jsonb, correction jsonb,
        protected_until timestamptz, place jsonb, budget_minor bigint);
    perform from lead where id = c.lead_id and state = c.state and revision = c.revision for no key update;
    if not found then
        return null;
    end if;
    erased := exists (select from erasure where lead_id = c.lead_id);
    with stored as (
        insert into touch (lead_id, fingerprint, revision, kind, at, detail, direction, seconds, amount_minor, currency,
            starts_at, touch_id, supplies, recorded_at)
        select c.lead_id, decode(t.fingerprint, 'base64'), c.revision + 1, t.kind, t.at,
               case when erased then '' else t.detail end, t.direction, t.seconds, t.amount_minor, t.currency, t.starts_at,
               t.touch_id, t.supplies, c.made_at
        from jsonb_to_recordset(c.touches) as t (fingerprint text, kind text, at timestamptz, detail text, direction text,
            seconds int, amount_minor bigint, currency text, starts_at timestamptz, touch_id text, supplies jsonb)
        on conflict (lead_id, fingerprint) do nothing
        returning encode(fingerprint, 'base64') as fingerprint
    )
    select coalesce(array_agg(fingerprint), '{}') into added from stored;
    if c.correction is not null then
        if erased then
            return jsonb_build_object('added', added, 'state', c.state, 'erased', true);
        end if;
        insert into correction (lead_id, revision, made_at, made_by, supplies, clears, signals, place, contact, sealed,
            wrapped, master_key_id, idempotency_key, request_sha256)
        select c.lead_id, c.revision + 1, c.made_at, r.made_by, r.supplies, r.clears, r.signals, r.place, r.contact,
               decode(r.sealed, 'base64'), decode(r.wrapped, 'base64'), r.master_key_id, r.idempotency_key,
               decode(r.request_sha256, 'base64')
        from jsonb_to_record(c.correction) as r (made_by text, supplies jsonb, clears text[], signals jsonb, place jsonb,
            contact text[], sealed text, wrapped text, master_key_id text, idempotency_key text, request_sha256 text);
        perform add_person(c.lead_id, c.correction -> 'window_keys', c.correction -> 'person_keys');
    elsif added = '{}' then
        return jsonb_build_object('added', added, 'state', c.state);
    end if;
    if c.next = 'receive' and not is_withdrawn(c.lead_id) then
        begin
            if c.state <> 'prospect' then
                perform retake_window(c.lead_id, c.made_at, c.protected_until);
                update lead set qualified_at = null, settled_at = null, reopened_at = c.made_at where id = c.lead_id;
            end if;
            update lead set state = 'received', reason = null, due_at = c.made_at where id = c.lead_id;
        exception when unique_violation then
            null;  -- the person has asked anew meanwhile: the lead stays as it ended
        end;
    elsif c.next = 'due' then
        update lead set due_at = least(due_at, c.made_at) where id = c.lead_id;
    end if;
    insert into revised_facts (lead_id, place, budget_minor) values (c.lead_id, c.place, c.budget_minor)
    on conflict (lead_id) do update
    set place = excluded.place, budget_minor = excluded.budget_minor, committed_by = excluded.committed_by;
    update lead set revision = c.revision + 1 where id = c.lead_id;
    return jsonb_build_object('added', added, 'state', (select state from lead where id = c.lead_id));
end $$;

-- As before, with the area and the budget as touches and corrections have left them. Only leads with a revision are looked up.
create or replace view exclusive_outcome as
select a.id as assignment_id, a.business_id, l.vertical_id,
       case when shares_codes(area.place ->> 'country', (
           select coalesce(d.definition ->> 'country', 'US')
           from vertical v join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
           where v.id = l.vertical_id)) then area.place ->> 'postal_code' end as postal_code,
       a.exposed_at as received_at,
       charge.amount_minor - coalesce(refund.amount_minor, 0) as cost_minor, a.currency,
       told.contacted_at,
       case when told.qualified then true when final.kind is not null then false end as qualified,
       case when final.kind = 'won' then final.happened_at end as won_at,
       case when final.kind = 'won' then final.value_minor end as won_minor,
       case when final.kind <> 'won' then final.happened_at end as lost_at,
       coalesce(told.demo, false) as demo,
       case when f.place is null then (i.facts -> 'budget' ->> 'minor')::bigint else f.budget_minor end as budget_minor,
       (select case when (terms.definition ->> 'delay_per_mille')::int > 0 then exists (
                   select from decision h where h.lead_id = a.lead_id and h.reason = 'delayed'
                       and h.made_at > a.awarded_at - interval '1 day' and h.made_at <= a.awarded_at) end
        from decision w
        join vertical_version terms on (terms.vertical_id, terms.version) = (l.vertical_id, w.vertical_version)
        where w.assignment_id = a.id and w.lead_id = a.lead_id and w.made_at = a.awarded_at) as delayed
from assignment a
join lead l on l.id = a.lead_id
join inquiry i on i.id = a.lead_id
left join lateral (
    select r.place, r.budget_minor from revised_facts r where l.revision > 0 and r.lead_id = l.id limit 1
) f on true
cross join lateral (select coalesce(f.place, i.facts -> 'place') as place) area
join transfer charge on charge.assignment_id = a.id and charge.kind = 'capture'
left join transfer refund on refund.assignment_id = a.id and refund.kind = 'refund'
left join lateral (
    select min(d.happened_at) filter (where d.kind in ('contacted', 'appointment', 'qualified', 'quoted', 'won')) as contacted_at,
           bool_or(d.kind in ('qualified', 'quoted', 'won')) as qualified,
           bool_or(d.source = 'demo') as demo
    from disposition d where d.assignment_id = a.id and d.undone_at is null
) told on true
left join lateral (
    select d.kind, d.happened_at, d.value_minor from disposition d
    where d.assignment_id = a.id and d.undone_at is null and d.kind in ('won', 'lost', 'unreachable')
    order by d.happened_at desc, d.id desc
    limit 1
) final on true
where a.mode = 'live';

-- What can change the record of an exclusive lead, by the transaction that did it: a charge or its refund, each of which
-- moves the assignment, what the business says, and a new revision of the lead's facts. Other moves change no record.
create or replace view exclusive_change as
select committed_by, assignment_id from move
where assignment_id is not null and entered_state in ('delivered', 'returned')
union all
select committed_by, assignment_id from disposition
union all
select r.committed_by, a.id from revised_facts r join assignment a on a.lead_id = r.lead_id and a.live;
