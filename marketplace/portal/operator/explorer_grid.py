"""The routing explorer's table: every candidate of a decision against every filter, and two decisions compared."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import msgspec

from marketplace.distribution.explorer import ExplorerAnswer
from routing.decision import CandidateRecord
from routing.matching import Failure, Rule

FILTERS: Final[Mapping[str, frozenset[Rule]]] = {
    "Takes leads": frozenset({
        Rule.paused, Rule.suspended, Rule.business_frozen, Rule.endpoint_inactive, Rule.breaker_open, Rule.unreachable,
        Rule.withdrawn, Rule.price_changed,
    }),
    "Area": frozenset({Rule.outside_area}),
    "Need": frozenset({Rule.attribute}),
    "Budget": frozenset({Rule.budget_minimum}),
    "Timing": frozenset({Rule.timing_minimum}),
    "BANT": frozenset({Rule.bant_minimum, Rule.score_minimum}),
    "Person": frozenset({
        Rule.authority, Rule.role, Rule.company_size, Rule.phone_type, Rule.source_excluded, Rule.disposable_email,
    }),
    "Hours": frozenset({Rule.closed}),
    "Cap": frozenset({Rule.cap_reached, Rule.cap_race}),
    "Wallet": frozenset({Rule.wallet_empty, Rule.wallet_race}),
}  # fmt: skip
"Columns of the explorer, each with the rules that it shows."
READ_LAST: Final = ("Cap", "Wallet")
"Columns whose numbers are read only for candidates that nothing else rules out."


class FilterCell(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one candidate passes one filter (None: its numbers were not read), and with what it failed."""

    passed: bool | None
    words: str = ""


class ChangedCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate whose result differs between two answers."""

    subscription_id: UUID
    before: str
    after: str


def grid_cells(record: CandidateRecord) -> dict[str, FilterCell]:
    """Return one candidate against every filter, by the filter's name."""
    own = _own_failures(record)
    early = any(failure.rule not in FILTERS["Cap"] | FILTERS["Wallet"] for failure in own)
    cells = {}
    for name, rules in FILTERS.items():
        failed = [failure.detail for failure in own if failure.rule in rules]
        if failed:
            cells[name] = FilterCell(passed=False, words="; ".join(failed))
        else:
            cells[name] = FilterCell(passed=None if early and name in READ_LAST else True)
    return cells


def result_in_words(record: CandidateRecord | None, winner: CandidateRecord | None) -> str:
    """Return what became of one candidate, in a few words."""
    if record is None:
        return "not weighed"
    if winner is not None and record.subscription_id == winner.subscription_id:
        return "gets it"
    own = _own_failures(record)
    return "; ".join(failure.detail for failure in own) if own else f"ranked {record.position}"


def _own_failures(record: CandidateRecord) -> list[Failure]:
    return [failure for failure in record.failures if failure.rule is not Rule.outranked]


def list_differences(before: ExplorerAnswer, after: ExplorerAnswer) -> tuple[ChangedCandidate, ...]:
    """Return every candidate whose result is not the same in both answers, the two winners first."""
    old = {record.subscription_id: record for record in before.candidates}
    new = {record.subscription_id: record for record in after.candidates}
    changes = []
    for subscription_id in old | new:
        left = result_in_words(old.get(subscription_id), before.winner)
        right = result_in_words(new.get(subscription_id), after.winner)
        if left != right:
            changes.append(ChangedCandidate(subscription_id=subscription_id, before=left, after=right))
    return tuple(sorted(changes, key=lambda change: (not _names_winner(change), change.subscription_id)))


def _names_winner(change: ChangedCandidate) -> bool:
    return "gets it" in (change.before, change.after)
