-- A repeated inquiry of a person may join the earlier lead: it is stored as a duplicate all the same, and its answers are a
-- touch of that lead. The foreign key holds both together, and one touch stands for one inquiry.
alter table inquiry
    add column joined_lead_id uuid,
    add column joined_touch bytea,
    add constraint inquiry_joined check (
        (joined_lead_id is null) = (joined_touch is null) and (joined_lead_id is null or received_as = 'duplicate')),
    add constraint inquiry_joined_touch foreign key (joined_lead_id, joined_touch) references touch (lead_id, fingerprint);
create unique index inquiry_joined_once on inquiry (joined_lead_id, joined_touch) where joined_lead_id is not null;
