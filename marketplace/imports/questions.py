"""Questions that the rows of a file leave open, so that the business must answer them in the mapping."""

from collections.abc import Sequence
from typing import Final

from marketplace.text.faults import Fault

QUESTIONS: Final = {
    "dates": "Some dates can be read as day/month and as month/day. Say which: mdy or dmy.",
    "decimal": "Some amounts can be read in two ways. Say which mark stands before the cents: a point or a comma.",
}


def open_faults(questions: Sequence[str]) -> tuple[Fault, ...]:
    """Return a fault for each open question, at its field in the mapping."""
    return tuple(Fault(pointer=f"/{name}", code=f"{name}_ambiguous", detail=QUESTIONS[name]) for name in questions)
