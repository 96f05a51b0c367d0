"""Weekly work on scorecards: train a new one, check those that are computed; and each day count the sales.

A background pass of the workers. Training runs in a process of its own, so that leads are never delayed by it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from importlib.util import find_spec
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.background import keep_passing
from marketplace.database.db import Pool, session
from marketplace.learning import flow as learning_flow
from marketplace.learning import store as learning_store
from marketplace.learning.apart import TrainingLead, TrainingSet, train_apart
from marketplace.learning.drift import DriftFigures, measure_drift, profile_inputs
from marketplace.learning.flow import MACHINE, MOST_JUDGED
from marketplace.learning.outcomes import MOST_LEADS, SPAN, charged_leads, judged_leads, outcome_of, values_of
from marketplace.learning.store import ComputedCard, LearningVertical
from marketplace.runtime import clock
from marketplace.runtime.errors import Conflict
from marketplace.runtime.log import logger
from routing.scorecard import compile_scorecard

log = logger("learning")

PASS_SECONDS: Final = 600.0
"Interval at which a worker looks whether any weekly or daily work is due."
WEEK: Final = timedelta(weeks=1)
DAY: Final = timedelta(days=1)
SALES_SPAN: Final = timedelta(days=365)
"Age of the oldest lead that counts for the returns and jobs of a business."
RECENT: Final = timedelta(weeks=4)
"Age of the leads whose inputs are compared with those of the training."
OUTCOME_SPAN: Final = timedelta(weeks=39)
"""Age of the oldest lead by whose outcome calibration is checked: three horizons, of which the last has ended for two
thirds of the leads."""
NO_LIBRARY: Final = (
    "Training needs scikit-learn, which this installation lacks. Install the extra: "
    "pip install 'exclusive-lead-marketplace[learning]'."
)


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a training: the version of the new card, or None and the reason why there is none.

    `reason` is that of the refusal; `leads` were read, and `auc` and `calibration_error` are of leads that the card was
    not trained on.
    """

    vertical: str
    leads: int
    version: int | None = None
    wins: int | None = None
    auc: float | None = None
    calibration_error: float | None = None
    reason: str | None = None
    detail: str | None = None


def can_train() -> bool:
    """Return whether the library that trains is installed."""
    return find_spec("sklearn") is not None


async def keep_learning(pool: Pool, stopping: asyncio.Event) -> None:
    """Do the daily and weekly work that is due, until `stopping` is set, as a background pass."""
    if not can_train():
        log.info("training_off")

    async def run_pass() -> None:
        await unless(stopping, work_off(pool, clock.now()))

    await keep_passing(pool, "learning", run_pass, stopping, every=PASS_SECONDS)


async def unless(stopping: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Do the work, or cancel it when `stopping` is set: a training takes longer than a worker has to stop."""
    task, stop = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        if not task.done():
            task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def work_off(pool: Pool, now: datetime) -> None:
    """Count sales, check cards and train new ones where the last time was a day or a week ago.

    Does nothing while another worker does. The lock belongs to a connection that is used for nothing else meanwhile: a
    pass can take longer than its lease.
    """
    async with session(pool) as connection:
        if not await learning_store.take_pass(connection):
            return
        try:
            await _work_off(pool, now)
        finally:
            await learning_store.end_pass(connection)


async def _work_off(pool: Pool, now: datetime) -> None:
    async with session(pool) as connection:
        verticals = await learning_store.list_verticals(connection)
        cards = await learning_store.list_computed(connection)
    for vertical in verticals:
        if vertical.counted_at is None or now - vertical.counted_at >= DAY:
            await count_sales(pool, vertical.id, now)
    for card in cards:
        if is_check_due(card, now):
            await check_card(pool, card, now)
    for vertical in verticals:
        if can_train() and is_training_due(vertical, now):
            result = await train_card(pool, MACHINE, vertical.slug)
            log.info("trained", name=vertical.slug, count=result.leads, version=result.version, reason=result.reason)


def is_training_due(vertical: LearningVertical, now: datetime) -> bool:
    """Return whether a new card is to be trained: weekly, and not while one is in shadow, which it would replace."""
    old_enough = vertical.trained_at is None or now - vertical.trained_at >= WEEK
    return old_enough and not vertical.has_shadow


def is_check_due(card: ComputedCard, now: datetime) -> bool:
    """Return whether a card is to be checked: a week after its training, and each week from then on."""
    return now - (card.checked_at or card.trained_at) >= WEEK


async def count_sales(pool: Pool, vertical_id: UUID, now: datetime) -> None:
    """Count what each business of a vertical did with the leads of the last year, and store all counts at once."""
    async with session(pool) as connection:
        business_ids = await learning_store.list_sellers(connection, vertical_id)
        sales = [
            await learning_store.count_sales(connection, vertical_id, business_id, now - SALES_SPAN)
            for business_id in business_ids
        ]
        await learning_store.save_sales(connection, vertical_id, sales, now)


# Checking.


async def check_card(pool: Pool, card: ComputedCard, now: datetime) -> DriftFigures:
    """Compare a card with recent leads and with the outcomes known by now, and suspend it if it is far off."""
    compiled = compile_scorecard(card.card)
    recent = [values_of(lead) async for lead in charged_leads(pool, card.vertical_id, now - RECENT, MOST_JUDGED)]
    since = max(card.shadow_since or card.trained_at, now - OUTCOME_SPAN)
    judged = await judged_leads(pool, card.vertical_id, card.version, since, now, MOST_JUDGED)
    async with session(pool) as connection:
        profile = await learning_store.load_profile(connection, card.vertical_id, card.version)

    def measure() -> DriftFigures:
        return measure_drift(profile, profile_inputs(compiled, recent, profile.edges), judged)

    figures = await asyncio.to_thread(measure)
    alarm = await learning_flow.record_check(pool, card.vertical_id, card.version, figures, now)
    if alarm is not None:
        log.error("scorecard_suspended", name=card.vertical, version=card.version, reason=alarm)
    return figures


# Training.


async def train_card(
    pool: Pool, actor: str, slug: str, on_progress: Callable[[str], None] | None = None
) -> TrainingResult:
    """Train a card of a vertical from its charged leads and store it. `on_progress` is told each step in a sentence.

    What a lead is judged by was known at its receipt; its outcome is a win within 13 weeks, or is still open.
    Raises NotFound, and Conflict without the library.
    """
    if not can_train():
        raise Conflict(NO_LIBRARY)
    now = clock.now()
    async with session(pool) as connection:
        vertical_id = await learning_flow.load_vertical(connection, slug)
        await learning_store.begin_training(connection, vertical_id, now)
    tell = on_progress or _tell_nobody
    tell("Reading the leads of the last two years.")
    training_set = await load_training_set(pool, vertical_id, slug, now)
    tell(f"Training on {len(training_set.leads):,} leads, which can take some minutes.")
    answer = await train_apart(training_set)
    leads = len(training_set.leads)
    async with session(pool) as connection:
        await learning_store.end_training(connection, vertical_id, leads, answer.detail)
    if answer.card is None or answer.evaluation is None or answer.profile is None:
        return TrainingResult(vertical=slug, leads=leads, reason=answer.reason, detail=answer.detail)
    version = await learning_flow.add_card(pool, actor, vertical_id, answer.card, answer.evaluation, answer.profile)
    return TrainingResult(
        vertical=slug,
        leads=leads,
        version=version,
        wins=answer.card.trained_on.wins,
        auc=answer.evaluation.auc,
        calibration_error=answer.evaluation.calibration_error,
    )


def _tell_nobody(text: str) -> None:
    """Ignore a step of the training."""


async def load_training_set(pool: Pool, vertical_id: UUID, slug: str, now: datetime) -> TrainingSet:
    """Return the newest leads of a vertical whose outcome is known or still open, at most MOST_LEADS."""
    async with session(pool) as connection:
        words = await learning_store.load_words(connection, vertical_id)
    leads = []
    async for lead in charged_leads(pool, vertical_id, now - SPAN, MOST_LEADS):
        outcome = outcome_of(lead, now)
        if outcome is not None and lead.received_at is not None:
            leads.append(TrainingLead(values=values_of(lead), received_at=lead.received_at, outcome=outcome))
    return TrainingSet(
        vertical=slug,
        definition=words.definition,
        providers=words.providers,
        businesses=words.businesses,
        leads=tuple(leads),
    )
