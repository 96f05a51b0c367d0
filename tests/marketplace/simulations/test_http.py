"""Simulations over HTTP and from the terminal: requested, followed, read as JSON and CSV, refused with a reason."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from marketplace.cli import marketplace as command
from marketplace.runtime import ids
from marketplace.runtime.settings import Settings, StartError
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace
from tests.builders.service import Served, serve
from tests.conftest import SECRETS
from tests.receivers import Receiver, ok

SCORE = {"type": "policy", "minimum_score": 90}


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """The API, and a marketplace with two businesses that have sold three leads."""

    api: Served
    settings: Settings
    market: Marketplace
    buyers: tuple[Buyer, Buyer]

    async def post(self, *changes: dict[str, Any], **fields: Any) -> Any:
        return await self.api.call("POST", "/v1/simulations", {"vertical": "roofing", "changes": changes, **fields})

    async def run(self, *arguments: str) -> Result:
        """Run the command in a thread, because it has an event loop of its own."""
        environment = SECRETS | {"DATABASE_URL": self.settings.database_url, "VALKEY_URL": self.settings.valkey_url}
        return await asyncio.to_thread(CliRunner().invoke, command, ["simulate", *arguments], env=environment)


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(marketplace(settings))
        receiver = await stack.enter_async_context(Receiver(ok))
        buyers = (await market.buyer(receiver.url), await market.buyer(receiver.url, anywhere(priority=200)))
        for number in range(1, 4):
            await market.sold(number)
        api = await stack.enter_async_context(serve(settings))
        yield Scene(api=api, settings=settings, market=market, buyers=buyers)


async def test_a_simulation_is_requested_followed_and_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids.encode("sub", scene.buyers[0].subscription_id)
    reply = await scene.post({"type": "pause", "subscription_id": first})
    assert reply.status_code == 202, reply.text
    requested = reply.json()
    assert (requested["state"], requested["result"]) == ("waiting", None)
    address = reply.headers["location"]
    await scene.market.owner.execute("update simulation set state = 'running'")
    monkeypatch.setattr("os.nice", lambda _: 0)  # it would hold for the other tests of this process
    ran = await scene.run("--job", requested["id"])
    assert ran.exit_code == 0, ran.output
    done = (await scene.api.call("GET", address)).json()
    assert (done["state"], done["leads_done"]) == ("done", 3)
    comparison = done["result"]["comparison"]
    assert (comparison["before"]["sold"], comparison["moved"]) == (3, 3)
    assert comparison["reproduction"]["same_business"] == 3
    assert done["result"]["sentences"][0].startswith("With a subscription paused: as many sales a week")
    assert "not known" in done["result"]["unknown"]
    listed = (await scene.api.call("GET", "/v1/simulations?vertical=roofing")).json()
    assert [row["id"] for row in listed["data"]] == [requested["id"]]
    assert listed["data"][0]["result"]["comparison"] == comparison | {"businesses": []}
    other = (await scene.api.call("GET", "/v1/simulations?vertical=other")).json()
    assert other["data"] == []
    page = (await scene.api.call("GET", f"{address}/businesses?limit=1")).json()
    rest = (await scene.api.call("GET", f"{address}/businesses?cursor={page['next_cursor']}")).json()
    assert {row["business_id"] for row in (*page["data"], *rest["data"])} == {
        ids.encode("biz", buyer.business_id) for buyer in scene.buyers
    }
    text = (await scene.api.call("GET", f"{address}/businesses", headers={"accept": "text/csv"})).text
    assert text.splitlines()[0].startswith("business_id,leads_before,leads_after")
    assert len(text.splitlines()) == 3


async def test_a_simulation_is_cancelled_once(scene: Scene) -> None:
    address = (await scene.post(SCORE)).headers["location"]
    for _ in range(2):
        reply = await scene.api.call("DELETE", address)
        assert (reply.status_code, reply.json()["state"]) == (200, "cancelled")
    assert await scene.market.value("select count(*) from audit where action = 'simulation.cancel'") == 1


@pytest.mark.parametrize(
    ("changes", "fields", "expected"),
    [
        ([], {}, [("/changes", "not_exactly_one")]),
        ([SCORE], {"suggest": True}, [("/changes", "not_exactly_one")]),
        ([SCORE], {"vertical": "nowhere"}, [("/vertical", "vertical_unknown")]),
        ([SCORE], {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, [("/from", "range_empty")]),
        ([SCORE], {"from": "2020-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, [("/from", "range_too_long")]),
        ([SCORE], {"to": "2999-01-01T00:00:00Z"}, [("/to", "range_in_future")]),
        ([SCORE, SCORE], {"to": "2999-01-01T00:00:00Z"}, [("/to", "range_in_future"), ("/changes/1", "changed_twice")]),
        (
            [{"type": "price", "subscription_id": "x", "price_minor": 1, "per": "lead"}],
            {},
            [("/changes/0/per", "unknown_field")],
        ),
        ([{"type": "nothing"}], {}, [("/changes/0/type", "value_not_allowed")]),
        ([{"type": "policy", "minimum_score": 101}], {}, [("/changes/0/minimum_score", "out_of_range")]),
    ],
)
async def test_what_is_wrong_with_a_request_is_said_at_its_place(
    scene: Scene, changes: list[dict[str, Any]], fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    reply = await scene.post(*changes, **fields)
    assert reply.status_code == 422, reply.text
    assert [(fault["pointer"], fault["code"]) for fault in reply.json()["errors"]] == expected


async def test_the_command_prints_the_difference_and_writes_it(scene: Scene, tmp_path: Path) -> None:
    file, changes = tmp_path / "result.json", tmp_path / "changes.json"
    second = ids.encode("sub", scene.buyers[1].subscription_id)
    changes.write_text(json.dumps({"changes": [{"type": "pause", "subscription_id": second}]}))
    first = ids.encode("sub", scene.buyers[0].subscription_id)
    ran = await scene.run("roofing", "--price", f"{first}=6000", "--changes", str(changes), "--json", str(file))
    assert ran.exit_code == 0, ran.output
    assert "With a subscription paused, a price of USD 60:" in ran.output
    assert json.loads(file.read_text())["comparison"]["after"]["revenue_minor"] == 18_000
    suggested = await scene.run("roofing", "--suggest")
    assert "changes were tried one by one" in suggested.output
    refused = await scene.run("roofing", "--price", "sub_x=1")
    assert isinstance(refused.exception, StartError)
    assert "Name a live subscription" in refused.exception.sentence
    for arguments in (("roofing", "--price", "x"), ("roofing", "--changes", str(file)), ()):
        assert (await scene.run(*arguments)).exit_code == 2
