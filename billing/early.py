"""Early estimate of the share won of a business with few leads: at first that of its vertical, in the end its own.

Businesses of a vertical differ in the share that they win. How much they differ is estimated from all of them, as Beta
distributions that are more or less likely (empirical Bayes, with an uncertain prior); the leads of the business itself
then move the estimate from the vertical's mean to its own share. A lead counts as the part of a lead that its age
shows: one of two weeks, by which a third of the wins within the horizon have come, counts as a third.
"""

import math
from typing import Final

import msgspec
import numpy as np

from billing.evidence import LEAST_BUSINESSES, LEAST_WINS
from billing.intervals import Figure, beta_share_of
from billing.lifetable import Floats
from billing.outcomes import WEEK_SECONDS, LeadColumns, reported_leads, share_won_by_week

LEAST_STRENGTH: Final = 2.0
"Fewest leads that a vertical's distribution can be worth: then most businesses win nearly all or none."
STRENGTHS, MEANS = 12, 9
"Points of the grid over distributions."
TYPICAL_ALIKE: Final = 0.05
"Correlation of two leads of a business that sets how far the grid reaches; the likelihood decides within it."


class EarlyShare(msgspec.Struct, frozen=True, kw_only=True):
    """Share won by week `weeks`, estimated from the `leads` and `wins` of the business and from other businesses.

    `others_share` is the mean share of the `businesses` of the same vertical, without this one. `own_part` is how much
    of the estimate is the business's own: 0 without leads, close to 1 with many.
    """

    share: Figure
    others_share: float
    businesses: int
    leads: int
    wins: int
    own_part: float
    weeks: int
    sentence: str


class WinPriors(msgspec.Struct, frozen=True, kw_only=True):
    """Beta distributions of the share won over businesses, with the logarithm of how likely each is.

    `leads` is the number of leads that a distribution is worth, the sum of both of its parameters.
    """

    mean: Floats
    leads: Floats
    log_weight: Floats


def win_priors(leads: Floats, wins: Floats) -> WinPriors:
    """Return how the share won may differ between businesses, of which each won `wins` of `leads`.

    With few businesses their mean and how far they are apart are themselves uncertain: so there are many distributions,
    each as likely as it makes these wins (Beta-binomial likelihood). Beforehand every mean and every standard deviation
    is as likely as any other, the usual choice for a spread that few groups show.
    """
    total = float(leads.sum())
    odds = math.log(wins.sum() / (total - wins.sum()))
    spread = (1 / total + TYPICAL_ALIKE / len(leads)) * total**2 / (wins.sum() * (total - wins.sum()))
    odds_grid = odds + np.linspace(-3, 3, MEANS) * math.sqrt(spread)
    strengths = np.exp(np.linspace(math.log(LEAST_STRENGTH), math.log(max(total, 100.0)), STRENGTHS))
    mean, strength = (each.ravel() for each in np.meshgrid(1 / (1 + np.exp(-odds_grid)), strengths))
    likelihood = sum(_log_likelihood(mean, strength, n, x) for n, x in zip(leads, wins, strict=True))
    prior = -0.5 * np.log(strength)  # of a standard deviation that is anywhere alike, on a grid even in logarithms
    return WinPriors(mean=mean, leads=strength, log_weight=likelihood + prior)


def _likely(log_weight: Floats) -> Floats:
    """Return weights that sum to 1, from their logarithms."""
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(weight / weight.sum())


def _log_likelihood(mean: Floats, strength: Floats, leads: float, wins: float) -> Floats:
    """Return the logarithm of the chance of these wins under each distribution, but for a constant."""
    a, b = mean * strength, (1 - mean) * strength
    lost = max(leads - wins, 0.0)
    after, before = _log_beta(a + wins, b + lost), _log_beta(a, b)
    return after - before


def _log_beta(a: Floats, b: Floats) -> Floats:
    return _log_gamma(a) + _log_gamma(b) - _log_gamma(a + b)


def _log_gamma(values: Floats) -> Floats:
    return np.array([math.lgamma(value) for value in values])


def posterior(priors: WinPriors, leads: float, wins: float) -> tuple[Figure, float]:
    """Return the share won of a business with these leads and wins, and how much of it is its own.

    The interval is that of the Beta distribution with the mean and variance over all distributions.
    """
    weight = _likely(priors.log_weight + _log_likelihood(priors.mean, priors.leads, leads, wins))
    size = priors.leads + wins + max(leads - wins, 0.0)
    share = (priors.mean * priors.leads + wins) / size
    mean = float((weight * share).sum())
    variance = float((weight * (share * (1 - share) / (size + 1) + (share - mean) ** 2)).sum())
    own_part = float((weight * leads / (leads + priors.leads)).sum())
    return beta_share_of(mean, mean * (1 - mean) / variance - 1), own_part


def early_share(own: LeadColumns, vertical: LeadColumns) -> EarlyShare | None:
    """Return the early estimate of a business, from its leads and those of the other businesses of its vertical.

    None if fewer than 8 others reported what became of their leads, or they won fewer than 10.
    """
    own, vertical = reported_leads(own), reported_leads(vertical)
    by_week = share_won_by_week(vertical)
    if by_week is None:
        return None
    parts = by_week / by_week[-1]
    leads, wins = _observed(vertical, parts)
    counted = leads > 0
    if counted.sum() < LEAST_BUSINESSES or wins.sum() < LEAST_WINS:
        return None
    own_leads, own_wins = (float(each.sum()) for each in _observed(own, parts))
    share, own_part = posterior(win_priors(leads[counted], wins[counted]), own_leads, own_wins)
    others_share = float(wins[counted].sum() / leads[counted].sum())
    number = len(own.business)
    return EarlyShare(
        share=share,
        others_share=others_share,
        businesses=int(counted.sum()),
        leads=number,
        wins=round(own_wins),
        own_part=own_part,
        weeks=len(parts) - 1,
        sentence=_sentence(share, others_share, int(counted.sum()), number, round(own_wins)),
    )


def _observed(leads: LeadColumns, parts: Floats) -> tuple[Floats, Floats]:
    """Return for each business how many leads its leads count as, and its wins in weeks that ended.

    `parts` is the part of the wins that have come by each age in weeks, from 0.
    """
    age = np.minimum(leads.age_seconds // WEEK_SECONDS, len(parts) - 1)
    won = (leads.won_seconds >= 0) & (leads.won_seconds // WEEK_SECONDS < age)
    counts, wins = (np.bincount(leads.business, each).astype(float) for each in (parts[age], won))
    return counts, wins


def _sentence(share: Figure, others_share: float, businesses: int, leads: int, wins: int) -> str:
    own = f"With what is known of your own {leads}, {wins} won so far," if leads else "Until you report your own,"
    return (
        f"An early figure: {businesses} other businesses in this vertical won {others_share:.0%} of their exclusive "
        f"leads. {own} your share is most likely between {share.low or 0:.0%} and {share.high or 0:.0%}. The more you "
        "report, the more this is your own figure."
    )
