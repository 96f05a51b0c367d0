"""Requests of mapped endpoints: all that may fail is done before the exposure, so that the lead may go elsewhere."""

from typing import Any

import msgspec

from marketplace.delivery.store import DeliveryCase
from marketplace.mapping.requests import authorize, render_body, try_on_facts
from marketplace.mapping.shapes import ClientCredentials, Credentials, RequestMapping
from marketplace.mapping.template import TemplateFault
from marketplace.mapping.tokens import AccessTokens
from marketplace.mapping.variables import MappedLead
from marketplace.runtime import ids
from marketplace.runtime.log import logger
from marketplace.security.sealing import Sealer
from marketplace.webhook.address import AddressRules
from marketplace.webhook.kept import KeptConnections
from routing.delivery import AnswerReceived, NotSent, NotSentReason, Observation

log = logger("mapped")


class PreparedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose template was tried on the lead's facts, with the headers that prove who sends it."""

    mapping: RequestMapping
    lead: MappedLead
    authorization: tuple[tuple[str, str], ...]
    client: ClientCredentials | None


class MappedRequests:
    """Prepares the requests of mapped endpoints.

    Their connections are apart from those of plain webhooks. An award may reserve a plain one and expose its lead; the
    lead of a mapped endpoint is exposed only after its template was tried.
    """

    def __init__(self, sealer: Sealer, guard: AddressRules, *, keeps_connections: bool) -> None:
        self._sealer = sealer
        self._tokens = AccessTokens(guard)
        self.connections = KeptConnections() if keeps_connections else None

    def close(self) -> None:
        """Close the idle connections."""
        if self.connections is not None:
            self.connections.close()

    async def prepare(self, case: DeliveryCase, mapping: RequestMapping) -> PreparedRequest | NotSent:
        """Try the template on the facts of the lead, fetch a token if one is needed, and return the request."""
        lead = describe_lead(case)
        try:
            try_on_facts(mapping, lead)
        except TemplateFault as fault:
            log.warning("mapping_failed", endpoint=ids.encode("whe", case.endpoint_id), error=str(fault))
            return NotSent(reason=NotSentReason.mapping_failed, detail=str(fault))
        credentials = open_credentials(self._sealer, case)
        client, token = None, None
        if isinstance(credentials, ClientCredentials):
            client, token = credentials, await self._tokens.find(credentials)
            if token is None:
                return NotSent(reason=NotSentReason.authorization_failed, detail="the server gave no token")
        return PreparedRequest(mapping=mapping, lead=lead, authorization=authorize(credentials, token), client=client)

    def note_answer(self, request: PreparedRequest, observation: Observation) -> None:
        """Drop the token of a client if the endpoint did not accept it, so that the next attempt fetches another."""
        if request.client is not None and isinstance(observation, AnswerReceived) and observation.status == 401:
            self._tokens.drop(request.client)


def render_request(request: PreparedRequest, contact: bytes) -> bytes | None:
    """Return the body with the contact, or None if the template fails after all: the same business is tried again."""
    fields: dict[str, Any] = msgspec.json.decode(contact)
    try:
        return render_body(request.mapping, request.lead, fields)
    except TemplateFault as fault:
        log.error("mapping_failed", assignment=request.lead.assignment_id, error=str(fault))
        return None


def open_credentials(sealer: Sealer, case: DeliveryCase) -> Credentials | None:
    """Return the credentials of the endpoint, or None if it has none."""
    if case.credentials is None:
        return None
    plain = sealer.open_credentials(case.endpoint_id, case.credentials)
    credentials: Credentials = msgspec.json.decode(plain, type=Credentials)
    return credentials


def describe_lead(case: DeliveryCase) -> MappedLead:
    """Return all of the lead that a template may use, except the contact."""
    return MappedLead(
        lead_id=ids.encode("lead", case.lead_id),
        assignment_id=ids.encode("asg", case.assignment_id),
        mode=case.mode,
        awarded_at=case.awarded_at,
        price_minor=case.price_minor,
        currency=case.currency,
        facts=case.facts,
    )
