"""Reports over HTTP: JSON or CSV; a tenant's own, or everybody's for operators. Every answer prints its basis."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.response import Stream

from marketplace import clock, errors, ids
from marketplace.auth import Kind, Principal, Scope
from marketplace.directory.wire import SLUG
from marketplace.faults import Code, Fault
from marketplace.http import AnyRequest, Page, answer, page_cursor, page_limit, principal, services, wants_csv
from marketplace.openapi import Doc, Query, id_of, paged
from marketplace.reports import rows
from marketplace.reports.figures import CHANNELS, STATES, STEPS
from marketplace.reports.funnel import Routing, load_routing
from marketplace.reports.money_report import Line, MoneyReport, Period, Whose, load_money_report
from marketplace.reports.quality import Quality, QualityReport, load_quality
from marketplace.reports.question import DATE, Question, read_question
from marketplace.reports.rows import Row
from marketplace.reports.speed import By, Pace, Speed, load_speed
from marketplace.reports.unsold import Unsold, Widening, load_unsold
from marketplace.spreadsheet import cell

Word = TypeVar("Word", bound=StrEnum)

BASIS: Final = (
    Query(name="from", about="First day; thirty days before `to` unless said.", schema=DATE),
    Query(name="to", about="Last day; today unless said. At most 400 days.", schema=DATE),
    Query(name="zone", about="The IANA zone whose days they are; UTC unless said."),
    Query(name="mode", about="live unless said, or the mode of a test key.",
          schema={"type": "string", "enum": ["live", "test"]}),
    Query(name="vertical", about="One market only, by its slug.", schema={"type": "string", "pattern": SLUG}),
    Query(name="provider_id", about="One provider only; for operators.", schema=id_of("prov")),
    Query(name="business_id", about="One business only; for operators.", schema=id_of("biz")),
)  # fmt: skip
FORMAT: Final = Query(
    name="format",
    about="`csv` for a file; `Accept: text/csv` does the same.",
    schema={"type": "string", "enum": ["csv"]},
)

OWN: Final = {Kind.provider: "provider_id", Kind.business: "business_id"}
PREFIXES: Final = {"provider_id": "prov", "business_id": "biz"}


async def _asked(request: AnyRequest) -> tuple[Principal, Question]:
    """The caller and the question, confined to a tenant's own figures. A frozen account may still read its past.

    Raises InvalidInput, KeyWrongMode for live figures with a test key, NotFound for another tenant.
    """
    caller = await principal(request, Scope.operate, Scope.leads_read, Scope.leads_write, even_suspended=True)
    asked = {name: str(request.query_params[name]) for name in request.query_params}
    question = read_question({"mode": caller.mode} | asked, clock.now())
    if caller.mode == "test":
        caller.demand_mode(question.mode)
    parties: dict[str, UUID | None] = {}
    for name, prefix in PREFIXES.items():
        stated = ids.decode(prefix, asked[name]) if name in asked else None
        own = caller.owner if OWN.get(caller.kind) == name else None
        foreign = name in asked and (stated is None or (caller.kind is not Kind.operator and stated != own))
        if foreign:
            raise errors.NotFound("There is nothing with this id, or it is not yours.")
        parties[name] = own or stated
    return caller, msgspec.structs.replace(question, **parties)


def _word(request: AnyRequest, name: str, words: type[Word], allowed: Iterable[Word]) -> Word | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    names = [word.value for word in allowed]
    if text not in names:
        raise errors.InvalidInput(
            [Fault(pointer=f"/{name}", code=Code.value_not_allowed, detail=f"One of {', '.join(names)}.")]
        )
    return words(text)


def _choice(name: str, about: str, words: type[StrEnum]) -> Query:
    return Query(name=name, about=about, schema={"type": "string", "enum": [word.value for word in words]})


def _file(name: str, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> Response[bytes]:
    """A table as CSV; numbers as they are, texts that no spreadsheet runs."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([value if isinstance(value, float) else cell(value) for value in line] for line in lines)
    return Response(out.getvalue().encode(), media_type="text/csv", headers=_as_file(name))


def _as_file(name: str) -> dict[str, str]:
    return {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}.csv"'}


# Speed.

BY_OF: Final = {
    Kind.operator: tuple(By),
    Kind.business: (By.vertical, By.channel, By.hour),
    Kind.provider: (By.vertical, By.channel, By.hour),
}
"""What each may tell speed apart by: neither side learns who stands on the other."""


@get(
    "/v1/reports/speed",
    tags=["reports"],
    doc=Doc(
        answers={200: (Speed, "text/csv")},
        query=(*BASIS, FORMAT, _choice("by", "Told apart by this; operators by any, others not by party.", By)),
    ),
)
async def show_speed(request: AnyRequest) -> Response[bytes]:
    """Shows how fast leads moved, step by step, and whose time it was."""
    caller, question = await _asked(request)
    by = _word(request, "by", By, BY_OF[caller.kind])
    report = await load_speed(services(request).reports, question, by)
    if not wants_csv(request):
        return answer(report)
    columns = ("group", "name", "leads", "what", "timed", "p50_ms", "p95_ms", "p99_ms")
    return _file("speed", columns, (line for pace in (report.total, *report.groups) for line in _speed_lines(pace)))


def _speed_lines(pace: Pace) -> Iterable[Sequence[Any]]:
    spreads = {"provider's time": pace.provider, "our time": pace.own, "business's time": pace.business}
    spreads |= {step.name: step.took for step in pace.waterfall}
    spreads |= {f"receipt to {step.name}": step.after_receipt for step in pace.waterfall if step.after_receipt}
    response = pace.response
    spreads |= {"contact": response.contact, "touch, open hours": response.touch_open}
    spreads |= {"contact, open hours": response.contact_open}
    for what, spread in spreads.items():
        yield pace.key, pace.name, pace.leads, what, spread.leads, spread.p50_ms, spread.p95_ms, spread.p99_ms


# Routing.


@get("/v1/reports/routing", tags=["reports"], doc=Doc(answers={200: (Routing, "text/csv")}, query=(*BASIS, FORMAT)))
async def show_routing(request: AnyRequest) -> Response[bytes]:
    """Shows how far leads came and why no further, who got them against what was due, and who got none."""
    _, question = await _asked(request)
    report = await load_routing(services(request).reports, question)
    if not wants_csv(request):
        return answer(report)
    lines = [
        line
        for step in report.funnel
        for line in (
            (step.name, "", step.leads, False, step.rows),
            *((step.name, loss.why, loss.leads, loss.open, loss.rows) for loss in step.losses),
        )
    ]
    return _file("routing", ("step", "stopped_by", "leads", "open", "rows"), lines)


# Unsold.


@get("/v1/reports/unsold", tags=["reports"], doc=Doc(answers={200: (Unsold, "text/csv")}, query=(*BASIS, FORMAT)))
async def show_unsold(request: AnyRequest) -> Response[bytes]:
    """Shows why leads were unsold, and what widening a rule would have brought."""
    _, question = await _asked(request)
    report = await load_unsold(services(request).reports, question)
    if not wants_csv(request):
        return answer(report)
    columns = Widening.__struct_fields__
    return _file("unsold", columns, (msgspec.structs.astuple(each) for each in (*report.overall, *report.widenings)))


# Quality.


@get(
    "/v1/reports/quality",
    tags=["reports"],
    doc=Doc(answers={200: (QualityReport, "text/csv")}, query=(*BASIS, FORMAT)),
)
async def show_quality(request: AnyRequest) -> Response[bytes]:
    """Shows what providers' leads were worth. For providers, their own, and operators."""
    caller, question = await _asked(request)
    caller.demand(Scope.leads_write, Scope.operate)
    report = await load_quality(services(request).reports, question)
    if not wants_csv(request):
        return answer(report)
    columns = Quality.__struct_fields__
    return _file("quality", columns, map(msgspec.structs.astuple, (report.total, *report.providers, *report.sub_ids)))


# Money.


@get(
    "/v1/reports/money",
    tags=["reports"],
    doc=Doc(
        answers={200: (MoneyReport, "text/csv")},
        query=(
            *BASIS, FORMAT, _choice("period", "Days put together; each day unless said.", Period),
            _choice("by", "Everybody together unless said; for operators.", Whose),
        ),
    ),
)  # fmt: skip
async def show_money(request: AnyRequest) -> Response[bytes]:
    """Shows what was charged, given back and owed, by period; to operators with the trial balance."""
    caller, question = await _asked(request)
    period = _word(request, "period", Period, Period) or Period.day
    whose = _word(request, "by", Whose, Whose if caller.kind is Kind.operator else [Whose.everybody])
    report = await load_money_report(
        services(request).reports, question, period, whose or Whose.everybody, own=caller.kind is not Kind.operator
    )
    if not wants_csv(request):
        return answer(report)
    columns = Line.__struct_fields__
    return _file("money", columns, ((str(line[0]), *line[1:]) for line in map(msgspec.structs.astuple, report.lines)))


# The rows behind a figure.


class ShownRow(msgspec.Struct, frozen=True, kw_only=True):
    """One lead behind a figure. Who sent it and who has it are told to operators alone."""

    id: str
    received_at: datetime
    mode: str
    vertical: str
    state: str
    step: str
    why: str
    provider_id: str | None
    provider: str | None
    business_id: str | None
    business: str | None


def _show_row(row: Row, kind: Kind) -> ShownRow:
    names = kind is Kind.operator
    return ShownRow(
        id=ids.encode("lead", row.id), received_at=row.received_at, mode=row.mode, vertical=row.vertical,
        state=row.state, step=STEPS[row.step], why=row.why,
        provider_id=ids.encode("prov", row.provider_id) if names else None, provider=row.provider if names else None,
        business_id=ids.encode("biz", row.business_id) if names and row.business_id else None,
        business=row.business if names else None,
    )  # fmt: skip


def _words(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


FILTERS: Final = (
    Query(name="reached", about="Came at least as far as this step.", schema=_words(*STEPS[1:])),
    Query(name="stopped", about="Came as far as this step and no further.", schema=_words(*STEPS[1:])),
    Query(name="why", about="Why no further."),
    Query(name="state", about="In this state now.", schema=_words(*STATES[1:])),
    Query(name="channel", about="Shown to its business this way.", schema=_words(*CHANNELS[1:])),
    Query(name="hour", about="Received in this hour of the zone's day.",
          schema={"type": "integer", "minimum": 0, "maximum": 23}),
    Query(name="sub_id", about="With this sub-id, as name=value."),
    Query(name="subscription_id", about="Held by this subscription.", schema=id_of("sub")),
    Query(name="missed", about="Kept from a subscription by this rule alone."),
    Query(name="unit", about="The unit of that rule's distance."),
    Query(name="within", about="By at most so much.", schema={"type": "number", "minimum": 0}),
    Query(name="missed_by", about="Kept from this subscription.", schema=id_of("sub")),
)  # fmt: skip


@get(
    "/v1/reports/leads",
    tags=["reports"],
    doc=Doc(answers={200: (Page[ShownRow], "text/csv")}, query=(*paged(id_of("lead")), *BASIS, FORMAT, *FILTERS)),
)
async def list_leads(request: AnyRequest) -> Response[bytes] | Stream:
    """Lists the leads behind a figure, newest first. A tenant's own; a business's are those that it was given."""
    caller, question = await _asked(request)
    filters = rows.read_filters({name: str(request.query_params[name]) for name in request.query_params})
    if caller.kind is not Kind.operator and (filters.subscription_id or filters.missed or filters.missed_by):
        raise errors.ScopeMissing("Only operators may ask by subscription.")
    as_file = wants_csv(request)
    limit = rows.CSV_LINES if as_file and "limit" not in request.query_params else page_limit(request)
    pool = services(request).reports
    after = page_cursor(request, "lead")
    found = _beyond(await rows.find_ids(pool, question, filters), after)
    shown, more = found[:limit], len(found) > limit
    cursor = ids.encode("lead", shown[-1]) if more else None
    if not as_file:
        data = tuple(_show_row(row, caller.kind) for row in await rows.list_rows(pool, shown))
        return answer(Page(data=data, next_cursor=cursor, has_more=more))
    headers = _as_file("leads")
    if cursor:
        headers["Link"] = f'<{request.url.path}?{_again(request, cursor)}>; rel="next"'
    body: AsyncIterator[bytes] = rows.copy_rows(pool, shown, names=caller.kind is Kind.operator)
    return Stream(body, media_type="text/csv", headers=headers)


def _again(request: AnyRequest, cursor: str) -> str:
    return urlencode({**request.query_params.dict(), "cursor": [cursor]}, doseq=True)


def _beyond(found: Sequence[UUID], after: UUID | None) -> Sequence[UUID]:
    """What follows the last row of the page before. Raises InvalidInput for one that is not in the list."""
    if after is None:
        return found
    try:
        return found[found.index(after) + 1 :]
    except ValueError:
        detail = "Send next_cursor of the page before, unchanged, and the same filters."
        raise errors.InvalidInput([Fault(pointer="/cursor", code="cursor_invalid", detail=detail)]) from None


handlers: Final = (show_speed, show_routing, show_unsold, show_quality, show_money, list_leads)
