"""One decision taken again from what is on record, with nothing written: the very functions that decide live.

What lives here: building their inputs, changing one of them, and telling two outcomes apart. What may not: reading or
writing anything. Rules come in the versions by which the lead was decided, in another version, or as they are today;
that a business was paused, frozen or out of reach is taken from the record, which saw it.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, assert_never
from uuid import UUID

import msgspec

from marketplace.catalog import Rules, Vertical
from marketplace.distribution.flow import Plan, Weighed, eligible, plan_route, weigh, why_open
from marketplace.distribution.store import Case
from marketplace.hours import compile_hours
from routing.calendar import CapWindow, window_starts
from routing.currency import minor_digits
from routing.index import Index
from routing.inquiry import Authority, Budget, Facts, Place, Timing
from routing.lifecycle import LeadState
from routing.matching import SUSPENDED, Failure, Rule, Standing, consider
from routing.qualification import Nurture, Prospect, Rejection, Verdict, qualify
from routing.subscription import Definition, Subscription
from routing.vertical import VerticalDefinition

ROUTED: Final = frozenset({"held", "unsold", "waiting"})
"Outcomes of decisions that went as far as weighing businesses."
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

FILTERS: Final[Mapping[str, frozenset[Rule]]] = {
    "Takes leads": frozenset({
        Rule.paused, Rule.suspended, Rule.business_frozen, Rule.endpoint_inactive, Rule.breaker_open, Rule.unreachable,
        Rule.withdrawn, Rule.price_changed,
    }),
    "Area": frozenset({Rule.outside_area}),
    "Need": frozenset({Rule.attribute}),
    "Budget": frozenset({Rule.budget_minimum}),
    "Timing": frozenset({Rule.timing_minimum}),
    "BANT": frozenset({Rule.bant_minimum, Rule.score_minimum}),
    "Person": frozenset({
        Rule.authority, Rule.role, Rule.company_size, Rule.phone_type, Rule.source_excluded, Rule.disposable_email,
    }),
    "Hours": frozenset({Rule.closed}),
    "Cap": frozenset({Rule.cap_reached, Rule.cap_race}),
    "Wallet": frozenset({Rule.wallet_empty, Rule.wallet_race}),
}  # fmt: skip
"The columns of the explorer, each with the rules that it shows."
ASKED_LAST: Final = ("Cap", "Wallet")
"Read fresh for those that nothing else rules out."


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription in one version."""

    subscription_id: UUID
    version: int
    business_id: UUID
    endpoint_id: UUID | None
    definition: Definition


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided: the outcome in the words of the record, and every candidate weighed."""

    outcome: str
    reason: str | None
    verdict: Verdict
    weighed: tuple[Weighed, ...] = ()
    left_out: int = 0
    strategy: str | None = None

    @property
    def winner(self) -> Weighed | None:
        """Who would have it: the one that stands first, where anybody does."""
        first = self.weighed[0] if self.weighed else None
        return first if self.outcome == "held" and first is not None and not first.failures else None

    @property
    def standing(self) -> tuple[Weighed, ...]:
        """Those who could have had it, in their order."""
        return tuple(one for one in self.weighed if one.position is not None)


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one candidate passes one filter (None: it was not asked), and with what it failed."""

    passed: bool | None
    words: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate whose result differs between two answers."""

    subscription_id: UUID
    before: str
    after: str


class Refused(ValueError):
    """An input that cannot be changed like that; says what to give instead."""


# Deciding again.


def decide(case: Case, rules: Rules, vertical: Vertical, now: datetime) -> tuple[Answer | None, Plan | None]:
    """Qualification and matching: an answer where nobody was to be weighed, else what is to be ranked."""
    definition = vertical.definition
    outcome = qualify(case.facts, definition.needs, definition.policy(vertical.version), now)
    if case.state is LeadState.prospect:
        outcome = Prospect(verdict=outcome.verdict)  # as in distribution: once a prospect, only its routing is open
    match outcome:
        case Nurture(why=why):
            return Answer(outcome="nurturing", reason=why, verdict=outcome.verdict), None
        case Rejection(reason=reason):
            return Answer(outcome="rejected", reason=reason, verdict=outcome.verdict), None
        case Prospect(verdict=verdict):
            considered = consider(rules.index, case.facts, verdict, now, case.tried)
            return None, plan_route(case, rules, vertical, verdict, considered, {}, now)
        case _:
            assert_never(outcome)


def asked_windows(plan: Plan) -> tuple[tuple[UUID, CapWindow, datetime], ...]:
    """The windows whose use decides about those that nothing else ruled out: their caps', and the day's for ranking."""
    found = []
    for subscription in eligible(plan.rules, plan.considered):
        definition = subscription.definition
        starts: Mapping[CapWindow, datetime] = window_starts(plan.now, definition.zone)
        for window in dict.fromkeys((CapWindow.day, *(cap.window for cap in definition.caps))):
            found.append((subscription.id, window, starts.get(window, BEGINNING)))
    return tuple(found)


def finish(plan: Plan, standings: Mapping[UUID, Standing]) -> Answer:
    """Caps, wallets and ranking: who would have had it, and why all others would not."""
    whole = plan_route(plan.case, plan.rules, plan.vertical, plan.verdict, plan.considered, standings, plan.now)
    first = whole.ranked[0].candidate.subscription_id if whole.ranked else None
    return Answer(
        outcome="held" if first else "unsold",
        reason=None if first else why_open(whole.considered.candidates, {}),
        verdict=whole.verdict,
        weighed=weigh(whole, {}, first),
        left_out=whole.considered.left_out,
        strategy=whole.vertical.definition.strategy,
    )


def rules_of(
    record: Iterable[Weighed], terms: Mapping[UUID, Terms], facts: Facts, country: str, at: datetime, today: Rules
) -> Rules:
    """The subscriptions as the record saw them: in its versions, as paused, frozen or out of reach as they were."""
    found = [
        _as_seen(row, terms[row.subscription_id], facts, country, at) for row in record if row.subscription_id in terms
    ]
    return msgspec.structs.replace(today, subscriptions={one.id: one for one in found}, index=Index(found), built_at=at)


def _as_seen(row: Weighed, terms: Terms, facts: Facts, country: str, at: datetime) -> Subscription:
    failed = {failure.rule: failure for failure in row.failures}
    hours = terms.definition.hours
    breaker, suspended = failed.get(Rule.breaker_open), failed.get(Rule.suspended)
    return Subscription(
        id=row.subscription_id, business_id=row.business_id, endpoint_id=terms.endpoint_id, vertical=facts.vertical,
        country=country, mode=facts.mode, version=terms.version, definition=terms.definition,
        paused=Rule.paused in failed,
        suspended=next((why for why, words in SUSPENDED.items() if suspended and suspended.detail == words), None),
        business_active=Rule.business_frozen not in failed, endpoint_active=Rule.endpoint_inactive not in failed,
        breaker_open_until=breaker.until if breaker else None,
        open_spans=compile_hours(hours, at) if hours else None,
    )  # fmt: skip


def tried_in(record: Iterable[Weighed]) -> frozenset[UUID]:
    """The businesses that had had their chance."""
    return frozenset(row.business_id for row in record if any(one.rule is Rule.unreachable for one in row.failures))


def widened(rules: Rules, km: float) -> Rules:
    """The same rules with every circle of every area so much wider."""

    def wider(one: Subscription) -> Subscription:
        area = one.definition.area
        circles = tuple(msgspec.structs.replace(circle, km=circle.km + km) for circle in area.circles)
        order = msgspec.structs.replace(one.definition, area=msgspec.structs.replace(area, circles=circles))
        return msgspec.structs.replace(one, definition=order)

    found = {key: wider(one) for key, one in rules.subscriptions.items()}
    return msgspec.structs.replace(rules, subscriptions=found, index=Index(found.values()))


# Changing one input.

INPUTS: Final[Mapping[str, str]] = {
    "budget": "Budget, in whole units", "within_days": "Wanted within so many days", "authority": "Authority",
    "postal_code": "Postal code", "source": "Source", "company_size": "Company size", "role": "Role",
    "wider_km": "Every area wider by so many km",
}  # fmt: skip
"What can be changed of any lead, with its name; the needs of its market are asked for besides, as need.…"


def change(facts: Facts, name: str, text: str, vertical: VerticalDefinition, place: Place | None = None) -> Facts:
    """The facts with one of them changed; an empty text means: not told. Raises Refused."""
    if name.startswith("need."):
        return _change_need(facts, name.removeprefix("need."), text, vertical)
    changes: dict[str, object]
    match name:
        case "budget":
            minor = 10 ** minor_digits(vertical.currency) * whole(text) if text else None
            changes = {"budget": None if minor is None else Budget(minor=minor, currency=vertical.currency)}
        case "within_days":
            changes = {"timing": Timing(within_days=whole(text)) if text else None}
        case "authority":
            if text and text not in set(Authority):
                raise Refused(f"Give one of {', '.join(Authority)}.")
            changes = {"authority": Authority(text) if text else None}
        case "postal_code":
            if place is None:
                raise Refused("Give the five digits of a postal code of the United States.")
            changes = {"place": place}
        case "company_size":
            changes = {"company_size": whole(text) if text else None}
        case "source" | "role":
            changes = {name: text or None}
        case _:
            raise Refused("There is no such input.")
    return msgspec.structs.replace(facts, **changes)


def _change_need(facts: Facts, name: str, text: str, vertical: VerticalDefinition) -> Facts:
    field = vertical.needs.get(name)
    if field is None:
        raise Refused("This market asks no such question.")
    answers = {key: value for key, value in facts.need_fields.items() if key != name}
    if text:
        match field.kind:
            case "integer":
                answers[name] = whole(text)
            case "boolean":
                if text not in ("yes", "no"):
                    raise Refused("Give yes or no.")
                answers[name] = text == "yes"
            case "choice":
                if text not in field.choices:
                    raise Refused(f"Give one of {', '.join(field.choices)}.")
                answers[name] = text
    return msgspec.structs.replace(facts, need_fields=answers)


def whole(text: str) -> int:
    """A whole number from 0 to a thousand million. Raises Refused."""
    digits = text.strip().replace(",", "")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 9):
        raise Refused("Give a whole number.")
    return int(digits)


# Telling.


def grid_row(row: Weighed) -> dict[str, Cell]:
    """One candidate against every filter."""
    own = [failure for failure in row.failures if failure.rule is not Rule.outranked]
    early = any(failure.rule not in FILTERS["Cap"] | FILTERS["Wallet"] for failure in own)
    cells = {}
    for name, rules in FILTERS.items():
        failed = [failure for failure in own if failure.rule in rules]
        if failed:
            cells[name] = Cell(passed=False, words="; ".join(failure.detail for failure in failed))
        else:
            cells[name] = Cell(passed=None if early and name in ASKED_LAST else True)
    return cells


def result(row: Weighed | None, winner: Weighed | None) -> str:
    """What became of one candidate, in a few words."""
    if row is None:
        return "not weighed"
    if winner is not None and row.subscription_id == winner.subscription_id:
        return "gets it"
    own = [failure for failure in row.failures if failure.rule is not Rule.outranked]
    return "; ".join(_words(failure) for failure in own) if own else f"ranked {row.position}"


def _words(failure: Failure) -> str:
    return failure.detail


def differences(before: Answer, after: Answer) -> tuple[Change, ...]:
    """Every candidate whose result is not the same, the two winners first."""
    left, right = ({row.subscription_id: row for row in one.weighed} for one in (before, after))
    found = []
    for subscription_id in left | right:
        words = [result(rows.get(subscription_id), answer.winner) for rows, answer in ((left, before), (right, after))]
        if words[0] != words[1]:
            found.append(Change(subscription_id=subscription_id, before=words[0], after=words[1]))
    return tuple(sorted(found, key=lambda one: ("gets it" not in (one.before, one.after), one.subscription_id)))
