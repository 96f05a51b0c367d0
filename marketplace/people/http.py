"""HTTP API of a person's own data, for operators: the export that answers a request for access."""

from typing import Final

from litestar import Response, post

from marketplace.directory.suppressions import Person, marks_of, person_faults
from marketplace.directory.wire import Name, provide_configuration
from marketplace.people.flow import PersonExport, encode_export, export_person
from marketplace.security.auth import Scope
from marketplace.web.api import Caller, Injected, JsonAnswer, api_router, require
from marketplace.web.http import Services
from marketplace.web.openapi import RouteDoc


class AccessRequest(Person, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/people:export: a person by phone, e-mail or both, and the reason for the audit trail."""

    reason: Name


@post(
    "/people:export",
    status_code=200,
    tags=["people"],
    dependencies={
        "caller": require(Scope.operate, mode="live"),
        "person": provide_configuration(AccessRequest, person_faults),
    },
    doc=RouteDoc(answers={200: PersonExport}),
)
async def export(caller: Caller, person: Injected[AccessRequest], services: Injected[Services]) -> Response[bytes]:
    """Returns all that is held about a person: inquiries, who was shown them, decisions, notices and suppressions.

    Operators only. Each contact in it is a reveal, which is recorded with the reason.
    """
    exported = await export_person(services.pool, services.sealer, caller.key_id, marks_of(person), person.reason)
    return JsonAnswer(encode_export(exported))


handlers: Final = (api_router(export),)
