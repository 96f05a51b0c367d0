"""Somebody in front of the portal: a browser that is signed in, keeps its cookies and fills in forms.

`signed_in` makes the member and the session behind the scenes, so that a test of a page costs a millisecond and not a
password's hash. What is true of signing in itself is tested where signing in is.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx

from marketplace.portal import session, store
from marketplace.portal.store import Member, Role, SessionState
from marketplace.runtime import clock, ids
from marketplace.security.auth import CallerKind
from tests.builders.service import Served, new_client


class Browser:
    """One browser at the portal of `api`. Cookies are its own, and are sent as browsers send them."""

    def __init__(self, api: Served, cookies: Mapping[str, str] | None = None) -> None:
        self.api = api
        self.cookies = dict(cookies or {})
        self.member_id: UUID | None = None

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """A page. Names of headers are given with underscores."""
        return await self._send("GET", path, None, headers)

    async def post(self, path: str, fields: Mapping[str, object] | None = None, **headers: str) -> httpx.Response:
        """A form, with a token as a page of this session holds it, unless `fields` brings a `csrf` of its own."""
        filled = {name: value for name, value in (fields or {}).items() if value is not None}
        secret = self.cookies.get(self.cookie("session"))
        if secret and "csrf" not in filled:
            filled["csrf"] = session.new_token(secret)
        return await self._send("POST", path, filled, headers)

    async def send_file(self, path: str, content: bytes, **fields: str) -> httpx.Response:
        """A form that holds a file, as a browser sends it, with a token as a page of this session holds it."""
        filled = fields | {"csrf": session.new_token(self.cookies[self.cookie("session")])}
        return await self._send("POST", path, filled, {}, {"file": ("leads.csv", content, "text/csv")})

    def cookie(self, what: str) -> str:
        """A cookie's name as this server gives it: the builder's server has a public address of its own, over TLS."""
        return f"__Host-{what}"

    async def _send(
        self,
        method: str,
        path: str,
        fields: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if method == "POST" and files is None:
            sent.setdefault("content-type", "application/x-www-form-urlencoded")
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        url = f"http://127.0.0.1:{self.api.port}{path}"
        async with new_client() as client:
            reply = await client.request(method, url, data=fields, files=files, headers=sent)
        for name, value in reply.cookies.items():
            self.cookies[name] = value.strip('"')
        for line in reply.headers.get_list("set-cookie"):
            name, _, rest = line.partition("=")
            if "max-age=0" in rest.lower():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = rest.partition(";")[0].strip('"')
        return reply


async def preview_import(browser: Browser) -> str:
    """Return the id of an import that waits to begin: a file of one good shared lead, which a business looks at."""
    day = f"{clock.now() - timedelta(days=40):%Y-%m-%d}"
    content = f"Lead ID,Source,Date,Price,Won date,Sale value\nS1,SharedCo,{day},30,,\n".encode()
    reply = await browser.send_file("/business/reports/shared-leads/preview", content)
    assert reply.status_code == 303, reply.text
    return reply.headers["location"].rpartition("/")[2]


async def signed_in(
    api: Served,
    kind: str,
    owner_id: UUID | str | None = None,
    *,
    role: str = "owner",
    mode: str = "live",
    name: str = "Robin Example",
) -> Browser:
    """A browser with an open session of a new member: of the operator, or of the provider or business with this id."""
    owner = ids.decode(owner_id.split("_")[0], owner_id) if isinstance(owner_id, str) else owner_id
    member = Member(
        id=clock.new_id(),
        kind=CallerKind(kind),
        owner_id=owner,
        email=f"{clock.new_id().hex}@example.com",
        name=name,
        role=Role(role),
        state="active",
        zone=None,
        has_password=False,
        has_factor=False,
        created_at=clock.now(),
    )
    async with api.pool.acquire() as connection:
        await store.insert_member(connection, member, None)
        secret = await session.begin(connection, member.id, SessionState.open, "a browser of a test")
        if mode != "live":
            await connection.execute("update portal_session set mode = $2 where member_id = $1", member.id, mode)
    browser = Browser(api)
    browser.cookies[browser.cookie("session")] = secret
    browser.member_id = member.id
    return browser
