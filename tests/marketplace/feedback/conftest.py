"""A small marketplace behind the API, with one business that was delivered a lead or more."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from marketplace.settings import Settings
from tests.builders.feedback import Desk, desk


@pytest.fixture
async def told(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk(stack, settings)
