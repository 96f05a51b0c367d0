"""Suppressions over HTTP: whoever asks not to be contacted is kept as a keyed hash and never shown to anybody again."""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from litestar import Response, post
from msgspec import Meta

from marketplace import errors
from marketplace.auth import Scope
from marketplace.directory import flow
from marketplace.directory.wire import Name, configuration
from marketplace.faults import Code, Fault
from marketplace.http import AnyRequest, answer, principal, services
from marketplace.intake.contact import Private, marks_of_email, marks_of_phone, read_email, read_phone
from marketplace.openapi import Doc
from marketplace.text import LONGEST_PHONE


class Person(Private, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is meant, by phone, e-mail or both; a national phone number is read as one of `country`."""

    phone: Annotated[str, Meta(max_length=LONGEST_PHONE)] | None = None
    email: Annotated[str, Meta(max_length=254)] | None = None
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}$")] = "US"


class NewSuppression(Person, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/suppressions."""

    reason: Name


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
    wanted = await configuration(request, NewSuppression)
    found = services(request)
    await flow.suppress(found.pool, found.sealer, caller, marks_of(wanted), wanted.reason)
    return answer(Suppressed(), 201)


def marks_of(person: Person) -> tuple[str, ...]:
    """Return what the person is known by, in every spelling that intake compares. Raises InvalidInput."""
    faults: list[Fault] = []
    marks = tuple(_marks(person, faults))
    if faults:
        raise errors.InvalidInput(faults)
    return marks


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


handlers = (suppress,)
