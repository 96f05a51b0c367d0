"""Estimates and intervals of the comparison with shared leads, against scipy and simulated marketplaces."""

import math
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from benchmarks.roi_coverage import FIGURES, Setting, coverage, effects, side
from billing.estimates import Estimator
from billing.evidence import LeadOrigin
from billing.intervals import amount, freedom_of, pooled_freedom, resample, share
from billing.lifetable import WEEKS, Cells, cells_of, per_lead, tables_of
from billing.outcomes import LeadOutcome, tabulate
from billing.quantiles import beta_quantile, t_quantile

WEEK = timedelta(weeks=1)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
SEED = 20_261_122


@pytest.fixture(scope="module")
def st() -> Any:
    """scipy.stats. Its import takes over a second, in every process of a run if the module did it."""
    return import_module("scipy.stats")


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.5, 40.5), (3.5, 97.5), (12.2, 8.9), (6_000.5, 94_000.5)])
@pytest.mark.parametrize("p", [0.025, 0.5, 0.975])
def test_the_quantile_of_a_beta_is_scipys(st: Any, a: float, b: float, p: float) -> None:
    assert beta_quantile(p, a, b) == pytest.approx(st.beta.ppf(p, a, b), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("freedom", [1, 2, 6.5, 13, 60, 2_000])
def test_the_quantile_of_students_t_is_scipys(st: Any, freedom: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(st.t.ppf(0.975, freedom), rel=1e-8)


def leads(count: int, *, businesses: int = 1, seed: int = 3) -> list[LeadOutcome]:
    """Return leads of any age, of which a quarter are won sooner or later."""
    chance = np.random.default_rng(seed)
    outcomes = []
    for number in range(count):
        age, win = float(chance.uniform(0, 20)), float(chance.uniform(0, 15))
        won = bool(chance.random() < 0.25) and win < age
        outcomes.append(
            LeadOutcome(
                source=LeadOrigin.exclusive,
                business=f"b{number % businesses}",
                received_at=NOW - age * WEEK,
                observed_until=NOW,
                cost_minor=8_000,
                won_at=NOW + (win - age) * WEEK if won else None,
                won_minor=int(chance.integers(10_000, 90_000)) if won else 0,
                contacted_at=NOW - age * WEEK,
            )
        )
    return outcomes


def test_the_life_table_is_scipys_survival_function_under_censoring(st: Any) -> None:
    cells = tabulate(leads(400)).exclusive.won
    repeats = cells.leads.astype(int)
    # Discrete: a lead censored after so many whole weeks was at risk in all of them; ties go to the event first.
    won = np.repeat(np.where(cells.happened, cells.weeks, 0), repeats)
    open_for = np.repeat(np.where(cells.happened, 0, cells.weeks), repeats)
    data = st.CensoredData(uncensored=won[won > 0], right=open_for[won == 0])
    surviving = st.ecdf(data).sf.evaluate(np.arange(1, WEEKS + 1))
    for week in range(1, WEEKS + 1):
        assert per_lead(cells.counted(), week).estimate == pytest.approx(1 - surviving[week - 1], abs=1e-12)


def test_without_censoring_the_interval_of_a_rate_is_jeffreys_posterior(st: Any) -> None:
    figure = share(0.12, 0.12 * 0.88 / 250, 250)
    assert figure.low == pytest.approx(st.beta.ppf(0.025, 30.5, 220.5), rel=1e-6)
    assert figure.high == pytest.approx(st.beta.ppf(0.975, 30.5, 220.5), rel=1e-6)


def test_a_rate_of_zero_has_an_interval_and_an_amount_of_zero_has_none(st: Any) -> None:
    none = share(0.0, 0.0, 20)
    assert none.low is not None
    assert none.low < 1e-4
    assert none.high == pytest.approx(st.beta.ppf(0.975, 0.5, 20.5), rel=1e-6)
    assert amount(0.0, 1.0, 18).high is None


def test_the_variance_under_censoring_is_greenwoods() -> None:
    cells = tabulate(leads(600)).exclusive.won
    line = per_lead(cells.counted(), WEEKS)
    table = tables_of(cells, WEEKS, int(cells.cluster.max()) + 1)
    risk, events = table.risk.sum(axis=0), table.events.sum(axis=0)
    greenwood = (1 - line.estimate) ** 2 * float((events / (risk * (risk - events))).sum())
    assert line.variance(cells.counted()) == pytest.approx(greenwood, rel=0.01)


def test_drawing_businesses_again_gives_scipys_bootstrap_standard_error(st: Any) -> None:
    setting = Setting(businesses=40, leads=40)
    chance = np.random.default_rng(SEED)
    ours, _ = effects(chance, setting)
    exclusive = side(chance, setting, ours, 0.15, 80.0)
    tables = tables_of(exclusive.won, WEEKS, 40)

    def log_revenue(drawn: "np.ndarray") -> float:
        weights = np.bincount(np.asarray(drawn), minlength=40).astype(float)[None, :]
        spent = float((weights @ exclusive.cost_minor / (weights @ exclusive.leads))[0])
        return math.log(float(tables.weighted(weights)[1][0]) / spent)

    theirs = st.bootstrap((np.arange(40),), log_revenue, vectorized=False, n_resamples=2_000, rng=1, method="basic")
    figure = Estimator(40, WEEKS, resample(40, SEED)).revenue(exclusive)
    assert figure.low is not None
    ours_error = math.log(figure.value / figure.low) / t_quantile(0.975, 38)
    assert ours_error == pytest.approx(float(theirs.standard_error), rel=0.08)


def test_few_businesses_are_left_out_one_by_one_and_many_are_drawn() -> None:
    assert resample(14, 1).weights.shape == (14, 14)
    drawn = resample(15, 1).weights
    assert drawn.shape == (1_000, 15)
    assert set(drawn.sum(axis=1)) == {14.0}
    assert (drawn == resample(15, 1).weights).all()
    assert (drawn != resample(15, 2).weights).any()


def test_of_few_businesses_the_interval_is_the_jackknife_with_students_t_worked_out_by_hand(st: Any) -> None:
    count = 6
    setting = Setting(businesses=count, leads=60)
    chance = np.random.default_rng(SEED)
    ours, _ = effects(chance, setting)
    exclusive = side(chance, setting, ours, 0.2, 80.0)

    def log_revenue(numbers: list[int]) -> float:
        """Return the logarithm of the revenue per unit spent of these businesses alone."""
        rows = np.isin(exclusive.won.cluster, numbers)
        cells = Cells(**{name: getattr(exclusive.won, name)[rows] for name in Cells.__struct_fields__})
        spent = exclusive.cost_minor[numbers].sum() / exclusive.leads[numbers].sum()
        return math.log(per_lead(cells, WEEKS).estimate / spent)

    everybody = list(range(count))
    logs = [log_revenue([each for each in everybody if each != left_out]) for left_out in everybody]
    mean = sum(logs) / count
    error = math.sqrt((count - 1) / count * sum((each - mean) ** 2 for each in logs))
    even = exclusive.leads.sum() ** 2 / (exclusive.leads**2).sum()
    factor = math.exp(st.t.ppf(0.975, even - 2) * error)
    figure = Estimator(count, WEEKS, resample(count, SEED)).revenue(exclusive)
    assert figure.value == pytest.approx(math.exp(log_revenue(everybody)), rel=1e-9)
    assert (figure.low, figure.high) == pytest.approx((figure.value / factor, figure.value * factor), rel=1e-9)


@pytest.mark.parametrize("businesses", [4, 8, 14, 40])
def test_of_whole_businesses_students_t_has_two_degrees_of_freedom_fewer_than_businesses(
    st: Any, businesses: int
) -> None:
    figure = amount(2.0, 0.09, pooled_freedom(businesses))
    factor = math.exp(st.t.ppf(0.975, businesses - 2) * 0.3)
    assert (figure.low, figure.high) == pytest.approx((2.0 / factor, 2.0 * factor), rel=1e-8)


def test_without_censoring_the_variance_of_a_mean_is_that_of_the_sample_over_its_size() -> None:
    """The variance of the sample is divided by n - 1: with five leads it is a quarter more than divided by n."""
    values = np.array([100.0, 0.0, 250.0, 0.0, 40.0])
    once = np.ones(5)
    happened = values > 0
    weeks = np.where(happened, 3, WEEKS)
    rows = np.column_stack((0 * once, weeks, happened, once, once, values, values, values**2, values**4))
    line = per_lead(cells_of(rows), WEEKS)
    assert line.estimate == pytest.approx(values.mean())
    assert line.variance(cells_of(rows)) == pytest.approx(values.var(ddof=1) / 5, rel=1e-9)


def test_degrees_of_freedom_are_satterthwaites_and_welchs() -> None:
    values = np.array([100.0, 250.0, 40.0])
    once = np.ones(3)
    rows = np.column_stack((0 * once, WEEKS * once, once, once, once, values, values, values**2, values**4))
    cells = cells_of(rows)
    expected = 2 * (values**2).sum() ** 2 / (values**4).sum()
    assert per_lead(cells, WEEKS).freedom(cells) == pytest.approx(expected)
    assert freedom_of((0.04, 5.0), (0.09, 11.0)) == pytest.approx(0.13**2 / (0.04**2 / 5 + 0.09**2 / 11))


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [Setting(businesses=1, leads=800), Setting(businesses=20, leads=60)],
    ids=["one business", "twenty businesses"],
)
def test_intervals_hold_the_truth_in_93_to_97_of_100_marketplaces(setting: Setting) -> None:
    shares, verdicts = coverage(setting, 2_000, SEED)
    assert verdicts > 1_990
    assert {name: round(shares[name], 3) for name in FIGURES if not 0.93 <= shares[name] <= 0.97} == {}
