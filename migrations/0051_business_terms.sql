-- Weight and priority belong to the operator: one pair for a business in a vertical, however many subscriptions it has there. A
-- business without a row has the defaults of a definition, weight 1 and priority 100.
create table business_terms (
    vertical_id uuid not null references vertical (id),
    business_id uuid not null references business (id),
    weight int not null constraint business_terms_weight check (weight between 1 and 1000),
    priority int not null constraint business_terms_priority check (priority between 0 and 1000000),
    primary key (vertical_id, business_id)
);
grant select on business_terms to marketplace_api, marketplace_reports;
grant insert, update (weight, priority) on business_terms to marketplace_api;

-- What businesses had set until now goes on: of several subscriptions the largest weight and the first priority.
insert into business_terms (vertical_id, business_id, weight, priority)
select s.vertical_id, s.business_id, max(coalesce((d.definition ->> 'weight')::int, 1)),
       min(coalesce((d.definition ->> 'priority')::int, 100))
from subscription s
join subscription_version d on (d.subscription_id, d.version) = (s.id, s.version)
where s.state <> 'ended'
group by s.vertical_id, s.business_id
having max(coalesce((d.definition ->> 'weight')::int, 1)) <> 1
    or min(coalesce((d.definition ->> 'priority')::int, 100)) <> 100;
