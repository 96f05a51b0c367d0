"""State tables of a lead and of an assignment: which state may follow which.

The database enforces the same moves by a trigger, and a test compares both. The only move that lets another business
have a lead is `held -> prospect`, which exists only while there is no exposure. A lead that is qualified and awarded in
one transaction goes directly to `held`, or to `unsold` if nobody takes it; `qualified_at` records that it was a
prospect. New facts about a lead, by a touch or a correction, let a prospect be qualified again, and open one that was
rejected or ended unsold.
"""

from enum import StrEnum
from typing import Final


class LeadState(StrEnum):
    """State of a stored lead."""

    received = "received"
    "Accepted and stored; waits to be qualified."
    rejected = "rejected"
    "Failed qualification."
    duplicate = "duplicate"
    "The same person inquired in the same vertical within the window."
    suppressed = "suppressed"
    "The person asked not to be contacted."
    nurturing = "nurturing"
    "Too early; qualified again when its date comes."
    expired = "expired"
    "Nurtured for longer than the consent is valid."
    prospect = "prospect"
    "Qualified; may be routed."
    unsold = "unsold"
    "No business could take it; contact data was never sent."
    held = "held"
    "Claimed by one business; nothing has been sent yet."
    exposed = "exposed"
    "One business may have seen the contact data; no other business ever will."
    delivered = "delivered"
    "The business has acknowledged it and was charged."
    refused = "refused"
    "The business refused it after it could have read it."
    lapsed = "lapsed"
    "No evidence of receipt by the deadline; not charged."
    returned = "returned"
    "Delivered, then returned and refunded."


class AssignmentState(StrEnum):
    """State of the exclusive claim of one business on one lead. It determines the transfers of money."""

    held = "held"
    "The price is held; nothing has been sent yet."
    released = "released"
    "Given up before anything was sent; the price is available again."
    exposed = "exposed"
    "The business may have seen the contact data."
    delivered = "delivered"
    "Acknowledged, and charged."
    refused = "refused"
    "The business refused it; not charged."
    lapsed = "lapsed"
    "No evidence of receipt by the deadline; not charged."
    returned = "returned"
    "Returned after delivery, and refunded."


LEAD_BEGINNINGS: Final = frozenset({LeadState.received, LeadState.duplicate, LeadState.suppressed})
"States in which a lead may be inserted. The database refuses any other."

LEAD_MOVES: Final[dict[LeadState, frozenset[LeadState]]] = {
    LeadState.received: frozenset(
        {LeadState.rejected, LeadState.nurturing, LeadState.prospect, LeadState.held, LeadState.unsold}
    ),
    LeadState.rejected: frozenset({LeadState.received}),
    LeadState.duplicate: frozenset(),
    LeadState.suppressed: frozenset(),
    LeadState.nurturing: frozenset(
        {LeadState.prospect, LeadState.held, LeadState.unsold, LeadState.rejected, LeadState.expired}
    ),
    LeadState.expired: frozenset(),
    LeadState.prospect: frozenset({LeadState.held, LeadState.unsold, LeadState.nurturing, LeadState.received}),
    LeadState.unsold: frozenset({LeadState.received}),
    LeadState.held: frozenset({LeadState.prospect, LeadState.exposed}),
    LeadState.exposed: frozenset({LeadState.delivered, LeadState.refused, LeadState.lapsed}),
    LeadState.delivered: frozenset({LeadState.returned}),
    LeadState.refused: frozenset(),
    LeadState.lapsed: frozenset(),
    LeadState.returned: frozenset(),
}

ASSIGNMENT_MOVES: Final[dict[AssignmentState, frozenset[AssignmentState]]] = {
    AssignmentState.held: frozenset({AssignmentState.released, AssignmentState.exposed}),
    AssignmentState.released: frozenset(),
    AssignmentState.exposed: frozenset({AssignmentState.delivered, AssignmentState.refused, AssignmentState.lapsed}),
    AssignmentState.delivered: frozenset({AssignmentState.returned}),
    AssignmentState.refused: frozenset(),
    AssignmentState.lapsed: frozenset(),
    AssignmentState.returned: frozenset(),
}

WAITING_LEAD: Final = frozenset({LeadState.received, LeadState.nurturing, LeadState.prospect})
"States in which the lead's own row has a due time. In held and exposed, its assignment has one."

WITHDRAWN_LEAD: Final = {
    LeadState.received: LeadState.rejected,
    LeadState.nurturing: LeadState.expired,
    LeadState.prospect: LeadState.unsold,
}
"Final state of each waiting lead if its person asks not to be contacted."

OPEN_ASSIGNMENT: Final = frozenset({AssignmentState.held, AssignmentState.exposed})
"States in which money is held and a due time is set."

SEEN: Final = frozenset(
    {LeadState.exposed, LeadState.delivered, LeadState.refused, LeadState.lapsed, LeadState.returned}
)
"States that require an exposure. A lead in one of them never goes to another business."

FINISHED_LEAD: Final = frozenset(
    state
    for state, after in LEAD_MOVES.items()
    if not after or state in {LeadState.delivered, LeadState.rejected, LeadState.unsold}
)
"States that are the final answer to the provider."


def diagram(moves: dict[LeadState, frozenset[LeadState]] | dict[AssignmentState, frozenset[AssignmentState]]) -> str:
    """Return a state table as a Mermaid diagram. A test compares the diagrams in the documents with it."""
    lines = ["stateDiagram-v2"]
    for state, after in moves.items():
        lines += [f"    {state} --> {next_state}" for next_state in sorted(after)]
    return "\n".join(lines)
