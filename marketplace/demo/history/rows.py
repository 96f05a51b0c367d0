"""Rows of the history, by table, in the order in which they are written."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import msgspec

from marketplace.demo.history.outcomes import STAGES
from marketplace.demo.history.simulation import SimulatedHistory, SimulatedSale, SimulatedWalk, Simulation
from marketplace.demo.verticals import CURRENCY
from marketplace.runtime import clock, ids
from marketplace.runtime.clock import seeded
from marketplace.security.sealing import Sealer
from routing.calendar import CapWindow
from routing.delivery import EVIDENCE_WINDOW
from routing.lifecycle import AssignmentState, LeadState
from routing.subscription import Subscription

ACTOR: Final = "demo"
"""Actor of the moves and changes of the history."""
COLUMNS: Final = {
    "inquiry": (
        "id", "provider_id", "vertical_id", "mode", "provider_reference", "request_sha256", "received_as", "facts",
        "consent_sha256", "consent_given_at", "submitted_at", "received_at", "contact_fields",
    ),
    "lead": (
        "id", "provider_id", "vertical_id", "mode", "state", "reason", "due_at", "received_at", "qualified_at",
        "settled_at", "waits_for",
    ),
    "contact": ("lead_id", "sealed"),
    "data_key": ("lead_id", "wrapped", "master_key_id"),
    "person_window": ("lead_id", "key", "vertical_id", "during"),
    "person_key": ("lead_id", "key"),
    "decision": (
        "id", "lead_id", "made_at", "outcome", "reason", "vertical_version", "catalog_version", "strategy", "verdict",
        "candidates", "left_out", "subscription_id", "assignment_id",
    ),
    "assignment": (
        "id", "lead_id", "business_id", "subscription_id", "subscription_version", "endpoint_id", "provider_id",
        "mode", "state", "reason", "price_minor", "payout_minor", "currency", "attempts", "awarded_at", "hold_until",
        "exposed_at", "evidence_until", "evidence", "settled_at", "hour_at", "day_at", "week_at", "month_at",
    ),
    "exposure": (
        "lead_id", "assignment_id", "business_id", "channel", "endpoint_id", "url_sha256", "address", "attempt_no",
        "exposed_at",
    ),
    "attempt": (
        "id", "assignment_id", "lead_id", "business_id", "endpoint_id", "attempt_no", "started_at", "outcome",
        "reason", "status", "dns_ms", "connect_ms", "tls_ms", "expose_ms", "first_byte_ms", "total_ms", "address",
    ),
    "transfer": (
        "id", "kind", "amount_minor", "currency", "business_id", "provider_id", "assignment_id", "event_id", "made_at",
    ),
    "move": ("lead_id", "assignment_id", "left_state", "entered_state", "actor", "at"),
    "cap_usage": (
        "subscription_id", "cap_window", "starts_at", "used_count", "used_minor", "limit_count", "limit_minor",
    ),
    "disposition": (
        "id", "assignment_id", "lead_id", "business_id", "kind", "value_minor", "reason", "stage", "happened_at",
        "recorded_at", "source",
    ),
    "return_request": (
        "id", "assignment_id", "lead_id", "business_id", "reason", "note", "state", "requested_at", "judged_at",
        "judged_by", "finding",
    ),
    "refusal_count": ("provider_id", "mode", "hour", "pointer", "code", "count"),
    "pipeline_stage": ("id", "business_id", "stage", "kind", "position"),
    "stage_name": ("business_id", "name", "stage_id"),
    "audit": ("id", "at", "actor", "action", "object", "detail"),
}  # fmt: skip
"""Tables with the columns that are written. All other columns have their defaults."""

Row = tuple[Any, ...]


class HistoryRows:
    """Rows of one history. `urls` are those of the endpoints by id; `subscriptions` are by id, with their caps."""

    def __init__(
        self, simulation: Simulation, sealer: Sealer, urls: dict[UUID, str], subscriptions: Mapping[UUID, Subscription]
    ) -> None:
        self._crews = simulation.crews
        self._sealer = sealer
        self._urls = urls
        self._subscriptions = subscriptions
        self._random = seeded(f"ids of {len(urls)} doors")
        self.of: dict[str, list[Row]] = {table: [] for table in COLUMNS}

    def add(self, past: SimulatedHistory) -> None:
        """Add all rows, in each table in the order of time."""
        for walk in past.walks:
            self._add_inquiry(walk)
            self._add_decisions(walk)
            for sale in walk.sales:
                self._add_sale(walk, sale)
        for payment in past.payments:
            self._add_transfer("top_up", payment.made_at, payment.amount_minor, business_id=payment.business_id)
            self._add_audit(
                payment.made_at, "wallet.top_up", "biz", payment.business_id, amount_minor=payment.amount_minor
            )
        for (subscription_id, window, starts_at), used in past.usage.items():
            caps = {cap.window: cap for cap in self._subscriptions[subscription_id].definition.caps}
            cap = caps.get(CapWindow(window))
            self.of["cap_usage"].append(
                (
                    subscription_id,
                    window,
                    starts_at,
                    used.count,
                    used.amount_minor,
                    cap.count if cap else None,
                    cap.amount_minor if cap else None,
                )
            )
        for (provider_id, hour, pointer, code), count in past.refusals.items():
            self.of["refusal_count"].append((provider_id, "live", hour, pointer, code, count))
        for business_id, crew in self._crews.items():
            if crew.has_stages:
                stages = enumerate(STAGES.items(), start=1)
                for place, (kind, stage) in stages:
                    stage_id = clock.new_id()
                    self.of["pipeline_stage"].append((stage_id, business_id, stage, kind, place))
                    self.of["stage_name"].append((business_id, stage.casefold(), stage_id))
        self.of["move"].sort(key=lambda row: row[-1])
        self.of["transfer"].sort(key=lambda row: row[-1])

    def _id_at(self, moment: datetime) -> UUID:
        return clock.id_at(moment, self._random)

    # The lead.

    def _add_inquiry(self, walk: SimulatedWalk) -> None:
        accepted, duplicate = walk.accepted, walk.state is LeadState.duplicate
        self.of["inquiry"].append(
            (
                walk.lead_id,
                walk.provider_id,
                walk.vertical_id,
                "live",
                f"demo-history-{walk.number}",
                walk.request_sha256,
                walk.state if duplicate else "received",
                msgspec.json.encode(accepted.facts),
                accepted.consent_sha256,
                accepted.consent_given_at,
                accepted.facts.submitted_at,
                walk.received_at,
                [] if duplicate else list(accepted.contact.filled_fields()),
            )
        )
        self.of["lead"].append((
            walk.lead_id, walk.provider_id, walk.vertical_id, "live", walk.state, walk.reason, walk.due_at,
            walk.received_at, walk.qualified_at, walk.settled_at, list(walk.waits_for) or None,
        ))  # fmt: skip
        if not duplicate:
            self._add_contact(walk)
        for left, entered, at in _lead_moves(walk):
            self.of["move"].append((walk.lead_id, None, left, entered, ACTOR, at))

    def _add_contact(self, walk: SimulatedWalk) -> None:
        accepted, hashed = walk.accepted, self._sealer.keyed_hash
        sealed = self._sealer.seal_contact(walk.lead_id, msgspec.json.encode(accepted.contact))
        self.of["contact"].append((walk.lead_id, sealed.box))
        self.of["data_key"].append((walk.lead_id, sealed.wrapped, sealed.master_key_id))
        for person in accepted.fingerprints:
            self.of["person_key"].append((walk.lead_id, hashed("suppression", person.partition(":")[2])))
            if walk.protected_until is not None:
                during = asyncpg.Range(walk.received_at, walk.protected_until)
                self.of["person_window"].append((walk.lead_id, hashed("person", person), walk.vertical_id, during))

    def _add_decisions(self, walk: SimulatedWalk) -> None:
        for decision in walk.decisions:
            record = msgspec.structs.replace(decision, id=self._id_at(decision.made_at))
            self.of["decision"].append(tuple(getattr(record, name) for name in COLUMNS["decision"]))

    # Its sale.

    def _add_sale(self, walk: SimulatedWalk, sale: SimulatedSale) -> None:
        new, delivery = sale.new, sale.delivery
        evidenced = delivery.state is AssignmentState.delivered
        starts = new.window_starts
        self.of["assignment"].append(
            (
                new.id,
                new.lead_id,
                new.business_id,
                new.subscription_id,
                new.subscription_version,
                new.endpoint_id,
                new.provider_id,
                new.mode,
                sale.state,
                walk.reason if sale is walk.sales[-1] else delivery.reason,
                new.price_minor,
                new.payout_minor,
                new.currency,
                len(delivery.attempts),
                new.awarded_at,
                new.hold_until,
                delivery.exposed_at,
                delivery.exposed_at + EVIDENCE_WINDOW if delivery.exposed_at else None,
                "answer" if evidenced else None,
                delivery.settled_at,
                starts[CapWindow.hour],
                starts[CapWindow.day],
                starts[CapWindow.week],
                starts[CapWindow.month],
            )
        )
        url = self._urls[new.endpoint_id]
        address = urlsplit(url).netloc
        for attempt in delivery.attempts:
            self.of["attempt"].append((
                self._id_at(attempt.started_at), new.id, new.lead_id, new.business_id, new.endpoint_id,
                attempt.number, attempt.started_at, attempt.result.outcome, attempt.result.reason, attempt.status,
                *attempt.phases, address,
            ))  # fmt: skip
        if delivery.exposed_at is not None:
            first = next(attempt.number for attempt in delivery.attempts if attempt.phases.expose is not None)
            self.of["exposure"].append((
                new.lead_id, new.id, new.business_id, "push", new.endpoint_id, sha256(url.encode()).digest(), address,
                first, delivery.exposed_at,
            ))  # fmt: skip
        self._add_money(sale)
        self._add_feedback(sale)
        for left, entered, at in _assignment_moves(sale):
            self.of["move"].append((new.lead_id, new.id, left, entered, ACTOR, at))

    def _add_money(self, sale: SimulatedSale) -> None:
        new, settled_at = sale.new, sale.delivery.settled_at
        self._add_transfer("hold", new.awarded_at, new.price_minor, business_id=new.business_id, sale=sale)
        if sale.delivery.state is not AssignmentState.delivered:
            self._add_transfer("release", settled_at, new.price_minor, business_id=new.business_id, sale=sale)
            return
        self._add_transfer("capture", settled_at, new.price_minor, business_id=new.business_id, sale=sale)
        self._add_transfer("payout", settled_at, new.payout_minor, provider_id=new.provider_id, sale=sale)
        given_back = sale.outcome.given_back
        if given_back is not None and given_back.granted_at is not None:
            at = given_back.granted_at
            self._add_transfer("refund", at, new.price_minor, business_id=new.business_id, sale=sale)
            self._add_transfer("claw_back", at, new.payout_minor, provider_id=new.provider_id, sale=sale)

    def _add_transfer(
        self,
        kind: str,
        made_at: datetime,
        amount_minor: int,
        *,
        business_id: UUID | None = None,
        provider_id: UUID | None = None,
        sale: SimulatedSale | None = None,
    ) -> None:
        transfer_id = self._id_at(made_at)
        self.of["transfer"].append(
            (
                transfer_id,
                kind,
                amount_minor,
                CURRENCY,
                business_id,
                provider_id,
                sale.new.id if sale else None,
                None if sale else f"demo-history-{transfer_id}",
                made_at,
            )
        )

    def _add_feedback(self, sale: SimulatedSale) -> None:
        new, given_back = sale.new, sale.outcome.given_back
        own = STAGES if self._crews[new.business_id].has_stages else {}
        for report in sale.outcome.dispositions:
            self.of["disposition"].append((
                self._id_at(report.recorded_at), new.id, new.lead_id, new.business_id, report.kind, report.value_minor,
                report.reason, own.get(report.kind), report.happened_at, report.recorded_at, "demo",
            ))  # fmt: skip
        if given_back is None:
            return
        self.of["return_request"].append((
            given_back.id, new.id, new.lead_id, new.business_id, given_back.reason, given_back.note, given_back.state,
            given_back.requested_at, given_back.judged_at, given_back.judged_by, given_back.finding,
        ))  # fmt: skip
        at_once = given_back.judged_at == given_back.requested_at
        state = given_back.state if at_once else "requested"
        self._add_audit(
            given_back.requested_at, "return.request", "lead", new.lead_id, reason=given_back.reason, state=state
        )
        if given_back.judged_at is not None and not at_once:
            self._add_audit(
                given_back.judged_at,
                "return.judge",
                "lead",
                new.lead_id,
                reason=given_back.reason,
                state=given_back.state,
            )

    def _add_audit(self, at: datetime, action: str, kind: str, subject: UUID, **detail: str | int) -> None:
        text = msgspec.json.encode(detail)
        self.of["audit"].append((self._id_at(at), at, ACTOR, action, ids.encode(kind, subject), text))


Moves = Iterator[tuple[str | None, str, datetime]]


def _lead_moves(walk: SimulatedWalk) -> Moves:
    """Yield the moves of a lead up to its state. A lead that is awarded at once has no move to prospect."""
    if walk.state is LeadState.duplicate:
        yield None, walk.state, walk.received_at
        return
    yield None, "received", walk.received_at
    left = "received"
    if walk.decisions[0].outcome == "nurturing":
        yield left, "nurturing", walk.decisions[0].made_at
        left = "nurturing"
    for sale in walk.sales:
        yield left, "held", sale.new.awarded_at
        released = sale.state is AssignmentState.released
        left = "prospect" if released else sale.state
        if released:
            yield "held", "prospect", sale.delivery.settled_at
        else:
            yield from _after_the_award(sale)
    if left != walk.state:
        yield left, walk.state, walk.settled_at or walk.decisions[-1].made_at


def _assignment_moves(sale: SimulatedSale) -> Moves:
    yield None, "held", sale.new.awarded_at
    if sale.state is AssignmentState.released:
        yield "held", "released", sale.delivery.settled_at
    else:
        yield from _after_the_award(sale)


def _after_the_award(sale: SimulatedSale) -> Moves:
    """Yield the moves of a lead and its assignment after the exposure: both have the same states."""
    delivery, given_back = sale.delivery, sale.outcome.given_back
    if delivery.exposed_at is None:
        raise ValueError("an assignment that was not released was exposed")
    yield "held", "exposed", delivery.exposed_at
    yield "exposed", delivery.state, delivery.settled_at
    if given_back is not None and given_back.granted_at is not None:
        yield "delivered", "returned", given_back.granted_at
