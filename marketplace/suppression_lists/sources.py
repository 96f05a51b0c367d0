"""Sources on the web of lists of people who must not be contacted: settings, and the refreshing when they are due.

    claim a source → download its file, if it has changed → import it as a whole → record when the next refresh is due

A file is downloaded into a nameless file of bounded size, which is gone when its process ends, since it has plain
telephone numbers. Until the whole of it is published, and after any failure, the list is what it was.
"""

import asyncio
import contextlib
import gzip
import re
import ssl
import tempfile
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum
from typing import BinaryIO, Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from marketplace.database.db import Pool, session, transaction
from marketplace.directory.flow import URL_ADVICE
from marketplace.directory.wire import fault
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.security.sealing import Sealer
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists import source_store
from marketplace.suppression_lists import store as lists_store
from marketplace.suppression_lists.flow import ImportOptions
from marketplace.suppression_lists.source_store import (
    LEASE,
    ListSource,
    PublishedFile,
    SourceFormat,
    SourceSchedule,
    SourceSettings,
)
from marketplace.suppression_lists.store import ContactList, ListImport, ListKind
from marketplace.text.faults import FaultCode
from marketplace.webhook.address import AddressRules, ParsedUrl, UrlRefusal
from marketplace.webhook.download import Download, FailedDownload, download

MACHINE: Final = "marketplace"
"Actor of imports that the service itself makes."
EXTEND_SECONDS: Final = 15.0
DOWNLOAD_SECONDS: Final = 1800.0
LARGEST_FILE: Final = 2**30
"Limit of a file in bytes, and of its unpacked form: 80,000,000 telephone numbers."
FIRST_PAUSE: Final = timedelta(minutes=5)
"Pause after the first failure; it doubles with each further one."
LONGEST_PAUSE: Final = timedelta(hours=6)
LONGEST_HEADER: Final = 2_000
COPY_BYTES: Final = 1 << 20
GZIP_START: Final = b"\x1f\x8b"
HEADER_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
OWN_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "if-modified-since",
        "if-none-match",
        "range",
        "te",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
"Headers that the service itself writes."


class RefreshResult(StrEnum):
    """Result of one refresh."""

    published = "published"
    """The list is what the source's file says."""
    unchanged = "unchanged"
    """The source has the file that the list was made of."""
    failed = "failed"
    """The list is what it was; the refresh is repeated after a pause."""
    smaller = "smaller"
    """The file has less than half of the list. The list is what it was until an operator confirms the file."""
    replaced = "replaced"
    """The source was changed or removed meanwhile, so that nothing of it was published."""


class SourceRefresh(msgspec.Struct, frozen=True, kw_only=True):
    """One refresh: its result, the code of a failure, and the import if there was one."""

    list_id: UUID
    name: str
    result: RefreshResult
    failure: str | None = None
    run: ListImport | None = None


class _RefreshFailed(Exception):
    """Raised when a refresh ends without a file that can be imported, with the code of the failure."""

    def __init__(self, failure: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(failure)
        self.failure = failure
        self.retry_after_seconds = retry_after_seconds


# Rules.


def pause_after(schedule: SourceSchedule, failures: int, retry_after_seconds: int | None = None) -> timedelta:
    """Return the pause after the last of `failures` failures in a row: never longer than the schedule's interval.

    A server that states a pause gets that one, if it is longer.
    """
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(failures - 1, 10)))
    if retry_after_seconds is not None:
        pause = max(pause, timedelta(seconds=retry_after_seconds))
    return min(pause, schedule.interval)


def conditional_headers(source: ListSource) -> dict[str, str]:
    """Return the headers that ask for the file only if it has changed since it was published.

    None are sent if the list was changed by other means since; after an undoing they are, since the file that was
    undone must not come back.
    """
    if not (source.is_current or source.was_undone):
        return {}
    headers = {"If-None-Match": source.etag, "If-Modified-Since": source.last_modified}
    return {name: value for name, value in headers.items() if value is not None}


def failure_of_status(status: int) -> str | None:
    """Return the code of the failure that a status means; None for a file, and for an unchanged one."""
    if status in (200, 304):
        return None
    if status in (401, 403):
        return "key_refused"
    if status in (404, 410):
        return "not_found"
    if status == 429 or status >= 500:
        return "busy"
    return "refused"


def check_header(name: str, value: str) -> None:
    """Raise InvalidInput for a header that cannot be sent, at the fields `/header_name` and `/header_value`."""
    if not HEADER_NAME.fullmatch(name) or name.lower() in OWN_HEADERS:
        raise fault("/header_name", FaultCode.value_not_allowed, "Send a header such as Authorization or X-Api-Key.")
    if len(value) > LONGEST_HEADER or not HEADER_VALUE.fullmatch(value):
        detail = f"Send one line of at most {LONGEST_HEADER:,} plain characters."
        raise fault("/header_value", FaultCode.value_not_allowed, detail)


def check_url(guard: AddressRules, url: str) -> ParsedUrl:
    """Return the parts of a source's URL. Raises InvalidInput at the field `/url` for one that may not be used."""
    target = guard.check(url)
    if isinstance(target, UrlRefusal):
        raise fault("/url", target.fault, URL_ADVICE[target.fault])
    return target


# Settings.


async def save_source(
    pool: Pool,
    sealer: Sealer,
    guard: AddressRules,
    actor: str,
    contact_list: ContactList,
    settings: SourceSettings,
    header: tuple[str, str] | None,
) -> None:
    """Set the source of a list, which is fetched at once and then by its schedule. The key in its header is sealed.

    Raises InvalidInput for a URL or a header that may not be used, and Conflict for a list of own customers.
    """
    if contact_list.kind is not ListKind.do_not_contact:
        raise errors.Conflict("Only a list of people who must not be contacted has a source on the web.")
    target = check_url(guard, settings.url)
    if header is not None:
        check_header(*header)
    url = f"{target.scheme}://{target.host_header}{target.path}"
    settings = msgspec.structs.replace(settings, url=url)
    sealed = None if header is None else (header[0], sealer.seal_secret(contact_list.id, header[1]))
    now = clock.now()
    async with transaction(pool) as connection:
        await source_store.save_source(connection, contact_list.id, settings, sealed, now)
        await source_store.clear_file_source(connection, contact_list.id)
        subject = ids.encode("list", contact_list.id)
        await audit.record(connection, now, actor, "list_source.set", subject, host=target.host)


async def remove_source(pool: Pool, actor: str, contact_list: ContactList) -> None:
    """Remove the source of a list, which stays as it is. Raises NotFound."""
    async with transaction(pool) as connection:
        if not await source_store.delete_source(connection, contact_list.id):
            raise errors.NotFound("This list has no source on the web.")
        await audit.record(connection, clock.now(), actor, "list_source.remove", ids.encode("list", contact_list.id))


async def request_refresh(pool: Pool, actor: str, contact_list: ContactList) -> None:
    """Have a source fetched now. Raises NotFound."""
    now = clock.now()
    async with transaction(pool) as connection:
        if not await source_store.request_refresh(connection, contact_list.id, now):
            raise errors.NotFound("This list has no source on the web.")
        await audit.record(connection, now, actor, "list_source.refresh", ids.encode("list", contact_list.id))


async def confirm_smaller(pool: Pool, actor: str, contact_list: ContactList, rows: int) -> None:
    """Confirm that the file of `rows` rows is complete: it is fetched again now, and then replaces the list.

    Raises Conflict if no file of this size waits any more.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        if not await source_store.confirm_smaller(connection, contact_list.id, rows, now):
            raise errors.Conflict("The source has another file meanwhile. Look at the page again.")
        subject = ids.encode("list", contact_list.id)
        await audit.record(connection, now, actor, "list_source.confirm", subject, rows=rows)


# Refreshing.


async def refresh_due(
    pool: Pool, sealer: Sealer, guard: AddressRules, tls: ssl.SSLContext | None = None
) -> SourceRefresh | None:
    """Refresh the list whose source is due first; None if none is due."""
    now = clock.now()
    async with session(pool) as connection:
        list_id = await source_store.claim_due(connection, now + LEASE, now)
    return None if list_id is None else await refresh_claimed(pool, sealer, guard, list_id, tls)


async def refresh_now(
    pool: Pool, sealer: Sealer, guard: AddressRules, contact_list: ContactList, tls: ssl.SSLContext | None = None
) -> SourceRefresh:
    """Refresh a list, due or not. Raises Conflict if it has no source, or is being refreshed."""
    now = clock.now()
    async with session(pool) as connection:
        if not await source_store.claim_source(connection, contact_list.id, now + LEASE, now):
            raise errors.Conflict("This list has no source on the web, or is being refreshed. Try again in a minute.")
    return await refresh_claimed(pool, sealer, guard, contact_list.id, tls)


async def refresh_claimed(
    pool: Pool, sealer: Sealer, guard: AddressRules, list_id: UUID, tls: ssl.SSLContext | None = None
) -> SourceRefresh:
    """Refresh a list whose source this process has claimed, and record the result. Raises NotFound."""
    async with session(pool) as connection:
        source = await source_store.find_source(connection, list_id)
    if source is None:
        raise errors.NotFound("This list has no source on the web.")
    async with _extending_lease(pool, source):
        try:
            refresh = await _refresh(pool, sealer, guard, source, tls)
        except _RefreshFailed as failed:
            refresh = await _record_failure(pool, source, failed)
    return refresh


@asynccontextmanager
async def _extending_lease(pool: Pool, source: ListSource) -> AsyncIterator[None]:
    """Extend the lease of a source while the body runs."""

    async def extend() -> None:
        while True:
            await asyncio.sleep(EXTEND_SECONDS)
            with contextlib.suppress(errors.Unavailable):
                async with session(pool) as connection:
                    await source_store.extend_lease(connection, source, clock.now() + LEASE)

    extending = asyncio.create_task(extend())
    try:
        yield
    finally:
        extending.cancel()
        await asyncio.gather(extending, return_exceptions=True)


async def _refresh(
    pool: Pool, sealer: Sealer, guard: AddressRules, source: ListSource, tls: ssl.SSLContext | None
) -> SourceRefresh:
    """Download and import the file of a source. Raises _RefreshFailed."""
    secret_headers = {}
    if source.header_name is not None and source.header_value is not None:
        secret_headers = {source.header_name: sealer.open_secret(source.list_id, source.header_value)}
    with tempfile.TemporaryFile() as file:
        answer = await download(
            source.url,
            file,
            guard=guard,
            headers=conditional_headers(source),
            secret_headers=secret_headers,
            most_bytes=LARGEST_FILE,
            seconds=DOWNLOAD_SECONDS,
            tls=tls,
        )
        if isinstance(answer, FailedDownload):
            raise _RefreshFailed(answer.fault)
        failure = failure_of_status(answer.status)
        if failure is not None:
            raise _RefreshFailed(failure, answer.retry_after_seconds)
        if _is_unchanged(source, answer):
            return await _record_unchanged(pool, source)
        with await asyncio.to_thread(_unpack, file, source.format) as rows:
            return await _import(pool, sealer, source, answer, rows)


def _is_unchanged(source: ListSource, answer: Download) -> bool:
    """Return whether a server has the file that was published last. Raises _RefreshFailed for a 304 out of place."""
    may_be_unchanged = source.is_current or source.was_undone
    if answer.status == 304:
        if not may_be_unchanged:
            raise _RefreshFailed("refused")
        return True
    return may_be_unchanged and answer.sha256 == source.content_sha256


def _unpack(file: BinaryIO, format: SourceFormat) -> BinaryIO:
    """Return the rows of a downloaded file, at their start. Raises _RefreshFailed for another format than the stated.

    The unpacked form is a second nameless file, whose size has the same limit.
    """
    file.seek(0)
    is_packed = file.read(len(GZIP_START)) == GZIP_START
    file.seek(0)
    if is_packed is not (format is SourceFormat.csv_gzip):
        raise _RefreshFailed("format_differs")
    if not is_packed:
        return file
    rows = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    try:
        with gzip.open(file) as packed:
            while part := packed.read(COPY_BYTES):
                rows.write(part)
                if rows.tell() > LARGEST_FILE:
                    raise _RefreshFailed("too_large")
    except EOFError:
        rows.close()
        raise _RefreshFailed("file_cut") from None
    except (gzip.BadGzipFile, zlib.error):
        rows.close()
        raise _RefreshFailed("format_differs") from None
    except _RefreshFailed:
        rows.close()
        raise
    rows.seek(0)
    return rows


async def _import(pool: Pool, sealer: Sealer, source: ListSource, answer: Download, rows: BinaryIO) -> SourceRefresh:
    """Import the rows as the whole list, and record it. Raises _RefreshFailed for a file that is refused."""
    async with session(pool) as connection:
        current = await source_store.find_source(connection, source.list_id)
        contact_list = await lists_store.find_list(connection, source.list_id, None)
    if contact_list is None or current is None or current.set_at != source.set_at:
        return SourceRefresh(list_id=source.list_id, name=source.name, result=RefreshResult.replaced)
    options = ImportOptions(country=source.country, confirmed_rows=source.confirmed_rows)
    try:
        run = await lists_flow.import_stream(
            pool, sealer, MACHINE, contact_list, rows, urlsplit(source.url).netloc, options
        )
    except errors.InvalidInput as error:
        raise _RefreshFailed(error.faults[0].code) from error
    except errors.Conflict as error:
        raise _RefreshFailed("list_busy") from error
    except errors.NotFound:
        return SourceRefresh(list_id=source.list_id, name=source.name, result=RefreshResult.replaced)
    assert run.version is not None
    now = clock.now()
    file = PublishedFile(
        version=run.version,
        etag=answer.etag,
        last_modified=answer.last_modified,
        content_sha256=answer.sha256,
    )
    async with session(pool) as connection:
        await source_store.mark_published(connection, source, file, now, now + source.schedule.interval)
    return SourceRefresh(list_id=source.list_id, name=source.name, result=RefreshResult.published, run=run)


async def _record_unchanged(pool: Pool, source: ListSource) -> SourceRefresh:
    now = clock.now()
    async with session(pool) as connection:
        await source_store.mark_unchanged(connection, source, now, now + source.schedule.interval)
    return SourceRefresh(list_id=source.list_id, name=source.name, result=RefreshResult.unchanged)


async def _record_failure(pool: Pool, source: ListSource, failed: _RefreshFailed) -> SourceRefresh:
    """Record a failure and the next try; a file that is much smaller than the list waits for an operator."""
    now, failures = clock.now(), source.failures + 1
    is_smaller = failed.failure == "much_smaller"
    pause = pause_after(source.schedule, failures, failed.retry_after_seconds)
    due_at = now + (source.schedule.interval if is_smaller else pause)
    async with session(pool) as connection:
        rows = (await lists_store.list_imports(connection, source.list_id, 1))[0].readable if is_smaller else None
        await source_store.mark_failed(connection, source, failed.failure, now, due_at, rows)
    result = RefreshResult.smaller if is_smaller else RefreshResult.failed
    return SourceRefresh(list_id=source.list_id, name=source.name, result=result, failure=failed.failure)
