"""The award in the database and the conditions that explain its loss: generated cases, and the same answer of both."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final
from uuid import UUID

import msgspec
import pytest

from marketplace.database.db import set_codecs
from marketplace.distribution import store as distribution_store
from marketplace.distribution.store import AwardStatus, Decision, NewAssignment
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from routing.awarding import explain_loss
from routing.calendar import CapWindow, window_starts
from routing.inquiry import Mode
from routing.lifecycle import LeadState
from routing.matching import Candidate, Rule
from routing.quota import SuspensionReason
from routing.subscription import Cap, Subscription, SubscriptionDefinition
from tests.builders.marketplaces import Buyer, Marketplace, anywhere, marketplace
from tests.harness.breaks import BREAKS

CASES: Final = 400
PRICE_MINOR: Final = 5_000
RANKED, NEWER = 2, 3
"Versions of the subscription: the one that was ranked, and one that may have taken its place."
ZONES: Final = ("America/Chicago", "Europe/Berlin", "Asia/Kolkata")
BREAKER_ENDS: Final = (None, timedelta(0), timedelta(seconds=-1), timedelta(microseconds=1))
"Moments at which a breaker closes, counted from the award."
CLAIMS: Final = {
    None: AwardStatus.won,
    Rule.withdrawn: AwardStatus.withdrawn,
    Rule.price_changed: AwardStatus.withdrawn,
    Rule.cap_race: AwardStatus.capped,
    Rule.wallet_race: AwardStatus.unfunded,
}

PAST_WINDOWS: Final = """
insert into cap_usage (subscription_id, cap_window, starts_at, used_count, used_minor)
select $1, 'hour', now() - n * interval '1 hour', 1, 5000 from generate_series(2, 601) n
"""
WINDOWS_READ: Final = """
select pg_stat_get_xact_tuples_returned('cap_usage'::regclass)
    + pg_stat_get_xact_tuples_returned('cap_usage_pkey'::regclass)
"""
"Rows of `cap_usage` that the transaction has read, and entries of its index."


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one award. `used` is what each window has seen, in leads and minor units."""

    mode: Mode
    state: str
    suspended_for: SuspensionReason | None
    business_state: str
    endpoint_state: str
    breaker_open_for: timedelta | None
    another_endpoint: bool
    newer_version: bool
    price_minor: int
    zone: str
    caps: tuple[Cap, ...]
    used: dict[CapWindow, tuple[int, int]]
    available_minor: int
    credit_limit_minor: int


def draw_case(random: Random) -> Case:
    """Each condition is broken seldom and met exactly often, so that all outcomes and their borders come."""
    state = random.choices(("active", "paused", "suspended", "ended"), (30, 1, 1, 1))[0]
    price_minor = random.choice((1, PRICE_MINOR, 9_999))
    credit_minor = random.choice((0, 0, 3_000))
    caps = tuple(
        Cap(
            window=window,
            count=random.choice((None, 1, 3)),
            amount_minor=random.choice((None, price_minor, 2 * price_minor + 7)),
        )
        for window in random.sample(list(CapWindow), random.choice((0, 0, 1, 2, 5)))
    )
    limits = {cap.window: cap for cap in caps}
    return Case(
        mode=random.choices((Mode.live, Mode.test), (5, 1))[0],
        state=state,
        suspended_for=random.choice(list(SuspensionReason)) if state == "suspended" else None,
        business_state=random.choices(("active", "frozen"), (20, 1))[0],
        endpoint_state=random.choices(("active", "disabled"), (20, 1))[0],
        breaker_open_for=random.choices((None, timedelta(0), timedelta(-1), timedelta(microseconds=1)), (6, 2, 2, 1))[
            0
        ],
        another_endpoint=random.random() < 0.04,
        newer_version=random.random() < 0.06,
        price_minor=price_minor,
        zone=random.choice(ZONES),
        caps=caps,
        used={window: draw_usage(random, limits.get(window), price_minor) for window in CapWindow},
        available_minor=max(0, price_minor - credit_minor + random.choice((-1, 0, 0, 1, 50_000))),
        credit_limit_minor=credit_minor,
    )


def draw_usage(random: Random, cap: Cap | None, price_minor: int) -> tuple[int, int]:
    """Room for one more exactly, or for none by one lead or one minor unit."""
    beyond = random.choices((0, 1), (4, 1))[0]
    count = 4 if cap is None or cap.count is None else cap.count - 1 + beyond
    if cap is None or cap.amount_minor is None:
        return count, 77
    return count, max(0, cap.amount_minor - price_minor + random.choices((0, 1), (4, 1))[0])


class Rows:
    """A marketplace with one business for each mode, whose rows are made those of a case and put back again."""

    def __init__(self, market: Marketplace, buyers: dict[Mode, Buyer], leads: dict[Mode, UUID]) -> None:
        self.market, self.buyers, self.leads = market, buyers, leads
        self.other_endpoints = {mode: clock.new_id() for mode in Mode}

    async def prepare(self) -> None:
        for mode, buyer in self.buyers.items():
            await self.market.owner.execute(
                "insert into endpoint (id, business_id, kind, state) values ($1, $2, 'feed', 'active')",
                self.other_endpoints[mode],
                buyer.business_id,
            )

    async def answers(self, connection: Any, case: Case, now: datetime) -> tuple[AwardStatus, Rule | None]:
        """Return what the award answers, and what explains its loss; afterwards nothing has changed."""
        transaction = connection.transaction()
        await transaction.start()
        try:
            known = await self.write(connection, case, now)
            candidate = Candidate(
                subscription_id=known.id,
                business_id=known.business_id,
                endpoint_id=known.endpoint_id,
                version=RANKED,
                price_minor=case.price_minor,
            )
            current, standing = await distribution_store.find_current(connection, known, now)
            loss = explain_loss(candidate, current, standing, now)
            claim = await self.award(connection, case, known, now)
        finally:
            await transaction.rollback()
        return claim, loss.rule if loss else None

    async def write(self, connection: Any, case: Case, now: datetime) -> Subscription:
        buyer, other = self.buyers[case.mode], self.other_endpoints[case.mode]
        definition = anywhere(price_minor=case.price_minor, caps=case.caps, zone=case.zone)
        for version, terms in ((RANKED, definition), (NEWER, anywhere(price_minor=case.price_minor + 1))):
            await self.write_version(connection, buyer, version, terms)
        await connection.execute(
            "update subscription set version = $2, endpoint_id = $3, state = $4, suspended_for = $5, "
            "suspended_at = $6, suspended_counted = 1, suspended_shown = 1 where id = $1",
            buyer.subscription_id,
            NEWER if case.newer_version else RANKED,
            other if case.another_endpoint else buyer.endpoint_id,
            case.state,
            case.suspended_for,
            now,
        )
        await connection.execute("update business set state = $2 where id = $1", buyer.business_id, case.business_state)
        until = None if case.breaker_open_for is None else now + case.breaker_open_for
        await connection.execute(
            "update endpoint set state = $2, breaker_open_until = $3 where id = any($1::uuid[])",
            [buyer.endpoint_id, other],
            case.endpoint_state,
            until,
        )
        await connection.execute(
            "update wallet set available_minor = $2, credit_limit_minor = $3 where business_id = $1",
            buyer.business_id,
            case.available_minor,
            case.credit_limit_minor,
        )
        starts = window_starts(now, case.zone)
        await connection.executemany(
            "insert into cap_usage (subscription_id, cap_window, starts_at, used_count, used_minor) "
            "values ($1, $2, $3, $4, $5)",
            [(buyer.subscription_id, window, starts[window], *used) for window, used in case.used.items()],
        )
        return Subscription(
            id=buyer.subscription_id,
            business_id=buyer.business_id,
            endpoint_id=buyer.endpoint_id,
            vertical="roofing",
            country="US",
            mode=case.mode,
            version=RANKED,
            definition=definition,
        )

    async def write_version(
        self, connection: Any, buyer: Buyer, version: int, definition: SubscriptionDefinition
    ) -> None:
        await connection.execute(
            "insert into subscription_version (subscription_id, version, definition, made_by) "
            "values ($1, $2, $3, 'test')",
            buyer.subscription_id,
            version,
            msgspec.json.encode(definition),
        )

    async def award(self, connection: Any, case: Case, known: Subscription, now: datetime) -> AwardStatus:
        lead_id = self.leads[case.mode]
        new = NewAssignment(
            id=clock.new_id(),
            lead_id=lead_id,
            business_id=known.business_id,
            subscription_id=known.id,
            subscription_version=RANKED,
            endpoint_id=self.buyers[case.mode].endpoint_id,
            provider_id=self.market.provider.owner,
            mode=case.mode,
            price_minor=case.price_minor,
            payout_minor=0,
            currency="USD",
            due_at=now,
            awarded_at=now,
            hold_until=now + timedelta(minutes=2),
            window_starts=window_starts(now, case.zone),
        )
        decision = Decision(
            id=clock.new_id(),
            lead_id=lead_id,
            made_at=now,
            outcome="held",
            reason=None,
            vertical_version=1,
            catalog_version=1,
            strategy=None,
            verdict=b"{}",
            candidates=b"[]",
            left_out=0,
        )
        return await distribution_store.award(connection, new, case.caps, decision, expected=LeadState.received)


@pytest.fixture
async def rows(settings: Settings) -> AsyncIterator[Rows]:
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(marketplace(settings))
        buyers = {mode: await market.buyer("https://buyer.example.com/", mode=mode) for mode in Mode}
        rehearsing = msgspec.structs.replace(market.provider, mode="test")
        leads = {
            Mode.live: (await market.submit(1)).id,
            Mode.test: (await market.submit(2, by=rehearsing)).id,
        }
        rows = Rows(market, buyers, leads)
        await rows.prepare()
        yield rows


async def answers_of(rows: Rows) -> AsyncGenerator[tuple[Case, AwardStatus, Rule | None], None]:
    """Each case with what the award answers, and what explains its loss."""
    random, now = Random("award"), clock.now()
    async with rows.market.owner.acquire() as connection:
        await set_codecs(connection)
        for _ in range(CASES):
            case = draw_case(random)
            claim, rule = await rows.answers(connection, case, now)
            yield case, claim, rule


async def test_the_award_and_the_conditions_that_explain_its_loss_give_the_same_answer(rows: Rows) -> None:
    losses: Counter[Rule | None] = Counter()
    async with aclosing(answers_of(rows)) as answers:
        async for case, claim, rule in answers:
            assert claim is CLAIMS[rule], (case, claim, rule)
            losses[rule] += 1
    assert set(losses) == set(CLAIMS), losses
    assert min(losses.values()) >= 10, losses


async def test_an_award_reads_the_windows_it_counts_in_and_none_of_the_past(rows: Rows) -> None:
    case = Case(
        mode=Mode.live,
        state="active",
        suspended_for=None,
        business_state="active",
        endpoint_state="active",
        breaker_open_for=None,
        another_endpoint=False,
        newer_version=False,
        price_minor=PRICE_MINOR,
        zone="America/Chicago",
        caps=tuple(Cap(window=window, count=5) for window in CapWindow),
        used={window: (1, PRICE_MINOR) for window in CapWindow},
        available_minor=PRICE_MINOR,
        credit_limit_minor=0,
    )
    await rows.market.owner.execute(PAST_WINDOWS, rows.buyers[Mode.live].subscription_id)
    await rows.market.owner.execute("analyze cap_usage")
    async with rows.market.owner.acquire() as connection:
        await set_codecs(connection)
        transaction = connection.transaction()
        await transaction.start()
        try:
            now = clock.now()
            known = await rows.write(connection, case, now)
            before = await connection.fetchval(WINDOWS_READ)
            assert await rows.award(connection, case, known, now) is AwardStatus.won
            assert await connection.fetchval(WINDOWS_READ) - before <= 3 * len(CapWindow)
        finally:
            await transaction.rollback()


async def test_an_award_that_does_not_ask_the_wallet_gives_another_answer(rows: Rows) -> None:
    """The break of `make faults BREAK=wallet_check` does what it says, and the comparison above notices it."""
    for statement in BREAKS["wallet_check"].statements:
        await rows.market.owner.execute(statement)
    async with aclosing(answers_of(rows)) as answers:
        assert (AwardStatus.won, Rule.wallet_race) in {(claim, rule) async for _, claim, rule in answers}
