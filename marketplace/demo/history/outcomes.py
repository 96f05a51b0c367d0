"""Simulated dispositions and returns of the businesses.

A business that calls sooner wins more often; some are quick, some slow, and a few report nothing. Events after the end
of the history are left out. Figures are plausible, not researched: about seven in ten leads are reached, and one in
nine is won, with a first job worth a seventh of the person's budget.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from billing.returns import PhoneFacts, ReturnReason, ReturnRecord, judge
from marketplace.demo.history.endpoints import SimulatedDelivery
from marketplace.demo.people import MEDIAN_BUDGET_MINOR
from marketplace.demo.verticals import EDUCATION
from marketplace.demo.world import DemoBusiness
from marketplace.distribution.store import NewAssignment
from marketplace.runtime import clock
from marketplace.runtime.clock import Random
from routing.inquiry import Facts

WIN_CHANCE: Final = ((5, 0.30), (30, 0.22), (120, 0.16), (24 * 60, 0.11), (10**9, 0.06))
"""Chance that a reached lead is won, by the minutes from delivery to the first call (inclusive limits)."""
POOR_WIN_SHARE: Final = 0.3
"""Chance of a win for a lead of the provider whose people are seldom serious, against that of other leads."""
REACHED: Final = 0.74
SILENT_BUSINESSES: Final = 0.08
MEDIAN_MINUTES: Final = (3.0, 6.0, 12.0, 25.0, 60.0, 150.0)
"""Median minutes from delivery to the first call; each business has one of these. Those with high weights are quick."""
VALUE_OF_BUDGET: Final = 0.14
DAYS_TO_END: Final = {EDUCATION: 9.0}
"""Median days from first contact to won or lost, for verticals in which it is not six."""
LOST_REASONS: Final = ("price", "price", "competitor", "not_interested", "no_need", "bad_timing", "other")
RETURNED: Final = 0.065
"""Share of delivered leads for which a return is requested."""
RETURN_GROUNDS: Final = (
    (ReturnReason.wrong_person, "Whoever answered has never heard of the request."),
    (ReturnReason.wrong_person, "The person moved away a year ago."),
    (ReturnReason.no_consent_recalled, "Does not recall having asked for a call."),
    (ReturnReason.fraud, "Every answer on the form was made up."),
    (ReturnReason.other, "The same project came to us by a neighbour."),
    (ReturnReason.invalid_number, None),
    (ReturnReason.duplicate, None),
    (ReturnReason.outside_area, None),
)
GRANTED: Final = "The call record that was sent shows it: granted."
DENIED: Final = "The form was filled in from this address, with this number confirmed: not a ground for a return."
STAGES: Final = {"contacted": "Called", "qualified": "Visit agreed", "quoted": "Offer sent", "won": "Signed",
                 "lost": "Closed", "unreachable": "No answer"}  # fmt: skip
"""Stage names of a business with names of its own, by kind of disposition."""
DESK_HOURS: Final = 64.0
"""Average hours for which a return waits for an operator."""
JUDGES: Final = "demo"


class SimulatedDisposition(msgspec.Struct, frozen=True, kw_only=True):
    """One disposition."""

    kind: str
    happened_at: datetime
    recorded_at: datetime
    value_minor: int | None = None
    reason: str | None = None


class SimulatedReturn(msgspec.Struct, frozen=True, kw_only=True):
    """A return. Without `judged_at` it waits for an operator."""

    id: UUID
    reason: ReturnReason
    note: str | None
    requested_at: datetime
    state: str = "requested"
    judged_at: datetime | None = None
    judged_by: str | None = None
    finding: str | None = None

    @property
    def granted_at(self) -> datetime | None:
        """Time of the refund, None without one."""
        return self.judged_at if self.state == "granted" else None


class LeadFeedback(msgspec.Struct, frozen=True, kw_only=True):
    """Dispositions of one lead, and its return if there is one."""

    dispositions: tuple[SimulatedDisposition, ...] = ()
    given_back: SimulatedReturn | None = None


class SalesTeam:
    """Staff of one business who call its leads and report what becomes of them."""

    def __init__(self, random: Random, business: DemoBusiness, vertical: str, until: datetime) -> None:
        self._random = random
        self._until = until
        self._vertical = vertical
        self._zone = ZoneInfo(business.definition.zone)
        self.silent = random.random() < SILENT_BUSINESSES
        self.has_stages = random.random() < 0.5
        self._median_minutes = random.choice((3.0, 6.0, 12.0) if business.definition.weight > 2 else MEDIAN_MINUTES)

    def work(
        self, new: NewAssignment, delivery: SimulatedDelivery, facts: Facts, win_share: float = 1.0
    ) -> LeadFeedback:
        """Return the outcome of one delivered lead, up to the end of the history. Wins are rarer by `win_share`."""
        delivered_at = delivery.settled_at
        if self._random.random() < RETURNED and not self.silent:
            given_back = self._give_back(delivered_at, facts)
            if given_back is not None:
                unreachable = SimulatedDisposition(
                    kind="unreachable",
                    happened_at=given_back.requested_at - timedelta(minutes=2),
                    recorded_at=given_back.requested_at,
                )
                return LeadFeedback(dispositions=(unreachable,), given_back=given_back)
        if self.silent:
            return LeadFeedback()
        dispositions = self._report(delivered_at, facts, win_share)
        return LeadFeedback(dispositions=tuple(each for each in dispositions if each.recorded_at < self._until))

    def _report(self, delivered_at: datetime, facts: Facts, win_share: float) -> Iterator[SimulatedDisposition]:
        random = self._random
        delay = timedelta(minutes=self._median_minutes * random.lognormvariate(0, 1.1))
        called_at = self._working_time(delivered_at, delay)
        if random.random() > REACHED:
            if random.random() < 0.6:
                yield self._disposition("unreachable", called_at + timedelta(days=random.uniform(0.5, 3.0)))
            return
        yield self._disposition("contacted", called_at)
        minutes = (called_at - delivered_at) / timedelta(minutes=1)
        won = random.random() < win_share * next(chance for limit, chance in WIN_CHANCE if minutes <= limit)
        ends_at = called_at + timedelta(days=DAYS_TO_END.get(self._vertical, 6.0) * random.lognormvariate(0, 0.6))
        if won or random.random() < 0.65:
            yield self._disposition("qualified", called_at + (ends_at - called_at) * random.uniform(0.05, 0.2))
            if won or random.random() < 0.6:
                yield self._disposition("quoted", called_at + (ends_at - called_at) * random.uniform(0.3, 0.6))
        if won:
            yield self._disposition("won", ends_at, value_minor=self._value_minor(facts))
        elif random.random() < 0.8:
            yield self._disposition("lost", ends_at, reason=random.choice(LOST_REASONS))

    def _disposition(
        self, kind: str, happened_at: datetime, *, value_minor: int | None = None, reason: str | None = None
    ) -> SimulatedDisposition:
        recorded_at = happened_at + timedelta(minutes=self._random.expovariate(1 / 40))
        return SimulatedDisposition(
            kind=kind, happened_at=happened_at, recorded_at=recorded_at, value_minor=value_minor, reason=reason
        )

    def _working_time(self, since: datetime, delay: timedelta) -> datetime:
        """Return a time after a delay; a time at night is moved to the next morning."""
        at = since + delay
        local = at.astimezone(self._zone)
        if 8 <= local.hour < 20:
            return at
        morning = (local + timedelta(days=local.hour >= 20)).replace(hour=8, minute=0, second=0, microsecond=0)
        return max(at, morning + timedelta(minutes=self._random.uniform(0, 90)))

    def _value_minor(self, facts: Facts) -> int:
        budget = facts.budget.minor if facts.budget else MEDIAN_BUDGET_MINOR[self._vertical]
        return max(20_000, int(budget * VALUE_OF_BUDGET * self._random.lognormvariate(0, 0.35)) // 100 * 100)

    def _give_back(self, delivered_at: datetime, facts: Facts) -> SimulatedReturn | None:
        """Return a request to give the lead back, judged at once if the record decides it, else by an operator.

        None if it would be requested after the end of the history.
        """
        random = self._random
        requested_at = self._working_time(delivered_at, timedelta(hours=random.uniform(0.5, 90)))
        if requested_at >= self._until:
            return None
        reason, note = random.choice(RETURN_GROUNDS)
        request = SimulatedReturn(
            id=clock.id_at(requested_at, random), reason=reason, note=note, requested_at=requested_at
        )
        if (judgement := judge(reason, self._record(facts))) is not None:
            state = "granted" if judgement.granted else "denied"
            return msgspec.structs.replace(
                request, state=state, judged_at=requested_at, judged_by="machine", finding=judgement.finding
            )
        granted = random.random() < 0.6
        judged_at = requested_at + timedelta(hours=3 + random.expovariate(1 / DESK_HOURS))
        if judged_at >= self._until:
            return request
        state, finding = ("granted", GRANTED) if granted else ("denied", DENIED)
        return msgspec.structs.replace(request, state=state, judged_at=judged_at, judged_by=JUDGES, finding=finding)

    def _record(self, facts: Facts) -> ReturnRecord:
        """Return the record of a lead. In the history, each lead is of a different person inside the area."""
        phone = PhoneFacts(present=True, kind=facts.signals.phone_type, kind_ordered=True)
        return ReturnRecord(person_known=True, seen_before_at=None, window_days=30, in_area=True, phone=phone)
