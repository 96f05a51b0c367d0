"""The checker: looks for broken promises while faults run and when all is at rest.

Judged from outside first, by what businesses were sent and what providers were promised; then from the tables, by the
product's own `verify`, which recomputes every promise from scratch.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import aiohttp
import msgspec

from marketplace.operations import verify
from marketplace.runtime import clock, ids
from tests.harness.feed_checks import FeedChecks
from tests.harness.kinds_of_faults import AWAY
from tests.harness.receivers import ACKNOWLEDGING, UNREADABLE
from tests.harness.rights import RightsTraffic
from tests.harness.traffic import Traffic
from tests.harness.world import World

LOOK_SECONDS: Final = 5.0
VERIFY_SHARE: Final = 4
"""Verify may take up to a fifth of the time: after each, so many times its own length goes by without one."""
OVERLAP: Final = 4_096
"""Bytes of a file that are read again, so that nothing hides across two looks."""
SETTLE_SECONDS: Final = 75.0
"""Longer than a lease and a first retry, after which nothing may be on its way without a time to be looked at."""
BATCH: Final = 5_000
FEW: Final = 20
_KEY: Final = re.compile(rb"(?:whsec_|lk_(?:live|test)_)[A-Za-z0-9+/=_-]+")
"""How signing secrets and keys of callers begin."""

MOVING = """
select (select count(*) from lead where state in ('received', 'prospect', 'held') and coalesce(due_at, now()) <= now())
     + (select count(*) from assignment where state in ('held', 'exposed') and due_at <= now()) as moving"""
STRANDED = """
select l.id, l.state, l.due_at as lead_due_at, a.state as claim, a.due_at, a.evidence_until
from lead l left join assignment a on a.lead_id = l.id and a.state <> 'released'
where (l.state in ('received', 'prospect', 'nurturing') and coalesce(l.due_at, '-infinity') <= now() - interval '5 s')
   or (l.state in ('held', 'exposed') and coalesce(a.due_at, '-infinity') <= now() - interval '5 s')"""
EXPOSURES = """
select lead_id, business_id, pg_xact_commit_timestamp(xmin) as committed_at from exposure where lead_id = any($1)"""
CHARGED = """
select a.lead_id from transfer t join assignment a on a.id = t.assignment_id
where t.kind = 'capture' and a.evidence = 'answer'"""
KEPT_TOUCHES = "select touch_id as name from touch where touch_id = any($1)"
KEPT_CORRECTIONS = "select idempotency_key as name from correction where idempotency_key = any($1)"
TABLES = """
select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'public' and c.relkind = 'r' and c.relname not in ('contact', 'data_key')"""


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One broken promise: which, about whom, and what was seen instead."""

    check: str
    detail: str
    at: datetime
    number: int | None = None
    lead_id: str | None = None


class Checker:
    """Looks again and again. `checked` counts what each check examined, `skipped` the looks that an engine's absence
    made impossible."""

    def __init__(self, world: World, traffic: Traffic, rights: RightsTraffic) -> None:
        self.violations: list[Violation] = []
        self.checked: Counter[str] = Counter()
        self.skipped = 0
        self.verifications = 0
        self.found = asyncio.Event()
        self._world, self._traffic, self._rights = world, traffic, rights
        self._feeds = FeedChecks(world, self.checked, self.report)
        self._known: set[tuple[str, str]] = set()
        self._looked_at = self._matched = self._acknowledged = 0
        self._businesses: dict[int, set[str]] = {}
        self._leads: dict[int, set[str]] = {}
        self._webhooks: dict[int, set[str]] = {}
        self._offsets: dict[Path, int] = {}
        self._verify_at = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Look every few seconds until `stopping`."""
        while not stopping.is_set():
            await self.look()
            try:
                await asyncio.wait_for(stopping.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Every check that makes sense while things move."""
        self.look_at_sightings()
        self.look_at_answers()
        self._feeds.look_at_complaints()
        await asyncio.to_thread(self.look_at_files)
        try:
            await self.look_at_exposures()
            await self.look_at_acknowledged()
            await self._feeds.look_at_money(whole=False)
            await self._look_at_metrics()
            if clock.monotonic() >= self._verify_at:
                await self.look_at_tables()
        except AWAY:
            self.skipped += 1

    async def settle(self) -> float:
        """Wait until nothing is on its way, within bounds; the seconds that took."""
        began = clock.monotonic()
        while clock.monotonic() - began < SETTLE_SECONDS:
            if (await self._world.values(MOVING))[0]["moving"] == 0:
                break
            await asyncio.sleep(0.5)
        return clock.monotonic() - began

    async def look_at_rest(self) -> None:
        """Every check there is, the whole history included. Raises asyncpg's errors: now nothing may be away."""
        await self._feeds.look_at_feeds()
        self._feeds.look_at_complaints()
        await self._feeds.look_at_money(whole=True)
        self.look_at_sightings()
        self.look_at_answers()
        await asyncio.to_thread(self.look_at_files)
        self._matched = self._acknowledged = 0
        await self.look_at_exposures()
        await self.look_at_acknowledged()
        await self._look_at_refused()
        await self._look_at_journeys()
        await self._look_at_listed()
        await self._look_at_revoked()
        await self._look_at_charged()
        await self._look_at_stranded()
        await self._look_at_metrics()
        await self._look_at_dump()
        await self.look_at_tables()

    # --- from outside ---------------------------------------------------------------------------------------------

    def look_at_sightings(self) -> None:
        """One person, one business, one lead, one webhook id."""
        new = self._world.sightings[self._looked_at :]
        self._looked_at += len(new)
        for sighting in new:
            number = sighting.number
            for held, value, check in (
                (self._businesses, sighting.business, "seen by one business"),
                (self._leads, sighting.lead_id, "sold once"),
                (self._webhooks, sighting.webhook_id, "sent under one webhook id"),
            ):
                values = held.setdefault(number, set())
                self.checked[check] += 1
                if value == UNREADABLE:
                    continue
                values.add(value)
                if len(values) > 1:
                    self.report(check, ", ".join(sorted(values)), number=number, lead_id=sighting.lead_id)

    def look_at_answers(self) -> None:
        """One key, one id, whichever process answers and however often."""
        self.checked["one answer per key"] = len(self._traffic.acknowledged)
        for key, first, second in self._traffic.changed:
            detail = f"key {key} was answered with {first} and {second}"
            self.report("one answer per key", detail, number=self._traffic.numbers[key], lead_id=first)
        failures = self._traffic.statuses[500]
        self.checked["no internal error"] = sum(self._traffic.statuses.values())
        if failures:
            self.report("no internal error", "providers were answered 500")

    async def look_at_exposures(self) -> None:
        """Check that each lead seen by a business had a committed exposure to it before."""
        new = self._world.sightings[self._matched :]
        ids_of = {shop.slug: _uuid(shop.business_id) for shop in self._world.shops}
        for batch in _batches([sighting for sighting in new if sighting.lead_id.startswith("lead_")]):
            rows = await self._world.values(EXPOSURES, list({_uuid(sighting.lead_id) for sighting in batch}))
            committed = {(row["lead_id"], row["business_id"]): row["committed_at"] for row in rows}
            for sighting in batch:
                self.checked["exposed before it was seen"] += 1
                at = committed.get((_uuid(sighting.lead_id), ids_of[sighting.business]))
                if at is None or at > sighting.at:
                    detail = f"seen at {sighting.business} {sighting.at:%H:%M:%S.%f}, exposure committed: {at}"
                    self.report("exposed before it was seen", detail, sighting.number, sighting.lead_id)
        self._matched += len(new)

    async def look_at_acknowledged(self) -> None:
        """Check that every acknowledged inquiry is stored."""
        answers = list(self._traffic.acknowledged.items())[self._acknowledged :]
        for batch in _batches(answers):
            wanted = {_uuid(answer.lead_id): (key, answer) for key, answer in batch}
            rows = await self._world.values("select id from lead where id = any($1)", list(wanted))
            self.checked["acknowledged is kept"] += len(wanted)
            for lead_id in wanted.keys() - {row["id"] for row in rows}:
                key, answer = wanted[lead_id]
                detail = f"key {key}, acknowledged at {answer.at}, is not there"
                self.report("acknowledged is kept", detail, self._traffic.numbers[key], answer.lead_id)
        self._acknowledged += len(answers)

    async def _look_at_refused(self) -> None:
        """Check that no refused inquiry is stored, and that every submission has an answer."""
        keys = list(self._traffic.refused)
        self.checked["refused is not taken"] = len(keys)
        rows = await self._world.values("select id, idempotency_key from inquiry where idempotency_key = any($1)", keys)
        for row in rows:
            self.report(
                "refused is not taken", f"key {row['idempotency_key']} was refused, and is there as {row['id']}"
            )
        answered = self._traffic.acknowledged.keys() | self._traffic.refused.keys()
        self.checked["everybody is answered"] = len(self._traffic.numbers)
        for key in self._traffic.numbers.keys() - answered:
            self.report("everybody is answered", f"key {key} never was", number=self._traffic.numbers[key])

    async def _look_at_journeys(self) -> None:
        """Check that every acknowledged touch and correction is stored, once."""
        traffic = self._traffic
        for check, acknowledged, sql in (
            ("touch is kept once", traffic.touched, KEPT_TOUCHES),
            ("correction is kept once", traffic.corrected, KEPT_CORRECTIONS),
        ):
            self.checked[check] = len(acknowledged)
            kept = Counter(row["name"] for row in await self._world.values(sql, list(acknowledged)))
            for name, lead_id in acknowledged.items():
                if kept[name] != 1:
                    self.report(check, f"{name} is there {kept[name]} times", lead_id=lead_id)

    async def _look_at_listed(self) -> None:
        """Check that nobody was exposed who was on a list before their inquiry."""
        leads = {
            _uuid(answer.lead_id): self._traffic.numbers[key]
            for key, answer in self._traffic.acknowledged.items()
            if self._traffic.numbers[key] in self._rights.listed
        }
        self.checked["listed is shown to nobody"] = len(leads)
        for row in await self._world.values(EXPOSURES, list(leads)):
            number = leads[row["lead_id"]]
            detail = f"listed {self._rights.listed[number]}, exposure committed: {row['committed_at']}"
            self.report("listed is shown to nobody", detail, number, ids.encode("lead", row["lead_id"]))

    async def _look_at_revoked(self) -> None:
        """Check that no lead was exposed after its revocation was answered."""
        revoked = {_uuid(lead_id): at for lead_id, at in self._rights.revoked.items()}
        self.checked["revoked is not shown afterwards"] = len(revoked)
        for row in await self._world.values(EXPOSURES, list(revoked)):
            at = revoked[row["lead_id"]]
            if row["committed_at"] > at:
                detail = f"revoked {at}, exposure committed: {row['committed_at']}"
                lead_id = ids.encode("lead", row["lead_id"])
                self.report("revoked is not shown afterwards", detail, lead_id=lead_id)

    async def _look_at_charged(self) -> None:
        """Nobody was charged whose server never gave an answer that is evidence of receipt."""
        acknowledged = {s.lead_id for s in self._world.sightings if s.behaviour in ACKNOWLEDGING}
        for row in await self._world.values(CHARGED):
            self.checked["charged with evidence"] += 1
            lead_id = ids.encode("lead", row["lead_id"])
            if lead_id not in acknowledged:
                self.report("charged with evidence", "its server never acknowledged it", lead_id=lead_id)

    async def _look_at_stranded(self) -> None:
        """Every lead has ended, or has a time to come at which somebody looks at it again."""
        self.checked["nothing is stuck"] = len(self._traffic.acknowledged)
        for row in (await self._world.values(STRANDED))[:FEW]:
            detail = ", ".join(f"{name} {value}" for name, value in dict(row).items() if value is not None)
            self.report("nothing is stuck", detail, lead_id=ids.encode("lead", row["id"]))

    # --- leaks ----------------------------------------------------------------------------------------------------

    def look_at_problem(self, status: int, text: bytes) -> None:
        """A refusal's body names neither a person nor a secret."""
        self.checked["no leak in problems"] += 1
        self._search("no leak in problems", f"an answer {status}", text)

    def look_at_files(self) -> None:
        """Logs of every process, and what Valkey has on disk."""
        for path in (*self._world.directory.glob("logs/*"), *self._world.valkey.directory.glob("**/*.*")):
            if path.is_file():
                check = "no leak in Valkey" if self._world.valkey.directory in path.parents else "no leak in logs"
                self._search_file(check, path)

    def _search_file(self, check: str, path: Path) -> None:
        offset = self._offsets.get(path, 0)
        try:
            with path.open("rb") as file:
                file.seek(max(0, offset - OVERLAP))
                data = file.read()
        except FileNotFoundError:
            return  # Valkey has rewritten it meanwhile
        self._offsets[path] = max(0, offset - OVERLAP) + len(data)
        self.checked[check] += max(0, self._offsets[path] - offset)
        self._search(check, path.name, data)

    def _search(self, check: str, where: str, data: bytes) -> None:
        for number in self._world.aviary.find(data):
            self.report(check, f"contact data in {where}", number=number)
        words = set(_KEY.findall(data))
        if any(secret in words for secret in map(str.encode, self._world.secrets)) or any(
            secret in data for secret in self._world.root_secrets
        ):
            self.report(check, f"a secret in {where}")

    async def _look_at_metrics(self) -> None:
        for url in self._world.ops_urls:
            try:
                async with self._world.http.get(f"{url}/metrics") as response:
                    data = await response.read()
            except (aiohttp.ClientError, TimeoutError):
                continue
            self.checked["no leak in metrics"] += 1
            self._search("no leak in metrics", "/metrics", data)

    async def _look_at_dump(self) -> None:
        """Every table as text, but the sealed contacts and their keys."""
        async with self._world.pool.acquire() as connection:
            for table in await connection.fetch(TABLES):
                tail = b""

                async def search(data: bytes, name: str = table["relname"]) -> None:
                    nonlocal tail
                    self.checked["no leak in the database"] += len(data)
                    self._search("no leak in the database", f"table {name}", tail + data)
                    tail = data[-OVERLAP:]

                await connection.copy_from_table(table["relname"], output=search, timeout=300)

    # --- the tables -----------------------------------------------------------------------------------------------

    async def look_at_tables(self) -> None:
        """The product's own verification, on one snapshot."""
        began = clock.monotonic()
        async with self._world.pool.acquire() as connection:
            result = await verify.verify(connection)
        self._verify_at = clock.monotonic() + VERIFY_SHARE * (clock.monotonic() - began)
        self.verifications += 1
        for check in result.checks:
            self.checked[f"verify: {check.name}"] += check.examined
            for row in check.rows if check.severity == "finding" else ():
                lead = row.get("lead_id")
                detail = ", ".join(f"{name} {value}" for name, value in row.items() if value is not None)
                self.report(f"verify: {check.name}", detail, lead_id=str(lead) if lead else None)

    def report(self, check: str, detail: str, number: int | None = None, lead_id: str | None = None) -> None:
        """Note a violation, once for each whom it concerns."""
        key = (check, lead_id or (detail if number is None else str(number)))
        if key in self._known:
            return
        self._known.add(key)
        self.violations.append(Violation(check=check, detail=detail, at=clock.now(), number=number, lead_id=lead_id))
        self.found.set()


def _batches(values: list[Any]) -> Iterable[list[Any]]:
    return (values[start : start + BATCH] for start in range(0, len(values), BATCH))


def _uuid(public_id: str) -> UUID:
    decoded = ids.decode(public_id.partition("_")[0], public_id)
    assert decoded is not None, public_id
    return decoded
