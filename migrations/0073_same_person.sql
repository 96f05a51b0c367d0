-- What makes two inquiries one person's is a setting of the vertical. Every lead still has a row for each mark of its
-- person. A row whose scope has no end is taken by no second lead. A shared one, such as the telephone of a family where
-- phone number and e-mail address together make the person, has a point of its lead's own as scope: it meets no other
-- shared row, and every row without an end. So a window holds against leads of every setting, before and after a change.
-- The index is built anew, and inquiries wait for it.
alter table person_window
    add column scope int8range not null default '(,)',
    add constraint person_window_scope check (not isempty(scope)),
    drop constraint person_window_once;
alter table person_window
    add constraint person_window_once exclude using gist (key with =, vertical_id with =, during with &&, scope with &&);

-- Scope of the shared marks of a lead.
create function shared_scope(of_lead uuid) returns int8range language sql immutable strict as $$
    select int8range(hashtextextended(of_lead::text, 0) / 2, hashtextextended(of_lead::text, 0) / 2, '[]')
$$;

-- The form of 0018_intake.sql, except for `shared_keys`.
drop function take_inquiry(uuid, uuid, uuid, text, text, text, bytea, jsonb, bytea, timestamptz, timestamptz, timestamptz,
    text[], timestamptz, bytea, bytea, text, bytea[], bytea[], timestamptz);
create function take_inquiry(
    new_id uuid, of_provider uuid, in_vertical uuid, in_mode text, reference text, key text, request bytea,
    new_facts jsonb, consent bytea, consent_at timestamptz, submitted timestamptz, received timestamptz,
    given_fields text[], due timestamptz, box bytea, wrapped_key bytea, master_key text, window_keys bytea[],
    shared_keys bytea[], person_keys bytea[], protected_until timestamptz
) returns text language plpgsql as $$
declare
    claimed int;
begin
    if exists (select from suppression s where s.key = any(person_keys)) then
        return 'suppressed';
    end if;
    -- In the order of the keys, so that two inquiries of one person wait for each other instead of blocking each other. A
    -- window that is taken, or that a fence keeps, is left out, and fewer than asked means: seen before.
    insert into person_window (lead_id, key, vertical_id, during, scope)
    select new_id, asked.key, in_vertical, tstzrange(received, protected_until),
           case when asked.key = any(shared_keys) then shared_scope(new_id) else '(,)' end
    from unnest(window_keys || shared_keys) as asked (key) order by asked.key
    on conflict on constraint person_window_once do nothing;
    get diagnostics claimed = row_count;
    if claimed < cardinality(window_keys || shared_keys) then
        raise unique_violation using constraint = 'person_window_once', message = 'this person was here before';
    end if;
    insert into inquiry (id, provider_id, vertical_id, mode, provider_reference, idempotency_key, request_sha256,
        received_as, facts, consent_sha256, consent_given_at, submitted_at, received_at, contact_fields)
    values (new_id, of_provider, in_vertical, in_mode, reference, key, request, 'received', new_facts, consent,
        consent_at, submitted, received, given_fields);
    insert into lead (id, provider_id, vertical_id, mode, state, due_at, received_at)
    values (new_id, of_provider, in_vertical, in_mode, 'received', due, received);
    insert into contact (lead_id, sealed) values (new_id, box);
    insert into data_key (lead_id, wrapped, master_key_id) values (new_id, wrapped_key, master_key);
    insert into person_key (lead_id, key) select new_id, asked.key from unnest(person_keys) as asked (key);
    return 'received';
end $$;
revoke all on function take_inquiry from public;
grant execute on function take_inquiry to marketplace_api;
revoke all on function shared_scope from public;
grant execute on function shared_scope to marketplace_api;

-- The form of 0060_journey.sql, except that each row keeps its scope.
create or replace function retake_window(of_lead uuid, since timestamptz, until timestamptz) returns void language plpgsql as $$
declare
    own record;
    claimed int;
begin
    select array_agg(key order by key) as keys, array_agg(scope order by key) as scopes,
           min(vertical_id::text)::uuid as vertical_id into own
    from person_window where lead_id = of_lead;
    delete from person_window where lead_id = of_lead;
    insert into person_window (lead_id, key, vertical_id, during, scope)
    select of_lead, mine.key, own.vertical_id, tstzrange(since, until), mine.scope
    from unnest(own.keys, own.scopes) as mine (key, scope) order by mine.key
    on conflict on constraint person_window_once do nothing;
    get diagnostics claimed = row_count;
    if claimed = 0 or claimed < cardinality(own.keys) then
        raise unique_violation using constraint = 'person_window_once', message = 'this person was here since';
    end if;
end $$;
