"""Sets up an empty marketplace through its API: verticals, providers, businesses, endpoints, wallets, subscriptions.

Nothing here uses the database: an operator could make the same calls by hand.
"""

import asyncio
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from marketplace.demo.installation import keep_secrets, read_receivers
from marketplace.demo.world import DemoBusiness
from marketplace.runtime.settings import MOST_PER_MINUTE, StartError
from routing.vertical import VerticalDefinition

AT_ONCE: Final = 8
PAUSES: Final = (0.1, 0.5, 2.0)
"Seconds before each repetition of a call whose connection failed."
PROVIDERS: Final[dict[str, dict[str, Any]]] = {
    "Demo Forms": {"type": "share", "basis_points": 6_000},
    "Demo Comparisons": {"type": "share", "basis_points": 5_000},
    "Demo Directory": {"type": "fixed", "minor": 2_000},
    "Demo Sweepstakes": {"type": "share", "basis_points": 6_000},
}
POOR_PROVIDER: Final = "Demo Sweepstakes"
"""Provider whose people are seldom serious about their request, although their answers look like those of others."""


class OperatorClient:
    """Client of the API with an operator's key."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session = session
        self._url = url
        self._key = key

    async def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Call the API and return the JSON of the answer. A failed connection is tried again: the process may restart.

        Raises StartError with the body of the answer for any status but 2xx, and aiohttp's errors without an answer.
        """
        for pause in PAUSES:
            try:
                return await self._call(method, path, body)
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(pause)
        return await self._call(method, path, body)

    async def _call(self, method: str, path: str, body: object) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._key}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else msgspec.json.encode(body)
        async with self._session.request(method, f"{self._url}{path}", data=data, headers=headers) as response:
            text = await response.read()
            if not 200 <= response.status < 300:
                raise StartError("furnishing_refused", f"{method} {path}: {response.status}.", text.decode()[:1_000])
            return msgspec.json.decode(text, type=dict[str, Any]) if text else {}


class DemoAccounts(msgspec.Struct, frozen=True, kw_only=True):
    """New objects: ids of businesses by slug, ids of providers by name, their keys, slugs of verticals by name."""

    businesses: dict[str, str]
    providers: dict[str, str]
    provider_keys: tuple[str, ...]
    verticals: dict[str, str]


async def furnish(
    operator: OperatorClient,
    directory: Path,
    verticals: dict[str, VerticalDefinition],
    businesses: tuple[DemoBusiness, ...],
    *,
    expected_leads: int,
    tag: str = "",
) -> DemoAccounts:
    """Create all objects.

    Each wallet gets the price of `expected_leads`, or of the business's own `funded_leads`. `tag` makes the names of
    several runs on one database distinct.
    """
    slugs = {name: f"{name}{tag}" for name in verticals}
    for name, definition in verticals.items():
        await operator.call("POST", "/v1/verticals", {"slug": slugs[name], "definition": definition})
    providers, keys = {}, []
    for name, payout in PROVIDERS.items():
        provider = await operator.call("POST", "/v1/providers", {"name": name, "payout": payout})
        providers[name] = provider["id"]
        key_request = {
            "kind": "provider",
            "owner_id": provider["id"],
            "mode": "live",
            "name": name,
            "rate_per_minute": MOST_PER_MINUTE,
        }
        keys.append((await operator.call("POST", "/v1/keys", key_request))["key"])
    endpoints = await _make_businesses(operator, directory, businesses)
    slots = asyncio.Semaphore(AT_ONCE)

    async def finish(business: DemoBusiness) -> None:
        async with slots:
            leads = expected_leads if business.funded_leads is None else business.funded_leads
            await _open_for_business(operator, business, *endpoints[business.slug], slugs, leads, tag)

    await asyncio.gather(*(finish(business) for business in businesses))
    return DemoAccounts(
        businesses={slug: business_id for slug, (business_id, _) in endpoints.items()},
        providers=providers,
        provider_keys=tuple(keys),
        verticals=slugs,
    )


async def _make_businesses(
    operator: OperatorClient, directory: Path, businesses: tuple[DemoBusiness, ...]
) -> dict[str, tuple[str, str]]:
    """Create businesses and endpoints, write the secrets for the receivers, and return the ids by slug."""
    urls = {receiver.business: receiver.url for receiver in read_receivers(directory)}
    slots = asyncio.Semaphore(AT_ONCE)
    secrets: dict[str, str] = {}

    async def make(business: DemoBusiness) -> tuple[str, tuple[str, str]]:
        definition = business.definition
        request = {
            "name": business.name,
            "zone": definition.zone,
            "currency": definition.currency,
            "credit_limit_minor": 0,
        }
        async with slots:
            made = await operator.call("POST", "/v1/businesses", request)
            endpoint_request = {"business_id": made["id"], "url": urls[business.slug]}
            endpoint = await operator.call("POST", "/v1/endpoints", endpoint_request)
        secrets[business.slug] = endpoint["secret"]
        return business.slug, (made["id"], endpoint["id"])

    made = dict(await asyncio.gather(*(make(business) for business in businesses)))
    keep_secrets(directory, secrets)
    return made


async def _open_for_business(
    operator: OperatorClient,
    business: DemoBusiness,
    business_id: str,
    endpoint_id: str,
    slugs: dict[str, str],
    leads: int,
    tag: str,
) -> None:
    await operator.call("POST", f"/v1/endpoints/{endpoint_id}/verify")
    payment = {
        "business_id": business_id,
        "amount_minor": leads * business.definition.price_minor,
        "currency": business.definition.currency,
        "event_id": f"demo-{business_id}{tag}",
    }
    await operator.call("POST", "/v1/top-ups", payment)
    subscription = await operator.call(
        "POST",
        "/v1/subscriptions",
        {
            "business_id": business_id,
            "mode": "live",
            "vertical": slugs[business.vertical],
            "name": business.name,
            "endpoint_id": endpoint_id,
            "definition": business.definition,
        },
    )
    if business.paused:
        await operator.call("POST", f"/v1/subscriptions/{subscription['id']}/pause")
