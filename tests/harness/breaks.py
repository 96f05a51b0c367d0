"""Deliberate breaks of the harness's own database: a constraint and the question in front of it, so that there is
something to catch.

A constraint alone would not be missed while the code in front of it is right, nor the code while the constraint holds.
"""

from collections.abc import Mapping
from typing import Final

import msgspec


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """Parts removed from the database, and failpoints that widen the race between workers."""

    says: str
    statements: tuple[str, ...]
    failpoints: Mapping[str, str]
    shown_by: str | None = None
    "A kind of fault without which nobody would notice; it comes far more often than usual."


def _award_without(condition: str, replacement: str) -> str:
    """Return the statement that replaces one condition of the award. It fails where the award has no such condition."""
    return f"""
do $do$
declare
    before constant text := pg_get_functiondef('award_lead(jsonb)'::regprocedure);
    after constant text := replace(before, $it${condition}$it$, $it${replacement}$it$);
begin
    if after = before then
        raise exception 'the award has no such condition: %', $it${condition}$it$;
    end if;
    execute after;
end $do$"""


_TAKEN_LEADS: Final = _award_without(
    "where id = a.lead_id and state = a.lead_state and revision",
    "where id = a.lead_id and state in (a.lead_state, 'held') and revision",
)
"""The award takes a lead that another award has taken meanwhile."""
_EMPTY_WALLETS: Final = _award_without("available_minor + credit_limit_minor >= a.price_minor", "true")
"""The award does not ask the wallet."""
_TWO_AWARDS: Final = {"before_award": "sleep:1.3%0.3", "after_award_commit": "sleep:1.0%0.5"}
"""Pauses that let the sweeper and the queue meet on one lead."""

_OPEN_DOOR: Final = """
create or replace function read_contact(of_lead uuid, for_business uuid)
    returns table (sealed bytea, wrapped bytea, master_key_id text, corrections jsonb)
    language sql security definer set search_path = pg_catalog, public as $$
    select c.sealed, k.wrapped, k.master_key_id, null::jsonb from contact c join data_key k on k.lead_id = c.lead_id
    where c.lead_id = of_lead $$"""
_UNWRITTEN: Final = """
create function swallow() returns trigger language plpgsql as $$ begin return null; end $$;
create trigger exposure_swallowed before insert on exposure
    for each row when (new.channel = 'feed') execute function swallow()"""

BREAKS: Final = {
    "one_live_assignment": Break(
        says="the unique index on live assignments dropped, and the lead's lock ignored",
        statements=("drop index assignment_one_live", _TAKEN_LEADS),
        failpoints=_TWO_AWARDS,
    ),
    "exposure_unique": Break(
        says="the exposure's primary key dropped as well, so that contact data reaches two businesses",
        statements=(
            "drop index assignment_one_live",
            "alter table exposure drop constraint exposure_pkey",
            _TAKEN_LEADS,
        ),
        failpoints=_TWO_AWARDS | {"after_answer_before_settle": "sleep:2.0%0.7"},
    ),
    "wallet_check": Break(
        says="the wallet's check dropped, and the wallet's balance ignored at the award",
        statements=("alter table wallet drop constraint wallet_covers", _EMPTY_WALLETS),
        failpoints={"before_award": "sleep:0.3%0.3"},
        shown_by="wallet nearly empty",
    ),
    "lists_ignored": Break(
        says="lists not asked, neither when an inquiry comes nor when its lead is awarded and exposed",
        statements=(
            "create or replace function is_listed(keys bytea[]) returns bool language sql stable as 'select false'",
            "create or replace function is_withdrawn(of_lead uuid) returns bool language sql as "
            "'select is_stopped(of_lead)'",
        ),
        failpoints={},
    ),
    "feed_exposure": Break(
        says="exposures to whoever reads a feed not written, and nothing asking for them before an event leaves",
        statements=("alter table assignment drop constraint assignment_exposure", _UNWRITTEN, _OPEN_DOOR),
        failpoints={},
    ),
}
