-- What a business has chosen so far on its way to its first lead, kept until its order is made: nobody has to finish in
-- one sitting, or on one device.

create table onboarding (
    business_id uuid primary key references business (id),
    chosen jsonb not null,
    changed_at timestamptz not null
);
grant select, insert on onboarding to marketplace_api;
grant update (chosen, changed_at) on onboarding to marketplace_api;
grant select on onboarding to marketplace_reports;

-- What a business was shown lately, without a look at all that it ever was shown.
create index assignment_by_shown on assignment (business_id, exposed_at) where exposed_at is not null;
