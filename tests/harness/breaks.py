"""Deliberate breaks: one belt each, with the code's own care beside it, so that the harness has something to catch.

A constraint alone would not be missed while the code in front of it is right, nor the code while the constraint holds.
"""

from collections.abc import Mapping
from typing import Final

import msgspec


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken away from the database, what from the workers, and what widens the race between them."""

    says: str
    statements: tuple[str, ...]
    failpoints: Mapping[str, str]
    shown_by: str | None = None
    "A kind of fault without which nobody would notice; it comes far more often than usual."


_TWO_AWARDS: Final = {
    "lead_lock": "ignore",
    "before_award": "sleep:1.3%0.3",
    "after_award_commit": "sleep:1.0%0.5",
}
"""An award ignores that somebody else has taken the lead; pauses let the sweeper and the queue meet on one lead."""

_OPEN_DOOR: Final = """
create or replace function read_contact(of_lead uuid, for_business uuid)
    returns table (sealed bytea, wrapped bytea, master_key_id text)
    language sql security definer set search_path = pg_catalog, public as $$
    select c.sealed, k.wrapped, k.master_key_id from contact c join data_key k on k.lead_id = c.lead_id
    where c.lead_id = of_lead $$"""
_UNWRITTEN: Final = """
create function swallow() returns trigger language plpgsql as $$ begin return null; end $$;
create trigger exposure_swallowed before insert on exposure
    for each row when (new.channel = 'feed') execute function swallow()"""

BREAKS: Final = {
    "one_live_assignment": Break(
        says="the unique index on live assignments dropped, and the lead's lock ignored",
        statements=("drop index assignment_one_live",),
        failpoints=_TWO_AWARDS,
    ),
    "exposure_unique": Break(
        says="the exposure's primary key dropped as well, so that contact data reaches two businesses",
        statements=("drop index assignment_one_live", "alter table exposure drop constraint exposure_pkey"),
        failpoints=_TWO_AWARDS | {"after_answer_before_settle": "sleep:2.0%0.7"},
    ),
    "wallet_check": Break(
        says="the wallet's check dropped, and the wallet's balance ignored at the award",
        statements=("alter table wallet drop constraint wallet_covers",),
        failpoints={"wallet_check": "ignore", "before_award": "sleep:0.3%0.3"},
        shown_by="wallet nearly empty",
    ),
    "feed_exposure": Break(
        says="exposures to whoever reads a feed not written, and nothing asking for them before an event leaves",
        statements=("alter table assignment drop constraint assignment_exposure", _UNWRITTEN, _OPEN_DOOR),
        failpoints={},
    ),
}
