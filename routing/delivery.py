"""Delivery rules: the meaning of one attempt, the time of the next, and the circuit breaker of an endpoint.

The transport reports an `Observation`; every conclusion from it is made here from values alone, so a disputed delivery
can be judged again years later with the same result. Two principles: a lead may move to another business only while it
is certain that no byte of it was sent, and money may move only on an answer that a rule can read.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import assert_never

import msgspec

from routing.contract import OWN_FORMAT, Contract, Meaning, Reading, read_answer

# --- endpoints --------------------------------------------------------------------------------------------------------


class EndpointKind(StrEnum):
    """Ways in which a business receives its leads."""

    push = "push"
    """A webhook: the lead is posted to the business's server."""
    feed = "feed"
    """A feed: the business's software reads it with a key."""
    inbox = "inbox"
    """The inbox page of the portal: a member takes the lead there."""
    email = "email"
    """E-mail to an address of the business."""


# --- observations -----------------------------------------------------------------------------------------------------


class NotSentReason(StrEnum):
    """Obstacle because of which no byte of the lead was sent, roughly in the order in which an attempt meets them."""

    url_refused = "url_refused"
    """The endpoint's URL breaks a rule for webhook URLs."""
    address_refused = "address_refused"
    """Every address behind the URL is one that webhooks must not reach."""
    breaker_open = "breaker_open"
    """The endpoint failed too often recently, and no attempts are made for a while."""
    dns_failed = "dns_failed"
    """The host name could not be resolved in time."""
    connect_refused = "connect_refused"
    """The host refused the connection."""
    connect_timeout = "connect_timeout"
    """The host did not answer the connection in time."""
    connect_failed = "connect_failed"
    """The network could not reach the host."""
    tls_certificate_expired = "tls_certificate_expired"
    """The certificate has expired or is not valid yet."""
    tls_wrong_host = "tls_wrong_host"
    """The certificate was issued for another host name."""
    tls_certificate_untrusted = "tls_certificate_untrusted"
    """The certificate is self-signed, or its issuer is not one that we trust."""
    tls_failed = "tls_failed"
    """The TLS handshake failed, for instance because the host offers nothing newer than TLS 1.1."""
    tls_timeout = "tls_timeout"
    """The TLS handshake was not finished in time."""
    abandoned = "abandoned"
    """The exposure was not recorded, because another worker had taken over the assignment."""
    hold_over = "hold_over"
    """The hold window ended before an attempt could be made."""
    withdrawn = "withdrawn"
    """The person asked not to be contacted, or was erased: nothing is sent."""
    mapping_failed = "mapping_failed"
    """The endpoint's template could not be filled in with the facts of the lead."""
    authorization_failed = "authorization_failed"
    """The server that gives tokens for the endpoint gave none."""
    too_late = "too_late"
    """The exposure is recorded, but the attempt's time was over before the first byte was sent."""
    mail_server_unavailable = "mail_server_unavailable"
    """Our own mail server was out of reach, silent, or answered with an error before it was told the recipient."""
    mail_server_insecure = "mail_server_insecure"
    """Our own mail server offers no TLS, or its certificate is not valid."""
    mail_login_refused = "mail_login_refused"
    """Our own mail server refused user name or password."""
    mail_sender_refused = "mail_sender_refused"
    """The mail server refused our sender address (5xx to MAIL)."""
    mail_recipient_deferred = "mail_recipient_deferred"
    """The mail server does not take mail for the address now (4xx or 552 to RCPT)."""
    mail_recipient_refused = "mail_recipient_refused"
    """The mail server takes no mail for the address (5xx to RCPT)."""
    mail_address_unsupported = "mail_address_unsupported"
    """The address has letters outside ASCII before the @, and the mail server does not support them (SMTPUTF8)."""
    mail_data_refused = "mail_data_refused"
    """The mail server refused the command DATA, before any part of the message was sent."""


class NoAnswerReason(StrEnum):
    """Reason for which there is no readable answer although bytes may have been sent."""

    malformed = "malformed"
    """The answer is not HTTP, or its headers have no end."""
    reset = "reset"
    """The connection broke before the answer's headers were complete."""
    closed = "closed"
    """The host closed the connection before the answer's headers were complete."""
    timeout = "timeout"
    """The answer's headers were not complete when the attempt's time was over."""


class NotSent(msgspec.Struct, frozen=True, kw_only=True, tag="not_sent"):
    """No byte was sent. `detail` is for the endpoint's owner and contains no contact data."""

    reason: NotSentReason
    detail: str = ""


class NoAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="no_answer"):
    """Bytes may have been sent, and no complete status line with headers was received."""

    reason: NoAnswerReason


class AnswerReceived(msgspec.Struct, frozen=True, kw_only=True, tag="answered"):
    """Complete headers were received. `body` is the part of the body that was read, at most 64 KiB.

    `truncated` is true if the message ended before its framing says, so that part of it may be missing.
    `content_type` is the media type without parameters. `content_coding` is the Content-Encoding that could not be
    undone: the body is then as it was received. Both are in lower case, and empty if the answer has none.
    """

    status: int
    retry_after_seconds: int | None = None
    body: bytes = b""
    truncated: bool = False
    content_type: str = ""
    content_coding: str = ""


Observation = NotSent | NoAnswer | AnswerReceived
"""Report of the transport on one attempt."""


class MailStep(StrEnum):
    """Steps of an attempt by e-mail, in their order. Only the last one sends a part of the lead."""

    connect = "connect"
    """Connection and greeting."""
    hello = "hello"
    """EHLO."""
    starttls = "starttls"
    """STARTTLS and the TLS handshake."""
    login = "login"
    """AUTH."""
    sender = "sender"
    """MAIL."""
    recipient = "recipient"
    """RCPT."""
    data = "data"
    """DATA; the exposure is recorded before it."""
    content = "content"
    """The message, and the answer to it."""


class MailAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="mail_answered"):
    """The mail server's answer that ended the attempt: to the message itself, or an error at an earlier step.

    `text` is the answer's text, for the endpoint's owner.
    """

    step: MailStep
    status: int
    text: str = ""


class MailSilence(msgspec.Struct, frozen=True, kw_only=True, tag="mail_unanswered"):
    """The mail server gave no readable answer at this step."""

    step: MailStep
    reason: NoAnswerReason


MailObservation = NotSent | MailAnswer | MailSilence
"""Report of the mail client on one attempt."""


# --- conclusions ------------------------------------------------------------------------------------------------------


class AttemptOutcome(StrEnum):
    """Meaning of an attempt for the assignment."""

    not_sent = "not_sent"
    """Nothing was sent: try again within the hold window, then release the lead to the next business."""
    unknown = "unknown"
    """The business may have seen the lead: try the same business again with the same webhook id."""
    accepted = "accepted"
    """A complete 2xx that is understood: evidence of receipt, and the price is charged."""
    busy = "busy"
    """408, 425, 429 or 5xx: try the same business again, no sooner than it asks."""
    refused = "refused"
    """Any other 4xx, or a 2xx whose body refuses the lead: it goes to nobody else."""
    gone = "gone"
    """410: refused, and the endpoint is disabled until its owner enables it again."""
    redirect = "redirect"
    """3xx, which is never followed: treated as busy, and the owner is asked to update the URL."""


class AnswerReason(StrEnum):
    """Meaning of an answer that is not a refusal."""

    taken = "taken"
    """The business has the lead."""
    rate_limited = "rate_limited"
    """The business asks for fewer requests (429)."""
    try_later = "try_later"
    """The business asks for the same request later (408, 425)."""
    server_error = "server_error"
    """The business's server failed (5xx)."""
    redirected = "redirected"
    """The business's server redirects to another URL (3xx)."""
    unmapped = "unmapped"
    """A status outside 200 to 599, for which there is no rule: never a sale."""
    cut_off = "cut_off"
    """A 2xx that ended before it was complete, and may have been a refusal."""
    compressed = "compressed"
    """A 2xx with a content coding that is unknown or damaged; gzip and deflate are undone."""
    not_understood = "not_understood"
    """A complete 2xx that no rule of the endpoint's contract matches, for instance an HTML page."""
    mail_deferred = "mail_deferred"
    """The mail server has read the message and asks for it again later (4xx)."""
    mail_content_refused = "mail_content_refused"
    """The mail server has read the message and does not deliver it (5xx), for instance to a full mailbox (552)."""


NEEDS_A_RULE = frozenset({AnswerReason.compressed, AnswerReason.not_understood})
"""Reasons that no further attempt changes: the endpoint's owner has to change its server or its contract."""


class RefusalReason(StrEnum):
    """Reason of a business for refusing a lead, as it may send it in `{"status": "refused", "reason": …}`."""

    own_customer = "own_customer"
    """The person is already its customer."""
    outside_area = "outside_area"
    """The person lives outside the subscription's area."""
    invalid_number = "invalid_number"
    """The phone number is not valid."""
    duplicate = "duplicate"
    """The business has received this person before."""
    other = "other"
    """Anything else, or no reason given."""


Reason = NotSentReason | NoAnswerReason | AnswerReason | RefusalReason


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """Meaning of an attempt. `may_release` is true if the lead may still go to another business.

    `reference` is the business's own number of the lead and `price` the price that its answer names, both as text.
    """

    outcome: AttemptOutcome
    reason: Reason
    may_release: bool = False
    retry_after_seconds: int | None = None
    reference: str | None = None
    price: str | None = None


def classify(observation: Observation, exposed: bool, contract: Contract = OWN_FORMAT) -> Classification:
    """Return the meaning of an attempt under the endpoint's contract.

    `exposed` is true if an exposure is recorded, by this or an earlier attempt. A lead may be released only if this
    attempt sent nothing *and* no exposure exists, so a refused connection on a retry never releases a lead that was
    sent before. An answer without a rule is never a sale.
    """
    match observation:
        case NotSent(reason=reason):
            return _not_sent(reason, exposed)
        case NoAnswer(reason=lost):
            return Classification(outcome=AttemptOutcome.unknown, reason=lost)
        case AnswerReceived():
            return _classify_answer(observation, contract)
        case _:
            assert_never(observation)


def is_evidence(observation: Observation, contract: Contract = OWN_FORMAT) -> bool:
    """Return whether an attempt is evidence that the endpoint has the message: of a lead, a notice or a change."""
    return classify(observation, exposed=True, contract=contract).outcome is AttemptOutcome.accepted


def result_code(observation: Observation | None, contract: Contract = OWN_FORMAT) -> str:
    """Return the result of an attempt to send a notice or a change as a code, such as `status_404`.

    It is `no_active_endpoint` for None, and for a 2xx that is no evidence of receipt the reason, such as
    `not_understood`.
    """
    match observation:
        case None:
            return "no_active_endpoint"
        case NotSent(reason=reason) | NoAnswer(reason=reason):
            return reason
        case AnswerReceived(status=status) if 200 <= status <= 299 and not is_evidence(observation, contract):
            return classify(observation, exposed=True, contract=contract).reason
        case AnswerReceived(status=status):
            return f"status_{status}"
        case _:
            assert_never(observation)


def _not_sent(reason: NotSentReason, exposed: bool) -> Classification:
    never = reason in (NotSentReason.abandoned, NotSentReason.too_late)
    return Classification(outcome=AttemptOutcome.not_sent, reason=reason, may_release=not (exposed or never))


def classify_mail(observation: MailObservation, exposed: bool) -> Classification:
    """Return the meaning of an attempt by e-mail. `exposed` is true if an exposure is recorded.

    Evidence is the answer 250 to the message, and nothing else. Any other end after its first byte is unknown: the
    same business is tried again, with the same Message-ID. Before that byte nothing was sent.
    """
    match observation:
        case NotSent(reason=reason):
            return _not_sent(reason, exposed)
        case MailAnswer(step=MailStep.content, status=250):
            return Classification(outcome=AttemptOutcome.accepted, reason=AnswerReason.taken)
        case MailAnswer(step=MailStep.content, status=status):
            reason_by_class = {4: AnswerReason.mail_deferred, 5: AnswerReason.mail_content_refused}
            answer = reason_by_class.get(status // 100, AnswerReason.unmapped)
            return Classification(outcome=AttemptOutcome.unknown, reason=answer)
        case MailSilence(step=MailStep.content, reason=lost):
            return Classification(outcome=AttemptOutcome.unknown, reason=lost)
        case MailAnswer(step=step, status=status):
            return _not_sent(_mail_obstacle(step, status), exposed)
        case MailSilence():
            return _not_sent(NotSentReason.mail_server_unavailable, exposed)
        case _:
            assert_never(observation)


def _mail_obstacle(step: MailStep, status: int) -> NotSentReason:
    """Return the meaning of an error before the message, by RFC 5321 and RFC 4954.

    421 ends the connection at any step. 552 to RCPT is an old form of 452, "too many recipients" (4.5.3.1.10).
    """
    if status == 421:
        return NotSentReason.mail_server_unavailable
    permanent = 500 <= status <= 599
    match step:
        case MailStep.data:
            return NotSentReason.mail_data_refused
        case MailStep.recipient if permanent and status != 552:
            return NotSentReason.mail_recipient_refused
        case MailStep.recipient if 400 <= status <= 599:
            return NotSentReason.mail_recipient_deferred
        case MailStep.sender if permanent:
            return NotSentReason.mail_sender_refused
        case MailStep.login if permanent:
            return NotSentReason.mail_login_refused
        case _:
            return NotSentReason.mail_server_unavailable


_BUSY = {408: AnswerReason.try_later, 425: AnswerReason.try_later, 429: AnswerReason.rate_limited}


def _classify_answer(answer: AnswerReceived, contract: Contract) -> Classification:
    """Return the meaning of an answer: by the contract if it is complete, else by its status."""
    success = 200 <= answer.status <= 299
    if success and answer.truncated:
        return Classification(outcome=AttemptOutcome.unknown, reason=AnswerReason.cut_off)
    if success and answer.content_coding not in ("", "identity"):
        return Classification(outcome=AttemptOutcome.unknown, reason=AnswerReason.compressed)
    reading = read_answer(contract, answer.status, answer.body)
    match reading.meaning:
        case Meaning.accepted:
            return _named(reading, AttemptOutcome.accepted, AnswerReason.taken)
        case Meaning.refused | Meaning.duplicate:
            outcome = AttemptOutcome.gone if answer.status == 410 else AttemptOutcome.refused
            return _named(reading, outcome, _refusal_reason(reading))
        case Meaning.try_later:
            return Classification(
                outcome=AttemptOutcome.busy,
                reason=AnswerReason.try_later,
                retry_after_seconds=answer.retry_after_seconds,
            )
        case Meaning.not_understood:
            return _classify_status(answer)
        case _:
            assert_never(reading.meaning)


def _named(reading: Reading, outcome: AttemptOutcome, reason: Reason) -> Classification:
    return Classification(outcome=outcome, reason=reason, reference=reading.reference, price=reading.price)


def _refusal_reason(reading: Reading) -> RefusalReason:
    """Return the reason that the answer names if it is one of ours, else `other`."""
    if reading.meaning is Meaning.duplicate:
        return RefusalReason.duplicate
    word = (reading.reason or "").casefold()
    return next((reason for reason in RefusalReason if reason == word), RefusalReason.other)


def _classify_status(answer: AnswerReceived) -> Classification:
    """Return the meaning of an answer that no rule of the contract matches."""
    status = answer.status
    if status == 410:
        return Classification(outcome=AttemptOutcome.gone, reason=RefusalReason.other)
    busy = AnswerReason.server_error if 500 <= status <= 599 else _BUSY.get(status)
    if busy is not None:
        return Classification(outcome=AttemptOutcome.busy, reason=busy, retry_after_seconds=answer.retry_after_seconds)
    if 200 <= status <= 299:
        return Classification(outcome=AttemptOutcome.unknown, reason=AnswerReason.not_understood)
    if 300 <= status <= 399:
        return Classification(outcome=AttemptOutcome.redirect, reason=AnswerReason.redirected)
    if 400 <= status <= 499:
        return Classification(outcome=AttemptOutcome.refused, reason=RefusalReason.other)
    return Classification(outcome=AttemptOutcome.unknown, reason=AnswerReason.unmapped)


# --- retries ----------------------------------------------------------------------------------------------------------

HOLD_ATTEMPTS = (0, 1, 4)
"""Seconds to wait before the first, second and third attempt while nothing was sent. A lead loses its value in minutes,
so after three failures in about five seconds it goes to the next business."""

HOLD_WINDOW = timedelta(seconds=120)
"""Longest time that a lead is held for a server without an exposure, including slow failures."""

LONGEST_HOLD_SECONDS = 900
"""Longest time for which a business may have a lead held for a person to take it: 15 minutes."""

RETRY_DELAYS = (0, 1, 4, 15, 60, 300, 900, 3600)
"""Seconds to wait before each attempt once the lead is exposed: short while the person is still reachable, then hourly.
The last one repeats."""

EVIDENCE_WINDOW = timedelta(hours=24)
"""Time after the exposure in which the same business is tried. Without evidence of receipt the claim then lapses."""

RETRY_AFTER_LIMIT_SECONDS = 900
"""Longest wait that an endpoint may ask for: 15 minutes."""

JITTER = 0.2
"""Delays vary by ±20 %, so that attempts which failed together are not retried together."""

RETRY_CANNOT_HELP = frozenset(
    {
        NotSentReason.url_refused,
        NotSentReason.address_refused,
        NotSentReason.breaker_open,
        NotSentReason.hold_over,
        NotSentReason.withdrawn,
        NotSentReason.mapping_failed,
        NotSentReason.tls_certificate_expired,
        NotSentReason.tls_wrong_host,
        NotSentReason.tls_certificate_untrusted,
        NotSentReason.mail_server_insecure,
        NotSentReason.mail_login_refused,
        NotSentReason.mail_sender_refused,
        NotSentReason.mail_recipient_refused,
        NotSentReason.mail_address_unsupported,
    }
)
"""Obstacles that last longer than the hold attempts: the lead is released at once."""


def hold_window(hold_seconds: int, patience_left: timedelta) -> timedelta:
    """Return the time for which an awarded lead is held without an exposure.

    Longer than HOLD_WINDOW only within the patience that the vertical has left for this lead, so that leads which pass
    by several people who do not take them still end in time.
    """
    return max(HOLD_WINDOW, min(timedelta(seconds=hold_seconds), patience_left))


def next_hold_attempt_at(attempts: int, *, reason: NotSentReason, held_at: datetime, now: datetime) -> datetime | None:
    """Return the time of the next attempt after `attempts` that sent nothing, or None to release the lead.

    Only for assignments without an exposure: check `Classification.may_release` first.
    """
    if reason in RETRY_CANNOT_HELP or attempts >= len(HOLD_ATTEMPTS):
        return None
    at = now + timedelta(seconds=HOLD_ATTEMPTS[attempts])
    return at if at <= held_at + HOLD_WINDOW else None


def next_attempt_at(
    attempts: int, *, exposed_at: datetime, now: datetime, retry_after_seconds: int | None, seed: str
) -> datetime | None:
    """Return the time at which to try the same business again after `attempts`, or None if the evidence window is over.

    The endpoint's Retry-After (seconds) lengthens the wait up to 15 minutes and never shortens it. The same seed and
    number of attempts give the same time, so two workers that decide the same retry agree.
    """
    delay = RETRY_DELAYS[min(attempts, len(RETRY_DELAYS) - 1)] * _jitter(seed, attempts)
    requested = min(retry_after_seconds or 0, RETRY_AFTER_LIMIT_SECONDS)
    at = now + timedelta(seconds=max(delay, requested))
    return at if at <= exposed_at + EVIDENCE_WINDOW else None


def _jitter(seed: str, attempts: int) -> float:
    """Return a pseudo-random factor in 1 ± JITTER, the same for the same arguments."""
    digest = blake2b(f"{seed}:{attempts}".encode(), digest_size=8).digest()
    return 1 - JITTER + 2 * JITTER * int.from_bytes(digest) / 2**64


# --- circuit breaker --------------------------------------------------------------------------------------------------

CONSECUTIVE_LIMIT = 5
"""Failures in a row that open the breaker. It counts attempts instead of checking the endpoint every half minute,
because a lead loses value each second that it waits for an endpoint that does not respond."""

RECENT = 20
"""Number of recent outcomes that a breaker keeps."""

RECENT_LIMIT = 10
"""Failures among the recent outcomes that open the breaker: half."""

COOL_DOWN = timedelta(seconds=30)
"""Time for which the breaker is open at first; doubled each time a probe fails."""

COOL_DOWN_LIMIT = timedelta(minutes=15)
"""Longest time for which a breaker is open before the next probe."""

PROBE_WINDOW = timedelta(seconds=25)
"""Time for which all other attempts wait for a probe's result. One attempt takes at most 20 seconds."""


class Breaker(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Circuit breaker of an endpoint. `recent` has one bit per outcome, the newest lowest, 1 for a failure.

    The breaker is closed while `open_until` is None, open until that time, and half open after it: the first result
    then decides. `probe_until` is set while an attempt probes a half-open endpoint. Times are in UTC. The breaker of a
    healthy endpoint equals `Breaker()`, which is stored as `{}`.
    """

    consecutive_failures: int = 0
    recent: int = 0
    opened_count: int = 0
    open_until: datetime | None = None
    probe_until: datetime | None = None


def closed_from(breaker: Breaker) -> datetime | None:
    """Return the time from which leads are accepted again: the end of a cool-down or probe. None means now."""
    return breaker.probe_until or breaker.open_until


def is_open(breaker: Breaker, now: datetime) -> bool:
    """Return whether no new lead may be sent to the endpoint at `now`."""
    until = closed_from(breaker)
    return until is not None and now < until


def take_probe(breaker: Breaker, now: datetime) -> Breaker:
    """Return the breaker during a probe of a half-open endpoint by the caller; it is open to all others.

    Save it before the attempt. A breaker that is closed or still open is returned unchanged.
    """
    if breaker.open_until is None or is_open(breaker, now):
        return breaker
    return msgspec.structs.replace(breaker, probe_until=now + PROBE_WINDOW)


def record(breaker: Breaker, ok: bool, now: datetime) -> Breaker:
    """Return the breaker after one more result, or the same object if nothing changes and no write is needed.

    Results that arrive during the cool-down are of attempts that began before it, and change nothing.
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
    doublings = min(breaker.opened_count, 10)  # ten are far beyond the limit, and more would overflow
    cool_down = min(COOL_DOWN * 2**doublings, COOL_DOWN_LIMIT)
    return Breaker(opened_count=breaker.opened_count + 1, open_until=now + cool_down)


WARNINGS = (50, 70, 90, 100)
"""Percent of the failures that pause an endpoint at which its owner is warned."""


def breaker_percent(breaker: Breaker, now: datetime) -> int:
    """Return how close an endpoint is to being paused: the highest of WARNINGS that it has reached, or 0.

    100 is a paused endpoint, or one whose next attempt decides after a pause.
    """
    if breaker.open_until is not None or is_open(breaker, now):
        return 100
    failures = max(
        breaker.consecutive_failures / CONSECUTIVE_LIMIT,
        breaker.recent.bit_count() / RECENT_LIMIT,
    )
    return max((warning for warning in WARNINGS if failures * 100 >= warning), default=0)


def endpoint_health(classified: Classification) -> bool | None:
    """Return whether an attempt shows that the endpoint works, for `record`; None if it shows nothing.

    An endpoint that refuses a lead works. An obstacle on our own side shows nothing. Neither does `gone`, for which the
    endpoint is disabled anyway.
    """
    own_obstacles = (
        NotSentReason.breaker_open,
        NotSentReason.abandoned,
        NotSentReason.hold_over,
        NotSentReason.withdrawn,
        NotSentReason.too_late,
        NotSentReason.mail_server_unavailable,
        NotSentReason.mail_server_insecure,
        NotSentReason.mail_login_refused,
        NotSentReason.mail_sender_refused,
        NotSentReason.mail_data_refused,
    )
    match classified.outcome:
        case AttemptOutcome.accepted | AttemptOutcome.refused:
            return True
        case AttemptOutcome.unknown | AttemptOutcome.busy | AttemptOutcome.redirect:
            return False
        case AttemptOutcome.not_sent:
            return None if classified.reason in own_obstacles else False
        case AttemptOutcome.gone:
            return None
        case _:
            assert_never(classified.outcome)
