"""Access tokens of clients (OAuth 2.0 client credentials, RFC 6749, section 4.4), each used almost to its end."""

import asyncio
import re
from collections import OrderedDict
from hashlib import sha256
from typing import Final, TypeAlias
from urllib.parse import urlencode

import msgspec

from marketplace.mapping.shapes import ClientCredentials
from marketplace.runtime import clock
from marketplace.webhook.address import AddressRules
from marketplace.webhook.transport import ConnectionInfo, WebhookMessage, post
from routing.delivery import AnswerReceived

DEADLINE_SECONDS: Final = 5.0
"Limit of one request for a token: the lead waits for it."
EARLY_SECONDS: Final = 30.0
"Time before its end from which a token is not used any more."
USUAL_SECONDS: Final = 300.0
"Life of a token whose answer states none."
LONGEST_SECONDS: Final = 86_400.0
MOST_TOKENS: Final = 1_000
"Tokens of one process; the one that was not used for longest is dropped."
_TOKEN: Final = re.compile(r"[!-~]{1,4096}")

TokenKey: TypeAlias = bytes


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of a token server, as far as it is read."""

    access_token: str
    token_type: str = "bearer"
    expires_in: float | None = None


class FetchedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token and the time of `clock.monotonic` until which it is used."""

    token: str
    until: float


class AccessTokens:
    """Tokens of the clients that this process acts for. A token is fetched by one request, however many wait for it."""

    def __init__(self, guard: AddressRules) -> None:
        self._guard = guard
        self._tokens: OrderedDict[TokenKey, FetchedToken] = OrderedDict()
        self._fetching: dict[TokenKey, asyncio.Task[FetchedToken | None]] = {}

    async def find(self, client: ClientCredentials) -> str | None:
        """Return a token of the client, or None if its server gives none."""
        key = _key_of(client)
        fetched = self._tokens.get(key)
        if fetched is not None and clock.monotonic() < fetched.until:
            self._tokens.move_to_end(key)
            return fetched.token
        task = self._fetching.get(key)
        if task is None:
            task = self._fetching[key] = asyncio.create_task(self._fetch(key, client))
            task.add_done_callback(lambda _: self._fetching.pop(key, None))
        fetched = await asyncio.shield(task)
        return None if fetched is None else fetched.token

    def drop(self, client: ClientCredentials) -> None:
        """Forget the client's token: the endpoint did not accept it."""
        self._tokens.pop(_key_of(client), None)

    async def _fetch(self, key: TokenKey, client: ClientCredentials) -> FetchedToken | None:
        fields = {
            "grant_type": "client_credentials",
            "client_id": client.client_id,
            "client_secret": client.client_secret,
        }
        if client.scope is not None:
            fields["scope"] = client.scope
        headers = (("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json"))
        message = WebhookMessage(headers=headers, body=urlencode(fields).encode())

        async def send(_: ConnectionInfo) -> WebhookMessage:
            return message

        attempt = await post(client.token_url, guard=self._guard, on_connected=send, deadline_seconds=DEADLINE_SECONDS)
        answer = attempt.observation
        if not isinstance(answer, AnswerReceived) or answer.status != 200 or answer.truncated:
            return None
        fetched = read_token(answer.body)
        if fetched is not None:
            self._tokens[key] = fetched
            while len(self._tokens) > MOST_TOKENS:
                self._tokens.popitem(last=False)
        return fetched


def read_token(body: bytes) -> FetchedToken | None:
    """Return the token in an answer, or None without a usable one of the type bearer."""
    try:
        answer = msgspec.json.decode(body, type=TokenAnswer)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if _TOKEN.fullmatch(answer.access_token) is None or answer.token_type.lower() != "bearer":
        return None
    life = min(LONGEST_SECONDS, USUAL_SECONDS if answer.expires_in is None else answer.expires_in)
    return FetchedToken(token=answer.access_token, until=clock.monotonic() + max(0.0, life - EARLY_SECONDS))


def _key_of(client: ClientCredentials) -> TokenKey:
    return sha256(msgspec.json.encode(client)).digest()
