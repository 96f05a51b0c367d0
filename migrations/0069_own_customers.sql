-- The customers that a business has already: no lead of theirs is sold to it.

-- Whether the lead's person is on a list of this business's own customers.
create function is_own_customer(of_lead uuid, of_business uuid) returns boolean language sql stable as $$
    select exists (
        select from person_key k
        join list_member m on m.key = substring(k.key for 16) and m.until is null
        join contact_list l on l.number = m.list and l.business_id = of_business and l.removed_at is null
        where k.lead_id = of_lead)
$$;

-- Replaces a part of a function, and fails where it has no such part. A function of a hundred lines is changed in one place.
create function pg_temp.change_function(changed regprocedure, old_part text, new_part text) returns void
    language plpgsql as $$
declare
    before constant text := pg_get_functiondef(changed);
    after constant text := replace(before, old_part, new_part);
begin
    if after = before then
        raise exception '% has no such part: %', changed, old_part;
    end if;
    execute after;
end $$;

-- The award asks under the locks of lead and subscription: a list that was published before this moment is found, and one
-- that is published later changes nothing for a lead that is sold. It answers 'own_customer' with nothing written.
select pg_temp.change_function('award_lead(jsonb)', $part$        return 'withdrawn';
    end if;$part$, $part$        return 'withdrawn';
    end if;
    if is_own_customer(a.lead_id, a.business_id) then
        return 'own_customer';
    end if;$part$);

-- The assignment has the number of the lists by which its lead was decided about.
select pg_temp.change_function('award_lead(jsonb)', $part$week_at,
        month_at)
    values (a.id,$part$, $part$week_at,
        month_at, lists_serial)
    values (a.id,$part$);
select pg_temp.change_function('award_lead(jsonb)', $part$a.week_at, a.month_at);$part$,
    $part$a.week_at, a.month_at, (award ->> 'lists_serial')::bigint);$part$);

-- No report counts a lead as missed because its person is a customer: a business would learn who asked.
select pg_temp.change_function('candidate_columns(text, timestamptz, timestamptz)',
    $part$not in ('outranked', 'cap_race', 'unreachable')$part$,
    $part$not in ('outranked', 'cap_race', 'unreachable', 'own_customer')$part$);

-- Leads that a business would have been offered, were their person not on its list of own customers. The business sees
-- their number of whole days alone.
create table kept_away (
    business_id uuid not null references business (id),
    lead_id uuid not null references lead (id),
    kept_at timestamptz not null,
    primary key (business_id, lead_id)
);
create index kept_away_newest on kept_away (business_id, kept_at);
grant insert, select on kept_away to marketplace_worker;
grant select on kept_away to marketplace_api;
