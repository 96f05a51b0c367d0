"""Times that a vendor's clock wrote, compared with ours."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from marketplace.shared_leads.csv_import import SharedLeadRow, subscription_fault

NOW = datetime(2026, 11, 29, 10, tzinfo=UTC)
ROW = SharedLeadRow(
    number=2, vendor="BigLeads", external_id="A-1", vertical=None, postal_code=None, received_at=NOW, cost_minor=3_500
)


@pytest.mark.parametrize("field", ["received_at", "contacted_at", "lost_at"])
def test_a_clock_a_little_ahead_of_ours_is_no_future(field: str) -> None:
    ahead = msgspec.structs.replace(ROW, **{field: NOW + timedelta(minutes=5)})
    assert subscription_fault(ahead, NOW) is None
    fault = subscription_fault(msgspec.structs.replace(ROW, **{field: NOW + timedelta(minutes=6)}), NOW)
    assert fault is not None
    assert (fault.pointer, fault.code) == (f"/{field}", "in_future")
