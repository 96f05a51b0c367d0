-- Changes of stage that a business may list, whether it has them sent or not; and a colour for each stage.

-- A change of a business without an endpoint for changes is listed, and not sent. `position` orders the list of a business.
-- It is given under a lock that is held until the end of the transaction, so that no change appears before one that was
-- listed already.
alter table stage_change
    drop constraint stage_change_state,
    add constraint stage_change_state check (state in ('listed', 'due', 'received', 'given_up')),
    add column position bigint;
update stage_change c set position = n.position
from (select id, row_number() over (partition by business_id order by id) as position from stage_change) n
where c.id = n.id;
alter table stage_change
    alter column position set not null,
    add constraint stage_change_place unique (business_id, position);
drop index stage_change_newest;

-- Colour of a stage on the board, by its name in the palette; null for the colour of its outcome.
alter table pipeline_stage add column colour text
    constraint pipeline_stage_colour check (
        colour in ('blue', 'orange', 'teal', 'purple', 'green', 'amber', 'red', 'grey'));
grant update (colour) on pipeline_stage to marketplace_api;
