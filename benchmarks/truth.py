"""Measure whether the comparison with shared leads tells the truth, in simulated marketplaces whose truth is known.

Each row is one claim: how often a verdict was wrong, or how often an interval held the true value, with the range that
docs/ROI.md promises. The marketplaces are those of benchmarks/marketplaces.py.

    python -m benchmarks.truth [--quick] [--json FILE]

`--quick` draws fewer marketplaces and takes under five minutes on two processors. The JSON file has `rows`, each with
`name`, `measured`, `low` and `high`. Ends with 1 if a row is outside of its range.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from benchmarks import fairness
from benchmarks.claims import Row, as_table
from benchmarks.contact_marketplaces import confounded_speed, delayed_at_random, late_reports, median_to_contact
from benchmarks.early_marketplaces import early_figure, unanswered_looks
from benchmarks.marketplaces import ALONE, CONTACTED, SEED, YEAR_WEEKS, Source, answer, buy, holds
from benchmarks.uneven_marketplaces import (
    alike_weeks,
    heavy_tails,
    large_businesses,
    two_sizes_of_jobs,
)
from billing.evidence import EvidenceBasis, SharedLeadAssumption
from billing.findings import RoiVerdict
from billing.lifetable import WEEKS
from billing.outcomes import WEEK_SECONDS, evidence_of, last_report, observed_until
from billing.roi import assess


def looks_of_a_year(ratio: float, seed: int) -> tuple[bool, bool]:
    """Return whether a business that looks every week for a year was once told yes or no, and whether yes at the end.

    It buys 30 leads of each source a week, won at 15 % and 15 % divided by `ratio`, at one price.
    """
    chance = np.random.default_rng((SEED, seed))
    exclusive = buy(chance, Source(weekly=30, rate=0.15), YEAR_WEEKS, ALONE, ALONE)
    shared = buy(chance, Source(weekly=30, rate=0.15 / ratio), YEAR_WEEKS, ALONE, ALONE)
    verdicts = [answer(exclusive, shared, week).verdict for week in range(6, YEAR_WEEKS + 1)]
    judged = any(verdict in (RoiVerdict.likely_yes, RoiVerdict.likely_no) for verdict in verdicts)
    return judged, verdicts[-1] is RoiVerdict.likely_yes


UNEQUAL: Final = 20
"Businesses of the pooled comparison."


def unequal_businesses(seed: int) -> tuple[bool, bool | None]:
    """Return whether the answer over all businesses was "likely yes", and whether its interval held the truth.

    In each business an exclusive lead brings 0.8 of a shared one. Those that win more of all their leads buy mostly
    exclusive ones, the others mostly shared ones.
    """
    chance = np.random.default_rng((SEED, seed))
    skill = np.clip(np.exp(chance.normal(0, 0.5, UNEQUAL)), 0.2, 3.0)
    exclusive = buy(chance, Source(weekly=3, rate=0.12), 2 * WEEKS, skill, skill)
    shared = buy(chance, Source(weekly=3, rate=0.15), 2 * WEEKS, skill, 1 / skill)
    roi = answer(exclusive, shared, 2 * WEEKS, seed)
    return roi.verdict is RoiVerdict.likely_yes, holds(roi.ratio, 0.8)


def uneven_prices(seed: int) -> tuple[bool | None, bool | None, bool | None]:
    """Return whether intervals of one business whose leads cost very differently hold the cost per contacted lead, the
    revenue per unit spent and the price at which both sources bring the same."""
    chance = np.random.default_rng((SEED, seed))
    ours, theirs = Source(weekly=8, rate=0.15, price_spread=1.0), Source(weekly=8, rate=0.08, price_spread=1.0)
    exclusive = buy(chance, ours, YEAR_WEEKS, ALONE, ALONE)
    shared = buy(chance, theirs, YEAR_WEEKS, ALONE, ALONE)
    roi = answer(exclusive, shared, YEAR_WEEKS)
    equal = roi.break_even.price_minor if roi.break_even else None
    return (
        holds(roi.exclusive.per_contacted_minor, ours.price / CONTACTED),
        holds(roi.exclusive.revenue_per_unit, ours.rate * ours.value / ours.price),
        holds(equal, theirs.price * ours.rate / theirs.rate),
    )


def pooled_prices(seed: int) -> bool | None:
    """Return whether the interval of the equal price holds it, over businesses that pay very different prices."""
    chance = np.random.default_rng((SEED, seed))
    skill = np.exp(chance.normal(0, 0.3, UNEQUAL) - 0.045)
    level = np.exp(chance.normal(0, 0.6, UNEQUAL) - 0.18)
    ours, theirs = Source(weekly=4, rate=0.15), Source(weekly=4, rate=0.08)
    exclusive, shared = (buy(chance, source, 2 * WEEKS, skill, np.ones(UNEQUAL)) for source in (ours, theirs))
    shared = msgspec.structs.replace(shared, cost_minor=(shared.cost_minor * level[shared.business]).astype(np.int64))
    roi = answer(exclusive, shared, 2 * WEEKS, seed)
    return holds(roi.break_even.price_minor if roi.break_even else None, theirs.price * ours.rate / theirs.rate)


def everybody_contacted(seed: int) -> bool | None:
    """Return whether the cost per contacted lead is the price where every lead was contacted within days."""
    chance = np.random.default_rng((SEED, seed))
    exclusive = buy(chance, Source(weekly=6, rate=0.2), 2 * WEEKS, ALONE, ALONE)
    exclusive = msgspec.structs.replace(exclusive, contacted=np.minimum(exclusive.won, WEEK_SECONDS // 3))
    shared = buy(chance, Source(weekly=6, rate=0.1), 2 * WEEKS, ALONE, ALONE)
    figure = answer(exclusive, shared, 2 * WEEKS).exclusive.per_contacted_minor
    return figure is not None and abs(figure.value / 8_000 - 1) < 0.05


def falls_silent(seed: int) -> bool:
    """Return whether a business was told "likely no" that reports nothing in the last 13 of 26 weeks.

    An exclusive lead brings 1.3 of a shared one. Shared leads are imported with all their outcomes.
    """
    chance = np.random.default_rng((SEED, seed))
    exclusive = buy(chance, Source(weekly=20, rate=0.195), 2 * WEEKS, ALONE, ALONE)
    shared = buy(chance, Source(weekly=20, rate=0.15), 2 * WEEKS, ALONE, ALONE)
    ours, theirs = exclusive.seen(2 * WEEKS), shared.seen(2 * WEEKS)
    arrived = 2 * WEEKS * WEEK_SECONDS - ours.age_seconds
    reports = np.concatenate([(arrived + events)[events >= 0] for events in (ours.won_seconds, ours.contacted_seconds)])
    last = int(reports[reports < WEEKS * WEEK_SECONDS].max())
    until = observed_until(ours.business, {0: last_report(last, ())}, 2 * WEEKS * WEEK_SECONDS)
    age = np.maximum(until - arrived, 0)
    heard = {
        name: np.where(getattr(ours, name) < age, getattr(ours, name), -1)
        for name in ("won_seconds", "contacted_seconds")
    }
    ours = msgspec.structs.replace(ours, age_seconds=age, ended=(age > 8 * WEEK_SECONDS).astype(np.int64), **heard)
    return assess(evidence_of(ours, theirs), 1).verdict is RoiVerdict.likely_no


def declared_share(seed: int) -> bool:
    """Return whether a business that declared how many of 100 shared leads it won was told "likely yes" or "likely no",
    while both sources are truly equal."""
    chance = np.random.default_rng((SEED, seed))
    exclusive = buy(chance, Source(weekly=20, rate=0.15), YEAR_WEEKS, ALONE, ALONE)
    won = max(int(chance.binomial(100, 0.15)), 1)
    assumed = SharedLeadAssumption(
        basis=EvidenceBasis.declared, source="", cost_minor=8_000, win_rate=won / 100, leads=100, won=won, weeks=WEEKS
    )
    nothing = exclusive.seen(0)
    roi = assess(evidence_of(exclusive.seen(YEAR_WEEKS), nothing, assumed), 1)
    return roi.verdict in (RoiVerdict.likely_yes, RoiVerdict.likely_no)


def untimed_wins(seed: int) -> bool | None:
    """Return whether the ratio of win rates by time to contact holds 1, the truth, though half of all contacts are not
    reported, so that a win is often the first that is heard of a lead."""
    chance = np.random.default_rng((SEED, seed))
    exclusive = buy(chance, Source(weekly=40, rate=0.15), 2 * WEEKS, ALONE, ALONE)
    contacted = (chance.exponential(1_800, len(exclusive.won))).astype(np.int64)
    reported = np.where(chance.random(len(contacted)) < 0.5, contacted, np.iinfo(np.int64).max)
    exclusive = msgspec.structs.replace(exclusive, contacted=np.minimum(reported, exclusive.won))
    speed = answer(exclusive, exclusive, 2 * WEEKS).speed
    return holds(speed.ratio if speed else None, 1.0)


def _percent(results: Iterable[bool | None]) -> float:
    """Return how many in a hundred were true, of those with an answer; NaN without one."""
    answers = [result for result in results if result is not None]
    return round(100 * float(np.mean(answers)), 1) if answers else math.nan


Claims = Iterator[tuple[str, Iterable[bool | None], float, float]]
"Claims: name, results and promised range."

T = TypeVar("T")


def measure(quick: bool, pool: ProcessPoolExecutor) -> list[Row]:
    """Return all rows; with `quick` from fewer marketplaces, so that 95 % is known to about 1.5 points."""
    few, many = (200, 400) if quick else (1_000, 2_000)

    def draws(simulate: Callable[..., T], count: int, *fixed: float) -> list[T]:
        return list(pool.map(simulate, *([each] * count for each in fixed), range(count), chunksize=20))

    def row(name: str, results: Iterable[bool | None], low: float = 93, high: float = 97) -> Row:
        return Row(name=name, measured=_percent(results), low=low, high=high)

    equal, double = (draws(looks_of_a_year, few, ratio) for ratio in (1.0, 2.0))
    unequal, prices = draws(unequal_businesses, many), draws(uneven_prices, many)
    return [
        row(
            "looks every week of a year, sources equal: told yes or no at some look", (each[0] for each in equal), 0, 7
        ),
        row("looks every week of a year, twice as good: told yes at the last", (each[1] for each in double), 75, 100),
        row("0.8 in every business, better ones buy exclusive: told yes", (each[0] for each in unequal), 0, 2.5),
        row("0.8 in every business, better ones buy exclusive: ratio held", (each[1] for each in unequal)),
        row("uneven prices: cost per contacted lead held", (each[0] for each in prices)),
        row("uneven prices: revenue per unit held", (each[1] for each in prices)),
        row("uneven prices: price at which both are equal held", (each[2] for each in prices)),
        row("businesses pay unlike prices: price at which both are equal held", draws(pooled_prices, max(many, 1_000))),
        row("every lead contacted: a contacted lead costs its price", draws(everybody_contacted, few), 100, 100),
        row("silent for the last half of half a year, 1.3: told no", draws(falls_silent, few), 0, 2.5),
        row("declared share counted from 100 leads, equal: told yes or no", draws(declared_share, many), 0, 2.5),
        row("wins reported without a contact, speed without effect: ratio held", draws(untimed_wins, many)),
        *(row(*claim) for claim in _uneven(many, draws)),
        *(row(*claim) for claim in _contacts(many, draws)),
        _median_row(draws(median_to_contact, many)),
        *(
            row(f"five leads a week for {weeks} weeks: early share won held", draws(early_figure, many, float(weeks)))
            for weeks in (2, 8, 26)
        ),
        _unanswered_row(draws(unanswered_looks, few)),
    ]


def _contacts(count: int, draws: Callable[..., list[Any]]) -> Claims:
    """Yield the claims about win rates by time to contact."""
    causes = "vertical, budget, hour and business decide speed and wins"
    yield f"{causes}, speed without effect: ratio held", draws(confounded_speed, count, 1.0, 1.0), 93, 97
    yield (
        f"{causes}, speed without effect, 20 businesses: ratio held",
        draws(confounded_speed, count, 1.0, 20.0),
        93,
        97,
    )
    yield f"{causes}, 1.5 times as often if soon: ratio held", draws(confounded_speed, count, 1.5, 1.0), 93, 97
    for effect, businesses in ((1.0, 1.0), (1.5, 1.0), (1.5, 20.0)):
        where = "one business" if businesses == 1 else f"{businesses:.0f} businesses"
        name = f"one lead in twenty held back at random, {where}, won {effect:g} times as often at once"
        yield f"{name}: ratio held", draws(delayed_at_random, count, effect, businesses), 93, 97
    for when, monthly in (("two weeks late on average", 0.0), ("once a month", 1.0)):
        results = draws(late_reports, count, monthly)
        yield f"outcomes reported {when}, sources equal: share won held", (each[0] for each in results), 93, 97
        yield f"outcomes reported {when}, sources equal: told no", (each[1] for each in results), 0, 2.5


def _median_row(medians: list[float]) -> Row:
    name = "60 % of people are ever reached: median time to contact told, in percent of the true one"
    return Row(name=name, measured=round(float(np.nanmedian(medians)), 1), low=90, high=110)


def _unanswered_row(shares: list[float]) -> Row:
    name = "five leads a week, looks every week of half a year: neither comparison nor early figure"
    return Row(name=name, measured=round(float(np.mean(shares)), 1), low=0, high=5)


def _uneven(count: int, draws: Callable[..., list[Any]]) -> Claims:
    """Yield the claims about uneven and clustered leads."""
    for name, spread, index in (("log-normal values, 2.0", 2.0, 0.0), ("Pareto values, 1.5", 0.0, 1.5)):
        results = draws(heavy_tails, count, spread, index)
        yield f"{name}: said to be too uneven, no range", (each[0] for each in results), 95, 100
        yield f"{name}: a range or verdict that is wrong", (each[1] for each in results), 0, 2.5
    results = draws(heavy_tails, count, 1.2, 0.0)
    yield "log-normal values, 1.2: said to be too uneven", (each[0] for each in results), 0, 5
    yield "log-normal values, 1.2: revenue per unit held", (each[2] for each in results), 93, 97
    results = draws(two_sizes_of_jobs, count)
    yield "a fifth of the jobs 8 times as large as the others: said to be too uneven", results, 0, 15
    results = draws(large_businesses, count, 0.8)
    yield "two of 20 businesses buy 80 %: said to be too uneven, no range", (each[0] for each in results), 100, 100
    results = draws(large_businesses, max(count, 1_000), 0.5)  # near the edge of its range: 400 would not do
    yield "two of 20 businesses buy half: said to be too uneven", (each[0] for each in results), 0, 5
    yield "two of 20 businesses buy half: ratio held", (each[1] for each in results), 93, 97
    for name, common, bursts in (
        ("weeks alike", 0.0, 0.0),
        ("weeks alike in both sources", 1.0, 0.0),
        ("weeks alike, leads in bursts", 0.0, 1.0),
    ):
        results = draws(alike_weeks, count, common, bursts)
        for place, figure in enumerate(("share won", "revenue per unit", "ratio")):
            yield f"{name}: {figure} held", (each[place] for each in results), 93, 97


def main(arguments: list[str] | None = None) -> int:
    """Print every row, and write them to a file if one is named. Returns 1 if a row is outside of its range."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="fewer marketplaces: under five minutes on two processors")
    parser.add_argument("--json", type=Path, help="file for the rows")
    options = parser.parse_args(arguments)
    with ProcessPoolExecutor() as pool:
        rows = [*measure(options.quick, pool), *fairness.rows(options.quick)]
    print(as_table(rows))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode({"rows": rows})))
    return int(not all(row.low <= row.measured <= row.high for row in rows))


if __name__ == "__main__":
    sys.exit(main())
