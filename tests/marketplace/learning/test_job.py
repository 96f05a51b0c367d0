"""Weekly and daily work: what a card is trained on, what sales are counted, and when a card is suspended."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import psutil
import pytest

from marketplace.learning import flow as learning_flow
from marketplace.learning import job
from marketplace.learning import store as learning_store
from marketplace.learning.apart import TrainingSet, train_apart
from marketplace.learning.drift import DriftAlarm, DriftFigures
from marketplace.learning.evaluation import OutcomeKind
from marketplace.learning.store import LearningVertical
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from routing.expectation import BusinessSales
from tests.builders.learning import a_member, an_evaluation, report, shown_ago, store_card
from tests.builders.marketplaces import Buyer, Marketplace, marketplace, roofing
from tests.receivers import Receiver, ok


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings) as made:
        yield made


async def sold(market: Marketplace, number: int, **age: float) -> UUID:
    lead_id = await market.sold(number)
    await shown_ago(market, lead_id, **age)
    return lead_id


async def give_back(market: Marketplace, lead_id: UUID) -> None:
    await market.owner.execute(
        "insert into return_request (id, assignment_id, lead_id, business_id, reason, state, requested_at, judged_at,"
        " judged_by, finding) select $1, id, lead_id, business_id, 'other', 'granted', exposed_at, exposed_at, 'test',"
        " 'so' from assignment where lead_id = $2",
        clock.new_id(),
        lead_id,
    )


async def story(market: Marketplace, buyer: Buyer) -> dict[str, UUID]:
    """Leads of one business that ended in each way; its last report is of today."""
    leads = {
        "won": await sold(market, 1, weeks=20),
        "won late": await sold(market, 2, weeks=20),
        "lost": await sold(market, 3, weeks=20),
        "returned": await sold(market, 4, weeks=20),
        "silent and old": await sold(market, 5, weeks=20),
        "silent and young": await sold(market, 6, weeks=5, days=1),
    }
    await report(market, leads["won"], "won", 80_000, weeks=17, days=1)
    await report(market, leads["won late"], "won", 40_000, weeks=2)
    await report(market, leads["lost"], "lost", weeks=18, days=1)
    await give_back(market, leads["returned"])
    return leads


async def test_a_card_is_trained_on_what_was_known_at_the_award_and_on_how_long_each_was_followed(
    market: Marketplace,
) -> None:
    async with Receiver(ok) as receiver:
        buyer = await market.buyer(receiver.url)
        leads = await story(market, buyer)
        await market.owner.execute(
            "insert into touch (lead_id, fingerprint, revision, kind, at, recorded_at) "
            "values ($1, '', 1, 'call', now(), now())",
            leads["won"],
        )
        await market.owner.execute("update lead set revision = 1 where id = $1", leads["won"])
    training_set = await job.load_training_set(market.api, market.vertical_id, "roofing", clock.now())
    outcomes = [(lead.outcome.outcome, lead.outcome.weeks) for lead in reversed(training_set.leads)]
    assert outcomes == [
        (OutcomeKind.won, 3), (OutcomeKind.not_won, 13), (OutcomeKind.not_won, 2), (OutcomeKind.not_won, 1),
        (OutcomeKind.not_won, 13), (OutcomeKind.open, 5),
    ]  # fmt: skip
    assert {lead.values["touches"] for lead in training_set.leads} == {1}
    assert {lead.values["business"] for lead in training_set.leads} == {str(buyer.business_id)}
    assert training_set.providers == {str(market.provider.owner): "Example Provider"}


async def test_a_business_that_never_reported_says_nothing_about_its_leads(market: Marketplace) -> None:
    async with Receiver(ok) as receiver:
        await market.buyer(receiver.url)
        await sold(market, 1, weeks=20)
    training_set = await job.load_training_set(market.api, market.vertical_id, "roofing", clock.now())
    assert training_set.leads == ()


async def test_leads_are_followed_only_up_to_the_last_report_of_their_business(market: Marketplace) -> None:
    async with Receiver(ok) as receiver:
        await market.buyer(receiver.url)
        silent, told = await sold(market, 1, weeks=20), await sold(market, 2, weeks=20)
        await report(market, told, "contacted", weeks=14)
        await market.owner.execute("alter table disposition disable trigger all")
        await market.owner.execute("update disposition set recorded_at = happened_at")
    training_set = await job.load_training_set(market.api, market.vertical_id, "roofing", clock.now())
    assert [(lead.outcome.outcome, lead.outcome.weeks) for lead in training_set.leads] == [(OutcomeKind.open, 6)] * 2
    assert silent != told


async def test_sales_are_counted_by_business_and_reach_the_rules(market: Marketplace) -> None:
    async with Receiver(ok) as receiver:
        buyer = await market.buyer(receiver.url)
        await story(market, buyer)
        newcomer = await market.buyer(receiver.url)
    now = clock.now()
    catalog = Catalog(market.worker)
    before = await catalog.current()
    assert before.verticals[market.vertical_id].cards.sales == {}
    await job.count_sales(market.worker, market.vertical_id, now)
    sales = (await catalog.current()).verticals[market.vertical_id].cards
    counted = BusinessSales(leads=6, returned=1, jobs=2, jobs_minor=120_000)
    assert sales.sales == {buyer.business_id: counted, newcomer.business_id: BusinessSales()}
    assert sales.return_share == pytest.approx(1 / 6)
    assert await catalog.is_complete()
    await job.count_sales(market.worker, market.vertical_id, now + timedelta(days=400))
    sales = (await catalog.current()).verticals[market.vertical_id].cards
    assert sales.sales == dict.fromkeys((buyer.business_id, newcomer.business_id), BusinessSales())


# Checks.


def figures(**changes: Any) -> DriftFigures:
    standard = {
        "recent_leads": 500, "shift": 0.01, "features": (), "leads": 500, "expected": 100.0, "won": 100.0,
        "ratio": 1.0, "low": 0.8, "high": 1.2,
    }  # fmt: skip
    return DriftFigures(**{**standard, **changes})


async def rank(market: Marketplace) -> None:
    """Let the first card of the vertical rank, without leads of its own."""
    await store_card(market)
    async with market.api.acquire() as connection:
        member_id = await a_member(market)
        await learning_store.mark_signed_off(
            connection, market.vertical_id, 1, clock.now(), member_id, an_evaluation(), None
        )


@pytest.mark.parametrize(
    ("changes", "alarm"),
    [
        ({}, None),
        ({"shift": 0.26}, DriftAlarm.inputs_shifted),
        ({"low": 1.11, "high": 1.5}, DriftAlarm.calibration_off),
        ({"low": 0.5, "high": 0.89}, DriftAlarm.calibration_off),
    ],
)
async def test_an_alarm_suspends_a_card_that_ranks(
    market: Marketplace, changes: dict[str, float], alarm: DriftAlarm | None
) -> None:
    await rank(market)
    catalog = Catalog(market.worker)
    assert (await catalog.current()).verticals[market.vertical_id].cards.ranking is not None
    assert (
        await learning_flow.record_check(market.worker, market.vertical_id, 1, figures(**changes), clock.now()) is alarm
    )
    cards = (await catalog.current()).verticals[market.vertical_id].cards
    assert (cards.ranking is None) == (alarm is not None)
    state = await market.row("select state, suspended_for from scorecard")
    assert state == {"state": "suspended" if alarm else "ranking", "suspended_for": alarm}
    audited = await market.owner.fetch("select actor, detail from audit where action = 'scorecard.suspend'")
    assert [row["actor"] for row in audited] == (["marketplace"] if alarm else [])
    if alarm:
        assert msgspec.json.decode(audited[0]["detail"])["reason"] == alarm
        resumed = await learning_flow.resume(market.api, "test", "roofing", 1, "The leads are as before.")
        assert (resumed.state, resumed.suspended_for) == ("ranking", None)


async def test_an_alarm_about_a_card_in_shadow_is_stored_and_changes_nothing(market: Marketplace) -> None:
    await store_card(market)
    alarming = figures(shift=1.0)
    assert await learning_flow.record_check(market.worker, market.vertical_id, 1, alarming, clock.now()) is None
    assert await market.value("select state from scorecard") == "shadow"
    assert await market.value("select alarm from scorecard_check") == "inputs_shifted"


async def test_a_computed_card_is_checked_each_week(market: Marketplace) -> None:
    async with Receiver(ok) as receiver:
        await market.buyer(receiver.url)
        await store_card(market)
        won = await sold(market, 1, weeks=20)
        await report(market, won, "won", 80_000, weeks=19)
    now = clock.now()
    for later, checks in ((timedelta(days=6), 0), (timedelta(days=8), 1), (timedelta(days=9), 1)):
        async with market.worker.acquire() as connection:
            cards = await learning_store.list_computed(connection)
        for card in cards:
            if job.is_check_due(card, now + later):
                await job.check_card(market.worker, card, now + later)
        assert await market.value("select count(*) from scorecard_check") == checks
    async with market.api.acquire() as connection:
        [check] = await learning_store.list_checks(connection, market.vertical_id, 1, 10)
    assert (check.figures.recent_leads, check.figures.leads, check.alarm) == (1, 1, None)


@pytest.mark.parametrize(
    ("age_days", "has_shadow", "due"), [(None, False, True), (6, False, False), (8, False, True), (8, True, False)]
)
def test_a_card_is_trained_each_week_unless_one_is_in_shadow(age_days: int | None, has_shadow: bool, due: bool) -> None:
    now = clock.now()
    vertical = LearningVertical(
        id=clock.new_id(),
        slug="roofing",
        trained_at=None if age_days is None else now - timedelta(days=age_days),
        has_shadow=has_shadow,
        counted_at=None,
    )
    assert job.is_training_due(vertical, now) == due


async def test_one_worker_at_a_time_does_the_work(market: Marketplace) -> None:
    async with market.worker.acquire() as first, market.worker.acquire() as second:
        assert await learning_store.take_pass(first)
        assert not await learning_store.take_pass(second)
        await learning_store.end_pass(first)
        assert await learning_store.take_pass(second)
        await learning_store.end_pass(second)


async def test_a_training_is_killed_when_its_worker_stops() -> None:
    stopping = asyncio.Event()
    training_set = TrainingSet(vertical="roofing", definition=roofing(), providers={}, businesses={}, leads=())
    started = clock.monotonic()
    work = asyncio.create_task(job.unless(stopping, _train(training_set)))
    await asyncio.sleep(0.05)
    stopping.set()
    await work
    assert clock.monotonic() - started < 5
    assert await children() == []


async def _train(training_set: TrainingSet) -> None:
    await train_apart(training_set)


async def children() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "marketplace.learning.apart" in child.cmdline()]
