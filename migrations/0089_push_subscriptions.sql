-- Browsers and phones on which a member is notified of new leads while no page is open.

-- `url` is at the push service of the browser's vendor and belongs to one browser; whoever signs in there last has it. `keys` is
-- sealed: the browser's public key and its secret, by which messages are encrypted for it alone.
create table push_subscription (
    id uuid primary key,
    member_id uuid not null references member (id),
    url text not null constraint push_subscription_url check (length(url) <= 2000),
    url_sha256 bytea not null constraint push_subscription_once unique,
    keys bytea not null,
    device text not null,
    made_at timestamptz not null
);
create index push_subscription_of_member on push_subscription (member_id, made_at);

grant select, insert, delete on push_subscription to marketplace_api;
grant select, delete on push_subscription to marketplace_worker;
grant select (id, kind, owner_id, role, state) on member to marketplace_worker;
