"""Client of a provider: submits an inquiry, and repeats it with the same Idempotency-Key until there is an answer.

If the service fails in between, the same key gives the same answer, so that no inquiry is lost or accepted twice.
"""

import asyncio
from typing import Final

import aiohttp
import msgspec

from marketplace.runtime import clock
from routing.qualification import Dimension

PATIENCE_SECONDS: Final = 45.0
"""Seconds for which one submission is repeated: long enough for a database to recover from a kill."""
PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries, unless the service asks for more; the last one repeats."""
TRY_SECONDS: Final = 20.0
BUSY_WITH_IT: Final = "conflict"
NOT_NOW: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class SubmissionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a submission. `status` is the HTTP status, 0 without an answer.

    `codes` are those of a refusal, `reasons` those of an outcome. `questions` are the dimensions that a waiting lead
    should be asked about. `seconds` is the time from the first try to the answer.
    """

    status: int
    id: str | None = None
    state: str | None = None
    codes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    questions: tuple[Dimension, ...] = ()
    tries: int = 1
    seconds: float = 0.0


class _AnswerFault(msgspec.Struct, frozen=True):
    code: str


class _Question(msgspec.Struct, frozen=True):
    dimension: Dimension


class _AnswerBody(msgspec.Struct, frozen=True):
    id: str | None = None
    state: str | None = None
    code: str | None = None
    reasons: tuple[str, ...] = ()
    unlock: tuple[_Question, ...] = ()
    errors: tuple[_AnswerFault, ...] = ()


def open_session(connections: int = 0) -> aiohttp.ClientSession:
    """Open an HTTP session with keep-alive. With 0 connections their number is unlimited, so that no request waits."""
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=20)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TRY_SECONDS))


async def submit(
    session: aiohttp.ClientSession, url: str, key: str, body: bytes, idempotency_key: str, wait_seconds: int = 0
) -> SubmissionAnswer:
    """Submit one inquiry; with `wait_seconds`, wait for its outcome. Never raises for a failure of the service."""
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Idempotency-Key": idempotency_key,
    }
    if wait_seconds:
        headers["Prefer"] = f"wait={wait_seconds}"
    answer, _ = await post_until_answered(session, f"{url}/v1/inquiries", body, headers)
    return answer


async def post_until_answered(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]
) -> tuple[SubmissionAnswer, bytes]:
    """Post the same body until it is accepted or refused for good, or PATIENCE_SECONDS have passed.

    Return the last answer, also as bytes. The call must be one that may be repeated.
    """
    return await _change(session, "POST", url, body, headers)


async def change_until_answered(
    session: aiohttp.ClientSession, method: str, url: str, body: bytes, headers: dict[str, str]
) -> int:
    """Send the same change until it is accepted or refused for good, as `post_until_answered`; return the status."""
    answer, _ = await _change(session, method, url, body, headers)
    return answer.status


async def _change(
    session: aiohttp.ClientSession, method: str, url: str, body: bytes, headers: dict[str, str]
) -> tuple[SubmissionAnswer, bytes]:
    began = clock.monotonic()
    tries = 0
    while True:
        status, text, retry_after = await _send(session, method, url, body, headers)
        tries += 1
        seconds = clock.monotonic() - began
        answer = _answer(status, text, tries, seconds)
        if not _is_for_later(answer) or seconds > PATIENCE_SECONDS:
            return answer, text
        await asyncio.sleep(max(retry_after, PAUSES[min(tries, len(PAUSES)) - 1]))


async def find(session: aiohttp.ClientSession, url: str, key: str, inquiry_id: str) -> SubmissionAnswer:
    """Return the current state of an inquiry."""
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with session.get(f"{url}/v1/inquiries/{inquiry_id}", headers=headers) as response:
            return _answer(response.status, await response.read(), 1, 0.0)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return SubmissionAnswer(status=0)


async def _send(
    session: aiohttp.ClientSession, method: str, url: str, body: bytes, headers: dict[str, str]
) -> tuple[int, bytes, int]:
    """Return status, body, and the seconds to wait that the service asks for. Status 0 without an answer."""
    try:
        async with session.request(method, url, data=body, headers=headers) as response:
            after = response.headers.get("Retry-After", "")
            return response.status, await response.read(), int(after) if after.isdecimal() else 0
    except (aiohttp.ClientError, TimeoutError, OSError):
        return 0, b"", 0


def _is_for_later(answer: SubmissionAnswer) -> bool:
    """Return whether to repeat a submission: no answer, a temporary failure, or the same submission in progress."""
    return answer.status == 0 or answer.status in NOT_NOW or answer.codes == (BUSY_WITH_IT,)


def _answer(status: int, text: bytes, tries: int, seconds: float) -> SubmissionAnswer:
    try:
        content = msgspec.json.decode(text, type=_AnswerBody)
    except msgspec.MsgspecError:
        content = _AnswerBody()
    codes = tuple(error.code for error in content.errors)
    if status >= 400 and not codes:
        codes = (content.code or str(status),)
    return SubmissionAnswer(
        status=status,
        id=content.id,
        state=content.state,
        codes=codes,
        reasons=content.reasons,
        questions=tuple(question.dimension for question in content.unlock),
        tries=tries,
        seconds=seconds,
    )
