"""Endpoints of the comparison with shared leads: the report, and assumptions about shared leads."""

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get, put
from msgspec import Meta

from billing.findings import SourceFigures
from billing.intervals import Figure
from marketplace.database.db import Pool, transaction
from marketplace.directory.wire import BUSINESS, SLUG, Currency, Name, Slug, fault, reach_of
from marketplace.reports import roi
from marketplace.reports.question import DATE, Question, read_question
from marketplace.reports.roi import RoiReport, ShareFault, StatedShare, load_roi, save_assumption
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.security.auth import CallerKind, Principal, Scope
from marketplace.text.faults import Fault, FaultCode
from marketplace.text.spreadsheet import cell
from marketplace.text.values import MOST_MINOR
from marketplace.web.api import Caller, Injected, api_router, provide_body, require
from marketplace.web.http import AnyRequest, Services, wants_csv
from marketplace.web.openapi import QueryParameter, RouteDoc, id_of
from routing.currency import MINOR_DIGITS

Minor = Annotated[int, Meta(ge=1, le=MOST_MINOR)]

MOST_LEADS: Final = 10_000_000
MOST_WEEKS: Final = 104
ASKED: Final = (
    QueryParameter(name="from", about="First day; default: 180 days before `to`.", schema=DATE),
    QueryParameter(name="to", about="Last day; default: today. At most 400 days.", schema=DATE),
    QueryParameter(name="zone", about="IANA time zone of the days; default: UTC."),
    QueryParameter(
        name="basis",
        about="Time that puts a lead on its day: `received`, when its business received it.",
        schema={"type": "string", "enum": ["received"]},
    ),
    QueryParameter(
        name="vertical", about="One vertical only, by its slug.", schema={"type": "string", "pattern": SLUG}
    ),
    QueryParameter(
        name="currency",
        about="Default: the currency of the wallet, or of most leads.",
        schema={"type": "string", "pattern": "^[A-Z]{3}$"},
    ),
    QueryParameter(
        name="format",
        about="`csv` for a file; `Accept: text/csv` does the same.",
        schema={"type": "string", "enum": ["csv"]},
    ),
    QueryParameter(name="business_id", about="One business only; for operators.", schema=id_of("biz")),
)


class AssumptionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cost, win rate and job value of shared leads, and the cost of working on any lead. `source` names their origin.

    The win rate is best sent as it was counted: `shared_won` of `shared_leads` leads were won within `shared_weeks`
    weeks of their arrival. A bare `shared_win_rate` is shown, but no verdict rests on it. `copies` is the number of
    businesses to which one shared lead is sold. It is shown, and no figure uses it.
    """

    source: Name
    currency: Currency
    vertical: Slug | None = None
    shared_cost_minor: Minor | None = None
    shared_win_rate: Annotated[float, Meta(gt=0, le=1)] | None = None
    shared_leads: Annotated[int, Meta(ge=1, le=MOST_LEADS)] | None = None
    shared_won: Annotated[int, Meta(ge=1, le=MOST_LEADS)] | None = None
    shared_weeks: Annotated[int, Meta(ge=1, le=MOST_WEEKS)] | None = None
    shared_value_minor: Minor | None = None
    copies: Annotated[float, Meta(ge=1, le=1_000)] | None = None
    labour_minor: Annotated[int, Meta(ge=0, le=MOST_MINOR)] = 0


class AssumptionView(msgspec.Struct, frozen=True, kw_only=True):
    """A saved assumption. Without a business it is the operator's benchmark."""

    business_id: str | None
    source: str
    currency: str
    vertical: str | None
    shared_cost_minor: int | None
    shared_win_rate: float | None
    shared_leads: int | None
    shared_won: int | None
    shared_weeks: int | None
    shared_value_minor: int | None
    copies: float | None
    labour_minor: int
    made_at: datetime


@get(
    "/reports/roi",
    tags=["reports"],
    dependencies={"caller": require(Scope.operate, Scope.leads_read, even_suspended=True, mode="live")},
    doc=RouteDoc(answers={200: (RoiReport, "text/csv")}, query=ASKED),
)
async def show_roi(request: AnyRequest, caller: Caller, services: Injected[Services]) -> RoiReport | Response[bytes]:
    """Compares exclusive with shared leads: of one business, or for operators of all. Live leads only.

    The answer has intervals, the data it rests on, and a sentence that claims no more than the data supports.
    """
    report = await load_roi(services.reports, _question(request, caller), _currency(request))
    return _file(report) if wants_csv(request) else report


def _question(request: AnyRequest, caller: Principal) -> Question:
    parameters = {name: str(request.query_params[name]) for name in request.query_params}
    if parameters.get("mode", "live") != "live":
        raise fault("/mode", FaultCode.value_not_allowed, "Only live leads are paid for and compared.")
    if parameters.get("basis", "received") != "received":
        raise fault("/basis", FaultCode.value_not_allowed, "Ask by received: when the business got the lead.")
    question = read_question(parameters, clock.now())
    business_id = reach_of(caller, parameters.get("business_id")).business_id
    question = msgspec.structs.replace(question, business_id=business_id, vertical=parameters.get("vertical"))
    return question if "from" in parameters else roi.usual(question)


def _currency(request: AnyRequest) -> str | None:
    text = request.query_params.get("currency")
    if text is not None and text not in MINOR_DIGITS:
        raise fault(
            "/currency", FaultCode.value_not_allowed, "Name a currency in use by its three letters, such as USD."
        )
    return text


def _file(report: RoiReport) -> Response[bytes]:
    """Return the figures as a CSV file: one line each, with its interval."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(("about", "figure", "value", "low", "high"))
    for about, name, value in _lines(report):
        parts = (value.value, value.low, value.high) if isinstance(value, Figure) else (value, None, None)
        writer.writerow([part if isinstance(part, float) else cell(part) for part in (about, name, *parts)])
    headers = {"Cache-Control": "no-store", "Content-Disposition": 'attachment; filename="roi.csv"'}
    return Response(out.getvalue().encode(), media_type="text/csv", headers=headers)


def _lines(report: RoiReport) -> Iterator[tuple[str, str, Any]]:
    answer = report.answer
    yield "report", "basis", report.basis.words
    yield "report", "currency", report.currency
    yield "answer", answer.verdict.value, answer.sentence
    if report.early is not None:
        yield "early", "win_rate", report.early.share
        yield "early", "others_win_rate", report.early.others_share
        yield "early", "", report.early.sentence
    for case in answer.prices:
        yield f"price {case.change:+.0%}", case.verdict.value, case.sentence
    for source, figures in (("exclusive", answer.exclusive), ("shared", answer.shared)):
        if figures is not None:
            for name in SourceFigures.__struct_fields__:
                value = getattr(figures, name)
                yield source, name, value if not isinstance(value, str) else str(value)
    yield "comparison", "revenue_ratio", answer.ratio
    if answer.break_even is not None:
        yield "comparison", "price_ratio", answer.break_even.price_ratio
        yield "comparison", "win_ratio", answer.break_even.win_ratio
        yield "comparison", "break_even_price_minor", answer.break_even.price_minor
    if answer.matched is not None:
        yield "matched", "overlap", answer.matched.overlap
        yield "matched", "revenue_ratio", answer.matched.ratio
    for band in answer.speed.bands if answer.speed else ():
        yield "contacted within", band.band, band.win_rate
    for stratum in report.strata:
        yield "stratum", f"{stratum.vertical} {stratum.area} exclusive", stratum.exclusive
        yield "stratum", f"{stratum.vertical} {stratum.area} shared", stratum.shared
    for note in answer.notes:
        yield "note", "", note


_TOGETHER: Final = "Send shared_leads, shared_won and shared_weeks together: won how many of how many, within how long."
_BOTH: Final = "Send cost and win rate together: neither can be used alone."


def _share_of(assumption: AssumptionBody) -> StatedShare:
    return StatedShare(**{name: getattr(assumption, name) for name in StatedShare.__struct_fields__})


def _share_faults(assumption: AssumptionBody) -> tuple[Fault, ...]:
    """Return the fault of the stated cost and share, with its place and a sentence; () without one."""
    fault = _share_of(assumption).fault()
    if fault is None:
        return ()
    name, kind = fault
    code, detail = {
        ShareFault.missing: (
            FaultCode.field_missing,
            _BOTH if name in ("shared_cost_minor", "shared_win_rate") else _TOGETHER,
        ),
        ShareFault.stated_twice: (
            FaultCode.value_not_allowed,
            "Leave out shared_win_rate where shared_won and shared_leads are sent: it follows from them.",
        ),
        ShareFault.too_many_won: (FaultCode.value_not_allowed, "Of so many leads no more can have been won."),
    }[kind]
    return (Fault(pointer=f"/{name}", code=code, detail=detail),)


@put(
    "/roi-assumptions",
    tags=["reports"],
    dependencies={
        "caller": require(Scope.feedback_write, Scope.operate, mode="live"),
        "assumption": provide_body(AssumptionBody, _share_faults),
    },
    doc=RouteDoc(query=(BUSINESS,)),
)
async def assume(
    request: AnyRequest, caller: Caller, assumption: Injected[AssumptionBody], services: Injected[Services]
) -> AssumptionView:
    """Declares the cost and success of shared leads: a business its own figures, an operator the benchmark for all.

    The figures are used if no shared leads were imported, or too few have ended, and are labelled as declared.
    """
    if faults := _share_faults(assumption):
        raise errors.InvalidInput(faults)
    if assumption.currency not in MINOR_DIGITS:
        raise fault(
            "/currency", FaultCode.value_not_allowed, "Name a currency in use by its three letters, such as USD."
        )
    business_id = reach_of(caller, request.query_params.get("business_id")).business_id
    return await _save(services.pool, caller, business_id, assumption)


async def _save(pool: Pool, caller: Principal, business_id: UUID | None, assumption: AssumptionBody) -> AssumptionView:
    now = clock.now()
    fields = {name: getattr(assumption, name) for name in AssumptionBody.__struct_fields__}
    fields["shared_win_rate"] = _share_of(assumption).win_rate
    async with transaction(pool) as connection:
        if not await save_assumption(connection, clock.new_id(), business_id, now, **fields):
            raise errors.NotFound("There is no such business or vertical.")
        subject = ids.encode("biz", business_id) if business_id else CallerKind.operator.value
        await audit.record(
            connection,
            now,
            caller.key_id,
            "roi.assume",
            subject,
            vertical=assumption.vertical,
            shared_cost_minor=assumption.shared_cost_minor,
            labour_minor=assumption.labour_minor,
        )
    public_id = ids.encode("biz", business_id) if business_id else None
    return AssumptionView(business_id=public_id, made_at=now, **fields)


handlers: Final = (api_router(show_roi, assume),)
