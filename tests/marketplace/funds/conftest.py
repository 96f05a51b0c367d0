"""The API, and a business that buys leads, for every test of funds that asks."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from marketplace.runtime.settings import Settings
from tests.builders.feedback import Desk, desk
from tests.builders.service import Served, serve


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served


@pytest.fixture
async def buying(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings)
