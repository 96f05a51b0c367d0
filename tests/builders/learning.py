"""Stored scorecards: the judgement and the inputs that each has, and a member who signs it off."""

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from marketplace.learning import flow as learning_flow
from marketplace.learning.drift import InputProfile
from marketplace.learning.evaluation import CardEvaluation
from marketplace.runtime import clock
from routing.scorecard import CardCalibration
from tests.builders.marketplaces import Marketplace
from tests.builders.scorecards import a_card


def an_evaluation(**changes: Any) -> CardEvaluation:
    standard = {
        "leads": 400, "wins": 80, "open_leads": 0, "won": 0.2, "auc": 0.8, "brier": 0.12, "brier_of_average": 0.16,
        "calibration_error": 0.02, "calibration": CardCalibration(), "deciles": (), "groups": (), "best": 400,
        "won_of_best": 0.2,
    }  # fmt: skip
    return CardEvaluation(**{**standard, **changes})


def a_profile(**changes: Any) -> InputProfile:
    standard: dict[str, Any] = {"leads": 400, "edges": (0.0,), "tenths": (0.5, 0.5), "features": ()}
    return InputProfile(**{**standard, **changes})


async def store_card(market: Marketplace, version: int = 1, **points: Any) -> int:
    """Store a card of the marketplace's vertical, in shadow if no other is there; return its version."""
    return await learning_flow.add_card(
        market.api, "test", market.vertical_id, a_card(version, **points), an_evaluation(), a_profile()
    )


async def a_member(market: Marketplace, kind: str = "operator", owner_id: UUID | None = None) -> UUID:
    member_id = clock.new_id()
    await market.owner.execute(
        "insert into member (id, kind, owner_id, email, name, role) values ($1, $2, $3, $4, 'Robin', 'owner')",
        member_id,
        kind,
        owner_id,
        f"{member_id.hex}@example.com",
    )
    return member_id


async def shown_ago(market: Marketplace, lead_id: UUID, **age: float) -> None:
    """Make it look as if the lead had been shown to its business so long ago."""
    sql = "update assignment set exposed_at = clock_timestamp() - $2::interval where lead_id = $1"
    await market.owner.execute(sql, lead_id, timedelta(**age))


async def report(market: Marketplace, lead_id: UUID, kind: str, value_minor: int | None = None, **ago: float) -> None:
    """Write what the business says became of its lead, so long ago."""
    await market.owner.execute(REPORT, clock.new_id(), lead_id, kind, value_minor, timedelta(**ago))


REPORT: Final = """
insert into disposition (id, assignment_id, lead_id, business_id, kind, value_minor, happened_at, recorded_at, source)
select $1, a.id, a.lead_id, a.business_id, $3, $4, clock_timestamp() - $5::interval, clock_timestamp(), 'api'
from assignment a where a.lead_id = $2 and a.live"""
