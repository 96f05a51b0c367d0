"""Mapped endpoints over the API: shown, set and proven by a test lead; one account is one business's."""

from typing import Any

import msgspec
import pytest

from tests.builders.service import Served
from tests.receivers import Receiver, answer, html_page, ok

MAPPING: dict[str, Any] = {"format": "json", "body": '{"phone": "{{ contact.phone }}"}'}
BEARER = {"type": "bearer", "token": "very-secret"}


async def webhook(api: Served, url: str = "https://crm.example.com/leads") -> tuple[str, str]:
    """The path of a new webhook, and its owner's key."""
    _, key = await api.business()
    made = await api.endpoint(key, url)
    return f"/v1/endpoints/{made['id']}", key


async def test_a_mapping_is_set_and_shown_without_its_secrets(api: Served) -> None:
    path, key = await webhook(api)
    assert (await api.call("GET", f"{path}/mapping", key=key)).json() == {
        "version": 1, "mapping": None, "credentials": None,
    }  # fmt: skip
    body = {"version": 1, "mapping": MAPPING, "credentials": BEARER}
    changed = await api.call("PUT", f"{path}/mapping", body, key=key)
    assert changed.status_code == 200, changed.text
    assert (changed.json()["version"], changed.json()["credentials"]) == (2, "bearer")
    assert "very-secret" not in changed.text
    assert await api.pool.fetchval("select count(*) from endpoint where credentials::text like '%very%'") == 0
    detail = await api.pool.fetchval("select detail from audit where action = 'endpoint.mapping'")
    assert msgspec.json.decode(detail) == {"version": 2, "format": "json", "credentials": "bearer"}
    kept = await api.call("PUT", f"{path}/mapping", {"version": 2, "mapping": MAPPING | {"method": "PUT"}}, key=key)
    assert kept.json()["credentials"] == "bearer"
    stale = await api.call("PUT", f"{path}/mapping", body, key=key)
    assert (stale.status_code, stale.json()["code"]) == (409, "conflict")
    gone = await api.call("PUT", f"{path}/mapping", {"version": 3, "mapping": None}, key=key)
    assert gone.json() == {"version": 4, "mapping": None, "credentials": None}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"mapping": MAPPING | {"body": "{{ nothing }}"}}, "/body"),
        ({"mapping": MAPPING | {"headers": [{"name": "Host", "value": "x"}]}}, "/headers/0/name"),
        ({"mapping": MAPPING | {"headers": [{"name": "X", "value": "a\nb"}]}}, "/mapping/headers/0/value"),
        ({"credentials": {"type": "oauth2", "token_url": "http://10.0.0.1/", "client_id": "a", "client_secret": "b"}},
         "/credentials/token_url"),
        ({"credentials": {"type": "bearer", "token": "a\r\nX: y"}}, "/credentials/token"),
        ({"credentials": {"type": "magic"}}, "/credentials/type"),
    ],
)  # fmt: skip
async def test_a_mapping_with_faults_is_refused(api: Served, change: dict[str, Any], place: str) -> None:
    path, key = await webhook(api)
    refused = await api.call("PUT", f"{path}/mapping", {"version": 1, "mapping": MAPPING} | change, key=key)
    assert refused.status_code == 422, refused.text
    assert place in [fault["pointer"] for fault in refused.json()["errors"]], refused.text


async def test_a_preview_fills_the_template_in(api: Served) -> None:
    _, key = await webhook(api)
    shown = await api.call("POST", "/v1/endpoints:preview", MAPPING, key=key)
    assert shown.json() == {"body": '{"phone": "+13125550142"}'}


async def test_a_mapped_endpoint_is_proven_by_a_test_lead_that_its_software_accepts(api: Served) -> None:
    async with Receiver(html_page, ok) as crm:
        path, key = await webhook(api, crm.url)
        await api.call("PUT", f"{path}/mapping", {"version": 1, "mapping": MAPPING, "credentials": BEARER}, key=key)
        refused = await api.call("POST", f"{path}/verify", key=key)
        assert (refused.status_code, refused.json()["code"]) == (409, "challenge_failed")
        assert refused.json()["detail"].startswith("test_lead_not_accepted:")
        verified = await api.call("POST", f"{path}/verify", key=key)
        assert verified.json()["state"] == "active", verified.text
        assert crm.visits[1].body == b'{"phone": "+13125550142"}'
        assert crm.visits[1].headers["Authorization"] == "Bearer very-secret"


async def test_an_address_serves_several_businesses_by_their_own_accounts_only(api: Served) -> None:
    async with Receiver(*[answer(200)] * 9) as crm:
        outcomes = []
        for token in ("first", "second", "first"):
            path, key = await webhook(api, crm.url)
            body = {"version": 1, "mapping": MAPPING, "credentials": {"type": "bearer", "token": token}}
            assert (await api.call("PUT", f"{path}/mapping", body, key=key)).status_code == 200
            outcomes.append((await api.call("POST", f"{path}/verify", key=key)).status_code)
        assert outcomes == [200, 200, 409]
