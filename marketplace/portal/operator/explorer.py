"""Routing explorer: why one lead went where it went, every candidate against every filter, and the same decision again.

A re-run is made by `marketplace/distribution/explorer.py`, through the role of reports, which may write nothing.
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.params import FromPath
from markupsafe import Markup

from marketplace.database.db import Connection, session
from marketplace.distribution import explorer
from marketplace.distribution.explorer import ROUTED, ExplorerAnswer, InputRefused
from marketplace.distribution.store import Decision, read_candidates
from marketplace.portal.frame import DASH, badge, page, redirect, short, words
from marketplace.portal.listing import Column, Listing, Money, code, only_in_file
from marketplace.portal.operator import explorer_grid, lead_store
from marketplace.portal.operator.explorer_grid import ChangedCandidate, FilterCell
from marketplace.portal.operator.lead_store import LeadRecord, SubscriptionName, VerticalVersion
from marketplace.portal.session import visitor
from marketplace.rules.catalog import Rules, Vertical
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, path_id, services, wants_csv
from routing.decision import CandidateRecord, OpenLead, nearest_recorded
from routing.qualification import Verdict

HOME: Final = "/operator/routing"
LATEST: Final = 50
LONGEST_REFERENCE: Final = 255


class RecordedDecision(msgspec.Struct, frozen=True, kw_only=True):
    """One decision as it was recorded."""

    decision: Decision
    answer: ExplorerAnswer


class GridRow(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate of the table."""

    order: SubscriptionName | None
    weighed: CandidateRecord
    cells: dict[str, FilterCell]
    result: str
    won: bool


class DecisionRerun(msgspec.Struct, frozen=True, kw_only=True):
    """The decision taken again: by which rules, with what changed, and what is different."""

    by: str
    with_change: str
    answer: ExplorerAnswer
    rows: tuple[GridRow, ...]
    changes: tuple[ChangedCandidate, ...]
    currency: str


def _business(row: GridRow) -> object:
    subscription = row.order
    if subscription is None:
        return short(ids.encode("sub", row.weighed.subscription_id))
    named = f"{subscription.name}, " if subscription.name != subscription.business else ""
    return Markup(
        '<span><a href="/operator/businesses/{}">{}</a><br><span class="muted">{}version {}</span></span>'
    ).format(ids.encode("biz", subscription.business_id), subscription.business, named, row.weighed.version)


def _check(name: str) -> Column[GridRow]:
    """Return the column of one filter: whether the candidate passes it, with the value that failed."""

    def show(row: GridRow) -> Markup:
        cell = row.cells[name]
        if cell.passed:
            return Markup('<span class="pass"><span aria-hidden="true">✓</span><span class="sr">passes</span></span>')
        if cell.passed is None:
            return Markup(
                '<span class="muted" title="Not asked: something else had ruled it out">{}'
                '<span class="sr"> not asked</span></span>'
            ).format(DASH)
        return Markup(
            '<span class="fail"><span aria-hidden="true">✕ </span><span class="sr">fails: </span>{}</span>'
        ).format(cell.words)

    return Column(name, show)


def _result(row: GridRow) -> Markup:
    if row.won:
        return badge("gets it", "good")
    return badge(f"ranked {row.weighed.position}", "busy") if row.weighed.position else badge("out", "muted")


def candidate_listing(caption: str, currency: str) -> Listing[GridRow]:
    """Return the list of candidates against every filter, with prices in `currency`."""
    return Listing(
        caption=caption,
        columns=(
            Column(
                "Business",
                _business,
                file="business",
                value=lambda row: row.order.business if row.order else "",
                style="name",
            ),
            only_in_file("subscription", lambda row: ids.encode("sub", row.weighed.subscription_id)),
            only_in_file("version", lambda row: row.weighed.version),
            *(_check(name) for name in explorer_grid.FILTERS),
            Column("Price", lambda row: Money(row.weighed.price_minor, currency), file="price_minor", style="num"),
            only_in_file("position", lambda row: row.weighed.position),
            Column("Result", _result, file="result", value=lambda row: row.result),
            only_in_file(
                "failed",
                lambda row: "; ".join(f"{failure.rule}: {failure.detail}" for failure in row.weighed.failures),
            ),
            only_in_file("scores", lambda row: "; ".join(f"{name} {score:g}" for name, score in row.weighed.scores)),
            only_in_file("tie_break", lambda row: row.weighed.tie_break or ""),
        ),
    )


SCORES: Final = Listing[GridRow](
    caption="Scores of those left",
    columns=(
        Column("Place", lambda row: row.weighed.position, style="num"),
        Column("Business", lambda row: row.order.business if row.order else None),
        Column("Compared", lambda row: ", ".join(f"{words(name)} {score:.6g}" for name, score in row.weighed.scores)),
        Column("Tie-break", lambda row: code((row.weighed.tie_break or DASH)[:16])),
    ),
)


@get(HOME)
async def show_explorer(request: AnyRequest) -> Response[bytes]:
    """Finds a lead by its id or by its provider's reference; shows those decided about last."""
    viewer = await visitor(request, CallerKind.operator)
    wanted = request.query_params.get("lead", "").strip()[:LONGEST_REFERENCE]
    async with session(services(request).reports) as connection:
        found = await _find(connection, wanted) if wanted else None
        latest = await lead_store.list_latest_leads(connection, LATEST) if found is None else ()
    if found is not None:
        return redirect(request, f"{HOME}/{ids.encode('lead', found)}")
    return page(request, viewer, "operator/explorer.html", wanted=wanted, rows=latest)


async def _find(connection: Connection, wanted: str) -> UUID | None:
    lead_id = ids.decode("lead", wanted)
    if lead_id is not None:
        lead = await lead_store.find_lead(connection, lead_id)
        return lead.lead_id if lead else None
    return await lead_store.find_by_reference(connection, wanted)


@get(f"{HOME}/{{lead_id:str}}")
async def explain(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Explains one decision about a lead; with `?rules=` takes it again, with `?change=` on one changed input."""
    viewer = await visitor(request, CallerKind.operator)
    lead_key = path_id("lead", lead_id)
    today = await services(request).catalog.current()
    async with session(services(request).reports) as connection:
        lead = await lead_store.find_lead(connection, lead_key)
        if lead is None:
            raise errors.NotFound("There is no lead with this id.")
        history = tuple(_recorded(one) for one in await lead_store.list_decisions(connection, lead_key))
        versions = await lead_store.list_vertical_versions(connection, lead.vertical_id)
        chosen = _chosen(request, history)
        rerun, wrong = await _rerun(request, connection, lead, chosen, versions, today) if chosen else (None, "")
        names = await lead_store.list_subscriptions(
            connection, {row.subscription_id for one in (chosen, rerun) if one for row in one.answer.candidates}
        )
    if rerun is not None:
        rerun = msgspec.structs.replace(rerun, rows=_grid(rerun.answer, names))
    rows = _grid(chosen.answer, names) if chosen else ()
    vertical = today.verticals[lead.vertical_id]
    candidates = candidate_listing("Every candidate against every filter", vertical.definition.currency)
    if wants_csv(request) and chosen is not None:
        shown = rerun.rows if rerun else rows
        return await candidates.download(shown, f"routing-{lead_id}")
    return page(
        request,
        viewer,
        "operator/lead_decisions.html",
        lead=lead,
        history=history,
        chosen=chosen,
        rows=rows,
        names=names,
        candidates=candidates,
        scores=SCORES,
        versions=versions,
        rerun=rerun,
        wrong=wrong,
        inputs=inputs_of(lead, versions),
        sentence=told_of(lead, chosen, names) if chosen else "",
        rerun_candidates=candidate_listing("Candidates of the re-run", rerun.currency) if rerun else None,
    )


def _recorded(decision: Decision) -> RecordedDecision:
    return RecordedDecision(
        decision=decision,
        answer=ExplorerAnswer(
            outcome=decision.outcome,
            reason=decision.reason,
            left_out=decision.left_out,
            strategy=decision.strategy,
            verdict=msgspec.json.decode(decision.verdict, type=Verdict),
            candidates=_winner_first(read_candidates(decision.candidates), decision.subscription_id),
        ),
    )


def _winner_first(records: tuple[CandidateRecord, ...], winner: UUID | None) -> tuple[CandidateRecord, ...]:
    return tuple(sorted(records, key=lambda row: row.subscription_id != winner))


def _chosen(request: AnyRequest, history: tuple[RecordedDecision, ...]) -> RecordedDecision | None:
    """The decision in the address, counted from 1; the last unless it says other."""
    text = request.query_params.get("decision", "")
    place = int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else len(history)
    return history[place - 1] if 1 <= place <= len(history) else (history[-1] if history else None)


# Taking it again.


async def _rerun(
    request: AnyRequest,
    connection: Connection,
    lead: LeadRecord,
    chosen: RecordedDecision,
    versions: tuple[VerticalVersion, ...],
    today: Rules,
) -> tuple[DecisionRerun | None, str]:
    """The re-run that the address asks for, or what is wrong with it."""
    by, name = request.query_params.get("rules", ""), request.query_params.get("change", "")
    if not by:
        return None, ""
    text = request.query_params.get("to", "").strip()[:100]
    decision, records = chosen.decision, chosen.answer.candidates
    vertical = _vertical(lead, by, decision, versions)
    if vertical is None:
        return None, "There is no such version of the rules."
    facts, rules, now = lead.facts, today, clock.now()
    if by != "today":
        now = decision.made_at
        country = vertical.definition.country
        rules = await explorer.load_recorded_rules(connection, records, facts, country, now, today)
    try:
        if name:
            facts, rules = await explorer.change_input(connection, facts, rules, vertical.definition, name, text)
    except InputRefused as refused:
        return None, str(refused)
    again = OpenLead(
        lead_id=lead.lead_id, state=explorer.state_at(lead.qualified_at, decision.made_at), facts=facts,
        received_at=lead.received_at, qualified_at=lead.qualified_at, tried=explorer.tried_businesses(records),
    )  # fmt: skip
    [answer] = await explorer.decide_again(connection, [(again, vertical)], rules, now)
    words = "today's rules and figures" if by == "today" else f"the rules of version {vertical.version}, as it was then"
    made = DecisionRerun(
        by=words,
        with_change=f"{inputs_of(lead, versions).get(name, name)}: {text or 'not told'}" if name else "",
        answer=answer,
        rows=(),
        changes=explorer_grid.list_differences(chosen.answer, answer),
        currency=vertical.definition.currency,
    )
    return made, ""


def _vertical(lead: LeadRecord, by: str, decision: Decision, versions: tuple[VerticalVersion, ...]) -> Vertical | None:
    """The market's rules in the version asked for: the decision's, the newest, or a number."""
    wanted = {"recorded": str(decision.vertical_version), "today": str(versions[0].version)}.get(by, by)
    for one in versions:
        if str(one.version) == wanted:
            return Vertical(id=lead.vertical_id, slug=lead.vertical, version=one.version, definition=one.definition)
    return None


# Telling.


def inputs_of(lead: LeadRecord, versions: tuple[VerticalVersion, ...]) -> dict[str, str]:
    """What can be changed of this lead, with its name for people."""
    needs = versions[0].definition.needs if versions else {}
    return {**explorer.INPUTS, **{f"need.{name}": field.label or name for name, field in needs.items()}}


def _grid(answer: ExplorerAnswer, names: Mapping[UUID, SubscriptionName]) -> tuple[GridRow, ...]:
    winner = answer.winner
    return tuple(
        GridRow(
            order=names.get(record.subscription_id),
            weighed=record,
            cells=explorer_grid.grid_cells(record),
            result=explorer_grid.result_in_words(record, winner),
            won=winner is not None and record.subscription_id == winner.subscription_id,
        )
        for record in answer.candidates
    )


def told_of(lead: LeadRecord, chosen: RecordedDecision, names: Mapping[UUID, SubscriptionName]) -> str:
    """The decision in one sentence."""
    answer = chosen.answer
    if answer.outcome not in ROUTED:
        why = (answer.reason or "its answers").replace("_", " ")
        return f"It went to no business: {answer.outcome}, because of {why}."
    weighed, standing = len(answer.candidates), len(answer.ranked)
    winner = answer.winner
    if winner is not None:
        name = names[winner.subscription_id].business if winner.subscription_id in names else "a business"
        by = (answer.strategy or "").replace("_", " ")
        place = f"first of {standing} that could have had it" if standing > 1 else "the only one that could have had it"
        return f"It went to {name}: {place}, of {weighed} weighed, by {by}."
    miss = nearest_recorded(answer.candidates, answer.reason)
    if miss is None:
        return "No business subscribes to this market."
    name = names[miss.subscription_id].business if miss.subscription_id in names else "a business"
    why = "; ".join(failure.detail for failure in miss.failures)
    return f"None of {weighed} could have it. Nearest: {name}, {why}."


handlers: tuple[Any, ...] = (show_explorer, explain)
