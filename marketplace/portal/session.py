"""Sessions in Postgres, their cookies, and the protection of changes against requests from other sites.

The id of a session is 256 random bits. Only its digest is stored. Each sign-in, and each step that allows more, makes a
new id, so that an id that was planted or seen before is useless. A session ends after 12 hours without use, and at the
latest after 7 days.

A change is accepted if the browser says that the request comes from our own origin, and if the form carries a token of
this session. The token differs on every page, so that the length of compressed pages reveals nothing about it (BREACH).
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from litestar.datastructures import Cookie

from marketplace.database.db import Connection
from marketplace.database.db import session as database
from marketplace.portal import store
from marketplace.portal.store import Role, Session, SessionState
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, UnconfirmedAccess, opened_of
from marketplace.web.http import AnyRequest, services

ID_BYTES: Final = 32
IDLE_MINUTES: Final = 12 * 60
LONGEST_MINUTES: Final = 7 * 24 * 60
QUESTION_MINUTES: Final = 10
"Lifetime of a session that still needs a code of the second factor."
SEEN_SECONDS: Final = 60.0
"The time of last use is written at most this often."
DEVICE_DAYS: Final = 365
NONCE_BYTES: Final = 16


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """The member who requests a page, and the session. `owner_id` is the business or provider, None for operators."""

    member_id: UUID
    kind: CallerKind
    owner_id: UUID | None
    owner_name: str
    owner_state: str
    name: str
    email: str
    role: Role
    mode: str
    zone: str
    has_factor: bool
    session: bytes
    csrf: str
    state: SessionState
    opened: UnconfirmedAccess | None = None

    @property
    def owner(self) -> UUID:
        """Id of the tenant to which all queries of this page are confined. Raises RoleMissing for an operator."""
        if self.owner_id is None:
            raise errors.RoleMissing("This belongs to a business or a provider; you are signed in as an operator.")
        return self.owner_id

    @property
    def actor(self) -> str:
        """Public id of the member, as it stands in the audit log."""
        return ids.encode("mem", self.member_id)

    @property
    def account(self) -> str:
        """Public id of the tenant; `operators` for all operators together."""
        if self.owner_id is None:
            return "operators"
        prefix = "biz" if self.kind is CallerKind.business else "prov"
        return ids.encode(prefix, self.owner_id)

    @property
    def may_change(self) -> bool:
        return self.role is not Role.viewer

    @property
    def keeps_team(self) -> bool:
        return self.role is Role.owner


async def visitor(request: AnyRequest, *kinds: CallerKind) -> Viewer:
    """Return the signed-in member, who must be of one of `kinds` if any are named.

    Raises NotSignedIn, and RoleMissing for a member of another kind.
    """
    viewer = await find_viewer(request)
    if viewer is None or viewer.state is not SessionState.open:
        raise errors.NotSignedIn("Sign in to see this page.")
    request.scope["state"]["viewer"] = viewer
    if kinds and viewer.kind not in kinds:
        audience = " or ".join(f"{kind}s" if kind is not CallerKind.business else "businesses" for kind in kinds)
        raise errors.RoleMissing(f"This page is for {audience}; you are signed in for {_account_name(viewer)}.")
    return viewer


def _account_name(viewer: Viewer) -> str:
    return "the operator" if viewer.kind is CallerKind.operator else viewer.owner_name


async def find_viewer(request: AnyRequest) -> Viewer | None:
    """Return the member of the session in the request's cookie, or None; the session may still need a second factor."""
    secret = _id_in(request)
    if secret is None:
        return None
    async with database(services(request).pool) as connection:
        row = await store.find_session(connection, digest(secret), IDLE_MINUTES)
        if row is not None and (clock.now() - row.seen_at).total_seconds() > SEEN_SECONDS:
            await store.mark_seen(connection, row.id_hash)
    if row is None:
        return None
    request.scope["state"]["key_id"] = ids.encode("mem", row.member_id)
    return _viewer(row, new_token(secret))


def _viewer(row: Session, csrf: str) -> Viewer:
    return Viewer(
        member_id=row.member_id,
        kind=row.kind,
        owner_id=row.owner_id,
        owner_name=row.owner_name,
        owner_state=row.owner_state,
        name=row.name,
        email=row.email,
        role=row.role,
        mode=row.mode,
        zone=row.zone,
        has_factor=row.has_factor,
        session=row.id_hash,
        csrf=csrf,
        state=row.state,
        opened=opened_of(row.opened_by, row.opened_reason),
    )


def demand_change(viewer: Viewer, role: Role = Role.member) -> None:
    """Raise RoleMissing if the member has less than `role`, and OwnerSuspended if the account is suspended."""
    allowed = {Role.owner: (Role.owner,), Role.member: (Role.owner, Role.member), Role.viewer: tuple(Role)}
    if viewer.role not in allowed[role]:
        raise errors.RoleMissing(f"Your role is {viewer.role}. Ask an owner of {viewer.owner_name or 'the team'}.")
    if viewer.owner_state != "active" and role is not Role.viewer:
        raise errors.OwnerSuspended("This account is suspended. Ask the operator of the marketplace why.")


# Ids and cookies.


def new_id() -> str:
    """Return a new random session id as its cookie carries it."""
    return base64.urlsafe_b64encode(clock.random_bytes(ID_BYTES)).rstrip(b"=").decode()


def digest(secret: str) -> bytes:
    """Return the digest under which a session is stored. It needs no salt, because the id has 256 random bits."""
    return hashlib.sha256(b"portal-session:" + secret.encode()).digest()


async def begin(connection: Connection, member_id: UUID, state: SessionState, device: str) -> str:
    """Start a session and return its new id, which is for the cookie alone."""
    secret = new_id()
    minutes = LONGEST_MINUTES if state is SessionState.open else QUESTION_MINUTES
    await store.insert_session(connection, digest(secret), member_id, state, device, minutes)
    return secret


def cookie_name(settings: Settings, what: str = "session") -> str:
    """Return the name of a cookie; with `__Host-` over TLS, so that no other host of the domain can set it."""
    return f"__Host-{what}" if settings.secure_cookies else what


def cookie(settings: Settings, value: str, what: str = "session", seconds: int | None = None) -> Cookie:
    """Return a cookie for this host alone that scripts cannot read and forms of other sites do not send.

    Without `seconds` it ends with the browser.
    """
    return Cookie(
        key=cookie_name(settings, what),
        value=value,
        path="/",
        secure=settings.secure_cookies,
        httponly=True,
        samesite="lax",
        max_age=seconds,
    )


def _id_in(request: AnyRequest) -> str | None:
    secret = request.cookies.get(cookie_name(services(request).settings))
    return secret if secret and len(secret) <= 64 and secret.isascii() else None


# Protection against requests from other sites.


def new_token(secret: str) -> str:
    """Return a new token of this session, for the forms of one page."""
    nonce = clock.random_bytes(NONCE_BYTES)
    return base64.urlsafe_b64encode(nonce + _seal(secret, nonce)).decode()


def _seal(secret: str, nonce: bytes) -> bytes:
    return hmac.digest(secret.encode(), b"portal-csrf:" + nonce, "sha256")


def demand_own_page(request: AnyRequest) -> None:
    """Raise CrossSite if the browser says that another site sent the request.

    Programs send no such header, and have no session cookie.
    """
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    ours = {services(request).settings.public_url, f"{request.url.scheme}://{request.headers.get('host', '')}"}
    if "sec-fetch-site" in request.headers:
        ours.add("null")  # sent from our own forms if the browser hides the referrer; then `site` decides
    if site not in ("same-origin", "none") or (origin is not None and origin not in ours):
        raise errors.CrossSite("Open the page again and repeat what you did there.")


def demand_token(request: AnyRequest, token: str) -> None:
    """Raise CrossSite unless `token` was made for this session."""
    try:
        raw = base64.urlsafe_b64decode(token)
    except (binascii.Error, ValueError):
        raw = b""
    secret = _id_in(request) or ""
    nonce, seal = raw[:NONCE_BYTES], raw[NONCE_BYTES:]
    if not hmac.compare_digest(seal, _seal(secret, nonce)):
        raise errors.CrossSite("This page is out of date. Open it again and repeat what you did.")


def local_path(text: str | None) -> str | None:
    """Return `text` if it is the path of one of our pages, to return to after signing in, or else None."""
    if text is None or len(text) > 500 or not text.startswith("/") or text.startswith("//") or "\\" in text:
        return None
    parts = urlsplit(text)
    plain = text.isascii() and text.isprintable() and not parts.scheme and not parts.netloc
    return text if plain and not text.startswith(("/sign-", "/link")) else None
