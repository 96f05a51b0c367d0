-- name: read_clock
-- The clock that all processes use.
select clock_timestamp();
