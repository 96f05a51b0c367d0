"""Use cases of scorecards: store a trained one, sign it off, roll it back, retire it. Each change has its audit row.

A new card is computed in shadow as soon as no other card of its vertical is. It ranks only after an operator has signed
it off on what it said about enough leads whose outcome is known.
"""

import asyncio
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.learning import store as learning_store
from marketplace.learning.drift import DriftAlarm, DriftFigures, InputProfile
from marketplace.learning.evaluation import CardEvaluation, JudgedLead, OutcomeKind, evaluate
from marketplace.learning.outcomes import judged_leads
from marketplace.learning.states import CARD_MOVES, IN_CHARGE, CardState
from marketplace.learning.store import CardInPlace, StoredCard
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from routing.scorecard import Scorecard

MACHINE: Final = "marketplace"
"Actor of changes that a job makes."

MOST_JUDGED: Final = 10_000
"Newest leads by which a card in use is judged: its share of wins is then known to half a percentage point."


class ShadowReport(msgspec.Struct, frozen=True, kw_only=True):
    """Record of a card since it began in shadow: leads that it was computed for, of which `ended` have an outcome.

    `figures` are None while there are not both won and other leads among them. It may be signed off from `needed` on.
    """

    leads: int
    ended: int
    needed: int
    figures: CardEvaluation | None

    @property
    def suffices(self) -> bool:
        """Return whether the card may be signed off."""
        return self.figures is not None and self.ended >= self.needed


async def load_vertical(connection: Connection, slug: str) -> UUID:
    """Return the id of a vertical. Raises NotFound."""
    vertical_id = await learning_store.find_vertical(connection, slug)
    if vertical_id is None:
        raise errors.NotFound("There is no vertical with this slug.")
    return vertical_id


async def load_card(connection: Connection, slug: str, version: int) -> StoredCard:
    """Return a scorecard of a vertical. Raises NotFound."""
    card = await learning_store.find_card(connection, await load_vertical(connection, slug), version)
    if card is None:
        raise errors.NotFound("The vertical has no scorecard with this version.")
    return card


async def add_card(
    pool: Pool, actor: str, vertical_id: UUID, card: Scorecard, evaluation: CardEvaluation, profile: InputProfile
) -> int:
    """Store a trained card and return its version. It begins in shadow if no other card of the vertical is there."""
    now = clock.now()
    async with transaction(pool) as connection:
        await learning_store.take_turn(connection, vertical_id)
        version = await learning_store.insert_card(connection, vertical_id, card, evaluation, profile, now, actor)
        state = CardState.trained
        in_place = await learning_store.list_in_place(connection, vertical_id)
        if not any(other.state is CardState.shadow for other in in_place):
            await learning_store.mark_shadow(connection, vertical_id, version, now)
            state = CardState.shadow
        await _record(connection, now, actor, "scorecard.train", vertical_id, version, None, state)
    return version


async def begin_shadow(pool: Pool, actor: str, slug: str, version: int) -> StoredCard:
    """Begin to compute a trained card for each lead, without effect. Raises NotFound, and Conflict."""
    now = clock.now()
    async with transaction(pool) as connection:
        card = await _take_card(connection, slug, version, CardState.shadow)
        for other in await learning_store.list_in_place(connection, card.vertical_id):
            if other.state is CardState.shadow:
                raise errors.Conflict(f"Version {other.version} is in shadow. Sign it off or retire it first.")
        await learning_store.mark_shadow(connection, card.vertical_id, version, now)
        await _record(
            connection, now, actor, "scorecard.shadow", card.vertical_id, version, card.state, CardState.shadow
        )
        return await load_card(connection, slug, version)


async def judge_shadow(pool: Pool, card: StoredCard, needed: int, now: datetime) -> ShadowReport:
    """Return how a card has done on the leads that it was computed for, newest first, at most MOST_JUDGED."""
    if card.shadow_since is None:
        return ShadowReport(leads=0, ended=0, needed=needed, figures=None)
    leads = await judged_leads(pool, card.vertical_id, card.version, card.shadow_since, now, MOST_JUDGED)
    figures = await asyncio.to_thread(_figures, leads)
    ended = sum(lead.outcome.outcome is not OutcomeKind.open for lead in leads)
    return ShadowReport(leads=len(leads), ended=ended, needed=needed, figures=figures)


def _figures(leads: list[JudgedLead]) -> CardEvaluation | None:
    """Return the judgement of the leads, or None if they are all won or all not won."""
    try:
        return evaluate(leads)
    except ValueError:
        return None


async def sign_off(pool: Pool, member_id: UUID, slug: str, version: int, needed: int) -> StoredCard:
    """Let a card in shadow rank, in place of the card that ranks now. `member_id` is an operator's.

    Raises NotFound, and Conflict if it is not in shadow or has not seen `needed` leads whose outcome is known.
    """
    async with session(pool) as connection:
        card = await load_card(connection, slug, version)
    _demand_move(card, CardState.ranking, frozenset({CardState.shadow}))
    now = clock.now()
    report = await judge_shadow(pool, card, needed, now)
    if report.figures is None or not report.suffices:
        raise errors.Conflict(
            f"The outcome is known of {report.ended:,} leads that it was computed for, and {needed:,} are needed, some"
            " of them won and some not. Wait until businesses have reported more."
        )
    async with transaction(pool) as connection:
        card = await _take_card(connection, slug, version, CardState.ranking, frozenset({CardState.shadow}))
        before = await _card_in_charge(connection, card.vertical_id)
        actor = ids.encode("mem", member_id)
        if before is not None:
            await learning_store.mark_retired(connection, card.vertical_id, before.version)
        replaces = before.version if before else None
        await learning_store.mark_signed_off(
            connection, card.vertical_id, version, now, member_id, report.figures, replaces
        )
        await _record(
            connection,
            now,
            actor,
            "scorecard.sign_off",
            card.vertical_id,
            version,
            card.state,
            CardState.ranking,
            ranking_before=replaces,
            shadow_leads=report.figures.leads,
        )
        return await load_card(connection, slug, version)


async def roll_back(pool: Pool, actor: str, slug: str, reason: str) -> StoredCard:
    """Retire the card in charge of a vertical and let the one before it rank again; return that one.

    Raises NotFound, and Conflict if no card is in charge or none ranked before it.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        vertical_id = await load_vertical(connection, slug)
        await learning_store.take_turn(connection, vertical_id)
        current = await _card_in_charge(connection, vertical_id)
        if current is None:
            raise errors.Conflict("No card of this vertical ranks, so that there is none to roll back.")
        if current.replaces is None:
            raise errors.Conflict(
                f"No card ranked before version {current.version}. Retire it, and the vertical is ranked without one."
            )
        await learning_store.mark_retired(connection, vertical_id, current.version)
        await learning_store.mark_ranking(connection, vertical_id, current.replaces)
        await _record(
            connection,
            now,
            actor,
            "scorecard.roll_back",
            vertical_id,
            current.replaces,
            CardState.retired,
            CardState.ranking,
            ranking_before=current.version,
            reason=reason,
        )
        return await load_card(connection, slug, current.replaces)


async def retire(pool: Pool, actor: str, slug: str, version: int, reason: str) -> StoredCard:
    """Give a card up; without one in charge, the highest price ranks. Raises NotFound, and Conflict."""
    now = clock.now()
    async with transaction(pool) as connection:
        card = await _take_card(connection, slug, version, CardState.retired)
        await learning_store.mark_retired(connection, card.vertical_id, version)
        await _record(
            connection,
            now,
            actor,
            "scorecard.retire",
            card.vertical_id,
            version,
            card.state,
            CardState.retired,
            reason=reason,
        )
        return await load_card(connection, slug, version)


async def resume(pool: Pool, actor: str, slug: str, version: int, reason: str) -> StoredCard:
    """Let a suspended card rank again. Raises NotFound, Conflict."""
    now = clock.now()
    async with transaction(pool) as connection:
        card = await _take_card(connection, slug, version, CardState.ranking, frozenset({CardState.suspended}))
        await learning_store.mark_ranking(connection, card.vertical_id, version)
        await _record(
            connection,
            now,
            actor,
            "scorecard.resume",
            card.vertical_id,
            version,
            card.state,
            CardState.ranking,
            reason=reason,
        )
        return await load_card(connection, slug, version)


async def record_check(
    pool: Pool, vertical_id: UUID, version: int, figures: DriftFigures, now: datetime
) -> DriftAlarm | None:
    """Store a check, and suspend the card if it alarms and ranks. Return the alarm if the card was suspended."""
    alarm = figures.alarm
    async with transaction(pool) as connection:
        await learning_store.take_turn(connection, vertical_id)
        await learning_store.insert_check(connection, vertical_id, version, now, figures)
        if alarm is None or not await learning_store.mark_suspended(connection, vertical_id, version, alarm):
            return None
        await _record(
            connection,
            now,
            MACHINE,
            "scorecard.suspend",
            vertical_id,
            version,
            CardState.ranking,
            CardState.suspended,
            reason=alarm,
        )
    return alarm


async def _take_card(
    connection: Connection,
    slug: str,
    version: int,
    target: CardState,
    sources: frozenset[CardState] | None = None,
) -> StoredCard:
    """Wait for other changes, and return a card that may move to `target`. Raises NotFound, and Conflict."""
    await learning_store.take_turn(connection, await load_vertical(connection, slug))
    card = await load_card(connection, slug, version)
    _demand_move(card, target, sources)
    return card


def _demand_move(card: StoredCard, target: CardState, sources: frozenset[CardState] | None) -> None:
    if target not in CARD_MOVES[card.state] or (sources is not None and card.state not in sources):
        raise errors.Conflict(f"Version {card.version} is {card.state}: it cannot become {target}. Read it again.")


async def _card_in_charge(connection: Connection, vertical_id: UUID) -> CardInPlace | None:
    in_place = await learning_store.list_in_place(connection, vertical_id)
    return next((card for card in in_place if card.state in IN_CHARGE), None)


async def _record(
    connection: Connection,
    now: datetime,
    actor: str,
    action: str,
    vertical_id: UUID,
    version: int,
    before: CardState | None,
    after: CardState,
    **detail: str | int | None,
) -> None:
    subject = ids.encode("vert", vertical_id)
    await audit.record(
        connection, now, actor, action, subject, version=version, state_before=before, state=after, **detail
    )
