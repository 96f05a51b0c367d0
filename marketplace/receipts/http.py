"""HTTP API of receipts, for the lead's business, its provider and operators; the public key is for everybody."""

from typing import Final

from litestar import MediaType, Response, get
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.receipts.flow import PublicKey, Receipt, Signer, issue
from marketplace.runtime import clock
from marketplace.security.auth import Scope
from marketplace.web.http import AnyRequest, answer, path_id, principal, services
from marketplace.web.openapi import RouteDoc
from marketplace.web.problems import Problem


@get("/v1/leads/{lead_id:str}/receipt", tags=["leads"], doc=RouteDoc(answers={200: Receipt, 409: Problem}))
async def receipt(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Returns the signed receipt of who was shown a lead; 409 until it was shown, and about a second longer."""
    caller = await principal(request, Scope.leads_read, Scope.leads_write, Scope.operate, even_suspended=True)
    lead_uuid, signer = path_id("lead", lead_id), Signer(services(request).settings.master_key)
    async with session(services(request).pool) as connection:
        signed = await issue(connection, signer, caller, lead_uuid, clock.now())
    return Response(signed, media_type=MediaType.JSON, headers={"Cache-Control": "no-store"})


@get("/v1/receipt-key", tags=["leads"], doc=RouteDoc(answers={200: PublicKey}, public=True))
async def receipt_key(request: AnyRequest) -> Response[bytes]:
    """Returns the public key that verifies every receipt. This call needs no API key."""
    return answer(Signer(services(request).settings.master_key).public)


handlers: Final = (receipt, receipt_key)
