"""Every page, by every kind of member: who may see it, and the rules that hold for all pages.

The pages are the application's own routes. One with an id in its path has a row in `THEIRS`, so that it is asked for
with one's own id, with another tenant's, and with one that nothing has.
"""

import inspect
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from litestar.routes import HTTPRoute

from marketplace.portal.frame import moment
from marketplace.portal.navigation import NAVIGATION
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Docs, Settings
from marketplace.security.auth import CallerKind
from marketplace.web import gate
from tests.builders.learning import store_card
from tests.builders.marketplaces import marketplace
from tests.builders.portal import Browser, preview_import, signed_in
from tests.builders.service import Served, borrow_routes, serve
from tests.receivers import Receiver, ok

OPEN: Final = {"/", "/sign-in", "/setup", "/offline"}
"Shown to everybody, signed in or not; `/` only leads on."
ASKED: Final = {"/sign-in/code", "/sign-in/factor"}
"Shown to those who have come half the way."
SPECS: Final = {"/spec/{token}", "/spec/{token}/fields.csv", "/spec/{token}/schema.json"}
FILES: Final = {"/manifest.webmanifest", "/service-worker.js", "/assets/{digest}/{name}"}
TOKENS: Final = {"/link/{token}", "/mail/confirm/{token}", "/mail/outcome/{token}"}
NOT_PAGES: Final = {"/live", "/problems", "/problems/{code}"} | FILES | SPECS | TOKENS

ASK_BACK: Final = """
insert into return_request (id, assignment_id, lead_id, business_id, reason, state, requested_at)
select $1, id, lead_id, business_id, 'other', 'requested', now() from assignment where lead_id = $2 returning id"""

OPERATORS: Final = (CallerKind.operator,)
THEIRS: Final[dict[str, tuple[tuple[CallerKind, ...], dict[str, str]]]] = {
    "/operator/accounts/{account}/team": (OPERATORS, {"account": "biz"}),
    "/operator/businesses/{business_id}": (OPERATORS, {"business_id": "biz"}),
    "/operator/compliance/deletions/{request_id}": (OPERATORS, {"request_id": "del"}),
    "/operator/compliance/deletions/{request_id}/proof": (OPERATORS, {"request_id": "del"}),
    "/operator/routing/{lead_id}": (OPERATORS, {"lead_id": "lead"}),
    "/operator/returns/{return_id}": (OPERATORS, {"return_id": "ret"}),
    "/operator/providers/{provider_id}": (OPERATORS, {"provider_id": "prov"}),
    "/operator/simulations/{simulation_id}": (OPERATORS, {"simulation_id": "sim"}),
    "/operator/subscriptions/{subscription_id}": (OPERATORS, {"subscription_id": "sub"}),
    "/operator/verticals/{slug}": (OPERATORS, {"slug": "slug"}),
    "/operator/verticals/{slug}/what-if": (OPERATORS, {"slug": "slug"}),
    "/operator/verticals/{slug}/scorecards": (OPERATORS, {"slug": "slug"}),
    "/operator/verticals/{slug}/scorecards/{version}": (OPERATORS, {"slug": "slug", "version": "card"}),
    "/business/delivery/{endpoint_id}/answers": ((CallerKind.business,), {"endpoint_id": "whe"}),
    "/business/delivery/{endpoint_id}/request": ((CallerKind.business,), {"endpoint_id": "whe"}),
    "/business/imports/{import_id}": ((CallerKind.business,), {"import_id": "imp"}),
    "/business/inbox/{assignment_id}": ((CallerKind.business,), {"assignment_id": "asg"}),
    "/business/leads/{lead_id}": ((CallerKind.business,), {"lead_id": "lead"}),
    "/business/leads/{lead_id}/move": ((CallerKind.business,), {"lead_id": "lead"}),
    "/business/leads/{lead_id}/next-action": ((CallerKind.business,), {"lead_id": "lead"}),
    "/business/matching/{order_id}": ((CallerKind.business,), {"order_id": "sub"}),
    "/provider/submissions/{lead_id}": ((CallerKind.provider,), {"lead_id": "lead"}),
}
"For whom a page with ids in its path is, and which thing of the scene each id names."


def handlers() -> Iterator[tuple[str, str, Any]]:
    """Return method, path and handler of every route of the portal."""
    with borrow_routes(Docs.public) as app:
        for route in app.routes:
            if isinstance(route, HTTPRoute):
                for handler in route.route_handlers:
                    if handler.opt.get("portal"):
                        for method in handler.http_methods - {"OPTIONS", "HEAD"}:
                            yield method, route.path_format, handler


HANDLERS: Final = tuple(handlers())
PAGES: Final = sorted({path for method, path, _ in HANDLERS if method == "GET"} - OPEN - ASKED - NOT_PAGES)


def kinds_of(path: str) -> tuple[CallerKind, ...]:
    """Return the kinds of members that a page is for, by the first segment of its path."""
    if path in THEIRS:
        return THEIRS[path][0]
    first = path.split("/")[1]
    return (CallerKind(first),) if first in set(CallerKind) else tuple(CallerKind)


class Scene:
    """A signed-in member of a tenant of each kind, one of another tenant, and the ids of the names in `THEIRS`."""

    def __init__(self, api: Served) -> None:
        self.api = api
        self.browsers: dict[CallerKind, Browser] = {}
        self.others: dict[CallerKind, Browser] = {}
        self.ids: dict[str, str] = {}

    def path(self, path: str, names: dict[str, str]) -> str:
        references = THEIRS.get(path, ((), {}))[1]
        return re.sub(
            r"\{(\w+)\}", lambda found: names.get(references.get(found[1], ""), references.get(found[1], "x")), path
        )


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(marketplace(settings))
        made = Scene(await stack.enter_async_context(serve(settings)))
        door = await stack.enter_async_context(Receiver(ok))
        buyer = await market.buyer(door.url)
        stranger = await market.buyer("https://other.example.com/", available_minor=0)
        other = await market.another_provider()
        named = {"biz": buyer.business_id, "sub": buyer.subscription_id, "whe": buyer.endpoint_id}
        named["prov"] = market.provider.owner
        card = await store_card(market)
        named["lead"] = await market.sold(1)
        named["asg"] = await market.wait_in_inbox(buyer)
        named["ret"] = await market.value(ASK_BACK, clock.new_id(), named["lead"])
        made.ids = {kind: ids.encode(kind, value) for kind, value in named.items()} | {
            "slug": "roofing",
            "card": str(card),
        }
        owners = {
            CallerKind.business: buyer.business_id,
            CallerKind.provider: market.provider.owner,
            CallerKind.operator: None,
        }
        strangers = {CallerKind.business: stranger.business_id, CallerKind.provider: other.owner}
        for kind, owner in owners.items():
            made.browsers[kind] = await signed_in(made.api, kind, owner)
        made.ids["imp"] = await preview_import(made.browsers[CallerKind.business])
        change = {"weeks": 1, "minimum_score": 50}
        started = await made.browsers[CallerKind.operator].post("/operator/verticals/roofing/what-if", change)
        made.ids["sim"] = started.headers["location"].rpartition("/")[2]
        deletion = await made.api.make("/v1/deletion-requests", {"phone": "+13125550177"})
        made.ids["del"] = deletion["id"]
        await made.api.call("POST", f"/v1/deletion-requests/{deletion['id']}/carry-out")
        for kind, owner in strangers.items():
            made.others[kind] = await signed_in(made.api, kind, owner)
        yield made


# --- who gets what ----------------------------------------------------------------------------------------------------


async def test_a_page_is_for_those_it_is_for_and_for_nobody_else(scene: Scene) -> None:
    wrong = []
    for path in PAGES:
        for kind, browser in scene.browsers.items():
            reply = await browser.get(scene.path(path, scene.ids))
            expected = (200, 303) if kind in kinds_of(path) else (403,)
            if reply.status_code not in expected:
                wrong.append(f"{path} as {kind}: {reply.status_code}")
        reply = await Browser(scene.api).get(scene.path(path, scene.ids))
        if reply.status_code != 303 or not reply.headers["location"].startswith("/sign-in"):
            wrong.append(f"{path} signed out: {reply.status_code}")
    assert wrong == []


async def test_what_is_anothers_looks_like_what_does_not_exist(scene: Scene) -> None:
    wrong = []
    for path, (kinds, references) in THEIRS.items():
        nothing = {name: text[:-1] + ("0" if text[-1] != "0" else "1") for name, text in scene.ids.items()}
        for kind in kinds:
            replies = [await scene.browsers[kind].get(scene.path(path, nothing))]
            if kind in scene.others and references:
                replies.append(await scene.others[kind].get(scene.path(path, scene.ids)))
            wrong += [f"{path} as {kind}: {reply.status_code}" for reply in replies if reply.status_code != 404]
    assert wrong == []


def test_every_page_with_an_id_in_its_path_has_its_row() -> None:
    assert {path for path in PAGES if "{" in path} == THEIRS.keys()


async def test_every_place_of_the_navigation_is_there(scene: Scene) -> None:
    for kind, places in NAVIGATION.items():
        for place in places:
            reply = await scene.browsers[kind].get(place.path)
            assert reply.status_code == 200, place
            assert f'href="{place.path}" aria-current="page"' in reply.text


# --- what holds of each ----------------------------------------------------------------------------------------------


class Faults(HTMLParser):
    """Return the faults of a page against the rules for all pages."""

    VOID: Final = frozenset(["meta", "link", "input", "br", "hr", "img"])

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.headings = 0
        self.labels: set[str] = set()
        self.fields: list[tuple[str, bool]] = []
        self.seen: set[str] = set()
        self.referred: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.headings += tag == "h1"
        if tag not in self.VOID:
            self.open.append(tag)
        self._look_for_foreigners(tag, values)
        if "id" in values:
            self.found += [f"twice: {values['id']}"] if values["id"] in self.seen else []
            self.seen.add(values["id"])
        if tag == "label" and "for" in values:
            self.labels.add(values["for"])
        if tag in ("input", "select", "textarea") and values.get("type") not in ("hidden", "submit"):
            named = "label" in self.open or "aria-label" in values or values.get("aria-hidden") == "true"
            self.fields.append((values.get("id", ""), named))
        for name in ("aria-describedby", "aria-labelledby"):
            self.referred += values.get(name, "").split()

    def _look_for_foreigners(self, tag: str, values: dict[str, str]) -> None:
        if tag == "style" or (tag == "script" and "src" not in values):
            self.found.append(f"inline {tag}")
        self.found += [f"inline {name}" for name in values if name == "style" or name.startswith("on")]
        for name in ("src", "href", "action", "formaction"):
            parts = urlsplit(values.get(name, ""))
            if (parts.netloc or parts.scheme) and parts.scheme not in ("tel", "sms", "mailto") and tag != "a":
                self.found.append(f"foreign {values[name]}")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID or tag not in self.open:
            return
        while self.open.pop() != tag:
            continue

    def close(self) -> None:
        super().close()
        self.found += [] if self.headings == 1 else [f"{self.headings} headings"]
        self.found += [f"no label: {field}" for field, named in self.fields if not named and field not in self.labels]
        self.found += [f"refers to nothing: {name}" for name in self.referred if name not in self.seen]


def faults(reply: httpx.Response) -> list[str]:
    reader = Faults()
    reader.feed(reply.text)
    reader.close()
    name, policy = (part.decode() for part in gate.PAGE_CONTENT_POLICY)
    headers = {name: policy, "cache-control": "no-store", "x-content-type-options": "nosniff"}
    wrong = [f"{key}: {reply.headers.get(key)}" for key, value in headers.items() if reply.headers.get(key) != value]
    return reader.found + wrong


async def test_every_page_is_whole_labelled_and_all_from_here(scene: Scene) -> None:
    wrong = []
    for path in PAGES:
        reply = await scene.browsers[kinds_of(path)[0]].get(scene.path(path, scene.ids))
        if reply.status_code == 200 and "text/html" in reply.headers["content-type"]:
            wrong += [f"{path}: {fault}" for fault in faults(reply)]
            if len(reply.content) > 400_000:
                wrong.append(f"{path}: {len(reply.content)} bytes")
    for path in sorted(OPEN - {"/"} | {"/nothing", "/link/x"}):
        reply = await Browser(scene.api).get(path, accept="text/html")
        wrong += [f"{path}: {fault}" for fault in faults(reply) if reply.status_code != 303]
    assert wrong == []


async def test_the_first_page_with_all_that_it_needs_is_lighter_than_60_kilobytes(scene: Scene) -> None:
    browser = scene.browsers[CallerKind.business]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{scene.api.port}", trust_env=False) as client:
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        page = await client.get("/business", headers={"cookie": cookie, "accept-encoding": "gzip"})
        weight = int(page.headers["content-length"])
        assets = set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.text))
        assert len(assets) == 3
        for address in assets:
            reply = await client.get(address, headers={"accept-encoding": "gzip"})
            assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
            weight += int(reply.headers["content-length"])
        assert (await client.get(sorted(assets)[0].replace("/assets/", "/assets/0"))).status_code == 404
    assert weight < 60_000


async def test_what_people_write_is_shown_and_never_run(scene: Scene) -> None:
    attack = '"><script>alert(1)</script>{{ 7 * 7 }}'
    owner = await signed_in(scene.api, "operator", name=attack)
    await scene.api.pool.execute("update business set name = $1", attack)
    for path in ("/account/team", "/account/profile", "/account/activity"):
        text = (await owner.get(path)).text
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}" in text


async def test_an_error_is_a_page_with_its_code(scene: Scene) -> None:
    browser = scene.browsers[CallerKind.business]
    page = await browser.get("/operator")
    assert (page.status_code, "<h1>" in page.text, "role_missing" in page.text) == (403, True, True)
    astray = await browser.get("/nowhere", accept="text/html")
    assert (astray.status_code, "not_found" in astray.text) == (404, True)
    machine = await browser.get("/nowhere", accept="application/json")
    assert machine.headers["content-type"] == "application/problem+json"
    ended = await Browser(scene.api).get("/business")
    assert (ended.status_code, ended.headers["location"]) == (303, "/sign-in?next=%2Fbusiness")


async def test_test_data_is_a_mode_of_its_own_under_a_banner(scene: Scene) -> None:
    browser = scene.browsers[CallerKind.business]
    assert "test-banner" not in (await browser.get("/account/team")).text
    assert (await browser.post("/account/mode", {"mode": "test"})).status_code == 303
    assert "test-banner" in (await browser.get("/account/team")).text


# --- values that no rule can compute with -----------------------------------------------------------------------------

HOSTILE: Final = ("9e999999", "0001-01-01", "9999-12-31T23:59", "0001-01-01T00:00:00+14:00", "9" * 400, "٣", "-1")
PARAMETER: Final = re.compile(r"""(?:query|query_params|asked|values)(?:\.get\(|\[)"(\w+)"|\w+\.get\("(\w+)"\)""")


def parameters(handler: Any) -> list[str]:
    """Return the query parameters that a page's module reads, and those that many pages share."""
    text = Path(inspect.getfile(handler.fn)).read_text()
    names = {name for names in PARAMETER.findall(text) for name in names if name}
    return sorted(names | {"from", "to", "cursor", "limit", "month"})


async def test_no_value_in_the_query_of_a_page_ends_in_an_error_of_ours(scene: Scene) -> None:
    """Each parameter gets another value on each page, because all pairs would take minutes."""
    wrong, values = [], itertools.cycle(HOSTILE)
    for method, path, handler in HANDLERS:
        if method != "GET" or path not in PAGES:
            continue
        browser, where = scene.browsers[kinds_of(path)[0]], scene.path(path, scene.ids)
        names = parameters(handler)
        for query in ({"x": "\x00"}, *({name: next(values)} for name in names)):
            reply = await browser.get(f"{where}?{urlencode(query)}")
            if reply.status_code >= 500 or ("x" in query and reply.status_code != 422):
                wrong.append(f"{path} {query}: {reply.status_code}")
    assert wrong == []


FORM: Final = re.compile(r'<form method="post"[^>]*action="(/[^"]+)"[^>]*>(.*?)</form>', re.DOTALL)
FIELD: Final = re.compile(r'<(?:input|select|textarea)[^>]*\bname="(\w+)"')


async def test_no_value_in_a_form_ends_in_an_error_of_ours(scene: Scene) -> None:
    forms: dict[tuple[CallerKind, str], set[str]] = {}
    for path in PAGES:
        for kind in kinds_of(path)[:1]:
            text = (await scene.browsers[kind].get(scene.path(path, scene.ids))).text
            for action, inside in FORM.findall(text):
                forms.setdefault((kind, action), set()).update(FIELD.findall(inside))
    assert len(forms) > 20
    wrong = []
    for (kind, action), names in forms.items():
        for value in ("\x00", "9e999999", "0001-01-01T00:00") if action not in ("/sign-out", "/account/mode") else ():
            reply = await scene.browsers[kind].post(action, dict.fromkeys(names - {"csrf"}, value))
            if reply.status_code >= 500:
                wrong.append(f"{action} with {value[:30]!r}: {reply.status_code}")
    assert wrong == []


def test_a_time_at_the_end_of_the_calendar_is_shown_and_does_not_take_the_page_with_it() -> None:
    for text in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        assert text[:4].lstrip("0") in moment(datetime.fromisoformat(text), "Pacific/Kiritimati")
        assert text[:4].lstrip("0") in moment(datetime.fromisoformat(text), "America/Los_Angeles", "day")
