"""Figures of reports beside those of the period before, and their trend."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.portal.frame import number, percent
from marketplace.portal.operator.report_trend import TREND_PARTS, Headline, compare, parts_of, period_before
from marketplace.reports.question import MOST_DAYS, Question
from marketplace.runtime.settings import Settings
from tests.builders.marketplaces import marketplace
from tests.builders.portal import signed_in
from tests.builders.service import serve

FIRST = date(2026, 11, 1)


def question(days: int, first: date = FIRST) -> Question:
    return Question(first=first, last=first + timedelta(days=days - 1), zone="UTC")


@given(st.integers(1, MOST_DAYS))
def test_the_parts_of_a_trend_are_all_days_once_in_their_order(days: int) -> None:
    parts = parts_of(question(days))
    covered = [part.first + timedelta(days=day) for part in parts for day in range(part.days)]
    assert covered == [FIRST + timedelta(days=day) for day in range(days)]
    assert len(parts) <= TREND_PARTS
    assert len({part.days for part in parts[:-1]}) <= 1


@given(st.integers(1, MOST_DAYS))
def test_the_period_before_has_as_many_days_and_ends_the_day_before(days: int) -> None:
    before = period_before(question(days))
    assert (before.days, before.last + timedelta(days=1)) == (days, FIRST)


@pytest.mark.parametrize(
    ("now", "before", "share", "text"),
    [
        (120.0, 100.0, False, "100 in the period before (+20%)"),
        (80.0, 100.0, False, "100 in the period before (\N{MINUS SIGN}20%)"),
        (-50.0, -100.0, False, "\N{MINUS SIGN}100 in the period before (+50%)"),
        (100.0, 100.0, False, "100 in the period before"),
        (5.0, 0.0, False, "0 in the period before"),
        (None, 100.0, False, "100 in the period before"),
        (5.0, None, False, "\N{EN DASH} in the period before"),
        (0.5, 0.25, True, "25% in the period before"),
    ],
)
async def test_a_figure_says_what_it_was_in_the_period_before(
    now: float | None, before: float | None, share: bool, text: str
) -> None:
    async def load(asked: Question) -> float | None:
        return before if asked.last < FIRST else now

    def headlines(value: float | None) -> tuple[Headline, ...]:
        return (Headline("Leads", value, percent if share else number, share=share),)

    (tile,) = await compare(question(30), now, load, headlines)
    assert tile.before == text
    assert 'aria-label="Trend of Leads"' in tile.trend


async def test_a_report_shows_the_period_before_beside_its_figures(settings: Settings) -> None:
    async with marketplace(settings) as market, serve(settings) as api:
        await market.submit(1)
        operator = await signed_in(api, "operator")
        for report in ("routing", "unsold", "speed", "quality"):
            text = (await operator.get(f"/operator/reports/{report}")).text
            assert "in the period before" in text, report
        page = (await operator.get("/operator/reports/speed?by=hour")).text
        assert "Ours, 99%" in page
