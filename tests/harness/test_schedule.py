"""The seed decides which fault comes when; the report adds up what they did."""

from datetime import UTC, datetime, timedelta
from itertools import islice

from tests.harness.kinds_of_faults import KILLS, OTHERS
from tests.harness.report import Phases, latencies, recoveries
from tests.harness.schedule import Fault, deal

START = datetime(2026, 11, 21, 10, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_the_same_seed_deals_the_same_faults_and_another_seed_others() -> None:
    first, same, other = (
        [(kind.name, pause, seed) for kind, pause, seed in islice(deal(KILLS, 5.0, seed), 50)] for seed in (1, 1, 2)
    )
    assert first == same
    assert first != other


def test_half_an_hour_has_three_hundred_kills_and_every_kind_of_fault() -> None:
    for deck, pace in ((KILLS, 5.0), (OTHERS, 4.0)):
        seconds, kinds = 0.0, []
        for kind, pause, _ in deal(deck, pace, seed=1):
            seconds += pause
            if seconds > 1_740:
                break
            kinds.append(kind.name)
        assert len(kinds) > 300
        assert set(kinds) == {kind.name for kind in deck}


def test_recovery_runs_from_the_end_of_a_fault_to_the_first_delivery_of_something_newer() -> None:
    fault = Fault(kind="kill", kills=True, began=at(1), ended=at(2))
    delivered = [(at(1.5), at(2.1)), (at(2.5), at(9)), (at(3), at(4))]
    recovery = recoveries([fault], delivered)["kill"]
    assert (recovery.p50, recovery.max, recovery.outage_p50) == (2.0, 2.0, 1.0)


def test_latency_belongs_to_the_phase_in_which_the_inquiry_was_submitted() -> None:
    phases = Phases(began=at(0), valkey_left=at(10), faults_began=at(20), faults_ended=at(30), ended=at(40))
    delivered = [(at(5), at(5.05)), (at(15), at(16)), (at(25), at(35)), (at(35), at(35.1))]
    spreads = latencies([], delivered, [(at(36), at(40))], phases)
    assert {name: spread.p50 for name, spread in spreads.items()} == {
        "before": 50.0,
        "without Valkey": 1_000.0,
        "during": 10_000.0,
        "after": 100.0,
        "after, from a feed": 4_000.0,
    }
