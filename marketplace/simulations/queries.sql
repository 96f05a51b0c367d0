-- name: insert_simulation
-- It is due at once.
insert into simulation (id, vertical_id, state, actor, request, since, until, due_at, made_at)
values ($1, $2, 'waiting', $3, $4, $5, $6, $7, $7);

-- name: count_open
select count(*) from simulation where due_at is not null;

-- name: find_simulation
select s.id, v.slug as vertical, d.definition ->> 'currency' as currency, s.state, s.actor, s.request,
       s.since, s.until, s.leads, s.leads_done, s.result, s.failure, s.tries, s.made_at, s.ended_at
from simulation s
join vertical v on v.id = s.vertical_id
join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
where s.id = $1;

-- name: list_simulations
-- Newest first, of one vertical if $1 is given, after the simulation $2. Without the businesses of each result, which may be
-- thousands.
select s.id, v.slug as vertical, d.definition ->> 'currency' as currency, s.state, s.actor, s.request,
       s.since, s.until, s.leads, s.leads_done,
       jsonb_set(s.result, '{comparison,businesses}', '[]', false) as result, s.failure, s.tries, s.made_at, s.ended_at
from simulation s
join vertical v on v.id = s.vertical_id
join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version)
where ($1::text is null or v.slug = $1) and ($2::uuid is null or s.id < $2)
order by s.id desc
limit $3;

-- name: claim_due
-- One that is due, if no other is being computed: a simulation takes a whole processor. $1 is when it is due again if nobody
-- reports, $2 is the present time.
update simulation set state = 'running', due_at = $1, tries = tries + 1
where id = (
    select id from simulation
    where due_at <= $2 and not exists (select from simulation r where r.state = 'running' and r.due_at > $2)
    order by due_at
    for update skip locked
    limit 1
)
returning id, tries;

-- name: begin
update simulation set leads = $2, leads_done = 0, due_at = $3 where id = $1 and state = 'running' returning id;

-- name: advance
-- Only while nobody has cancelled it. Leads that came in at the end of the time may be more than were counted.
update simulation set leads = greatest(leads, $2), leads_done = $2, due_at = $3 where id = $1 and state = 'running'
returning id;

-- name: end_simulation
update simulation set state = 'done', result = $2, due_at = null, ended_at = $3 where id = $1 and state = 'running'
returning id;

-- name: give_up
update simulation set state = 'failed', failure = $3, due_at = null, ended_at = $2 where id = $1 and state in ('waiting', 'running');

-- name: make_due
update simulation set due_at = $2 where id = $1 and state = 'running';

-- name: cancel
update simulation set state = 'cancelled', due_at = null, ended_at = $2 where id = $1 and state in ('waiting', 'running')
returning id;

-- name: delete_old
delete from simulation where made_at < $1 and due_at is null;
