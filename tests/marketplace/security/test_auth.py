"""Keys: what they are made of, what they open, and that a guess tells nothing."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from marketplace.database.db import open_pool
from marketplace.runtime import clock, errors
from marketplace.runtime.settings import Settings
from marketplace.security.auth import (
    SCOPES,
    CallerKind,
    Principal,
    Scope,
    _check,
    authenticate,
    create_key,
    is_key_id,
    key_id,
    revoke_key,
)
from marketplace.security.sealing import Sealer


class Desk:
    """A database that holds keys, and one live key of an operator in it."""

    def __init__(self, pool: Any, owner: Any, sealer: Sealer, key: str) -> None:
        self.pool, self.owner, self.sealer, self.key = pool, owner, sealer, key

    async def ask(self, text: str | None) -> Principal:
        return await authenticate(self.pool, self.sealer, text, clock.now())

    async def refusal(self, text: str | None) -> errors.MarketplaceError:
        with pytest.raises(errors.NotAuthenticated) as raised:
            await self.ask(text)
        return raised.value


@pytest.fixture
async def desk(settings: Settings, pool: Any) -> AsyncIterator[Desk]:
    sealer = Sealer(settings.master_key, settings.pepper)
    api = await open_pool(settings.database_url or "", "marketplace_api", size=2)
    async with api, pool.acquire() as connection:
        key = await create_key(connection, sealer, kind=CallerKind.operator, owner_id=None, mode="live", name="first")
        yield Desk(api, connection, sealer, key)


async def test_a_key_opens_what_its_kind_may_and_remembers_its_mode(desk: Desk) -> None:
    caller = await desk.ask(f"Bearer {desk.key}")
    assert (caller.kind, caller.mode, caller.owner_id) == (CallerKind.operator, "live", None)
    assert caller.key_id == key_id(desk.key)
    assert (await desk.ask(f"bearer  {desk.key} ")).key_id == caller.key_id
    caller.demand(Scope.operate)
    with pytest.raises(errors.ScopeMissing):
        caller.demand(Scope.leads_read)
    with pytest.raises(errors.ScopeMissing):
        _ = caller.owner


async def test_the_secret_is_stored_nowhere(desk: Desk) -> None:
    row = await desk.owner.fetchrow("select api_key::text as text, secret_hmac from api_key")
    secret = desk.key.split("_")[3]
    assert secret not in row["text"]
    assert secret.encode().hex() not in row["text"]
    assert row["secret_hmac"] == desk.sealer.keyed_hash("api-key", secret)


async def test_whatever_is_wrong_with_a_guess_the_answer_is_the_same(desk: Desk, settings: Settings) -> None:
    other = await create_key(
        desk.owner, desk.sealer, kind=CallerKind.operator, owner_id=None, mode="live", name="second"
    )
    strange = Sealer(settings.pepper, settings.master_key)  # another installation's secrets
    foreign = await create_key(desk.owner, strange, kind=CallerKind.operator, owner_id=None, mode="live", name="third")
    await desk.owner.execute("delete from api_key where name = 'second'")
    unknown, wrong_secret = await desk.refusal(f"Bearer {other}"), await desk.refusal(f"Bearer {foreign}")
    assert (type(unknown), unknown.detail) == (type(wrong_secret), wrong_secret.detail)


async def test_a_key_of_one_mode_does_not_open_the_other_even_with_a_check_that_fits(desk: Desk) -> None:
    text = desk.key.rsplit("_", 1)[0].replace("lk_live_", "lk_test_")
    refusal = await desk.refusal(f"Bearer {text}_{_check(text)}")
    assert isinstance(refusal, errors.NotAuthenticated)


async def test_what_cannot_be_a_key_is_refused_without_asking_the_database(desk: Desk) -> None:
    await desk.pool.close()
    altered = desk.key[:-1] + ("0" if desk.key[-1] != "0" else "1")
    other_mode = desk.key.replace("live", "test")
    for text in (
        None,
        "",
        "Bearer",
        f"Basic {desk.key}",
        desk.key,
        f"Bearer {altered}",
        f"Bearer {other_mode}",
        "Bearer a_b",
    ):
        await desk.refusal(text)


async def test_a_revoked_key_stays_revoked_and_an_expired_one_expires_to_the_instant(desk: Desk) -> None:
    now = clock.now()
    until = await create_key(
        desk.owner, desk.sealer, kind=CallerKind.operator, owner_id=None, mode="live", name="x", expires_at=now
    )
    before = await authenticate(desk.pool, desk.sealer, f"Bearer {until}", now - timedelta(microseconds=1))
    assert before.key_id == key_id(until)
    with pytest.raises(errors.KeyExpired):
        await authenticate(desk.pool, desk.sealer, f"Bearer {until}", now)
    first = await revoke_key(desk.owner, key_id(desk.key), now)
    again = await revoke_key(desk.owner, key_id(desk.key), now + timedelta(days=1))
    assert first is not None
    assert again is not None
    assert again.revoked_at == first.revoked_at
    assert isinstance(await desk.refusal(f"Bearer {desk.key}"), errors.KeyRevoked)
    assert await revoke_key(desk.owner, "0" * 16, now) is None


def test_every_kind_has_scopes_and_no_two_kinds_share_one() -> None:
    assert SCOPES.keys() == set(CallerKind)
    assert set.union(*map(set, SCOPES.values())) == set(Scope)
    assert sum(len(scopes) for scopes in SCOPES.values()) == len(Scope)


async def test_no_two_keys_are_alike(desk: Desk) -> None:
    made = [
        await create_key(desk.owner, desk.sealer, kind=CallerKind.operator, owner_id=None, mode="test", name="x")
        for _ in range(20)
    ]
    assert len({text.split("_")[2] for text in made} | {text.split("_")[3] for text in made}) == 40
    assert all(text.startswith("lk_test_") and is_key_id(key_id(text)) for text in made)
    assert not is_key_id(key_id(made[0]).upper() + "u")
