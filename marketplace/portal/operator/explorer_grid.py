"""Table of the routing explorer: each candidate against each filter, and the differences between two decisions."""

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
    "Consent": frozenset({
        Rule.consent_seller, Rule.consent_channel, Rule.consent_purpose, Rule.consent_jurisdiction,
    }),
    "Lists": frozenset({
        Rule.own_customer, Rule.list_outdated,
    }),
    "Area": frozenset({Rule.outside_area}),
    "Need": frozenset({Rule.attribute}),
    "Budget": frozenset({Rule.budget_minimum}),
    "Timing": frozenset({Rule.timing_minimum}),
    "BANT": frozenset({Rule.bant_minimum, Rule.score_minimum}),
    "Person": frozenset({
        Rule.authority, Rule.role, Rule.company_size, Rule.price_range, Rule.phone_type, Rule.source_excluded,
        Rule.disposable_email,
    }),
    "Hours": frozenset({Rule.closed}),
    "Cap": frozenset({Rule.cap_reached, Rule.paced, Rule.cap_race}),
    "Wallet": frozenset({Rule.wallet_empty, Rule.wallet_race}),
}  # fmt: skip
"Columns of the table, each with the rules that it covers."
READ_LAST: Final = ("Cap", "Wallet")
"Columns whose figures are read only for candidates that pass every other filter."


class FilterCell(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one candidate at one filter: whether it passed (None: not checked), and why it failed."""

    passed: bool | None
    words: str = ""


class ChangedCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate whose results in two decisions differ."""

    subscription_id: UUID
    before: str
    after: str


def grid_cells(record: CandidateRecord) -> dict[str, FilterCell]:
    """Return the results of one candidate, by the filter's name."""
    failures = _own_failures(record)
    failed_earlier = any(failure.rule not in FILTERS["Cap"] | FILTERS["Wallet"] for failure in failures)
    cells = {}
    for name, rules in FILTERS.items():
        details = [failure.detail for failure in failures if failure.rule in rules]
        if details:
            cells[name] = FilterCell(passed=False, words="; ".join(details))
        elif failed_earlier and name in READ_LAST:
            cells[name] = FilterCell(passed=None)
        else:
            cells[name] = FilterCell(passed=True)
    return cells


def result_in_words(record: CandidateRecord | None, winner: CandidateRecord | None) -> str:
    """Return the result of one candidate in a few words."""
    if record is None:
        return "not considered"
    if winner is not None and record.subscription_id == winner.subscription_id:
        return "gets the lead"
    failures = _own_failures(record)
    return "; ".join(failure.detail for failure in failures) if failures else f"ranked {record.position}"


def _own_failures(record: CandidateRecord) -> list[Failure]:
    """Return the failed rules of a candidate, apart from having a lower rank than the winner."""
    return [failure for failure in record.failures if failure.rule is not Rule.outranked]


def list_differences(before: ExplorerAnswer, after: ExplorerAnswer) -> tuple[ChangedCandidate, ...]:
    """Return the candidates whose results differ, the winners first."""
    old_records = {record.subscription_id: record for record in before.candidates}
    new_records = {record.subscription_id: record for record in after.candidates}
    changes = []
    for subscription_id in old_records | new_records:
        old_result = result_in_words(old_records.get(subscription_id), before.winner)
        new_result = result_in_words(new_records.get(subscription_id), after.winner)
        if old_result != new_result:
            changes.append(ChangedCandidate(subscription_id=subscription_id, before=old_result, after=new_result))
    return tuple(sorted(changes, key=lambda change: (not _names_winner(change), change.subscription_id)))


def _names_winner(change: ChangedCandidate) -> bool:
    return "gets the lead" in (change.before, change.after)
