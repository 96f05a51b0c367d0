"""The life tables of a lead and of an assignment: which state may follow which, and nothing else.

Two paired tables: the database asserts the same moves by trigger, and a test compares the two. The one move that lets
another business have a lead is `held -> prospect`, and it exists only while no exposure does. A lead that is qualified
and at once awarded goes to `held`, or to `unsold` where nobody takes it: it is a prospect in passing, and
`qualified_at` says when.
"""

from enum import StrEnum
from typing import Final


class LeadState(StrEnum):
    """Where a lead stands, from the moment it is on disk."""

    received = "received"
    "Accepted and on disk; waits to be qualified."
    rejected = "rejected"
    "Failed qualification."
    duplicate = "duplicate"
    "The same person asked in the same vertical inside the window."
    suppressed = "suppressed"
    "The person asked not to be contacted."
    nurturing = "nurturing"
    "Qualified but not yet ready; qualified again when its date comes."
    expired = "expired"
    "Nurtured past the time for which consent holds."
    prospect = "prospect"
    "Qualified; may be routed."
    unsold = "unsold"
    "Nobody could take it; contact never left."
    held = "held"
    "Claimed by one business; nothing has left us yet."
    exposed = "exposed"
    "One business may have seen the contact; nobody else ever will."
    delivered = "delivered"
    "That business has acknowledged it and was charged."
    refused = "refused"
    "That business said no after it could have read it."
    lapsed = "lapsed"
    "No evidence of receipt by the deadline; not charged."
    returned = "returned"
    "Delivered, then given back and refunded."


class AssignmentState(StrEnum):
    """Where the claim of one business on one lead stands; money follows it."""

    held = "held"
    "The price is held; nothing has left us yet."
    released = "released"
    "Given up before anything left us; the price is free again."
    exposed = "exposed"
    "The business may have seen the contact."
    delivered = "delivered"
    "Acknowledged, and charged."
    refused = "refused"
    "The business said no; not charged."
    lapsed = "lapsed"
    "No evidence of receipt by the deadline; not charged."
    returned = "returned"
    "Given back after delivery, and refunded."


LEAD_BEGINNINGS: Final = frozenset({LeadState.received, LeadState.duplicate, LeadState.suppressed})
"What becomes of an inquiry at the door; the database refuses a lead that begins otherwise."

LEAD_MOVES: Final[dict[LeadState, frozenset[LeadState]]] = {
    LeadState.received: frozenset(
        {LeadState.rejected, LeadState.nurturing, LeadState.prospect, LeadState.held, LeadState.unsold}
    ),
    LeadState.rejected: frozenset(),
    LeadState.duplicate: frozenset(),
    LeadState.suppressed: frozenset(),
    LeadState.nurturing: frozenset(
        {LeadState.prospect, LeadState.held, LeadState.unsold, LeadState.rejected, LeadState.expired}
    ),
    LeadState.expired: frozenset(),
    LeadState.prospect: frozenset({LeadState.held, LeadState.unsold, LeadState.nurturing}),
    LeadState.unsold: frozenset(),
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
"States in which the lead row itself has a due time; in held and exposed its assignment has one."

WITHDRAWN_LEAD: Final = {
    LeadState.received: LeadState.rejected,
    LeadState.nurturing: LeadState.expired,
    LeadState.prospect: LeadState.unsold,
}
"Where a waiting lead ends whose person does not want to be contacted any more."

OPEN_ASSIGNMENT: Final = frozenset({AssignmentState.held, AssignmentState.exposed})
"States in which money is held and a due time is set."

SEEN: Final = frozenset(
    {LeadState.exposed, LeadState.delivered, LeadState.refused, LeadState.lapsed, LeadState.returned}
)
"States that need an exposure and that no lead with an exposure ever leaves for another business."

FINISHED_LEAD: Final = frozenset(
    state for state, after in LEAD_MOVES.items() if not after or state is LeadState.delivered
)
"States that answer the provider for good: nothing more is waited for."


def diagram(moves: dict[LeadState, frozenset[LeadState]] | dict[AssignmentState, frozenset[AssignmentState]]) -> str:
    """The table as Mermaid text; the documents hold exactly this and a test compares them."""
    lines = ["stateDiagram-v2"]
    for state, after in moves.items():
        lines += [f"    {state} --> {next_state}" for next_state in sorted(after)]
    return "\n".join(lines)
