-- name: list_rows
-- Leads with the values that the figures use, in the order of the ids.
select f.id, f.received_at, f.mode, v.slug as vertical, f.state, f.step, f.why, p.id as provider_id, p.name as provider,
       b.id as business_id, b.name as business
from unnest($1::uuid[]) with ordinality as asked (id, place)
cross join lateral (
    select id, received_at, mode, state, step, why, provider, vertical, business from lead_figure
    where id = asked.id offset 0  -- one by one, by the primary key, however many joins the view has
) f
join provider p on p.number = f.provider
join vertical v on v.number = f.vertical
left join business b on b.number = f.business
order by asked.place;

-- name: copy_rows
-- The same for a CSV file: public ids, times in RFC 3339, texts that no spreadsheet runs as a formula.
select public_id('lead', f.id) as id, to_char(f.received_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
           as received_at, f.mode, v.slug as vertical, f.state,
       (array['received', 'valid', 'qualified', 'eligible', 'awarded', 'delivered', 'contacted', 'won'])[f.step] as step,
       safe_cell(f.why) as why,
       case when $2::bool then public_id('prov', p.id) end as provider_id,
       case when $2::bool then safe_cell(p.name) end as provider,
       case when $2::bool then public_id('biz', b.id) end as business_id,
       case when $2::bool then safe_cell(b.name) end as business
from unnest($1::uuid[]) with ordinality as asked (id, place)
cross join lateral (
    select id, received_at, mode, state, step, why, provider, vertical, business from lead_figure
    where id = asked.id offset 0  -- one by one, by the primary key, however many joins the view has
) f
join provider p on p.number = f.provider
join vertical v on v.number = f.vertical
left join business b on b.number = f.business
order by asked.place;
