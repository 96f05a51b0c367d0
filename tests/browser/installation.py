"""The demo's world with its history, up in a thread of its own, and the few things that happen outside a browser."""

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from aiohttp import web

from marketplace.database.db import open_pool, session
from marketplace.demo.command import SEED
from marketplace.demo.furnishing import OperatorClient
from marketplace.demo.people import DraftKind, People
from marketplace.demo.provider import SubmissionAnswer, submit
from marketplace.demo.run import DemoScene, RunOptions, furnished
from marketplace.demo.verticals import CURRENCY, HOME
from marketplace.portal import flow, store
from marketplace.portal.store import Purpose, Role
from marketplace.runtime import clock, ids
from marketplace.security import audit
from marketplace.security.auth import CallerKind as MemberKind

T = TypeVar("T")
WEEKS: Final = 6.0
FIRST: Final = 9_000
"""Among invented persons, beyond those of any stream and before those of the history."""
GOOD: Final = {
    "budget": {"minor": 1_500_000, "currency": CURRENCY}, "authority": "decision_maker", "timing": {"within_days": 14},
    "need": {"fields": {"service": "roofing", "property_type": "house", "owns_home": True}},
}  # fmt: skip
"""Answers that every market of houses takes."""
START_SECONDS: Final = 120.0
CALL_SECONDS: Final = 30.0


class Marketplace:
    """A running installation, asked in plain calls from the thread that drives the browser."""

    def __init__(self, loop: asyncio.AbstractEventLoop, scene: DemoScene) -> None:
        self._loop = loop
        self.scene = scene
        self._people = iter(People(scene.world, SEED + 1, 1, {slug: slug for slug in scene.world.verticals}, FIRST))
        self.url = scene.installation.settings.public_url

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of `work`, within a time limit."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    def ask(self, method: str, path: str, body: object = None, key: str = "") -> dict[str, Any]:
        """The interface's answer to the operator, or to whoever has the key."""
        installation = self.scene.installation
        client = OperatorClient(self.scene.session, installation.url, key or installation.operator_key)
        return self.call(client.call(method, path, body))

    def visitor(self, kind: MemberKind) -> UUID:
        """The demo's own user of this kind."""
        return next(visitor.member_id for visitor in self.scene.visitors if visitor.kind is kind)

    def link_in(self, member_id: UUID) -> str:
        """A link by which this member comes in, once."""
        return f"{self.url}/link/{self.call(self._link_in(member_id))}"

    async def _link_in(self, member_id: UUID) -> str:
        async with _api(self.scene) as pool:
            async with session(pool) as connection:
                member = await store.find_member(connection, member_id)
            assert member is not None
            return await flow.link_for(pool, audit.COMMAND_LINE, member, Purpose.enter, timedelta(hours=1))

    def invitation(self, kind: MemberKind, owner: str | None, email: str) -> str:
        """A link by which whoever has this address becomes the owner of an account."""
        return f"{self.url}/link/{self.call(self._invitation(kind, owner, email))}"

    async def _invitation(self, kind: MemberKind, owner: str | None, email: str) -> str:
        owner_id = ids.decode(owner.split("_")[0], owner) if owner else None
        async with _api(self.scene) as pool:
            return await flow.invite(pool, audit.COMMAND_LINE, kind, owner_id, Role.owner, email)

    def ask_for_work(self, postal_code: str, key: str = "") -> SubmissionAnswer:
        """Somebody asks for work on a house there, through a provider; with the outcome, if that comes soon."""
        draft = next(person for person in self._people if person.kind is DraftKind.ready and person.vertical == HOME)
        draft = msgspec.structs.replace(
            draft, contact={**draft.contact, "postal_code": postal_code}, bant={**draft.bant, **GOOD}, later_days=None
        )
        installation = self.scene.installation
        return self.call(
            submit(
                self.scene.session,
                installation.url,
                key or self.scene.furnished.provider_keys[0],
                draft.body(clock.now()),
                clock.new_id().hex,
                wait_seconds=5,
            )
        )

    @property
    def deserted(self) -> str:
        """A postal code in whose area no business works."""
        return next(code for code in self.scene.world.far if code.startswith("995"))

    @property
    def island(self) -> str:
        """A postal code across the sea from `deserted`, where no business works either."""
        return next(code for code in self.scene.world.far if code.startswith("968"))

    @property
    def prairie(self) -> str:
        """A postal code far from both, where no business works either."""
        return next(code for code in self.scene.world.far if code.startswith("588"))

    def open_door(self, *refused: str) -> str:
        """The address of a server that answers every challenge and takes all but messages of the `refused` types."""
        return self.call(self._open_door(refused))

    async def _open_door(self, refused: tuple[str, ...]) -> str:
        async def answer(request: web.Request) -> web.Response:
            message = await request.json()
            answer = message["data"] if message.get("type") == "endpoint.challenge" else {"status": "accepted"}
            return web.json_response(answer, status=503 if message.get("type") in refused else 200)

        app = web.Application()
        app.router.add_post("/leads", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/leads"


@asynccontextmanager
async def _api(scene: DemoScene) -> AsyncIterator[Any]:
    pool = await open_pool(scene.installation.engines.database_url, "marketplace_api", size=1)
    async with pool:
        yield pool


@contextmanager
def marketplace(weeks: float = WEEKS) -> Iterator[Marketplace]:
    """One with its history, until we leave."""
    with tempfile.TemporaryDirectory(prefix="marketplace-browser-") as name:
        Path(name).chmod(0o755)  # the account of PostgreSQL may enter, unlike pytest's own directories
        ready: Future[Marketplace] = Future()
        leaving = threading.Event()
        thread = threading.Thread(target=_keep, args=(Path(name) / "demo", weeks, ready, leaving))
        thread.start()
        try:
            yield ready.result(START_SECONDS)
        finally:
            leaving.set()
            thread.join(START_SECONDS)


def _keep(directory: Path, weeks: float, ready: "Future[Marketplace]", leaving: threading.Event) -> None:
    try:
        asyncio.run(_stay(directory, weeks, ready, leaving))
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)


async def _stay(directory: Path, weeks: float, ready: "Future[Marketplace]", leaving: threading.Event) -> None:
    wish = RunOptions(duration=1.0, rate=100.0, seed=SEED, workers=1, weeks=weeks)
    async with furnished(directory, wish) as scene:
        ready.set_result(Marketplace(asyncio.get_running_loop(), scene))
        await asyncio.to_thread(leaving.wait)
