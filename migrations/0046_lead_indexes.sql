-- Indexes of lead and assignment: fewer, and none that a usual move must write to again.
--
-- An update that changes a column of any index writes a new entry into every index of the table. The exposure of a lead did
-- that to all ten of its assignment, because two indexes named the state and the time of the exposure.
--
-- The columns of a unique constraint have no order of their own: a foreign key takes them in any. Three are put into the
-- order by which rows are looked up, so that the index of that order alone is not needed beside them. What they guarantee,
-- and the foreign keys that lean on them, is as before.

-- By provider and id: lead_by_provider.
alter table assignment drop constraint assignment_lead;
alter table lead drop constraint lead_whose;
drop index lead_by_provider;
alter table lead add constraint lead_whose unique (provider_id, id, mode);
alter table assignment add constraint assignment_lead
    foreign key (lead_id, provider_id, mode) references lead (id, provider_id, mode);

-- By lead: assignment_by_lead.
alter table exposure drop constraint exposure_assignment;
alter table disposition drop constraint disposition_assignment;
alter table return_request drop constraint return_request_assignment;
alter table assignment drop constraint assignment_live;
drop index assignment_by_lead;
alter table assignment add constraint assignment_live unique (lead_id, id, business_id, live);
alter table exposure add constraint exposure_assignment
    foreign key (assignment_id, lead_id, business_id, live) references assignment (id, lead_id, business_id, live);
alter table disposition add constraint disposition_assignment
    foreign key (assignment_id, lead_id, business_id, live) references assignment (id, lead_id, business_id, live);
alter table return_request add constraint return_request_assignment
    foreign key (assignment_id, lead_id, business_id, live) references assignment (id, lead_id, business_id, live);

-- By business and id: assignment_by_business. Ids are in the order of time, so that what a business was shown lately is a
-- range of them, and assignment_by_shown is not needed either.
alter table transfer drop constraint transfer_at_quoted_price;
alter table assignment drop constraint assignment_charged;
drop index assignment_by_business, assignment_by_shown;
alter table assignment add constraint assignment_charged unique (business_id, id, currency, chargeable_minor);
alter table transfer add constraint transfer_at_quoted_price
    foreign key (assignment_id, business_id, currency, price_minor)
    references assignment (id, business_id, currency, chargeable_minor);

-- Leads that are not paid for, of which a quota counts those that were shown. Without evidence, by assignment_evidenced, is
-- every state but delivered and returned. The evidence changes with the last move alone, the state with each.
drop index assignment_unpaid;
create index assignment_unpaid on assignment (subscription_id, awarded_at) where mode = 'live' and evidence is null;
