"""HTTP API of scorecards: operators read the cards of a vertical, how each does, and its weekly checks."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from litestar import get
from litestar.params import FromPath

from marketplace.database.db import Pool, session
from marketplace.directory.wire import LARGEST_VERSION, OPERATOR, path_slug
from marketplace.learning import flow as learning_flow
from marketplace.learning import store as learning_store
from marketplace.learning.drift import DriftAlarm
from marketplace.learning.evaluation import CardEvaluation, GroupEvaluation
from marketplace.learning.flow import ShadowReport
from marketplace.learning.states import CardState
from marketplace.learning.store import CardCheck, StoredCard
from marketplace.runtime import clock, errors, ids
from marketplace.text.faults import Fault
from marketplace.web.api import Injected, api_router, list_page
from marketplace.web.http import AnyRequest, Page, Services, page_limit
from marketplace.web.openapi import RouteDoc, paged
from routing.scorecard import CardFeature, CardOrigin

PATH: Final = "/verticals/{slug:str}/scorecards"
MOST_CHECKS: Final = 53
"Weekly checks that are shown: those of a year."
VERSION: Final = {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"}


class ScorecardSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A scorecard in a list. `auc` and `calibration_error` are those of its training, on leads that it had not seen."""

    version: int
    state: CardState
    trained_at: datetime
    trained_on: CardOrigin
    horizon_weeks: int
    auc: float
    calibration_error: float
    shadow_since: datetime | None
    signed_off_at: datetime | None
    signed_off_by: str | None
    replaces: int | None
    suspended_for: DriftAlarm | None


class ScorecardView(ScorecardSummary, frozen=True, kw_only=True):
    """A scorecard with its points in log odds, its judgements, and its weekly checks, the newest first."""

    intercept: float
    features: tuple[CardFeature, ...]
    evaluation: CardEvaluation
    shadow: ShadowReport
    checks: tuple[CardCheck, ...]


@get(PATH, tags=["verticals"], dependencies={"caller": OPERATOR}, doc=RouteDoc(query=paged(VERSION)))
async def list_scorecards(
    request: AnyRequest, slug: FromPath[str], services: Injected[Services]
) -> Page[ScorecardSummary]:
    """Lists the scorecards of a vertical, newest first. Operators only."""
    limit, before = page_limit(request), _cursor(request)
    async with session(services.pool) as connection:
        vertical_id = await learning_flow.load_vertical(connection, path_slug(slug))
        cards = await learning_store.list_cards(connection, vertical_id, before, limit + 1)
    return list_page(cards, limit, summarise, lambda card: str(card.version))


@get(f"{PATH}/{{version:str}}", tags=["verticals"], dependencies={"caller": OPERATOR})
async def show_scorecard(slug: FromPath[str], version: FromPath[str], services: Injected[Services]) -> ScorecardView:
    """Shows one scorecard: its points, AUC, Brier score and calibration, by group, and its checks. Operators only."""
    needed = services.settings.shadow_leads
    return await view_card(services.pool, path_slug(slug), read_version(version), needed)


async def view_card(pool: Pool, slug: str, version: int, needed: int) -> ScorecardView:
    """Return a card as an operator sees it; `needed` leads with an outcome let it be signed off. Raises NotFound."""
    async with session(pool) as connection:
        card = await learning_flow.load_card(connection, slug, version)
        checks = await learning_store.list_checks(connection, card.vertical_id, version, MOST_CHECKS)
    report = await learning_flow.judge_shadow(pool, card, needed, clock.now())
    return ScorecardView(
        **msgspec.structs.asdict(summarise(card)),
        intercept=card.document.intercept,
        features=card.document.features,
        evaluation=with_public_ids(card.evaluation),
        shadow=msgspec.structs.replace(report, figures=report.figures and with_public_ids(report.figures)),
        checks=tuple(checks),
    )


def summarise(card: StoredCard) -> ScorecardSummary:
    """Return a card as lists show it."""
    return ScorecardSummary(
        version=card.version,
        state=card.state,
        trained_at=card.trained_at,
        trained_on=card.document.trained_on,
        horizon_weeks=card.document.horizon_weeks,
        auc=card.evaluation.auc,
        calibration_error=card.evaluation.calibration_error,
        shadow_since=card.shadow_since,
        signed_off_at=card.signed_off_at,
        signed_off_by=None if card.signed_off_by is None else ids.encode("mem", card.signed_off_by),
        replaces=card.replaces,
        suspended_for=card.suspended_for,
    )


def with_public_ids(evaluation: CardEvaluation) -> CardEvaluation:
    """Return the judgement with the public ids of providers in its groups."""
    return msgspec.structs.replace(evaluation, groups=tuple(map(_public_group, evaluation.groups)))


def _public_group(group: GroupEvaluation) -> GroupEvaluation:
    if group.feature != "provider" or group.value is None:
        return group
    return msgspec.structs.replace(group, value=ids.encode("prov", UUID(str(group.value))))


def read_version(text: str) -> int:
    """Return the version in a path. Raises NotFound for a malformed one, with the same text as for an unknown one."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and 1 <= int(text) <= LARGEST_VERSION):
        raise errors.NotFound("The vertical has no scorecard with this version.")
    return int(text)


def _cursor(request: AnyRequest) -> int | None:
    text = request.query_params.get("cursor")
    if text is None:
        return None
    try:
        return read_version(text)
    except errors.NotFound:
        detail = "Send next_cursor of the page before, unchanged."
        raise errors.InvalidInput((Fault(pointer="/cursor", code="cursor_invalid", detail=detail),)) from None


handlers = (api_router(list_scorecards, show_scorecard),)
