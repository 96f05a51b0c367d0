"""The rules of a process: edits replace what they change and nothing else, none is missed, and a check proves it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any, Final

import msgspec
import pytest

from marketplace.rules import catalog as catalog_module
from marketplace.rules.catalog import Catalog, Rules, load_rules
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from routing.subscription import Area, OpenHours
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace
from tests.waiting import tries

BUYERS: Final = 4
NOWHERE: Final = "http://127.0.0.1:9/leads"


class Edited:
    """A marketplace with some buyers, and a process's copy of its rules."""

    def __init__(self, market: Marketplace, buyers: list[Buyer]) -> None:
        self.market, self.buyers = market, buyers
        self.catalog = Catalog(market.worker)

    async def edit(self, sql: str, *arguments: Any) -> None:
        await self.market.owner.execute(sql, *arguments)

    async def stored(self) -> dict[str, Any]:
        """What a process that begins now reads."""
        async with self.market.worker.acquire() as connection:
            return content(await load_rules(connection))


def content(rules: Rules) -> dict[str, Any]:
    return {**msgspec.structs.asdict(rules), "index": dict(rules.index)}


@pytest.fixture
async def edited(settings: Settings) -> AsyncIterator[Edited]:
    async with marketplace(settings) as market:
        yield Edited(market, [await market.buyer(NOWHERE) for _ in range(BUYERS)])


NEW_VERSION: Final = """with later as (
    insert into subscription_version (subscription_id, version, definition, made_by)
    select s.id, s.version + 1, jsonb_set(d.definition, '{price_minor}', to_jsonb(1000 + s.version)), 'test'
    from subscription s join subscription_version d on (d.subscription_id, d.version) = (s.id, s.version)
    where s.id = $1)
update subscription set version = version + 1 where id = $1"""
POLICY: Final = """with later as (
    insert into vertical_version (vertical_id, version, definition, made_by)
    select v.id, v.version + 1, jsonb_set(d.definition, $1, $2), 'test'
    from vertical v join vertical_version d on (d.vertical_id, d.version) = (v.id, v.version))
update vertical set version = version + 1"""

OF_ONE: Final = {
    "new version": NEW_VERSION,
    "paused": "update subscription set state = 'paused' where id = $1",
    "suspended": """update subscription set state = 'suspended', suspended_for = 'refusals', suspended_at = now(),
        suspended_counted = 1, suspended_shown = 1 where id = $1""",
    "ended": "update subscription set state = 'ended' where id = $1",
    "frozen": "update business set state = 'frozen' where id = (select business_id from subscription where id = $1)",
    "another trade name": """update business set seller_names = '{Example Roofs}'
        where id = (select business_id from subscription where id = $1)""",
    "no endpoint": """update endpoint set state = 'disabled'
        where id = (select endpoint_id from subscription where id = $1)""",
    "breaker": """update endpoint set breaker_open_until = now() + interval '1 min'
        where id = (select endpoint_id from subscription where id = $1)""",
}  # fmt: skip
"Edits after which one subscription differs."


@pytest.mark.parametrize("edit", OF_ONE)
async def test_an_edit_replaces_the_subscription_that_it_changes_and_no_other(edited: Edited, edit: str) -> None:
    before = dict((await edited.catalog.current()).index)
    subscription_id = edited.buyers[1].subscription_id
    await edited.edit(OF_ONE[edit], subscription_id)
    after = await edited.catalog.current()
    assert content(after) == await edited.stored()
    assert after.index.get(subscription_id) != before[subscription_id]
    others = before.keys() - {subscription_id}
    assert all(after.index[key] is before[key] for key in others)
    assert await edited.catalog.is_complete()


async def test_an_edit_of_a_party_is_in_force_at_once(edited: Edited) -> None:
    before = await edited.catalog.current()
    await edited.edit("""update provider set payout = '{"type": "fixed", "minor": 7}'""")
    await edited.edit(POLICY, ["window_days"], "3")
    await edited.market.another_provider()
    buyer = await edited.market.buyer(NOWHERE)
    after = await edited.catalog.current()
    assert content(after) == await edited.stored()
    assert after.verticals[edited.market.vertical_id].definition.window_days == 3
    assert len(after.providers) == len(before.providers) + 1
    assert buyer.subscription_id in after.index
    assert await edited.catalog.is_complete()


async def test_the_country_of_a_vertical_reaches_its_subscriptions(edited: Edited) -> None:
    await edited.catalog.current()
    await edited.edit(POLICY, ["country"], '"CA"')
    after = await edited.catalog.current()
    assert {subscription.country for subscription in after.index.values()} == {"CA"}
    assert content(after) == await edited.stored()


async def test_what_the_rules_do_not_have_raises_no_version(edited: Edited) -> None:
    version = (await edited.catalog.current()).version
    await edited.edit("update business set name = name || '.', zone = 'UTC'")
    await edited.edit("update provider set name = name || '.'")
    await edited.edit("update endpoint set breaker = '{}', url = url || '/'")
    await edited.edit("update subscription set state = 'paused' where false")
    assert (await edited.catalog.current()).version == version


async def test_a_later_version_never_commits_before_an_earlier_one(edited: Edited) -> None:
    """Or a process that read between the two commits would miss the earlier change for ever."""
    first, second = (buyer.subscription_id for buyer in edited.buyers[:2])
    before = (await edited.catalog.current()).version
    async with edited.market.owner.acquire() as earlier, edited.market.owner.acquire() as later:
        change = earlier.transaction()
        await change.start()
        await earlier.execute(OF_ONE["paused"], first)
        waiting = asyncio.create_task(later.execute(OF_ONE["paused"], second))
        blocked = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and pid = $1)"
        for _ in tries("the later edit to wait for the earlier"):
            if await edited.market.value(blocked, later.get_server_pid()):
                break
        assert (await edited.catalog.current()).version == before
        assert not waiting.done()
        await change.commit()
        await waiting
    after = await edited.catalog.current()
    assert after.version == before + 2
    assert after.index[first].paused
    assert after.index[second].paused


async def test_a_process_that_was_away_catches_up_with_everything_at_once(edited: Edited) -> None:
    chance = Random("away")
    await edited.catalog.current()
    for _round in range(5):
        for _edit in range(chance.randint(1, 25)):
            buyer = chance.choice(edited.buyers)
            match chance.choice([*OF_ONE, "active again", "new buyer"]):
                case "new buyer":
                    area = Area(postal_codes=(f"{chance.randrange(10**5):05}",))
                    edited.buyers.append(await edited.market.buyer(NOWHERE, anywhere(area=area)))
                case "ended" if len(edited.buyers) > 2:
                    edited.buyers.remove(buyer)
                    await edited.edit(OF_ONE["ended"], buyer.subscription_id)
                case "active again":
                    await edited.edit("update subscription set state = 'active' where state <> 'ended'")
                    await edited.edit("update business set state = 'active'")
                    await edited.edit("update endpoint set state = 'active', breaker_open_until = null")
                case edit if edit != "ended":
                    await edited.edit(OF_ONE[edit], buyer.subscription_id)
        assert content(await edited.catalog.current()) == await edited.stored()
        assert await edited.catalog.is_complete()


PAST_TRIGGERS: Final = {
    "paused": "update subscription set state = 'paused' where id = $1",
    "ended": "update subscription set state = 'ended' where id = $1",
    "counter set back": "update catalog_version set version = 1 where $1::uuid is not null",
}


@pytest.mark.parametrize("change", PAST_TRIGGERS)
async def test_a_change_past_the_triggers_is_noticed_and_repaired(edited: Edited, change: str) -> None:
    await edited.catalog.current()
    assert await edited.catalog.is_complete()
    async with edited.market.owner.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(PAST_TRIGGERS[change], edited.buyers[0].subscription_id)
        await connection.execute(PAST_TRIGGERS["paused"], edited.buyers[1].subscription_id)
    assert not await edited.catalog.is_complete()
    await edited.catalog.repair()
    assert content(await edited.catalog.current()) == await edited.stored()
    assert await edited.catalog.is_complete()


async def test_edits_during_a_repair_take_effect(edited: Edited, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "BATCH", 1)
    await edited.catalog.current()
    repairing = asyncio.create_task(edited.catalog.repair())
    for buyer in edited.buyers:
        await edited.edit(OF_ONE["ended"], buyer.subscription_id)
        await edited.market.buyer(NOWHERE)
        assert content(await edited.catalog.current())["index"] == (await edited.stored())["index"]
    await repairing
    assert content(await edited.catalog.current()) == await edited.stored()
    assert await edited.catalog.is_complete()


async def test_a_large_change_lets_other_work_run(edited: Edited, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules stay in force between its pieces, with one version for all of them at the end."""
    monkeypatch.setattr(catalog_module, "TURN_SECONDS", 0.0)
    before = await edited.catalog.current()
    await edited.edit("update subscription set state = 'paused'")
    changing = asyncio.create_task(edited.catalog.current())
    paused = set[int]()
    while not changing.done():
        paused.add(sum(subscription.paused for subscription in before.index.values()))
        await asyncio.sleep(0)
    assert paused >= set(range(1, BUYERS))
    assert (await changing).version == before.version + 1


async def test_open_hours_are_compiled_ahead_again(edited: Edited) -> None:
    hours = OpenHours(spec="Mo-Su 08:00-18:00", zone="America/Chicago")
    buyer = await edited.market.buyer(NOWHERE, anywhere(hours=hours))
    rules = await edited.catalog.current()
    before = rules.index[buyer.subscription_id].open_spans
    await edited.catalog._copy.renew_hours(rules, clock.now() + timedelta(days=5))
    after = rules.index[buyer.subscription_id].open_spans
    assert before is not None
    assert after is not None
    assert after[-1][1] - before[-1][1] == timedelta(days=5) / timedelta(seconds=1)


async def test_the_keeper_repairs_what_the_check_finds(edited: Edited, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "CHECK_SECONDS", 0.01)
    await edited.catalog.current()
    async with edited.market.owner.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(PAST_TRIGGERS["paused"], edited.buyers[0].subscription_id)
    stopping = asyncio.Event()
    keeping = asyncio.create_task(edited.catalog.keep(stopping))
    for _ in tries("the repair"):
        if (await edited.catalog.current()).index[edited.buyers[0].subscription_id].paused:
            break
    stopping.set()
    await keeping
