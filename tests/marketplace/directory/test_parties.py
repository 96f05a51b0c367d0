"""Providers, businesses and keys, over the wire."""

from datetime import timedelta

from marketplace.runtime import clock
from tests.builders.service import Served
from tests.waiting import tries


async def test_a_business_is_made_with_its_wallet(api: Served) -> None:
    body = {"name": "Example Roofs", "zone": "Europe/Paris", "currency": "EUR", "credit_limit_minor": 5_000}
    made = await api.make("/v1/businesses", body)
    wallet = (await api.call("GET", f"/v1/wallet?business_id={made['id']}")).json()
    assert wallet == {
        "business_id": made["id"],
        "currency": "EUR",
        "balance_minor": 0,
        "available_minor": 0,
        "held_minor": 0,
        "credit_limit_minor": 5_000,
    }
    assert made["state"] == "active"
    assert (await api.call("GET", f"/v1/businesses/{made['id']}")).json() == made


async def test_a_patch_changes_what_it_names_and_nothing_else(api: Served) -> None:
    business, _ = await api.business()
    changed = (await api.call("PATCH", f"/v1/businesses/{business}", {"zone": "America/Denver"})).json()
    assert (changed["name"], changed["zone"], changed["state"]) == ("Example Roofs", "America/Denver", "active")
    provider, _ = await api.provider()
    payout = {"type": "fixed", "minor": 700}
    changed = (await api.call("PATCH", f"/v1/providers/{provider}", {"payout": payout})).json()
    assert (changed["name"], changed["state"], changed["payout"]) == ("Example Leads", "active", payout)


async def test_a_suspended_provider_is_refused_at_its_next_call_and_welcome_again_after(api: Served) -> None:
    provider, key = await api.provider()
    await api.vertical()
    assert (await api.call("GET", "/v1/spec/roofing", key=key)).status_code == 200
    await api.call("PATCH", f"/v1/providers/{provider}", {"state": "suspended"})
    refused = await api.call("GET", "/v1/spec/roofing", key=key)
    assert (refused.status_code, refused.json()["code"]) == (403, "owner_suspended")
    await api.call("PATCH", f"/v1/providers/{provider}", {"state": "active"})
    assert (await api.call("GET", "/v1/spec/roofing", key=key)).status_code == 200


async def test_a_keys_text_is_shown_once_and_its_secret_is_nowhere_in_the_database(api: Served) -> None:
    provider, _ = await api.provider()
    body = {"kind": "provider", "owner_id": provider, "mode": "test", "name": "second"}
    made = await api.make("/v1/keys", body)
    assert made["key"].startswith(f"lk_test_{made['id']}_")
    listed = await api.call("GET", "/v1/keys")
    secret = made["key"].split("_")[3]
    assert made["id"] in listed.text
    assert secret not in listed.text
    dump = "".join(str(dict(row)) for row in await api.pool.fetch("select * from api_key"))
    assert secret not in dump


async def test_a_revoked_key_stops_at_once_and_revoking_it_again_changes_nothing(api: Served) -> None:
    _, key = await api.provider()
    path = f"/v1/keys/{key.split('_')[2]}"
    first = await api.call("DELETE", path)
    again = await api.call("DELETE", path)
    assert (first.status_code, first.json()) == (200, again.json())
    refused = await api.call("GET", "/v1/earnings", key=key)
    assert (refused.status_code, refused.json()["code"]) == (401, "key_revoked")
    assert [action for action, _ in await api.audited()].count("key.revoke") == 1


async def test_a_key_ends_when_it_says(api: Served) -> None:
    body = {"kind": "operator", "mode": "live", "name": "brief", "expires_at": clock.now() + timedelta(days=1)}
    made = await api.make("/v1/keys", body)
    await api.pool.execute("update api_key set expires_at = now() where id = $1", made["id"])
    refused = await api.call("GET", "/v1/keys", key=made["key"])
    assert (refused.status_code, refused.json()["code"]) == (401, "key_expired")


async def test_a_test_key_of_an_operator_changes_nothing_and_makes_no_live_key(api: Served) -> None:
    test_key = await api.key("operator", mode="test")
    assert (await api.call("GET", "/v1/businesses", key=test_key)).status_code == 200
    new_key = {"kind": "operator", "mode": "live", "name": "more"}
    for method, path, body in (
        ("POST", "/v1/keys", new_key),
        ("POST", "/v1/providers", {"name": "x", "payout": {"type": "fixed", "minor": 1}}),
        ("DELETE", f"/v1/keys/{api.operator.split('_')[2]}", None),
    ):
        refused = await api.call(method, path, body, key=test_key)
        assert (refused.status_code, refused.json()["code"]) == (403, "key_wrong_mode")
    await api.make("/v1/keys", new_key | {"mode": "test"}, key=test_key)


async def test_pages_follow_each_other_without_gap_or_repetition(api: Served) -> None:
    made = [(await api.provider())[0] for _ in range(5)]
    for path in ("/v1/providers", "/v1/keys"):
        all_ids: list[str] = []
        cursor = ""
        for _ in tries("the last page"):
            page = (await api.call("GET", f"{path}?limit=2{cursor}")).json()
            all_ids += [row["id"] for row in page["data"]]
            if not page["has_more"]:
                assert page["next_cursor"] is None
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert len(all_ids) == len(set(all_ids))
        assert all_ids == made[::-1] if path == "/v1/providers" else len(all_ids) == 6
    owned = (await api.call("GET", f"/v1/keys?owner_id={made[0]}")).json()["data"]
    assert [row["owner_id"] for row in owned] == [made[0]]


async def test_every_change_is_audited_with_who_made_it(api: Served) -> None:
    business, _ = await api.business()
    await api.call("PATCH", f"/v1/businesses/{business}", {"state": "frozen"})
    row = await api.pool.fetchrow("select actor, detail from audit where action = 'business.change'")
    assert row["actor"] == api.operator.split("_")[2]
    assert '"frozen"' in row["detail"]
    actions = [action for action, _ in await api.audited()]
    assert actions == ["business.create", "business.change"]
