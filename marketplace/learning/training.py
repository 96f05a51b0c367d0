"""Training of a points card from outcomes: rows of leads in, a card with its judgement out. Pure and offline.

The only module that imports scikit-learn, which the extra `learning` installs. The card is a logistic regression over
ranges of numbers and values of categories. A ridge pulls every value towards the average lead, a rare one almost all
the way, and every step between two ranges towards none. A number rises or falls throughout, unless the outcomes
contradict it. Ranges, values, the strength of the ridge and the directions are chosen anew within each fold, so that
the judgement is of leads that had no part in the card that scored them.

An open lead is neither won nor lost: it counts as won in part, by its own chance of being won later (`expected_wins`).
So the leads of a new provider, all of them young, count neither as lost nor for their wins alone.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from enum import StrEnum
from itertools import pairwise
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from marketplace.learning.evaluation import (
    GROUP_FEATURES,
    HORIZON_WEEKS,
    CardEvaluation,
    Flags,
    Floats,
    FollowedOutcome,
    JudgedLead,
    OutcomeKind,
    evaluate,
    expected_wins,
    outcome_course,
)
from routing.inquiry import amount_in_words
from routing.scorecard import (
    EVIDENCE_SUFFIX,
    FEATURE_TITLES,
    NEED_PREFIX,
    SMALLEST_PART,
    CardFeature,
    CardOrigin,
    CategoryFeature,
    FeatureValue,
    NumberFeature,
    ScoreBin,
    Scorecard,
    chance,
    compile_scorecard,
    round_points,
)
from routing.vertical import VerticalDefinition

LEAST_WINS: Final = 50
"""Fewest wins from which a card is trained, and fewest leads that ended without one."""

LEAST_IN_LAST_WEEK: Final = 10
"""Fewest leads whose last week of the horizon was observed, as in docs/ROI.md."""

LEAST_LEADS_OF_A_VALUE: Final = 20
"""Fewest leads of a category's value that has points of its own; fewer are counted as other."""

MOST_VALUES: Final = 200
"""Most values of a category that have points of their own, the most frequent ones."""

MOST_RANGES: Final = 20
"""Most ranges of a number, with about equal numbers of leads."""

RIDGES: Final = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Inverse strengths of the ridge that are tried: variances that points are supposed to have."""

ROUNDS: Final = 4
"""Times that the chances of open leads are estimated from the points, and the points from these chances."""

CONTRADICTION: Final = 0.01
"""Probability of outcomes that contradict a direction as much by chance, below which a number has no direction."""

PROTECTED_WORDS: Final = frozenset(
    (
        *("birth", "birthday", "citizenship", "disability", "disabled", "ethnicity", "faith", "gender", "marital"),
        *("married", "maternity", "nationality", "pregnancy", "pregnant", "race", "religion", "sex", "sexual"),
    )
)
PROTECTED_NAMES: Final = frozenset({"age", "age_group", "age_range", "health", "national_origin", "union_member"})
"""Words in the name of a need field, and whole names, that are never learned from: attributes that are protected by
Article 21 of the Charter of Fundamental Rights of the EU or by 15 U.S.C. 1691."""

Values: TypeAlias = Mapping[str, FeatureValue]
Steps: TypeAlias = tuple[float, ...]


class TrainingRow(msgspec.Struct, frozen=True, kw_only=True):
    """Lead with the values that were known before its sale, and its outcome."""

    values: Values
    outcome: FollowedOutcome


class TrainingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Vertical to train for, words for its features, and what decides by chance.

    `titles` are words for features besides `FEATURE_TITLES`, `labels` words for values by feature. `excluded` features
    are not learned from, and the card is judged by the values of the features in `groups`. The same rows and plan give
    the same card. `first` and `last` are the days of the leads.
    """

    vertical: str
    currency: str | None = None
    titles: Mapping[str, str] = {}
    labels: Mapping[str, Mapping[str, str]] = {}
    excluded: frozenset[str] = frozenset({"mode"})
    groups: tuple[str, ...] = GROUP_FEATURES
    folds: int = 5
    seed: int = 1
    horizon: int = HORIZON_WEEKS
    first: date | None = None
    last: date | None = None


def plan_for(vertical: str, definition: VerticalDefinition, seed: int = 1) -> TrainingPlan:
    """Return the plan for a vertical, with the words of its questions and choices; `vertical` is its slug."""
    needs = {NEED_PREFIX + name: field for name, field in definition.needs.items()}
    return TrainingPlan(
        vertical=vertical,
        currency=definition.currency,
        titles={name: field.label.rstrip("?:") for name, field in needs.items() if field.label},
        labels={name: {choice: choice.replace("_", " ") for choice in field.choices} for name, field in needs.items()},
        seed=seed,
    )


class TrainingRefusalReason(StrEnum):
    """Reason for which no card was trained, in order of precedence."""

    too_few_wins = "too_few_wins"
    """Too few leads were won."""
    too_few_losses = "too_few_losses"
    """Too few leads ended without a win or were followed for the whole horizon."""
    followed_too_short = "followed_too_short"
    """Too few leads were followed up to the end of the horizon."""
    nothing_differs = "nothing_differs"
    """No feature has two different values."""


class TrainingRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """No card: the reason, and a sentence that says what to do."""

    reason: TrainingRefusalReason
    detail: str


class TrainedCard(msgspec.Struct, frozen=True, kw_only=True):
    """Card trained on all rows, and its judgement out of fold: by cards that had not seen the leads that they scored.

    `out_of_fold` are the chances that were judged, in the order of the rows.
    """

    card: Scorecard
    evaluation: CardEvaluation
    out_of_fold: tuple[float, ...]


def train(rows: Sequence[TrainingRow], plan: TrainingPlan) -> TrainedCard | TrainingRefusal:
    """Return a card with its judgement out of fold, or the reason why there is none. Uses one processor."""
    with threadpool_limits(limits=1):
        return _train(rows, plan)


def _train(rows: Sequence[TrainingRow], plan: TrainingPlan) -> TrainedCard | TrainingRefusal:
    sample = _sample(rows)
    refusal = _refusal(sample, plan)
    if refusal is not None:
        return refusal
    chances = np.zeros(len(rows))
    for training, fold in _folds(sample, plan):
        compiled = compile_scorecard(_fit(sample.part(training), plan))
        chances[fold] = [chance(compiled, sample.values[place]).probability for place in fold]
    judged = [
        JudgedLead(values=row.values, probability=float(probability), outcome=row.outcome)
        for row, probability in zip(rows, chances, strict=True)
    ]
    return TrainedCard(
        card=_fit(sample, plan),
        evaluation=evaluate(judged, group_features=plan.groups, horizon=plan.horizon),
        out_of_fold=tuple(chances.tolist()),
    )


class _Sample(msgspec.Struct, frozen=True, kw_only=True):
    values: tuple[Values, ...]
    outcomes: tuple[FollowedOutcome, ...]

    def part(self, places: NDArray[np.int64]) -> "_Sample":
        """Return the leads at these places."""
        return _Sample(
            values=tuple(self.values[place] for place in places),
            outcomes=tuple(self.outcomes[place] for place in places),
        )


def _sample(rows: Sequence[TrainingRow]) -> _Sample:
    return _Sample(values=tuple(row.values for row in rows), outcomes=tuple(row.outcome for row in rows))


def _refusal(sample: _Sample, plan: TrainingPlan) -> TrainingRefusal | None:
    """Return the first reason against training, in the order of TrainingRefusalReason."""
    numbers = Counter(lead.outcome for lead in sample.outcomes)
    last_week = sum(lead.weeks >= plan.horizon for lead in sample.outcomes)
    sentences = {
        TrainingRefusalReason.too_few_wins: (
            numbers[OutcomeKind.won] < LEAST_WINS
            and f"{numbers[OutcomeKind.won]} leads were won: a card needs {LEAST_WINS}. Wait for more outcomes."
        ),
        TrainingRefusalReason.too_few_losses: (
            numbers[OutcomeKind.not_won] < LEAST_WINS
            and f"{numbers[OutcomeKind.not_won]} leads ended without a win: a card needs {LEAST_WINS}. "
            f"Wait until more leads are lost or {plan.horizon} weeks old."
        ),
        TrainingRefusalReason.followed_too_short: (
            last_week < LEAST_IN_LAST_WEEK
            and f"{last_week} leads were followed for {plan.horizon} weeks: a card needs {LEAST_IN_LAST_WEEK}. Wait."
        ),
        TrainingRefusalReason.nothing_differs: (
            not _codings(sample.values, plan)
            and "All leads have the same values, so that nothing can be learned. Send more of what is known."
        ),
    }
    return next((TrainingRefusal(reason=reason, detail=detail) for reason, detail in sentences.items() if detail), None)


def _folds(sample: _Sample, plan: TrainingPlan) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield for each fold the places of the other leads and its own, with won leads spread evenly."""
    won = [lead.outcome is OutcomeKind.won for lead in sample.outcomes]
    splitter = StratifiedKFold(plan.folds, shuffle=True, random_state=plan.seed)
    yield from splitter.split(np.zeros(len(won)), won)


# Columns: each feature as numbers that a regression reads.


class _NumberCoding(msgspec.Struct, frozen=True, kw_only=True):
    """One column for each edge, 1 above it, and one for unknown. Unknown is average in the others."""

    name: str
    edges: Steps
    shares_above: Steps

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.edges) + 1

    def columns(self, values: Sequence[Values]) -> Floats:
        numbers = np.array([_number(row.get(self.name)) for row in values])
        unknown = np.isnan(numbers)
        above = (numbers[:, None] > np.array(self.edges)).astype(float)
        above[unknown] = self.shares_above
        return np.column_stack((above, unknown))

    def feature(self, points: Floats, shares: Floats, plan: TrainingPlan) -> tuple[CardFeature, float]:
        """Return the feature with points against the average lead, and the points of the average lead."""
        steps, unknown_step = points[:-1], points[-1]
        by_range = np.concatenate(([0.0], np.cumsum(steps)))
        unknown = float(steps @ np.array(self.shares_above) + unknown_step)
        mean = float(points @ shares)
        edges, merged = _merge_equal_ranges(self.edges, by_range - mean)
        labels = _range_labels(self.name, edges, plan)
        bins = tuple(_bin(label, value) for label, value in zip(labels, merged, strict=True))
        unknown_bin = _bin("not known", unknown - mean if shares[-1] > 0 else 0.0)
        title = _title(self.name, plan)
        return NumberFeature(name=self.name, title=title, edges=edges, bins=bins, unknown=unknown_bin), mean


class _CategoryCoding(msgspec.Struct, frozen=True, kw_only=True):
    """One column for each value, one for all other values, and one for unknown."""

    name: str
    levels: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.levels) + 2

    def columns(self, values: Sequence[Values]) -> Floats:
        count = len(self.levels)
        place_of: dict[FeatureValue | None, int] = {level: place for place, level in enumerate(self.levels)}
        place_of[None] = count + 1
        return np.eye(count + 2)[[place_of.get(row.get(self.name), count) for row in values]]

    def feature(self, points: Floats, shares: Floats, plan: TrainingPlan) -> tuple[CardFeature, float]:
        """Return the feature with points against the average lead, and the points of the average lead."""
        mean = float(points @ shares)
        *by_level, other, unknown = np.where(shares > 0, points - mean, 0.0)
        words = plan.labels.get(self.name, {})
        feature = CategoryFeature(
            name=self.name,
            title=_title(self.name, plan),
            bins={
                level: _bin(words.get(level, level.replace("_", " ")), value)
                for level, value in zip(self.levels, by_level, strict=True)
            },
            other=_bin("another answer", other),
            unknown=_bin("not known", unknown),
        )
        return feature, mean


_Coding = _NumberCoding | _CategoryCoding


def _codings(values: Sequence[Values], plan: TrainingPlan) -> list[_Coding]:
    """Return the codings of all features that differ among the leads, in order of their names."""
    names = sorted({name for row in values for name in row if name not in plan.excluded and not is_protected(name)})
    codings = (_coding(name, [row.get(name) for row in values]) for name in names)
    return [coding for coding in codings if coding is not None]


def is_protected(name: str) -> bool:
    """Return whether a feature is a need field that names a protected attribute."""
    if not name.startswith(NEED_PREFIX):
        return False
    field = name.removeprefix(NEED_PREFIX).lower()
    return field in PROTECTED_NAMES or not PROTECTED_WORDS.isdisjoint(re.findall("[a-z]+", field))


def _coding(name: str, column: Sequence[FeatureValue | None]) -> _Coding | None:
    """Return the coding of one feature: a number if most values are numbers. None if there is nothing to compare.

    How an answer is known says nothing beside the answer if it is always known in the same way.
    """
    present = [value for value in column if value is not None]
    numbers = np.array([value for value in present if not isinstance(value, str)], dtype=float)
    if len(numbers) * 2 > len(present):
        edges = _edges(numbers)
        shares = tuple(float(np.mean(numbers > edge)) for edge in edges)
        unknown = len(numbers) < len(column)
        return _NumberCoding(name=name, edges=edges, shares_above=shares) if edges or unknown else None
    counts = Counter(value for value in present if isinstance(value, str))
    if name.endswith(EVIDENCE_SUFFIX) and len(counts) == 1:
        return None
    frequent = [level for level, count in counts.most_common(MOST_VALUES) if count >= LEAST_LEADS_OF_A_VALUE]
    bins = len(frequent) + (len(present) > sum(counts[level] for level in frequent)) + (len(present) < len(column))
    return _CategoryCoding(name=name, levels=tuple(sorted(frequent))) if bins > 1 else None


def _edges(numbers: Floats) -> Steps:
    """Return edges between at most `MOST_RANGES` ranges with about equal numbers of leads.

    Edges are rounded to two digits, for people to read.
    """
    quantiles = np.quantile(numbers, np.arange(1, MOST_RANGES) / MOST_RANGES, method="lower")
    edges = {float(f"{quantile:.1e}") for quantile in quantiles}
    return tuple(sorted(edge for edge in edges if numbers.min() <= edge < numbers.max()))


def _number(value: FeatureValue | None) -> float:
    return float("nan") if value is None or isinstance(value, str) else float(value)


# Fitting.


class _Regression(msgspec.Struct, frozen=True, kw_only=True):
    intercept: float
    points: Floats

    def log_odds(self, columns: Floats) -> Floats:
        odds: Floats = self.intercept + columns @ self.points
        return odds


def _fit(sample: _Sample, plan: TrainingPlan) -> Scorecard:
    """Return the card of a sample, everything in it chosen by this sample alone."""
    codings = _codings(sample.values, plan)
    columns = _columns(codings, sample.values)
    everything = np.ones(columns.shape[1], dtype=bool)
    course = outcome_course(sample.outcomes, plan.horizon)
    wins = expected_wins(sample.outcomes, np.full(len(columns), course.won), course)
    ridge = _choose_ridge(sample, wins, plan)
    if (wins % 1 > 0).any():
        for _ in range(ROUNDS):
            log_odds = _regress(columns, wins, ridge, everything).log_odds(columns)
            wins = expected_wins(sample.outcomes, 1 / (1 + np.exp(-log_odds)), course)
    return _card(codings, columns, sample, _directed(codings, columns, wins, ridge), plan)


def _choose_ridge(sample: _Sample, wins: Floats, plan: TrainingPlan) -> float:
    """Return the strength that predicts leads best that were left out."""
    log_odds = {ridge: np.zeros(len(wins)) for ridge in RIDGES}
    for training, fold in _folds(sample, plan):
        values, unseen = sample.part(training).values, sample.part(fold).values
        codings = _codings(values, plan)
        columns, unseen_columns = _columns(codings, values), _columns(codings, unseen)
        for ridge in RIDGES:
            regression = _regress(columns, wins[training], ridge, np.ones(columns.shape[1], dtype=bool))
            log_odds[ridge][fold] = regression.log_odds(unseen_columns)
    return min(RIDGES, key=lambda ridge: _deviance(log_odds[ridge], wins))


def _columns(codings: Sequence[_Coding], values: Sequence[Values]) -> Floats:
    return np.column_stack([np.empty((len(values), 0)), *(coding.columns(values) for coding in codings)])


def _regress(columns: Floats, wins: Floats, ridge: float, active: Flags) -> _Regression:
    """Fit a logistic regression with a ridge to the active columns; the points of the others are nought.

    A lead that is won in part counts twice: as won and as not won, each with its part.
    """
    points = np.zeros(columns.shape[1])
    if not active.any():
        return _Regression(intercept=float(np.log(wins.mean() / (1 - wins.mean()))), points=points)
    won, not_won = wins > 0, wins < 1
    model = LogisticRegression(C=ridge, solver="newton-cholesky", max_iter=200, tol=1e-8)
    model.fit(
        np.concatenate((columns[np.ix_(won, active)], columns[np.ix_(not_won, active)])),
        np.concatenate((np.ones(won.sum()), np.zeros(not_won.sum()))),
        sample_weight=np.concatenate((wins[won], 1 - wins[not_won])),
    )
    points[active] = model.coef_[0]
    return _Regression(intercept=float(model.intercept_[0]), points=points)


def _deviance(log_odds: Floats, wins: Floats) -> float:
    """Return twice the negative log likelihood of the outcomes."""
    return float(2 * (wins * np.logaddexp(0, -log_odds) + (1 - wins) * np.logaddexp(0, log_odds)).sum())


def _directed(codings: Sequence[_Coding], columns: Floats, wins: Floats, ridge: float) -> _Regression:
    """Return the regression in which every number has one direction that the outcomes do not contradict.

    The direction is that of the free steps together. Steps against it are taken out, which makes one range of two,
    until there are none. A number keeps all its steps if the outcomes contradict its direction (`CONTRADICTION`).
    """
    free = _regress(columns, wins, ridge, np.ones(columns.shape[1], dtype=bool))
    deviance = _deviance(free.log_odds(columns), wins)
    directions = np.zeros(columns.shape[1])
    start = 0
    for coding in codings:
        if isinstance(coding, _NumberCoding) and len(coding.edges) > 1:
            steps = slice(start, start + len(coding.edges))
            above = np.array(coding.shares_above)
            alone = np.zeros(columns.shape[1])
            alone[steps] = np.sign(free.points[steps] @ (above * (1 - above)))
            directed, removed = _without_contrary_steps(columns, wins, ridge, alone, free)
            loss = _deviance(directed.log_odds(columns), wins) - deviance
            if removed == 0 or loss <= chi2.ppf(1 - CONTRADICTION, removed):
                directions += alone
        start += coding.width
    return _without_contrary_steps(columns, wins, ridge, directions, free)[0]


def _without_contrary_steps(
    columns: Floats, wins: Floats, ridge: float, directions: Floats, regression: _Regression
) -> tuple[_Regression, int]:
    """Return the regression in which no step goes against its direction, and the number of steps taken out for it.

    `directions` are 1, -1, or 0 for none, and `regression` is the one with all steps.
    """
    active = np.ones(columns.shape[1], dtype=bool)
    while (contrary := regression.points * directions < 0).any():
        active &= ~contrary
        regression = _regress(columns, wins, ridge, active)
    return regression, int((~active).sum())


# Card.


def _card(
    codings: Sequence[_Coding],
    columns: Floats,
    sample: _Sample,
    regression: _Regression,
    plan: TrainingPlan,
) -> Scorecard:
    """Return the card of a regression: points against the average lead, whose log odds are the intercept."""
    shares = columns.mean(axis=0)
    intercept, start = regression.intercept, 0
    features = []
    for coding in codings:
        end = start + coding.width
        feature, mean = coding.feature(regression.points[start:end], shares[start:end], plan)
        intercept, start = intercept + mean, end
        if any(abs(score_bin.points) >= SMALLEST_PART for score_bin in _bins(feature)):
            features.append(feature)
    return Scorecard(
        vertical=plan.vertical,
        intercept=round_points(intercept),
        features=tuple(features),
        trained_on=CardOrigin(
            leads=len(sample.outcomes),
            wins=sum(lead.outcome is OutcomeKind.won for lead in sample.outcomes),
            first=plan.first,
            last=plan.last,
        ),
        horizon_weeks=plan.horizon,
    )


def _bins(feature: CardFeature) -> tuple[ScoreBin, ...]:
    if isinstance(feature, NumberFeature):
        return *feature.bins, feature.unknown
    return *feature.bins.values(), feature.other, feature.unknown


def _merge_equal_ranges(edges: Steps, points: Floats) -> tuple[Steps, list[float]]:
    """Return the edges at which the points change by more than nothing, and the points of the ranges between them."""
    merged = [float(points[0])]
    changes = []
    for edge, value in zip(edges, points[1:], strict=True):
        if round_points(float(value)) != round_points(merged[-1]):
            changes.append(edge)
            merged.append(float(value))
    return tuple(changes), merged


def _bin(label: str, points: float) -> ScoreBin:
    return ScoreBin(label=label, points=round_points(float(points)))


def _title(name: str, plan: TrainingPlan) -> str:
    plain = name.removeprefix(NEED_PREFIX).replace("_", " ").capitalize()
    return plan.titles.get(name, FEATURE_TITLES.get(name, plain))


def _range_labels(name: str, edges: Steps, plan: TrainingPlan) -> Iterator[str]:
    """Yield a label for each range of whole numbers: up to 3, 4 to 7, over 7."""
    if not edges:
        yield "known"
        return
    is_money = name == "budget" and plan.currency is not None

    def words(value: float) -> str:
        return amount_in_words(int(value), str(plan.currency)) if is_money else f"{value:,.0f}"

    yield words(0) if edges[0] == 0 else f"up to {words(edges[0])}"
    for low, high in pairwise(edges):
        yield words(high) if high == low + 1 else f"{words(low + 1)} to {words(high)}"
    yield f"over {words(edges[-1])}"
