"""Operator's terms: weight, priority and the lowest price, who sets them, and where they hold."""

import asyncio
from typing import Any

import msgspec
import pytest

from tests.builders.marketplaces import anywhere, roofing
from tests.builders.service import Served, an_order

TERMS = "/v1/verticals/roofing/terms"


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """A business with a key and an endpoint, in a served marketplace with a vertical."""

    api: Served
    business: str
    key: str
    endpoint: str

    async def subscribe(self, key: str | None = "own", **definition: Any) -> Any:
        """Answer to a new subscription; None is an operator's key."""
        body = an_order(self.endpoint, definition=DEFINITION | definition)
        if key is None:
            return await self.api.call("POST", "/v1/subscriptions", body | {"business_id": self.business})
        return await self.api.call("POST", "/v1/subscriptions", body, key=self.key)

    async def stored(self) -> list[tuple[int, int, int]]:
        """Version, weight and priority of each subscription, oldest first."""
        rows = await self.api.pool.fetch(
            "select s.version, d.definition from subscription s join subscription_version d "
            "on (d.subscription_id, d.version) = (s.id, s.version) order by s.id"
        )
        read = [(row["version"], msgspec.json.decode(row["definition"])) for row in rows]
        return [(version, definition["weight"], definition["priority"]) for version, definition in read]

    async def audited(self, action: str) -> list[dict[str, Any]]:
        rows = await self.api.pool.fetch("select detail from audit where action = $1 order by at, id", action)
        return [msgspec.json.decode(row["detail"]) for row in rows]


DEFINITION = {
    name: value for name, value in msgspec.to_builtins(anywhere()).items() if name not in ("weight", "priority")
}


@pytest.fixture
async def shop(api: Served) -> Shop:
    await api.vertical()
    business, key = await api.business()
    return Shop(api=api, business=business, key=key, endpoint=(await api.endpoint(key))["id"])


def codes(reply: Any) -> list[tuple[str, str]]:
    return [(fault["pointer"], fault["code"]) for fault in reply.json()["errors"]]


async def test_a_business_sets_neither_weight_nor_priority(shop: Shop) -> None:
    refused = await shop.subscribe(weight=1_000, priority=0)
    assert (refused.status_code, codes(refused)) == (
        422, [("/definition/weight", "set_by_operator"), ("/definition/priority", "set_by_operator")]
    )  # fmt: skip
    assert "it is 1 for this business" in refused.json()["errors"][0]["detail"]
    assert (await shop.subscribe(weight=1, priority=100)).status_code == 201
    assert await shop.stored() == [(1, 1, 100)]


async def test_the_operators_terms_hold_for_all_subscriptions_of_the_business(shop: Shop) -> None:
    await shop.subscribe()
    changed = await shop.api.call("PUT", f"{TERMS}/{shop.business}", {"weight": 7, "priority": 20})
    assert (changed.status_code, changed.json()) == (200, {"weight": 7, "priority": 20})
    assert (await shop.api.call("GET", f"{TERMS}/{shop.business}")).json() == {"weight": 7, "priority": 20}
    made = (await shop.subscribe()).json()
    assert await shop.stored() == [(2, 7, 20), (1, 7, 20)]
    body = {"name": "Dearer", "endpoint_id": shop.endpoint, "definition": DEFINITION, "version": 1}
    kept = await shop.api.call("PUT", f"/v1/subscriptions/{made['id']}", body, key=shop.key)
    assert (kept.json()["definition"]["weight"], kept.json()["definition"]["priority"]) == (7, 20)
    body = body | {"definition": DEFINITION | {"weight": 1}, "version": 2}
    refused = await shop.api.call("PUT", f"/v1/subscriptions/{made['id']}", body, key=shop.key)
    assert codes(refused) == [("/definition/weight", "set_by_operator")]


async def test_an_operator_sets_the_terms_by_a_subscription(shop: Shop) -> None:
    await shop.subscribe()
    made = (await shop.subscribe(None, weight=5)).json()
    assert await shop.stored() == [(2, 5, 100), (1, 5, 100)]
    body = {"name": "x", "endpoint_id": shop.endpoint, "definition": DEFINITION | {"priority": 3}, "version": 1}
    assert (await shop.api.call("PUT", f"/v1/subscriptions/{made['id']}", body)).json()["version"] == 2
    assert await shop.stored() == [(3, 5, 3), (2, 5, 3)]


async def test_a_change_of_terms_is_audited_with_what_was_before(shop: Shop) -> None:
    await shop.subscribe()
    for weight in (7, 7, 9):
        await shop.api.call("PUT", f"{TERMS}/{shop.business}", {"weight": weight})
    standard = {"vertical": "roofing", "priority": 100, "priority_before": 100}
    assert await shop.audited("terms.change") == [
        standard | {"weight": 7, "weight_before": 1},
        standard | {"weight": 9, "weight_before": 7},
    ]
    assert [detail["version"] for detail in await shop.audited("subscription.revise")] == [2, 3]


@pytest.mark.parametrize(
    ("body", "pointer"), [({"weight": 0}, "/weight"), ({"priority": -1}, "/priority"), ({"share": 1}, "/share")]
)
async def test_terms_that_cannot_be_are_refused(shop: Shop, body: dict[str, int], pointer: str) -> None:
    refused = await shop.api.call("PUT", f"{TERMS}/{shop.business}", body)
    assert (refused.status_code, [where for where, _ in codes(refused)]) == (422, [pointer])


async def test_terms_of_nobody_are_not_found(shop: Shop) -> None:
    for path in (f"{TERMS}/biz_01m7zxrk0zezh9kk0e0qy31s5c", f"/v1/verticals/none/terms/{shop.business}"):
        assert (await shop.api.call("PUT", path, {"weight": 2})).status_code == 404
        assert (await shop.api.call("GET", path)).status_code == 404


async def test_a_subscription_made_while_terms_change_has_the_new_ones(shop: Shop) -> None:
    """Whichever is first, all subscriptions end with the terms in force."""
    for weight in range(2, 12):
        change = shop.api.call("PUT", f"{TERMS}/{shop.business}", {"weight": weight})
        replies = await asyncio.gather(change, shop.subscribe(), shop.subscribe())
        assert [reply.status_code for reply in replies] == [200, 201, 201]
        assert {stored for _, stored, _ in await shop.stored()} == {weight}


async def test_a_price_below_the_lowest_is_refused_with_the_amount(shop: Shop) -> None:
    raised = {"definition": roofing(reserve_minor=4_500), "version": 1}
    assert (await shop.api.call("PUT", "/v1/verticals/roofing", raised)).status_code == 200
    refused = await shop.subscribe(price_minor=4_499)
    assert codes(refused) == [("/definition/price_minor", "price_below_reserve")]
    assert "USD 45" in refused.json()["errors"][0]["detail"]
    assert (await shop.subscribe(price_minor=4_500)).status_code == 201
    assert (await shop.api.call("GET", "/v1/verticals/roofing", key=shop.key)).json()["reserve_minor"] == 4_500
    assert await shop.audited("vertical.revise") == [{"version": 2, "reserve_minor": 4_500, "reserve_before_minor": 1}]


async def test_a_subscription_keeps_a_lower_price_until_it_is_saved(shop: Shop) -> None:
    made = (await shop.subscribe(price_minor=2_000)).json()
    await shop.api.call("PUT", "/v1/verticals/roofing", {"definition": roofing(reserve_minor=4_500), "version": 1})
    path = f"/v1/subscriptions/{made['id']}"
    assert (await shop.api.call("GET", path, key=shop.key)).json()["definition"]["price_minor"] == 2_000
    body = {"name": "x", "endpoint_id": shop.endpoint, "definition": DEFINITION | {"price_minor": 2_000}, "version": 1}
    refused = await shop.api.call("PUT", path, body, key=shop.key)
    assert codes(refused) == [("/definition/price_minor", "price_below_reserve")]
