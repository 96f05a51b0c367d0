"""Admission under overload: a limit from the workers' measured wait, shared fairly among providers."""

from collections import Counter

import pytest

from marketplace.intake.admission import GROWN, LEAST_PER_SECOND, LONG_STEPS, MEMORY_S, WAIT_HIGH_S, Admission
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


LONG = load(3 * WAIT_HIGH_S)


def calm() -> tuple[Admission, float]:
    """An admission that has seen a quiet second, and the time."""
    admission = Admission()
    return admission, offer(admission, load(0.008), {"a": 200}, 10, 1)[1]


@pytest.mark.parametrize("known", [None, load(0), load(WAIT_HIGH_S)])
def test_while_leads_do_not_wait_long_every_inquiry_is_taken(known: WorkerLoad | None) -> None:
    admission = Admission()
    taken, _ = offer(admission, known, {"a": 1_000}, 10, 1)
    assert taken["a"] == pytest.approx(1_000, abs=2)
    assert admission.limit is None


def test_in_an_overload_what_the_workers_handle_is_taken_and_the_rest_is_refused() -> None:
    admission, now = calm()
    _, now = offer(admission, LONG, {"a": 600}, now, LONG_STEPS * 0.1)
    taken, _ = offer(admission, LONG, {"a": 600}, now, 0.3)
    assert 0.6 * 0.3 * 200 <= taken["a"] <= 0.3 * 200 + 20


def test_a_few_long_waits_refuse_nothing() -> None:
    admission, now = calm()
    for _ in range(5):
        taken, now = offer(admission, LONG, {"a": 600}, now, (LONG_STEPS - 1) * 0.1)
        assert taken["a"] == pytest.approx((LONG_STEPS - 1) * 60, abs=2)
        taken, now = offer(admission, load(0.008), {"a": 600}, now, 0.1)
        assert taken["a"] == pytest.approx(60, abs=2)


def test_a_wait_that_stays_long_lowers_the_limit_to_half_of_what_is_handled_and_no_further() -> None:
    admission, now = calm()
    _, now = offer(admission, LONG, {"a": 600}, now, 7)
    taken, _ = offer(admission, LONG, {"a": 600}, now, 2)
    assert taken["a"] == pytest.approx(200, rel=0.05)


def test_on_a_slow_machine_a_wait_that_is_always_long_refuses_nothing() -> None:
    admission = Admission()
    _, now = offer(admission, LONG, {"a": 20}, 10, 2)
    taken, now = offer(admission, load(0.9 * GROWN * LONG.waited_s), {"a": 20}, now, 5)
    assert taken["a"] == pytest.approx(100, abs=2)


def test_a_wait_that_does_not_fall_with_the_limit_is_the_machines_own_after_a_while() -> None:
    admission, now = calm()
    _, now = offer(admission, LONG, {"a": 30}, now, MEMORY_S + 5)
    taken, _ = offer(admission, LONG, {"a": 30}, now, 2)
    assert taken["a"] == pytest.approx(60, abs=2)


def test_some_are_taken_even_when_workers_handle_nothing() -> None:
    admission = Admission()
    stuck = load(3 * WAIT_HIGH_S, per_second=0)
    _, now = offer(admission, stuck, {"a": 600}, 10, LONG_STEPS * 0.1)
    taken, _ = offer(admission, stuck, {"a": 600}, now, 4)
    assert taken["a"] == pytest.approx(4 * LEAST_PER_SECOND, abs=3)


@pytest.mark.parametrize("later", [load(WAIT_HIGH_S / 3), None])
def test_after_an_overload_nothing_is_refused_within_five_seconds(later: WorkerLoad | None) -> None:
    admission, now = calm()
    _, now = offer(admission, LONG, {"a": 600}, now, 5)
    _, now = offer(admission, later, {"a": 100}, now, 5)
    taken, _ = offer(admission, later, {"a": 100}, now, 1)
    assert taken["a"] == pytest.approx(100, abs=2)


def test_between_the_two_waits_the_limit_stays() -> None:
    admission, now = calm()
    _, now = offer(admission, LONG, {"a": 600}, now, 1)
    limit = admission.limit
    offer(admission, load(0.8 * WAIT_HIGH_S), {"a": 600}, now, 3)
    assert admission.limit == limit


def test_a_provider_below_its_share_is_not_refused_and_the_others_have_what_it_leaves() -> None:
    admission, now = calm()
    rates = {"large": 500.0, "larger": 900.0, "small": 20.0}
    _, now = offer(admission, LONG, rates, now, 5)
    taken, _ = offer(admission, LONG, rates, now, 4)
    assert taken["small"] == pytest.approx(4 * 20, abs=2)
    assert sum(taken.values()) == pytest.approx(4 * 100, rel=0.05)
    assert min(taken["large"], taken["larger"]) > 0.3 * 400


def test_a_provider_that_sends_no_more_has_no_share() -> None:
    admission, now = calm()
    _, now = offer(admission, LONG, {"a": 600, "b": 600}, now, 5)
    taken, _ = offer(admission, LONG, {"a": 600}, now + 1, 3)
    assert taken["a"] == pytest.approx(3 * 100, rel=0.05)


def test_an_unknown_key_is_never_refused_before_it_was_looked_up() -> None:
    admission, now = calm()
    _, now = offer(admission, LONG, {"a": 600}, now, 5)
    assert admission.refuses("key of a", now)
    assert not admission.refuses("key of nobody", now)


def test_the_waits_of_a_long_overload_do_not_raise_the_bound() -> None:
    """A queue of 200 a second, to which three times as many are offered for two minutes."""
    admission, now = calm()
    backlog, longest = 0.0, 0.0
    for second in range(1_200):
        waited_s = 0.008 + backlog / 200
        taken, now = offer(admission, load(waited_s), {"a": 600}, now, 0.1)
        backlog = max(0.0, backlog + taken["a"] - 20)
        if second > 50:
            longest = max(longest, waited_s)
    assert longest < WAIT_HIGH_S + 0.15
