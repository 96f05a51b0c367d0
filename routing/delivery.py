"""What one delivery attempt means, when the next one is due, and when an endpoint is left alone.

The transport reports what it saw as an `Observation`; everything concluded from it is concluded here, from values
alone, so that a disputed delivery can be judged again years later and gives the same answer. The theory in one
sentence: a lead may move to another business only while it is certain that no byte of it has left, and money may move
only on an answer that we know how to read. Nothing here reads a clock, sleeps or talks to the world.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import assert_never

import msgspec

# --- what was seen ----------------------------------------------------------------------------------------------------


class NotSentReason(StrEnum):
    """Why not one byte of the lead has left, earliest obstacle first."""

    url_refused = "url_refused"
    """The endpoint's URL breaks a rule for webhook URLs."""
    address_refused = "address_refused"
    """Every address behind the URL is one that webhooks must not reach."""
    breaker_open = "breaker_open"
    """The endpoint failed too often lately and is being left alone."""
    dns_failed = "dns_failed"
    """The host name could not be resolved in time."""
    connect_refused = "connect_refused"
    """The host refused the connection."""
    connect_timeout = "connect_timeout"
    """The host did not answer the connection in time."""
    connect_failed = "connect_failed"
    """The network could not reach the host."""
    tls_certificate_expired = "tls_certificate_expired"
    """The certificate is past its end or before its beginning."""
    tls_wrong_host = "tls_wrong_host"
    """The certificate was issued for another host name."""
    tls_certificate_untrusted = "tls_certificate_untrusted"
    """The certificate is self-signed, or its issuer is not one that we trust."""
    tls_failed = "tls_failed"
    """The TLS handshake failed, for instance because the host offers nothing newer than TLS 1.1."""
    tls_timeout = "tls_timeout"
    """The TLS handshake was not finished in time."""
    abandoned = "abandoned"
    """The exposure was not granted, because the assignment had changed hands meanwhile."""
    hold_over = "hold_over"
    """The hold window ended before an attempt could be made."""
    withdrawn = "withdrawn"
    """The person asked not to be contacted, or was erased: nothing is sent any more."""
    too_late = "too_late"
    """The exposure is committed, but the attempt's time was over before the first byte."""


class NoAnswerReason(StrEnum):
    """Why there is no readable answer although bytes may have left."""

    malformed = "malformed"
    """What came back is not HTTP, or its headers have no end."""
    reset = "reset"
    """The connection broke before the answer's headers were complete."""
    closed = "closed"
    """The host closed the connection before the answer's headers were complete."""
    timeout = "timeout"
    """The answer's headers were not complete when the attempt's time was over."""


class NotSent(msgspec.Struct, frozen=True, kw_only=True, tag="not_sent"):
    """Nothing has left us. `detail` is for the endpoint's owner and holds no contact data."""

    reason: NotSentReason
    detail: str = ""


class NoAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="no_answer"):
    """Bytes may have left and no complete status line with headers came back."""

    reason: NoAnswerReason


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag="answered"):
    """Complete headers came back. `body` is what was read of it (at most 64 KiB), as it was sent.

    `truncated` says that the message did not end where its framing says, so that more may have been meant.
    `content_type` is the media type without parameters, `content_coding` the Content-Encoding, both in lower case and
    empty where the answer names none.
    """

    status: int
    retry_after_seconds: int | None = None
    body: bytes = b""
    truncated: bool = False
    content_type: str = ""
    content_coding: str = ""


Observation = NotSent | NoAnswer | Answered
"""What the transport saw of one attempt: exactly one of the three."""


# --- what it means ----------------------------------------------------------------------------------------------------


class Outcome(StrEnum):
    """What an attempt means for the assignment."""

    not_sent = "not_sent"
    """Nothing has left us: try again within the hold window, then release to the next business."""
    unknown = "unknown"
    """The business may have seen the lead: try the same business again with the same webhook id."""
    accepted = "accepted"
    """A complete 2xx that is understood: evidence of receipt, the price is captured."""
    busy = "busy"
    """408, 425, 429 or 5xx: try the same business again, no sooner than it asks for."""
    refused = "refused"
    """Any other 4xx, or a 2xx whose body says so: the end for this lead."""
    gone = "gone"
    """410: refused, and the endpoint is switched off until its owner switches it on again."""
    redirect = "redirect"
    """3xx: never followed; as busy, and the owner is told to update the URL."""


class AnswerReason(StrEnum):
    """What an answer that is no refusal says."""

    taken = "taken"
    """The business has the lead."""
    rate_limited = "rate_limited"
    """The business asks for fewer requests (429)."""
    try_later = "try_later"
    """The business asks for the same request later (408, 425)."""
    server_error = "server_error"
    """The business's server failed (5xx)."""
    redirected = "redirected"
    """The business's server points elsewhere (3xx)."""
    unmapped = "unmapped"
    """A status outside 200 to 599, which no rule reads: never a sale."""
    cut_off = "cut_off"
    """A 2xx that ended before it was complete, so that it may have been a refusal."""
    compressed = "compressed"
    """A 2xx in a content coding, although the request asked for none (`Accept-Encoding: identity`)."""
    not_understood = "not_understood"
    """A complete 2xx that says neither yes nor no in a way that we read, for instance a page of HTML."""


class RefusalReason(StrEnum):
    """Why a business says no, in the words it may put into `{"status": "refused", "reason": …}`."""

    own_customer = "own_customer"
    """The person is already its customer."""
    outside_area = "outside_area"
    """The person lives outside the subscription's declared area."""
    invalid_number = "invalid_number"
    """The phone number is not valid."""
    duplicate = "duplicate"
    """The business has received this person before."""
    other = "other"
    """Anything else, or no reason given."""


Reason = NotSentReason | NoAnswerReason | AnswerReason | RefusalReason


class Classified(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt's meaning. `may_release` alone says whether the lead may still go to another business."""

    outcome: Outcome
    reason: Reason
    may_release: bool = False
    retry_after_seconds: int | None = None


def classify(observation: Observation, exposed: bool) -> Classified:
    """Say what an attempt means; `exposed` is whether the lead's exposure is on record, from whichever attempt.

    Fails closed twice. A lead may be released only if nothing left in this attempt *and* no exposure exists, so a
    refused connection on a retry never frees a lead that was sent before. And what no rule reads is never a sale.
    """
    match observation:
        case NotSent(reason=reason):
            never = reason in (NotSentReason.abandoned, NotSentReason.too_late)
            return Classified(outcome=Outcome.not_sent, reason=reason, may_release=not (exposed or never))
        case NoAnswer(reason=lost):
            return Classified(outcome=Outcome.unknown, reason=lost)
        case Answered():
            return _read_answer(observation)
        case _:
            assert_never(observation)


_BUSY = {408: AnswerReason.try_later, 425: AnswerReason.try_later, 429: AnswerReason.rate_limited}


def _read_answer(answer: Answered) -> Classified:
    status = answer.status
    if status == 410:
        return Classified(outcome=Outcome.gone, reason=_stated_refusal(answer.body) or RefusalReason.other)
    busy = AnswerReason.server_error if 500 <= status <= 599 else _BUSY.get(status)
    if busy is not None:
        return Classified(outcome=Outcome.busy, reason=busy, retry_after_seconds=answer.retry_after_seconds)
    if 200 <= status <= 299:
        return _read_success(answer)
    if 300 <= status <= 399:
        return Classified(outcome=Outcome.redirect, reason=AnswerReason.redirected)
    if 400 <= status <= 499:
        return Classified(outcome=Outcome.refused, reason=_stated_refusal(answer.body) or RefusalReason.other)
    return Classified(outcome=Outcome.unknown, reason=AnswerReason.unmapped)


ACKNOWLEDGEMENTS = frozenset({
    "1", "200 ok", "accepted", "acknowledged", "created", "done", "ok", "okay", "received", "success", "thank you",
    "thanks", "true", "yes",
})  # fmt: skip
"""Bodies of plain text that say yes, whole, in any case, without quotes and a final mark. Servers without an agreement
send them: `OK` (Slack, Flask), `Accepted` (Make). A text that is not one of them may say anything."""

DENIALS = frozenset({"declined", "denied", "error", "fail", "failed", "failure", "invalid", "rejected"})
"""Words in the `status` of a JSON answer that say no without being the agreed `refused`."""


def _read_success(answer: Answered) -> Classified:
    """Read a 2xx: accepted or refused where the message is complete and understood, else unknown."""
    if answer.truncated:
        return Classified(outcome=Outcome.unknown, reason=AnswerReason.cut_off)
    if answer.content_coding not in ("", "identity"):
        return Classified(outcome=Outcome.unknown, reason=AnswerReason.compressed)
    refusal = _stated_refusal(answer.body)
    if refusal is not None:
        return Classified(outcome=Outcome.refused, reason=refusal)
    if not _says_yes(answer):
        return Classified(outcome=Outcome.unknown, reason=AnswerReason.not_understood)
    return Classified(outcome=Outcome.accepted, reason=AnswerReason.taken)


def _says_yes(answer: Answered) -> bool:
    """Whether a complete body, which is no refusal, acknowledges: nothing at all, JSON, or a known word."""
    text = answer.body.decode("utf-8-sig", "replace").strip()
    is_json = answer.content_type.endswith(("/json", "+json"))
    if not text or (not is_json and text.strip("\"'.! \t\r\n").casefold() in ACKNOWLEDGEMENTS):
        return True
    reply = _decode_json(answer.body)
    if isinstance(reply, dict):
        denied = any(reply.get(key) is False for key in ("accepted", "ok", "success"))
        return not denied and _word(reply.get("status")) not in DENIALS
    return reply is None or reply is True or _word(reply) in ACKNOWLEDGEMENTS


def _decode_json(body: bytes) -> object:
    """The value of a JSON body; False, which never says yes, where it is none."""
    try:
        return msgspec.json.decode(body.decode("utf-8-sig", "replace"))
    except (msgspec.DecodeError, RecursionError):
        return False


def _stated_refusal(body: bytes) -> RefusalReason | None:
    """The reason in a body that says `{"status": "refused"}`; None if it does not, or cannot be read."""
    reply = _decode_json(body)
    if not isinstance(reply, dict) or _word(reply.get("status")) != "refused":
        return None
    word = _word(reply.get("reason"))
    return next((reason for reason in RefusalReason if reason == word), RefusalReason.other)


def _word(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


# --- when to try again ------------------------------------------------------------------------------------------------

HOLD_ATTEMPTS = (0, 1, 4)
"""Seconds to wait before the first, second and third attempt while nothing has left us. A lead decays in minutes, so
after three failures in about five seconds the next business gets its chance."""

HOLD_WINDOW = timedelta(seconds=120)
"""The longest that a lead is held without an exposure, slow failures included."""

RETRY_DELAYS = (0, 1, 4, 15, 60, 300, 900, 3600)
"""Seconds to wait before each attempt once the lead is exposed: quick while the person is still at the phone, then
hourly (the last one repeats)."""

EVIDENCE_WINDOW = timedelta(hours=24)
"""How long after the exposure the same business is tried; without evidence by then the assignment lapses."""

RETRY_AFTER_LIMIT_SECONDS = 900
"""The longest wait that an endpoint may ask for: 15 minutes."""

JITTER = 0.2
"""Delays are spread by ±20 %, so that attempts which failed together do not come back together."""

RETRY_CANNOT_HELP = frozenset(
    {
        NotSentReason.url_refused,
        NotSentReason.address_refused,
        NotSentReason.breaker_open,
        NotSentReason.hold_over,
        NotSentReason.withdrawn,
        NotSentReason.tls_certificate_expired,
        NotSentReason.tls_wrong_host,
        NotSentReason.tls_certificate_untrusted,
    }
)
"""Obstacles that five more seconds do not remove: the lead is released at once."""


def next_hold_attempt_at(attempts: int, *, reason: NotSentReason, held_at: datetime, now: datetime) -> datetime | None:
    """When to try again after `attempts` attempts that sent nothing; None means release the lead to the next business.

    Only for assignments without an exposure: ask `Classified.may_release` first.
    """
    if reason in RETRY_CANNOT_HELP or attempts >= len(HOLD_ATTEMPTS):
        return None
    at = now + timedelta(seconds=HOLD_ATTEMPTS[attempts])
    return at if at <= held_at + HOLD_WINDOW else None


def next_attempt_at(
    attempts: int, *, exposed_at: datetime, now: datetime, retry_after_seconds: int | None, seed: str
) -> datetime | None:
    """When to try the same business again after `attempts` attempts; None when the evidence window would be over.

    The endpoint's Retry-After (seconds) lengthens the wait up to 15 minutes and never shortens it. The same seed and
    count give the same moment, so two workers that decide the same retry agree.
    """
    delay = RETRY_DELAYS[min(attempts, len(RETRY_DELAYS) - 1)] * _spread(seed, attempts)
    asked = min(retry_after_seconds or 0, RETRY_AFTER_LIMIT_SECONDS)
    at = now + timedelta(seconds=max(delay, asked))
    return at if at <= exposed_at + EVIDENCE_WINDOW else None


def _spread(seed: str, attempts: int) -> float:
    """A factor in 1 ± JITTER that looks random and is not."""
    digest = blake2b(f"{seed}:{attempts}".encode(), digest_size=8).digest()
    return 1 - JITTER + 2 * JITTER * int.from_bytes(digest) / 2**64


# --- when to leave an endpoint alone ----------------------------------------------------------------------------------

CONSECUTIVE_LIMIT = 5
"""Failures in a row that open the breaker. In line with the attempts rather than sampled every half minute, because a
lead that meets a dead endpoint is worth less after each second."""

RECENT = 20
"""How many outcomes are remembered."""

RECENT_LIMIT = 10
"""Failures among the remembered outcomes that open the breaker: half."""

COOL_DOWN = timedelta(seconds=30)
"""How long the breaker stays open the first time; doubled each time the probe fails."""

COOL_DOWN_LIMIT = timedelta(minutes=15)
"""The longest that an endpoint is left alone before the next probe."""

PROBE_WINDOW = timedelta(seconds=25)
"""How long everybody waits for a probe's result: one attempt takes at most 20 seconds."""


class Breaker(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An endpoint's recent health. `recent` holds one bit per outcome, newest lowest, 1 = failure; times are UTC.

    Closed while `open_until` is None; open until then; afterwards half open: the first result decides. An endpoint in
    good health equals `Breaker()`, which is stored as `{}`.
    """

    consecutive_failures: int = 0
    recent: int = 0
    opened_count: int = 0
    open_until: datetime | None = None
    probe_until: datetime | None = None


def closed_from(breaker: Breaker) -> datetime | None:
    """When new leads may come again: after the cool-down, or after the probe that is under way; None means now."""
    return breaker.probe_until or breaker.open_until


def is_open(breaker: Breaker, now: datetime) -> bool:
    """Whether new leads must stay away from the endpoint."""
    until = closed_from(breaker)
    return until is not None and now < until


def take_probe(breaker: Breaker, now: datetime) -> Breaker:
    """The breaker while the caller's attempt probes a half-open endpoint: open to all others. Save it before trying.

    A breaker that is closed, or still open, comes back unchanged.
    """
    if breaker.open_until is None or is_open(breaker, now):
        return breaker
    return msgspec.structs.replace(breaker, probe_until=now + PROBE_WINDOW)


def record(breaker: Breaker, ok: bool, now: datetime) -> Breaker:
    """The breaker after one more result. An unchanged breaker comes back as the same value, so no write is needed.

    Results that arrive during the cool-down belong to attempts begun before it and change nothing.
    """
    if breaker.open_until is not None:
        if now < breaker.open_until:
            return breaker
        return Breaker() if ok else _open(breaker, now)
    recent = (breaker.recent << 1 | (not ok)) & (1 << RECENT) - 1
    consecutive = 0 if ok else breaker.consecutive_failures + 1
    if consecutive >= CONSECUTIVE_LIMIT or (not ok and recent.bit_count() >= RECENT_LIMIT):
        return _open(breaker, now)
    if (consecutive, recent) == (breaker.consecutive_failures, breaker.recent):
        return breaker
    return msgspec.structs.replace(breaker, consecutive_failures=consecutive, recent=recent)


def _open(breaker: Breaker, now: datetime) -> Breaker:
    doublings = min(breaker.opened_count, 10)  # ten are far beyond the limit; more would only overflow
    cool_down = min(COOL_DOWN * 2**doublings, COOL_DOWN_LIMIT)
    return Breaker(opened_count=breaker.opened_count + 1, open_until=now + cool_down)


def endpoint_health(classified: Classified) -> bool | None:
    """What an attempt says about the endpoint's health, for `record`: well, failing, or None for nothing.

    A refusal is an answer, and the endpoint that gave it is well. An obstacle on our own side says nothing. Nor does
    `gone`: that endpoint is switched off, which is more than a breaker does.
    """
    ours = (
        NotSentReason.breaker_open,
        NotSentReason.abandoned,
        NotSentReason.hold_over,
        NotSentReason.withdrawn,
        NotSentReason.too_late,
    )
    match classified.outcome:
        case Outcome.accepted | Outcome.refused:
            return True
        case Outcome.unknown | Outcome.busy | Outcome.redirect:
            return False
        case Outcome.not_sent:
            return None if classified.reason in ours else False
        case Outcome.gone:
            return None
        case _:
            assert_never(classified.outcome)
