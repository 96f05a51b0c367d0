-- Taking an inquiry in: who was here before, then the inquiry, its lead, its sealed contact and what finds the person again,
-- there together or not at all, in one call. Called by the api alone, with the api's own rights.
--
-- Answers 'received' or, with nothing written, 'suppressed'. Raises unique_violation: person_window_once when the person is
-- taken, inquiry_idempotency_key or inquiry_provider_reference when the submission was here before.
create function take_inquiry(
    new_id uuid, of_provider uuid, in_vertical uuid, in_mode text, reference text, key text, request bytea,
    new_facts jsonb, consent bytea, consent_at timestamptz, submitted timestamptz, received timestamptz,
    given_fields text[], due timestamptz, box bytea, wrapped_key bytea, master_key text, window_keys bytea[],
    person_keys bytea[], protected_until timestamptz
) returns text language plpgsql as $$
declare
    claimed int;
begin
    if exists (select from suppression s where s.key = any(person_keys)) then
        return 'suppressed';
    end if;
    -- In the order of the keys, so that two inquiries of one person wait for each other instead of blocking each other. A
    -- window that is taken, or that a fence keeps, is left out, and fewer than asked means: seen before.
    insert into person_window (lead_id, key, vertical_id, during)
    select new_id, asked.key, in_vertical, tstzrange(received, protected_until)
    from unnest(window_keys) as asked (key) order by asked.key
    on conflict on constraint person_window_once do nothing;
    get diagnostics claimed = row_count;
    if claimed < cardinality(window_keys) then
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
