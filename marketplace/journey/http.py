"""Provider's endpoints of one inquiry: its status, later touches of the person, and corrections."""

from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec
from litestar import get, patch, post
from litestar.di import Provide

from marketplace.intake.flow import Intake
from marketplace.intake.http import KEY, Inquiry, inquiry_view, load_inquiry, provide_intake, provide_lead_id
from marketplace.journey.flow import Journey, SentCorrection, TouchResult
from marketplace.journey.reading import read_later_touches
from marketplace.journey.shapes import MAXIMUM_KEYS, CorrectionBody, TouchesBody
from marketplace.runtime import clock
from marketplace.security.auth import Scope
from marketplace.text.faults import Fault
from marketplace.web.api import BodyProvider, Caller, Injected, api_router, require
from marketplace.web.http import AnyRequest, idempotency_key, parse, raw_body
from marketplace.web.openapi import RouteDoc
from routing.inquiry import IntakeRules


class InquiryWithTouches(Inquiry, frozen=True, kw_only=True):
    """Status of an inquiry after touches were sent, and the answer to each of them."""

    touches: tuple[TouchResult, ...]


def provide_journey(request: AnyRequest, lead_id: Injected[UUID]) -> Journey:
    """Return the application's journeys, once the lead's id is known."""
    journey: Journey = request.app.state.journey
    return journey


async def provide_touches(request: AnyRequest, journey: Injected[Journey]) -> TouchesBody:
    """Return the touches in the body. Raises the errors of `raw_body` and `parse`."""
    return parse(await raw_body(request), TouchesBody, _time_faults, maximum_keys=MAXIMUM_KEYS)


def _time_faults(body: TouchesBody) -> tuple[Fault, ...]:
    """Return the faults that need no vertical, of a body whose shape has faults."""
    plain = tuple(msgspec.structs.replace(touch, supplies=None) for touch in body.touches)
    touches = read_later_touches(plain, IntakeRules(vertical="", currency=""), clock.now())
    return tuple(fault for touch in touches for fault in touch.faults)


@get(
    "/inquiries/{inquiry_id:str}",
    tags=["inquiries"],
    dependencies={"caller": require(Scope.leads_write, even_suspended=True)},
)
async def show(caller: Caller, lead_id: Injected[UUID], intake: Injected[Intake]) -> Inquiry:
    """Shows where one inquiry stands: state, reasons, clock and payout, and for a waiting one the question to ask."""
    return await load_inquiry(intake, caller, lead_id)


@post(
    "/inquiries/{inquiry_id:str}/touches",
    tags=["inquiries"],
    dependencies={"caller": require(Scope.leads_write), "sent": BodyProvider(provide_touches, TouchesBody)},
)
async def add_touches(
    caller: Caller,
    lead_id: Injected[UUID],
    sent: Injected[TouchesBody],
    intake: Injected[Intake],
    journey: Injected[Journey],
) -> InquiryWithTouches:
    """Adds what the person did before or after the inquiry, each touch once; the lead is qualified again by it."""
    receipt = await journey.add_touches(caller, lead_id, sent.touches)
    view = inquiry_view(await intake.status(caller, lead_id))
    return InquiryWithTouches(**msgspec.structs.asdict(view), touches=receipt.results)


async def provide_correction(request: AnyRequest, journey: Injected[Journey]) -> SentCorrection:
    """Return the correction. Raises IdempotencyKeyInvalid and the errors of `raw_body` and `parse`."""
    key = idempotency_key(request)
    raw = await raw_body(request)
    return SentCorrection(body=parse(raw, CorrectionBody), request_sha256=sha256(raw).digest(), key=key)


@patch(
    "/inquiries/{inquiry_id:str}",
    tags=["inquiries"],
    dependencies={"caller": require(Scope.leads_write), "sent": BodyProvider(provide_correction, CorrectionBody)},
    doc=RouteDoc(query=(KEY,)),
)
async def correct(
    caller: Caller,
    lead_id: Injected[UUID],
    sent: Injected[SentCorrection],
    intake: Injected[Intake],
    journey: Injected[Journey],
) -> Inquiry:
    """Corrects answers or the contact of an inquiry; null removes an answer. The lead is qualified again by it.

    The history is kept. A business that was shown the lead is sent what has changed; from one that is just getting it,
    the lead is taken back.
    """
    await journey.correct(caller, lead_id, sent)
    return inquiry_view(await intake.status(caller, lead_id))


handlers: Final = (
    api_router(
        show,
        add_touches,
        correct,
        intake=Provide(provide_intake, sync_to_thread=False),
        journey=Provide(provide_journey, sync_to_thread=False),
        lead_id=Provide(provide_lead_id, sync_to_thread=False),
    ),
)
