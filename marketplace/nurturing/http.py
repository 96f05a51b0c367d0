"""Provider's endpoint for giving back a waiting lead."""

from typing import Final
from uuid import UUID

from litestar import post
from litestar.di import Provide

from marketplace.intake.flow import Intake
from marketplace.intake.http import Inquiry, inquiry_view, provide_intake, provide_lead_id
from marketplace.nurturing.flow import give_back as give_back_lead
from marketplace.security.auth import Scope
from marketplace.web.api import Caller, Injected, api_router, require
from marketplace.web.http import AnyRequest, services


@post(
    "/inquiries/{inquiry_id:str}/give-back",
    status_code=200,
    tags=["inquiries"],
    dependencies={"caller": require(Scope.leads_write)},
)
async def give_back(request: AnyRequest, caller: Caller, lead_id: Injected[UUID], intake: Injected[Intake]) -> Inquiry:
    """Ends a waiting lead before its time: it expires, and its person may ask again. Repeating it changes nothing."""
    await give_back_lead(services(request).pool, caller, lead_id)
    return inquiry_view(await intake.status(caller, lead_id))


handlers: Final = (
    api_router(
        give_back,
        intake=Provide(provide_intake, sync_to_thread=False),
        lead_id=Provide(provide_lead_id, sync_to_thread=False),
    ),
)
