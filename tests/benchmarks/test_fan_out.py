"""Many receivers: a world in which some are broken, and the counts of what became of the leads."""

from uuid import UUID

import pytest

from benchmarks import fan_out
from benchmarks.fan_out import BROKEN, PER_AREA, FanOutPlan, RoutedLead, summarise_leads, wide_world
from marketplace.demo.world import Behaviour

HEALTHY, BROKEN_ONE = UUID(int=1), UUID(int=2)


@pytest.mark.slow
async def test_no_lead_is_lost_when_some_receivers_are_broken() -> None:
    plan = FanOutPlan(receivers=20, rate=15.0, seconds=1.5, warm_up_seconds=0.3, workers=1)
    figures = await fan_out.measure_world(plan, wide_world(20, broken=True))
    assert figures["sent"] == figures["accepted"] > 10
    assert figures["waiting_at_broken"] + figures["moved_to_another"] > 0
    assert figures["healthy_leads"] >= figures["delivered"] - figures["moved_to_another"] > 0
    assert set(figures["first_at"]) - {Behaviour.takes} <= set(BROKEN)
    assert (figures["lost"], figures["verify_findings"]) == (0, 0)


def test_the_target_is_on_the_p99_of_healthy_receivers() -> None:
    def figures(p99: float | None) -> dict[str, dict[str, float | None]]:
        return {"healthy_accepted_to_acknowledged_ms": {"p50": 10.0, "p99": p99}}

    compared = fan_out.compare(figures(20.0), figures(24.0))
    assert compared["ratio"]["healthy_accepted_to_acknowledged_ms"] == {"p50": 1.0, "p99": 1.2}
    assert compared["within_target"]
    assert not fan_out.compare(figures(20.0), figures(24.1))["within_target"]
    assert not fan_out.compare(figures(20.0), figures(None))["within_target"]


@pytest.mark.parametrize("receivers", [20, 1_000])
def test_one_in_twenty_is_broken_in_each_way_and_every_area_has_healthy_ones(receivers: int) -> None:
    businesses = wide_world(receivers, broken=True).businesses
    broken = [business for business in businesses if business.behaviour is not Behaviour.takes]
    assert len(broken) == max(3, receivers // 20)
    assert {business.behaviour for business in broken} == set(BROKEN)
    areas = [businesses[start : start + PER_AREA] for start in range(0, receivers, PER_AREA)]
    assert all(len({business.definition.area for business in area}) == 1 for area in areas)
    assert all(sum(business in broken for business in area) <= 1 for area in areas)


def test_all_postal_codes_have_an_area() -> None:
    world = wide_world(20, broken=False)
    served = {code for business in world.businesses for code in business.definition.area.postal_codes}
    assert served == {code for codes in world.homes.values() for code in codes}
    assert {business.behaviour for business in world.businesses} == {Behaviour.takes}


def lead(state: str, *businesses: UUID, took: float | None = None) -> RoutedLead:
    settled_at = None if took is None else 100.0 + took
    return RoutedLead(state=state, businesses=businesses, received_at=100.0, settled_at=settled_at)


def test_leads_of_broken_receivers_do_not_count_as_those_of_healthy_ones() -> None:
    leads = [
        lead("delivered", HEALTHY, took=0.02),
        lead("delivered", BROKEN_ONE, HEALTHY, took=6.0),
        lead("exposed", BROKEN_ONE),
        lead("rejected"),
    ]
    figures = summarise_leads(leads, lead_count=4, broken={BROKEN_ONE})
    assert figures["healthy_accepted_to_acknowledged_ms"] == {"p50": 20.0, "p95": 20.0, "p99": 20.0}
    assert figures["moved_accepted_to_acknowledged_ms"]["p50"] == 6_000
    counts = ("delivered", "healthy_leads", "moved_to_another", "waiting_at_broken", "without_business", "lost")
    assert [figures[key] for key in counts] == [2, 1, 1, 1, 1, 0]


def test_a_lead_is_lost_that_is_not_stored_or_open_at_a_healthy_business() -> None:
    leads = [lead("exposed", HEALTHY), lead("held", BROKEN_ONE), lead("received")]
    assert summarise_leads(leads, lead_count=5, broken={BROKEN_ONE})["lost"] == 5
