"""Open-loop load: times and bodies that are fixed before the start, and the figures of a step."""

from datetime import UTC, datetime
from itertools import islice, pairwise

import msgspec

from benchmarks.load import Answer, LeadTimes, Phase, encode_arrival, plan_times, ready_only, summarise
from benchmarks.systems import SEED, calm_world
from marketplace.demo.people import DraftKind, People
from marketplace.demo.verticals import EDUCATION, HOME

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)


def test_arrivals_are_fixed_by_the_seed_and_come_at_random() -> None:
    phases = [Phase(rate=100, seconds=4), Phase(rate=25, seconds=4)]
    times = plan_times(phases, "1")
    assert times == plan_times(phases, "1") != plan_times(phases, "2")
    busy, calm = times
    assert 320 < len(busy) < 480
    assert 60 < len(calm) < 140
    assert 0 < busy[0] < busy[-1] < 4 <= calm[0] < calm[-1] < 8
    gaps = [later - earlier for earlier, later in pairwise(busy)]
    assert max(gaps) > 3 * sum(gaps) / len(gaps), "independent arrivals come in bursts"


def test_a_body_names_the_time_at_which_it_is_due() -> None:
    [draft] = islice(ready_only(People(calm_world(), SEED, 3, {HOME: HOME, EDUCATION: EDUCATION})), 1)
    arrival = encode_arrival(draft, 1.5, NOW, "1")
    assert msgspec.json.decode(arrival.body)["submitted_at"] == "2026-11-23T18:00:01.500000Z"


def test_only_flawless_inquiries_are_sent() -> None:
    drafts = ready_only(People(calm_world(), SEED, 3, {HOME: HOME, EDUCATION: EDUCATION}))
    assert {next(drafts).kind for _ in range(200)} == {DraftKind.ready}


def test_latency_counts_from_when_a_request_was_due_although_it_was_sent_late() -> None:
    answers = [
        Answer(due=100.0, sent=100.5, answered=100.6, status=202, id="lead_a"),
        Answer(due=101.0, sent=101.0, answered=101.1, status=503),
    ]
    times = {"lead_a": LeadTimes(received_at=100.55, settled_at=100.75, queue_ms=20.0, receiver_ms=30.0)}
    step = summarise(answers, times, {"lead_a": 100.7}, {"api": 0.01, "workers": 0.02})
    assert (step["sent"], step["accepted"], step["delivered"], step["not_accepted"]) == (2, 1, 1, 1)
    assert step["due_to_receipt_ms"]["p50"] == 700
    assert step["accepted_to_acknowledged_ms"]["p50"] == 200
    assert step["own_ms"]["p50"] == 150
    assert step["sender_late_ms"]["max"] == 500
    assert step["cpu_ms_per_lead"] == {"api": 10, "workers": 20, "total": 30}
