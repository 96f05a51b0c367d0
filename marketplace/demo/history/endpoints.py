"""Simulated deliveries: the answers of the businesses' servers, attempts with their times, and results.

The rules of retry, release and lapse are those of routing/delivery.py; only the network is simulated.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from marketplace.demo.world import Behaviour
from marketplace.distribution.store import NewAssignment
from marketplace.runtime.clock import Random
from routing.delivery import (
    EVIDENCE_WINDOW,
    AnswerReceived,
    AttemptOutcome,
    Classification,
    NoAnswer,
    NoAnswerReason,
    NotSent,
    NotSentReason,
    Observation,
    classify,
    next_attempt_at,
    next_hold_attempt_at,
)
from routing.lifecycle import AssignmentState

ACCEPTED: Final = AnswerReceived(status=200)
SERVER_ERROR: Final = AnswerReceived(status=500)
BUSY: Final = AnswerReceived(status=503)
REFUSED: Final = AnswerReceived(status=409, body=b'{"status": "refused", "reason": "own_customer"}')
UNREACHABLE: Final = NotSent(reason=NotSentReason.connect_refused)
NO_ANSWER: Final = NoAnswer(reason=NoAnswerReason.timeout)
TIMEOUT_MS: Final = 20_000.0


class Phases(NamedTuple):
    """Duration of each phase of one attempt in milliseconds; None for a phase that was not reached."""

    dns: float
    connect: float | None
    tls: float | None
    expose: float | None
    first_byte: float | None
    total: float

    @property
    def until_exposed(self) -> float | None:
        """Return the milliseconds from the start to the exposure; None without an exposure."""
        if self.connect is None or self.tls is None or self.expose is None:
            return None
        return self.dns + self.connect + self.tls + self.expose


class SimulatedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt: start, observation, meaning and durations."""

    number: int
    started_at: datetime
    result: Classification
    status: int | None
    phases: Phases


class SimulatedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """All attempts of one assignment, and its state after them."""

    state: AssignmentState
    reason: str
    attempts: tuple[SimulatedAttempt, ...]
    exposed_at: datetime | None
    settled_at: datetime


class SimulatedEndpoint:
    """Server of one business, with its own latency and behaviour."""

    def __init__(self, random: Random, behaviour: Behaviour) -> None:
        self._random = random
        self._behaviour = behaviour
        self._connect_ms = random.uniform(6.0, 45.0)
        self._answer_ms = 300.0 if behaviour is Behaviour.slow else random.uniform(25.0, 140.0)

    def deliver(self, new: NewAssignment, *, may_lapse: bool) -> SimulatedDelivery:
        """Simulate the delivery of one assignment. It may lapse only with `may_lapse`."""
        attempts: list[SimulatedAttempt] = []
        exposed_at: datetime | None = None
        at = new.awarded_at + timedelta(milliseconds=self._random.uniform(1.5, 6.0))
        for observed in self._answers(may_lapse):
            result = classify(observed, exposed=exposed_at is not None)
            phases = self._phases(observed, first=exposed_at is None)
            attempts.append(
                SimulatedAttempt(
                    number=len(attempts) + 1,
                    started_at=at,
                    result=result,
                    phases=phases,
                    status=observed.status if isinstance(observed, AnswerReceived) else None,
                )
            )
            if exposed_at is None and phases.until_exposed is not None:
                exposed_at = at + timedelta(milliseconds=phases.until_exposed)
            ended_at = at + timedelta(milliseconds=phases.total)
            if (state := _settled(result)) is not None:
                return _delivery(state, result.reason, attempts, exposed_at, ended_at)
            again_at = _again_at(result, len(attempts), new, exposed_at, ended_at)
            if again_at is None and exposed_at is None:
                return _delivery(AssignmentState.released, result.reason, attempts, None, ended_at)
            if again_at is None:
                break
            at = again_at
        lapsed_at = (exposed_at or at) + EVIDENCE_WINDOW + timedelta(seconds=self._random.uniform(0.1, 4.0))
        return _delivery(AssignmentState.lapsed, "no_evidence", attempts, exposed_at, lapsed_at)

    def _answers(self, may_lapse: bool) -> Iterator[Observation]:
        """Yield the server's answer to each attempt."""
        lot = self._random.random()
        match self._behaviour:
            case Behaviour.picky if lot < 0.125:
                yield REFUSED
            case Behaviour.recovers if lot < 0.2:
                yield from [SERVER_ERROR] * self._random.randint(1, 2)
            case Behaviour.dies if lot < 0.4:
                yield from [UNREACHABLE] * 3
        if lot > 0.995 and may_lapse:
            while True:
                yield NO_ANSWER
        elif lot > 0.985:
            yield REFUSED
        elif lot > 0.97:
            yield BUSY
        elif lot > 0.96:
            yield from [UNREACHABLE] * 3
        yield ACCEPTED

    def _phases(self, observed: Observation, *, first: bool) -> Phases:
        draw = self._random.lognormvariate
        dns, connect = draw(0.5, 0.7), self._connect_ms * draw(0.0, 0.2)
        if isinstance(observed, NotSent):
            return Phases(dns, connect, None, None, None, dns + connect)
        tls, expose = 2.1 * connect + draw(0.5, 0.5), draw(1.2, 0.4) if first else 0.3
        before = dns + connect + tls + expose
        if isinstance(observed, NoAnswer):
            return Phases(dns, connect, tls, expose, None, TIMEOUT_MS)
        answered = connect + self._answer_ms * draw(0.0, 0.35)
        return Phases(dns, connect, tls, expose, answered, before + answered)


def _settled(result: Classification) -> AssignmentState | None:
    return {AttemptOutcome.accepted: AssignmentState.delivered, AttemptOutcome.refused: AssignmentState.refused}.get(
        result.outcome
    )


def _again_at(
    result: Classification, count: int, new: NewAssignment, exposed_at: datetime | None, now: datetime
) -> datetime | None:
    if exposed_at is None:
        reason = NotSentReason(result.reason)
        return next_hold_attempt_at(count, reason=reason, held_at=new.awarded_at, now=now)
    return next_attempt_at(count, exposed_at=exposed_at, now=now, retry_after_seconds=None, seed=str(new.id))


def _delivery(
    state: AssignmentState,
    reason: str,
    attempts: list[SimulatedAttempt],
    exposed_at: datetime | None,
    settled_at: datetime,
) -> SimulatedDelivery:
    return SimulatedDelivery(
        state=state, reason=reason, attempts=tuple(attempts), exposed_at=exposed_at, settled_at=settled_at
    )
