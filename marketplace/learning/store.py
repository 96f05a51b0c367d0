"""Queries of scorecards as typed functions, one per query."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Queries, fetch_rows, find_row, load_row
from marketplace.learning.drift import DriftAlarm, DriftFigures, InputProfile
from marketplace.learning.evaluation import CardEvaluation
from marketplace.learning.states import CardState
from routing.decision import LeadChance
from routing.inquiry import Facts
from routing.scorecard import Scorecard
from routing.vertical import VerticalDefinition

SQL = Queries(__file__)

NEWEST: Final = UUID(int=2**128 - 1)
"Cursor before the newest lead."


class StoredCard(msgspec.Struct, frozen=True, kw_only=True):
    """A scorecard of a vertical with its state.

    `evaluation` is that of its training, on leads that it was not trained on. `shadow_leads` and `shadow_figures` are
    what it was signed off on. `replaces` is the card that ranked before it.
    """

    vertical_id: UUID
    vertical: str
    version: int
    state: CardState
    document: Scorecard
    evaluation: CardEvaluation
    trained_at: datetime
    trained_by: str
    shadow_since: datetime | None
    signed_off_at: datetime | None
    signed_off_by: UUID | None
    shadow_leads: int | None
    shadow_figures: CardEvaluation | None
    replaces: int | None
    suspended_for: DriftAlarm | None

    @property
    def card(self) -> Scorecard:
        """The card with its version."""
        return msgspec.structs.replace(self.document, version=self.version)


class ComputedCard(StoredCard, frozen=True, kw_only=True):
    """A card that is computed for leads, with the time of its last check."""

    checked_at: datetime | None


class CardInPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Version and state of a card that is in shadow, ranks, or is suspended."""

    version: int
    state: CardState
    replaces: int | None


class LearningVertical(msgspec.Struct, frozen=True, kw_only=True):
    """A vertical with the times of its last training and of the last count of its sales; None for never."""

    id: UUID
    slug: str
    trained_at: datetime | None
    has_shadow: bool
    counted_at: datetime | None


class ChargedLead(msgspec.Struct, frozen=True, kw_only=True):
    """A charged lead: its facts at receipt, the recorded chances, and what became of it up to `told_until`.

    `business_id` and `received_at`, the time at which the business was shown it, are None if it cannot be judged;
    `told_until` is None if its business has never reported anything.
    """

    lead_id: UUID
    provider_id: UUID
    facts: Facts
    business_id: UUID | None
    received_at: datetime | None
    won_at: datetime | None
    ended_at: datetime | None
    told_until: datetime | None
    chances: tuple[LeadChance, ...] | None


class LastTraining(msgspec.Struct, frozen=True, kw_only=True):
    """Last training of a vertical: when it began, the leads that were read, and why there was no card, if so."""

    tried_at: datetime
    leads: int
    refusal: str | None


class CountedSales(msgspec.Struct, frozen=True, kw_only=True):
    """Leads of a vertical that a business was charged for, those it gave back, and its jobs with a value."""

    business_id: UUID
    leads: int
    returned: int
    jobs: int
    jobs_minor: int


class VerticalWords(msgspec.Struct, frozen=True, kw_only=True):
    """Rules of a vertical, and the names of its providers and businesses by id."""

    definition: VerticalDefinition
    providers: dict[str, str]
    businesses: dict[str, str]


class CardCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One weekly check of a card."""

    checked_at: datetime
    figures: DriftFigures
    alarm: DriftAlarm | None


async def take_pass(connection: Connection) -> bool:
    """Take the lock of the weekly work, unless another worker has it. It is held until `end_pass`."""
    ours: bool = await connection.fetchval(SQL["take_pass"])
    return ours


async def end_pass(connection: Connection) -> None:
    await connection.execute(SQL["end_pass"])


async def take_turn(connection: Connection, vertical_id: UUID) -> None:
    """Wait for other changes of the vertical's cards; the lock ends with the transaction."""
    await connection.execute(SQL["take_turn"], vertical_id)


async def find_vertical(connection: Connection, slug: str) -> UUID | None:
    vertical_id: UUID | None = await connection.fetchval(SQL["find_vertical"], slug)
    return vertical_id


async def list_verticals(connection: Connection) -> tuple[LearningVertical, ...]:
    return await fetch_rows(connection, SQL["list_verticals"], LearningVertical)


async def begin_training(connection: Connection, vertical_id: UUID, now: datetime) -> None:
    await connection.execute(SQL["begin_training"], vertical_id, now)


async def end_training(connection: Connection, vertical_id: UUID, leads: int, refusal: str | None) -> None:
    await connection.execute(SQL["end_training"], vertical_id, leads, refusal)


async def find_training(connection: Connection, vertical_id: UUID) -> LastTraining | None:
    return await find_row(connection, SQL["find_training"], LastTraining, vertical_id)


async def insert_card(
    connection: Connection,
    vertical_id: UUID,
    card: Scorecard,
    evaluation: CardEvaluation,
    profile: InputProfile,
    now: datetime,
    actor: str,
) -> int:
    """Insert a card in the state `trained` and return its version, the next of the vertical."""
    documents = (msgspec.json.encode(document) for document in (card, evaluation, profile))
    version: int = await connection.fetchval(SQL["insert_card"], vertical_id, *documents, now, actor)
    return version


async def list_cards(
    connection: Connection, vertical_id: UUID, before: int | None, limit: int
) -> tuple[StoredCard, ...]:
    """Return the cards of a vertical, the newest first, from below the version `before` on."""
    return await fetch_rows(connection, SQL["list_cards"], StoredCard, vertical_id, before, limit)


async def find_card(connection: Connection, vertical_id: UUID, version: int) -> StoredCard | None:
    return await find_row(connection, SQL["find_card"], StoredCard, vertical_id, version)


async def list_by_version(
    connection: Connection, vertical_id: UUID, versions: Collection[int]
) -> tuple[StoredCard, ...]:
    """Return these versions of the cards of a vertical."""
    return await fetch_rows(connection, SQL["list_by_version"], StoredCard, vertical_id, list(versions))


async def load_profile(connection: Connection, vertical_id: UUID, version: int) -> InputProfile:
    return msgspec.json.decode(await connection.fetchval(SQL["find_profile"], vertical_id, version), type=InputProfile)


async def list_computed(connection: Connection) -> tuple[ComputedCard, ...]:
    return await fetch_rows(connection, SQL["list_computed"], ComputedCard)


async def list_in_place(connection: Connection, vertical_id: UUID) -> tuple[CardInPlace, ...]:
    return await fetch_rows(connection, SQL["list_in_use"], CardInPlace, vertical_id)


async def mark_shadow(connection: Connection, vertical_id: UUID, version: int, now: datetime) -> None:
    await connection.execute(SQL["mark_shadow"], vertical_id, version, now)


async def mark_retired(connection: Connection, vertical_id: UUID, version: int) -> None:
    await connection.execute(SQL["mark_retired"], vertical_id, version)


async def mark_signed_off(
    connection: Connection,
    vertical_id: UUID,
    version: int,
    now: datetime,
    member_id: UUID,
    figures: CardEvaluation,
    replaces: int | None,
) -> None:
    """Let a card rank, signed off by a member on these figures of its time in shadow."""
    document = msgspec.json.encode(figures)
    await connection.execute(
        SQL["mark_signed_off"], vertical_id, version, now, member_id, figures.leads, document, replaces
    )


async def mark_ranking(connection: Connection, vertical_id: UUID, version: int) -> None:
    await connection.execute(SQL["mark_ranking"], vertical_id, version)


async def mark_suspended(connection: Connection, vertical_id: UUID, version: int, alarm: DriftAlarm) -> bool:
    """Suspend a card, and return whether it was ranking."""
    return await connection.fetchval(SQL["mark_suspended"], vertical_id, version, alarm) is not None


async def list_outcomes(
    connection: Connection, vertical_id: UUID, before: UUID, since: datetime, limit: int
) -> tuple[ChargedLead, ...]:
    """Return the newest charged leads received from `since` on, with ids below `before`."""
    return await fetch_rows(connection, SQL["list_outcomes"], ChargedLead, vertical_id, before, since, limit)


async def load_words(connection: Connection, vertical_id: UUID) -> VerticalWords:
    return await load_row(connection, SQL["load_words"], VerticalWords, vertical_id)


async def find_operator(connection: Connection, email: str) -> UUID | None:
    member_id: UUID | None = await connection.fetchval(SQL["find_operator"], email)
    return member_id


async def list_sellers(connection: Connection, vertical_id: UUID) -> tuple[UUID, ...]:
    """Return the businesses that have had a subscription in a vertical."""
    return tuple(row["business_id"] for row in await connection.fetch(SQL["list_sellers"], vertical_id))


async def count_sales(connection: Connection, vertical_id: UUID, business_id: UUID, since: datetime) -> CountedSales:
    return await load_row(connection, SQL["count_sales"], CountedSales, vertical_id, business_id, since)


async def save_sales(connection: Connection, vertical_id: UUID, sales: Sequence[CountedSales], now: datetime) -> None:
    await connection.execute(SQL["save_sales"], vertical_id, msgspec.json.encode(sales), now)


async def insert_check(
    connection: Connection, vertical_id: UUID, version: int, now: datetime, figures: DriftFigures
) -> None:
    document = msgspec.json.encode(figures)
    await connection.execute(SQL["insert_check"], vertical_id, version, now, document, figures.alarm)


async def list_checks(connection: Connection, vertical_id: UUID, version: int, limit: int) -> Sequence[CardCheck]:
    """Return the checks of a card, the newest first."""
    return await fetch_rows(connection, SQL["list_checks"], CardCheck, vertical_id, version, limit)
