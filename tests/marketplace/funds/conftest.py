"""A served API for the tests of funds."""

from collections.abc import AsyncIterator

import pytest

from marketplace.settings import Settings
from tests.builders.service import Served, serve


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served
