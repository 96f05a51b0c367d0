"""Waits end, and say what they waited for."""

import asyncio
from typing import Any

import pytest

from tests import waiting
from tests.conftest import limited
from tests.waiting import give_back, within


async def test_a_wait_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match=r"^waited 0\.01 s in vain for Godot$"):
        await within(0.01, asyncio.Event().wait(), "Godot")
    assert await within(10, asyncio.sleep(0, "came"), "somebody else") == "came"


async def test_a_timeout_of_what_is_waited_for_stays_what_it_is() -> None:
    async def impatient() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await within(10, impatient(), "nothing")


async def test_a_test_that_hangs_is_ended_where_it_waits() -> None:
    unwound = False

    async def hangs(given: int) -> None:
        nonlocal unwound
        try:
            await asyncio.Event().wait()
        finally:
            unwound = given == 7

    with pytest.raises(AssertionError, match="the test to end"):
        await limited(hangs, 0.01)(given=7)
    assert unwound


def test_every_test_has_a_limit_and_ends_its_process_beyond_it(pytestconfig: pytest.Config) -> None:
    assert float(pytestconfig.getini("faulthandler_timeout")) > 0
    assert pytestconfig.getini("faulthandler_exit_on_timeout")


async def test_a_connection_that_is_never_given_back_fails_the_test_instead_of_being_waited_for(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "CLOSING_SECONDS", 0.1)
    await pool.acquire()
    with pytest.raises(AssertionError, match="given back"):
        await give_back(pool)
