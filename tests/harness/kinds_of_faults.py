"""Faults of an installation: one function per kind, which returns when the fault has ended.

Kills end when they have happened; a fault of an engine ends when the engine answers again; all others last for as long
as the seed says.
"""

import asyncio
import contextlib
import resource
import signal
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final
from uuid import UUID

import aiohttp
import asyncpg
import msgspec
from redis.exceptions import RedisError

from marketplace.runtime import clock, ids
from marketplace.runtime.settings import StartError
from tests.builders.marketplaces import anywhere
from tests.harness.readers import FeedReader
from tests.harness.receivers import Receiver
from tests.harness.traffic import Traffic
from tests.harness.world import THIN, Shop, World

COMMIT: Final = b"COMMIT;"
"""How the driver's commit looks on the wire."""
WEBHOOK: Final = b'"lead.assigned"'
ACKNOWLEDGEMENT: Final = b"/acknowledge"
OVERDUE = """
update assignment set evidence_until = clock_timestamp(), due_at = clock_timestamp()
where business_id = any($1) and state = 'exposed' and exposed_at < clock_timestamp() - interval '1 s'
returning id"""
AWAY: Final = (
    OSError, TimeoutError, aiohttp.ClientError, asyncpg.PostgresError, asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)  # fmt: skip


class Scene:
    """Installation on which a fault acts, and its own random numbers."""

    def __init__(self, world: World, traffic: Traffic, random: Random) -> None:
        self.world, self.traffic, self.random = world, traffic, random

    async def lasts(self, least_s: float, most_s: float) -> None:
        await asyncio.sleep(self.random.uniform(least_s, most_s))

    def shop(self) -> Shop:
        return self.random.choice(self.world.shops)

    def shop_with(self, kind: type[Receiver] | type[FeedReader]) -> Shop:
        """A business that is sent its leads, or one that comes for them."""
        return self.random.choice([shop for shop in self.world.shops if isinstance(shop.receiver, kind)])

    def one_of(self, kind: str) -> str:
        return self.random.choice(self.world.names(kind))


Run = Callable[[Scene], Awaitable[bool]]
"""False: nothing could be done, because its victim was down already; it does not count."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of fault: how often it comes, relative to the others of its deck, and whether it kills."""

    name: str
    run: Run
    weight: float
    kills: bool = False


# --- kills ------------------------------------------------------------------------------------------------------------


async def kill_api(scene: Scene) -> bool:
    return scene.world.kept[scene.one_of("api")].signal(signal.SIGKILL)


async def kill_worker(scene: Scene) -> bool:
    return scene.world.kept[scene.one_of("worker")].signal(signal.SIGKILL)


async def kill_valkey(scene: Scene) -> bool:
    """Up to a second later it comes back with what its file holds."""
    world = scene.world
    async with world.valkey_lock:
        world.valkey.kill()
        await scene.lasts(0.0, 1.0)
        await world.valkey.start()
    return True


async def kill_postgres(scene: Scene) -> bool:
    world = scene.world
    async with world.postgres_lock:
        world.kill_postgres()
        await scene.lasts(0.0, 0.5)
        await world.postgres.start()
    return True


async def stop_postgres_at_once(scene: Scene) -> bool:
    world = scene.world
    async with world.postgres_lock:
        world.stop_postgres_at_once()
        await world.postgres.stop()  # which waits until the last of it is gone
        await world.postgres.start()
    return True


# --- processes --------------------------------------------------------------------------------------------------------


async def drain(scene: Scene) -> bool:
    """SIGTERM: it takes nothing new and ends what it has."""
    return scene.world.kept[scene.one_of(scene.random.choice(("api", "worker")))].signal(signal.SIGTERM)


async def skew_clock(scene: Scene) -> bool:
    """A worker is moved to a machine whose clock is wrong, and later back.

    Up to a minute ahead or behind it works by that clock; further off it refuses to start, and the other has it all.
    """
    name = scene.one_of("worker")
    process, skews = scene.world.kept[name], scene.world.skews
    if name in skews or process.pid is None:
        return False
    skews[name] = scene.random.choice((-1, 1)) * scene.random.uniform(10.0, 180.0)
    process.signal(signal.SIGTERM)
    await scene.lasts(5.0, 15.0)
    skews.pop(name, None)
    process.signal(signal.SIGTERM)
    return True


NOT_TRIED: Final = "a full disk under Postgres, which would take a file system of its own, and only root may mount one"
"Said at the start of each run."


async def fill_disk(scene: Scene) -> bool:
    """A process can append to no file, journal and log alike, as where the disk is full; then it can again."""
    process = scene.world.kept[scene.one_of(scene.random.choice(("worker", "api")))]
    if (pid := process.pid) is None:
        return False
    usual = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, usual[1]))
    await scene.lasts(1.0, 5.0)
    if process.pid == pid:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, usual)
    return True


async def freeze_worker(scene: Scene) -> bool:
    """A worker that stands still past its leases and then goes on where it was."""
    return await _freeze_process(scene, "worker", scene.random.choice((8.0, 8.0, 15.0, 40.0)))


async def freeze_api(scene: Scene) -> bool:
    """The same for an api, in the middle of whatever it was showing to readers."""
    return await _freeze_process(scene, "api", 10.0)


async def _freeze_process(scene: Scene, kind: str, most_s: float) -> bool:
    process = scene.world.kept[scene.one_of(kind)]
    frozen = process.pid
    if not process.signal(signal.SIGSTOP):
        return False
    await scene.lasts(5.0, most_s)
    if process.pid == frozen:
        process.signal(signal.SIGCONT)
    return True


# --- engines ----------------------------------------------------------------------------------------------------------


async def empty_valkey(scene: Scene) -> bool:
    for _ in range(3):
        await scene.world.valkey_client.flushall()
        await asyncio.sleep(0.5)
    return True


async def valkey_absent(scene: Scene) -> bool:
    world = scene.world
    async with world.valkey_lock:
        world.valkey.kill()
        await scene.lasts(6.0, 15.0)
        await world.valkey.start()
    return True


async def valkey_full(scene: Scene) -> bool:
    client = scene.world.valkey_client
    await client.config_set("maxmemory", 1)
    try:
        await scene.lasts(3.0, 6.0)
    finally:
        with contextlib.suppress(RedisError, OSError):  # a killed one comes back without the limit
            await client.config_set("maxmemory", 0)
    return True


async def terminate_backends(scene: Scene) -> bool:
    """Some of our connections end, five times within a second."""
    for _ in range(5):
        await scene.world.values(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name in"
            " ('marketplace_api', 'marketplace_worker') order by random() limit 2"
        )
        await asyncio.sleep(0.2)
    return True


async def hold_locks(scene: Scene) -> bool:
    """A stray session sits on one business's subscription and wallet and on some open leads."""
    shop = scene.shop()
    connection = await asyncpg.connect(scene.world.postgres.url, timeout=5)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("set local lock_timeout = '2s'")
        await connection.execute("select from subscription where business_id = $1 for update", _uuid(shop.business_id))
        await connection.execute("select from wallet where business_id = $1 for update", _uuid(shop.business_id))
        await connection.execute(
            "select from lead where state in ('received', 'prospect', 'held') limit 20 for update skip locked"
        )
        await scene.lasts(4.0, 5.0)
        await transaction.rollback()
    finally:
        connection.terminate()
    return True


async def slow_postgres(scene: Scene) -> bool:
    proxy = scene.world.proxies[scene.random.choice(("api_postgres", "worker_postgres"))]
    proxy.delay_s = scene.random.uniform(0.01, 0.08)
    await scene.lasts(2.0, 5.0)
    proxy.delay_s = 0.0
    return True


# --- connections ------------------------------------------------------------------------------------------------------


async def cut_after_commit(scene: Scene) -> bool:
    """The database has committed; whoever asked never hears it."""
    proxy = scene.world.proxies[scene.random.choice(("api_postgres", "worker_postgres"))]
    return await _cut_answers(scene, proxy, COMMIT)


async def cut_after_statement(scene: Scene) -> bool:
    """The same for statements that commit by themselves, such as the exposure."""
    proxy = scene.world.proxies[scene.random.choice(("api_postgres", "worker_postgres"))]
    return await _cut_answers(scene, proxy, b"")


async def cut_before_answer(scene: Scene) -> bool:
    """The business has read the lead; its answer never arrives."""
    return await _cut_answers(scene, scene.shop_with(Receiver).proxy, WEBHOOK)


async def cut_before_receipt(scene: Scene) -> bool:
    """We have taken a reader's acknowledgement; it never hears that."""
    return await _cut_answers(scene, scene.shop_with(FeedReader).proxy, ACKNOWLEDGEMENT)


async def cut_amid_event(scene: Scene) -> bool:
    """A reader gets half of what its feed says."""
    proxy = scene.shop_with(FeedReader).proxy
    before = proxy.cuts
    proxy.cut_amid(WEBHOOK, times=scene.random.randint(1, 4))
    await scene.lasts(1.0, 3.0)
    proxy.cut_amid(b"", times=0)
    return proxy.cuts > before


async def _cut_answers(scene: Scene, proxy: Any, pattern: bytes) -> bool:
    before = proxy.cuts
    proxy.cut_before_answer(pattern, times=scene.random.randint(1, 4))
    await scene.lasts(1.0, 2.0)
    proxy.cut_before_answer(b"", times=0)
    return bool(proxy.cuts > before)


async def break_connections(scene: Scene) -> bool:
    proxy = scene.random.choice([*scene.world.proxies.values(), scene.shop().proxy])
    return bool(proxy.cut())


async def blackhole(scene: Scene) -> bool:
    """Nothing passes; afterwards it arrives late, or the connections are dead."""
    proxy = scene.random.choice([*scene.world.proxies.values(), *(scene.shop().proxy for _ in range(4))])
    proxy.swallow()
    await scene.lasts(2.0, 8.0)
    if scene.random.random() < 0.5:
        proxy.cut()
    proxy.flow()
    return True


async def half_open(scene: Scene) -> bool:
    proxy = scene.shop().proxy
    proxy.ignore()
    await scene.lasts(3.0, 6.0)
    proxy.heed()
    return True


async def drip(scene: Scene) -> bool:
    proxy = scene.shop().proxy
    proxy.drips = True
    await scene.lasts(2.0, 4.0)
    proxy.drips = False
    return True


async def refuse_connections(scene: Scene) -> bool:
    proxy = scene.shop().proxy
    proxy.refuse()
    await scene.lasts(2.0, 6.0)
    await proxy.open()
    return True


# --- people -----------------------------------------------------------------------------------------------------------


async def duplicate_everything(scene: Scene) -> bool:
    """Each post three times at once; leads of the last moments notified five times each, by everybody."""
    scene.traffic.copies = 3
    for _ in range(6):
        leads = scene.traffic.recent_leads(20)
        notifications = [scene.world.notifier.notify("walk", _uuid(lead)) for lead in leads for _ in range(5)]
        await asyncio.gather(*notifications)
        await asyncio.sleep(0.5)
    scene.traffic.copies = 1
    return True


async def edit_everything(scene: Scene) -> bool:
    """An operator and a business change their minds while leads are being awarded."""
    edits = [_pause, _reprice, _cap, _freeze, _rotate, _rotate, _top_up]
    edits_at_once = [edit(scene, scene.shop()) for edit in scene.random.sample(edits, 4)]
    results = await asyncio.gather(*edits_at_once, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, AWAY_OR_REFUSED):
            raise result
    return any(result is None for result in results)


AWAY_OR_REFUSED: Final = (*AWAY, StartError, msgspec.MsgspecError)


async def _pause(scene: Scene, shop: Shop) -> None:
    path = f"/v1/subscriptions/{shop.subscription_id}"
    try:
        await scene.world.operator.call("POST", f"{path}/pause")
        await scene.lasts(0.5, 2.0)
    finally:
        await _surely(scene, "POST", f"{path}/resume")


async def _freeze(scene: Scene, shop: Shop) -> None:
    path = f"/v1/businesses/{shop.business_id}"
    try:
        await scene.world.operator.call("PATCH", path, {"state": "frozen"})
        await scene.lasts(0.5, 2.0)
    finally:
        await _surely(scene, "PATCH", path, {"state": "active"})


async def _reprice(scene: Scene, shop: Shop) -> None:
    await _revise(scene, shop, price_minor=scene.random.randrange(4_000, 6_000, 100))


async def _cap(scene: Scene, shop: Shop) -> None:
    """A cap below what is used already, then none."""
    await _revise(scene, shop, caps=({"window": "hour", "count": scene.random.randint(1, 500)},))
    await scene.lasts(1.0, 3.0)
    await _revise(scene, shop)


async def _revise(scene: Scene, shop: Shop, **changes: Any) -> None:
    path = f"/v1/subscriptions/{shop.subscription_id}"
    now = await scene.world.operator.call("GET", path)
    definition = msgspec.to_builtins(anywhere()) | changes
    body = {"name": shop.slug, "endpoint_id": shop.endpoint_id, "version": now["version"], "definition": definition}
    await scene.world.operator.call("PUT", path, body)


async def _rotate(scene: Scene, shop: Shop) -> None:
    """A new signing secret; for whoever reads a feed, a new key."""
    if isinstance(shop.receiver, FeedReader):
        return await scene.world.give_key(shop)
    made = await scene.world.operator.call("POST", f"/v1/endpoints/{shop.endpoint_id}/rotate-secret")
    scene.world.secrets.append(made["secret"])


async def _top_up(scene: Scene, shop: Shop) -> None:
    await scene.world.top_up(shop.business_id, 5, f"edit-{clock.new_id()}")


async def drain_wallet(scene: Scene) -> bool:
    """One business has money for a lead or two at a time, by payments that are announced three times each."""
    thin = next(shop for shop in scene.world.shops if shop.slug == THIN)
    for _ in range(5):
        event = f"thin-{clock.new_id()}"
        leads = scene.random.randint(1, 2)
        payments = [scene.world.top_up(thin.business_id, leads, event) for _ in range(3)]
        await asyncio.gather(*payments, return_exceptions=True)
        await asyncio.sleep(0.4)
    return True


async def let_days_pass(scene: Scene) -> bool:
    """Make unacknowledged leads of feeds a day old at once, while late acknowledgements arrive."""
    rows = await scene.world.values(OVERDUE, [_uuid(business_id) for business_id in scene.world.fed])
    await scene.lasts(1.0, 3.0)
    return bool(rows)


async def _surely(scene: Scene, method: str, path: str, body: object = None) -> None:
    """Undo an edit even while things are being killed."""
    for _ in range(60):
        try:
            await scene.world.operator.call(method, path, body)
            return
        except AWAY_OR_REFUSED:
            await asyncio.sleep(0.5)


def _uuid(public_id: str) -> UUID:
    decoded = ids.decode(public_id.partition("_")[0], public_id)
    assert decoded is not None, public_id
    return decoded


KILLS: Final = (
    Kind(name="kill worker", run=kill_worker, weight=40, kills=True),
    Kind(name="kill api", run=kill_api, weight=25, kills=True),
    Kind(name="kill Valkey", run=kill_valkey, weight=15, kills=True),
    Kind(name="kill Postgres", run=kill_postgres, weight=12, kills=True),
    Kind(name="stop Postgres at once", run=stop_postgres_at_once, weight=8, kills=True),
)
OTHERS: Final = (
    Kind(name="duplicate everything", run=duplicate_everything, weight=3),
    Kind(name="racing edits", run=edit_everything, weight=5),
    Kind(name="wallet nearly empty", run=drain_wallet, weight=4),
    Kind(name="cut after COMMIT", run=cut_after_commit, weight=5),
    Kind(name="cut after a statement", run=cut_after_statement, weight=4),
    Kind(name="cut before the business's answer", run=cut_before_answer, weight=5),
    Kind(name="cut before a reader's receipt", run=cut_before_receipt, weight=4),
    Kind(name="cut amid a reader's event", run=cut_amid_event, weight=4),
    Kind(name="unacknowledged for a day", run=let_days_pass, weight=3),
    Kind(name="connections broken", run=break_connections, weight=2),
    Kind(name="blackhole", run=blackhole, weight=3),
    Kind(name="half-open endpoint", run=half_open, weight=2),
    Kind(name="dripping endpoint", run=drip, weight=2),
    Kind(name="endpoint refuses connections", run=refuse_connections, weight=3),
    Kind(name="worker frozen", run=freeze_worker, weight=3),
    Kind(name="api frozen", run=freeze_api, weight=2),
    Kind(name="clock wrong", run=skew_clock, weight=2),
    Kind(name="disk full", run=fill_disk, weight=2),
    Kind(name="SIGTERM", run=drain, weight=2),
    Kind(name="Valkey emptied", run=empty_valkey, weight=2),
    Kind(name="Valkey absent", run=valkey_absent, weight=2),
    Kind(name="Valkey full", run=valkey_full, weight=2),
    Kind(name="backends terminated", run=terminate_backends, weight=3),
    Kind(name="locks held", run=hold_locks, weight=2),
    Kind(name="slow Postgres", run=slow_postgres, weight=2),
)
