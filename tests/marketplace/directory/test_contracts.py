"""Response contracts over the API: shown, set once their samples agree, and versioned with the audit trail."""

from typing import Any

import msgspec
import pytest

from tests.builders.service import Served

RIGHT: dict[str, Any] = {
    "accepted": [{"path": "lead.id"}],
    "refused": [{"path": "outcome", "values": ["failure"]}],
    "samples": [
        {"expected": "accepted", "body": '{"lead":{"id":1}}'},
        {"expected": "refused", "body": '{"outcome":"failure"}'},
    ],
}


async def webhook(api: Served) -> tuple[str, str]:
    """The path of the contract of a new webhook, and its owner's key."""
    _, key = await api.business()
    made = await api.endpoint(key, "https://crm.example.com/leads")
    return f"/v1/endpoints/{made['id']}/contract", key


async def test_an_endpoint_begins_with_our_own_format(api: Served) -> None:
    path, key = await webhook(api)
    shown = (await api.call("GET", path, key=key)).json()
    assert (shown["version"], shown["own"]) == (1, False)
    assert shown["contract"]["accepted"] == [{"empty": True}, {"path": "status", "values": ["accepted"]}]


async def test_a_contract_is_set_shown_and_recorded_without_its_samples(api: Served) -> None:
    path, key = await webhook(api)
    changed = await api.call("PUT", path, {"version": 1, "contract": RIGHT}, key=key)
    assert changed.status_code == 200, changed.text
    assert changed.json() == {"version": 2, "own": True, "contract": RIGHT} | {"contract": changed.json()["contract"]}
    assert (await api.call("GET", path, key=key)).json() == changed.json()
    detail = await api.pool.fetchval("select detail from audit where action = 'endpoint.contract'")
    recorded = msgspec.json.decode(detail)
    assert recorded["version"] == 2
    assert msgspec.json.decode(recorded["rules"]).keys() == {"accepted", "refused"}
    stale = await api.call("PUT", path, {"version": 1, "contract": RIGHT}, key=key)
    assert (stale.status_code, stale.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"samples": []}, "/contract/samples"),
        ({"samples": [{"expected": "accepted", "body": "{}"}]}, "/contract/samples/0"),
        ({"samples": [*RIGHT["samples"], {"expected": "duplicate", "status": 409}]}, "/contract/samples/2"),
        ({"accepted": [{"status": "2xx"}]}, "/contract/accepted"),
        ({"accepted": [{}]}, "/contract/accepted/0"),
        ({"accepted": [{"values": ["x"], "empty": True}]}, "/contract/accepted/0/path"),
        ({"accepted": [{"path": "a..b"}]}, "/contract/accepted/0/path"),
        ({"accepted": [{"status": "99"}]}, "/contract/accepted/0/status"),
        ({"accepted": [{"text": "*"}] * 21}, "/contract/accepted"),
        ({"reference": "$."}, "/contract/reference"),
        ({"refused": [{"regex": "(a+)+"}]}, "/contract/refused/0/regex"),
    ],
)
async def test_a_contract_that_disagrees_with_its_samples_or_says_nothing_is_refused(
    api: Served, change: dict[str, Any], place: str
) -> None:
    path, key = await webhook(api)
    refused = await api.call("PUT", path, {"version": 1, "contract": RIGHT | change}, key=key)
    assert refused.status_code == 422, refused.text
    assert place in [fault["pointer"] for fault in refused.json()["errors"]]
    assert (await api.call("GET", path, key=key)).json()["version"] == 1


async def test_a_feed_has_no_contract(api: Served) -> None:
    _, key = await api.business()
    feed = (await api.call("POST", "/v1/endpoints", {"kind": "feed"}, key=key)).json()
    shown = await api.call("GET", f"/v1/endpoints/{feed['id']}/contract", key=key)
    assert (shown.status_code, shown.json()["code"]) == (409, "conflict")
