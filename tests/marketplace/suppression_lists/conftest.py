"""A served API for the tests of the directory."""

from collections.abc import AsyncIterator

import pytest

from marketplace.runtime.settings import Settings
from tests.builders.service import Served, serve


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Served]:
    async with serve(settings) as served:
        yield served
