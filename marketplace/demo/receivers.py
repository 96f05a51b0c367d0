"""Servers of the businesses: one HTTP receiver per business, all in one process apart from the marketplace.

    python -m marketplace.demo.receivers DIRECTORY

`DIRECTORY/receivers.json` has the port and behaviour of each receiver; `secrets.json`, which may be written later, the
signing secrets. Every request is verified with the public standardwebhooks package and written to `visits.jsonl` before
it is answered, so that it is recorded even if the process is killed at the next moment.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from marketplace.demo.world import Behaviour
from marketplace.runtime import clock
from marketplace.runtime.supervisor import orphaned, stop_at_signals

HOST: Final = "127.0.0.1"
SLOW_SECONDS: Final = 0.3
HANGING_SECONDS: Final = 60.0
"""Seconds until a hanging receiver answers, three times the longest that an attempt lasts."""
FAILURES: Final = 2
"""Number of leads that a recovering receiver first answers with 500."""
STOP_AFTER_SECONDS: Final = 0.2
"""Seconds between the answer to the challenge and the end of a dying receiver, so that the answer is sent."""
CHALLENGE: Final = "endpoint.challenge"
LEAD: Final = "lead.assigned"
"Type of the message that brings a lead. All others with the id of a lead are notices about it."


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """Receiver of one business: port and behaviour."""

    business: str
    port: int
    behaviour: Behaviour = Behaviour.takes

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/leads"


class ReceivedRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request to a receiver: business, webhook id, validity of the signature, status of the answer, lead and time.

    `kind` is the type of the message. `at` is the Unix time at which the request had been read, in seconds.
    """

    business: str
    webhook_id: str
    signed: bool
    status: int
    lead_id: str | None = None
    at: float = 0.0
    kind: str = LEAD


class ReceiverReport(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over the requests to all receivers.

    `repeated_ids` counts requests with a webhook id of an earlier request, which retries must have. `seen_by_two`
    counts leads seen by several businesses, `not_theirs` leads seen by a business that they were not exposed to: both
    must be 0. `notices` counts requests that told a business of a change, a stop or an erasure.
    """

    requests: int
    leads: int
    repeated_ids: int
    bad_signatures: int
    seen_by_two: int
    not_theirs: int
    notices: int


def look(visits: Iterable[ReceivedRequest], exposures: set[tuple[str, str]]) -> ReceiverReport:
    """Count requests, and compare them with the exposures of the marketplace, which are pairs of lead and business."""
    lead_visits = [visit for visit in visits if visit.lead_id is not None]
    pairs = {(visit.lead_id or "", visit.business) for visit in lead_visits}
    owners = Counter(lead for lead, _business in pairs)
    return ReceiverReport(
        requests=len(lead_visits),
        leads=len(owners),
        repeated_ids=len(lead_visits) - len({(visit.business, visit.webhook_id) for visit in lead_visits}),
        bad_signatures=sum(not visit.signed for visit in lead_visits),
        seen_by_two=sum(count > 1 for count in owners.values()),
        not_theirs=len(pairs - exposures),
        notices=sum(visit.kind != LEAD for visit in lead_visits),
    )


def read_visits(directory: Path) -> list[ReceivedRequest]:
    """Read all recorded requests. A kill may have cut off the last line, whose request was then never answered."""
    try:
        lines = (directory / "visits.jsonl").read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    decoder = msgspec.json.Decoder(ReceivedRequest)
    return [decoder.decode(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]


class _BusinessReceiver:
    """HTTP server of one business."""

    def __init__(self, receiver: Receiver, directory: Path, notes: int) -> None:
        self._receiver = receiver
        self._directory = directory
        self._notes = notes
        self._secret: str | None = None
        self._failures_left = FAILURES

    async def open(self) -> None:
        app = web.Application()
        app.router.add_post("/leads", self.answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self._receiver.port).start()

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        at = clock.now().timestamp()
        signed = self._is_signed(body, request)
        message = msgspec.json.decode(body, type=dict[str, object])
        data = message.get("data")
        content = data if isinstance(data, dict) else {}
        if message.get("type") == CHALLENGE:
            return self._answer_challenge(content, signed)
        lead_id = str(content.get("lead_id"))
        status = self._decide(lead_id) if signed else 401
        self._note(request.headers.get("webhook-id", ""), signed, status, lead_id, at, str(message.get("type")))
        if self._receiver.behaviour is Behaviour.slow:
            await asyncio.sleep(SLOW_SECONDS)
        if self._receiver.behaviour is Behaviour.hangs:
            await asyncio.sleep(HANGING_SECONDS)
        answers = {200: {"status": "accepted"}, 409: {"status": "refused", "reason": "own_customer"}}
        return web.json_response(answers.get(status, {}), status=status)

    def _answer_challenge(self, content: dict[str, object], signed: bool) -> web.Response:
        if not signed:
            return web.json_response({}, status=401)
        if self._receiver.behaviour is Behaviour.dies:
            self._stopping = asyncio.create_task(self._stop())
        return web.json_response({"challenge": content.get("challenge")})

    async def _stop(self) -> None:
        await asyncio.sleep(STOP_AFTER_SECONDS)
        await self._runner.cleanup()

    def _decide(self, lead_id: str) -> int:
        match self._receiver.behaviour:
            case Behaviour.recovers if self._failures_left:
                self._failures_left -= 1
                return 500
            case Behaviour.picky if sha256(lead_id.encode()).digest()[0] % 8 == 0:
                return 409
            case Behaviour.busy | Behaviour.hangs:
                return 503
            case _:
                return 200

    def _is_signed(self, body: bytes, request: web.Request) -> bool:
        if self._secret is None:
            secrets = msgspec.json.decode((self._directory / "secrets.json").read_bytes(), type=dict[str, str])
            self._secret = secrets[self._receiver.business]
        try:
            Webhook(self._secret).verify(body.decode(), dict(request.headers))
        except WebhookVerificationError:
            return False
        return True

    def _note(self, webhook_id: str, signed: bool, status: int, lead_id: str, at: float, kind: str) -> None:
        visit = ReceivedRequest(
            business=self._receiver.business,
            webhook_id=webhook_id,
            signed=signed,
            status=status,
            lead_id=lead_id,
            at=at,
            kind=kind,
        )
        os.write(self._notes, b"\n" + msgspec.json.encode(visit) + b"\n")


async def receive(directory: Path) -> None:
    """Run all receivers of `receivers.json` until SIGTERM or SIGINT, or until the parent process has ended."""
    receivers = msgspec.json.decode((directory / "receivers.json").read_bytes(), type=tuple[Receiver, ...])
    notes = os.open(directory / "visits.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    stopping = asyncio.Event()
    stop_at_signals(stopping)
    for receiver in receivers:
        await _BusinessReceiver(receiver, directory, notes).open()
    parent_gone = asyncio.create_task(orphaned())
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait((parent_gone, stopped), return_when=asyncio.FIRST_COMPLETED)
    os.close(notes)


if __name__ == "__main__":
    asyncio.run(receive(Path(sys.argv[1])))
