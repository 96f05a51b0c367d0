-- name: count_refused
-- Number of requests of each provider that were refused with faults. The pointer `*` counts requests.
select p.number, sum(r.count)::bigint as requests
from refusal_count r join provider p on p.id = r.provider_id
where r.hour >= date_trunc('hour', $1::timestamptz, 'UTC') and r.hour < $2 and r.mode = $3
  and ($4::uuid is null or r.provider_id = $4) and r.pointer = '*'
group by p.number;

-- name: list_faults
-- Faults of the refused requests, the most frequent first.
select r.pointer, r.code, sum(r.count)::bigint as requests
from refusal_count r
where r.hour >= date_trunc('hour', $1::timestamptz, 'UTC') and r.hour < $2 and r.mode = $3
  and ($4::uuid is null or r.provider_id = $4) and r.pointer <> '*'
group by r.pointer, r.code order by requests desc, r.pointer, r.code limit $5;
