-- A provider gives a waiting lead back before its time: the lead expires and its person may ask again. The keys of the
-- window stay with an empty range, as for every lead that ends without an exposure. Returns the state that the lead has
-- then, or null for a lead that is not the provider's.
create function give_back(of_lead uuid, for_provider uuid, in_mode text, given_at timestamptz) returns text
    language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    before text;
begin
    select state into before from public.lead
    where id = of_lead and provider_id = for_provider and mode = in_mode for no key update;
    if before is distinct from 'nurturing' then
        return before;
    end if;
    update public.lead set state = 'expired', due_at = null, reason = 'given_back', settled_at = given_at
    where id = of_lead;
    update public.person_window set during = 'empty' where lead_id = of_lead;
    return 'given_back';
end $$;
revoke all on function give_back from public;
grant execute on function give_back to marketplace_api;
