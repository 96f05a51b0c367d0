"""What new rules of a vertical would have made of past leads: the same pure rules, run twice, nothing written."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from marketplace.portal.operator.books import PastLead
from routing.qualification import Nurture, Prospect, Rejection, qualify
from routing.vertical import VerticalDefinition

MOST_NAMED: Final = 25
"Leads shown one by one: enough to see what they have in common."

QUALIFIED: Final = "qualified"


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """One lead that would have ended otherwise."""

    id: UUID
    received_at: datetime
    before: str
    after: str
    score_before: int
    score_after: int
    sold_minor: int | None


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """How many leads would have gone from one outcome to another."""

    before: str
    after: str
    leads: int


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """`changed` of `leads` would have another outcome; amounts in minor units of the vertical's currency.

    `sold_lost` of those that were sold would not have qualified: `lost_minor` was charged for them.
    """

    leads: int
    changed: int
    qualified_before: int
    qualified_after: int
    sold_lost: int
    lost_minor: int
    turns: tuple[Turn, ...]
    named: tuple[Changed, ...]


def compare(before: VerticalDefinition, after: VerticalDefinition, leads: Sequence[PastLead]) -> DryRun:
    """Both versions on each lead as of the moment it was received. Other leads' windows and caps are left aside."""
    turns: Counter[tuple[str, str]] = Counter()
    named: list[Changed] = []
    qualified = [0, 0]
    sold_lost = lost_minor = 0
    for lead in leads:
        (old, old_score), (new, new_score) = (_judge(rules, lead) for rules in (before, after))
        qualified[0] += old == QUALIFIED
        qualified[1] += new == QUALIFIED
        if old == new:
            continue
        turns[old, new] += 1
        if lead.sold_minor is not None and new != QUALIFIED:
            sold_lost, lost_minor = sold_lost + 1, lost_minor + lead.sold_minor
        if len(named) < MOST_NAMED:
            named.append(
                Changed(
                    id=lead.id, received_at=lead.received_at, before=old, after=new, score_before=old_score,
                    score_after=new_score, sold_minor=lead.sold_minor,
                )
            )  # fmt: skip
    return DryRun(
        leads=len(leads), changed=turns.total(), qualified_before=qualified[0], qualified_after=qualified[1],
        sold_lost=sold_lost, lost_minor=lost_minor, named=tuple(named),
        turns=tuple(Turn(before=old, after=new, leads=count) for (old, new), count in turns.most_common()),
    )  # fmt: skip


def _judge(rules: VerticalDefinition, lead: PastLead) -> tuple[str, int]:
    match qualify(lead.facts, rules.needs, rules.policy(0), lead.received_at):
        case Prospect(verdict=verdict):
            return QUALIFIED, verdict.score
        case Nurture(verdict=verdict):
            return "nurtured", verdict.score
        case Rejection(reason=reason, verdict=verdict):
            return f"rejected: {reason}", verdict.score
