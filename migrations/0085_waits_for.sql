-- What a nurtured lead waits for, by the decision that nurtured it: members of WaitsFor in routing/qualification.py. A lead
-- that has left the lane keeps what it waited for last; null for a lead that was never nurtured.
alter table lead
    add column waits_for text[],
    add constraint lead_waits_for check (cardinality(waits_for) > 0
        and waits_for <@ array['date', 'budget', 'authority', 'need', 'timing', 'points', 'interest']);
grant update (waits_for) on lead to marketplace_worker;

-- Leads that wait already, from the words of their reason, which the same code wrote: "not before 2027-03-01: within 60 days
-- from 2026-12-31 00:00 UTC; a better answer about the budget and the need; 5 points more".
update lead l set waits_for = w.waits_for
from lead n
cross join lateral (
    select array_agg(m.word order by m.place) as waits_for
    from (values
        (1, 'date', n.reason ~ ' from \d{4}-\d\d-\d\d \d\d:\d\d UTC'),
        (2, 'budget', n.reason ~ 'a better answer about [^;]*the budget'),
        (3, 'authority', n.reason ~ 'a better answer about [^;]*the authority'),
        (4, 'need', n.reason ~ 'a better answer about [^;]*the need'),
        (5, 'timing', n.reason ~ 'a better answer about [^;]*the timing'),
        (6, 'points', n.reason ~ '\d+ points? more'),
        (7, 'interest', n.reason ~ '\d+ points? more' and exists (
            select from (
                select d.verdict from decision d where d.lead_id = n.id and d.outcome = 'nurturing'
                order by d.made_at desc limit 1
            ) last
            where jsonb_path_exists(last.verdict, '$.interest[*] ? (@.result != "meets")')))
    ) as m (place, word, holds)
    where m.holds
) w
where n.due_at is not null and n.state = 'nurturing' and l.id = n.id and w.waits_for is not null;
