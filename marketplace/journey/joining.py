"""Joining of a repeated inquiry to the earlier lead of the same person."""

from marketplace.database.db import Connection
from marketplace.intake.store import JoinedLead, NewInquiry, PersonKeys
from marketplace.journey import store as journey_store
from marketplace.journey.flow import MOST_TRIES, plan_touches, write_revision
from marketplace.journey.reading import ReadTouch
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock
from routing.joining import has_room, joining_entry
from routing.lifecycle import SEEN, WAITING_LEAD


async def join_lead(
    connection: Connection, new: NewInquiry, vertical: Vertical, person: PersonKeys
) -> JoinedLead | None:
    """Add the answers of a repeated inquiry to the lead that has its person's window, as a touch of that lead.

    A lead that waits is decided about again; a business that has the lead gets a notice; every other lead stays as it
    is. The caller stores the inquiry in the same transaction. Returns None, with nothing written, if the lead has ended
    meanwhile, if two leads have the person, or if MOST_JOINED inquiries have joined it.
    """
    for _ in range(MOST_TRIES):
        lead = await journey_store.find_lead_of_person(connection, vertical.id, person, new.received_at)
        if lead is None or not has_room(lead.entries):
            return None
        entry = joining_entry(new.facts, lead.revision + 1, clock.new_id().hex)
        touch = ReadTouch(touch=entry.touch, supplies=entry.supplies, faults=())
        revised = await write_revision(connection, *plan_touches(lead, [touch], vertical, new.received_at))
        if revised is not None:
            return JoinedLead(
                lead_id=lead.lead_id,
                touch=journey_store.fingerprint(entry.touch),
                revision=entry.revision,
                waits=revised.state in WAITING_LEAD,
                in_time=revised.state not in SEEN,
            )
    return None
