"""Who is looking: sessions in Postgres behind a cookie, and the proof that a change was asked for on a page of ours.

A session's id is 256 random bits, kept only as its digest, and made anew whenever somebody comes in or may do more than
before, so that an id planted or seen earlier leads nowhere. It ends after half a day unused and after a week anyway.

A change is believed when the browser says that the request comes from our own origin, and when it carries a token that
only a page shown in this session can hold. The token is different on every page, so that nothing about it can be
guessed from the length of compressed pages.
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
"A session that still asks for a second factor."
SEEN_SECONDS: Final = 60.0
"How exact the time of last use is: not every page writes it."
DEVICE_DAYS: Final = 365
NONCE_BYTES: Final = 16


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """Who looks at a page, through which session. `owner_id` is the tenant's id, None for an operator."""

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
        """The tenant that every query of a tenant's page is confined to. Raises RoleMissing for an operator."""
        if self.owner_id is None:
            raise errors.RoleMissing("This belongs to a business or a provider; you are signed in as an operator.")
        return self.owner_id

    @property
    def actor(self) -> str:
        """The member's public id: what the audit says."""
        return ids.encode("mem", self.member_id)

    @property
    def account(self) -> str:
        """The public id of the tenant, or of all operators together."""
        if self.owner_id is None:
            return "operators"
        return ids.encode("biz" if self.kind is CallerKind.business else "prov", self.owner_id)

    @property
    def may_change(self) -> bool:
        return self.role is not Role.viewer

    @property
    def keeps_team(self) -> bool:
        return self.role is Role.owner


async def visitor(request: AnyRequest, *kinds: CallerKind) -> Viewer:
    """Whoever is signed in, of one of `kinds` (any, if none is named).

    Raises NotSignedIn, and RoleMissing for somebody of another kind.
    """
    viewer = await find_viewer(request)
    if viewer is None or viewer.state is not SessionState.open:
        raise errors.NotSignedIn("Sign in to see this page.")
    request.scope["state"]["viewer"] = viewer
    if kinds and viewer.kind not in kinds:
        whom = " or ".join(f"{kind}s" if kind is not CallerKind.business else "businesses" for kind in kinds)
        raise errors.RoleMissing(f"This page is for {whom}; you are signed in for {_side(viewer)}.")
    return viewer


def _side(viewer: Viewer) -> str:
    return "the operator" if viewer.kind is CallerKind.operator else viewer.owner_name


async def find_viewer(request: AnyRequest) -> Viewer | None:
    """Whoever the request's cookie belongs to, whatever the session still asks for."""
    secret = _id_in(request)
    if secret is None:
        return None
    found = services(request)
    async with database(found.pool) as connection:
        row = await store.find_session(connection, digest(secret), IDLE_MINUTES)
        if row is not None and (clock.now() - row.seen_at).total_seconds() > SEEN_SECONDS:
            await store.mark_seen(connection, row.id_hash)
    if row is None:
        return None
    request.scope["state"]["key_id"] = ids.encode("mem", row.member_id)
    return _viewer(row, new_token(secret))


def _viewer(row: Session, csrf: str) -> Viewer:
    return Viewer(
        member_id=row.member_id, kind=row.kind, owner_id=row.owner_id, owner_name=row.owner_name,
        owner_state=row.owner_state, name=row.name, email=row.email, role=row.role, mode=row.mode, zone=row.zone,
        has_factor=row.has_factor, session=row.id_hash, csrf=csrf, state=row.state,
        opened=opened_of(row.opened_by, row.opened_reason),
    )  # fmt: skip


def demand_change(viewer: Viewer, role: Role = Role.member) -> None:
    """Raises RoleMissing unless the member's role goes as far as `role`, and OwnerSuspended for a suspended account."""
    allowed = {Role.owner: (Role.owner,), Role.member: (Role.owner, Role.member), Role.viewer: tuple(Role)}
    if viewer.role not in allowed[role]:
        raise errors.RoleMissing(f"Your role is {viewer.role}. Ask an owner of {viewer.owner_name or 'the team'}.")
    if viewer.owner_state != "active" and role is not Role.viewer:
        raise errors.OwnerSuspended("This account is suspended. Ask the operator of the marketplace why.")


# Ids and cookies.


def new_id() -> str:
    """A session's id as its cookie carries it."""
    return base64.urlsafe_b64encode(clock.random_bytes(ID_BYTES)).rstrip(b"=").decode()


def digest(secret: str) -> bytes:
    """Digest under which a session is kept: with 256 random bits in the id, a plain digest tells nothing."""
    return hashlib.sha256(b"portal-session:" + secret.encode()).digest()


async def begin(connection: object, member_id: UUID, state: SessionState, device: str) -> str:
    """A session with an id of its own; the id is given back once, for the cookie."""
    secret = new_id()
    minutes = LONGEST_MINUTES if state is SessionState.open else QUESTION_MINUTES
    await store.insert_session(connection, digest(secret), member_id, state, device, minutes)
    return secret


def cookie_name(settings: Settings, what: str = "session") -> str:
    """`__Host-` keeps other hosts of the domain from planting one; browsers allow it over TLS alone."""
    return f"__Host-{what}" if settings.secure_cookies else what


def cookie(settings: Settings, value: str, what: str = "session", seconds: int | None = None) -> Cookie:
    """Of this host alone, unread by scripts, not sent along by other sites' forms; ends with the browser by default."""
    return Cookie(
        key=cookie_name(settings, what), value=value, path="/", secure=settings.secure_cookies, httponly=True,
        samesite="lax", max_age=seconds,
    )  # fmt: skip


def _id_in(request: AnyRequest) -> str | None:
    given = request.cookies.get(cookie_name(services(request).settings))
    return given if given and len(given) <= 64 and given.isascii() else None


# The proof that a change was asked for on a page of ours.


def new_token(secret: str) -> str:
    """A token for one page shown in this session."""
    nonce = clock.random_bytes(NONCE_BYTES)
    return base64.urlsafe_b64encode(nonce + _seal(secret, nonce)).decode()


def _seal(secret: str, nonce: bytes) -> bytes:
    return hmac.digest(secret.encode(), b"portal-csrf:" + nonce, "sha256")


def demand_own_page(request: AnyRequest) -> None:
    """Raises CrossSite when the browser says that another site asks. Programs say nothing and have no cookie."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    ours = {services(request).settings.public_url, f"{request.url.scheme}://{request.headers.get('host', '')}"}
    if "sec-fetch-site" in request.headers:
        ours.add("null")  # what a browser that tells no referrer says of our own forms; `site` is what tells
    if site not in ("same-origin", "none") or (origin is not None and origin not in ours):
        raise errors.CrossSite("Open the page again and repeat what you did there.")


def demand_token(request: AnyRequest, given: str) -> None:
    """Raises CrossSite unless `given` was minted for this very session."""
    try:
        raw = base64.urlsafe_b64decode(given)
    except (binascii.Error, ValueError):
        raw = b""
    secret = _id_in(request) or ""
    nonce, seal = raw[:NONCE_BYTES], raw[NONCE_BYTES:]
    if not hmac.compare_digest(seal, _seal(secret, nonce)):
        raise errors.CrossSite("This page is out of date. Open it again and repeat what you did.")


def local_path(text: str | None) -> str | None:
    """`text` if it leads to one of our own pages, to go back to after signing in; never to another host."""
    if text is None or len(text) > 500 or not text.startswith("/") or text.startswith("//") or "\\" in text:
        return None
    parts = urlsplit(text)
    plain = text.isascii() and text.isprintable() and not parts.scheme and not parts.netloc
    return text if plain and not text.startswith(("/sign-", "/link")) else None
