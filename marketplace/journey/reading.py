"""Reading of later touches and of corrections: each is accepted, or has all the faults of its content."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET

from marketplace.intake.contact import PersonalData, marks_of_email, marks_of_phone, read_email
from marketplace.intake.postal import PostalArea
from marketplace.intake.reading import (
    Faults,
    masked_line,
    read_accepted_phone,
    read_budget,
    read_name,
    read_place,
    read_timing,
    read_touch,
    with_phone,
)
from marketplace.journey.shapes import CorrectedContact, CorrectionBody, LaterTouch, SuppliedAnswers
from marketplace.text.faults import Fault, pointer
from routing.inquiry import (
    Facts,
    InquiryFault,
    InquiryFaultCode,
    IntakeRules,
    Place,
    Signals,
    Touch,
    check_budget,
    check_need_values,
    check_timing,
    check_touches,
)
from routing.journey import NEED_PREFIX, Supplied, supplied_values


class ReadTouch(msgspec.Struct, frozen=True, kw_only=True):
    """A touch as it would be stored, with what it supplies and the faults of its content."""

    touch: Touch
    supplies: Supplied
    faults: tuple[Fault, ...]


def read_later_touches(bodies: Iterable[LaterTouch], rules: IntakeRules, now: datetime) -> tuple[ReadTouch, ...]:
    """Return the touches in their order, by the currency and the questions of the vertical."""
    return tuple(_read(position, body, rules, now) for position, body in enumerate(bodies))


def _read(position: int, body: LaterTouch, rules: IntakeRules, now: datetime) -> ReadTouch:
    touch = read_touch(body)
    supplies = Supplied() if body.supplies is None else read_supplied(body.supplies)
    flaws = [(("touches", position, *flaw.path[2:]), flaw) for flaw in check_touches((touch,), now)]
    flaws += [(("touches", position, "supplies", *flaw.path[1:]), flaw) for flaw in check_supplied(supplies, rules)]
    return ReadTouch(
        touch=touch,
        supplies=supplies,
        faults=tuple(Fault(pointer=pointer(*path), code=flaw.code, detail=flaw.detail) for path, flaw in flaws),
    )


def read_supplied(answers: SuppliedAnswers) -> Supplied:
    """Return the answers as they are stored."""
    return Supplied(
        budget=read_budget(answers.budget),
        authority=answers.authority,
        need_fields=dict(answers.need.fields),
        timing=read_timing(answers.timing),
        evidence={str(dimension): kind for dimension, kind in answers.evidence.items()},
        company_size=answers.company_size,
        role=masked_line(answers.role),
    )


def check_supplied(supplies: Supplied, rules: IntakeRules) -> Iterator[InquiryFault]:
    """Check answers by the currency and the questions of the vertical. Paths begin with `bant`, as in an inquiry."""
    if supplies.budget is not None:
        yield from check_budget(supplies.budget, rules.currency)
    if supplies.timing is not None:
        yield from check_timing(supplies.timing)
    yield from check_need_values(supplies.need_fields, rules.needs)


class ReadCorrection(PersonalData, frozen=True, kw_only=True):
    """A correction as it would be stored: answers that replace the earlier ones, and names of those that it removes.

    `place` is that of a corrected postal code. `contact` are the corrected fields of `Contact`. `marks` identify the
    person in plain text, by a corrected phone number or e-mail address: store only their keyed hashes.
    """

    supplies: Supplied
    clears: tuple[str, ...]
    signals: Signals | None
    place: Place | None
    contact: dict[str, str | None]
    marks: tuple[str, ...]
    faults: tuple[Fault, ...]

    @property
    def is_empty(self) -> bool:
        """True if it corrects nothing."""
        return not (supplied_values(self.supplies) or self.clears or self.contact)


def read_correction(
    body: CorrectionBody, facts: Facts, rules: IntakeRules, area: PostalArea | None = None
) -> ReadCorrection:
    """Read a correction of a lead with these facts, by the currency and the questions of its vertical.

    `area` is the postal area of a corrected code, None if the code has none.
    """
    supplies, clears = _read_answers(body)
    faults = [
        Fault(pointer=pointer(*flaw.path), code=flaw.code, detail=flaw.detail)
        for flaw in check_supplied(supplies, rules)
    ]
    faults += [
        Fault(
            pointer=pointer("bant", "need", "fields", name),
            code=InquiryFaultCode.need_field_missing,
            detail="This vertical requires it: send another answer.",
        )
        for name, field in rules.needs.items()
        if field.required and NEED_PREFIX + name in clears
    ]
    contact, marks, signals, contact_faults = _read_contact(body.contact, facts, rules)
    place = _read_place(body.contact, facts.place, rules, area)
    if isinstance(place, tuple):
        contact_faults += place
        place = None
    return ReadCorrection(
        supplies=supplies,
        clears=clears,
        signals=signals,
        place=place,
        contact=contact,
        marks=marks,
        faults=(*faults, *contact_faults),
    )


def _read_answers(body: CorrectionBody) -> tuple[Supplied, tuple[str, ...]]:
    """Return the corrected answers, and the names of the removed ones."""
    bant, contact = body.bant, body.contact
    sent: dict[str, Any] = {
        "budget": bant.budget,
        "authority": bant.authority,
        "timing": bant.timing,
        "company_size": contact.company_size,
        "role": contact.role,
    } | {NEED_PREFIX + name: value for name, value in bant.need.fields.items()}
    supplies = Supplied(
        budget=read_budget(bant.budget or None),
        authority=bant.authority or None,
        need_fields={name: value for name, value in bant.need.fields.items() if value is not None},
        timing=read_timing(bant.timing or None),
        evidence={str(dimension): kind for dimension, kind in bant.evidence.items()},
        company_size=contact.company_size or None,
        role=masked_line(contact.role or None),
    )
    return supplies, tuple(name for name, value in sent.items() if value is None)


def _read_contact(
    contact: CorrectedContact, facts: Facts, rules: IntakeRules
) -> tuple[dict[str, str | None], tuple[str, ...], Signals | None, list[Fault]]:
    """Return the corrected fields of the contact, the marks of the person, the signals, and all faults."""
    fields: dict[str, str | None] = {}
    faults: list[Fault] = []
    marks: tuple[str, ...] = ()
    signals = facts.signals
    if contact.full_name is not UNSET:
        name = read_name(contact.full_name)
        if isinstance(name, tuple):
            faults += name
        else:
            fields["full_name"] = name
    if contact.phone is not UNSET:
        phone = read_accepted_phone(contact.phone, facts.place.country, rules)
        if isinstance(phone, Fault):
            faults.append(phone)
        elif phone is not None:
            fields |= {"phone": phone.e164, "phone_extension": phone.extension}
            marks += marks_of_phone(phone.e164)
            signals = with_phone(signals, phone)
    if contact.email is not UNSET:
        email = read_email(contact.email)
        if isinstance(email, Fault):
            faults.append(email)
        else:
            fields["email"] = email.address
            marks += marks_of_email(email.address)
            signals = msgspec.structs.replace(signals, email_disposable=email.disposable)
    if contact.street is not UNSET:
        fields["street"] = masked_line(contact.street)
    if contact.postal_code is not UNSET:
        fields["postal_code"] = masked_line(contact.postal_code)
    return fields, marks, None if signals == facts.signals else signals, faults


def _read_place(
    contact: CorrectedContact, place: Place, rules: IntakeRules, area: PostalArea | None
) -> Place | Faults | None:
    """Return the place of a corrected postal code, or its faults; None without one.

    Where the code has no time zone, that of the phone number stays.
    """
    if contact.postal_code is UNSET:
        return None
    corrected = read_place(place.country, contact.postal_code, rules, area)
    if isinstance(corrected, tuple):
        return corrected
    return msgspec.structs.replace(corrected, time_zone=corrected.time_zone or place.time_zone)
