"""Every change in the portal, by every kind of member: one table, which must have a row for each route.

Each is asked for with a good token of the asking session, so that what refuses it is the role, the kind or the tenant.
Those who must be refused ask first, all of them, and nothing in the database has changed afterwards.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
import pytest

from marketplace.notices.store import NoticeKind, insert_notice
from marketplace.portal.store import Role
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind
from tests.builders.lists import fill_list
from tests.builders.marketplaces import marketplace
from tests.builders.portal import Browser, preview_import, signed_in
from tests.builders.service import Served, serve
from tests.marketplace.portal.test_pages import HANDLERS
from tests.receivers import Receiver, ok

BUSINESS, PROVIDER, OPERATOR = (CallerKind.business,), (CallerKind.provider,), (CallerKind.operator,)
TENANTS, EVERYBODY = (CallerKind.business, CallerKind.provider), tuple(CallerKind)
RANKS: Final = {Role.viewer: 0, Role.member: 1, Role.owner: 2}
UNTOUCHED: Final = ("portal_session", "sign_in_try", "audit_block")
"Tables that change by looking, or by themselves."


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Kinds and lowest role of members who may make a change. `form` names ids of the first tenant in braces.

    `theirs`: that an owner of another tenant of the kind who sends this very form and path gets 404.
    """

    kinds: tuple[CallerKind, ...]
    role: Role = Role.member
    form: Mapping[str, str] = {}
    theirs: bool = False


def tenants(kinds: tuple[CallerKind, ...], least: Role = Role.member, /, **form: str) -> Change:
    """A change to an object of a tenant, which for the owner of another tenant does not exist."""
    return Change(kinds=kinds, role=least, form=form, theirs=True)


ADD_STAGE: Final = (
    "insert into pipeline_stage (business_id, stage, kind, position) values ($1, 'Called', 'contacted', 1) returning id"
)

OWN = Change(kinds=EVERYBODY, role=Role.viewer)
"A change of oneself, which every role may make."

SIGNED_OUT: Final = {
    "/sign-in",
    "/sign-in/code",
    "/sign-out",
    "/link/{token}",
    "/mail/confirm/{token}",
    "/mail/outcome/{token}",
}
"Asked for by people who are not in yet; tests/marketplace/portal/test_signing_in.py has them."

CHANGES: Final[dict[str, Change]] = {
    "/account/access": tenants(TENANTS, Role.owner, act="confirm", subject="{subject}"),
    "/account/factor": OWN,
    "/account/factor/code": OWN,
    "/account/factor/remove": Change(kinds=TENANTS, role=Role.viewer),
    "/account/mode": OWN,
    "/account/password": OWN,
    "/account/profile": OWN,
    "/account/sessions/{session_id=session}": tenants(EVERYBODY, Role.viewer),
    "/account/team": Change(kinds=EVERYBODY, role=Role.owner),
    "/account/team/{member_id=mem}": tenants(EVERYBODY, Role.owner, act="role", role="owner"),
    "/business/customers": Change(kinds=BUSINESS),
    "/business/customers/{list_id=list}/remove": tenants(BUSINESS),
    "/business/customers/{list_id=list}/undo": tenants(BUSINESS),
    "/business/board/stages": Change(kinds=BUSINESS),
    "/business/board/stages/changes": tenants(BUSINESS, endpoint="{whe}"),
    "/business/board/stages/names": tenants(BUSINESS, name="x", stage="{stg}"),
    "/business/board/stages/{stage_id=stg}": tenants(BUSINESS, stage="x", kind="won"),
    "/business/board/stages/{stage_id=stg}/act": tenants(BUSINESS, act="up"),
    "/business/delivery": Change(kinds=BUSINESS),
    "/business/delivery/email": Change(kinds=BUSINESS),
    "/business/delivery/hook": Change(kinds=BUSINESS),
    "/business/delivery/resend": tenants(BUSINESS, lead="{lead}"),
    "/business/delivery/{endpoint_id=whe}": tenants(BUSINESS, act="rotate"),
    "/business/delivery/{endpoint_id=whe}/answers": tenants(BUSINESS, act="reset", version="1"),
    "/business/delivery/{endpoint_id=whe}/request": tenants(BUSINESS, act="remove", version="1"),
    "/business/imports/outcomes": Change(kinds=BUSINESS),
    "/business/imports/{import_id=imp}/begin": tenants(BUSINESS),
    "/business/imports/{import_id=imp}/look": tenants(BUSINESS),
    "/business/imports/{import_id=imp}/undo": tenants(BUSINESS),
    "/business/inbox/devices": Change(kinds=BUSINESS),
    "/business/inbox/devices/{device_id=psh}/remove": tenants(BUSINESS, Role.viewer),
    "/business/inbox/practice": Change(kinds=BUSINESS),
    "/business/inbox/{assignment_id=asg}/take": tenants(BUSINESS),
    "/business/leads": Change(kinds=BUSINESS, role=Role.viewer, form={"q": "Robin"}),
    "/business/keys": Change(kinds=BUSINESS),
    "/business/keys/{key_id=key}/revoke": tenants(BUSINESS, reason="x"),
    "/business/keys/{key_id=key}/rotate": tenants(BUSINESS, hours="0"),
    "/business/leads/{lead_id=lead}/move": tenants(BUSINESS, stage="x"),
    "/business/leads/{lead_id=lead}/next-action": tenants(BUSINESS, note="x", due_at="2027-01-01T10:00"),
    "/business/leads/{lead_id=lead}/next-action/done": tenants(BUSINESS),
    "/business/leads/{lead_id=lead}/undo-move": tenants(BUSINESS, disposition="x"),
    "/business/leads/{lead_id=lead}/outcome": tenants(BUSINESS, kind="contacted"),
    "/business/leads/{lead_id=lead}/return": tenants(BUSINESS, ground="other", note="x"),
    "/business/matching/{order_id=sub}": tenants(BUSINESS, name="x", endpoint="{whe}", version="1"),
    "/business/matching/{order_id=sub}/switch": tenants(BUSINESS, state="paused"),
    "/business/notices/{notice_id=ntc}": tenants(BUSINESS),
    "/business/onboarding/area": Change(kinds=BUSINESS),
    "/business/onboarding/company": Change(kinds=BUSINESS),
    "/business/onboarding/delivery": tenants(BUSINESS, act="verify", endpoint="{whe}"),
    "/business/onboarding/hours": Change(kinds=BUSINESS),
    "/business/onboarding/services": Change(kinds=BUSINESS),
    "/business/onboarding/wallet": Change(kinds=BUSINESS),
    "/business/pause": Change(kinds=BUSINESS),
    "/business/receiving/feed": Change(kinds=BUSINESS),
    "/business/receiving/inbox": Change(kinds=BUSINESS),
    "/business/receiving/{endpoint_id=whe}/use": tenants(BUSINESS),
    "/business/reports/roi": Change(kinds=BUSINESS),
    "/business/reports/shared-leads/preview": Change(kinds=BUSINESS),
    "/business/wallet/low": Change(kinds=BUSINESS),
    "/operator/accounts/{account=biz}/team": Change(kinds=OPERATOR),
    "/operator/accounts/{account=biz}/team/{member_id=mem}": Change(kinds=OPERATOR, form={"act": "disable"}),
    "/operator/audit/verify": Change(kinds=OPERATOR, role=Role.viewer),
    "/operator/businesses": Change(kinds=OPERATOR),
    "/operator/businesses/sign-up-link": Change(kinds=OPERATOR),
    "/operator/businesses/{business_id=biz}": Change(kinds=OPERATOR),
    "/operator/businesses/{business_id=biz}/terms": Change(kinds=OPERATOR),
    "/operator/businesses/{account=biz}/keys": Change(kinds=OPERATOR),
    "/operator/businesses/{account=biz}/keys/{key_id=key}": Change(kinds=OPERATOR, form={"reason": "x"}),
    "/operator/compliance": Change(kinds=OPERATOR),
    "/operator/compliance/deletions": Change(kinds=OPERATOR),
    "/operator/compliance/deletions/{request_id=del}/carry-out": Change(kinds=OPERATOR),
    "/operator/compliance/deletions/{request_id=del}/refuse": Change(kinds=OPERATOR, form={"refusal": "not_found"}),
    "/operator/compliance/deletions/{request_id=del}/reveal": Change(kinds=OPERATOR, form={"reason": "x"}),
    "/operator/compliance/erasures": Change(kinds=OPERATOR),
    "/operator/compliance/lift": Change(kinds=OPERATOR),
    "/operator/compliance/list-sources": Change(kinds=OPERATOR),
    "/operator/compliance/list-sources/{list_id=list}/confirm": Change(kinds=OPERATOR, form={"rows": "1"}),
    "/operator/compliance/list-sources/{list_id=list}/refresh": Change(kinds=OPERATOR),
    "/operator/compliance/list-sources/{list_id=list}/remove": Change(kinds=OPERATOR),
    "/operator/compliance/lists": Change(kinds=OPERATOR),
    "/operator/compliance/lists/{list_id=list}/remove": Change(kinds=OPERATOR),
    "/operator/compliance/lists/{list_id=list}/undo": Change(kinds=OPERATOR),
    "/operator/compliance/notices": Change(kinds=OPERATOR),
    "/operator/compliance/look": Change(kinds=OPERATOR, role=Role.viewer),
    "/operator/deliveries/endpoints/{endpoint_id=whe}": Change(kinds=OPERATOR),
    "/operator/deliveries/suspended/{subscription_id=sub}": Change(kinds=OPERATOR, form={"reason": "x"}),
    "/operator/going-live/{provider_id=prov}": Change(kinds=OPERATOR),
    "/operator/people": Change(kinds=OPERATOR, role=Role.viewer),
    "/operator/people/export": Change(kinds=OPERATOR),
    "/operator/providers": Change(kinds=OPERATOR),
    "/operator/providers/{provider_id=prov}": Change(kinds=OPERATOR),
    "/operator/providers/{provider_id=prov}/approve": Change(kinds=OPERATOR),
    "/operator/providers/{account=prov}/keys": Change(kinds=OPERATOR),
    "/operator/providers/{account=prov}/keys/{key_id=key}": Change(kinds=OPERATOR, form={"reason": "x"}),
    "/operator/returns/{return_id=ret}": Change(kinds=OPERATOR),
    "/operator/returns/{return_id=ret}/reveal": Change(kinds=OPERATOR),
    "/operator/simulations/{simulation_id=sim}/cancel": Change(kinds=OPERATOR),
    "/operator/system/work": Change(kinds=OPERATOR),
    "/operator/unroutable": Change(kinds=OPERATOR),
    "/operator/verticals": Change(kinds=OPERATOR),
    "/operator/verticals/{slug=roofing}/publish": Change(kinds=OPERATOR),
    "/operator/verticals/{slug=roofing}/scorecards/roll-back": Change(kinds=OPERATOR),
    "/operator/verticals/{slug=roofing}/scorecards/{version=first}/resume": Change(kinds=OPERATOR),
    "/operator/verticals/{slug=roofing}/scorecards/{version=first}/retire": Change(kinds=OPERATOR),
    "/operator/verticals/{slug=roofing}/scorecards/{version=first}/shadow": Change(kinds=OPERATOR),
    "/operator/verticals/{slug=roofing}/scorecards/{version=first}/sign-off": Change(kinds=OPERATOR),
    "/operator/verticals/{slug=roofing}/suggestions": Change(kinds=OPERATOR),
    "/operator/verticals/{slug=roofing}/try": Change(kinds=OPERATOR, role=Role.viewer),
    "/operator/verticals/{slug=roofing}/what-if": Change(kinds=OPERATOR),
    "/operator/wallets/credit": Change(kinds=OPERATOR),
    "/operator/wallets/providers": Change(kinds=OPERATOR),
    "/operator/wallets/reconcile": Change(kinds=OPERATOR, role=Role.viewer),
    "/operator/wallets/top-up": Change(kinds=OPERATOR),
    "/search": Change(kinds=EVERYBODY, role=Role.viewer, form={"q": "Robin"}),
    "/provider/console": Change(kinds=PROVIDER),
    "/provider/keys": Change(kinds=PROVIDER),
    "/provider/keys/{key_id=key}/revoke": tenants(PROVIDER, reason="x"),
    "/provider/keys/{key_id=key}/rotate": tenants(PROVIDER, hours="0"),
    "/provider/start/live": Change(kinds=PROVIDER),
    "/provider/submissions/{lead_id=lead}/correct": tenants(PROVIDER, within_days="7"),
    "/provider/submissions/{lead_id=lead}/give-back": tenants(PROVIDER),
    "/provider/submissions/search": Change(kinds=PROVIDER, role=Role.viewer),
}


def test_every_change_has_a_row_and_every_row_a_route() -> None:
    routes = {path for method, path, _ in HANDLERS if method != "GET"}
    assert {re.sub(r"=\w+", "", path) for path in CHANGES} == routes - SIGNED_OUT


class Scene:
    """A browser of each kind and role, an owner of another tenant of each kind, and the first tenant's ids."""

    def __init__(self, api: Served) -> None:
        self.api = api
        self.ids: dict[str, str] = {"roofing": "roofing", "first": "1"}
        self.of_kind: dict[CallerKind, dict[str, str]] = {}
        self.browsers: dict[tuple[CallerKind, Role], Browser] = {}
        self.strangers: dict[CallerKind, Browser] = {}

    async def ask(
        self, browser: Browser, path: str, kind: CallerKind, csrf: str | None = None, **headers: str
    ) -> tuple[int, str]:
        """Send the change from this browser, with the token of its session or `csrf`; return status and page."""
        names = self.ids | self.of_kind[kind]
        where = re.sub(r"\{\w+=(\w+)\}", lambda name: names[name[1]], path)
        form = {
            field: re.sub(r"\{(\w+)\}", lambda name: names[name[1]], text) for field, text in CHANGES[path].form.items()
        }
        reply = await browser.post(where, form | ({} if csrf is None else {"csrf": csrf}), **headers)
        return reply.status_code, reply.headers.get("location", "") + reply.text

    async def digest(self) -> dict[str, str]:
        """Return a digest of every table that only changes write to."""
        tables = await self.api.pool.fetch(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') "
            "and not relispartition"
        )
        return {
            row["relname"]: await self.api.pool.fetchval(
                f'select md5(coalesce(string_agg(t::text, E\'\\n\' order by t::text), \'\')) from "{row["relname"]}" t'
            )
            for row in tables if row["relname"] not in UNTOUCHED
        }  # fmt: skip


ASK_BACK: Final = """
insert into return_request (id, assignment_id, lead_id, business_id, reason, state, requested_at)
select $1, id, lead_id, business_id, 'other', 'requested', now() from assignment where lead_id = $2 returning id"""
OPENED: Final = """
insert into opened_access (subject, kind, owner_id, way, opened_by, reason, opened_at)
values ($1, $2, $3, 'member', 'mem_x', 'helps', now())"""


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(marketplace(settings))
        door = await stack.enter_async_context(Receiver(ok))
        made = Scene(await stack.enter_async_context(serve(settings)))
        buyer = await market.buyer(door.url)
        stranger = await market.buyer("https://other.example.com/", available_minor=0)
        other = await market.another_provider()
        named: dict[str, Any] = {"biz": buyer.business_id, "sub": buyer.subscription_id, "whe": buyer.endpoint_id}
        named |= {"prov": market.provider.owner, "lead": await market.sold(1)}
        named["ret"] = await market.value(ASK_BACK, clock.new_id(), named["lead"])
        named["ntc"] = await insert_notice(market.worker, named["lead"], NoticeKind.revoked, clock.now(), {})
        named["asg"] = await market.wait_in_inbox(buyer)
        named["stg"] = await market.value(ADD_STAGE, buyer.business_id)
        made.ids |= {kind: ids.encode(kind, value) for kind, value in named.items()}
        made.ids["psh"] = ids.encode("psh", clock.new_id())
        made.ids["sim"] = ids.encode("sim", clock.new_id())
        made.ids["del"] = (await made.api.make("/v1/deletion-requests", {"phone": "+13125550177"}))["id"]
        made.ids |= await fill_list(market, buyer)
        owners = {
            CallerKind.business: buyer.business_id,
            CallerKind.provider: market.provider.owner,
            CallerKind.operator: None,
        }
        other_owners = {CallerKind.business: stranger.business_id, CallerKind.provider: other.owner}
        for kind, owner in owners.items():
            await _people(made, kind, owner)
        made.ids["imp"] = await preview_import(made.browsers[CallerKind.business, Role.member])
        for kind, owner in other_owners.items():
            made.strangers[kind] = await signed_in(made.api, kind, owner)
        yield made


async def _people(made: Scene, kind: CallerKind, owner: Any) -> None:
    """A member of each role, and a colleague with a session, a key and an opened access of the first tenant."""
    for role in Role:
        made.browsers[kind, role] = await signed_in(made.api, kind, owner, role=role)
    colleague = await signed_in(made.api, kind, owner, role="member")
    assert colleague.member_id
    session = await made.api.pool.fetchval(
        "select id_hash from portal_session where member_id = $1", colleague.member_id
    )
    made.of_kind[kind] = {
        "mem": ids.encode("mem", colleague.member_id), "session": session.hex(), "subject": str(colleague.member_id),
    }  # fmt: skip
    if owner is not None:
        await made.api.pool.execute(OPENED, str(colleague.member_id), kind, owner)
        made.of_kind[kind]["key"] = (await made.api.key(kind, owner)).split("_")[2]
    else:
        made.of_kind[kind] |= made.of_kind[CallerKind.business] | {"mem": made.of_kind[kind]["mem"]}


async def test_nothing_is_changed_from_outside_by_a_viewer_or_anybody_else_who_may_not(scene: Scene) -> None:
    before, wrong = await scene.digest(), []
    for path, change in CHANGES.items():
        for kind in change.kinds:
            status, page = await scene.ask(Browser(scene.api), path, kind)
            if status != 303 or not page.startswith("/sign-in"):
                wrong.append(f"{path} signed out: {status}")
            for role in Role:
                if RANKS[role] < RANKS[change.role]:
                    status, page = await scene.ask(scene.browsers[kind, role], path, kind)
                    if status != 403 or "role_missing" not in page:
                        wrong.append(f"{path} as {role} of the {kind}: {status}")
            if change.theirs and kind in scene.strangers:
                status, page = await scene.ask(scene.strangers[kind], path, kind)
                if status != 404:
                    wrong.append(f"{path} as an owner of another {kind}: {status}")
            status, page = await scene.ask(scene.browsers[kind, change.role], path, kind, sec_fetch_site="cross-site")
            if status != 403 or "csrf" not in page:
                wrong.append(f"{path} from another site: {status}")
            status, page = await scene.ask(scene.browsers[kind, change.role], path, kind, csrf="x")
            if status != 403 or "csrf" not in page:
                wrong.append(f"{path} without a token: {status}")
        for kind in set(CallerKind) - set(change.kinds):
            status, page = await scene.ask(scene.browsers[kind, Role.owner], path, change.kinds[0])
            if status != 403 or "role_missing" not in page:
                wrong.append(f"{path} as an owner of the {kind}: {status}")
    assert wrong == []
    after = await scene.digest()
    assert [table for table in before if before[table] != after[table]] == []


async def test_the_least_role_that_may_is_not_refused(scene: Scene) -> None:
    """The form that another tenant's owner is refused with 404 is valid: the tenant itself can send it."""
    wrong = []
    for path, change in CHANGES.items():
        for kind in change.kinds:
            browser = scene.browsers[kind, change.role]
            status, page = await scene.ask(browser, path, kind)
            if status in (401, 403) or page.startswith("/sign-in") or "role_missing" in page:
                wrong.append(f"{path} as {change.role} of the {kind}: {status}")
            if path.startswith("/account/"):  # some of these end the asking session
                owner = await scene.api.pool.fetchval("select owner_id from member where id = $1", browser.member_id)
                scene.browsers[kind, change.role] = await signed_in(scene.api, kind, owner, role=change.role)
    assert wrong == []
