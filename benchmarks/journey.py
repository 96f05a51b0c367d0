"""Measure the time from a touch to the renewed decision: a nurtured lead that the touch makes a prospect.

    python benchmarks/journey.py [--leads 300] [--rate 20] [--json FILE]

The marketplace as `make demo` runs it, with its API and worker processes, and receivers that answer at once. Inquiries
are sent whose person wants it in 100 days, and are nurtured. Then a touch of each says that the person wants it within
a week. The time runs from the API's receipt of the touch to the exposure that the award of the renewed decision writes,
both by the clock of the database. The time until the API answers is given besides.
"""

import argparse
import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import uvloop

from benchmarks.figures import quantiles_of
from benchmarks.systems import Ours, started_ours
from marketplace.database.db import connect_owner
from marketplace.runtime import clock, ids

LATE_DAYS: Final = 100
SOON_DAYS: Final = 7
PATIENCE_SECONDS: Final = 60.0
WARM_UP: Final = 20

DECIDED: Final = """
select extract(epoch from e.exposed_at - t.recorded_at)::float8 * 1000 as ms
from unnest($1::uuid[]) as lead (id)
join touch t on t.lead_id = lead.id and t.revision = 1
join decision d on d.lead_id = lead.id and d.revision = 1 and d.outcome = 'held'
join exposure e on e.lead_id = lead.id"""


async def send_late(ours: Ours, leads: int) -> list[tuple[UUID, str]]:
    """Send inquiries that are nurtured; return the ids of those with the key of their provider."""
    sent = []
    for number in range(leads):
        draft = next(ours.drafts)
        body = msgspec.json.decode(draft.body(clock.now()))
        body["bant"]["timing"] = {"within_days": LATE_DAYS}
        key = ours.keys[draft.provider]
        reply = await _post(ours, "/v1/inquiries", body, key, f"journey-{number}")
        sent.append((_lead_id(reply["id"]), key))
    return sent


def _lead_id(text: str) -> UUID:
    lead_id = ids.decode("lead", text)
    assert lead_id is not None
    return lead_id


async def _post(ours: Ours, path: str, body: Any, key: str, name: str) -> Any:
    headers = {"authorization": f"Bearer {key}", "idempotency-key": name, "content-type": "application/json"}
    async with ours.session.post(f"{ours.url}{path}", data=msgspec.json.encode(body), headers=headers) as reply:
        answer = await reply.json()
        assert reply.status in (200, 201, 202), answer
        return answer


async def nurtured(connection: asyncpg.Connection, leads: list[tuple[UUID, str]]) -> list[tuple[UUID, str]]:
    """Return the leads that are nurtured, once none is on its way."""
    lead_ids = [lead_id for lead_id, _ in leads]
    deadline = clock.monotonic() + PATIENCE_SECONDS
    while await connection.fetchval(
        "select count(*) from lead where id = any($1) and state in ('received', 'prospect', 'held')", lead_ids
    ):
        assert clock.monotonic() < deadline, "leads are still on their way"
        await asyncio.sleep(0.1)
    rows = await connection.fetch("select id from lead where id = any($1) and state = 'nurturing'", lead_ids)
    waiting = {row["id"] for row in rows}
    return [(lead_id, key) for lead_id, key in leads if lead_id in waiting]


async def send_touches(ours: Ours, leads: list[tuple[UUID, str]], rate: float) -> list[float]:
    """Send a touch of each lead at a fixed rate, and return the milliseconds until each answer."""

    async def touch(lead_id: UUID, key: str) -> float:
        began = clock.monotonic()
        call = {"kind": "call", "at": clock.now(), "seconds": 90, "supplies": {"timing": {"within_days": SOON_DAYS}}}
        path = f"/v1/inquiries/{ids.encode('lead', lead_id)}/touches"
        await _post(ours, path, {"touches": [call]}, key, "")
        return (clock.monotonic() - began) * 1000

    tasks = []
    for lead_id, key in leads:
        tasks.append(asyncio.create_task(touch(lead_id, key)))
        await asyncio.sleep(1 / rate)
    return await asyncio.gather(*tasks)


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """Yield the figures in words."""
    yield f"{figures['nurtured']} nurtured leads, a touch each, {figures['rate']:g} a second"
    for name in ("decided_ms", "answered_ms"):
        quantiles = figures[name]
        yield f"{name:12} p50 {quantiles['p50']}  p95 {quantiles['p95']}  p99 {quantiles['p99']}"
    yield f"decided again and exposed: {figures['decided']}"


async def run(leads: int, rate: float) -> dict[str, Any]:
    """Start the marketplace, and measure."""
    async with started_ours() as ours:
        connection = await connect_owner(ours.installation.engines.database_url, "benchmark")
        try:
            waiting = await nurtured(connection, await send_late(ours, leads + WARM_UP))
            await send_touches(ours, waiting[:WARM_UP], rate)
            measured = waiting[WARM_UP:]
            answered = await send_touches(ours, measured, rate)
            await asyncio.sleep(2)
            rows = await connection.fetch(DECIDED, [lead_id for lead_id, _ in measured])
        finally:
            await connection.close()
    return {
        "nurtured": len(measured),
        "rate": rate,
        "decided": len(rows),
        "decided_ms": quantiles_of(row["ms"] for row in rows),
        "answered_ms": quantiles_of(answered),
    }


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=int, default=300)
    parser.add_argument("--rate", type=float, default=20.0, help="touches a second")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures = uvloop.run(run(options.leads, options.rate))
    print("\n".join(lines(figures)))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
