"""Consequences of new facts about a lead: it is decided about, qualified or opened again, or left alone.

    received, nurturing          decided about at once
    prospect                     qualified again if the verdict or a value has changed
    held                         qualified again by a correction, once the business has given it up unseen
    rejected                     opened again if the verdict has changed
    unsold                       opened again if the verdict or a value has changed, or the person has come back since
    every other state            left as it is: a business has seen it, or the person has asked anew or has withdrawn

A lead that has ended is opened within OPEN_AGAIN of its receipt, as long as its consent is.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from routing.decision import WITHDRAWN
from routing.inquiry import OLDEST_CONSENT, Facts
from routing.journey import changes
from routing.lifecycle import LeadState
from routing.qualification import qualify
from routing.vertical import VerticalDefinition

OPEN_AGAIN: Final = OLDEST_CONSENT
"Time from the receipt of a lead within which it is opened again: the greatest age of the consent of an inquiry."


class NextStep(StrEnum):
    """Step that follows from new facts. `revise_lead` in the database takes these words."""

    stay = "stay"
    """Nothing follows."""
    due = "due"
    """A lead that waits is decided about at once."""
    receive = "receive"
    """The lead is qualified again, and opened again if it has ended."""


class LeadStanding(msgspec.Struct, frozen=True, kw_only=True):
    """State of a lead, the reason why it ended, and when it was received and ended."""

    state: LeadState
    reason: str | None
    received_at: datetime
    settled_at: datetime | None


def next_step(
    lead: LeadStanding,
    before: Facts,
    after: Facts,
    vertical: VerticalDefinition,
    now: datetime,
    came_back_at: datetime | None = None,
) -> NextStep:
    """Return what follows when the facts of a lead change from `before` to `after`.

    `came_back_at` is the time of the person's newest touch among the new ones, None for a correction. The database
    opens no lead whose person has withdrawn or asked anew.
    """
    if lead.state in (LeadState.received, LeadState.nurturing):
        return NextStep.due
    if lead.state is LeadState.held:
        return NextStep.receive if came_back_at is None else NextStep.stay
    has_ended = lead.state in (LeadState.rejected, LeadState.unsold)
    if has_ended and (lead.reason == WITHDRAWN or now - lead.received_at > OPEN_AGAIN):
        return NextStep.stay
    if lead.state is LeadState.unsold and _came_back(lead, came_back_at):
        return NextStep.receive
    if lead.state is LeadState.prospect or has_ended:
        return NextStep.receive if _differ(lead.state, before, after, vertical, now) else NextStep.stay
    return NextStep.stay


def _came_back(lead: LeadStanding, came_back_at: datetime | None) -> bool:
    return came_back_at is not None and lead.settled_at is not None and came_back_at > lead.settled_at


def _differ(state: LeadState, before: Facts, after: Facts, vertical: VerticalDefinition, now: datetime) -> bool:
    """Return whether a decision about the lead could differ: its verdict, or for a qualified lead any value."""
    policy = vertical.policy(0)
    if qualify(before, vertical.needs, policy, now) != qualify(after, vertical.needs, policy, now):
        return True
    differs = bool(changes(before, after)) or before.signals != after.signals or before.place != after.place
    return differs and state is not LeadState.rejected
