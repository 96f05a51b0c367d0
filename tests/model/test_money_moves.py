"""Any sequence of moves, sensible or not, leaves the books right."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import asyncpg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as chosen
from hypothesis import strategies as st

from billing.returns import ReturnReason
from marketplace.database.db import transaction
from marketplace.delivery import store as delivery_store
from marketplace.delivery.store import DeliveryCase
from marketplace.feedback import store as feedback_store
from marketplace.ledger import money
from marketplace.operations import verify
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from routing.lifecycle import AssignmentState
from tests.model.transitions import Stage, deliver, stage
from tests.receivers import drop_after_read

BOOKS: Final = (
    "wallet_equals_entries",
    "wallet_holds_open_assignments",
    "wallet_within_credit",
    "transfer_balances",
    "assignment_held_and_settled_once",
    "charged_at_quoted_price",
    "payout_as_agreed",
    "return_refunded_once",
)
"The checks of `marketplace verify` that look at money alone."

HOLD_AGAIN: Final = """
insert into transfer (id, kind, amount_minor, currency, business_id, assignment_id)
select gen_random_uuid(), 'hold', price_minor, currency, business_id, id from assignment where id = $1
"""

SETTLED: Final = {
    "capture": (AssignmentState.delivered, "answer", money.capture),
    "refusal": (AssignmentState.refused, None, money.release),
    "lapse": (AssignmentState.lapsed, None, money.release),
}


class Undone(Exception):
    """Ends an example: nothing of it stays."""


@pytest.fixture
async def cases(settings: Settings) -> AsyncIterator[tuple[Stage, tuple[DeliveryCase, ...]]]:
    """Three exposed leads of one business, their prices held."""
    async with stage(settings) as arena:
        arena.answers = [drop_after_read]
        findings = []
        for _ in range(3):
            subject = await arena.award(await arena.take_in())
            await deliver(arena, arena.pools, subject)
            assert subject.assignment_id is not None
            case = await delivery_store.find_delivery(arena.market.worker, subject.assignment_id)
            assert case is not None
            findings.append(case)
        yield arena, tuple(findings)


@chosen(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(("hold", "capture", "refusal", "lapse", "refund", "top_up", "top_up_again")),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=15,
    )
)
async def test_any_sequence_of_moves_leaves_the_books_right(
    cases: tuple[Stage, tuple[DeliveryCase, ...]], moves: list[tuple[str, int]]
) -> None:
    arena, exposed = cases
    with suppress(Undone):
        async with transaction(arena.market.owner) as connection:
            for kind, which in moves:
                await attempt(connection, kind, exposed[which])
            for name in BOOKS:
                sql = f"select row_of::text from ({verify.SQL[name]}) row_of where fault is not null"
                assert await connection.fetch(sql) == [], (name, moves)
            raise Undone


async def attempt(connection: Any, kind: str, case: DeliveryCase) -> None:
    """One move in a savepoint; what a constraint refuses leaves nothing behind."""
    now = clock.now()
    with suppress(asyncpg.IntegrityConstraintViolationError):
        async with connection.transaction():
            match kind:
                case "hold":
                    await connection.execute(HOLD_AGAIN, case.assignment_id)
                case "top_up" | "top_up_again":
                    event = f"event-{clock.new_id()}" if kind == "top_up" else "event-again"
                    await money.top_up(connection, case.business_id, 1_000, "USD", event, now)
                case "refund":
                    await feedback_store.mark_returned(connection, case.lead_id, case.assignment_id, ReturnReason.other)
                    await money.refund(connection, case.price, now)
                case _:
                    state, evidence, move = SETTLED[kind]
                    await delivery_store.mark_settled(connection, case, state, "test", evidence, now)
                    await move(connection, case.price, now)
