-- Shares of a payout. Where several providers sent the same person, the payout of the lead goes to the first or the last of
-- them, or is divided, as the vertical says.

-- An inquiry that joined a lead before the lead was exposed: its provider takes part in the payout. `revision` is that of
-- the lead with the inquiry's answers, and so gives the order of the claims.
create table payout_claim (
    inquiry_id uuid primary key,
    lead_id uuid not null references lead (id),
    provider_id uuid not null,
    vertical_id uuid not null,
    mode text not null,
    revision int not null constraint payout_claim_revision check (revision > 0),
    constraint payout_claim_inquiry foreign key (inquiry_id, provider_id, vertical_id, mode)
        references inquiry (id, provider_id, vertical_id, mode),
    constraint payout_claim_of_lead unique (lead_id, provider_id, inquiry_id)
);
create trigger payout_claim_is_final before update or delete on payout_claim
    for each row execute function refuse_change();
create trigger payout_claim_is_kept before truncate on payout_claim for each statement execute function refuse_change();

-- The writer of a claim holds the lock of the lead, which an exposure takes as well: so the check is exact.
create function assert_claim() returns trigger language plpgsql as $$
begin
    if not exists (select from inquiry where id = new.inquiry_id and joined_lead_id = new.lead_id) then
        raise exception 'only an inquiry that joined a lead gives a claim to its payout'
            using errcode = 'check_violation', constraint = 'payout_claim_joined';
    end if;
    if exists (select from exposure where lead_id = new.lead_id) then
        raise exception 'an inquiry that joins a lead after its exposure gives no claim to its payout'
            using errcode = 'check_violation', constraint = 'payout_claim_in_time';
    end if;
    return new;
end $$;
create trigger payout_claim_in_time before insert on payout_claim for each row execute function assert_claim();

-- A part of an agreed payout, for one provider. Rows exist only where the payout is not paid as a whole to the provider of
-- the lead. `span` are the minor units of the payout that the share consists of: spans lie within the payout and do not
-- overlap, so that the shares never exceed it, and at the commit they fill it. The provider of the lead needs no claim.
create table payout_share (
    assignment_id uuid not null,
    share smallint not null constraint payout_share_number check (share >= 0),
    provider_id uuid not null,
    lead_id uuid not null,
    lead_provider_id uuid not null,
    inquiry_id uuid,
    currency char(3) not null,
    payout_minor bigint not null,
    span int8range not null,
    amount_minor bigint generated always as (upper(span) - lower(span)) stored,
    primary key (assignment_id, share),
    constraint payout_share_once unique (assignment_id, provider_id),
    constraint payout_share_paid_out unique (assignment_id, share, provider_id, currency, amount_minor),
    constraint payout_share_exposed foreign key (lead_id, assignment_id) references exposure (lead_id, assignment_id),
    constraint payout_share_agreed foreign key (assignment_id, lead_provider_id, currency, payout_minor)
        references assignment (id, provider_id, currency, payable_minor),
    constraint payout_share_claim foreign key (lead_id, provider_id, inquiry_id)
        references payout_claim (lead_id, provider_id, inquiry_id),
    constraint payout_share_claimed check ((inquiry_id is null) = (provider_id = lead_provider_id)),
    constraint payout_share_within check (not isempty(span) and span <@ int8range(0, payout_minor)),
    constraint payout_share_first check ((share = 0) = (lower(span) = 0)),
    constraint payout_share_apart exclude using gist (assignment_id with =, span with &&)
);
create unique index payout_share_of_inquiry on payout_share (inquiry_id) where inquiry_id is not null;
create trigger payout_share_is_final before update or delete on payout_share
    for each row execute function refuse_change();
create trigger payout_share_is_kept before truncate on payout_share for each statement execute function refuse_change();

create function assert_shares_fill() returns trigger language plpgsql security definer
set search_path = pg_catalog, public as $$
begin
    if new.payout_minor <> (
        select sum(amount_minor) from public.payout_share where assignment_id = new.assignment_id
    ) then
        raise exception 'the shares of a payout add up to the payout'
            using errcode = 'check_violation', constraint = 'payout_share_fills';
    end if;
    return null;
end $$;
revoke all on function assert_shares_fill from public;
create constraint trigger payout_share_fills after insert on payout_share deferrable initially deferred
    for each row execute function assert_shares_fill();

-- A payout or claw-back of a share has the share's number; one of a whole payout has none, and meets the constraint
-- transfer_at_agreed_payout as before. The table is written anew, and leads wait for it. The audit chain reads
-- payout_minor, which stays as it is.
alter table transfer
    drop constraint transfer_at_agreed_payout,
    add column share smallint,
    add column whole_payout_minor bigint generated always as (
        case when kind in ('payout', 'claw_back') and share is null then amount_minor end) stored,
    add constraint transfer_share check (share is null or kind in ('payout', 'claw_back')),
    add constraint transfer_at_agreed_payout foreign key (assignment_id, provider_id, currency, whole_payout_minor)
        references assignment (id, provider_id, currency, payable_minor),
    add constraint transfer_at_agreed_share foreign key (assignment_id, share, provider_id, currency, amount_minor)
        references payout_share (assignment_id, share, provider_id, currency, amount_minor);

-- A whole payout takes the place of share 0, so that an assignment has either: the shares are paid together or not at all.
drop index transfer_one_payout;
drop index transfer_one_claw_back;
create unique index transfer_one_payout on transfer (assignment_id, coalesce(share, 0)) where kind = 'payout';
create unique index transfer_one_claw_back on transfer (assignment_id, coalesce(share, 0)) where kind = 'claw_back';

create function assert_shares_move() returns trigger language plpgsql security definer
set search_path = pg_catalog, public as $$
declare
    moved bigint;
begin
    if new.kind = 'payout' then
        select count(share) into moved from public.transfer
        where assignment_id = new.assignment_id and kind = 'payout';
    else
        select count(share) into moved from public.transfer
        where assignment_id = new.assignment_id and kind = 'claw_back';
    end if;
    if moved <> (select count(*) from public.payout_share where assignment_id = new.assignment_id) then
        raise exception 'the shares of a payout are paid and clawed back together'
            using errcode = 'check_violation', constraint = 'transfer_every_share';
    end if;
    return null;
end $$;
revoke all on function assert_shares_move from public;
create constraint trigger transfer_every_share after insert on transfer deferrable initially deferred
    for each row when (new.share is not null) execute function assert_shares_move();

grant select on payout_claim, payout_share to marketplace_api, marketplace_worker, marketplace_reports;
grant insert (inquiry_id, lead_id, provider_id, vertical_id, mode, revision) on payout_claim to marketplace_api;
grant insert (assignment_id, share, provider_id, lead_id, lead_provider_id, inquiry_id, currency, payout_minor, span)
    on payout_share to marketplace_worker, marketplace_feeder;
grant insert (share) on transfer to marketplace_worker, marketplace_feeder, marketplace_api;
