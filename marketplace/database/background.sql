-- name: take_pass
-- Take the pass with a lease of $2 seconds and return its failures in a row. No row while it runs elsewhere or pauses.
update background_pass set rest_until = clock_timestamp() + make_interval(secs => $2)
where name = $1 and rest_until <= clock_timestamp()
returning failures;

-- name: end_pass
-- Pause for $2 seconds. $4 is the name of the error; null resets the count of failures.
update background_pass
set rest_until = clock_timestamp() + make_interval(secs => $2), seconds = $3,
    ended_at = case when $4::text is null then clock_timestamp() else ended_at end,
    failures = case when $4::text is null then 0 else failures + 1 end,
    failing_since = case when $4::text is not null then coalesce(failing_since, clock_timestamp()) end,
    failure = $4
where name = $1;
