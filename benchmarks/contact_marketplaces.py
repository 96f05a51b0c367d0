"""Marketplaces in which it matters when people are contacted, or when that is told, for benchmarks/truth.py."""

import math
from typing import Final

import msgspec
import numpy as np

from benchmarks.marketplaces import ALONE, SEED, Source, answer, buy, holds
from billing.findings import RoiVerdict
from billing.lifetable import WEEKS, Floats
from billing.outcomes import WEEK_SECONDS, evidence_of, last_report, observed_until
from billing.roi import assess
from billing.waiting import times_within

KINDS: Final = (2, 4, 8)
"Verticals, bands of budgets, and times of the week, of which a lead's kind is made."
GOOD: Final = (np.array([0.7, 1.3]), np.array([0.6, 0.9, 1.1, 1.4]), np.linspace(0.7, 1.3, 8))
"How much more often than others the leads of each are won, and contacted soon."
NEVER: Final = np.iinfo(np.int64).max


def confounded_speed(effect: float, businesses: float, seed: int) -> bool | None:
    """Return whether the ratio of win rates by time to contact held `effect`, the truth.

    Leads of some verticals, budgets and hours, and those of some businesses, are won more often, and the same ones are
    contacted within 30 minutes more often. A lead of the same kind is won `effect` times as often if contacted soon.
    """
    chance = np.random.default_rng((SEED, 21, seed))
    count = int(businesses)
    skill = np.exp(chance.normal(-0.03, 0.25, count)) if count > 1 else ALONE
    weekly = 60 if count == 1 else 8
    exclusive = buy(chance, Source(weekly=weekly, rate=0.2), 2 * WEEKS, np.ones(count), np.ones(count))
    number = len(exclusive.won)
    parts = [chance.integers(0, size, number) for size in KINDS]
    good = math.prod(factors[part] for factors, part in zip(GOOD, parts, strict=True)) * skill[exclusive.business]
    fast = chance.random(number) < np.clip(0.35 * good, 0.05, 0.95)
    won = chance.random(number) < np.clip(0.1 * good * np.where(fast, effect, 1.0), 0, 1)
    contacted = np.where(fast, chance.uniform(60, 1_700, number), chance.uniform(1_900, 80_000, number)).astype(
        np.int64
    )
    time = contacted + 100_000 + (chance.beta(1, 2.5, number) * 11 * 604_800).astype(np.int64)
    kind = (parts[0] * KINDS[1] + parts[1]) * KINDS[2] + parts[2]
    exclusive = msgspec.structs.replace(exclusive, contacted=contacted, won=np.where(won, time, NEVER), kind=kind)
    speed = answer(exclusive, exclusive, 2 * WEEKS, seed).speed
    return holds(speed.ratio if speed else None, effect)


def delayed_at_random(effect: float, businesses: float, seed: int) -> bool | None:
    """Return whether the effect of a delay held `effect`, the truth.

    One lead in twenty is held back. The others are won `effect` times as often; leads of some businesses more often.
    """
    chance = np.random.default_rng((SEED, 24, seed))
    count = int(businesses)
    skill = np.exp(chance.normal(-0.03, 0.25, count)) if count > 1 else ALONE
    weekly = 200 if count == 1 else 40
    exclusive = buy(chance, Source(weekly=weekly, rate=0.2), 3 * WEEKS, np.ones(count), np.ones(count))
    number = len(exclusive.won)
    delayed = chance.random(number) < 0.05
    rate = 0.15 * skill[exclusive.business] * np.where(delayed, 1.0, effect)
    time = 100_000 + (chance.beta(1, 2.5, number) * 11 * 604_800).astype(np.int64)
    won = np.where(chance.random(number) < np.clip(rate, 0, 1), time, NEVER)
    exclusive = msgspec.structs.replace(exclusive, won=won, delayed=delayed.astype(np.int64))
    delay = answer(exclusive, exclusive, 3 * WEEKS, seed).delay
    return holds(delay.ratio if delay else None, effect)


NEWEST: Final = 50
"Reports from whose lateness a business's is known, as marketplace/reports/figures.sql reads them."


def late_reports(monthly: float, seed: int) -> tuple[bool | None, bool]:
    """Return whether the share won of exclusive leads held, and whether a business was told "likely no".

    Both sources are equal. What became of an exclusive lead is reported two weeks later on average, or with `monthly` 1
    at the end of each 30 days. Shared leads are imported with all their outcomes.
    """
    chance = np.random.default_rng((SEED, 23, seed))
    weeks, now = 3 * WEEKS, 3 * WEEKS * WEEK_SECONDS
    exclusive, shared = (buy(chance, Source(weekly=20, rate=0.15), weeks, ALONE, ALONE) for _ in range(2))
    happened = np.array([exclusive.arrived + np.minimum(each, now) for each in (exclusive.contacted, exclusive.won)])
    reported = happened + chance.exponential(2 * WEEK_SECONDS, happened.shape)
    if monthly:
        reported = np.ceil(happened / MONTH) * MONTH
    done = (reported <= now) & (happened < now)
    times = np.sort(reported[done])
    newest = np.argsort(reported[done])[-NEWEST:]
    next_report = times[np.searchsorted(times, happened[done][newest])]
    last = last_report(int(times[-1]), (reported[done][newest] - next_report).astype(int).tolist())
    until = observed_until(exclusive.business, {0: last}, now)
    ours = exclusive.seen(weeks)
    age = np.maximum(until - exclusive.arrived, 0)
    ours = msgspec.structs.replace(
        ours,
        age_seconds=age,
        contacted_seconds=np.where(done[0], exclusive.contacted, -1),
        won_seconds=np.where(done[1], exclusive.won, -1),
        ended=(done[1] | (age > 8 * WEEK_SECONDS)).astype(np.int64),
    )
    roi = assess(evidence_of(ours, shared.seen(weeks)), 1)
    return holds(roi.exclusive.win_rate, 0.15), roi.verdict is RoiVerdict.likely_no


MONTH: Final = 30 * 86_400

REACHED: Final = 0.6
"Share of people who are ever reached."
TYPICAL: Final = 600.0
"Median time to contact of those who are reached, in seconds."


def median_to_contact(seed: int) -> float:
    """Return the median time to contact as a report gives it, in percent of the true one.

    Of 400 leads of 30 days, 60 % are ever reached, half of them within ten minutes. The truth is the time within which
    half of all people are reached.
    """
    chance = np.random.default_rng((SEED, 22, seed))
    time: Floats = np.where(chance.random(400) < REACHED, TYPICAL * np.exp(2 * chance.normal(size=400)), np.inf)
    watched = chance.uniform(0, 30 * 86_400, 400)
    (median,) = times_within(
        np.where(time <= watched, time, np.nan), np.where(time <= watched, np.nan, watched), (0.5,)
    )
    # 0.5 / 0.6 of those who are reached: 0.9674 standard deviations above the mean of the logarithm
    return math.nan if median is None else 100 * median / (TYPICAL * math.exp(2 * 0.967422))
