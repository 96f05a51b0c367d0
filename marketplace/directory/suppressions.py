"""Suppressions over HTTP: whoever asks not to be contacted is kept as a keyed hash and never shown to anybody again."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import Response, post
from msgspec import Meta

from marketplace import errors
from marketplace.auth import Scope
from marketplace.directory import flow
from marketplace.directory.wire import Name, configuration, fault, operator
from marketplace.faults import Code, Fault
from marketplace.http import AnyRequest, answer, path_id, principal, services
from marketplace.intake.contact import LONGEST_EMAIL, Private, marks_of_email, marks_of_phone, read_email, read_phone
from marketplace.openapi import Doc
from marketplace.text import LONGEST_PHONE


class Person(Private, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is meant, by phone, e-mail or both; a national phone number is read as one of `country`."""

    phone: Annotated[str, Meta(max_length=LONGEST_PHONE)] | None = None
    email: Annotated[str, Meta(max_length=LONGEST_EMAIL)] | None = None
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}$")] = "US"


class NewSuppression(Person, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/suppressions."""

    reason: Name


class LiftedSuppression(Person, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/suppressions:lift: a person, or a provider with the moment from which its own are lifted."""

    provider_id: str | None = None
    since: Annotated[datetime, Meta(tz=True)] | None = None
    reason: Name


class Lifted(msgspec.Struct, frozen=True, kw_only=True):
    """How many phone numbers and addresses may be sold again."""

    lifted: int


class Suppressed(msgspec.Struct, frozen=True, kw_only=True):
    """The person will be given to nobody."""

    state: Literal["suppressed"] = "suppressed"


@post("/v1/suppressions", tags=["suppressions"], doc=Doc(body=NewSuppression, answers={201: Suppressed}))
async def suppress(request: AnyRequest) -> Response[bytes]:
    """Records a person who is not to be contacted. Only a keyed hash is kept, and the answer repeats nothing.

    It is the same whether the person was known before or not.
    """
    caller = await principal(request, Scope.operate, Scope.leads_write)
    caller.demand_mode("live")
    wanted = await configuration(request, NewSuppression, person_faults)
    found = services(request)
    await flow.suppress(found.pool, found.sealer, caller, marks_of(wanted), wanted.reason)
    return answer(Suppressed(), 201)


@post(
    "/v1/suppressions:lift", status_code=200, tags=["suppressions"],
    doc=Doc(body=LiftedSuppression, answers={200: Lifted}),
)  # fmt: skip
async def lift(request: AnyRequest) -> Response[bytes]:
    """Lifts the suppression of a person, or of all that one provider suppressed since a moment. Operators only.

    For a mistake, or for a provider that suppressed people who did not ask for it. The reason is kept.
    """
    caller = await operator(request)
    wanted = await configuration(request, LiftedSuppression)
    found = services(request)
    if wanted.provider_id is None:
        count = await flow.lift_suppressions(
            found.pool, found.sealer, caller.key_id, wanted.reason, marks=marks_of(wanted)
        )
        return answer(Lifted(lifted=count))
    if wanted.phone is not None or wanted.email is not None or wanted.since is None:
        detail = "With a provider send the moment from which its suppressions are lifted, and no person."
        raise fault("/since", Code.value_not_allowed, detail)
    count = await flow.lift_suppressions(
        found.pool, found.sealer, caller.key_id, wanted.reason, provider_id=path_id("prov", wanted.provider_id),
        since=wanted.since,
    )  # fmt: skip
    return answer(Lifted(lifted=count))


def marks_of(person: Person) -> tuple[str, ...]:
    """Return what the person is known by, in every spelling that intake compares. Raises InvalidInput."""
    faults: list[Fault] = []
    marks = tuple(_marks(person, faults))
    if faults:
        raise errors.InvalidInput(faults)
    return marks


def person_faults(person: Person) -> tuple[Fault, ...]:
    """All that is wrong with how a person is named."""
    faults: list[Fault] = []
    for _ in _marks(person, faults):
        pass
    return tuple(faults)


def _marks(wanted: Person, faults: list[Fault]) -> Iterator[str]:
    """What cannot be read goes to `faults`."""
    if wanted.phone is None and wanted.email is None:
        detail = "Send a phone number, an e-mail address or both."
        faults.append(Fault(pointer="", code=Code.field_missing, detail=detail))
    if wanted.phone is not None:
        match read_phone(wanted.phone, wanted.country):
            case Fault(code=code, detail=detail):
                faults.append(Fault(pointer="/phone", code=code, detail=detail))
            case phone:
                yield from marks_of_phone(phone.e164)
    if wanted.email is not None:
        match read_email(wanted.email):
            case Fault(code=code, detail=detail):
                faults.append(Fault(pointer="/email", code=code, detail=detail))
            case email:
                yield from marks_of_email(email.address)


handlers = (suppress, lift)
