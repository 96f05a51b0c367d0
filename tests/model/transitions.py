"""Everything that moves a lead, its money or its business, by the real flows, each on pools of its own choosing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from io import BytesIO
from typing import Any, Final
from uuid import UUID

import msgspec

from billing.returns import ReturnReason
from marketplace import worker as sweeping
from marketplace.certificates.flow import Claims
from marketplace.certificates.services import ServiceAccount
from marketplace.database.db import open_pool, session
from marketplace.database.journal import Journal
from marketplace.delivery import store as delivery_store
from marketplace.delivery.flow import Delivery
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.flow import SubscriptionRequest
from marketplace.directory.store import TenantScope
from marketplace.distribution.flow import LEASE, Distribution
from marketplace.erasure.flow import erase_lead
from marketplace.feed.flow import Feed, FeedReader
from marketplace.feedback import returns
from marketplace.feedback import store as feedback_store
from marketplace.feedback.flow import LeadHolder
from marketplace.feedback.store import ReturnState
from marketplace.funds import flow as funds_flow
from marketplace.intake.flow import Intake
from marketplace.intake.postal import PostalBook
from marketplace.intake.reading import decode_inquiry
from marketplace.intake.shapes import BudgetBody, TimingBody
from marketplace.journey.flow import Journey, SentCorrection
from marketplace.journey.joining import join_lead
from marketplace.journey.shapes import CorrectedBant, CorrectionBody, LaterTouch, SuppliedAnswers
from marketplace.nurturing.flow import give_back as give_back_waiting
from marketplace.revocations.flow import revoke_lead
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock
from marketplace.runtime.errors import NotFound
from marketplace.runtime.queue import Notifier
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from marketplace.suppression_lists import flow as lists_flow
from marketplace.suppression_lists.flow import ImportOptions
from marketplace.suppression_lists.store import ListKind, ListTerms
from marketplace.webhook.transport import ConnectionInfo, Reservations
from routing.calendar import CapWindow
from routing.certificate import CertificateKind
from routing.joining import PayJoined, RepeatInquiries
from routing.subscription import Cap, SubscriptionDefinition
from tests.builders.inquiries import roofing_body
from tests.builders.marketplaces import NOWHERE, Buyer, Marketplace, anywhere, marketplace, roofing
from tests.receivers import Behaviour, Receiver, Visit, answer, ok
from tests.waiting import give_back as return_pool

ALL: Final = TenantScope(business_id=None, mode=None)
OPERATOR: Final = Principal(key_id="test", kind=CallerKind.operator, owner_id=None, mode="live")
DEAD: Final = "http://127.0.0.1:1/hook"
"Nobody listens there."
LATER: Final = timedelta(minutes=10)
POOR: Final = roofing_body()["bant"] | {"budget": {"minor": 100, "currency": "USD"}}
"Answers that the vertical rejects."
EARLY: Final = roofing_body()["bant"] | {"timing": {"within_days": 100}}
"Answers with which a lead waits: the vertical wants a start within 60 days."
CERTIFICATE: Final = f"https://cert.trustedform.com/{'0f' * 20}"
VERIFIED: Final = {"outcome": "success", "match_lead": {"result": {"email_match": True}}}
"Answer of the service to a claim."
CORRECTED: Final = "corrected."
"Beginning of a corrected e-mail address."


class Pools(msgspec.Struct, frozen=True, kw_only=True):
    """The ways in which a process may be connected; `feeder` exposes and settles what a reader takes."""

    owner: Any
    api: Any
    worker: Any
    feeder: Any = None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One lead, whom it was awarded to if anybody, and by what its contact is recognised."""

    lead_id: UUID
    assignment_id: UUID | None
    canary: str


class Stage:
    """A marketplace with two businesses, each with its own server, and leads that several transitions race for."""

    def __init__(
        self,
        market: Marketplace,
        journal: Journal,
        buyers: list[Buyer],
        receivers: list[Receiver],
        service: Receiver,
        feeder: Any,
        another: Principal,
    ) -> None:
        """`another` is the provider that sends a person of `market.provider` again."""
        self.another = another
        self.market = market
        self.feeder = feeder
        self.service = service
        "The service that made the certificates."
        self.journal = journal
        self.buyers = buyers
        self.receivers = receivers
        self.answers: list[Behaviour] = []
        self._count = 0

    @property
    def pools(self) -> Pools:
        return Pools(owner=self.market.owner, api=self.market.api, worker=self.market.worker, feeder=self.feeder)

    async def answer(self, visit: Visit) -> None:
        """Give each request of a run the next of the answers, and the last one to all that follow."""
        await visit.read_request()
        behaviour = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0] if self.answers else ok
        await behaviour(visit)

    async def take_in(self, **sections: Any) -> Subject:
        """A person whom nobody has seen before."""
        self._count += 1
        canary = f"canary.{self._count}.{clock.new_id().hex}@example.com"
        receipt = await self.market.submit(**inquiry_of(canary, canary, **sections))
        assert receipt.state == "received"
        return Subject(lead_id=receipt.id, assignment_id=None, canary=canary)

    async def award(self, subject: Subject) -> Subject:
        assignment_id = await self.market.distribution.distribute(subject.lead_id)
        return msgspec.structs.replace(subject, assignment_id=assignment_id)

    def seen_by(self, subject: Subject) -> list[int]:
        """Return the businesses whose servers received this person's contact."""
        mark = subject.canary.encode()
        return [
            number
            for number, receiver in enumerate(self.receivers)
            if any(mark in visit.raw for visit in receiver.visits)
        ]


@asynccontextmanager
async def stage(settings: Settings, *definitions: SubscriptionDefinition) -> AsyncIterator[Stage]:
    """Businesses with one order each, as told or else two that take all; the first one ranks first."""
    orders = definitions or (anywhere(priority=1), anywhere(priority=2))
    answers: list[Stage] = []

    async def behave(visit: Visit) -> None:
        await answers[0].answer(visit)

    vertical = roofing(
        requires_phone=False,
        patience_seconds=3_600,
        returns_at_least=1_000,
        repeat_inquiries=RepeatInquiries.joined,
        provider_may_know=True,
        pay_joined=PayJoined.split,
    )
    async with marketplace(settings, vertical) as market:
        another = await market.another_provider()
        journal = await Journal.open(settings.journal_dir)
        feeder = await open_pool(settings.database_url or "", "marketplace_feeder", size=2, at_once=0)
        receivers = [Receiver(behave) for _ in orders]
        service = Receiver(answer(200, msgspec.json.encode(VERIFIED), content_type="application/json"))
        for receiver in (*receivers, service):
            await receiver.__aenter__()
        try:
            buyers = [
                await market.buyer(receiver.url, order, available_minor=100_000_000)
                for receiver, order in zip(receivers, orders, strict=True)
            ]
            answers.append(Stage(market, journal, buyers, receivers, service, feeder, another))
            yield answers[0]
        finally:
            for receiver in (*receivers, service):
                await receiver.__aexit__(None, None, None)
            await return_pool(feeder)
            await journal.close()


Transition = Callable[[Stage, Pools, Subject], Awaitable[object]]


async def award(stage: Stage, pools: Pools, subject: Subject) -> object:
    return await Distribution(pools.worker, Catalog(pools.worker)).distribute(subject.lead_id)


class OpenServer(Reservations):
    """A connection that is open whenever it is asked for; what is sent over it is no part of the race."""

    def __init__(self) -> None:
        """Keep nothing: there are no connections."""

    def reserve(self, url: str, assignment_id: UUID) -> ConnectionInfo:
        return ConnectionInfo(address="127.0.0.1", port=1, tls_fingerprint=None, reserved=True)

    def cancel(self, assignment_id: UUID) -> None:
        """Nothing is reserved."""


async def award_and_expose(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The award of a lead whose business has an open connection."""
    flow = Distribution(pools.worker, Catalog(pools.worker), reservations=OpenServer())
    return await flow.distribute(subject.lead_id)


async def deliver(stage: Stage, pools: Pools, subject: Subject) -> object:
    if subject.assignment_id is None:
        return None
    flow = Delivery(pools.worker, stage.market.sealer, stage.market.guard, stage.journal)
    return await flow.deliver(subject.assignment_id)


async def lapse(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The evidence deadline passes, and somebody looks."""
    sql = "update assignment set evidence_until = clock_timestamp() where id = $1 and evidence_until is not null"
    async with session(pools.owner) as connection:
        await connection.execute(sql, subject.assignment_id)
    return await deliver(stage, pools, subject)


async def run_out(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The hold window ends, and somebody looks."""
    async with session(pools.owner) as connection:
        await connection.execute(
            "update assignment set hold_until = clock_timestamp() where id = $1", subject.assignment_id
        )
    return await deliver(stage, pools, subject)


async def take_up(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The sweeper takes up what is due, and makes the attempt or the decision."""
    async with session(pools.worker) as connection:
        taken = await delivery_store.claim_due(connection, LEASE, 50)
        leads = await connection.fetch(sweeping.SQL["claim_due_leads"], LEASE, 50)
    for assignment_id, lead_id in taken:
        mine = Subject(lead_id=lead_id, assignment_id=assignment_id, canary="")
        await deliver(stage, pools, mine)
    for row in leads:
        await award(stage, pools, Subject(lead_id=row["id"], assignment_id=None, canary=""))
    return len(taken) + len(leads)


async def take(stage: Stage, pools: Pools, subject: Subject) -> object:
    """A member of the first business takes the lead in the inbox."""
    if subject.assignment_id is None:
        return None
    feed = Feed(pools.api, pools.feeder, stage.market.sealer, stage.journal)
    reader = FeedReader(business_id=stage.buyers[0].business_id, mode="live", name="mem_x", channel="portal")
    return await feed.take(reader, subject.assignment_id)


async def take_up_shown(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The sweeper takes up the assignments that are due, and makes the attempt.

    It claims no leads: one that was exposed is never due again (`lead_due`), so that the claim of leads can only meet
    other ones, in schedules that differ from these in nothing else.
    """
    async with session(pools.worker) as connection:
        taken = await delivery_store.claim_due(connection, LEASE, 50)
    for assignment_id, lead_id in taken:
        await deliver(stage, pools, Subject(lead_id=lead_id, assignment_id=assignment_id, canary=""))
    return len(taken)


async def pause(stage: Stage, pools: Pools, subject: Subject) -> object:
    subscription_id = stage.buyers[0].subscription_id
    return await directory_flow.switch_subscription(pools.api, "test", ALL, subscription_id, "paused")


async def edit(stage: Stage, pools: Pools, subject: Subject) -> object:
    """Another price and a cap, on whatever version is current."""
    buyer = stage.buyers[0]
    async with session(stage.market.api) as connection:
        now = await directory_store.find_subscription(connection, ALL, buyer.subscription_id)
    assert now is not None
    cap = Cap(window=CapWindow.total, count=1_000_000)
    definition = msgspec.structs.replace(now.definition, price_minor=5_001 + now.version % 7, caps=(cap,))
    request = SubscriptionRequest(name="Example", endpoint_id=buyer.endpoint_id, definition=definition)
    return await directory_flow.revise_subscription(pools.api, "test", ALL, buyer.subscription_id, now.version, request)


async def top_up(stage: Stage, pools: Pools, subject: Subject) -> object:
    event = f"event-{clock.new_id()}"
    return await funds_flow.top_up(pools.api, "test", stage.buyers[0].business_id, 1_000, "USD", event)


async def freeze(stage: Stage, pools: Pools, subject: Subject) -> object:
    return await directory_flow.change_business(pools.api, "test", stage.buyers[0].business_id, None, "frozen", None)


async def erase(stage: Stage, pools: Pools, subject: Subject) -> object:
    return await erase_lead(pools.api, OPERATOR, subject.lead_id, "asked to be forgotten", also_suppress=True)


async def revoke(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The person revokes consent to every channel."""
    return await revoke_lead(pools.api, OPERATOR, subject.lead_id, (), "said stop")


async def list_person(stage: Stage, pools: Pools, subject: Subject) -> object:
    """A list of people who must not be contacted is published with this person."""
    kind, name = ListKind.do_not_contact, subject.canary
    made = await lists_flow.make_list(stage.market.api, "test", kind, None, name, ListTerms())
    file = BytesIO(f"{subject.canary}\n".encode())
    return await lists_flow.import_stream(pools.api, stage.market.sealer, "test", made, file, name, ImportOptions())


async def claim(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The certificate of the lead is claimed at its service, which verifies it."""
    account = ServiceAccount(url=stage.service.url.removesuffix("/hook"), key="key-of-the-operator")
    accounts = {CertificateKind.trustedform: account}
    claims = Claims(pools.worker, Catalog(pools.worker), stage.market.sealer, stage.market.guard, accounts)
    return await claims.claim(subject.lead_id)


async def correct_email(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The provider corrects the e-mail address."""
    journey = Journey(pools.api, Catalog(pools.api), PostalBook(), stage.market.sealer, Notifier(NOWHERE))
    body = msgspec.convert({"contact": {"email": CORRECTED + subject.canary}}, CorrectionBody)
    sent = SentCorrection(body=body, request_sha256=bytes(32), key=None)
    return await journey.correct(stage.market.provider, subject.lead_id, sent)


async def touch(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The person says that there is less money than the vertical asks for."""
    return await _touch(stage, pools, subject, 100)


async def come_back(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The person says that there is money enough."""
    return await _touch(stage, pools, subject, 2_000_000)


async def correct(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The provider corrects the budget to one that the vertical takes as well."""
    journey = Journey(pools.api, Catalog(pools.api), PostalBook(), stage.market.sealer, Notifier(NOWHERE))
    body = CorrectionBody(bant=CorrectedBant(budget=BudgetBody(minor=3_000_000, currency="USD")))
    sent = SentCorrection(body=body, request_sha256=b"", key=None)
    return await journey.correct(stage.market.provider, subject.lead_id, sent)


async def start_sooner(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The person wants it in two weeks."""
    return await _supply(stage, pools, subject, SuppliedAnswers(timing=TimingBody(within_days=14)))


async def stop_waiting(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The provider gives the waiting lead back."""
    await give_back_waiting(pools.api, stage.market.provider, subject.lead_id)
    return None


async def _touch(stage: Stage, pools: Pools, subject: Subject, budget_minor: int) -> object:
    budget = BudgetBody(minor=budget_minor, currency="USD")
    return await _supply(stage, pools, subject, SuppliedAnswers(budget=budget))


async def _supply(stage: Stage, pools: Pools, subject: Subject, answers: SuppliedAnswers) -> object:
    journey = Journey(pools.api, Catalog(pools.api), PostalBook(), stage.market.sealer, Notifier(NOWHERE))
    call = LaterTouch(kind="call", at=clock.now(), supplies=answers)
    return await journey.add_touches(stage.market.provider, subject.lead_id, (call,))


async def ask_anew(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The same person fills in another form."""
    return await _ask(stage, pools, subject)


async def join(stage: Stage, pools: Pools, subject: Subject) -> object:
    """The same person fills in the form of another provider, and says there that there is less money than the vertical
    asks for."""
    return await _ask(stage, pools, subject, by=stage.another, bant=POOR)


async def _ask(stage: Stage, pools: Pools, subject: Subject, *, by: Principal | None = None, **sections: Any) -> object:
    reference = f"{subject.canary} {clock.new_id()}"
    body = decode_inquiry(msgspec.json.encode(inquiry_of(subject.canary, reference, **sections)))
    assert not isinstance(body, tuple)
    market = stage.market
    intake = Intake(pools.api, Catalog(pools.api), PostalBook(), market.sealer, Notifier(NOWHERE), join=join_lead)
    return await intake.receive(by or market.provider, body, b"", None)


def inquiry_of(canary: str, reference: str, **sections: Any) -> dict[str, Any]:
    """The body of an inquiry of a person who is known by the e-mail address alone."""
    contact = {**roofing_body()["contact"], "email": canary}
    del contact["phone"]
    return roofing_body(1, clock.now(), contact=contact, provider_reference=reference, **sections)


async def ask_back(stage: Stage, pools: Pools, subject: Subject) -> object:
    """Let the business with the lead request a return that a person judges; nothing without a business."""
    whose = "select business_id from assignment where lead_id = $1 and state <> 'released'"
    async with session(stage.market.owner) as connection:
        business_id = await connection.fetchval(whose, subject.lead_id)
    if business_id is None:
        return None
    holder = LeadHolder(business_id=business_id, mode="live", actor="test")
    try:
        return await returns.file_return(pools.api, holder, subject.lead_id, ReturnReason.other, "not as told", None)
    except NotFound:  # released meanwhile
        return None


async def grant(stage: Stage, pools: Pools, subject: Subject) -> object:
    """An operator grants what is asked for, if anything is."""
    async with session(pools.api) as connection:
        return_request = await feedback_store.find_return(connection, assignment_id=subject.assignment_id)
    if return_request is None:
        return None
    return await returns.judge_return(
        pools.api, "test", None, return_request.id, ReturnState.granted, "as the business says"
    )


async def give_back(stage: Stage, pools: Pools, subject: Subject) -> object:
    """Asked for, and granted."""
    await ask_back(stage, pools, subject)
    return await grant(stage, pools, subject)


async def subscribe_again(stage: Stage) -> None:
    """The first business makes a second order on its one wallet."""
    buyer = stage.buyers[0]
    request = SubscriptionRequest(name="Example", endpoint_id=buyer.endpoint_id, definition=anywhere(priority=1))
    await directory_flow.create_subscription(stage.market.api, "test", buyer.business_id, "live", "roofing", request)


RESTORE: Final = """
with subscriptions as (update subscription set state = 'active' where state <> 'active'),
    businesses as (update business set state = 'active' where state <> 'active')
update endpoint
set state = 'active', breaker = '{}', breaker_open_until = null,
    url = case when id = $1 and kind = 'push' then $2 else url end
where state <> 'active' or breaker <> '{}' or (id = $1 and url <> $2)"""


async def restore(stage: Stage) -> None:
    """Reset everything paused, frozen or broken after a run."""
    await stage.market.owner.execute(RESTORE, stage.buyers[0].endpoint_id, stage.receivers[0].url)


async def gather_all(*running: Awaitable[object]) -> list[object]:
    """The outcomes, exceptions among them."""
    return list(await asyncio.gather(*running, return_exceptions=True))
