"""States of a scorecard and the moves between them, which the database asserts too (migrations/0057_scorecards.sql)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class CardState(StrEnum):
    """State of a scorecard of a vertical."""

    trained = "trained"
    """Trained, and computed for no lead."""
    shadow = "shadow"
    """Computed for each lead and recorded with the decision, without any effect on it."""
    ranking = "ranking"
    """Signed off by an operator: ranks where the vertical ranks by expected value."""
    suspended = "suspended"
    """Found wrong by the weekly check: not computed, and the vertical is ranked without a card."""
    retired = "retired"
    """Replaced, rolled back or given up. One that has ranked can rank again by a roll-back."""


CARD_MOVES: Final[Mapping[CardState, frozenset[CardState]]] = {
    CardState.trained: frozenset({CardState.shadow, CardState.retired}),
    CardState.shadow: frozenset({CardState.ranking, CardState.retired}),
    CardState.ranking: frozenset({CardState.suspended, CardState.retired}),
    CardState.suspended: frozenset({CardState.ranking, CardState.retired}),
    CardState.retired: frozenset({CardState.ranking}),
}
"""States that may follow each state."""

COMPUTED: Final = frozenset({CardState.shadow, CardState.ranking})
"States in which a card is computed for each lead of its vertical."

IN_CHARGE: Final = frozenset({CardState.ranking, CardState.suspended})
"States of the one card of a vertical that was signed off and not replaced since."
