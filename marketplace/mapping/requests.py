"""Build the request of a mapped endpoint: its body, its headers, and what proves who sends it."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from marketplace.mapping.shapes import (
    CONTENT_TYPES,
    BasicLogin,
    BearerToken,
    ClientCredentials,
    Credentials,
    HeaderKey,
    RequestMapping,
    header_faults,
)
from marketplace.mapping.template import TemplateFault, compile_template
from marketplace.mapping.variables import EXAMPLE_CONTACTS, EXAMPLES, MappedLead, read_variables
from marketplace.text.faults import Fault, FaultCode
from marketplace.webhook.transport import WebhookMessage


def mapping_faults(mapping: RequestMapping, credentials: Credentials | None) -> Iterator[Fault]:
    """Yield the faults of a mapping: of its headers, and of its template on a full, a sparse and a hostile lead."""
    yield from header_faults(mapping, credentials)
    try:
        template = compile_template(mapping.format, mapping.body)
        for example in EXAMPLES:
            template.render(example)
    except TemplateFault as fault:
        yield Fault(pointer="/body", code=FaultCode.value_not_allowed, detail=str(fault))


def try_on_facts(mapping: RequestMapping, lead: MappedLead) -> None:
    """Render the body with the facts of a lead and invented contacts. Raises TemplateFault.

    It is called before the contact is read, so that a lead whose template fails may go to another business.
    """
    template = compile_template(mapping.format, mapping.body)
    for contact in EXAMPLE_CONTACTS:
        template.render(read_variables(lead, contact))


def render_body(mapping: RequestMapping, lead: MappedLead, contact: Mapping[str, Any]) -> bytes:
    """Return the body for a lead. Raises TemplateFault."""
    return compile_template(mapping.format, mapping.body).render(read_variables(lead, contact))


def build_request(
    mapping: RequestMapping, body: bytes, signature: Mapping[str, str], authorization: tuple[tuple[str, str], ...]
) -> WebhookMessage:
    """Return the message with the headers of the mapping, our signature and the authorization."""
    headers = (
        *signature.items(),
        ("content-type", CONTENT_TYPES[mapping.format]),
        *((header.name, header.value) for header in mapping.headers),
        *authorization,
    )
    return WebhookMessage(headers=headers, body=body, method=mapping.method)


def authorize(credentials: Credentials | None, token: str | None = None) -> tuple[tuple[str, str], ...]:
    """Return the headers that prove who sends the request; `token` is the one fetched for a client."""
    match credentials:
        case None:
            return ()
        case BearerToken(token=bearer):
            return (("authorization", f"Bearer {bearer}"),)
        case BasicLogin(user=user, password=password):
            login = base64.b64encode(f"{user}:{password}".encode()).decode()
            return (("authorization", f"Basic {login}"),)
        case HeaderKey(header=header, key=key):
            return ((header, key),)
        case ClientCredentials(scheme=scheme):
            return () if token is None else (("authorization", f"{scheme} {token}"),)
