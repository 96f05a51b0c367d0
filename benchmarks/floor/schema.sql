-- Tables of the bare pipeline: a business with its wallet and its endpoint, and a lead.
create table business (
    number int primary key,
    url text not null,
    secret text not null,
    available_minor bigint not null check (available_minor >= 0)
) with (fillfactor = 50);

create table lead (
    id uuid primary key,
    state text not null default 'received',
    submitted_at timestamptz not null,
    received_at timestamptz not null,
    contact jsonb not null,
    facts jsonb not null,
    business_number int references business,
    queue_ms float8,
    receiver_ms float8,
    delivered_at timestamptz
) with (fillfactor = 70);

-- Sells a lead once, to the business with this number, and returns what its delivery needs. No row: it is sold already.
create function award(of_lead uuid, to_business int, price_minor bigint)
    returns table (url text, secret text, contact jsonb, facts jsonb) language plpgsql as $$
begin
    update lead l set state = 'held', business_number = to_business
    where l.id = of_lead and l.state = 'received'
    returning l.contact, l.facts into contact, facts;
    if found then
        update business b set available_minor = b.available_minor - price_minor
        where b.number = to_business
        returning b.url, b.secret into url, secret;
        return next;
    end if;
end $$;
