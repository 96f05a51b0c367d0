-- Processes log in as somebody who owns nothing. A cluster that was upgraded from PostgreSQL 14 may still let everybody
-- make tables and functions here, which a statement of the owner might then meet.
revoke create on schema public from public;
