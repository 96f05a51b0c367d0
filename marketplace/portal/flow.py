"""Signing in, passwords, second factors, one-time links and teams; each change commits with its audit row."""

import hashlib
import hmac
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec
import pyotp

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.directory import flow as directory_flow
from marketplace.portal import store
from marketplace.portal.passwords import Passwords, demand_possible
from marketplace.portal.session import Viewer, begin, digest, new_id
from marketplace.portal.store import Credentials, Member, OneTimeLink, Purpose, Role, SessionState
from marketplace.runtime import clock, errors, ids
from marketplace.security import access, audit
from marketplace.security.auth import CallerKind, UnconfirmedAccess
from marketplace.security.sealing import Sealer

LIFETIMES: Final = {
    Purpose.invite: timedelta(days=7),
    Purpose.reset: timedelta(minutes=15),
    Purpose.enter: timedelta(minutes=15),
    Purpose.set_up: timedelta(minutes=15),
    Purpose.factor: timedelta(minutes=15),
    Purpose.sign_up: timedelta(days=7),
}
STEP_SECONDS: Final = 30
STEPS_OFF: Final = 1
"Codes of so many time steps before and after are accepted too, for phones whose clock is off."
CODE_ADVICE: Final = "Enter the six digits that your authenticator app shows now. Each code works once."
VISITOR: Final = "visitor"
"Actor of a failed attempt, because the person is not known."
UNKNOWN_MEMBER: Final = "unknown member"
NO_SUCH_MEMBER: Final = "Your team has no member with this id."
USED_LINK: Final = "Each link works once. Sign in, or ask for a new one."
EXPIRED_LINK: Final = "Ask the person who sent it to you for a new one."


class AccountServices(msgspec.Struct, frozen=True, kw_only=True):
    """Connections, sealer and password hashing that the functions of this module work with."""

    pool: Pool
    sealer: Sealer
    passwords: Passwords


class BrowserClient(msgspec.Struct, frozen=True, kw_only=True):
    """The browser that sent a request: its user agent, and its network address for the audit log."""

    device: str
    address: str


class SessionStart(msgspec.Struct, frozen=True, kw_only=True):
    """A new session: `secret` is its id for the cookie, `state` says whether a second factor is still due."""

    secret: str
    state: SessionState
    email: str


# Signing in.


async def sign_in(
    accounts: AccountServices, email: str, password: str, *, client: BrowserClient, browser: str | None
) -> SessionStart:
    """Start a session for the member with this password.

    An unknown address and a wrong password get the same answer after the same time. `browser` names a browser in which
    the member signed in before: attempts from it are counted apart from all others, so that the guesses of an attacker
    cannot lock a member out of it. Each failure is in the audit log.

    Raises SignInFailed, RateLimited, InvalidInput for a text that cannot be a password, Unavailable.
    """
    demand_possible(password)
    subject = f"browser:{browser}" if browser else f"address:{email}"
    name = _try_name(accounts, subject)
    await _count_try(accounts.pool, name)
    async with session(accounts.pool) as connection:
        member = await store.find_credentials(connection, email)
    usable = member if member is not None and member.state == "active" else None
    password_hash = usable.password_hash if usable else None
    if not await accounts.passwords.matches(password_hash, password) or usable is None:
        # People type passwords into the address field: only a keyed hash of the text is stored, to compare attempts.
        email_hash = _try_name(accounts, f"address:{email}").hex()[:16]
        member_id = member.id if member else None
        await _record_failure(accounts.pool, member_id, "member.sign_in_failed", client, email_hash=email_hash)
        raise errors.SignInFailed("The e-mail address or the password is wrong. Try again.")
    async with transaction(accounts.pool) as connection:
        await store.delete_try(connection, name)
        await store.delete_ended(connection)
        return await _start_session(accounts, connection, usable, email, client)


async def _start_session(
    accounts: AccountServices, connection: Connection, member: Credentials, email: str, client: BrowserClient
) -> SessionStart:
    """Start the session that a member gets after the password: open, or waiting for the second factor."""
    state = SessionState.open
    if member.totp_confirmed_at is not None:
        state = SessionState.code_due
    elif member.kind is CallerKind.operator:
        state = SessionState.factor_due
    secret = await begin(connection, member.id, state, client.device)
    if state is SessionState.factor_due:
        await _prepare_factor(accounts, connection, digest(secret), member.id)
    await _record(connection, member.id, "member.sign_in", state=state)
    return SessionStart(secret=secret, state=state, email=email)


async def prove_code(accounts: AccountServices, viewer: Viewer, code: str, client: BrowserClient) -> SessionStart:
    """Replace this session by an open one if the code is right. Raises CodeWrong and RateLimited.

    In a session that waits for a code, it is one of the member's active factor. In any other it is the first code of
    the factor set up there: that factor becomes the active one, and all sessions and links of the member end.
    """
    name = _try_name(accounts, f"code:{viewer.member_id}")
    await _count_try(accounts.pool, name)
    async with transaction(accounts.pool) as connection:
        member = await store.lock_credentials(connection, viewer.member_id)
        renews = viewer.state is not SessionState.code_due
        prove = _activate_factor if renews else _use_code
        if member is not None and await prove(accounts, connection, viewer, member, code):
            await store.delete_try(connection, name)
            if renews:
                await store.delete_sessions(connection, viewer.member_id)
                await store.mark_links_dead(connection, viewer.member_id)
            await store.delete_session(connection, viewer.session, viewer.member_id)
            secret = await begin(connection, viewer.member_id, SessionState.open, client.device)
            await _record(connection, viewer.member_id, "member.prove_code", confirmed=renews)
            return SessionStart(secret=secret, state=SessionState.open, email=viewer.email)
    await _record_failure(accounts.pool, viewer.member_id, "member.code_failed", client)
    raise errors.CodeWrong(CODE_ADVICE)


async def _use_code(
    accounts: AccountServices, connection: Connection, viewer: Viewer, member: Credentials, code: str
) -> bool:
    """Mark a code of the active factor as used. Return whether it was right and unused."""
    if member.totp is None or member.totp_confirmed_at is None:
        return False
    step = _step_of(accounts, member.id, member.totp, code, await store.find_epoch(connection))
    return step is not None and await store.mark_code_used(connection, member.id, step)


async def _activate_factor(
    accounts: AccountServices, connection: Connection, viewer: Viewer, member: Credentials, code: str
) -> bool:
    """Make the factor set up in this session the active one. Return whether the code was right."""
    sealed = await store.find_session_factor(connection, viewer.session, member.id)
    if sealed is None:
        return False
    step = _step_of(accounts, member.id, sealed, code, await store.find_epoch(connection))
    if step is None:
        return False
    await store.activate_factor(connection, member.id, sealed, step, clock.now())
    return True


def _step_of(accounts: AccountServices, member_id: UUID, sealed: bytes, code: str, epoch: float) -> int | None:
    """Return the time step of which this is the code, within STEPS_OFF of now; None for any other code."""
    plain = code.replace(" ", "")
    if not (plain.isascii() and plain.isdecimal() and len(plain) == 6):
        return None
    factor = pyotp.TOTP(accounts.sealer.open_secret(member_id, sealed), interval=STEP_SECONDS)
    now = int(epoch) // STEP_SECONDS
    steps = range(now - STEPS_OFF, now + STEPS_OFF + 1)
    matching = [step for step in steps if hmac.compare_digest(factor.generate_otp(step), plain)]
    return matching[0] if matching else None


async def sign_out(accounts: AccountServices, viewer: Viewer) -> None:
    async with transaction(accounts.pool) as connection:
        await store.delete_session(connection, viewer.session, viewer.member_id)
        await _record(connection, viewer.member_id, "member.sign_out")


async def _count_try(pool: Pool, name: bytes) -> None:
    """Count an attempt before it is made. Raises RateLimited if the wait of earlier failures is not over."""
    async with session(pool) as connection:
        if not await store.insert_try(connection, name):
            wait = await store.find_wait(connection, name)
            raise errors.RateLimited(f"Too many attempts. Wait {wait} seconds, then try again.", wait)


def _try_name(accounts: AccountServices, text: str) -> bytes:
    return accounts.sealer.keyed_hash("portal-try", text)


async def _record(connection: Connection, member_id: UUID, action: str, **detail: str | int | bool | None) -> None:
    subject = ids.encode("mem", member_id)
    await audit.record(connection, clock.now(), subject, action, subject, **detail)


async def _record_failure(
    pool: Pool, member_id: UUID | None, action: str, client: BrowserClient, **detail: str
) -> None:
    """Record a failed attempt in the audit log, with the network address and the member, if known."""
    subject = UNKNOWN_MEMBER if member_id is None else ids.encode("mem", member_id)
    async with transaction(pool) as connection:
        await audit.record(connection, clock.now(), VISITOR, action, subject, address=client.address, **detail)


# Browsers in which a member signed in before.


def browser_of(accounts: AccountServices, token: str | None, email: str) -> str | None:
    """Return the name of the browser in this token; None if the token is not genuine or for another e-mail address."""
    name, _, seal = (token or "").partition(".")
    return name if name and hmac.compare_digest(seal, _browser_seal(accounts, name, email)) else None


def browser_token(accounts: AccountServices, email: str) -> str:
    """Return a token for a browser in which this member signed in. It gives no access."""
    name = new_id()
    return f"{name}.{_browser_seal(accounts, name, email)}"


def _browser_seal(accounts: AccountServices, name: str, email: str) -> str:
    return accounts.sealer.keyed_hash("portal-browser", f"{name}:{email}").hex()


# Password and second factor.


async def change_password(
    accounts: AccountServices, viewer: Viewer, current: str, fresh: str, client: BrowserClient
) -> SessionStart:
    """Set a new password, end all sessions and links of the member, and start one new session.

    Raises SignInFailed if `current` is wrong, InvalidInput if `fresh` is too weak, RateLimited.
    """
    await _demand_password(accounts, viewer, current, client)
    await accounts.passwords.demand_strong(fresh, viewer.email, viewer.name, "fresh_password")
    password_hash = await accounts.passwords.hash(fresh)
    async with transaction(accounts.pool) as connection:
        await store.mark_password(connection, viewer.member_id, password_hash)
        return await _begin_anew(connection, viewer, "member.change_password", client)


async def begin_factor(
    accounts: AccountServices, viewer: Viewer, current: str, code: str, client: BrowserClient
) -> None:
    """Set up a second factor in this session. It becomes active with its first code; the present one works until then.

    `code` is of the active factor, if there is one. Raises SignInFailed, CodeWrong, RateLimited.
    """
    await _demand_password(accounts, viewer, current, client)
    await _demand_code(accounts, viewer, code, client)
    async with transaction(accounts.pool) as connection:
        await _prepare_factor(accounts, connection, viewer.session, viewer.member_id)
        await _record(connection, viewer.member_id, "member.begin_factor")


async def remove_factor(
    accounts: AccountServices, viewer: Viewer, current: str, code: str, client: BrowserClient
) -> SessionStart:
    """Remove the second factor, and start one new session in place of all others.

    Raises RoleMissing for an operator, who must have a second factor; otherwise as `begin_factor`.
    """
    if viewer.kind is CallerKind.operator:
        raise errors.RoleMissing("Operators need a second factor. You can replace it by another.")
    await _demand_password(accounts, viewer, current, client)
    await _demand_code(accounts, viewer, code, client)
    async with transaction(accounts.pool) as connection:
        await store.delete_factor(connection, viewer.member_id)
        return await _begin_anew(connection, viewer, "member.remove_factor", client)


async def find_factor(accounts: AccountServices, viewer: Viewer, issuer: str) -> str | None:
    """Return the otpauth address of the factor set up in this session, for an authenticator app to scan; or None."""
    async with session(accounts.pool) as connection:
        sealed = await store.find_session_factor(connection, viewer.session, viewer.member_id)
    if sealed is None:
        return None
    secret = accounts.sealer.open_secret(viewer.member_id, sealed)
    return pyotp.TOTP(secret, interval=STEP_SECONDS).provisioning_uri(name=viewer.email, issuer_name=issuer)


async def _prepare_factor(accounts: AccountServices, connection: Connection, id_hash: bytes, member_id: UUID) -> None:
    sealed = accounts.sealer.seal_secret(member_id, pyotp.random_base32(32))
    await store.mark_session_factor(connection, id_hash, member_id, sealed)


async def _begin_anew(connection: Connection, viewer: Viewer, action: str, client: BrowserClient) -> SessionStart:
    await store.delete_sessions(connection, viewer.member_id)
    await store.mark_links_dead(connection, viewer.member_id)
    secret = await begin(connection, viewer.member_id, SessionState.open, client.device)
    await _record(connection, viewer.member_id, action)
    return SessionStart(secret=secret, state=SessionState.open, email=viewer.email)


async def _demand_password(accounts: AccountServices, viewer: Viewer, current: str, client: BrowserClient) -> None:
    """Check the present password; a member who has none, and signed in by link, needs none.

    Raises SignInFailed and RateLimited.
    """
    demand_possible(current)
    async with session(accounts.pool) as connection:
        member = await store.find_credentials(connection, viewer.email)
    if member is not None and member.password_hash is not None:
        await _match_password(accounts, member, current, client)


async def _match_password(accounts: AccountServices, member: Credentials, password: str, client: BrowserClient) -> None:
    """Check a member's password. Raises SignInFailed and RateLimited."""
    demand_possible(password)
    name = _try_name(accounts, f"again:{member.id}")
    await _count_try(accounts.pool, name)
    if not await accounts.passwords.matches(member.password_hash, password):
        await _record_failure(accounts.pool, member.id, "member.password_failed", client)
        raise errors.SignInFailed("The current password is wrong.")
    async with session(accounts.pool) as connection:
        await store.delete_try(connection, name)


async def _demand_code(accounts: AccountServices, viewer: Viewer, code: str, client: BrowserClient) -> None:
    """Use a code of the active factor; a member without a factor needs none. Raises CodeWrong, RateLimited."""
    name = _try_name(accounts, f"code:{viewer.member_id}")
    await _count_try(accounts.pool, name)
    async with transaction(accounts.pool) as connection:
        member = await store.lock_credentials(connection, viewer.member_id)
        has_factor = member is not None and member.totp_confirmed_at is not None
        if member is None or not has_factor or await _use_code(accounts, connection, viewer, member, code):
            await store.delete_try(connection, name)
            return
    await _record_failure(accounts.pool, viewer.member_id, "member.code_failed", client)
    raise errors.CodeWrong(f"{CODE_ADVICE} Use the authenticator app with which you sign in now.")


async def end_session(accounts: AccountServices, viewer: Viewer, id_hash: bytes) -> None:
    """End one of the member's own sessions. Raises NotFound."""
    async with transaction(accounts.pool) as connection:
        if not await store.delete_session(connection, id_hash, viewer.member_id):
            raise errors.NotFound("This session has ended.")
        await _record(connection, viewer.member_id, "member.end_session")


async def change_profile(accounts: AccountServices, viewer: Viewer, name: str, zone: str | None) -> None:
    async with transaction(accounts.pool) as connection:
        await store.mark_profile(connection, viewer.member_id, name, zone)
        await _record(connection, viewer.member_id, "member.change_profile", zone=zone)


# One-time links.


async def invite(
    pool: Pool,
    actor: str,
    kind: CallerKind,
    owner_id: UUID | None,
    role: Role,
    email: str,
    lifetime: timedelta = LIFETIMES[Purpose.invite],
    opened: UnconfirmedAccess | None = None,
) -> str:
    """Return the token of a new invitation to an account. Anybody who has the token can use it.

    `opened` names the operator who invites somebody to a tenant's account. Raises InvalidInput if it lacks a reason,
    and Conflict if the address belongs to a member of this account.
    """
    now = clock.now()
    opened_by, opened_reason = (opened.by, opened.reason) if opened else (None, None)
    link = OneTimeLink(
        purpose=Purpose.invite,
        member_id=None,
        kind=kind,
        owner_id=owner_id,
        role=role,
        email=email.lower(),
        made_by=actor,
        made_at=now,
        expires_at=now + lifetime,
        used_at=None,
        expired=False,
        opened_by=opened_by,
        opened_reason=opened_reason,
    )
    async with transaction(pool) as connection:
        if owner_id is not None:
            await access.demand_reason(connection, kind, owner_id, opened)
        member = await store.find_member_by_email(connection, link.email or "")
        if member is not None and (member.kind, member.owner_id) == (kind, owner_id):
            raise errors.Conflict("This e-mail address already belongs to a member of this account.")
        await audit.record(connection, now, actor, "member.invite", account_of(kind, owner_id), role=role)
        return await _keep_link(connection, link)


async def link_for(
    pool: Pool,
    actor: str,
    member: Member,
    purpose: Purpose,
    lifetime: timedelta | None = None,
    opened: UnconfirmedAccess | None = None,
) -> str:
    """Return the token of a new link by which a member signs in, sets a new password or replaces the second factor.

    `opened` names the operator who makes the link for a tenant's member. Raises InvalidInput if it lacks a reason.
    """
    now = clock.now()
    opened_by, opened_reason = (opened.by, opened.reason) if opened else (None, None)
    link = OneTimeLink(
        purpose=purpose,
        member_id=member.id,
        kind=None,
        owner_id=None,
        role=None,
        email=None,
        made_by=actor,
        made_at=now,
        expires_at=now + (lifetime or LIFETIMES[purpose]),
        used_at=None,
        expired=False,
        opened_by=opened_by,
        opened_reason=opened_reason,
    )
    async with transaction(pool) as connection:
        if member.owner_id is not None:
            await access.demand_reason(connection, member.kind, member.owner_id, opened)
        subject = ids.encode("mem", member.id)
        await audit.record(connection, now, actor, f"member.link_{purpose}", subject, reason=opened_reason)
        return await _keep_link(connection, link)


async def first_link(pool: Pool) -> str | None:
    """Return the token of the link by which the first operator joins; None if there is an operator."""
    now = clock.now()
    link = OneTimeLink(
        purpose=Purpose.set_up,
        member_id=None,
        kind=None,
        owner_id=None,
        role=None,
        email=None,
        made_by=audit.COMMAND_LINE,
        made_at=now,
        expires_at=now + LIFETIMES[Purpose.set_up],
        used_at=None,
        expired=False,
    )
    async with transaction(pool) as connection:
        if await store.count_operators(connection):
            return None
        return await _keep_link(connection, link)


async def sign_up_link(pool: Pool, actor: str, currency: str) -> str:
    """Return the token of a new link by which a business signs itself up. Anybody who has the token can use it, once.

    Raises InvalidInput for an unknown currency.
    """
    directory_flow.demand_currency(currency)
    now = clock.now()
    link = OneTimeLink(
        purpose=Purpose.sign_up,
        member_id=None,
        kind=CallerKind.business,
        owner_id=None,
        role=Role.owner,
        email=None,
        made_by=actor,
        made_at=now,
        expires_at=now + LIFETIMES[Purpose.sign_up],
        used_at=None,
        expired=False,
        currency=currency,
    )
    async with transaction(pool) as connection:
        await audit.record(connection, now, actor, "member.link_sign_up", "marketplace", currency=currency)
        return await _keep_link(connection, link)


async def _keep_link(connection: Connection, link: OneTimeLink) -> str:
    token = new_id()
    await store.insert_link(connection, _token_digest(token), link)
    return token


def _token_digest(token: str) -> bytes:
    return hashlib.sha256(b"portal-link:" + token.encode()).digest()


async def load_link(pool: Pool, token: str) -> tuple[OneTimeLink, Member | None]:
    """Return a link and the member that it names, if any. Raises TokenUsed, TokenExpired (also if unknown)."""
    async with session(pool) as connection:
        link = await store.find_link(connection, _token_digest(token))
        if link is None or (link.expired and link.used_at is None):
            raise errors.TokenExpired(EXPIRED_LINK)
        if link.used_at is not None:
            raise errors.TokenUsed(USED_LINK)
        member = None if link.member_id is None else await store.find_member(connection, link.member_id)
    if link.member_id is not None and (member is None or member.state != "active"):
        raise errors.TokenExpired(EXPIRED_LINK)
    return link, member


async def join(
    accounts: AccountServices, token: str, *, email: str, name: str, password: str, client: BrowserClient
) -> SessionStart:
    """Create a member by invitation, or the first operator. Raises as `load_link`, InvalidInput, Conflict."""
    link, _ = await load_link(accounts.pool, token)
    first = link.purpose is Purpose.set_up
    if not first and link.purpose is not Purpose.invite:
        raise errors.TokenExpired(EXPIRED_LINK)
    address = email.lower() if first else str(link.email)
    await accounts.passwords.demand_strong(password, address, name)
    password_hash = await accounts.passwords.hash(password)
    kind, role = CallerKind.operator, Role.owner
    if not first:
        kind, role = CallerKind(str(link.kind)), Role(str(link.role))
    member = Member(
        id=clock.new_id(),
        kind=kind,
        owner_id=link.owner_id,
        email=address,
        name=name,
        role=role,
        state="active",
        zone=None,
        has_password=True,
        has_factor=False,
        created_at=clock.now(),
    )
    try:
        async with transaction(accounts.pool) as connection:
            await _use(connection, token)
            if first and await store.count_operators(connection):
                raise errors.TokenUsed("There is an operator already. Ask for an invitation.")
            if member.owner_id is not None:
                way = (access.AccessKind.member, member.id, member.kind, member.owner_id)
                await access.record_opened(connection, *way, link.opened)
            await store.insert_member(connection, member, password_hash)
            await _record(connection, member.id, "member.join", role=member.role)
            return await _start_session(
                accounts, connection, await _credentials(connection, member.id), address, client
            )
    except errors.Conflict:
        await _end_invitation(accounts.pool, token, link, client)
        raise


async def sign_up(
    accounts: AccountServices,
    token: str,
    *,
    company: str,
    zone: str,
    email: str,
    name: str,
    password: str,
    client: BrowserClient,
) -> SessionStart:
    """Create a business with its wallet, and its owner, by a link. All of it is one transaction.

    Raises as `load_link`, InvalidInput, and Conflict for an e-mail address that has access already.
    """
    link, _ = await load_link(accounts.pool, token)
    if link.purpose is not Purpose.sign_up or link.currency is None:
        raise errors.TokenExpired(EXPIRED_LINK)
    address = email.lower()
    await accounts.passwords.demand_strong(password, address, name)
    password_hash = await accounts.passwords.hash(password)
    member = Member(
        id=clock.new_id(),
        kind=CallerKind.business,
        owner_id=None,
        email=address,
        name=name,
        role=Role.owner,
        state="active",
        zone=None,
        has_password=True,
        has_factor=False,
        created_at=clock.now(),
    )
    actor = ids.encode("mem", member.id)
    try:
        async with transaction(accounts.pool) as connection:
            await _use(connection, token)
            owner_id = await directory_flow.add_business(connection, actor, company, zone, link.currency)
            await store.insert_member(connection, msgspec.structs.replace(member, owner_id=owner_id), password_hash)
            await _record(connection, member.id, "member.join", role=member.role)
            return await _start_session(
                accounts, connection, await _credentials(connection, member.id), address, client
            )
    except errors.Conflict:
        await _end_invitation(accounts.pool, token, link, client)
        raise


async def _end_invitation(pool: Pool, token: str, link: OneTimeLink, client: BrowserClient) -> None:
    """Use up an invitation whose address has access already: a link reveals that of one address, and it is recorded."""
    async with transaction(pool) as connection:
        await _use(connection, token)
        named = link.kind is not None and link.purpose is Purpose.invite
        subject = account_of(CallerKind(str(link.kind)), link.owner_id) if named else "marketplace"
        now, address = clock.now(), client.address
        await audit.record(connection, now, VISITOR, "member.join_refused", subject, address=address)


async def choose_password(accounts: AccountServices, token: str, password: str, client: BrowserClient) -> SessionStart:
    """Set a new password by link; all sessions and other links of the member end. Raises as `join`."""
    link, member = await load_link(accounts.pool, token)
    if member is None or link.purpose is not Purpose.reset:
        raise errors.TokenExpired(EXPIRED_LINK)
    await accounts.passwords.demand_strong(password, member.email, member.name)
    password_hash = await accounts.passwords.hash(password)
    async with transaction(accounts.pool) as connection:
        await _use(connection, token)
        await store.mark_password(connection, member.id, password_hash)
        if member.owner_id is not None:
            way = (access.AccessKind.member, member.id, member.kind, member.owner_id)
            await access.record_opened(connection, *way, link.opened)
        await store.mark_links_dead(connection, member.id)
        await store.delete_sessions(connection, member.id)
        await _record(connection, member.id, "member.choose_password")
        return await _start_session(
            accounts, connection, await _credentials(connection, member.id), member.email, client
        )


async def sign_in_by_link(accounts: AccountServices, token: str, client: BrowserClient) -> SessionStart:
    """Open a session by a link made on the server's command line, without a second factor. Raises as `load_link`."""
    link, member = await load_link(accounts.pool, token)
    if member is None or link.purpose is not Purpose.enter:
        raise errors.TokenExpired(EXPIRED_LINK)
    async with transaction(accounts.pool) as connection:
        await _use(connection, token)
        secret = await begin(connection, member.id, SessionState.open, client.device)
        await _record(connection, member.id, "member.come_in")
    return SessionStart(secret=secret, state=SessionState.open, email=member.email)


async def renew_factor(accounts: AccountServices, token: str, password: str, client: BrowserClient) -> SessionStart:
    """Start a session with a new second factor that waits for its first code, by link and password.

    The active factor works until then. Raises SignInFailed and RateLimited, and as `load_link`.
    """
    link, member = await load_link(accounts.pool, token)
    if member is None or link.purpose is not Purpose.factor:
        raise errors.TokenExpired(EXPIRED_LINK)
    async with session(accounts.pool) as connection:
        credentials = await store.find_credentials(connection, member.email)
    if credentials is None or credentials.password_hash is None:
        raise errors.SignInFailed("You have no password yet. Ask for a link to set one.")
    await _match_password(accounts, credentials, password, client)
    async with transaction(accounts.pool) as connection:
        await _use(connection, token)
        secret = await begin(connection, member.id, SessionState.factor_due, client.device)
        await _prepare_factor(accounts, connection, digest(secret), member.id)
        await _record(connection, member.id, "member.begin_factor", by_link=True)
    return SessionStart(secret=secret, state=SessionState.factor_due, email=member.email)


async def _use(connection: Connection, token: str) -> None:
    if not await store.mark_link_used(connection, _token_digest(token)):
        raise errors.TokenUsed(USED_LINK)


async def _credentials(connection: Connection, member_id: UUID) -> Credentials:
    credentials = await store.lock_credentials(connection, member_id)
    if credentials is None:
        raise errors.NotFound(NO_SUCH_MEMBER)
    return credentials


# The team.


def account_of(kind: CallerKind, owner_id: UUID | None) -> str:
    """Return the public id of a business or provider; `operators` for all operators together."""
    if owner_id is None:
        return "operators"
    prefix = "biz" if kind is CallerKind.business else "prov"
    return ids.encode(prefix, owner_id)


async def load_colleague(pool: Pool, member_id: UUID, kind: CallerKind, owner_id: UUID | None) -> Member:
    """Return a member of this account. Raises NotFound for any other."""
    async with session(pool) as connection:
        member = await store.find_member(connection, member_id)
    if member is None or (member.kind, member.owner_id) != (kind, owner_id):
        raise errors.NotFound(NO_SUCH_MEMBER)
    return member


async def change_member(pool: Pool, actor: str, member: Member, role: Role | None, state: str | None) -> None:
    """Change a member's role or state, and end the member's sessions. None leaves a value as it is.

    Nothing happens if both are so already. Raises Conflict for the last owner of an account.
    """
    if role in (None, member.role) and state in (None, member.state):
        return
    async with transaction(pool) as connection:
        owners = await store.lock_owners(connection, member.kind, member.owner_id)
        leaves = state == "disabled" or role not in (None, Role.owner)
        if leaves and owners == (member.id,):
            raise errors.Conflict("This is the last owner of the account. Make another member an owner first.")
        await store.mark_member(connection, member.id, role, state)
        await store.delete_sessions(connection, member.id)
        subject = ids.encode("mem", member.id)
        await audit.record(connection, clock.now(), actor, "member.change", subject, role=role, state=state)
