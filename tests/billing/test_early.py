"""Early share won of a business with few leads, from its own leads and those of its vertical."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from billing.early import early_share, posterior, win_priors
from billing.evidence import LeadOrigin
from billing.outcomes import LeadColumns, LeadOutcome, leads_of

NOW = datetime(2026, 11, 22, tzinfo=UTC)
WINS = (2, 4, 6, 8, 10, 12, 14, 16, 18, 20)
"Of 100 leads each: 11 % on average."


def bought(business: str, leads: int, wins: int, weeks: int = 20) -> list[LeadOutcome]:
    """Return leads of that age, of which some were won in their third week and the others contacted."""
    received = NOW - timedelta(weeks=weeks)
    won_at = received + timedelta(weeks=2, hours=1)
    return [
        LeadOutcome(
            source=LeadOrigin.exclusive,
            business=business,
            received_at=received,
            observed_until=NOW,
            cost_minor=8_000,
            contacted_at=received,
            won_at=won_at if number < wins else None,
            won_minor=1 if number < wins else 0,
        )
        for number in range(leads)
    ]


def columns(outcomes: list[LeadOutcome]) -> LeadColumns:
    return leads_of(
        outcomes, {name: number for number, name in enumerate(sorted({each.business for each in outcomes}))}
    )


def others(businesses: int = 10) -> LeadColumns:
    return columns([lead for number, wins in enumerate(WINS[:businesses]) for lead in bought(f"b{number}", 100, wins)])


def test_without_own_leads_it_is_the_share_of_the_vertical_with_how_far_businesses_are_apart() -> None:
    early = early_share(columns([]), others())
    assert early is not None
    assert (early.leads, early.wins, early.own_part, early.businesses) == (0, 0, 0.0, 10)
    assert early.others_share == pytest.approx(0.11)
    assert early.share.value == pytest.approx(0.11, rel=0.06)
    assert early.share.low is not None
    assert early.share.high is not None
    assert early.share.low < 0.04 < 0.2 < early.share.high  # as far apart as the businesses are
    assert early.sentence.startswith(
        "An early figure: 10 other businesses in this vertical won 11% of their exclusive leads. Until you report"
    )


def test_own_leads_move_it_to_the_own_share() -> None:
    few, many = (early_share(columns(bought("own", leads, leads // 5)), others()) for leads in (20, 5_000))
    assert few is not None
    assert many is not None
    assert 0.11 < few.share.value < many.share.value
    assert many.share.value == pytest.approx(0.2, rel=0.02)
    assert 0 < few.own_part < 0.7 < 0.97 < many.own_part
    assert "With what is known of your own 20, 4 won so far, your share is most likely between " in few.sentence


def test_a_young_lead_counts_as_the_part_that_its_age_shows() -> None:
    """All wins of the others come in the third week: two weeks say nothing, three say as much as twenty."""
    young, old, oldest = (early_share(columns(bought("own", 50, 0, weeks)), others()) for weeks in (2, 3, 20))
    assert young is not None
    assert old is not None
    assert oldest is not None
    assert young.own_part == 0
    assert old.share == oldest.share
    assert old.share.value < young.share.value


def test_with_fewer_than_eight_other_businesses_nothing_is_borrowed() -> None:
    assert early_share(columns(bought("own", 20, 3)), others(7)) is None
    assert early_share(columns(bought("own", 20, 3)), others(8)) is not None
    assert early_share(columns(bought("own", 20, 3)), columns([])) is None


def test_businesses_that_are_alike_say_more_of_a_new_one_than_those_that_are_not() -> None:
    leads = np.full(20, 200.0)
    alike, unlike = (win_priors(leads, wins) for wins in (np.full(20, 30.0), np.tile([10.0, 50.0], 10)))
    widths = []
    for priors in (alike, unlike):
        share, _ = posterior(priors, 0.0, 0.0)
        assert share.value == pytest.approx(0.15, abs=0.01)
        widths.append((share.high or 0) - (share.low or 0))
    assert widths[1] > 3 * widths[0]
