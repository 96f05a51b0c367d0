-- For each fault of each field, the shape of the value that had it last, so that whoever sends it knows it again: letters are
-- x, digits 0 (marketplace/masking.py). A refused inquiry leaves nothing else but the counts.
create table refusal_example (
    provider_id uuid not null references provider (id),
    mode text not null constraint refusal_example_mode check (mode in ('live', 'test')),
    pointer text not null,
    code text not null,
    shape text not null constraint refusal_example_masked check (shape !~ '[1-9]' or shape ~ '^an? (object|list) of [0-9]+$'),
    seen_at timestamptz not null,
    primary key (provider_id, mode, pointer, code)
);
grant select, insert, update (shape, seen_at) on refusal_example to marketplace_api;
