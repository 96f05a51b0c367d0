"""Delivery to a thousand receivers in one process, with all of them healthy and with one in twenty broken.

Each business has one endpoint and one subscription; five businesses serve each area, so that a lead whose business
cannot be reached has another to go to. A third of the broken receivers never answers, a third refuses the connection,
and a third answers 503. Both runs start anew and send the same leads at the same steady rate.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from benchmarks.end_to_end import FIRST_SECONDS, SETTLE_SECONDS, Say, send
from benchmarks.figures import quantiles_of, ratio_figures
from benchmarks.load import Phase, lateness_of
from benchmarks.processes import MachineTime
from benchmarks.systems import Ours, calm_world, started_ours
from marketplace.database.db import Queries, connect_owner
from marketplace.demo.verticals import CURRENCY, HOME
from marketplace.demo.world import Behaviour, DemoBusiness, DemoWorld
from marketplace.runtime import clock, ids
from routing.subscription import Area, SubscriptionDefinition

SQL: Final = Queries(__file__, "fan_out.sql")
BROKEN: Final = (Behaviour.hangs, Behaviour.dies, Behaviour.busy)
BROKEN_SHARE: Final = 0.05
PER_AREA: Final = 5
PRICE_MINOR: Final = 5_000
ZONE: Final = "America/Chicago"
OPEN: Final = frozenset({"received", "prospect", "held", "exposed"})
TARGET: Final = 1.2
"Most times that the p99 of healthy receivers may grow."


class FanOutPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Extent of the part: receivers, leads per second over all of them, seconds, and seconds of the warm-up.

    `workers` is the number of worker processes; None is the setting's.
    """

    receivers: int
    rate: float
    seconds: float
    warm_up_seconds: float = FIRST_SECONDS
    workers: int | None = None


class RoutedLead(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted lead: its state, its businesses in the order of awards, and Unix times; None if not delivered."""

    state: str
    businesses: tuple[UUID, ...]
    received_at: float
    settled_at: float | None


def wide_world(receivers: int, *, broken: bool) -> DemoWorld:
    """Return a world of so many businesses, whose areas divide all postal codes of the demo evenly.

    With `broken`, one business in twenty, and at least one for each kind, has a broken receiver.
    """
    world = calm_world()
    codes = sorted(code for city in world.homes.values() for code in city)
    areas = -(-receivers // PER_AREA)
    behaviours = broken_positions(receivers) if broken else {}
    businesses = tuple(
        DemoBusiness(
            slug=f"receiver-{number:04}",
            name=f"Demo Receiver {number:04}",
            vertical=HOME,
            definition=SubscriptionDefinition(
                area=Area(postal_codes=tuple(codes[number // PER_AREA :: areas])),
                zone=ZONE,
                price_minor=PRICE_MINOR,
                currency=CURRENCY,
            ),
            behaviour=behaviours.get(number, Behaviour.takes),
        )
        for number in range(receivers)
    )
    return msgspec.structs.replace(world, businesses=businesses)


def broken_positions(receivers: int) -> dict[int, Behaviour]:
    """Return the broken receivers, spread evenly, and the behaviour of each."""
    count = max(len(BROKEN), round(BROKEN_SHARE * receivers))
    return {number * receivers // count: BROKEN[number % len(BROKEN)] for number in range(count)}


async def measure(plan: FanOutPlan, say: Say) -> dict[str, Any]:
    """Return the figures with healthy receivers and with some broken, and the ratio of the healthy ones' latency."""
    figures: dict[str, Any] = {"receivers": plan.receivers, "broken": len(broken_positions(plan.receivers))}
    figures |= {"rate": plan.rate, "seconds": plan.seconds}
    for name, broken in (("all_healthy", False), ("some_broken", True)):
        say(f"fan-out: starting {plan.receivers:,} receivers, {name.replace('_', ' ')}")
        figures[name] = await measure_world(plan, wide_world(plan.receivers, broken=broken))
        say(f"fan-out: {name.replace('_', ' ')}: {figures[name]}")
    return figures | compare(figures["all_healthy"], figures["some_broken"])


def compare(healthy: Mapping[str, Any], broken: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ratio of the latency of healthy receivers beside broken ones to that without, and the verdict."""
    key = "healthy_accepted_to_acknowledged_ms"
    ratio = ratio_figures(broken[key], healthy[key])
    return {"ratio": {key: ratio}, "within_target": ratio["p99"] is not None and ratio["p99"] <= TARGET}


async def measure_world(plan: FanOutPlan, world: DemoWorld) -> dict[str, Any]:
    """Return the figures of one world, on an installation of its own."""
    began = clock.monotonic()
    async with started_ours(world=world, workers=plan.workers) as system:
        connection = await connect_owner(system.installation.engines.database_url, "benchmark")
        try:
            starting_seconds = clock.monotonic() - began
            slug = system.accounts.verticals[HOME]
            system.drafts = (draft for draft in system.drafts if draft.vertical == slug)
            await send(system, [Phase(rate=plan.rate, seconds=plan.warm_up_seconds)], "warm-up")
            figures = await _measure_step(system, connection, plan, world)
        finally:
            await connection.close()
        findings = await system.count_findings()
    return {**figures, "verify_findings": findings, "starting_seconds": round(starting_seconds, 1)}


def _decode(kind: str, text: str) -> UUID:
    """Return the UUID in an id that the API has given. Raises ValueError if there is none."""
    if (id := ids.decode(kind, text)) is None:
        raise ValueError(f"{text} is no id of this kind: {kind}")
    return id


async def _measure_step(
    system: Ours, connection: asyncpg.Connection, plan: FanOutPlan, world: DemoWorld
) -> dict[str, Any]:
    behaviours = {
        _decode("biz", system.accounts.businesses[business.slug]): business.behaviour for business in world.businesses
    }
    broken = {id for id, behaviour in behaviours.items() if behaviour in BROKEN}
    machine, began = MachineTime(system.processes), clock.monotonic()
    [answers] = await send(system, [Phase(rate=plan.rate, seconds=plan.seconds)], "fan-out")
    lead_ids = [_decode("lead", answer.id) for answer in answers if answer.id is not None]
    await _settle(connection, lead_ids, broken)
    others = machine.others_seconds() / (clock.monotonic() - began)
    leads = await _load_leads(connection, lead_ids)
    return {
        "sent": len(answers),
        "not_accepted": sum(answer.id is None for answer in answers),
        **summarise_leads(leads, lead_count=len(lead_ids), broken=broken),
        "first_at": dict(Counter(behaviours[lead.businesses[0]] for lead in leads if lead.businesses)),
        "sender_late_ms": lateness_of(answers),
        "others_cpu_share": round(others, 3),
    }


async def _settle(connection: asyncpg.Connection, lead_ids: Sequence[UUID], broken: Collection[UUID]) -> None:
    """Wait until no lead is open but at a broken receiver, up to SETTLE_SECONDS."""
    deadline = clock.monotonic() + SETTLE_SECONDS
    while clock.monotonic() < deadline:
        if not await connection.fetchval(SQL["count_open"], lead_ids, list(broken)):
            return
        await asyncio.sleep(0.2)


async def _load_leads(connection: asyncpg.Connection, lead_ids: Sequence[UUID]) -> list[RoutedLead]:
    rows = await connection.fetch(SQL["list_leads"], lead_ids)
    return [
        RoutedLead(
            state=row["state"],
            businesses=tuple(row["business_ids"]),
            received_at=row["received_at"],
            settled_at=row["settled_at"],
        )
        for row in rows
    ]


def summarise_leads(leads: Sequence[RoutedLead], *, lead_count: int, broken: Collection[UUID]) -> dict[str, Any]:
    """Return counts and latencies. Lost leads are not stored, or are open although their business is healthy."""
    healthy = [lead for lead in leads if lead.businesses and lead.businesses[0] not in broken]
    moved = [lead for lead in leads if lead.businesses and lead.businesses[0] in broken and lead.settled_at]
    moved = [lead for lead in moved if lead.businesses[-1] not in broken]
    waiting = [lead for lead in leads if lead.state == "exposed" and lead.businesses[-1] in broken]
    open_leads = sum(lead.state in OPEN for lead in leads)
    return {
        "accepted": lead_count,
        "delivered": sum(lead.settled_at is not None for lead in leads),
        "healthy_leads": len(healthy),
        "healthy_accepted_to_acknowledged_ms": quantiles_of(_latencies(healthy)),
        "moved_to_another": len(moved),
        "moved_accepted_to_acknowledged_ms": quantiles_of(_latencies(moved)),
        "waiting_at_broken": len(waiting),
        "without_business": sum(not lead.businesses for lead in leads),
        "lost": lead_count - len(leads) + open_leads - len(waiting),
    }


def _latencies(leads: Sequence[RoutedLead]) -> list[float]:
    return [1000 * (lead.settled_at - lead.received_at) for lead in leads if lead.settled_at is not None]
