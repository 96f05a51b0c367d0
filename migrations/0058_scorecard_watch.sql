-- The weekly look at a card in shadow or in charge: whether what it says still comes true, and whether the leads are still like
-- those that it was trained on. `alarm` is the reason for which a ranking card was suspended, or would have been.
create table scorecard_check (
    vertical_id uuid not null,
    version int not null,
    checked_at timestamptz not null,
    figures jsonb not null,
    alarm text constraint scorecard_check_alarm check (alarm in ('inputs_shifted', 'calibration_off')),
    primary key (vertical_id, version, checked_at),
    constraint scorecard_check_card foreign key (vertical_id, version) references scorecard (vertical_id, version)
);
create trigger scorecard_check_is_final before update or delete on scorecard_check
    for each row execute function refuse_change();

grant select on scorecard_check to marketplace_api, marketplace_worker, marketplace_reports;
grant insert on scorecard_check to marketplace_worker;
