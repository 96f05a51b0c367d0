"""Strategies: total orders of the candidates of a lead, with every score that made them.

A strategy has no state. It reads subscription terms and usage. Where these are equal, a hash of the lead and the
subscription decides, so that chance is fair between candidates, differs from lead to lead, and comes out the same when
a decision is replayed.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from math import log
from typing import Final
from uuid import UUID

import msgspec

from routing.calendar import EPOCH, CapWindow
from routing.matching import Candidate, CapsAndWallet, Usage
from routing.subscription import SubscriptionDefinition


class Strategy(StrEnum):
    """Order in which a vertical offers a lead to the businesses that may have it."""

    priority = "priority"
    """The lowest priority number; among equals the highest price."""
    weighted_share = "weighted_share"
    """A random order, with chances in proportion to the weights."""
    highest_price = "highest_price"
    """The highest price; among equals the lowest priority number."""
    fair = "fair"
    """The fewest leads today in proportion to the weight; among equals the longest time since the last award."""


class RankedCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate at its position (from 1), the scores compared, in order of weight, and the hash that settles what
    they leave open."""

    candidate: Candidate
    position: int
    scores: tuple[tuple[str, float], ...]
    tie_break: str


def rank(
    strategy: Strategy,
    candidates: Iterable[Candidate],
    definitions: Mapping[UUID, SubscriptionDefinition],
    standings: Mapping[UUID, CapsAndWallet],
    seed: bytes,
) -> tuple[RankedCandidate, ...]:
    """Return the eligible candidates in the order of awards, independently of their order in `candidates`.

    `definitions` and `standings` are keyed by subscription id; a missing standing counts as nothing awarded yet.
    `seed` is the lead's id. Candidates with failures are left out.
    """
    members = [
        _Member(candidate, definitions[candidate.subscription_id], standings.get(candidate.subscription_id), seed)
        for candidate in candidates
        if not candidate.failures
    ]
    criteria = _CRITERIA[strategy]
    members.sort(key=lambda member: (*(sign * score(member) for _name, score, sign in criteria), member.digest))
    return tuple(
        RankedCandidate(
            candidate=member.candidate,
            position=position,
            scores=tuple((name, score(member)) for name, score, _sign in criteria),
            tie_break=member.digest.hex(),
        )
        for position, member in enumerate(members, start=1)
    )


class _Member:
    """All that a strategy may look at, for one candidate."""

    __slots__ = ("candidate", "definition", "digest", "standing")

    def __init__(
        self, candidate: Candidate, definition: SubscriptionDefinition, standing: CapsAndWallet | None, seed: bytes
    ) -> None:
        self.candidate = candidate
        self.definition = definition
        self.standing = standing
        self.digest = sha256(seed + candidate.subscription_id.bytes).digest()


def _priority(member: _Member) -> float:
    return float(member.definition.priority)


def _price(member: _Member) -> float:
    return float(member.candidate.price_minor)


def _lot(member: _Member) -> float:
    """Rendezvous hashing: -ln(u) / weight is exponential with that rate, and the smallest of several such is each
    member's with probability weight over the sum of weights. The top 53 bits of the hash are an even u, strictly
    between 0 and 1."""
    even = ((int.from_bytes(member.digest[:8]) >> 11) + 0.5) / 2**53
    return -log(even) / member.definition.weight


def _load(member: _Member) -> float:
    """Return today's count of leads with this one, per weight. The smallest value is the largest deficit."""
    usage = member.standing.usage.get(CapWindow.day, Usage()) if member.standing else Usage()
    return (usage.count + 1) / member.definition.weight


def _last_award(member: _Member) -> float:
    """Epoch seconds; never is the epoch itself."""
    last: datetime | None = member.standing.last_awarded_at if member.standing else None
    return (last or EPOCH).timestamp()


_SMALLER_FIRST: Final = 1
_LARGER_FIRST: Final = -1
_CRITERIA: Final[dict[Strategy, tuple[tuple[str, Callable[[_Member], float], int], ...]]] = {
    Strategy.priority: (("priority", _priority, _SMALLER_FIRST), ("price_minor", _price, _LARGER_FIRST)),
    Strategy.weighted_share: (("lot", _lot, _SMALLER_FIRST),),
    Strategy.highest_price: (("price_minor", _price, _LARGER_FIRST), ("priority", _priority, _SMALLER_FIRST)),
    Strategy.fair: (("load", _load, _SMALLER_FIRST), ("last_awarded_at", _last_award, _SMALLER_FIRST)),
}
"""Criteria of each strategy, most important first: name in the record, score, and direction of the order."""
