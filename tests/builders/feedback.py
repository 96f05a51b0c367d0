"""A business with its leads, another without any, an operator: the API as each of them calls it."""

from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec

from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.security.auth import CallerKind, Principal
from routing.inquiry import Mode
from routing.subscription import SubscriptionDefinition
from routing.vertical import VerticalDefinition
from tests.builders.inquiries import iso
from tests.builders.marketplaces import Buyer, Marketplace, marketplace
from tests.builders.service import Served, serve
from tests.receivers import Behaviour, Receiver, Visit, ok


def ago(**spans: float) -> str:
    """So long before now, as the wire writes it."""
    return iso(clock.now() - timedelta(**spans))


class Desk:
    """Everybody who has a say about the leads of one business, and their keys."""

    def __init__(self, api: Served, market: Marketplace, buyer: Buyer, door: list[Behaviour]) -> None:
        self.api, self.market, self.buyer = api, market, buyer
        self.keys: dict[str, str] = {}
        self._door = door

    @property
    def business_id(self) -> str:
        return ids.encode("biz", self.buyer.business_id)

    def behave(self, behaviour: Behaviour) -> None:
        """Set the answers of the business's own server from now on."""
        self._door[0] = behaviour

    async def call(
        self, method: str, path: str, body: object = None, *, by: str = "business", **headers: str
    ) -> httpx.Response:
        """One request by the business, or by whoever is named; underscores in a header's name stand for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.api.call(method, path, body, key=self.keys[by], headers=sent)

    async def sold(self, number: int = 1, **sections: Any) -> str:
        """The id of one more lead, walked as far as it goes."""
        return ids.encode("lead", await self.market.sold(number, **sections))

    async def tell(self, lead: str, *, by: str = "business", **body: Any) -> httpx.Response:
        return await self.call("POST", f"/v1/leads/{lead}/dispositions", body, by=by)

    async def give_back(self, lead: str, *, by: str = "business", **body: Any) -> httpx.Response:
        return await self.call("POST", f"/v1/leads/{lead}/return", body, by=by)

    async def judge(self, asked: str, state: str, finding: str = "As the business says.") -> httpx.Response:
        path = f"/v1/returns/{asked}/judge"
        return await self.call("POST", path, {"state": state, "finding": finding}, by="operator")

    async def shown(self, lead: str, *, by: str = "business") -> dict[str, Any]:
        reply = await self.call("GET", f"/v1/leads/{lead}", by=by)
        assert reply.status_code == 200, reply.text
        content: dict[str, Any] = reply.json()
        return content

    async def inquiry(self, lead: str) -> dict[str, Any]:
        """Return the lead as its provider sees it."""
        reply = await self.call("GET", f"/v1/inquiries/{lead}", by="provider")
        content: dict[str, Any] = reply.json()
        return content

    async def delivered_at(self, lead: str, moment: datetime) -> None:
        """Makes it look as if it had been delivered then; `exposed_at` with it."""
        sql = "update assignment set settled_at = $2, exposed_at = $2 where lead_id = $1 and state = 'delivered'"
        await self.market.owner.execute(sql, ids.decode("lead", lead), moment)

    async def rehearse(self, number: int = 90) -> str:
        """A lead of test mode, delivered to a test subscription of the same business."""
        provider = await self.market.another_provider("test")
        subscription = clock.new_id()
        async with self.market.owner.acquire() as connection, connection.transaction():
            await connection.execute(
                "insert into subscription (id, business_id, vertical_id, endpoint_id, mode, name, version, currency) "
                "select $1, business_id, vertical_id, endpoint_id, 'test', name, 1, currency from subscription "
                "where id = $2",
                subscription,
                self.buyer.subscription_id,
            )
            await connection.execute(
                "insert into subscription_version select $1, version, definition, made_at, made_by "
                "from subscription_version where subscription_id = $2",
                subscription,
                self.buyer.subscription_id,
            )
        tester = msgspec.structs.replace(provider, mode=Mode.test)
        receipt = await self.market.submit(number, by=tester)
        await self.market.walker.walk(receipt.id)
        return ids.encode("lead", receipt.id)

    async def audited(self) -> list[str]:
        """Return the recorded feedback, oldest first."""
        return [action for action, _ in await self.api.audited()]


def uuid_of(lead: str) -> UUID:
    """The lead's own id."""
    lead_id = ids.decode("lead", lead)
    assert lead_id is not None
    return lead_id


async def desk(
    stack: AsyncExitStack,
    settings: Settings,
    *,
    order: SubscriptionDefinition | None = None,
    vertical: VerticalDefinition | None = None,
) -> Desk:
    """Everything up, until the stack ends; nothing sold yet."""
    behaviours: list[Behaviour] = [ok]

    async def answer(visit: Visit) -> None:
        await behaviours[0](visit)

    market = await stack.enter_async_context(marketplace(settings, vertical))
    door = await stack.enter_async_context(Receiver(answer))
    api = await stack.enter_async_context(serve(settings))
    made = Desk(api, market, await market.buyer(door.url, order, available_minor=1_000_000), behaviours)
    other = await market.buyer("https://other.example.com/", available_minor=0)
    stranger: Principal = await market.another_provider()
    owners: dict[str, tuple[CallerKind, UUID | None]] = {
        "business": (CallerKind.business, made.buyer.business_id),
        "other": (CallerKind.business, other.business_id),
        "provider": (CallerKind.provider, market.provider.owner),
        "other provider": (CallerKind.provider, stranger.owner),
        "operator": (CallerKind.operator, None),
    }
    for name, (kind, owner) in owners.items():
        made.keys[name] = await api.key(kind, owner)
    for name in ("business", "operator"):
        made.keys[f"test {name}"] = await api.key(*owners[name], "test")
    return made
