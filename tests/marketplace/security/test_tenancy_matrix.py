"""Access of each kind of caller to each route: one table, in which every route must have a row."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import httpx
import msgspec
import pytest
from litestar.routes import HTTPRoute

from billing.returns import ReturnReason
from marketplace.app import create_app
from marketplace.database.embedded import Engines
from marketplace.feedback.flow import LeadHolder
from marketplace.feedback.returns import file_return
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings, load
from marketplace.security import audit
from marketplace.security.auth import CallerKind, key_id
from tests.builders.inquiries import iso, roofing_body
from tests.builders.learning import store_card
from tests.builders.lists import fill_list
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace, roofing
from tests.builders.service import Served, an_order, serve, until
from tests.conftest import SECRETS
from tests.receivers import Receiver, ok
from tests.waiting import PATIENCE

CALLERS: Final = (
    "operator", "provider", "other provider", "business", "other business",
    "test operator", "test provider", "test business",
)  # fmt: skip
NOBODY: Final = ("no key", "an unknown key", "a revoked key", "an expired key")

# One digit a caller, in the order of CALLERS. 2 is a 2xx, 1 a 401, 3 a 403, 4 a 404, 9 a 409, 5 a 422, 6 a 415.
CODES: Final = {"2": range(200, 300), "1": [401], "3": [403], "4": [404], "9": [409], "5": [422], "6": [415]}
PUBLIC: Final = "public"

REFUSALS: Final = ("scope_missing", "key_wrong_mode")
"What a 403 may say."

INQUIRY: Final = object()
"Stands for a new inquiry in the table."


def row(method: str, path: str, expected: str, body: Any = None) -> tuple[str, str, str, Any]:
    return method, path, expected.replace(" ", ""), body


#                                         operator, providers, businesses, the same in test mode
TABLE: Final = (
    row("GET", "/healthz", PUBLIC),
    row("GET", "/readyz", PUBLIC),
    row("GET", "/openapi.json", PUBLIC),
    row("GET", "/docs", PUBLIC),
    row("GET", "/docs/start.js", PUBLIC),
    row("GET", "/docs/assets/{file_path=favicon-32x32.png}", PUBLIC),
    row("GET", "/v1/receipt-key", PUBLIC),
    row("GET", "/v1/inquiries", "3 22 33 323"),
    row("POST", "/v1/inquiries", "3 22 33 323", INQUIRY),
    row("POST", "/v1/inquiries:validate", "3 22 33 323", INQUIRY),
    row("GET", "/v1/inquiries/{inquiry_id=lead}", "3 24 33 343"),
    row("PATCH", "/v1/inquiries/{inquiry_id=lead}", "3 24 33 343", {"bant": {"timing": {"within_days": 7}}}),
    row("POST", "/v1/inquiries/{inquiry_id=lead}/touches", "3 24 33 343",
        {"touches": [{"kind": "call", "at": "{now}"}]}),
    row("POST", "/v1/inquiries/{inquiry_id=lead}/give-back", "3 94 33 343"),
    row("GET", "/v1/leads/{lead_id=lead}/trace", "2 24 24 444"),
    row("GET", "/v1/leads/{lead_id=lead}/receipt", "2 24 24 444"),
    row("GET", "/v1/feed?lasts=0", "3 33 22 332"),
    row("GET", "/v1/feed/events", "3 33 22 332"),
    row("POST", "/v1/feed/acknowledgements", "3 33 22 332", {"through": 0}),
    row("POST", "/v1/feed/tickets", "3 33 22 332"),
    row("POST", "/v1/leads/{lead_id=lead}/acknowledge", "3 33 24 334"),
    row("GET", "/v1/leads", "3 33 22 332"),
    row("GET", "/v1/leads/{lead_id=lead}", "3 33 24 334"),
    row("GET", "/v1/leads/{lead_id=lead}/dispositions", "3 33 24 334"),
    row("POST", "/v1/leads/{lead_id=lead}/dispositions", "3 33 24 334", {"kind": "contacted"}),
    row("POST", "/v1/leads/{lead_id=lead}/return", "3 33 24 334", {"reason": "other", "note": "x"}),
    row("POST", "/v1/dispositions:import", "3 33 66 336", {"not": "CSV"}),
    row("POST", "/v1/dispositions:preview", "3 33 66 336", {"not": "CSV"}),
    row("GET", "/v1/imports", "2 33 22 232"),
    row("GET", "/v1/imports/{import_id=import}", "2 33 24 434"),
    row("GET", "/v1/imports/{import_id=import}/rows", "2 33 24 434"),
    row("POST", "/v1/imports/{import_id=import}/undo", "2 33 24 434"),
    row("PUT", "/v1/leads/{lead_id=lead}/next-action", "3 33 24 334", {"note": "call", "due_at": "{tomorrow}"}),
    row("GET", "/v1/leads/{lead_id=lead}/next-action", "3 33 24 334"),
    row("DELETE", "/v1/leads/{lead_id=lead}/next-action", "3 33 24 334"),
    row("GET", "/v1/next-actions", "3 33 22 332"),
    row("GET", "/v1/stage-changes", "3 33 22 332"),
    row("GET", "/v1/pipeline", "3 33 22 332"),
    row("PUT", "/v1/pipeline", "3 33 22 333", {"stages": []}),
    row("POST", "/v1/feedback-hook", "3 33 22 333"),
    row("DELETE", "/v1/feedback-hook/previous-secret", "3 33 22 333"),
    row("POST", "/in/feedback/{business_id=biz}", "1 11 11 111", {"lead_id": "{lead}", "kind": "contacted"}),
    row("GET", "/v1/returns", "2 33 22 232"),
    row("POST", "/v1/returns/{return_id=ret}/judge", "2 33 33 433", {"state": "granted", "finding": "so it is"}),
    row("GET", "/v1/leads/{lead_id=erased}/erasure", "3 33 24 334"),
    row("POST", "/v1/leads/{lead_id=erased}/erasure/acknowledge", "3 33 24 334"),
    row("GET", "/v1/erasures", "2 33 33 233"),
    row("GET", "/v1/erasures/{lead_id=erased}", "2 24 33 443"),
    row("POST", "/v1/erasures", "2 24 33 443", {"lead_id": "{erased}", "reason": "asked"}),
    row("POST", "/v1/revocations", "2 22 33 223", {"lead_id": "{erased}", "reason": "asked"}),
    row("GET", "/v1/revocations", "2 33 33 233"),
    row("POST", "/v1/revocation-hook", "2 22 33 333"),
    row("POST", "/in/revocations/{owner=prov}", "1 11 11 111", {"phone": "+13125550177"}),
    row("POST", "/v1/deletion-requests", "2 33 33 233", {"phone": "+13125550177"}),
    row("GET", "/v1/deletion-requests", "2 33 33 233"),
    row("GET", "/v1/deletion-requests/{request_id=del}", "2 33 33 433"),
    row("POST", "/v1/deletion-requests/{request_id=del}/carry-out", "2 33 33 433"),
    row("GET", "/v1/deletion-requests/{request_id=del}/proof", "2 33 33 433"),
    row("POST", "/v1/deletion-requests/{request_id=del}/refuse", "9 33 33 433", {"refusal": "not_found"}),
    row("POST", "/v1/people:export", "2 33 33 333", {"phone": "+13125550177", "reason": "asked"}),
    row("GET", "/v1/notices", "2 33 22 232"),
    row("POST", "/v1/notices/{notice_id=ntc}/acknowledge", "3 33 24 334"),
    row("GET", "/v1/verticals", "2 22 22 222"),
    row("POST", "/v1/verticals", "2 33 33 333", {"slug": "other", "definition": roofing()}),
    row("GET", "/v1/verticals/{slug=roofing}", "2 22 22 222"),
    row("PUT", "/v1/verticals/{slug=roofing}", "2 33 33 333", {"definition": roofing(), "version": 1}),
    row("GET", "/v1/verticals/{slug=roofing}/terms/{business_id=biz}", "2 33 33 233"),
    row("PUT", "/v1/verticals/{slug=roofing}/terms/{business_id=biz}", "2 33 33 333", {"weight": 1}),
    row("GET", "/v1/verticals/{slug=roofing}/scorecards", "2 33 33 333"),
    row("GET", "/v1/verticals/{slug=roofing}/scorecards/{version=1}", "2 33 33 333"),
    row("GET", "/v1/spec/{slug=roofing}", "2 22 33 223"),
    row("GET", "/v1/providers", "2 33 33 233"),
    row("POST", "/v1/providers", "2 33 33 333", {"name": "x", "payout": {"type": "fixed", "minor": 1}}),
    row("GET", "/v1/providers/{provider_id=prov}", "2 33 33 233"),
    row("PATCH", "/v1/providers/{provider_id=prov}", "2 33 33 333", {"name": "x"}),
    row("GET", "/v1/businesses", "2 33 33 233"),
    row("POST", "/v1/businesses", "2 33 33 333", {"name": "x", "zone": "UTC", "currency": "USD"}),
    row("GET", "/v1/businesses/{business_id=biz}", "2 33 33 233"),
    row("PATCH", "/v1/businesses/{business_id=biz}", "2 33 33 333", {"name": "x"}),
    row("GET", "/v1/keys", "2 33 33 233"),
    row("POST", "/v1/keys", "2 33 33 333", {"kind": "operator", "mode": "live", "name": "x"}),
    row("DELETE", "/v1/keys/{key_id=key}", "2 33 33 333"),
    row("GET", "/v1/endpoints", "2 33 22 232"),
    row("POST", "/v1/endpoints", "2 33 24 232",
        {"url": "https://{caller}.example.com/", "business_id": "{biz}", "reason": "helps"}),
    row("GET", "/v1/endpoints/{endpoint_id=whe}", "2 33 24 232"),
    row("POST", "/v1/endpoints/{endpoint_id=whe}/verify", "9 33 94 333"),
    row("POST", "/v1/endpoints/{endpoint_id=whe}/rotate-secret", "2 33 24 333"),
    row("DELETE", "/v1/endpoints/{endpoint_id=whe}/previous-secret", "2 33 24 333"),
    row("GET", "/v1/endpoints/{endpoint_id=whe}/contract", "2 33 24 232"),
    row("PUT", "/v1/endpoints/{endpoint_id=whe}/contract", "2 33 94 333",
        {"version": 1, "contract": {"accepted": [{"empty": True}], "samples": [{"expected": "accepted"}]}}),
    row("GET", "/v1/endpoints/{endpoint_id=whe}/mapping", "2 33 24 232"),
    row("PUT", "/v1/endpoints/{endpoint_id=whe}/mapping", "2 33 94 333", {"version": 1, "mapping": None}),
    row("POST", "/v1/endpoints:preview", "2 33 22 232", {"format": "json", "body": "{}"}),
    row("PATCH", "/v1/endpoints/{endpoint_id=whe}", "2 33 24 333", {"state": "disabled"}),
    row("GET", "/v1/subscriptions", "2 33 22 232"),
    row("POST", "/v1/subscriptions", "2 33 24 232", an_order("{whe}", business_id="{biz}")),
    row("GET", "/v1/subscriptions/{subscription_id=sub}", "2 33 24 434"),
    row("PUT", "/v1/subscriptions/{subscription_id=sub}", "2 33 94 434",
        {"name": "x", "endpoint_id": "{whe}", "definition": anywhere(), "version": 1}),
    row("POST", "/v1/subscriptions/{subscription_id=sub}/pause", "2 33 24 434"),
    row("POST", "/v1/subscriptions/{subscription_id=sub}/resume", "2 33 24 434"),
    row("DELETE", "/v1/subscriptions/{subscription_id=sub}", "2 33 24 434"),
    row("POST", "/v1/suppressions", "2 22 33 333", {"email": "a@example.com", "reason": "asked"}),
    row("POST", "/v1/suppressions:lift", "2 33 33 333", {"email": "a@example.com", "reason": "a mistake"}),
    row("POST", "/v1/top-ups", "2 33 33 333",
        {"business_id": "{biz}", "amount_minor": 1, "currency": "USD", "event_id": "e"}),
    row("GET", "/v1/wallet?business_id={biz}", "2 33 24 333"),
    row("PATCH", "/v1/wallet", "2 33 33 333", {"business_id": "{biz}", "credit_limit_minor": 1}),
    row("GET", "/v1/wallet/statement?business_id={biz}", "2 33 24 333"),
    row("GET", "/v1/earnings", "3 22 33 333"),
    row("GET", "/v1/reports/speed", "2 22 22 222"),
    row("GET", "/v1/reports/routing?business_id={biz}", "2 44 24 242"),
    row("GET", "/v1/reports/journey", "2 22 33 223"),
    row("GET", "/v1/reports/nurturing", "2 33 33 233"),
    row("GET", "/v1/reports/unsold?provider_id={prov}", "2 24 44 224"),
    row("GET", "/v1/reports/quality", "2 22 33 223"),
    row("GET", "/v1/reports/money?business_id={biz}", "2 44 24 242"),
    row("GET", "/v1/reports/leads?provider_id={prov}", "2 24 44 224"),
    row("GET", "/v1/shared-leads?business_id={biz}", "2 33 24 333"),
    row("POST", "/v1/shared-leads", "2 33 24 333", {"business_id": "{biz}", "leads": [
        {"vendor": "v", "external_id": "1", "received_at": "{now}", "cost_minor": 1, "currency": "USD"}]}),
    row("POST", "/v1/shared-leads:preview?business_id={biz}", "6 33 64 333", {"not": "CSV"}),
    row("POST", "/v1/shared-leads:import?business_id={biz}", "6 33 64 333", {"not": "CSV"}),
    row("PUT", "/v1/roi-assumptions?business_id={biz}", "2 33 24 333", {"source": "a guess", "currency": "USD"}),
    row("GET", "/v1/reports/roi?business_id={biz}", "2 33 24 333"),
    row("GET", "/v1/lists", "2 33 22 333"),
    row("POST", "/v1/lists", "2 33 22 333", {"name": "another"}),
    row("GET", "/v1/lists:kept-away", "3 33 22 333"),
    row("GET", "/v1/lists/{list_id=list}", "4 33 24 333"),
    row("POST", "/v1/lists/{list_id=list}/imports", "6 33 66 333", {"not": "CSV"}),
    row("GET", "/v1/lists/{list_id=list}/imports", "4 33 24 333"),
    row("GET", "/v1/lists/{list_id=list}/imports/{import_id=limp}", "4 33 24 333"),
    row("POST", "/v1/lists/{list_id=list}/imports/{import_id=limp}/undo", "4 33 24 333"),
    row("DELETE", "/v1/lists/{list_id=list}", "4 33 24 333"),
    row("GET", "/v1/simulations", "2 33 33 233"),
    row("POST", "/v1/simulations", "2 33 33 333",
        {"vertical": "roofing", "changes": [{"type": "policy", "minimum_score": 50}]}),
    row("GET", "/v1/simulations/{simulation_id=sim}", "2 33 33 233"),
    row("GET", "/v1/simulations/{simulation_id=sim}/businesses", "2 33 33 233"),
    row("DELETE", "/v1/simulations/{simulation_id=sim}", "2 33 33 333"),
)  # fmt: skip


def routes() -> Iterator[tuple[str, str]]:
    """Method and path of everything that the application answers."""
    nowhere = load(SECRETS | {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "VALKEY_URL": "redis://127.0.0.1:1"})
    app = create_app(nowhere, Engines(database_url=nowhere.database_url or "", valkey_url=nowhere.valkey_url or ""))
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if not handler.opt.get("portal"):  # pages have a table of their own beside them
                    for method in handler.http_methods - {"OPTIONS", "HEAD"}:
                        yield method, route.path_format


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    listed = [(method, re.sub(r"=\w[^}]*", "", path.partition("?")[0])) for method, path, _, _ in TABLE]
    assert sorted(listed) == sorted(routes())


class Scene:
    """The ids that stand for names in the table, and everybody's keys."""

    def __init__(self, api: Served) -> None:
        self.api = api
        self.ids: dict[str, str] = {}
        self.owned: list[str] = []
        "Those of the names that are somebody's own."
        self.keys: dict[str, str] = {"no key": "", "an unknown key": "lk_live_x"}
        self._persons = iter(range(10, 100))

    async def ask(self, method: str, path: str, body: Any, caller: str) -> httpx.Response:
        filled = re.sub(r"\{\w+=([^}]*)\}", lambda named: self.ids.get(named[1], named[1]), path)
        if body is INQUIRY:
            body = roofing_body(number := next(self._persons), clock.now(), provider_reference=f"r{number}")
        now = clock.now()
        names = self.ids | {
            "caller": caller.replace(" ", "-"),
            "now": now.isoformat(),
            "tomorrow": (now + timedelta(days=1)).isoformat(),
        }
        return await self.api.call(
            method, fill(filled, names), None if body is None else filled_in(body, names), key=self.keys[caller]
        )


def fill(text: str, names: dict[str, str]) -> str:
    return re.sub(r"\{([a-z]+)\}", lambda name: names.get(name[1], name[0]), text)


def filled_in(body: Any, names: dict[str, str]) -> Any:
    return msgspec.json.decode(fill(msgspec.json.encode(body).decode(), names))


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(marketplace(settings))
        door = await stack.enter_async_context(Receiver(ok))
        many = msgspec.structs.replace(settings, failures_per_minute=60_000)
        made = Scene(await stack.enter_async_context(serve(many)))
        buyer = await market.buyer(door.url)
        await _tell_a_story(made, market, buyer)
        stranger = await market.buyer("https://stranger.example.com/")
        made.ids |= await fill_list(market, buyer)
        await _hand_out_keys(made, market, buyer, stranger)
        yield made


async def _tell_a_story(scene: Scene, market: Marketplace, buyer: Buyer) -> None:
    """Two leads, delivered to one business; one of them erased, the other sealed into the audit chain."""
    sold, erased = [await market.sold(number) for number in (1, 2)]
    assert await market.state(sold) == await market.state(erased) == "delivered"
    named: dict[str, tuple[str, UUID]] = {
        "lead": ("lead", sold), "erased": ("lead", erased), "prov": ("prov", market.provider.owner),
        "biz": ("biz", buyer.business_id), "whe": ("whe", buyer.endpoint_id), "sub": ("sub", buyer.subscription_id),
    }  # fmt: skip
    scene.ids |= {name: ids.encode(*one) for name, one in named.items()} | {"roofing": "roofing"}
    scene.owned = [*named]
    await store_card(market)
    wanted = {"lead_id": scene.ids["erased"], "reason": "asked"}
    assert (await scene.api.call("POST", "/v1/erasures", wanted)).status_code == 200
    taken = await scene.api.make("/v1/deletion-requests", {"phone": "+13125550177"})
    scene.ids["del"] = taken["id"]
    scene.ids["ntc"] = ids.encode("ntc", await market.value("select id from notice"))
    holder = LeadHolder(business_id=buyer.business_id, mode="live", actor="test")
    asked = await file_return(market.api, holder, erased, ReturnReason.other, "not the person", None)
    scene.ids["ret"] = ids.encode("ret", asked.id)

    async def receipted() -> bool:  # once the transactions of other tests that began before have ended
        await audit.seal(market.owner, audit.seal_key(market.settings.master_key))
        return (await scene.api.call("GET", f"/v1/leads/{scene.ids['lead']}/receipt")).status_code != 409

    assert await until(receipted, PATIENCE)


async def _hand_out_keys(scene: Scene, market: Marketplace, buyer: Buyer, stranger: Buyer) -> None:
    other = await market.another_provider()
    owners: dict[str, tuple[CallerKind, UUID | None]] = {
        "operator": (CallerKind.operator, None), "provider": (CallerKind.provider, market.provider.owner),
        "other provider": (CallerKind.provider, other.owner), "business": (CallerKind.business, buyer.business_id),
        "other business": (CallerKind.business, stranger.business_id),
    }  # fmt: skip
    for name, (kind, owner) in owners.items():
        scene.keys[name] = await scene.api.key(kind, owner)
    for name in ("operator", "provider", "business"):
        scene.keys[f"test {name}"] = await scene.api.key(*owners[name], "test")
    bought = {"vendor": "v", "external_id": "of the import", "received_at": iso(clock.now() - timedelta(days=1)),
              "cost_minor": 1, "currency": "USD"}  # fmt: skip
    kept = await scene.api.call("POST", "/v1/shared-leads", {"leads": [bought]}, key=scene.keys["business"])
    scene.ids["import"] = kept.json()["id"]
    simulation = {"vertical": "roofing", "changes": [{"type": "strategy", "strategy": "fair"}]}
    requested = await scene.api.call("POST", "/v1/simulations", simulation, key=scene.keys["operator"])
    scene.ids["sim"] = requested.json()["id"]
    now = clock.now()
    scene.keys["an expired key"] = await scene.api.key(expires_at=now + timedelta(microseconds=1))
    scene.keys["a revoked key"] = await scene.api.key()
    await scene.api.make("/v1/keys", {"kind": "operator", "mode": "live", "name": "x"})
    assert (await scene.api.call("DELETE", f"/v1/keys/{key_id(scene.keys['a revoked key'])}")).status_code == 200
    scene.ids["key"] = key_id(await scene.api.key())


async def test_everybody_gets_from_every_route_what_the_table_says_and_nothing_else(scene: Scene) -> None:
    wrong = []
    for method, path, expected, body in TABLE:
        if expected == PUBLIC:
            answers = [(caller, "2") for caller in (*CALLERS, *NOBODY)]
        else:
            answers = sorted(zip(CALLERS, expected, strict=True), key=lambda answer: "3416529".index(answer[1]))
            for caller in NOBODY:
                refused = await scene.ask(method, path, body, caller)
                if refused.status_code != 401 or refused.headers["www-authenticate"] != "Bearer":
                    wrong.append(f"{method} {path} with {caller}: {refused.status_code} {refused.text}")
        for caller, code in answers:
            reply = await scene.ask(method, path, body, caller)
            if reply.status_code not in CODES[code] or (code == "3" and reply.json()["code"] not in REFUSALS):
                wrong.append(f"{method} {path} by the {caller}: {reply.status_code}, not {code}: {reply.text[:200]}")
            if expected != PUBLIC and reply.headers["cache-control"] != "no-store":
                wrong.append(f"{method} {path} by the {caller} may be kept by whoever passes it on")
            if caller.startswith("other") and code == "2" and expected != PUBLIC:
                others = [name for name in scene.owned if scene.ids[name] in reply.text]
                wrong += [f"{method} {path} shows the {caller} somebody else's {name}" for name in others]
    assert not wrong, "\n".join(wrong)


MODELESS: Final = ("biz", "prov", "whe")
"What both modes share: the accounts themselves and their endpoints."


async def test_a_test_key_reads_nothing_live_from_any_route(scene: Scene) -> None:
    live_key = scene.ids["key"]
    live = {name: scene.ids[name] for name in scene.owned if name not in MODELESS} | {"key": live_key}
    for method, path, expected, body in TABLE:
        if method != "GET" or expected == PUBLIC:
            continue
        for caller in ("test operator", "test provider", "test business"):
            reply = await scene.ask(method, path, body, caller)
            if reply.status_code < 300:
                shown = [name for name, one in live.items() if one in reply.text]
                assert shown == [], f"{method} {path} shows the {caller} a live {shown}"


async def test_what_is_anothers_looks_exactly_like_what_does_not_exist(scene: Scene) -> None:
    nothing = Scene(scene.api)
    nothing.keys = scene.keys
    nothing.ids = {name: one[:-1] + ("0" if one[-1] != "0" else "1") for name, one in scene.ids.items()}
    compared = 0
    for method, path, expected, body in TABLE:
        for caller, code in zip(CALLERS, expected, strict=False) if expected != PUBLIC else ():
            if code == "4":
                replies = [await one.ask(method, path, body, caller) for one in (scene, nothing)]
                theirs, nobodys = (reply.json() | {"instance": ""} for reply in replies)
                assert theirs == nobodys, f"{method} {path} {caller}"
                compared += 1
    assert compared > 20
