"""Explanation of a lost award: the first condition that no longer holds.

The award itself is `award_lead` in the database, which asks its conditions under locks and writes all or nothing. After
a loss the same conditions are asked here of the rows as they are by then, so that the record says more than yes or no.
They are those of matching (`state_failures`, `check_standing`); tests/marketplace/distribution/test_award.py holds them
to the answers of `award_lead`.
"""

from datetime import datetime
from typing import Final

from routing.inquiry import amount_in_words
from routing.matching import Candidate, CapsAndWallet, Failure, Rule, check_standing, state_failures
from routing.subscription import Subscription

_RACES: Final = {
    Rule.cap_reached: Rule.cap_race,
    Rule.paced: Rule.cap_race,
    Rule.wallet_empty: Rule.wallet_race,
}
"Conditions of matching that another lead can take away, with the rule by which an award is lost to that."


def explain_loss(
    candidate: Candidate, subscription: Subscription, standing: CapsAndWallet, now: datetime
) -> Failure | None:
    """Return the first condition that keeps an eligible candidate from the lead at `now`, in the order of `Rule`.

    `subscription` and `standing` are as they are now; None means that the candidate could have the lead. Distances are
    in minor units where they are money. A rehearsal uses neither wallet nor caps. Raises ValueError for a candidate
    that was not eligible.
    """
    if candidate.failures:
        raise ValueError(f"subscription {candidate.subscription_id} was not eligible: {candidate.failures[0].rule}")
    for failure in state_failures(subscription, now):
        return Failure(rule=Rule.withdrawn, detail=failure.detail)
    changed = _changed(candidate, subscription)
    if changed is not None:
        return changed
    for failure in check_standing(subscription, candidate, standing, now).failures:
        return Failure(rule=_RACES[failure.rule], detail=failure.detail, distance=failure.distance)
    return None


def _changed(candidate: Candidate, subscription: Subscription) -> Failure | None:
    """Return the failure of changed terms. A newer version may have rules that were not checked against this lead."""
    if subscription.version != candidate.version:
        price_minor = subscription.definition.price_minor
        price = amount_in_words(price_minor, subscription.definition.currency)
        detail = f"version {subscription.version} at {price} took the place of version {candidate.version}"
        return Failure(rule=Rule.price_changed, detail=detail, distance=abs(price_minor - candidate.price_minor))
    if subscription.endpoint_id != candidate.endpoint_id:
        return Failure(rule=Rule.withdrawn, detail="its leads go to another endpoint now")
    return None
