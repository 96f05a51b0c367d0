"""Routing explorer: repeat a recorded decision by the functions that decide live, without writing anything.

The rules are those of the record, those of another version, or today's; one input of the lead may be changed. Whether
a business was paused, frozen or unreachable is taken from the record. Reads with the database role of reports.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, assert_never
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row
from marketplace.rules.catalog import Rules, Vertical
from marketplace.rules.hours import compile_hours, compile_plan
from marketplace.runtime import clock
from routing.calendar import CapWindow, window_starts
from routing.currency import minor_digits
from routing.decision import (
    CandidateRecord,
    End,
    MatchedCandidates,
    OpenLead,
    Route,
    Wait,
    complete,
    decide,
    record_candidates,
    restore_credits,
)
from routing.index import SubscriptionIndex
from routing.inquiry import Authority, Budget, Facts, Place, Timing
from routing.lifecycle import LeadState
from routing.matching import SUSPENDED, CapsAndWallet, Rule, Usage
from routing.pacing import FLAT
from routing.qualification import Verdict
from routing.subscription import Subscription, SubscriptionDefinition
from routing.vertical import VerticalDefinition

SQL: Final = Queries(__file__, "explorer.sql")

ROUTED: Final = frozenset({"held", "unsold", "waiting"})
"Outcomes of decisions that considered businesses."
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

INPUTS: Final[Mapping[str, str]] = {
    "budget": "Budget, in whole units", "within_days": "Wanted within so many days", "authority": "Authority",
    "postal_code": "Postal code", "source": "Source", "company_size": "Company size", "role": "Role",
    "wider_km": "Every area wider by so many km",
}  # fmt: skip
"Labels of the inputs that can be changed of any lead. The questions of its vertical are `need.` and their name."


class SubscriptionVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription in one version."""

    subscription_id: UUID
    version: int
    business_id: UUID
    endpoint_id: UUID | None
    definition: SubscriptionDefinition


class ExplorerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a decision: the outcome in the words of the record, and every candidate, the winner first."""

    outcome: str
    reason: str | None
    verdict: Verdict
    candidates: tuple[CandidateRecord, ...] = ()
    left_out: int = 0
    strategy: str | None = None

    @property
    def winner(self) -> CandidateRecord | None:
        """Candidate that is awarded the lead, or None."""
        first = self.candidates[0] if self.candidates else None
        return first if self.outcome == "held" and first is not None and not first.failures else None

    @property
    def ranked(self) -> tuple[CandidateRecord, ...]:
        """Eligible candidates in the order of ranking."""
        return tuple(record for record in self.candidates if record.position is not None)


class InputRefused(ValueError):
    """Raised for an input that cannot be changed like that; the message says what to enter instead."""


# Deciding again.


async def decide_again(
    connection: Connection,
    leads: Sequence[tuple[OpenLead, Vertical]],
    rules: Rules,
    now: datetime,
    records: Sequence[CandidateRecord] = (),
) -> tuple[ExplorerAnswer, ...]:
    """Return the decision about each lead by these rules at `now`, with caps and wallets as they stood then.

    Credits are those with which `records` were ranked, the candidates of a decision made then; those of other
    businesses, and all without records, are the present ones.
    """
    results = [
        decide(lead, vertical.definition, vertical.version, rules.index, now, vertical.cards)
        for lead, vertical in leads
    ]
    matched = [result for result in results if isinstance(result, MatchedCandidates)]
    subscriptions = {subscription.id: subscription for result in matched for subscription in result.to_read}
    windows = [window for subscription in subscriptions.values() for window in _usage_windows(subscription, now)]
    standings: Mapping[UUID, CapsAndWallet] = {}
    if subscriptions:
        standings = restore_credits(await list_past_standings(connection, subscriptions, windows, now), records)
    completed = [complete(result, standings) if isinstance(result, MatchedCandidates) else result for result in results]
    return tuple(answer_of(result, vertical) for result, (_, vertical) in zip(completed, leads, strict=True))


def answer_of(result: Route | Wait | End, vertical: Vertical) -> ExplorerAnswer:
    """Return the answer as the decision record would give it, had the first of a route won its award."""
    strategy = vertical.definition.strategy
    if isinstance(result, Route):
        winner = result.ranked[0].candidate.subscription_id
        return ExplorerAnswer(
            outcome="held",
            reason=None,
            verdict=result.matched.verdict,
            candidates=record_candidates(result, {}, winner),
            left_out=result.matched.left_out,
            strategy=strategy,
        )
    return ExplorerAnswer(
        outcome=result.outcome,
        reason=result.reason,
        verdict=result.verdict,
        candidates=result.candidates,
        left_out=result.left_out,
        strategy=strategy if result.candidates else None,
    )


def _usage_windows(subscription: Subscription, now: datetime) -> Iterable[tuple[UUID, CapWindow, datetime]]:
    """Yield the windows of the caps of a subscription, whose usage a decision at `now` reads."""
    starts: Mapping[CapWindow, datetime] = window_starts(now, subscription.definition.zone)
    for window in dict.fromkeys(cap.window for cap in subscription.definition.caps):
        yield subscription.id, window, starts.get(window, BEGINNING)


# The rules and the lead as they were.


async def load_recorded_rules(
    connection: Connection, records: Sequence[CandidateRecord], facts: Facts, country: str, at: datetime, today: Rules
) -> Rules:
    """Return rules with the subscriptions as recorded: their versions, whether paused, frozen or unreachable, and
    whether the consent named their business."""
    versions = await list_subscription_versions(
        connection, [(record.subscription_id, record.version) for record in records]
    )
    arrivals = await find_arrivals(connection, facts.vertical, at)
    subscriptions = [
        _recorded_subscription(record, versions[record.subscription_id], facts, country, at, arrivals)
        for record in records
        if record.subscription_id in versions
    ]
    return msgspec.structs.replace(today, index=SubscriptionIndex(subscriptions))


def _recorded_subscription(
    record: CandidateRecord,
    version: SubscriptionVersion,
    facts: Facts,
    country: str,
    at: datetime,
    arrivals: Sequence[int],
) -> Subscription:
    failed = {failure.rule: failure for failure in record.failures}
    hours = version.definition.hours
    open_spans = compile_hours(hours, at) if hours else None
    breaker, suspended = failed.get(Rule.breaker_open), failed.get(Rule.suspended)
    suspended_for = None
    if suspended is not None:
        suspended_for = next((why for why, words in SUSPENDED.items() if suspended.detail == words), None)
    sellers = facts.consent.sellers if facts.consent is not None else ()
    return Subscription(
        id=record.subscription_id,
        business_id=record.business_id,
        endpoint_id=version.endpoint_id,
        vertical=facts.vertical,
        country=country,
        mode=facts.mode,
        version=version.version,
        definition=version.definition,
        paused=Rule.paused in failed,
        suspended=suspended_for,
        business_active=Rule.business_frozen not in failed,
        endpoint_active=Rule.endpoint_inactive not in failed,
        breaker_open_until=breaker.until if breaker else None,
        open_spans=open_spans,
        plan=compile_plan(version.definition, open_spans, arrivals, at),
        business_names=() if Rule.consent_seller in failed else sellers,
    )


def tried_businesses(records: Iterable[CandidateRecord]) -> frozenset[UUID]:
    """Return the businesses that had been tried for the lead before this decision."""
    return frozenset(
        record.business_id for record in records if any(failure.rule is Rule.unreachable for failure in record.failures)
    )


def state_at(qualified_at: datetime | None, made_at: datetime) -> LeadState:
    """Return the state of the lead before a decision at `made_at`: prospect if qualified before, else received."""
    return LeadState.received if qualified_at is None or made_at <= qualified_at else LeadState.prospect


# Changing one input.


async def change_input(
    connection: Connection, facts: Facts, rules: Rules, vertical: VerticalDefinition, name: str, text: str
) -> tuple[Facts, Rules]:
    """Return the facts and the rules with the input of that name changed. Raises InputRefused."""
    if name == "wider_km":
        return facts, widen_areas(rules, facts.vertical, float(read_whole(text)))
    place = await find_area(connection, text) if name == "postal_code" else None
    return change_facts(facts, name, text, vertical, place), rules


def widen_areas(rules: Rules, vertical: str, km: float) -> Rules:
    """Return the rules with the subscriptions of one vertical alone, every circle so many kilometres wider."""
    wider = (_widen(current, km) for current in rules.index.values() if current.vertical == vertical)
    return msgspec.structs.replace(rules, index=SubscriptionIndex(wider))


def _widen(subscription: Subscription, km: float) -> Subscription:
    area = subscription.definition.area
    circles = tuple(msgspec.structs.replace(circle, km=circle.km + km) for circle in area.circles)
    definition = msgspec.structs.replace(subscription.definition, area=msgspec.structs.replace(area, circles=circles))
    return msgspec.structs.replace(subscription, definition=definition)


def change_facts(facts: Facts, name: str, text: str, vertical: VerticalDefinition, place: Place | None = None) -> Facts:
    """Return the facts with one of them changed; an empty text removes it. Raises InputRefused."""
    if name.startswith("need."):
        return _change_need(facts, name.removeprefix("need."), text, vertical)
    changes: dict[str, object]
    match name:
        case "budget":
            changes = {"budget": _read_budget(text, vertical.currency) if text else None}
        case "within_days":
            changes = {"timing": Timing(within_days=read_whole(text)) if text else None}
        case "authority":
            changes = {"authority": _read_authority(text) if text else None}
        case "postal_code":
            if place is None:
                raise InputRefused("Give the five digits of a postal code of the United States.")
            changes = {"place": place}
        case "company_size":
            changes = {"company_size": read_whole(text) if text else None}
        case "source" | "role":
            changes = {name: text or None}
        case _:
            raise InputRefused("There is no such input.")
    return msgspec.structs.replace(facts, **changes)


def _read_budget(text: str, currency: str) -> Budget:
    return Budget(minor=10 ** minor_digits(currency) * read_whole(text), currency=currency)


def _read_authority(text: str) -> Authority:
    if text not in set(Authority):
        raise InputRefused(f"Give one of {', '.join(Authority)}.")
    return Authority(text)


def _change_need(facts: Facts, name: str, text: str, vertical: VerticalDefinition) -> Facts:
    field = vertical.needs.get(name)
    if field is None:
        raise InputRefused("This vertical asks no such question.")
    answers = {key: value for key, value in facts.need_fields.items() if key != name}
    if text:
        match field.kind:
            case "integer":
                answers[name] = read_whole(text)
            case "boolean":
                if text not in ("yes", "no"):
                    raise InputRefused("Give yes or no.")
                answers[name] = text == "yes"
            case "choice":
                if text not in field.choices:
                    raise InputRefused(f"Give one of {', '.join(field.choices)}.")
                answers[name] = text
            case _:
                assert_never(field.kind)
    return msgspec.structs.replace(facts, need_fields=answers)


def read_whole(text: str) -> int:
    """Read a whole number from 0 to a thousand million. Raises InputRefused."""
    digits = text.strip().replace(",", "")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 9):
        raise InputRefused("Give a whole number.")
    return int(digits)


# Statements.


async def list_subscription_versions(
    connection: Connection, versions: Sequence[tuple[UUID, int]]
) -> dict[UUID, SubscriptionVersion]:
    """Return these versions of subscriptions, by subscription."""
    return {row.subscription_id: row for row in await _list_versions(connection, versions)}


async def list_definitions(
    connection: Connection, versions: Sequence[tuple[UUID, int]]
) -> dict[tuple[UUID, int], SubscriptionDefinition]:
    """Return definitions by subscription and version."""
    rows = await _list_versions(connection, versions)
    return {(row.subscription_id, row.version): row.definition for row in rows}


async def _list_versions(
    connection: Connection, versions: Sequence[tuple[UUID, int]]
) -> tuple[SubscriptionVersion, ...]:
    subscription_ids, numbers = [pair[0] for pair in versions], [pair[1] for pair in versions]
    return await fetch_rows(
        connection, SQL["list_subscription_versions"], SubscriptionVersion, subscription_ids, numbers
    )


async def list_past_standings(
    connection: Connection,
    subscriptions: Iterable[UUID],
    windows: Sequence[tuple[UUID, CapWindow, datetime]],
    at: datetime,
) -> dict[UUID, CapsAndWallet]:
    """Return wallets and the usage of these windows as they stood before `at`, and present credits, by subscription."""
    rows = await connection.fetch(
        SQL["list_past_standings"], list(subscriptions), at, clock.id_bound(at, clock.ID_EARLY_SECONDS)
    )
    used = await connection.fetch(
        SQL["list_past_usage"],
        [subscription_id for subscription_id, _, _ in windows],
        [window for _, window, _ in windows],
        [starts_at for _, _, starts_at in windows],
        at,
    )
    usage: dict[UUID, dict[CapWindow, Usage]] = {}
    for row in used:
        window = CapWindow(row["cap_window"])
        usage.setdefault(row["subscription_id"], {})[window] = Usage(
            count=row["used_count"], amount_minor=row["used_minor"]
        )
    return {
        row["subscription_id"]: CapsAndWallet(
            usage=usage.get(row["subscription_id"], {}),
            available_minor=row["available_minor"],
            credit_limit_minor=row["credit_limit_minor"],
            share_credit=row["share_credit"] or 0,
        )
        for row in rows
    }


async def find_arrivals(connection: Connection, vertical: str, at: datetime) -> tuple[int, ...]:
    """Return the arrival curve of a vertical that was in force at a time; an even one from before the first."""
    return tuple(await connection.fetchval(SQL["find_arrivals"], vertical, at) or FLAT)


async def find_area(connection: Connection, code: str) -> Place | None:
    """Return the place of a postal code of the United States, or None if there is no such code."""
    return await find_row(connection, SQL["find_area"], Place, code)
