-- The journey of a lead: each batch of touches and each correction raises its revision, and a decision says which one it
-- rests on. A lead that ended without a sale may be opened again.

alter table lead add column revision int not null default 0;
alter table lead add column reopened_at timestamptz;
alter table decision add column revision int not null default 0;

-- A touch counts once: `fingerprint` is the hash of its touch_id or of its content. A table without partitions, because its
-- key has no time in it. Touches from before have a fingerprint of their own.
alter table touch rename to touch_before;
create table touch (
    lead_id uuid not null references lead (id),
    fingerprint bytea not null,
    revision int not null,
    kind text not null,
    at timestamptz not null,
    detail text not null default '',
    direction text constraint touch_direction check (direction in ('inbound', 'outbound')),
    seconds int constraint touch_seconds check (seconds between 0 and 86400),
    amount_minor bigint constraint touch_amount check (amount_minor >= 0),
    currency char(3),
    starts_at timestamptz,
    touch_id text,
    supplies jsonb not null default '{}',
    recorded_at timestamptz not null,
    constraint touch_once primary key (lead_id, fingerprint),
    constraint touch_currency check ((amount_minor is null) = (currency is null))
);
insert into touch (lead_id, fingerprint, revision, kind, at, detail, recorded_at)
select t.lead_id, sha256(convert_to(jsonb_build_array(t.kind, t.at, t.detail)::text, 'UTF8')), 1, t.kind, t.at, t.detail,
       t.recorded_at
from touch_before t join lead l on l.id = t.lead_id
on conflict do nothing;
update lead set revision = 1 where exists (select from touch t where t.lead_id = lead.id);
drop table touch_before;

create or replace function make_partitions(around timestamptz, ahead int) returns void language plpgsql security definer
    set search_path = pg_catalog, public as $$
declare
    parent text;
    month timestamptz;
begin
    perform pg_advisory_xact_lock(hashtext('marketplace.make_partitions'));
    foreach parent in array array['decision', 'attempt', 'audit'] loop
        for month in select generate_series(
            date_trunc('month', around at time zone 'UTC') - interval '1 month',
            date_trunc('month', around at time zone 'UTC') + make_interval(months => ahead), interval '1 month')
            at time zone 'UTC'
        loop
            execute format('create table if not exists public.%I partition of public.%I for values from (%L) to (%L)',
                parent || to_char(month at time zone 'UTC', '_YYYY_MM'), parent, month,
                (month at time zone 'UTC' + interval '1 month') at time zone 'UTC');
        end loop;
    end loop;
end $$;

-- A correction of an inquiry. `signals` are those of a corrected phone number or e-mail address. `clears` are the names of values that it removed, `contact` those of the contact
-- fields that it changed; their values are in `sealed`, under a key of its own, which an erasure destroys.
create table correction (
    lead_id uuid not null references lead (id),
    revision int not null,
    made_at timestamptz not null,
    made_by text not null,
    supplies jsonb not null default '{}',
    clears text[] not null default '{}',
    signals jsonb,
    contact text[] not null default '{}',
    sealed bytea,
    wrapped bytea,
    master_key_id text,
    idempotency_key text,
    request_sha256 bytea not null,
    primary key (lead_id, revision),
    constraint correction_idempotency_key unique (lead_id, idempotency_key),
    constraint correction_sealed check (
        (sealed is null) = (wrapped is null) and (sealed is null) = (master_key_id is null)
        and (sealed is null or contact <> '{}'))
);

-- Moves of a lead whose facts have changed: a prospect is qualified again, and one that ended unsold or rejected is opened
-- again.
create or replace function assert_lead_move() returns trigger language plpgsql as $$
begin
    if (old.state, new.state) not in (
        ('received', 'rejected'), ('received', 'nurturing'), ('received', 'prospect'), ('received', 'held'),
        ('received', 'unsold'), ('nurturing', 'prospect'), ('nurturing', 'held'), ('nurturing', 'unsold'),
        ('nurturing', 'rejected'), ('nurturing', 'expired'),
        ('prospect', 'held'), ('prospect', 'unsold'), ('prospect', 'nurturing'), ('prospect', 'received'),
        ('rejected', 'received'), ('unsold', 'received'),
        ('held', 'prospect'), ('held', 'exposed'),
        ('exposed', 'delivered'), ('exposed', 'refused'), ('exposed', 'lapsed'),
        ('delivered', 'returned'))
    then
        raise exception 'a lead never moves from % to %', old.state, new.state
            using errcode = 'check_violation', constraint = 'lead_move';
    end if;
    return new;
end $$;

-- The facts of an inquiry with the entries of its lead's journey up to a revision, which routing/journey.py folds.
create function facts_at(of_lead uuid, own jsonb, up_to int) returns jsonb language sql stable as $$
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
                'supplies', c.supplies, 'clears', c.clears, 'signals', c.signals, 'contact', c.contact)
            from correction c where c.lead_id = of_lead and c.revision <= up_to
        ) journey)) end
$$;

-- Takes a person's window again for a lead that is opened again. Raises unique_violation, constraint person_window_once, if
-- another lead has it by now, or if the lead's own keys were deleted when it ended.
create function retake_window(of_lead uuid, since timestamptz, until timestamptz) returns void language plpgsql as $$
declare
    own record;
    claimed int;
begin
    select array_agg(key order by key) as keys, min(vertical_id::text)::uuid as vertical_id into own
    from person_window where lead_id = of_lead;
    delete from person_window where lead_id = of_lead;
    insert into person_window (lead_id, key, vertical_id, during)
    select of_lead, mine.key, own.vertical_id, tstzrange(since, until) from unnest(own.keys) as mine (key) order by mine.key
    on conflict on constraint person_window_once do nothing;
    get diagnostics claimed = row_count;
    if claimed = 0 or claimed < cardinality(own.keys) then
        raise unique_violation using constraint = 'person_window_once', message = 'this person was here since';
    end if;
end $$;

-- Adds the keys of a corrected phone number or e-mail address to those by which a lead's person is found. The earlier ones
-- stay, so that the person is not sold once more by the earlier number. Raises unique_violation, constraint
-- person_window_once, if another lead has the person.
create function add_person(of_lead uuid, window_keys jsonb, person_keys jsonb) returns void language plpgsql as $$
declare
    asked int;
    claimed int;
begin
    select count(*) into asked
    from jsonb_array_elements_text(window_keys) as added (key)
    where not exists (select from person_window w where w.lead_id = of_lead and w.key = decode(added.key, 'base64'));
    insert into person_window (lead_id, key, vertical_id, during)
    select of_lead, decode(added.key, 'base64'), own.vertical_id, own.during
    from jsonb_array_elements_text(window_keys) as added (key)
    cross join lateral (select vertical_id, during from person_window where lead_id = of_lead limit 1) own
    where not exists (select from person_window w where w.lead_id = of_lead and w.key = decode(added.key, 'base64'))
    order by added.key
    on conflict on constraint person_window_once do nothing;
    get diagnostics claimed = row_count;
    if claimed < asked and exists (select from person_window where lead_id = of_lead) then
        raise unique_violation using constraint = 'person_window_once', message = 'another lead has this person';
    end if;
    insert into person_key (lead_id, key)
    select of_lead, decode(added.key, 'base64') from jsonb_array_elements_text(person_keys) as added (key)
    on conflict do nothing;
end $$;

-- Touches and a correction of one lead, all or nothing, in one call with the lead's new revision and state. Called by the api
-- alone, which may write neither by itself. Answers null, with nothing written, if the lead is no longer as the caller
-- read it: in `state` at `revision`. Otherwise `added`, the fingerprints of the touches that were not there before, and the
-- lead's new `state`. Nothing added is no new revision. Nobody who was erased is corrected: `erased` says so. Raises
-- unique_violation, constraint person_window_once, if another lead has the person of a correction.
--
-- `next` is 'stay'; 'due', for a lead that waits, which is decided about at once; or 'receive', for a lead that is qualified
-- again. A lead that has ended is opened only if its person's window can be taken again and the person has not withdrawn.
create function revise_lead(change jsonb) returns jsonb language plpgsql security definer
    set search_path = pg_catalog, public as $$
declare
    c record;
    erased boolean;
    added text[];
begin
    select * into c from jsonb_to_record(change) as r (
        lead_id uuid, state text, revision int, next text, made_at timestamptz, touches jsonb, correction jsonb,
        protected_until timestamptz);
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
        insert into correction (lead_id, revision, made_at, made_by, supplies, clears, signals, contact, sealed, wrapped,
            master_key_id, idempotency_key, request_sha256)
        select c.lead_id, c.revision + 1, c.made_at, r.made_by, r.supplies, r.clears, r.signals, r.contact,
               decode(r.sealed, 'base64'), decode(r.wrapped, 'base64'), r.master_key_id, r.idempotency_key,
               decode(r.request_sha256, 'base64')
        from jsonb_to_record(c.correction) as r (made_by text, supplies jsonb, clears text[], signals jsonb,
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
    update lead set revision = c.revision + 1 where id = c.lead_id;
    return jsonb_build_object('added', added, 'state', (select state from lead where id = c.lead_id));
end $$;

-- The form of 0054_exposed_with_the_award.sql, except for `revision`: an award never rests on facts that have been revised
-- since. 'moved' also means that the lead has another revision than that which was decided about.
create or replace function award_lead(award jsonb) returns text language plpgsql as $$
declare
    a record;
    live boolean;
    opened_until timestamptz;
    now_exposed timestamptz;
begin
    select * into a from jsonb_to_record(award) as r (
        id uuid, lead_id uuid, lead_state text, business_id uuid, subscription_id uuid, subscription_version int,
        endpoint_id uuid, provider_id uuid, mode text, price_minor bigint, payout_minor bigint, currency text,
        awarded_at timestamptz, due_at timestamptz, hold_until timestamptz, hour_at timestamptz, day_at timestamptz,
        week_at timestamptz, month_at timestamptz, windows jsonb, hold_id uuid, decision_id uuid, vertical_version int,
        catalog_version bigint, strategy text, verdict jsonb, candidates jsonb, left_out int, credits jsonb,
        exposure jsonb, revision int);
    live := a.mode = 'live';
    perform from lead where id = a.lead_id and state = a.lead_state and revision = a.revision for no key update;
    if not found then
        return 'moved';
    end if;
    perform from subscription where id = a.subscription_id for no key update;
    select e.breaker_open_until into opened_until
    from subscription s
    join business b on b.id = s.business_id and b.state = 'active'
    join endpoint e on e.id = s.endpoint_id and e.id = a.endpoint_id and e.state = 'active'
        and (e.breaker_open_until is null or e.breaker_open_until <= a.awarded_at)
    where s.id = a.subscription_id and s.version = a.subscription_version and s.state = 'active';
    if not found then
        return 'withdrawn';
    end if;
    perform from jsonb_to_recordset(a.windows)
        as w (cap_window text, starts_at timestamptz, most_count int, most_minor bigint)
    cross join lateral (
        select used_count, used_minor from cap_usage
        where (subscription_id, cap_window, starts_at) = (a.subscription_id, w.cap_window, w.starts_at)
        limit 1
    ) u
    where live and (w.most_count is not null or w.most_minor is not null)
      and (u.used_count >= w.most_count or u.used_minor + a.price_minor > w.most_minor);
    if found then
        return 'capped';
    end if;
    perform from wallet
    where business_id = a.business_id and (not live or available_minor + credit_limit_minor >= a.price_minor)
    for no key update;
    if not found then
        return 'unfunded';
    end if;
    update lead set state = 'held', due_at = null, qualified_at = coalesce(qualified_at, a.awarded_at)
    where id = a.lead_id;
    insert into assignment (id, lead_id, business_id, subscription_id, subscription_version, endpoint_id, provider_id,
        mode, price_minor, payout_minor, currency, attempts, due_at, awarded_at, hold_until, hour_at, day_at, week_at,
        month_at)
    values (a.id, a.lead_id, a.business_id, a.subscription_id, a.subscription_version, a.endpoint_id, a.provider_id,
        a.mode, a.price_minor, a.payout_minor, a.currency, 1, a.due_at, a.awarded_at, a.hold_until, a.hour_at,
        a.day_at, a.week_at, a.month_at);
    if live then
        insert into cap_usage (subscription_id, cap_window, starts_at, used_count, used_minor, limit_count, limit_minor)
        select a.subscription_id, w.cap_window, w.starts_at, 1, a.price_minor, w.most_count, w.most_minor
        from jsonb_to_recordset(a.windows)
            as w (cap_window text, starts_at timestamptz, most_count int, most_minor bigint)
        on conflict (subscription_id, cap_window, starts_at) do update
        set used_count = cap_usage.used_count + 1, used_minor = cap_usage.used_minor + excluded.used_minor,
            limit_count = excluded.limit_count, limit_minor = excluded.limit_minor;
        insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id, made_at)
        values (a.hold_id, 'hold', a.price_minor, a.currency, a.business_id, a.id, a.awarded_at);
        update wallet set available_minor = available_minor - a.price_minor, held_minor = held_minor + a.price_minor
        where business_id = a.business_id;
    end if;
    insert into decision (id, lead_id, made_at, outcome, vertical_version, catalog_version, strategy, verdict,
        candidates, left_out, subscription_id, assignment_id, credits, revision)
    values (a.decision_id, a.lead_id, a.awarded_at, 'held', a.vertical_version, a.catalog_version, a.strategy,
        a.verdict, a.candidates, a.left_out, a.subscription_id, a.id, a.credits, a.revision);
    if a.exposure is not null and opened_until is null and not is_withdrawn(a.lead_id) then
        now_exposed := clock_timestamp();
        update lead set state = 'exposed' where id = a.lead_id;
        insert into exposure (lead_id, assignment_id, business_id, channel, endpoint_id, url_sha256, address, tls_sha256,
            attempt_no, exposed_at)
        values (a.lead_id, a.id, a.business_id, 'push', a.endpoint_id, decode(a.exposure ->> 'url_sha256', 'base64'),
            a.exposure ->> 'address', decode(a.exposure ->> 'tls_sha256', 'base64'), 1, now_exposed);
        update assignment set state = 'exposed', exposed_at = now_exposed,
            evidence_until = (a.exposure ->> 'evidence_until')::timestamptz
        where id = a.id;
    end if;
    if a.credits is not null then
        insert into share_credit (vertical_id, mode, business_id, credit)
        select l.vertical_id, a.mode, change.key::uuid, change.value::bigint
        from lead l cross join lateral jsonb_each_text(a.credits) as change
        where l.id = a.lead_id
        order by change.key
        on conflict (vertical_id, mode, business_id) do update set credit = share_credit.credit + excluded.credit;
    end if;
    return 'won';
end $$;

-- As before, and besides the corrections of the contact, in their order, each sealed under a key of its own.
drop function read_contact(uuid, uuid);
create function read_contact(of_lead uuid, for_business uuid)
    returns table (sealed bytea, wrapped bytea, master_key_id text, corrections jsonb)
    language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    committed_by xid8;
begin
    select e.committed_by into committed_by from public.exposure e
    where e.lead_id = of_lead and e.business_id = for_business;
    if committed_by is null then
        raise exception 'no exposure of this lead to this business' using errcode = 'insufficient_privilege';
    end if;
    if committed_by = pg_current_xact_id_if_assigned() then
        raise exception 'the exposure is not committed yet' using errcode = 'object_not_in_prerequisite_state';
    end if;
    return query
        select c.sealed, k.wrapped, k.master_key_id, (
            select jsonb_agg(jsonb_build_object('master_key_id', r.master_key_id,
                'box', translate(encode(r.sealed, 'base64'), E'\n', ''),
                'wrapped', translate(encode(r.wrapped, 'base64'), E'\n', '')) order by r.revision)
            from public.correction r where r.lead_id = of_lead and r.sealed is not null)
        from public.contact c join public.data_key k on k.lead_id = c.lead_id
        where c.lead_id = of_lead;
end $$;
revoke all on function read_contact(uuid, uuid) from public;
grant execute on function read_contact(uuid, uuid) to marketplace_worker, marketplace_api;

revoke all on function retake_window, add_person, revise_lead from public;
grant execute on function revise_lead to marketplace_api;
grant select on touch, correction to marketplace_api, marketplace_worker, marketplace_reports;
grant update (detail) on touch to marketplace_eraser;
grant update (sealed, wrapped, master_key_id) on correction to marketplace_eraser;
