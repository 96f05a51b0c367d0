-- A link by which a new business signs itself up: whoever has it names the company, and becomes its owner. It has the currency
-- of the wallet, which cannot be changed later.
alter table one_time_link add column currency character(3);
alter table one_time_link drop constraint one_time_link_purpose,
    add constraint one_time_link_purpose check (purpose in ('invite', 'reset', 'enter', 'set_up', 'factor', 'sign_up'));
alter table one_time_link drop constraint one_time_link_for_whom,
    add constraint one_time_link_for_whom check (
        case purpose
            when 'invite' then member_id is null and kind is not null and role is not null and email is not null
                and (kind = 'operator') = (owner_id is null)
            when 'set_up' then member_id is null and kind is null and owner_id is null and role is null
            when 'sign_up' then member_id is null and kind = 'business' and owner_id is null and role = 'owner'
                and email is null
            else member_id is not null and kind is null and owner_id is null and role is null
        end),
    add constraint one_time_link_currency check ((currency is not null) = (purpose = 'sign_up'));
