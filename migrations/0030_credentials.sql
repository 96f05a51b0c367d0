-- Old credentials stay until the new ones are proven. A second factor that waits for its first code belongs to the session
-- that began it, and replaces the member's own in the transaction that accepts that code. It ends with its session, and no
-- other session of the member sees its secret.

alter table portal_session add column factor bytea;

-- Set-ups under way begin again at the next sign-in: their secrets were kept in the member's row.
delete from portal_session where state = 'factor_due';
update member set totp = null, totp_step = null where totp is not null and totp_confirmed_at is null;

-- A link by which a member who lost the phone sets up another factor, besides the password.
alter table one_time_link drop constraint one_time_link_purpose;
alter table one_time_link add constraint one_time_link_purpose
    check (purpose in ('invite', 'reset', 'enter', 'set_up', 'factor'));
