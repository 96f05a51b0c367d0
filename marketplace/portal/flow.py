"""Coming in, and keeping who may: each use case loads what it needs, decides, and commits with its audit row."""

import hashlib
import hmac
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec
import pyotp

from marketplace.database.db import Connection, Pool, session, transaction
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
}
STEP_SECONDS: Final = 30
STEPS_OFF: Final = 1
"A code of the half minute before or after is taken too: clocks of phones are rarely further off."
CODE_ADVICE: Final = "Enter the six digits that your authenticator shows now; each works once."
VISITOR: Final = "visitor"
"The actor of a try that failed: nobody knows who it was."
UNKNOWN_MEMBER: Final = "unknown member"
NOT_THERE: Final = "There is nobody with this id, or not in your team."


class AccountServices(msgspec.Struct, frozen=True, kw_only=True):
    """What every way in works with."""

    pool: Pool
    sealer: Sealer
    passwords: Passwords


class BrowserClient(msgspec.Struct, frozen=True, kw_only=True):
    """The browser that a request comes from: its own name, and its network address for the audit."""

    device: str
    address: str


class SessionStart(msgspec.Struct, frozen=True, kw_only=True):
    """A session that has just begun: its id for the cookie, what it still asks for, and whose it is."""

    secret: str
    state: SessionState
    email: str


# Coming in.


async def sign_in(
    accounts: AccountServices, email: str, password: str, *, client: BrowserClient, known: str | None
) -> SessionStart:
    """A new session for whoever has this password. `known` names a browser that came in as this member before.

    The same answer after the same time for an unknown address and a wrong password. Tries are counted for the known
    browser and for everybody else apart, so that a stranger's guesses never keep a member out of the usual place.
    Each failure is in the audit. Raises SignInFailed, RateLimited, InvalidInput for a text that can be no password,
    Unavailable.
    """
    demand_possible(password)
    name = _try_name(accounts, f"browser:{known}" if known else f"address:{email}")
    await _count_try(accounts.pool, name)
    async with session(accounts.pool) as connection:
        member = await store.find_credentials(connection, email)
    usable = member if member is not None and member.state == "active" else None
    if not await accounts.passwords.matches(usable.password_hash if usable else None, password) or usable is None:
        # What was typed as an address may be a password: only a keyed hash of it is kept, to tell tries apart.
        email_hash = _try_name(accounts, f"address:{email}").hex()[:16]
        await _record_failure(
            accounts.pool, member.id if member else None, "member.sign_in_failed", client, email_hash=email_hash
        )
        raise errors.SignInFailed("The e-mail address and the password do not belong together. Try again.")
    async with transaction(accounts.pool) as connection:
        await store.delete_try(connection, name)
        await store.delete_ended(connection)
        return await _enter(accounts, connection, usable, email, client)


async def _enter(
    accounts: AccountServices, connection: Connection, who: Credentials, email: str, client: BrowserClient
) -> SessionStart:
    """The session that this member gets after a password: what it still asks for depends on the second factor."""
    state = SessionState.open
    if who.totp_confirmed_at is not None:
        state = SessionState.code_due
    elif who.kind is CallerKind.operator:
        state = SessionState.factor_due
    secret = await begin(connection, who.id, state, client.device)
    if state is SessionState.factor_due:
        await _prepare_factor(accounts, connection, digest(secret), who.id)
    await _record(connection, who.id, "member.sign_in", state=state)
    return SessionStart(secret=secret, state=state, email=email)


async def prove_code(accounts: AccountServices, viewer: Viewer, code: str, client: BrowserClient) -> SessionStart:
    """An open session in place of this one, for the right code, once. Raises CodeWrong and RateLimited.

    A session that asks for a code takes one of the member's factor. Any other takes the first code of the factor that
    waits in it: this factor then replaces the member's own, and every other session of the member ends.
    """
    name = _try_name(accounts, f"code:{viewer.member_id}")
    await _count_try(accounts.pool, name)
    async with transaction(accounts.pool) as connection:
        who = await store.lock_credentials(connection, viewer.member_id)
        renews = viewer.state is not SessionState.code_due
        prove = _activate_factor if renews else _use_code
        if who is not None and await prove(accounts, connection, viewer, who, code):
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
    accounts: AccountServices, connection: Connection, viewer: Viewer, who: Credentials, code: str
) -> bool:
    """Return whether `code` is one of the member's active factor, and use it up."""
    if who.totp is None or who.totp_confirmed_at is None:
        return False
    step = _step_of(accounts, who.id, who.totp, code, await store.find_epoch(connection))
    return step is not None and await store.mark_code_used(connection, who.id, step)


async def _activate_factor(
    accounts: AccountServices, connection: Connection, viewer: Viewer, who: Credentials, code: str
) -> bool:
    """Return whether `code` is one of the factor that waits in this session, and make that factor the member's."""
    sealed = await store.find_session_factor(connection, viewer.session, who.id)
    if sealed is None:
        return False
    step = _step_of(accounts, who.id, sealed, code, await store.find_epoch(connection))
    if step is None:
        return False
    await store.activate_factor(connection, who.id, sealed, step, clock.now())
    return True


def _step_of(accounts: AccountServices, member_id: UUID, sealed: bytes, code: str, epoch: float) -> int | None:
    """The half minute whose code of this factor it is, if it is near enough."""
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
    """Counts before the try is made. Raises RateLimited while it is too early for another."""
    async with session(pool) as connection:
        if not await store.insert_try(connection, name):
            wait = await store.find_wait(connection, name)
            raise errors.RateLimited(f"Too many tries. Wait {wait} seconds, then try again.", wait)


def _try_name(accounts: AccountServices, text: str) -> bytes:
    return accounts.sealer.keyed_hash("portal-try", text)


async def _record(connection: Connection, member_id: UUID, action: str, **detail: str | int | bool | None) -> None:
    subject = ids.encode("mem", member_id)
    await audit.record(connection, clock.now(), subject, action, subject, **detail)


async def _record_failure(
    pool: Pool, member_id: UUID | None, action: str, client: BrowserClient, **detail: str
) -> None:
    """Write a failed try into the audit, with the member if there is one and the network address."""
    subject = UNKNOWN_MEMBER if member_id is None else ids.encode("mem", member_id)
    async with transaction(pool) as connection:
        await audit.record(connection, clock.now(), VISITOR, action, subject, address=client.address, **detail)


# The browser that came in before.


def known_browser(accounts: AccountServices, token: str | None, email: str) -> str | None:
    """The name in a browser's token, if the token was given for this address."""
    name, _, seal = (token or "").partition(".")
    return name if name and hmac.compare_digest(seal, _browser_seal(accounts, name, email)) else None


def browser_token(accounts: AccountServices, email: str) -> str:
    """A token for a browser in which this member came in; it opens nothing."""
    name = new_id()
    return f"{name}.{_browser_seal(accounts, name, email)}"


def _browser_seal(accounts: AccountServices, name: str, email: str) -> str:
    return accounts.sealer.keyed_hash("portal-browser", f"{name}:{email}").hex()


# Password and second factor.


async def change_password(
    accounts: AccountServices, viewer: Viewer, current: str, fresh: str, client: BrowserClient
) -> SessionStart:
    """Ends every session and every link of the member, and begins one session anew.

    Raises SignInFailed for a wrong current password, InvalidInput for one that is too weak, RateLimited.
    """
    await _demand_password(accounts, viewer, current, client)
    await accounts.passwords.demand_strong(fresh, viewer.email, viewer.name, "fresh_password")
    kept = await accounts.passwords.hash(fresh)
    async with transaction(accounts.pool) as connection:
        await store.mark_password(connection, viewer.member_id, kept)
        return await _begin_anew(connection, viewer, "member.change_password", client)


async def begin_factor(
    accounts: AccountServices, viewer: Viewer, current: str, code: str, client: BrowserClient
) -> None:
    """A second factor that waits in this session for its first code; until then the one in use stays in use.

    `code` is of the factor in use, where there is one. Raises as change_password, and CodeWrong.
    """
    await _demand_password(accounts, viewer, current, client)
    await _demand_code(accounts, viewer, code, client)
    async with transaction(accounts.pool) as connection:
        await _prepare_factor(accounts, connection, viewer.session, viewer.member_id)
        await _record(connection, viewer.member_id, "member.begin_factor")


async def remove_factor(
    accounts: AccountServices, viewer: Viewer, current: str, code: str, client: BrowserClient
) -> SessionStart:
    """Raises RoleMissing for an operator, who must have one, and as begin_factor."""
    if viewer.kind is CallerKind.operator:
        raise errors.RoleMissing("Operators sign in with a second factor. Set up another in its place.")
    await _demand_password(accounts, viewer, current, client)
    await _demand_code(accounts, viewer, code, client)
    async with transaction(accounts.pool) as connection:
        await store.delete_factor(connection, viewer.member_id)
        return await _begin_anew(connection, viewer, "member.remove_factor", client)


async def find_factor(accounts: AccountServices, viewer: Viewer, issuer: str) -> str | None:
    """The address that an authenticator scans, of the factor that waits in this session for its first code."""
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
    """Whoever came in by a link and has none yet is asked for none. Raises SignInFailed, RateLimited."""
    demand_possible(current)
    async with session(accounts.pool) as connection:
        member = await store.find_credentials(connection, viewer.email)
    if member is not None and member.password_hash is not None:
        await _match_password(accounts, member, current, client)


async def _match_password(accounts: AccountServices, member: Credentials, password: str, client: BrowserClient) -> None:
    """Raises SignInFailed for another password than the member's, RateLimited."""
    demand_possible(password)
    name = _try_name(accounts, f"again:{member.id}")
    await _count_try(accounts.pool, name)
    if not await accounts.passwords.matches(member.password_hash, password):
        await _record_failure(accounts.pool, member.id, "member.password_failed", client)
        raise errors.SignInFailed("This is not your present password.")
    async with session(accounts.pool) as connection:
        await store.delete_try(connection, name)


async def _demand_code(accounts: AccountServices, viewer: Viewer, code: str, client: BrowserClient) -> None:
    """Uses up a code of the factor in use; a member without one is asked for none. Raises CodeWrong, RateLimited."""
    name = _try_name(accounts, f"code:{viewer.member_id}")
    await _count_try(accounts.pool, name)
    async with transaction(accounts.pool) as connection:
        who = await store.lock_credentials(connection, viewer.member_id)
        if who is None or who.totp_confirmed_at is None or await _use_code(accounts, connection, viewer, who, code):
            await store.delete_try(connection, name)
            return
    await _record_failure(accounts.pool, viewer.member_id, "member.code_failed", client)
    raise errors.CodeWrong(f"{CODE_ADVICE} Take it from the authenticator that you use now.")


async def end_session(accounts: AccountServices, viewer: Viewer, id_hash: bytes) -> None:
    """Ends one of the member's own sessions. Raises NotFound."""
    async with transaction(accounts.pool) as connection:
        if not await store.delete_session(connection, id_hash, viewer.member_id):
            raise errors.NotFound("This session has ended.")
        await _record(connection, viewer.member_id, "member.end_session")


async def change_profile(accounts: AccountServices, viewer: Viewer, name: str, zone: str | None) -> None:
    async with transaction(accounts.pool) as connection:
        await store.mark_profile(connection, viewer.member_id, name, zone)
        await _record(connection, viewer.member_id, "member.change_profile", zone=zone)


# Links that work once.


async def invite(
    pool: Pool, actor: str, kind: CallerKind, owner_id: UUID | None, role: Role, email: str,
    lifetime: timedelta = LIFETIMES[Purpose.invite], opened: UnconfirmedAccess | None = None,
) -> str:  # fmt: skip
    """The token of an invitation to join one account; whoever holds it may.

    `opened` names the operator who invites into a tenant's account. Raises InvalidInput where it lacks a reason, and
    Conflict for the address of a member of this account.
    """
    now = clock.now()
    link = OneTimeLink(
        purpose=Purpose.invite, member_id=None, kind=kind, owner_id=owner_id, role=role, email=email.lower(),
        made_by=actor, made_at=now, expires_at=now + lifetime, used_at=None, expired=False,
        opened_by=opened.by if opened else None, opened_reason=opened.reason if opened else None,
    )  # fmt: skip
    async with transaction(pool) as connection:
        if owner_id is not None:
            await access.demand_reason(connection, kind, owner_id, opened)
        member = await store.find_member_by_email(connection, link.email or "")
        if member is not None and (member.kind, member.owner_id) == (kind, owner_id):
            raise errors.Conflict("This e-mail address belongs to a member of this account already.")
        await audit.record(connection, now, actor, "member.invite", account_of(kind, owner_id), role=role)
        return await _keep_link(connection, link)


async def link_for(
    pool: Pool, actor: str, member: Member, purpose: Purpose, lifetime: timedelta | None = None,
    opened: UnconfirmedAccess | None = None,
) -> str:  # fmt: skip
    """The token of a link by which this member comes in, chooses a new password or sets up another second factor.

    `opened` names the operator who makes it for a tenant's member. Raises InvalidInput where it lacks a reason.
    """
    now = clock.now()
    link = OneTimeLink(
        purpose=purpose, member_id=member.id, kind=None, owner_id=None, role=None, email=None, made_by=actor,
        made_at=now, expires_at=now + (lifetime or LIFETIMES[purpose]), used_at=None, expired=False,
        opened_by=opened.by if opened else None, opened_reason=opened.reason if opened else None,
    )  # fmt: skip
    async with transaction(pool) as connection:
        if member.owner_id is not None:
            await access.demand_reason(connection, member.kind, member.owner_id, opened)
        reason = opened.reason if opened else None
        subject = ids.encode("mem", member.id)
        await audit.record(connection, now, actor, f"member.link_{purpose}", subject, reason=reason)
        return await _keep_link(connection, link)


async def first_link(pool: Pool) -> str | None:
    """The token by which the first operator sets the marketplace up; None when there is an operator."""
    now = clock.now()
    link = OneTimeLink(
        purpose=Purpose.set_up, member_id=None, kind=None, owner_id=None, role=None, email=None,
        made_by=audit.COMMAND_LINE, made_at=now, expires_at=now + LIFETIMES[Purpose.set_up], used_at=None,
        expired=False,
    )  # fmt: skip
    async with transaction(pool) as connection:
        if await store.count_operators(connection):
            return None
        return await _keep_link(connection, link)


async def _keep_link(connection: Connection, link: OneTimeLink) -> str:
    token = new_id()
    await store.insert_link(connection, _token_digest(token), link)
    return token


def _token_digest(token: str) -> bytes:
    return hashlib.sha256(b"portal-link:" + token.encode()).digest()


async def load_link(pool: Pool, token: str) -> tuple[OneTimeLink, Member | None]:
    """The link with the member that it names. Raises TokenUsed, and TokenExpired also for one that never was."""
    async with session(pool) as connection:
        link = await store.find_link(connection, _token_digest(token))
        if link is None or (link.expired and link.used_at is None):
            raise errors.TokenExpired("Ask whoever gave it to you for a new one.")
        if link.used_at is not None:
            raise errors.TokenUsed("Each link works once. Sign in, or ask for a new one.")
        member = None if link.member_id is None else await store.find_member(connection, link.member_id)
    if link.member_id is not None and (member is None or member.state != "active"):
        raise errors.TokenExpired("Ask whoever gave it to you for a new one.")
    return link, member


async def join(
    accounts: AccountServices, token: str, *, email: str, name: str, password: str, client: BrowserClient
) -> SessionStart:
    """A new member by invitation, or the first operator. Raises as load_link, InvalidInput, Conflict."""
    link, _ = await load_link(accounts.pool, token)
    first = link.purpose is Purpose.set_up
    if not first and link.purpose is not Purpose.invite:
        raise errors.TokenExpired("Ask whoever gave it to you for a new one.")
    address = email.lower() if first else str(link.email)
    await accounts.passwords.demand_strong(password, address, name)
    kept = await accounts.passwords.hash(password)
    member = Member(
        id=clock.new_id(), kind=CallerKind.operator if first else CallerKind(str(link.kind)), owner_id=link.owner_id,
        email=address, name=name, role=Role.owner if first else Role(str(link.role)), state="active", zone=None,
        has_password=True, has_factor=False, created_at=clock.now(),
    )  # fmt: skip
    try:
        async with transaction(accounts.pool) as connection:
            await _use(connection, token)
            if first and await store.count_operators(connection):
                raise errors.TokenUsed("Somebody else was the first operator. Ask them for an invitation.")
            if member.owner_id is not None:
                way = (access.AccessKind.member, member.id, member.kind, member.owner_id)
                await access.record_opened(connection, *way, link.opened)
            await store.insert_member(connection, member, kept)
            await _record(connection, member.id, "member.join", role=member.role)
            return await _enter(accounts, connection, await _credentials(connection, member.id), address, client)
    except errors.Conflict:
        await _end_invitation(accounts.pool, token, link, client)
        raise


async def _end_invitation(pool: Pool, token: str, link: OneTimeLink, client: BrowserClient) -> None:
    """Use up an invitation to an address that has access somewhere: a link is one question, and is on record."""
    async with transaction(pool) as connection:
        await _use(connection, token)
        subject = "marketplace" if link.kind is None else account_of(link.kind, link.owner_id)
        now, address = clock.now(), client.address
        await audit.record(connection, now, VISITOR, "member.join_refused", subject, address=address)


async def choose_password(accounts: AccountServices, token: str, password: str, client: BrowserClient) -> SessionStart:
    """A new password by link: every session and every other link of the member ends. Raises as join."""
    link, member = await load_link(accounts.pool, token)
    if member is None or link.purpose is not Purpose.reset:
        raise errors.TokenExpired("Ask whoever gave it to you for a new one.")
    await accounts.passwords.demand_strong(password, member.email, member.name)
    kept = await accounts.passwords.hash(password)
    async with transaction(accounts.pool) as connection:
        await _use(connection, token)
        await store.mark_password(connection, member.id, kept)
        if member.owner_id is not None:
            way = (access.AccessKind.member, member.id, member.kind, member.owner_id)
            await access.record_opened(connection, *way, link.opened)
        await store.mark_links_dead(connection, member.id)
        await store.delete_sessions(connection, member.id)
        await _record(connection, member.id, "member.choose_password")
        return await _enter(accounts, connection, await _credentials(connection, member.id), member.email, client)


async def come_in(accounts: AccountServices, token: str, client: BrowserClient) -> SessionStart:
    """An open session by a link from the machine itself: whoever works there needs no second factor. Raises as join."""
    link, member = await load_link(accounts.pool, token)
    if member is None or link.purpose is not Purpose.enter:
        raise errors.TokenExpired("Ask whoever gave it to you for a new one.")
    async with transaction(accounts.pool) as connection:
        await _use(connection, token)
        secret = await begin(connection, member.id, SessionState.open, client.device)
        await _record(connection, member.id, "member.come_in")
    return SessionStart(secret=secret, state=SessionState.open, email=member.email)


async def renew_factor(accounts: AccountServices, token: str, password: str, client: BrowserClient) -> SessionStart:
    """A session with a new second factor that waits for its first code, by link and password.

    The factor in use stays in use until that code. Raises SignInFailed and as join.
    """
    link, member = await load_link(accounts.pool, token)
    if member is None or link.purpose is not Purpose.factor:
        raise errors.TokenExpired("Ask whoever gave it to you for a new one.")
    async with session(accounts.pool) as connection:
        credentials = await store.find_credentials(connection, member.email)
    if credentials is None or credentials.password_hash is None:
        raise errors.SignInFailed("Choose a password first: ask for a link for a new password.")
    await _match_password(accounts, credentials, password, client)
    async with transaction(accounts.pool) as connection:
        await _use(connection, token)
        secret = await begin(connection, member.id, SessionState.factor_due, client.device)
        await _prepare_factor(accounts, connection, digest(secret), member.id)
        await _record(connection, member.id, "member.begin_factor", by_link=True)
    return SessionStart(secret=secret, state=SessionState.factor_due, email=member.email)


async def _use(connection: Connection, token: str) -> None:
    if not await store.mark_link_used(connection, _token_digest(token)):
        raise errors.TokenUsed("Each link works once. Sign in, or ask for a new one.")


async def _credentials(connection: Connection, member_id: UUID) -> Credentials:
    found = await store.lock_credentials(connection, member_id)
    if found is None:
        raise errors.NotFound(NOT_THERE)
    return found


# The team.


def account_of(kind: CallerKind, owner_id: UUID | None) -> str:
    """The public id of a tenant; of all operators together, a word."""
    if owner_id is None:
        return "operators"
    return ids.encode("biz" if kind is CallerKind.business else "prov", owner_id)


async def load_colleague(pool: Pool, member_id: UUID, kind: CallerKind, owner_id: UUID | None) -> Member:
    """A member of this very account. Raises NotFound."""
    async with session(pool) as connection:
        found = await store.find_member(connection, member_id)
    if found is None or (found.kind, found.owner_id) != (kind, owner_id):
        raise errors.NotFound(NOT_THERE)
    return found


async def change_member(pool: Pool, actor: str, member: Member, role: Role | None, state: str | None) -> None:
    """Change a member's role or state, or neither where both are so already; what is None stays.

    A member who is changed signs in again. Raises Conflict for an account's last owner.
    """
    if role in (None, member.role) and state in (None, member.state):
        return
    async with transaction(pool) as connection:
        owners = await store.lock_owners(connection, member.kind, member.owner_id)
        leaves = state == "disabled" or role not in (None, Role.owner)
        if leaves and owners == (member.id,):
            raise errors.Conflict("This is the last owner. Make somebody else an owner first.")
        await store.mark_member(connection, member.id, role, state)
        await store.delete_sessions(connection, member.id)
        subject = ids.encode("mem", member.id)
        await audit.record(connection, clock.now(), actor, "member.change", subject, role=role, state=state)
