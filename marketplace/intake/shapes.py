"""Shapes of what a provider sends: the body of an inquiry and its parts.

They bound the type, length and range of each field. `reading.py` checks the content.
"""

from datetime import date
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from marketplace.intake.contact import LONGEST_EMAIL, PersonalData
from marketplace.text.characters import LONGEST_PHONE
from marketplace.text.values import Instant, Minor
from routing.inquiry import Authority, Direction, EvidenceKind
from routing.qualification import Dimension

MAXIMUM_KEYS: Final = 800
"Keys of one body: fifty touches of ten fields each, with all other fields at their limits, stay below this."

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
    email: Annotated[str, Meta(max_length=LONGEST_EMAIL)] | None = None
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
    """The person's need: in their own words, and in the vertical's typed fields."""

    summary: Annotated[str, Meta(max_length=2_000)] | None = None
    fields: Annotated[dict[Short, Line | Integer | bool], Meta(max_length=50)] = msgspec.field(default_factory=dict)


class TimingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time of the need: within a number of days of submitting, or not before a date."""

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
    expires_at: Instant | None = None
    jurisdiction: Annotated[str, Meta(max_length=6)] | None = None
    certificates: Annotated[tuple[Line, ...], Meta(max_length=2)] = ()


class AttributionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Origin of the inquiry."""

    source: Line | None = None
    form: Line | None = None
    campaign: Line | None = None
    sub_ids: Pairs = {}


class AmountBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An amount in minor units."""

    minor: Minor
    currency: Annotated[str, Meta(min_length=3, max_length=3, pattern="^[A-Z]{3}$")]


class TouchBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing the person did; the query string of an address in `detail` is cut.

    `seconds` is the length of a call or a chat, `amount` that of a purchase, `starts_at` the time of an appointment. A
    touch with the `touch_id` of another, or without one with the same content, counts once.
    """

    kind: Annotated[str, Meta(min_length=1, max_length=40)]
    at: Instant
    detail: Url = ""
    direction: Direction | None = None
    seconds: Annotated[int, Meta(ge=0, le=86_400)] | None = None
    amount: AmountBody | None = None
    starts_at: Instant | None = None
    touch_id: Annotated[str, Meta(min_length=1, max_length=100)] | None = None


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
