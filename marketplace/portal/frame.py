"""Pages: templates, money and time as text, flash messages, redirects, and errors as pages.

Templates escape every text that is not Markup made by this package. Pages have no inline scripts or styles, so that the
content security policy can forbid them.
"""

import gzip
import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined, pass_context
from jinja2.bccache import Bucket
from jinja2.runtime import Context
from litestar import Response
from litestar.datastructures import Cookie
from markupsafe import Markup, escape

from marketplace import BRAND
from marketplace.portal import navigation
from marketplace.portal.assets import SMALLEST_COMPRESSED, asset, takes_gzip
from marketplace.portal.forms import ReasonForm, show_form, typed, typed_form
from marketplace.portal.paging import address, page_links
from marketplace.portal.session import Viewer, cookie, cookie_name
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.log import logger
from marketplace.web.gate import PAGE_CONTENT_POLICY
from marketplace.web.http import AnyRequest, services
from marketplace.web.problems import RETRY_AFTER_SECONDS, describe
from routing.currency import minor_digits, write_amount
from routing.interest import interest_in_words

FLASH_SECONDS: Final = 60
COMPRESSION: Final = 5

# Money, time and numbers as text.

DASH: Final = "\u2013"
MINUS: Final = "\u2212"

SIGNS: Final = {"USD": "$", "EUR": "€", "GBP": "£", "CAD": "CA$", "AUD": "A$"}


def money(minor: int | None, currency: str) -> str:
    """Return `$1,250.00` or `CHF 12.00`, with a minus sign in front if negative; a dash for None."""
    if minor is None:
        return DASH
    exponent = minor_digits(currency)
    whole, part = divmod(abs(minor), 10**exponent)
    digits = f"{whole:,}" + (f".{part:0{exponent}d}" if exponent else "")
    sign = SIGNS.get(currency)
    return (MINUS if minor < 0 else "") + (f"{sign}{digits}" if sign else f"{currency}\u00a0{digits}")


def field_amount(minor: int | None, currency: str) -> str:
    """Return an amount as a form field holds it, such as `1250.00`, which is read back unchanged; empty for None."""
    return "" if minor is None else write_amount(minor, currency)


def number(value: float | None, places: int = 0) -> str:
    """Return `1,234` or, with decimal places, `1.5`; a dash for None."""
    return DASH if value is None else f"{value:,.{places}f}".replace("-", MINUS)


def percent(share: float | None, places: int = 0) -> str:
    """Return 0.123 as `12%`; a dash for None."""
    return DASH if share is None else f"{100 * share:.{places}f}%".replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """Return `38 ms`, `1.4 s`, `3 min`, `2 h 5 min` or `6 d 4 h`; a dash for None."""
    if seconds is None:
        return DASH
    if seconds < 0:
        return MINUS + duration(-seconds)
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def words(slug: str) -> str:
    """Return `wallet.top_up` as `Wallet top up`."""
    return slug.replace("_", " ").replace(".", " ").capitalize()


def zone_of(name: str) -> ZoneInfo:
    """Return the time zone of this name, or UTC if there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def moment(at: datetime | None, zone: str, style: str = "minute") -> Markup:
    """Return a time element. `style`: `day` (without the zone), `minute`, `second`, or `clock` for the time of day."""
    if at is None:
        return Markup(DASH)
    try:
        local = at.astimezone(zone_of(zone))
        utc = at.astimezone(UTC)
    except OverflowError:  # years 1 and 9999, stored before such times were refused
        local = utc = at
    shapes = {"day": "%-d %b %Y", "minute": "%-d %b %Y, %H:%M", "second": "%-d %b %Y, %H:%M:%S", "clock": "%H:%M:%S"}
    exact = utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    zone_name = "" if style == "day" else f' <span class="zone">{escape(local.strftime("%Z"))}</span>'
    return Markup(f'<time datetime="{exact}">{local.strftime(shapes[style])}{zone_name}</time>')


@pass_context
def in_zone_of(context: Context, at: datetime | None, style: str = "minute") -> Markup:
    """Return a time in the zone of the viewer, or in UTC without one; see `moment`."""
    viewer: Viewer | None = context.get("viewer")
    zone = viewer.zone if viewer else "UTC"
    return moment(at, zone, style)


def short(public_id: str) -> Markup:
    """Return an id cut to its prefix and last six characters; screen readers and copied text have it whole."""
    kind, _, tail = public_id.partition("_")
    end = f'<span aria-hidden="true">{escape(kind)}_…{escape(tail[-6:])}</span>'
    return Markup(f'<span class="id"><span class="sr">{escape(public_id)}</span>{end}</span>')


TONES: Final = {
    "good": ("active", "delivered", "granted", "won", "accepted", "verified", "paid", "open", "well", "available"),
    "busy": (
        "held",
        "exposed",
        "prospect",
        "received",
        "requested",
        "contacted",
        "qualified",
        "appointment",
        "quoted",
        "invited",
        "nurturing",
        "waiting",
    ),
    "warn": (
        "paused",
        "low",
        "lapsed",
        "unsold",
        "unverified",
        "not_sent",
        "unreachable",
        "limited",
        "suspended",
        "frozen",
    ),
    "bad": ("rejected", "refused", "lost", "denied", "empty", "failing", "gone", "exhausted"),
}
"States by the tone of their badge; all others have the tone muted."
TONE_OF: Final = {word: tone for tone, states in TONES.items() for word in states}


def badge(word: str, tone: str = "") -> Markup:
    """Return the badge of a state. `tone` is good, warn, bad, busy or muted; by default that of the word."""
    tone = tone or TONE_OF.get(word.lower().replace(" ", "_"), "muted")
    return Markup('<span class="badge is-{}">{}</span>').format(tone, words(word))


def cell(heading: str, value: object, style: str = "", *, names_row: bool = False) -> Markup:
    """Return a cell of a table. A function rather than a macro, which is too slow for a long table."""
    opening, closing = _tags(heading, style, names_row)
    return Markup(f"{opening}{escape(value)}{closing}")


@lru_cache(maxsize=1_000)
def _tags(heading: str, style: str, names_row: bool) -> tuple[str, str]:
    if names_row:
        return '<th scope="row">', "</th>"
    styled = f' class="{escape(style)}"' if style else ""
    return f'<td data-name="{escape(heading)}"{styled}>', "</td>"


class TemplateCache(FileSystemBytecodeCache):
    """Compiled templates, kept for the next process in a directory that only this user can read and write."""

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Store a compiled template, unless the disk is full or read-only."""
        with suppress(OSError):
            super().dump_bytecode(bucket)


def _template_cache() -> TemplateCache | None:
    """Return the cache in Jinja's own directory in the system's temporary one; None if that is not safe.

    A compiled template may hold results of filters, so its name has the version of Jinja and a hash of this module.
    """
    state = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    try:
        return TemplateCache(pattern=f"marketplace-{version('jinja2')}-{state}-%s.cache")
    except (RuntimeError, OSError):
        return None


def make_environment() -> Environment:
    """Return the environment of all templates, with the filters and globals that they use."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        bytecode_cache=_template_cache(),
        extensions=["jinja2.ext.do"],
    )
    environment.filters |= {
        "money": money,
        "number": number,
        "percent": percent,
        "duration": duration,
        "touches_in_words": interest_in_words,
        "words": words,
        "time": in_zone_of,
        "public_id": lambda value, kind: ids.encode(kind, value),
        "short": short,
        "field_amount": field_amount,
    }
    environment.globals |= {
        "asset": asset,
        "address": address,
        "page_links": page_links,
        "state_badge": badge,
        "table_cell": cell,
        "reason_form": show_form(ReasonForm),
        "BRAND": BRAND,
        "places": navigation.NAVIGATION,
    }
    return environment


ENVIRONMENT: Final = make_environment()


def compile_templates(is_stopping: Callable[[], bool]) -> None:
    """Compile all templates, or load them as an earlier process compiled them; run it in a thread.

    Compiling takes 2.4 s of processor time, loading 0.1 s. A page that is requested earlier compiles its own template.
    """
    for name in ENVIRONMENT.list_templates():
        if is_stopping():
            return
        ENVIRONMENT.get_template(name)


# Pages.


def page(
    request: AnyRequest,
    viewer: Viewer | None,
    template: str,
    *,
    status: int = 200,
    cookies: Iterable[Cookie] = (),
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> Response[bytes]:
    """Return a whole page. `context` holds the variables of its template; a refused form is shown again."""
    settings = services(request).settings
    form = typed_form(request)
    if form is not None and status == 200:
        status = form.status
    flash = request.cookies.get(cookie_name(settings, "flash"))
    if flash is not None:
        cookies = (*cookies, cookie(settings, "", "flash", 0))
    text = partial(request, viewer, template, flash=unquote(flash or ""), **context)
    return _html(request, text, status, cookies, headers)


def partial(request: AnyRequest, viewer: Viewer | None, template: str, **context: Any) -> str:
    """Return the text of a template: a whole page, or a live part of a page."""
    path, form = request.url.path, typed_form(request)
    whole = {
        "viewer": viewer,
        "path": path,
        "method": request.method,
        "query": {name: value for name, value in request.query_params.items()},
        "current": navigation.current(viewer.kind, path) if viewer else "",
        "csrf": viewer.csrf if viewer else "",
        "now": clock.now(),
        "faults": form.faults if form else {},
        "typed": typed(form.fields) if form else {},
        "wrong": form.wrong if form else "",
        "flash": "",
    }
    return ENVIRONMENT.get_template(template).render(whole | context)


def _html(
    request: AnyRequest, text: str, status: int, cookies: Iterable[Cookie], headers: Mapping[str, str] | None
) -> Response[bytes]:
    content = text.encode()
    all_headers = {
        "Cache-Control": "no-store",
        "Vary": "Accept-Encoding, Cookie",
        PAGE_CONTENT_POLICY[0].decode(): PAGE_CONTENT_POLICY[1].decode(),
        **(headers or {}),
    }
    if takes_gzip(request) and len(content) > SMALLEST_COMPRESSED:
        content, all_headers["Content-Encoding"] = gzip.compress(content, COMPRESSION, mtime=0), "gzip"
    return Response(content, status_code=status, media_type="text/html", headers=all_headers, cookies=list(cookies))


def redirect(
    request: AnyRequest,
    path: str,
    flash: str = "",
    *,
    cookies: Iterable[Cookie] = (),
    headers: Mapping[str, str] | None = None,
) -> Response[bytes]:
    """Redirect to another page of the portal after a change; that page shows `flash` once."""
    settings = services(request).settings
    if flash:
        cookies = (*cookies, cookie(settings, quote(flash), "flash", FLASH_SECONDS))
    all_headers = {"Cache-Control": "no-store", **(headers or {}), "Location": path}
    return Response(b"", status_code=303, headers=all_headers, cookies=list(cookies))


# Errors.


def render(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Return any error as a page with a sentence and the stable code."""
    state: dict[str, Any] = request.scope["state"]
    problem = describe(error, str(state.get("request_id", "")))
    state["code"] = problem.code
    if problem.status == 500:
        logger("api").error("unforeseen", error=type(error).__name__, request_id=problem.instance)
    if isinstance(error, errors.NotSignedIn):
        back = _back(request)
        path = f"/sign-in?{urlencode({'next': back})}" if back else "/sign-in"
        return redirect(request, path)
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, errors.RateLimited) else {}
    if problem.status == 503:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    viewer: Viewer | None = state.get("viewer")  # None if the error came before the session was read
    return page(request, viewer, "error.html", status=problem.status, headers=headers, problem=problem)


def _back(request: AnyRequest) -> str:
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{request.url.path}{query}" if request.method == "GET" and request.url.path != "/" else ""
