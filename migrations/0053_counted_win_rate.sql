-- A declared win rate says from how many shared leads it was counted, and within how many weeks of their arrival they were won.
-- One that does not is still shown, but no verdict rests on it.
alter table roi_assumption
    add shared_leads int,
    add shared_won int,
    add shared_weeks int,
    add constraint roi_assumption_counted check (
        num_nulls(shared_leads, shared_won, shared_weeks) = 3
        or (num_nulls(shared_leads, shared_won, shared_weeks) = 0 and shared_won between 1 and shared_leads
            and shared_weeks between 1 and 104 and shared_win_rate = shared_won / shared_leads::double precision)
    );
grant update (shared_leads, shared_won, shared_weeks) on roi_assumption to marketplace_api;
