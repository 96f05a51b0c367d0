"""The last word: whether the subscription that ranked first may have the lead, on numbers that nobody else can
change now.

What lives here: every condition of eligibility that may have changed since the index was built, judged again on what
the locked rows say. What may not: the locks. A loss is not an error: it is recorded, and the next in the ranking is
asked.
"""

from datetime import datetime

import msgspec

from routing.calendar import CapWindow, window_end, window_starts
from routing.inquiry import Mode, amount_in_words
from routing.matching import Candidate, Cap, Rule, Standing, Usage, cap_is_reached, cap_words, wallet_shortfall_minor

__all__ = ["Award", "Loss", "Terms", "award", "window_end", "window_starts"]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the locked rows say of one subscription: whether it still stands, at what price, under which caps, with
    what left.

    `version` and the figures under it are those in force now; `zone` is the calendar of the caps, `currency` that of
    all money.
    """

    version: int
    paused: bool
    suspended: bool = False
    business_active: bool
    endpoint_active: bool
    breaker_open_until: datetime | None = None
    price_minor: int
    currency: str
    caps: tuple[Cap, ...] = ()
    zone: str
    standing: Standing


class Award(msgspec.Struct, frozen=True, kw_only=True, tag="award"):
    """The lead is this candidate's: hold `price_minor`, and count one lead in the window that began at each of these
    moments.

    Every window is counted in, capped or not, so that a cap added tomorrow knows what today has seen.
    """

    price_minor: int
    window_starts: dict[CapWindow, datetime]


class Loss(msgspec.Struct, frozen=True, kw_only=True, tag="loss"):
    """What changed since the candidate was considered, and by how much it is short, in minor units where it is
    money."""

    rule: Rule
    detail: str
    distance: float | None = None


def award(candidate: Candidate, terms: Terms, mode: Mode, now: datetime) -> Award | Loss:
    """The lead at the price that was ranked, or the first condition that no longer holds, in the order of `Rule`.

    A rehearsal uses neither wallet nor caps. Raises ValueError for a candidate that was never eligible: nobody may
    rank one.
    """
    if candidate.failures:
        raise ValueError(f"subscription {candidate.subscription_id} was not eligible: {candidate.failures[0].rule}")
    loss = _withdrawn(terms, now) or _changed(candidate, terms)
    if loss is None and mode is Mode.live:
        loss = _cap_lost(candidate, terms, now) or _wallet_lost(candidate, terms)
    return loss or Award(price_minor=candidate.price_minor, window_starts=window_starts(now, terms.zone))


def _withdrawn(terms: Terms, now: datetime) -> Loss | None:
    breaker_open = terms.breaker_open_until is not None and terms.breaker_open_until > now
    reasons = (
        ("suspended for refusals or missing acknowledgements", terms.suspended),
        ("paused by the business", terms.paused),
        ("the business is frozen", not terms.business_active),
        ("no active endpoint", not terms.endpoint_active),
        ("breaker open", breaker_open),
    )
    detail = next((reason for reason, holds in reasons if holds), None)
    return Loss(rule=Rule.withdrawn, detail=detail) if detail else None


def _changed(candidate: Candidate, terms: Terms) -> Loss | None:
    """A newer version may have other rules besides its price, which were never checked against this lead."""
    if terms.version == candidate.version and terms.price_minor == candidate.price_minor:
        return None
    price = amount_in_words(terms.price_minor, terms.currency)
    detail = f"version {terms.version} at {price} took the place of version {candidate.version}"
    return Loss(rule=Rule.price_changed, detail=detail, distance=abs(terms.price_minor - candidate.price_minor))


def _cap_lost(candidate: Candidate, terms: Terms, now: datetime) -> Loss | None:
    for cap in terms.caps:
        used = terms.standing.usage.get(cap.window, Usage())
        if cap_is_reached(cap, used, candidate.price_minor):
            detail = cap_words(cap, used, terms.currency, terms.zone, now)
            return Loss(rule=Rule.cap_race, detail=detail, distance=0)
    return None


def _wallet_lost(candidate: Candidate, terms: Terms) -> Loss | None:
    short = wallet_shortfall_minor(terms.standing, candidate.price_minor)
    if short <= 0:
        return None
    detail = f"wallet {amount_in_words(short, terms.currency)} short of the price"
    return Loss(rule=Rule.wallet_race, detail=detail, distance=short)
