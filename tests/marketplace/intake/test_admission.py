"""Admission under overload: a limit from the workers' measured wait, shared fairly among providers."""

from collections import Counter

import pytest

from marketplace.intake.admission import LEAST_PER_SECOND, WAIT_HIGH_S, WAIT_LOW_S, Admission
from marketplace.runtime.queue import WorkerLoad

STEP = 0.001


def offer(
    admission: Admission, load: WorkerLoad | None, rates: dict[str, float], since: float, seconds: float
) -> tuple[Counter[str], float]:
    """Offer inquiries of each provider at its rate, evenly; return the number taken of each, and the time."""
    taken: Counter[str] = Counter()
    owed = dict.fromkeys(rates, 0.0)
    now = since
    while now < since + seconds:
        now += STEP
        for provider, rate in rates.items():
            owed[provider] += rate * STEP
            while owed[provider] >= 1:
                owed[provider] -= 1
                admission.see(load, now)
                if not admission.refuses(f"key of {provider}", now):
                    taken[provider] += admission.take(provider, f"key of {provider}", now)
    return taken, now


def load(waited_s: float, per_second: float = 200) -> WorkerLoad:
    return WorkerLoad(waited_s=waited_s, per_second=per_second)


@pytest.mark.parametrize("known", [None, load(0), load(WAIT_HIGH_S)])
def test_while_leads_do_not_wait_long_every_inquiry_is_taken(known: WorkerLoad | None) -> None:
    admission = Admission()
    taken, _ = offer(admission, known, {"a": 1_000}, 10, 1)
    assert taken["a"] == pytest.approx(1_000, abs=2)
    assert admission.limit is None


def test_in_an_overload_what_the_workers_handle_is_taken_and_the_rest_is_refused() -> None:
    admission = Admission()
    _, now = offer(admission, load(0), {"a": 600}, 10, 1)
    taken, _ = offer(admission, load(2 * WAIT_HIGH_S), {"a": 600}, now, 0.3)
    assert 0.8 * 0.3 * 200 <= taken["a"] <= 0.3 * 200 + 20


def test_a_wait_that_stays_long_lowers_the_limit_to_half_of_what_is_handled_and_no_further() -> None:
    admission = Admission()
    _, now = offer(admission, load(2 * WAIT_HIGH_S), {"a": 600}, 10, 10)
    taken, _ = offer(admission, load(2 * WAIT_HIGH_S), {"a": 600}, now, 2)
    assert taken["a"] == pytest.approx(200, rel=0.05)


def test_some_are_taken_even_when_workers_handle_nothing() -> None:
    admission = Admission()
    taken, _ = offer(admission, load(2 * WAIT_HIGH_S, per_second=0), {"a": 600}, 10, 4)
    assert taken["a"] == pytest.approx(4 * LEAST_PER_SECOND, abs=3)


@pytest.mark.parametrize("calm", [load(WAIT_LOW_S / 2), None])
def test_after_an_overload_nothing_is_refused_within_five_seconds(calm: WorkerLoad | None) -> None:
    admission = Admission()
    _, now = offer(admission, load(2 * WAIT_HIGH_S), {"a": 600}, 10, 5)
    _, now = offer(admission, calm, {"a": 100}, now, 5)
    taken, _ = offer(admission, calm, {"a": 100}, now, 1)
    assert taken["a"] == pytest.approx(100, abs=2)


def test_between_the_two_waits_the_limit_stays() -> None:
    admission = Admission()
    _, now = offer(admission, load(2 * WAIT_HIGH_S), {"a": 600}, 10, 1)
    limit = admission.limit
    offer(admission, load((WAIT_LOW_S + WAIT_HIGH_S) / 2), {"a": 600}, now, 3)
    assert admission.limit == limit


def test_a_provider_below_its_share_is_not_refused_and_the_others_have_what_it_leaves() -> None:
    admission = Admission()
    rates = {"large": 500.0, "larger": 900.0, "small": 20.0}
    _, now = offer(admission, load(2 * WAIT_HIGH_S), rates, 10, 10)
    taken, _ = offer(admission, load(2 * WAIT_HIGH_S), rates, now, 5)
    assert taken["small"] == pytest.approx(5 * 20, abs=2)
    assert sum(taken.values()) == pytest.approx(5 * 100, rel=0.05)
    assert min(taken["large"], taken["larger"]) > 0.3 * 500


def test_a_provider_that_sends_no_more_has_no_share() -> None:
    admission = Admission()
    _, now = offer(admission, load(2 * WAIT_HIGH_S), {"a": 600, "b": 600}, 10, 10)
    taken, _ = offer(admission, load(2 * WAIT_HIGH_S), {"a": 600}, now + 2, 5)
    assert taken["a"] == pytest.approx(5 * 100, rel=0.05)


def test_an_unknown_key_is_never_refused_before_it_was_looked_up() -> None:
    admission = Admission()
    _, now = offer(admission, load(2 * WAIT_HIGH_S), {"a": 600}, 10, 10)
    assert admission.refuses("key of a", now)
    assert not admission.refuses("key of nobody", now)
