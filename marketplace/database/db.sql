-- name: read_clock
-- The one clock that all processes go by.
select clock_timestamp();
