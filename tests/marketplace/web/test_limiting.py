"""The limits of keys and addresses: the same for all processes together, and never an error of their own."""

import asyncio
import itertools
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.database.embedded import Valkey
from marketplace.runtime import clock
from marketplace.runtime.settings import Settings
from marketplace.web import limiting
from marketplace.web.limiting import WINDOW_S, Limiter, OwnWindows, RateBudget, RatePolicy
from tests.builders.service import NOWHERE, Served, free_port, new_client, process, serve, until
from tests.waiting import PATIENCE

TEN = RatePolicy(budget=RateBudget.calls, quota=10)


@given(st.integers(1, 5), st.lists(st.floats(0, 50), max_size=40))
def test_in_no_minute_does_one_process_let_through_more_than_the_quota(quota: int, pauses: list[float]) -> None:
    windows, policy, now, let_through = (
        OwnWindows(),
        RatePolicy(budget=RateBudget.calls, quota=quota),
        0.0,
        list[float](),
    )
    for pause in pauses:
        now += pause
        standing = windows.count(policy, "a", now)
        let_through += [now] if standing.allowed else []
        within = sum(1 for at in let_through if at > now - WINDOW_S)
        assert standing.remaining == quota - within >= 0
        assert standing.allowed or within == quota
        assert 1 <= standing.reset_s <= WINDOW_S


def test_names_and_budgets_are_counted_apart() -> None:
    windows, policy = OwnWindows(), RatePolicy(budget=RateBudget.calls, quota=1)
    other = RatePolicy(budget=RateBudget.submissions, quota=1)
    allowed = [
        windows.count(*call, 0.0).allowed for call in ((policy, "a"), (policy, "b"), (other, "a"), (policy, "a"))
    ]
    assert allowed == [True, True, True, False]


def test_a_process_remembers_a_bounded_number_of_names() -> None:
    windows = OwnWindows()
    for number in range(11_000):
        windows.count(TEN, str(number), 0.0)
    assert windows.count(TEN, "10999", 0.0).remaining == 8
    assert windows.count(TEN, "0", 0.0).remaining == 9


@asynccontextmanager
async def limiter(valkey_url: str) -> AsyncIterator[Limiter]:
    made = Limiter(valkey_url)
    try:
        yield made
    finally:
        await made.close()


async def test_two_limiters_on_one_valkey_keep_one_count(valkey_url: str) -> None:
    async with limiter(valkey_url) as first, limiter(valkey_url) as other:
        results = [await each.count(TEN, "a") for _ in range(6) for each in (first, other)]
        assert [standing.allowed for standing in results] == [True] * 10 + [False] * 2
        assert [standing.remaining for standing in results] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]
        assert all(1 <= standing.reset_s <= WINDOW_S for standing in results)
        assert (await first.count(TEN, "b")).allowed


async def test_of_many_at_once_no_more_than_the_quota_gets_through_whoever_counts_ahead(valkey_url: str) -> None:
    policy = RatePolicy(budget=RateBudget.submissions, quota=600)
    limiters = [Limiter(valkey_url) for _ in range(3)]
    answers = [await limiter.count(policy, "busy") for _ in range(300) for limiter in limiters]
    assert sum(answer.allowed for answer in answers) == 600
    assert (answers[0].remaining, answers[-1].remaining) == (599, 0)
    for limiter in limiters:
        await limiter.close()


async def test_without_valkey_a_limiter_counts_by_itself() -> None:
    async with limiter(NOWHERE) as alone:
        results = [await alone.count(TEN, "a") for _ in range(12)]
        assert [standing.allowed for standing in results] == [True] * 10 + [False] * 2


async def test_a_valkey_that_never_answers_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_s = 0.8
    monkeypatch.setattr(limiting, "VALKEY_LIMIT_S", limit_s)
    monkeypatch.setattr(limiting, "BACK_OFF_S", PATIENCE)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with limiter(f"redis://127.0.0.1:{silent.getsockname()[1]}") as patient:
            began = clock.monotonic()
            assert (await patient.count(TEN, "a")).allowed
            first = clock.monotonic() - began
            results = [await patient.count(TEN, "a") for _ in range(11)]
            assert first >= limit_s
            assert clock.monotonic() - began < first + 10 * limit_s  # eleven, of which none waits
            assert Counter(standing.allowed for standing in results) == {True: 9, False: 2}


async def test_a_valkey_that_is_back_counts_again_for_all(enterable_dir: Path) -> None:
    valkey = Valkey(enterable_dir)
    async with limiter(valkey.url) as first, limiter(valkey.url) as other:
        for each in (first, other):
            assert (await each.count(TEN, "before")).remaining == 9
        await valkey.start()
        try:
            names = (str(number) for number in itertools.count())

            async def shared() -> bool:
                name = next(names)
                return [(await each.count(TEN, name)).remaining for each in (first, other)] == [9, 8]

            assert await until(shared, PATIENCE)
        finally:
            await valkey.stop()


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    tight = msgspec.structs.replace(settings, rate_per_minute=20, failures_per_minute=5)
    async with serve(tight) as served:
        yield served


def fields(answer: httpx.Response) -> tuple[str, str]:
    return answer.headers["ratelimit-policy"], answer.headers["ratelimit"]


async def test_every_answer_of_a_limited_route_says_how_the_caller_stands(api: Served) -> None:
    first_answer = await api.call("GET", "/v1/businesses")
    bad = await api.call("GET", "/v1/businesses?limit=0")
    none = await api.call("GET", "/v1/businesses", key="")
    assert fields(first_answer) == ('"calls";q=20;w=60', '"calls";r=19;t=60')
    assert (bad.status_code, bad.headers["ratelimit"].split(";t=")[0]) == (422, '"calls";r=18')
    assert (none.status_code, fields(none)) == (401, ('"failures";q=5;w=60', '"failures";r=4;t=60'))


async def test_a_key_over_its_limit_is_told_when_to_come_back_and_another_is_not_concerned(api: Served) -> None:
    _, provider = await api.provider()
    _, business = await api.business()
    answers = [await api.call("GET", "/v1/wallet", key=business) for _ in range(22)]
    assert Counter(answer.status_code for answer in answers) == {200: 20, 429: 2}
    refused = answers[-1]
    assert (refused.headers["content-type"], refused.json()["code"]) == ("application/problem+json", "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit"] == f'"calls";r=0;t={refused.headers["retry-after"]}'
    assert (await api.call("GET", "/v1/inquiries", key=provider)).status_code == 200


async def test_what_a_provider_posts_is_counted_apart_from_what_it_asks(api: Served) -> None:
    _, provider = await api.provider()
    posted = await api.call("POST", "/v1/suppressions", {"email": "a@example.com", "reason": "asked"}, key=provider)
    inquiries = await api.call("GET", "/v1/inquiries", key=provider)
    assert posted.headers["ratelimit-policy"] == '"submissions";q=6000;w=60'
    assert inquiries.headers["ratelimit-policy"] == '"calls";q=20;w=60'


async def test_a_key_may_have_a_rate_of_its_own(api: Served) -> None:
    business, _ = await api.business()
    key_form = {"kind": "business", "owner_id": business, "mode": "live", "name": "slow", "rate_per_minute": 2}
    made = await api.make("/v1/keys", key_form)
    answers = [await api.call("GET", "/v1/wallet", key=made["key"]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    keys = (await api.call("GET", f"/v1/keys?owner_id={business}")).json()["data"]
    assert ("slow", 2) in [(key["name"], key["rate_per_minute"]) for key in keys]
    for rate in (0, 60_001, 1.5):
        refused = await api.call("POST", "/v1/keys", key_form | {"rate_per_minute": rate})
        assert refused.status_code == 422


async def test_an_address_that_fails_too_often_is_refused_and_a_good_key_from_it_is_not(api: Served) -> None:
    answers = [
        await api.call("GET", "/v1/wallet", key="x", headers={"x-forwarded-for": f"203.0.113.{number}"})
        for number in range(7)
    ]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 2
    assert answers[-1].headers["retry-after"]
    assert (await api.call("GET", "/v1/businesses")).status_code == 200


async def test_four_processes_let_through_one_quota_together(settings: Settings, tmp_path: Path) -> None:
    """400 calls for a key that may make 50; and not one more while the window lasts.

    A process too busy to hear from Valkey in time counts by itself, and says so: then its own quota comes on top.
    """
    async with AsyncExitStack() as stack:
        ports = [free_port() for _ in range(4)]
        for port in ports:
            log = tmp_path / f"{port}.log"
            await stack.enter_async_context(process(settings, "serve", log, MARKETPLACE_PORT=str(port)))
        served = await stack.enter_async_context(serve(settings))
        business, _ = await served.business()
        key_form = {"kind": "business", "owner_id": business, "mode": "live", "name": "x", "rate_per_minute": 50}
        key = (await served.make("/v1/keys", key_form))["key"]
        client = await stack.enter_async_context(new_client())

        async def call(port: int) -> int:
            url = f"http://127.0.0.1:{port}/v1/wallet"
            return (await client.get(url, headers={"authorization": f"Bearer {key}"})).status_code

        async def ready() -> bool:
            try:
                return all([(await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200 for port in ports])
            except httpx.TransportError:
                return False

        assert await until(ready, PATIENCE)
        answers = Counter[int]()
        for _ in range(10):
            answers.update(await asyncio.gather(*(call(port) for port in ports * 10)))
        alone = sum("limits_kept_alone" in (tmp_path / f"{port}.log").read_text() for port in ports)
        assert 50 <= answers[200] <= 50 * (1 + alone)
        assert answers == {200: answers[200], 429: 400 - answers[200]}
        assert alone or {await call(port) for port in ports} == {429}
