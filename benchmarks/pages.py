"""Measure the time and size of each page of the portal with a million stored leads.

    python benchmarks/pages.py [--leads 1000000] [--repeat 30] [--data DIR] [--only TEXT] [--json FILE]

Starts an embedded PostgreSQL and Valkey with a year of generated leads (benchmarks/million.py), stores the reports'
columns by the worker's own refresh, and starts the real `marketplace serve` as a separate process. A user of each kind
signs in by a link and requests every page over one kept-alive connection, as a browser does: each page of the route
table with existing ids, and again with the filters and searches of its forms and with its second page. The business and
the provider are among the largest of the data. Each page is requested twice before it is timed, one request at a time.
A time is from sending the request to the last byte of the answer; a size is that of the page with gzip. With --data the
database remains, and the next run uses it again.

Reports (addresses with /reports, a provider's quality) and pages about a whole year may take 300 ms at the median, all
other pages 50 ms. Exits with 1 if a page takes longer or is above 60 kB, or an address of the route table is missing.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import os
import re
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import asyncpg
import msgspec
import uvloop

from benchmarks.figures import quantile
from benchmarks.million import party, seed, settle
from marketplace.database.db import open_pool, session
from marketplace.database.embedded import Engines, engines
from marketplace.database.migrate import migrate
from marketplace.demo.visitors import LIFETIME
from marketplace.intake.contact import Consent, Contact
from marketplace.portal import flow, store
from marketplace.portal.http import handlers
from marketplace.portal.session import new_token
from marketplace.portal.store import Member, Purpose, Role
from marketplace.reports.grouping import LeadGrouping
from marketplace.reports.refresh import refresh_all
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings, load
from marketplace.security import audit
from marketplace.security.auth import CallerKind
from marketplace.security.sealing import Sealer

MOST_MS = 50.0
REPORT_MS = 300.0
"Limit for reports, and for pages about a whole year."
QUALITY = "/provider/quality"
MOST_BYTES = 60_000
"Limit on the size of a page with gzip. The assets of a first page are about 30 kB more, once."
WARMING = 2
START_SECONDS = 60.0
CONTACTS = 3_000
"Number of the newest leads of the business that have contact data."
HELD = re.compile(r"\{(\w+)(?::\w+)?\}")
NO_PAGES = frozenset({"/live", "/", "/setup", "/sign-in/code", "/sign-in/factor", "/link/{token}", "/account/factor",
                      "/assets/{digest}/{name}", "/spec/{token}", "/spec/{token}/fields.csv",
                      "/spec/{token}/schema.json", "/business/imports/{import_id}",
                      "/operator/compliance/deletions/{request_id}",
                      "/operator/compliance/deletions/{request_id}/proof", "/operator/simulations/{simulation_id}",
                      "/operator/verticals/{slug}/scorecards/{version}"})  # fmt: skip
"Streams, files, steps of signing in or of a first start, pages of one import or request: nothing grows with leads."


NOBODY, TEST = "nobody", "in test"


class World(NamedTuple):
    """Ids in the data, by their names in paths, and some that only filters need."""

    delivered: str
    unsold: str
    returned: str
    business: str
    provider: str
    small: str
    order: str
    endpoint: str
    claim: str
    reference: str
    person: str
    before: Mapping[str, str]


class Asked(NamedTuple):
    """One page to request, by a kind of user."""

    kind: str
    path: str


class Measured(NamedTuple):
    """Result of one page: milliseconds at the median and the 95th percentile, and bytes with gzip."""

    kind: str
    path: str
    p50_ms: float
    p95_ms: float
    bytes: int


def _business_pages(world: World, year: str) -> list[str]:
    return [
        "/business", "/business/leads", "/business/leads?outcome=won", "/business/leads?outcome=none",
        "/business/leads?state=refused", "/business/leads?state=returned",
        f"/business/leads?since={(clock.now() - timedelta(days=200)).date()}",
        f"/business/leads?cursor={world.before['asg']}", f"/business/leads/{world.delivered}",
        f"/business/leads/{world.returned}", "/business/feed", "/business/wallet",
        f"/business/wallet?cursor={world.before['txn']}", "/business/wallet/statement",
        f"/business/wallet/statement?month={clock.now() - timedelta(days=60):%Y-%m}", "/business/reports",
        "/business/reports/roi", f"/business/reports/roi?{year}", "/business/reports/speed",
        "/business/reports/speed?by=channel", f"/business/reports/speed?{year}", "/business/reports/sources",
        f"/business/reports/sources?{year}", "/business/reports/shared-leads",
        "/business/reports/missed", f"/business/reports/missed?{year}", "/business/imports", "/business/matching",
        f"/business/matching/{world.order}", "/business/delivery", "/business/delivery?outcome=refused",
        "/business/delivery?outcome=gone", f"/business/delivery?lead={world.delivered}", "/business/returns",
        "/business/board", f"/business/board?column=new&cursor={world.before['asg']}", "/business/board?q=robin",
        "/business/board?show=stuck", "/business/board/stages", f"/business/leads/{world.delivered}/move",
        f"/business/leads/{world.delivered}/next-action", "/business/customers", "/business/notices",
        "/business/onboarding",
        *(f"/business/onboarding/{step}" for step in ("area", "services", "hours", "delivery", "wallet", "company")),
    ]  # fmt: skip


def _provider_pages(world: World, year: str) -> list[str]:
    return [
        "/provider", f"/provider?{year}", "/provider/submissions",
        f"/provider/submissions?cursor={world.before['lead']}",
        "/provider/submissions?state=returned", f"/provider/submissions?state=unsold&{year}",
        "/provider/submissions?why=closed", f"/provider/submissions?reference={world.reference}",
        "/provider/submissions?reference=never",
        f"/provider/submissions?person={world.person}", f"/provider/submissions/{world.delivered}", "/provider/quality",
        "/provider/waiting", "/provider/waiting?waits_for=date", "/provider/waiting?waits_for=points",
        f"/provider/quality?{year}", "/provider/earnings", f"/provider/earnings?cursor={world.before['txn']}",
        "/provider/earnings/statement", "/provider/start", "/provider/spec", "/provider/console", "/provider/keys",
    ]  # fmt: skip


def _operator_pages(world: World, year: str) -> list[str]:
    reports = ("routing", "journey", "nurturing", "unsold", "speed", "roi", "quality", "money")
    return [
        "/operator", "/operator/routing", f"/operator/routing?lead={world.reference}",
        f"/operator/routing/{world.delivered}", f"/operator/routing/{world.unsold}",
        f"/operator/routing/{world.delivered}?rules=then", f"/operator/routing/{world.delivered}?rules=today",
        "/operator/unroutable", "/operator/unroutable?why=closed", "/operator/unroutable?today=1", "/operator/returns",
        "/operator/returns?state=granted", "/operator/returns?state=denied&reason=duplicate",
        f"/operator/returns/{world.claim}", "/operator/leads", f"/operator/leads?{year}",
        "/operator/leads?stopped=qualified&why=closed", "/operator/reports",
        *(f"/operator/reports/{name}" for name in reports), "/operator/reports/speed?by=business",
        *(f"/operator/reports/{name}?{year}&by={by}" for name in ("journey", "nurturing") for by in LeadGrouping),
        f"/operator/leads?{year}&lane=entered", f"/operator/leads?{year}&lane=sold", "/operator/waiting",
        "/operator/waiting?waits_for=date", "/operator/waiting?waits_for=points", "/operator/people",
        "/operator/compliance/certificates", "/operator/compliance/deletions", "/operator/compliance/lists",
        "/operator/compliance/notices",
        f"/operator/reports/roi?business_id={world.business}",
        "/operator/businesses", "/operator/businesses?name=17", f"/operator/businesses/{world.business}",
        "/operator/providers", f"/operator/providers/{world.provider}", "/operator/wallets", "/operator/wallets/ledger",
        "/operator/wallets/ledger?kind=claw_back", "/operator/wallets/ledger?kind=withdrawal",
        "/operator/wallets/ledger?kind=top_up", f"/operator/wallets/ledger?business={world.small}",
        f"/operator/wallets/ledger?kind=refund&business={world.small}",
        f"/operator/wallets/ledger?kind=claw_back&provider={world.provider}",
        f"/operator/wallets/ledger?lead={world.delivered}", f"/operator/wallets/ledger?cursor={world.before['txn']}",
        "/operator/verticals", "/operator/verticals/market-1", "/operator/verticals/market-1/what-if",
        "/operator/verticals/market-1/scorecards", "/operator/deliveries/suspended",
        "/operator/deliveries", "/operator/deliveries/attempts",
        "/operator/deliveries/attempts?outcome=refused", "/operator/deliveries/attempts?outcome=gone",
        f"/operator/deliveries/attempts?business={world.small}",
        f"/operator/deliveries/attempts?business={world.small}&outcome=gone",
        f"/operator/deliveries/attempts?lead={world.delivered}",
        f"/operator/deliveries/attempts?cursor={world.before['att']}", "/operator/deliveries/dead",
        "/operator/compliance", "/operator/compliance/erasures", "/operator/compliance/reveals", "/operator/audit",
        "/operator/audit?action=key.revoke", "/operator/audit?action=never",
        f"/operator/audit?object={world.small}", "/operator/audit?actor=command+line&action=key.revoke",
        f"/operator/audit?{year}&action=key.revoke", "/operator/system", "/operator/system/doctor",
        "/operator/going-live", f"/operator/accounts/{world.business}/team",
    ]  # fmt: skip


def pages(world: World) -> list[Asked]:
    """Return every page, and again each page with filters that lead to another query."""
    year = f"from={(clock.now() - timedelta(days=364)).date()}&to={clock.now().date()}"
    everybody = ("/account/access", "/account/team", "/account/profile", "/account/activity")
    own = {
        CallerKind.business: _business_pages(world, year),
        CallerKind.provider: _provider_pages(world, year),
        CallerKind.operator: _operator_pages(world, year),
    }
    results = [Asked(kind, path) for kind, paths in own.items() for path in (*paths, *everybody)]
    rehearsing = {
        CallerKind.business: (
            "", "/leads", "/leads?outcome=won", "/delivery", "/delivery?outcome=gone", "/returns", "/reports/speed",
        ),
        CallerKind.provider: ("", "/submissions", "/submissions?state=returned", "/quality"),
        CallerKind.operator: ("/unroutable", "/leads", "/deliveries/dead", "/reports"),
    }  # fmt: skip
    results += [Asked(f"{kind} {TEST}", f"/{kind}{path}") for kind, paths in rehearsing.items() for path in paths]
    return [*results, Asked(NOBODY, "/sign-in")]


def limit_of(path: str) -> float:
    address, _, query = path.partition("?")
    return REPORT_MS if "/reports" in address or address == QUALITY or "from=" in query else MOST_MS


def forgotten(requests: Sequence[Asked]) -> list[str]:
    """Return the addresses of the route table without a page."""
    paths = {page.path.partition("?")[0] for page in requests}
    missing = []
    for router in handlers:
        for route in router.routes:
            if "GET" not in getattr(route, "methods", ()):
                continue
            name = HELD.sub(r"{\1}", route.path)
            shape = re.compile(HELD.sub("[^/]+", route.path))
            if name not in NO_PAGES and not any(shape.fullmatch(path) for path in paths):
                missing.append(name)
    return sorted(missing)


async def furnish(settings: Settings, url: str) -> World:
    """Write contact data of the business's newest leads, and return ids for the pages."""
    business, provider = party("business", 1), party("provider", 1)
    connection = await asyncpg.connect(url, server_settings={"session_replication_role": "replica"})
    try:
        await seal_contacts(connection, Sealer(settings.master_key, settings.pepper), business)

        async def one(sql: str, *values: object) -> Any:
            return await connection.fetchval(sql, *values)

        def lead(state: str) -> Any:
            return one(
                "select a.lead_id from assignment a where a.business_id = $1 and a.provider_id = $2 and a.state = $3 "
                "order by a.id desc limit 1",
                business,
                provider,
                state,
            )

        delivered = await lead("delivered")
        return World(
            delivered=ids.encode("lead", delivered),
            returned=ids.encode("lead", await lead("returned")),
            unsold=ids.encode("lead", await one("select id from lead where state = 'unsold' order by id desc limit 1")),
            business=ids.encode("biz", business),
            provider=ids.encode("prov", provider),
            small=ids.encode("biz", party("business", 200)),
            order=ids.encode("sub", party("subscription", 1)),
            endpoint=ids.encode("ep", party("endpoint", 1)),
            claim=ids.encode("ret", await one("select id from return_request order by state desc, id limit 1")),
            reference=await one("select provider_reference from inquiry where id = $1", delivered),
            person=await one("select encode(key, 'hex') from person_key where lead_id = $1", delivered),
            before={
                kind: ids.encode(kind, await one(f"select id from {table} order by id desc limit 1 offset 1000"))
                for kind, table in (("asg", "assignment"), ("txn", "transfer"), ("lead", "lead"), ("att", "attempt"))
            },
        )
    finally:
        await connection.close()


async def seal_contacts(connection: Any, sealer: Sealer, business: Any) -> None:
    """Write generated contact data, encrypted as the service does. Existing data stays."""
    leads = await connection.fetch(
        "select lead_id from assignment where business_id = $1 and live order by id desc limit $2", business, CONTACTS
    )
    person = Contact(
        full_name="Robin Example",
        phone="+13125550143",
        email="robin@example.com",
        postal_code="60614",
        country="US",
        consent=Consent(text="Call me.", given_at=clock.now(), page_url="https://example.com/"),
    )
    boxes = [(row["lead_id"], sealer.seal_contact(row["lead_id"], msgspec.json.encode(person))) for row in leads]
    await connection.executemany(
        "insert into contact (lead_id, sealed) values ($1, $2) on conflict do nothing",
        [(lead_id, box.box) for lead_id, box in boxes],
    )
    await connection.executemany(
        "insert into data_key (lead_id, wrapped, master_key_id) values ($1, $2, $3) on conflict do nothing",
        [(lead_id, box.wrapped, box.master_key_id) for lead_id, box in boxes],
    )


async def let_in(url: str, names: Sequence[str]) -> dict[str, str]:
    """Create a member of each kind and return a sign-in link for each."""
    owners = {
        CallerKind.business: party("business", 1),
        CallerKind.provider: party("provider", 1),
        CallerKind.operator: None,
    }
    links = {}
    pool = await open_pool(url, "marketplace_api", size=1)
    async with pool:
        for name in names:
            kind = CallerKind(name.partition(" ")[0])
            member = Member(
                id=clock.new_id(),
                kind=kind,
                owner_id=owners[kind],
                email=f"{clock.new_id().hex}@example.com",
                name=f"Robin {kind.capitalize()}",
                role=Role.owner,
                state="active",
                zone="America/Chicago",
                has_password=False,
                has_factor=False,
                created_at=clock.now(),
            )
            async with session(pool) as connection:
                await store.insert_member(connection, member, None)
            links[name] = await flow.link_for(pool, audit.COMMAND_LINE, member, Purpose.enter, LIFETIME)
    return links


@asynccontextmanager
async def served(place: Path) -> AsyncIterator[str]:
    """Start `marketplace serve` and yield its address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "MARKETPLACE_DATA": str(place),
        "MARKETPLACE_PORT": str(port),
        "MARKETPLACE_OPS_ADDRESS": "127.0.0.1:0",
        "MARKETPLACE_PUBLIC_URL": url,
    }
    with (place / "serve.log").open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "marketplace.cli", "serve", env=environment, stdout=output, stderr=output
        )
    try:
        async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as client:
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with client.get(f"{url}/sign-in") as reply:
                        if reply.ok:
                            break
                await asyncio.sleep(0.2)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def get(client: aiohttp.ClientSession, url: str) -> tuple[float, int]:
    """Return the milliseconds and bytes of one page. Raises RuntimeError if the answer is not a page."""
    began = clock.monotonic()
    async with client.get(url, allow_redirects=False) as reply:
        body = await reply.read()
        took = 1000 * (clock.monotonic() - began)
        if reply.status != 200 and (reply.status != 303 or "sign-in" in reply.headers["Location"]):
            raise RuntimeError(f"{url} gave {reply.status}: {body[:2000]!r}")
        packed = "gzip" in reply.headers.get("Content-Encoding", "")
    return took, len(body) if packed else len(gzip.compress(body, 6))


async def come_in(client: aiohttp.ClientSession, url: str, name: str, link: str) -> None:
    """Sign in by a link, and switch to test leads if the name says so."""
    async with client.post(f"{url}/link/{link}", data={"use": "1"}) as reply:
        reply.raise_for_status()
    if name.endswith(TEST):
        [secret] = [cookie.value for cookie in client.cookie_jar if cookie.key.endswith("session")]
        async with client.post(f"{url}/account/mode", data={"mode": "test", "csrf": new_token(secret)}) as reply:
            reply.raise_for_status()


async def measure(url: str, links: Mapping[str, str], requests: Sequence[Asked], repeat: int) -> list[Measured]:
    """Measure every page, one request at a time."""
    results = []
    async with contextlib.AsyncExitStack() as stack:
        clients = {}
        for name in (NOBODY, *links):
            jar = aiohttp.CookieJar(unsafe=True)  # cookies of an address that is no name
            clients[name] = await stack.enter_async_context(
                aiohttp.ClientSession(cookie_jar=jar, auto_decompress=False, headers={"Accept-Encoding": "gzip"})
            )
            if name in links:
                await come_in(clients[name], url, name, links[name])
        for page in requests:
            try:
                for _ in range(WARMING):
                    await get(clients[page.kind], url + page.path)
                taken = [await get(clients[page.kind], url + page.path) for _ in range(repeat)]
            except RuntimeError as error:
                print(error, file=sys.stderr)
                continue
            times = sorted(took for took, _ in taken)
            results.append(
                Measured(
                    page.kind,
                    page.path,
                    round(quantile(times, 0.5), 1),
                    round(quantile(times, 0.95), 1),
                    max(weight for _, weight in taken),
                )
            )
    return results


async def run(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    settings = load({"MARKETPLACE_DATA": str(place), "PATH": os.environ["PATH"]})
    async with engines(settings) as running:
        await prepare(running, options.leads)
        world = await furnish(settings, running.database_url)
        requests = [page for page in pages(world) if options.only in f"{page.kind} {page.path} "]
        links = await let_in(running.database_url, sorted({page.kind for page in requests} - {NOBODY}))
        async with served(place) as url:
            results = await measure(url, links, requests, options.repeat)
    results.sort(key=lambda page: -page.p50_ms)
    return {
        "leads": options.leads,
        "repeat": options.repeat,
        "pages": [page._asdict() for page in results],
        "failed": len(requests) - len(results),
        "forgotten": forgotten(pages(world)),
    }


async def prepare(running: Engines, leads: int) -> None:
    await migrate(running.database_url)
    await seed(running.database_url, leads, clock.now())
    worker = await open_pool(running.database_url, "marketplace_worker", size=2)
    async with worker:
        await refresh_all(worker, clock.now())
        await settle(worker)


def tell(figures: dict[str, Any]) -> bool:
    """Print the pages, the slowest first, and return whether all are within their limits."""
    slow = {MOST_MS: 0, REPORT_MS: 0}
    heavy = 0
    for page in figures["pages"]:
        limit = limit_of(page["path"])
        late, large = page["p50_ms"] > limit, page["bytes"] > MOST_BYTES
        slow[limit] += late
        heavy += large
        wrong = " over" if late or large else ""
        print(
            f"{page['kind']:17}{page['path'][:92]:94} p50 {page['p50_ms']:7.1f} ms  p95 {page['p95_ms']:7.1f} ms "
            f"{page['bytes']:7,} B{wrong}"
        )
    for path in figures["forgotten"]:
        print(f"not asked for: {path}")
    print(
        f"{len(figures['pages'])} pages with {figures['leads']:,} leads: {slow[MOST_MS]} above {MOST_MS:.0f} ms at the "
        f"median, {slow[REPORT_MS]} reports above {REPORT_MS:.0f}, {heavy} above {MOST_BYTES:,} bytes, "
        f"{figures['failed']} failed, {len(figures['forgotten'])} forgotten"
    )
    return not (any(slow.values()) or heavy or figures["failed"] or figures["forgotten"])


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--only", default="", help="pages whose kind and path hold this")
    parser.add_argument("--data", type=Path, help="keep the database here; otherwise it is thrown away")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        place = options.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pages-")))
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o755)  # PostgreSQL may run as somebody else
        figures = uvloop.run(run(place, options))
    passed = tell(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
