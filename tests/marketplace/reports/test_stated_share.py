"""The cost and the share won that somebody states of shared leads: one rule for the interface and the page."""

import pytest

from marketplace.reports.roi import ShareFault, StatedShare


@pytest.mark.parametrize(
    ("cost", "rate", "leads", "won", "weeks", "fault", "share"),
    [
        (None, None, None, None, None, None, None),
        (3_000, 0.1, None, None, None, None, 0.1),
        (3_000, None, 200, 10, 13, None, 0.05),
        (None, None, 200, 10, 13, ("shared_cost_minor", ShareFault.missing), 0.05),
        (None, 0.1, None, None, None, ("shared_cost_minor", ShareFault.missing), 0.1),
        (3_000, None, None, None, None, ("shared_win_rate", ShareFault.missing), None),
        (3_000, None, 200, None, 13, ("shared_won", ShareFault.missing), None),
        (3_000, None, 200, 10, None, ("shared_weeks", ShareFault.missing), 0.05),
        (3_000, 0.05, 200, 10, 13, ("shared_win_rate", ShareFault.stated_twice), 0.05),
        (3_000, None, 200, 201, 13, ("shared_won", ShareFault.too_many_won), 201 / 200),
    ],
)
def test_a_stated_share_is_whole_or_names_its_first_fault(
    cost: int | None,
    rate: float | None,
    leads: int | None,
    won: int | None,
    weeks: int | None,
    fault: tuple[str, ShareFault] | None,
    share: float | None,
) -> None:
    stated = StatedShare(
        shared_cost_minor=cost, shared_win_rate=rate, shared_leads=leads, shared_won=won, shared_weeks=weeks
    )
    assert (stated.fault(), stated.win_rate) == (fault, share)
