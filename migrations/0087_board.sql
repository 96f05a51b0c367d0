-- Time at which a lead came into the stage of its latest disposition, which is of this kind and stage: that of the first one
-- after the last of another stage. Null without a disposition.
create function entered_stage_at(of_assignment uuid, of_kind text, of_stage uuid) returns timestamptz
    language sql stable as $$
    select min(d.happened_at) from disposition d
    where d.assignment_id = of_assignment and d.undone_at is null and d.happened_at > coalesce((
        select max(o.happened_at) from disposition o
        where o.assignment_id = of_assignment and o.undone_at is null
            and (o.kind, o.stage_id) is distinct from (of_kind, of_stage)), '-infinity')
$$;
revoke all on function entered_stage_at from public;
grant execute on function entered_stage_at to marketplace_api;
