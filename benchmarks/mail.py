"""Measure the delay from the award of a lead to the answer 250 of the mail server, for both modes of e-mail.

    python benchmarks/mail.py [--mode full] [--leads 100] [--rate 5] [--json FILE]

Starts embedded engines, the API and a worker as separate processes, and a mail server (aiosmtpd) in this one. Inquiries
are posted at a steady rate; each is awarded to one business that receives e-mail. The time of the award is that of its
row, which is taken before the decision; the time of the answer is when the mail server has read the whole message and
gives 250. All are by the clock of one machine.
"""

import argparse
import asyncio
import json
import os
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
from aiosmtpd.smtp import SMTP, Envelope, Session

from benchmarks.feed import PRICE_MINOR, inquiry, quantiles
from marketplace.demo.furnishing import OperatorClient
from marketplace.demo.installation import free_ports, fresh_directory, running
from marketplace.demo.verticals import home_improvement
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import StartError
from routing.subscription import Area, SubscriptionDefinition

ADDRESS: Final = "owner@roofs.example.com"
ASSIGNMENT: Final = re.compile(rb"asg_[0-9a-z]{26}")
CONFIRMATION: Final = re.compile(r"/mail/confirm/[a-z2-7]+")
LAST_SECONDS: Final = 5.0
"Time after the last inquiry in which messages still arrive."


class MailServerProbe:
    """Mail server that notes when it answered each message, by the assignment that the message names."""

    def __init__(self) -> None:
        self.stored: dict[str, datetime] = {}
        self.confirmation: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Note the message; its lines are joined, because quoted-printable text is broken at 76 characters."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        joined = content.replace(b"=\r\n", b"")
        if (link := CONFIRMATION.search(joined.decode("ascii", "replace"))) and not self.confirmation.done():
            self.confirmation.set_result(link[0])
        elif assignment := ASSIGNMENT.search(joined):
            self.stored.setdefault(assignment[0].decode(), clock.now())
        return "250 stored"


async def furnish(
    operator: OperatorClient, client: aiohttp.ClientSession, url: str, probe: MailServerProbe, mode: str, leads: int
) -> str:
    """Create a provider, and a business that receives all leads by e-mail; return the provider's key."""
    await operator.call("POST", "/v1/verticals", {"slug": "home", "definition": home_improvement()})
    payout = {"type": "fixed", "minor": 100}
    provider = await operator.call("POST", "/v1/providers", {"name": "Bench", "payout": payout})
    request = {"kind": "provider", "owner_id": provider["id"], "mode": "live", "name": "bench"}
    key: str = (await operator.call("POST", "/v1/keys", request))["key"]
    business = {"name": "Mail", "zone": "UTC", "currency": "USD"}
    owner = (await operator.call("POST", "/v1/businesses", business))["id"]
    mail = {"kind": "email", "address": ADDRESS, "mode": mode, "business_id": owner}
    endpoint = await operator.call("POST", "/v1/endpoints", mail)
    async with asyncio.timeout(30), client.post(f"{url}{await probe.confirmation}") as reply:
        reply.raise_for_status()
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
    return key


async def measure(directory: Path, mode: str, leads: int, rate: float) -> dict[str, Any]:
    """Start the marketplace, post the inquiries, and return the figures."""
    loop, [port] = asyncio.get_running_loop(), free_ports(0, 1)
    probe = MailServerProbe()
    server = await loop.create_server(lambda: SMTP(probe, hostname="mail.example", loop=loop), "127.0.0.1", port)
    os.environ |= {"SMTP_URL": f"smtp://127.0.0.1:{port}", "MARKETPLACE_MAIL_FROM": "leads@leads.example.com"}
    async with running(directory, {}, 1) as there, aiohttp.ClientSession() as client:
        operator = OperatorClient(client, there.url, there.operator_key)
        key = await furnish(operator, client, there.url, probe, mode, leads)
        for number in range(leads):
            body, at = msgspec.json.encode(inquiry(number)), clock.now()
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            async with client.post(f"{there.url}/v1/inquiries", data=body, headers=headers) as reply:
                reply.raise_for_status()
            await asyncio.sleep(max(0.0, 1 / rate - (clock.now() - at).total_seconds()))
        await asyncio.sleep(LAST_SECONDS)
        connection = await asyncpg.connect(there.engines.database_url)
        rows = await connection.fetch("select id, awarded_at, state from assignment")
        await connection.close()
    server.close()
    awarded = {ids.encode("asg", row["id"]): row["awarded_at"] for row in rows}
    delays = [at - awarded[assignment] for assignment, at in probe.stored.items()]
    return {
        "mode": mode,
        "leads": leads,
        "rate": rate,
        "messages": len(probe.stored),
        "delivered": sum(row["state"] == "delivered" for row in rows),
        "award_to_250_ms": quantiles(delays),
    }


def main() -> None:
    """Measure once; exit with 1 if a message is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("full", "link"), default="full", help="content of the messages")
    parser.add_argument("--leads", type=int, default=100, help="leads in all")
    parser.add_argument("--rate", type=float, default=5.0, help="leads a second")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mail-") as place:
        Path(place).chmod(0o755)  # PostgreSQL may run as somebody else
        try:
            with fresh_directory(Path(place)) as directory:
                figures = uvloop.run(measure(directory, options.mode, options.leads, options.rate))
        except StartError as error:
            sys.exit(str(error))
    for name, figure in figures.items():
        print(f"{name:26}{figure}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if figures["messages"] < figures["leads"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
