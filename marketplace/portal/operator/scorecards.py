"""Scorecards of a vertical: which one ranks, how each does, and the buttons to sign off, roll back and retire one."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from marketplace.database.db import session
from marketplace.directory import store as directory_store
from marketplace.learning import flow as learning_flow
from marketplace.learning import store as learning_store
from marketplace.learning.drift import SHIFT_LIMIT, DriftAlarm, largest_shift
from marketplace.learning.evaluation import GroupEvaluation, ScoreDecile
from marketplace.learning.flow import ShadowReport
from marketplace.learning.http import MOST_CHECKS, read_version
from marketplace.learning.states import IN_CHARGE, CardState
from marketplace.learning.store import CardCheck, StoredCard
from marketplace.portal.forms import ReasonForm, submitted
from marketplace.portal.frame import DASH, badge, number, page, percent, redirect
from marketplace.portal.listing import Column, Link, Listing
from marketplace.portal.operator.back_office_store import list_actor_names
from marketplace.portal.paging import list_limit
from marketplace.portal.session import Viewer, visitor
from marketplace.rules.catalog import Vertical
from marketplace.runtime import clock, errors
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services, wants_csv
from routing.ranking import Strategy
from routing.scorecard import FEATURE_TITLES, NumberFeature

HOME: Final = "/operator/verticals/{slug:str}/scorecards"
CARD: Final = f"{HOME}/{{version:str}}"
CSV_LINES: Final = 10_000

ALARMS: Final[Mapping[DriftAlarm, str]] = {
    DriftAlarm.inputs_shifted: "recent leads are unlike those that it was trained on",
    DriftAlarm.calibration_off: "leads are won more or less often than it says",
}
"Reasons of a suspension, as the end of a sentence."


class PointsRow(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a card with its points in log odds."""

    feature: str
    answer: str
    points: float


def home_of(slug: str, version: int | None = None) -> str:
    """Return the address of a vertical's cards, or of one of them."""
    home = f"/operator/verticals/{slug}/scorecards"
    return home if version is None else f"{home}/{version}"


CARDS: Final = Listing[StoredCard](
    caption="Scorecards",
    name="scorecards",
    columns=(
        Column(
            "Version",
            lambda card: Link(home_of(card.vertical, card.version), f"Version {card.version}"),
            file="version",
            value=lambda card: card.version,
        ),
        Column("State", lambda card: badge(card.state), file="state", value=lambda card: card.state),
        Column(
            "Trained", lambda card: card.trained_at, file="trained_at", value=lambda card: card.trained_at.isoformat()
        ),
        Column("Leads", lambda card: card.document.trained_on.leads, file="leads", style="num"),
        Column("Won", lambda card: card.document.trained_on.wins, file="wins", style="num"),
        Column(
            "Pairs in the right order",
            lambda card: percent(card.evaluation.auc, 1),
            file="auc",
            value=lambda card: card.evaluation.auc,
            style="num",
        ),
        Column(
            "Chances off by",
            lambda card: percent(card.evaluation.calibration_error, 1),
            file="calibration_error",
            value=lambda card: card.evaluation.calibration_error,
            style="num",
        ),
        Column(
            "Signed off",
            lambda card: card.signed_off_at,
            file="signed_off_at",
            value=lambda card: card.signed_off_at.isoformat() if card.signed_off_at else None,
        ),
    ),
)

DECILES: Final = Listing[ScoreDecile](
    caption="Leads by their chance",
    columns=(
        Column("Chance", lambda row: f"{percent(row.lowest)} to {percent(row.highest)}"),
        Column("Leads", lambda row: row.leads, style="num"),
        Column("Won", lambda row: row.wins, style="num"),
        Column("Expected share", lambda row: percent(row.predicted, 1), style="num"),
        Column("Won share", lambda row: percent(row.won, 1), style="num"),
    ),
)

POINTS: Final = Listing[PointsRow](
    caption="Points of each answer",
    columns=(
        Column("Question", lambda row: row.feature),
        Column("Answer", lambda row: row.answer),
        Column("Points", lambda row: number(row.points, 2), style="num"),
    ),
)

CHECKS: Final = Listing[CardCheck](
    caption="Weekly checks",
    columns=(
        Column("Checked", lambda check: check.checked_at),
        Column("Expected wins", lambda check: number(check.figures.expected, 1), style="num"),
        Column("Won", lambda check: number(check.figures.won, 1), style="num"),
        Column("Won per expected", lambda check: ratio_in_words(check), style="num"),
        Column("Change of the score", lambda check: number(check.figures.shift, 2), style="num"),
        Column("Most changed answer", lambda check: shift_in_words(check)),
        Column("Result", lambda check: badge("alarm", "bad") if check.alarm else badge("no alarm", "good")),
    ),
)


def ratio_in_words(check: CardCheck) -> str:
    """Return won over expected with its interval, or a dash."""
    figures = check.figures
    if figures.ratio is None:
        return DASH
    return f"{number(figures.ratio, 2)} ({number(figures.low, 2)} to {number(figures.high, 2)})"


def shift_in_words(check: CardCheck) -> str:
    """Return the feature whose answers changed most, with its index, or a dash."""
    feature = largest_shift(check.figures)
    return DASH if feature is None else f"{feature.title} ({number(feature.shift, 2)})"


def group_listing(providers: Mapping[str, str]) -> Listing[GroupEvaluation]:
    """Return the list of groups, with the names of providers by their id."""

    def value(row: GroupEvaluation) -> str:
        text = "not known" if row.value is None else str(row.value)
        return providers.get(text, text) if row.feature == "provider" else text

    return Listing(
        caption="Groups of leads",
        columns=(
            Column("Question", lambda row: FEATURE_TITLES.get(row.feature, row.feature)),
            Column("Answer", value),
            Column("Leads", lambda row: row.leads, style="num"),
            Column("Won", lambda row: row.wins, style="num"),
            Column("Expected share", lambda row: percent(row.predicted, 1), style="num"),
            Column("Won share", lambda row: percent(row.won, 1), style="num"),
            Column("Pairs in the right order", lambda row: percent(row.auc, 1), style="num"),
        ),
    )


def list_points(card: StoredCard) -> tuple[PointsRow, ...]:
    """Return every answer of a card with its points."""
    rows = []
    for feature in card.document.features:
        if isinstance(feature, NumberFeature):
            bins = (*feature.bins, feature.unknown)
        else:
            bins = (*feature.bins.values(), feature.other, feature.unknown)
        rows += [PointsRow(feature=feature.title, answer=each.label, points=each.points) for each in bins]
    return tuple(rows)


def describe_ranking(vertical: Vertical, cards: tuple[StoredCard, ...]) -> str:
    """Return which card ranks the leads of a vertical, in a sentence."""
    card = next((card for card in cards if card.state in IN_CHARGE), None)
    if card is not None and card.suspended_for is not None:
        return (
            f"Version {card.version} is suspended: {ALARMS[card.suspended_for]}."
            " Until you decide, leads are ranked without a card."
        )
    if card is None:
        return "No card ranks. Leads are ranked by the rules of the vertical alone."
    if vertical.definition.strategy is not Strategy.expected_value:
        strategy = vertical.definition.strategy.replace("_", " ")
        return f"Version {card.version} is signed off, but the vertical ranks by {strategy}: it changes no order."
    return f"Version {card.version} ranks."


def describe_shadow(report: ShadowReport) -> str:
    """Return whether a card in shadow may be signed off, in a sentence."""
    facts = f"It was computed for {report.leads:,} sold leads, and the outcome of {report.ended:,} is known."
    if report.suffices:
        return f"{facts} It may be signed off."
    if report.ended < report.needed:
        return f"{facts} It can be signed off from {report.needed:,} on."
    return f"{facts} It can be signed off once some were won and some were not."


@get(HOME)
async def show_scorecards(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Show the scorecards of a vertical, the newest first, and which one ranks."""
    viewer = await visitor(request, CallerKind.operator)
    as_file = wants_csv(request)
    limit = CSV_LINES if as_file else list_limit(request)
    cursor = request.query_params.get("cursor")
    async with session(services(request).pool) as connection:
        vertical = await _load_vertical(request, slug)
        before = None if cursor is None else read_version(cursor)
        cards = await learning_store.list_cards(connection, vertical.id, before, limit + 1)
        newest = await learning_store.list_cards(connection, vertical.id, None, CSV_LINES) if cursor else cards
        training = await learning_store.find_training(connection, vertical.id)
    if as_file:
        return await CARDS.download(cards[:limit])
    return page(
        request,
        viewer,
        "operator/scorecards.html",
        vertical=vertical,
        listing=CARDS,
        cards=cards[:limit],
        next_cursor=str(cards[limit - 1].version) if len(cards) > limit else None,
        ranking=describe_ranking(vertical, newest),
        training=training,
    )


@get(CARD)
async def show_scorecard(request: AnyRequest, slug: FromPath[str], version: FromPath[str]) -> Response[bytes]:
    """Show one scorecard: its points, how it does by tenths and by groups, its checks, and what may be done with it."""
    viewer = await visitor(request, CallerKind.operator)
    return await _card_page(request, viewer, slug, read_version(version))


async def _card_page(request: AnyRequest, viewer: Viewer, slug: str, version: int) -> Response[bytes]:
    shared = services(request)
    async with session(shared.pool) as connection:
        vertical = await _load_vertical(request, slug)
        card = await learning_flow.load_card(connection, slug, version)
        checks = await learning_store.list_checks(connection, card.vertical_id, version, MOST_CHECKS)
        words = await learning_store.load_words(connection, card.vertical_id)
        names = await list_actor_names(connection, {card.trained_by})
    report = await learning_flow.judge_shadow(shared.pool, card, shared.settings.shadow_leads, clock.now())
    figures = report.figures or card.shadow_figures
    return page(
        request,
        viewer,
        "operator/scorecard.html",
        vertical=vertical,
        card=card,
        home=home_of(slug, version),
        trained_by=names.get(card.trained_by, card.trained_by),
        report=report,
        shadow=describe_shadow(report) if card.state is CardState.shadow else "",
        suspension=ALARMS[card.suspended_for] if card.suspended_for else "",
        judgements=[
            (title, note, judgement)
            for title, note, judgement in (
                ("Since it was computed for leads", "Leads that were sold since, whose outcome is known.", figures),
                ("In training", "Each lead was judged by a card that had not seen it.", card.evaluation),
            )
            if judgement is not None
        ],
        deciles=DECILES,
        groups=group_listing(words.providers),
        points=POINTS,
        point_rows=list_points(card),
        check_listing=CHECKS,
        checks=checks,
        shift_limit=SHIFT_LIMIT,
    )


async def _load_vertical(request: AnyRequest, slug: str) -> Vertical:
    async with session(services(request).pool) as connection:
        vertical = await directory_store.find_vertical(connection, slug)
    if vertical is None:
        raise errors.NotFound("There is no vertical with this slug.")
    return vertical


@post(f"{CARD}/sign-off")
async def sign_off_card(request: AnyRequest, slug: FromPath[str], version: FromPath[str]) -> Response[bytes]:
    """Let a card in shadow rank."""
    viewer, _ = await submitted(request, SignOffForm, CallerKind.operator)
    shared = services(request)
    card = await learning_flow.sign_off(
        shared.pool, viewer.member_id, slug, read_version(version), shared.settings.shadow_leads
    )
    return redirect(request, home_of(slug, card.version), f"Version {card.version} ranks from now on.")


@post(f"{CARD}/shadow")
async def begin_shadow(request: AnyRequest, slug: FromPath[str], version: FromPath[str]) -> Response[bytes]:
    """Begin to compute a trained card for each lead."""
    viewer, _ = await submitted(request, SignOffForm, CallerKind.operator)
    card = await learning_flow.begin_shadow(services(request).pool, viewer.actor, slug, read_version(version))
    return redirect(request, home_of(slug, card.version), "The card is computed for each lead, without any effect.")


@post(f"{CARD}/retire")
async def retire_card(request: AnyRequest, slug: FromPath[str], version: FromPath[str]) -> Response[bytes]:
    """Give a card up."""
    viewer, form = await submitted(request, ReasonForm, CallerKind.operator)
    pool = services(request).pool
    card = await learning_flow.retire(pool, viewer.actor, slug, read_version(version), form.reason.strip())
    return redirect(request, home_of(slug, card.version), f"Version {card.version} is retired.")


@post(f"{CARD}/resume")
async def resume_card(request: AnyRequest, slug: FromPath[str], version: FromPath[str]) -> Response[bytes]:
    """Let a suspended card rank again."""
    viewer, form = await submitted(request, ReasonForm, CallerKind.operator)
    pool = services(request).pool
    card = await learning_flow.resume(pool, viewer.actor, slug, read_version(version), form.reason.strip())
    return redirect(request, home_of(slug, card.version), f"Version {card.version} ranks again.")


@post(f"{HOME}/roll-back")
async def roll_back_card(request: AnyRequest, slug: FromPath[str]) -> Response[bytes]:
    """Let the card rank again that ranked before the present one."""
    viewer, form = await submitted(request, ReasonForm, CallerKind.operator)
    card = await learning_flow.roll_back(services(request).pool, viewer.actor, slug, form.reason.strip())
    return redirect(request, home_of(slug), f"Version {card.version} ranks again.")


class SignOffForm(msgspec.Struct, frozen=True, kw_only=True):
    """A button without any field."""


handlers: tuple[Any, ...] = (
    show_scorecards,
    show_scorecard,
    sign_off_card,
    begin_shadow,
    retire_card,
    resume_card,
    roll_back_card,
)
