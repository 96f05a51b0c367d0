"""Measure the delay from the award of a lead to its card in an open inbox, and from the tap to the redirect.

    python -m benchmarks.inbox [--leads 100] [--rate 2] [--json FILE]

Starts embedded engines, the API and a worker as separate processes, and posts inquiries at a steady rate. Each is
awarded to one business, one of whose members has the inbox open: its stream of live parts is read as a browser reads
it, and each new card is taken at once by the form that it holds. The time of the award is that of its row, which is
taken before the decision; the time of the card is when this process has read it. All are by the clock of one machine.
"""

import argparse
import asyncio
import contextlib
import json
import re
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import msgspec
import uvloop

from benchmarks.feed import PRICE_MINOR, inquiry, quantiles
from marketplace.database.db import open_pool, session
from marketplace.demo.furnishing import OperatorClient
from marketplace.demo.installation import Installation, fresh_directory, running
from marketplace.demo.verticals import home_improvement
from marketplace.portal import session as portal_session
from marketplace.portal import store as portal_store
from marketplace.portal.store import Member, Role, SessionState
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import StartError
from marketplace.security.auth import CallerKind
from routing.subscription import Area, SubscriptionDefinition

KEY: Final = re.compile(r'data-key="(/business/inbox/(asg_\w+))"')
TOKEN: Final = re.compile(r'name="csrf" value="([^"]+)"')


async def furnish(operator: OperatorClient, leads: int) -> tuple[str, str]:
    """Create a provider, and a business that gets all leads in its inbox; return the business's id, the other's key."""
    await operator.call("POST", "/v1/verticals", {"slug": "home", "definition": home_improvement()})
    payout = {"type": "fixed", "minor": 100}
    provider = await operator.call("POST", "/v1/providers", {"name": "Bench", "payout": payout})
    request = {"kind": "provider", "owner_id": provider["id"], "mode": "live", "name": "bench"}
    providers_key = (await operator.call("POST", "/v1/keys", request))["key"]
    made = await operator.call("POST", "/v1/businesses", {"name": "Inbox", "zone": "UTC", "currency": "USD"})
    owner = made["id"]
    endpoint = await operator.call("POST", "/v1/endpoints", {"kind": "inbox", "business_id": owner})
    money = {"business_id": owner, "amount_minor": leads * PRICE_MINOR, "currency": "USD", "event_id": "bench"}
    await operator.call("POST", "/v1/top-ups", money)
    definition = SubscriptionDefinition(area=Area(anywhere=True), zone="UTC", price_minor=PRICE_MINOR, currency="USD")
    subscription = {
        "business_id": owner,
        "mode": "live",
        "vertical": "home",
        "name": "All",
        "endpoint_id": endpoint["id"],
        "definition": definition,
    }
    await operator.call("POST", "/v1/subscriptions", subscription)
    return owner, providers_key


async def sign_in(there: Installation, owner: str) -> str:
    """Return the cookie of a new member of the business."""
    member = Member(
        id=clock.new_id(),
        kind=CallerKind.business,
        owner_id=ids.decode("biz", owner),
        email="bench@example.com",
        name="Robin Example",
        role=Role.member,
        state="active",
        zone=None,
        has_password=False,
        has_factor=False,
        created_at=clock.now(),
    )
    pool = await open_pool(there.engines.database_url, "marketplace_api", size=1)
    async with pool, session(pool) as connection:
        await portal_store.insert_member(connection, member, None)
        secret = await portal_session.begin(connection, member.id, SessionState.open, "a benchmark")
    return f"{portal_session.cookie_name(there.settings)}={secret}"


class OpenInbox:
    """An open inbox page: when each card was read, and how long taking it took."""

    def __init__(self, client: aiohttp.ClientSession, url: str, cookie: str) -> None:
        self._client, self._url, self._headers = client, url, {"cookie": cookie}
        self.seen: dict[str, datetime] = {}
        self.taken_ms: list[float] = []
        self._taking: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        """Read the live part of the inbox, and take each new card."""
        address = f"{self._url}/live?parts=business.inbox"
        part = ""
        async with self._client.get(address, headers=self._headers) as reply:
            reply.raise_for_status()
            async for line in reply.content:
                if line.startswith(b"data: "):
                    part += line[6:].decode()
                elif line == b"\n":
                    self._read(part, clock.now())
                    part = ""

    def _read(self, part: str, at: datetime) -> None:
        token = TOKEN.search(part)
        for path, assignment in KEY.findall(part):
            if assignment not in self.seen and token is not None:
                self.seen[assignment] = at
                task = asyncio.create_task(self._take(path, token[1]))
                self._taking.add(task)
                task.add_done_callback(self._taking.discard)

    async def _take(self, path: str, token: str) -> None:
        began = clock.monotonic()
        form = {"csrf": token}
        address = f"{self._url}{path}/take"
        async with self._client.post(address, data=form, headers=self._headers, allow_redirects=False) as reply:
            assert reply.status == 303, await reply.text()
        self.taken_ms.append(1000 * (clock.monotonic() - began))


AWARDS: Final = "select id, awarded_at, state from assignment"


async def measure(directory: Path, leads: int, rate: float) -> dict[str, Any]:
    """Start the marketplace, post the inquiries, and return the figures."""
    forever = aiohttp.ClientTimeout(total=None)
    async with running(directory, {}, 1) as there, aiohttp.ClientSession(timeout=forever) as client:
        operator = OperatorClient(client, there.url, there.operator_key)
        owner, key = await furnish(operator, leads)
        inbox = OpenInbox(client, there.url, await sign_in(there, owner))
        following = asyncio.create_task(inbox.follow())
        await asyncio.sleep(2)
        for number in range(leads):
            body, at = msgspec.json.encode(inquiry(number)), clock.now()
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            async with client.post(f"{there.url}/v1/inquiries", data=body, headers=headers) as reply:
                reply.raise_for_status()
            await asyncio.sleep(max(0.0, 1 / rate - (clock.now() - at).total_seconds()))
        await asyncio.sleep(2)
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        connection = await asyncpg.connect(there.engines.database_url)
        rows = await connection.fetch(AWARDS)
        await connection.close()
    awarded = {ids.encode("asg", row["id"]): row["awarded_at"] for row in rows}
    taken = sorted(inbox.taken_ms)
    return {
        "leads": leads,
        "rate": rate,
        "cards": len(inbox.seen),
        "delivered": sum(row["state"] == "delivered" for row in rows),
        "award_to_card_ms": quantiles([at - awarded[assignment] for assignment, at in inbox.seen.items()]),
        "tap_to_redirect_ms": {f"p{q}": round(taken[min(len(taken) - 1, len(taken) * q // 100)], 1) for q in (50, 95)},
    }


def main() -> None:
    """Measure once; exit with 1 if a lead was not taken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=int, default=100, help="leads in all")
    parser.add_argument("--rate", type=float, default=2.0, help="leads a second")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inbox-") as place:
        Path(place).chmod(0o755)  # PostgreSQL may run as somebody else
        try:
            with fresh_directory(Path(place)) as directory:
                figures = uvloop.run(measure(directory, options.leads, options.rate))
        except StartError as error:
            sys.exit(str(error))
    for name, figure in figures.items():
        print(f"{name:26}{figure}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if figures["delivered"] < figures["leads"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
