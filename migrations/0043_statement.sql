-- Lines of a wallet's statement: each transfer that changed the wallet's balance, which is what is available and what is
-- held together, with the sign of the change. A hold and its release move money between these two and are no lines, so
-- that a lead that was charged is one line with its price. The API, the pages and their files read this view.
create view statement_line as
select id, business_id, kind,
       case when kind in ('top_up', 'refund') then amount_minor else -amount_minor end as amount_minor,
       currency, assignment_id, event_id, made_at
from transfer
where kind in ('top_up', 'withdrawal', 'capture', 'refund');

grant select on statement_line to marketplace_api;
