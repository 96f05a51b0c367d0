"""Trace of one lead: its decisions with their reasons, its delivery attempts and its exposure.

Operators see all of it, the provider no business by name, and each business only itself.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from litestar import get
from litestar.params import FromPath

from marketplace.database.db import Connection, session
from marketplace.distribution import store as distribution_store
from marketplace.distribution.store import AttemptTrace, Decision, LeadTrace
from marketplace.runtime import ids
from marketplace.runtime.errors import NotFound
from marketplace.security.auth import CallerKind, Principal
from marketplace.web.api import Caller, Injected, api_router, require
from marketplace.web.http import Services, path_id
from routing.decision import CandidateRecord, recorded_chances
from routing.lifecycle import LeadState
from routing.matching import Failure, Rule
from routing.qualification import Verdict

ABOUT_THE_LEAD: Final = frozenset({
    Rule.consent_seller, Rule.consent_channel, Rule.consent_purpose, Rule.consent_jurisdiction,
    Rule.outside_area, Rule.attribute, Rule.budget_minimum, Rule.timing_minimum, Rule.bant_minimum, Rule.score_minimum,
    Rule.authority, Rule.role, Rule.company_size, Rule.price_range, Rule.phone_type, Rule.source_excluded,
    Rule.disposable_email, Rule.outranked,
})  # fmt: skip
"Rules that fail because of the lead, which a provider may see. A business's pauses, hours, caps and money are private."


class TraceCandidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One candidate and every rule that failed. Names, prices and positions are None if the reader may not see them.

    `among_equals` and `propensity` are the probabilities, before chance decided, that it came first among candidates
    with the same scores and that it came first of all.
    """

    awarded: bool
    failures: tuple[Failure, ...]
    subscription: str | None = None
    business: str | None = None
    version: int | None = None
    price_minor: int | None = None
    position: int | None = None
    scores: tuple[tuple[str, float], ...] = ()
    tie_break: str | None = None
    among_equals: float | None = None
    propensity: float | None = None


class TraceChance(msgspec.Struct, frozen=True, kw_only=True):
    """Chance that the business wins the lead, by one version of the vertical's scorecard."""

    scorecard: int
    probability: float


class TraceDecision(msgspec.Struct, frozen=True, kw_only=True):
    """One decision, the versions it was made by, and its candidates. A business without the lead sees no verdict.

    `revision` counts the touches and corrections before it: 0 rests on the inquiry alone. Operators alone see
    `chances`: those of the business that it was awarded to, else of the first in the order.
    """

    made_at: datetime
    revision: int
    outcome: str | None
    reason: str | None
    vertical_version: int
    catalog_version: int
    strategy: str | None
    verdict: Verdict | None
    candidates: tuple[TraceCandidate, ...]
    left_out: int
    chances: tuple[TraceChance, ...] = ()


class TraceExposure(msgspec.Struct, frozen=True, kw_only=True):
    """Exposure of the contact: the business, the channel and the time."""

    business: str
    channel: str
    exposed_at: datetime


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Trace of a lead as its reader may see it, without contact data. A business without the lead sees no state.

    Operators alone see `joined`: the earlier lead that has the answers of a repeated inquiry.
    """

    id: str
    mode: str
    vertical: str
    received_at: datetime
    state: LeadState | None
    reason: str | None
    settled_at: datetime | None
    decisions: tuple[TraceDecision, ...]
    attempts: tuple[AttemptTrace, ...]
    exposure: TraceExposure | None
    joined: str | None = None


@get("/leads/{lead_id:str}/trace", tags=["leads"], dependencies={"caller": require(even_suspended=True)})
async def trace(lead_id: FromPath[str], caller: Caller, services: Injected[Services]) -> Trace:
    """Explain one lead: operators see all, its provider no names, a business only itself."""
    async with session(services.pool) as connection:
        return await load_trace(connection, caller, path_id("lead", lead_id))


async def load_trace(connection: Connection, caller: Principal, lead_id: UUID) -> Trace:
    """Return the trace of a lead as the caller may see it. Raises NotFound if the caller has no part in the lead."""
    lead = await distribution_store.find_traced_lead(connection, lead_id)
    decisions = await distribution_store.list_decisions(connection, lead_id) if lead else ()
    visible = tuple(_decision(decision, caller, lead) for decision in decisions) if lead else ()
    if lead is None or not _has_part(caller, lead, visible):
        raise NotFound("There is no lead with this id that you have a part in.")
    holder = caller.kind is CallerKind.operator or _holds(caller, lead)
    sees_state = holder or caller.kind is CallerKind.provider
    return Trace(
        id=ids.encode("lead", lead_id),
        mode=lead.mode,
        vertical=lead.vertical,
        received_at=lead.received_at,
        state=lead.state if sees_state else None,
        reason=lead.reason if sees_state else None,
        settled_at=lead.settled_at if sees_state else None,
        decisions=visible,
        attempts=await distribution_store.list_traced_attempts(connection, lead_id, caller.owner_id) if holder else (),
        exposure=_exposure(lead) if holder else None,
        joined=_joined(lead) if caller.kind is CallerKind.operator else None,
    )


def _holds(caller: Principal, lead: LeadTrace) -> bool:
    return caller.kind is CallerKind.business and lead.business_id == caller.owner_id


def _has_part(caller: Principal, lead: LeadTrace, decisions: tuple[TraceDecision, ...]) -> bool:
    if not caller.sees(lead.mode):
        return False
    if caller.kind is CallerKind.operator:
        return True
    if caller.kind is CallerKind.provider:
        return lead.provider_id == caller.owner_id
    return any(decision.candidates for decision in decisions)


def _joined(lead: LeadTrace) -> str | None:
    return None if lead.joined_lead_id is None else ids.encode("lead", lead.joined_lead_id)


def _exposure(lead: LeadTrace) -> TraceExposure | None:
    if lead.business_id is None or lead.exposed_at is None or lead.channel is None:
        return None
    return TraceExposure(business=ids.encode("biz", lead.business_id), channel=lead.channel, exposed_at=lead.exposed_at)


def _decision(decision: Decision, caller: Principal, lead: LeadTrace) -> TraceDecision:
    records = distribution_store.read_candidates(decision.candidates)
    without_lead = caller.kind is CallerKind.business and not _holds(caller, lead)
    views = (_candidate(row, row.subscription_id == decision.subscription_id, caller) for row in records)
    return TraceDecision(
        made_at=decision.made_at,
        revision=decision.revision,
        outcome=None if without_lead else decision.outcome,
        reason=None if without_lead else decision.reason,
        vertical_version=decision.vertical_version,
        catalog_version=decision.catalog_version,
        strategy=decision.strategy,
        verdict=None if without_lead else msgspec.json.decode(decision.verdict, type=Verdict),
        candidates=tuple(view for view in views if view is not None),
        left_out=decision.left_out,
        chances=_chances(records, decision.subscription_id) if caller.kind is CallerKind.operator else (),
    )


def _chances(records: Iterable[CandidateRecord], winner: UUID | None) -> tuple[TraceChance, ...]:
    recorded = recorded_chances(records, winner)
    return tuple(TraceChance(scorecard=chance.card, probability=chance.probability) for chance in recorded)


def _candidate(row: CandidateRecord, awarded: bool, caller: Principal) -> TraceCandidate | None:
    if caller.kind is CallerKind.provider and _names_customer(row):
        return None
    if caller.kind is CallerKind.provider:
        return TraceCandidate(
            awarded=awarded, failures=tuple(failure for failure in row.failures if failure.rule in ABOUT_THE_LEAD)
        )
    if caller.kind is CallerKind.business and (row.business_id != caller.owner_id or _names_customer(row)):
        return None
    return TraceCandidate(
        awarded=awarded,
        failures=row.failures,
        subscription=ids.encode("sub", row.subscription_id),
        business=ids.encode("biz", row.business_id),
        version=row.version,
        price_minor=row.price_minor,
        position=row.position,
        scores=row.scores,
        tie_break=row.tie_break,
        among_equals=row.among_equals,
        propensity=row.propensity,
    )


def _names_customer(row: CandidateRecord) -> bool:
    """Return whether the record tells a business that a person on its list has asked; it must not learn that."""
    return any(failure.rule is Rule.own_customer for failure in row.failures)


handlers: Final = (api_router(trace),)
