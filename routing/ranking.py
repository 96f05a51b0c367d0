"""Strategies: total orders of the candidates of a lead, with every score that made them.

A strategy has no state. It reads subscription terms, credits, and what may be expected of a sale. Where these are
equal, a hash of the lead and the business decides, and among the subscriptions of one business a hash of the lead and
the subscription, so that chance is fair between businesses however many subscriptions they have, differs from lead to
lead, and comes out the same when a decision is replayed.

A vertical may have a small share of its leads offered in a random order. Both draws are functions of the lead's id. The
probabilities with which a candidate could stand first are recorded, so that effects can be estimated from the records
without bias, by weighting each lead with the inverse of the probability of its first.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from itertools import groupby
from math import log
from typing import Final
from uuid import UUID

import msgspec

from routing.expectation import LeadExpectation, chance_to_stay, expected_gain_minor
from routing.matching import Candidate, CapsAndWallet
from routing.shares import LEAD, business_weights, lead_parts
from routing.subscription import SubscriptionDefinition


class Strategy(StrEnum):
    """Order in which a vertical offers a lead to the businesses that may have it."""

    priority = "priority"
    """The lowest priority number; among equals the highest price."""
    weighted_share = "weighted_share"
    """A random order of the businesses, with chances in proportion to their weights."""
    highest_price = "highest_price"
    """The highest price; among equals the lowest priority number."""
    fair = "fair"
    """The business that is furthest behind its share by weight of the leads that it could have had."""
    expected_value = "expected_value"
    """The highest price times the chance that the sale stays. A business that may expect to lose by the lead, at its
    price and at the value of its jobs, comes after the others. By the highest price while no scorecard may rank."""


class RankedCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate at its position (from 1), the scores compared, in order of weight, and the hash that settles what
    they leave open.

    `among_equals` is the probability of coming before all candidates of the same scores, and `propensity` that of
    standing first of all, exploration included. Both are from 0 to 1, before chance has decided.
    """

    candidate: Candidate
    position: int
    scores: tuple[tuple[str, float], ...]
    tie_break: str
    among_equals: float
    propensity: float


def rank(
    strategy: Strategy,
    candidates: Iterable[Candidate],
    definitions: Mapping[UUID, SubscriptionDefinition],
    standings: Mapping[UUID, CapsAndWallet],
    seed: bytes,
    expectation: LeadExpectation | None = None,
    *,
    explore_per_mille: int = 0,
) -> tuple[RankedCandidate, ...]:
    """Return the eligible candidates in the order of awards, independently of their order in `candidates`.

    `definitions` and `standings` are keyed by subscription id; a missing standing counts as no credit. `seed` is the
    lead's id. `expectation` is None unless a scorecard may rank. Candidates with failures are left out. Of a thousand
    leads, `explore_per_mille` have a random order, in which every business comes first with the same probability.
    """
    if strategy is Strategy.expected_value and expectation is None:
        strategy = Strategy.highest_price
    eligible = [candidate for candidate in candidates if not candidate.failures]
    parts = _parts(eligible, definitions) if strategy is Strategy.fair else {}
    criteria = _CRITERIA[strategy]
    members = [
        _Member(
            candidate,
            definitions[candidate.subscription_id],
            standings.get(candidate.subscription_id),
            parts.get(candidate.business_id, 0),
            seed,
            expectation,
            criteria,
        )
        for candidate in eligible
    ]
    signs = [sign for _name, _score, sign in criteria]
    members.sort(
        key=lambda member: (
            *(sign * value for sign, (_name, value) in zip(signs, member.scores, strict=True)),
            member.tie_break,
        )
    )
    chances = _chances(strategy, members, explore_per_mille)
    if explores(seed, explore_per_mille):
        members.sort(key=lambda member: member.tie_break)
    return tuple(
        RankedCandidate(
            candidate=member.candidate,
            position=position,
            scores=member.scores,
            tie_break=member.tie_break.hex(),
            among_equals=chances[member.candidate.subscription_id][0],
            propensity=chances[member.candidate.subscription_id][1],
        )
        for position, member in enumerate(members, start=1)
    )


def explores(seed: bytes, per_mille: int) -> bool:
    """Return whether the lead with this id is one of those that have a random order, `per_mille` of a thousand."""
    return is_drawn(b"explore", seed, per_mille)


def is_drawn(purpose: bytes, seed: bytes, per_mille: int) -> bool:
    """Return whether the lead with this id is drawn for a purpose, as `per_mille` of a thousand are.

    Draws for different purposes are independent of each other, and of the hashes by which equals are ordered.
    """
    return int.from_bytes(sha256(purpose + seed).digest()[:8]) * 1_000 >> 64 < per_mille


def recorded_credit(scores: Iterable[tuple[str, float]]) -> int | None:
    """Return the credit, in billionths of a lead, with which recorded scores of `fair` were made; None without one."""
    named = dict(scores)
    if _CREDIT not in named or _PART not in named:
        return None
    return round(named[_CREDIT] * LEAD) - round(named[_PART] * LEAD)


def _chances(
    strategy: Strategy, members: Sequence["_Member"], explore_per_mille: int
) -> dict[UUID, tuple[float, float]]:
    """Return, by subscription, the probabilities of standing first among its equals and of standing first of all.

    `members` are in the order of the strategy. The lots of `weighted_share` are chance, so that all are equals there.
    """
    if strategy is Strategy.weighted_share:
        groups = [_weighted_chances(members)]
    else:
        equals = groupby(members, key=lambda member: member.scores)
        groups = [_even_chances(list(group)) for _same, group in equals]
    explored = explore_per_mille / 1_000
    even = _even_chances(members)
    return {
        key: (chance, (0.0 if place else (1 - explored) * chance) + explored * even[key])
        for place, chances in enumerate(groups)
        for key, chance in chances.items()
    }


def _even_chances(members: Sequence["_Member"]) -> dict[UUID, float]:
    """Return the probability of standing first by the hashes alone: the same for each business, and then for each of
    its subscriptions."""
    subscriptions = Counter(member.candidate.business_id for member in members)
    return {
        member.candidate.subscription_id: 1 / len(subscriptions) / subscriptions[member.candidate.business_id]
        for member in members
    }


def _weighted_chances(members: Sequence["_Member"]) -> dict[UUID, float]:
    """Return the probability of the smallest lot: by the weight of the business, and then the same for each of its
    subscriptions that have that weight."""
    weights = business_weights((member.candidate.business_id, member.definition) for member in members)
    heaviest = Counter(
        member.candidate.business_id
        for member in members
        if member.definition.weight == weights[member.candidate.business_id]
    )
    total = sum(weights.values())
    chances = {}
    for member in members:
        weight, business_id = member.definition.weight, member.candidate.business_id
        chance = weight / total / heaviest[business_id] if weight == weights[business_id] else 0.0
        chances[member.candidate.subscription_id] = chance
    return chances


def _parts(candidates: Iterable[Candidate], definitions: Mapping[UUID, SubscriptionDefinition]) -> dict[UUID, int]:
    terms = ((candidate.business_id, definitions[candidate.subscription_id]) for candidate in candidates)
    return lead_parts(business_weights(terms))


class _Member:
    """All that a strategy may look at, for one candidate, and the scores that it gives it.

    `part` is its business's part in the lead.
    """

    __slots__ = ("candidate", "definition", "digest", "expectation", "part", "scores", "standing", "tie_break")

    def __init__(
        self,
        candidate: Candidate,
        definition: SubscriptionDefinition,
        standing: CapsAndWallet | None,
        part: int,
        seed: bytes,
        expectation: LeadExpectation | None,
        criteria: "Criteria",
    ) -> None:
        self.candidate = candidate
        self.definition = definition
        self.standing = standing
        self.part = part
        self.expectation = expectation
        self.digest = sha256(seed + candidate.business_id.bytes).digest()
        self.tie_break = self.digest[:16] + sha256(seed + candidate.subscription_id.bytes).digest()[:16]
        self.scores = tuple((name, score(self)) for name, score, _sign in criteria)


def _priority(member: _Member) -> float:
    return float(member.definition.priority)


def _price(member: _Member) -> float:
    return float(member.candidate.price_minor)


def _lot(member: _Member) -> float:
    """Rendezvous hashing: -ln(u) / weight is exponential with that rate, and the smallest of several such is each
    business's with probability weight over the sum of weights. The top 53 bits of the hash are an even u, strictly
    between 0 and 1."""
    even = ((int.from_bytes(member.digest[:8]) >> 11) + 0.5) / 2**53
    return -log(even) / member.definition.weight


def _credit(member: _Member) -> float:
    """Return the leads by which the business is behind its share, with its part in this lead."""
    credit = member.standing.share_credit if member.standing else 0
    return (credit + member.part) / LEAD


def _part(member: _Member) -> float:
    """Return the business's part in this lead, from 0 to 1."""
    return member.part / LEAD


def _expects_loss(member: _Member) -> float:
    """Return 1 if the business may expect to lose by the lead; 0 if not, or if the value of its jobs is not known."""
    if member.expectation is None:
        return 0.0
    business_id = member.candidate.business_id
    probability, sales = member.expectation.probabilities.get(business_id), member.expectation.sales.get(business_id)
    gain = expected_gain_minor(probability, sales, member.candidate.price_minor)
    return float(gain is not None and gain < 0)


def _expected_price(member: _Member) -> float:
    """Return the price times the chance that the sale stays, in minor units."""
    if member.expectation is None:
        return _price(member)
    sales = member.expectation.sales.get(member.candidate.business_id)
    return member.candidate.price_minor * chance_to_stay(sales, member.expectation.return_share)


Criteria = tuple[tuple[str, Callable[[_Member], float], int], ...]
"Criteria of one strategy, most important first: name in the record, score, and direction of the order."

_CREDIT: Final = "credit"
_PART: Final = "part"
_SMALLER_FIRST: Final = 1
_LARGER_FIRST: Final = -1
_CRITERIA: Final[dict[Strategy, Criteria]] = {
    Strategy.priority: (("priority", _priority, _SMALLER_FIRST), ("price_minor", _price, _LARGER_FIRST)),
    Strategy.weighted_share: (("lot", _lot, _SMALLER_FIRST),),
    Strategy.highest_price: (("price_minor", _price, _LARGER_FIRST), ("priority", _priority, _SMALLER_FIRST)),
    Strategy.fair: ((_CREDIT, _credit, _LARGER_FIRST), (_PART, _part, _LARGER_FIRST)),
    Strategy.expected_value: (
        ("expects_loss", _expects_loss, _SMALLER_FIRST),
        ("expected_price_minor", _expected_price, _LARGER_FIRST),
        ("priority", _priority, _SMALLER_FIRST),
    ),
}
