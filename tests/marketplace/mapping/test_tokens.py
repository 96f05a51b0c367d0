"""Access tokens: fetched once, used until their end, and none from a server that gives none."""

import asyncio
from ipaddress import ip_network
from urllib.parse import parse_qs

import pytest

from marketplace.mapping.shapes import ClientCredentials
from marketplace.mapping.tokens import AccessTokens, read_token
from marketplace.webhook.address import AddressRules
from tests.receivers import Behaviour, Receiver, answer, drop_after_read, html_page, redirect, status

GUARD = AddressRules(http_allowed=True, networks=(ip_network("127.0.0.0/8"),))
TOKEN = answer(200, b'{"access_token":"first","token_type":"Bearer","expires_in":3600}')


def client_at(url: str, scope: str | None = None) -> ClientCredentials:
    return ClientCredentials(token_url=url, client_id="id", client_secret="s&cret", scope=scope)


async def test_many_deliveries_fetch_one_token_and_use_it_to_its_end() -> None:
    async with Receiver(TOKEN, answer(200, b'{"access_token":"second"}')) as server:
        tokens, client = AccessTokens(GUARD), client_at(server.url, "leads")
        assert set(await asyncio.gather(*(tokens.find(client) for _ in range(5)))) == {"first"}
        assert await tokens.find(client) == "first"
        assert len(server.visits) == 1
        form = parse_qs(server.visits[0].body.decode())
        assert form == {
            "grant_type": ["client_credentials"], "client_id": ["id"], "client_secret": ["s&cret"], "scope": ["leads"],
        }  # fmt: skip
        tokens.drop(client)
        assert await tokens.find(client) == "second"


async def test_another_client_has_a_token_of_its_own() -> None:
    async with Receiver(TOKEN) as server:
        tokens = AccessTokens(GUARD)
        await tokens.find(client_at(server.url))
        await tokens.find(client_at(server.url, "other"))
        assert len(server.visits) == 2


@pytest.mark.parametrize(
    "behaviour",
    [
        status(401), status(500), html_page, drop_after_read, redirect("http://127.0.0.1:9/"),
        answer(200, b'{"error":"invalid_client"}'),
    ],
)  # fmt: skip
async def test_a_server_that_gives_no_token_gives_none(behaviour: Behaviour) -> None:
    async with Receiver(behaviour, TOKEN) as server:
        tokens, client = AccessTokens(GUARD), client_at(server.url)
        assert await tokens.find(client) is None
        assert await tokens.find(client) == "first"


async def test_a_token_url_on_our_own_network_is_not_asked() -> None:
    assert await AccessTokens(AddressRules()).find(client_at("https://169.254.169.254/token")) is None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b'{"access_token":""}', b'{"access_token":"a\\r\\nX: y"}', b'{"access_token":"a b"}',
        b'{"access_token":"a","token_type":"mac"}', b'{"access_token":1}', b"[" * 50_000, b"\xff",
    ],
)  # fmt: skip
def test_an_answer_without_a_usable_token_is_none(body: bytes) -> None:
    assert read_token(body) is None
