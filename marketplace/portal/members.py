"""Pages of every member: team, profile, second factor, sessions, and the account's activity."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace import BRAND
from marketplace.database.db import session
from marketplace.directory.checks import zone_faults
from marketplace.portal import flow, store
from marketplace.portal.audit_words import describe_action
from marketplace.portal.forms import (
    FormFields,
    Reason,
    ZoneName,
    changing,
    fill,
    label,
    show_again,
    show_form,
    submitted,
)
from marketplace.portal.frame import badge, page, redirect, short, words
from marketplace.portal.listing import Column, Listing
from marketplace.portal.navigation import HOMES
from marketplace.portal.paging import list_limit, next_page
from marketplace.portal.session import Viewer, visitor
from marketplace.portal.signin import (
    Code,
    CodeForm,
    Email,
    PersonName,
    accounts_of,
    client_of,
    qr_of,
    redirect_signed_in,
)
from marketplace.portal.store import AccountAuditEntry, Member, OneTimeLink, OpenSession, Purpose, Role
from marketplace.runtime import errors, ids
from marketplace.security import access, auth
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, page_cursor, path_id, services

MOST_MEMBERS: Final = 200
MOST_KEYS: Final = 200

AnyPassword = Annotated[str, Meta(max_length=4_096, extra={"kind": "password"})]
CurrentPassword = Annotated[AnyPassword, label("Current password", required=True, autocomplete="current-password")]
ROLES: Final = (
    (Role.owner, "Owner: may do everything and manage the team"),
    (Role.member, "Member: may do everything except manage the team"),
    (Role.viewer, "Viewer: may see everything and change nothing"),
)


class InviteForm(msgspec.Struct, frozen=True, kw_only=True):
    """E-mail address and role of an invitation; an operator must give a reason."""

    email: Annotated[Email, label("E-mail", kind="email")]
    role: Annotated[Role, label("Role")]
    reason: Annotated[
        Reason | None,
        label(
            "Reason",
            "Required once the account is in use. Its owners see this reason and your name. Contacts that this member "
            "reads are recorded in the reveal log until an owner confirms the member.",
        ),
    ] = None


class MemberForm(msgspec.Struct, frozen=True, kw_only=True):
    """A change to a member: `act`, with the new role for `role`, and the reason of an operator."""

    act: Literal["role", "disable", "enable", "reset", "renew_factor"]
    role: Role | None = None
    reason: Annotated[Reason | None, label("Reason", required=True)] = None


class ProfileForm(msgspec.Struct, frozen=True, kw_only=True):
    """A member's name and time zone; without a zone, that of the business, else UTC."""

    name: Annotated[PersonName, label("Name", autocomplete="name")]
    zone: Annotated[
        ZoneName | None,
        label("Time zone", "Such as America/Chicago. If you leave this empty, times are shown in {zone}."),
    ] = None


class PasswordChange(msgspec.Struct, frozen=True, kw_only=True):
    """The present password, if there is one, and the new one."""

    current_password: CurrentPassword = ""
    fresh_password: Annotated[
        AnyPassword,
        label("New password", "At least 12 characters. All your other sessions end.", autocomplete="new-password"),
    ]


class FactorForm(msgspec.Struct, frozen=True, kw_only=True):
    """The present password and a code of the active factor, to set up a second factor or to remove it."""

    current_password: CurrentPassword = ""
    code: Annotated[Code, label("Code from your present authenticator app", required=True)] = ""


class ModeForm(msgspec.Struct, frozen=True, kw_only=True):
    """The choice between live data and test data."""

    mode: Literal["live", "test"]


# The team.

MEMBERS: Final = Listing[Member](
    caption="Members",
    columns=(
        Column("Name", lambda member: member.name),
        Column("E-mail", lambda member: member.email),
        Column("Role", lambda member: words(member.role)),
        Column("Second factor", lambda member: "On" if member.has_factor else "Off"),
        Column("State", lambda member: badge(member.state)),
    ),
)
INVITATIONS: Final = Listing[OneTimeLink](
    caption="Open invitations",
    columns=(
        Column("E-mail", lambda link: link.email),
        Column("Role", lambda link: words(link.role or "")),
        Column("Expires", lambda link: link.expires_at),
    ),
)


@get("/account/team")
async def show_team(request: AnyRequest) -> Response[bytes]:
    """Show who has access to this account."""
    viewer = await visitor(request)
    return await _team_page(request, viewer, viewer.kind, viewer.owner_id)


@post("/account/team")
async def invite(request: AnyRequest) -> Response[bytes]:
    """Invite somebody to this account; the page shows the link once, to pass on."""
    viewer, sent = await changing(request, role=Role.owner)
    return await _invite(request, viewer, viewer.kind, viewer.owner_id, sent)


@post("/account/team/{member_id:str}")
async def change_member(request: AnyRequest, member_id: FromPath[str]) -> Response[bytes]:
    """Change a colleague's role or state, or make a link for a colleague who cannot sign in."""
    viewer, form = await submitted(request, MemberForm, role=Role.owner)
    return await _change(request, viewer, viewer.kind, viewer.owner_id, member_id, form)


@get("/operator/accounts/{account:str}/team")
async def show_account_team(request: AnyRequest, account: FromPath[str]) -> Response[bytes]:
    """Show an operator who has access to a tenant's account."""
    viewer = await visitor(request, CallerKind.operator)
    return await _team_page(request, viewer, *await _account(request, account))


@post("/operator/accounts/{account:str}/team")
async def invite_to_account(request: AnyRequest, account: FromPath[str]) -> Response[bytes]:
    """Invite somebody to a tenant's account, usually its first member."""
    viewer, sent = await changing(request, CallerKind.operator, role=Role.member)
    return await _invite(request, viewer, *await _account(request, account), sent)


@post("/operator/accounts/{account:str}/team/{member_id:str}")
async def change_account_member(
    request: AnyRequest, account: FromPath[str], member_id: FromPath[str]
) -> Response[bytes]:
    """Change a tenant's member's role or state, or make a link for a member who cannot sign in."""
    viewer, form = await submitted(request, MemberForm, CallerKind.operator, role=Role.member)
    return await _change(request, viewer, *await _account(request, account), member_id, form)


async def _account(request: AnyRequest, account: str) -> tuple[CallerKind, UUID]:
    kind, prefix = (CallerKind.business, "biz") if account.startswith("biz_") else (CallerKind.provider, "prov")
    owner_id = path_id(prefix, account)
    async with session(services(request).pool) as connection:
        if not await store.find_owner(connection, kind, owner_id):
            raise errors.NotFound("There is no such account.")
    return kind, owner_id


async def _team_page(
    request: AnyRequest,
    viewer: Viewer,
    kind: CallerKind,
    owner_id: UUID | None,
    *,
    link: str = "",
    link_for: str = "",
) -> Response[bytes]:
    limit, after = list_limit(request), page_cursor(request, "mem")
    async with session(services(request).pool) as connection:
        members = await store.list_members(connection, kind, owner_id, after, limit + 1)
        invitations = await store.list_invitations(connection, kind, owner_id)
        name = await store.find_owner(connection, kind, owner_id) if owner_id else BRAND
    own = (kind, owner_id) == (viewer.kind, viewer.owner_id)
    home = "/account/team" if own else f"/operator/accounts/{flow.account_of(kind, owner_id)}/team"
    manages = viewer.keeps_team if own else viewer.may_change
    next_cursor = next_page("mem", [row.id for row in members], limit)
    return page(
        request,
        viewer,
        "team.html",
        listing=MEMBERS,
        members=members[:limit],
        next_cursor=next_cursor,
        invitation_listing=INVITATIONS,
        invitations=invitations,
        account=name,
        home=home,
        manages=manages,
        for_tenant=not own,
        invite_form=show_form(InviteForm, {"role": Role.member}, {"role": ROLES}),
        member_form=show_form(MemberForm),
        roles=tuple(Role),
        link=link,
        link_for=link_for,
    )


async def _invite(
    request: AnyRequest, viewer: Viewer, kind: CallerKind, owner_id: UUID | None, sent: FormFields
) -> Response[bytes]:
    try:
        form = fill(InviteForm, sent)
        email = form.email.strip().lower()
        opened = access.opened_by(viewer.actor, viewer.kind, viewer.opened, form.reason) if owner_id else None
        pool = services(request).pool
        token = await flow.invite(pool, viewer.actor, kind, owner_id, form.role, email, opened=opened)
    except (errors.InvalidInput, errors.Conflict) as error:
        return await show_again(request, sent, error, _team_page(request, viewer, kind, owner_id))
    return await _team_page(request, viewer, kind, owner_id, link=_url(request, token), link_for=email)


async def _change(
    request: AnyRequest, viewer: Viewer, kind: CallerKind, owner_id: UUID | None, member_id: str, form: MemberForm
) -> Response[bytes]:
    pool = services(request).pool
    member = await flow.load_colleague(pool, path_id("mem", member_id), kind, owner_id)
    if member.id == viewer.member_id and form.act in ("reset", "renew_factor"):
        # The profile asks for the present password and code before it changes either; a link would not.
        raise errors.Conflict("Change your own password and second factor on your profile.")
    match form.act:
        case "role":
            await flow.change_member(pool, viewer.actor, member, form.role or member.role, None)
        case "disable" | "enable":
            state = "disabled" if form.act == "disable" else "active"
            await flow.change_member(pool, viewer.actor, member, None, state)
        case "reset" | "renew_factor":
            purpose = Purpose.reset if form.act == "reset" else Purpose.factor
            opened = access.opened_by(viewer.actor, viewer.kind, viewer.opened, form.reason) if owner_id else None
            try:
                token = await flow.link_for(pool, viewer.actor, member, purpose, opened=opened)
            except errors.InvalidInput as error:
                return await show_again(request, {}, error, _team_page(request, viewer, kind, owner_id))
            return await _team_page(request, viewer, kind, owner_id, link=_url(request, token), link_for=member.email)
    back = request.url.path.rpartition("/")[0]
    return redirect(request, back, f"{member.name} was changed.")


def _url(request: AnyRequest, token: str) -> str:
    """Return the address of a link, built on the configured origin and never on the Host header of the request."""
    return f"{services(request).settings.public_url}/link/{token}"


# The member's own pages.

SESSIONS: Final = Listing[OpenSession](
    caption="Sessions",
    columns=(
        Column("Browser", lambda session: session.device or "Unknown"),
        Column("Since", lambda session: session.created_at),
        Column("Last used", lambda session: session.seen_at),
    ),
)


@get("/account/profile")
async def show_profile(request: AnyRequest) -> Response[bytes]:
    """Show the member's name, time zone, password, second factor and sessions."""
    return await _profile_page(request, await visitor(request))


async def _profile_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    async with session(services(request).pool) as connection:
        sessions = await store.list_sessions(connection, viewer.member_id)
        member = await store.find_member(connection, viewer.member_id)
    values = {"name": member.name, "zone": member.zone or ""} if member else {}
    return page(
        request,
        viewer,
        "profile.html",
        profile_form=show_form(ProfileForm, values, zone=viewer.zone),
        password_form=show_form(PasswordChange),
        factor_form=show_form(FactorForm),
        listing=SESSIONS,
        sessions=sessions,
        member=member,
    )


@post("/account/profile")
async def change_profile(request: AnyRequest) -> Response[bytes]:
    """Change the member's own name and time zone."""
    viewer, sent = await changing(request, role=Role.viewer)
    try:
        form = fill(ProfileForm, sent)
        if form.zone and (faults := tuple(zone_faults("/zone", form.zone))):
            raise errors.InvalidInput(faults)
    except errors.InvalidInput as error:
        return await show_again(request, sent, error, _profile_page(request, viewer))
    await flow.change_profile(accounts_of(request), viewer, form.name.strip(), form.zone)
    return redirect(request, "/account/profile", "Your profile was saved.")


@post("/account/password")
async def change_password(request: AnyRequest) -> Response[bytes]:
    """Change the member's own password; all other sessions end."""
    viewer, sent = await changing(request, role=Role.viewer)
    try:
        form = fill(PasswordChange, sent)
        start = await flow.change_password(
            accounts_of(request), viewer, form.current_password, form.fresh_password, client_of(request)
        )
    except (errors.InvalidInput, errors.SignInFailed) as error:
        return await show_again(request, sent, error, _profile_page(request, viewer))
    return redirect_signed_in(request, start, "/account/profile")


@post("/account/factor")
async def begin_factor(request: AnyRequest) -> Response[bytes]:
    """Set up a second factor; it replaces the active one when its first code is confirmed."""
    viewer, sent = await changing(request, role=Role.viewer)
    try:
        form = fill(FactorForm, sent)
        await flow.begin_factor(accounts_of(request), viewer, form.current_password, form.code, client_of(request))
    except (errors.InvalidInput, errors.SignInFailed, errors.CodeWrong) as error:
        return await show_again(request, sent, error, _profile_page(request, viewer))
    return redirect(request, "/account/factor")


@get("/account/factor")
async def show_factor(request: AnyRequest) -> Response[bytes]:
    """Show the second factor that waits for its first code."""
    return await _factor_page(request, await visitor(request))


async def _factor_page(request: AnyRequest, viewer: Viewer) -> Response[bytes]:
    address = await flow.find_factor(accounts_of(request), viewer, BRAND)
    if address is None:
        return redirect(request, "/account/profile")
    return page(request, viewer, "factor.html", form=show_form(CodeForm), qr=qr_of(address), address=address)


@post("/account/factor/code")
async def confirm_factor(request: AnyRequest) -> Response[bytes]:
    """Confirm a second factor by its first code."""
    viewer, form = await submitted(request, CodeForm, role=Role.viewer)
    try:
        start = await flow.prove_code(accounts_of(request), viewer, form.code, client_of(request))
    except errors.CodeWrong as error:
        return await show_again(request, {}, error, _factor_page(request, viewer))
    return redirect_signed_in(request, start, "/account/profile")


@post("/account/factor/remove")
async def remove_factor(request: AnyRequest) -> Response[bytes]:
    """Remove the member's own second factor; operators must keep theirs."""
    viewer, sent = await changing(request, role=Role.viewer)
    try:
        form = fill(FactorForm, sent)
        start = await flow.remove_factor(
            accounts_of(request), viewer, form.current_password, form.code, client_of(request)
        )
    except (errors.InvalidInput, errors.SignInFailed, errors.CodeWrong) as error:
        return await show_again(request, sent, error, _profile_page(request, viewer))
    return redirect_signed_in(request, start, "/account/profile")


@post("/account/sessions/{session_id:str}")
async def end_session(request: AnyRequest, session_id: FromPath[str]) -> Response[bytes]:
    """End one of the member's own sessions."""
    viewer, _ = await changing(request, role=Role.viewer)
    try:
        id_hash = bytes.fromhex(session_id)
    except ValueError:
        raise errors.NotFound("This session has ended.") from None
    await flow.end_session(accounts_of(request), viewer, id_hash)
    return redirect(request, "/account/profile", "The session has ended.")


@post("/account/mode")
async def switch_mode(request: AnyRequest) -> Response[bytes]:
    """Switch between live data and test data, which are never on one page."""
    viewer, form = await submitted(request, ModeForm, role=Role.viewer)
    async with session(services(request).pool) as connection:
        await store.mark_mode(connection, viewer.session, form.mode)
    return redirect(request, HOMES[viewer.kind])


@get("/account/activity")
async def show_activity(request: AnyRequest) -> Response[bytes]:
    """Show the changes made by this account and to it, newest first."""
    viewer = await visitor(request)
    limit, after = list_limit(request), page_cursor(request, "aud")
    async with session(services(request).pool) as connection:
        members = await store.list_members(connection, viewer.kind, viewer.owner_id, None, MOST_MEMBERS)
        keys = await auth.list_keys(connection, viewer.owner_id, None, MOST_KEYS) if viewer.owner_id else ()
        names = _names(members) | {key.id: f"Key “{key.name}”" for key in keys}
        subjects = (viewer.account, *names)
        changes = await store.list_changes(connection, tuple(names), subjects, after, limit + 1)
    following = next_page("aud", [row.id for row in changes], limit)
    return page(
        request,
        viewer,
        "activity.html",
        listing=change_listing(names),
        changes=changes[:limit],
        next_cursor=following,
    )


def change_listing(names: Mapping[str, str]) -> Listing[AccountAuditEntry]:
    """Return the list of an account's changes. `names` are those of its members and keys."""
    return Listing(
        caption="Changes",
        columns=(
            Column("Time", lambda change: change.at, time="second"),
            Column("By", lambda change: names.get(change.actor, "The operator")),
            Column("Change", lambda change: describe_action(change.action)),
            Column("Subject", lambda change: short(change.object) if "_" in change.object else change.object),
        ),
    )


def _names(members: tuple[Member, ...]) -> dict[str, str]:
    return {ids.encode("mem", member.id): member.name for member in members}


handlers = (
    show_team,
    invite,
    change_member,
    show_account_team,
    invite_to_account,
    change_account_member,
    show_profile,
    change_profile,
    change_password,
    begin_factor,
    show_factor,
    confirm_factor,
    remove_factor,
    end_session,
    switch_mode,
    show_activity,
)
