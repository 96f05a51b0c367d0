"""Receipts over HTTP: for the business that was shown the lead, for its provider, for operators; the key for all."""

from typing import Final

from litestar import MediaType, Response, get
from litestar.params import FromPath

from marketplace import clock
from marketplace.auth import Scope
from marketplace.db import session
from marketplace.http import AnyRequest, answer, path_id, principal, services
from marketplace.openapi import Doc
from marketplace.problems import Problem
from marketplace.receipts.flow import PublicKey, Receipt, Signer, issue


@get("/v1/leads/{lead_id:str}/receipt", tags=["leads"], doc=Doc(answers={200: Receipt, 409: Problem}))
async def receipt(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Gives the signed receipt of who was shown a lead; 409 until somebody was, and for a second more."""
    caller = await principal(request, Scope.leads_read, Scope.leads_write, Scope.operate, even_suspended=True)
    wanted, signer = path_id("lead", lead_id), Signer(services(request).settings.master_key)
    async with session(services(request).pool) as connection:
        signed = await issue(connection, signer, caller, wanted, clock.now())
    return Response(signed, media_type=MediaType.JSON, headers={"Cache-Control": "no-store"})


@get("/v1/receipt-key", tags=["leads"], doc=Doc(answers={200: PublicKey}, public=True))
async def receipt_key(request: AnyRequest) -> Response[bytes]:
    """Gives the public key that every receipt can be checked with. No key is needed to ask."""
    return answer(Signer(services(request).settings.master_key).public)


handlers: Final = (receipt, receipt_key)
