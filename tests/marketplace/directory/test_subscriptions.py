"""Subscriptions: all faults at once, versions, pausing and ending, and modes."""

import asyncio
from typing import Any

import msgspec

from marketplace.database.db import open_pool
from marketplace.rules.catalog import Catalog
from tests.builders.marketplaces import anywhere
from tests.builders.service import Served, an_order

HOURS = {"spec": "Mo-Fr 08:00-18:00", "zone": "America/Chicago"}


async def furnished(api: Served) -> tuple[str, str]:
    """A business's key and its endpoint, with a vertical to subscribe to."""
    await api.vertical()
    _, key = await api.business()
    return key, (await api.endpoint(key))["id"]


def order(endpoint_id: str, **definition: Any) -> dict[str, Any]:
    return an_order(endpoint_id, definition=msgspec.to_builtins(anywhere()) | definition)


async def test_a_subscription_is_in_force_for_matching_at_once(api: Served) -> None:
    key, endpoint = await furnished(api)
    assert api.settings.database_url
    pool = await open_pool(api.settings.database_url, "marketplace_worker", size=1)
    catalog = Catalog(pool)
    assert not (await catalog.current()).index
    made = await api.make("/v1/subscriptions", order(endpoint, hours=HOURS), key=key)
    [compiled] = (await catalog.current()).index.values()
    await pool.close()
    assert (made["state"], made["version"], made["mode"]) == ("active", 1, "live")
    assert (compiled.version, compiled.definition.price_minor) == (1, made["definition"]["price_minor"])


FAULTS: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"currency": "EUR"}, "/definition/currency", "currency_not_wallet"),
    ({"currency": "EUR"}, "/definition/currency", "currency_not_vertical"),
    ({"area": {}}, "/definition/area", "area_empty"),
    ({"area": {"anywhere": True, "postcodes": ["60614"]}}, "/definition/area/postcodes", "unknown_field"),
    ({"price": 1}, "/definition/price", "unknown_field"),
    ({"price_minor": 0}, "/definition/price_minor", "out_of_range"),
    ({"price_minor": 10**26}, "/definition/price_minor", "out_of_range"),
    ({"price_minor": 50.5}, "/definition/price_minor", "type_wrong"),
    ({"zone": "Mars/Olympus"}, "/definition/zone", "unknown_zone"),
    ({"hours": HOURS | {"spec": "whenever"}}, "/definition/hours/spec", "hours_invalid"),
    ({"hours": HOURS | {"zone": "Mars/Olympus"}}, "/definition/hours/zone", "unknown_zone"),
    ({"caps": [{"window": "day"}]}, "/definition/caps/0", "rule_empty"),
    ({"caps": [{"window": "fortnight", "count": 1}]}, "/definition/caps/0/window", "value_not_allowed"),
    (
        {"attributes": [{"field": "colour", "any_of": ["red"]}]},
        "/definition/attributes/0/field",
        "unknown_need_field",
    ),
    ({"persona": {"roles": ["a\u0000b"]}}, "/definition/persona/roles/0", "character_not_allowed"),
)


async def test_a_fault_in_an_order_is_named_where_it_is(api: Served) -> None:
    key, endpoint = await furnished(api)
    for definition, pointer, code in FAULTS:
        refused = await api.call("POST", "/v1/subscriptions", order(endpoint, **definition), key=key)
        assert refused.status_code == 422
        assert (pointer, code) in [(fault["pointer"], fault["code"]) for fault in refused.json()["errors"]], (
            refused.text
        )


async def test_all_faults_of_an_order_are_told_at_once(api: Served) -> None:
    key, endpoint = await furnished(api)
    body = order("whe_none", zone="Nowhere", price_minor=-1, currency="EUR") | {"vertical": "roofing"}
    refused = await api.call("POST", "/v1/subscriptions", body, key=key)
    assert {fault["pointer"] for fault in refused.json()["errors"]} == {
        "/endpoint_id",
        "/definition/zone",
        "/definition/price_minor",
        "/definition/currency",
    }
    unknown = await api.call("POST", "/v1/subscriptions", order(endpoint) | {"vertical": "none-such"}, key=key)
    assert [fault["code"] for fault in unknown.json()["errors"]] == ["vertical_unknown"]
    assert not await api.pool.fetchval("select count(*) from subscription")


async def test_another_businesss_endpoint_is_as_unknown_as_one_that_does_not_exist(api: Served) -> None:
    key, _ = await furnished(api)
    _, stranger = await api.business()
    theirs = (await api.endpoint(stranger, "https://other.example.com/"))["id"]
    nobodys = theirs[:-1] + ("0" if theirs[-1] != "0" else "1")
    refused = [
        await api.call("POST", "/v1/subscriptions", order(endpoint_id), key=key) for endpoint_id in (theirs, nobodys)
    ]
    answers = [reply.json() | {"instance": ""} for reply in refused]
    assert answers[0] == answers[1]
    assert answers[0]["errors"][0]["code"] == "endpoint_unknown"


async def test_an_edit_is_a_new_version_and_what_leads_were_sold_by_stays(api: Served) -> None:
    key, endpoint = await furnished(api)
    made = await api.make("/v1/subscriptions", order(endpoint), key=key)
    path = f"/v1/subscriptions/{made['id']}"
    body = {"name": "Dearer", "endpoint_id": endpoint, "definition": anywhere(price_minor=7_000), "version": 1}
    changed = await api.call("PUT", path, body, key=key)
    assert (changed.status_code, changed.json()["version"], changed.json()["name"]) == (200, 2, "Dearer")
    assert changed.json() == (await api.call("GET", path, key=key)).json()
    versions = await api.pool.fetch("select definition from subscription_version order by version")
    assert [msgspec.json.decode(row["definition"])["price_minor"] for row in versions] == [5_000, 7_000]
    stale = await api.call("PUT", path, body, key=key)
    assert (stale.status_code, stale.json()["code"]) == (409, "conflict")


async def test_of_many_edits_of_one_version_exactly_one_is_made(api: Served) -> None:
    key, endpoint = await furnished(api)
    made = await api.make("/v1/subscriptions", order(endpoint), key=key)
    body = {"name": "Mine", "endpoint_id": endpoint, "definition": anywhere()}
    path = f"/v1/subscriptions/{made['id']}"
    edits = await asyncio.gather(*(api.call("PUT", path, body, key=key, headers={"if-match": '"1"'}) for _ in range(6)))
    assert sorted(reply.status_code for reply in edits) == [200, 409, 409, 409, 409, 409]


async def test_a_subscription_is_paused_resumed_and_ended_for_good_and_is_never_deleted(api: Served) -> None:
    key, endpoint = await furnished(api)
    made = await api.make("/v1/subscriptions", order(endpoint), key=key)
    path = f"/v1/subscriptions/{made['id']}"
    moves = [("POST", "/pause"), ("POST", "/pause"), ("POST", "/resume"), ("DELETE", ""), ("DELETE", "")]
    states = [(await api.call(method, path + move, key=key)).json()["state"] for method, move in moves]
    assert states == ["paused", "paused", "active", "ended", "ended"]
    body = {"name": "Again", "endpoint_id": endpoint, "definition": anywhere(), "version": 1}
    for method, move, sent in (("POST", "/resume", None), ("POST", "/pause", None), ("PUT", "", body)):
        assert (await api.call(method, path + move, sent, key=key)).status_code == 409
    assert (await api.call("GET", path, key=key)).json()["state"] == "ended"
    switches = [subject for action, subject in await api.audited() if action == "subscription.switch"]
    assert switches == [made["id"]] * 3


async def test_the_mode_of_a_subscription_is_its_keys_and_neither_mode_sees_the_other(api: Served) -> None:
    await api.vertical()
    business, live = await api.business()
    test_key = await api.key("business", business, "test")
    endpoint = (await api.endpoint(live))["id"]
    made = {key: await api.make("/v1/subscriptions", order(endpoint), key=key) for key in (live, test_key)}
    assert [made[live]["mode"], made[test_key]["mode"]] == ["live", "test"]
    for key, other in ((live, test_key), (test_key, live)):
        listed = (await api.call("GET", "/v1/subscriptions", key=key)).json()["data"]
        assert [row["id"] for row in listed] == [made[key]["id"]]
        assert (await api.call("DELETE", f"/v1/subscriptions/{made[other]['id']}", key=key)).status_code == 404
    refused = await api.call("POST", "/v1/subscriptions", order(endpoint) | {"mode": "live"}, key=test_key)
    assert (refused.status_code, refused.json()["code"]) == (403, "key_wrong_mode")


async def test_an_operator_subscribes_for_a_business_in_the_mode_it_names(api: Served) -> None:
    await api.vertical()
    business, key = await api.business()
    endpoint = (await api.endpoint(key))["id"]
    missing = await api.call("POST", "/v1/subscriptions", order(endpoint))
    assert missing.json()["errors"][0]["pointer"] == "/business_id"
    body = order(endpoint) | {"business_id": business, "mode": "test"}
    assert (await api.make("/v1/subscriptions", body))["mode"] == "test"
    listed = (await api.call("GET", f"/v1/subscriptions?business_id={business}")).json()["data"]
    assert [row["business_id"] for row in listed] == [business]


async def test_an_order_may_name_every_postal_code_of_a_large_country(api: Served) -> None:
    key, endpoint = await furnished(api)
    codes = [f"{number:05}" for number in range(42_789)]
    made = await api.make("/v1/subscriptions", order(endpoint, area={"postal_codes": codes}), key=key)
    assert len(made["definition"]["area"]["postal_codes"]) == len(codes)
    large = b'{"name": "' + b"x" * 1_100_000 + b'"}'
    refused = await api.call("POST", "/v1/subscriptions", large, key=key)
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
