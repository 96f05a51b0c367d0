"""Routing explorer: why a lead went to its business, every candidate against every filter, and re-runs of a decision.

A re-run is made by `marketplace/distribution/explorer.py` with the reports role, which cannot write.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
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
from marketplace.journey import store as journey_store
from marketplace.learning import store as learning_store
from marketplace.learning.store import StoredCard
from marketplace.portal.frame import DASH, badge, page, redirect, short, words
from marketplace.portal.journey_words import journey_events
from marketplace.portal.listing import Column, Listing, Money, code, only_in_file
from marketplace.portal.operator import explorer_grid, lead_store
from marketplace.portal.operator.explorer_grid import ChangedCandidate, FilterCell
from marketplace.portal.operator.lead_list import DECISIONS
from marketplace.portal.operator.lead_store import LeadRecord, SubscriptionName, VerticalVersion
from marketplace.portal.session import visitor
from marketplace.rules.catalog import Rules, Vertical
from marketplace.runtime import clock, errors, ids
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, path_id, services, wants_csv
from routing.decision import (
    CandidateRecord,
    OpenLead,
    VerticalCards,
    nearest_recorded,
    recorded_chances,
    vertical_cards,
)
from routing.inquiry import Facts
from routing.qualification import Verdict
from routing.scorecard import BUSINESS_FEATURE, chance, chance_in_words, compile_scorecard, feature_values

HOME: Final = "/operator/routing"
LATEST: Final = 50
LONGEST_REFERENCE: Final = 255


class RecordedDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with its recorded answer."""

    decision: Decision
    answer: ExplorerAnswer


class GridRow(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate of the table with its result at each filter."""

    subscription: SubscriptionName | None
    record: CandidateRecord
    cells: dict[str, FilterCell]
    result: str
    won: bool


class ChanceInWords(msgspec.Struct, frozen=True, kw_only=True):
    """Chance to win a lead by one card, in words: `role` says whether the card ranked or was in shadow."""

    version: int
    role: str
    words: str


class DecisionRerun(msgspec.Struct, frozen=True, kw_only=True):
    """A re-run of a decision: the rules, the changed input, and the differences."""

    by: str
    with_change: str
    answer: ExplorerAnswer
    rows: tuple[GridRow, ...]
    changes: tuple[ChangedCandidate, ...]
    currency: str


def _business_cell(row: GridRow) -> object:
    subscription = row.subscription
    if subscription is None:
        return short(ids.encode("sub", row.record.subscription_id))
    name = f"{subscription.name}, " if subscription.name != subscription.business else ""
    return Markup(
        '<span><a href="/operator/businesses/{}">{}</a><br><span class="muted">{}version {}</span></span>'
    ).format(ids.encode("biz", subscription.business_id), subscription.business, name, row.record.version)


def _check(name: str) -> Column[GridRow]:
    """Return the column of one filter: whether a candidate passes, or the value that failed."""

    def show(row: GridRow) -> Markup:
        cell = row.cells[name]
        if cell.passed:
            return Markup('<span class="pass"><span aria-hidden="true">✓</span><span class="sr">passes</span></span>')
        if cell.passed is None:
            return Markup(
                '<span class="muted" title="Not checked: another filter had failed">{}'
                '<span class="sr"> not checked</span></span>'
            ).format(DASH)
        return Markup(
            '<span class="fail"><span aria-hidden="true">✕ </span><span class="sr">fails: </span>{}</span>'
        ).format(cell.words)

    return Column(name, show)


def _result_cell(row: GridRow) -> Markup:
    if row.won:
        return badge("gets the lead", "good")
    return badge(f"ranked {row.record.position}", "busy") if row.record.position else badge("not eligible", "muted")


def candidate_listing(caption: str, currency: str) -> Listing[GridRow]:
    """Return the list of candidates with a column for each filter, and prices in `currency`."""
    return Listing(
        caption=caption,
        columns=(
            Column(
                "Business",
                _business_cell,
                file="business",
                value=lambda row: row.subscription.business if row.subscription else "",
                style="name",
            ),
            only_in_file("subscription", lambda row: ids.encode("sub", row.record.subscription_id)),
            only_in_file("version", lambda row: row.record.version),
            *(_check(name) for name in explorer_grid.FILTERS),
            Column("Price", lambda row: Money(row.record.price_minor, currency), file="price_minor", style="num"),
            only_in_file("position", lambda row: row.record.position),
            Column("Result", _result_cell, file="result", value=lambda row: row.result),
            only_in_file(
                "failed",
                lambda row: "; ".join(f"{failure.rule}: {failure.detail}" for failure in row.record.failures),
            ),
            only_in_file("scores", lambda row: "; ".join(f"{name} {score:g}" for name, score in row.record.scores)),
            only_in_file("tie_break", lambda row: row.record.tie_break or ""),
            only_in_file("among_equals", lambda row: row.record.among_equals),
            only_in_file("propensity", lambda row: row.record.propensity),
        ),
    )


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


SCORES: Final = Listing[GridRow](
    caption="Scores of eligible businesses",
    columns=(
        Column("Rank", lambda row: row.record.position, style="num"),
        Column("Business", lambda row: row.subscription.business if row.subscription else None),
        Column("Scores", lambda row: ", ".join(f"{words(name)} {score:.6g}" for name, score in row.record.scores)),
        Column("Tie-break", lambda row: code((row.record.tie_break or DASH)[:16])),
        Column("Probability of rank 1", lambda row: _percent(row.record.propensity), style="num"),
    ),
)


@get(HOME)
async def show_explorer(request: AnyRequest) -> Response[bytes]:
    """Find a lead by its id or its provider's reference, or show the latest decisions."""
    viewer = await visitor(request, CallerKind.operator)
    search = request.query_params.get("lead", "").strip()[:LONGEST_REFERENCE]
    async with session(services(request).reports) as connection:
        lead_id = await _find(connection, search) if search else None
        latest = await lead_store.list_latest_leads(connection, LATEST) if lead_id is None else ()
    if lead_id is not None:
        return redirect(request, f"{HOME}/{ids.encode('lead', lead_id)}")
    return page(request, viewer, "operator/explorer.html", search=search, listing=DECISIONS, rows=latest)


async def _find(connection: Connection, search: str) -> UUID | None:
    lead_id = ids.decode("lead", search)
    if lead_id is not None:
        lead = await lead_store.find_lead(connection, lead_id)
        return lead.lead_id if lead else None
    return await lead_store.find_by_reference(connection, search)


@get(f"{HOME}/{{lead_id:str}}")
async def explain(request: AnyRequest, lead_id: FromPath[str]) -> Response[bytes]:
    """Explain a decision about a lead. `?rules=` runs it again; `?change=` and `?to=` change one input of that run."""
    viewer = await visitor(request, CallerKind.operator)
    lead_key = path_id("lead", lead_id)
    today = await services(request).catalog.current()
    async with session(services(request).reports) as connection:
        lead = await lead_store.find_lead(connection, lead_key)
        if lead is None:
            raise errors.NotFound("There is no lead with this id.")
        history = tuple(_recorded(decision) for decision in await lead_store.list_decisions(connection, lead_key))
        journey = journey_events(await journey_store.list_entries(connection, lead_key))
        versions = await lead_store.list_vertical_versions(connection, lead.vertical_id)
        selected = _select_decision(request, history)
        rerun, problem, decided_on = None, "", lead.facts
        cards: tuple[StoredCard, ...] = ()
        if selected is not None:
            numbers = {chance.card for chance in recorded_chances(selected.answer.candidates)}
            decided_on = await lead_store.load_facts(connection, lead_key, selected.decision.revision)
            cards = await learning_store.list_by_version(connection, lead.vertical_id, numbers) if numbers else ()
            rerun, problem = await _rerun(request, connection, lead, decided_on, selected, versions, today, cards)
        answers = [decided.answer for decided in (selected, rerun) if decided is not None]
        names = await lead_store.list_subscriptions(
            connection, {record.subscription_id for answer in answers for record in answer.candidates}
        )
    rerun_listing = None
    if rerun is not None:
        rerun = msgspec.structs.replace(rerun, rows=_grid(rerun.answer, names))
        rerun_listing = candidate_listing("Candidates of the re-run", rerun.currency)
    rows: tuple[GridRow, ...] = ()
    sentence = ""
    if selected is not None:
        rows = _grid(selected.answer, names)
        sentence = describe_decision(selected.answer, names)
    vertical = today.verticals[lead.vertical_id]
    candidates = candidate_listing("Every candidate against every filter", vertical.definition.currency)
    if wants_csv(request) and selected is not None:
        return await candidates.download(rerun.rows if rerun else rows, f"routing-{lead_id}")
    return page(
        request,
        viewer,
        "operator/lead_decisions.html",
        lead=lead,
        history=history,
        selected=selected,
        rows=rows,
        names=names,
        candidates=candidates,
        scores=SCORES,
        versions=versions,
        rerun=rerun,
        wrong=problem,
        inputs=list_inputs(versions),
        sentence=sentence,
        rerun_listing=rerun_listing,
        journey=journey,
        chances=explain_chances(msgspec.structs.replace(lead, facts=decided_on), selected, cards) if selected else (),
    )


def explain_chances(
    lead: LeadRecord, recorded: RecordedDecision, cards: Iterable[StoredCard]
) -> tuple[ChanceInWords, ...]:
    """Return the chance by each card that was computed for the lead, with what raised and lowered it.

    It is that of the business that got the lead, else of the first in the order.
    """
    values = feature_values(lead.facts, provider=str(lead.provider_id))
    ranked = recorded.answer.winner or next(iter(recorded.answer.ranked), None)
    if ranked is not None:
        values[BUSINESS_FEATURE] = str(ranked.business_id)
    return tuple(
        ChanceInWords(
            version=card.version,
            role="ranked" if ranked_at(card, recorded.decision.made_at) else "in shadow",
            words=chance_in_words(chance(compile_scorecard(card.card), values)),
        )
        for card in cards
    )


def ranked_at(card: StoredCard, made_at: datetime) -> bool:
    """Return whether a card that was computed for a decision ranked then; before its sign-off it was in shadow."""
    return card.signed_off_at is not None and card.signed_off_at <= made_at


def _cards_at(cards: Iterable[StoredCard], made_at: datetime, today: VerticalCards) -> VerticalCards:
    """Return the cards of a past decision, with the sales of today."""
    compiled = {ranked_at(card, made_at): compile_scorecard(card.card) for card in cards}
    return vertical_cards(compiled.get(True), compiled.get(False), today.sales)


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


def _select_decision(request: AnyRequest, history: tuple[RecordedDecision, ...]) -> RecordedDecision | None:
    """Return the decision whose number, from 1, is in the address, by default the last; None without decisions."""
    if not history:
        return None
    text = request.query_params.get("decision", "")
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else len(history)
    return history[number - 1] if 1 <= number <= len(history) else history[-1]


# Re-runs.


async def _rerun(
    request: AnyRequest,
    connection: Connection,
    lead: LeadRecord,
    decided_on: Facts,
    recorded: RecordedDecision,
    versions: tuple[VerticalVersion, ...],
    today: Rules,
    cards: tuple[StoredCard, ...],
) -> tuple[DecisionRerun | None, str]:
    """Return the re-run that the address asks for, or the reason why it cannot be made.

    The facts are those that were decided on, or by today's rules those of today.
    """
    by, name = request.query_params.get("rules", ""), request.query_params.get("change", "")
    if not by:
        return None, ""
    text = request.query_params.get("to", "").strip()[:100]
    decision, records = recorded.decision, recorded.answer.candidates
    vertical = _find_version(lead, by, decision, versions)
    if vertical is None:
        return None, "There is no such version of the rules."
    facts, rules, now = lead.facts, today, clock.now()
    present = today.verticals[lead.vertical_id].cards
    vertical = msgspec.structs.replace(vertical, cards=present)
    if by != "today":
        vertical = msgspec.structs.replace(vertical, cards=_cards_at(cards, decision.made_at, present))
        facts, now = decided_on, decision.made_at
        country = vertical.definition.country
        rules = await explorer.load_recorded_rules(connection, records, facts, country, now, today)
    try:
        if name:
            facts, rules = await explorer.change_input(connection, facts, rules, vertical.definition, name, text)
    except InputRefused as error:
        return None, str(error)
    open_lead = OpenLead(
        lead_id=lead.lead_id,
        state=explorer.state_at(lead.qualified_at, decision.made_at),
        facts=facts,
        received_at=lead.received_at,
        qualified_at=lead.qualified_at,
        tried=explorer.tried_businesses(records),
        provider_id=lead.provider_id,
    )
    ranked_then = () if by == "today" else records
    [answer] = await explorer.decide_again(connection, [(open_lead, vertical)], rules, now, ranked_then)
    description = f"version {vertical.version} of the rules, with the caps and wallets of that time"
    if by == "today":
        description = "today's rules, caps and wallets"
    change = f"{list_inputs(versions).get(name, name)}: {text or 'not stated'}" if name else ""
    rerun = DecisionRerun(
        by=description,
        with_change=change,
        answer=answer,
        rows=(),
        changes=explorer_grid.list_differences(recorded.answer, answer),
        currency=vertical.definition.currency,
    )
    return rerun, ""


def _find_version(
    lead: LeadRecord, by: str, decision: Decision, versions: tuple[VerticalVersion, ...]
) -> Vertical | None:
    """Return the vertical with the rules that `by` names: `recorded`, `today`, or a version number."""
    number = {"recorded": str(decision.vertical_version), "today": str(versions[0].version)}.get(by, by)
    for version in versions:
        if str(version.version) == number:
            return Vertical(
                id=lead.vertical_id, slug=lead.vertical, version=version.version, definition=version.definition
            )
    return None


# Descriptions.


def list_inputs(versions: tuple[VerticalVersion, ...]) -> dict[str, str]:
    """Return the inputs of a lead that a re-run can change, each with its label."""
    needs = versions[0].definition.needs if versions else {}
    return {**explorer.INPUTS, **{f"need.{name}": field.label or name for name, field in needs.items()}}


def _grid(answer: ExplorerAnswer, names: Mapping[UUID, SubscriptionName]) -> tuple[GridRow, ...]:
    winner = answer.winner
    return tuple(
        GridRow(
            subscription=names.get(record.subscription_id),
            record=record,
            cells=explorer_grid.grid_cells(record),
            result=explorer_grid.result_in_words(record, winner),
            won=winner is not None and record.subscription_id == winner.subscription_id,
        )
        for record in answer.candidates
    )


def describe_decision(answer: ExplorerAnswer, names: Mapping[UUID, SubscriptionName]) -> str:
    """Return the decision in one sentence."""
    if answer.outcome not in ROUTED:
        why = (answer.reason or "its answers").replace("_", " ")
        return f"The lead went to no business: {answer.outcome}, because of {why}."
    considered, eligible = len(answer.candidates), len(answer.ranked)
    winner = answer.winner
    if winner is not None:
        strategy = (answer.strategy or "").replace("_", " ")
        place = f"first of {eligible} eligible subscriptions" if eligible > 1 else "the only eligible subscription"
        return f"The lead went to {_business_name(winner, names)}: {place}, of {considered} considered, by {strategy}."
    miss = nearest_recorded(answer.candidates, answer.reason)
    if miss is None:
        return "No business subscribes to this vertical."
    why = "; ".join(failure.detail for failure in miss.failures)
    return f"None of {considered} subscriptions was eligible. Nearest: {_business_name(miss, names)}, {why}."


def _business_name(record: CandidateRecord, names: Mapping[UUID, SubscriptionName]) -> str:
    name = names.get(record.subscription_id)
    return name.business if name else "a business"


handlers: tuple[Any, ...] = (show_explorer, explain)
