"""Invented people who come back after their inquiry: they answer, look again, ask again elsewhere, correct what they
said, or say stop.

What a person does follows from the inquiry and the seed. It happens some seconds later, so that a short run shows it.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import aiohttp
import msgspec

from marketplace.demo.people import LEAST_BUDGET_MINOR, DraftKind, InquiryDraft
from marketplace.demo.provider import change_until_answered, find, submit
from marketplace.demo.verticals import CURRENCY, WANTED_ANSWERS
from marketplace.runtime import clock
from marketplace.runtime.clock import seeded
from routing.qualification import Dimension

FIRST_SECONDS: Final = 0.5
LAST_SECONDS: Final = 4.0
SOON_DAYS: Final = 14
LARGER: Final = 3
"Factor by which a person who comes back raises a budget above the least that the demo's verticals take."


class ReturnKind(StrEnum):
    """Act of a person who comes back."""

    sooner = "sooner"
    """Replies to an e-mail that it is wanted soon after all."""
    larger = "larger"
    """Sends the form again with a larger budget."""
    look = "look"
    """Looks at the prices twice more; nothing follows from it."""
    answer = "answer"
    """Answers the question that the marketplace names while the lead waits."""
    correction = "correction"
    """Corrects the budget."""
    again = "again"
    """Asks again on the form of another provider, and wants it soon."""
    stop = "stop"
    """Asks not to be contacted any more, before or after a business was shown the lead."""


SHARES: Final[Mapping[DraftKind, tuple[tuple[ReturnKind, float], ...]]] = {
    DraftKind.not_ready: (
        (ReturnKind.sooner, 0.4),
        (ReturnKind.look, 0.2),
        (ReturnKind.stop, 0.1),
        (ReturnKind.again, 0.2),
    ),
    DraftKind.unanswered: ((ReturnKind.answer, 0.7),),
    DraftKind.below_budget: ((ReturnKind.larger, 0.25), (ReturnKind.look, 0.25)),
    DraftKind.ready: (
        (ReturnKind.look, 0.03),
        (ReturnKind.correction, 0.02),
        (ReturnKind.stop, 0.02),
        (ReturnKind.again, 0.01),
    ),
}
"Shares of the people of one kind of inquiry who come back, by what they do."


class Return(msgspec.Struct, frozen=True, kw_only=True):
    """Act of one person, and the seconds between the acceptance of the inquiry and it."""

    kind: ReturnKind
    after_seconds: float


def plan_return(draft: InquiryDraft, seed: int) -> Return | None:
    """Return what the person of an inquiry does later, None if nothing."""
    random = seeded(f"return {seed} {draft.number}")
    lot, after_seconds = random.random(), random.uniform(FIRST_SECONDS, LAST_SECONDS)
    for kind, share in SHARES.get(draft.kind, ()):
        if lot < share:
            return Return(kind=kind, after_seconds=after_seconds)
        lot -= share
    return None


def touches_of(kind: ReturnKind, now: datetime) -> list[dict[str, Any]]:
    """Return the touches of a person who comes back, as a provider sends them."""
    if kind is ReturnKind.sooner:
        supplies: dict[str, Any] = {"timing": {"within_days": SOON_DAYS}}
        return [{"kind": "email_reply", "at": now, "detail": "wanted soon after all", "supplies": supplies}]
    if kind is ReturnKind.larger:
        supplies = {"budget": _larger_budget()}
        return [{"kind": "form", "at": now, "detail": "/ask", "supplies": supplies}]
    return [{"kind": "page_view", "at": now, "detail": "/prices", "touch_id": f"look-{place}"} for place in (1, 2)]


def answers_to(questions: Collection[Dimension], draft: InquiryDraft, now: datetime) -> list[dict[str, Any]]:
    """Return the touch of a call in which the provider asks what the person left open; none if that is not asked."""
    if Dimension.need not in questions:
        return []
    fields = {name: WANTED_ANSWERS[name] for name in draft.left_open}
    call = {"kind": "call", "at": now, "detail": "asked what was left open", "direction": "outbound", "seconds": 90}
    return [{**call, "supplies": {"need": {"fields": fields}}}]


def ask_again(draft: InquiryDraft, providers: int, now: datetime) -> tuple[int, bytes]:
    """Return the provider and the body of a second inquiry of a person: with the same answers, but wanted soon."""
    bant = draft.bant | {"timing": {"within_days": SOON_DAYS}}
    body = msgspec.structs.replace(draft, bant=bant, later_days=None).body(now)
    reference = {"provider_reference": f"again-{draft.number}"}
    return (draft.provider + 1) % providers, msgspec.json.encode(msgspec.json.decode(body) | reference)


def _larger_budget() -> dict[str, Any]:
    return {"minor": LARGER * max(LEAST_BUDGET_MINOR.values()), "currency": CURRENCY}


class ReturningPeople:
    """People who come back in one run, each with the key of the provider that sent the inquiry."""

    def __init__(self, session: aiohttp.ClientSession, url: str, keys: tuple[str, ...], seed: int) -> None:
        self.answers: Counter[tuple[ReturnKind, int]] = Counter()
        "Number of answers by kind and HTTP status."
        self._session = session
        self._url = url
        self._keys = keys
        self._seed = seed
        self._running: set[asyncio.Task[None]] = set()

    @property
    def second_inquiries(self) -> int:
        """Number of inquiries by which people asked again and that were accepted."""
        return sum(
            count for (kind, status), count in self.answers.items() if kind is ReturnKind.again and status in (200, 202)
        )

    def follow(self, draft: InquiryDraft, inquiry: str) -> None:
        """Let the person of an accepted inquiry do later what follows from the seed."""
        plan = plan_return(draft, self._seed)
        if plan is None:
            return
        task = asyncio.create_task(self._come_back(plan, draft, inquiry))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def drain(self) -> None:
        """Wait until everybody has come back."""
        while self._running:
            await asyncio.wait(tuple(self._running))

    async def _come_back(self, plan: Return, draft: InquiryDraft, inquiry: str) -> None:
        await asyncio.sleep(plan.after_seconds)
        if plan.kind is ReturnKind.again:
            provider, sent = ask_again(draft, len(self._keys), clock.now())
            reference = f"again-{draft.number}"
            answer = await submit(self._session, self._url, self._keys[provider], sent, reference)
            self.answers[plan.kind, answer.status] += 1
            return
        url = f"{self._url}/v1/inquiries/{inquiry}"
        headers = {"Authorization": f"Bearer {self._keys[draft.provider]}", "Content-Type": "application/json"}
        body: dict[str, Any]
        method = "POST"
        if plan.kind is ReturnKind.stop:
            url, body = f"{self._url}/v1/revocations", {"lead_id": inquiry, "reason": "The person replied STOP."}
        elif plan.kind is ReturnKind.correction:
            body = {"bant": {"budget": _larger_budget()}}
            method, headers["Idempotency-Key"] = "PATCH", f"correct-{inquiry}"
        elif plan.kind is ReturnKind.answer:
            waiting = await find(self._session, self._url, self._keys[draft.provider], inquiry)
            url, body = f"{url}/touches", {"touches": answers_to(waiting.questions, draft, clock.now())}
        else:
            body = {"touches": touches_of(plan.kind, clock.now())}
            url = f"{url}/touches"
        status = await change_until_answered(self._session, method, url, msgspec.json.encode(body), headers)
        self.answers[plan.kind, status] += 1
