"""Shapes of what a provider sends about a person after the inquiry: later touches, and corrections."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from marketplace.intake.contact import LONGEST_EMAIL, PersonalData
from marketplace.intake.shapes import BudgetBody, Integer, Line, Short, TimingBody, TouchBody
from marketplace.text.characters import LONGEST_PHONE
from routing.inquiry import Authority, EvidenceKind
from routing.qualification import Dimension

MAXIMUM_KEYS = 2_000
"Keys of one body: fifty touches that each supply ten answers stay below this."

NeedFields = Annotated[dict[Short, Line | Integer | bool], Meta(max_length=50)]


class SuppliedNeed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers to the vertical's questions about the need."""

    fields: NeedFields = msgspec.field(default_factory=dict)


class SuppliedAnswers(PersonalData, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers that a touch supplies. What is left out stays as it is. Without `evidence` the person stated them."""

    budget: BudgetBody | None = None
    authority: Authority | None = None
    need: SuppliedNeed = SuppliedNeed()
    timing: TimingBody | None = None
    evidence: dict[Dimension, EvidenceKind] = msgspec.field(default_factory=dict)
    company_size: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    role: Annotated[str, Meta(max_length=100)] | None = None


class LaterTouch(TouchBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing the person did after the inquiry, or before it, and the answers that it supplies."""

    supplies: SuppliedAnswers | None = None


class TouchesBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/inquiries/{id}/touches."""

    touches: Annotated[tuple[LaterTouch, ...], Meta(min_length=1, max_length=50)]


class CorrectedNeed(PersonalData, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers to the vertical's questions; null removes an answer."""

    fields: Annotated[dict[Short, Line | Integer | bool | None], Meta(max_length=50)] = msgspec.field(
        default_factory=dict
    )


class CorrectedBant(PersonalData, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Corrected budget, authority, need and timing. What is left out stays as it is; null removes it."""

    budget: BudgetBody | UnsetType | None = UNSET
    authority: Authority | UnsetType | None = UNSET
    need: CorrectedNeed = msgspec.field(default_factory=CorrectedNeed)
    timing: TimingBody | UnsetType | None = UNSET
    evidence: dict[Dimension, EvidenceKind] = msgspec.field(default_factory=dict)


class CorrectedContact(PersonalData, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Corrected details of the person. What is left out stays as it is; null removes what an inquiry may leave out.

    The postal code is one of the inquiry's country.
    """

    full_name: Annotated[str, Meta(max_length=100)] | UnsetType = UNSET
    phone: Annotated[str, Meta(min_length=1, max_length=LONGEST_PHONE)] | UnsetType = UNSET
    email: Annotated[str, Meta(min_length=1, max_length=LONGEST_EMAIL)] | UnsetType = UNSET
    street: Line | UnsetType | None = UNSET
    postal_code: Annotated[str, Meta(max_length=20)] | UnsetType | None = UNSET
    company_size: Annotated[int, Meta(ge=1, le=10_000_000)] | UnsetType | None = UNSET
    role: Annotated[str, Meta(max_length=100)] | UnsetType | None = UNSET


class CorrectionBody(PersonalData, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PATCH /v1/inquiries/{id}."""

    bant: CorrectedBant = msgspec.field(default_factory=CorrectedBant)
    contact: CorrectedContact = msgspec.field(default_factory=CorrectedContact)
