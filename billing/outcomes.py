"""Evidence from leads: columns of numbers, one number per lead, counted into cells.

Columns and not objects, because the whole marketplace is a million leads and must be answered while somebody waits.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from billing.evidence import Assumed, Evidence, Side, Source, Speed, Stratum, horizon_of
from billing.intervals import MOST_CLUSTERS
from billing.lifetable import WEEKS, Cells, Floats, Integers

WEEK_SECONDS: Final = 604_800
UNDATED: Final = -2
"In `won_seconds`: won, on a day that nobody knows."
BANDS: Final = (
    ("5 minutes", 300),
    ("30 minutes", 1_800),
    ("1 hour", 3_600),
    ("1 day", 86_400),
    ("13 weeks", 7_862_400),
)
"Times to first contact in seconds, each up to and with its limit; published studies compare five and thirty minutes."
FAST_BANDS: Final = 2
"Those of `BANDS` that count as fast: within 30 minutes."
MOST_STRATA: Final = 20
"Shown one by one, those with the most exclusive leads; all of them count."


class LeadOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One lead that a business bought. `received_at` is when the business got it, `cost_minor` what it paid net.

    What happened is known up to `observed_until`. `stratum` is what leads are matched by, a number for each pair of
    vertical and area and 0 where it is not known. Amounts are in minor units of one currency.
    """

    source: Source
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


class Leads(msgspec.Struct, frozen=True, kw_only=True):
    """The leads of one source in columns of equal length. Seconds count from receipt, -1 for what did not happen.

    `business` is a number for each business, none of them large; `qualified` is 1, 0, or -1 where nobody said; `ended`
    is won or lost. A win whose day is not known has `UNDATED` in `won_seconds`.
    """

    business: Integers
    stratum: Integers
    age_seconds: Integers
    cost_minor: Integers
    contacted_seconds: Integers
    won_seconds: Integers
    won_minor: Integers
    qualified: Integers
    ended: Integers

    def only(self, kept: NDArray[np.bool_]) -> "Leads":
        """Those for which `kept` is true."""
        if kept.all():
            return self
        rows = np.flatnonzero(kept)  # found once for all columns
        return Leads(**{name: getattr(self, name)[rows] for name in self.__struct_fields__})


class Won(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs won so far with leads that were paid for: counted as told, the moment it is told. Minor units.

    The estimate waits for whole weeks. `open_jobs` came in a week of their lead that has not ended, so that no estimate
    has them yet; `late_jobs` came after the last week that any estimate looks at.
    """

    jobs: int
    value_minor: int
    open_jobs: int
    late_jobs: int


def won_so_far(leads: Leads) -> Won:
    """What the estimate is made from and what it does not have yet: `jobs` less the two others are its wins."""
    won = np.flatnonzero(leads.won_seconds >= 0)
    won = won[leads.cost_minor[won] > 0]
    week, age = leads.won_seconds[won] // WEEK_SECONDS, leads.age_seconds[won] // WEEK_SECONDS
    late = week >= WEEKS
    return Won(
        jobs=len(won), value_minor=int(leads.won_minor[won].sum()), open_jobs=int(((week >= age) & ~late).sum()),
        late_jobs=int(late.sum()),
    )  # fmt: skip


def leads_of(outcomes: Sequence[LeadOutcome], numbers: dict[str, int]) -> Leads:
    """The columns of leads one by one; `numbers` has a number for each business."""

    def seconds(lead: LeadOutcome, at: datetime | None) -> int:
        return -1 if at is None else max(int((at - lead.received_at).total_seconds()), 0)

    rows = [
        (
            numbers[lead.business], lead.stratum, seconds(lead, lead.observed_until), lead.cost_minor,
            seconds(lead, lead.contacted_at), UNDATED if lead.won_undated else seconds(lead, lead.won_at),
            lead.won_minor,
            -1 if lead.qualified is None else int(lead.qualified),
            int(lead.won_at is not None or lead.lost_at is not None or lead.won_undated),
        )
        for lead in outcomes
    ]  # fmt: skip
    table = np.array(rows, np.int64).reshape(-1, len(Leads.__struct_fields__)).T
    return Leads(**dict(zip(Leads.__struct_fields__, table, strict=True)))


def tabulate(outcomes: Sequence[LeadOutcome], assumed: Assumed | None = None, labour_minor: int = 0) -> Evidence:
    """As `evidence_of`, from leads one by one."""
    numbers = {name: number for number, name in enumerate(sorted({lead.business for lead in outcomes}))}
    sides = {
        source: leads_of([lead for lead in outcomes if lead.source is source], numbers)
        for source in (Source.exclusive, Source.shared)
    }
    return evidence_of(sides[Source.exclusive], sides[Source.shared], assumed, labour_minor)


def evidence_of(exclusive: Leads, shared: Leads, assumed: Assumed | None = None, labour_minor: int = 0) -> Evidence:
    """All leads counted. What costs nothing was given back and counts nowhere.

    Nor do the leads of a business that has told nothing about any lead of that source: they are not lost, only silent.
    """
    told = [leads.only(_told(leads)) for leads in (exclusive, shared)]
    paying = exclusive.business[exclusive.cost_minor > 0]
    silent = len(_dense(paying)[0]) - len(_dense(told[0].business)[0])
    names, numbers = _dense(np.concatenate([leads.business for leads in told]))
    count = min(max(len(names), 1), MOST_CLUSTERS)
    ours, theirs = (
        msgspec.structs.replace(leads, business=part % count)
        for leads, part in zip(told, np.split(numbers, [len(told[0].business)]), strict=True)
    )
    one = _side(ours, count)
    theirs, other, horizon = _shared_side(theirs, count, one)
    strata = _Strata(ours.stratum, theirs.stratum)
    return Evidence(
        businesses=count, all_businesses=max(len(names), 1), silent=silent,
        exclusive=one, shared=other, assumed=assumed, labour_minor=labour_minor,
        matched=_match(ours, theirs, strata, count, one), overlap=strata.overlap, strata=strata.largest(),
        speed=_speed(ours, count, horizon), fast_bands=FAST_BANDS,
    )  # fmt: skip


def date_wins(leads: Leads, horizon: int) -> Leads:
    """Puts each win whose day is not known into the last week in which it can count: that of the horizon, or of the
    lead's age if it is younger. Of all weeks this one never makes the lead's source look worse than it was."""
    undated = leads.won_seconds == UNDATED
    if not undated.any():
        return leads
    weeks = np.minimum(leads.age_seconds // WEEK_SECONDS, horizon)
    latest = np.maximum(weeks * WEEK_SECONDS - 1, 0)
    return msgspec.structs.replace(leads, won_seconds=np.where(undated, latest, leads.won_seconds))


def _shared_side(theirs: Leads, businesses: int, ours: Side) -> tuple[Leads, Side | None, int]:
    """The shared leads with every win dated, their count, and the horizon. That is known before the wins are dated: how
    long a lead was at risk does not hang on a win at the end of it."""
    if not len(theirs.business):
        return theirs, None, horizon_of(ours, None)
    dated = date_wins(theirs, WEEKS)
    other = _side(dated, businesses)
    horizon = horizon_of(ours, other)
    if dated is not theirs and 0 < horizon < WEEKS:
        dated = date_wins(theirs, horizon)
        other = _side(dated, businesses)
    return dated, other, horizon


def _told(leads: Leads) -> NDArray[np.bool_]:
    """Which leads were paid for, by a business that has told something of one."""
    paid = leads.cost_minor > 0
    said = paid & ((leads.ended > 0) | (leads.qualified >= 0) | (leads.contacted_seconds >= 0))
    heard = np.bincount(leads.business, said) > 0
    return paid & heard[leads.business] if len(paid) else paid


def _side(leads: Leads, businesses: int, weight: Floats | None = None) -> Side:
    u, age = weight, _weeks(leads.age_seconds)
    contacted, qualified = _reached(leads)
    ended = leads.ended > 0
    once = np.broadcast_to(np.int64(1), len(leads.business))
    return Side(
        leads=np.bincount(leads.business, u, businesses).astype(float),
        cost_minor=np.bincount(
            leads.business, leads.cost_minor if u is None else u * leads.cost_minor, businesses
        ).astype(float),
        outcomes=int(ended.sum()) if u is None else round(float(u[ended].sum())),
        won=_cells(leads.business, age, leads.won_seconds, u, leads.won_minor),
        contacted=_cells(leads.business, age, contacted, u, once),
        qualified=_cells(leads.business, age, np.where(qualified, contacted, -1), u, once),
    )  # fmt: skip


def _reached(leads: Leads) -> tuple[Integers, NDArray[np.bool_]]:
    """When each lead was contacted, and whether it was qualified, as each step of a funnel takes the one before.

    A won lead was qualified, and a qualified one was contacted: by the time of its win, or, where no time is known, at
    once. A qualified lead counts from its contact on, so that no week has more qualified leads than contacted ones.
    """
    won = leads.won_seconds >= 0
    qualified = won | (leads.qualified > 0)
    untimed = qualified & (leads.contacted_seconds < 0)
    late = won & (leads.contacted_seconds > leads.won_seconds)
    contacted = np.where(late | (untimed & won), leads.won_seconds, np.where(untimed, 0, leads.contacted_seconds))
    return contacted, qualified


def _weeks(seconds: Integers) -> Integers:
    """Whole weeks, at most the horizon."""
    return np.clip(seconds // WEEK_SECONDS, 0, WEEKS)


def _cells(business: Integers, age: Integers, event: Integers, u: Floats | None, worth: Integers) -> Cells:
    """For how many whole weeks each lead was watched, and whether the event ended that."""
    week = event // WEEK_SECONDS
    happened = (event >= 0) & (week < age)
    return _counted(business, np.where(happened, week + 1, age), happened.astype(np.int64), u, worth)


def _counted(business: Integers, weeks: Integers, happened: Integers, u: Floats | None, worth: Integers) -> Cells:
    """`u` is what each lead counts for: once, where there is none."""
    key = (business * (WEEKS + 1) + weeks) * 2 + happened
    found = np.bincount(key)
    keys = np.flatnonzero(found)
    at = np.flatnonzero(happened)  # few: most leads are worth nothing to anybody
    there, value = key[at], worth[at].astype(float)
    one = np.ones(len(at)) if u is None else u[at]
    uv = one * value

    def total(places: Integers, amounts: Floats) -> Floats:
        return np.bincount(places, amounts, len(found))[keys].astype(float)

    once = found[keys].astype(float)
    return Cells(
        business=keys // 2 // (WEEKS + 1), weeks=keys // 2 % (WEEKS + 1), happened=keys % 2 > 0,
        leads=once if u is None else total(key, u), squares=once if u is None else total(key, u * u),
        value=total(there, uv), cross=total(there, one * uv), value_squares=total(there, uv**2),
        value_fourths=total(there, uv**4),
    )  # fmt: skip


def _dense(key: Integers) -> tuple[Integers, Integers]:
    """As numpy.unique with its inverse, for small numbers: a million need not be sorted."""
    used = np.bincount(key) > 0
    return np.flatnonzero(used), (np.cumsum(used) - 1)[key]


class _Strata:
    """Which leads of both sources are alike; stratum 0 is like none."""

    def __init__(self, ours: Integers, theirs: Integers) -> None:
        self.keys = np.unique(np.concatenate((ours, theirs)))
        self.ours, self.theirs = np.searchsorted(self.keys, ours), np.searchsorted(self.keys, theirs)
        self.here, self.there = (np.bincount(places, minlength=len(self.keys)) for places in (self.ours, self.theirs))
        self.common = (self.here > 0) & (self.there > 0) & (self.keys != 0)

    @property
    def overlap(self) -> float:
        """The share of exclusive leads that have shared ones beside them."""
        return float(self.here[self.common].sum() / max(len(self.ours), 1))

    def largest(self) -> tuple[Stratum, ...]:
        """Those with the most exclusive leads."""
        order = [at for at in np.argsort(-self.here, kind="stable") if self.keys[at]]
        return tuple(
            Stratum(key=int(self.keys[at]), exclusive=int(self.here[at]), shared=int(self.there[at]))
            for at in order[:MOST_STRATA]
        )


def _match(ours: Leads, theirs: Leads, strata: _Strata, businesses: int, whole: Side) -> tuple[Side, Side] | None:
    """Shared leads weighted to the exclusive leads' mix of strata, both without strata that only one of them has."""
    common = strata.common
    if not common.any():
        return None
    scale = strata.there[common].sum() / strata.here[common].sum()
    weights = scale * strata.here / np.maximum(strata.there, 1)
    kept = common[strata.theirs]
    alike = ours.only(common[strata.ours])
    one = whole if alike is ours else _side(alike, businesses)
    return one, _side(theirs.only(kept), businesses, weights[strata.theirs[kept]])


def _speed(leads: Leads, businesses: int, horizon: int) -> tuple[Speed, ...]:
    """Leads old enough for the horizon, by how soon they were contacted."""
    if not horizon:
        return ()
    old = leads.only((leads.contacted_seconds >= 0) & (leads.age_seconds >= horizon * WEEK_SECONDS))
    band = np.searchsorted([limit for _, limit in BANDS], old.contacted_seconds)
    won = ((old.won_seconds >= 0) & (old.won_seconds < horizon * WEEK_SECONDS)).astype(np.int64)
    once = np.broadcast_to(np.int64(1), len(won))
    return tuple(
        Speed(
            band=name,
            cells=_counted(old.business[at], once[at], won[at], None, once[at]),
        )
        for number, (name, _) in enumerate(BANDS)
        for at in (np.flatnonzero(band == number),)
    )
