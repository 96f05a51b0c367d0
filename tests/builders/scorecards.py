"""Scorecards small enough to be computed in the head."""

from typing import Any

from routing.scorecard import CardOrigin, CategoryFeature, CompiledScorecard, ScoreBin, Scorecard
from routing.scorecard import compile_scorecard as compile_card


def a_card(version: int = 1, *, sure: float = 2.0, **changes: Any) -> Scorecard:
    """A card that gives decision makers `sure` log odds, everybody else as much less, and nothing for anything else."""
    authority = CategoryFeature(
        name="authority",
        title="Authority",
        bins={"decision_maker": ScoreBin(label="decides", points=sure)},
        other=ScoreBin(label="another answer", points=-sure),
        unknown=ScoreBin(label="not known", points=-sure),
    )
    standard = {
        "vertical": "roofing", "version": version, "intercept": 0.0, "features": (authority,),
        "trained_on": CardOrigin(leads=400, wins=80),
    }  # fmt: skip
    return Scorecard(**{**standard, **changes})


def a_compiled_card(version: int = 1, **changes: Any) -> CompiledScorecard:
    return compile_card(a_card(version, **changes))
