"""What a provider posts, and how it becomes facts for the rules and a contact to seal, or every reason why not.

The Structs say what each field may look like; `normalise` says what it must mean. Facts and contact part here: whatever
can name a person goes into `Contact` and never into `Facts`.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime
from typing import Annotated, Final

import msgspec
import phonenumbers
from msgspec import Meta

from marketplace.intake import contact as contacts
from marketplace.intake.contact import Consent, Contact, Email, PersonalData, Phone
from marketplace.intake.postal import PostalArea, has_known_areas, postal_key
from marketplace.text.characters import LONGEST_PHONE, clean_line, clean_text, is_visible, mask_cards
from marketplace.text.faults import Fault, FaultCode, pointer, read
from marketplace.text.values import Instant, Minor
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
    PhoneVerification,
    Place,
    Signals,
    Timing,
    Touch,
    check_budget,
    check_consent_proof,
    check_consent_time,
    check_need_fields,
    check_submitted_at,
    check_timing,
    check_touches,
    cut_query,
    first_address,
)
from routing.qualification import Dimension

MAXIMUM_KEYS: Final = 400
"Fifty touches of three fields each, and every other field at its limit, stay below this."

Short = Annotated[str, Meta(min_length=1, max_length=64)]
Line = Annotated[str, Meta(max_length=200)]
Url = Annotated[str, Meta(max_length=2_000)]
Integer = Annotated[int, Meta(ge=-(10**12), le=10**12)]
Pairs = Annotated[dict[Short, Line], Meta(max_length=20)]
Lines = Annotated[tuple[Line, ...], Meta(max_length=20)]


class ContactBody(PersonalData, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The person: a phone number and an e-mail address are required unless the vertical does without one of them."""

    full_name: Annotated[str, Meta(max_length=100)]
    phone: Annotated[str, Meta(max_length=LONGEST_PHONE)] | None = None
    email: Annotated[str, Meta(max_length=contacts.LONGEST_EMAIL)] | None = None
    street: Line | None = None
    postal_code: Annotated[str, Meta(max_length=20)] | None = None
    country: Annotated[str, Meta(min_length=2, max_length=2)] = "US"
    company_size: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    role: Annotated[str, Meta(max_length=100)] | None = None


class BudgetBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An amount in minor units, or a range from `minor` to `maximum_minor`."""

    minor: Minor
    currency: Annotated[str, Meta(min_length=3, max_length=3, pattern="^[A-Z]{3}$")]
    maximum_minor: Minor | None = None


class NeedBody(PersonalData, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the person wants: in their words, and in the vertical's typed fields."""

    summary: Annotated[str, Meta(max_length=2_000)] | None = None
    fields: Annotated[dict[Short, Line | Integer | bool], Meta(max_length=50)] = msgspec.field(default_factory=dict)


class TimingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Within so many days of submitting, or not before a date."""

    within_days: Annotated[int, Meta(ge=0, le=3_650)] | None = None
    not_before: date | None = None


class BantBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Budget, authority, need and timing, and how each is known; what is left out is unknown."""

    budget: BudgetBody | None = None
    authority: Authority | None = None
    need: NeedBody = NeedBody()
    timing: TimingBody | None = None
    evidence: dict[Dimension, EvidenceKind] = {}


class ConsentBody(PersonalData, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The proof of consent: the words shown, when they were agreed to, on which page."""

    text: Annotated[str, Meta(max_length=5_000)] = ""
    given_at: Instant
    page_url: Url | None = None
    ip: Annotated[str, Meta(max_length=500)] | None = None
    user_agent: Annotated[str, Meta(max_length=500)] | None = None
    locale: Annotated[str, Meta(max_length=35)] | None = None
    text_version: Line | None = None
    form_version: Line | None = None
    checked: bool | None = None
    purposes: Lines = ()
    channels: Lines = ()
    sellers: Lines = ()


class AttributionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the inquiry came from."""

    source: Line | None = None
    form: Line | None = None
    campaign: Line | None = None
    sub_ids: Pairs = {}


class TouchBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing the person did; the query string of an address in `detail` is cut."""

    kind: Annotated[str, Meta(min_length=1, max_length=40)]
    at: Instant
    detail: Url = ""


class InquiryBody(PersonalData, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/inquiries."""

    vertical: Short
    provider_reference: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    submitted_at: Instant | None = None
    contact: ContactBody
    bant: BantBody = BantBody()
    consent: ConsentBody | None = None
    attribution: AttributionBody = AttributionBody()
    touches: Annotated[tuple[TouchBody, ...], Meta(max_length=50)] = ()
    metadata: Pairs = msgspec.field(default_factory=dict)


class AcceptedInquiry(PersonalData, frozen=True, kw_only=True):
    """An inquiry that may be stored: facts to decide by, a contact to seal, and what tells a person apart.

    `fingerprints` are plain text: hash them with a secret and keep only that. `consent_sha256` covers the whole record
    of consent, so that it can be shown later not to have changed.
    """

    facts: Facts
    contact: Contact
    fingerprints: tuple[str, ...]
    provider_reference: str | None
    consent_given_at: datetime
    consent_sha256: bytes


def read_inquiry(raw: bytes) -> InquiryBody | tuple[Fault, ...]:
    """The posted bytes as a body, or everything that is wrong with their shape."""
    return read(raw, InquiryBody, maximum_keys=MAXIMUM_KEYS)


def lenient_rules(body: InquiryBody) -> IntakeRules:
    """Rules by which only that is wrong with an inquiry which is wrong in every vertical."""
    currency = body.bant.budget.currency if body.bant.budget else ""
    return IntakeRules(vertical=body.vertical, currency=currency, requires_phone=False, requires_email=False)


def without_needs(body: InquiryBody) -> InquiryBody:
    """The inquiry without answers to a vertical's own questions."""
    need = msgspec.structs.replace(body.bant.need, fields={})
    return msgspec.structs.replace(body, bant=msgspec.structs.replace(body.bant, need=need))


FindArea = Callable[[str, str], PostalArea | None]


def normalise(
    body: InquiryBody, rules: IntakeRules, *, mode: Mode, now: datetime, find_area: FindArea
) -> AcceptedInquiry | tuple[Fault, ...]:
    """The inquiry as the vertical accepts it, or everything that is wrong with its meaning.

    `find_area` takes a country and a postal code as people write them.
    """
    faults: list[Fault] = []
    country = body.contact.country.upper()
    phone, email = _reach(body.contact, country, rules, faults)
    area = _area(body.contact, country, rules, find_area, faults)
    name = mask_cards(clean_line(body.contact.full_name))
    if not is_visible(name):
        faults.append(_fault("/contact/full_name", "name_empty", "Send the person's name as they write it."))
    budget, timing = _budget(body.bant.budget), _timing(body.bant.timing)
    touches, touch_flaws = as_touches(body.touches, now)
    flaws = (*_flaws(body, rules, budget, timing, now), *touch_flaws)
    faults.extend(as_faults(flaws))
    if faults or body.consent is None:
        return tuple(faults)
    contact = _contact(body, body.consent, name, country, phone, email)
    facts = Facts(
        vertical=rules.vertical,
        mode=mode,
        submitted_at=_submitted_at(body, now),
        received_at=now,
        place=_place(body.contact, country, area, phone),
        signals=_signals(phone, email),
        budget=budget,
        authority=body.bant.authority,
        need_fields=dict(body.bant.need.fields),
        timing=timing,
        evidence={str(dimension): kind for dimension, kind in body.bant.evidence.items()},
        company_size=body.contact.company_size,
        role=_free_line(body.contact.role),
        source=body.attribution.source,
        form=body.attribution.form,
        campaign=body.attribution.campaign,
        sub_ids=dict(body.attribution.sub_ids),
        touches=touches,
    )
    return AcceptedInquiry(
        facts=facts,
        contact=contact,
        fingerprints=contacts.fingerprints(contact, mode),
        provider_reference=body.provider_reference,
        consent_given_at=contact.consent.given_at,
        consent_sha256=hashlib.sha256(msgspec.json.encode(contact.consent)).digest(),
    )


def as_touches(bodies: tuple[TouchBody, ...], now: datetime) -> tuple[tuple[Touch, ...], tuple[InquiryFault, ...]]:
    """Touches in order of time without anything that could name a person, and what is wrong with them."""
    touches = tuple(
        Touch(kind=clean_line(body.kind), at=_utc(body.at), detail=_touch_detail(body.detail)) for body in bodies
    )
    return tuple(sorted(touches, key=lambda touch: touch.at)), tuple(check_touches(touches, now))


def as_faults(flaws: Iterable[InquiryFault]) -> tuple[Fault, ...]:
    """What the rules found wrong, with places as callers know them."""
    return tuple(Fault(pointer=pointer(*flaw.path), code=flaw.code, detail=flaw.detail) for flaw in flaws)


def _touch_detail(text: str) -> str:
    """A detail as it is kept; one that is too long to be kept is refused, and not searched for card numbers first."""
    detail = cut_query(clean_line(text))
    return mask_cards(detail) if len(detail) <= LONGEST_TOUCH_DETAIL else detail


def _fault(place: str, code: str, detail: str) -> Fault:
    return Fault(pointer=place, code=code, detail=detail)


# What is wrong: the parts that need a library or a look-up, then the pure checks.


def _reach(
    contact: ContactBody, country: str, rules: IntakeRules, faults: list[Fault]
) -> tuple[Phone | None, Email | None]:
    """How the person can be reached; adds what is missing or invalid to `faults`."""
    if country not in phonenumbers.SUPPORTED_REGIONS:
        detail = "Send a country as its two letters in ISO 3166-1, such as US."
        faults.append(_fault("/contact/country", FaultCode.value_not_allowed, detail))
    phone = contacts.read_phone(contact.phone, country) if contact.phone else None
    if (
        isinstance(phone, Phone)
        and phone.verification is PhoneVerification.possible
        and not rules.accepts_possible_phones
    ):
        detail = "This vertical takes only numbers of published ranges: send another number of the person."
        phone = _fault("/contact/phone", "phone_invalid", detail)
    email = contacts.read_email(contact.email) if contact.email else None
    if phone is None and rules.requires_phone:
        faults.append(_fault("/contact/phone", FaultCode.field_missing, "This vertical requires a phone number."))
    if email is None and rules.requires_email:
        faults.append(_fault("/contact/email", FaultCode.field_missing, "This vertical requires an e-mail address."))
    if phone is None and email is None and not (rules.requires_phone or rules.requires_email):
        faults.append(_fault("/contact", FaultCode.field_missing, "Send a phone number or an e-mail address."))
    faults.extend(found for found in (phone, email) if isinstance(found, Fault))
    return (None if isinstance(phone, Fault) else phone), (None if isinstance(email, Fault) else email)


def _area(
    contact: ContactBody, country: str, rules: IntakeRules, find_area: FindArea, faults: list[Fault]
) -> PostalArea | None:
    area = find_area(country, contact.postal_code) if contact.postal_code else None
    if rules.requires_postal_code and not contact.postal_code:
        faults.append(_fault("/contact/postal_code", FaultCode.field_missing, "This vertical requires a postal code."))
    elif rules.requires_postal_code and area is None and has_known_areas(country):
        detail = "Send a postal code that exists in the contact's country, such as 60614."
        faults.append(_fault("/contact/postal_code", "postal_code_unknown", detail))
    return area


def _flaws(
    body: InquiryBody,
    rules: IntakeRules,
    budget: Budget | None,
    timing: Timing | None,
    now: datetime,
) -> Iterator[InquiryFault]:
    if body.submitted_at is not None:
        yield from check_submitted_at(body.submitted_at, now)
    if budget is not None:
        yield from check_budget(budget, rules.currency)
    if timing is not None:
        yield from check_timing(timing)
    yield from check_need_fields(body.bant.need.fields, rules.needs)
    if (consent := body.consent) is None:
        detail = "Send the proof that the person agreed to be contacted: text, given_at and page_url."
        yield InquiryFault(path=("consent",), code=InquiryFaultCode.consent_missing, detail=detail)
    else:
        text = consent.text if is_visible(consent.text) else ""
        yield from check_consent_proof(text, consent.page_url, consent.ip)
        yield from check_consent_time(consent.given_at, body.submitted_at, now)


# Once nothing is wrong.


def _contact(
    body: InquiryBody, consent: ConsentBody, name: str, country: str, phone: Phone | None, email: Email | None
) -> Contact:
    summary = body.bant.need.summary
    return Contact(
        full_name=name,
        phone=phone.e164 if phone else None,
        phone_extension=phone.extension if phone else None,
        email=email.address if email else None,
        street=_free_line(body.contact.street),
        postal_code=_line(body.contact.postal_code),
        country=country,
        summary=(mask_cards(clean_text(summary)) or None) if summary else None,
        consent=_consent(consent),
        metadata=dict(body.metadata),
    )


def _consent(consent: ConsentBody) -> Consent:
    """The words are kept exactly as shown: they are evidence."""
    return Consent(
        text=consent.text,
        given_at=consent.given_at.astimezone(UTC),
        page_url=consent.page_url or "",
        ip=first_address(consent.ip) if consent.ip is not None else None,
        user_agent=consent.user_agent,
        locale=consent.locale,
        text_version=consent.text_version,
        form_version=consent.form_version,
        checked=consent.checked,
        purposes=consent.purposes,
        channels=consent.channels,
        sellers=consent.sellers,
    )


def _place(contact: ContactBody, country: str, area: PostalArea | None, phone: Phone | None) -> Place:
    """The postal area's zone, else the phone number's: both are guesses, the first by far the better one."""
    code = postal_key(country, contact.postal_code)[1] if contact.postal_code else ""
    zone_of_phone = phone.time_zone if phone else None
    return Place(
        country=country,
        postal_code=code or None,
        region=area.region if area else None,
        latitude=area.latitude if area else None,
        longitude=area.longitude if area else None,
        time_zone=(area.time_zone if area else None) or zone_of_phone,
    )


def _signals(phone: Phone | None, email: Email | None) -> Signals:
    return Signals(
        phone_type=phone.kind if phone else "other",
        phone_region=phone.region if phone else None,
        phone_verification=phone.verification if phone else None,
        email_disposable=email.disposable if email else False,
    )


def _submitted_at(body: InquiryBody, now: datetime) -> datetime:
    return body.submitted_at.astimezone(UTC) if body.submitted_at else now


def _budget(budget: BudgetBody | None) -> Budget | None:
    if budget is None:
        return None
    return Budget(minor=budget.minor, currency=budget.currency, maximum_minor=budget.maximum_minor)


def _timing(timing: TimingBody | None) -> Timing | None:
    """An empty object says nothing, as if it had been left out."""
    if timing is None or (timing.within_days is None and timing.not_before is None):
        return None
    return Timing(within_days=timing.within_days, not_before=timing.not_before)


def _utc(moment: datetime) -> datetime:
    """The first and last hours of the calendar have no UTC form; they are refused for their age anyway."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return moment


def _line(text: str | None) -> str | None:
    return (clean_line(text) or None) if text else None


def _free_line(text: str | None) -> str | None:
    """One line of the person's own words, without card numbers."""
    line = _line(text)
    return mask_cards(line) if line else None
