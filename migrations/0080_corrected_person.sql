-- A corrected phone number or e-mail address may be another person's as well, where the setting of the vertical says so.

-- The form of 0060_journey.sql, except that each of `window_keys` has a `key` and says whether it is `shared`: then it has the
-- scope of the lead, as in 0073_same_person.sql.
create or replace function add_person(of_lead uuid, window_keys jsonb, person_keys jsonb) returns void
language plpgsql as $$
declare
    asked int;
    claimed int;
begin
    select count(*) into asked
    from jsonb_to_recordset(window_keys) as added (key text, shared boolean)
    where not exists (select from person_window w where w.lead_id = of_lead and w.key = decode(added.key, 'base64'));
    insert into person_window (lead_id, key, vertical_id, during, scope)
    select of_lead, decode(added.key, 'base64'), own.vertical_id, own.during,
           case when added.shared then shared_scope(of_lead) else '(,)' end
    from jsonb_to_recordset(window_keys) as added (key text, shared boolean)
    cross join lateral (select vertical_id, during from person_window where lead_id = of_lead limit 1) own
    where not exists (select from person_window w where w.lead_id = of_lead and w.key = decode(added.key, 'base64'))
    order by decode(added.key, 'base64')
    on conflict on constraint person_window_once do nothing;
    get diagnostics claimed = row_count;
    if claimed < asked and exists (select from person_window where lead_id = of_lead) then
        raise unique_violation using constraint = 'person_window_once', message = 'another lead has this person';
    end if;
    insert into person_key (lead_id, key)
    select of_lead, decode(added.key, 'base64') from jsonb_array_elements_text(person_keys) as added (key)
    on conflict do nothing;
end $$;
