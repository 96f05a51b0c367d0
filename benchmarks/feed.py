"""Measure the delay from the award of a lead to its event in an open feed.

    python benchmarks/feed.py [--leads 500] [--rate 20] [--idle 500] [--json FILE]

Starts embedded engines, the API and a worker as separate processes, and posts inquiries at a steady rate. Each is
awarded to one business that reads its feed, while --idle streams of other businesses are open. The time of the award is
that of its row, which is taken before the decision; the time of the event is when this process has read it. All are by
the clock of one machine. Also reports the delay from the post to the event, and the number of database connections that
the API holds with all streams open.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import uvloop

from marketplace.demo.furnishing import OperatorClient
from marketplace.demo.installation import fresh_directory, running
from marketplace.demo.verticals import home_improvement
from marketplace.feed.streams import MOST_OF_KEY
from marketplace.runtime import clock
from marketplace.runtime.settings import StartError
from routing.subscription import Area, SubscriptionDefinition

QUANTILES = (50, 95, 99)
PRICE_MINOR = 5_000


def inquiry(number: int) -> dict[str, Any]:
    now = clock.now()
    return {
        "vertical": "home",
        "provider_reference": f"b{number}",
        "submitted_at": now,
        "contact": {
            "full_name": "Robin Example",
            "phone": f"+1312{2000000 + number}",
            "email": f"robin.{number}@example.com",
            "postal_code": "60614",
            "country": "US",
        },
        "bant": {
            "budget": {"minor": 1_200_000, "currency": "USD"},
            "authority": "decision_maker",
            "need": {"summary": "leak", "fields": {"service": "roofing", "property_type": "house"}},
            "timing": {"within_days": 14},
        },
        "consent": {"text": "Call me.", "given_at": now, "page_url": "https://example.com/", "ip": "192.0.2.1"},
        "attribution": {"source": "bench"},
    }


async def reader(session: aiohttp.ClientSession, url: str, key: str) -> AsyncIterator[tuple[datetime, Any]]:
    """Yield each event of a stream with the time at which it was read."""
    async with session.get(f"{url}/v1/feed", headers={"Authorization": f"Bearer {key}"}) as reply:
        reply.raise_for_status()
        async for line in reply.content:
            if line.startswith(b"data: "):
                yield clock.now(), msgspec.json.decode(line[6:])


async def business(operator: OperatorClient, name: str) -> tuple[str, str]:
    """Create a business and return its id and a key."""
    made = await operator.call("POST", "/v1/businesses", {"name": name, "zone": "UTC", "currency": "USD"})
    request = {"kind": "business", "owner_id": made["id"], "mode": "live", "name": name}
    return made["id"], (await operator.call("POST", "/v1/keys", request))["key"]


async def furnish(operator: OperatorClient, leads: int) -> tuple[str, str]:
    """Create a business that gets all leads in its feed, and a provider; return their keys."""
    await operator.call("POST", "/v1/verticals", {"slug": "home", "definition": home_improvement()})
    payout = {"type": "fixed", "minor": 100}
    provider = await operator.call("POST", "/v1/providers", {"name": "Bench", "payout": payout})
    request = {"kind": "provider", "owner_id": provider["id"], "mode": "live", "name": "bench"}
    providers = (await operator.call("POST", "/v1/keys", request))["key"]
    owner, key = await business(operator, "Reader")
    endpoint = await operator.call("POST", "/v1/endpoints", {"kind": "feed", "business_id": owner})
    money = {"business_id": owner, "amount_minor": leads * PRICE_MINOR, "currency": "USD", "event_id": "bench"}
    await operator.call("POST", "/v1/top-ups", money)
    definition = SubscriptionDefinition(area=Area(anywhere=True), zone="UTC", price_minor=PRICE_MINOR, currency="USD")
    order = {
        "business_id": owner,
        "mode": "live",
        "vertical": "home",
        "name": "All",
        "endpoint_id": endpoint["id"],
        "definition": definition,
    }
    await operator.call("POST", "/v1/subscriptions", order)
    return key, providers


async def measure(directory: Path, leads: int, rate: float, idle: int) -> dict[str, Any]:
    posted: dict[str, datetime] = {}
    arrivals: dict[str, tuple[datetime, datetime]] = {}
    async with running(directory, {}, 1) as there, contextlib.AsyncExitStack() as stack:
        forever = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
        session = await stack.enter_async_context(forever)
        operator = OperatorClient(session, there.url, there.operator_key)
        key, providers = await furnish(operator, leads)
        for number in range(-(-idle // MOST_OF_KEY)):
            _, other = await business(operator, f"Idle {number}")
            for _ in range(MOST_OF_KEY):
                stack.push_async_callback(_stop, asyncio.create_task(_drain(reader(session, there.url, other))))

        async def follow() -> None:
            async for at, event in reader(session, there.url, key):
                data = event["data"]
                arrivals[data["lead_id"]] = at, datetime.fromisoformat(data["awarded_at"])
                if len(arrivals) == leads:
                    return

        following = asyncio.create_task(follow())
        await asyncio.sleep(2)
        for number in range(leads):
            body, at = msgspec.json.encode(inquiry(number)), clock.now()
            headers = {"Authorization": f"Bearer {providers}", "Content-Type": "application/json"}
            async with session.post(f"{there.url}/v1/inquiries", data=body, headers=headers) as reply:
                posted[(await reply.json())["id"]] = at
            await asyncio.sleep(max(0.0, 1 / rate - (clock.now() - at).total_seconds()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(following, 20)
        connection = await asyncpg.connect(there.engines.database_url)
        held = await connection.fetch(
            "select application_name as name, count(*) as connections from pg_stat_activity "
            "where application_name in ('marketplace_api', 'marketplace_feeder') group by 1 order by 1"
        )
        await connection.close()
    return {
        "leads": leads,
        "seen": len(arrivals),
        "rate": rate,
        "idle_streams": idle,
        "award_to_event_ms": quantiles([at - awarded for at, awarded in arrivals.values()]),
        "post_to_event_ms": quantiles([at - posted[lead] for lead, (at, _) in arrivals.items()]),
        "api_database_connections": {row["name"]: row["connections"] for row in held},
    }


async def _drain(events: AsyncIterator[Any]) -> None:
    async for _ in events:
        pass


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait((task,))


def quantiles(spans: list[timedelta]) -> dict[str, float]:
    ordered = sorted(1000 * span.total_seconds() for span in spans)
    return {f"p{q}": round(ordered[min(len(ordered) - 1, len(ordered) * q // 100)], 1) for q in QUANTILES if ordered}


def main() -> None:
    """Measure once; exit with 1 if a lead did not arrive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=int, default=500, help="leads in all")
    parser.add_argument("--rate", type=float, default=20.0, help="leads a second")
    parser.add_argument("--idle", type=int, default=500, help="streams that have nothing to tell")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="feed-") as place:
        Path(place).chmod(0o755)  # PostgreSQL may run as somebody else
        try:
            with fresh_directory(Path(place)) as directory:
                figures = uvloop.run(measure(directory, options.leads, options.rate, options.idle))
        except StartError as error:
            sys.exit(str(error))
    for name, words in figures.items():
        print(f"{name:26}{words}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if figures["seen"] < figures["leads"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
