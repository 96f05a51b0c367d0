"""Who may do what to whose things: one table over every route of the directory and of funds."""

import re
from typing import Any

import msgspec
import pytest

from marketplace import directory, funds
from tests.builders.marketplaces import anywhere, roofing
from tests.builders.service import Served, an_order

OPERATOR, BUSINESS, PROVIDER = "operator", "business", "provider"
EVERYBODY = (OPERATOR, BUSINESS, PROVIDER)
NAMED = {"name": "x"}
CHANGE = {"name": "x", "endpoint_id": "{whe}", "definition": anywhere(), "version": 1}

ROUTES: tuple[tuple[str, str, object, tuple[str, ...]], ...] = (
    ("POST", "/v1/verticals", {"slug": "other", "definition": roofing()}, (OPERATOR,)),
    ("PUT", "/v1/verticals/roofing", {"definition": roofing(), "version": 1}, (OPERATOR,)),
    ("GET", "/v1/verticals/roofing", None, EVERYBODY),
    ("GET", "/v1/verticals", None, EVERYBODY),
    ("GET", "/v1/spec/roofing", None, (OPERATOR, PROVIDER)),
    ("POST", "/v1/providers", {"name": "x", "payout": {"type": "fixed", "minor": 1}}, (OPERATOR,)),
    ("PATCH", "/v1/providers/{prov}", NAMED, (OPERATOR,)),
    ("GET", "/v1/providers/{prov}", None, (OPERATOR,)),
    ("GET", "/v1/providers", None, (OPERATOR,)),
    ("POST", "/v1/businesses", {"name": "x", "zone": "UTC", "currency": "USD"}, (OPERATOR,)),
    ("PATCH", "/v1/businesses/{biz}", NAMED, (OPERATOR,)),
    ("GET", "/v1/businesses/{biz}", None, (OPERATOR,)),
    ("GET", "/v1/businesses", None, (OPERATOR,)),
    ("POST", "/v1/keys", {"kind": "operator", "mode": "live", "name": "x"}, (OPERATOR,)),
    ("GET", "/v1/keys", None, (OPERATOR,)),
    ("DELETE", "/v1/keys/{key}", None, (OPERATOR,)),
    ("POST", "/v1/endpoints", {"url": "https://own.example.com/", "business_id": "{biz}"}, (OPERATOR, BUSINESS)),
    ("GET", "/v1/endpoints", None, (OPERATOR, BUSINESS)),
    ("GET", "/v1/endpoints/{whe}", None, (OPERATOR, BUSINESS)),
    ("POST", "/v1/endpoints/{whe}/verify", None, (OPERATOR, BUSINESS)),
    ("POST", "/v1/endpoints/{whe}/rotate-secret", None, (OPERATOR, BUSINESS)),
    ("PATCH", "/v1/endpoints/{whe}", {"state": "disabled"}, (OPERATOR, BUSINESS)),
    ("POST", "/v1/subscriptions", an_order("{whe}", business_id="{biz}"), (OPERATOR, BUSINESS)),
    ("PUT", "/v1/subscriptions/{sub}", CHANGE, (OPERATOR, BUSINESS)),
    ("GET", "/v1/subscriptions", None, (OPERATOR, BUSINESS)),
    ("GET", "/v1/subscriptions/{sub}", None, (OPERATOR, BUSINESS)),
    ("POST", "/v1/subscriptions/{sub}/pause", None, (OPERATOR, BUSINESS)),
    ("POST", "/v1/subscriptions/{sub}/resume", None, (OPERATOR, BUSINESS)),
    ("DELETE", "/v1/subscriptions/{sub}", None, (OPERATOR, BUSINESS)),
    ("POST", "/v1/suppressions", {"email": "a@example.com", "reason": "asked"}, (OPERATOR, PROVIDER)),
    (
        "POST",
        "/v1/top-ups",
        {"business_id": "{biz}", "amount_minor": 1, "currency": "USD", "event_id": "e"},
        (OPERATOR,),
    ),
    ("GET", "/v1/wallet?business_id={biz}", None, (OPERATOR, BUSINESS)),
    ("PATCH", "/v1/wallet", {"business_id": "{biz}", "credit_limit_minor": 1}, (OPERATOR,)),
    ("GET", "/v1/wallet/statement?business_id={biz}", None, (OPERATOR, BUSINESS)),
    ("GET", "/v1/earnings", None, (PROVIDER,)),
)


class Scene:
    """A business with everything, a provider, and a second business that owns nothing of it."""

    def __init__(self, ids: dict[str, str], keys: dict[str, str], stranger: str) -> None:
        self.ids = ids
        self.keys = keys
        self.stranger = stranger

    def fill(self, value: object) -> Any:
        """The value with `{biz}` and its like replaced by this scene's ids."""
        text = msgspec.json.encode(value).decode()
        for name, one in self.ids.items():
            text = text.replace(f"{{{name}}}", one)
        return msgspec.json.decode(text)


async def scene_of(api: Served) -> Scene:
    await api.vertical()
    provider, provider_key = await api.provider()
    business, business_key = await api.business()
    _, stranger = await api.business()
    endpoint = (await api.endpoint(business_key, "http://127.0.0.1:9/hook"))["id"]
    subscription = (await api.subscription(business_key, endpoint))["id"]
    third = (await api.key("provider", provider)).split("_")[2]
    ids = {"prov": provider, "biz": business, "whe": endpoint, "sub": subscription, "key": third}
    return Scene(ids, {OPERATOR: api.operator, BUSINESS: business_key, PROVIDER: provider_key}, stranger)


def test_the_table_has_a_row_for_every_route() -> None:
    def shape(method: str, path: str) -> tuple[str, str]:
        return method, re.sub(r"\{[^}]*\}|(?<=/)roofing", "{}", path.partition("?")[0])

    served = {
        shape(method, path)
        for handler in (*directory.handlers, *funds.handlers)
        for path in handler.paths
        for method in handler.http_methods
        if method not in ("HEAD", "OPTIONS")
    }
    assert {shape(method, path) for method, path, _, _ in ROUTES} == served


@pytest.mark.parametrize("kind", EVERYBODY)
async def test_each_kind_of_key_does_its_own_work_and_no_other(api: Served, kind: str) -> None:
    scene = await scene_of(api)
    for method, path, body, allowed in ROUTES:
        if "DELETE" in method and kind in allowed:
            continue  # the end of a thing has tests of its own
        reply = await api.call(
            method, scene.fill(path), None if body is None else scene.fill(body), key=scene.keys[kind]
        )
        where = f"{method} {path} by {kind}: {reply.status_code} {reply.text}"
        if kind in allowed:
            assert reply.status_code in (200, 201, 409), where
        else:
            assert (reply.status_code, reply.json()["code"]) == (403, "scope_missing"), where
        assert reply.headers["cache-control"] == "no-store", where


async def test_without_a_key_nothing_is_answered(api: Served) -> None:
    scene = await scene_of(api)
    for method, path, body, _ in ROUTES:
        reply = await api.call(method, scene.fill(path), None if body is None else scene.fill(body), key="")
        assert (reply.status_code, reply.json()["code"]) == (401, "not_authenticated"), f"{method} {path}"


async def test_what_is_anothers_looks_exactly_like_what_does_not_exist(api: Served) -> None:
    scene = await scene_of(api)
    for method, path, body, allowed in ROUTES:
        named = re.findall(r"\{(whe|sub|biz)\}", path) or re.findall(r"\{(biz)\}", str(body))
        if BUSINESS not in allowed or not named:
            continue
        nothing = dict(scene.ids)
        for name in named:
            last = nothing[name][-1]
            nothing[name] = nothing[name][:-1] + ("0" if last != "0" else "1")
        answers = []
        for ids in (scene.ids, nothing):
            asked = Scene(ids, scene.keys, scene.stranger)
            sent = None if body is None else asked.fill(body)
            reply = await api.call(method, asked.fill(path), sent, key=scene.stranger)
            answers.append((reply.status_code, reply.json() | {"instance": ""}))
        assert answers[0] == answers[1], f"{method} {path}"
        assert answers[0][0] == 404, f"{method} {path}: {answers[0]}"
    for path in ("/v1/endpoints", "/v1/subscriptions"):
        assert (await api.call("GET", path, key=scene.stranger)).json()["data"] == []


async def test_a_key_of_another_kind_of_thing_is_no_id(api: Served) -> None:
    scene = await scene_of(api)
    for path in (
        f"/v1/endpoints/{scene.ids['sub']}",
        "/v1/subscriptions/1",
        "/v1/providers/prov_'",
        "/v1/keys/%00",
        "/v1/spec/%00",
    ):
        method = "DELETE" if "/keys/" in path else "GET"
        assert (await api.call(method, path)).status_code == 404, path
