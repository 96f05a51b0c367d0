"""HTTP API of receipts, for the lead's business, its provider and operators; the public key is for everybody."""

from typing import Final

from litestar import Response, get
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.receipts.flow import PublicKey, Receipt, Signer, issue
from marketplace.runtime import clock
from marketplace.security.auth import Scope
from marketplace.web.api import Caller, Injected, JsonAnswer, api_router, require
from marketplace.web.http import Services, path_id
from marketplace.web.openapi import RouteDoc
from marketplace.web.problems import Problem

READER: Final = require(Scope.leads_read, Scope.leads_write, Scope.operate, even_suspended=True)
"Caller who may have a part in a lead."


@get(
    "/leads/{lead_id:str}/receipt",
    tags=["leads"],
    dependencies={"caller": READER},
    doc=RouteDoc(answers={200: Receipt, 409: Problem}),
)
async def receipt(lead_id: FromPath[str], caller: Caller, services: Injected[Services]) -> Response[bytes]:
    """Returns the signed receipt of who was shown a lead; 409 until it was shown, and about a second longer."""
    lead_uuid, signer = path_id("lead", lead_id), Signer(services.settings.master_key)
    async with session(services.pool) as connection:
        signed = await issue(connection, signer, caller, lead_uuid, clock.now())
    return JsonAnswer(signed)


@get("/receipt-key", tags=["leads"], doc=RouteDoc(public=True))
async def receipt_key(services: Injected[Services]) -> PublicKey:
    """Returns the public key that verifies every receipt. This call needs no API key."""
    return Signer(services.settings.master_key).public


handlers: Final = (api_router(receipt, receipt_key),)
