"""A provider's side of the door: one submission, sent again under the same key until there is an answer.

Sending again is what makes a promise of it: whatever dies on the other side, the same key gives the same answer, and
no inquiry is lost or taken twice.
"""

import asyncio
from typing import Final

import aiohttp
import msgspec

from marketplace import clock

PATIENCE_SECONDS: Final = 45.0
"""How long one submission is sent again: long enough for a database to recover from a kill."""
PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries, unless the service asks for more; the last one repeats."""
TRY_SECONDS: Final = 20.0
BUSY_WITH_IT: Final = "conflict"
NOT_NOW: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a submission came to. `status` is 0 where there was never an answer; `codes` are those of a refusal,
    `reasons` those of an outcome; `seconds` runs from the first try to the answer."""

    status: int
    id: str | None = None
    state: str | None = None
    codes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    tries: int = 1
    seconds: float = 0.0


class _Fault(msgspec.Struct, frozen=True):
    code: str


class _Body(msgspec.Struct, frozen=True):
    id: str | None = None
    state: str | None = None
    code: str | None = None
    reasons: tuple[str, ...] = ()
    errors: tuple[_Fault, ...] = ()


def open_session(connections: int = 0) -> aiohttp.ClientSession:
    """Connections are kept alive; their number is unlimited unless said, so that arrivals never wait for each other."""
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=20)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TRY_SECONDS))


async def submit(
    session: aiohttp.ClientSession, url: str, key: str, body: bytes, idempotency_key: str, wait_seconds: int = 0
) -> Answer:
    """Post one inquiry; with `wait_seconds`, ask for its outcome. Never raises for what the other side does."""
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Idempotency-Key": idempotency_key,
    }
    if wait_seconds:
        headers["Prefer"] = f"wait={wait_seconds}"
    began = clock.monotonic()
    tries = 0
    while True:
        status, text, asked = await _post(session, f"{url}/v1/inquiries", body, headers)
        tries += 1
        seconds = clock.monotonic() - began
        answer = _answer(status, text, tries, seconds)
        if not _is_for_later(answer) or seconds > PATIENCE_SECONDS:
            return answer
        await asyncio.sleep(max(asked, PAUSES[min(tries, len(PAUSES)) - 1]))


async def find(session: aiohttp.ClientSession, url: str, key: str, inquiry_id: str) -> Answer:
    """What has become of an inquiry by now."""
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with session.get(f"{url}/v1/inquiries/{inquiry_id}", headers=headers) as response:
            return _answer(response.status, await response.read(), 1, 0.0)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return Answer(status=0)


async def _post(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]
) -> tuple[int, bytes, int]:
    """Status, text, and for how many seconds the service asks to be left alone."""
    try:
        async with session.post(url, data=body, headers=headers) as response:
            after = response.headers.get("Retry-After", "")
            return response.status, await response.read(), int(after) if after.isdecimal() else 0
    except (aiohttp.ClientError, TimeoutError, OSError):
        return 0, b"", 0


def _is_for_later(answer: Answer) -> bool:
    """No answer, an engine away, or the same submission being taken in at this moment."""
    return answer.status == 0 or answer.status in NOT_NOW or answer.codes == (BUSY_WITH_IT,)


def _answer(status: int, text: bytes, tries: int, seconds: float) -> Answer:
    try:
        found = msgspec.json.decode(text, type=_Body)
    except msgspec.MsgspecError:
        found = _Body()
    codes = tuple(error.code for error in found.errors)
    if status >= 400 and not codes:
        codes = (found.code or str(status),)
    return Answer(
        status=status, id=found.id, state=found.state, codes=codes, reasons=found.reasons, tries=tries, seconds=seconds
    )
