"""Reading of an inquiry: from the posted bytes to an accepted inquiry, or to every fault of its content.

Each part of the body has one step, which returns the value of that part or its faults. `read_inquiry` runs all steps
and assembles the inquiry. It separates contact data from facts: whatever can identify a person goes into `Contact`,
never into `Facts`.
"""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

import msgspec
import phonenumbers

from marketplace.intake.contact import (
    Consent,
    Contact,
    Email,
    PersonalData,
    Phone,
    fingerprints,
    read_email,
    read_phone,
)
from marketplace.intake.postal import PostalArea, has_known_areas, postal_key
from marketplace.intake.shapes import (
    MAXIMUM_KEYS,
    BantBody,
    BudgetBody,
    ConsentBody,
    ContactBody,
    InquiryBody,
    TimingBody,
    TouchBody,
)
from marketplace.text.characters import clean_line, clean_text, is_visible, mask_cards
from marketplace.text.faults import Fault, FaultCode, pointer, read
from routing.consent import ConsentTerms
from routing.inquiry import (
    LONGEST_TOUCH_DETAIL,
    Authority,
    Budget,
    EvidenceKind,
    Facts,
    InquiryFault,
    InquiryFaultCode,
    IntakeRules,
    Mode,
    NeedValue,
    PhoneVerification,
    Place,
    Signals,
    Timing,
    Touch,
    TouchAmount,
    check_budget,
    check_certificates,
    check_consent_proof,
    check_consent_terms,
    check_consent_time,
    check_need_fields,
    check_submitted_at,
    check_timing,
    check_touches,
    cut_query,
    first_address,
    read_consent_terms,
)

Faults = tuple[Fault, ...]

VERTICAL_UNKNOWN: Final = Fault(
    pointer="/vertical", code="vertical_unknown", detail="Send the slug of a vertical: GET /v1/verticals."
)


class ContactPoints(PersonalData, frozen=True, kw_only=True):
    """Ways to reach a person, and the country by which national numbers are read (ISO 3166-1 alpha-2)."""

    country: str
    phone: Phone | None
    email: Email | None


class BantAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """Budget, authority, need fields and timing, with the kind of evidence for each dimension."""

    budget: Budget | None
    authority: Authority | None
    need_fields: dict[str, NeedValue]
    timing: Timing | None
    evidence: dict[str, EvidenceKind]


class TouchHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Touches of a person in order of time."""

    touches: tuple[Touch, ...]


class AcceptedInquiry(PersonalData, frozen=True, kw_only=True):
    """An inquiry that may be stored: the facts for the rules, and the contact to seal.

    `fingerprints` identify the person and are plain text: store only their keyed hashes. `consent_sha256` covers the
    whole consent record, which proves later that the record has not changed.
    """

    facts: Facts
    contact: Contact
    fingerprints: tuple[str, ...]
    provider_reference: str | None
    consent_given_at: datetime
    consent_sha256: bytes


def decode_inquiry(raw: bytes) -> InquiryBody | Faults:
    """Return the posted bytes as a body, or all faults of their shape."""
    return read(raw, InquiryBody, maximum_keys=MAXIMUM_KEYS)


def read_inquiry(
    body: InquiryBody, rules: IntakeRules | None, area: PostalArea | None, *, mode: Mode, now: datetime
) -> AcceptedInquiry | Faults:
    """Return the inquiry as its vertical accepts it, or all faults of its content.

    `area` is the postal area of the contact's code, None if the code has none. `rules` is None if no vertical has the
    slug: the faults are then the unknown slug and everything that any vertical would refuse.
    """
    if rules is None:
        outcome = read_inquiry(_without_need_fields(body), _common_rules(body), area, mode=mode, now=now)
        return (VERTICAL_UNKNOWN, *faults_of(outcome))
    points = read_contact_points(body.contact, rules)
    place = read_place(body.contact.country.upper(), body.contact.postal_code, rules, area)
    name = read_name(body.contact.full_name)
    submitted_at = read_submission_time(body.submitted_at, now)
    bant = read_bant(body.bant, rules)
    consent = read_consent(body.consent, body.submitted_at, now, requires_certificate=rules.requires_certificate)
    history = read_touches(body.touches, now)
    if (
        isinstance(points, tuple)
        or isinstance(place, tuple)
        or isinstance(name, tuple)
        or isinstance(submitted_at, tuple)
        or isinstance(bant, tuple)
        or isinstance(consent, tuple)
        or isinstance(history, tuple)
    ):
        outcomes = (points, place, name, submitted_at, bant, consent, history)
        return tuple(fault for outcome in outcomes for fault in faults_of(outcome))
    contact = _assemble_contact(body, points, name, consent)
    facts = Facts(
        vertical=rules.vertical,
        mode=mode,
        submitted_at=submitted_at,
        received_at=now,
        place=_with_zone_of_phone(place, points.phone),
        signals=_signals(points),
        budget=bant.budget,
        authority=bant.authority,
        need_fields=bant.need_fields,
        timing=bant.timing,
        evidence=bant.evidence,
        company_size=body.contact.company_size,
        role=masked_line(body.contact.role),
        source=body.attribution.source,
        form=body.attribution.form,
        campaign=body.attribution.campaign,
        sub_ids=dict(body.attribution.sub_ids),
        touches=history.touches,
        consent=_consent_terms(consent),
    )
    return AcceptedInquiry(
        facts=facts,
        contact=contact,
        fingerprints=fingerprints(contact, mode),
        provider_reference=body.provider_reference,
        consent_given_at=consent.given_at,
        consent_sha256=hashlib.sha256(msgspec.json.encode(consent)).digest(),
    )


def faults_of(outcome: object) -> Faults:
    """Return the faults if the outcome of a step is faults, or an empty tuple if it is a value."""
    return outcome if isinstance(outcome, tuple) else ()


# The steps, in the order in which their faults are reported.


def read_contact_points(contact: ContactBody, rules: IntakeRules) -> ContactPoints | Faults:
    """Read the phone number and the e-mail address, at least one of which every vertical requires."""
    country = contact.country.upper()
    phone = read_accepted_phone(contact.phone, country, rules)
    email = read_email(contact.email) if contact.email else None
    faults: list[Fault] = []
    if country not in phonenumbers.SUPPORTED_REGIONS:
        detail = "Send a country as its two letters in ISO 3166-1, such as US."
        faults.append(_fault("/contact/country", FaultCode.value_not_allowed, detail))
    faults += _check_points_present(phone is not None, email is not None, rules)
    if faults or isinstance(phone, Fault) or isinstance(email, Fault):
        return (*faults, *(point for point in (phone, email) if isinstance(point, Fault)))
    return ContactPoints(country=country, phone=phone, email=email)


def _check_points_present(has_phone: bool, has_email: bool, rules: IntakeRules) -> Iterator[Fault]:
    if rules.requires_phone and not has_phone:
        yield _fault("/contact/phone", FaultCode.field_missing, "This vertical requires a phone number.")
    if rules.requires_email and not has_email:
        yield _fault("/contact/email", FaultCode.field_missing, "This vertical requires an e-mail address.")
    if not (has_phone or has_email or rules.requires_phone or rules.requires_email):
        yield _fault("/contact", FaultCode.field_missing, "Send a phone number or an e-mail address.")


def read_accepted_phone(text: str | None, country: str, rules: IntakeRules) -> Phone | Fault | None:
    """Read a phone number that the vertical accepts; None without one."""
    phone = read_phone(text, country) if text else None
    is_possible = isinstance(phone, Phone) and phone.verification is PhoneVerification.possible
    if is_possible and not rules.accepts_possible_phones:
        detail = "This vertical takes only numbers of published ranges: send another number of the person."
        return _fault("/contact/phone", "phone_invalid", detail)
    return phone


def read_place(country: str, postal_code: str | None, rules: IntakeRules, area: PostalArea | None) -> Place | Faults:
    """Read the postal code, with the centre and the zone of its area if it has one."""
    if rules.requires_postal_code and not postal_code:
        return (_fault("/contact/postal_code", FaultCode.field_missing, "This vertical requires a postal code."),)
    if rules.requires_postal_code and area is None and has_known_areas(country):
        detail = "Send a postal code that exists in the contact's country, such as 60614."
        return (_fault("/contact/postal_code", "postal_code_unknown", detail),)
    code = postal_key(country, postal_code)[1] if postal_code else ""
    if area is None:
        return Place(country=country, postal_code=code or None)
    return Place(
        country=country,
        postal_code=code or None,
        region=area.region,
        latitude=area.latitude,
        longitude=area.longitude,
        time_zone=area.time_zone or None,
    )


def read_name(full_name: str) -> str | Faults:
    """Read the person's name in one line, with card numbers masked."""
    name = mask_cards(clean_line(full_name))
    if is_visible(name):
        return name
    return (_fault("/contact/full_name", "name_empty", "Send the person's name as they write it."),)


def read_submission_time(submitted_at: datetime | None, now: datetime) -> datetime | Faults:
    """Read the time of submission, in UTC; `now` if the provider did not send it."""
    if submitted_at is None:
        return now
    return _as_faults(check_submitted_at(submitted_at, now)) or submitted_at.astimezone(UTC)


def read_bant(bant: BantBody, rules: IntakeRules) -> BantAnswers | Faults:
    """Read budget, authority, need and timing by the currency and the questions of the vertical."""
    budget, timing = read_budget(bant.budget), read_timing(bant.timing)
    flaws: list[InquiryFault] = []
    if budget is not None:
        flaws += check_budget(budget, rules.currency)
    if timing is not None:
        flaws += check_timing(timing)
    flaws += check_need_fields(bant.need.fields, rules.needs)
    if flaws:
        return _as_faults(flaws)
    return BantAnswers(
        budget=budget,
        authority=bant.authority,
        need_fields=dict(bant.need.fields),
        timing=timing,
        evidence={str(dimension): kind for dimension, kind in bant.evidence.items()},
    )


def read_budget(budget: BudgetBody | None) -> Budget | None:
    """Read a budget; None without one."""
    if budget is None:
        return None
    return Budget(minor=budget.minor, currency=budget.currency, maximum_minor=budget.maximum_minor)


def read_timing(timing: TimingBody | None) -> Timing | None:
    """Read the timing; an empty object means the same as a missing one."""
    if timing is None or (timing.within_days is None and timing.not_before is None):
        return None
    return Timing(within_days=timing.within_days, not_before=timing.not_before)


def read_consent(
    consent: ConsentBody | None, submitted_at: datetime | None, now: datetime, *, requires_certificate: bool
) -> Consent | Faults:
    """Read the proof of consent. Its text stays exactly as the person saw it, because it is evidence."""
    if consent is None:
        detail = "Send the proof that the person agreed to be contacted: text, given_at and page_url."
        return (_fault("/consent", InquiryFaultCode.consent_missing, detail),)
    text = consent.text if is_visible(consent.text) else ""
    flaws = [
        *check_consent_proof(text, consent.page_url, consent.ip),
        *check_consent_time(consent.given_at, submitted_at, now),
        *check_certificates(consent.certificates, requires_certificate),
        *check_consent_terms(consent.channels, consent.expires_at, consent.jurisdiction, now),
    ]
    if flaws:
        return _as_faults(flaws)
    ip = first_address(consent.ip) if consent.ip is not None else None
    return Consent(
        text=consent.text,
        given_at=consent.given_at.astimezone(UTC),
        page_url=consent.page_url or "",
        ip=ip,
        user_agent=consent.user_agent,
        locale=consent.locale,
        text_version=consent.text_version,
        form_version=consent.form_version,
        checked=consent.checked,
        purposes=consent.purposes,
        channels=consent.channels,
        sellers=consent.sellers,
        expires_at=_in_utc(consent.expires_at) if consent.expires_at is not None else None,
        jurisdiction=consent.jurisdiction,
        certificates=tuple(token.strip() for token in consent.certificates),
    )


def _consent_terms(consent: Consent) -> ConsentTerms:
    return read_consent_terms(
        tuple(mask_cards(clean_line(seller)) for seller in consent.sellers),
        consent.channels,
        tuple(mask_cards(clean_line(purpose)) for purpose in consent.purposes),
        consent.expires_at,
        consent.jurisdiction,
        consent.certificates,
    )


def read_touches(bodies: tuple[TouchBody, ...], now: datetime) -> TouchHistory | Faults:
    """Read the touches without the query strings of their addresses, which may hold contact data."""
    touches = tuple(read_touch(body) for body in bodies)
    faults = _as_faults(check_touches(touches, now))
    return faults or TouchHistory(touches=tuple(sorted(touches, key=lambda touch: touch.at)))


def read_touch(body: TouchBody) -> Touch:
    """Return a touch as it is stored, before it is checked."""
    amount = body.amount
    return Touch(
        kind=clean_line(body.kind),
        at=_in_utc(body.at),
        detail=_clean_detail(body.detail),
        direction=body.direction,
        seconds=body.seconds,
        amount=None if amount is None else TouchAmount(minor=amount.minor, currency=amount.currency),
        starts_at=None if body.starts_at is None else _in_utc(body.starts_at),
        touch_id=body.touch_id,
    )


def _clean_detail(text: str) -> str:
    """Return the detail as it is stored; one over the limit is refused, so its card numbers are not searched for."""
    detail = cut_query(clean_line(text))
    return mask_cards(detail) if len(detail) <= LONGEST_TOUCH_DETAIL else detail


def _in_utc(moment: datetime) -> datetime:
    """Return the time in UTC, or unchanged at the ends of the calendar, which the check of its age refuses."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return moment


def _as_faults(flaws: Iterable[InquiryFault]) -> Faults:
    return tuple(Fault(pointer=pointer(*flaw.path), code=flaw.code, detail=flaw.detail) for flaw in flaws)


def _fault(place: str, code: str, detail: str) -> Fault:
    return Fault(pointer=place, code=code, detail=detail)


# An unknown vertical.


def _common_rules(body: InquiryBody) -> IntakeRules:
    """Return rules that refuse only what every vertical refuses."""
    currency = body.bant.budget.currency if body.bant.budget else ""
    return IntakeRules(vertical=body.vertical, currency=currency, requires_phone=False, requires_email=False)


def _without_need_fields(body: InquiryBody) -> InquiryBody:
    """Return the inquiry without answers to the questions of a vertical."""
    need = msgspec.structs.replace(body.bant.need, fields={})
    return msgspec.structs.replace(body, bant=msgspec.structs.replace(body.bant, need=need))


# The assembly.


def _assemble_contact(body: InquiryBody, points: ContactPoints, name: str, consent: Consent) -> Contact:
    phone, extension = (points.phone.e164, points.phone.extension) if points.phone else (None, None)
    email = points.email.address if points.email else None
    summary = mask_cards(clean_text(body.bant.need.summary or ""))
    return Contact(
        full_name=name,
        phone=phone,
        phone_extension=extension,
        email=email,
        street=masked_line(body.contact.street),
        postal_code=_line(body.contact.postal_code),
        country=points.country,
        summary=summary or None,
        consent=consent,
        metadata=dict(body.metadata),
    )


def _with_zone_of_phone(place: Place, phone: Phone | None) -> Place:
    """Return the place with a time zone: the postal area's, else the phone number's, which is a worse guess."""
    if place.time_zone or phone is None:
        return place
    return msgspec.structs.replace(place, time_zone=phone.time_zone)


def _signals(points: ContactPoints) -> Signals:
    disposable = points.email is not None and points.email.disposable
    signals = Signals(phone_type="other", email_disposable=disposable)
    return signals if points.phone is None else with_phone(signals, points.phone)


def with_phone(signals: Signals, phone: Phone) -> Signals:
    """Return the signals with those of a phone number."""
    return msgspec.structs.replace(
        signals, phone_type=phone.kind, phone_region=phone.region, phone_verification=phone.verification
    )


def _line(text: str | None) -> str | None:
    return clean_line(text or "") or None


def masked_line(text: str | None) -> str | None:
    """Return the person's own words in one line, with card numbers masked."""
    line = _line(text)
    return mask_cards(line) if line else None
