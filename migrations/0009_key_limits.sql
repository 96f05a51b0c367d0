-- A key may have a rate of its own, in requests a minute; without one it has the installation's.
-- The bound is what the limiter is made for: it remembers each request of the last minute, twenty bytes or so apiece.

alter table api_key add column rate_per_minute int
    constraint api_key_rate check (rate_per_minute between 1 and 60000);
