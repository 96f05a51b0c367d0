"""Command and page of the benchmarks: parts, keys, and a page that leaves no figure out."""

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks import machine, page
from benchmarks.command import FULL, PARTS, QUICK, QUICK_PARTS, choose_parts, choose_sizes
from benchmarks.end_to_end import RATES, summary_lines
from benchmarks.figures import compare_rounds
from benchmarks.load import Answer, LeadTimes, summarise

ANSWER = Answer(due=0.0, sent=0.001, answered=0.004, status=202, id="lead_a")
TIMES = LeadTimes(received_at=0.002, settled_at=0.012, queue_ms=1.0, receiver_ms=2.0)


def step_figures() -> dict[str, Any]:
    cpu = {"api": 0.001, "workers": 0.002, "postgres": 0.003, "valkey": 0.0004}
    return {**summarise([ANSWER], {"lead_a": TIMES}, {"lead_a": 0.01}, cpu), "open_after": 0, "others_cpu_share": 0.01}


def sample_figures() -> dict[str, Any]:
    """Return figures of a run with every part, with the keys that the parts give."""
    step = compare_rounds([step_figures()] * 3, [step_figures()] * 3)
    memory = compare_rounds([{"api": 80.0}], [{"api": 40.0}])
    highest = compare_rounds([{"rate": 187.5, **step_figures()}], [{"rate": 468.8, **step_figures()}])
    return {
        "schema": 1,
        "quick": False,
        "at": "2026-11-30T04:00:00+00:00",
        "took_seconds": 2_222.0,
        "machine": machine.describe(),
        "end_to_end": {
            "took_seconds": 601.0,
            "rounds": 3,
            "seconds_per_rate": 10.0,
            "verify_findings": 0,
            "first_to_steady_p99": {"ours": 3.21, "floor": 1.23},
            "first_seconds": step,
            "rates": {str(rate): step for rate in RATES},
            "memory_megabytes": memory,
            "all_rounds": {},
        },
        "highest_rate": {"rounds": 1, "seconds": 60.0, **highest},
        "overload": {
            "offered_rate": 562.5,
            "accepted_rate": 171.3,
            "statuses": {"202": 10_278, "503": 23_472},
            "after_windows_p99_ms": [817.1, 31.4, None],
            "normal_after_seconds": 5.0,
        },
        "growth": {
            "0": {"database_gigabytes": 0.081, "pages_p50_ms": {"/business": 4.7}},
            "1000000": {"database_gigabytes": 3.21, "pages_p50_ms": {"/business": 6.2}},
            "ratio_1000000": {"database_gigabytes": 39.63, "pages_p50_ms": {"/business": 1.32}},
        },
        "fan_out": {
            "receivers": 1_000,
            "within_target": True,
            "some_broken": {"lost": 0, "healthy_accepted_to_acknowledged_ms": {"p99": 31.7}},
            "ratio": {"healthy_accepted_to_acknowledged_ms": {"p99": 1.08}},
        },
        "match": {"1000": {"candidates_mean": 3.14}, "1000000": {"candidates_mean": 47.11, "build_seconds": 28.25}},
        "refresh": {"100000": {"visible_ms": {"p50": 4_321.5, "max": 4_400.0}, "stall_ms": {"p50": 2_381.0}}},
        "award": {"alone_per_s": 2_718.2, "race_answers": {"won": 8_123, "capped": 71_877}, "race_breaches": 0},
        "queue": {
            "marketplace": {"versions": {"arq": "0.28.0"}, "pickup_ms": {"p50": 1.61}, "recovery_seconds": 30.1},
            "saq": {"left_out": "the registry did not answer"},
        },
    }


def missing_figures(figures: Mapping[str, Any], text: str) -> list[str]:
    """Return the words of the figures whose value is nowhere in the text."""
    return [words for words, value in page.leaves(figures) if page.cell(value) not in text]


def test_the_page_has_every_figure_of_every_part() -> None:
    figures = sample_figures()
    assert set(PARTS) <= figures.keys()
    text = page.write(figures)
    shown = {name: part for name, part in figures.items() if name in PARTS}
    for part in shown.values():
        part.pop("took_seconds", None)
    assert missing_figures(shown, text) == []
    assert missing_figures({"machine": figures["machine"]["versions"]}, text) == []
    for words, _ in page.leaves(step_figures()):
        assert f"| {words} |" in text, words
    assert "quick run" not in text


def test_a_part_that_was_not_measured_has_no_heading() -> None:
    figures = sample_figures()
    del figures["queue"], figures["end_to_end"]
    text = page.write(figures)
    assert "## Queues" not in text
    assert "## End to end" not in text
    assert "## Awards" in text


def test_the_page_of_a_quick_run_says_so() -> None:
    assert "**A quick run" in page.write(sample_figures() | {"quick": True})


def test_each_figure_is_printed_beside_the_bare_pipelines_with_the_lateness_of_the_sender() -> None:
    step = sample_figures()["end_to_end"]["rates"]["100"]
    ours, floor, ratio = summary_lines("100/s", step).splitlines()
    assert "ours  p50 10.0  p99 10.0  (own 7.0  queue 1.0  receiver 2.0)" in ours
    assert "sender late p99 1.0  others' share 1%" in ours
    assert "floor  p50 10.0" in floor
    assert "ratio  p50 1.0" in ratio


@pytest.mark.parametrize(
    ("only", "quick", "expected"),
    [
        ("", False, PARTS),
        ("", True, QUICK_PARTS),
        ("award,end_to_end", True, ("end_to_end", "award")),
        ("overload", True, ("overload",)),
    ],
    ids=["all", "quick", "in their order", "named beats quick"],
)
def test_parts_are_those_named_or_the_usual_ones(only: str, quick: bool, expected: tuple[str, ...]) -> None:
    assert choose_parts(only, quick=quick) == expected


def test_an_unknown_part_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no part speed"):
        choose_parts("speed", quick=False)


def test_a_full_run_has_five_rounds_and_a_quick_one_fewer() -> None:
    assert FULL.end_to_end.rounds >= 5 > QUICK.end_to_end.rounds
    assert FULL.end_to_end.rates == QUICK.end_to_end.rates == (10, 50, 100, 200)


def test_leads_are_stored_beside_none() -> None:
    assert choose_sizes("10000000,1000000") == (0, 1_000_000, 10_000_000)
    for text in ("0", "-5", "many"):
        with pytest.raises(ValueError, match=f"not {text}"):
            choose_sizes(text)


def test_the_longest_parts_are_not_in_a_quick_run() -> None:
    assert {"growth", "fan_out"} <= set(PARTS) - set(QUICK_PARTS)
