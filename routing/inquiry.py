"""Facts of one inquiry that rules may read, and the pure checks of budget, timing, consent, touches and need fields.

`Facts` is the whole input of every later decision. It contains no contact data: no name, phone number, e-mail address,
street, IP address or free text. So a decision can be stored, repeated and shown without exposing anybody.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from routing.certificate import CERTIFICATES_IN_WORDS, CertificateKind, read_certificate
from routing.consent import (
    CHANNELS_IN_WORDS,
    ConsentTerms,
    is_jurisdiction,
    read_channel,
)
from routing.currency import minor_digits

NeedValue = str | int | bool
"""Value of an accepted need field."""


class Mode(StrEnum):
    """Mode of a lead, live or test, set by the API key that submitted it."""

    live = "live"
    """A real person: routed to live subscriptions and paid for."""
    test = "test"
    """A test: routed to test subscriptions, without any effect on wallets and caps."""


class Authority(StrEnum):
    """Influence of the person on the purchase."""

    decision_maker = "decision_maker"
    """Can say yes alone."""
    influencer = "influencer"
    """Influences the decision of another person."""
    researcher = "researcher"
    """Collects information for others or for later."""


class EvidenceKind(StrEnum):
    """Way in which the provider learned the value of a dimension."""

    stated = "stated"
    """The person said so; the default."""
    inferred = "inferred"
    """Concluded from what the person did."""
    verified = "verified"
    """Checked with the person or against a document."""


class PhoneVerification(StrEnum):
    """Result of checking a telephone number against published numbering data."""

    valid = "valid"
    """It lies in a range that is known to be in use."""
    possible = "possible"
    """Its country's numbering plan allows it, but no published range contains it: usually a new area code."""


UNKNOWN_PHONE = "unknown"
"""Phone type of a number that is only possible. Subscriptions that list phone types do not accept it."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Budget of the person in minor units of `currency`: an amount, or a range up to `maximum_minor`."""

    minor: int
    currency: str
    maximum_minor: int | None = None


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Time at which the person wants it: within a number of days of submitting, or not before a date; not both."""

    within_days: int | None = None
    not_before: date | None = None


class TouchKind(StrEnum):
    """Kinds of touch that pages and criteria have words for. Any other word is accepted as well, and stays as it is."""

    page_view = "page_view"
    """The person opened a page; the detail is its path."""
    form = "form"
    """The person sent a form; the detail names it."""
    link_click = "link_click"
    """The person followed a link in a message."""
    email_open = "email_open"
    """The person's mail program loaded a message, which some programs do by themselves."""
    email_reply = "email_reply"
    """The person answered a message."""
    call = "call"
    """A telephone call, with its direction and its length; 0 seconds is a call that nobody answered."""
    chat = "chat"
    """A conversation in writing."""
    appointment = "appointment"
    """The person agreed to meet at a time."""
    purchase = "purchase"
    """The person bought something, for an amount."""
    inquiry = "inquiry"
    """The person asked again, by another inquiry."""


class Direction(StrEnum):
    """Side that began a call or a conversation."""

    inbound = "inbound"
    """The person."""
    outbound = "outbound"
    """The provider."""


class TouchAmount(msgspec.Struct, frozen=True, kw_only=True):
    """Amount of a purchase, in minor units of `currency`."""

    minor: int
    currency: str


class Touch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One interaction of the person, such as a page view or a call, without contact data.

    `kind` is one of TouchKind or a word of the provider's own. `seconds` is the length of a call or a chat, `starts_at`
    the time of an appointment. `touch_id` is the provider's name for it: a second touch with the same name is the same.
    """

    kind: str
    at: datetime
    detail: str
    direction: Direction | None = None
    seconds: int | None = None
    amount: TouchAmount | None = None
    starts_at: datetime | None = None
    touch_id: str | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Place of a lead: the centre of a postal area (degrees, WGS 84) and its IANA time zone, never a street."""

    country: str
    postal_code: str | None = None
    region: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    time_zone: str | None = None


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """Results of checking the contact data, without the contact data.

    `phone_type` is one of mobile, fixed_line, fixed_or_mobile, voip, other, unknown; `phone_region` an ISO alpha-2
    country. `phone_verification` is None without a number, and in older records, all of which had valid numbers.
    """

    phone_type: str
    phone_region: str | None = None
    phone_verification: PhoneVerification | None = None
    email_disposable: bool = False


class ValueSource(msgspec.Struct, frozen=True, kw_only=True):
    """Source of a value: `inquiry`, `correction` or the kind of a touch; its time and its evidence."""

    origin: str
    at: datetime
    evidence: EvidenceKind


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one inquiry that rules may read. Stored with it, and sufficient to repeat any decision on it.

    `evidence` is keyed by dimension name; a dimension that is missing was stated by the person. `consent` is None in
    inquiries from before its terms were read. Times are aware and in UTC. There is no contact data here, on purpose.
    `sources` says of each value where it comes from, once a later touch or a correction has changed the facts
    (routing/journey.py); it is empty in an inquiry.
    """

    vertical: str
    mode: Mode
    submitted_at: datetime
    received_at: datetime
    place: Place
    signals: Signals
    budget: Budget | None = None
    authority: Authority | None = None
    need_fields: dict[str, NeedValue] = {}
    timing: Timing | None = None
    evidence: dict[str, EvidenceKind] = {}
    company_size: int | None = None
    role: str | None = None
    source: str | None = None
    form: str | None = None
    campaign: str | None = None
    sub_ids: dict[str, str] = {}
    touches: tuple[Touch, ...] = ()
    sources: dict[str, ValueSource] = {}
    consent: ConsentTerms | None = None

    @property
    def asked_at(self) -> datetime:
        """Time from which the person's days count: the submission, or the receipt if the provider's clock is ahead."""
        return min(self.submitted_at, self.received_at)

    @property
    def newest_at(self) -> datetime:
        """Time of the newest of these facts: of the receipt, of a touch, or of an answer or correction since."""
        later = (source.at for source in self.sources.values())
        return max((self.received_at, *(touch.at for touch in self.touches), *later))

    @property
    def timing_at(self) -> datetime:
        """Time from which the days of `timing` count: that at which the timing was stated."""
        source = self.sources.get("timing")
        return self.asked_at if source is None else source.at


class NeedField(msgspec.Struct, frozen=True, kw_only=True):
    """One typed question of a vertical about the need: a choice, an integer within bounds, or yes or no."""

    kind: Literal["choice", "integer", "boolean"]
    required: bool = False
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    label: str = ""


class IntakeRules(msgspec.Struct, frozen=True, kw_only=True):
    """Requirements of a vertical that an inquiry must meet to be accepted."""

    vertical: str
    currency: str
    needs: dict[str, NeedField] = {}
    requires_phone: bool = True
    requires_email: bool = True
    requires_postal_code: bool = False
    accepts_possible_phones: bool = True
    requires_certificate: bool = False


def amount_in_words(minor: int, currency: str) -> str:
    """Format an amount for people: 1200000 minor units of USD are "USD 12,000", 50 are "USD 0.50"."""
    digits = minor_digits(currency)
    whole, fraction = divmod(abs(minor), 10**digits)
    sign = "-" if minor < 0 else ""
    return f"{currency} {sign}{whole:,}" + (f".{fraction:0{digits}}" if fraction else "")


# Checks. Each reports every flaw and never repeats a submitted value in its sentences.

CLOCK_TOLERANCE = timedelta(minutes=5)
"""Time by which another party's clock may be ahead of ours: the tolerance of Standard Webhooks 1.0."""

SENDER_SKEW = timedelta(seconds=2)
"""Difference allowed between two clocks that wrote times into one message, such as the clock of a form's page and that
of its server: NTP keeps each of them within a second."""

OLDEST_SUBMISSION = timedelta(days=90)
"""Oldest accepted submission. An older inquiry is from a list that is sold, not from a person who waits."""

OLDEST_CONSENT = timedelta(days=90)
"""Longest time between the consent and the submission."""

EARLIEST_TOUCH = timedelta(days=3_650)
"""Oldest accepted touch. A touch more than ten years old comes from a clock that was never set."""

LONGEST_TOUCH_DETAIL = 200
"""Most characters of a touch's detail, after its query is removed."""


class InquiryFaultCode(StrEnum):
    """Flaw of an inquiry that the pure checks report."""

    submitted_at_in_future = "submitted_at_in_future"
    """Submitted more than five minutes ahead of our clock."""
    submitted_at_too_old = "submitted_at_too_old"
    """Submitted more than 90 days ago."""
    consent_missing = "consent_missing"
    """There is no record that the person agreed to be contacted."""
    consent_text_empty = "consent_text_empty"
    """The text that the person agreed to is missing."""
    consent_in_future = "consent_in_future"
    """Given more than five minutes ahead of our clock."""
    consent_after_submission = "consent_after_submission"
    """Given after the submission of the inquiry that it should cover."""
    consent_too_old = "consent_too_old"
    """Given more than 90 days before the submission."""
    consent_page_missing = "consent_page_missing"
    """The page on which consent was given is missing."""
    consent_page_invalid = "consent_page_invalid"
    """The page is not an http or https address."""
    consent_ip_invalid = "consent_ip_invalid"
    """The person's IP address is not valid."""
    consent_channel_unknown = "consent_channel_unknown"
    """A word that names no channel by which a person may be contacted."""
    consent_expired = "consent_expired"
    """The consent has ended already."""
    consent_certificate_invalid = "consent_certificate_invalid"
    """A text that is no certificate of a known service, or a second one of the same service."""
    consent_certificate_missing = "consent_certificate_missing"
    """The vertical requires a certificate of consent."""
    consent_jurisdiction_invalid = "consent_jurisdiction_invalid"
    """Not an ISO 3166 country or a part of it."""
    currency_not_accepted = "currency_not_accepted"
    """The vertical uses another currency."""
    timing_ambiguous = "timing_ambiguous"
    """Both a number of days and a date were given."""
    need_field_unknown = "need_field_unknown"
    """The vertical has no such need field."""
    need_field_type = "need_field_type"
    """The value is not of the field's kind."""
    need_field_missing = "need_field_missing"
    """The vertical requires this field."""
    value_not_allowed = "value_not_allowed"
    """Not one of the field's choices."""
    out_of_range = "out_of_range"
    """Outside the bounds of the field."""
    too_long = "too_long"
    """Longer than allowed."""
    touch_in_future = "touch_in_future"
    """Happened more than five minutes ahead of our clock."""


class InquiryFault(msgspec.Struct, frozen=True, kw_only=True):
    """One flaw of an inquiry: its path in the submitted body, a code, and a sentence that says what to do."""

    path: tuple[str | int, ...]
    code: InquiryFaultCode
    detail: str


def _flaw(path: tuple[str | int, ...], code: InquiryFaultCode, detail: str) -> InquiryFault:
    return InquiryFault(path=path, code=code, detail=detail)


def is_later(moment: datetime, other: datetime, skew: timedelta) -> bool:
    """Return whether `moment` is certainly later than `other`, if their clocks differ by at most `skew`.

    A time is known only to its precision: 10:00:33 may be any moment of that second. So the precision of the coarser
    time is added to the skew.
    """
    return moment - other > skew + max(_precision(moment), _precision(other))


def _precision(moment: datetime) -> timedelta:
    """Return the precision of a time, by the digits that it has: a second, a millisecond or a microsecond."""
    if moment.microsecond == 0:
        return timedelta(seconds=1)
    whole_milliseconds = moment.microsecond % 1_000 == 0
    return timedelta(milliseconds=1) if whole_milliseconds else timedelta(microseconds=1)


def check_submitted_at(submitted_at: datetime, now: datetime) -> Iterator[InquiryFault]:
    """Check that an inquiry was submitted in the last 90 days, and not in the future."""
    if is_later(submitted_at, now, CLOCK_TOLERANCE):
        detail = "Send the time at which the person submitted the form; check your server's clock."
        yield _flaw(("submitted_at",), InquiryFaultCode.submitted_at_in_future, detail)
    elif now - submitted_at > OLDEST_SUBMISSION:
        detail = f"Send inquiries within {OLDEST_SUBMISSION.days} days of their submission."
        yield _flaw(("submitted_at",), InquiryFaultCode.submitted_at_too_old, detail)


def check_consent_time(given_at: datetime, submitted_at: datetime | None, now: datetime) -> Iterator[InquiryFault]:
    """Check that consent was given before the submission, as far as two clocks can tell, and at most 90 days before.

    `submitted_at` is None if the provider did not state it; the 90 days then end at `now`.
    """
    path = ("consent", "given_at")
    if is_later(given_at, now, CLOCK_TOLERANCE):
        yield _flaw(
            path,
            InquiryFaultCode.consent_in_future,
            "Send the time at which consent was given; check your server's clock.",
        )
    elif submitted_at is not None and is_later(given_at, submitted_at, SENDER_SKEW):
        yield _flaw(
            path, InquiryFaultCode.consent_after_submission, "Consent must be given before the inquiry is submitted."
        )
    elif (submitted_at or now) - given_at > OLDEST_CONSENT:
        detail = f"Ask for consent again: it was given more than {OLDEST_CONSENT.days} days before the submission."
        yield _flaw(path, InquiryFaultCode.consent_too_old, detail)


def check_consent_proof(text: str, page_url: str | None, ip: str | None) -> Iterator[InquiryFault]:
    """Check that consent can be proved later: a text, an http(s) page, and a valid IP address if there is one."""
    if not text.strip():
        yield _flaw(
            ("consent", "text"), InquiryFaultCode.consent_text_empty, "Send the exact words that the person agreed to."
        )
    if not page_url:
        detail = "Send the address of the page on which consent was given."
        yield _flaw(("consent", "page_url"), InquiryFaultCode.consent_page_missing, detail)
    elif not _is_web_address(page_url):
        detail = "Send the page's whole address, beginning with https:// or http://."
        yield _flaw(("consent", "page_url"), InquiryFaultCode.consent_page_invalid, detail)
    if ip is not None and not _is_ip(first_address(ip)):
        detail = "Send an IPv4 or IPv6 address, a list that begins with one, or leave the field out."
        yield _flaw(("consent", "ip"), InquiryFaultCode.consent_ip_invalid, detail)


def check_consent_terms(
    channels: Sequence[str], expires_at: datetime | None, jurisdiction: str | None, now: datetime
) -> Iterator[InquiryFault]:
    """Check that each channel is a known word, that the consent has not ended, and the form of its jurisdiction."""
    for index, word in enumerate(channels):
        if read_channel(word) is None:
            detail = f"Send one of these channels: {CHANNELS_IN_WORDS}."
            yield _flaw(("consent", "channels", index), InquiryFaultCode.consent_channel_unknown, detail)
    if expires_at is not None and expires_at <= now:
        detail = "Ask for consent again: it has ended."
        yield _flaw(("consent", "expires_at"), InquiryFaultCode.consent_expired, detail)
    if jurisdiction is not None and not is_jurisdiction(jurisdiction):
        detail = "Send an ISO 3166 country such as US, or a part of it such as US-CA."
        yield _flaw(("consent", "jurisdiction"), InquiryFaultCode.consent_jurisdiction_invalid, detail)


def check_certificates(tokens: Sequence[str], required: bool) -> Iterator[InquiryFault]:
    """Check the form and the host of each certificate, and that there is one of each service at most."""
    if required and not tokens:
        detail = f"This vertical requires a certificate of consent: send {CERTIFICATES_IN_WORDS}."
        yield _flaw(("consent", "certificates"), InquiryFaultCode.consent_certificate_missing, detail)
    kinds: set[CertificateKind] = set()
    for index, token in enumerate(tokens):
        kind = read_certificate(token)
        path = ("consent", "certificates", index)
        if kind is None:
            detail = f"Send {CERTIFICATES_IN_WORDS}, or leave it out."
            yield _flaw(path, InquiryFaultCode.consent_certificate_invalid, detail)
        elif kind in kinds:
            detail = "Send one certificate of each service."
            yield _flaw(path, InquiryFaultCode.consent_certificate_invalid, detail)
        else:
            kinds.add(kind)


def read_consent_terms(
    sellers: Sequence[str],
    channels: Sequence[str],
    purposes: Sequence[str],
    expires_at: datetime | None,
    jurisdiction: str | None,
    certificates: Sequence[str] = (),
) -> ConsentTerms:
    """Return the terms of a consent that the checks above have passed. `expires_at` is in UTC."""
    licensed = {channel: None for channel in map(read_channel, channels) if channel is not None}
    return ConsentTerms(
        sellers=tuple(filter(None, (seller.strip() for seller in sellers))),
        channels=tuple(licensed),
        purposes=tuple(dict.fromkeys(filter(None, (purpose.strip().casefold() for purpose in purposes)))),
        expires_at=expires_at,
        jurisdiction=jurisdiction,
        certificates=tuple(kind for kind in map(read_certificate, certificates) if kind is not None),
    )


def first_address(text: str) -> str:
    """Return the first address of a comma-separated list: the person's own.

    Servers behind proxies often send the whole of X-Forwarded-For, in which each proxy adds the address that called it.
    The first is the browser's, the others are the provider's own machines.
    """
    return text.partition(",")[0].strip()


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", text)
    except ValueError:
        return False


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def check_budget(budget: Budget, currency: str) -> Iterator[InquiryFault]:
    """Check that a budget is in the vertical's currency, and that the top of a range is not below its bottom."""
    if budget.currency != currency:
        detail = f"This vertical counts in {currency}: send the budget in {currency}."
        yield _flaw(("bant", "budget", "currency"), InquiryFaultCode.currency_not_accepted, detail)
    if budget.maximum_minor is not None and budget.maximum_minor < budget.minor:
        detail = "The top of the range must not lie below its bottom, minor."
        yield _flaw(("bant", "budget", "maximum_minor"), InquiryFaultCode.out_of_range, detail)


def check_timing(timing: Timing) -> Iterator[InquiryFault]:
    """Check that there is a number of days or a date, not both."""
    if timing.within_days is not None and timing.not_before is not None:
        detail = "Send either within_days or not_before, not both."
        yield _flaw(("bant", "timing"), InquiryFaultCode.timing_ambiguous, detail)


def check_touches(touches: tuple[Touch, ...], now: datetime) -> Iterator[InquiryFault]:
    """Check that touches happened in the last ten years and that their details are not too long."""
    for index, touch in enumerate(touches):
        path = ("touches", index)
        if is_later(touch.at, now, CLOCK_TOLERANCE):
            detail = "Send touches that have happened; check your server's clock."
            yield _flaw((*path, "at"), InquiryFaultCode.touch_in_future, detail)
        elif now - touch.at > EARLIEST_TOUCH:
            yield _flaw(
                (*path, "at"), InquiryFaultCode.out_of_range, "Send touches of the last ten years; check the clock."
            )
        if len(touch.detail) > LONGEST_TOUCH_DETAIL:
            detail = f"Shorten this to at most {LONGEST_TOUCH_DETAIL} characters, not counting a query string."
            yield _flaw((*path, "detail"), InquiryFaultCode.too_long, detail)


def cut_query(detail: str) -> str:
    """Return a touch's detail without a URL's query, or a fragment that looks like one, and all text after it.

    Queries are where contact data leaks. Takes time linear in the length of the detail.
    """
    query = re.search(r"\?\S", detail)
    fragments = (match.start() for match in re.finditer(r"#\S*", detail) if "=" in match[0] or "@" in match[0])
    end = min(query.start() if query else len(detail), next(fragments, len(detail)))
    return detail[:end].strip()


def check_need_fields(values: Mapping[str, NeedValue], fields: Mapping[str, NeedField]) -> Iterator[InquiryFault]:
    """Check that each value has a field of the vertical and fits it, and that every required field has a value."""
    yield from check_need_values(values, fields)
    for name, field in fields.items():
        if field.required and name not in values:
            detail = f"This vertical requires it: send {_need_in_words(field)}."
            yield _flaw(("bant", "need", "fields", name), InquiryFaultCode.need_field_missing, detail)


def check_need_values(values: Mapping[str, NeedValue], fields: Mapping[str, NeedField]) -> Iterator[InquiryFault]:
    """Check that each value has a field of the vertical and fits it."""
    for name, value in values.items():
        path = ("bant", "need", "fields", name)
        field = fields.get(name)
        if field is None:
            detail = "Remove this field: the vertical does not ask for it."
            yield _flaw(path, InquiryFaultCode.need_field_unknown, detail)
        else:
            yield from _check_need_value(path, value, field)


def _check_need_value(path: tuple[str | int, ...], value: NeedValue, field: NeedField) -> Iterator[InquiryFault]:
    kinds = {"choice": str, "integer": int, "boolean": bool}
    if type(value) is not kinds[field.kind]:  # exactly: True is not the integer 1
        yield _flaw(path, InquiryFaultCode.need_field_type, f"Send {_need_in_words(field)}.")
    elif field.kind == "choice" and value not in field.choices:
        yield _flaw(path, InquiryFaultCode.value_not_allowed, f"Send {_need_in_words(field)}.")
    elif field.kind == "integer" and not _is_within(int(value), field):
        yield _flaw(path, InquiryFaultCode.out_of_range, f"Send {_need_in_words(field)}.")


def _is_within(value: int, field: NeedField) -> bool:
    return (field.minimum is None or field.minimum <= value) and (field.maximum is None or value <= field.maximum)


def _need_in_words(field: NeedField) -> str:
    if field.kind == "choice":
        return "one of " + ", ".join(field.choices)
    if field.kind == "boolean":
        return "true or false"
    at_least = f", at least {field.minimum:,}" if field.minimum is not None else ""
    at_most = f", at most {field.maximum:,}" if field.maximum is not None else ""
    return f"a whole number{at_least}{at_most}"
