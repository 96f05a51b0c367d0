-- name: insert_import
insert into file_import (id, business_id, subject, source, mode, state, actor, digest, mapping, rows, due_at, made_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12);

-- name: insert_done
-- A call whose rows were all imported in the same transaction.
insert into file_import (id, business_id, subject, source, mode, state, actor, digest, mapping, rows, position, taken, known,
    conflicts, made_at, ended_at)
values ($1, $2, $3, 'api', 'live', 'done', $4, $5, '{}', $6::int + $7::int + $8::int, $6 + $7 + $8, $6, $7, $8, $9, $9);

-- name: insert_file
insert into import_file (import_id, box, made_at) values ($1, $2, $3);

-- name: delete_files
-- The file of an import that has ended, and everybody's previewed files older than $2.
delete from import_file f using file_import i
where i.id = f.import_id and (i.id = $1 or f.made_at < $2 and i.state = 'previewed');

-- name: delete_previews
-- A business previews one file of a subject at a time: the next takes the place of the one before.
delete from import_file f using file_import i
where i.id = f.import_id and i.business_id = $1 and i.subject = $2 and i.state = 'previewed';

-- name: read_file
select f.box from import_file f join file_import i on i.id = f.import_id where f.import_id = $1;

-- name: find_running
-- The same file, sent again while it is imported.
select id from file_import
where business_id = $1 and subject = $2 and digest = $3 and state = 'running' and mode is not distinct from $4
order by id limit 1;

-- name: count_running
select count(*) from file_import where business_id = $1 and state in ('running', 'undoing');

-- name: find_import
-- $2 limits a business to its own.
select id, business_id, subject, source, mode, state, actor, digest, mapping, rows, position, taken, known, conflicts, refused,
       undone, tries, made_at, ended_at, undone_at
from file_import where id = $1 and ($2::uuid is null or business_id = $2);

-- name: list_imports
-- Newest first; previews are not listed.
select id, business_id, subject, source, mode, state, actor, digest, mapping, rows, position, taken, known, conflicts, refused,
       undone, tries, made_at, ended_at, undone_at
from file_import
where ($1::uuid is null or business_id = $1) and ($2::text is null or subject = $2) and ($3::uuid is null or id < $3)
    and state <> 'previewed' and coalesce(mode, 'live') = $5
order by id desc
limit $4;

-- name: claim_due
-- One import that is due. While a process works on it, its due time is in the future; after a crash, that time passes.
update file_import set due_at = $1, tries = tries + 1
where id = (select id from file_import where due_at <= $2 order by due_at for update skip locked limit 1)
returning id;

-- name: save_mapping
update file_import set mapping = $3 where id = $1 and business_id = $2 and state = 'previewed';

-- name: begin_import
-- After a preview, with the complete mapping.
update file_import set state = 'running', mapping = $3, due_at = $4, actor = $5
where id = $1 and business_id = $2 and state = 'previewed'
returning id;

-- name: advance
-- Only if the position is still the one that this process read from: otherwise another one has taken over.
update file_import set position = position + $3 + $4 + $5 + $6, taken = taken + $3, known = known + $4,
    conflicts = conflicts + $5, refused = refused + $6, due_at = $7, tries = 0
where id = $1 and position = $2 and state = 'running'
returning id;

-- name: insert_rows
insert into import_row (import_id, number, outcome, label, field, code, detail)
select $1, r.number, r.outcome, r.label, r.field, r.code, r.detail
from unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
    as r (number, outcome, label, field, code, detail);

-- name: end_import
update file_import set state = $2, due_at = null, ended_at = $3 where id = $1 and state = 'running' returning id;

-- name: give_up
-- What was taken back by an undoing that failed stays so; whoever asks again goes on from there.
update file_import set state = 'failed', undone_by = null, due_at = null, ended_at = coalesce(ended_at, $2)
where id = $1 and state in ('running', 'undoing');

-- name: begin_undo
-- Only an import that has ended can be undone, and only once.
update file_import set state = 'undoing', undone_by = $3, due_at = $4, tries = 0
where id = $1 and ($2::uuid is null or business_id = $2) and state in ('done', 'failed')
returning id;

-- name: advance_undo
update file_import set undone = undone + $2, due_at = $3, tries = 0 where id = $1 and state = 'undoing' returning id;

-- name: end_undo
update file_import set state = 'undone', undone_at = $2, due_at = null where id = $1 and state = 'undoing' returning id;

-- name: make_due
update file_import set due_at = $2 where id = $1 and due_at is not null;

-- name: list_rows
-- In the order of the file; an `outcome` of 'left' selects all rows that were not taken.
select number, outcome, label, field, code, detail from import_row
where import_id = $1 and number > $2
    and ($3::text is null or outcome = $3 or ($3 = 'left' and outcome <> 'taken'))
order by number
limit $4;
