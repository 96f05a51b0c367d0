"""Outcomes of stored leads, read page by page: the rows that a card is trained on, and those by which it is judged."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from marketplace.database.db import Pool, session
from marketplace.learning import store as learning_store
from marketplace.learning.evaluation import FollowedOutcome, JudgedLead, followed_outcome
from marketplace.learning.store import NEWEST, ChargedLead
from routing.scorecard import BUSINESS_FEATURE, FeatureValue, feature_values

PAGE: Final = 500
"Leads of one statement."

SPAN: Final = timedelta(weeks=104)
"Age of the oldest lead that is read: two years, so that each season is in it twice."

MOST_LEADS: Final = 20_000
"""Newest leads that a card is trained on. An answer that one lead in forty gives has then 500 leads, by which its share
of wins is known to some 2 percentage points; more leads take more memory than they add."""


async def charged_leads(
    pool: Pool, vertical_id: UUID, since: datetime, most: int = MOST_LEADS
) -> AsyncIterator[ChargedLead]:
    """Yield the newest charged leads of a vertical received from `since` on, at most `most`.

    Each page is a statement of its own, so that neither the leads nor a snapshot of the database are held for long.
    """
    before = NEWEST
    while most > 0:
        async with session(pool) as connection:
            page = await learning_store.list_outcomes(connection, vertical_id, before, since, min(PAGE, most))
        for lead in page:
            yield lead
        if len(page) < PAGE:
            return
        before, most = page[-1].lead_id, most - len(page)


def outcome_of(lead: ChargedLead, now: datetime) -> FollowedOutcome | None:
    """Return what became of a lead, known up to the last report of its business; None if that says nothing about it."""
    if lead.received_at is None or lead.told_until is None:
        return None
    age = min(lead.told_until, now) - lead.received_at
    won_after = None if lead.won_at is None else lead.won_at - lead.received_at
    ended_after = None if lead.ended_at is None else lead.ended_at - lead.received_at
    return followed_outcome(max(age, timedelta(0)), won_after, ended_after)


def values_of(lead: ChargedLead) -> dict[str, FeatureValue]:
    """Return what was known of a lead at its receipt, and the business that got it."""
    values = feature_values(lead.facts, provider=str(lead.provider_id))
    return values if lead.business_id is None else values | {BUSINESS_FEATURE: str(lead.business_id)}


async def judged_leads(
    pool: Pool, vertical_id: UUID, version: int, since: datetime, now: datetime, most: int = MOST_LEADS
) -> list[JudgedLead]:
    """Return the leads for which a version of the card was computed when they were awarded, with their outcomes."""
    judged = []
    async for lead in charged_leads(pool, vertical_id, since, most):
        probability = next((chance.probability for chance in lead.chances or () if chance.card == version), None)
        outcome = outcome_of(lead, now)
        if probability is not None and outcome is not None:
            judged.append(JudgedLead(values=values_of(lead), probability=probability, outcome=outcome))
    return judged
