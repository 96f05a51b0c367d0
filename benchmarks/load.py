"""Open-loop load: inquiries whose times and bodies are fixed before the first is sent, and what became of each.

A request is sent when it is due, whether or not earlier ones were answered, and its latency counts from the time at
which it was due. A delay of the sender itself is part of that latency, and is reported apart. The bodies are encoded
before the start, so that the sender does little while it sends.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import aiohttp
import msgspec

from benchmarks.figures import quantile, quantiles_of
from marketplace.demo.people import DraftKind, InquiryDraft
from marketplace.runtime import clock
from marketplace.runtime.clock import seeded

LEAD_TIME_SECONDS: Final = 0.3
"Time between the drawing of the inquiries and the first request, besides their encoding."
ENCODING_SECONDS: Final = 0.0001
"Time to encode one inquiry, generously."
ACCEPTED: Final = 202


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A time of load: requests per second on average, and seconds."""

    rate: float
    seconds: float


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One request: seconds after the start at which it is due, its provider, its key and its body."""

    due: float
    provider: int
    key: str
    body: bytes


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to one request. Times are Unix seconds; status 0 is no answer, and `id` is set if it was accepted."""

    due: float
    sent: float
    answered: float
    status: int
    id: str | None = None


class LeadTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Times of one delivered lead as its system stored them: Unix seconds, and milliseconds of the parts.

    `queue_ms` is the time between notification and start of the job, `receiver_ms` the receiver's; None if unknown.
    """

    received_at: float
    settled_at: float
    queue_ms: float | None = None
    receiver_ms: float | None = None


class _Accepted(msgspec.Struct, frozen=True):
    id: str


def ready_only(drafts: Iterable[InquiryDraft]) -> Iterator[InquiryDraft]:
    """Yield the flawless inquiries alone: a duplicate or an invalid one is cheaper than a lead that is delivered."""
    return (draft for draft in drafts if draft.kind is DraftKind.ready)


def plan_times(phases: Sequence[Phase], seed: str) -> list[list[float]]:
    """Return the seconds from the start at which requests are due, by phase: random times that follow from the seed."""
    gaps = seeded(f"arrivals {seed}")
    times, began = [], 0.0
    for phase in phases:
        ended, due, members = began + phase.seconds, began, []
        while (due := due + gaps.expovariate(phase.rate)) < ended:
            members.append(due)
        times.append(members)
        began = ended
    return times


async def send_open_loop(
    session: aiohttp.ClientSession,
    url: str,
    keys: Sequence[str],
    drafts: Iterator[InquiryDraft],
    phases: Sequence[Phase],
    seed: str,
) -> list[list[Answer]]:
    """Send each request once, when it is due, and return the answers of each phase when the last has come.

    The phases follow one another without a pause. Each body names the time at which it is due as its submission's.
    """
    times = plan_times(phases, seed)
    drawn = [[(due, next(drafts)) for due in members] for members in times]
    lead_time = LEAD_TIME_SECONDS + ENCODING_SECONDS * sum(map(len, drawn))
    starts_at, began = clock.now() + timedelta(seconds=lead_time), clock.monotonic() + lead_time
    arrivals = [[encode_arrival(draft, due, starts_at, seed) for due, draft in members] for members in drawn]
    epoch = starts_at.timestamp() - began
    sending: list[list[asyncio.Task[Answer]]] = []
    for members in arrivals:
        tasks = []
        for arrival in members:
            if (pause := began + arrival.due - clock.monotonic()) > 0:
                await asyncio.sleep(pause)
            tasks.append(asyncio.create_task(_send(session, url, keys, arrival, began + arrival.due, epoch)))
        sending.append(tasks)
    return [list(await asyncio.gather(*tasks)) for tasks in sending]


def encode_arrival(draft: InquiryDraft, due: float, starts_at: datetime, seed: str) -> Arrival:
    """Return the request for an inquiry that is due so many seconds after the start."""
    body = draft.body(starts_at + timedelta(seconds=due))
    return Arrival(due=due, provider=draft.provider, key=f"{seed}-{draft.number}", body=body)


async def _send(
    session: aiohttp.ClientSession, url: str, keys: Sequence[str], arrival: Arrival, due: float, epoch: float
) -> Answer:
    """Send one request. `epoch` turns monotonic into Unix seconds."""
    sent = clock.monotonic()
    headers = {
        "Authorization": f"Bearer {keys[arrival.provider]}",
        "Content-Type": "application/json",
        "Idempotency-Key": arrival.key,
    }
    status, text = 0, b""
    try:
        async with session.post(f"{url}/v1/inquiries", data=arrival.body, headers=headers) as response:
            status, text = response.status, await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError):
        status = 0
    answered = clock.monotonic()
    id = msgspec.json.decode(text, type=_Accepted).id if status == ACCEPTED else None
    return Answer(due=epoch + due, sent=epoch + sent, answered=epoch + answered, status=status, id=id)


def summarise(
    answers: Sequence[Answer],
    times: Mapping[str, LeadTimes],
    receipts: Mapping[str, float],
    cpu_seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Return the figures of one step, in milliseconds, with the keys that docs/BENCHMARKS.md explains.

    `times` and `receipts` (Unix seconds at the receiver) are by the id of the lead; a lead without them was not
    delivered.
    """
    delivered = [(answer, times[answer.id]) for answer in answers if answer.id is not None and answer.id in times]
    leads = len(delivered)
    total_cpu = sum(cpu_seconds.values())
    parts = [row for _, row in delivered if row.queue_ms is not None and row.receiver_ms is not None]
    return {
        "sent": len(answers),
        "accepted": sum(answer.id is not None for answer in answers),
        "delivered": leads,
        "not_accepted": sum(answer.id is None for answer in answers),
        "due_to_receipt_ms": quantiles_of(
            1000 * (receipts[answer.id] - answer.due)
            for answer in answers
            if answer.id is not None and answer.id in receipts
        ),
        "due_to_answer_ms": quantiles_of(1000 * (answer.answered - answer.due) for answer in answers),
        "accepted_to_acknowledged_ms": quantiles_of(1000 * (row.settled_at - row.received_at) for _, row in delivered),
        "queue_ms": quantiles_of(row.queue_ms or 0.0 for row in parts),
        "receiver_ms": quantiles_of(row.receiver_ms or 0.0 for row in parts),
        "own_ms": quantiles_of(own_ms(row) for row in parts),
        "sender_late_ms": lateness_of(answers),
        "cpu_ms_per_lead": {
            **{name: round(1000 * used / leads, 3) if leads else None for name, used in cpu_seconds.items()},
            "total": round(1000 * total_cpu / leads, 3) if leads else None,
        },
    }


def lateness_of(answers: Iterable[Answer]) -> dict[str, float]:
    """Return the milliseconds by which the sender itself was late."""
    lateness = sorted(1000 * (answer.sent - answer.due) for answer in answers) or [0.0]
    return {
        "p50": round(quantile(lateness, 0.5), 2),
        "p99": round(quantile(lateness, 0.99), 2),
        "max": round(lateness[-1], 2),
    }


def own_ms(times: LeadTimes) -> float:
    """Return the milliseconds from accepted to acknowledged without the queue's and the receiver's."""
    total = 1000 * (times.settled_at - times.received_at)
    return total - (times.queue_ms or 0.0) - (times.receiver_ms or 0.0)


def statuses_of(answers: Iterable[Answer]) -> dict[str, int]:
    """Count the answers by HTTP status; "0" is no answer."""
    return {str(status): number for status, number in sorted(Counter(answer.status for answer in answers).items())}
