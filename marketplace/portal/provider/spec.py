"""Posting spec of a vertical: for providers, and for anybody who has its link; also for print."""

import base64
import binascii
import csv as files
import hmac
import io
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.directory import posting
from marketplace.directory import store as directory_store
from marketplace.intake.http import SUBMISSIONS_PATH
from marketplace.portal.frame import page
from marketplace.portal.provider import store
from marketplace.portal.session import Viewer, visitor
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors
from marketplace.runtime.settings import Docs
from marketplace.security.auth import CallerKind
from marketplace.text.spreadsheet import cell
from marketplace.web.http import AnyRequest, count_failure, services
from routing.joining import PAY_IN_WORDS
from routing.person import PERSON_IN_WORDS

SEAL_BYTES: Final = 16
"128 bits of a keyed hash, which nobody can guess."
MOST_VERSIONS: Final = 20
BROKEN_LINK: Final = "This link does not work. Ask the person who sent it to you for a new one."
COLUMNS: Final = posting.Row.__struct_fields__


@get("/provider/spec")
async def show_spec(request: AnyRequest) -> Response[bytes]:
    """Show the spec of a service: fields, samples, answers, limits and changes."""
    viewer = await visitor(request, CallerKind.provider)
    verticals = await list_verticals(request)
    vertical = vertical_of(request, verticals)
    if vertical is None:
        return page(request, viewer, "provider/no_vertical.html")
    return await _spec_page(request, viewer, vertical, verticals, link_of(request, viewer.owner, vertical))


@get("/spec/{token:str}", signed_out=True)
async def show_shared(request: AnyRequest, token: FromPath[str]) -> Response[bytes]:
    """Show the spec to anybody who has its link, without an account."""
    return await _spec_page(request, None, await _shared(request, token), (), f"/spec/{token}")


@get("/spec/{token:str}/fields.csv", signed_out=True)
async def show_fields(request: AnyRequest, token: FromPath[str]) -> Response[bytes]:
    """Return the fields as a CSV file."""
    vertical = await _shared(request, token)
    out = io.StringIO(newline="")
    writer = files.writer(out)
    writer.writerow(COLUMNS)
    for row in posting.rows(vertical):
        values = (getattr(row, name) for name in COLUMNS)
        writer.writerow([("yes" if value else "no") if isinstance(value, bool) else cell(value) for value in values])
    return _file(out.getvalue().encode(), "text/csv; charset=utf-8", f"{vertical.slug}-fields.csv")


@get("/spec/{token:str}/schema.json", signed_out=True)
async def show_schema(request: AnyRequest, token: FromPath[str]) -> Response[bytes]:
    """Return the JSON Schema of the body."""
    vertical = await _shared(request, token)
    return _file(
        posting.pretty(posting.schema(vertical)).encode(),
        "application/json",
        f"{vertical.slug}-schema.json",
    )


def _file(content: bytes, media_type: str, name: str) -> Response[bytes]:
    headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=media_type, headers=headers)


async def _spec_page(
    request: AnyRequest, viewer: Viewer | None, vertical: Vertical, verticals: tuple[Vertical, ...], link: str
) -> Response[bytes]:
    async with session(services(request).pool) as connection:
        versions = await store.list_versions(connection, vertical.id, MOST_VERSIONS)
    settings, now = services(request).settings, clock.now()
    body = posting.example(vertical, now)
    since = versions[0].made_at if versions else None
    return page(
        request,
        viewer,
        "provider/spec.html",
        vertical=vertical,
        verticals=verticals,
        link=link,
        url=settings.public_url,
        endpoint=f"{settings.public_url}{SUBMISSIONS_PATH}",
        rows=posting.rows(vertical),
        samples=posting.samples(body, settings.public_url),
        answers=posting.answers(now),
        body=posting.pretty(body),
        changes=posting.changes(versions),
        per_minute=settings.submissions_per_minute,
        docs=settings.docs is Docs.public,
        since=since,
        same_person=PERSON_IN_WORDS[vertical.definition.same_person],
        pay_joined=PAY_IN_WORDS[vertical.definition.pay_joined],
    )


# Verticals.


async def list_verticals(request: AnyRequest) -> tuple[Vertical, ...]:
    """Return all verticals by name."""
    rules = await services(request).catalog.current()
    return tuple(
        sorted(rules.verticals.values(), key=lambda vertical: (vertical.definition.name.casefold(), vertical.slug))
    )


def vertical_of(request: AnyRequest, verticals: tuple[Vertical, ...]) -> Vertical | None:
    """Return the vertical that `?vertical=` names, or the first; None if there are none. Raises NotFound."""
    slug = request.query_params.get("vertical")
    if slug is None:
        return next(iter(verticals), None)
    vertical = next((vertical for vertical in verticals if vertical.slug == slug), None)
    if vertical is None:
        raise errors.NotFound("There is no such service.")
    return vertical


# The link to a spec, which works without an account.


class _SpecAddress(msgspec.Struct, frozen=True):
    provider_id: UUID
    slug: str
    seal: bytes


def link_of(request: AnyRequest, provider_id: UUID, vertical: Vertical) -> str:
    """Return the path that shows this spec without an account, while the provider is active."""
    token = provider_id.bytes + _seal(request, provider_id, vertical.slug) + vertical.slug.encode()
    return f"/spec/{base64.urlsafe_b64encode(token).rstrip(b'=').decode()}"


def _seal(request: AnyRequest, provider_id: UUID, slug: str) -> bytes:
    return services(request).sealer.keyed_hash("spec-link", f"{provider_id}:{slug}")[:SEAL_BYTES]


async def _shared(request: AnyRequest, token: str) -> Vertical:
    """Return the vertical of a link. Raises NotFound if the link is not genuine or its provider is not active."""
    address = _read(token)
    if address is None or not hmac.compare_digest(_seal(request, address.provider_id, address.slug), address.seal):
        await count_failure(request)
        raise errors.NotFound(BROKEN_LINK)
    async with session(services(request).pool) as connection:
        provider = await directory_store.find_provider(connection, address.provider_id)
        vertical = await directory_store.find_vertical(connection, address.slug)
    if vertical is None or provider is None or provider.state != "active":
        raise errors.NotFound(BROKEN_LINK)
    return vertical


def _read(token: str) -> _SpecAddress | None:
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        slug = raw[16 + SEAL_BYTES :].decode("ascii")
    except (binascii.Error, ValueError):
        return None
    if len(raw) <= 16 + SEAL_BYTES or len(token) > 200:
        return None
    return _SpecAddress(UUID(bytes=raw[:16]), slug, raw[16 : 16 + SEAL_BYTES])


handlers: tuple[Any, ...] = (show_spec, show_shared, show_fields, show_schema)
