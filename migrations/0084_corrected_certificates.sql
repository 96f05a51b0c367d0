-- A certificate speaks of the contact that it was compared with: a phone number or an address that is corrected before the
-- claim is what the claim compares, and one that is corrected afterwards takes the certificate's verification away.

-- The revision of the lead whose contact was compared; null where a claim was settled before this migration, by the contact
-- of the inquiry.
alter table certificate add column compared_revision int
    constraint certificate_compared check (compared_revision is null or state <> 'pending');
grant select (compared_revision) on certificate to marketplace_api, marketplace_worker, marketplace_reports;
grant update (compared_revision) on certificate to marketplace_worker;

-- Whether the contact was corrected after a revision, in the field that a certificate compares: the phone number, or where
-- its service said nothing about one, the address too.
create function contact_corrected(of_lead uuid, after_revision int, compares_phone boolean) returns boolean
    language sql stable set search_path = pg_catalog, public as $$
    select exists (
        select from public.correction
        where lead_id = of_lead and revision > coalesce(after_revision, 0)
          and contact && case when compares_phone then array['phone'] else array['phone', 'email'] end)
$$;

-- As before, and verified only while the contact is the one that was compared.
create function standing_of_certificates(of_lead uuid) returns text language sql stable
    set search_path = pg_catalog, public as $$
    select case when bool_or(state = 'pending') then 'pending'
                when bool_and(state = 'verified'
                    and not contact_corrected(lead_id, compared_revision, phone_matches is not null)) then 'verified'
                else 'failed' end
    from public.certificate where lead_id = of_lead
    having count(*) > 0
$$;
create or replace function mark_certificates() returns trigger language plpgsql security definer
    set search_path = pg_catalog, public as $$
begin
    update public.lead set certificates = standing_of_certificates(new.lead_id) where id = new.lead_id;
    return null;
end $$;
create trigger correction_counts after insert on correction for each row
    when (new.contact && array['phone', 'email']) execute function mark_certificates();

-- As before, with the corrections so far, each sealed under a key of its own, and the revision that they make.
drop function read_certificates(uuid);
create function read_certificates(of_lead uuid) returns table (kind text, attempts int, first_tried_at timestamptz,
    box bytea, wrapped bytea, master_key_id text, revision int, corrections jsonb) language sql stable security definer
    set search_path = pg_catalog, public as $$
    select c.kind, c.attempts, c.first_tried_at, c.box, k.wrapped, k.master_key_id, l.revision, (
        select jsonb_agg(jsonb_build_object('master_key_id', r.master_key_id,
            'box', translate(encode(r.sealed, 'base64'), E'\n', ''),
            'wrapped', translate(encode(r.wrapped, 'base64'), E'\n', '')) order by r.revision)
        from public.correction r where r.lead_id = of_lead and r.sealed is not null)
    from public.certificate c
    join public.lead l on l.id = c.lead_id and l.state in ('received', 'nurturing', 'prospect')
    join public.data_key k on k.lead_id = c.lead_id
    where c.lead_id = of_lead and c.state = 'pending'
$$;
revoke all on function read_certificates(uuid) from public;
grant execute on function read_certificates(uuid) to marketplace_worker;
