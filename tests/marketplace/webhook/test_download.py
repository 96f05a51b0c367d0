"""Downloads from real servers: whole or not at all, from allowed addresses alone, and the key for its own server."""

import tempfile
from collections.abc import Sequence
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from marketplace.webhook import download as downloading
from marketplace.webhook.address import AddressRules
from marketplace.webhook.download import Download, DownloadFault, DownloadResult, FailedDownload, download
from tests import receivers
from tests.receivers import Authority, Behaviour, Receiver, answer, redirect

GUARD = AddressRules(http_allowed=True, networks=(ip_network("127.0.0.0/8"),))
FILE = b"+13125550101\n" * 30_000


async def fetch(url: str, **options: Any) -> tuple[DownloadResult, bytes]:
    """Download a file with the key `secret`; return the result and what was written."""
    values: dict[str, Any] = {"guard": GUARD, "headers": {}, "most_bytes": 2**20, "seconds": 5.0} | options
    with tempfile.TemporaryFile() as file:
        result = await download(url, file, secret_headers={"X-Api-Key": "secret"}, **values)
        file.seek(0)
        return result, file.read()


async def test_a_file_is_written_whole_with_what_its_server_says_of_it() -> None:
    headers = {"etag": '"one"', "last_modified": "Tue, 01 Dec 2026 10:00:00 GMT"}
    async with Receiver(answer(200, FILE, **headers)) as receiver:
        result, written = await fetch(receiver.url, headers={"If-None-Match": '"zero"'})
    assert written == FILE
    assert result == Download(
        status=200,
        size=len(FILE),
        sha256=sha256(FILE).digest(),
        etag=headers["etag"],
        last_modified=headers["last_modified"],
    )
    sent = receiver.visits[0].headers
    assert (sent["X-Api-Key"], sent["If-None-Match"]) == ("secret", '"zero"')
    assert receiver.visits[0].raw.startswith(b"GET /hook HTTP/1.1\r\n")


async def gzipped(visit: receivers.Visit) -> None:
    """A coding that was not requested."""
    await answer(200, b"x", content_encoding="gzip")(visit)


@pytest.mark.parametrize(
    ("behaviour", "fault"),
    [
        (receivers.hang, DownloadFault.too_late),
        (receivers.drip, DownloadFault.too_late),
        (receivers.drip_body, DownloadFault.too_late),
        (receivers.cut_body, DownloadFault.cut),
        (receivers.cut_chunks, DownloadFault.cut),
        (receivers.ok_without_length, DownloadFault.cut),
        (receivers.drop_after_read, DownloadFault.cut),
        (receivers.reset_after_read, DownloadFault.cut),
        (receivers.huge_body, DownloadFault.too_large),
        (receivers.garbage, DownloadFault.not_reached),
        (receivers.endless_headers, DownloadFault.not_reached),
        (gzipped, DownloadFault.encoded),
        (redirect("/again"), DownloadFault.redirected),
        (answer(302), DownloadFault.redirected),
    ],
)
async def test_a_server_that_gives_no_whole_file_is_named_by_a_fault(
    behaviour: Behaviour, fault: DownloadFault
) -> None:
    async with Receiver(behaviour) as receiver:
        result, _ = await fetch(receiver.url, seconds=0.4)
    assert isinstance(result, FailedDownload)
    assert result.fault is fault, result.detail


async def test_a_body_in_chunks_ends_at_the_limit() -> None:
    async def endless(visit: receivers.Visit) -> None:
        await visit.read_request()
        await visit.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await visit.write(b"10000\r\n" + b"a" * 65536 + b"\r\n")

    async with Receiver(endless) as receiver:
        result, written = await fetch(receiver.url)
    assert isinstance(result, FailedDownload)
    assert result.fault is DownloadFault.too_large
    assert len(written) <= 2**20


@pytest.mark.parametrize("status", [304, 404, 500, 503])
async def test_another_status_than_200_is_returned_without_a_file(status: int) -> None:
    async with Receiver(answer(status, retry_after="7")) as receiver:
        result, written = await fetch(receiver.url)
    assert result == Download(status=status, retry_after_seconds=7)
    assert written == b""


async def test_a_redirect_is_followed_and_the_key_stays_with_its_server() -> None:
    async with Receiver(answer(200, FILE)) as other, Receiver(redirect("/new", 301), redirect(other.url)) as first:
        result, written = await fetch(first.url)
    assert (result.__class__, written) == (Download, FILE)
    assert [visit.headers.get("X-Api-Key") for visit in first.visits] == ["secret", "secret"]
    assert first.visits[1].raw.startswith(b"GET /new ")
    assert "X-Api-Key" not in other.visits[0].headers


REFUSED = ["http://10.0.0.1/", "http://[::ffff:169.254.169.254]/", "ftp://example.com/x", "http://2130706434/"]


@pytest.mark.parametrize("location", REFUSED)
async def test_no_redirect_leads_to_an_address_that_is_not_allowed(location: str) -> None:
    guard = AddressRules(http_allowed=True, networks=(ip_network("127.0.0.1/32"),))
    async with Receiver(redirect(location)) as receiver:
        result, _ = await fetch(receiver.url, guard=guard)
    assert isinstance(result, FailedDownload)
    assert result.fault is DownloadFault.address_refused


async def test_a_name_is_connected_to_by_its_public_addresses_alone() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ("10.0.0.1",) if host == "private.example" else ("10.0.0.1", "127.0.0.1")

    guard = AddressRules(
        http_allowed=True, networks=(ip_network("127.0.0.0/8"),), ports=tuple(range(1024, 65536)), resolver=resolve
    )
    async with Receiver(answer(200, FILE)) as receiver:
        private, _ = await fetch(receiver.url_of("private.example"), guard=guard)
        both, written = await fetch(receiver.url_of("both.example"), guard=guard)
    assert isinstance(private, FailedDownload)
    assert private.fault is DownloadFault.address_refused
    assert (both.__class__, written) == (Download, FILE)


async def test_a_certificate_must_be_valid_for_the_name(tmp_path: Path) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ("127.0.0.1",)

    authority = Authority(tmp_path)
    guard = AddressRules(networks=(ip_network("127.0.0.0/8"),), ports=tuple(range(1024, 65536)), resolver=resolve)
    async with Receiver(answer(200, FILE), tls=authority.server()) as receiver:
        good, written = await fetch(receiver.url_of("receiver.example"), guard=guard, tls=authority.client())
        wrong, _ = await fetch(receiver.url_of("other.example"), guard=guard, tls=authority.client())
        untrusted, _ = await fetch(receiver.url_of("receiver.example"), guard=guard)
    assert (good.__class__, written) == (Download, FILE)
    for result in (wrong, untrusted):
        assert isinstance(result, FailedDownload)
        assert result.fault is DownloadFault.not_reached


async def test_a_server_that_stops_in_the_middle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "STALL_SECONDS", 0.1)

    async def stall(visit: receivers.Visit) -> None:
        await visit.read_request()
        await visit.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n+1312")
        await visit.wait_for_hang_up()

    async with Receiver(stall) as receiver:
        result, _ = await fetch(receiver.url)
    assert isinstance(result, FailedDownload)
    assert result.fault is DownloadFault.too_late
