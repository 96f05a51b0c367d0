-- Certificates of consent: claimed before a lead is exposed, and kept as evidence without contact data.

create table certificate (
    lead_id uuid not null references lead (id),
    kind text not null constraint certificate_kind check (kind in ('trustedform', 'jornaya')),
    token_sha256 bytea not null constraint certificate_token check (octet_length(token_sha256) = 32),
    state text not null default 'pending' constraint certificate_state
        check (state in ('pending', 'verified', 'mismatched', 'refused', 'unanswered')),
    -- The token with what it is compared to, under the data key of the lead: an erasure makes it unreadable.
    box bytea,
    made_at timestamptz not null,
    attempts int not null default 0,
    first_tried_at timestamptz,
    settled_at timestamptz,
    reason text,
    response_sha256 bytea,
    expires_at timestamptz,
    phone_matches boolean,
    email_matches boolean,
    page_matches boolean,
    constraint certificate_pkey primary key (lead_id, kind),
    constraint certificate_boxed check ((box is not null) = (state = 'pending')),
    constraint certificate_settled check ((settled_at is not null) = (state <> 'pending'))
) with (fillfactor = 80);
create index certificate_by_state on certificate (state, lead_id);
create trigger certificate_is_kept before delete on certificate for each row execute function refuse_change();
create trigger certificate_is_final before update on certificate for each row
    when (old.state <> 'pending') execute function refuse_change();

grant insert (lead_id, kind, token_sha256, box, made_at) on certificate to marketplace_api;
grant select (lead_id, kind, token_sha256, state, made_at, attempts, first_tried_at, settled_at, reason, response_sha256,
    expires_at, phone_matches, email_matches, page_matches) on certificate
    to marketplace_api, marketplace_worker, marketplace_reports;
grant update (state, box, attempts, first_tried_at, settled_at, reason, response_sha256, expires_at, phone_matches,
    email_matches, page_matches) on certificate to marketplace_worker;

-- The standing of all certificates of a lead, null without one. A lead is not awarded while one is pending: a CHECK of the row
-- that an award and an exposure update anyway, so that a lead without certificates costs nothing.
alter table lead add column certificates text
    constraint lead_certificates check (certificates in ('pending', 'verified', 'failed'));
alter table lead add constraint lead_certificates_claimed check (certificates is distinct from 'pending'
    or state in ('received', 'rejected', 'nurturing', 'expired', 'prospect', 'unsold'));

create function mark_certificates() returns trigger language plpgsql security definer
    set search_path = pg_catalog, public as $$
begin
    update public.lead set certificates = (
        select case when bool_or(state = 'pending') then 'pending'
                    when bool_and(state = 'verified') then 'verified' else 'failed' end
        from public.certificate where lead_id = new.lead_id)
    where id = new.lead_id;
    return null;
end $$;
create trigger certificate_counts after insert or update of state on certificate
    for each row execute function mark_certificates();

-- An erasure ends the claims of its lead, whose key is gone: nothing can be compared any more.
create function end_certificates() returns trigger language plpgsql security definer
    set search_path = pg_catalog, public as $$
begin
    update public.certificate set state = 'unanswered', box = null, settled_at = new.requested_at, reason = 'erased'
    where lead_id = new.lead_id and state = 'pending';
    return null;
end $$;
create trigger erasure_ends_certificates after insert on erasure for each row execute function end_certificates();

-- What a claim sends, for the worker, while the certificate is pending and nobody was shown the lead.
create function read_certificates(of_lead uuid) returns table (kind text, attempts int, first_tried_at timestamptz,
    box bytea, wrapped bytea, master_key_id text) language sql stable security definer
    set search_path = pg_catalog, public as $$
    select c.kind, c.attempts, c.first_tried_at, c.box, k.wrapped, k.master_key_id
    from public.certificate c
    join public.lead l on l.id = c.lead_id and l.state in ('received', 'nurturing', 'prospect')
    join public.data_key k on k.lead_id = c.lead_id
    where c.lead_id = of_lead and c.state = 'pending'
$$;
revoke all on function read_certificates(uuid) from public;
grant execute on function read_certificates(uuid) to marketplace_worker;
