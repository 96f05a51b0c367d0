-- name: insert_audit
-- Append only; in the transaction of the change that it tells of.
insert into audit (id, at, actor, action, object, detail) values ($1, $2, $3, $4, $5, $6);
