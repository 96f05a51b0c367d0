"""Changes and results of simulations in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from typing import assert_never
from uuid import UUID

from billing.intervals import Figure
from billing.pricing import FixedPayout, Payout, SharePayout
from marketplace.simulations.changes import (
    WhatIf,
    WhatIfArea,
    WhatIfCap,
    WhatIfPause,
    WhatIfPayout,
    WhatIfPolicy,
    WhatIfPrice,
    WhatIfScorecard,
    WhatIfStrategy,
    WhatIfSubscription,
)
from marketplace.simulations.comparison import Comparison, Reproduction
from marketplace.simulations.loading import SimulatedLeadCounts
from routing.inquiry import amount_in_words
from routing.subscription import Cap


def describe_changes(changes: Sequence[WhatIf], currency: str) -> str:
    """Return the changes in words, as the end of "With …"."""
    return ", ".join(describe_change(change, currency) for change in changes) or "the rules as they are"


def describe_change(change: WhatIf, currency: str) -> str:
    """Return one change in words, such as "a minimum score of 60"."""
    match change:
        case WhatIfPolicy(minimum_score=int(score)):
            return f"a minimum score of {score}"
        case WhatIfPolicy():
            return "the new rules of the vertical"
        case WhatIfStrategy(strategy=strategy):
            return f"ranking by {strategy.replace('_', ' ')}"
        case WhatIfScorecard(version=version):
            return "no scorecard" if version is None else f"scorecard {version}"
        case WhatIfPayout(payout=payout):
            return f"a payout of {_payout(payout, currency)}"
        case _:
            return _subscription_change(change, currency)


def _subscription_change(
    change: WhatIfSubscription | WhatIfPrice | WhatIfCap | WhatIfArea | WhatIfPause, currency: str
) -> str:
    match change:
        case WhatIfPrice(price_minor=price):
            return f"a price of {amount_in_words(price, currency)}"
        case WhatIfCap(caps=caps):
            return " and ".join(_cap(cap, currency) for cap in caps) or "no cap"
        case WhatIfArea():
            return "another area"
        case WhatIfPause(paused=paused):
            return "a subscription paused" if paused else "a subscription resumed"
        case WhatIfSubscription(subscription_id=None):
            return "one more subscription"
        case WhatIfSubscription():
            return "other rules of a subscription"
        case _:
            assert_never(change)


def _cap(cap: Cap, currency: str) -> str:
    parts = [] if cap.count is None else [f"{cap.count:,} leads"]
    if cap.amount_minor is not None:
        parts.append(amount_in_words(cap.amount_minor, currency))
    over = "in total" if cap.window == "total" else f"an {cap.window}" if cap.window == "hour" else f"a {cap.window}"
    return f"a cap of {' and '.join(parts)} {over}"


def _payout(payout: Payout, currency: str) -> str:
    match payout:
        case FixedPayout(minor=minor):
            return amount_in_words(minor, currency)
        case SharePayout(basis_points=points):
            return f"{points / 100:g} % of the price"
        case _:
            assert_never(payout)


def describe_result(change: str, comparison: Comparison, currency: str) -> tuple[str, ...]:
    """Return what the changed rules would have done, the most important first. `change` is in words."""
    sentences = [f"With {change}: {_effect(comparison, currency)}."]
    if comparison.moved:
        verb = "lead goes" if comparison.moved == 1 else "leads go"
        sentences.append(f"{comparison.moved:,} {verb} to another business.")
    wins = comparison.wins
    if wins.lost or wins.moved:
        sentences.append(
            f"Of {wins.wins:,} known wins, {wins.lost:,} would have been lost and {wins.moved:,} would have gone to "
            "another business."
        )
    return (*sentences, describe_reproduction(comparison.reproduction))


def _effect(comparison: Comparison, currency: str, interval: str = "") -> str:
    """Return the change of sales, with its interval in words, of revenue and of fill."""
    before, after = comparison.before, comparison.after
    if before == after and not comparison.moved:
        return "nothing changes"
    parts = [
        _difference(comparison.sold_a_week.value, "sale", "sales") + interval,
        _money(comparison.revenue_a_week.value, currency),
    ]
    if before.sold and after.sold != before.sold:
        more = "more" if after.sold > before.sold else "fewer"
        percent = 100 * abs(after.sold - before.sold) / before.sold
        parts.append(f"{percent:.1f} % {more} leads find a business")
    return ", ".join(parts)


def _difference(value: float, singular: str, plural: str) -> str:
    """Return a difference per week in words: "12 fewer sales a week"."""
    size = abs(value)
    text = f"{size:,.0f}" if size >= 10 else f"{size:.1f}".removesuffix(".0")
    if text == "0":
        return f"as many {plural} a week"
    more = "more" if value > 0 else "fewer"
    return f"{text} {more} {singular if text == '1' else plural} a week"


def _money(value: float, currency: str) -> str:
    if not round(value):
        return "the same revenue a week"
    return f"{amount_in_words(abs(round(value)), currency)} {'more' if value > 0 else 'less'} revenue a week"


def describe_reproduction(reproduction: Reproduction) -> str:
    """Return how well a simulation by the rules as they were repeats what happened, in a sentence."""
    if not reproduction.leads:
        return "There are no leads in this time."
    percent = 100 * reproduction.same_business / reproduction.leads
    shares = 100 * reproduction.same_shares
    return (
        f"By the rules as they were at each time, a simulation gives {percent:.3g} % of the leads to the same business "
        f"as in fact, or to none as in fact, and the numbers of leads of the businesses agree by {shares:.3g} %."
    )


def describe_left_out(counts: SimulatedLeadCounts) -> str:
    """Return the leads that are not part of a simulation in a sentence; empty if there are none."""
    parts = [
        f"{count:,} {words}"
        for count, words in (
            (counts.repeated, "of people who had asked before"),
            (counts.suppressed, "of people who do not want to be contacted"),
            (counts.erased, "erased"),
        )
        if count
    ]
    return f"Leads left out: {', '.join(parts)}." if parts else ""


def describe_suggestion(change: str, comparison: Comparison, currency: str, names: Mapping[UUID, str]) -> str:
    """Return a tried change with its effect, its intervals, and the business that gains most, in a sentence.

    `names` are those of the businesses.
    """
    effect = _effect(comparison, currency, _interval(comparison.sold_a_week))
    text = f"{change[:1].upper()}{change[1:]}: {effect}"
    wins = comparison.wins
    if wins.lost:
        text += f"; {wins.lost:,} of {wins.wins:,} known wins lost{_wins_interval(comparison)}"
    most = max(comparison.businesses, key=lambda row: row.leads_after - row.leads_before, default=None)
    if most is not None and most.leads_after > most.leads_before:
        more = (most.leads_after - most.leads_before) / comparison.weeks
        text += f"; {names.get(most.business_id, 'one business')} gains most, {more:.1f} leads a week"
    return f"{text}."


def _interval(figure: Figure) -> str:
    """Return the interval of a difference in words, such as " (95 %: 0.4 to 2.1 fewer)"; empty if it has none."""
    if figure.low is None or figure.high is None:
        return ""
    low, high = round(figure.low, 1), round(figure.high, 1)
    if low == high == 0:
        return ""
    if high <= 0:
        words = f"{abs(high):g} to {abs(low):g} fewer"
    elif low >= 0:
        words = f"{low:g} to {high:g} more"
    else:
        words = f"{-low:g} fewer to {high:g} more"
    return f" (95 %: {words})"


def _wins_interval(comparison: Comparison) -> str:
    """Return the interval of the wins lost in the whole time; empty if it has none."""
    figure = comparison.wins_lost_a_week
    if figure.low is None or figure.high is None:
        return ""
    return f" (95 %: {max(0.0, figure.low * comparison.weeks):.0f} to {figure.high * comparison.weeks:.0f})"


def notes_of(counts: SimulatedLeadCounts, versions: int) -> Iterator[str]:
    """Yield the sentences about what limits a result."""
    if text := describe_left_out(counts):
        yield text
    if versions:
        were = "version of the rules was" if versions == 1 else "versions of the rules were"
        yield f"{versions:,} {were} published since the beginning; the change is compared with the rules of today."
