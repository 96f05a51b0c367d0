"""Evidence of the comparison from single leads: columns with one number per lead, counted into life table cells.

Columns instead of objects, because a report on the whole marketplace counts a million leads while its reader waits.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from billing.evidence import (
    LEAST_OVERLAP,
    ContactSpeed,
    LeadOrigin,
    RoiEvidence,
    SharedLeadAssumption,
    Side,
    SpeedComparison,
    Stratum,
    horizon_of,
)
from billing.intervals import MOST_CLUSTERS
from billing.lifetable import WEEKS, Cells, Floats, Integers, per_lead
from billing.tails import is_heavy_tailed

WEEK_SECONDS: Final = 604_800
UNDATED: Final = -2
"Value of `won_seconds` for a win whose day is unknown."
BANDS: Final = (
    ("5 minutes", 300),
    ("30 minutes", 1_800),
    ("1 hour", 3_600),
    ("1 day", 86_400),
    ("13 weeks", 7_862_400),
)
"Bands of time to first contact: name and inclusive limit in seconds. Published studies compare 5 with 30 minutes."
FAST_BANDS: Final = 2
"Number of leading `BANDS` that count as fast: within 30 minutes."
MOST_STRATA: Final = 20
"Number of strata listed in the report, those with the most exclusive leads. All strata count in the figures."


class LeadOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One lead that a business bought.

    `received_at` is the time at which the business received it, `cost_minor` the net price. Events are known up to
    `observed_until`. `stratum` numbers the pair of vertical and area by which leads are matched, 0 if unknown.
    `kind` numbers what was known of it before it was contacted: vertical, budget, time of day. `won_undated` marks a
    win whose day is unknown. `delayed` says whether it was held back at random, None where no lead was. Amounts are in
    minor units of one currency.
    """

    source: LeadOrigin
    business: str
    received_at: datetime
    observed_until: datetime
    cost_minor: int
    stratum: int = 0
    contacted_at: datetime | None = None
    qualified: bool | None = None
    won_at: datetime | None = None
    won_minor: int = 0
    lost_at: datetime | None = None
    won_undated: bool = False
    kind: int = 0
    delayed: bool | None = None


class LeadColumns(msgspec.Struct, frozen=True, kw_only=True):
    """The leads of one source, in columns of equal length.

    Seconds count from receipt, -1 for an event that did not happen and `UNDATED` for a win whose day is unknown.
    `business` numbers the businesses from 0 without large gaps; `week` is the week of receipt, counted from any week;
    `kind` numbers what was known of the lead before it was contacted: vertical, budget, time of day.
    `qualified` is 1, 0, or -1 if the business did not say. `ended` is 1 for a lead that was won or lost. `delayed` is 1
    for a lead that was held back at random, 0 for one that could have been, -1 where none was.
    """

    business: Integers
    week: Integers
    stratum: Integers
    kind: Integers
    age_seconds: Integers
    cost_minor: Integers
    contacted_seconds: Integers
    won_seconds: Integers
    won_minor: Integers
    qualified: Integers
    ended: Integers
    delayed: Integers

    def only(self, mask: NDArray[np.bool_]) -> "LeadColumns":
        """Return the leads for which `mask` is true."""
        if mask.all():
            return self
        rows = np.flatnonzero(mask)  # computed once for all columns
        return LeadColumns(**{name: getattr(self, name)[rows] for name in self.__struct_fields__})


class WonJobs(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs won so far with paid leads, counted as soon as they are reported, and their value in minor units.

    The estimate waits for whole weeks: `open_jobs` were won in a week of their lead that has not ended, so that the
    estimate does not have them yet. `late_jobs` were won after week 13, the last week of any estimate.
    """

    jobs: int
    value_minor: int
    open_jobs: int
    late_jobs: int


def won_so_far(leads: LeadColumns) -> WonJobs:
    """Return the dated wins of paid leads: `jobs` minus `open_jobs` and `late_jobs` are the wins in the estimate."""
    won = np.flatnonzero(leads.won_seconds >= 0)
    won = won[leads.cost_minor[won] > 0]
    week, age = leads.won_seconds[won] // WEEK_SECONDS, leads.age_seconds[won] // WEEK_SECONDS
    late = week >= WEEKS
    return WonJobs(
        jobs=len(won),
        value_minor=int(leads.won_minor[won].sum()),
        open_jobs=int(((week >= age) & ~late).sum()),
        late_jobs=int(late.sum()),
    )


def leads_of(outcomes: Sequence[LeadOutcome], numbers: dict[str, int]) -> LeadColumns:
    """Return single leads as columns; `numbers` maps each business to its number."""

    def seconds_to(lead: LeadOutcome, at: datetime | None) -> int:
        return -1 if at is None else max(int((at - lead.received_at).total_seconds()), 0)

    rows = [
        (
            numbers[lead.business],
            int(lead.received_at.timestamp()) // WEEK_SECONDS,
            lead.stratum,
            lead.kind,
            seconds_to(lead, lead.observed_until),
            lead.cost_minor,
            seconds_to(lead, lead.contacted_at),
            UNDATED if lead.won_undated else seconds_to(lead, lead.won_at),
            lead.won_minor,
            -1 if lead.qualified is None else int(lead.qualified),
            int(lead.won_at is not None or lead.lost_at is not None or lead.won_undated),
            -1 if lead.delayed is None else int(lead.delayed),
        )
        for lead in outcomes
    ]
    table = np.array(rows, np.int64).reshape(-1, len(LeadColumns.__struct_fields__)).T
    return LeadColumns(**dict(zip(LeadColumns.__struct_fields__, table, strict=True)))


def tabulate(
    outcomes: Sequence[LeadOutcome], assumed: SharedLeadAssumption | None = None, labour_minor: int = 0
) -> RoiEvidence:
    """Return the same as `evidence_of`, from single leads of both sources."""
    numbers = {name: number for number, name in enumerate(sorted({lead.business for lead in outcomes}))}
    sides = {
        source: leads_of([lead for lead in outcomes if lead.source is source], numbers)
        for source in (LeadOrigin.exclusive, LeadOrigin.shared)
    }
    return evidence_of(sides[LeadOrigin.exclusive], sides[LeadOrigin.shared], assumed, labour_minor)


def evidence_of(
    exclusive: LeadColumns,
    shared: LeadColumns,
    assumed: SharedLeadAssumption | None = None,
    labour_minor: int = 0,
    silent_days: int = 0,
    late_days: int = 0,
) -> RoiEvidence:
    """Return the evidence from the leads of both sources, counted into cells.

    Leads that cost nothing were given back and do not count. Leads of a business that reported nothing about any lead
    of the source do not count either: no report does not mean that a lead was lost. `labour_minor` is the cost of
    working on one lead; `silent_days` is the time since the last report, and `late_days` how late reports are, for the
    answer's notes.
    """
    all_paying = exclusive.business[exclusive.cost_minor > 0]
    exclusive, shared = reported_leads(exclusive), reported_leads(shared)
    silent = len(_renumber(all_paying)[0]) - len(_renumber(exclusive.business)[0])
    businesses, numbers = _renumber(np.concatenate((exclusive.business, shared.business)))
    total = max(len(businesses), 1)
    exclusive_numbers, shared_numbers = np.split(numbers, [len(exclusive.business)])
    exclusive = msgspec.structs.replace(exclusive, business=exclusive_numbers)
    shared = msgspec.structs.replace(shared, business=shared_numbers)
    clusters = _Clusters.of(total, exclusive, shared)
    exclusive_side = _side(exclusive, clusters)
    shared, shared_side, horizon = _shared_side(shared, clusters, exclusive_side)
    compared = _compared(exclusive_side, shared_side, total) if shared_side else None
    strata = _Strata.of(exclusive.stratum, shared.stratum)
    matching = strata.of_businesses(exclusive.business, shared.business, total) if total > 1 else strata
    matched = None
    if matching.overlap >= LEAST_OVERLAP:  # with less nobody compares them
        matched = _match(exclusive, shared, matching, clusters, exclusive_side)
    timed = _timed(exclusive, horizon)
    count = min(total, MOST_CLUSTERS)
    groups = min(clusters.count, MOST_CLUSTERS)
    return RoiEvidence(
        businesses=count,
        all_businesses=total,
        silent=silent,
        exclusive=_group(exclusive_side, groups),
        shared=_group(shared_side, groups) if shared_side else None,
        assumed=assumed,
        labour_minor=labour_minor,
        silent_days=silent_days,
        late_days=late_days,
        compared=(_group(compared[0], groups), _group(compared[1], groups)) if compared else None,
        fewest=_count_compared(compared, shared_side, exclusive_side, total),
        matched=(_group(matched[0], groups), _group(matched[1], groups)) if matched else None,
        overlap=matching.overlap,
        strata=strata.largest(),
        heavy_tailed=is_heavy_tailed(_values(exclusive)) or is_heavy_tailed(_values(shared)),
        speed=_speed(timed, clusters, horizon),
        fast_bands=FAST_BANDS,
        speed_compared=_compare_speed(timed, horizon, count),
        delay_compared=_compare_delayed(exclusive, horizon, count),
    )


class _Clusters(msgspec.Struct, frozen=True):
    """Clusters of leads that are alike: businesses, or with a single business (`first_week`) weeks of arrival."""

    count: int
    first_week: int | None = None

    @classmethod
    def of(cls, businesses: int, exclusive: LeadColumns, shared: LeadColumns) -> "_Clusters":
        """Return the clusters of the leads of both sources."""
        weeks = np.concatenate((exclusive.week, shared.week))
        if businesses > 1 or not len(weeks):
            return cls(businesses)
        first = int(weeks.min())
        return cls(int(weeks.max()) - first + 1, first)

    def numbers(self, leads: LeadColumns) -> Integers:
        """Return the cluster of each lead, from 0."""
        return leads.business if self.first_week is None else leads.week - self.first_week


def _compared(exclusive: Side, shared: Side, businesses: int) -> tuple[Side, Side] | None:
    """Return the leads that are compared: all of a single business, else those of businesses with both sources."""
    if businesses > 1:
        return _within_businesses(exclusive, shared)
    return (exclusive, shared) if exclusive.leads.any() and shared.leads.any() else None


def _count_compared(compared: tuple[Side, Side] | None, shared: Side | None, exclusive: Side, businesses: int) -> int:
    """Return the number of businesses that are compared, or without shared leads of those with exclusive leads."""
    if compared is None and shared is not None:
        return 0
    leads = (compared[0] if compared else exclusive).leads
    return int((leads > 0).sum()) if businesses > 1 else int(leads.any())


LATE_SHARE: Final = 0.9
"Share of the newest reports whose lateness is allowed for. What is told later still is missing from the figures."


class LastReport(msgspec.Struct, frozen=True, kw_only=True):
    """Time of a business's last report, and up to when it has reported what happened; seconds of one clock."""

    reported_at: int
    told_until: int


def last_report(reported_at: int, late_seconds: Sequence[int]) -> LastReport:
    """Return the last report of a business, whose newest reports were each so many seconds late.

    A report is late by the time since the first report of the business that could have told the same: one that tells
    everything once a month is never late. What happened shortly before the last report is not known if reports are
    late: leads are followed up to the last one less the lateness that nine in ten do not exceed.
    """
    late = sorted(late_seconds)[math.ceil(LATE_SHARE * len(late_seconds)) - 1] if late_seconds else 0
    return LastReport(reported_at=reported_at, told_until=reported_at - late)


def observed_until(business: Integers, last_reports: Mapping[int, LastReport], now: int) -> Integers:
    """Return for each lead the time up to which its outcome is known, in seconds of the same clock as `now`.

    That is `told_until` of its business, whichever lead it reported on: after it nothing is known, and a missing report
    is no failure. `last_reports` is by the number of the business; one that is missing never reported.
    """
    latest = np.zeros(int(business.max(initial=0)) + 1, np.int64)
    for number, report in last_reports.items():
        if number < len(latest):
            latest[number] = min(report.told_until, now)
    return latest[business]


def date_wins(leads: LeadColumns, horizon: int) -> LeadColumns:
    """Date each win whose day is unknown into the last week in which it can count.

    That is the week of the horizon, or the lead's age if that is shorter. It is the one week that never understates the
    results of the lead's source: see docs/decisions/0025-wins-without-a-day.md.
    """
    undated = leads.won_seconds == UNDATED
    if not undated.any():
        return leads
    weeks = np.minimum(leads.age_seconds // WEEK_SECONDS, horizon)
    latest = np.maximum(weeks * WEEK_SECONDS - 1, 0)
    return msgspec.structs.replace(leads, won_seconds=np.where(undated, latest, leads.won_seconds))


def _shared_side(shared: LeadColumns, clusters: _Clusters, exclusive: Side) -> tuple[LeadColumns, Side | None, int]:
    """Return the shared leads with every win dated, their side (None without leads), and the horizon.

    The horizon does not depend on the dates: a lead without a dated win is at risk up to its age, and a date in the
    last week that can count does not change that.
    """
    if not len(shared.business):
        return shared, None, horizon_of(exclusive, None)
    dated = date_wins(shared, WEEKS)
    side = _side(dated, clusters)
    horizon = horizon_of(exclusive, side)
    if dated is not shared and 0 < horizon < WEEKS:
        dated = date_wins(shared, horizon)
        side = _side(dated, clusters)
    return dated, side, horizon


def _within_businesses(exclusive: Side, shared: Side) -> tuple[Side, Side] | None:
    """Return both sides restricted to businesses with both, each business with the same part in both; None without one.

    A business with n exclusive and m shared leads counts in proportion to n·m / (n + m), the weight of Mantel and
    Haenszel, on both sides. So a business that wins more than others, whatever it buys, decides nothing by buying more
    of one source. The weights of each side sum to its number of leads in these businesses.
    """
    both = (exclusive.leads > 0) & (shared.leads > 0)
    if not both.any():
        return None
    part = np.where(both, exclusive.leads * shared.leads / np.maximum(exclusive.leads + shared.leads, 1), 0.0)
    sides = []
    for side in (exclusive, shared):
        factor = part / np.maximum(side.leads, 1) * (side.leads[both].sum() / part.sum())
        sides.append(_weigh(side, factor))
    return sides[0], sides[1]


def _weigh(side: Side, factor: Floats) -> Side:
    """Return the side with each lead's weight multiplied by the factor of its business; 0 leaves a business out."""

    def weigh(cells: Cells) -> Cells:
        rows = np.flatnonzero(factor[cells.cluster])
        u = factor[cells.cluster[rows]]
        return Cells(
            cluster=cells.cluster[rows],
            weeks=cells.weeks[rows],
            happened=cells.happened[rows],
            leads=cells.leads[rows] * u,
            squares=cells.squares[rows] * u**2,
            value=cells.value[rows] * u,
            cross=cells.cross[rows] * u**2,
            value_squares=cells.value_squares[rows] * u**2,
            value_fourths=cells.value_fourths[rows] * u**4,
        )

    return msgspec.structs.replace(
        side,
        leads=side.leads * factor,
        cost_minor=side.cost_minor * factor,
        won=weigh(side.won),
        contacted=weigh(side.contacted),
        qualified=weigh(side.qualified),
    )


def _group(side: Side, count: int) -> Side:
    """Return the side with its businesses in at most `count` groups, each with one number."""
    if len(side.leads) <= count:
        return side

    def group(cells: Cells) -> Cells:
        return msgspec.structs.replace(cells, cluster=cells.cluster % count)

    numbers = np.arange(len(side.leads)) % count
    return msgspec.structs.replace(
        side,
        leads=np.bincount(numbers, side.leads, count),
        cost_minor=np.bincount(numbers, side.cost_minor, count),
        won=group(side.won),
        contacted=group(side.contacted),
        qualified=group(side.qualified),
    )


def reported_leads(leads: LeadColumns) -> LeadColumns:
    """Return the paid leads of businesses that reported something about a paid lead."""
    paid = leads.cost_minor > 0
    reported = paid & ((leads.ended > 0) | (leads.qualified >= 0) | (leads.contacted_seconds >= 0))
    if not len(paid):
        return leads
    reporting = np.bincount(leads.business, reported) > 0
    return leads.only(paid & reporting[leads.business])


def share_won_by_week(leads: LeadColumns) -> Floats | None:
    """Return the share of leads won within 0, 1, … weeks, up to the horizon; None without a horizon or a win."""
    side = _side(leads, _Clusters(int(leads.business.max(initial=0)) + 1))
    weeks = horizon_of(side)
    shares = [per_lead(side.won.counted(), week).estimate for week in range(1, weeks + 1)]
    return np.array([0.0, *shares]) if weeks and shares[-1] > 0 else None


def _side(leads: LeadColumns, clusters: _Clusters, weights: Floats | None = None) -> Side:
    """Count leads into cells; each lead counts once, or with its weight."""
    cluster = clusters.numbers(leads)
    age = _whole_weeks(leads.age_seconds)
    contacted, qualified = _funnel_steps(leads)
    ended = leads.ended > 0
    once = np.broadcast_to(np.int64(1), len(leads.business))
    cost: Integers | Floats = leads.cost_minor
    outcomes = int(ended.sum())
    if weights is not None:
        cost, outcomes = weights * leads.cost_minor, round(float(weights[ended].sum()))
    return Side(
        leads=np.bincount(cluster, weights, clusters.count).astype(float),
        cost_minor=np.bincount(cluster, cost, clusters.count).astype(float),
        cost_variance=_variance_of_mean(leads.cost_minor, weights),
        oldest_weeks=int(leads.age_seconds.max(initial=0)) // WEEK_SECONDS,
        outcomes=outcomes,
        won=_cells(cluster, age, leads.won_seconds, weights, leads.won_minor),
        contacted=_cells(cluster, age, contacted, weights, once),
        qualified=_cells(cluster, age, np.where(qualified, contacted, -1), weights, once),
    )


def _values(leads: LeadColumns) -> Floats:
    """Return the values of the won jobs that have one."""
    return leads.won_minor[(leads.won_seconds >= 0) & (leads.won_minor > 0)].astype(float)


def _variance_of_mean(cost_minor: Integers, weights: Floats | None) -> float:
    """Return the variance of the mean cost of a lead, in squared minor units, as of leads drawn independently."""
    if len(cost_minor) < 2:
        return 0.0
    if weights is None:
        return float(np.var(cost_minor, ddof=1)) / len(cost_minor)
    total, squares = float(weights.sum()), float((weights**2).sum())
    mean = float((weights * cost_minor).sum()) / total
    number = total**2 / squares
    return float((weights**2 * (cost_minor - mean) ** 2).sum()) / total**2 * number / max(number - 1, 1.0)


def _funnel_steps(leads: LeadColumns) -> tuple[Integers, NDArray[np.bool_]]:
    """Return the seconds to contact (-1 for no contact) of each lead, and whether it qualified.

    A won lead was qualified and a qualified lead was contacted: at the latest at its win, or, if no time is known,
    immediately. A qualified lead counts from its contact on, so that no week has more qualified than contacted leads.
    """
    won = leads.won_seconds >= 0
    qualified = won | (leads.qualified > 0)
    untimed = qualified & (leads.contacted_seconds < 0)
    late = won & (leads.contacted_seconds > leads.won_seconds)
    contacted = np.where(late | (untimed & won), leads.won_seconds, np.where(untimed, 0, leads.contacted_seconds))
    return contacted, qualified


def _whole_weeks(seconds: Integers) -> Integers:
    """Return whole weeks, from 0 to 13."""
    return np.clip(seconds // WEEK_SECONDS, 0, WEEKS)


def _cells(cluster: Integers, age: Integers, event: Integers, weights: Floats | None, values: Integers) -> Cells:
    """Count leads into cells of an event.

    `age` is in whole weeks, `event` in seconds from receipt (negative if it did not happen), `values` the value of the
    event in minor units. An event in a week that was not wholly observed does not count yet.
    """
    week = event // WEEK_SECONDS
    happened = (event >= 0) & (week < age)
    return _count_cells(cluster, np.where(happened, week + 1, age), happened.astype(np.int64), weights, values)


def _count_cells(
    cluster: Integers, weeks: Integers, happened: Integers, weights: Floats | None, values: Integers
) -> Cells:
    """Sum leads with the same cluster, weeks at risk and outcome (0 or 1); each counts once, or with its weight."""
    key = (cluster * (WEEKS + 1) + weeks) * 2 + happened
    counts = np.bincount(key)
    keys = np.flatnonzero(counts)
    events = np.flatnonzero(happened)  # few: most leads are not won, and only events have a value
    event_key, v = key[events], values[events].astype(float)
    u = np.ones(len(events)) if weights is None else weights[events]
    uv = u * v

    def total(positions: Integers, amounts: Floats) -> Floats:
        return np.bincount(positions, amounts, len(counts))[keys].astype(float)

    number = counts[keys].astype(float)
    return Cells(
        cluster=keys // 2 // (WEEKS + 1),
        weeks=keys // 2 % (WEEKS + 1),
        happened=keys % 2 > 0,
        leads=number if weights is None else total(key, weights),
        squares=number if weights is None else total(key, weights * weights),
        value=total(event_key, uv),
        cross=total(event_key, u * uv),
        value_squares=total(event_key, uv**2),
        value_fourths=total(event_key, uv**4),
    )


def _renumber(key: Integers) -> tuple[Integers, Integers]:
    """Return the sorted distinct numbers and each number's position among them.

    The same as `numpy.unique` with its inverse, but without sorting a million numbers; they must be small.
    """
    used = np.bincount(key) > 0
    return np.flatnonzero(used), (np.cumsum(used) - 1)[key]


MOST_PAIRS: Final = 4_000_000
"Pairs of stratum and business up to which each has a place in a table, used or not: 32 MB, and no sorting of leads."


class _Strata:
    """Strata of the leads of both sources. Stratum 0, unknown, is never common to both.

    `keys` are the strata; `exclusive` and `shared` give each lead's position in `keys`; `exclusive_counts` and
    `shared_counts` the leads per stratum; `common` marks the strata with leads of both sources.
    """

    def __init__(self, keys: Integers, exclusive: Integers, shared: Integers) -> None:
        self.keys, self.exclusive, self.shared = keys, exclusive, shared
        self.exclusive_counts = np.bincount(exclusive, minlength=len(keys))
        self.shared_counts = np.bincount(shared, minlength=len(keys))
        self.common = (self.exclusive_counts > 0) & (self.shared_counts > 0) & (keys != 0)

    @classmethod
    def of(cls, exclusive: Integers, shared: Integers) -> "_Strata":
        """Return the strata of leads, given the key of each lead."""
        keys = np.unique(np.concatenate((exclusive, shared)))
        return cls(keys, np.searchsorted(keys, exclusive), np.searchsorted(keys, shared))

    def of_businesses(self, exclusive: Integers, shared: Integers, businesses: int) -> "_Strata":
        """Return the strata of each business, in which a lead matches only leads of its own business.

        `exclusive` and `shared` give the business of each lead.
        """
        pairs = self.exclusive * businesses + exclusive, self.shared * businesses + shared
        if len(self.keys) * businesses <= MOST_PAIRS:
            return _Strata(np.repeat(self.keys, businesses), *pairs)
        used, positions = np.unique(np.concatenate(pairs), return_inverse=True)
        return _Strata(self.keys[used // businesses], *np.split(positions, [len(exclusive)]))

    @property
    def overlap(self) -> float:
        """Share of exclusive leads in common strata."""
        return float(self.exclusive_counts[self.common].sum() / max(len(self.exclusive), 1))

    def largest(self) -> tuple[Stratum, ...]:
        """Return the `MOST_STRATA` known strata with the most exclusive leads."""
        order = [at for at in np.argsort(-self.exclusive_counts, kind="stable") if self.keys[at]]
        return tuple(
            Stratum(
                key=int(self.keys[at]), exclusive=int(self.exclusive_counts[at]), shared=int(self.shared_counts[at])
            )
            for at in order[:MOST_STRATA]
        )


def _match(
    exclusive: LeadColumns, shared: LeadColumns, strata: _Strata, clusters: _Clusters, exclusive_side: Side
) -> tuple[Side, Side] | None:
    """Return both sides restricted to common strata, the shared leads weighted to the exclusive leads' mix of strata.

    The weights of the shared leads sum to their number. None without a common stratum. `exclusive_side` counts all
    exclusive leads, and is returned as it is if all of them are in common strata.
    """
    common = strata.common
    if not common.any():
        return None
    scale = strata.shared_counts[common].sum() / strata.exclusive_counts[common].sum()
    weights = scale * strata.exclusive_counts / np.maximum(strata.shared_counts, 1)
    matched = exclusive.only(common[strata.exclusive])
    matched_side = exclusive_side if matched is exclusive else _side(matched, clusters)
    in_common = common[strata.shared]
    return matched_side, _side(shared.only(in_common), clusters, weights[strata.shared[in_common]])


def _timed(leads: LeadColumns, horizon: int) -> LeadColumns:
    """Return the contacted leads that are at least as old as the horizon; none without a horizon.

    A win reported without an earlier contact says nothing about the time to contact, so that such a lead is left out.
    """
    untimed = (leads.won_seconds >= 0) & (leads.contacted_seconds >= leads.won_seconds)
    old = (leads.age_seconds >= horizon * WEEK_SECONDS) & (horizon > 0)
    return leads.only((leads.contacted_seconds >= 0) & ~untimed & old)


def _won_within(leads: LeadColumns, horizon: int) -> Integers:
    """Return 1 for leads that were won within the horizon, 0 for others."""
    return ((leads.won_seconds >= 0) & (leads.won_seconds < horizon * WEEK_SECONDS)).astype(np.int64)


def _speed(timed: LeadColumns, clusters: _Clusters, horizon: int) -> tuple[ContactSpeed, ...]:
    """Return contacted leads by band of time to first contact; nothing without a horizon."""
    if not horizon:
        return ()
    band = np.searchsorted([limit for _, limit in BANDS], timed.contacted_seconds)
    won = _won_within(timed, horizon)
    once = np.broadcast_to(np.int64(1), len(won))
    cluster = clusters.numbers(timed) % MOST_CLUSTERS
    return tuple(
        ContactSpeed(
            band=name,
            cells=_count_cells(cluster[at], once[at], won[at], None, once[at]),
        )
        for number, (name, _) in enumerate(BANDS)
        for at in (np.flatnonzero(band == number),)
    )


def _compare_speed(timed: LeadColumns, horizon: int, groups: int) -> SpeedComparison | None:
    """Compare leads contacted within the fast bands with later ones of their business and kind; None without both."""
    return _compare(timed, timed.kind, timed.contacted_seconds <= BANDS[FAST_BANDS - 1][1], horizon, groups)


def _compare_delayed(leads: LeadColumns, horizon: int, groups: int) -> SpeedComparison | None:
    """Compare leads that were held back at random with those of their business that could have been; None without both.

    Chance made the two alike, so that the business alone is a stratum.
    """
    old = (leads.age_seconds >= horizon * WEEK_SECONDS) & (horizon > 0)
    drawn = leads.only((leads.delayed >= 0) & old)
    return _compare(drawn, np.zeros(len(drawn.kind), np.int64), drawn.delayed == 0, horizon, groups)


def _compare(
    leads: LeadColumns, kind: Integers, fast: NDArray[np.bool_], horizon: int, groups: int
) -> SpeedComparison | None:
    """Compare the fast leads of each business and kind with its others; None without both in any of them."""
    kinds = int(kind.max(initial=0)) + 1
    strata, stratum = np.unique(leads.business.astype(np.int64) * kinds + kind, return_inverse=True)
    won = _won_within(leads, horizon)

    def count(rows: NDArray[np.bool_], each: Integers | None = None) -> Floats:
        return np.bincount(stratum[rows], None if each is None else each[rows], len(strata)).astype(float)

    numbers = np.array([count(fast), count(~fast), count(fast, won), count(~fast, won)])
    both = (numbers[0] > 0) & (numbers[1] > 0)
    if not both.any():
        return None
    fast_leads, slow_leads, fast_wins, slow_wins = numbers[:, both]
    total, wins = fast_leads + slow_leads, fast_wins + slow_wins
    group = strata[both] // kinds % groups
    return SpeedComparison(
        fast=np.bincount(group, fast_wins * slow_leads / total, groups).astype(float),
        slow=np.bincount(group, slow_wins * fast_leads / total, groups).astype(float),
        spread=float(((wins * fast_leads * slow_leads - fast_wins * slow_wins * total) / total**2).sum()),
        leads=int(total.sum()),
        fast_wins=int(fast_wins.sum()),
        slow_wins=int(slow_wins.sum()),
    )
