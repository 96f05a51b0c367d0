"""A small marketplace with an API, whose business is delivered leads by each test."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from marketplace.runtime.settings import Settings
from tests.builders.feedback import Desk, desk


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings)
