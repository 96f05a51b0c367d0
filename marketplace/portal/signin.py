"""Pages for signing in and out: password, second factor, one-time links, and setting up the first operator."""

import io
from typing import Annotated, Final
from urllib.parse import urlencode

import msgspec
import segno
from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.params import FromPath
from markupsafe import Markup
from msgspec import Meta

from marketplace import BRAND
from marketplace.database.db import session
from marketplace.portal import flow, store
from marketplace.portal.flow import AccountServices, BrowserClient, SessionStart
from marketplace.portal.forms import FormFields, ZoneName, fields, fill, label, show_again, show_form
from marketplace.portal.frame import page, redirect
from marketplace.portal.navigation import HOMES
from marketplace.portal.session import (
    DEVICE_DAYS,
    Viewer,
    cookie,
    cookie_name,
    demand_own_page,
    demand_token,
    find_viewer,
    local_path,
)
from marketplace.portal.store import Member, OneTimeLink, Purpose, SessionState
from marketplace.runtime import errors
from marketplace.text.faults import WORDS
from marketplace.web.http import AnyRequest, address_name, count, services
from marketplace.web.limiting import RateBudget, RatePolicy

SIGN_INS_PER_ADDRESS: Final = 30
"Per minute and address: enough for an office behind one address in the morning."
SIGN_INS_AT_ALL: Final = 600
"Per minute in total: more than four cores can hash."
DEVICE_CHARACTERS: Final = 120

Email = Annotated[str, Meta(max_length=254, pattern=r"^\s*[^\s@]+@[^\s@]+\.[^\s@]+\s*$")]
PersonName = Annotated[str, Meta(max_length=100, pattern=WORDS)]
Password = Annotated[str, Meta(min_length=1, max_length=4_096, extra={"kind": "password"})]
Code = Annotated[str, Meta(max_length=20, extra={"autocomplete": "one-time-code", "inputmode": "numeric"})]


class SignInForm(msgspec.Struct, frozen=True, kw_only=True):
    """The form of the sign-in page."""

    email: Annotated[str, Meta(min_length=1, max_length=254), label("E-mail", kind="email", autocomplete="username")]
    password: Annotated[Password, label("Password", autocomplete="current-password")]
    next: Annotated[str, Meta(max_length=500)] = ""


class CodeForm(msgspec.Struct, frozen=True, kw_only=True):
    """A code of the second factor."""

    code: Annotated[Code, label("Code")]
    next: Annotated[str, Meta(max_length=500)] = ""


class PasswordForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new password, or the present one to replace the second factor, sent on the page of a link."""

    password: Password


class JoinForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new member's name and password; the first operator also gives the e-mail address."""

    name: PersonName
    password: Password
    email: Email = "invited@by.link"


class SignUpForm(msgspec.Struct, frozen=True, kw_only=True):
    """A new business that signs itself up, and its owner."""

    company: Annotated[
        str, Meta(min_length=1, max_length=100, pattern=WORDS), label("Company", autocomplete="organization")
    ]
    zone: Annotated[ZoneName, label("Time zone", "Such as America/Chicago. Your days, limits and hours follow it.")] = (
        "America/Chicago"
    )
    name: Annotated[PersonName, label("Your name", autocomplete="name")]
    email: Annotated[Email, label("E-mail", "You sign in with it.", kind="email", autocomplete="username")]
    password: Annotated[
        Password,
        label("New password", "At least 12 characters, such as four or five words.", autocomplete="new-password"),
    ]


def accounts_of(request: AnyRequest) -> AccountServices:
    accounts: AccountServices = request.app.state.accounts
    return accounts


def client_of(request: AnyRequest) -> BrowserClient:
    """Return the browser's user agent, for the list of sessions, and its network address, for the audit log."""
    agent = request.headers.get("user-agent", "")
    device = "".join(character for character in agent if character.isprintable())[:DEVICE_CHARACTERS]
    address = request.client.host if request.client else ""
    return BrowserClient(device=device, address=address)


def redirect_signed_in(request: AnyRequest, start: SessionStart, path: str) -> Response[bytes]:
    """Set the cookies of a new session, and redirect to `path`, or to the page of the second factor if it is due."""
    settings = services(request).settings
    cookies = [cookie(settings, start.secret)]
    if start.state is SessionState.open:
        token = flow.browser_token(accounts_of(request), start.email)
        cookies.append(cookie(settings, token, "browser", DEVICE_DAYS * 86_400))
        return redirect(request, path, cookies=cookies)
    factor_page = "/sign-in/code" if start.state is SessionState.code_due else "/sign-in/factor"
    return redirect(request, _with_next(factor_page, path), cookies=cookies)


def _with_next(path: str, following: str) -> str:
    return f"{path}?{urlencode({'next': following})}" if following != "/" else path


@get("/", signed_out=True)
async def home(request: AnyRequest) -> Response[bytes]:
    """Redirect to the member's overview, or to the sign-in page."""
    viewer = await find_viewer(request)
    if viewer is None or viewer.state is not SessionState.open:
        return redirect(request, "/sign-in")
    return redirect(request, HOMES[viewer.kind])


@get("/sign-in", signed_out=True)
async def show_sign_in(request: AnyRequest) -> Response[bytes]:
    """Show the sign-in page."""
    return await _sign_in_page(request, request.query_params.get("next", ""))


async def _sign_in_page(request: AnyRequest, following: str) -> Response[bytes]:
    async with session(services(request).pool) as connection:
        has_operator = await store.count_operators(connection) > 0
    form = show_form(SignInForm)
    return page(request, None, "sign_in.html", form=form, next=local_path(following) or "", has_operator=has_operator)


@post("/sign-in", signed_out=True)
async def sign_in(request: AnyRequest) -> Response[bytes]:
    """Sign in with e-mail address and password. The answer does not say which of the two was wrong."""
    demand_own_page(request)
    sent = await fields(request)
    try:
        form = fill(SignInForm, sent)
        await count(request, RatePolicy(budget=RateBudget.sign_ins, quota=SIGN_INS_PER_ADDRESS), address_name(request))
        await count(request, RatePolicy(budget=RateBudget.sign_ins, quota=SIGN_INS_AT_ALL), "everybody")
        email = form.email.strip().lower()
        settings = services(request).settings
        accounts = accounts_of(request)
        browser = flow.browser_of(accounts, request.cookies.get(cookie_name(settings, "browser")), email)
        start = await flow.sign_in(accounts, email, form.password, client=client_of(request), browser=browser)
    except (errors.InvalidInput, errors.SignInFailed) as error:
        following = (sent.get("next") or ("",))[0]
        return await show_again(request, sent, error, _sign_in_page(request, following))
    await _end_earlier_session(request)
    return redirect_signed_in(request, start, local_path(form.next) or "/")


async def _end_earlier_session(request: AnyRequest) -> None:
    """End the session that this browser had before the sign-in, if any."""
    viewer = await find_viewer(request)
    if viewer is not None:
        await flow.sign_out(accounts_of(request), viewer)


# The second factor.


async def _viewer_in(request: AnyRequest, *states: SessionState) -> Viewer:
    """Return the member of a session in one of these states. Raises NotSignedIn."""
    viewer = await find_viewer(request)
    if viewer is None or viewer.state not in states:
        raise errors.NotSignedIn("Sign in first.")
    return viewer


@get("/sign-in/code", signed_out=True)
async def show_code(request: AnyRequest) -> Response[bytes]:
    """Show the page that asks for a code of the second factor."""
    viewer = await _viewer_in(request, SessionState.code_due)
    following = local_path(request.query_params.get("next")) or ""
    return _ask_code(request, viewer, following, "")


@get("/sign-in/factor", signed_out=True)
async def show_factor(request: AnyRequest) -> Response[bytes]:
    """Show the second factor that an operator must set up, and ask for its first code."""
    viewer = await _viewer_in(request, SessionState.factor_due)
    return await _code_page(request, viewer, local_path(request.query_params.get("next")) or "")


async def _code_page(request: AnyRequest, viewer: Viewer, following: str) -> Response[bytes]:
    address = await flow.find_factor(accounts_of(request), viewer, BRAND)
    return _ask_code(request, viewer, following, address or "")


def _ask_code(request: AnyRequest, viewer: Viewer, following: str, address: str) -> Response[bytes]:
    """Return the page that asks for a code, with the factor to set up if there is its address."""
    return page(
        request,
        None,
        "code.html",
        form=show_form(CodeForm),
        csrf=viewer.csrf,
        next=following,
        qr=qr_of(address) if address else None,
        address=address,
    )


@post("/sign-in/code", signed_out=True)
async def prove_code(request: AnyRequest) -> Response[bytes]:
    """Check the code; if it is right, the session is open."""
    viewer = await _viewer_in(request, SessionState.code_due, SessionState.factor_due)
    demand_own_page(request)
    sent = await fields(request)
    demand_token(request, (sent.get("csrf") or ("",))[0])
    form = fill(CodeForm, sent)
    following = local_path(form.next) or ""
    try:
        start = await flow.prove_code(accounts_of(request), viewer, form.code, client_of(request))
    except errors.CodeWrong as error:
        return await show_again(request, {}, error, _code_page(request, viewer, following))
    return redirect_signed_in(request, start, following or "/")


def qr_of(address: str) -> Markup:
    """Return the QR code that an authenticator app scans; black on white in dark mode too, because some need that."""
    out = io.BytesIO()
    segno.make(address, error="m").save(
        out,
        kind="svg",
        scale=4,
        border=3,
        xmldecl=False,
        svgns=False,
        svgclass="qr",
        lineclass=None,
        light="#fff",
        title="Scan this with your authenticator app",
    )
    return Markup(out.getvalue().decode())


@post("/sign-out", signed_out=True)
async def sign_out(request: AnyRequest) -> Response[bytes]:
    """End the session in the database and in the browser."""
    viewer = await find_viewer(request)
    settings = services(request).settings
    cookies: list[Cookie] = [cookie(settings, "", "session", 0)]
    headers = {"Clear-Site-Data": '"cache", "storage"'}
    if viewer is not None:
        demand_own_page(request)
        demand_token(request, (await fields(request)).get("csrf", ("",))[0])
        await flow.sign_out(accounts_of(request), viewer)
    return redirect(request, "/sign-in", "You are signed out.", cookies=cookies, headers=headers)


# Links.


@get("/setup", signed_out=True)
async def show_setup(request: AnyRequest) -> Response[bytes]:
    """Say where to find the link for the first operator; redirect to the sign-in page if there is an operator."""
    async with session(services(request).pool) as connection:
        if await store.count_operators(connection):
            return redirect(request, "/sign-in")
    return page(request, None, "setup.html")


@get("/link/{token:str}", signed_out=True)
async def show_link(request: AnyRequest, token: FromPath[str]) -> Response[bytes]:
    """Show what a link is for, and the form that uses it. Opening a link does not use it up."""
    return await _link_page(request, *await flow.load_link(services(request).pool, token))


async def _link_page(request: AnyRequest, link: OneTimeLink, member: Member | None) -> Response[bytes]:
    form = show_form(SignUpForm, {"zone": "America/Chicago"}) if link.purpose is Purpose.sign_up else None
    return page(request, None, "link.html", link=link, member=member, form=form)


@post("/link/{token:str}", signed_out=True)
async def use_link(request: AnyRequest, token: FromPath[str]) -> Response[bytes]:
    """Use a link, once."""
    demand_own_page(request)
    await count(request, RatePolicy(budget=RateBudget.sign_ins, quota=SIGN_INS_PER_ADDRESS), address_name(request))
    link, member = await flow.load_link(services(request).pool, token)
    sent = await fields(request)
    try:
        start = await _use(request, token, link.purpose, sent)
    except (errors.InvalidInput, errors.Conflict, errors.SignInFailed) as error:
        return await show_again(request, sent, error, _link_page(request, link, member))
    await _end_earlier_session(request)
    return redirect_signed_in(request, start, "/business/onboarding" if link.purpose is Purpose.sign_up else "/")


async def _use(request: AnyRequest, token: str, purpose: Purpose, sent: FormFields) -> SessionStart:
    accounts, client = accounts_of(request), client_of(request)
    match purpose:
        case Purpose.enter:
            return await flow.sign_in_by_link(accounts, token, client)
        case Purpose.reset:
            return await flow.choose_password(accounts, token, fill(PasswordForm, sent).password, client)
        case Purpose.factor:
            return await flow.renew_factor(accounts, token, fill(PasswordForm, sent).password, client)
        case Purpose.sign_up:
            new = fill(SignUpForm, sent)
            return await flow.sign_up(
                accounts,
                token,
                company=new.company.strip(),
                zone=new.zone.strip(),
                email=new.email.strip(),
                name=new.name.strip(),
                password=new.password,
                client=client,
            )
        case Purpose.invite | Purpose.set_up:
            form = fill(JoinForm, sent)
            return await flow.join(
                accounts, token, email=form.email.strip(), name=form.name.strip(), password=form.password, client=client
            )


handlers = (
    home,
    show_sign_in,
    sign_in,
    show_code,
    show_factor,
    prove_code,
    sign_out,
    show_setup,
    show_link,
    use_link,
)
