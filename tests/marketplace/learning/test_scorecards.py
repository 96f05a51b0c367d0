"""Scorecards of a vertical: who may let one rank, on what evidence, and how it is taken back."""

import asyncio
from collections.abc import AsyncIterator
from itertools import permutations
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from marketplace.learning import flow as learning_flow
from marketplace.learning import store as learning_store
from marketplace.learning.states import CARD_MOVES, CardState
from marketplace.runtime import errors, ids
from marketplace.runtime.settings import Settings
from routing.decision import LeadChance
from routing.ranking import Strategy
from tests.builders.learning import a_member, a_profile, an_evaluation, report, shown_ago, store_card
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace, roofing
from tests.builders.scorecards import a_card
from tests.receivers import Receiver, ok

SLUG = "roofing"
REASON = "It is wrong."


@pytest.fixture
async def market(settings: Settings) -> AsyncIterator[Marketplace]:
    async with marketplace(settings, roofing(strategy=Strategy.expected_value)) as made:
        yield made


async def states(market: Marketplace) -> dict[int, str]:
    rows = await market.owner.fetch("select version, state from scorecard")
    return {row["version"]: row["state"] for row in rows}


async def audited(market: Marketplace) -> list[tuple[str, dict[str, Any]]]:
    rows = await market.owner.fetch(
        "select action, detail from audit where object = $1 order by at, id", ids.encode("vert", market.vertical_id)
    )
    return [(row["action"], msgspec.json.decode(row["detail"])) for row in rows]


async def buyers(market: Marketplace, receiver: Receiver) -> tuple[Buyer, Buyer]:
    """A business that pays more, and one that pays less."""
    dear = await market.buyer(receiver.url, anywhere(price_minor=6_000))
    return dear, await market.buyer(receiver.url, anywhere(price_minor=5_000))


async def outcomes(market: Marketplace, receiver: Receiver) -> None:
    """Two leads of long ago that the card in shadow was computed for: one was won, the other lost."""
    if not await market.value("select count(*) from business"):
        await buyers(market, receiver)
    first = int(await market.value("select count(*) from lead")) + 1
    for number, kind in ((first, "won"), (first + 1, "lost")):
        lead_id = await market.sold(number)
        await shown_ago(market, lead_id, weeks=20)
        await report(market, lead_id, kind, 90_000 if kind == "won" else None, weeks=19)


async def sign_off(market: Marketplace, version: int, needed: int = 2) -> UUID:
    """Sign a card off by a new operator, whose id is returned."""
    member_id = await a_member(market)
    await learning_flow.sign_off(market.api, member_id, SLUG, version, needed)
    return member_id


# The table.


async def test_a_card_moves_in_the_database_as_the_table_of_moves_says(market: Marketplace) -> None:
    await store_card(market)
    async with market.owner.acquire() as connection:
        await connection.execute(
            "alter table scorecard drop constraint scorecard_shadowed, drop constraint scorecard_signed_off,"
            " drop constraint scorecard_suspended"
        )
        allowed: dict[str, set[str]] = {state: set() for state in CardState}
        refused_by: set[str | None] = set()
        for before, after in permutations(CardState, 2):
            await connection.execute("set session_replication_role = replica")
            await connection.execute("update scorecard set state = $1", before)
            await connection.execute("set session_replication_role = origin")
            try:
                await connection.execute("update scorecard set state = $1", after)
            except asyncpg.CheckViolationError as error:
                refused_by.add(error.constraint_name)
            else:
                allowed[before].add(after)
    assert refused_by == {"scorecard_move"}
    assert allowed == CARD_MOVES


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("state = 'ranking'", "scorecard_signed_off"),
        ("state = 'ranking', signed_off_at = now(), shadow_leads = 1, shadow_figures = '{}'", "scorecard_signed_off"),
        ("signed_off_at = now(), signed_off_by = $1, shadow_leads = 0, shadow_figures = '{}'",
         "scorecard_shadow_leads"),
        ("state = 'ranking', signed_off_at = now(), signed_off_by = $1, shadow_leads = 9, shadow_figures = '{}'",
         "scorecard_operator"),
        ("suspended_for = 'inputs_shifted'", "scorecard_suspended"),
    ],
)  # fmt: skip
async def test_no_card_ranks_without_the_sign_off_of_an_operator(
    market: Marketplace, change: str, constraint: str
) -> None:
    await store_card(market)
    stranger = await a_member(market, "provider", market.provider.owner)
    arguments = (stranger,) if "$1" in change else ()
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
        await market.owner.execute(f"update scorecard set {change}", *arguments)
    assert refused.value.constraint_name == constraint


async def test_a_vertical_has_at_most_one_card_in_shadow(market: Marketplace) -> None:
    assert [await store_card(market), await store_card(market)] == [1, 2]
    assert await states(market) == {1: "shadow", 2: "trained"}
    with pytest.raises(asyncpg.UniqueViolationError):
        await market.owner.execute("update scorecard set state = 'shadow', shadow_since = now() where version = 2")
    with pytest.raises(errors.Conflict):
        await learning_flow.begin_shadow(market.api, "test", SLUG, 2)


async def test_a_card_never_changes_what_it_says(market: Marketplace) -> None:
    await store_card(market)
    with pytest.raises(asyncpg.RestrictViolationError):
        await market.owner.execute("update scorecard set document = '{}'")
    with pytest.raises(asyncpg.RestrictViolationError):
        await market.owner.execute("delete from scorecard")


# In the decision.


async def chances_of(market: Marketplace, lead_id: UUID) -> list[tuple[LeadChance, ...]]:
    text = await market.value("select candidates from decision where lead_id = $1", lead_id)
    return [
        tuple(LeadChance(card=card, probability=probability) for card, probability in row.get("chances", ()))
        for row in msgspec.json.decode(text)
    ]


async def test_a_card_in_shadow_is_pinned_in_the_decision_and_one_that_is_retired_is_not(market: Marketplace) -> None:
    async with Receiver(ok) as receiver:
        await buyers(market, receiver)
        before = await market.sold(1)
        await store_card(market)
        shadowed = await market.sold(2)
        await learning_flow.retire(market.api, "test", SLUG, 1, REASON)
        after = await market.sold(3)
    [dear, cheap] = await chances_of(market, shadowed)
    assert [chance.card for chance in dear] == [1]
    assert dear == cheap
    assert dear[0].probability == pytest.approx(0.880797)
    assert await chances_of(market, before) == await chances_of(market, after) == [(), ()]


async def test_a_card_that_ranks_changes_whom_a_lead_goes_to(market: Marketplace) -> None:
    async with Receiver(ok) as receiver:
        dear, cheap = await buyers(market, receiver)
        await store_card(market)
        await outcomes(market, receiver)
        await market.owner.execute(
            "insert into business_sales values ($1, $2, 900, 900, 0, 0, now()), ($1, $3, 900, 0, 0, 0, now())",
            market.vertical_id,
            dear.business_id,
            cheap.business_id,
        )
        shadowed = await market.sold(11)
        await sign_off(market, 1)
        ranked = await market.sold(12)
    winners = [
        await market.value("select business_id from assignment where lead_id = $1", lead_id)
        for lead_id in (shadowed, ranked)
    ]
    assert winners == [dear.business_id, cheap.business_id]


# Sign-off and roll-back.


async def test_a_card_is_signed_off_only_on_enough_leads_with_an_outcome(market: Marketplace) -> None:
    await store_card(market)
    async with Receiver(ok) as receiver:
        await outcomes(market, receiver)
        young = await market.sold(30)
    with pytest.raises(errors.Conflict, match="known of 2 leads"):
        await sign_off(market, 1, needed=3)
    member_id = await sign_off(market, 1, needed=2)
    async with market.api.acquire() as connection:
        card = await learning_store.find_card(connection, market.vertical_id, 1)
    assert card is not None
    assert (card.state, card.signed_off_by, card.shadow_leads) == (CardState.ranking, member_id, 2)
    assert card.shadow_figures is not None
    assert (card.shadow_figures.wins, card.shadow_figures.open_leads) == (1, 1)
    assert (await audited(market))[-1] == (
        "scorecard.sign_off",
        {"version": 1, "state_before": "shadow", "state": "ranking", "ranking_before": None, "shadow_leads": 2},
    )
    assert await market.state(young) == "delivered"


async def test_leads_that_are_all_lost_are_no_evidence(market: Marketplace) -> None:
    await store_card(market)
    async with Receiver(ok) as receiver:
        await market.buyer(receiver.url)
        for number in (1, 2):
            lead_id = await market.sold(number)
            await shown_ago(market, lead_id, weeks=20)
            await report(market, lead_id, "lost", weeks=19)
    with pytest.raises(errors.Conflict, match="some of them won"):
        await sign_off(market, 1, needed=2)


async def test_a_roll_back_lets_the_card_before_rank_again(market: Marketplace) -> None:
    async with Receiver(ok) as receiver:
        for version in (1, 2):
            await store_card(market)
            await outcomes(market, receiver)
            await sign_off(market, version)
    assert await states(market) == {1: "retired", 2: "ranking"}
    back = await learning_flow.roll_back(market.api, "test", SLUG, REASON)
    assert (back.version, back.state) == (1, CardState.ranking)
    assert await states(market) == {1: "ranking", 2: "retired"}
    assert (await audited(market))[-1] == (
        "scorecard.roll_back",
        {"version": 1, "state_before": "retired", "state": "ranking", "ranking_before": 2, "reason": REASON},
    )
    with pytest.raises(errors.Conflict, match="Retire it"):
        await learning_flow.roll_back(market.api, "test", SLUG, REASON)
    await learning_flow.retire(market.api, "test", SLUG, 1, REASON)
    with pytest.raises(errors.Conflict, match="none to roll back"):
        await learning_flow.roll_back(market.api, "test", SLUG, REASON)


async def test_a_card_that_never_ranked_cannot_begin_to_by_a_roll_back(market: Marketplace) -> None:
    await store_card(market)
    await learning_flow.retire(market.api, "test", SLUG, 1, REASON)
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await market.owner.execute("update scorecard set state = 'ranking'")
    assert refused.value.constraint_name == "scorecard_signed_off"


async def test_unknown_verticals_and_cards_are_not_found(market: Marketplace) -> None:
    await store_card(market)
    with pytest.raises(errors.NotFound):
        await learning_flow.retire(market.api, "test", "unknown", 1, REASON)
    with pytest.raises(errors.NotFound):
        await learning_flow.retire(market.api, "test", SLUG, 2, REASON)
    assert (await learning_flow.retire(market.api, "test", SLUG, 1, REASON)).state is CardState.retired
    with pytest.raises(errors.Conflict, match="is retired"):
        await learning_flow.retire(market.api, "test", SLUG, 1, REASON)


async def test_the_worker_may_store_a_card(market: Marketplace) -> None:
    assert (
        await learning_flow.add_card(
            market.worker, "marketplace", market.vertical_id, a_card(), an_evaluation(), a_profile()
        )
        == 1
    )
    assert await states(market) == {1: "shadow"}


async def test_a_suspended_card_is_rolled_back_like_one_that_ranks(market: Marketplace) -> None:
    async with Receiver(ok) as receiver:
        for version in (1, 2):
            await store_card(market)
            await outcomes(market, receiver)
            await sign_off(market, version)
    await market.owner.execute(
        "update scorecard set state = 'suspended', suspended_for = 'inputs_shifted' where version = 2"
    )
    back = await learning_flow.roll_back(market.api, "test", SLUG, REASON)
    assert (back.version, await states(market)) == (1, {1: "ranking", 2: "retired"})


async def test_of_two_sign_offs_at_once_one_finds_that_the_card_ranks_already(market: Marketplace) -> None:
    await store_card(market)
    async with Receiver(ok) as receiver:
        await outcomes(market, receiver)
    results = await asyncio.gather(sign_off(market, 1), sign_off(market, 1), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "UUID"]
    assert await states(market) == {1: "ranking"}


async def test_a_card_that_cannot_be_read_delays_no_lead(market: Marketplace) -> None:
    await market.owner.execute(
        "insert into scorecard (vertical_id, version, document, evaluation, profile, trained_at, trained_by)"
        " values ($1, 1, '{}', '{}', '{}', now(), 'a newer release')",
        market.vertical_id,
    )
    await market.owner.execute("update scorecard set state = 'shadow', shadow_since = now()")
    async with Receiver(ok) as receiver:
        await market.buyer(receiver.url)
        lead_id = await market.sold(1)
    assert await market.state(lead_id) == "delivered"
    assert await chances_of(market, lead_id) == [()]
