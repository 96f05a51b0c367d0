from datetime import UTC, datetime, timedelta

import pytest

from marketplace.demo.verticals import EDUCATION, HOME
from marketplace.demo.world import METROS, Behaviour, DemoBusiness, DemoWorld, draw_world
from marketplace.rules.hours import check_hours, compile_hours
from routing.subscription import validate

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def world() -> DemoWorld:
    return draw_world(2026, NOON)


def is_open(business: DemoBusiness, now: datetime) -> bool:
    hours = business.definition.hours
    if hours is None:
        return True
    return any(start <= now.timestamp() < end for start, end in compile_hours(hours, now))


def test_the_same_seed_and_moment_draw_the_same_world(world: DemoWorld) -> None:
    assert draw_world(2026, NOON) == world
    assert draw_world(2027, NOON).businesses != world.businesses


def test_every_subscription_of_the_demo_could_be_saved(world: DemoWorld) -> None:
    for business in world.businesses:
        needs = world.verticals[business.vertical].needs
        assert validate(business.definition, needs) == ()
        assert business.definition.hours is None or check_hours(business.definition.hours) is None


def test_businesses_have_names_that_say_they_are_invented(world: DemoWorld) -> None:
    assert len({business.slug for business in world.businesses}) == 37
    assert all(business.name.startswith("Demo ") for business in world.businesses)


def test_every_way_to_be_difficult_is_there_once(world: DemoWorld) -> None:
    odd = [business.behaviour for business in world.businesses if business.behaviour is not Behaviour.takes]
    assert sorted(odd) == sorted(set(Behaviour) - {Behaviour.takes, Behaviour.hangs, Behaviour.busy})
    assert sum(business.paused for business in world.businesses) == 1
    assert sum(business.funded_leads is not None for business in world.businesses) == 1


@pytest.mark.parametrize("hour", range(0, 24, 3))
def test_most_businesses_are_open_and_some_closed_at_whatever_hour_the_demo_starts(hour: int) -> None:
    now = NOON.replace(hour=hour, minute=47)
    businesses = draw_world(7, now).businesses
    for moment in (now, now + timedelta(minutes=30)):
        closed = [business for business in businesses if not is_open(business, moment)]
        assert {business.vertical for business in closed} == {HOME, EDUCATION}
        assert len(closed) == 2


def test_people_live_where_businesses_work_and_some_where_none_does(world: DemoWorld) -> None:
    assert set(world.homes) == {metro.city for metro in METROS}
    assert all(len(codes) > 50 for codes in world.homes.values())
    assert not set(world.far) & {code for codes in world.homes.values() for code in codes}
