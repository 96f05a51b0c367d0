"""One run: sets up an installation, sends the stream, waits until all leads are settled, and collects the figures.

The demo shows a run, and the benchmark measures with one. Every figure of a Result was measured in that run.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from marketplace.database.db import NOT_NOW, connect, session
from marketplace.demo import contacts, figures
from marketplace.demo.display import RunProgress
from marketplace.demo.figures import (
    ClaimCounts,
    JourneyCounts,
    Latency,
    LeadCounts,
    MoneyFigures,
    NearMiss,
    ReasonCount,
)
from marketplace.demo.furnishing import PROVIDERS, DemoAccounts, OperatorClient, furnish
from marketplace.demo.history.loading import PERSONS, LoadedHistory, load_past
from marketplace.demo.installation import RECEIVERS, Installation, reports_pool, running
from marketplace.demo.people import People
from marketplace.demo.provider import open_session
from marketplace.demo.receivers import ReceiverReport, look, read_visits
from marketplace.demo.returning import ReturningPeople
from marketplace.demo.stream import InquiryStream
from marketplace.demo.visitors import Visitor, make_visitors
from marketplace.demo.world import DemoWorld, draw_world
from marketplace.operations.verify import VerifyReport as Verification
from marketplace.operations.verify import verify
from marketplace.runtime import clock
from marketplace.runtime.errors import Unavailable
from marketplace.runtime.settings import StartError

LOOK_SECONDS: Final = 0.5
SPEED_SECONDS: Final = 2.0
"""Seconds between two queries of the latency, which sort all leads and are the most expensive of a run."""
SETTLE_SECONDS: Final = 45.0
"""Seconds to wait for open leads. A lead whose worker was killed is claimed again after its lease of 30 seconds."""
LAST_LOOK_SECONDS: Final = 30.0
"""Seconds to retry the final figures if the database is restarting."""
SPARE: Final = 3
"""Factor by which wallets are filled: this many times a business's even share of the leads."""


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of a run: seconds, inquiries per second, seed, worker processes (None: the setting), weeks of history.

    `external` is true if the engines are those of DATABASE_URL and VALKEY_URL. With `returning`, some people come back;
    with `certified`, some inquiries have a certificate of consent.
    """

    duration: float
    rate: float
    seed: int
    workers: int | None = None
    external: bool = False
    weeks: float = 0.0
    returning: bool = False
    certified: bool = False

    @property
    def expected(self) -> int:
        """Expected number of inquiries."""
        return int(self.duration * self.rate)


class SendingDelay(msgspec.Struct, frozen=True, kw_only=True):
    """Delay of the sender itself behind its schedule, in milliseconds."""

    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class SubmissionTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of the sender. `sent` = accepted + refused + repeated + failed; duplicates count as accepted."""

    sent: int
    accepted: int
    refused: int
    refusals: dict[str, int]
    repeated: int
    changed_answers: int
    failed: int
    sent_again: int
    seconds: float
    lateness: SendingDelay


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a run."""

    wish: RunOptions
    offered: SubmissionTotals
    counts: LeadCounts
    journeys: JourneyCounts
    claims: ClaimCounts
    reasons: tuple[ReasonCount, ...]
    near_misses: tuple[NearMiss, ...]
    latency: Latency
    money: MoneyFigures
    sight: ReceiverReport
    verification: Verification
    restarts: int
    example: str | None

    @property
    def sound(self) -> bool:
        """True if no promise was seen broken, by verify, by the receivers or by the sender."""
        sight, offered = self.sight, self.offered
        return not (
            self.verification.findings
            or sight.seen_by_two
            or sight.not_theirs
            or sight.bad_signatures
            or offered.failed
            or offered.changed_answers
            or offered.accepted > self.counts.received
        )


class DemoScene(msgspec.Struct, frozen=True, kw_only=True):
    """An installation that is ready for its first inquiry. Leads from before `since` are history."""

    installation: Installation
    world: DemoWorld
    furnished: DemoAccounts
    session: aiohttp.ClientSession
    reports: Any
    since: datetime
    past: LoadedHistory | None = None
    visitors: tuple[Visitor, ...] = ()

    @property
    def provider_ids(self) -> list[Any]:
        return figures.decode_all("prov", self.furnished.providers.values())

    @property
    def business_slugs(self) -> dict[Any, str]:
        """Slugs of the businesses by their ids."""
        ids = figures.decode_all("biz", self.furnished.businesses.values())
        return dict(zip(ids, self.furnished.businesses, strict=True))


@asynccontextmanager
async def furnished(directory: Path, wish: RunOptions) -> AsyncIterator[DemoScene]:
    """Start and set up the installation of the demo. Raises StartError if it does not start or the run is too long."""
    persons = contacts.phone_count() - PERSONS
    if wish.expected > persons:
        raise StartError(
            "demo_too_long",
            f"There are only {persons:,} telephone numbers reserved for invented people,"
            f" and this asks for {wish.expected:,} inquiries.",
            "Ask for a shorter run or a lower rate.",
        )
    since = clock.now()
    world = draw_world(wish.seed, since)
    behaviours = {business.slug: business.behaviour for business in world.businesses}
    tag = f"_{clock.new_id().hex[-8:]}" if wish.external else ""
    leads = 20 + SPARE * wish.expected // 10
    async with (
        running(directory, behaviours, wish.workers, external=wish.external, certified=wish.certified) as installation,
        open_session() as session,
        await reports_pool(installation.settings, installation.engines) as reports,
    ):
        operator = OperatorClient(session, installation.url, installation.operator_key)
        made = await furnish(operator, directory, world.verticals, world.businesses, expected_leads=leads, tag=tag)
        past, visitors = await _inhabit(installation, world, made, wish)
        yield DemoScene(
            installation=installation,
            world=world,
            furnished=made,
            session=session,
            reports=reports,
            since=since,
            past=past,
            visitors=visitors,
        )


async def _inhabit(
    installation: Installation, world: DemoWorld, made: DemoAccounts, wish: RunOptions
) -> tuple[LoadedHistory | None, tuple[Visitor, ...]]:
    """Write the history, if requested and possible, and create a portal user of each kind."""
    database_url, past = installation.engines.database_url, None
    if wish.weeks:
        past = await load_past(database_url, installation.settings, world, made, wish.seed, wish.weeks)
    business_id = past.busiest_business if past else figures.decode_all("biz", made.businesses.values())[0]
    provider_id = past.busiest_provider if past else figures.decode_all("prov", made.providers.values())[0]
    tag = f"+{clock.new_id().hex[-8:]}" if wish.external else ""
    key = installation.settings.master_key
    return past, await make_visitors(database_url, key, business_id, provider_id, tag)


class DemoRun:
    """One stream of inquiries on one scene.

    `show` receives the state of the run, with the latency updated every `speed_seconds`, or never if that is None.
    """

    def __init__(
        self,
        scene: DemoScene,
        wish: RunOptions,
        show: Callable[[RunProgress], None],
        speed_seconds: float | None = SPEED_SECONDS,
    ) -> None:
        self.scene = scene
        self.wish = wish
        self._show = show
        self._speed_seconds = speed_seconds
        self._tally = figures.LeadCounter(scene.provider_ids, scene.since)
        self._latency: Latency | None = None
        self._latency_at = clock.monotonic()
        people = People(scene.world, wish.seed, len(PROVIDERS), scene.furnished.verticals, certified=wish.certified)
        target = scene.session, scene.installation.url, scene.furnished.provider_keys
        self._returning = ReturningPeople(*target, wish.seed)
        self.stream = InquiryStream(
            *target,
            people,
            rate=wish.rate,
            seed=wish.seed,
            on_accepted=self._returning.follow if wish.returning else None,
        )
        self._seconds = 0.0

    async def perform(self, stopping: asyncio.Event, hurrying: asyncio.Event) -> RunResult:
        """Send the stream, wait for open leads, and collect the figures.

        `stopping` ends the sending early, `hurrying` the waiting.
        """
        with contextlib.suppress(Unavailable):
            await self._look(0.0)
        watching = asyncio.create_task(self._watch())
        try:
            self._seconds = await self.stream.run(self.wish.duration, stopping)
            await self._settle(hurrying)
        finally:
            watching.cancel()
        return await self._look_back()

    async def _watch(self) -> None:
        began = clock.monotonic()
        while True:
            with contextlib.suppress(Unavailable):
                await self._look(clock.monotonic() - began)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, seconds: float) -> None:
        async with session(self.scene.reports) as connection:
            counts = await self._tally.look(connection)
            if self._speed_seconds is not None and clock.monotonic() - self._latency_at > self._speed_seconds:
                self._latency = await figures.latency(connection, self.scene.provider_ids, self.scene.since)
                self._latency_at = clock.monotonic()
        phase = "settling" if self._seconds else "offering"
        self._show(
            RunProgress(
                phase=phase,
                seconds=self._seconds or seconds,
                total=self.wish.duration,
                sent=self.stream.sent,
                refused=self.stream.refused,
                counts=counts,
                latency=self._latency,
            )
        )

    async def _settle(self, hurrying: asyncio.Event) -> None:
        """Wait until all submissions are answered, and up to `SETTLE_SECONDS` more until no lead is open."""
        draining = asyncio.create_task(self._drain())
        while not draining.done() and not hurrying.is_set():
            await asyncio.wait((draining,), timeout=0.1)
        draining.cancel()
        deadline = clock.monotonic() + SETTLE_SECONDS
        while clock.monotonic() < deadline and not hurrying.is_set():
            with contextlib.suppress(Unavailable):
                async with session(self.scene.reports) as connection:
                    if (await figures.count(connection, self.scene.provider_ids, self.scene.since)).open == 0:
                        return
            await asyncio.sleep(0.1)

    async def _drain(self) -> None:
        await self.stream.drain()
        await self._returning.drain()

    async def _look_back(self) -> RunResult:
        scene, slugs, providers = self.scene, self.scene.business_slugs, self.scene.provider_ids
        deadline = clock.monotonic() + LAST_LOOK_SECONDS
        while True:
            try:
                verification = await verify_at(
                    scene.installation.engines.database_url, scene.installation.settings.master_key
                )
                async with (
                    session(scene.reports) as connection,
                    connection.transaction(isolation="repeatable_read", readonly=True),
                ):
                    return RunResult(
                        wish=self.wish,
                        offered=self._offered(),
                        counts=await figures.count(connection, providers, scene.since),
                        journeys=await figures.journeys(connection, providers, scene.since),
                        claims=await figures.claims(connection, providers, scene.since),
                        reasons=await figures.reasons(connection, providers, scene.since),
                        near_misses=await figures.near_misses(connection, providers, scene.since),
                        latency=await figures.latency(connection, providers, scene.since),
                        money=await figures.money(connection, list(slugs), providers, scene.since),
                        sight=look(
                            read_visits(scene.installation.directory / RECEIVERS),
                            await figures.exposures(connection, slugs, scene.since),
                        ),
                        verification=verification,
                        restarts=scene.installation.restarts(),
                        example=await figures.find_example(connection, providers),
                    )
            except (Unavailable, *NOT_NOW):
                if clock.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.5)

    def _offered(self) -> SubmissionTotals:
        stream, second_inquiries = self.stream, self._returning.second_inquiries
        late = sorted(1000 * seconds for seconds in stream.lateness) or [0.0]
        return SubmissionTotals(
            sent=stream.sent + second_inquiries,
            accepted=stream.accepted + second_inquiries,
            refused=stream.refused,
            refusals=dict(stream.refusals.most_common()),
            repeated=stream.repeated,
            changed_answers=stream.changed_answers,
            failed=stream.failed,
            sent_again=stream.sent_again,
            seconds=round(self._seconds, 2),
            lateness=SendingDelay(
                p50=round(late[len(late) // 2], 3),
                p99=round(late[len(late) * 99 // 100], 3),
                max=round(late[-1], 3),
            ),
        )


async def verify_at(database_url: str, master_key: bytes) -> Verification:
    """Verify on a connection of its own. Raises asyncpg's errors."""
    connection = await connect(database_url, "marketplace_reports", master_key=master_key)
    try:
        return await verify(connection)
    finally:
        connection.terminate()
