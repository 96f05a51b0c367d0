"""HTTP API of suppressions: people who do not want to be contacted are stored as keyed hashes and never sold again."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import post
from msgspec import Meta

from marketplace.directory import flow as directory_flow
from marketplace.directory.wire import OPERATOR, Name, fault, provide_configuration
from marketplace.intake.contact import (
    LONGEST_EMAIL,
    PersonalData,
    marks_of_email,
    marks_of_phone,
    read_email,
    read_phone,
)
from marketplace.runtime import errors
from marketplace.security.auth import Scope
from marketplace.text.characters import LONGEST_PHONE
from marketplace.text.faults import Fault, FaultCode
from marketplace.web.api import Caller, Injected, api_router, require
from marketplace.web.http import Services, path_id


class Person(PersonalData, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person, by phone, e-mail or both. A national phone number is read as one of `country`."""

    phone: Annotated[str, Meta(max_length=LONGEST_PHONE)] | None = None
    email: Annotated[str, Meta(max_length=LONGEST_EMAIL)] | None = None
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}$")] = "US"


class NewSuppression(Person, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/suppressions."""

    reason: Name


class SuppressionLift(Person, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/suppressions:lift: a person, or a provider and the time since which its own are lifted."""

    provider_id: str | None = None
    since: Annotated[datetime, Meta(tz=True)] | None = None
    reason: Name


class LiftResult(msgspec.Struct, frozen=True, kw_only=True):
    """Number of phone numbers and e-mail addresses whose suppression was lifted."""

    lifted: int


class SuppressionResult(msgspec.Struct, frozen=True, kw_only=True):
    """Confirmation of a suppression."""

    state: Literal["suppressed"] = "suppressed"


def marks_of(person: Person) -> tuple[str, ...]:
    """Return the person's marks (`phone:+1…`), in every form that intake compares. Raises InvalidInput."""
    faults: list[Fault] = []
    marks = tuple(_marks(person, faults))
    if faults:
        raise errors.InvalidInput(faults)
    return marks


def person_faults(person: Person) -> tuple[Fault, ...]:
    """Return the faults of a person's phone number and e-mail address."""
    faults: list[Fault] = []
    for _ in _marks(person, faults):
        pass
    return tuple(faults)


def _marks(person: Person, faults: list[Fault]) -> Iterator[str]:
    """Yield the person's marks, and append the faults of a missing or unreadable phone or e-mail to `faults`."""
    if person.phone is None and person.email is None:
        detail = "Send a phone number, an e-mail address or both."
        faults.append(Fault(pointer="", code=FaultCode.field_missing, detail=detail))
    if person.phone is not None:
        match read_phone(person.phone, person.country):
            case Fault(code=code, detail=detail):
                faults.append(Fault(pointer="/phone", code=code, detail=detail))
            case phone:
                yield from marks_of_phone(phone.e164)
    if person.email is not None:
        match read_email(person.email):
            case Fault(code=code, detail=detail):
                faults.append(Fault(pointer="/email", code=code, detail=detail))
            case email:
                yield from marks_of_email(email.address)


@post(
    "/suppressions",
    tags=["suppressions"],
    dependencies={
        "caller": require(Scope.operate, Scope.leads_write, mode="live"),
        "person": provide_configuration(NewSuppression, person_faults),
    },
)
async def suppress(caller: Caller, person: Injected[NewSuppression], services: Injected[Services]) -> SuppressionResult:
    """Records a person who must not be contacted. Only keyed hashes are stored.

    The answer is the same whether the person was suppressed before or not.
    """
    await directory_flow.suppress(services.pool, services.sealer, caller, marks_of(person), person.reason)
    return SuppressionResult()


@post(
    "/suppressions:lift",
    status_code=200,
    tags=["suppressions"],
    dependencies={"caller": OPERATOR, "person": provide_configuration(SuppressionLift)},
)
async def lift(caller: Caller, person: Injected[SuppressionLift], services: Injected[Services]) -> LiftResult:
    """Lifts the suppression of a person, or of all that one provider suppressed since a time. Operators only.

    For a mistake, or for a provider that suppressed people who did not ask for it. The reason is recorded.
    """
    pool, sealer = services.pool, services.sealer
    if person.provider_id is None:
        count = await directory_flow.lift_suppressions(
            pool, sealer, caller.key_id, person.reason, marks=marks_of(person)
        )
        return LiftResult(lifted=count)
    if person.phone is not None or person.email is not None or person.since is None:
        detail = "With a provider, send since when its suppressions are lifted, and no person."
        raise fault("/since", FaultCode.value_not_allowed, detail)
    count = await directory_flow.lift_suppressions(
        pool,
        sealer,
        caller.key_id,
        person.reason,
        provider_id=path_id("prov", person.provider_id),
        since=person.since,
    )
    return LiftResult(lifted=count)


handlers = (api_router(suppress, lift),)
