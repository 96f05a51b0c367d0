"""The checker sees what is wrong when something is, and nothing when nothing is, in a real installation."""

import asyncio
from pathlib import Path

import msgspec

from marketplace.runtime import clock, ids
from tests.harness import page
from tests.harness.checker import Checker
from tests.harness.command import Wish, run
from tests.harness.feed_checks import LONG_AGO
from tests.harness.readers import Answered, Complaint, FeedReader
from tests.harness.rights import RightsTraffic
from tests.harness.timeline import tell
from tests.harness.traffic import Answer, Traffic
from tests.harness.world import World, running

ENOUGH = 10
PATIENCE_SECONDS = 60.0


async def test_whatever_is_planted_is_found_and_told(enterable_dir: Path) -> None:
    async with running(enterable_dir, seed=3) as world:
        traffic = Traffic(world, enterable_dir / "providers.jsonl", 3, 20.0, lambda status, text: None)
        rights = RightsTraffic(world, traffic, 3, lambda status, text: None)
        checker = Checker(world, traffic, rights)
        await sell_some(world, traffic)
        await checker.look_at_rest()
        assert checker.violations == []

        expected = await plant(world, traffic, rights)
        await checker.look_at_rest()
        assert {violation.check for violation in checker.violations} == expected

        sold_twice = next(one for one in checker.violations if one.check == "seen by one business")
        story = "\n".join(await tell(sold_twice, world, traffic, []))
        for teller in ("provider-", "api-", "worker-", "business-", "lead ", "assignment ", "exposure ", "transfer "):
            assert teller in story, teller


async def sell_some(world: World, traffic: Traffic) -> None:
    """A few leads, delivered by receivers that behave."""
    for shop in world.shops:
        shop.receiver.behaves = True
    silent = asyncio.Event()
    sending = asyncio.create_task(traffic.run(silent))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(world.seen) < ENOUGH or not read(world):  # noqa: ASYNC110 - other processes do it
            await asyncio.sleep(0.1)
    silent.set()
    await sending
    await traffic.settle(PATIENCE_SECONDS)
    for reader in world.fed.values():
        await reader.finish(PATIENCE_SECONDS)


def read(world: World) -> list[FeedReader]:
    """Return the readers that have read and acknowledged a lead."""
    return [reader for reader in world.fed.values() if reader.answered]


async def plant(world: World, traffic: Traffic, rights: RightsTraffic) -> set[str]:
    """One of each violation that can be planted; the names of the checks that should see them."""
    sighting = world.sightings[0]
    elsewhere = next(shop.slug for shop in world.shops if shop.slug != sighting.business)
    world.sightings.append(msgspec.structs.replace(sighting, business=elsewhere))
    world.sightings.append(msgspec.structs.replace(world.sightings[1], lead_id=ids.encode("lead", clock.new_id())))
    world.sightings.append(msgspec.structs.replace(world.sightings[2], webhook_id="another"))

    key, acknowledged = next(iter(traffic.acknowledged.items()))
    traffic.changed.append((key, acknowledged.lead_id, "another"))
    traffic.refused[key] = 422
    traffic.statuses[500] += 1
    traffic.numbers["never answered"] = 1
    traffic.numbers["lost"] = 2
    traffic.acknowledged["lost"] = Answer(lead_id=ids.encode("lead", clock.new_id()), at=clock.now())

    rights.listed[world.sightings[3].number] = rights.revoked[world.sightings[4].lead_id] = LONG_AGO

    reader = read(world)[0]
    place, fed = reader.received.popitem()
    reader.asked.pop(reader.answered[0].lead_id)
    reader.answered.append(Answered(lead_id=ids.encode("lead", clock.new_id()), receipt=None))
    reader.complaints.append(Complaint(check="fed in order", detail=f"{place} came late", lead_id=fed))
    reader.statuses[500] += 1

    (world.directory / "logs" / "api-1.log").open("a").write(f"hello {world.aviary.canary(3).token}\n")
    (world.valkey.directory / "stray.txt").write_text(f"{world.provider_keys[0]}\n")
    await world.values("update business set name = $1 where name = 'business-1'", world.aviary.canary(4).phone)
    await world.values("update wallet set available_minor = available_minor + 1")
    return {
        "seen by one business", "sold once", "sent under one webhook id", "exposed before it was seen",
        "one answer per key", "refused is not taken", "no internal error", "everybody is answered",
        "acknowledged is kept", "no leak in logs", "no leak in Valkey", "no leak in the database",
        "exposed is read in the end", "charged for what was acknowledged", "acknowledged is charged once",
        "fed in order", "no internal error for readers", "listed is shown to nobody",
        "revoked is not shown afterwards", "verify: wallet_equals_entries",
    }  # fmt: skip


async def test_a_short_run_hurts_the_installation_and_finds_nothing(enterable_dir: Path) -> None:
    wish = Wish(duration=12.0, seed=4, rate=15.0, seconds_per_kill=2.0, seconds_per_fault=2.0, broken=None)
    report = await run(wish, enterable_dir)
    assert [told.violation for told in report.violations_told] == []
    assert report.troubles == ()
    assert report.acknowledged == report.leads > 100
    assert report.kills > 2
    assert report.checks["acknowledged is charged once"] > 10
    assert report.checks["exposed is told again"] > 10
    assert report.checks["listed is shown to nobody"] > 10
    assert report.checks["revoked is not shown afterwards"] > 5
    assert "no violation found in" in page.publish(report).lower()
    assert msgspec.json.decode(msgspec.json.encode(report))["kills"] == report.kills
