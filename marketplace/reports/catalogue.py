"""Loaders of all reports by name, as an operator calls them. The benchmark of reports times each of them."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from marketplace.database.db import Pool
from marketplace.reports.funnel import load_routing
from marketplace.reports.grouping import LeadGrouping
from marketplace.reports.journey import load_journey
from marketplace.reports.lane import load_lane
from marketplace.reports.money_report import PartyGrouping, Period, load_money_report
from marketplace.reports.quality import load_quality
from marketplace.reports.question import Question
from marketplace.reports.rows import Filters, find_ids, list_rows
from marketplace.reports.speed import SpeedGrouping, load_speed
from marketplace.reports.unsold import load_unsold

USUAL_PAGE: Final = 50


async def list_unsold_leads(pool: Pool, question: Question) -> Any:
    """Load one page of the leads behind a figure."""
    lead_ids = await find_ids(pool, question, Filters(stopped="qualified", why="outside_area"))
    return await list_rows(pool, lead_ids[:USUAL_PAGE])


async def list_expired_leads(pool: Pool, question: Question) -> Any:
    """Load one page of the leads behind a figure of the nurture lane."""
    lead_ids = await find_ids(pool, question, Filters(lane="expired"))
    return await list_rows(pool, lead_ids[:USUAL_PAGE])


REPORTS: Final[dict[str, Callable[[Pool, Question], Awaitable[Any]]]] = {
    "speed": load_speed,
    **{f"speed by {by}": partial(load_speed, by=by) for by in SpeedGrouping},
    "routing": load_routing,
    **{f"journey by {by}": partial(load_journey, by=by) for by in LeadGrouping},
    **{f"nurture lane by {by}": partial(load_lane, by=by) for by in LeadGrouping},
    "leads behind a figure of the lane": list_expired_leads,
    "unsold": load_unsold,
    "quality": load_quality,
    **{f"money by {period}": partial(load_money_report, period=period) for period in (Period.day, Period.month)},
    **{
        f"money by {whose}": partial(load_money_report, period=Period.all, whose=whose)
        for whose in (PartyGrouping.business, PartyGrouping.provider)
    },
    "leads behind a figure": list_unsold_leads,
}
