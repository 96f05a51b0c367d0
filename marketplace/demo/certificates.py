"""Stand-in for the service that makes TrustedForm certificates, as a process of its own.

    python -m marketplace.demo.certificates PORT

It answers claims in the form of version 4 of the published API. The first digit of a certificate decides: one in
sixteen was made for another telephone number, and one in sixteen is not known.
"""

import asyncio
import sys
from base64 import b64encode
from datetime import timedelta
from hashlib import sha1
from typing import Any, Final

import msgspec
from aiohttp import web

from marketplace.demo.receivers import HOST
from marketplace.runtime import clock
from marketplace.runtime.supervisor import orphaned, stop_at_signals

ACCOUNT_KEY: Final = "key-of-the-demo"
KEPT_FOR: Final = timedelta(days=5 * 365)
OTHER_PHONE: Final = "0"
UNKNOWN: Final = "1"


class ClaimedPhone(msgspec.Struct, frozen=True, kw_only=True):
    """Contact data that a claim asks to compare."""

    phone: str | None = None
    email: str | None = None


class CertificateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a claim, as far as the stand-in reads it."""

    match_lead: ClaimedPhone = ClaimedPhone()


def token_of(seed: int, number: int) -> str:
    """Return the certificate of the inquiry with this number in a stream."""
    return f"https://cert.trustedform.com/{sha1(f'{seed} {number}'.encode()).hexdigest()}"


def answer_claim(certificate: str, claim: CertificateRequest, page_url: str) -> tuple[int, dict[str, Any]]:
    """Return status and body of the answer to a claim."""
    if certificate[:1] == UNKNOWN:
        return 404, {"outcome": "error", "reason": "Certificate not found"}
    person = claim.match_lead
    matches = {
        "phone_match": None if person.phone is None else certificate[:1] != OTHER_PHONE,
        "email_match": None if person.email is None else True,
    }
    return 200, {
        "outcome": "success",
        "match_lead": {"result": matches},
        "retain": {"result": {"expires_at": clock.now() + KEPT_FOR}},
        "insights": {"properties": {"page_url": page_url}},
    }


async def _answer(request: web.Request) -> web.Response:
    """Answer a claim with the operator's key; 401 without it."""
    expected = b64encode(f"X:{ACCOUNT_KEY}".encode()).decode()
    if request.headers.get("authorization") != f"Basic {expected}":
        return web.json_response({"outcome": "error"}, status=401)
    claim = msgspec.json.decode(await request.read(), type=CertificateRequest)
    status, body = answer_claim(request.match_info["certificate"], claim, "https://www.example.com/")
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


async def serve(port: int) -> None:
    """Answer claims until SIGTERM or SIGINT, or until the parent process has ended."""
    stopping = asyncio.Event()
    stop_at_signals(stopping)
    app = web.Application()
    app.router.add_post("/{certificate}", _answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    parent_gone = asyncio.create_task(orphaned())
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait((parent_gone, stopped), return_when=asyncio.FIRST_COMPLETED)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
